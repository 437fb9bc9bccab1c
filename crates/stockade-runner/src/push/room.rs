//! The git directory a pack is unpacked in.

use std::path::{Path, PathBuf};

use stockade_domain::Failure;
use stockade_ports::{PackBytes, PushToInspect};
use tokio::fs;

use crate::{RunnerConfig, git::Git, mishap, text};

/// A git directory for one push.
pub(super) struct Room<'a> {
    pub(super) config: &'a RunnerConfig,
    pub(super) base_git: &'a Path,
    pub(super) kept: PathBuf,
    pub(super) git_dir: &'a Path,
}

impl Room<'_> {
    /// A command on the objects of the push, the base and earlier pushes.
    pub(super) fn git(&self, what: &str) -> Git {
        Git::bounded(self.config, what)
            .env("GIT_NO_REPLACE_OBJECTS", "1")
            .git_dir(self.git_dir)
    }

    /// A command on the objects that were there before the push.
    pub(super) fn before(&self, what: &str) -> Git {
        Git::bounded(self.config, what)
            .env("GIT_NO_REPLACE_OBJECTS", "1")
            .env("GIT_ALTERNATE_OBJECT_DIRECTORIES", self.kept.join("objects"))
            .git_dir(self.base_git)
    }

    /// Makes it and unpacks the pack in it.
    pub(super) async fn open(&self, push: &PushToInspect) -> Result<(), Failure> {
        let failed = |e: std::io::Error| mishap::io("preparing to look into a push", &e);
        let format = self.format(push).await?;
        make(self.config, self.git_dir, &format).await?;
        let mut borrowed = format!("{}\n", self.base_git.join("objects").display());
        if fs::try_exists(&self.kept).await.map_err(failed)? {
            borrowed.push_str(&format!("{}\n", self.kept.join("objects").display()));
        }
        let info = self.git_dir.join("objects/info");
        fs::create_dir_all(&info).await.map_err(failed)?;
        fs::write(info.join("alternates"), borrowed).await.map_err(failed)?;
        let path = match &push.pack {
            PackBytes::None => return Ok(()),
            PackBytes::File(path) => path.clone(),
            PackBytes::Memory(bytes) => {
                let path = self.git_dir.join("incoming");
                fs::write(&path, bytes).await.map_err(failed)?;
                path
            }
        };
        // A file and no pipe: only then does git notice what stands behind the pack.
        let pack = fs::File::open(&path).await.map_err(failed)?.into_std().await;
        let most = format!("--max-input-size={}", push.max_pack_bytes);
        let answer = self
            .git("reading the pack of a push")
            .args(["index-pack", "--stdin", "--fix-thin", "--strict", "--threads=1", &most])
            .input_file(pack)
            .run()
            .await?;
        match answer.ok {
            true => Ok(()),
            false => Err(broken("the pack is not one that git takes", &answer.stderr)),
        }
    }

    /// The hash of the repository, which the push must share.
    async fn format(&self, push: &PushToInspect) -> Result<String, Failure> {
        let format = Git::new(self.config, "reading the base copy")
            .git_dir(self.base_git)
            .args(["rev-parse", "--show-object-format"])
            .succeed()
            .await?
            .line();
        let digits = if format == "sha256" { 64 } else { 40 };
        let fits = |update: &stockade_domain::RefUpdate| update.new.as_str().len() == digits;
        if push.updates.iter().all(fits) {
            return Ok(format);
        }
        let words = "the push names its objects with another hash than the repository of this run";
        Err(Failure::terminal("push_invalid", words))
    }

    /// The index of the pack, where there is one.
    pub(super) async fn index(&self) -> Result<Option<PathBuf>, Failure> {
        let files = files(&self.git_dir.join("objects/pack")).await?;
        Ok(files
            .into_iter()
            .find(|path| path.extension().is_some_and(|end| end == "idx")))
    }
}

/// A refusal with git's words, fit for whoever pushed.
pub(super) fn broken(what: &str, stderr: &str) -> Failure {
    let words = text::redact(&text::middle_out(stderr.trim(), 600));
    Failure::terminal("push_invalid", format!("{what}: {}", words.replace('\n', "; ")))
}

async fn make(config: &RunnerConfig, dir: &Path, format: &str) -> Result<(), Failure> {
    if let Some(parent) = dir.parent() {
        let made = fs::create_dir_all(parent).await;
        made.map_err(|e| mishap::io("preparing to look into a push", &e))?;
    }
    Git::new(config, "preparing to look into a push")
        .args(["init", "--quiet", "--bare", "--template=", "--initial-branch=main"])
        .args([format!("--object-format={format}")])
        .args([dir])
        .succeed()
        .await
        .map(drop)
}

/// Moves the packs of a push to where later pushes find them; the index last, which is what
/// makes git see a pack.
pub(super) async fn keep(config: &RunnerConfig, from: &Path, kept: &Path) -> Result<(), Failure> {
    let failed = |e: std::io::Error| mishap::io("keeping the objects of a push", &e);
    if !fs::try_exists(kept).await.map_err(failed)? {
        let format = Git::new(config, "keeping the objects of a push")
            .git_dir(from)
            .args(["rev-parse", "--show-object-format"])
            .succeed()
            .await?
            .line();
        make(config, kept, &format).await?;
    }
    let to = kept.join("objects/pack");
    fs::create_dir_all(&to).await.map_err(failed)?;
    let mut packs = files(&from.join("objects/pack")).await?;
    packs.sort_by_key(|path| path.extension().is_some_and(|end| end == "idx"));
    for path in packs {
        if let Some(name) = path.file_name() {
            fs::rename(&path, to.join(name)).await.map_err(failed)?;
        }
    }
    Ok(())
}

/// Bytes of the packs that are kept.
pub(super) async fn kept_bytes(kept: &Path) -> u64 {
    let mut bytes = 0;
    for path in files(&kept.join("objects/pack")).await.unwrap_or_default() {
        bytes += fs::metadata(&path).await.map_or(0, |found| found.len());
    }
    bytes
}

async fn files(dir: &Path) -> Result<Vec<PathBuf>, Failure> {
    let failed = |e: std::io::Error| mishap::io("reading the pack of a push", &e);
    let mut found = Vec::new();
    let mut entries = match fs::read_dir(dir).await {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(found),
        Err(error) => return Err(failed(error)),
    };
    while let Some(entry) = entries.next_entry().await.map_err(failed)? {
        found.push(entry.path());
    }
    Ok(found)
}
