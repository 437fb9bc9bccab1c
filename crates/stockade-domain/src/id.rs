//! Typed identifiers: a prefix that says what it names, then a UUID (RFC 9562) as 32 hex digits.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use uuid::Uuid;

/// Why a text is not an identifier.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("'{text}' is not a {kind} id: expected {prefix}_ and 32 hexadecimal digits")]
pub struct InvalidId {
    text: String,
    kind: &'static str,
    prefix: &'static str,
}

macro_rules! id_type {
    ($(#[$doc:meta])* $name:ident, $prefix:literal, $kind:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(Uuid);

        impl $name {
            /// Names a new thing; the caller supplies the UUID because this crate has no clock.
            pub const fn from_uuid(uuid: Uuid) -> Self {
                Self(uuid)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!($prefix, "_{}"), self.0.simple())
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }

        impl FromStr for $name {
            type Err = InvalidId;

            fn from_str(text: &str) -> Result<Self, InvalidId> {
                let invalid = || InvalidId { text: text.chars().take(80).collect(), kind: $kind, prefix: $prefix };
                let digits = text.strip_prefix(concat!($prefix, "_")).ok_or_else(invalid)?;
                // One spelling only: `Uuid` alone would also take braces, dashes and capitals.
                if digits.len() != 32 || !digits.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')) {
                    return Err(invalid());
                }
                Uuid::try_parse(digits).map(Self).map_err(|_| invalid())
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
            }
        }
    };
}

id_type!(/** A tenant. */ TeamId, "team", "team");
id_type!(/** What was asked. */ TaskId, "task", "task");
id_type!(/** One attempt at a task. */ RunId, "run", "run");
id_type!(/** One thing that wanted to leave a sandbox. */ ActionId, "act", "action");
id_type!(/** A question to a person. */ ApprovalId, "apr", "approval");
id_type!(/** Hosts taken away from the runs of an environment. */ RevocationId, "rev", "revocation");
id_type!(/** An API token; the id is public, the secret is not. */ TokenId, "tok", "token");

impl TeamId {
    /// The team of a single-team installation.
    pub const DEFAULT: Self = Self(Uuid::nil());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_spelling_round_trips_and_others_are_refused() {
        let id = RunId::from_uuid(Uuid::from_u128(7));
        assert_eq!(id.to_string().parse::<RunId>(), Ok(id));
        for wrong in [
            "",
            "run_",
            "task_00000000000000000000000000000007",
            "run_0000000000000000000000000000000G",
            "run_00000000-0000-0000-0000-000000000007",
            "run_0000000000000000000000000000000A",
        ] {
            let message = wrong.parse::<RunId>().unwrap_err().to_string();
            assert!(message.contains("run id"), "{message}");
        }
    }
}
