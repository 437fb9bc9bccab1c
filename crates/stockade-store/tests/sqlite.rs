//! SQLite is a store, and fails as one.

use std::{path::Path, sync::Arc};

use bytes::Bytes;
use stockade_domain::{RunId, TaskId, TeamId, event::chain_head};
use stockade_ports::{Clock, CreateRun, CreateTask, Store, StoreError, SystemClock, conformance, sim::samples};
use stockade_store::{SqliteOptions, SqliteStore};
use tempfile::TempDir;

async fn fresh() -> (TempDir, SqliteStore) {
    let place = tempfile::tempdir().unwrap();
    let store = SqliteStore::open(place.path().join("stockade.db")).await.unwrap();
    (place, store)
}

fn request() -> CreateTask {
    CreateTask {
        id: TaskId::from_uuid(SystemClock.uuid()),
        team: TeamId::DEFAULT,
        prompt: "do it".to_owned(),
        repo: None,
        run: Some(CreateRun {
            id: RunId::from_uuid(SystemClock.uuid()),
            spec: samples::spec(samples::limits()),
        }),
        idempotency_key: None,
        now: SystemClock.now(),
    }
}

async fn run(store: &SqliteStore) -> RunId {
    store.create_task(request()).await.unwrap().run.unwrap().id
}

