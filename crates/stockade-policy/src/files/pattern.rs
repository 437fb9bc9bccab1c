//! Path patterns, compiled: matched name by name, so that no pattern costs more than the
//! product of the lengths.

use stockade_domain::PathPattern;

use super::place::Place;

/// How names are compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Case {
    /// Exactly.
    Exact,
    /// Without regard to ASCII case: a change may end on a file system that knows none.
    Folded,
}

/// A pattern, ready to match.
#[derive(Debug, Clone)]
pub(crate) struct Pattern {
    text: String,
    parts: Vec<Part>,
    /// Starts at the workspace.
    anchored: bool,
    /// Only about directories.
    directory: bool,
    case: Case,
}

/// The names of a place, ready to be compared many times.
pub(crate) struct Names {
    inside: bool,
    exact: Vec<Vec<char>>,
    folded: Vec<Vec<char>>,
}

impl Names {
    pub(crate) fn of_place(place: &Place) -> Self {
        let names = |case: Case| place.parts().into_iter().map(|name| folded(name, case)).collect();
        Self {
            inside: place.is_inside(),
            exact: names(Case::Exact),
            folded: names(Case::Folded),
        }
    }

    fn of(&self, case: Case) -> &[Vec<char>] {
        match case {
            Case::Exact => &self.exact,
            Case::Folded => &self.folded,
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Part {
    /// Any directories, also none.
    Deep,
    /// One name.
    Name(Vec<char>),
}

impl Pattern {
    pub(crate) fn new(pattern: &PathPattern, case: Case) -> Self {
        let text = pattern.as_str();
        let directory = text.ends_with('/');
        let body = text.strip_suffix('/').unwrap_or(text);
        let mut parts: Vec<Part> = Vec::new();
        if !body.contains('/') {
            parts.push(Part::Deep);
        }
        for part in body.strip_prefix('/').unwrap_or(body).split('/') {
            let part = match part {
                "**" => Part::Deep,
                name => Part::Name(folded(name, case)),
            };
            // Any directories twice is any directories.
            if part != Part::Deep || parts.last() != Some(&Part::Deep) {
                parts.push(part);
            }
        }
        Self {
            text: text.to_owned(),
            anchored: parts.first() != Some(&Part::Deep),
            parts,
            directory,
            case,
        }
    }

    /// The pattern as it was written.
    pub(crate) fn text(&self) -> &str {
        &self.text
    }

    /// Whether the place, or a directory it is in, matches.
    pub(crate) fn covers(&self, names: &Names) -> bool {
        if self.anchored && !names.inside {
            return false;
        }
        let names = names.of(self.case);
        let mut reached = self.start();
        for (index, name) in names.iter().enumerate() {
            self.step(&mut reached, name);
            let is_directory = index + 1 < names.len();
            if reached[self.parts.len()] && (is_directory || !self.directory) {
                return true;
            }
            if !reached.contains(&true) {
                return false;
            }
        }
        false
    }

    /// Whether a link at this place could stand for a directory the pattern is about, so that
    /// what lies behind the link would be there under a name the pattern covers.
    pub(crate) fn reaches_below(&self, names: &Names) -> bool {
        if self.anchored && !names.inside {
            return false;
        }
        let mut reached = self.start();
        for name in names.of(self.case) {
            self.step(&mut reached, name);
        }
        // Where directories in front are free, every place is one of them; that says nothing.
        let free = if self.anchored { 0 } else { 2.min(self.parts.len()) };
        reached.iter().skip(free).any(|reached| *reached)
    }

    /// What is reached before the first name.
    fn start(&self) -> Vec<bool> {
        let mut reached = vec![false; self.parts.len() + 1];
        reached[0] = true;
        self.pass_deep(&mut reached);
        reached
    }

    /// What is reached after one more name. From the end, so that every place is read before it
    /// is written.
    fn step(&self, reached: &mut [bool], name: &[char]) {
        let end = self.parts.len();
        reached[end] = false;
        for (at, part) in self.parts.iter().enumerate().rev() {
            if !std::mem::replace(&mut reached[at], false) {
                continue;
            }
            match part {
                Part::Deep => {
                    reached[at] = true;
                    // At the end it stands for everything in a directory, which this name is.
                    reached[at + 1] |= at + 1 == end;
                }
                Part::Name(pattern) => reached[at + 1] |= fits(pattern, name),
            }
        }
        self.pass_deep(reached);
    }

    /// Any directories may be none, except at the end.
    fn pass_deep(&self, reached: &mut [bool]) {
        for at in 0..self.parts.len().saturating_sub(1) {
            if reached[at] && self.parts[at] == Part::Deep {
                reached[at + 1] = true;
            }
        }
    }
}

fn folded(text: &str, case: Case) -> Vec<char> {
    match case {
        Case::Exact => text.chars().collect(),
        Case::Folded => text.chars().map(|c| c.to_ascii_lowercase()).collect(),
    }
}

/// Whether a name fits a pattern of `*`, `?` and letters. Goes back to the last star only,
/// which is enough.
fn fits(pattern: &[char], name: &[char]) -> bool {
    let (mut at, mut here) = (0, 0);
    let mut star: Option<(usize, usize)> = None;
    while here < name.len() {
        match pattern.get(at) {
            Some('*') => {
                star = Some((at, here));
                at += 1;
            }
            Some(c) if *c == '?' || *c == name[here] => {
                at += 1;
                here += 1;
            }
            _ => match star {
                Some((back, from)) => {
                    star = Some((back, from + 1));
                    at = back + 1;
                    here = from + 1;
                }
                None => return false,
            },
        }
    }
    pattern[at..].iter().all(|c| *c == '*')
}
