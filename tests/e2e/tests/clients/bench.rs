//! One client's commands, run in three environments.

use std::{fs, path::Path, process::Command, time::Duration};

use serde_json::{Value, json};
use stockade_api::domain::RunId;
use stockade_origins::{Mirror, TestAuthority};

use crate::support::{
    installation::Installation,
    names::Names,
    repository::Repository,
    server::{Server, task},
    story::Story,
};

/// Names of the mirror.
pub(super) const NAMES: [&str; 4] = [
    "pypi.example.com",
    "npm.example.com",
    "crates.example.com",
    "api.example.com",
];
/// Longest a client may take to give up on a host that it may not reach.
const SOON: Duration = Duration::from_secs(15);

/// What stands for the web's authorities where nobody looks inside: there a client sees the
/// certificate of the test's server, which no system believes.
const BELIEVE: &str = r#"
for name in SSL_CERT_FILE CURL_CA_BUNDLE REQUESTS_CA_BUNDLE PIP_CERT GIT_SSL_CAINFO CARGO_HTTP_CAINFO NODE_EXTRA_CA_CERTS; do
    export $name=/workspace/authority.pem
done
echo "ca_certificate = /workspace/authority.pem" > ~/.wgetrc
if command -v keytool > /dev/null; then
    keytool -importcert -noprompt -alias tests -file authority.pem -keystore ~/tests.jks -storepass changeit > /dev/null 2>&1
    export JAVA_TOOL_OPTIONS="-Djavax.net.ssl.trustStore=$HOME/tests.jks"
fi
"#;

/// How a host may be reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Way {
    /// Nobody looks inside.
    Through,
    /// Requests are read.
    Inspected,
    /// Not at all.
    Denied,
}

impl Way {
    fn environment(self) -> &'static str {
        match self {
            Self::Through => "through",
            Self::Inspected => "inspected",
            Self::Denied => "denied",
        }
    }
}

/// A mirror, and an installation with the three environments.
pub(super) struct Bench {
    pub(super) installation: Installation,
    pub(super) mirror: Mirror,
    pub(super) names: Names,
    repo: Repository,
    server: Server,
}

/// How the commands ended.
pub(super) struct Told {
    pub(super) run: RunId,
    pub(super) story: Story,
    /// What they printed.
    pub(super) output: String,
    pub(super) code: i32,
    pub(super) seconds: f64,
}

/// Fails the test when a program of this machine is missing.
pub(super) fn need(program: &str, package: &str) {
    let found = Command::new("sh")
        .args(["-c", "PATH=/usr/local/bin:/usr/bin:/bin:/usr/sbin; command -v \"$0\"", program])
        .output()
        .is_ok_and(|output| output.status.success());
    assert!(
        found || Path::new(program).exists(),
        "{program} is missing: `cargo xtask setup` installs it, or apt-get install {package}"
    );
}

/// The three environments, with more rules for those that let something out.
fn environments(port: u16, more: &[Value]) -> Value {
    let exceptions = json!([{ "cidr": "127.0.0.0/8", "reason": "the servers of this test" }]);
    let environment = |name: &str, rule: Value, more: &[Value]| {
        let rules: Vec<_> = [rule].iter().chain(more).cloned().collect();
        json!({ "name": name, "network": "custom", "egress": rules, "address_exceptions": exceptions })
    };
    let all = |rest: Value| {
        let mut rule = json!({ "verdict": "allow", "hosts": NAMES, "ports": [port] });
        rule.as_object_mut().unwrap().extend(rest.as_object().unwrap().clone());
        rule
    };
    let elsewhere = json!({ "verdict": "allow", "hosts": ["elsewhere.example.com"] });
    json!([
        environment("through", all(json!({ "protocols": ["tls"] })), more),
        environment(
            "inspected",
            all(json!({
                "name": "read", "protocols": ["https"], "methods": ["GET", "HEAD", "POST"],
                "paths": ["/simple", "/npm", "/index", "/api", "/tools", "/repo.git", "/status"],
            })),
            more
        ),
        environment("denied", elsewhere, &[]),
    ])
}

impl Bench {
    /// A bench for these commands. They find the port of the mirror in `$PORT`.
    pub(super) async fn of(commands: &str) -> Self {
        Self::with(commands, &[], &[], &[]).await
    }

    /// The same with more names, rules and files in the repository.
    pub(super) async fn with(commands: &str, names: &[&str], rules: &[Value], files: &[(&str, &str)]) -> Self {
        let authority = TestAuthority::new();
        let mirror = Mirror::start(&authority, &NAMES).await.unwrap();
        Self::around(commands, (authority, mirror), names, rules, files).await
    }

