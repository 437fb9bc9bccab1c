//! Reading a document of others: every value with its path, nothing passed over.

use serde_json::{Map, Value};

/// Why a document is not imported.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ImportError {
    /// A field nobody knows.
    #[error("{path}: unknown field; known are: {known}")]
    Unknown {
        /// Where.
        path: String,
        /// The fields there are.
        known: String,
    },
    /// A field that must be there.
    #[error("{path}: it is missing")]
    Missing {
        /// Where.
        path: String,
    },
    /// A value of another kind, or one that cannot be.
    #[error("{path}: {cause}")]
    Value {
        /// Where.
        path: String,
        /// What is wrong and what is expected.
        cause: String,
    },
    /// What was read does not make an environment.
    #[error("the result does not compile: {0}")]
    Result(String),
}

/// A value and where it stands.
#[derive(Debug, Clone)]
pub(super) struct Place<'a> {
    path: String,
    value: &'a Value,
}

type Read<T> = Result<T, ImportError>;

impl<'a> Place<'a> {
    pub(super) fn root(value: &'a Value) -> Self {
        Self {
            path: String::new(),
            value,
        }
    }

    /// An error about this place.
    pub(super) fn wrong(&self, cause: &str) -> ImportError {
        ImportError::Value {
            path: self.shown(),
            cause: cause.to_owned(),
        }
    }

    pub(super) fn shown(&self) -> String {
        match self.path.as_str() {
            "" => "the document".to_owned(),
            path => path.to_owned(),
        }
    }

    fn below(&self, field: &str) -> String {
        match self.path.as_str() {
            "" => field.to_owned(),
            path => format!("{path}.{field}"),
        }
    }

    /// An object with no other fields than these.
    pub(super) fn only(&self, known: &[&str]) -> Read<&'a Map<String, Value>> {
        let object = self.object()?;
        match object.keys().find(|field| !known.contains(&field.as_str())) {
            None => Ok(object),
            Some(field) => Err(ImportError::Unknown {
                path: self.below(&field.escape_default().to_string()),
                known: known.join(", "),
            }),
        }
    }

    pub(super) fn object(&self) -> Read<&'a Map<String, Value>> {
        self.value.as_object().ok_or_else(|| self.wrong("expected fields"))
    }

    /// A field that may be absent; null is absent.
    pub(super) fn field(&self, name: &str) -> Read<Option<Place<'a>>> {
        let value = self.object()?.get(name).filter(|value| !value.is_null());
        Ok(value.map(|value| Place {
            path: self.below(name),
            value,
        }))
    }

    pub(super) fn required(&self, name: &str) -> Read<Place<'a>> {
        let path = self.below(name);
        self.field(name)?.ok_or(ImportError::Missing { path })
    }

    pub(super) fn text(&self) -> Read<&'a str> {
        self.value.as_str().ok_or_else(|| self.wrong("expected text"))
    }

    /// A text that may be absent.
    pub(super) fn text_of(&self, name: &str) -> Read<Option<&'a str>> {
        self.field(name)?.map(|place| place.text()).transpose()
    }

    pub(super) fn list(&self) -> Read<Vec<Place<'a>>> {
        let list = self.value.as_array().ok_or_else(|| self.wrong("expected a list"))?;
        let place = |(at, value): (usize, &'a Value)| Place {
            path: format!("{}[{at}]", self.path),
            value,
        };
        Ok(list.iter().enumerate().map(place).collect())
    }

    /// A list that may be absent, which is an empty one.
    pub(super) fn list_of(&self, name: &str) -> Read<Vec<Place<'a>>> {
        self.field(name)?.map_or(Ok(Vec::new()), |place| place.list())
    }

    /// A list of texts that may be absent.
    pub(super) fn texts_of(&self, name: &str) -> Read<Vec<String>> {
        self.list_of(name)?
            .iter()
            .map(|place| place.text().map(str::to_owned))
            .collect()
    }

    /// Hosts that may stand in a rule, refused where they stand otherwise.
    pub(super) fn hosts_of(&self, name: &str) -> Read<Vec<String>> {
        let host = |place: &Place<'_>| {
            let text = place.text()?;
            match crate::egress::HostPattern::parse(text) {
                Ok(crate::egress::HostPattern::All) => Err(place.wrong("it means every host; name them")),
                Ok(pattern) => Ok(pattern.to_string()),
                Err(why) => Err(place.wrong(&why)),
            }
        };
        self.list_of(name)?.iter().map(host).collect()
    }
}
