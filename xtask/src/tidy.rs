//! `cargo xtask tidy`: the small rules that no compiler checks, each with a ratchet that only tightens.

use std::path::Path;
use std::process::Command;

use anyhow::{Result, bail};

use crate::links;
use crate::process;
use crate::workspace::Workspace;

/// A file of code has one reason and fits in one head.
const MAX_LINES: usize = 500;

/// Files that are longer for now, with their limit. The list may only shrink: lower a limit, or take a line out.
const LONG_FILES: &[(&str, usize)] = &[];

/// Words that may not be in code, and why. Written in halves so that this file passes its own check.
const CODE_MARKERS: &[(&str, &str)] = &[
    (concat!("todo", "!("), "finish it, or leave it out"),
    (concat!("unimplemented", "!("), "finish it, or leave it out"),
    (
        concat!("#[ig", "nore"),
        "a test that does not run proves nothing: assert what holds today",
    ),
];

/// Where the pure core lives, and words that would end its purity: it gets time, chance and input as arguments.
const CORE: &[&str] = &["crates/stockade-domain/src/", "crates/stockade-policy/src/"];
const CORE_MARKERS: &[(&str, &str)] = &[
    ("std::fs", IMPURE),
    ("std::env", IMPURE),
    ("std::process", IMPURE),
    ("std::thread", IMPURE),
    ("std::time::Instant", IMPURE),
    ("SystemTime", IMPURE),
    ("TcpStream", IMPURE),
    ("UdpSocket", IMPURE),
    ("::now()", IMPURE),
    ("now_v7()", IMPURE),
    ("new_v4()", IMPURE),
    ("async fn", IMPURE),
];
const IMPURE: &str = "the core is pure: no clock, no chance, no input or output; take it as an argument";

/// Words that may be in no file at all, and why.
const ANY_MARKERS: &[(&str, &str)] = &[
    (concat!("/root/", "."), "a path of one machine"),
    (concat!("/Users", "/"), "a path of one machine"),
    (concat!("<<<<", "<<< "), "a merge that was not finished"),
    (concat!(">>>>", ">>> "), "a merge that was not finished"),
];

pub(crate) fn run() -> Result<()> {
    let root = Workspace::load()?.root;
    let files = files(&root)?;
    let mut objections = Vec::new();
    let mut code = 0_usize;
    for path in &files {
        // Deleted but not committed, or not text: nothing to say about it.
        let Ok(text) = std::fs::read_to_string(root.join(path)) else {
            continue;
        };
        code += usize::from(is_code(path));
        objections.extend(check(path, &text, LONG_FILES));
        if path.ends_with(".md") {
            objections.extend(links::broken(path, &text, |target| root.join(target).exists()));
        }
    }
    objections.extend(stale(&files, LONG_FILES));
    if objections.is_empty() {
        println!(
            "tidy: {} files, {code} of them code, none above {MAX_LINES} lines",
            files.len()
        );
        return Ok(());
    }
    for objection in &objections {
        eprintln!("tidy: {objection}");
    }
    bail!("{} small rules broken", objections.len())
}

/// What is, or would be, committed.
fn files(root: &Path) -> Result<Vec<String>> {
    let mut git = Command::new("git");
    git.args(["ls-files", "-z", "--cached", "--others", "--exclude-standard"])
        .current_dir(root);
    let listed = process::capture(&mut git)?;
    if !listed.success {
        bail!(
            "git cannot list the files of {}: {}",
            root.display(),
            listed.stderr.trim()
        );
    }
    let files: Vec<String> = listed.stdout.split_terminator('\0').map(str::to_owned).collect();
    if files.is_empty() {
        bail!("git lists no file at all in {}", root.display());
    }
    Ok(files)
}

fn is_code(path: &str) -> bool {
    path.ends_with(".rs")
}

fn check(path: &str, text: &str, long: &[(&str, usize)]) -> Vec<String> {
    let mut objections = Vec::new();
    let lines = text.lines().count();
    if is_code(path) {
        objections.extend(check_length(path, lines, long));
        objections.extend(find(path, text, CODE_MARKERS));
        if CORE.iter().any(|core| path.starts_with(core)) {
            objections.extend(find(path, text, CORE_MARKERS));
        }
    }
    objections.extend(find(path, text, ANY_MARKERS));
    objections
}

fn check_length(path: &str, lines: usize, long: &[(&str, usize)]) -> Option<String> {
    let Some((_, limit)) = long.iter().find(|(listed, _)| *listed == path) else {
        return (lines > MAX_LINES)
            .then(|| format!("{path}: {lines} lines, more than {MAX_LINES}: split it by reason"));
    };
    if lines > *limit {
        return Some(format!("{path}: grew to {lines} lines, its limit is {limit}"));
    }
    if lines <= MAX_LINES {
        return Some(format!("{path}: down to {lines} lines: take it out of LONG_FILES"));
    }
    // Some slack, so that removing one line does not need a second edit.
    (lines + 25 < *limit).then(|| format!("{path}: down to {lines} lines: lower its limit in LONG_FILES"))
}

fn stale(files: &[String], long: &[(&str, usize)]) -> Vec<String> {
    let gone = long.iter().filter(|(path, _)| !files.iter().any(|file| file == path));
    gone.map(|(path, _)| format!("{path}: in LONG_FILES, but does not exist"))
        .collect()
}

fn find(path: &str, text: &str, markers: &[(&str, &str)]) -> Vec<String> {
    let mut found = Vec::new();
    for (number, line) in text.lines().enumerate() {
        for (marker, why) in markers.iter().filter(|(marker, _)| line.contains(marker)) {
            found.push(format!("{path}:{}: `{marker}`: {why}", number + 1));
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_files_are_refused_and_the_list_only_shrinks() {
        let text = |lines: usize| "x\n".repeat(lines);
        assert!(check("a.rs", &text(MAX_LINES), &[]).is_empty());
        assert!(check("a.rs", &text(MAX_LINES + 1), &[])[0].contains("split it"));
        assert!(check("a.md", &text(MAX_LINES + 1), &[]).is_empty());
        let long = &[("a.rs", 600)];
        assert!(check("a.rs", &text(600), long).is_empty());
        assert!(check("a.rs", &text(601), long)[0].contains("grew"));
        assert!(check("a.rs", &text(550), long)[0].contains("lower"));
        assert!(check("a.rs", &text(400), long)[0].contains("take it out"));
        assert_eq!(stale(&["b.rs".into()], long).len(), 1);
        assert!(stale(&["a.rs".into()], long).is_empty());
    }

    #[test]
    fn every_marker_is_found_with_its_line() {
        for (marker, _) in CODE_MARKERS.iter().chain(ANY_MARKERS) {
            let found = check("a.rs", &format!("fine\n  {marker} x\n"), &[]);
            assert!(
                found.len() == 1 && found[0].starts_with("a.rs:2: "),
                "{marker}: {found:?}"
            );
        }
        for (marker, _) in CORE_MARKERS {
            let code = format!("let x = {marker};\n");
            assert_eq!(
                check("crates/stockade-domain/src/a.rs", &code, &[]).len(),
                1,
                "{marker}"
            );
            assert!(
                check("crates/stockade-runner/src/a.rs", &code, &[]).is_empty(),
                "{marker}"
            );
        }
        assert!(check("a.rs", "fn fine() {}\n", &[]).is_empty());
        assert!(check("a.md", concat!("write todo", "!()\n"), &[]).is_empty());
    }
}
