use base64::{Engine as _, engine::general_purpose::STANDARD};
use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt as _, Full};
use serde_json::{Value, json};
use stockade_domain::SecretName;
use stockade_policy::Host;
use stockade_ports::{ManualClock, sim::MemoryStore};
use stockade_vault::{InstallationKey, Vault};

use super::*;
use crate::credentials::{MARKER, ScrubbedBody, test_upstream::Upstream};

const APP_KEY: &[u8] = include_bytes!("testdata/app.pkcs1.pem");
const APP_KEY_8: &[u8] = include_bytes!("testdata/app.pkcs8.pem");
const NOW: i64 = 1_750_000_000;

/// A team with secrets, and runs of it.
struct World {
    clock: Arc<ManualClock>,
    store: Arc<MemoryStore>,
    secrets: Arc<Vault>,
    upstream: Arc<Upstream>,
    fetch: Arc<dyn Fetch>,
}

impl World {
    async fn new() -> Self {
        let clock = Arc::new(ManualClock::at(NOW * 1000));
        let store = Arc::new(MemoryStore::default());
        let secrets = Arc::new(Vault::new(store.clone(), InstallationKey::generate().unwrap()));
        let (upstream, fetch) = Upstream::start(&clock).await;
        Self {
            clock,
            store,
            secrets,
            upstream,
            fetch,
        }
    }

    async fn set(&self, name: &str, value: &[u8]) {
        let value = SecretValue::new(value.to_vec());
        self.secrets
            .put(TeamId::DEFAULT, &named(name), value, self.clock.now())
            .await
            .unwrap();
    }

    fn run(&self, bindings: Value) -> RunCredentials {
        self.run_for(bindings, Some("https://github.com/acme/app.git"))
    }

    fn run_for(&self, bindings: Value, source: Option<&str>) -> RunCredentials {
        RunCredentials::new(RunCredentialsParts {
            team: TeamId::DEFAULT,
            bindings: serde_json::from_value(bindings).unwrap(),
            repository: source.and_then(Repository::of_source),
            secrets: self.secrets.clone(),
            fetch: Arc::clone(&self.fetch),
            clock: self.clock.clone(),
        })
        .unwrap()
    }
}

fn named(name: &str) -> SecretName {
    name.parse().unwrap()
}

fn head(target: &str, headers: &[(&str, &str)]) -> Parts {
    let mut request = Request::builder().uri(target);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    request.body(()).unwrap().into_parts().0
}

fn judge<'a>(run: &'a RunCredentials, host: &str, head: &Parts) -> Result<Option<CredentialUse<'a>>, CredentialFault> {
    let (scheme, host) = host.split_once("://").unwrap_or(("https", host));
    let host = Host::parse(host).unwrap();
    let tls = scheme == "https";
    run.judge(
        Destination {
            host: &host,
            port: if tls { 443 } else { 80 },
            tls,
        },
        head,
    )
}

/// Sends a request as the Guard would, up to the point where it goes out.
async fn sent(run: &RunCredentials, host: &str, mut head: Parts) -> Result<Parts, CredentialFault> {
    if let Some(use_of) = judge(run, host, &head)? {
        run.inject(use_of, &mut head).await?;
    }
    Ok(head)
}

fn authorization(head: &Parts) -> &str {
    head.headers.get("authorization").map_or("", |v| v.to_str().unwrap())
}

fn bearer(secret: &str, host: &str, env: &str) -> Value {
    json!({ "secret": secret, "kind": "bearer", "hosts": [host], "paths": ["/v1"], "env": env })
}

fn app() -> Value {
    let kind = json!({ "github_app": { "app_id": "12345", "installation_id": 77 } });
    json!([{ "secret": "app", "kind": kind, "hosts": ["api.github.com", "github.com"] }])
}

fn client() -> Value {
    let kind = json!({ "oauth_client": { "token_url": "https://id.example.com/token", "client_id": "robot/1", "scopes": ["read", "a:b"] } });
    json!([{ "secret": "client", "kind": kind, "hosts": ["api.example.com"] }])
}

