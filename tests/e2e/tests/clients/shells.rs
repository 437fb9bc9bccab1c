//! Secure Shell to a named host: commands, files, git. A rule of its own kind lets it out.

use std::{
    fs::{self, Permissions},
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use serde_json::json;

use super::bench::{BOTH, Bench, Plan, need};
use crate::support::{free_port, installation::is_root, reachable};

/// Debian's sshd on loopback, for the user of the tests. Killed when dropped.
struct Sshd {
    child: Child,
    port: u16,
    dir: tempfile::TempDir,
}

impl Drop for Sshd {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn key(path: &Path) -> String {
    let made = Command::new("ssh-keygen")
        .args(["-q", "-t", "ed25519", "-N", "", "-f"])
        .arg(path)
        .status();
    assert!(made.expect("ssh-keygen: apt-get install openssh-client").success());
    fs::read_to_string(path.with_extension("pub")).unwrap()
}

impl Sshd {
    fn start() -> Self {
        need("/usr/sbin/sshd", "openssh-server");
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        key(&at("host"));
        let own = key(&at("client"));
        fs::write(at("authorized"), own).unwrap();
        if is_root() {
            // Where the part of sshd without rights is locked into.
            fs::create_dir_all("/run/sshd").unwrap();
        }
        let port = free_port();
        let config = format!(
            "ListenAddress 127.0.0.1:{port}\nHostKey {}\nAuthorizedKeysFile {}\nPidFile none\nStrictModes no\nUsePAM no\n\
             PermitRootLogin prohibit-password\nPasswordAuthentication no\nSubsystem sftp internal-sftp\n",
            at("host").display(),
            at("authorized").display(),
        );
        fs::write(at("config"), config).unwrap();
        let child = Command::new("/usr/sbin/sshd")
            .args(["-D", "-e", "-f"])
            .arg(at("config"))
            .stdin(Stdio::null())
            .stderr(fs::File::create(at("log")).unwrap())
            .spawn()
            .unwrap();
        let this = Self { child, port, dir };
        reachable(port, || {
            fs::read_to_string(this.dir.path().join("log")).unwrap_or_default()
        });
        this
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn read(&self, name: &str) -> String {
        fs::read_to_string(self.path(name)).unwrap()
    }
}

/// Has the sandbox's user know the server and log in with a key, as people do, and runs commands.
async fn works(sshd: &Sshd, commands: &str, words: &str) {
    let port = sshd.port;
    let user = String::from_utf8(Command::new("id").arg("-un").output().unwrap().stdout).unwrap();
    let setup = format!(
        "mkdir -p -m 700 ~/.ssh; echo \"[ssh.example.com]:{port} $(cat host.pub)\" > ~/.ssh/known_hosts
install -m 600 client.key ~/.ssh/id_ed25519; USER={}; SSH_PORT={port}; FILES={}\n{commands}",
        user.trim(),
        sshd.dir.path().display()
    );
    let rule = json!({ "verdict": "allow", "hosts": ["ssh.example.com"], "ports": [port], "protocols": ["ssh"] });
    let files = [("host.pub", sshd.read("host.pub")), ("client.key", sshd.read("client"))];
    let files = files.each_ref().map(|(name, text)| (*name, text.as_str()));
    let bench = Bench::of(Plan {
        commands: &setup,
        names: &["ssh.example.com"],
        rules: &[rule],
        files: &files,
        ..Plan::default()
    })
    .await;
    bench
        .proves_elsewhere(&BOTH, words, "Could not resolve hostname ssh.example.com")
        .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ssh() {
    let sshd = Sshd::start();
    works(
        &sshd,
        "ssh -p $SSH_PORT $USER@ssh.example.com 'echo REACHED $SSH_CONNECTION'",
        "REACHED 127.0.0.1",
    )
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn scp_and_sftp() {
    let sshd = Sshd::start();
    fs::write(sshd.path("there"), "REACHED through a file").unwrap();
    fs::set_permissions(sshd.path("there"), Permissions::from_mode(0o644)).unwrap();
    let commands = "scp -P $SSH_PORT $USER@ssh.example.com:$FILES/there copied; cmp copied copied
scp -P $SSH_PORT copied $USER@ssh.example.com:$FILES/back
echo \"get $FILES/back again\" | sftp -b - -P $SSH_PORT $USER@ssh.example.com; cat again";
    works(&sshd, commands, "REACHED through a file").await;
    assert_eq!(sshd.read("back"), "REACHED through a file");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn git_over_ssh() {
    let sshd = Sshd::start();
    let repo = crate::support::repository::Repository::empty(&sshd.path("work"));
    repo.write("file", "REACHED by git over ssh\n");
    repo.commit("first");
    let commands = "git clone --quiet ssh://$USER@ssh.example.com:$SSH_PORT$FILES/work cloned; cat cloned/file
cd cloned; git -c user.name=a -c user.email=a@b commit --quiet --allow-empty -m more; git push --quiet origin HEAD:refs/heads/more-$$";
    works(&sshd, commands, "REACHED by git over ssh").await;
    let pushed = repo.git(&["for-each-ref", "--format=%(subject)", "refs/heads/more-*"]);
    assert_eq!(
        pushed,
        "more
more",
        "a push of each run"
    );
}
