//! One client's commands, run in one environment after the other.

use std::{fs, path::Path, process::Command, time::Duration};

use serde_json::{Value, json};
use stockade_origins::{Mirror, TestAuthority};

use crate::support::{
    installation::Installation,
    names::Names,
    program,
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
/// The name of the mirror that every environment reaches, and where on it the test's own tools are.
const WORKSHOP: &str = "tools.example.com";
const TOOLS: &str = "/tools/";
/// Longest a client may take to give up on a host that it may not reach.
const SOON: Duration = Duration::from_secs(30);

/// What stands for the web's authorities where nobody looks inside: there a client sees the
/// certificate of the test's server, which no system believes.
const BELIEVE: &str = r#"
list=/etc/ssl/certs/ca-certificates.crt
cat $list authority.pem > $list.new && mv --force $list.new $list
export NODE_EXTRA_CA_CERTS=/workspace/authority.pem
if [ -e Call.java ]; then
    keytool -importcert -noprompt -alias tests -file authority.pem -keystore ~/tests.jks -storepass changeit > /dev/null 2>&1
    export JAVA_TOOL_OPTIONS="-Djavax.net.ssl.trustStore=$HOME/tests.jks -Djavax.net.ssl.trustStorePassword=changeit"
fi
"#;

/// How a host may be reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Way {
    /// Nobody looks inside.
    Through,
    /// Requests are read.
    Inspected,
    /// Requests are read, and none of the client's is allowed.
    Forbidden,
    /// Not at all.
    Denied,
}

/// The ways of a client that nobody looks into anyway.
pub(super) const BOTH: [Way; 2] = [Way::Through, Way::Inspected];

impl Way {
    fn environment(self) -> &'static str {
        match self {
            Self::Through => "through",
            Self::Inspected => "inspected",
            Self::Forbidden => "forbidden",
            Self::Denied => "denied",
        }
    }
}

/// A mirror, and an installation with the environments.
pub(super) struct Bench {
    #[expect(dead_code, reason = "goes when the bench does")]
    installation: Installation,
    pub(super) mirror: Mirror,
    #[expect(dead_code, reason = "goes when the bench does")]
    names: Names,
    repo: Repository,
    server: Server,
}

/// How the commands ended.
pub(super) struct Told {
    pub(super) story: Story,
    /// What they printed.
    pub(super) output: String,
    pub(super) code: i32,
    pub(super) seconds: f64,
}

/// Fails the test when a program of this machine is missing.
pub(super) fn need(program: &str, package: &str) {
    let found = Command::new("sh")
        .args([
            "-c",
            "PATH=/usr/local/bin:/usr/bin:/bin:/usr/sbin; command -v \"$0\"",
            program,
        ])
        .output()
        .is_ok_and(|output| output.status.success());
    assert!(
        found || Path::new(program).exists(),
        "{program} is missing: `cargo xtask setup` installs it, or apt-get install {package}"
    );
}

/// What a bench is for.
#[derive(Default)]
pub(super) struct Plan<'p> {
    /// They find the port of the mirror in `$PORT`.
    pub(super) commands: &'p str,
    /// Names beside the mirror's.
    pub(super) names: &'p [&'p str],
    /// Rules beside the mirror's, where something is let out.
    pub(super) rules: &'p [Value],
    /// Files of the repository.
    pub(super) files: &'p [(&'p str, &'p str)],
    /// Whether nothing stands for the web's authorities.
    pub(super) unbelieving: bool,
    /// The sandbox's backend; the first one when absent.
    pub(super) backend: Option<&'p str>,
    /// What the sandbox's programs are; the host's when absent.
    pub(super) image: Option<&'p str>,
}

/// The environments, with more rules for those that let something out.
fn environments(port: u16, more: &[Value], image: Option<&str>) -> Value {
    let exceptions = json!([{ "cidr": "127.0.0.0/8", "reason": "the servers of this test" }]);
    let workshop = json!({ "verdict": "allow", "hosts": [WORKSHOP], "ports": [port], "protocols": ["tls"] });
    let environment = |name: &str, rule: Option<Value>, more: &[Value]| {
        let rules: Vec<_> = rule.iter().chain([&workshop]).chain(more).collect();
        let image = image.unwrap_or("host");
        json!({ "name": name, "network": "custom", "egress": rules, "address_exceptions": exceptions, "image": image })
    };
    let all = |rest: Value| {
        let mut rule = json!({ "verdict": "allow", "hosts": NAMES, "ports": [port] });
        rule.as_object_mut().unwrap().extend(rest.as_object().unwrap().clone());
        rule
    };
    json!([
        environment("through", Some(all(json!({ "protocols": ["tls"] }))), more),
        environment(
            "inspected",
            Some(all(json!({
                "name": "read", "protocols": ["https"], "methods": ["GET", "HEAD", "POST"],
                "paths": ["/simple", "/npm", "/index", "/api", "/repo.git", "/status"],
            }))),
            more
        ),
        environment(
            "forbidden",
            Some(all(
                json!({ "name": "little", "protocols": ["https"], "paths": ["/little"] })
            )),
            &[]
        ),
        environment("denied", None, &[]),
    ])
}

