//! `list_files` and `search`: with git where the directory is in a repository, else with
//! the oldest programs there are.

use std::time::Duration;

use serde_json::{Value, json};
use stockade_ports::{ExecRequest, Exit, SandboxError};

use super::{Hand, Said, path::absolute};

/// Most paths in one answer.
const MOST_PATHS: usize = 1000;
/// Most bytes of a listing that are looked at.
const LISTING: usize = 4 << 20;
const TIMEOUT: Duration = Duration::from_secs(60);

const LIST: &str = "cd \"$1\" || exit 2\n\
    if git rev-parse --is-inside-work-tree >/dev/null 2>&1; then\n\
      exec git -c core.quotePath=false ls-files --cached --others --exclude-standard --deduplicate\n\
    fi\n\
    exec find . -name .git -prune -o -type f -print";

const SEARCH: &str = "cd \"$1\" || exit 2\n\
    if git rev-parse --is-inside-work-tree >/dev/null 2>&1; then\n\
      exec git -c core.quotePath=false grep --no-color -nIE --untracked $4 -e \"$2\" -- ${3:+\":(glob)**/$3\"}\n\
    fi\n\
    exec grep -rnIE $4 --exclude-dir=.git ${3:+\"--include=$3\"} -e \"$2\" .";

const SEARCH_FILE: &str = "exec grep -nIEH $3 -e \"$2\" -- \"$1\"";

fn shell(script: &str, args: &[&str]) -> ExecRequest {
    let mut argv = ["sh", "-c", script, "sh"].map(str::to_owned).to_vec();
    argv.extend(args.iter().map(|arg| (*arg).to_owned()));
    ExecRequest {
        argv,
        timeout: Some(TIMEOUT),
        ..ExecRequest::default()
    }
}

pub(super) async fn list_files(hand: &Hand<'_>, args: &Value) -> Result<Said, SandboxError> {
    let path = args["path"].as_str().unwrap_or(".");
    let ran = hand.run(shell(LIST, &[&absolute(path)]), LISTING, true).await?;
    if ran.exit != Exit::Code(0) {
        return Ok(Said::complaint(ran.output));
    }
    let pattern = args["pattern"].as_str();
    let mut found: Vec<&str> = ran
        .output
        .lines()
        .map(|line| line.strip_prefix("./").unwrap_or(line))
        .filter(|line| pattern.is_none_or(|pattern| fits(pattern, line)))
        .collect();
    found.sort_unstable();
    let total = found.len();
    if total == 0 {
        return Ok(Said::well("[no files]"));
    }
    found.truncate(MOST_PATHS);
    let mut text = found.join("\n");
    if total > MOST_PATHS {
        text.push_str(&format!(
            "\n[{} more; narrow the path or the pattern]",
            total - MOST_PATHS
        ));
    }
    Ok(Said {
        details: json!({ "files": total }),
        ..Said::well(text)
    })
}

pub(super) async fn search(hand: &Hand<'_>, args: &Value) -> Result<Said, SandboxError> {
    let text = |key: &str| args[key].as_str().unwrap_or_default();
    let path = absolute(args["path"].as_str().unwrap_or("."));
    let case = if args["ignore_case"].as_bool().unwrap_or(false) {
        "-i"
    } else {
        ""
    };
    let mut ran = hand
        .run(
            shell(SEARCH, &[&path, text("pattern"), text("glob"), case]),
            hand.limit,
            true,
        )
        .await?;
    if ran.exit == Exit::Code(2) {
        // The path may be a file.
        let in_file = hand
            .run(shell(SEARCH_FILE, &[&path, text("pattern"), case]), hand.limit, true)
            .await?;
        if in_file.exit != Exit::Code(2) {
            ran = in_file;
        }
    }
    match ran.exit {
        Exit::Code(0) => Ok(Said::well(ran.output)),
        Exit::Code(1) => Ok(Said::well("[nothing found]")),
        Exit::TimedOut => Ok(Said::complaint("the search took too long; narrow the path")),
        _ => Ok(Said::complaint(ran.output)),
    }
}

/// Whether a path fits a glob: `*` and `?` within a name, `**` across directories. A glob
/// without a slash is about the file's name, wherever it is.
fn fits(glob: &str, path: &str) -> bool {
    let glob = glob.strip_prefix("./").unwrap_or(glob);
    if !glob.contains('/') {
        let name = path.rsplit('/').next().unwrap_or(path);
        return glob == "**" || fits_from(glob.as_bytes(), name.as_bytes());
    }
    fits_from(glob.as_bytes(), path.as_bytes())
}

/// Matches with one point to come back to per kind of star, so that no glob costs more
/// than the product of the lengths.
fn fits_from(glob: &[u8], path: &[u8]) -> bool {
    let mut reachable = vec![false; glob.len() + 1];
    reachable[0] = true;
    skip_stars(glob, &mut reachable);
    for byte in path {
        let mut next = vec![false; glob.len() + 1];
        for at in 0..glob.len() {
            if !reachable[at] {
                continue;
            }
            match glob[at] {
                b'*' if glob[at..].starts_with(b"**") => {
                    next[at] = true;
                    if *byte == b'/' && glob.get(at + 2) == Some(&b'/') {
                        next[at + 3] = true;
                    }
                }
                b'*' => next[at] |= *byte != b'/',
                b'?' => next[at + 1] |= *byte != b'/',
                literal => next[at + 1] |= literal == *byte,
            }
        }
        skip_stars(glob, &mut next);
        reachable = next;
    }
    reachable[glob.len()]
}

/// Stars also stand for nothing: what is reachable before one is reachable after it.
fn skip_stars(glob: &[u8], reachable: &mut [bool]) {
    for at in 0..glob.len() {
        if reachable[at] && glob[at] == b'*' {
            let two = glob[at..].starts_with(b"**");
            reachable[at + if two { 2 } else { 1 }] = true;
            if two && glob.get(at + 2) == Some(&b'/') {
                reachable[at + 3] = true;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::fits;

    #[test]
    fn globs() {
        for (glob, path) in [
            ("*.rs", "src/a.rs"),
            ("src/*.rs", "src/a.rs"),
            ("src/**/*.rs", "src/a.rs"),
            ("src/**/*.rs", "src/x/y/a.rs"),
            ("**/a.rs", "a.rs"),
            ("**", "x/y"),
            ("a?.txt", "ab.txt"),
        ] {
            assert!(fits(glob, path), "{glob} / {path}");
        }
        for (glob, path) in [
            ("*.rs", "a.rsx"),
            ("src/*.rs", "src/x/a.rs"),
            ("src/**/*.rs", "lib/a.rs"),
            ("a?.txt", "a/.txt"),
            ("a.txt", "aXtxt"),
        ] {
            assert!(!fits(glob, path), "{glob} / {path}");
        }
        assert!(!fits(&"*a".repeat(200), &"a".repeat(199)), "and quickly");
    }
}
