//! Answers for requests that want JSON after a schema: titles, mostly.

use serde_json::{Map, Value, json};

/// The smallest value that follows a schema, with `text` wherever a text is wanted.
pub(super) fn instance(schema: &Value, text: &str) -> Value {
    if let Some(fixed) = schema.get("const").or_else(|| schema["enum"].get(0)) {
        return fixed.clone();
    }
    if let Some(choice) = schema["anyOf"].get(0).or_else(|| schema["oneOf"].get(0)) {
        return instance(choice, text);
    }
    let kind = schema["type"].as_str().or_else(|| schema["type"][0].as_str());
    match kind {
        Some("object") => object(schema, text),
        Some("array") => json!([]),
        Some("boolean") => json!(false),
        Some("integer" | "number") => json!(0),
        Some("null") => Value::Null,
        _ => json!(text),
    }
}

fn object(schema: &Value, text: &str) -> Value {
    let required = schema["required"].as_array();
    let wanted = |name: &String| required.is_none_or(|names| names.iter().any(|n| n == name));
    let properties = schema["properties"].as_object().into_iter().flatten();
    properties
        .filter(|(name, _)| wanted(name))
        .map(|(name, schema)| (name.clone(), instance(schema, text)))
        .collect::<Map<_, _>>()
        .into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_title_is_put_where_the_schema_wants_a_text() {
        let schema = json!({"type": "object", "required": ["title", "n", "k"], "properties": {
            "title": {"type": "string"}, "n": {"type": ["integer", "null"]}, "k": {"enum": ["a", "b"]}, "more": {"type": "array"}}});
        assert_eq!(instance(&schema, "T"), json!({"title": "T", "n": 0, "k": "a"}));
    }
}
