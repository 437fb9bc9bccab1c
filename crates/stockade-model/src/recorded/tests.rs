use std::{
    fs,
    os::unix::fs::PermissionsExt,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
};

use async_trait::async_trait;
use bytes::Bytes;
use futures::{StreamExt, TryStreamExt, stream};
use http::{HeaderMap, HeaderValue, StatusCode};
use serde_json::json;
use stockade_domain::Wire;
use stockade_ports::{ModelError, ModelProvider, ModelRequest, ModelResponse};

use super::*;

/// Answers with a number that grows, in pieces that cut a character in two.
#[derive(Default)]
struct Counting(AtomicU32);

#[async_trait]
impl ModelProvider for Counting {
    fn name(&self) -> &'static str {
        "counting"
    }

    fn wires(&self) -> &[Wire] {
        &[Wire::OpenaiChat]
    }

    async fn call(&self, _: ModelRequest) -> Result<ModelResponse, ModelError> {
        let number = self.0.fetch_add(1, Ordering::SeqCst);
        let mut headers = HeaderMap::new();
        headers.insert("content-type", HeaderValue::from_static("text/event-stream"));
        headers.insert("set-cookie", HeaderValue::from_static("secret"));
        let pieces = [
            Bytes::from(format!("data: {number} \u{fc}")).slice(0..9),
            Bytes::from_static(b"\xbc\n\n"),
        ];
        Ok(ModelResponse {
            status: StatusCode::OK,
            headers,
            body: stream::iter(pieces.map(Ok)).boxed(),
        })
    }
}

fn request(text: &str, session: &str) -> ModelRequest {
    let body = json!({"model": "m", "prompt_cache_key": session, "messages": [{"role": "user", "content": text}]});
    ModelRequest {
        wire: Wire::OpenaiChat,
        query: None,
        headers: HeaderMap::from_iter([(http::header::AUTHORIZATION, HeaderValue::from_static("Bearer secret"))]),
        body: Bytes::from(body.to_string()),
    }
}

async fn ask(provider: &dyn ModelProvider, text: &str, session: &str) -> Result<Vec<Bytes>, ModelError> {
    provider.call(request(text, session)).await?.body.try_collect().await
}

fn recorder(dir: &std::path::Path) -> RecordingProvider {
    RecordingProvider::new(Arc::new(Counting::default()), dir).unwrap()
}

#[tokio::test]
async fn what_was_recorded_is_said_again_piece_by_piece() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path().join("new");
    let recorder = recorder(&dir);
    let mut said = Vec::new();
    for text in ["a", "b", "a"] {
        said.push(ask(&recorder, text, "one").await.unwrap());
    }
    let replay = ReplayProvider::open(&dir).unwrap();
    assert_eq!(replay.wires(), [Wire::OpenaiChat]);
    assert_eq!(ask(&replay, "b", "two").await.unwrap(), said[1]);
    for expected in [&said[0], &said[2], &said[2]] {
        assert_eq!(&ask(&replay, "a", "two").await.unwrap(), expected);
    }
    let headers = replay.call(request("a", "two")).await.unwrap().headers;
    assert_eq!(headers.len(), 1, "{headers:?}");
}

#[tokio::test]
async fn recordings_are_private_and_hold_no_credential() {
    let dir = tempfile::tempdir().unwrap();
    ask(&recorder(dir.path()), "a", "one").await.unwrap();
    ask(&recorder(dir.path()), "b", "one").await.unwrap();
    let files = tape::paths(dir.path()).unwrap();
    assert_eq!(files.len(), 2, "a second recorder goes on after the first");
    for file in files {
        assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
        let text = fs::read_to_string(&file).unwrap();
        assert!(text.contains("\"content\"") && !text.contains("secret"), "{text}");
    }
}

#[tokio::test]
async fn a_request_that_was_not_recorded_names_the_nearest() {
    let dir = tempfile::tempdir().unwrap();
    let recorder = recorder(dir.path());
    ask(&recorder, "abc", "one").await.unwrap();
    ask(&recorder, "xyz", "one").await.unwrap();
    let replay = ReplayProvider::open(dir.path()).unwrap();
    let error = ask(&replay, "xyw", "one").await.unwrap_err().to_string();
    assert!(
        error.contains("00002-") && error.contains("/messages/0/content"),
        "{error}"
    );
}

#[tokio::test]
async fn an_answer_nobody_reads_to_its_end_is_kept_as_such() {
    let dir = tempfile::tempdir().unwrap();
    let recorder = recorder(dir.path());
    let mut answer = recorder.call(request("a", "one")).await.unwrap();
    answer.body.next().await.unwrap().unwrap();
    drop(answer);
    let replay = ReplayProvider::open(dir.path()).unwrap();
    assert_eq!(ask(&replay, "a", "x").await.unwrap().len(), 1);
    ask(&recorder, "a", "one").await.unwrap();
    let replay = ReplayProvider::open(dir.path()).unwrap();
    assert_eq!(
        ask(&replay, "a", "x").await.unwrap().len(),
        2,
        "a whole answer is preferred"
    );
}

#[test]
fn what_is_no_recording_is_refused_by_name() {
    let dir = tempfile::tempdir().unwrap();
    let none = ReplayProvider::open(dir.path()).unwrap_err();
    assert!(none.to_string().contains("no recording"), "{none}");
    fs::write(dir.path().join("00001-x.json"), "{}").unwrap();
    let damaged = ReplayProvider::open(dir.path()).unwrap_err();
    assert!(damaged.to_string().contains("00001-x.json"), "{damaged}");
    assert!(ReplayProvider::open(dir.path().join("absent")).is_err());
}
