//! A name, or the thing itself.

use std::{fmt, marker::PhantomData};

use serde::{
    Deserialize, Deserializer, Serialize, Serializer,
    de::{Error, MapAccess, Visitor, value::MapAccessDeserializer},
};

/// Either the name of something the configuration knows, or the thing spelled out.
///
/// Read by hand instead of with `serde(untagged)`, whose errors name neither field nor cause.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NameOr<T> {
    /// Its name.
    Name(String),
    /// The thing itself.
    Inline(Box<T>),
}

impl<T> From<&str> for NameOr<T> {
    fn from(name: &str) -> Self {
        Self::Name(name.to_owned())
    }
}

impl<T: Serialize> Serialize for NameOr<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Name(name) => serializer.serialize_str(name),
            Self::Inline(value) => value.serialize(serializer),
        }
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for NameOr<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Either<T>(PhantomData<T>);

        impl<'de, T: Deserialize<'de>> Visitor<'de> for Either<T> {
            type Value = NameOr<T>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a name or an object")
            }

            fn visit_str<E: Error>(self, name: &str) -> Result<Self::Value, E> {
                Ok(NameOr::Name(name.to_owned()))
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Self::Value, A::Error> {
                T::deserialize(MapAccessDeserializer::new(map)).map(|value| NameOr::Inline(Box::new(value)))
            }
        }

        deserializer.deserialize_any(Either(PhantomData))
    }
}

#[cfg(test)]
mod tests {
    use stockade_domain::AgentSpec;

    use super::*;

    #[test]
    fn a_name_an_object_and_errors_that_name_the_field() {
        let name: NameOr<AgentSpec> = serde_json::from_str(r#""builtin""#).unwrap();
        assert_eq!(name, NameOr::from("builtin"));
        let inline: NameOr<AgentSpec> = serde_json::from_str(r#"{"name":"x","kind":{"builtin":{}}}"#).unwrap();
        assert!(matches!(inline, NameOr::Inline(spec) if spec.name == "x"));
        let wrong = serde_json::from_str::<NameOr<AgentSpec>>(r#"{"name":"x","kind":{"builtin":{}},"rulez":[]}"#)
            .unwrap_err()
            .to_string();
        assert!(wrong.contains("unknown field `rulez`"), "{wrong}");
        let wrong = serde_json::from_str::<NameOr<AgentSpec>>("7").unwrap_err().to_string();
        assert!(wrong.contains("a name or an object"), "{wrong}");
    }
}
