//! What the door must know of a request. The body itself is never changed.

use serde::Deserialize;
use stockade_domain::Wire;

use super::Usage;

/// Bytes of a request that count as one input token in a reservation.
///
/// English text and source code come at about four; three leaves room for JSON, for
/// languages that need more, and keeps the reservation above what is billed.
pub(super) const BYTES_PER_INPUT_TOKEN: u64 = 3;

/// The few fields the door reads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Peek {
    /// The model asked for.
    pub model: String,
    /// Whether the answer streams.
    pub stream: bool,
    /// The most output tokens the request allows, where it says so.
    pub max_output: Option<u64>,
    /// Bytes of the body.
    pub bytes: u64,
}

/// Why a body is not a request.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PeekError {
    /// Not JSON, or a field that decides about the call is missing, doubled or of a wrong type.
    #[error("the request body cannot be read: {0}")]
    Unreadable(String),
    /// Without a model there is no price and no rule.
    #[error("the request names no model")]
    NoModel,
}

#[derive(Deserialize)]
struct Fields {
    #[serde(default)]
    model: Option<String>,
    #[serde(default)]
    stream: Option<bool>,
    #[serde(default)]
    max_tokens: Option<u64>,
    #[serde(default)]
    max_completion_tokens: Option<u64>,
    #[serde(default)]
    max_output_tokens: Option<u64>,
    #[serde(default)]
    n: Option<u64>,
}

impl Peek {
    /// Reads the few fields of a body.
    ///
    /// # Errors
    ///
    /// [`PeekError`]. A field that stands twice is refused: the provider might read the other one.
    pub fn read(wire: Wire, body: &[u8]) -> Result<Self, PeekError> {
        // A derived reader would also take a list for the fields in their order.
        if body.trim_ascii_start().first() != Some(&b'{') {
            return Err(PeekError::Unreadable("it is not a JSON object".to_owned()));
        }
        let fields: Fields = serde_json::from_slice(body).map_err(|e| PeekError::Unreadable(e.to_string()))?;
        let model = fields.model.filter(|m| !m.is_empty()).ok_or(PeekError::NoModel)?;
        let cap = match wire {
            Wire::AnthropicMessages => fields.max_tokens,
            Wire::OpenaiChat => fields.max_tokens.max(fields.max_completion_tokens),
            Wire::OpenaiResponses => fields.max_output_tokens,
        };
        // Chat can be asked for several answers at once.
        let answers = match wire {
            Wire::OpenaiChat => fields.n.unwrap_or(1).max(1),
            _ => 1,
        };
        Ok(Self {
            model,
            stream: fields.stream.unwrap_or(false),
            max_output: cap.map(|cap| cap.saturating_mul(answers)),
            bytes: body.len() as u64,
        })
    }

    /// What the call may use at most, as far as anybody can tell before it.
    pub(super) fn expected(&self, default_output: u64) -> Usage {
        Usage {
            input: self.bytes.div_ceil(BYTES_PER_INPUT_TOKEN),
            output: self.max_output.unwrap_or(default_output),
            ..Usage::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_wire_has_its_own_cap() {
        let body = br#"{"model":"m","stream":true,"max_tokens":10,"max_completion_tokens":20,"max_output_tokens":30,"n":2,"x":{"model":1}}"#;
        let cap = |wire| Peek::read(wire, body).unwrap().max_output;
        assert_eq!(cap(Wire::AnthropicMessages), Some(10));
        assert_eq!(cap(Wire::OpenaiChat), Some(40));
        assert_eq!(cap(Wire::OpenaiResponses), Some(30));
    }

    #[test]
    fn what_cannot_be_judged_is_refused() {
        let read = |body: &str| Peek::read(Wire::OpenaiChat, body.as_bytes());
        assert!(read(r#"{"model":"m"}"#).is_ok());
        assert_eq!(read(r#"{"model":null}"#), Err(PeekError::NoModel));
        assert_eq!(read("{}"), Err(PeekError::NoModel));
        for bad in [
            "",
            "[]",
            "[\"m\"]",
            "{",
            r#"{"model":"cheap","model":"dear"}"#,
            r#"{"model":"m","max_tokens":-1}"#,
            r#"{"model":"m","stream":"yes"}"#,
            "{\"model\":\"\u{0}\"}",
        ] {
            assert!(matches!(read(bad), Err(PeekError::Unreadable(_))), "{bad}");
        }
        assert!(matches!(
            Peek::read(Wire::OpenaiChat, b"{\"model\":\"\xff\"}"),
            Err(PeekError::Unreadable(_))
        ));
    }
}
