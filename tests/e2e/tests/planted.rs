//! Planted tokens are used and found nowhere: an authenticated clone and an authenticated call of an API
//! succeed, and neither token is in the sandbox's files, in the environment, the arguments or the memory of any
//! of its processes, or in what passes between it and the Guard. A third token that is put into all
//! of these on purpose is found by each search.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde_json::{Value, json};
use stockade_api::v1::DecideApproval;
use stockade_origins::{Credential, GitServer, TestAuthority};

use crate::support::{
    installation::{Installation, is_root},
    names::Names,
    program,
    repository::Repository,
    server::Server,
    web::{Answer, Seen, Web},
};

const BEARER: &str = "planted-bearer-7f31c0aa94e2";
const PASSWORD: &str = "planted-password-b80d2c6617fe";
const CONTROL: &str = "planted-control-19ae55d3c07b";
const USER: &str = "robot";

const SEARCH: &str = include_str!("planted/search.py");
const CAPTURE: &str = include_str!("planted/capture.py");
const HOLD: &str = include_str!("planted/hold.py");

/// What is looked for, masked so that whoever looks does not hold it: each token as it is, in
/// hexadecimal digits and in base64 wherever in a longer text it may begin.
fn patterns() -> String {
    let mut lines = String::new();
    let pair = format!("{USER}:{PASSWORD}");
    for (name, token) in [
        ("bearer", BEARER),
        ("password", PASSWORD),
        ("password", &pair),
        ("control", CONTROL),
    ] {
        let mut forms = vec![token.as_bytes().to_vec()];
        forms.push(
            token
                .bytes()
                .map(|byte| format!("{byte:02x}"))
                .collect::<String>()
                .into_bytes(),
        );
        for before in 0..3 {
            let whole = STANDARD.encode([&vec![b'?'; before][..], token.as_bytes()].concat());
            // The first and the last digits depend on what stands beside it.
            let begin = [0, 2, 3][before];
            let end = whole.trim_end_matches('=').len() - 1;
            forms.push(whole.as_bytes()[begin..end].to_vec());
        }
        for form in forms {
            let masked: String = form.iter().map(|byte| format!("{:02x}", byte ^ 0x55)).collect();
            lines.push_str(&format!("{name} {masked}\n"));
        }
    }
    lines
}

/// A copy of everything that passes in a process's network namespace. Ends when dropped.
struct Tap {
    child: Child,
    file: PathBuf,
}

impl Drop for Tap {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Tap {
    fn on(pid: u32, dir: &Path) -> Self {
        let (program, file) = (dir.join("capture.py"), dir.join("captured"));
        fs::write(&program, CAPTURE).unwrap();
        let mut child = Command::new("nsenter")
            .arg(format!("--net=/proc/{pid}/ns/net"))
            .arg("/usr/bin/python3")
            .args([&program, &file])
            .stdout(Stdio::piped())
            .spawn()
            .expect("nsenter: apt-get install util-linux");
        let mut said = [0; 6];
        std::io::Read::read_exact(child.stdout.as_mut().unwrap(), &mut said).expect("the capture begins");
        assert_eq!(&said, b"ready\n");
        Self { child, file }
    }
}

/// Processes of the sandbox, by the namespace of the one that carries a mark in its environment.
fn processes(mark: &str) -> Vec<u32> {
    let all = || {
        let entries = fs::read_dir("/proc").unwrap().flatten();
        entries.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok())
    };
    let namespace = |pid: u32| fs::read_link(format!("/proc/{pid}/ns/pid")).ok();
    let marked = all().find(|pid| {
        let environment = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
        environment.windows(mark.len()).any(|window| window == mark.as_bytes())
    });
    let inside = namespace(marked.expect("the sandbox has a process with the mark")).unwrap();
    assert_ne!(
        Some(&inside),
        namespace(std::process::id()).as_ref(),
        "a namespace of its own"
    );
    all().filter(|pid| namespace(*pid).as_ref() == Some(&inside)).collect()
}

