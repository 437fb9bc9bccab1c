//! Programs and libraries that speak HTTP over TLS.

use super::bench::{Bench, Plan, need};

const HELLO: &str = "REACHED by GET /api/hello";

/// Proves it of a client that calls the mirror once.
async fn calls(commands: &str, files: &[(&str, &str)], unknown: &str, forbidden: &str) {
    let bench = Bench::of(Plan {
        commands,
        files,
        ..Plan::default()
    })
    .await;
    bench.proves(HELLO, unknown, forbidden).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn curl() {
    need("curl", "curl");
    let commands = "curl --fail --silent --show-error https://api.example.com:$PORT/api/hello";
    calls(commands, &[], "Could not resolve host", "error: 403").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn wget() {
    need("wget", "wget");
    let commands = "wget --no-verbose --output-document=- https://api.example.com:$PORT/api/hello";
    calls(commands, &[], "unable to resolve host address", "403").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn node_fetch() {
    need("node", "nodejs");
    let program = "const url = `https://api.example.com:${process.argv[2]}/api/hello`;
        const answer = await fetch(url); if (!answer.ok) throw `not ok ${answer.status}`;
        console.log(await answer.text());";
    calls(
        "node fetch.mjs $PORT",
        &[("fetch.mjs", program)],
        "ENOTFOUND",
        "not ok 403",
    )
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn python_urllib() {
    need("/usr/bin/python3", "python3");
    let program = "import sys, urllib.request
url = f'https://api.example.com:{sys.argv[1]}/api/hello'
print(urllib.request.urlopen(url).read().decode())";
    calls(
        "python3 call.py $PORT",
        &[("call.py", program)],
        "Name or service not known",
        "HTTP Error 403",
    )
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn python_requests() {
    need(
        "/usr/lib/python3/dist-packages/requests/__init__.py",
        "python3-requests",
    );
    let program = "import sys, requests
answer = requests.get(f'https://api.example.com:{sys.argv[1]}/api/hello')
answer.raise_for_status(); print(answer.text)";
    calls(
        "/usr/bin/python3 call.py $PORT",
        &[("call.py", program)],
        "Name or service not known",
        "403 Client Error",
    )
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn python_urllib3() {
    need("/usr/lib/python3/dist-packages/urllib3/__init__.py", "python3-urllib3");
    let program = "import sys, urllib3
answer = urllib3.PoolManager().request('GET', f'https://api.example.com:{sys.argv[1]}/api/hello')
if answer.status != 200: sys.exit(f'no {answer.status}')
print(answer.data.decode())";
    calls(
        "/usr/bin/python3 call.py $PORT",
        &[("call.py", program)],
        "Name or service not known",
        "no 403",
    )
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn python_httpx() {
    need("/usr/lib/python3/dist-packages/httpx/__init__.py", "python3-httpx");
    let program = "import sys, httpx
answer = httpx.get(f'https://api.example.com:{sys.argv[1]}/api/hello')
answer.raise_for_status(); print(answer.text)";
    calls(
        "/usr/bin/python3 call.py $PORT",
        &[("call.py", program)],
        "Name or service not known",
        "403 Forbidden",
    )
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn java() {
    need("javac", "default-jdk-headless");
    calls(
        "java Call.java $PORT",
        &[("Call.java", include_str!("Call.java"))],
        "UnresolvedAddressException",
        "no 403",
    )
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn go() {
    need("go", "golang-go");
    let program = "package main
import (\"fmt\"; \"io\"; \"net/http\"; \"os\")
func main() {
    answer, err := http.Get(\"https://api.example.com:\" + os.Args[1] + \"/api/hello\")
    if err != nil { fmt.Println(err); os.Exit(1) }
    if answer.StatusCode != 200 { fmt.Println(\"no\", answer.StatusCode); os.Exit(1) }
    io.Copy(os.Stdout, answer.Body) }";
    calls(
        "go run call.go $PORT",
        &[("call.go", program)],
        "no such host",
        "no 403",
    )
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn openssl() {
    need("openssl", "openssl");
    let commands = "printf 'GET /api/hello HTTP/1.0\\r\\nHost: api.example.com:%s\\r\\n\\r\\n' $PORT | \
        openssl s_client -quiet -verify_return_error -servername api.example.com -connect api.example.com:$PORT > said
cat said; grep -q '200 OK' said || { echo no $(grep -o -w 403 said | head -n 1); exit 1; }";
    calls(commands, &[], "Name or service not known", "no 403").await;
}