#[tokio::test]
async fn a_bound_request_gets_the_secret_and_others_do_not() {
    let world = World::new().await;
    world.set("token", b"hunter2-hunter2").await;
    let run = world.run(json!([bearer("token", "api.example.com", "API_TOKEN")]));
    let variables: Vec<_> = run.variables().collect();
    let placeholder = variables[0].1.to_owned();
    assert_eq!((variables.len(), variables[0].0), (1, "API_TOKEN"));
    let with = |target: &str| head(target, &[("authorization", &format!("Bearer {placeholder}"))]);
    assert!(!run.any_used());
    let out = sent(&run, "api.example.com", with("/v1/x")).await.unwrap();
    assert_eq!(authorization(&out), "Bearer hunter2-hunter2");
    assert!(run.any_used());
    let bare = sent(&run, "api.example.com", head("/v1/x", &[])).await.unwrap();
    assert_eq!(
        authorization(&bare),
        "Bearer hunter2-hunter2",
        "the client need not know"
    );
    // The placeholder goes nowhere else (attacks A-CR-01 and A-CR-04).
    for (host, target) in [
        ("api.example.com", "/v2/x"),
        ("other.example.com", "/v1/x"),
        ("http://api.example.com", "/v1/x"),
    ] {
        let fault = sent(&run, host, with(target)).await.unwrap_err();
        assert_eq!(fault.code(), "credential_placeholder", "{host}{target}");
        let plain = sent(&run, host, head(target, &[("authorization", "Bearer own")]))
            .await
            .unwrap();
        assert_eq!(authorization(&plain), "Bearer own", "what the client has itself passes");
    }
}

/// A-CR-02: made up, of another run, of an earlier run; and in every part of a request.
#[tokio::test]
async fn a_placeholder_is_refused_anywhere_but_in_its_place() {
    let world = World::new().await;
    world.set("token", b"hunter2-hunter2").await;
    let bindings = json!([
        bearer("token", "api.example.com", "T"),
        bearer("token", "b.example.com", "U")
    ]);
    let (run, other) = (world.run(bindings.clone()), world.run(bindings));
    let of = |run: &RunCredentials, place: usize| run.variables().nth(place).unwrap().1.to_owned();
    let own = of(&run, 0);
    let basic = format!("Basic {}", STANDARD.encode(format!("x:{own}")));
    for fine in [format!("Bearer {own}"), basic] {
        sent(&run, "api.example.com", head("/v1", &[("authorization", &fine)]))
            .await
            .unwrap();
    }
    for foreign in [
        of(&run, 1),
        of(&other, 0),
        format!("{MARKER}{}", "0".repeat(32)),
        MARKER.to_uppercase(),
    ] {
        let wrong = head("/v1", &[("authorization", &format!("Bearer {foreign}"))]);
        let fault = sent(&run, "api.example.com", wrong).await.unwrap_err();
        assert_eq!(fault.code(), "credential_placeholder", "{foreign}");
    }
    let hex: String = own.bytes().map(|b| format!("{b:02X}")).collect();
    let percent: String = own.bytes().map(|b| format!("%{b:02x}")).collect();
    for (target, headers) in [
        (format!("/v1/{own}"), vec![]),
        (format!("/v1?x={percent}"), vec![]),
        (format!("/v1?{hex}"), vec![]),
        ("/v1".to_owned(), vec![("cookie", STANDARD.encode(format!("a={own}")))]),
        ("/v1".to_owned(), vec![("x-a", percent.clone())]),
        (
            "/v1".to_owned(),
            vec![("authorization", format!("Bearer {own}")), ("x-copy", own.clone())],
        ),
    ] {
        let headers: Vec<_> = headers.iter().map(|(name, value)| (*name, value.as_str())).collect();
        let fault = judge(&run, "api.example.com", &head(&target, &headers)).unwrap_err();
        assert_eq!(fault.code(), "credential_placeholder", "{target} {headers:?}");
        assert!(!fault.to_string().contains(&own), "{fault}");
    }
}

