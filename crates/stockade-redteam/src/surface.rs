//! The kernel-surface score: of the sandbox, of this host without one, and of other sandboxes.

use std::{
    fs, io,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use tokio::{process::Command, time::timeout};

use crate::{ATTACKER, RedTeamError, field::Field, inside::Call, prepare, report::Score, told::Told};

/// Longest one of them may take.
const PATIENCE: Duration = Duration::from_secs(30);
const IMAGE: &str = "stockade-redteam:attacker";

/// The score of the sandbox under attack.
pub(crate) async fn inside(field: &Field) -> Score {
    let told = field.target.run(&Call::new("score")).await;
    score(field.parts.sandbox.name(), told)
}

fn score(name: &str, told: Told) -> Score {
    let attempts = match told.complete() {
        Ok(attempts) => attempts,
        Err(why) => return missing(name, why),
    };
    let answers: Vec<_> = attempts.iter().filter(|a| a.got).map(|a| a.name.clone()).collect();
    Score {
        name: name.to_owned(),
        tried: attempts.len(),
        answered: answers.len(),
        answers,
        missing: None,
    }
}

fn missing(name: &str, why: impl Into<String>) -> Score {
    Score {
        name: name.to_owned(),
        tried: 0,
        answered: 0,
        answers: Vec::new(),
        missing: Some(why.into()),
    }
}

/// The score of this host without any sandbox: the control, which has to be high.
///
/// # Errors
///
/// [`RedTeamError::Prepare`] when the attacker cannot be placed in `dir`.
pub async fn unconfined(dir: &Path) -> Result<Score, RedTeamError> {
    let place = Place::make(dir)?;
    let told = run("the attacker", Command::new(place.attacker()).arg("score"), dir).await;
    Ok(told.map_or_else(|why| missing("unconfined", why), |told| score("unconfined", told)))
}

/// Other sandboxes on this host.
pub struct Peers {
    place: Place,
    /// Where the Docker Engine listens, as `docker --host` takes it.
    engine: String,
    root: bool,
}

impl Peers {
    /// Prepares to measure them; works in `dir`, which must exist.
    ///
    /// # Errors
    ///
    /// [`RedTeamError::Prepare`] when the attacker cannot be placed in `dir`.
    pub fn new(dir: &Path, docker_socket: &Path) -> Result<Self, RedTeamError> {
        use std::os::unix::fs::MetadataExt as _;
        let root = fs::metadata("/proc/self").is_ok_and(|own| own.uid() == 0);
        Ok(Self {
            place: Place::make(dir)?,
            engine: format!("unix://{}", docker_socket.display()),
            root,
        })
    }

    /// Measures each that is installed.
    pub async fn measure(&self) -> Vec<Score> {
        let mut scores = vec![self.bubblewrap().await, self.runc().await];
        scores.extend(self.docker().await);
        scores
    }

    async fn bubblewrap(&self) -> Score {
        let name = "bwrap --unshare-all --ro-bind / /";
        let attacker = self.place.attacker();
        let mut command = Command::new("bwrap");
        command
            .args(["--unshare-all", "--ro-bind", "/", "/"])
            .arg(attacker)
            .arg("score");
        told(name, run("bwrap", &mut command, &self.place.dir).await)
    }

    /// A bundle as `runc spec` writes it, with another command.
    async fn runc(&self) -> Score {
        let name = "runc (runc spec)";
        match self.runc_in_bundle().await {
            Ok(found) => score(name, found),
            Err(why) => missing(name, why),
        }
    }

    async fn runc_in_bundle(&self) -> Result<Told, String> {
        let bundle = self.place.dir.join("bundle");
        let rootfs = bundle.join("rootfs");
        let written = fs::create_dir_all(&rootfs).and_then(|()| executable(&rootfs.join("attacker")));
        written.map_err(|error| error.to_string())?;
        let mut spec = Command::new("runc");
        spec.arg("spec").arg("--bundle").arg(&bundle);
        if !self.root {
            spec.arg("--rootless");
        }
        output("runc", &mut spec, &bundle).await?;
        let path = bundle.join("config.json");
        let text = fs::read(&path).map_err(|error| error.to_string())?;
        let mut config: serde_json::Value = serde_json::from_slice(&text).map_err(|error| error.to_string())?;
        config["process"]["args"] = serde_json::json!(["/attacker", "score"]);
        config["process"]["terminal"] = false.into();
        fs::write(&path, config.to_string()).map_err(|error| error.to_string())?;
        let id = format!("stockade-redteam-{}", std::process::id());
        let mut command = Command::new("runc");
        command.arg("--root").arg(self.place.dir.join("runc"));
        command.arg("run").arg("--bundle").arg(&bundle).arg(&id);
        run("runc", &mut command, &bundle).await
    }

    async fn docker(&self) -> Vec<Score> {
        let names = [
            "docker (default)",
            "docker (cap-drop ALL, no-new-privileges, read-only)",
        ];
        if let Err(why) = self.import().await {
            return names.map(|name| missing(name, why.clone())).to_vec();
        }
        let hard: &[&str] = &[
            "--cap-drop",
            "ALL",
            "--security-opt",
            "no-new-privileges",
            "--read-only",
        ];
        let mut scores = Vec::new();
        for (name, options) in names.into_iter().zip([&[] as &[&str], hard]) {
            let mut command = self.engine();
            command.args(["run", "--rm", "--network", "none"]).args(options);
            command.args([IMAGE, "/attacker", "score"]);
            scores.push(told(name, run("docker", &mut command, &self.place.dir).await));
        }
        let mut remove = self.engine();
        let _ = output(
            "docker",
            remove.args(["image", "rm", "--force", IMAGE]),
            &self.place.dir,
        )
        .await;
        scores
    }

    fn engine(&self) -> Command {
        let mut command = Command::new("docker");
        command.arg("--host").arg(&self.engine);
        command
    }

    /// An image of nothing but the attacker.
    async fn import(&self) -> Result<(), String> {
        let layer = self.place.dir.join("layer.tar");
        pack(&layer).map_err(|error| error.to_string())?;
        let mut command = self.engine();
        command.arg("import").arg(&layer).arg(IMAGE);
        output("docker", &mut command, &self.place.dir).await.map(drop)
    }
}

fn told(name: &str, ran: Result<Told, String>) -> Score {
    ran.map_or_else(|why| missing(name, why), |told| score(name, told))
}

fn executable(path: &Path) -> io::Result<()> {
    use std::os::unix::fs::PermissionsExt as _;
    fs::write(path, ATTACKER)?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o755))
}

