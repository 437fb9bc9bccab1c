//! `cargo xtask layers`: arrows point down only.

mod check;
mod picture;
mod prove;
mod table;

use anyhow::{Result, bail};

use crate::workspace::Workspace;

#[derive(clap::Args)]
pub(crate) struct Args {
    /// Check the checker: feed it made-up mistakes and fail unless it objects to each
    #[arg(long)]
    prove: bool,
    /// Print the table of layers and what each crate may import
    #[arg(long)]
    list: bool,
}

pub(crate) fn run(args: &Args) -> Result<()> {
    if args.list {
        list();
        return Ok(());
    }
    if args.prove {
        let mistakes = prove::prove()?;
        println!("layers: the checker objects to each of {mistakes} made-up mistakes and to nothing else");
        return Ok(());
    }
    let workspace = Workspace::load()?;
    let mut objections: Vec<String> = check::check(&workspace).iter().map(ToString::to_string).collect();
    objections.extend(check_map(&workspace));
    if objections.is_empty() {
        println!("layers: {} crates, every arrow points down", workspace.crates.len());
        return Ok(());
    }
    for objection in &objections {
        eprintln!("layers: {objection}");
    }
    bail!(
        "{} broken rules of the layers (the table: xtask/src/layers/table.rs)",
        objections.len()
    )
}

fn check_map(workspace: &Workspace) -> Vec<String> {
    let map = match std::fs::read_to_string(workspace.root.join("ARCHITECTURE.md")) {
        Ok(map) => map,
        Err(error) => return vec![format!("ARCHITECTURE.md cannot be read: {error}")],
    };
    let objections = picture::check(&map, workspace, |path| workspace.root.join(path).exists());
    objections
        .into_iter()
        .map(|objection| format!("ARCHITECTURE.md {objection}"))
        .collect()
}

fn list() {
    for row in table::TABLE {
        let imports = if row.imports.is_empty() {
            "nothing of ours".to_owned()
        } else {
            row.imports.join(" ")
        };
        println!("{:<10}  {:<20}  {imports}", row.layer.label(), row.name);
    }
}
