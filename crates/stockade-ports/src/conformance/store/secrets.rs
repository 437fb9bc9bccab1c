//! Sealed secrets of teams.

use std::sync::Arc;

use bytes::Bytes;
use stockade_domain::SecretName;

use super::scene::{Scene, assert_not_found, ok, team_id};
use crate::Store;

fn name(text: &str) -> SecretName {
    text.parse().unwrap_or_else(|e| panic!("{e}"))
}

/// A secret is one team's, replaced by the next value of its name, and gone when removed.
pub async fn a_secret_is_replaced_and_removed(store: &Arc<dyn Store>) {
    let scene = Scene::new(store);
    let (token, other) = (name("token"), name("Another-1"));
    assert_not_found(store.secret(scene.team, &token).await, "a secret nobody put");
    assert_eq!(ok(store.secrets(scene.team).await), []);
    let sealed = Bytes::from_static(b"\x00\xff sealed");
    let first = ok(store.put_secret(scene.team, &token, sealed.clone(), scene.now).await);
    assert_eq!(
        (first.version, first.created_at, first.updated_at),
        (1, scene.now, scene.now)
    );
    assert_eq!((&first.name, first.team, &first.sealed), (&token, scene.team, &sealed));
    assert_eq!(ok(store.secret(scene.team, &token).await), first);
    let later = scene.later(7);
    let again = Bytes::from_static(b"again");
    let second = ok(store.put_secret(scene.team, &token, again.clone(), later).await);
    assert_eq!(
        (second.version, second.created_at, second.updated_at),
        (2, scene.now, later)
    );
    assert_eq!(second.sealed, again);
    let third = ok(store.put_secret(scene.team, &other, Bytes::new(), later).await);
    assert_eq!(third.version, 1, "each name counts for itself");
    assert_eq!(
        ok(store.secrets(scene.team).await),
        [third.clone(), second.clone()],
        "by name"
    );
    assert_eq!(ok(store.remove_secret(scene.team, &token).await), second);
    assert_not_found(store.secret(scene.team, &token).await, "a removed secret");
    assert_not_found(store.remove_secret(scene.team, &token).await, "a removed secret");
    assert_eq!(ok(store.secrets(scene.team).await), [third]);
    let anew = ok(store.put_secret(scene.team, &token, again, later).await);
    assert_eq!((anew.version, anew.created_at), (1, later), "it begins anew");
}

/// The same name of another team is another secret.
pub async fn secrets_are_one_teams(store: &Arc<dyn Store>) {
    let (scene, stranger) = (Scene::new(store), team_id());
    let token = name("token");
    let ours = ok(store.put_secret(scene.team, &token, "ours".into(), scene.now).await);
    assert_not_found(store.secret(stranger, &token).await, "another team's secret");
    assert_not_found(store.remove_secret(stranger, &token).await, "another team's secret");
    assert_eq!(ok(store.secrets(stranger).await), []);
    let theirs = ok(store.put_secret(stranger, &token, "theirs".into(), scene.now).await);
    assert_eq!(theirs.version, 1);
    assert_eq!(ok(store.secret(scene.team, &token).await), ours);
    assert_eq!(ok(store.secret(stranger, &token).await), theirs);
    assert_eq!(ok(store.remove_secret(stranger, &token).await), theirs);
    assert_eq!(ok(store.secrets(scene.team).await), [ours]);
}

/// Values put at the same moment are counted one after the other.
pub async fn secrets_put_at_once_are_all_counted(store: &Arc<dyn Store>) {
    let scene = Scene::new(store);
    let put = |n: u8| {
        let (store, team, now) = (Arc::clone(store), scene.team, scene.now);
        tokio::spawn(async move { store.put_secret(team, &name("token"), vec![n].into(), now).await })
    };
    let mut versions = Vec::new();
    for put in (0..20).map(put).collect::<Vec<_>>() {
        let record = ok(put.await.unwrap_or_else(|e| panic!("{e}")));
        versions.push(record.version);
    }
    versions.sort_unstable();
    assert_eq!(versions, (1..=20).collect::<Vec<u64>>());
}
