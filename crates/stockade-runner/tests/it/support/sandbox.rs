//! A sandbox that is none: plain processes in a directory. A simulator for tests.

use std::{
    path::{Path, PathBuf},
    process::Stdio,
    sync::{Arc, Mutex},
};

use async_trait::async_trait;
use bytes::Bytes;
use stockade_ports::{
    Boundary, ExecRequest, Exit, Output, Process, Reaped, Sandbox, SandboxError, SandboxEvidence, SandboxFacts,
    SandboxHandle, SandboxSpec,
};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _},
    sync::{Notify, mpsc},
};

pub(crate) struct LocalSandbox {
    dir: PathBuf,
    live: Mutex<Option<Arc<Place>>>,
}

struct Place {
    dir: PathBuf,
    over: Notify,
}

struct Handle {
    place: Arc<Place>,
    boundary: Option<Boundary>,
}

impl LocalSandbox {
    pub(crate) fn new(dir: PathBuf) -> Self {
        Self {
            dir,
            live: Mutex::new(None),
        }
    }

    fn place(&self) -> Arc<Place> {
        self.live.lock().unwrap().clone().expect("no sandbox was made")
    }

    pub(crate) fn workspace(&self) -> PathBuf {
        self.place().dir.join("workspace")
    }

    /// Lets the sandbox end under its run.
    pub(crate) fn die(&self) {
        self.place().over.notify_one();
    }
}

fn copy(from: &Path, to: &Path) {
    let done = std::process::Command::new("cp")
        .arg("-a")
        .arg(from)
        .arg(to)
        .status()
        .unwrap();
    assert!(done.success());
}

#[async_trait]
impl Sandbox for LocalSandbox {
    fn name(&self) -> &'static str {
        "local"
    }

    async fn check(&self) -> Result<SandboxFacts, SandboxError> {
        Ok(SandboxFacts::default())
    }

    async fn create(&self, spec: SandboxSpec) -> Result<Box<dyn SandboxHandle>, SandboxError> {
        let dir = self.dir.join(spec.run.to_string());
        for part in ["tmp", "home"] {
            std::fs::create_dir_all(dir.join(part)).unwrap();
        }
        match &spec.workspace {
            Some(from) => copy(from, &dir.join("workspace")),
            None => std::fs::create_dir(dir.join("workspace")).unwrap(),
        }
        if let Some(base) = &spec.base_git {
            copy(base, &dir.join("base.git"));
        }
        let place = Arc::new(Place {
            dir,
            over: Notify::new(),
        });
        *self.live.lock().unwrap() = Some(place.clone());
        let tcp = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let udp = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        let boundary = Boundary {
            tcp4: tcp.into(),
            tcp6: None,
            dns4: udp.into(),
            dns6: None,
        };
        Ok(Box::new(Handle {
            place,
            boundary: Some(boundary),
        }))
    }

    async fn reap(&self) -> Result<Reaped, SandboxError> {
        Ok(Reaped::default())
    }
}

impl Handle {
    /// Puts the real places where the names of a sandbox stand.
    fn real(&self, text: &str) -> String {
        let dir = &self.place.dir;
        let mut text = text.to_owned();
        for (inside, outside) in [
            ("/run/stockade/base.git", "base.git"),
            ("/workspace", "workspace"),
            ("/home/agent", "home"),
            ("/tmp/.stockade-export", "tmp/.stockade-export"),
        ] {
            text = text.replace(inside, &format!("\u{1}{outside}"));
        }
        text.replace('\u{1}', &format!("{}/", dir.display()))
    }
}

#[async_trait]
impl SandboxHandle for Handle {
    fn take_boundary(&mut self) -> Option<Boundary> {
        self.boundary.take()
    }

    fn evidence(&self) -> SandboxEvidence {
        SandboxEvidence {
            backend: "local".to_owned(),
            mode: "test".to_owned(),
            ..SandboxEvidence::default()
        }
    }

    async fn exec(&self, request: ExecRequest) -> Result<Process, SandboxError> {
        let argv: Vec<String> = request.argv.iter().map(|word| self.real(word)).collect();
        let cwd = self.real(request.cwd.as_deref().unwrap_or("/workspace"));
        let mut command = tokio::process::Command::new(&argv[0]);
        command
            .args(&argv[1..])
            .env_clear()
            .env("PATH", "/usr/local/bin:/usr/bin:/bin")
            .env("HOME", self.place.dir.join("home"))
            .envs(request.env.iter().map(|(k, v)| (k, self.real(v))))
            .current_dir(cwd)
            .stdin(if request.stdin { Stdio::piped() } else { Stdio::null() })
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        let mut child = command
            .spawn()
            .map_err(|e| SandboxError::NotFound(format!("{}: {e}", argv[0])))?;
        let (stdin, mut input) = mpsc::channel::<Bytes>(16);
        let (tell, output) = mpsc::channel(16);
        if let Some(mut pipe) = child.stdin.take() {
            tokio::spawn(async move {
                while let Some(bytes) = input.recv().await {
                    if pipe.write_all(&bytes).await.is_err() {
                        return;
                    }
                }
            });
        }
        let (out, err) = (child.stdout.take().unwrap(), child.stderr.take().unwrap());
        tokio::spawn(async move {
            let streams = async {
                tokio::join!(pump(out, &tell, Output::Stdout), pump(err, &tell, Output::Stderr));
            };
            let whole = async {
                streams.await;
                child.wait().await
            };
            let limit = request.timeout.unwrap_or(std::time::Duration::from_secs(3600));
            let exit = tokio::select! {
                ended = tokio::time::timeout(limit, whole) => match ended {
                    Ok(status) => status.ok().and_then(|s| s.code()).map_or(Exit::Signal(9), Exit::Code),
                    Err(_) => Exit::TimedOut,
                },
                () = tell.closed() => return,
            };
            let _ = tell.send(Output::Exited(exit)).await;
        });
        Ok(Process { stdin, output })
    }

    async fn read_file(&self, path: &str, limit: u64) -> Result<Bytes, SandboxError> {
        let bytes = tokio::fs::read(self.real(path))
            .await
            .map_err(|_| SandboxError::NotFound(path.to_owned()))?;
        if bytes.len() as u64 > limit {
            return Err(SandboxError::TooLarge {
                what: path.to_owned(),
                limit,
            });
        }
        Ok(bytes.into())
    }

    async fn write_file(&self, path: &str, content: Bytes, mode: u32) -> Result<(), SandboxError> {
        use std::os::unix::fs::PermissionsExt as _;
        let path = PathBuf::from(self.real(path));
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, content).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
        Ok(())
    }

    async fn destroy(&self) -> Result<(), SandboxError> {
        let _ = std::fs::remove_dir_all(&self.place.dir);
        Ok(())
    }

    async fn ended(&self) -> String {
        self.place.over.notified().await;
        "the test ended it".to_owned()
    }
}

async fn pump(mut pipe: impl AsyncRead + Unpin, tell: &mpsc::Sender<Output>, wrap: fn(Bytes) -> Output) {
    let mut buffer = vec![0; 8192];
    while let Ok(count) = pipe.read(&mut buffer).await {
        if count == 0 || tell.send(wrap(Bytes::copy_from_slice(&buffer[..count]))).await.is_err() {
            return;
        }
    }
}
