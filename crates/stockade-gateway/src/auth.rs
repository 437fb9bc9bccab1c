//! Who asks: bearer tokens (RFC 6750), known to the store by their digest only.

use axum::{
    extract::{FromRequestParts, Request, State},
    middleware::Next,
    response::{IntoResponse, Response},
};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use http::{HeaderMap, header, request::Parts};
use sha2::{Digest as _, Sha256};
use stockade_api::{Problem, ProblemCode};
use stockade_domain::TeamId;
use stockade_ports::{StoreError, TokenRecord};
use subtle::ConstantTimeEq;

use crate::{
    App,
    body::drain,
    error::{Answer, Refusal, internal},
    routes::{Audience, Permission, Route},
};

/// What every token secret starts with, so that scanners can find leaked ones.
const PREFIX: &str = "stk_";

/// The operating system gives no random numbers, so no token can be made.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the system gives no random numbers for a token: {0}")]
pub struct NoRandomness(String);

/// Makes a token secret: `stk_` and 32 random bytes in base64url (RFC 4648, section 5).
///
/// # Errors
///
/// [`NoRandomness`] when the system has none.
pub fn mint_token() -> Result<String, NoRandomness> {
    let mut bytes = [0u8; 32];
    getrandom::fill(&mut bytes).map_err(|error| NoRandomness(error.to_string()))?;
    Ok(format!("{PREFIX}{}", URL_SAFE_NO_PAD.encode(bytes)))
}

/// What the store keeps of a token secret: its SHA-256 in lower-case hex. The secrets are
/// 256 random bits, so a fast digest without salt is enough.
pub fn hash_token(secret: &str) -> String {
    hex::encode(Sha256::digest(secret.as_bytes()))
}

/// Whom a request speaks for.
#[derive(Debug, Clone)]
pub(crate) struct Caller {
    /// The tenant; everything is scoped to it.
    pub(crate) team: TeamId,
    /// The token's name, as decisions and receipts say it.
    pub(crate) name: String,
    /// The token's digest, to look at it again while a stream lives.
    pub(crate) token: String,
}

impl Caller {
    /// Whether the token carries a permission. Tokens of a team carry all of them; narrower
    /// ones are decided here and nowhere else.
    fn may(&self, permission: Permission) -> bool {
        match permission {
            Permission::None
            | Permission::Read
            | Permission::Run
            | Permission::Decide
            | Permission::Revoke
            | Permission::Secrets
            | Permission::Tokens => true,
        }
    }
}

impl<S: Sync> FromRequestParts<S> for Caller {
    type Rejection = Refusal;

    /// Only routes behind [`guard`] have a caller; asking elsewhere is a fault of ours and
    /// answers nothing.
    async fn from_request_parts(parts: &mut Parts, _: &S) -> Answer<Self> {
        parts
            .extensions
            .get::<Self>()
            .cloned()
            .ok_or_else(|| internal("a handler asked for a caller on a route without one"))
    }
}

/// Lets a request through to a route's handler, or not.
pub(crate) async fn guard(
    State((app, route)): State<(App, &'static Route)>,
    mut request: Request,
    next: Next,
) -> Response {
    match admit(&app, route, request.headers()).await {
        Ok(caller) => {
            if let Some(caller) = caller {
                request.extensions_mut().insert(caller);
            }
            next.run(request).await
        }
        Err(refusal) => {
            drain(request, &app.limits).await;
            refusal.into_response()
        }
    }
}

async fn admit(app: &App, route: &Route, headers: &HeaderMap) -> Answer<Option<Caller>> {
    match route.audience {
        Audience::Public => Ok(None),
        Audience::Team => {
            let caller = identify(app, headers).await?;
            if !caller.may(route.permission) {
                return Err(missing("this token may not do that", None));
            }
            Ok(Some(caller))
        }
        // No identity of these audiences can come over this listener.
        Audience::Operator | Audience::Internal | Audience::Run => {
            Err(missing("this route does not answer to team tokens", None))
        }
    }
}

/// The caller of a bearer token that works now.
async fn identify(app: &App, headers: &HeaderMap) -> Answer<Caller> {
    let mut values = headers.get_all(header::AUTHORIZATION).iter();
    let (Some(value), None) = (values.next(), values.next()) else {
        return Err(missing("the request carries no token", None));
    };
    let secret = value
        .to_str()
        .ok()
        .and_then(|value| value.split_once(' '))
        .filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"))
        .map(|(_, secret)| secret.trim())
        .filter(|secret| !secret.is_empty())
        .ok_or_else(|| missing("the Authorization header is not 'Bearer <token>'", Some("malformed")))?;
    let digest = hash_token(secret);
    let record = working_token(app, &digest).await?;
    Ok(Caller {
        team: record.team,
        name: record.name,
        token: digest,
    })
}

/// The token of a digest, if it works now.
pub(crate) async fn working_token(app: &App, digest: &str) -> Answer<TokenRecord> {
    let record = match app.store.token_by_digest(digest).await {
        Ok(record) => record,
        Err(StoreError::NotFound { .. }) => return Err(missing("this token is not known", Some("unknown"))),
        Err(error) => return Err(error.into()),
    };
    if !bool::from(record.secret_sha256.as_bytes().ct_eq(digest.as_bytes())) {
        return Err(missing("this token is not known", Some("unknown")));
    }
    if record.revoked_at.is_some() {
        return Err(missing("this token is revoked", Some("revoked")));
    }
    if record.expires_at.is_some_and(|end| app.clock.now() >= end) {
        return Err(missing("this token is expired", Some("expired")));
    }
    Ok(record)
}

fn missing(detail: &str, cause: Option<&str>) -> Refusal {
    let problem = Problem::new(ProblemCode::Unauthorized, detail).with_hint(
        "send 'Authorization: Bearer <token>'; 'stockade up' prints one, 'stockade token create' makes more",
    );
    match cause {
        Some(cause) => problem.with("cause", cause),
        None => problem,
    }
    .into()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn tokens_are_long_distinct_and_recognizable() {
        let minted: BTreeSet<_> = (0..64).map(|_| mint_token().unwrap()).collect();
        assert_eq!(minted.len(), 64);
        assert!(minted.iter().all(|t| t.starts_with("stk_") && t.len() == 4 + 43));
    }

    #[test]
    fn the_digest_is_sha256_in_hex() {
        assert_eq!(
            hash_token("abc"),
            "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
        );
    }
}
