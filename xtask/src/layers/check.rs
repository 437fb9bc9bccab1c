//! The rules. Each objection names both ends of the arrow, so that the reader knows which line to change.

use std::fmt;

use super::table::{ALLOWED_EXTERNAL, FENCED, Layer, Row, TABLE, find};
use crate::workspace::{Crate, Dep, DepKind, Workspace};

/// One broken rule.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Objection {
    /// A crate of the workspace that the table does not know.
    UnknownCrate { name: String },
    /// A row of the table without a crate.
    StaleRow { name: String },
    /// An import of one of our crates that the table does not allow.
    Arrow {
        from: String,
        to: String,
        rule: &'static str,
    },
    /// An outside crate in a crate that keeps a short list of them.
    External { from: String, to: String },
    /// An outside crate that has other owners.
    Fence {
        from: String,
        to: String,
        owners: String,
        why: &'static str,
    },
}

impl fmt::Display for Objection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::UnknownCrate { name } => {
                write!(
                    f,
                    "{name}: not in the table of layers; give it a row in xtask/src/layers/table.rs"
                )
            }
            Self::StaleRow { name } => write!(f, "{name}: in the table of layers, but not in the workspace"),
            Self::Arrow { from, to, rule } => write!(f, "{from} -> {to}: {rule}"),
            Self::External { from, to } => {
                write!(
                    f,
                    "{from} -> {to}: not on the short list of outside crates that {from} may use"
                )
            }
            Self::Fence { from, to, owners, why } => write!(f, "{from} -> {to}: {to} belongs to {owners}: {why}"),
        }
    }
}

/// Every broken rule of the workspace; empty means that all hold.
pub(crate) fn check(workspace: &Workspace) -> Vec<Objection> {
    let mut objections = Vec::new();
    for krate in &workspace.crates {
        match find(&krate.name) {
            None => objections.push(Objection::UnknownCrate {
                name: krate.name.clone(),
            }),
            Some(row) => {
                objections.extend(
                    krate
                        .deps
                        .iter()
                        .filter_map(|dep| check_dep(workspace, krate, row, dep)),
                );
            }
        }
    }
    let missing = TABLE
        .iter()
        .filter(|row| !workspace.crates.iter().any(|krate| krate.name == row.name));
    objections.extend(missing.map(|row| Objection::StaleRow {
        name: row.name.to_owned(),
    }));
    objections
}

fn check_dep(workspace: &Workspace, krate: &Crate, row: &Row, dep: &Dep) -> Option<Objection> {
    let ours = find(&dep.name).is_some() || workspace.crates.iter().any(|other| other.name == dep.name);
    if ours {
        check_ours(krate, row, dep)
    } else {
        check_external(krate, row, dep)
    }
}

/// Normal and build dependencies follow the table to the letter. Tests and examples may look at any lower layer
/// (a role may be tried on a real store), but never sideways and never up.
fn check_ours(krate: &Crate, row: &Row, dep: &Dep) -> Option<Objection> {
    if row.imports.contains(&dep.name.as_str()) || dep.name == krate.name {
        return None;
    }
    let target = find(&dep.name).map(|to| to.layer);
    let lower = target.is_some_and(|layer| layer < row.layer);
    if dep.kind == DepKind::Dev && lower && row.layer != Layer::Beside {
        return None;
    }
    let rule = match target {
        None => "the imported crate is not in the table of layers",
        Some(Layer::Binary | Layer::Beside) => "nothing imports a program",
        Some(layer) if layer > row.layer => "an import upwards",
        Some(layer) if layer == row.layer => "an import sideways",
        Some(_) => "an import downwards that the table does not list",
    };
    Some(Objection::Arrow {
        from: krate.name.clone(),
        to: dep.name.clone(),
        rule,
    })
}

/// What a test uses from outside is its own affair, except in the core: there a test on a runtime is a sign that
/// the code is not pure.
fn check_external(krate: &Crate, row: &Row, dep: &Dep) -> Option<Objection> {
    let from = krate.name.clone();
    let to = dep.name.clone();
    if dep.kind == DepKind::Dev {
        let runtime = to == "tokio" || FENCED.iter().any(|(name, ..)| *name == to);
        return (row.layer == Layer::Core && runtime).then_some(Objection::External { from, to });
    }
    let short_list = ALLOWED_EXTERNAL.iter().find(|(name, _)| *name == from);
    if short_list.is_some_and(|(_, allowed)| !allowed.contains(&to.as_str())) {
        return Some(Objection::External { from, to });
    }
    let (_, owners, why) = FENCED.iter().find(|(name, ..)| *name == to)?;
    let outsider = !owners.contains(&from.as_str());
    outsider.then(|| Objection::Fence {
        from,
        to,
        owners: owners.join(", "),
        why,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_itself_points_down() {
        for row in TABLE {
            for import in row.imports {
                let target = find(import).unwrap_or_else(|| panic!("{} imports {import}, which has no row", row.name));
                let gate = *import == "stockade-gate" && row.layer == Layer::Role;
                let within = row.name == "stockade-policy" && *import == "stockade-domain";
                assert!(
                    target.layer < row.layer || gate || within,
                    "{} -> {import} does not point down",
                    row.name
                );
            }
        }
    }

    #[test]
    fn every_core_crate_has_a_short_list() {
        for row in TABLE.iter().filter(|row| row.layer == Layer::Core) {
            assert!(
                ALLOWED_EXTERNAL.iter().any(|(name, _)| *name == row.name),
                "{} has none",
                row.name
            );
        }
    }

    #[test]
    fn every_owner_of_a_fence_exists() {
        for (fenced, owners, _) in FENCED {
            for owner in *owners {
                assert!(find(owner).is_some(), "{owner} owns {fenced} but has no row");
            }
        }
    }
}
