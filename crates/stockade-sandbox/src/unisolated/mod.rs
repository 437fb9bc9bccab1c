//! The backend `unisolated`: plain processes in a directory. It holds nothing, says so, and is
//! for tests alone: its capabilities make a production process refuse it, and its measurement
//! fails unless whoever made it asked for pretence by name.

mod exec;
mod handle;

use std::{
    collections::HashMap,
    fs, io,
    net::{Ipv4Addr, TcpListener, UdpSocket},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError, Weak},
};

use async_trait::async_trait;
use stockade_domain::RunId;
use stockade_ports::sandbox::{
    BASE_GIT_DIR, Boundary, Capabilities, FreshSandbox, Kernel, MEASURED_INSIDE, Measurement, ProbePlan, Proof, Reaped,
    RootFs, Sandbox, SandboxError, SandboxEvidence, SandboxFacts, SandboxHandle, SandboxSpec,
};
use tokio::sync::watch;

use crate::{copy::copy_tree, native::unique};

/// Backend name in configuration, errors and receipts.
const BACKEND: &str = "unisolated";

/// Settings of the backend.
#[derive(Debug, Clone)]
pub struct UnisolatedConfig {
    /// Directory for what sandboxes consist of; made when it is missing.
    pub dir: PathBuf,
    /// Report every check as held although nothing was measured. Without this
    /// [`stockade_ports::sandbox::prove`] refuses every sandbox of this backend.
    pub pretend_for_tests: bool,
}

/// Makes directories that are called sandboxes.
pub struct UnisolatedSandbox {
    config: UnisolatedConfig,
    live: Mutex<HashMap<RunId, Weak<Place>>>,
}

/// One such directory.
struct Place {
    dir: PathBuf,
    over: watch::Sender<Option<String>>,
}

impl UnisolatedSandbox {
    /// Makes the backend; nothing happens before it is first used.
    #[must_use]
    pub fn new(config: UnisolatedConfig) -> Self {
        Self {
            config,
            live: Mutex::new(HashMap::new()),
        }
    }

    /// Where the latest sandbox of a run has its files (`workspace`, `home`, `tmp`, `base.git`),
    /// while somebody holds it.
    #[must_use]
    pub fn dir_of(&self, run: RunId) -> Option<PathBuf> {
        self.place(run).map(|place| place.dir.clone())
    }

    fn place(&self, run: RunId) -> Option<Arc<Place>> {
        let live = self.live.lock().unwrap_or_else(PoisonError::into_inner);
        live.get(&run).and_then(Weak::upgrade)
    }

    /// Lets the sandbox of a run end under it, as if its Guest had died. Nothing if there is none.
    pub fn end(&self, run: RunId) {
        if let Some(place) = self.place(run) {
            place.end("the test ended it");
        }
    }

    fn make(&self, spec: &SandboxSpec) -> io::Result<Fresh> {
        let dir = self.config.dir.join(format!("{}-{}", spec.run, unique()));
        for part in ["tmp", "home", "workspace"] {
            fs::create_dir_all(dir.join(part))?;
        }
        let (over, _) = watch::channel(None);
        let place = Arc::new(Place { dir, over });
        if let Some(from) = &spec.workspace {
            copy_tree(from, &place.dir.join("workspace"), None)?;
        }
        if let Some(from) = &spec.base_git {
            fs::create_dir(place.dir.join("base.git"))?;
            copy_tree(from, &place.dir.join("base.git"), None)?;
        }
        let boundary = Boundary {
            tcp4: TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.into(),
            tcp6: None,
            dns4: UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?.into(),
            dns6: None,
        };
        let mut live = self.live.lock().unwrap_or_else(PoisonError::into_inner);
        live.retain(|_, place| place.strong_count() > 0);
        live.insert(spec.run, Arc::downgrade(&place));
        Ok(Fresh {
            place,
            boundary: Some(boundary),
            pretend: self.config.pretend_for_tests,
        })
    }
}

