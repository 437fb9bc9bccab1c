//! Databases at a named host: PostgreSQL by its own kind of rule, Redis as a port open to any
//! bytes.

use std::{
    fs::{self, Permissions},
    os::unix::fs::{PermissionsExt as _, chown},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use serde_json::json;
use stockade_origins::TestAuthority;

use super::bench::{BOTH, Bench, Plan, need};
use crate::support::{free_port, installation::is_root, reachable};

/// A server of the operating system's packages on loopback. Ended when dropped.
struct Database {
    child: Child,
    port: u16,
    dir: tempfile::TempDir,
}

impl Drop for Database {
    fn drop(&mut self) {
        // Asked first: PostgreSQL has children and shared memory.
        let pid = self.child.id().to_string();
        let _ = Command::new("kill").args(["-INT", &pid]).status();
        let _ = self.child.wait();
    }
}

/// A user without rights, where the tests have any: PostgreSQL wants none.
fn as_nobody_special(program: &Path) -> Command {
    if !is_root() {
        return Command::new(program);
    }
    let mut command = Command::new("setpriv");
    command
        .args(["--reuid=postgres", "--regid=postgres", "--clear-groups"])
        .arg(program);
    command
}

fn postgres_programs() -> PathBuf {
    let versions = fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let found = versions
        .map(|entry| entry.path().join("bin"))
        .find(|bin| bin.join("initdb").is_file());
    found.expect("no PostgreSQL: `cargo xtask setup` installs it, or apt-get install postgresql")
}

fn postgres(authority: &TestAuthority) -> Database {
    let (programs, dir, port) = (postgres_programs(), tempfile::tempdir().unwrap(), free_port());
    let data = dir.path().join("data");
    let (certificate, key) = authority.certified(&["db.example.com"]);
    fs::set_permissions(dir.path(), Permissions::from_mode(0o755)).unwrap();
    fs::create_dir(&data).unwrap();
    for (name, text) in [("server.crt", certificate), ("server.key", key)] {
        fs::write(dir.path().join(name), text).unwrap();
        fs::set_permissions(dir.path().join(name), Permissions::from_mode(0o600)).unwrap();
    }
    if is_root() {
        let id = Command::new("id").args(["-u", "postgres"]).output().unwrap().stdout;
        let id = String::from_utf8(id).unwrap().trim().parse().unwrap();
        for path in [
            data.clone(),
            dir.path().join("server.crt"),
            dir.path().join("server.key"),
        ] {
            chown(path, Some(id), Some(id)).unwrap();
        }
    }
    let made = as_nobody_special(&programs.join("initdb"))
        .args(["--auth=trust", "--username=tester", "--no-sync", "--pgdata"])
        .arg(&data)
        .current_dir("/")
        .output()
        .unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    let child = as_nobody_special(&programs.join("postgres"))
        .arg("-D")
        .arg(&data)
        .args([
            "-c",
            "ssl=on",
            "-c",
            "unix_socket_directories=",
            "-c",
            "fsync=off",
            "-c",
            "listen_addresses=127.0.0.1",
        ])
        .args(["-c", &format!("port={port}")])
        .args([
            "-c",
            &format!("ssl_cert_file={}", dir.path().join("server.crt").display()),
        ])
        .args([
            "-c",
            &format!("ssl_key_file={}", dir.path().join("server.key").display()),
        ])
        .current_dir("/")
        .stdin(Stdio::null())
        .stderr(fs::File::create(dir.path().join("log")).unwrap())
        .spawn()
        .unwrap();
    let database = Database { child, port, dir };
    reachable(port, || {
        fs::read_to_string(database.dir.path().join("log")).unwrap_or_default()
    });
    database
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn psql() {
    need("psql", "postgresql-client");
    let authority = TestAuthority::new();
    let database = postgres(&authority);
    let port = database.port;
    // In the clear, with TLS that nobody checks, and with TLS that is checked to the end: what the Guard lets
    // through is the server's own.
    let commands = format!(
        "for mode in disable require verify-full; do
    psql \"host=db.example.com port={port} user=tester dbname=postgres sslmode=$mode sslrootcert=database.pem\" --tuples-only --no-align \\
        --command \"select 'REACHED in mode $mode, tls ' || ssl from pg_stat_ssl where pid = pg_backend_pid()\"
done"
    );
    let rule = json!({ "verdict": "allow", "hosts": ["db.example.com"], "ports": [port], "protocols": ["postgres"] });
    let files = [("database.pem", authority.pem())];
    let bench = Bench::of(Plan {
        commands: &commands,
        names: &["db.example.com"],
        rules: &[rule],
        files: &files,
        ..Plan::default()
    })
    .await;
    let outputs = bench
        .proves_elsewhere(
            &BOTH,
            "REACHED in mode verify-full, tls true",
            "could not translate host name",
        )
        .await;
    for output in outputs {
        for words in [
            "REACHED in mode disable, tls false",
            "REACHED in mode require, tls true",
        ] {
            assert!(output.contains(words), "{output}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn redis() {
    need("redis-cli", "redis-tools");
    need("redis-server", "redis-server");
    let (dir, port) = (tempfile::tempdir().unwrap(), free_port());
    let child = Command::new("redis-server")
        .args([
            "--bind",
            "127.0.0.1",
            "--save",
            "",
            "--port",
            &port.to_string(),
            "--dir",
        ])
        .arg(dir.path())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let database = Database { child, port, dir };
    reachable(database.port, String::new);
    let commands = format!(
        "redis-cli -h cache.example.com -p {port} --raw set word REACHED; redis-cli -h cache.example.com -p {port} --raw get word"
    );
    let rule = json!({ "verdict": "allow", "hosts": ["cache.example.com"], "ports": [port], "protocols": ["tcp"] });
    let bench = Bench::of(Plan {
        commands: &commands,
        names: &["cache.example.com"],
        rules: &[rule],
        files: &[],
        ..Plan::default()
    })
    .await;
    bench
        .proves_elsewhere(&BOTH, "REACHED", "Could not connect to Redis")
        .await;
}