#[tokio::test]
async fn a_secret_that_is_missing_removed_or_out_of_reach_stops_the_request() {
    let world = World::new().await;
    let run = world.run(json!([bearer("token", "api.example.com", "T")]));
    let try_it = async || sent(&run, "api.example.com", head("/v1", &[])).await;
    let missing = try_it().await.unwrap_err();
    assert!(missing.to_string().contains("stockade secret set token"), "{missing}");
    world.set("token", b"hunter2-one").await;
    assert_eq!(authorization(&try_it().await.unwrap()), "Bearer hunter2-one");
    world.set("token", b"hunter2-two").await;
    assert_eq!(authorization(&try_it().await.unwrap()), "Bearer hunter2-two", "at once");
    world.store.unavailable(true);
    assert_eq!(try_it().await.unwrap_err().code(), "credential_unavailable");
    world.store.unavailable(false);
    world.set("token", b"short").await;
    assert_eq!(try_it().await.unwrap_err().code(), "credential_unusable");
    world.secrets.remove(TeamId::DEFAULT, &named("token")).await.unwrap();
    assert_eq!(try_it().await.unwrap_err().code(), "credential_missing");
    // Answers are still searched for what was used before.
    let body = Full::new(Bytes::from_static(b"hunter2-one hunter2-two other"));
    let clean = ScrubbedBody::new(body, run.scrubber()).collect().await.unwrap();
    assert_eq!(clean.to_bytes(), "[redacted] [redacted] other");
}

#[tokio::test]
async fn a_github_app_gets_a_token_for_the_runs_repository_and_keeps_it() {
    let world = World::new().await;
    world.set("app", APP_KEY).await;
    let run = world.run(app());
    let api = async |run: &RunCredentials| sent(run, "api.github.com", head("/repos/acme/app/pulls", &[])).await;
    let first = api(&run).await.unwrap();
    assert_eq!(authorization(&first), "Bearer ghs_installation-token-1");
    let git = sent(
        &run,
        "github.com",
        head("/acme/app.git/info/refs?service=git-receive-pack", &[]),
    )
    .await
    .unwrap();
    let expected = STANDARD.encode("x-access-token:ghs_installation-token-1");
    assert_eq!(authorization(&git), format!("Basic {expected}"));
    world.clock.advance_ms(3_479_000);
    assert_eq!(
        authorization(&api(&run).await.unwrap()),
        "Bearer ghs_installation-token-1"
    );
    assert_eq!(world.upstream.asked().len(), 1);
    // Shortly before its end it is replaced; so it is when the key was set anew.
    world.clock.advance_ms(2_000);
    assert_eq!(
        authorization(&api(&run).await.unwrap()),
        "Bearer ghs_installation-token-2"
    );
    world.set("app", APP_KEY_8).await;
    assert_eq!(
        authorization(&api(&run).await.unwrap()),
        "Bearer ghs_installation-token-3"
    );
    // Another run has its own (A-CR-05).
    assert_eq!(
        authorization(&api(&world.run(app())).await.unwrap()),
        "Bearer ghs_installation-token-4"
    );
    // Requests at the same moment share one question.
    let run = world.run(app());
    let both = tokio::join!(api(&run), api(&run), api(&run));
    assert_eq!(authorization(&both.0.unwrap()), "Bearer ghs_installation-token-5");
    assert_eq!(authorization(&both.2.unwrap()), "Bearer ghs_installation-token-5");
    assert_eq!(world.upstream.asked(), ["POST /app/installations/77/access_tokens"; 5]);
}

