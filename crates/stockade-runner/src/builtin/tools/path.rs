//! Paths as models write them, in one spelling.

use stockade_ports::sandbox::WORKSPACE;

/// The one spelling of a path: relative to the workspace where it is inside, else absolute.
///
/// `.` and `..` are resolved by their letters. A symbolic link can still lead elsewhere;
/// it leads to another place in the sandbox and nowhere else.
pub(crate) fn normalized(text: &str) -> Result<String, String> {
    if text.is_empty() {
        return Err("the path is empty".to_owned());
    }
    let whole = if text.starts_with('/') {
        text.to_owned()
    } else {
        format!("{WORKSPACE}/{text}")
    };
    let mut parts: Vec<&str> = Vec::new();
    for part in whole.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop();
            }
            part => parts.push(part),
        }
    }
    let absolute = format!("/{}", parts.join("/"));
    match absolute.strip_prefix(WORKSPACE) {
        Some("") => Ok(".".to_owned()),
        Some(rest) if rest.starts_with('/') => Ok(rest[1..].to_owned()),
        _ => Ok(absolute),
    }
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
        assert_eq!(absolute("a"), "/workspace/a");
        assert_eq!(absolute("."), "/workspace");
        assert_eq!(absolute("/etc"), "/etc");
    }
}
