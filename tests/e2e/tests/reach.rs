//! What a sandbox reaches and what it does not, each way out beside a control that it is a way out elsewhere.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use serde_json::json;
use tokio::net::UdpSocket;

use crate::support::{
    installation::{self, Installation},
    names::Names,
    program,
    repository::Repository,
    server::Server,
    story::{Story, text},
    web::{Answer, Web},
};

/// Tries one way after the other and prints what each gave. Arguments: the port of the
/// allowed server, of the host's own server and of the host's UDP server, the address of
/// the last two, the name to ask for, and the only ways to try (default: all).
const PROBE: &str = r#"
web=$1 tcp=$2 udp=$3 host=$4 denied=$5
export ONLY=${6:-}
get() { # name, host, port, Host header
  case " ${ONLY:-$1} " in *" $1 "*) ;; *) return ;; esac
  answer=$(timeout 15 bash -c 'exec 3<>/dev/tcp/"$0"/"$1" && printf "GET / HTTP/1.1\r\nHost: %s\r\nConnection: close\r\n\r\n" "$2" >&3 && cat <&3' "$2" "$3" "$4" 2>&1 | tr -d '\r' | tail -n 1)
  echo "$1=[$answer]"
}
get allowed files.example.com $web files.example.com:$web
get address $host $tcp $host:$tcp
get localhost localhost $tcp localhost:$tcp
get metadata 169.254.169.254 80 169.254.169.254
get public 192.0.2.7 80 192.0.2.7
get private 10.1.2.3 8080 10.1.2.3:8080
get name $denied $tcp $denied:$tcp
get port files.example.com $tcp files.example.com:$tcp
get disguise 192.0.2.8 80 files.example.com
get front files.example.com $web $denied:$web
get ipv6 2001:db8::7 80 '[2001:db8::7]'
get mapped ::ffff:192.0.2.9 80 '[::ffff:192.0.2.9]'
perl -e '
  use Socket; use IO::Socket::INET;
  sub wanted { !$ENV{ONLY} || " $ENV{ONLY} " =~ / $_[0] / }
  sub ask { my ($name, $server, $port, $packet) = @_; return unless wanted($name);
    my $socket = IO::Socket::INET->new(Proto => "udp", PeerAddr => $server, PeerPort => $port) or return print "$name=[$!]\n";
    $socket->send($packet) // return print "$name=[$!]\n";
    my $answer = ""; local $SIG{ALRM} = sub { die }; eval { alarm 2; $socket->recv($answer, 1500); alarm 0; };
    print "$name=[", length($answer) > 12 && ord(substr($answer, 2, 1)) & 0x80 ? "rcode " . (ord(substr($answer, 3, 1)) & 15) : $answer, "]\n";
  }
  sub dns { pack("n6", 7, 0x100, 1, 0, 0, 0) . join("", map { pack("C/a*", $_) } split(/\./, $_[0])) . pack("Cn2", 0, 1, 1) }
  my ($udp, $host, $denied) = @ARGV;
  ask("udp", $host, $udp, "anybody there?");
  ask("dns-denied", "8.8.8.8", 53, dns($denied));
  ask("dns-allowed", "8.8.8.8", 53, dns("files.example.com"));
  ask("quic", "192.0.2.7", 443, "not DNS");
  print "raw=[", (socket(my $raw, AF_INET, SOCK_RAW, 1) ? "open" : $!), "]\n";
  print "packet=[", (socket(my $packet, 17, SOCK_RAW, 768) ? "open" : $!), "]\n";
' $udp $host $denied
"#;

fn said<'a>(output: &'a str, probe: &str) -> &'a str {
    let line = output.lines().find_map(|line| line.strip_prefix(&format!("{probe}=[")));
    line.unwrap_or_else(|| panic!("no answer for '{probe}' in:\n{output}"))
        .trim_end_matches(']')
}

