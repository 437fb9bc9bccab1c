//! Access tokens of the client credentials grant (RFC 6749, section 4.4).

use base64::{Engine as _, engine::general_purpose::STANDARD};
use bytes::Bytes;
use http::{Request, StatusCode};
use serde::Deserialize;
use stockade_domain::Timestamp;
use zeroize::Zeroizing;

use super::fetch::{Fetch, Minted, ask, refusal, token_of};

/// How long a token is taken to work when the server does not say, in seconds.
const UNSAID: u64 = 60;
/// The longest a token is kept, whatever the server says, in seconds; a day.
const LONGEST: u64 = 24 * 60 * 60;

/// Who asks for a token.
pub(super) struct Client<'a> {
    pub(super) token_url: &'a str,
    pub(super) client_id: &'a str,
    pub(super) scopes: &'a [String],
    pub(super) secret: &'a [u8],
}

#[derive(Deserialize)]
struct Granted {
    access_token: String,
    token_type: String,
    expires_in: Option<u64>,
}

#[derive(Deserialize)]
struct Refused {
    error: String,
}

/// Asks for a token.
///
/// # Errors
///
/// In words what the other side answered, by status and by the codes of RFC 6749 only.
pub(super) async fn mint(fetch: &dyn Fetch, client: &Client<'_>, now: Timestamp) -> Result<Minted, String> {
    let mut form = "grant_type=client_credentials".to_owned();
    if !client.scopes.is_empty() {
        form.push_str("&scope=");
        form.push_str(&form_encoded(client.scopes.join(" ").as_bytes()));
    }
    // RFC 6749, section 2.3.1: both are form-encoded before they are user and password.
    let pair = Zeroizing::new(format!(
        "{}:{}",
        *form_encoded(client.client_id.as_bytes()),
        *form_encoded(client.secret)
    ));
    let basic = Zeroizing::new(format!("Basic {}", *Zeroizing::new(STANDARD.encode(pair.as_bytes()))));
    let request = Request::post(client.token_url)
        .header("accept", "application/json")
        .header("authorization", basic.as_str())
        .header("content-type", "application/x-www-form-urlencoded")
        .header("user-agent", "stockade")
        .body(Bytes::from(form))
        .map_err(|_| "the token endpoint's address cannot be asked".to_owned())?;
    let host = request.uri().host().unwrap_or_default().to_owned();
    let answer = ask(fetch, request).await?;
    if answer.status() != StatusCode::OK {
        return Err(refusal(&host, answer.status(), known_error(answer.body())));
    }
    let granted: Granted =
        serde_json::from_slice(answer.body()).map_err(|_| format!("{host} answered no token that can be read"))?;
    if !granted.token_type.eq_ignore_ascii_case("bearer") {
        return Err(format!("{host} answered a token that is no bearer token"));
    }
    let lives = std::time::Duration::from_secs(granted.expires_in.unwrap_or(UNSAID).min(LONGEST));
    Ok(Minted {
        token: token_of(granted.access_token).ok_or_else(|| format!("{host} answered a token that is none"))?,
        until: now.checked_add(lives).unwrap_or(now),
    })
}

/// The error codes of RFC 6749, section 5.2; what else a server says may be anything.
fn known_error(body: &[u8]) -> &'static str {
    let refused = serde_json::from_slice::<Refused>(body).map(|refused| refused.error);
    match refused.as_deref() {
        Ok("invalid_client") => ": the client or its secret is not known",
        Ok("invalid_scope") => ": a scope is not known or not granted",
        Ok("unauthorized_client") => ": the client may not use this grant",
        Ok("unsupported_grant_type") => ": the server does not offer client credentials",
        Ok("invalid_grant" | "invalid_request") => ": the server does not take the request",
        _ => "",
    }
}

/// `application/x-www-form-urlencoded` (RFC 6749, appendix B).
fn form_encoded(text: &[u8]) -> Zeroizing<String> {
    let mut encoded = Zeroizing::new(String::with_capacity(3 * text.len()));
    for byte in text {
        match byte {
            b' ' => encoded.push('+'),
            b if b.is_ascii_alphanumeric() || b"-._*".contains(b) => encoded.push(char::from(*b)),
            b => encoded.push_str(&format!("%{b:02X}")),
        }
    }
    encoded
}
