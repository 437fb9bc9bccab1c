//! Values to columns and back.

use std::{fmt::Display, str::FromStr};

use serde::{Serialize, de::DeserializeOwned};
use stockade_domain::Timestamp;
use stockade_ports::StoreError;

pub(super) fn json<T: Serialize>(value: &T) -> Result<String, StoreError> {
    serde_json::to_string(value).map_err(|e| StoreError::Corrupt(format!("a row cannot be written: {e}")))
}

pub(super) fn from_json<T: DeserializeOwned>(text: &str) -> Result<T, StoreError> {
    serde_json::from_str(text).map_err(|e| StoreError::Corrupt(format!("a row cannot be read: {e}")))
}

pub(super) fn parse<T: FromStr<Err: Display>>(text: &str) -> Result<T, StoreError> {
    text.parse()
        .map_err(|e| StoreError::Corrupt(format!("a row cannot be read: {e}")))
}

/// Columns are signed; a number that does not fit could not be found again.
pub(super) fn signed(number: u64) -> Result<i64, StoreError> {
    i64::try_from(number).map_err(|_| StoreError::Corrupt(format!("{number} is too large to be stored")))
}

pub(super) fn unsigned(number: i64) -> Result<u64, StoreError> {
    u64::try_from(number).map_err(|_| StoreError::Corrupt(format!("{number} stands where no negative number belongs")))
}

/// A place to read after. Nothing is stored beyond the largest column, so it is as good as that.
pub(super) fn place(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

pub(super) fn millis(time: Timestamp) -> i64 {
    time.as_millisecond()
}
