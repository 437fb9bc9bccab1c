//! A credential from the operator's hand to the server that is to get it, past an agent that never has it.

use std::fs;

use serde_json::json;

use crate::support::{
    installation::Installation,
    names::Names,
    program, receipt,
    repository::Repository,
    server::Server,
    web::{Answer, Web},
};

const SECRET: &str = "canary-credential-e2e-51c3";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_secret_reaches_its_server_and_nobody_else() {
    // It tells whoever asks what it was told, as careless servers do.
    let echo = |seen: &crate::support::web::Seen, _| Answer::text(&format!("TOLD {}", seen.header("authorization")));
    let (web, certificate) = Web::tls("api.example.com", echo).await;
    let names = Names::serve(&["api.example.com"]).await;
    let port = web.port();
    let turns = json!([
        { "say": "I call.", "call": [{ "tool": "bash", "input": { "command": format!(
            "echo held $API_TOKEN; curl -sS --max-time 20 -H \"Authorization: Bearer $API_TOKEN\" https://api.example.com:{port}/v1/items; echo; \
             curl -sS --max-time 20 -o /dev/null -w 'elsewhere %{{http_code}}' \"https://api.example.com:{port}/v2?token=$API_TOKEN\"; echo; \
             env | base64 -w0; cat /proc/[0-9]*/environ 2>/dev/null | base64 -w0"
        ) } }] },
        { "say": "Done." },
    ]);
    let mut installation = Installation::scripted(turns);
    installation.configure("nameservers", json!([names.address]));
    let authority = installation.path("authority.pem");
    fs::write(&authority, certificate).unwrap();
    installation.configure("certificate_authorities", json!([authority]));
    installation.configure(
        "environments",
        json!([{
            "name": "default", "network": "custom",
            "egress": [{ "verdict": "allow", "hosts": ["api.example.com"], "ports": [port], "protocols": ["https"] }],
            "address_exceptions": [{ "cidr": "127.0.0.0/8", "reason": "the server of this test" }],
            "credentials": [{
                "secret": "API", "kind": "bearer", "hosts": [format!("api.example.com:{port}")], "paths": ["/v1"],
                "env": "API_TOKEN",
            }],
        }]),
    );
    let repo = Repository::with(&installation, &[("a", "a\n")]);
    let server = Server::up(&installation).await;
    let set = program::run_with(installation.command(&["secret", "set", "API"]), SECRET.as_bytes());
    set.await.expect(0);
    let run = server.run(&repo, json!("builtin")).await;
    let story = server.told(run).await;
    let output = story.outputs();
    assert!(output.contains("held stk-placeholder-"), "{story}");
    assert!(output.contains("TOLD Bearer [redacted]"), "{story}");
    assert!(output.contains("elsewhere 403"), "{story}");
    let seen = web.seen();
    assert_eq!(seen.len(), 1, "{seen:?}");
    assert_eq!(
        seen[0].header("authorization"),
        format!("Bearer {SECRET}"),
        "the control"
    );

    let predicate = receipt::verified(&installation, run).await;
    let told = [story.to_string(), output, predicate.to_string(), server.log()].join("\n");
    assert!(!told.contains(SECRET), "{told}");
    assert!(predicate.to_string().contains("credential"), "{predicate}");
}
