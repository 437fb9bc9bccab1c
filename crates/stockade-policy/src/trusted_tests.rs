use std::collections::HashSet;

use stockade_domain::{Environment, NetworkLevel, Verdict};

use super::*;
use crate::{
    EgressRules, Host, Protocol,
    egress::{DomainEntry, Question},
};

fn reaches(host: &str) -> bool {
    let rules = EgressRules::compile(&Environment::named("t", NetworkLevel::Trusted)).unwrap();
    let question = Question {
        port: Some(443),
        protocol: Protocol::Tls,
        request: None,
    };
    rules.judge(&Host::parse(host).unwrap(), &question).verdict.verdict == Verdict::Allow
}

#[test]
fn the_list_compiles_and_has_no_doubles() {
    let mut seen = HashSet::new();
    for domain in trusted_domains() {
        DomainEntry::parse(domain).unwrap();
        assert!(seen.insert(domain), "{domain} is listed twice");
    }
    assert!(seen.len() > 50);
}

#[test]
fn nobody_publishes_there_by_a_name_of_their_choice() {
    for host in [
        "github.com",
        "files.pythonhosted.org",
        "registry.npmjs.org",
        "de.archive.ubuntu.com",
    ] {
        assert!(reaches(host), "{host}");
    }
    for host in [
        "gist.github.com",
        "gist.githubusercontent.com",
        "someone.github.io",
        "pastebin.com",
        "paste.debian.net",
        "someone.gitlab.io",
        "storage.googleapis.com",
        "bucket.s3.amazonaws.com",
        "x.blob.core.windows.net",
        "upload.pypi.org",
        "uploads.github.com",
        "api.github.com",
        "huggingface.co",
        "ghcr.io",
        "registry-1.docker.io",
        "o1.ingest.sentry.io",
        "someone.sourceforge.net",
        "someone.pythonhosted.org",
        "someone.workers.dev",
        "someone.vercel.app",
        "someone.ngrok.io",
        "transfer.sh",
        "webhook.site",
    ] {
        assert!(!reaches(host), "{host}");
    }
}

#[test]
fn the_documentation_has_the_list_as_it_is() {
    let docs = include_str!("../../../docs/trusted-hosts.md");
    assert!(
        docs.contains(&format!("`{TRUSTED_VERSION}`")),
        "another version stands in docs/trusted-hosts.md"
    );
    for category in TRUSTED {
        let hosts: Vec<String> = category.domains.iter().map(|domain| format!("`{domain}`")).collect();
        let end = format!("| {} |", hosts.join(", "));
        let row = docs
            .lines()
            .find(|line| line.starts_with(&format!("| {} |", category.name)));
        assert!(
            row.is_some_and(|row| row.ends_with(&end)),
            "docs/trusted-hosts.md: {} is not {end}",
            category.name
        );
    }
}
