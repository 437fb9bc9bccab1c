//! The hosts an egress action is about.

use stockade_domain::Action;

use crate::host::{Host, host_and_port};

/// Every host that an egress action is about: the one it names, and those it gives itself in SNI, in
/// its authority or by an alias. What is no host is left out.
pub fn hosts_of(action: &Action) -> Vec<Host> {
    let mut hosts: Vec<Host> = Vec::new();
    for key in ["host", "sni", "authority", "alias"] {
        let written = action.args.get(key).and_then(|name| name.as_str());
        let host = match (key, written) {
            (_, None) => None,
            // An IPv6 address stands there without brackets.
            ("host", Some(host)) => Host::parse(host).ok(),
            (_, Some(name)) => host_and_port(name).ok().map(|(host, _)| host),
        };
        hosts.extend(host.filter(|host| !hosts.contains(host)));
    }
    hosts
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use stockade_domain::ActionKind;

    use super::*;

    #[test]
    fn every_name_counts_once_in_canonical_form() {
        let action = Action {
            kind: ActionKind::Egress,
            operation: "connect".to_owned(),
            target: String::new(),
            args: json!({ "host": "2606:4700::1111", "sni": "A.Example.COM.", "authority": "a.example.com:8080", "alias": "a b" }),
        };
        let hosts: Vec<String> = hosts_of(&action).iter().map(Host::to_string).collect();
        assert_eq!(hosts, ["2606:4700::1111", "a.example.com"]);
    }
}
