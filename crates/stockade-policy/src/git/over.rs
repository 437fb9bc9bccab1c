//! Git's part of a run's policy: whose rules, and at which hosts.

use stockade_domain::{Action, ActionKind, PolicyVerdict, RefRules, RunId};

use super::judge::{GitPolicy, deny};
use crate::{
    egress::{DomainEntry, Protocol},
    host::Host,
    policy::Policy,
    target::RequestTarget,
};

/// The rule that has connections to a git host read.
pub(crate) const HOSTS: &str = "env.git.hosts";

/// An environment's rules for git, compiled.
#[derive(Debug, Clone)]
pub(crate) struct GitOver {
    rules: RefRules,
    hosts: Vec<DomainEntry>,
    run: Option<GitPolicy>,
}

impl GitOver {
    pub(crate) fn compile(rules: &RefRules) -> Result<Self, String> {
        let entry = |text: &String| DomainEntry::parse(text).map_err(|cause| format!("git.hosts: {cause}"));
        Ok(Self {
            hosts: rules.hosts.iter().map(entry).collect::<Result<_, _>>()?,
            rules: rules.clone(),
            run: None,
        })
    }

    /// What the rules say to a fetch, a push or a pull request; `None` to anything else.
    pub(crate) fn judge(&self, action: &Action) -> Option<PolicyVerdict> {
        match (&self.run, action.kind, action.operation.as_str()) {
            (Some(run), ..) => run.judge(action),
            // What a branch of the run's own is, only a run knows.
            (None, ActionKind::Egress, "fetch") | (None, ActionKind::Export, "push" | "pull_request") => Some(deny(
                "stockade.git",
                "nothing goes through git without a run".to_owned(),
            )),
            (None, ..) => None,
        }
    }

    /// Whether connections that speak this to that host have to be read. What names itself another
    /// protocol has egress rules of its own.
    pub(crate) fn reads(&self, host: &Host, port: Option<u16>, protocol: Protocol) -> bool {
        let readable = !matches!(protocol, Protocol::Ssh | Protocol::Postgres | Protocol::Dns);
        port.is_some_and(|port| readable && self.hosts.iter().any(|entry| entry.means(host, port)))
    }

    pub(super) fn rules(&self) -> &RefRules {
        &self.rules
    }

    pub(crate) fn has_hosts(&self) -> bool {
        !self.hosts.is_empty()
    }
}

impl Policy {
    /// The policy of this run: its own branches count, and the host its repository came from, if
    /// it came from one, is one where git is spoken.
    #[must_use]
    pub fn for_run(mut self, run: RunId, repository: Option<&str>) -> Self {
        let git = &mut self.git;
        git.run = Some(GitPolicy::new(&git.rules, run));
        // A path, or an address that no sandbox reaches under a name, has no host.
        let target = repository.and_then(|source| RequestTarget::url(source).ok());
        let entry = target.and_then(|target| DomainEntry::exactly(&target.host, target.port).ok());
        git.hosts.extend(entry);
        self
    }

    /// The rules for git, where this policy is a run's.
    pub fn git(&self) -> Option<&GitPolicy> {
        self.git.run.as_ref()
    }
}
