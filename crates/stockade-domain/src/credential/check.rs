//! What a binding may say. Everything has one spelling, so that what is compared is what was written.

use super::{CredentialBinding, CredentialKind};

/// Headers that frame or route a message (RFC 9110, RFC 9112): a secret there would change where a request goes or
/// where it ends.
const FRAMING: [&str; 14] = [
    "accept-encoding",
    "connection",
    "content-encoding",
    "content-length",
    "expect",
    "host",
    "keep-alive",
    "proxy-authorization",
    "proxy-connection",
    "range",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

/// Variables that a program obeys before it reads its own; a placeholder there would break it in odd ways.
const OBEYED: [&str; 6] = ["PATH", "HOME", "SHELL", "IFS", "ENV", "BASH_ENV"];

type Fault = (&'static str, String);

/// The first part of a binding that cannot be used, and why.
pub(super) fn fault(binding: &CredentialBinding) -> Option<Fault> {
    let named = |field| move |cause| (field, cause);
    if binding.hosts.is_empty() {
        return Some((
            "hosts",
            "there is none; name the hosts that may get the secret".to_owned(),
        ));
    }
    let hosts = binding.hosts.iter().find_map(|host| host_fault(host));
    let methods = binding.methods.iter().find_map(|method| method_fault(method));
    let paths = binding.paths.iter().find_map(|path| path_fault(path));
    let env = binding.env.as_deref().and_then(variable_fault);
    hosts
        .map(named("hosts"))
        .or_else(|| methods.map(named("methods")))
        .or_else(|| paths.map(named("paths")))
        .or_else(|| env.map(named("env")))
        .or_else(|| kind_fault(&binding.kind).map(named("kind")))
}

fn host_fault(written: &str) -> Option<String> {
    let shown = written.escape_debug();
    let (host, port) = written.split_once(':').map_or((written, None), |(h, p)| (h, Some(p)));
    if let Some(port) = port
        && (port.starts_with('0') || !port.parse::<u16>().is_ok_and(|n| n > 0) || port.starts_with('+'))
    {
        return Some(format!("'{shown}' has no port from 1 to 65535 after its colon"));
    }
    let name = host.strip_prefix("*.").unwrap_or(host);
    let labels: Vec<&str> = name.split('.').collect();
    let label = |label: &&str| {
        (1..=63).contains(&label.len())
            && label
                .bytes()
                .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    if name.len() > 253 || !labels.iter().all(label) {
        return Some(format!(
            "'{shown}' is no host name; write it in lower case, international names as 'xn--…', with '*.' at most at \
             the beginning and without a path"
        ));
    }
    if labels.len() < 2 {
        return Some(format!("'{shown}' is too wide; write a name with a dot"));
    }
    if labels
        .last()
        .is_some_and(|last| last.bytes().all(|b| b.is_ascii_digit()))
    {
        return Some(format!(
            "'{shown}' is an address; credentials go to names, which TLS can prove"
        ));
    }
    None
}

fn method_fault(method: &str) -> Option<String> {
    let token = !method.is_empty() && method.len() <= 32 && method.bytes().all(|b| b.is_ascii_uppercase() || b == b'-');
    match method {
        "TRACE" | "CONNECT" => Some(format!(
            "{method} sends back or hides what it carries; it gets no credential"
        )),
        _ if !token => Some(format!(
            "'{}' is no method; write it in upper case",
            method.escape_debug()
        )),
        _ => None,
    }
}

fn path_fault(path: &str) -> Option<String> {
    let shown = path.escape_debug();
    let Some(body) = path.strip_prefix('/') else {
        return Some(format!("'{shown}' does not begin with '/'"));
    };
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"-._~!$&'()+,=:@/".contains(&b);
    if path.len() > 1024 || !path.bytes().all(plain) {
        return Some(format!(
            "'{shown}' holds characters that a path can spell in several ways; write letters, digits and '-._~' \
             between slashes ('*' has no meaning: a path is the beginning of those it covers)"
        ));
    }
    let body = body.strip_suffix('/').unwrap_or(body);
    let odd = !body.is_empty() && body.split('/').any(|part| matches!(part, "" | "." | ".."));
    odd.then(|| format!("'{shown}' has an empty, '.' or '..' segment; write the path without it"))
}

fn variable_fault(name: &str) -> Option<String> {
    let bytes = name.as_bytes();
    let fits = (1..=128).contains(&bytes.len())
        && !bytes[0].is_ascii_digit()
        && bytes.iter().all(|b| b.is_ascii_alphanumeric() || *b == b'_');
    if !fits {
        return Some(format!(
            "'{}' is no variable; write letters, digits and '_'",
            name.escape_debug()
        ));
    }
    let obeyed = OBEYED.contains(&name) || name.starts_with("LD_") || name.starts_with("STOCKADE_");
    obeyed.then(|| format!("'{name}' steers programs; choose the variable that the client reads its token from"))
}

pub(super) fn kind_fault(kind: &CredentialKind) -> Option<String> {
    match kind {
        CredentialKind::Bearer => None,
        // RFC 7617, section 2: the user ends at the first colon.
        CredentialKind::Basic { username } => {
            let odd = username.is_empty() || username.contains(':') || username.chars().any(char::is_control);
            odd.then(|| "'username' must not be empty or hold a colon or control characters".to_owned())
        }
        CredentialKind::Header { name, prefix } => header_fault(name, prefix),
        CredentialKind::Query { name } => {
            let plain = |b: u8| b.is_ascii_alphanumeric() || b"-._~".contains(&b);
            let fits = (1..=128).contains(&name.len()) && name.bytes().all(plain);
            (!fits).then(|| "'name' of the parameter must be letters, digits and '-._~'".to_owned())
        }
        CredentialKind::GithubApp { app_id, api_url, .. } => {
            let fits =
                (1..=64).contains(&app_id.len()) && app_id.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'.');
            if !fits {
                return Some("'app_id' must be the app's number or client id".to_owned());
            }
            url_fault("api_url", api_url)
        }
        CredentialKind::OauthClient {
            token_url,
            client_id,
            scopes,
        } => url_fault("token_url", token_url).or_else(|| {
            // RFC 6749, appendix A.1 and A.4.
            let visible = |b: u8| (0x20..=0x7e).contains(&b);
            let scope =
                |s: &String| !s.is_empty() && s.bytes().all(|b| b == 0x21 || (0x23..=0x7e).contains(&b) && b != b'\\');
            if client_id.is_empty() || !client_id.bytes().all(visible) {
                return Some("'client_id' must be printable ASCII".to_owned());
            }
            (!scopes.iter().all(scope)).then(|| "'scopes' must be words without spaces or quotes".to_owned())
        }),
    }
}

fn header_fault(name: &str, prefix: &str) -> Option<String> {
    // RFC 9110, section 5.6.2.
    let token = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b);
    if !(1..=128).contains(&name.len()) || !name.bytes().all(token) {
        return Some(format!("'{}' is no header name", name.escape_debug()));
    }
    if FRAMING.contains(&name.to_ascii_lowercase().as_str()) {
        return Some(format!(
            "'{name}' says how a request is sent; a secret cannot stand there"
        ));
    }
    let visible = prefix.len() <= 128 && prefix.bytes().all(|b| (0x20..=0x7e).contains(&b)) && !prefix.starts_with(' ');
    (!visible).then(|| "'prefix' must be printable ASCII and not begin with a space".to_owned())
}

/// An `https` URL with a host and a path, and nothing that two parsers could read differently.
fn url_fault(field: &str, url: &str) -> Option<String> {
    let wrong = |why: &str| Some(format!("'{field}' {why}; write https://HOST/PATH"));
    let Some(rest) = url.strip_prefix("https://") else {
        return wrong("does not begin with https://");
    };
    let (authority, path) = rest.find('/').map_or((rest, "/"), |at| rest.split_at(at));
    if authority.starts_with('*') || host_fault(authority).is_some() {
        return wrong("has no plain host name");
    }
    match path_fault(path) {
        Some(_) => wrong("has a path with odd characters"),
        None => None,
    }
}
