//! Import: access lists of others as an environment of this project.
//!
//! What is read is refused where it has a field that is not known, with the field's path. What
//! means something else here is said in [`Imported::notes`]; an import may come out narrower
//! than what it was made from, and never wider.

mod open_envelope;
mod reader;
mod smokescreen;

use stockade_domain::{Environment, NetworkLevel};

pub use open_envelope::open_envelope;
pub use reader::ImportError;
pub use smokescreen::smokescreen;

/// An environment made from somebody else's list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Imported {
    /// The environment, in this project's words.
    pub environment: Environment,
    /// What means something else here, or could not be taken over.
    pub notes: Vec<String>,
}

/// An environment that lets out what its rules say and nothing else.
fn closed(name: &str) -> Environment {
    Environment::named(&slug(name), NetworkLevel::Custom)
}

/// Opens an environment, as far as an import may: the operator still has to agree.
fn opened(environment: &mut Environment, notes: &mut Vec<String>, why: &str) {
    environment.network = NetworkLevel::Full;
    notes.push(format!(
        "{why}: this is 'network: full', which does not compile before you set 'acknowledge_full_network: true'"
    ));
}

/// A name that can stand in a configuration and on a command line.
fn slug(name: &str) -> String {
    let plain = |c: char| {
        if c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-') {
            c
        } else {
            '-'
        }
    };
    let slug: String = name.chars().take(60).map(plain).collect();
    if slug.is_empty() { "imported".to_owned() } else { slug }
}

/// Checks that an import compiles, as it would be used; `full` counts as acknowledged here.
fn checked(imported: Imported) -> Result<Imported, ImportError> {
    let agreed = Environment {
        acknowledge_full_network: imported.environment.network == NetworkLevel::Full,
        ..imported.environment.clone()
    };
    match crate::EgressRules::compile(&agreed) {
        Ok(_) => Ok(imported),
        Err(cause) => Err(ImportError::Result(cause)),
    }
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
