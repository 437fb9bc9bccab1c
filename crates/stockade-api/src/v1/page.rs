//! Pages of lists.

use serde::{Deserialize, Serialize};

/// Some of a list, and where the rest begins.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Page<T> {
    /// The items, newest first; events oldest first.
    pub items: Vec<T>,
    /// Pass as `cursor` (for events as `after`) to go on; `null` when there is nothing more now.
    pub next: Option<String>,
}

impl<T> Page<T> {
    /// A page that is the whole list.
    pub fn whole(items: Vec<T>) -> Self {
        Self { items, next: None }
    }
}