    pub(super) async fn around(
        commands: &str,
        (authority, mirror): (TestAuthority, Mirror),
        more_names: &[&str],
        rules: &[Value],
        files: &[(&str, &str)],
    ) -> Self {
        let names = Names::serve(&[&NAMES, more_names].concat()).await;
        let port = mirror.port();
        let script = format!(
            "cd /workspace; PORT={port}; [ -n \"$SSL_CERT_FILE\" ] || . ./believe.sh\n\
             begun=$(date +%s%N); bash commands.sh {port} < /dev/null 2>&1; code=$?; ended=$(date +%s%N)\n\
             echo; echo \"ENDED $code $(( (ended - begun) / 1000000 ))\""
        );
        let mut installation = Installation::scripted(json!([
            { "say": "I use it.", "call": [{ "tool": "bash", "input": { "command": script, "timeout_seconds": 300 } }] },
            { "say": "Done." },
        ]));
        let file = installation.path("authority.pem");
        fs::write(&file, authority.pem()).unwrap();
        installation.configure("certificate_authorities", json!([file]));
        installation.configure("nameservers", json!([names.address]));
        installation.configure("environments", environments(port, rules));
        installation.configure("default_environment", json!("denied"));
        let own = [
            ("authority.pem", authority.pem()),
            ("believe.sh", BELIEVE),
            ("commands.sh", &format!("set -e; PORT=$1\n{commands}\n")),
        ];
        let repo = Repository::with(&installation, &[&own, files].concat());
        let server = Server::up(&installation).await;
        Self {
            installation,
            mirror,
            names,
            repo,
            server,
        }
    }

    /// Runs the commands in one of the environments.
    pub(super) async fn run(&self, way: Way) -> Told {
        let mut task = task(&self.repo, json!("builtin"));
        task.environment = Some(way.environment().to_owned());
        let run = self.server.create(&task).await;
        let story = self.server.told(run).await;
        let last = story.events.last().unwrap();
        assert_eq!(last.kind.as_str(), "run.completed", "{story}");
        let printed = story.outputs();
        let (output, end) = printed
            .rsplit_once("ENDED ")
            .unwrap_or_else(|| panic!("the commands did not end:\n{printed}\n{story}"));
        let mut numbers = end.split_whitespace().map(|word| word.parse::<i32>().unwrap());
        let (code, millis) = (numbers.next().unwrap(), numbers.next().unwrap());
        Told {
            run,
            output: output.to_owned(),
            code,
            seconds: f64::from(millis) / 1000.0,
            story,
        }
    }

    /// The whole claim about a client: it works unchanged where its host may be reached, looked
    /// into or not, and is told soon where it may not. `words` are what it prints on success and
    /// `complaint` one of the things it says when it is refused.
    pub(super) async fn proves(&self, words: &str, complaint: &[&str]) {
        for way in [Way::Through, Way::Inspected] {
            let before = self.mirror.seen().len();
            let told = self.run(way).await;
            told.succeeded(words);
            assert!(self.mirror.seen().len() > before, "{way:?}: {told}");
            let inspected = !told.story.with("egress.opened", "protocol", "https").is_empty();
            println!("{told} {inspected}");
        }
        let before = self.mirror.seen().len();
        let told = self.run(Way::Denied).await;
        told.failed_soon(complaint);
        assert_eq!(self.mirror.seen().len(), before, "{told}");
    }
}

impl Told {
    /// Fails the test unless the commands went well and printed this.
    #[track_caller]
    pub(super) fn succeeded(&self, words: &str) {
        assert_eq!(self.code, 0, "{self}");
        assert!(self.output.contains(words), "no '{words}': {self}");
    }

    /// Fails the test unless the commands failed within [`SOON`] and said one of these.
    #[track_caller]
    pub(super) fn failed_soon(&self, complaints: &[&str]) {
        assert_ne!(self.code, 0, "{self}");
        assert!(self.seconds < SOON.as_secs_f64(), "{} s: {self}", self.seconds);
        assert!(
            complaints.iter().any(|words| self.output.contains(words)),
            "none of {complaints:?}: {self}"
        );
        println!("{self}");
    }
}

impl std::fmt::Display for Told {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { code, seconds, output, story, .. } = self;
        write!(f, "ended with {code} after {seconds} s:\n{output}\n{story}")
    }
}
