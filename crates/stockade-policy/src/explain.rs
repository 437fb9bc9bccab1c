//! Explanations: which rule answers a URL, and why the ones before it did not.

use std::fmt;

use serde_json::json;
use stockade_domain::{Action, ActionKind, ExplainedStep, Explanation, PolicyVerdict, Verdict};

use crate::{
    egress::{Protocol, Question, Request},
    host::{Host, host_and_port},
    policy::Policy,
    target::{RequestPath, RequestTarget, TargetError, bracketed},
};

/// Something a person asks about: a URL, with a method where it is one of HTTP.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    host: Host,
    port: u16,
    protocol: Protocol,
    request: Option<(String, RequestPath)>,
    shown: String,
}

/// Why a question cannot be answered.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ExplainError {
    /// The URL is none.
    #[error("'{url}': {cause}")]
    Url {
        /// The URL, escaped.
        url: String,
        /// What is wrong.
        cause: TargetError,
    },
    /// A URL of a protocol without a port of its own.
    #[error("'{0}' names no port; write it like 'tcp://host.example.com:9000'")]
    NoPort(String),
    /// A path or query where the protocol has none.
    #[error("'{0}' has a path, which only 'https' and 'http' have; write 'ssh://host:port'")]
    Path(String),
    /// No method of HTTP.
    #[error("method '{0}' is none; write it in capitals, like 'GET'")]
    Method(String),
    /// A method for a protocol that has none.
    #[error("a method belongs to 'https' and 'http'; leave it out for '{0}'")]
    NoMethod(&'static str),
}

impl Place {
    /// Reads a URL: `https://…` and `http://…` with a method (GET when absent), and `tls://`,
    /// `ssh://`, `postgres://` and `tcp://` with host and port.
    ///
    /// # Errors
    ///
    /// [`ExplainError`] says what is wrong with it.
    pub fn parse(url: &str, method: Option<&str>) -> Result<Self, ExplainError> {
        let wrong = |cause: TargetError| ExplainError::Url {
            url: url.chars().take(200).collect::<String>().escape_default().to_string(),
            cause,
        };
        let (scheme, rest) = url.split_once("://").ok_or_else(|| wrong(TargetError::NotAbsolute))?;
        let other = [
            ("tls", Protocol::Tls, Some(443)),
            ("ssh", Protocol::Ssh, Some(22)),
            ("postgres", Protocol::Postgres, Some(5432)),
            ("postgresql", Protocol::Postgres, Some(5432)),
            ("tcp", Protocol::Tcp, None),
        ];
        if let Some((_, protocol, default)) = other.into_iter().find(|(name, ..)| scheme.eq_ignore_ascii_case(name)) {
            if method.is_some() {
                return Err(ExplainError::NoMethod(protocol.as_str()));
            }
            return Self::bytes(rest, protocol, default, &wrong);
        }
        let target = RequestTarget::url(url).map_err(wrong)?;
        let method = method.unwrap_or("GET");
        if method.is_empty() || !method.bytes().all(|b| b.is_ascii_uppercase() || b == b'-') {
            return Err(ExplainError::Method(method.escape_default().to_string()));
        }
        Ok(Self {
            shown: target.to_string(),
            host: target.host,
            port: target.port,
            protocol: match target.scheme {
                crate::Scheme::Https => Protocol::Https,
                crate::Scheme::Http => Protocol::Http,
            },
            request: Some((method.to_owned(), target.path)),
        })
    }

    fn bytes(
        rest: &str,
        protocol: Protocol,
        default: Option<u16>,
        wrong: &dyn Fn(TargetError) -> ExplainError,
    ) -> Result<Self, ExplainError> {
        let (authority, tail) = rest.split_at(rest.find(['/', '?', '#']).unwrap_or(rest.len()));
        if authority.contains('@') {
            return Err(wrong(TargetError::UserInfo));
        }
        if !matches!(tail, "" | "/") {
            return Err(ExplainError::Path(
                tail.chars().take(80).collect::<String>().escape_default().to_string(),
            ));
        }
        let (host, port) = host_and_port(authority).map_err(|error| wrong(error.into()))?;
        let port = port
            .or(default)
            .ok_or_else(|| ExplainError::NoPort(authority.escape_default().to_string()))?;
        Ok(Self {
            shown: format!("{}://{}:{port}", protocol.as_str(), bracketed(&host)),
            host,
            port,
            protocol,
            request: None,
        })
    }

