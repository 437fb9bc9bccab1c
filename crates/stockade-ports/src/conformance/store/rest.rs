//! Messages, artifacts, tokens.

use std::sync::Arc;

use bytes::Bytes;
use stockade_domain::Digest;

use super::scene::{Scene, assert_not_found, ok, refused, run_id, team_id, token_id};
use crate::{Store, TokenRecord, sim::samples};

/// Messages are numbered per run, kept, and told as events.
pub async fn messages_are_numbered(store: &Arc<dyn Store>) {
    let scene = Scene::new(store);
    let run = scene.queued(samples::limits()).await.id;
    let say =
        |text: &str, steer| store.push_message(scene.team, run, "ada".to_owned(), text.to_owned(), steer, scene.now);
    let first = ok(say("use tabs", false).await);
    let second = ok(say("stop that", true).await);
    assert_eq!((first.seq, second.seq), (1, 2));
    assert_eq!(
        (second.by.as_str(), second.text.as_str(), second.steer),
        ("ada", "stop that", true)
    );
    assert_eq!(ok(store.messages(run, 0).await), [first, second.clone()]);
    assert_eq!(ok(store.messages(run, 1).await), [second]);
    assert_eq!(ok(store.messages(run, 2).await), []);
    let history = scene.history(run).await;
    assert_eq!(history[2].kind.as_str(), "message.user");
    assert_eq!(history[2].data["text"], "stop that");
    let other = scene.queued(samples::limits()).await.id;
    let said = store.push_message(scene.team, other, "ada".to_owned(), "hi".to_owned(), false, scene.now);
    assert_eq!(ok(said.await).seq, 1);
}

/// An artifact is never replaced.
pub async fn the_first_artifact_stays(store: &Arc<dyn Store>) {
    let scene = Scene::new(store);
    let run = scene.queued(samples::limits()).await.id;
    assert_not_found(store.artifact(run, "patch").await, "an artifact nobody made");
    let first = Bytes::from_static(b"\x00\xff first");
    ok(store.put_artifact(run, "patch", first.clone()).await);
    ok(store.put_artifact(run, "patch", Bytes::from_static(b"second")).await);
    ok(store.put_artifact(run, "empty", Bytes::new()).await);
    assert_eq!(ok(store.artifact(run, "patch").await), first);
    assert_eq!(ok(store.artifact(run, "empty").await), Bytes::new());
    assert_not_found(
        store.put_artifact(run_id(), "patch", first).await,
        "an artifact of no run",
    );
}

/// Tokens are looked up by digest, listed by team, revoked once; the store answers.
pub async fn tokens_are_found_by_digest_and_revoked(store: &Arc<dyn Store>) {
    let scene = Scene::new(store);
    let token = |millis, expires_at| {
        let id = token_id();
        TokenRecord {
            id,
            team: scene.team,
            name: "ada".to_owned(),
            secret_sha256: Digest::of_bytes(id.to_string().as_bytes()).hex(),
            created_at: scene.later(millis),
            expires_at,
            revoked_at: None,
        }
    };
    let (old, new) = (token(0, Some(scene.later(1))), token(1, None));
    ok(store.put_token(old.clone()).await);
    ok(store.put_token(new.clone()).await);
    assert_eq!(ok(store.tokens(scene.team).await), [new.clone(), old.clone()]);
    assert_eq!(ok(store.tokens(team_id()).await), []);
    assert_eq!(
        ok(store.token_by_digest(&old.secret_sha256).await),
        old,
        "also an expired one"
    );
    assert_not_found(store.token_by_digest(&Digest::ZERO.hex()).await, "a secret nobody has");
    refused(store.put_token(old.clone()).await, "a known token");
    let same_secret = TokenRecord {
        id: token_id(),
        team: team_id(),
        ..old.clone()
    };
    refused(store.put_token(same_secret).await, "a known secret");
    let stranger = store.revoke_token(team_id(), old.id, scene.now);
    assert_not_found(stranger.await, "another team's token");
    let revoked = ok(store.revoke_token(scene.team, old.id, scene.now).await);
    assert_eq!(revoked.revoked_at, Some(scene.now));
    let again = ok(store.revoke_token(scene.team, old.id, scene.later(5)).await);
    assert_eq!(again, revoked, "the first revocation counts");
    assert_eq!(ok(store.token_by_digest(&old.secret_sha256).await), revoked);
    assert_eq!(ok(store.token_by_digest(&new.secret_sha256).await), new);
    ok(store.ping().await);
}
