//! Revocations of hosts.

use std::sync::Arc;

use stockade_domain::{Revocation, RevocationId};

use super::scene::{Scene, assert_not_found, ok, team_id};
use crate::{Clock, Store, SystemClock};

fn revocation(scene: &Scene, environment: &str, hosts: &str, millis: i64) -> Revocation {
    Revocation {
        id: RevocationId::from_uuid(SystemClock.uuid()),
        team: scene.team,
        environment: environment.to_owned(),
        hosts: hosts.to_owned(),
        reason: "a leak".to_owned(),
        by: "ada".to_owned(),
        created_at: scene.later(millis),
        lifted_by: None,
        lifted_at: None,
    }
}

/// A revocation comes back as it was put, and the first one who lifts it stands.
pub async fn a_revocation_is_kept_and_lifted_once(store: &Arc<dyn Store>) {
    let scene = Scene::new(store);
    let put = revocation(&scene, "default", "*.example.com", 0);
    ok(store.put_revocation(put.clone()).await);
    let again = store.put_revocation(put.clone()).await;
    assert!(again.is_err(), "an id is given once");
    let listed = ok(store.revocations(Some(scene.team), None, true).await);
    assert!(listed.len() == 1 && listed[0] == put, "{listed:?}");
    let lift = |by: &str, at| store.lift_revocation(scene.team, put.id, by.to_owned(), at);
    let lifted = ok(lift("bob", scene.later(5)).await);
    let expected = Revocation {
        lifted_by: Some("bob".to_owned()),
        lifted_at: Some(scene.later(5)),
        ..put.clone()
    };
    assert_eq!(lifted, expected);
    assert_eq!(ok(lift("eve", scene.later(9)).await), expected, "the first one stands");
    assert_eq!(ok(store.revocations(Some(scene.team), None, true).await), []);
    assert_eq!(ok(store.revocations(Some(scene.team), None, false).await), [expected]);
}

/// Lists are newest first, and other teams' revocations are not found.
pub async fn revocations_are_found_by_team_and_environment(store: &Arc<dyn Store>) {
    let (scene, stranger) = (Scene::new(store), team_id());
    let older = revocation(&scene, "default", "a.example.com", 0);
    let newer = revocation(&scene, "default", "*", 1);
    let other = revocation(&scene, "other", "b.example.com", 2);
    for put in [&older, &newer, &other] {
        ok(store.put_revocation(put.clone()).await);
    }
    let of = |environment| store.revocations(Some(scene.team), environment, true);
    assert_eq!(ok(of(Some("default")).await), [newer.clone(), older.clone()]);
    assert_eq!(ok(of(None).await), [other.clone(), newer, older.clone()]);
    assert_eq!(ok(store.revocations(Some(stranger), None, false).await), []);
    let all = ok(store.revocations(None, Some("other"), true).await);
    assert!(all.contains(&other), "the installation sees every team's");
    let stolen = store
        .lift_revocation(stranger, older.id, "eve".to_owned(), scene.now)
        .await;
    assert_not_found(stolen, "another team's revocation");
    assert!(ok(of(Some("default")).await).contains(&older), "it is still in force");
}
