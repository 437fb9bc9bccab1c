//! Where secrets may go.

use serde_json::Value;
use stockade_domain::{Action, ActionKind, CredentialBinding, Environment, GitHost, PolicyVerdict};

use crate::{
    egress::allow,
    pattern,
    policy::{Policy, default_verdict},
    rules::AgentRules,
};

/// What the environment and the operator say about secrets.
#[derive(Debug, Clone)]
pub(crate) struct Credentials {
    /// Secrets and the hosts they are bound to.
    bound: Vec<(String, Vec<String>)>,
    /// The server of the run's repository, with the operator's secret for it.
    git_host: Option<GitHost>,
}

impl Credentials {
    pub(crate) fn of(environment: &Environment) -> Self {
        Self {
            bound: environment.credentials.iter().map(bound).collect(),
            git_host: None,
        }
    }

    /// A secret goes where the environment binds it, or to the git host that the operator gave it to; an agent's
    /// rule may narrow that.
    pub(crate) fn judge(&self, action: &Action, rules: &AgentRules) -> PolicyVerdict {
        let given = if self.git_host.as_ref().is_some_and(|host| host.covers(action)) {
            allow("stockade.git_host", "the operator gave this secret to this git host")
        } else if self.binds(action) {
            allow("env.credential", "the environment binds this secret to this host")
        } else {
            return default_verdict(ActionKind::Credential);
        };
        rules.verdict(action).unwrap_or(given)
    }

    fn binds(&self, action: &Action) -> bool {
        let text = |key: &str| action.args.get(key).and_then(Value::as_str);
        text("secret").zip(text("host")).is_some_and(|(secret, host)| {
            let of_secret = self.bound.iter().filter(|(name, _)| name == secret);
            let mut hosts = of_secret.flat_map(|(_, hosts)| hosts);
            hosts.any(|pattern| pattern::matches(pattern, host))
        })
    }
}

impl Policy {
    /// The same policy for a run whose repository is at a server that the operator has named: the host's own
    /// requests there may use its secret. Nothing of a sandbox may.
    #[must_use]
    pub fn with_git_host(mut self, host: Option<GitHost>) -> Self {
        self.credentials.git_host = host;
        self
    }
}

/// A secret and the hosts it is bound to, without their ports: which of them the Guard looks at.
fn bound(binding: &CredentialBinding) -> (String, Vec<String>) {
    let host = |written: &String| written.split(':').next().unwrap_or_default().to_owned();
    (binding.secret.to_string(), binding.hosts.iter().map(host).collect())
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use stockade_domain::{AgentKind, AgentSpec, NetworkLevel, Rule, RuleMatch, RuleVerdict, Verdict};

    use super::*;

    fn policy(rules: Vec<Rule>) -> Policy {
        let agent = AgentSpec {
            name: "tester".to_owned(),
            description: String::new(),
            kind: AgentKind::Builtin { tools: Vec::new() },
            model: None,
            instructions: None,
            rules,
            limits: Default::default(),
        };
        Policy::compile(&agent, &Environment::named("test", NetworkLevel::None)).unwrap()
    }

    #[test]
    fn the_operators_secret_goes_to_the_git_host_of_the_run_and_nowhere_else() {
        let host: GitHost = serde_json::from_value(json!({
            "name": "one", "url": "https://git.example", "api_url": "https://api.example", "credential": "bot",
        }))
        .unwrap();
        let push = host
            .credential_use("https://git.example", "push", "octo/hello")
            .unwrap();
        let said = |policy: &Policy, action: &Action| {
            let said = policy.evaluate(action);
            (said.verdict, said.rule)
        };
        let own = policy(Vec::new()).with_git_host(Some(host.clone()));
        assert_eq!(said(&own, &push), (Verdict::Allow, "stockade.git_host".to_owned()));
        let none = (Verdict::Deny, "default.credential".to_owned());
        assert_eq!(said(&policy(Vec::new()), &push), none, "another run");
        let mut elsewhere = push.clone();
        elsewhere.args["server"] = json!("https://evil.example");
        assert_eq!(said(&own, &elsewhere), none);
        // What the Guard asks for a sandbox is another action.
        let used = Action {
            operation: "use".to_owned(),
            ..push.clone()
        };
        assert_eq!(said(&own, &used), none);
        let rule = Rule {
            id: "mine".to_owned(),
            when: RuleMatch {
                kind: Some(ActionKind::Credential),
                ..RuleMatch::default()
            },
            verdict: RuleVerdict::Deny,
            reason: String::new(),
        };
        let narrow = policy(vec![rule]).with_git_host(Some(host));
        assert_eq!(said(&narrow, &push), (Verdict::Deny, "mine".to_owned()));
    }
}
