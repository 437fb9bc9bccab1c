//! Colours where a terminal shows them, and text from inside a sandbox made harmless.

use std::{env, io::IsTerminal as _, sync::LazyLock};

static COLOURS: LazyLock<bool> = LazyLock::new(|| std::io::stderr().is_terminal() && env::var_os("NO_COLOR").is_none());

fn paint(code: &str, text: &str) -> String {
    if *COLOURS {
        format!("\x1b[{code}m{text}\x1b[0m")
    } else {
        text.to_owned()
    }
}

/// Something that went well.
pub(crate) fn good(text: &str) -> String {
    paint("32", text)
}

/// Something that went wrong or was refused.
pub(crate) fn bad(text: &str) -> String {
    paint("31", text)
}

/// Something that waits for a person.
pub(crate) fn wait(text: &str) -> String {
    paint("33", text)
}

/// Something of less importance.
pub(crate) fn dim(text: &str) -> String {
    paint("2", text)
}

/// Something of more importance.
pub(crate) fn bold(text: &str) -> String {
    paint("1", text)
}

/// Text an agent or a model wrote: control characters become visible, so that it can
/// neither move the cursor nor answer a question in the reader's place.
pub(crate) fn clean(text: &str) -> String {
    text.chars()
        .map(|c| match c {
            '\n' | '\t' => c,
            // The Unicode direction overrides reorder what is read.
            '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => '\u{fffd}',
            c if c.is_control() => '\u{fffd}',
            c => c,
        })
        .collect()
}

/// One line of at most `width` characters.
pub(crate) fn line(text: &str, width: usize) -> String {
    let flat = clean(text).split_whitespace().collect::<Vec<_>>().join(" ");
    if flat.chars().count() <= width {
        return flat;
    }
    flat.chars().take(width.saturating_sub(1)).chain(['…']).collect()
}

/// Bytes for people, rounded.
pub(crate) fn rough(count: u64) -> String {
    match count {
        0..1_000 => format!("{count} B"),
        1_000..1_000_000 => format!("{:.1} kB", count as f64 / 1e3),
        1_000_000..1_000_000_000 => format!("{:.1} MB", count as f64 / 1e6),
        _ => format!("{:.2} GB", count as f64 / 1e9),
    }
}

/// A round number of bytes, exactly.
pub(crate) fn bytes(count: u64) -> String {
    const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];
    let mut value = count;
    let mut unit = 0;
    while value >= 1024 && value.is_multiple_of(1024) && unit + 1 < UNITS.len() {
        value /= 1024;
        unit += 1;
    }
    format!("{value} {}", UNITS[unit])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_agent_cannot_steer_the_terminal() {
        assert_eq!(
            clean("a\x1b[2Jb\x07\r\u{9b}1m\u{202e}"),
            "a\u{fffd}[2Jb\u{fffd}\u{fffd}\u{fffd}1m\u{fffd}"
        );
        assert_eq!(clean("tab\tline\nümläut"), "tab\tline\nümläut");
    }

    #[test]
    fn a_line_is_one_line_of_the_asked_width() {
        assert_eq!(line("a\n  b", 9), "a b");
        assert_eq!(line("abcdef", 4), "abc…");
    }
}
