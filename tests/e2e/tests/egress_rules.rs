//! Egress rules of an environment, in a run and beside one: allowed, held, denied, explained, imported.

use std::fs;

use serde_json::{Value, json};
use stockade_api::{ClientError, domain::Verdict, v1::DecideApproval};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpListener,
};

use crate::support::{
    installation::Installation,
    names::Names,
    receipt,
    repository::Repository,
    server::Server,
    web::{Answer, Web},
};

/// A server that greets whoever greets it, in the manner of SSH.
async fn greeter() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut greeting = [0; 64];
            let _ = stream.read(&mut greeting).await;
            let _ = stream.write_all(b"SSH-2.0-GREETED\r\n").await;
        }
    });
    port
}

/// A step of the script: greet a host and show what comes back.
fn say(host: &str, port: u16, greeting: &str) -> Value {
    let command = format!(
        "timeout 60 bash -c 'exec 3<>/dev/tcp/{host}/{port} && printf \"{greeting}\" >&3 && timeout 5 head -n 1 <&3' 2>&1; echo \"{host} over\""
    );
    json!({ "say": host, "call": [{ "tool": "bash", "input": { "command": command } }] })
}

fn get(host: &str, port: u16) -> Value {
    say(
        host,
        port,
        &format!("GET / HTTP/1.0\\r\\nHost: {host}:{port}\\r\\n\\r\\n"),
    )
}

