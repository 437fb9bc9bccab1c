//! Programs with their proxy set. Where one is not installed its test says nothing; `curl`, `git` and `python3` must
//! be there.

use std::{path::Path, sync::Arc};

use stockade_origins::GitServer;
use tokio::process::Command;

use super::PROXY;
use crate::{
    inspected::{World, clients::run},
    rig::Plan,
    world::http_server,
};

/// A world whose proxy has an address here, with the files of its certificates.
struct Clients {
    world: World,
    proxy: String,
    dir: tempfile::TempDir,
}

impl Clients {
    async fn new() -> Self {
        let world = World::patient().await;
        let web = http_server().await;
        for name in ["a.example.com", "b.example.com"] {
            world.rig.host(name, "93.184.216.34", 80, web);
        }
        let dir = tempfile::tempdir().unwrap();
        let trust = world.rig.session.as_ref().unwrap().trust().unwrap();
        std::fs::write(dir.path().join("bundle.pem"), &trust.bundle).unwrap();
        let proxy = format!("http://{}", world.rig.entrance(PROXY, 3128).await);
        Self { world, proxy, dir }
    }

    fn bundle(&self) -> String {
        self.dir.path().join("bundle.pem").to_str().unwrap().to_owned()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn curl_tunnels_and_forwards() {
    let clients = Clients::new().await;
    let bundle = clients.bundle();
    let curl = async |args: &[&str]| {
        let args = [&["-sS", "-x", &clients.proxy, "--cacert", &bundle], args].concat();
        run("curl", &args, &[("no_proxy", "")]).await.expect("curl")
    };
    let (fine, text) = curl(&["https://a.example.com/head"]).await;
    assert!(
        fine && text.contains("GET https://a.example.com/head HTTP/2.0"),
        "{text}"
    );
    let (_, text) = curl(&["https://a.example.com/denied"]).await;
    assert!(text.contains("\"rule\":\"paths\""), "{text}");
    // One connection to the proxy, two hosts.
    let (fine, text) = curl(&["http://a.example.com/one", "http://b.example.com/two"]).await;
    assert!(
        fine && text.contains("GET /one HTTP/1.1") && text.contains("GET /two HTTP/1.1"),
        "{text}"
    );
    for tunnel in ["-p", "--proxytunnel"] {
        let (fine, text) = curl(&[tunnel, "http://b.example.com/tunnel"]).await;
        assert!(fine && text.contains("GET /tunnel HTTP/1.1"), "{text}");
    }
    let (fine, text) = curl(&["https://evil.example/"]).await;
    assert!(!fine && text.contains("403"), "{text}");
    let (_, text) = curl(&["http://evil.example/"]).await;
    assert!(text.contains("\"rule\":\"env.custom\""), "{text}");
    let socks = clients.proxy.replace("http://", "socks5h://");
    let (fine, text) = run("curl", &["-sS", "-x", &socks, "http://a.example.com/"], &[])
        .await
        .unwrap();
    assert!(!fine, "{text}");
    let denied = clients.world.rig.denied().await;
    for told in [
        "connect evil.example:443 env.custom",
        "connect evil.example:80 env.custom",
    ] {
        assert!(denied.contains(&told.to_owned()), "{denied:?}");
    }
    assert!(
        denied.contains(&format!("connect {PROXY}:3128 stockade.socks")),
        "{denied:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn python_tunnels_and_forwards() {
    let clients = Clients::new().await;
    let script = "import sys, os, ssl, urllib.request\n\
        bundle, proxy = sys.argv[1:3]\n\
        proxies = {'http': proxy, 'https': proxy}\n\
        urls = ['https://a.example.com/head', 'http://b.example.com/plain']\n\
        try:\n\
        \x20   import requests\n\
        \x20   for url in urls: print(requests.get(url, proxies=proxies, verify=bundle).text)\n\
        except ImportError: pass\n\
        context = ssl.create_default_context(cafile=bundle)\n\
        handlers = urllib.request.ProxyHandler(proxies), urllib.request.HTTPSHandler(context=context)\n\
        opener = urllib.request.build_opener(*handlers)\n\
        for url in urls: print(opener.open(url).read().decode())\n\
        try: opener.open('https://evil.example/')\n\
        except OSError as error: print(error)\n";
    let args = ["-c", script, &clients.bundle(), &clients.proxy];
    let (fine, text) = run("python3", &args, &[]).await.expect("python3");
    assert!(
        fine && text.contains("GET /head HTTP/1.1") && text.contains("GET /plain HTTP/1.1"),
        "{text}"
    );
    assert!(text.contains("403"), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn node_tunnels_through_a_proxy_agent() {
    let clients = Clients::new().await;
    // npm brings undici; node itself does not give its own away.
    let Some((true, modules)) = run("npm", &["root", "-g"], &[]).await else {
        return;
    };
    let undici = Path::new(modules.trim()).join("npm/node_modules/undici");
    if !undici.join("package.json").exists() {
        return;
    }
    let script = "const { fetch, ProxyAgent } = require(process.argv[1]);\n\
        const dispatcher = new ProxyAgent(process.argv[2]);\n\
        (async () => {\n\
        for (const url of ['https://a.example.com/head', 'http://b.example.com/plain'])\n\
        console.log(await (await fetch(url, { dispatcher })).text());\n\
        await fetch('https://evil.example/', { dispatcher }).catch(e => console.log('refused', e.cause?.message));\n\
        process.exit(0) })()";
    let env = [("NODE_EXTRA_CA_CERTS", clients.bundle())];
    let env = env.each_ref().map(|(name, value)| (*name, value.as_str()));
    let args = ["-e", script, undici.to_str().unwrap(), &clients.proxy];
    let (fine, text) = run("node", &args, &env).await.expect("node");
    assert!(
        fine && text.contains("GET /head HTTP/1.1") && text.contains("GET /plain HTTP/1.1"),
        "{text}"
    );
    assert!(text.contains("refused") && text.contains("403"), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn git_clones_through_http_proxy() {
    let dir = tempfile::tempdir().unwrap();
    let (work, bare) = (dir.path().join("work"), dir.path().join("repos/one.git"));
    let git = async |args: &[&str]| {
        let mut command = Command::new("git");
        let settings = [
            "-c",
            "user.name=t",
            "-c",
            "user.email=t@example.com",
            "-c",
            "init.defaultBranch=main",
        ];
        command
            .args(settings)
            .args(args)
            .env("GIT_CONFIG_GLOBAL", "/dev/null")
            .env("GIT_TERMINAL_PROMPT", "0");
        let output = command.output().await.expect("git");
        (
            output.status.success(),
            String::from_utf8_lossy(&output.stderr).into_owned(),
        )
    };
    let (at, to) = (work.to_str().unwrap(), bare.to_str().unwrap());
    for args in [
        &["init", "-q", at][..],
        &["-C", at, "commit", "-q", "--allow-empty", "-m", "one"],
        &["clone", "-q", "--bare", at, to],
    ] {
        let (fine, text) = git(args).await;
        assert!(fine, "{args:?}: {text}");
    }
    let server = GitServer::start(&dir.path().join("repos"), None).await.unwrap();
    let rig = Arc::new(Plan::custom(&["git.example.com"]).start().await);
    let place = server.origin().strip_prefix("http://").unwrap().parse().unwrap();
    rig.host("git.example.com", "93.184.216.34", 80, place);
    let proxy = format!("http.proxy=http://{}", rig.entrance(PROXY, 3128).await);
    let copy = dir.path().join("copy");
    let clone = async |url: &str| git(&["-c", &proxy, "clone", "-q", url, copy.to_str().unwrap()]).await;
    let (fine, text) = clone("http://evil.example/one.git").await;
    assert!(!fine && text.contains("403"), "{text}");
    let (fine, text) = clone("http://git.example.com/one.git").await;
    assert!(fine, "{text}");
    assert!(copy.join(".git").is_dir() && !server.seen().is_empty());
    assert_eq!(rig.denied().await, ["connect evil.example:80 env.custom"]);
}
