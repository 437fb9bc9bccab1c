//! Tokens of the caller's team.

use axum::extract::State;
use http::StatusCode;
use stockade_api::{
    Problem, ProblemCode,
    v1::{CreateToken, Page, Token, TokenCreated, TokenSecret},
};
use stockade_domain::{Timestamp, TokenId};
use stockade_ports::TokenRecord;

use crate::{
    App,
    about::Json,
    auth::{Caller, hash_token, mint_token},
    body::{Id, Json as JsonBody, NoIdempotencyKey, Query},
    error::{Answer, internal},
    freeze,
};

fn told(record: TokenRecord) -> Token {
    Token {
        id: record.id,
        name: record.name,
        created_at: record.created_at,
        expires_at: record.expires_at,
        revoked_at: record.revoked_at,
    }
}

/// Makes a token. Its secret is in this answer and nowhere else.
pub(crate) async fn create(
    State(app): State<App>,
    caller: Caller,
    _: NoIdempotencyKey,
    JsonBody(wanted): JsonBody<CreateToken>,
) -> Answer<(StatusCode, Json<TokenCreated>)> {
    freeze::printable("name", &wanted.name)?;
    let now = app.clock.now();
    let secret = mint_token().map_err(|error| internal(&error.to_string()))?;
    let record = TokenRecord {
        id: TokenId::from_uuid(app.clock.uuid()),
        team: caller.team,
        name: wanted.name,
        secret_sha256: hash_token(&secret),
        created_at: now,
        expires_at: wanted
            .expires_in_seconds
            .map(|seconds| expiry(now, seconds))
            .transpose()?,
        revoked_at: None,
    };
    app.store.put_token(record.clone()).await?;
    let created = TokenCreated {
        token: told(record),
        secret: TokenSecret::new(secret),
    };
    Ok((StatusCode::CREATED, axum::Json(created)))
}

fn expiry(now: Timestamp, seconds: u64) -> Answer<Timestamp> {
    let wrong = || {
        Problem::new(
            ProblemCode::InvalidBody,
            "expires_in_seconds must be at least 1 and end before the year 9999; leave it out for a token that does not expire",
        )
        .with("field", "expires_in_seconds")
    };
    if seconds == 0 {
        return Err(wrong().into());
    }
    now.checked_add(std::time::Duration::from_secs(seconds))
        .map_err(|_| wrong().into())
}

pub(crate) async fn list(State(app): State<App>, caller: Caller, query: Query) -> Answer<Json<Page<Token>>> {
    query.only(&[])?;
    let tokens = app.store.tokens(caller.team).await?;
    Ok(axum::Json(Page::whole(tokens.into_iter().map(told).collect())))
}

/// Revokes a token; also the one that asks, if it says so.
pub(crate) async fn revoke(State(app): State<App>, caller: Caller, Id(id): Id<TokenId>) -> Answer<Json<Token>> {
    let record = app.store.revoke_token(caller.team, id, app.clock.now()).await?;
    Ok(axum::Json(told(record)))
}