impl Bench {
    /// A bench for these commands.
    pub(super) async fn of(plan: Plan<'_>) -> Self {
        let authority = TestAuthority::new();
        let mirror = Mirror::start(&authority, &[&NAMES[..], &[WORKSHOP]].concat())
            .await
            .unwrap();
        Self::around(plan, (authority, mirror)).await
    }

    /// The same around a mirror that is there.
    pub(super) async fn around(plan: Plan<'_>, (authority, mirror): (TestAuthority, Mirror)) -> Self {
        let names = Names::serve(&[&NAMES[..], &[WORKSHOP], plan.names].concat()).await;
        let port = mirror.port();
        let script = format!(
            "cd /workspace; [ -n \"$SSL_CERT_FILE\" ] || . ./believe.sh\n\
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
        installation.configure("environments", environments(port, plan.rules, plan.image));
        installation.configure("default_environment", json!("denied"));
        let own = [
            ("authority.pem", authority.pem()),
            ("believe.sh", if plan.unbelieving { "" } else { BELIEVE }),
            ("commands.sh", &format!("set -e; PORT=$1\n{}\n", plan.commands)),
        ];
        let repo = Repository::with(&installation, &[&own, plan.files].concat());
        if let Some(backend) = plan.backend {
            let mut sandbox = json!({ "backends": [backend] });
            if backend == "docker" {
                sandbox["docker_socket"] = json!(program::docker());
            }
            installation.configure("sandbox", sandbox);
        }
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
        let last = story.events.last().unwrap().clone();
        assert_eq!(last.kind.as_str(), "run.completed", "{story}");
        let printed = story.outputs();
        let (output, end) = printed
            .rsplit_once("ENDED ")
            .unwrap_or_else(|| panic!("the commands did not end:\n{printed}\n{story}"));
        let mut numbers = end.split_whitespace().map(|word| word.parse::<i32>().unwrap());
        let (code, millis) = (numbers.next().unwrap(), numbers.next().unwrap());
        Told {
            output: output.to_owned(),
            code,
            seconds: f64::from(millis) / 1000.0,
            story,
        }
    }

    /// The whole claim about a client of the mirror: it works unchanged where its host may be
    /// reached, looked into or not, and is told soon where its host or its request is refused.
    /// `words` are what it prints on success, `unknown` what it says of a host that is refused and
    /// `forbidden` of a request.
    pub(super) async fn proves(&self, words: &str, unknown: &str, forbidden: &str) {
        for way in [Way::Through, Way::Inspected] {
            let before = self.asked();
            let told = self.run(way).await;
            told.succeeded(words);
            assert!(self.asked() > before, "{way:?}: {told}");
            // Which of the two it was is not taken from the environment's name.
            let read = told.story.all("action.settled").into_iter();
            let read = read
                .filter(|event| event.data["details"]["inspected_by"] == "env.egress[0]:read")
                .count();
            assert_eq!(read > 0, way == Way::Inspected, "{way:?}: {told}");
        }
        let before = self.asked();
        self.run(Way::Denied).await.failed_soon(unknown);
        self.run(Way::Forbidden).await.failed_soon(forbidden);
        assert_eq!(self.asked(), before, "a refused request arrived");
    }

    /// The same claim about a client of another server: it works each of these ways, and is told
    /// soon where its host is refused. What it printed each time it was let out.
    pub(super) async fn proves_elsewhere(&self, ways: &[Way], words: &str, unknown: &str) -> Vec<String> {
        let mut outputs = Vec::new();
        for way in ways {
            let told = self.run(*way).await;
            told.succeeded(words);
            outputs.push(told.output);
        }
        self.run(Way::Denied).await.failed_soon(unknown);
        outputs
    }

    /// Requests that came to the mirror, but for those for the test's own tools.
    fn asked(&self) -> usize {
        let seen = self.mirror.seen();
        seen.iter().filter(|seen| !seen.uri.path().starts_with(TOOLS)).count()
    }
}

impl Told {
    /// Fails the test unless the commands went well and printed this.
    #[track_caller]
    pub(super) fn succeeded(&self, words: &str) {
        assert_eq!(self.code, 0, "{self}");
        assert!(self.output.contains(words), "no '{words}': {self}");
    }

    /// Fails the test unless the commands failed within [`SOON`] and said so in these words.
    #[track_caller]
    fn failed_soon(&self, complaint: &str) {
        assert_ne!(self.code, 0, "{self}");
        assert!(self.seconds < SOON.as_secs_f64(), "{} s: {self}", self.seconds);
        assert!(self.output.contains(complaint), "no '{complaint}': {self}");
    }
}

impl std::fmt::Display for Told {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self {
            code,
            seconds,
            output,
            story,
            ..
        } = self;
        write!(f, "ended with {code} after {seconds} s:\n{output}\n{story}")
    }
}
