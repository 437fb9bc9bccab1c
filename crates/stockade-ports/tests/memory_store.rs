//! The simulated store is a store.

use std::sync::Arc;

use stockade_ports::{Store, StoreError, conformance, sim::MemoryStore};

#[tokio::test(flavor = "multi_thread")]
async fn it_passes_the_suite_with_a_store_for_each_case() {
    conformance::store::all(async || Arc::new(MemoryStore::default()) as Arc<dyn Store>).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn it_passes_the_suite_with_one_store_for_all() {
    let store: Arc<dyn Store> = Arc::new(MemoryStore::default());
    conformance::store::all(async || Arc::clone(&store)).await;
}

#[tokio::test]
async fn it_can_be_told_not_to_answer() {
    let store = MemoryStore::default();
    store.ping().await.unwrap();
    store.unavailable(true);
    assert!(matches!(store.ping().await, Err(StoreError::Unavailable(_))));
    store.unavailable(false);
    store.ping().await.unwrap();
}
