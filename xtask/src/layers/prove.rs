//! The positive control of the layer check: a checker that cannot fail proves nothing.
//!
//! It makes up a workspace that follows the table, breaks it in one place at a time, and expects the very
//! checker that `cargo xtask layers` uses to object, naming both ends.

use anyhow::{Result, bail};
use serde_json::{Value, json};

use super::check::{Objection, check};
use super::picture;
use super::table::TABLE;
use crate::workspace::Workspace;

/// One made-up mistake.
struct Mistake {
    what: &'static str,
    /// The crate whose manifest is made wrong.
    from: &'static str,
    /// The dependency it is given.
    to: &'static str,
    /// Its kind in cargo's words: `null`, `"build"` or `"dev"`.
    kind: Option<&'static str>,
}

const fn mistake(what: &'static str, from: &'static str, to: &'static str, kind: Option<&'static str>) -> Mistake {
    Mistake { what, from, to, kind }
}

const MISTAKES: &[Mistake] = &[
    mistake("an adapter imports a role", "stockade-store", "stockade-runner", None),
    mistake(
        "an adapter imports its neighbour",
        "stockade-sandbox",
        "stockade-store",
        None,
    ),
    mistake("a role imports an adapter", "stockade-runner", "stockade-sandbox", None),
    mistake(
        "a role imports another role",
        "stockade-guard",
        "stockade-gateway",
        None,
    ),
    mistake("the core imports a contract", "stockade-domain", "stockade-ports", None),
    mistake(
        "the guest imports a contract that is not its own",
        "stockade-guest",
        "stockade-ports",
        None,
    ),
    mistake("a library imports the binary", "stockade-gateway", "stockade", None),
    mistake(
        "a build script imports upwards",
        "stockade-store",
        "stockade-gate",
        Some("build"),
    ),
    mistake("a test imports upwards", "stockade-store", "stockade-gate", Some("dev")),
    mistake(
        "a role's test imports another role",
        "stockade-runner",
        "stockade-gateway",
        Some("dev"),
    ),
    mistake(
        "a black-box test looks inside",
        "stockade-e2e",
        "stockade-store",
        Some("dev"),
    ),
    mistake("the core uses a runtime", "stockade-domain", "tokio", None),
    mistake(
        "the core's tests use a runtime",
        "stockade-policy",
        "tokio",
        Some("dev"),
    ),
    mistake("the guest grows a dependency", "stockade-guest", "regex", None),
    mistake("a role speaks SQL", "stockade-runner", "sqlx", None),
    mistake("a library has untyped errors", "stockade-gateway", "anyhow", None),
];

/// Fails when the checker does not object to a made-up mistake, or objects where there is none.
pub(crate) fn prove() -> Result<usize> {
    let clean = check(&Workspace::from_metadata(&clean_metadata())?);
    if !clean.is_empty() {
        bail!(
            "the layer check objects to a workspace that follows the table: {}",
            join(&clean)
        );
    }
    for mistake in MISTAKES {
        let objections = check(&with_dependency(mistake)?);
        expect(mistake.what, &objections, &[mistake.from, mistake.to])?;
    }
    let objections = check(&with_crate("stockade-novelty")?);
    expect("a crate nobody put in the table", &objections, &["stockade-novelty"])?;
    let objections = check(&without_crate("stockade-bus")?);
    expect("a row whose crate is gone", &objections, &["stockade-bus"])?;
    prove_picture()?;
    Ok(MISTAKES.len() + 3)
}

fn prove_picture() -> Result<()> {
    let workspace = Workspace::from_metadata(&clean_metadata())?;
    let honest: String = TABLE.iter().map(|row| format!("| `{}` |\n", row.name)).collect();
    let clean = picture::check(&honest, &workspace, |_| true);
    if !clean.is_empty() {
        bail!("the picture check objects to an honest picture: {}", clean.join("; "));
    }
    let drifted = format!("{honest}| `stockade-phantom` | see `crates/stockade-phantom/src/lib.rs` |\n");
    let objections = picture::check(&drifted, &workspace, |path| !path.contains("phantom"));
    let named = |word: &str| objections.iter().any(|objection| objection.contains(word));
    if !(named("`stockade-phantom`") && named("crates/stockade-phantom/src/lib.rs")) {
        bail!("the picture check does not object to a crate that does not exist: {objections:?}");
    }
    Ok(())
}