fn remove(dir: &Path) -> io::Result<()> {
    match fs::remove_dir_all(dir) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(e),
        _ => Ok(()),
    }
}

#[async_trait]
impl Sandbox for UnisolatedSandbox {
    fn name(&self) -> &'static str {
        BACKEND
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities {
            kernel: Kernel::Shared,
            rootless: true,
            isolates: false,
            images: false,
            pause: false,
            snapshot: false,
            warm_pool: false,
            limits: &[],
        }
    }

    async fn check(&self) -> Result<SandboxFacts, SandboxError> {
        Ok(SandboxFacts {
            mode: "unisolated".to_owned(),
            notes: vec!["commands run on this host, as this user, with nothing between them and it".to_owned()],
            ..SandboxFacts::default()
        })
    }

    async fn create(&self, spec: SandboxSpec) -> Result<Box<dyn FreshSandbox>, SandboxError> {
        let incapable = |what| Err(SandboxError::Incapable { backend: BACKEND, what });
        if matches!(spec.rootfs, RootFs::Image(_)) {
            return incapable("run images");
        }
        if spec.restore.is_some() {
            return incapable("restore snapshots");
        }
        let made = self.make(&spec).map_err(|e| SandboxError::Setup {
            step: format!("make a directory below {}", self.config.dir.display()),
            cause: e.to_string(),
        });
        Ok(Box::new(made?))
    }

    async fn reap(&self) -> Result<Reaped, SandboxError> {
        Ok(Reaped::default())
    }
}

impl Place {
    fn evidence(&self) -> SandboxEvidence {
        SandboxEvidence {
            backend: BACKEND.to_owned(),
            mode: "unisolated".to_owned(),
            image: RootFs::Host.label().to_owned(),
            ..SandboxEvidence::default()
        }
    }

    /// The first reason stays.
    fn end(&self, why: &str) {
        self.over.send_if_modified(|reason| {
            let first = reason.is_none();
            if first {
                *reason = Some(why.to_owned());
            }
            first
        });
    }

    fn destroy(&self) -> Result<(), SandboxError> {
        self.end("it was destroyed");
        remove(&self.dir).map_err(|e| SandboxError::Inside {
            operation: format!("removing {}", self.dir.display()),
            cause: e.to_string(),
        })
    }

    /// Puts the real places where the names of a sandbox stand, anywhere in a text.
    fn real(&self, text: &str) -> String {
        let mut text = text.to_owned();
        for (inside, outside) in [
            (BASE_GIT_DIR, "base.git"),
            ("/workspace", "workspace"),
            ("/home/agent", "home"),
            ("/tmp/.stockade-export", "tmp/.stockade-export"),
        ] {
            // A mark in place of the directory, which may itself contain one of the names.
            text = text.replace(inside, &format!("\u{1}{outside}"));
        }
        text.replace('\u{1}', &format!("{}/", self.dir.display()))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = remove(&self.dir);
    }
}

struct Fresh {
    place: Arc<Place>,
    boundary: Option<Boundary>,
    pretend: bool,
}

#[async_trait]
impl FreshSandbox for Fresh {
    fn take_boundary(&mut self) -> Option<Boundary> {
        self.boundary.take()
    }

    fn evidence(&self) -> SandboxEvidence {
        self.place.evidence()
    }

    async fn measure(&self, _plan: &ProbePlan) -> Result<Measurement, SandboxError> {
        let mut measurement = Measurement::default();
        let seen = if self.pretend {
            "pretence, for a test"
        } else {
            "no isolation at all"
        };
        for name in MEASURED_INSIDE {
            measurement.note(name, "isolation", seen, self.pretend);
        }
        Ok(measurement)
    }

    fn release(self: Box<Self>, _proof: Proof) -> Arc<dyn SandboxHandle> {
        Arc::new(handle::Handle(Arc::clone(&self.place)))
    }

    async fn destroy(&self) -> Result<(), SandboxError> {
        self.place.destroy()
    }
}
