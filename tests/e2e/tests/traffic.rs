//! Traffic of a run through the binary: limits, what is told of it, and revocation while it goes on.

use serde_json::{Value, json};

use crate::support::{
    installation::Installation,
    names::Names,
    receipt,
    repository::Repository,
    server::Server,
    web::{Answer, Web},
};

/// A step of the script: one command.
fn bash(command: &str) -> Value {
    json!({ "say": "Working.", "call": [{ "tool": "bash", "input": { "command": command } }] })
}

/// Asks a host and shows the first line and the last.
fn get(host: &str, port: u16) -> Value {
    bash(&format!(
        "timeout 60 bash -c 'exec 3<>/dev/tcp/{host}/{port} && printf \"GET / HTTP/1.1\\r\\nHost: {host}:{port}\\r\\nConnection: close\\r\\n\\r\\n\" >&3 && timeout 20 cat <&3' 2>&1; echo \"{host} over\""
    ))
}

fn installation(names: &Names, environment: Value, turns: Value) -> Installation {
    let mut installation = Installation::scripted(turns);
    installation.configure("nameservers", json!([names.address]));
    let mut whole = json!({
        "name": "default", "network": "custom",
        "address_exceptions": [{ "cidr": "127.0.0.0/8", "reason": "the servers of this test" }],
    });
    for (key, value) in environment.as_object().unwrap() {
        whole[key] = value.clone();
    }
    installation.configure("environments", json!([whole]));
    installation
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_run_is_held_to_its_limits_and_told_of_them() {
    let web = Web::plain(|_, _| Answer::text("REACHED")).await;
    let names = Names::serve(&["a.example.com", "b.example.com"]).await;
    let port = web.port();
    let environment = json!({
        "egress": [
            { "name": "few", "verdict": "allow", "hosts": ["a.example.com"], "ports": [port], "protocols": ["http"],
              "limits": { "connections": 2 } },
            { "name": "free", "verdict": "allow", "hosts": ["b.example.com"], "ports": [port], "protocols": ["http"] },
        ],
        "traffic": { "bytes_down": 100_000 },
    });
    let mut turns: Vec<Value> = (0..3).map(|_| get("a.example.com", port)).collect();
    // The same three times in a row would ask a person.
    turns.insert(1, bash("true"));
    turns.push(get("b.example.com", port));
    turns.push(json!({ "say": "Done." }));
    let installation = installation(&names, environment, json!(turns));
    let repo = Repository::with(&installation, &[("a", "a\n")]);
    let path = repo.path.display().to_string();
    let ran = installation.run(&["run", "fetch", "--repo", &path]).await.expect(0);
    assert_eq!(web.connections(), 3, "{}", ran.stderr);
    for told in [
        "network limit reached: the limit of rule env.egress[0]:few is reached: 2 connections",
        "network: a.example.com",
        "network: 3 connections",
        "1 refused",
        "limits met: env.egress[0]:few.connections",
    ] {
        assert!(ran.stderr.contains(told), "'{told}' is missing in\n{}", ran.stderr);
    }
    let run: stockade_api::domain::RunId = ran.stdout.trim().parse().unwrap();
    let predicate = receipt::verified(&installation, run).await;
    let hits = &predicate["run"]["result"]["limits_hit"];
    assert!(
        hits.as_array()
            .unwrap()
            .contains(&json!("env.egress[0]:few.connections=2")),
        "{hits}"
    );
    let destinations = predicate["destinations"].as_array().unwrap();
    let reached = destinations.iter().find(|d| d["rule"] == "env.egress[0]:few").unwrap();
    assert_eq!(
        (&reached["count"], &reached["traffic"]["connections"]),
        (&json!(2), &json!(2))
    );
    assert!(reached["traffic"]["bytes_down"].as_u64() > Some(100), "{reached}");
    assert_eq!(reached["traffic"]["blind_bytes"], 0);
    let shown = installation.run(&["receipt", "show", &run.to_string()]).await.expect(0);
    for told in [
        "DESTINATION",
        "UNREAD",
        "limit met: env.egress[0]:few.connections=2",
        "3 connections",
    ] {
        assert!(shown.stdout.contains(told), "'{told}' is missing in\n{}", shown.stdout);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_operator_takes_a_host_away_from_a_run_that_goes_on() {
    let web = Web::plain(|_, _| Answer::text("REACHED")).await;
    let names = Names::serve(&["leak.example.com", "other.example.com"]).await;
    let port = web.port();
    let rule = |host: &str| json!({ "verdict": "allow", "hosts": [host], "ports": [port], "protocols": ["tcp"] });
    let environment = json!({ "egress": [rule("leak.example.com"), rule("other.example.com")] });
    // A connection that stays, until it is ended from outside.
    let stay = format!(
        "timeout 100 bash -c 'exec 3<>/dev/tcp/leak.example.com/{port} && printf \"\\001\\002\" >&3 && echo HELD && timeout 90 cat <&3; echo ENDED' 2>&1"
    );
    let turns = json!([
        bash(&stay),
        get("leak.example.com", port),
        get("other.example.com", port),
        { "say": "Done." },
    ]);
    let installation = installation(&names, environment, turns);
    let repo = Repository::with(&installation, &[("a", "a\n")]);
    let server = Server::up(&installation).await;
    let run = server.run(&repo, json!("builtin")).await;
    let mut story = server.story(run);
    story.until_type("egress.allowed").await;
    installation
        .run(&["env", "revoke", "absent", "*"])
        .await
        .expect(2)
        .says("absent");
    installation
        .run(&["env", "revoke", "default", "https://x/"])
        .await
        .expect(2);
    let revoked = [
        "env",
        "revoke",
        "default",
        "leak.example.com",
        "--reason",
        "a token is out",
    ];
    installation.run(&revoked).await.expect(0);
    let told = story.until_type("egress.revoked").await;
    assert_eq!(
        (&told.data["closed"], &told.data["reason"]),
        (&json!(1), &json!("a token is out"))
    );
    story.to("run.completed").await;
    let output = story.outputs();
    assert!(output.contains("ENDED"), "{story}");
    assert_eq!(output.matches("REACHED").count(), 1, "the other host alone:\n{story}");
    let predicate = receipt::verified(&installation, run).await;
    assert_eq!(predicate["revocations"][0]["hosts"], "leak.example.com");
    let denied = predicate["destinations"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|d| d["rule"] == "revoked");
    assert!(denied.count() > 0, "{predicate}");

    let listed = installation
        .run(&["env", "revocations", "default", "--json"])
        .await
        .expect(0)
        .json();
    assert_eq!(listed[0]["by"], "tester");
    let id = listed[0]["id"].as_str().unwrap();
    installation
        .run(&["env", "lift", "default", id])
        .await
        .expect(0)
        .says("no longer revoked");
    let all = installation
        .run(&["env", "revocations", "default", "--all"])
        .await
        .expect(0);
    assert!(
        all.stdout.contains("leak.example.com") && all.stdout.contains("by tester"),
        "{}",
        all.stdout
    );
    assert!(
        !installation
            .run(&["env", "revocations", "default"])
            .await
            .expect(0)
            .stdout
            .contains(id)
    );
}
