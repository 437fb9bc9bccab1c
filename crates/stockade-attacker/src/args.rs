//! `key=value` words; a key may come several times.

/// What an attack was told.
pub(crate) struct Args(Vec<(String, String)>);

impl Args {
    pub(crate) fn new(words: impl Iterator<Item = String>) -> Self {
        let pair = |word: String| {
            let (key, value) = word.split_once('=').unwrap_or((&word, ""));
            (key.to_owned(), value.to_owned())
        };
        Self(words.map(pair).collect())
    }

    /// Every value of a key.
    pub(crate) fn all<'a>(&'a self, key: &'a str) -> impl Iterator<Item = &'a str> {
        let mine = self.0.iter().filter(move |(name, _)| name == key);
        mine.map(|(_, value)| value.as_str())
    }

    /// The first value of a key, or nothing.
    pub(crate) fn get(&self, key: &str) -> &str {
        self.0
            .iter()
            .find(|(name, _)| name == key)
            .map_or("", |(_, value)| value)
    }

    /// Whether the sandbox has a kernel of its own, whose devices and priorities are not the host's.
    pub(crate) fn own_kernel(&self) -> bool {
        self.get("kernel") == "own"
    }

    /// A number; zero when it is not there or none.
    pub(crate) fn number(&self, key: &str) -> u64 {
        self.get(key).parse().unwrap_or(0)
    }
}