fn pack(path: &Path) -> io::Result<()> {
    let mut archive = tar::Builder::new(fs::File::create(path)?);
    let mut header = tar::Header::new_gnu();
    header.set_size(ATTACKER.len() as u64);
    header.set_mode(0o755);
    header.set_cksum();
    archive.append_data(&mut header, "attacker", ATTACKER)?;
    archive.finish()
}

async fn run(program: &str, command: &mut Command, dir: &Path) -> Result<Told, String> {
    let output = output(program, command, dir).await?;
    Ok(Told::read(&output))
}

/// Standard output of a program that did well; otherwise why not, in a line.
async fn output(program: &str, command: &mut Command, dir: &Path) -> Result<Vec<u8>, String> {
    command
        .current_dir(dir)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true);
    let output = match timeout(PATIENCE, command.output()).await {
        Ok(Ok(output)) => output,
        Ok(Err(error)) if error.kind() == io::ErrorKind::NotFound => return Err("not installed".to_owned()),
        Ok(Err(error)) => return Err(error.to_string()),
        Err(_) => return Err(format!("{program} did not end within {PATIENCE:?}")),
    };
    if output.status.success() {
        return Ok(output.stdout);
    }
    let text = String::from_utf8_lossy(&output.stderr);
    let line = text.lines().rev().find(|line| !line.trim().is_empty());
    Err(format!(
        "not measured: {}",
        line.unwrap_or("it failed without a word").trim()
    ))
}

/// A directory of its own with the attacker in it.
struct Place {
    dir: PathBuf,
}

impl Place {
    fn make(parent: &Path) -> Result<Self, RedTeamError> {
        use stockade_ports::{Clock as _, SystemClock};
        let name = format!("stockade-redteam-{}", SystemClock.uuid().simple());
        let dir = parent.join(name);
        let what = format!("the directory {}", dir.display());
        fs::create_dir(&dir).map_err(prepare(what.clone()))?;
        let this = Self { dir };
        executable(&this.attacker()).map_err(prepare(what))?;
        Ok(this)
    }

    fn attacker(&self) -> PathBuf {
        self.dir.join("attacker")
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.dir);
    }
}