/// Searches from outside, as root.
fn searched(dir: &Path, rest: &[String]) -> String {
    let (program, list) = (dir.join("search.py"), dir.join("patterns"));
    fs::write(&program, SEARCH).unwrap();
    fs::write(&list, patterns()).unwrap();
    let output = Command::new("/usr/bin/python3")
        .args([&program, &list])
        .args(rest)
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// Fails the test unless a search found the control in each of these places and nothing else.
#[track_caller]
fn only_the_control(report: &str, places: &[&str]) {
    assert!(report.contains("LOOKED AT"), "the search did not end:\n{report}");
    for place in places {
        let found = format!("FOUND control in {place}");
        assert!(
            report.contains(&found),
            "the search is blind: no '{found}' in\n{report}"
        );
    }
    for token in ["bearer", "password"] {
        assert!(!report.contains(&format!("FOUND {token}")), "{report}");
    }
}

fn bash(say: &str, command: &str) -> Value {
    json!({ "say": say, "call": [{ "tool": "bash", "input": { "command": command, "timeout_seconds": 120 } }] })
}

/// What the servers of this test are: a git server and an API that ask for a token, over TLS, and
/// a server in the clear.
struct Origins {
    git: GitServer,
    api: Web,
    plain: Web,
    authorities: String,
    repositories: tempfile::TempDir,
}

impl Origins {
    async fn start() -> Self {
        let repositories = tempfile::tempdir().unwrap();
        let repo = Repository::empty(&repositories.path().join("work"));
        repo.write("file", "CLONED\n");
        repo.commit("first");
        repo.git(&["clone", "--quiet", "--bare", ".", "../private.git"]);
        let authority = TestAuthority::new();
        let credential = Credential {
            user: USER.to_owned(),
            password: PASSWORD.to_owned(),
        };
        let git = GitServer::start_tls(&authority, &["git.example.com"], repositories.path(), Some(credential));
        // It tells whoever asks what it was told, as careless servers do.
        let echo = |seen: &Seen, _| match seen.header("authorization") == format!("Bearer {BEARER}") {
            true => Answer::text(&format!("CALLED {}", seen.header("authorization"))),
            false => Answer::new(401, "text/plain", "who are you?"),
        };
        let (api, certificate) = Web::tls("api.example.com", echo).await;
        Self {
            git: git.await.unwrap(),
            api,
            plain: Web::plain(|_, _| Answer::text("PLAIN")).await,
            authorities: format!("{}{certificate}", authority.pem()),
            repositories,
        }
    }

    fn environment(&self) -> Value {
        let (git, api, plain) = (self.git.port(), self.api.port(), self.plain.port());
        json!([{
            "name": "default", "network": "custom",
            "egress": [
                { "verdict": "allow", "hosts": ["git.example.com"], "ports": [git], "protocols": ["https"] },
                { "verdict": "allow", "hosts": ["api.example.com"], "ports": [api], "protocols": ["https"] },
                { "verdict": "allow", "hosts": ["plain.example.com"], "ports": [plain], "protocols": ["http"] },
            ],
            "address_exceptions": [{ "cidr": "127.0.0.0/8", "reason": "the servers of this test" }],
            "credentials": [
                { "secret": "API", "kind": "bearer", "hosts": [format!("api.example.com:{api}")], "env": "API_TOKEN" },
                { "secret": "GIT", "kind": { "basic": { "username": USER } }, "hosts": [format!("git.example.com:{git}")] },
            ],
        }])
    }

    fn turns(&self) -> Value {
        let (git, api, plain) = (self.git.port(), self.api.port(), self.plain.port());
        let work = format!(
            "git clone --quiet https://git.example.com:{git}/private.git ~/cloned && cat ~/cloned/file
curl -sS -H \"Authorization: Bearer $API_TOKEN\" https://api.example.com:{api}/v1/items; echo
echo {CONTROL} > ~/control
CONTROL={CONTROL} setsid /usr/bin/python3 hold.py {api} > /dev/null 2> ~/complaints < /dev/null &
curl -sS -H 'X-Control: {CONTROL}' -H \"X-Coded: $(printf 'x%s' {CONTROL} | base64 -w0)\" http://plain.example.com:{plain}/; echo
for i in $(seq 100); do [ -s ~/held ] && break; sleep 0.1; done; cat ~/held ~/complaints"
        );
        json!([
            bash("I leave a mark.", "MARK=sandbox-of-planted setsid sleep 600 > /dev/null 2>&1 < /dev/null & sleep 0.2"),
            bash("Begin?", "echo ASK"),
            bash("I work.", &work),
            bash("Look?", "echo ASK again"),
            bash("I look myself.", "CONTROL=x /usr/bin/python3 search.py patterns --root / --pids all"),
            { "say": "Done." },
        ])
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tokens_are_used_and_found_nowhere_in_the_sandbox() {
    if !is_root() {
        // Nobody else may read the memory of other users' processes or listen to their packets.
        return;
    }
    let origins = Origins::start().await;
    let names = Names::serve(&["git.example.com", "api.example.com", "plain.example.com"]).await;
    let mut installation = Installation::scripted(origins.turns());
    let authority = installation.path("authority.pem");
    fs::write(&authority, &origins.authorities).unwrap();
    installation.configure("certificate_authorities", json!([authority]));
    installation.configure("nameservers", json!([names.address]));
    installation.configure("environments", origins.environment());
    let files = [("search.py", SEARCH), ("hold.py", HOLD), ("patterns", &patterns())];
    let repo = Repository::with(&installation, &files);
    let server = Server::up(&installation).await;
    for (name, value) in [("API", BEARER), ("GIT", PASSWORD)] {
        let set = program::run_with(installation.command(&["secret", "set", name]), value.as_bytes());
        set.await.expect(0);
    }
    let agent = json!({
        "name": "careful", "kind": { "builtin": {} },
        "rules": [{ "id": "ask", "match": { "tool": "bash", "command": "*ASK*" }, "verdict": "ask", "reason": "the test looks" }],
    });
    let run = server.run(&repo, agent).await;
    let mut story = server.story(run);

    // Before anything is sent, a tap; the second question comes after the work.
    let question = story.question().await;
    let pids = processes("MARK=sandbox-of-planted");
    let dir = tempfile::tempdir().unwrap();
    let tap = Tap::on(pids[0], dir.path());
    server
        .client
        .decide(question, &DecideApproval::approve())
        .await
        .unwrap();
    let question = story.question().await;

    let pids = processes("MARK=sandbox-of-planted");
    assert!(pids.len() >= 3, "the Guest, the mark and the holder: {pids:?}");
    let list = pids.iter().map(u32::to_string).collect::<Vec<_>>().join(",");
    let arguments = [
        "--root".to_owned(),
        format!("/proc/{}/root", pids[0]),
        "--pids".to_owned(),
        list,
    ];
    let outside = searched(dir.path(), &arguments);
    only_the_control(&outside, &["file", "environ", "memory"]);
    assert!(
        outside.contains(&format!("processes={} refused=0", pids.len())),
        "{outside}"
    );
    let captured = searched(dir.path(), &["--capture".to_owned(), tap.file.display().to_string()]);
    only_the_control(&captured, &["capture"]);
    // As it is and in base64.
    assert!(captured.matches("FOUND control").count() >= 2, "{captured}");

    server
        .client
        .decide(question, &DecideApproval::approve())
        .await
        .unwrap();
    story.to("run.completed").await;
    let output = story.outputs();
    let (work, inside) = output.split_once("ASK again").unwrap_or_else(|| panic!("{story}"));
    assert!(work.contains("CLONED"), "an authenticated clone:\n{work}");
    assert_eq!(
        work.matches("CALLED Bearer [redacted]").count(),
        2,
        "authenticated calls:\n{work}"
    );
    only_the_control(inside, &["file", "environ", "memory"]);

    let (api, git) = (origins.api.seen(), origins.git.seen());
    assert!(
        api.iter()
            .all(|seen| seen.header("authorization") == format!("Bearer {BEARER}")),
        "{api:?}"
    );
    assert!(git.iter().any(|seen| seen.status == 200), "{git:?}");
    let told = [story.to_string(), output, server.log()].join("\n");
    assert!(!told.contains(BEARER) && !told.contains(PASSWORD), "{told}");
    drop(origins.repositories);
}
