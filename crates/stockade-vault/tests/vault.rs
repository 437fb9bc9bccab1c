//! The vault over a store.

use std::sync::Arc;

use stockade_domain::{SecretName, TeamId};
use stockade_ports::{
    Clock, MAX_SECRET_BYTES, SecretError, SecretValue, Secrets, Store, StoreError, SystemClock, sim::MemoryStore,
};
use stockade_vault::{InstallationKey, Vault};
use uuid::Uuid;

const TEAM: TeamId = TeamId::DEFAULT;

fn name(text: &str) -> SecretName {
    text.parse().unwrap()
}

fn value(text: &str) -> SecretValue {
    SecretValue::new(text.as_bytes().to_vec())
}

fn vault() -> (Arc<MemoryStore>, Vault) {
    let store = Arc::new(MemoryStore::default());
    let vault = Vault::new(store.clone(), InstallationKey::generate().unwrap());
    (store, vault)
}

#[tokio::test]
async fn secrets_are_put_listed_opened_replaced_and_removed() {
    let (store, vault) = vault();
    let now = SystemClock.now();
    let info = vault.put(TEAM, &name("token"), value("canary-1"), now).await.unwrap();
    assert_eq!((info.version, info.created_at), (1, now));
    vault.put(TEAM, &name("a"), value("canary-a"), now).await.unwrap();
    let open = vault.open(TEAM, &name("token")).await.unwrap();
    assert_eq!((open.value.expose(), open.version), (&b"canary-1"[..], 1));
    vault.put(TEAM, &name("token"), value("canary-2"), now).await.unwrap();
    let open = vault.open(TEAM, &name("token")).await.unwrap();
    assert_eq!((open.value.expose(), open.version), (&b"canary-2"[..], 2));
    let listed = vault.list(TEAM).await.unwrap();
    let names: Vec<_> = listed.iter().map(|info| info.name.as_str()).collect();
    assert_eq!(names, ["a", "token"]);
    // What the store holds is sealed.
    let stored = format!("{:?}", store.secrets(TEAM).await.unwrap());
    assert!(!stored.contains("canary"), "{stored}");
    vault.remove(TEAM, &name("token")).await.unwrap();
    let gone = vault.open(TEAM, &name("token")).await.unwrap_err();
    assert!(
        matches!(gone, SecretError::Store(StoreError::NotFound { .. })),
        "{gone}"
    );
}

#[tokio::test]
async fn what_cannot_be_a_secret_is_not_kept() {
    let (store, vault) = vault();
    for size in [0, MAX_SECRET_BYTES + 1] {
        let refused = vault
            .put(TEAM, &name("x"), SecretValue::new(vec![7; size]), SystemClock.now())
            .await;
        assert!(matches!(refused, Err(SecretError::Size(n)) if n == size));
    }
    assert_eq!(store.secrets(TEAM).await.unwrap(), []);
    let largest = SecretValue::new(vec![7; MAX_SECRET_BYTES]);
    vault.put(TEAM, &name("x"), largest, SystemClock.now()).await.unwrap();
    assert_eq!(
        vault.open(TEAM, &name("x")).await.unwrap().value.len(),
        MAX_SECRET_BYTES
    );
}

#[tokio::test]
async fn rows_that_somebody_moved_do_not_open() {
    let (store, vault) = vault();
    let now = SystemClock.now();
    vault.put(TEAM, &name("weak"), value("canary-weak"), now).await.unwrap();
    let sealed = store.secret(TEAM, &name("weak")).await.unwrap().sealed;
    store
        .put_secret(TEAM, &name("strong"), sealed.clone(), now)
        .await
        .unwrap();
    let stranger = TeamId::from_uuid(Uuid::from_u128(7));
    store.put_secret(stranger, &name("weak"), sealed, now).await.unwrap();
    for (team, moved) in [(TEAM, "strong"), (stranger, "weak")] {
        let error = vault.open(team, &name(moved)).await.unwrap_err();
        assert!(matches!(error, SecretError::Damaged), "{error}");
    }
    let other = Vault::new(store, InstallationKey::generate().unwrap());
    let error = other.open(TEAM, &name("weak")).await.unwrap_err();
    assert!(matches!(error, SecretError::OtherKey), "{error}");
    vault.open(TEAM, &name("weak")).await.expect("the control opens");
}

#[tokio::test]
async fn a_store_that_does_not_answer_is_a_no() {
    let (store, vault) = vault();
    let now = SystemClock.now();
    vault.put(TEAM, &name("x"), value("canary"), now).await.unwrap();
    store.unavailable(true);
    let refused = |error: SecretError| matches!(error, SecretError::Store(StoreError::Unavailable(_)));
    assert!(refused(vault.open(TEAM, &name("x")).await.unwrap_err()));
    assert!(refused(vault.list(TEAM).await.unwrap_err()));
    assert!(refused(
        vault.put(TEAM, &name("x"), value("canary"), now).await.unwrap_err()
    ));
}