fn expect(what: &str, objections: &[Objection], names: &[&str]) -> Result<()> {
    let [objection] = objections else {
        bail!(
            "{what}: expected exactly one objection, got {}: {}",
            objections.len(),
            join(objections)
        );
    };
    let text = objection.to_string();
    match names.iter().find(|name| !text.contains(**name)) {
        None => Ok(()),
        Some(name) => bail!("{what}: the objection does not name {name}: {text}"),
    }
}

fn join(objections: &[Objection]) -> String {
    objections
        .iter()
        .map(ToString::to_string)
        .collect::<Vec<_>>()
        .join("; ")
}

/// Metadata as cargo would print it for a workspace where every crate imports all that its row allows.
fn clean_metadata() -> Value {
    let packages: Vec<Value> = TABLE.iter().map(|row| package(row.name, row.imports)).collect();
    json!({ "packages": packages, "workspace_root": "/somewhere", "target_directory": "/somewhere/target" })
}

fn package(name: &str, imports: &[&str]) -> Value {
    let deps: Vec<Value> = imports.iter().map(|to| dependency(to, None)).collect();
    json!({ "name": name, "dependencies": deps, "targets": [{ "name": name, "kind": ["lib"] }] })
}

fn dependency(name: &str, kind: Option<&str>) -> Value {
    json!({ "name": name, "kind": kind, "rename": null })
}

fn with_dependency(mistake: &Mistake) -> Result<Workspace> {
    let mut metadata = clean_metadata();
    let packages = metadata["packages"].as_array_mut().into_iter().flatten();
    for package in packages.filter(|package| package["name"] == mistake.from) {
        if let Some(deps) = package["dependencies"].as_array_mut() {
            deps.push(dependency(mistake.to, mistake.kind));
        }
    }
    Workspace::from_metadata(&metadata)
}

fn with_crate(name: &str) -> Result<Workspace> {
    let mut metadata = clean_metadata();
    if let Some(packages) = metadata["packages"].as_array_mut() {
        packages.push(package(name, &[]));
    }
    Workspace::from_metadata(&metadata)
}

/// Also removes the arrows to it, so that the missing row is the only mistake.
fn without_crate(name: &str) -> Result<Workspace> {
    let mut metadata = clean_metadata();
    if let Some(packages) = metadata["packages"].as_array_mut() {
        packages.retain(|package| package["name"] != name);
        for package in packages {
            if let Some(deps) = package["dependencies"].as_array_mut() {
                deps.retain(|dep| dep["name"] != name);
            }
        }
    }
    Workspace::from_metadata(&metadata)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_checker_objects_to_every_made_up_mistake() {
        assert!(prove().unwrap() > 15);
    }

    #[test]
    fn the_control_itself_can_fail() {
        let error = expect("nothing wrong", &[], &["stockade-store"])
            .unwrap_err()
            .to_string();
        assert!(error.contains("exactly one objection"), "{error}");
        let silent = [Objection::UnknownCrate { name: "a".into() }];
        let error = expect("wrong name", &silent, &["stockade-store"])
            .unwrap_err()
            .to_string();
        assert!(error.contains("does not name stockade-store"), "{error}");
    }

    #[test]
    fn metadata_that_cannot_be_read_is_an_error() {
        let mut metadata = clean_metadata();
        metadata["packages"][1]["dependencies"][0]["kind"] = json!("novel");
        let error = format!("{:#}", Workspace::from_metadata(&metadata).unwrap_err());
        assert!(error.contains("stockade-policy") && error.contains("novel"), "{error}");
    }
}
