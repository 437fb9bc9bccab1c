//! Paths as models write them, in one spelling.

use stockade_policy::files::Place;
use stockade_ports::sandbox::WORKSPACE;

/// The one spelling of a path: relative to the workspace where it is inside, else absolute.
///
/// `.` and `..` are resolved by their letters. A symbolic link can still lead elsewhere;
/// it leads to another place in the sandbox and nowhere else.
pub(crate) fn normalized(text: &str) -> Result<String, String> {
    Place::of(text).map(|place| place.as_str().to_owned())
}

/// The absolute path of a normalized one.
pub(crate) fn absolute(normalized: &str) -> String {
    match normalized {
        "." => WORKSPACE.to_owned(),
        path if path.starts_with('/') => path.to_owned(),
        path => format!("{WORKSPACE}/{path}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_spelling_per_place() {
        for (text, expected) in [
            ("a.txt", "a.txt"),
            ("./a//b/../c", "a/c"),
            ("/workspace/a", "a"),
            ("/workspace", "."),
            (".", "."),
            ("../etc/passwd", "/etc/passwd"),
            ("/workspacex/a", "/workspacex/a"),
            ("/../..", "/"),
        ] {
            assert_eq!(normalized(text).as_deref(), Ok(expected), "{text}");
        }
        assert!(normalized("").is_err());
        assert_eq!(
            stockade_policy::files::WORKSPACE,
            WORKSPACE,
            "policy and sandbox mean the same place"
        );
        assert_eq!(absolute("a"), "/workspace/a");
        assert_eq!(absolute("."), "/workspace");
        assert_eq!(absolute("/etc"), "/etc");
    }
}
