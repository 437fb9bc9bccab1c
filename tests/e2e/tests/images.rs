//! An environment's image comes from a registry, in production too, and what it lacks is said.

use std::{
    fs,
    net::TcpListener,
    path::Path,
    process::{Child, Command, Stdio},
    time::Duration,
};

use serde_json::{Value, json};

use crate::support::{
    installation::{Installation, is_root},
    program::Ran,
    repository::Repository,
};

/// A registry on loopback, killed when dropped.
pub(crate) struct Registry {
    child: Child,
    address: String,
}

impl Drop for Registry {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Registry {
    pub(crate) fn start(dir: &Path) -> Self {
        let free = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = free.local_addr().expect("an address").to_string();
        drop(free);
        let storage = dir.join("registry");
        let config = json!({
            "version": 0.1, "log": { "level": "error" }, "http": { "addr": address },
            "storage": { "filesystem": { "rootdirectory": storage } },
        });
        let file = dir.join("registry.yml");
        fs::write(&file, config.to_string()).expect("config");
        let child = Command::new("docker-registry")
            .arg("serve")
            .arg(&file)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("docker-registry: `cargo xtask setup` installs it");
        let registry = Self { child, address };
        for _ in 0..500 {
            if std::net::TcpStream::connect(&registry.address).is_ok() {
                return registry;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        panic!("the registry does not answer");
    }

    /// Puts an image of these programs of the host there; gives its reference with its digest. `more` are
    /// commands that change the directory `rootfs` before.
    pub(crate) fn image(&self, dir: &Path, programs: &[&str], more: &str) -> String {
        let script = r#"set -eu; cd "$1"; where=$2; more=$3; shift 3; rm -rf rootfs oci; mkdir -p rootfs/bin rootfs/etc rootfs/tmp
            for program; do
                path=$(readlink -f "$(command -v "$program")"); cp "$path" "rootfs/bin/$program"
                for library in $(ldd "$path" | grep -o '/[^ ]*'); do
                    mkdir -p "rootfs$(dirname "$library")"; cp -L "$library" "rootfs$library"
                done
            done
            echo marker > rootfs/etc/from-image; eval "$more"
            umoci init --layout oci; umoci new --image oci:t; umoci insert --image oci:t rootfs /
            umoci config --image oci:t --config.env COLOUR=blue
            skopeo copy --insecure-policy --dest-tls-verify=false --digestfile digest oci:oci:t "docker://$where/tools:t"
        "#;
        let made = Command::new("sh")
            .args(["-c", script, "sh"])
            .arg(dir)
            .arg(&self.address)
            .arg(more)
            .args(programs)
            .output()
            .expect("sh");
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        let digest = fs::read_to_string(dir.join("digest")).expect("a digest");
        format!("{}/tools@{}", self.address, digest.trim())
    }
}

fn turns() -> Value {
    json!([
        { "say": "I look.", "call": [{ "tool": "bash", "input": {
            "command": "cat /etc/from-image; echo colour $COLOUR; echo new > b; perl -e 1 || echo nothing of the host" } }] },
        { "say": "Done." },
    ])
}

/// A production installation on an image, and how a run in it went.
async fn told(image: &str) -> (Installation, Ran) {
    let mut installation = Installation::scripted(turns());
    installation.configure("production", json!(true));
    installation.configure("sandbox", json!({ "backends": ["native"] }));
    let environment = json!([{ "name": "default", "network": "none", "image": image }]);
    installation.configure("environments", environment);
    let repo = Repository::with(&installation, &[("a", "old\n")]);
    let ran = installation.run(&["run", "x", "--repo", repo.source()]).await;
    (installation, ran)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_production_run_works_on_an_image_by_digest() {
    if !is_root() {
        // Production wants limits, which an ordinary user has only in a delegated cgroup.
        return;
    }
    let dir = tempfile::tempdir().expect("a directory");
    let registry = Registry::start(dir.path());
    let whole = registry.image(dir.path(), &["sh", "cat", "git"], "");
    let (installation, ran) = told(&whole).await;
    let ran = ran.expect(0);
    for words in [
        "marker",
        "colour blue",
        "nothing of the host",
        "unpacking image",
        "■ completed",
    ] {
        assert!(ran.stderr.contains(words), "no '{words}' in:\n{}", ran.stderr);
    }
    installation.assert_untouched();

    let bare = registry.image(dir.path(), &["sh", "cat"], "");
    let (_installation, ran) = told(&bare).await;
    ran.expect(1).says("there is no git in the sandbox");

    let (name, _) = whole.split_once('@').expect("a digest");
    let absent = format!("{name}@sha256:{}", "0".repeat(64));
    let (_installation, ran) = told(&absent).await;
    let ran = ran.expect(1);
    assert!(ran.stderr.contains(&absent[..40]), "{}", ran.stderr);
}