#[tokio::test(flavor = "multi_thread")]
async fn it_passes_the_suite_with_one_store_for_all() {
    let (_place, store) = fresh().await;
    let store: Arc<dyn Store> = Arc::new(store);
    conformance::store::all(async || Arc::clone(&store)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_writers_of_one_file_wait_for_each_other() {
    let (place, first) = fresh().await;
    let second = SqliteStore::open(place.path().join("stockade.db")).await.unwrap();
    let run = run(&first).await;
    let lease = loop {
        let claim = second.claim(SystemClock.now()).await.unwrap().unwrap();
        if claim.run.id == run {
            break claim.lease;
        }
    };
    let note = || {
        let text = serde_json::json!({ "text": "hi" });
        vec![stockade_domain::NewEvent::new(
            stockade_domain::EventType::MessageAgent,
            text,
        )]
    };
    let writers: Vec<_> = (0..50)
        .map(|n| {
            let store = if n % 2 == 0 { first.clone() } else { second.clone() };
            tokio::spawn(async move { store.append(run, lease, note(), SystemClock.now()).await })
        })
        .collect();
    for writer in writers {
        writer.await.unwrap().expect("a busy file is waited for");
    }
    let events = first.events(run, 0, 1000).await.unwrap();
    assert_eq!(events.len(), 52);
    let stored = second.run(None, run).await.unwrap();
    assert_eq!(chain_head(&events).unwrap(), stored.chain_head);
}

/// Changes that come together share a transaction; one that is refused takes nobody's with it.
#[tokio::test(flavor = "multi_thread")]
async fn a_refused_change_among_others_is_refused_alone() {
    let (_place, store) = fresh().await;
    let run = run(&store).await;
    let lease = store.claim(SystemClock.now()).await.unwrap().unwrap().lease;
    let stale = stockade_ports::Lease { fence: lease.fence + 1 };
    let token = |n: u32| stockade_ports::TokenRecord {
        id: stockade_domain::TokenId::from_uuid(SystemClock.uuid()),
        team: TeamId::DEFAULT,
        name: "same".to_owned(),
        secret_sha256: format!("{n}"),
        created_at: SystemClock.now(),
        expires_at: None,
        revoked_at: None,
    };
    let writers: Vec<_> = (0..120)
        .map(|n| {
            let (store, token) = (store.clone(), token(n / 60));
            tokio::spawn(async move {
                let text = serde_json::json!({ "n": n });
                let note = stockade_domain::NewEvent::new(stockade_domain::EventType::MessageAgent, text);
                match n % 3 {
                    0 => store.append(run, lease, vec![note], SystemClock.now()).await.is_ok(),
                    1 => store.append(run, stale, vec![note], SystemClock.now()).await.is_ok(),
                    // A constraint of the table refuses the second of its kind.
                    _ => store.put_token(token).await.is_ok(),
                }
            })
        })
        .collect();
    let mut done = [0; 3];
    for (n, writer) in writers.into_iter().enumerate() {
        done[n % 3] += usize::from(writer.await.unwrap());
    }
    assert_eq!(done, [40, 0, 2]);
    let events = store.events(run, 0, 1000).await.unwrap();
    assert_eq!(events.len(), 2 + 40);
    let stored = store.run(None, run).await.unwrap();
    assert_eq!(chain_head(&events).unwrap(), stored.chain_head);
}

/// A change is either not begun or done: nobody can leave it halfway.
#[tokio::test(flavor = "multi_thread")]
async fn a_caller_that_goes_away_leaves_nothing_half_done() {
    let (_place, store) = fresh().await;
    let run = run(&store).await;
    let lease = store.claim(SystemClock.now()).await.unwrap().unwrap().lease;
    for n in 0..200_u64 {
        let text = serde_json::json!({ "n": n });
        let notes = vec![stockade_domain::NewEvent::new(stockade_domain::EventType::MessageAgent, text); 2];
        let append = store.append(run, lease, notes, SystemClock.now());
        let _ = tokio::time::timeout(std::time::Duration::from_micros(n * 20), append).await;
    }
    store
        .append(run, lease, Vec::new(), SystemClock.now())
        .await
        .expect("it still writes");
    let events = store.events(run, 0, 1000).await.unwrap();
    assert_eq!(events.len() % 2, 0);
    assert_eq!(
        chain_head(&events).unwrap(),
        store.run(None, run).await.unwrap().chain_head
    );
}

#[tokio::test]
async fn everything_is_there_after_opening_again() {
    let (place, store) = fresh().await;
    let run = run(&store).await;
    store
        .put_artifact(run, "patch", Bytes::from_static(b"diff"))
        .await
        .unwrap();
    let (before, events) = (
        store.run(None, run).await.unwrap(),
        store.events(run, 0, 10).await.unwrap(),
    );
    store.close().await;
    let again = SqliteStore::open(place.path().join("stockade.db")).await.unwrap();
    assert_eq!(again.run(None, run).await.unwrap(), before);
    assert_eq!(again.events(run, 0, 10).await.unwrap(), events);
    assert_eq!(again.artifact(run, "patch").await.unwrap(), Bytes::from_static(b"diff"));
}

#[tokio::test]
async fn a_closed_store_does_not_answer() {
    let (_place, store) = fresh().await;
    let run = run(&store).await;
    store.ping().await.unwrap();
    store.close().await;
    assert!(matches!(store.ping().await, Err(StoreError::Unavailable(_))));
    assert!(matches!(store.run(None, run).await, Err(StoreError::Unavailable(_))));
    assert!(matches!(
        store.create_task(request()).await,
        Err(StoreError::Unavailable(_))
    ));
}

#[tokio::test]
async fn a_full_disk_is_no_answer_and_leaves_nothing_half_made() {
    let place = tempfile::tempdir().unwrap();
    let options = SqliteOptions {
        max_pages: Some(60),
        ..SqliteOptions::default()
    };
    let store = SqliteStore::open_with(place.path().join("stockade.db"), options)
        .await
        .unwrap();
    let run = run(&store).await;
    let before = store.run(None, run).await.unwrap();
    let big = || Bytes::from(vec![7; 1 << 20]);
    let refused = store.put_artifact(run, "patch", big()).await;
    assert!(matches!(refused, Err(StoreError::Unavailable(_))), "{refused:?}");
    let text = "x".repeat(1 << 20);
    let said = store.push_message(TeamId::DEFAULT, run, "ada".to_owned(), text, false, SystemClock.now());
    assert!(matches!(said.await, Err(StoreError::Unavailable(_))));
    assert_eq!(store.run(None, run).await.unwrap(), before);
    assert_eq!(store.events(run, 0, 10).await.unwrap().len(), 1);
    assert!(matches!(
        store.artifact(run, "patch").await,
        Err(StoreError::NotFound { .. })
    ));
    // With room it goes on.
    store.close().await;
    let store = SqliteStore::open(place.path().join("stockade.db")).await.unwrap();
    store.put_artifact(run, "patch", big()).await.unwrap();
}

#[tokio::test]
async fn a_file_that_is_no_database_is_named() {
    let place = tempfile::tempdir().unwrap();
    let path = place.path().join("notes.txt");
    std::fs::write(
        &path,
        "this is no database at all, but it is long enough to have a header".repeat(20),
    )
    .unwrap();
    let error = SqliteStore::open(&path).await.unwrap_err();
    assert!(
        matches!(&error, StoreError::Corrupt(why) if why.contains("notes.txt")),
        "{error}"
    );
    let missing = SqliteStore::open(place.path().join("no/such/place.db"))
        .await
        .unwrap_err();
    assert!(
        matches!(&missing, StoreError::Unavailable(why) if why.contains("no/such")),
        "{missing}"
    );
    let directory = SqliteStore::open(place.path()).await.unwrap_err();
    assert!(matches!(directory, StoreError::Unavailable(_)), "{directory}");
}

#[test]
fn many_open_a_new_file_at_once() {
    let open = |path: &Path| {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(SqliteStore::open(path)).map(drop)
    };
    for _ in 0..10 {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("stockade.db");
        std::thread::scope(|scope| {
            let opening: Vec<_> = (0..8).map(|_| scope.spawn(|| open(&path))).collect();
            for opened in opening {
                opened.join().unwrap().unwrap();
            }
        });
    }
}

#[tokio::test]
async fn a_store_of_a_newer_stockade_is_left_alone() {
    let (place, store) = fresh().await;
    store.close().await;
    let path = place.path().join("stockade.db");
    let connect = sqlx::sqlite::SqliteConnectOptions::new().filename(&path);
    let pool = sqlx::SqlitePool::connect_with(connect).await.unwrap();
    sqlx::query(
        "INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time) \
         VALUES (9999, 'from the future', 1, x'00', 1)",
    )
    .execute(&pool)
    .await
    .unwrap();
    pool.close().await;
    let error = SqliteStore::open(&path).await.unwrap_err();
    assert!(
        matches!(&error, StoreError::Corrupt(why) if why.contains("newer")),
        "{error}"
    );
}

#[cfg(unix)]
#[tokio::test]
async fn only_the_owner_reads_the_files() {
    use std::os::unix::fs::PermissionsExt;

    let (place, store) = fresh().await;
    run(&store).await;
    let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    let files: Vec<_> = std::fs::read_dir(place.path())
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    assert!(files.len() > 1, "the log is a file of its own");
    for file in files {
        assert_eq!(mode(&file), 0o600, "{}", file.display());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_write_that_is_dropped_halfway_leaves_nothing_and_blocks_nobody() {
    let (_place, store) = fresh().await;
    for micros in (0..2000).step_by(100) {
        let request = request();
        let (task, run) = (request.id, request.run.as_ref().unwrap().id);
        let write = store.create_task(request);
        let dropped = tokio::time::timeout(std::time::Duration::from_micros(micros), write)
            .await
            .is_err();
        // The next write waits for the end of the one before: commit or rollback.
        self::run(&store).await;
        let (task, run) = (store.task(TeamId::DEFAULT, task).await, store.run(None, run).await);
        assert_eq!(task.is_ok(), run.is_ok(), "all of it or nothing");
        assert!(dropped || task.is_ok(), "what was acknowledged is there");
    }
    run(&store).await;
}
