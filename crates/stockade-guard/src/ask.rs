//! Egress actions as the Guard writes them; their shape is documented in `stockade_policy`.

use serde_json::{Value, json};
use stockade_domain::{Action, ActionKind};
use stockade_policy::{Fault, Host, Protocol};

/// Longest piece of text from inside the sandbox that goes into an action.
const MAX_TEXT: usize = 255;

/// A connection to a host's port.
pub(crate) fn connect(host: &Host, port: u16, protocol: Protocol) -> Action {
    let target = match host {
        Host::Address(std::net::IpAddr::V6(address)) => format!("[{address}]:{port}"),
        _ => format!("{host}:{port}"),
    };
    Action {
        kind: ActionKind::Egress,
        operation: "connect".to_owned(),
        target,
        args: json!({ "host": host.to_string(), "port": port, "protocol": protocol.as_str() }),
    }
}

/// The same for a connection whose requests the Guard will ask about one by one.
pub(crate) fn inspected(action: Action) -> Action {
    with(action, "inspected", json!(true))
}

/// Whether the Guard asks about the requests of a connection one by one.
pub(crate) fn is_inspected(action: &Action) -> bool {
    action.args["inspected"] == json!(true)
}

/// A look-up of a name as the client spelled it, or in canonical form.
pub(crate) fn resolve(name: &str, question: &str) -> Action {
    let name = clipped(name);
    Action {
        kind: ActionKind::Egress,
        operation: "resolve".to_owned(),
        target: name.clone(),
        args: json!({ "host": name, "protocol": Protocol::Dns.as_str(), "qtype": question }),
    }
}

/// The action with something more that was seen.
pub(crate) fn with(mut action: Action, key: &str, value: Value) -> Action {
    let value = match value {
        Value::String(text) => Value::String(clipped(&text)),
        other => other,
    };
    if let Some(args) = action.args.as_object_mut() {
        args.insert(key.to_owned(), value);
    }
    action
}

/// The action with a fault that refuses it.
pub(crate) fn faulty(action: Action, fault: Fault) -> Action {
    with(action, "fault", json!(fault.as_str()))
}

/// Text from inside the sandbox, bounded; what is cut off shows.
pub(crate) fn clipped(text: &str) -> String {
    if text.len() <= MAX_TEXT {
        return text.to_owned();
    }
    let end = (0..=MAX_TEXT).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
    format!("{}…", &text[..end])
}
