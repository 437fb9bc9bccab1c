//! Links between the documents: a relative link must lead to a file.

use std::path::Path;

/// Broken links of one Markdown file. `exists` answers for a path below the workspace's root.
pub(crate) fn broken(file: &str, text: &str, exists: impl Fn(&Path) -> bool) -> Vec<String> {
    let folder = Path::new(file).parent().unwrap_or(Path::new(""));
    let mut broken = Vec::new();
    for (number, line) in prose(text) {
        for target in targets(line) {
            let path = target.split('#').next().unwrap_or_default();
            let elsewhere = path.contains("://") || path.starts_with("mailto:");
            if !path.is_empty() && !elsewhere && !exists(&folder.join(path)) {
                broken.push(format!("{file}:{number}: the link to {path} leads nowhere"));
            }
        }
    }
    broken
}

/// The lines outside code blocks, numbered from 1.
fn prose(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let mut code = false;
    let numbered = text.lines().enumerate().map(|(index, line)| (index + 1, line));
    numbered.filter(move |(_, line)| {
        let fence = line.trim_start().starts_with("```");
        code ^= fence;
        !code && !fence
    })
}

/// What stands in the round brackets of `[text](target)`.
fn targets(line: &str) -> impl Iterator<Item = &str> {
    line.split("](")
        .skip(1)
        .filter_map(|rest| rest.split([')', ' ']).next())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_is_read_from_the_folder_of_its_file() {
        let text = "[a](a.md#part) and [b](../b.md), [web](https://example.org/x), [here](#part)\n";
        let seen = broken("docs/x.md", text, |path| path == Path::new("docs/a.md"));
        assert_eq!(seen, ["docs/x.md:1: the link to ../b.md leads nowhere"]);
        assert!(broken("docs/x.md", text, |_| true).is_empty());
    }

    #[test]
    fn code_is_not_prose() {
        assert!(broken("x.md", "```\n[a](gone.md)\n```\n", |_| false).is_empty());
        assert_eq!(broken("x.md", "```\n```\n[a](gone.md)\n", |_| false).len(), 1);
    }
}
