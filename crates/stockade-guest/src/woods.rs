//! The directories a watch covers and where they are.

use std::{
    collections::{HashMap, HashSet},
    ffi::{CStr, CString},
};

/// Directories deeper than this below the watched one have no name here.
const MAX_LEVELS: usize = 1024;

/// A tree of watched directories, each known by the number of its watch. A directory that moves
/// takes what is below it along.
pub(crate) struct Woods {
    root: i32,
    nodes: HashMap<i32, Node>,
}

struct Node {
    parent: i32,
    name: CString,
}

impl Woods {
    pub(crate) fn new(root: i32) -> Self {
        let nodes = HashMap::new();
        Self { root, nodes }
    }

    pub(crate) fn root(&self) -> i32 {
        self.root
    }

    pub(crate) fn len(&self) -> usize {
        self.nodes.len()
    }

    /// Adds a directory; `false` when it was known, which then has this place.
    pub(crate) fn plant(&mut self, watch: i32, parent: i32, name: CString) -> bool {
        watch != self.root && self.nodes.insert(watch, Node { parent, name }).is_none()
    }

    /// Gives a known directory another place.
    pub(crate) fn replant(&mut self, watch: i32, parent: i32, name: CString) {
        if let Some(node) = self.nodes.get_mut(&watch) {
            *node = Node { parent, name };
        }
    }

    /// Forgets a directory.
    pub(crate) fn fell(&mut self, watch: i32) {
        self.nodes.remove(&watch);
    }

    /// The directory of this name in another one.
    pub(crate) fn at(&self, parent: i32, name: &CStr) -> Option<i32> {
        let mut nodes = self.nodes.iter();
        let found = nodes.find(|(_, node)| node.parent == parent && node.name.as_c_str() == name);
        found.map(|(watch, _)| *watch)
    }

    /// A directory and all below it.
    pub(crate) fn below(&self, watch: i32) -> HashSet<i32> {
        let mut all = HashSet::from([watch]);
        loop {
            let count = all.len();
            let below = self.nodes.iter().filter(|(_, node)| all.contains(&node.parent));
            let below: Vec<_> = below.map(|(watch, _)| *watch).collect();
            all.extend(below);
            if all.len() == count {
                return all;
            }
        }
    }

    /// The names of a directory below the root, joined; `None` when it is not (any more) there.
    pub(crate) fn names(&self, watch: i32) -> Option<Vec<u8>> {
        let mut parts = Vec::new();
        let mut at = watch;
        while at != self.root {
            let node = self.nodes.get(&at)?;
            parts.push(node.name.as_bytes());
            at = node.parent;
            // Bounded: moves may be seen in an order that makes a circle.
            if parts.len() > MAX_LEVELS {
                return None;
            }
        }
        parts.reverse();
        Some(parts.join(&b'/'))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_that_moves_takes_what_is_below_along() {
        let mut woods = Woods::new(1);
        assert!(woods.plant(2, 1, c"a".into()) && woods.plant(3, 2, c"b".into()) && woods.plant(4, 1, c"c".into()));
        assert!(!woods.plant(2, 1, c"a".into()), "known");
        assert_eq!(woods.names(1).as_deref(), Some(&b""[..]));
        assert_eq!(woods.names(3).as_deref(), Some(&b"a/b"[..]));
        assert_eq!(woods.at(2, c"b"), Some(3));
        woods.replant(2, 4, c"d".into());
        assert_eq!(woods.names(3).as_deref(), Some(&b"c/d/b"[..]));
        assert_eq!(woods.below(4), HashSet::from([2, 3, 4]));
        woods.fell(2);
        assert_eq!(woods.names(3), None, "nothing leads there any more");
    }

    #[test]
    fn a_circle_ends() {
        let mut woods = Woods::new(1);
        woods.plant(2, 3, c"a".into());
        woods.plant(3, 2, c"b".into());
        assert_eq!(woods.names(2), None);
        assert_eq!(woods.below(2), HashSet::from([2, 3]));
    }
}
