//! Patterns: literal text in which `*` stands for any text, also none.

/// Whether the whole of `text` matches `pattern`.
pub fn matches(pattern: &str, text: &str) -> bool {
    let mut parts = pattern.split('*');
    let first = parts.next().unwrap_or_default();
    let Some(mut rest) = text.strip_prefix(first) else {
        return false;
    };
    let mut parts: Vec<&str> = parts.collect();
    let Some(last) = parts.pop() else {
        return rest.is_empty();
    };
    for part in parts {
        let Some(at) = rest.find(part) else { return false };
        rest = &rest[at + part.len()..];
    }
    rest.ends_with(last)
}

#[cfg(test)]
mod tests {
    use super::matches;

    #[test]
    fn a_star_is_any_text() {
        for (pattern, text) in [
            ("*", ""),
            ("git push*", "git push origin"),
            ("*.rs", "src/a.rs"),
            ("a*b*c", "aXbbYc"),
            ("a", "a"),
            ("a*a", "aa"),
        ] {
            assert!(matches(pattern, text), "{pattern} / {text}");
        }
        for (pattern, text) in [
            ("a", "ab"),
            ("*.rs", "a.rsx"),
            ("a*a", "a"),
            ("git push*", "git  push"),
            ("", "x"),
        ] {
            assert!(!matches(pattern, text), "{pattern} / {text}");
        }
    }
}