/// A UDP server that answers everything and counts.
async fn udp_server() -> (u16, Arc<AtomicUsize>) {
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let (port, count) = (socket.local_addr().unwrap().port(), Arc::new(AtomicUsize::new(0)));
    let counter = Arc::clone(&count);
    tokio::spawn(async move {
        let mut packet = [0; 1500];
        while let Ok((_, from)) = socket.recv_from(&mut packet).await {
            counter.fetch_add(1, Ordering::SeqCst);
            let _ = socket.send_to(b"REACHED", from).await;
        }
    });
    (port, count)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_allowed_names_are_reached() {
    let allowed = Web::plain(|_, _| Answer::text("REACHED")).await;
    let host = Web::plain(|_, _| Answer::text("REACHED")).await;
    let (udp, datagrams) = udp_server().await;
    let names = Names::serve(&["files.example.com", "evil.example.org"]).await;
    let (web, tcp, udp) = (allowed.port().to_string(), host.port().to_string(), udp.to_string());

    // Outside, the same probe reaches the host's servers; the ways that lead off this
    // machine are not tried.
    let mut installation = Installation::bare();
    let repo = Repository::with(&installation, &[("probe.sh", PROBE)]);
    let mut outside = tokio::process::Command::new("bash");
    let here = "address localhost name udp raw packet";
    let arguments = [web.as_str(), &tcp, &udp, "127.0.0.1", "localhost", here];
    outside.arg(repo.path.join("probe.sh")).args(arguments);
    let control = program::run(outside).await.stdout;
    for probe in ["address", "localhost", "name", "udp"] {
        assert_eq!(said(&control, probe), "REACHED", "{control}");
    }
    if installation::is_root() {
        assert_eq!(
            (said(&control, "raw"), said(&control, "packet")),
            ("open", "open"),
            "{control}"
        );
    }
    let (connections, packets) = (host.connections(), datagrams.load(Ordering::SeqCst));
    assert!(connections >= 3 && packets >= 1);

    installation.script(json!([
        { "say": "Trying everything.", "call": [{ "tool": "bash", "input": { "command": format!("bash probe.sh {web} {tcp} {udp} 127.0.0.1 evil.example.org") } }] },
        { "say": "Done." },
    ]));
    installation.reach(names.address, &[format!("files.example.com:{web}")]);
    let server = Server::up(&installation).await;
    let run = server.run(&repo, json!("builtin")).await;
    let mut story = server.story(run);
    story.to("run.completed").await;
    let output = story.outputs();
    assert_eq!(said(&output, "allowed"), "REACHED", "{story}");
    assert_eq!(said(&output, "dns-allowed"), "rcode 0", "{story}");
    for probe in [
        "address",
        "localhost",
        "metadata",
        "public",
        "private",
        "name",
        "port",
        "disguise",
        "front",
        "ipv6",
        "mapped",
        "udp",
        "quic",
    ] {
        assert!(!said(&output, probe).contains("REACHED"), "{probe} got out:\n{output}");
    }
    assert!(
        said(&output, "dns-denied").starts_with("rcode ") && said(&output, "dns-denied") != "rcode 0",
        "{output}"
    );
    for probe in ["raw", "packet"] {
        assert_ne!(said(&output, probe), "open", "{output}");
    }

    // Nothing arrived at the host's servers, and the denied name was never looked up.
    assert_eq!(
        (host.connections(), datagrams.load(Ordering::SeqCst)),
        (connections, packets),
        "{story}"
    );
    assert_eq!(allowed.connections(), 1);
    assert!(
        !names.asked().iter().any(|name| name.contains("evil")),
        "{:?}",
        names.asked()
    );
    assert!(
        names.asked().iter().any(|name| name == "files.example.com"),
        "{:?}",
        names.asked()
    );
    assert_events(&story, &web, &tcp);
}

/// Every TCP connection and every look-up is an event with the right verdict.
fn assert_events(story: &Story, web: &str, tcp: &str) {
    let allowed = format!("files.example.com:{web}");
    let connects = story.with("egress.allowed", "target", &allowed);
    assert_eq!(
        connects
            .iter()
            .filter(|event| text(event, "operation") == "connect")
            .count(),
        1,
        "{story}"
    );
    let refused: Vec<&str> = story
        .all("egress.denied")
        .into_iter()
        .map(|event| text(event, "target"))
        .collect();
    for target in [
        "169.254.169.254:80",
        "192.0.2.7:80",
        "10.1.2.3:8080",
        "evil.example.org",
    ] {
        assert!(
            refused.iter().any(|t| t.starts_with(target)),
            "no refusal of {target}: {refused:?}\n{story}"
        );
    }
    assert!(
        refused.contains(&format!("files.example.com:{tcp}").as_str()),
        "{refused:?}"
    );
    assert!(
        refused.iter().any(|target| target.contains("2001:db8::7")),
        "{refused:?}"
    );
    let settled = story.with("action.settled", "target", &allowed);
    assert!(
        !settled.is_empty(),
        "the allowed connection was never settled:\n{story}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_allowed_name_is_reached_over_tls_end_to_end() {
    // A git server with one branch, told in the smart protocol's first answer.
    let (secure, certificate) = Web::tls("secure.example.com", |_, _| {
        let refs = "001e# service=git-upload-pack\n0000004d0123456789012345678901234567890123456789 refs/heads/reached\0agent=x\n0000";
        let refs = refs.replace("004d", &format!("{:04x}", 4 + 40 + 1 + "refs/heads/reached\0agent=x\n".len()));
        Answer::new(200, "application/x-git-upload-pack-advertisement", refs)
    })
    .await;
    let names = Names::serve(&["secure.example.com", "other.example.com"]).await;
    let port = secure.port();
    let mut installation = Installation::bare();
    let repo = Repository::with(&installation, &[("ca.pem", &certificate)]);
    let ask = |name: &str| {
        let command = format!(
            "GIT_SSL_CAINFO=/workspace/ca.pem timeout 20 git ls-remote https://{name}:{port}/r.git; echo exit $?"
        );
        json!({ "say": name, "call": [{ "tool": "bash", "input": { "command": command } }] })
    };
    installation.script(json!([ask("secure.example.com"), ask("other.example.com"), { "say": "Done." }]));
    installation.reach(names.address, &[format!("secure.example.com:{port}")]);
    let server = Server::up(&installation).await;
    let run = server.run(&repo, json!("builtin")).await;
    let mut story = server.story(run);
    story.to("run.completed").await;
    // The client checked the server's own certificate: TLS was not opened on the way.
    let output = story.outputs();
    assert_eq!(output.matches("refs/heads/reached").count(), 1, "{story}");
    assert!(output.contains("exit 0") && output.contains("exit 128"), "{story}");
    assert_eq!(secure.seen().len(), 1, "{:?}", secure.seen());
    assert!(
        !story
            .with("egress.allowed", "target", &format!("secure.example.com:{port}"))
            .is_empty(),
        "{story}"
    );
    assert!(
        story
            .all("egress.denied")
            .iter()
            .any(|event| text(event, "target").starts_with("other.example.com")),
        "{story}"
    );
}

/// A listener in one sandbox, on every address it has.
const LISTEN: &str = r#"
perl -MIO::Socket::INET -e '
  my $server = IO::Socket::INET->new(Listen => 5, LocalAddr => "0.0.0.0", LocalPort => 7777, ReuseAddr => 1) or die $!;
  if (fork) { exit 0 }
  close STDOUT; close STDERR;
  while (my $client = $server->accept) { print $client "REACHED\n"; close $client; }
' &
wait
"#;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_sandboxes_do_not_reach_each_other() {
    let visit = "timeout 10 bash -c 'exec 3<>/dev/tcp/127.0.0.1/7777 && cat <&3' || echo nobody";
    let mut installation = Installation::bare();
    // One script for both runs; the first one's request says "listen".
    installation.script(json!([
        { "when": { "request": "*listen*" }, "say": "Listening.", "call": [{ "tool": "bash", "input": { "command": format!("{LISTEN}\n{visit}\necho ready; echo ASK; sleep 0") } }] },
        { "when": { "request": "*listen*" }, "say": "Waiting.", "call": [{ "tool": "bash", "input": { "command": format!("{visit} # again") } }] },
        { "when": { "request": "*visit*" }, "say": "Visiting.", "call": [{ "tool": "bash", "input": { "command": visit } }] },
        { "say": "Done." },
    ]));
    let repo = Repository::with(&installation, &[("a", "a\n")]);
    let server = Server::up(&installation).await;
    let agent = json!({
        "name": "listener", "kind": { "builtin": {} },
        "rules": [{ "id": "wait", "match": { "tool": "bash", "command": "*again" }, "verdict": "ask", "reason": "wait for the other" }],
    });
    let mut listen = crate::support::server::task(&repo, agent);
    listen.prompt = "Please listen.".to_owned();
    let first = server.create(&listen).await;
    let mut first_story = server.story(first);
    let question = first_story.question().await;
    // In its own sandbox the listener is reached.
    assert!(first_story.outputs().contains("REACHED"), "{first_story}");

    let mut visit = crate::support::server::task(&repo, json!("builtin"));
    visit.prompt = "Please visit.".to_owned();
    let second = server.create(&visit).await;
    let mut second_story = server.story(second);
    second_story.to("run.completed").await;
    let output = second_story.outputs();
    assert!(!output.contains("REACHED"), "{second_story}");
    server
        .client
        .decide(question, &stockade_api::v1::DecideApproval::approve())
        .await
        .unwrap();
    first_story.to("run.completed").await;
}
