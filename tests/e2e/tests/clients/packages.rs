//! Package managers, each against a registry with one tiny package.

use super::bench::{Bench, Plan, need};
use crate::support::program::cargo_program;

const WORDS: &str = "tiny-pack says REACHED";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pip() {
    need("/usr/bin/pip3", "python3-pip");
    let commands =
        "/usr/bin/pip3 install --target=packages --index-url https://pypi.example.com:$PORT/simple/ tiny-pack
PYTHONPATH=packages /usr/bin/python3 -c 'import tiny_pack; print(tiny_pack.WORDS)'";
    Bench::of(Plan {
        commands,
        ..Plan::default()
    })
    .await
    .proves(WORDS, "Name or service not known", "No matching distribution found")
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn npm() {
    need("npm", "npm");
    let commands = "npm install --registry https://npm.example.com:$PORT/npm/ tiny-pack
node --print 'require(\"tiny-pack\")'";
    Bench::of(Plan {
        commands,
        ..Plan::default()
    })
    .await
    .proves(WORDS, "ENOTFOUND", "E403")
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cargo() {
    let commands = "mkdir -p .cargo src; echo 'fn main() {}' > src/main.rs
printf '[package]\\nname = \"a\"\\nversion = \"0.1.0\"\\nedition = \"2021\"\\n[dependencies]\\ntiny-pack = \"1\"\\n' > Cargo.toml
printf '[source.crates-io]\\nreplace-with = \"mirror\"\\n[source.mirror]\\nregistry = \"sparse+https://crates.example.com:%s/index/\"\\n' $PORT > .cargo/config.toml
/tmp/cargo-program vendor --respect-source-config; cat vendor/tiny-pack/src/lib.rs";
    // The toolchain of this machine is in somebody's home, so the test brings the program inside.
    let bring = "curl --insecure --silent --fail --output /tmp/cargo-program https://tools.example.com:$PORT/tools/cargo; chmod +x /tmp/cargo-program";
    let bench = Bench::of(Plan {
        commands: &format!("{bring}\n{commands}"),
        ..Plan::default()
    })
    .await;
    bench
        .mirror
        .offer("/tools/cargo", std::fs::read(cargo_program()).unwrap());
    bench.proves(WORDS, "Could not resolve host", "403").await;
}
