//! The egress rules of an environment: which one answers.

use std::collections::HashSet;

use stockade_domain::{EgressRule, ExplainedStep, NetworkLevel, TrafficLimits};

use super::{
    pattern::{HostIndex, HostPattern},
    rule::{CompiledRule, Fit, Miss, Question},
};
use crate::{host::Host, target::Doubt};

/// Rules in the order they are asked: those that deny, then the others.
#[derive(Debug, Clone, Default)]
pub(crate) struct RuleSet {
    rules: Vec<CompiledRule>,
    index: HostIndex,
}

/// What the rules say.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Ruling<'a> {
    /// This rule answers.
    Rule(&'a CompiledRule),
    /// Only a request can tell; `beyond` says that the level may have to answer then.
    Request {
        /// The first rule that looks at requests.
        rule: &'a CompiledRule,
        /// Whether no rule that lets something out is among those that wait for the request.
        beyond: bool,
    },
    /// Rules let something out to this port of this host, and not this.
    Ungranted(&'a CompiledRule, Miss),
    /// The answer would depend on how a server reads the path.
    Doubt(Doubt),
    /// No rule is about it.
    Silent,
}

impl RuleSet {
    /// Compiles the rules of an environment.
    pub(super) fn compile(rules: &[EgressRule], level: NetworkLevel) -> Result<Self, String> {
        let mut names = HashSet::new();
        let mut compiled = Vec::with_capacity(rules.len());
        for (place, rule) in rules.iter().enumerate() {
            compiled.push(CompiledRule::compile(place, rule, level)?);
            if let Some(name) = &rule.name
                && !names.insert(name)
            {
                return Err(format!("egress[{place}]: the name '{name}' is given twice"));
            }
        }
        // A stable sort: within each half the order is the environment's.
        compiled.sort_by_key(|rule| !rule.denies());
        let mut index = HostIndex::default();
        for (place, rule) in compiled.iter().enumerate() {
            for pattern in &rule.hosts {
                index.add(pattern, place);
            }
        }
        Ok(Self { rules: compiled, index })
    }

    /// The rules about a host, in the order they are asked.
    fn about(&self, host: &Host) -> impl Iterator<Item = &CompiledRule> {
        self.index.of(host).into_iter().map(|place| &self.rules[place])
    }

    /// What the rules say to a host.
    pub(super) fn judge(&self, host: &Host, question: &Question<'_>) -> Ruling<'_> {
        let mut waiting: Option<&CompiledRule> = None;
        let mut ungranted = None;
        for rule in self.about(host) {
            match (rule.fits(question), rule.denies()) {
                (Fit::Doubt, _) => {
                    let doubt = question.request.and_then(|request| request.path.doubt());
                    return doubt.map_or(Ruling::Silent, Ruling::Doubt);
                }
                (Fit::Yes, true) => return Ruling::Rule(rule),
                (Fit::Yes, false) => {
                    return match waiting {
                        Some(first) => Ruling::Request {
                            rule: first,
                            beyond: false,
                        },
                        None => Ruling::Rule(rule),
                    };
                }
                // A name may be looked up if anything might be let out there.
                (Fit::Perhaps, false) if question.port.is_none() => return Ruling::Rule(rule),
                (Fit::Perhaps, false) => {
                    let rule = waiting.unwrap_or(rule);
                    return Ruling::Request { rule, beyond: false };
                }
                (Fit::Perhaps, true) if question.port.is_some() => waiting = waiting.or(Some(rule)),
                (Fit::Perhaps, true) | (Fit::No(Miss::Host | Miss::Port), _) | (Fit::No(_), true) => {}
                (Fit::No(miss), false) => ungranted = ungranted.or(Some((rule, miss))),
            }
        }
        match (ungranted, waiting) {
            (Some((rule, miss)), _) => Ruling::Ungranted(rule, miss),
            (None, Some(rule)) => Ruling::Request { rule, beyond: true },
            (None, None) => Ruling::Silent,
        }
    }

    /// Rules with limits on what they let out, by their ids.
    pub(super) fn limited(&self) -> impl Iterator<Item = (String, TrafficLimits)> {
        let limited = |rule: &&CompiledRule| !rule.rule.limits.is_unlimited() || rule.rule.max_request_bytes.is_some();
        let rules = self.rules.iter().filter(limited);
        rules.map(|rule| (rule.id(), rule.rule.limits))
    }

    /// Whether a rule looks at requests.
    pub(super) fn looks_at_requests(&self) -> bool {
        self.rules.iter().any(|rule| rule.rule.looks_at_requests())
    }

    /// Whether a rule that lets something out names this very host.
    pub(super) fn opens_exactly(&self, host: &Host, name: &str) -> bool {
        self.about(host).any(|rule| !rule.denies() && rule.names_exactly(name))
    }

    /// The patterns by which rules let something out to a host.
    pub(super) fn opening<'a>(&'a self, host: &'a Host) -> impl Iterator<Item = &'a HostPattern> {
        let rules = self.about(host).filter(|rule| !rule.denies());
        rules.flat_map(|rule| &rule.hosts).filter(|pattern| pattern.names(host))
    }

    /// Whether a rule lets any bytes out to this port.
    pub(super) fn is_opaque(&self, host: &Host, port: u16) -> bool {
        self.about(host).any(|rule| rule.is_opaque(port))
    }

    /// Every rule up to the one that answers, with why it does or does not.
    pub(super) fn steps(&self, host: &Host, question: &Question<'_>) -> Vec<ExplainedStep> {
        let mut steps = Vec::new();
        for rule in &self.rules {
            let names_host = rule.hosts.iter().any(|pattern| pattern.names(host));
            let fit = if names_host {
                rule.fits(question)
            } else {
                Fit::No(Miss::Host)
            };
            let why = match fit {
                Fit::Yes => "it fits".to_owned(),
                Fit::Perhaps => "it depends on the request".to_owned(),
                Fit::Doubt => "whether it fits depends on how a server reads the path".to_owned(),
                Fit::No(miss) => miss.why().to_owned(),
            };
            let decided = matches!(fit, Fit::Yes | Fit::Doubt);
            steps.push(ExplainedStep {
                rule: rule.id(),
                index: Some(rule.index),
                name: rule.rule.name.clone(),
                text: rule.text(),
                names_host,
                decided,
                why,
            });
            if decided {
                break;
            }
        }
        steps
    }

    /// Every rule in words, in the order they are asked.
    pub(super) fn lines(&self) -> Vec<String> {
        self.rules
            .iter()
            .map(|rule| format!("{}: {}", rule.id(), rule.text()))
            .collect()
    }
}