/// An installation whose default environment has these rules for servers on this machine.
fn installation(names: &Names, rules: &Value, turns: Value) -> Installation {
    let mut installation = Installation::scripted(turns);
    installation.configure("nameservers", json!([names.address]));
    installation.configure(
        "environments",
        json!([{
            "name": "default", "network": "custom", "egress": rules,
            "address_exceptions": [
                { "cidr": "127.0.0.0/8", "reason": "the servers of this test" },
                { "cidr": "10.0.0.0/8", "reason": "nobody goes there" },
            ],
        }]),
    );
    installation
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_run_gets_what_the_rules_say_and_the_receipt_names_them() {
    let web = Web::plain(|_, _| Answer::text("REACHED")).await;
    let (port, ssh) = (web.port(), greeter().await);
    let names = Names::serve(&[
        "open.example.com",
        "held.example.com",
        "bad.example.com",
        "git.example.com",
    ])
    .await;
    let rules = json!([
        { "name": "open", "verdict": "allow", "hosts": ["*.example.com"], "ports": [port], "protocols": ["http"] },
        { "name": "bad", "verdict": "deny", "hosts": ["bad.example.com"] },
        { "name": "git", "verdict": "allow", "hosts": ["git.example.com"], "ports": [ssh], "protocols": ["ssh"] },
    ]);
    let mut held = rules.clone();
    held.as_array_mut().unwrap().insert(
        0,
        json!({ "name": "held", "verdict": "hold", "hosts": ["held.example.com"], "ports": [port], "protocols": ["http"], "reason": "a person looks" }),
    );
    let turns = json!([
        get("open.example.com", port),
        get("bad.example.com", port),
        get("other.example.org", port),
        say("git.example.com", ssh, "SSH-2.0-client\\r\\n"),
        say("git.example.com", ssh, "helo there\\r\\n"),
        get("held.example.com", port),
        { "say": "Done." },
    ]);
    let installation = installation(&names, &held, turns);
    let repo = Repository::with(&installation, &[("a", "a\n")]);
    let server = Server::up(&installation).await;
    let run = server.run(&repo, json!("builtin")).await;
    let mut story = server.story(run);
    let question = story.question().await;
    let asked = server.client.approval(question).await.unwrap();
    assert_eq!(
        (asked.rule.as_str(), asked.reason.as_str()),
        ("env.egress[0]:held", "a person looks")
    );
    assert_eq!(web.connections(), 1, "held means not connected");
    assert!(
        !names.asked().contains(&"held.example.com".to_owned()),
        "held means not looked up"
    );
    server
        .client
        .decide(question, &DecideApproval::approve())
        .await
        .unwrap();
    story.to("run.completed").await;

    let output = story.outputs();
    assert_eq!(output.matches("HTTP/1.").count(), 2, "{story}");
    assert_eq!(
        output.matches("SSH-2.0-GREETED").count(),
        1,
        "only SSH may be spoken there:\n{story}"
    );
    assert_eq!(web.connections(), 2, "{story}");
    for denied in ["bad.example.com", "other.example.org"] {
        assert!(!names.asked().contains(&denied.to_owned()), "{denied} was looked up");
    }
    let predicate = receipt::verified(&installation, run).await;
    let destinations = predicate["destinations"].as_array().unwrap();
    let told = |verdict: &str, rule: &str| {
        destinations
            .iter()
            .filter(|d| d["verdict"] == verdict && d["rule"] == rule)
            .count()
    };
    for (verdict, rule) in [
        ("allow", "env.egress[1]:open"),
        ("allow", "env.egress[0]:held"),
        ("allow", "env.egress[3]:git"),
        ("deny", "env.egress[2]:bad"),
        ("deny", "env.custom"),
        ("deny", "env.egress"),
    ] {
        assert!(told(verdict, rule) > 0, "no {verdict} by {rule}: {destinations:?}");
    }
    let exceptions = &predicate["address_exceptions"];
    assert_eq!(exceptions[0]["reason"], "the servers of this test");
    assert_eq!(exceptions[0]["connections"], 3, "{exceptions}");
    assert_eq!(exceptions[1]["connections"], 0, "{exceptions}");
    let shown = installation.run(&["receipt", "show", &run.to_string()]).await.expect(0);
    assert!(
        shown.stdout.contains("127.0.0.0/8 were open to 3 connections"),
        "{}",
        shown.stdout
    );

    // The same questions beside the run have the same answers, here and over HTTP.
    for (host, verdict, rule) in [
        ("open.example.com", Verdict::Allow, "env.egress[1]:open"),
        ("held.example.com", Verdict::Hold, "env.egress[0]:held"),
        ("bad.example.com", Verdict::Deny, "env.egress[2]:bad"),
        ("other.example.org", Verdict::Deny, "env.custom"),
    ] {
        let url = format!("http://{host}:{port}/");
        let over_http = server.client.explain("default", &url, None, None).await.unwrap();
        assert_eq!((over_http.verdict, over_http.rule.as_str()), (verdict, rule));
        let here = installation
            .run(&["env", "explain", "default", &url, "--json"])
            .await
            .expect(0);
        assert_eq!(here.json(), serde_json::to_value(&over_http).unwrap());
    }
    let bad = server.client.explain("default", "open.example.com", None, None).await;
    assert!(matches!(bad, Err(ClientError::Problem(_))), "{bad:?}");
}

#[tokio::test]
async fn an_explanation_is_for_people_too_and_a_bad_url_says_what_is_wrong() {
    let mut installation = Installation::bare();
    installation.configure(
        "environments",
        json!([{ "name": "data", "network": "custom", "egress": [
            { "name": "read", "verdict": "allow", "hosts": ["api.example.com"], "methods": ["GET"], "paths": ["/v1"] },
            { "name": "write", "verdict": "ask", "hosts": ["api.example.com"], "methods": ["POST"] },
        ] }]),
    );
    let explain = async |rest: &[&str]| installation.run(&[&["env", "explain", "data"], rest].concat()).await;
    let read = explain(&["https://API.example.com/v1/%78"]).await.expect(0).stdout;
    for words in [
        "GET https://api.example.com/v1/x: allowed",
        "env.egress[0]:read",
        "inspected",
        "=> env.egress[0]:read: allow GET",
    ] {
        assert!(read.contains(words), "{words}:\n{read}");
    }
    let write = explain(&["https://api.example.com/v1", "--method", "POST"])
        .await
        .expect(0)
        .stdout;
    assert!(
        write.contains("held until a person decides") && write.contains("it names other methods"),
        "{write}"
    );
    for (arguments, words) in [
        (&["api.example.com/v1"][..], "whole URL"),
        (&["https://user@api.example.com/"], "user name"),
        (&["https://api.example.com/", "--method", "get"], "capitals"),
        (&["https://api.example.com/", "--agent", "nobody"], "unknown agent"),
    ] {
        explain(arguments).await.expect(2).says(words);
    }
    installation
        .run(&["env", "explain", "absent", "https://api.example.com/"])
        .await
        .expect(2)
        .says("known: ");
    // What does not compile names the rule.
    installation.configure(
        "environments",
        json!([{ "name": "data", "network": "custom", "egress": [{ "name": "x", "verdict": "allow", "hosts": ["a.*.com"] }] }]),
    );
    installation
        .run(&["config", "check"])
        .await
        .expect(2)
        .says("egress[0] ('x'): host 'a.*.com'");
}

#[tokio::test]
async fn an_imported_list_is_a_configuration_that_says_the_same() {
    let installation = Installation::bare();
    let acl = installation.path("acl.yaml");
    let team = installation.path("team.json");
    fs::write(
        &acl,
        "version: v1\nservices:\n- {name: a, project: p, action: enforce, allowed_domains: [x.example.com, '*.y.example.com']}\n\
         - {name: b, project: p, action: open}\nglobal_deny_list: [bad.y.example.com]\n",
    )
    .unwrap();
    fs::write(
        &team,
        json!({ "agents": [{ "key": "triage", "accessPolicy": { "accessPolicyVersion": "1", "defaultAction": "deny", "rules": [
            { "host": "api.example.com", "methods": ["GET"], "action": "allow" },
            { "host": "api.example.com", "methods": ["POST"], "pathPrefix": "/v1", "action": "require_approval", "reason": "writes" },
        ] } }] })
        .to_string(),
    )
    .unwrap();
    let (acl, team) = (acl.to_str().unwrap(), team.to_str().unwrap());
    let import = async |rest: &[&str]| installation.run(&[&["env", "import"], rest].concat()).await;
    let verdicts = async |imported: &str, name: &str, asked: &[(&str, &str, &str)]| {
        let config = installation.path("imported.yaml");
        fs::write(&config, imported).unwrap();
        let config = config.to_str().unwrap();
        installation
            .run(&["--config", config, "config", "check"])
            .await
            .expect(0);
        for (method, url, verdict) in asked {
            let explain = [
                "--config", config, "env", "explain", name, url, "--method", method, "--json",
            ];
            assert_eq!(
                installation.run(&explain).await.expect(0).json()["verdict"],
                *verdict,
                "{method} {url}\n{imported}"
            );
        }
    };
    let smokescreen = import(&["--smokescreen", acl, "--role", "a"])
        .await
        .expect(0)
        .says("ports 80 and 443");
    let asked = [
        ("GET", "https://x.example.com/", "allow"),
        ("GET", "https://z.y.example.com/", "allow"),
        ("GET", "https://bad.y.example.com/", "deny"),
        ("GET", "https://y.example.com/", "deny"),
    ];
    verdicts(&smokescreen.stdout, "a", &asked).await;
    let envelope = import(&["--open-envelope", team])
        .await
        .expect(0)
        .says("holds the request until a person decides");
    let asked = [
        ("GET", "https://api.example.com/x", "allow"),
        ("POST", "https://api.example.com/v1/x", "hold"),
        ("POST", "https://api.example.com/v2", "deny"),
        ("GET", "https://other.example.com/", "deny"),
    ];
    verdicts(&envelope.stdout, "triage", &asked).await;

    import(&["--smokescreen", acl]).await.expect(2).says("--role");
    let open = import(&["--smokescreen", acl, "--role", "b"])
        .await
        .expect(0)
        .says("acknowledge_full_network");
    fs::write(installation.path("open.yaml"), &open.stdout).unwrap();
    let open = installation.path("open.yaml").display().to_string();
    installation
        .run(&["--config", &open, "config", "check"])
        .await
        .expect(2)
        .says("acknowledge_full_network");
    import(&[]).await.expect(2);
    import(&["--smokescreen", acl, "--open-envelope", team]).await.expect(2);
    fs::write(
        installation.path("odd.yaml"),
        "version: v1\nservices: []\nglobals: []\n",
    )
    .unwrap();
    let odd = installation.path("odd.yaml").display().to_string();
    import(&["--smokescreen", &odd])
        .await
        .expect(2)
        .says("globals: unknown field");
}