#[tokio::test]
async fn a_github_app_that_cannot_be_used_says_why() {
    let world = World::new().await;
    let fault = async |run: &RunCredentials| {
        let fault = sent(run, "api.github.com", head("/x", &[])).await.unwrap_err();
        assert!(!fault.to_string().contains("canary"), "{fault}");
        fault.to_string()
    };
    let run = world.run(app());
    for (key, word) in [
        (&b"canary, not a key"[..], "no private key in PEM"),
        (
            include_bytes!("testdata/other.pem"),
            "answered 401: the key is not one of this app",
        ),
        (include_bytes!("testdata/short.pem"), "at least 2048 bits"),
        (include_bytes!("testdata/ec.pem"), "sign with RSA"),
    ] {
        world.set("app", key).await;
        let fault = fault(&run).await;
        assert!(fault.contains(word), "{fault}");
    }
    world.set("app", APP_KEY).await;
    let elsewhere = world.run_for(app(), Some("https://github.com/acme/other"));
    assert!(fault(&elsewhere).await.contains("does not reach the run's repository"));
    let namesake = world.run_for(app(), Some("https://github.com/mallory/app"));
    assert!(fault(&namesake).await.contains("not for the run's repository alone"));
    let local = world.run_for(app(), Some("/srv/app"));
    assert!(fault(&local).await.contains("no repository on a server"));
    let everything = r#"{"token":"ghs_canary","expires_at":"2030-01-01T00:00:00Z","repository_selection":"all"}"#;
    for (status, body, word) in [
        (201, everything, "not for the run's repository alone"),
        (201, "canary", "no token that can be read"),
        (404, r#"{"message":"canary"}"#, "no such installation"),
        (500, "canary", "answered 500"),
        (302, "", "answered 302"),
    ] {
        world.upstream.answer_instead(status, body);
        let fault = fault(&run).await;
        assert!(fault.contains(word), "{fault}");
    }
}

#[tokio::test]
async fn an_oauth_client_gets_a_token_and_asks_again_in_time() {
    let world = World::new().await;
    world.set("client", "client secret: ä".as_bytes()).await;
    let run = world.run(client());
    let api = async || sent(&run, "api.example.com", head("/", &[])).await;
    assert_eq!(authorization(&api().await.unwrap()), "Bearer access-token-1");
    world.clock.advance_ms(479_000);
    assert_eq!(authorization(&api().await.unwrap()), "Bearer access-token-1");
    world.clock.advance_ms(2_000);
    assert_eq!(authorization(&api().await.unwrap()), "Bearer access-token-2");
    world.set("client", b"canary-wrong").await;
    let fault = api().await.unwrap_err().to_string();
    assert!(
        fault.contains("id.example.com answered 401: the client or its secret is not known"),
        "{fault}"
    );
    assert!(!fault.contains("canary"), "{fault}");
    for (body, word) in [
        (
            r#"{"access_token":"canary-token","token_type":"mac"}"#,
            "no bearer token",
        ),
        (
            r#"{"access_token":"canary token","token_type":"Bearer"}"#,
            "a token that is none",
        ),
        (r#"{"access_token":"","token_type":"Bearer"}"#, "a token that is none"),
        ("[]", "no token that can be read"),
    ] {
        world.upstream.answer_instead(200, body);
        let fault = api().await.unwrap_err().to_string();
        assert!(fault.contains(word) && !fault.contains("canary"), "{fault}");
    }
    // A server that does not say how long: each request asks again rather than rely on it.
    world
        .upstream
        .answer_instead(200, r#"{"access_token":"canary-token","token_type":"Bearer"}"#);
    let before = world.upstream.asked().len();
    api().await.unwrap();
    api().await.unwrap();
    assert_eq!(world.upstream.asked().len(), before + 2);
}

/// What a run's credentials print in a log names secrets and holds none.
#[tokio::test]
async fn nothing_prints_a_value() {
    let world = World::new().await;
    world.set("token", b"hunter2-hunter2").await;
    let run = world.run(json!([bearer("token", "api.example.com", "T")]));
    let mut request = head("/v1", &[]);
    let use_of = judge(&run, "api.example.com", &request).unwrap().unwrap();
    let scrubber = run.inject(use_of, &mut request).await.unwrap();
    let printed = format!("{run:?} {use_of:?} {request:?} {scrubber:?}");
    assert!(printed.contains("token") && !printed.contains("hunter2"), "{printed}");
}
