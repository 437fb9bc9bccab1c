//! Access lists of smokescreen (stripe/smokescreen, `pkg/smokescreen/acl/v1`).

use serde_json::Value;
use stockade_domain::{EgressRule, RuleVerdict};

use super::{
    Imported, checked, closed, opened,
    reader::{ImportError, Place},
};

const RULE: &[&str] = &[
    "name",
    "project",
    "action",
    "allowed_domains",
    "mitm_domains",
    "allowed_external_proxies",
];
const MITM: &[&str] = &[
    "domain",
    "add_headers",
    "detailed_http_logs",
    "detailed_http_logs_full_headers",
];

/// Reads an access list and makes the environment of one role: the service of that name, the
/// only service, or the default.
///
/// # Errors
///
/// [`ImportError`] with the path of what cannot be read.
pub fn smokescreen(document: &Value, role: Option<&str>) -> Result<Imported, ImportError> {
    let root = Place::root(document);
    root.only(&[
        "version",
        "services",
        "default",
        "global_deny_list",
        "global_allow_list",
    ])?;
    let version = root.required("version")?;
    if version.text()? != "v1" {
        return Err(version.wrong("expected 'v1'"));
    }
    let services = root.required("services")?.list()?;
    let default = root.field("default")?;
    for service in services.iter().chain(&default) {
        check(service)?;
    }
    let mut notes = Vec::new();
    let rule = choose(&root, &services, default.as_ref(), role, &mut notes)?;
    let name = role.map(str::to_owned).or(rule.text_of("name")?.map(str::to_owned));
    let mut environment = closed(name.as_deref().unwrap_or("default"));
    let denied = root.hosts_of("global_deny_list")?;
    let allowed = rule.hosts_of("allowed_domains")?;
    let everywhere = root.hosts_of("global_allow_list")?;

    for host in denied.iter().filter(|host| allowed.contains(host)) {
        notes.push(format!(
            "'{host}' is in global_deny_list and allowed by the role; there the role wins, here the denial"
        ));
    }
    add(&mut environment.egress, "global-deny", RuleVerdict::Deny, denied, false);
    let mitm = inspected(rule, &allowed, &mut notes)?;
    let plain = allowed.into_iter().filter(|host| !mitm.contains(host)).collect();
    add(&mut environment.egress, "mitm", RuleVerdict::Allow, mitm, true);
    add(&mut environment.egress, "allowed", RuleVerdict::Allow, plain, false);
    add(
        &mut environment.egress,
        "global-allow",
        RuleVerdict::Allow,
        everywhere,
        false,
    );
    if environment.egress.iter().any(|rule| rule.verdict == RuleVerdict::Allow) {
        notes.push("an allowed host means ports 80 and 443 here; add 'ports' or 'protocols' for others".to_owned());
    }
    let action = rule.required("action")?;
    match action.text()? {
        "enforce" => {}
        "report" => notes.push(
            "action 'report' lets everything through there and only writes down what the list does not name; here the list is enforced"
                .to_owned(),
        ),
        "open" => opened(&mut environment, &mut notes, "action 'open' lets everything through"),
        _ => return Err(action.wrong("expected 'open', 'report' or 'enforce'")),
    }
    let proxies = rule.texts_of("allowed_external_proxies")?;
    if !proxies.is_empty() {
        notes.push(format!(
            "external proxies are left out, a sandbox has no way through another proxy: {}",
            proxies.join(", ")
        ));
    }
    checked(Imported { environment, notes })
}

/// Refuses what no rule of the format has, also in the roles that are not asked for.
fn check(rule: &Place<'_>) -> Result<(), ImportError> {
    rule.only(RULE)?;
    for domain in rule.list_of("mitm_domains")? {
        domain.only(MITM)?;
        domain.required("domain")?.text()?;
    }
    Ok(())
}

fn choose<'p, 'a>(
    root: &Place<'_>,
    services: &'p [Place<'a>],
    default: Option<&'p Place<'a>>,
    role: Option<&str>,
    notes: &mut Vec<String>,
) -> Result<&'p Place<'a>, ImportError> {
    let mut names = Vec::new();
    for service in services {
        names.push((service.required("name")?.text()?, service));
    }
    let known = || names.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(", ");
    match (role, names.as_slice(), default) {
        (Some(role), names, default) => match (names.iter().find(|(name, _)| *name == role), default) {
            (Some((_, service)), _) => Ok(service),
            (None, Some(default)) => {
                notes.push(format!("no service '{role}'; the default rule is what it would get"));
                Ok(default)
            }
            (None, None) => Err(root.wrong(&format!("no service '{role}' and no default; known are: {}", known()))),
        },
        (None, [(_, only)], None) => Ok(only),
        (None, [], Some(default)) => Ok(default),
        (None, ..) => Err(root.wrong(&format!("there are several roles; name one with --role: {}", known()))),
    }
}

/// Domains whose traffic is read there.
fn inspected(rule: &Place<'_>, allowed: &[String], notes: &mut Vec<String>) -> Result<Vec<String>, ImportError> {
    let mut hosts = Vec::new();
    for domain in rule.list_of("mitm_domains")? {
        let text = domain.required("domain")?;
        let host = crate::egress::HostPattern::parse(text.text()?)
            .map_err(|why| text.wrong(&why))?
            .to_string();
        if !allowed.contains(&host) {
            return Err(text.wrong("it is not in allowed_domains as well"));
        }
        if let Some(headers) = domain.field("add_headers")? {
            notes.push(format!(
                "{}: headers are left out: what the Guard adds to requests is a credential's business",
                headers.shown()
            ));
        }
        hosts.push(host);
    }
    Ok(hosts)
}

fn add(rules: &mut Vec<EgressRule>, name: &str, verdict: RuleVerdict, hosts: Vec<String>, inspect: bool) {
    if hosts.is_empty() {
        return;
    }
    rules.push(EgressRule {
        name: Some(name.to_owned()),
        hosts,
        inspect,
        ..EgressRule::hosts(verdict, &[])
    });
}
