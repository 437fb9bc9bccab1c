//! Git hosts by name: what `--repo owner/name` means.

use serde::Deserialize;
use stockade_domain::{GitHost, RepoSlug};
use stockade_policy::{RequestTarget, egress::DomainEntry};

use crate::exit::Complaint;

/// The part `git` of the configuration.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct GitSettings {
    /// The first is the one that `owner/name` is looked for at.
    pub(crate) hosts: Vec<GitHost>,
}

impl GitSettings {
    /// Checks what a person wrote.
    pub(crate) fn checked(mut self) -> Result<Self, Complaint> {
        for at in 0..self.hosts.len() {
            let host = &self.hosts[at];
            let name = &host.name;
            let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
            if name.is_empty() || !name.chars().all(plain) {
                let what = format!("git.hosts: '{}' is no name for a git host", name.escape_debug());
                return Err(Complaint::usage(what).hint("use letters, digits, '-', '_' and '.'"));
            }
            if self.hosts[..at].iter().any(|other| other.name == *name) {
                let what = format!("git.hosts: there are two hosts called '{name}'");
                return Err(Complaint::usage(what).hint("give each its own name"));
            }
            let url = origin(name, "url", &host.url)?;
            let api_url = host
                .api_url
                .as_deref()
                .map(|api| origin(name, "api_url", api))
                .transpose()?;
            self.hosts[at].url = url;
            self.hosts[at].api_url = api_url;
        }
        Ok(self)
    }

    /// The hosts as an environment's rules for git name them: there the Guard reads git. One that
    /// has no name, as on this machine, is none that a sandbox reaches.
    pub(crate) fn places(&self) -> Vec<String> {
        let place = |host: &GitHost| {
            let target = RequestTarget::url(&host.url).ok()?;
            let place = format!("{}:{}", target.host, target.port);
            DomainEntry::parse(&place).is_ok().then_some(place)
        };
        self.hosts.iter().filter_map(place).collect()
    }

    /// The address that a name of the form `owner/name` stands for; `None` for anything else.
    pub(crate) fn resolve(&self, text: &str) -> Option<Result<String, Complaint>> {
        let slug: RepoSlug = text.strip_suffix(".git").unwrap_or(text).parse().ok()?;
        Some(match self.hosts.first() {
            Some(host) => Ok(format!("{}/{slug}.git", host.url)),
            None => Err(Complaint::usage(format!(
                "there is no directory '{text}', and no git host to look for {slug} at"
            ))
            .hint("name a directory, a URL, or a host under 'git: hosts:' in the configuration")),
        })
    }
}

/// An address that others are made of: no credential, no query, no slash at the end.
fn origin(host: &str, key: &str, text: &str) -> Result<String, Complaint> {
    let refuse = |why: &str| {
        Err(Complaint::usage(format!("git.hosts: {key} of '{host}' {why}"))
            .hint(format!("write it like '{key}: https://git.example.com'")))
    };
    let (scheme, rest) = text.split_once("://").unwrap_or(("", text));
    let authority = rest.split('/').next().unwrap_or_default();
    let name = authority.split(':').next().unwrap_or_default();
    if rest.contains('@') {
        return refuse("holds a credential; store it and name it under 'credential'");
    }
    if authority.is_empty() || rest.contains(|c: char| c.is_whitespace() || c.is_control() || "?#\\%".contains(c)) {
        return refuse("is no address");
    }
    match scheme {
        "https" => {}
        // Without TLS a credential would be everybody's; on this machine nobody is between.
        "http" if matches!(name, "127.0.0.1" | "localhost") || authority.starts_with("[::1]") => {}
        _ => return refuse("does not begin with https://"),
    }
    Ok(text.trim_end_matches('/').to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(yaml: &str) -> Result<GitSettings, String> {
        let read: GitSettings = serde_saphyr::from_str(yaml).map_err(|e| e.to_string())?;
        read.checked().map_err(|e| e.to_string())
    }

    #[test]
    fn a_short_name_is_a_repository_of_the_first_host() {
        let two = "hosts: [{name: one, url: 'https://git.example/x/'}, {name: two, url: 'http://127.0.0.1:8080'}]";
        let settings = read(two).unwrap();
        for text in ["octo/hello", "octo/hello.git"] {
            assert_eq!(
                settings.resolve(text).unwrap().unwrap(),
                "https://git.example/x/octo/hello.git"
            );
        }
        for other in ["hello", "./octo/hello", "/octo/hello", "a/b/c", "../x"] {
            assert!(settings.resolve(other).is_none(), "{other}");
        }
        assert!(GitSettings::default().resolve("octo/hello").unwrap().is_err());
    }

    #[test]
    fn a_host_with_a_name_is_one_where_git_is_read() {
        let hosts = "hosts: [{name: a, url: 'https://git.example/x'}, {name: b, url: 'https://b.example:8443'}, \
                     {name: c, url: 'http://127.0.0.1:8080'}]";
        assert_eq!(read(hosts).unwrap().places(), ["git.example:443", "b.example:8443"]);
    }

    #[test]
    fn a_host_that_would_not_do_is_refused() {
        let host = |more: &str| format!("hosts: [{{name: one, {more}}}]");
        assert!(
            read(&host(
                "url: 'https://git.example', api_url: 'https://api.example', credential: bot"
            ))
            .is_ok()
        );
        for wrong in [
            host("url: 'http://git.example'"),
            host("url: 'git.example'"),
            host("url: 'ssh://git.example'"),
            host("url: 'https://'"),
            host("url: 'https://me:pass@git.example'"),
            host("url: 'https://git.example?x'"),
            host("url: 'https://git.example', api_url: 'http://api.example'"),
            host("url: 'https://git.example', token: x"),
            host("url: 'https://git.example', credential: {secret: bot, kind: {query: {name: token}}}"),
            "hosts: [{name: a, url: 'https://x'}, {name: a, url: 'https://y'}]".to_owned(),
            "hosts: [{name: 'a b', url: 'https://x'}]".to_owned(),
        ] {
            assert!(read(&wrong).is_err(), "{wrong}");
        }
    }
}
