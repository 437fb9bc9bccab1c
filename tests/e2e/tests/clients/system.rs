//! Programs that read the system's list of authorities and no variable: the run's own authority is
//! in that list, in the sandbox and not on the host, on every backend and in an image.

use std::fs;

use super::bench::{Bench, Plan, Way, need};
use crate::{images::Registry, support::installation::is_root};

/// Calls with no variable but these two. Of several programs each says that it reached the mirror.
const CALLS: &str = r#"
url=https://api.example.com:$PORT/api/hello
bare() { env -i PATH="$PATH" HOME="$HOME" "$@"; }
try() { name=$1; shift; if bare "$@" > said 2>&1 && grep -q REACHED said; then echo "$name BELIEVES"; else echo "$name: $(cat said)"; fi; }
request() { printf 'GET /api/hello HTTP/1.0\r\nHost: api.example.com:%s\r\n\r\n' $PORT; }
try curl curl --silent --show-error $url
try openssl bash -c "$(declare -f request); PORT=$PORT; request | openssl s_client -quiet -verify_return_error -servername api.example.com -connect api.example.com:$PORT"
try directory bash -c "$(declare -f request); PORT=$PORT; request | openssl s_client -quiet -no-CAfile -no-CAstore -verify_return_error -servername api.example.com -connect api.example.com:$PORT"
"#;
/// The same of programs that are large to put into an image.
const MORE: &str = r#"
try wget wget --quiet --output-document=- $url
try python python3 -c "import urllib.request; print(urllib.request.urlopen('$url').read())"
try java java Call.java $PORT
"#;
const IN_IMAGES: [&str; 3] = ["curl", "openssl", "directory"];
const ON_HOSTS: [&str; 3] = ["wget", "python", "java"];

/// Proves it of these programs on a backend, with the host's programs or an image.
async fn believes(backend: &str, commands: &str, all: &[&str], image: Option<&str>) {
    let bench = Bench::of(Plan {
        commands,
        files: &[("Call.java", include_str!("Call.java"))],
        unbelieving: true,
        backend: Some(backend),
        image,
        ..Plan::default()
    });
    let bench = bench.await;
    let told = bench.run(Way::Inspected).await;
    for name in all {
        assert!(
            told.output.contains(&format!("{name} BELIEVES")),
            "{backend}: {name}: {told}"
        );
    }
    // The control: where nobody looks inside, they see a certificate that no system believes.
    let told = bench.run(Way::Through).await;
    assert!(!told.output.contains("BELIEVES"), "{backend}: {told}");
    assert!(told.output.contains("certificate"), "{backend}: {told}");
}

async fn on(backend: &str) {
    if backend != "native" && !is_root() {
        return;
    }
    need("wget", "wget");
    need("javac", "default-jdk-headless");
    let lists =
        || ["/etc/ssl/certs/ca-certificates.crt", "/etc/ssl/certs/java/cacerts"].map(|list| fs::read(list).unwrap());
    let before = lists();
    let all = [&IN_IMAGES[..], &ON_HOSTS].concat();
    believes(backend, &format!("{CALLS}{MORE}"), &all, None).await;
    assert!(lists() == before, "the host's own lists changed");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn native() {
    on("native").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn runc() {
    on("runc").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn crun() {
    on("crun").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn gvisor() {
    on("runsc").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn docker() {
    on("docker").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn images() {
    if !is_root() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let registry = Registry::start(dir.path());
    let programs = ["sh", "bash", "cat", "git", "env", "grep", "date", "curl", "openssl"];
    let list = "mkdir -p rootfs/etc/ssl/certs; cp /etc/ssl/certs/ca-certificates.crt rootfs/etc/ssl/certs
        mkdir -p rootfs/usr/lib/ssl; ln -s /etc/ssl/certs rootfs/usr/lib/ssl/certs; cp /etc/ssl/openssl.cnf rootfs/usr/lib/ssl
        ln -s /etc/ssl/certs/ca-certificates.crt rootfs/usr/lib/ssl/cert.pem
        mkdir rootfs/var"; // The last entry: umoci 0.4 does not fill up the last block of an archive.
    let image = registry.image(dir.path(), &programs, list);
    for backend in ["native", "runc", "crun", "runsc", "docker"] {
        believes(backend, CALLS, &IN_IMAGES, Some(&image)).await;
    }
}
