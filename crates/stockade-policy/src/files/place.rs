//! Paths in the one form they are judged in.

/// Where the repository is inside every sandbox; paths below it are judged without it.
pub const WORKSPACE: &str = "/workspace";

/// A path inside a sandbox: relative to the workspace where it is in it, else absolute, without
/// `.`, `..`, empty names and a slash at the end. Nothing is folded or composed: two spellings
/// that a file system tells apart are two places.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    text: String,
    inside: bool,
}

impl Place {
    /// The place a tool's path names; a relative one starts at the workspace. `.` and `..` are
    /// resolved by their letters: whoever writes looks where links lead first.
    ///
    /// # Errors
    ///
    /// What is wrong with the path, in words.
    pub fn of(path: &str) -> Result<Self, String> {
        if path.is_empty() {
            return Err("the path is empty".to_owned());
        }
        if path.contains('\0') {
            return Err("the path holds a NUL character".to_owned());
        }
        let start = if path.starts_with('/') { "" } else { WORKSPACE };
        let mut parts: Vec<&str> = Vec::new();
        for part in start.split('/').chain(path.split('/')) {
            match part {
                "" | "." => {}
                ".." => {
                    parts.pop();
                }
                part => parts.push(part),
            }
        }
        let absolute = format!("/{}", parts.join("/"));
        let below = absolute
            .strip_prefix(WORKSPACE)
            .map(|rest| match rest.strip_prefix('/') {
                None if rest.is_empty() => Some(".".to_owned()),
                rest => rest.map(str::to_owned),
            });
        Ok(match below.flatten() {
            Some(text) => Self { text, inside: true },
            None => Self {
                text: absolute,
                inside: false,
            },
        })
    }

    /// The place of a path in a repository's tree, which has one spelling already.
    ///
    /// # Errors
    ///
    /// When it is no such path.
    pub fn in_tree(path: &str) -> Result<Self, String> {
        let fine = |part: &str| !matches!(part, "" | "." | "..");
        if path.contains('\0') || !path.split('/').all(fine) {
            return Err(format!("'{}' is no path of a repository", path.escape_debug()));
        }
        Ok(Self {
            text: path.to_owned(),
            inside: true,
        })
    }

    /// The path: relative to the workspace (`.` is the workspace itself) or absolute.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Whether it is the workspace or in it.
    pub fn is_inside(&self) -> bool {
        self.inside
    }

    /// The absolute path inside the sandbox.
    pub fn absolute(&self) -> String {
        match self.text.as_str() {
            "." if self.inside => WORKSPACE.to_owned(),
            text if self.inside => format!("{WORKSPACE}/{text}"),
            text => text.to_owned(),
        }
    }

    /// Its names from the workspace, or from the root where it is outside.
    pub(crate) fn parts(&self) -> Vec<&str> {
        self.text.split('/').filter(|part| !matches!(*part, "" | ".")).collect()
    }
}

/// Whether a symbolic link in the workspace may lead out of it, or into the repository's own
/// `.git`, whatever else stands there.
///
/// Only `..` in front can be told by the letters: after a name it starts wherever that name
/// leads, so it counts as leading out.
pub(crate) fn leads_out(link: &Place, target: &str) -> bool {
    if target.is_empty() || target.starts_with('/') || target.contains('\0') {
        return true;
    }
    let mut here = link.parts();
    here.pop();
    let mut descended = false;
    for part in target.split('/') {
        match part {
            "" | "." => {}
            ".." if descended || here.pop().is_none() => return true,
            ".." => {}
            part => {
                descended = true;
                here.push(part);
            }
        }
    }
    here.first().is_some_and(|first| first.eq_ignore_ascii_case(".git"))
}
