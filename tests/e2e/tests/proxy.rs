//! The proxy inside a sandbox, for programs that insist on one.

use serde_json::{Value, json};

use crate::support::{
    installation::Installation,
    names::Names,
    repository::Repository,
    server::Server,
    web::{Answer, Web},
};

/// A step of the script: python asks for a URL through the proxy, by CONNECT or with the whole URL.
fn fetch(kind: &str, host: &str, port: u16) -> Value {
    let script = format!(
        "import http.client\n\
         proxy = http.client.HTTPConnection('proxy.stockade.internal', 3128, timeout=30)\n\
         url = 'http://{host}:{port}/'\n\
         if '{kind}' == 'connect': proxy.set_tunnel('{host}', {port}); url = '/'\n\
         try:\n\
         \x20   proxy.request('GET', url, headers={{'Host': '{host}:{port}'}})\n\
         \x20   print('{kind} {host}:', proxy.getresponse().read().decode())\n\
         except OSError as error: print('{kind} {host}:', error)\n"
    );
    json!({ "say": host, "call": [{ "tool": "bash", "input": { "command": format!("python3 - <<'END'\n{script}END\n") } }] })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn programs_that_insist_on_a_proxy_get_the_same_verdicts() {
    let web = Web::plain(|_, _| Answer::text("REACHED")).await;
    let port = web.port();
    let names = Names::serve(&["open.example.com", "other.example.org"]).await;
    let turns = json!([
        fetch("connect", "open.example.com", port),
        fetch("whole", "open.example.com", port),
        fetch("connect", "other.example.org", port),
        fetch("whole", "other.example.org", port),
        fetch("connect", "127.0.0.1", port),
        { "say": "Done." },
    ]);
    let mut installation = Installation::scripted(turns);
    installation.configure("nameservers", json!([names.address]));
    installation.configure(
        "environments",
        json!([{
            "name": "default", "network": "custom",
            "egress": [{ "name": "open", "verdict": "allow", "hosts": ["open.example.com"], "ports": [port], "protocols": ["http"] }],
            "address_exceptions": [{ "cidr": "127.0.0.0/8", "reason": "the server of this test" }],
        }]),
    );
    let repo = Repository::with(&installation, &[("a", "a\n")]);
    let server = Server::up(&installation).await;
    let run = server.run(&repo, json!("builtin")).await;
    let mut story = server.story(run);
    story.to("run.completed").await;
    let output = story.outputs();
    for reached in ["connect open.example.com: REACHED", "whole open.example.com: REACHED"] {
        assert!(output.contains(reached), "{story}");
    }
    assert_eq!(output.matches("REACHED").count(), 2, "{story}");
    assert!(
        output.contains("connect other.example.org: Tunnel connection failed: 403"),
        "{story}"
    );
    assert!(output.contains("whole other.example.org: {"), "{story}");
    assert!(
        output.contains("connect 127.0.0.1: Tunnel connection failed: 403"),
        "{story}"
    );
    assert!(
        !names.asked().contains(&"other.example.org".to_owned()),
        "a refused name was looked up"
    );
    assert_eq!(web.connections(), 2, "{story}");
}
