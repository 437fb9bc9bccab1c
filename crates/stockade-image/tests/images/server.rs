//! A registry of the test's own: a process on a free port of the loopback, ended with the test.

use std::{
    fs,
    io::ErrorKind,
    net::{TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::Arc,
    time::{Duration, Instant},
};

/// User, password and its bcrypt line, as `htpasswd -nbB` prints it.
pub(crate) const USER: &str = "puller";
pub(crate) const PASSWORD: &str = "correct horse";
const HTPASSWD: &str = "puller:$2b$04$u0jWJaPFhlqDBOpOdOJHm.N5JP/zKOiDD./eQCgtfpe2sxy0j.XIK\n";

pub(crate) struct Server {
    child: Child,
    dir: Arc<tempfile::TempDir>,
    pub(crate) port: u16,
}

impl Server {
    pub(crate) fn start() -> Self {
        Self::on(Arc::new(tempfile::tempdir().expect("temp dir")), "")
    }

    /// One that asks for [`USER`] and [`PASSWORD`].
    pub(crate) fn closed() -> Self {
        let dir = tempfile::tempdir().expect("temp dir");
        let users = dir.path().join("htpasswd");
        fs::write(&users, HTPASSWD).expect("htpasswd");
        let auth = format!("htpasswd: {{realm: test, path: {}}}", users.display());
        Self::on(Arc::new(dir), &auth)
    }

    /// The same images, from a registry that asks for something (its configuration's `auth`).
    pub(crate) fn asking_for(self, auth: &str) -> Self {
        Self::on(Arc::clone(&self.dir), auth)
    }

    fn on(dir: Arc<tempfile::TempDir>, auth: &str) -> Self {
        for _ in 0..5 {
            let port = free_port();
            let mut child = spawn(dir.path(), port, auth);
            if answers(&mut child, port) {
                return Self { child, dir, port };
            }
            let _ = child.kill();
            let _ = child.wait();
        }
        panic!("docker-registry does not start");
    }

    /// `127.0.0.1:port/name`.
    pub(crate) fn name(&self, name: &str) -> String {
        format!("127.0.0.1:{}/{name}", self.port)
    }

    /// Where the registry keeps a blob.
    pub(crate) fn blob(&self, digest: &str) -> PathBuf {
        let hex = digest.strip_prefix("sha256:").expect("sha256");
        let blobs = self.dir.path().join("docker/registry/v2/blobs/sha256");
        blobs.join(&hex[..2]).join(hex).join("data")
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    listener.local_addr().expect("address").port()
}

fn spawn(dir: &Path, port: u16, auth: &str) -> Child {
    let shown = dir.display();
    let mut config = format!(
        "version: 0.1\nlog: {{level: error}}\nstorage: {{filesystem: {{rootdirectory: {shown}}}}}\nhttp: {{addr: 127.0.0.1:{port}, secret: not-secret}}\n"
    );
    if !auth.is_empty() {
        config += &format!("auth: {{{auth}}}\n");
    }
    fs::write(dir.join("config.yml"), config).expect("config");
    let mut command = Command::new("docker-registry");
    command.arg("serve").arg(dir.join("config.yml"));
    command.stdout(Stdio::null()).stderr(Stdio::null());
    match command.spawn() {
        Err(e) if e.kind() == ErrorKind::NotFound => {
            panic!("docker-registry is missing: apt-get install docker-registry")
        }
        child => child.expect("docker-registry starts"),
    }
}

fn answers(child: &mut Child, port: u16) -> bool {
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_secs(20) {
        if child.try_wait().expect("a child").is_some() {
            return false;
        }
        if TcpStream::connect(("127.0.0.1", port)).is_ok() {
            return true;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    false
}

/// Runs a program to its end; a missing one is named with the package that brings it.
pub(crate) fn run(program: &str, package: &str, args: &[&str]) -> String {
    let output = match Command::new(program).args(args).output() {
        Err(e) if e.kind() == ErrorKind::NotFound => panic!("{program} is missing: apt-get install {package}"),
        output => output.expect("starts"),
    };
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(output.status.success(), "{program} {args:?}: {}", text(&output.stderr));
    text(&output.stdout)
}
