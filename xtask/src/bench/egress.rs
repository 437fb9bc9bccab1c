//! The Guard beside a direct connection and two proxies that do less: squid and tinyproxy.

use std::{
    fs,
    net::{SocketAddr, TcpListener, TcpStream},
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};

use super::{
    Context,
    helper::{self, Helper},
    report::Report,
    stats::percentile,
};
use crate::{process, setup};

const HELPER: Helper = Helper {
    package: "stockade-guard",
    kind: "example",
    name: "egress_bench",
};

const DIRECT: &str = "direct";
const PASSED: &str = "Guard, passed through";
const INSPECTED: &str = "Guard, inspected";
/// How long a proxy may take to listen.
const PATIENCE: Duration = Duration::from_secs(20);
/// How long one that was asked to stop may take.
const FAREWELL: Duration = Duration::from_secs(5);

pub(crate) fn run(context: &Context) -> Result<Report> {
    setup::packages(setup::BENCH)?;
    let program = HELPER.build(&context.workspace)?;
    let peers = [Proxy::squid()?, Proxy::tinyproxy()?];
    let mut arguments = vec!["bench".to_owned(), (context.rounds * 50).to_string()];
    arguments.extend(peers.iter().map(|peer| format!("{}={}", peer.name, peer.address)));
    let arguments: Vec<_> = arguments.iter().map(AsRef::as_ref).collect();
    let measured = helper::measure(program.as_os_str(), &arguments)?;
    let mut notes = Vec::new();
    for way in ["squid", "tinyproxy", PASSED, INSPECTED] {
        let (theirs, base) = (measured.get(&request(way))?, measured.get(&request(DIRECT))?);
        let added = |percent| Some(percentile(theirs, percent)? - percentile(base, percent)?);
        if let (Some(p50), Some(p99)) = (added(50), added(99)) {
            notes.push(format!(
                "added to a request on a kept connection, {way}: p50 {p50:.3} ms, p99 {p99:.3} ms"
            ));
        }
    }
    let rates = measured.rates.clone();
    let rate = |way: &str| {
        rates
            .iter()
            .find(|(name, _)| name.ends_with(&format!(", {way}")))
            .map(|(_, rate)| *rate)
    };
    for way in [DIRECT, PASSED, INSPECTED] {
        if let (Some(ours), Some(squid)) = (rate(way), rate("squid")) {
            notes.push(format!("new TLS connections, {way}: {:.2} × squid", ours / squid));
        }
    }
    let mut report = measured.report()?;
    for way in ["squid", "tinyproxy", PASSED, INSPECTED] {
        report.compare(&request(way), &request(DIRECT))?;
        report.compare(&stream(way), &stream(DIRECT))?;
    }
    report.notes.extend(notes);
    Ok(report)
}

fn request(way: &str) -> String {
    format!("request, {way}")
}

fn stream(way: &str) -> String {
    format!("256 MiB in one stream, {way}")
}

/// A proxy that runs. Stopped when this is dropped.
struct Proxy {
    name: &'static str,
    address: SocketAddr,
    child: Child,
    dir: PathBuf,
}

impl Proxy {
    /// Lets everything through and keeps nothing, so that it is as quick as it can be.
    fn squid() -> Result<Self> {
        Self::start("squid", |dir, address| {
            let (dir, mut command) = (dir.display(), Command::new("squid"));
            let config = format!(
                "http_port {address}\nhttp_access allow all\ncache deny all\ncache_mem 8 MB\naccess_log none\n\
                 cache_log {dir}/cache.log\ncache_store_log none\npid_filename none\ncoredump_dir {dir}\n\
                 shutdown_lifetime 0 seconds\nnetdb_filename none\npinger_enable off\n"
            );
            // Its shared memory goes by the name of its service.
            command
                .args(["-N", "-n"])
                .arg(format!("bench{}", std::process::id()))
                .arg("-f");
            (config, command)
        })
    }

    fn tinyproxy() -> Result<Self> {
        Self::start("tinyproxy", |_, address| {
            let (ip, port) = (address.ip(), address.port());
            let config = format!(
                "Port {port}\nListen {ip}\nTimeout 600\nMaxClients 500\nAllow 127.0.0.0/8\nLogLevel Critical\n"
            );
            let mut command = Command::new("tinyproxy");
            command.args(["-d", "-c"]);
            (config, command)
        })
    }

    fn start(name: &'static str, say: impl FnOnce(&Path, SocketAddr) -> (String, Command)) -> Result<Self> {
        let dir = std::env::temp_dir().join(format!("stockade-bench-{name}-{}", std::process::id()));
        fs::create_dir(&dir).with_context(|| format!("cannot make {}", dir.display()))?;
        // squid gives up being root.
        fs::set_permissions(&dir, fs::Permissions::from_mode(0o777))?;
        let address = TcpListener::bind("127.0.0.1:0")?.local_addr()?;
        let (config, mut command) = say(&dir, address);
        let path = dir.join("config");
        fs::write(&path, config)?;
        let log = fs::File::create(dir.join("log"))?;
        let child = command
            .arg(&path)
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn();
        let child = child.with_context(|| format!("cannot start {name}"))?;
        let mut proxy = Self {
            name,
            address,
            child,
            dir,
        };
        let begun = Instant::now();
        while TcpStream::connect(address).is_err() {
            if proxy.child.try_wait()?.is_some() || begun.elapsed() > PATIENCE {
                bail!(
                    "{name} does not listen: {}",
                    fs::read_to_string(proxy.dir.join("log")).unwrap_or_default()
                );
            }
            thread::sleep(Duration::from_millis(50));
        }
        Ok(proxy)
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        // Asked first: what is killed leaves its shared memory behind.
        let _ = process::capture(Command::new("kill").args(["-TERM", &self.child.id().to_string()]));
        let begun = Instant::now();
        while matches!(self.child.try_wait(), Ok(None)) && begun.elapsed() < FAREWELL {
            thread::sleep(Duration::from_millis(20));
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = fs::remove_dir_all(&self.dir);
    }
}