    fn question(&self, protocol: Protocol, whole: bool) -> Question<'_> {
        let request = self.request.as_ref().filter(|_| whole).map(|(method, path)| Request {
            method,
            path,
            bytes: None,
        });
        Question {
            port: Some(self.port),
            protocol,
            request,
        }
    }

    fn action(&self, operation: &str, more: &[(&str, serde_json::Value)]) -> Action {
        let mut args = json!({ "host": self.host.to_string() });
        for (key, value) in more {
            args[*key] = value.clone();
        }
        Action {
            kind: ActionKind::Egress,
            operation: operation.to_owned(),
            target: self.shown.clone(),
            args,
        }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.shown)
    }
}

impl Policy {
    /// How this policy answers a place, and how it came to that: the look-up of the name, the
    /// connection and, where connections are read, the request, as the Guard would ask.
    ///
    /// What only a real connection shows is not part of it: the addresses behind the name, and
    /// names that disagree.
    pub fn explain(&self, place: &Place) -> Explanation {
        let inspected = place.request.is_some() && self.inspection_rule(&place.host, place.port).is_some();
        // What a connection shows before it is read.
        let opening = match place.protocol {
            Protocol::Https => Protocol::Tls,
            other => other,
        };
        let port = ("port", json!(place.port));
        let spoken = |protocol: Protocol| ("protocol", json!(protocol.as_str()));
        let mut asked = vec![place.action(
            "connect",
            &[port.clone(), spoken(opening), ("inspected", json!(inspected))],
        )];
        if let Some((method, path)) = place.request.as_ref().filter(|_| inspected) {
            let request = [
                port,
                spoken(place.protocol),
                ("method", json!(method)),
                ("path", json!(path.as_str())),
            ];
            asked.push(place.action("request", &request));
        }
        let answers: Vec<PolicyVerdict> = asked.iter().map(|action| self.evaluate(action)).collect();
        let last = asked.last().and_then(|action| self.bounds(action).into_iter().next());
        let question = if inspected {
            place.question(place.protocol, true)
        } else {
            place.question(opening, false)
        };
        let answer = strictest(answers);
        let mut steps = self.egress().steps(&place.host, &question);
        if !steps.iter().any(|step| step.decided && step.rule == answer.rule) {
            for step in &mut steps {
                step.decided = false;
            }
            steps.push(ExplainedStep {
                rule: answer.rule.clone(),
                index: None,
                name: None,
                text: whose(&answer.rule).to_owned(),
                names_host: true,
                decided: true,
                why: answer.reason.clone(),
            });
        }
        let (agent, environment) = self.parts();
        Explanation {
            environment: environment.to_owned(),
            agent: agent.to_owned(),
            url: place.shown.clone(),
            method: place.request.as_ref().map(|(method, _)| method.clone()),
            verdict: answer.verdict,
            rule: answer.rule,
            reason: answer.reason,
            inspected,
            limits: last.map(|bounds| bounds.limits).unwrap_or_default(),
            steps,
        }
    }
}

/// Whose rule an id names that is none of the environment's own.
fn whose(rule: &str) -> &'static str {
    match rule.split('.').next() {
        Some("stockade") => "a rule of Stockade itself",
        Some("env") => "the rules of the environment taken together",
        _ => "a rule of the agent",
    }
}

/// The answer that counts: the first that denies, else the last that holds, else the last.
fn strictest(answers: Vec<PolicyVerdict>) -> PolicyVerdict {
    let mut chosen: Option<PolicyVerdict> = None;
    for answer in answers {
        match answer.verdict {
            Verdict::Deny => return answer,
            Verdict::Hold => chosen = Some(answer),
            _ if chosen.as_ref().is_none_or(|before| before.verdict == Verdict::Allow) => chosen = Some(answer),
            _ => {}
        }
    }
    chosen.unwrap_or_else(|| crate::egress::deny("stockade.operation", "nothing was asked"))
}
