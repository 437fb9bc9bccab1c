//! Another model's name in a body, and no other byte changed.

use bytes::Bytes;
use serde::Deserialize;
use serde_json::value::RawValue;

#[derive(Deserialize)]
struct Named<'a> {
    #[serde(borrow)]
    model: &'a RawValue,
}

/// The body with the value of its `model` field replaced, or `None` where nothing changes.
///
/// A body that cannot be read, or that names its model twice, is left to the door, which
/// refuses it.
pub(super) fn model(body: &Bytes, other: impl FnOnce(&str) -> Option<String>) -> Option<Bytes> {
    let text = std::str::from_utf8(body).ok()?;
    // A derived reader would also take a list for the fields in their order.
    text.trim_ascii_start().strip_prefix('{')?;
    let raw = serde_json::from_str::<Named<'_>>(text).ok()?.model.get();
    let name: String = serde_json::from_str(raw).ok()?;
    let other = serde_json::Value::String(other(&name)?).to_string();
    // `raw` borrows from `text`, so the distance of their beginnings is its place.
    let start = raw.as_ptr() as usize - text.as_ptr() as usize;
    let after = start + raw.len();
    Some(Bytes::from([&text[..start], &other, &text[after..]].concat()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn renamed(body: &str) -> Option<String> {
        let bytes = Bytes::copy_from_slice(body.as_bytes());
        let renamed = model(&bytes, |name| (name != "own").then(|| "o\"wn".to_owned()))?;
        Some(String::from_utf8(renamed.to_vec()).unwrap())
    }

    #[test]
    fn only_the_value_of_the_outer_model_field_changes() {
        let body =
            "{ \"x\" : {\"model\": \"in\\u006eer\"},\n\t\"model\" :  \"gpt-\\u0035\" , \"n\":1.50, \"n2\": 1e400 }";
        let expected =
            "{ \"x\" : {\"model\": \"in\\u006eer\"},\n\t\"model\" :  \"o\\\"wn\" , \"n\":1.50, \"n2\": 1e400 }";
        assert_eq!(renamed(body).unwrap(), expected);
    }

    #[test]
    fn what_needs_no_change_or_cannot_be_read_stays() {
        for body in [
            r#"{"model":"own"}"#,
            "{",
            "{}",
            r#"{"model":5}"#,
            r#"{"model":"a","model":"b"}"#,
            r#"["a"]"#,
        ] {
            assert_eq!(renamed(body), None, "{body}");
        }
    }
}
