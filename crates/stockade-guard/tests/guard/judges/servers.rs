//! nginx and haproxy as judges, each in front of a recorder that hears what they understood.

use std::{
    convert::Infallible,
    net::SocketAddr,
    os::unix::fs::MetadataExt,
    path::PathBuf,
    process::Stdio,
    sync::{Arc, Mutex},
    time::Duration,
};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use tokio::{
    net::{TcpListener, TcpStream},
    process::{Child, Command},
    time::sleep,
};

use super::{Line, decoded, free_port};
use crate::rig::SOON;

/// A request as a judge read it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Arrived {
    pub(super) line: Line,
    /// Bytes of its content.
    pub(super) body: u64,
    /// Which case it belongs to, as it says itself.
    pub(super) case: String,
}

impl Arrived {
    /// Whether it is the request behind every case.
    pub(super) fn is_last(&self) -> bool {
        self.line.2 == "/last"
    }
}

pub(super) struct Judge {
    pub(super) name: &'static str,
    pub(super) address: SocketAddr,
    arrived: Arc<Mutex<Vec<Arrived>>>,
    dir: tempfile::TempDir,
    // Ends with the test.
    _child: Child,
}

impl Judge {
    pub(super) fn host(&self) -> String {
        format!("{}.example.com", self.name)
    }

    pub(super) fn arrived(&self) -> Vec<Arrived> {
        self.arrived.lock().unwrap().clone()
    }

    /// nginx tells how it decodes a path; where the Guard has no doubt, it is as the Guard does.
    pub(super) fn check_paths(&self) {
        let Ok(log) = std::fs::read_to_string(self.dir.path().join("paths.log")) else {
            return;
        };
        let mut compared = 0;
        for line in log.lines() {
            let told: serde_json::Value = serde_json::from_str(line).unwrap();
            let written = told["uri"].as_str().unwrap();
            let Some(expected) = decoded(written.split('?').next().unwrap()) else {
                continue;
            };
            assert_eq!(told["path"], expected.as_str(), "{written}");
            compared += 1;
        }
        assert!(compared > 100, "{}: {compared} paths compared", self.name);
    }
}

/// The judges that are installed.
pub(super) async fn start() -> Vec<Judge> {
    let mut judges = Vec::new();
    for (name, program, config) in [
        ("nginx", nginx as fn(&str) -> Command, NGINX),
        ("haproxy", haproxy, HAPROXY),
    ] {
        judges.extend(judge(name, program, config).await);
    }
    // As root `cargo xtask setup` installs them; others use what is there.
    let root = std::fs::metadata("/proc/self").is_ok_and(|own| own.uid() == 0);
    assert!(
        judges.len() == 2 || !root,
        "nginx and haproxy are needed: cargo xtask setup"
    );
    judges
}

async fn judge(name: &'static str, program: fn(&str) -> Command, config: &str) -> Option<Judge> {
    let arrived = Arc::default();
    let recorder = record(Arc::clone(&arrived)).await;
    for _ in 0..5 {
        let (dir, address) = (tempfile::tempdir().unwrap(), free_port());
        let path = dir.path().join("config");
        let text = config
            .replace("PLACE", &address.to_string())
            .replace("BEHIND", &recorder.to_string())
            .replace("DIR", dir.path().to_str().unwrap());
        std::fs::write(&path, text).unwrap();
        let mut command = program(path.to_str().unwrap());
        let mut child = match command.stdin(Stdio::null()).kill_on_drop(true).spawn() {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return None,
            child => child.unwrap(),
        };
        let up = async {
            while TcpStream::connect(address).await.is_err() {
                assert!(child.try_wait().unwrap().is_none(), "{name} ended");
                sleep(Duration::from_millis(20)).await;
            }
        };
        // Somebody may have taken the port meanwhile.
        if tokio::time::timeout(SOON, up).await.is_ok() {
            return Some(Judge {
                name,
                address,
                arrived,
                dir,
                _child: child,
            });
        }
    }
    panic!("{name} does not start")
}

fn program(name: &str) -> Command {
    let sbin = PathBuf::from("/usr/sbin").join(name);
    Command::new(if sbin.exists() { sbin } else { name.into() })
}

fn nginx(config: &str) -> Command {
    let mut command = program("nginx");
    command.args(["-e", "stderr", "-c", config]);
    command
}

fn haproxy(config: &str) -> Command {
    let mut command = program("haproxy");
    command.args(["-db", "-q", "-f", config]);
    command
}

const NGINX: &str = r#"
daemon off; master_process off; pid DIR/pid; error_log stderr crit;
events { worker_connections 512; }
http {
    log_format paths escape=json '{"uri":"$request_uri","path":"$uri"}';
    access_log DIR/paths.log paths;
    client_body_temp_path DIR/body; proxy_temp_path DIR/proxy; fastcgi_temp_path DIR/fastcgi;
    uwsgi_temp_path DIR/uwsgi; scgi_temp_path DIR/scgi;
    merge_slashes off; ignore_invalid_headers off; underscores_in_headers on;
    large_client_header_buffers 8 128k; client_max_body_size 8m;
    server {
        listen PLACE;
        location / {
            proxy_pass http://BEHIND;
            proxy_http_version 1.1;
            proxy_set_header Connection "";
            proxy_set_header Host judged;
            proxy_set_header X-Judge-Host $http_host;
            proxy_set_header X-Judge-Method $request_method;
            proxy_set_header X-Judge-Uri $request_uri;
        }
    }
}
"#;

const HAPROXY: &str = "
global
    maxconn 512
    tune.bufsize 262144
defaults
    mode http
    option http-buffer-request
    timeout connect 5s
    timeout client 20s
    timeout server 20s
    timeout http-request 5s
frontend judged
    bind PLACE
    http-request set-header x-judge-host %[req.fhdr(host)]
    http-request set-header x-judge-method %[method]
    http-request set-header x-judge-uri %[url]
    default_backend recorder
backend recorder
    server recorder BEHIND
";

/// What stands behind a judge and hears what it understood.
async fn record(arrived: Arc<Mutex<Vec<Arrived>>>) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let arrived = Arc::clone(&arrived);
            let service = service_fn(move |request| {
                let arrived = Arc::clone(&arrived);
                async move {
                    let arrival = read(request).await;
                    arrived.lock().unwrap().push(arrival);
                    Ok::<_, Infallible>(Response::new(Full::new(Bytes::from_static(b"ok"))))
                }
            });
            let connection = http1::Builder::new()
                .max_buf_size(512 * 1024)
                .serve_connection(TokioIo::new(stream), service);
            tokio::spawn(connection);
        }
    });
    address
}

async fn read(request: Request<Incoming>) -> Arrived {
    let told = |name: &str| {
        let value = request.headers().get(name).map(|value| value.as_bytes().to_vec());
        String::from_utf8_lossy(&value.unwrap_or_default()).into_owned()
    };
    let host = told("x-judge-host");
    let line = (
        host.strip_suffix(":80").unwrap_or(&host).to_owned(),
        told("x-judge-method"),
        told("x-judge-uri"),
    );
    let case = told("x-case");
    let body = request.into_body().collect().await.map(|body| body.to_bytes().len());
    Arrived {
        line,
        body: body.map_or(u64::MAX, |length| length as u64),
        case,
    }
}
