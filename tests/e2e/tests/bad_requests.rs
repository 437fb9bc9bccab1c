//! Wrong requests over HTTP: the right problem (RFC 9457), and nothing half-made left behind.

use serde_json::json;
use stockade_api::ListRuns;

use crate::support::{installation::Installation, raw, repository::Repository, server::Server};

async fn healthy() -> (Installation, Repository, Server) {
    let installation = Installation::scripted(json!([{ "say": "Done." }]));
    let repo = Repository::with(&installation, &[("a", "a\n")]);
    let server = Server::up(&installation).await;
    (installation, repo, server)
}

async fn assert_nothing_made(installation: &Installation, server: &Server) {
    assert!(server.client.runs(&ListRuns::default()).await.unwrap().items.is_empty());
    assert!(server.client.tasks(None, None).await.unwrap().items.is_empty());
    installation.assert_untouched();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bodies_that_are_none() {
    let (installation, repo, server) = healthy().await;
    let post = async |body: &[u8]| raw::send(&server, "POST", "/v1/tasks", body).await;
    let broken = post(b"{\n  \"prompt\": oops\n}").await.problem(400, "malformed_json");
    assert_eq!(broken["line"], 2, "{broken}");
    post(b"{\"prompt\": \"caf\xe9\"}").await.problem(400, "invalid_utf8");
    let unknown = post(br#"{"prompt": "x", "promt": "y"}"#)
        .await
        .problem(422, "invalid_body");
    assert!(unknown["detail"].as_str().unwrap().contains("promt"), "{unknown}");
    post(&[b"{\"prompt\": \"".as_slice(), &vec![b'x'; 2 << 20], b"\"}"].concat())
        .await
        .problem(413, "body_too_large");
    let long = json!({ "prompt": "x".repeat(100 << 10) }).to_string();
    post(long.as_bytes()).await.problem(422, "text_too_long");
    post(br#"{"prompt": "  "}"#).await.problem(422, "empty_text");
    let agent = json!({ "prompt": "x", "agent": "nobody" }).to_string();
    let agent = post(agent.as_bytes()).await.problem(422, "unknown_agent");
    assert!(agent["known"].to_string().contains("builtin"), "{agent}");
    post(
        json!({ "prompt": "x", "environment": "nowhere" })
            .to_string()
            .as_bytes(),
    )
    .await
    .problem(422, "unknown_environment");
    post(json!({ "prompt": "x", "backend": "nowhere" }).to_string().as_bytes())
        .await
        .problem(422, "unknown_backend");
    post(
        json!({ "prompt": "x", "limits": { "wall_clock_seconds": 0 } })
            .to_string()
            .as_bytes(),
    )
    .await
    .problem(422, "invalid_limits");
    for source in [
        installation.path("absent"),
        installation.path("script.yaml"),
        installation.home(),
    ] {
        let body = json!({ "prompt": "x", "repo": source }).to_string();
        post(body.as_bytes()).await.problem(422, "repository");
    }
    assert_nothing_made(&installation, &server).await;
    // The control: the same request, whole.
    let body = json!({ "prompt": "x", "repo": repo.source() }).to_string();
    assert_eq!(post(body.as_bytes()).await.status, 201);
    let run = server.client.runs(&ListRuns::default()).await.unwrap().items[0].id;
    server.story(run).to("run.completed").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn strangers_are_refused_on_every_route() {
    let (installation, _repo, server) = healthy().await;
    let run = "run_00000000000000000000000000000000";
    let routes = [
        ("GET", "/".to_owned()),
        ("GET", "/v1/tasks".to_owned()),
        ("POST", "/v1/tasks".to_owned()),
        ("GET", "/v1/runs".to_owned()),
        ("GET", format!("/v1/runs/{run}")),
        ("GET", format!("/v1/runs/{run}/events")),
        ("GET", format!("/v1/runs/{run}/diff")),
        ("GET", format!("/v1/runs/{run}/receipt")),
        ("POST", format!("/v1/runs/{run}/cancel")),
        ("POST", format!("/v1/runs/{run}/messages")),
        ("GET", "/v1/approvals".to_owned()),
        (
            "POST",
            "/v1/approvals/apr_00000000000000000000000000000000/decision".to_owned(),
        ),
        ("GET", "/v1/agents".to_owned()),
        ("GET", "/v1/environments".to_owned()),
        ("POST", "/v1/tokens".to_owned()),
    ];
    let cut = &server.token[..server.token.len() - 1];
    for (method, path) in &routes {
        for token in ["", "stk_wrong", cut] {
            raw::send_as(&server, token, method, path, b"{}")
                .await
                .problem(401, "unauthorized");
        }
        let known = raw::send(&server, method, path, b"{}").await;
        assert_ne!(known.status, 401, "{method} {path}: {known:?}");
    }
    // Health needs no token and tells nothing.
    let health = raw::send_as(&server, "", "GET", "/healthz", b"").await;
    assert_eq!((health.status, health.body.as_str()), (200, r#"{"status":"ok"}"#));
    assert_nothing_made(&installation, &server).await;

    let made = installation
        .run(&["token", "create", "ci", "--json"])
        .await
        .expect(0)
        .json();
    let secret = made["secret"].as_str().unwrap().to_owned();
    assert_eq!(raw::send_as(&server, &secret, "GET", "/v1/runs", b"").await.status, 200);
    installation
        .run(&["token", "revoke", made["token"]["id"].as_str().unwrap()])
        .await
        .expect(0);
    raw::send_as(&server, &secret, "GET", "/v1/runs", b"")
        .await
        .problem(401, "unauthorized");
    let listed = installation.run(&["token", "list", "--json"]).await.expect(0);
    assert!(!listed.stdout.contains(&secret), "the secret is told again");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_not_there_and_who_is_not_meant() {
    let (installation, _repo, server) = healthy().await;
    let send = async |method: &str, path: &str| raw::send(&server, method, path, b"{}").await;
    send("GET", "/v1/runs/run_00000000000000000000000000000000")
        .await
        .problem(404, "not_found");
    send("GET", "/v1/runs/..%2f..%2fetc%2fpasswd")
        .await
        .problem(404, "not_found");
    send("GET", "/v1/nothing").await.problem(404, "no_such_route");
    send("DELETE", "/v1/runs").await.problem(405, "method_not_allowed");
    send("GET", "/v1/runs?limit=many").await.problem(400, "invalid_query");
    let with = async |header: &str| {
        let request = format!(
            "GET /v1/runs HTTP/1.1\r\n{header}Authorization: Bearer {}\r\nConnection: close\r\n\r\n",
            server.token
        );
        raw::exchange(server.authority(), request.as_bytes()).await
    };
    let host = format!("Host: {}\r\n", server.authority());
    assert_eq!(with(&host).await.status, 200);
    with("Host: stockade.attacker.example\r\n")
        .await
        .problem(421, "misdirected");
    with(&format!("{host}Origin: https://attacker.example\r\n"))
        .await
        .problem(403, "foreign_origin");
    let nonsense = raw::exchange(server.authority(), b"\x16\x03\x01 this is not HTTP\r\n\r\n").await;
    assert!(nonsense.status == 400 || nonsense.status == 0, "{nonsense:?}");
    server.client.ready().await.unwrap();
    assert_nothing_made(&installation, &server).await;
}
