//! Files planted on the host: some must not be read, none may change.

use std::{
    collections::BTreeMap,
    fs::{self, Permissions},
    io,
    os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown},
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use crate::{ATTACKER, RedTeamError, judge::Sighting, prepare};

/// Where every user may write; a sandbox that shares one of them with the host is no sandbox.
const SHARED: [&str; 3] = ["/tmp", "/var/tmp", "/dev/shm"];

/// What the red team planted. Removed when it is dropped.
pub(crate) struct Plants {
    /// Private to the red team; holds what the sandboxes are given.
    pub(crate) scratch: PathBuf,
    /// Directories of the red team's in places every user may write to.
    pub(crate) public: Vec<PathBuf>,
    before: BTreeMap<PathBuf, Kept>,
}

/// A planted file as it was.
#[derive(PartialEq, Eq)]
struct Kept {
    mode: u32,
    content: Option<Vec<u8>>,
}

impl Plants {
    /// Plants everything below `scratch`, which must not exist, and in the shared places.
    pub(crate) fn make(scratch: &Path, name: &str, token: &str, root: bool) -> Result<Self, RedTeamError> {
        let mut this = Self {
            scratch: scratch.to_owned(),
            public: Vec::new(),
            before: BTreeMap::new(),
        };
        this.plant(name, token, root)
            .map_err(prepare(format!("its files in {}", scratch.display())))?;
        this.before = this.look();
        Ok(this)
    }

    fn plant(&mut self, name: &str, token: &str, root: bool) -> io::Result<()> {
        for part in ["host", "workspace/src", "base.git", "agents", "outside", "control"] {
            fs::create_dir_all(self.scratch.join(part))?;
        }
        self.public.push(self.scratch.join("host"));
        for shared in SHARED {
            let dir = Path::new(shared).join(name);
            // A host without one of them has nothing to share there.
            if fs::create_dir(&dir).is_ok() {
                fs::set_permissions(&dir, Permissions::from_mode(0o755))?;
                self.public.push(dir);
            }
        }
        for dir in &self.public {
            file(&dir.join("canary"), token.as_bytes(), 0o666)?;
        }
        let text = format!("{token}\n");
        file(&self.scratch.join("workspace/README"), text.as_bytes(), 0o644)?;
        file(&self.scratch.join("workspace/src/lib"), b"code\n", 0o644)?;
        file(&self.scratch.join("base.git/HEAD"), b"ref: refs/heads/main\n", 0o644)?;
        file(&self.scratch.join("agents/canary"), text.as_bytes(), 0o666)?;
        file(&self.attacker(), ATTACKER, 0o755)?;
        let rights = [self.scratch.join("agents")].into_iter().chain(self.shared());
        for dir in rights.collect::<Vec<_>>() {
            file(&dir.join("attacker"), ATTACKER, 0o755)?;
            self.plant_rights(&dir, root)?;
        }
        for path in ["control/reopen", "control/link", "control/append"] {
            file(&self.scratch.join(path), text.as_bytes(), 0o644)?;
        }
        Ok(())
    }

    /// A set-user-ID attacker, and one with file capabilities where root can give them.
    fn plant_rights(&self, dir: &Path, root: bool) -> io::Result<()> {
        let (suid, capable) = (dir.join("suid"), dir.join("capable"));
        file(&suid, ATTACKER, 0o755)?;
        file(&capable, ATTACKER, 0o755)?;
        if root {
            // The owner first: changing it clears the bit.
            chown(&suid, Some(0), Some(0))?;
            let mut give = Command::new(self.attacker());
            give.arg("capable").arg(format!("path={}", capable.display()));
            // A file system without attributes has no such programs; then the control says so.
            give.env_clear().stdout(Stdio::null()).status()?;
        }
        fs::set_permissions(&suid, Permissions::from_mode(0o4755))
    }

    /// Directories of the red team's that every user can reach, each with an attacker, one that is
    /// set-user-ID and one with file capabilities.
    pub(crate) fn shared(&self) -> impl Iterator<Item = PathBuf> {
        self.public[1..].iter().cloned()
    }

    /// The attacker for controls.
    pub(crate) fn attacker(&self) -> PathBuf {
        self.scratch.join("outside/attacker")
    }

    /// A directory for one control to work in.
    pub(crate) fn outside(&self) -> PathBuf {
        self.scratch.join("outside")
    }

    /// A directory for controls that write much: in memory, where there is one.
    pub(crate) fn quick(&self) -> PathBuf {
        let shared = self.public.iter().find(|dir| dir.starts_with("/dev/shm"));
        shared.cloned().unwrap_or_else(|| self.outside())
    }

    /// Files that may be written by controls, and are looked at by nobody else.
    pub(crate) fn control(&self, name: &str) -> String {
        self.scratch.join("control").join(name).display().to_string()
    }

    /// Host files that must be neither read nor written from inside.
    pub(crate) fn canaries(&self) -> impl Iterator<Item = String> {
        self.public.iter().map(|dir| dir.join("canary").display().to_string())
    }

    /// Paths of the planted unix sockets.
    pub(crate) fn sockets(&self) -> impl Iterator<Item = PathBuf> {
        self.public.iter().map(|dir| dir.join("socket"))
    }

    /// Everything of the host's that sandboxes are given or could find, as it is now.
    fn look(&self) -> BTreeMap<PathBuf, Kept> {
        let mut found = BTreeMap::new();
        let given = ["workspace", "base.git", "agents"].map(|part| self.scratch.join(part));
        for dir in self.public.iter().chain(&given) {
            walk(dir, &mut found);
        }
        found
    }

    /// Whether every planted file is as it was and nothing was added.
    pub(crate) fn unchanged(&self) -> Sighting {
        let now = self.look();
        let mut changed: Vec<_> = self
            .before
            .iter()
            .filter(|(path, kept)| now.get(*path) != Some(kept))
            .map(|(path, _)| format!("{} changed", path.display()))
            .collect();
        let added = now.keys().filter(|path| !self.before.contains_key(*path));
        changed.extend(added.map(|path| format!("{} is new", path.display())));
        let seen = if changed.is_empty() {
            "unchanged".to_owned()
        } else {
            changed.join(", ")
        };
        Sighting::new("planted files", "unchanged", seen, changed.is_empty())
    }

    /// Puts everything back, so that every case is judged by what it did itself.
    pub(crate) fn restore(&self) {
        for path in self.look().keys().rev() {
            if !self.before.contains_key(path) {
                let _ = fs::remove_file(path).or_else(|_| fs::remove_dir(path));
            }
        }
        for (path, kept) in &self.before {
            if let Some(content) = &kept.content {
                let same = fs::read(path).is_ok_and(|now| now == *content);
                let _ = if same { Ok(()) } else { fs::write(path, content) };
            }
            let _ = fs::set_permissions(path, Permissions::from_mode(kept.mode & 0o7777));
        }
    }

    /// Takes the present state as the one to keep; for sockets that are added once.
    pub(crate) fn settle(&mut self) {
        self.before = self.look();
    }

    /// Files of that name in the shared places, outside the red team's own directories.
    pub(crate) fn dropped(name: &str) -> Vec<PathBuf> {
        let places = SHARED
            .into_iter()
            .chain(["/", "/run", "/home/agent", "/workspace", "/dev"]);
        places
            .map(|dir| Path::new(dir).join(name))
            .filter(|path| path.exists())
            .collect()
    }
}

impl Drop for Plants {
    fn drop(&mut self) {
        for dir in self.public.iter().chain([&self.scratch]) {
            let _ = fs::remove_dir_all(dir);
        }
    }
}

fn file(path: &Path, content: &[u8], mode: u32) -> io::Result<()> {
    fs::write(path, content)?;
    fs::set_permissions(path, Permissions::from_mode(mode))
}

fn walk(path: &Path, found: &mut BTreeMap<PathBuf, Kept>) {
    let Ok(meta) = fs::symlink_metadata(path) else { return };
    let content = if meta.is_file() { fs::read(path).ok() } else { None };
    let mode = meta.mode();
    found.insert(path.to_owned(), Kept { mode, content });
    if meta.is_dir() {
        for entry in fs::read_dir(path).into_iter().flatten().flatten() {
            walk(&entry.path(), found);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plants(dir: &Path) -> Plants {
        let name = format!("stockade-redteam-test-{}", std::process::id());
        Plants::make(&dir.join("scratch"), &name, "token", false).unwrap()
    }

    #[test]
    fn every_kind_of_change_is_seen_and_everything_is_removed() {
        let dir = tempfile::tempdir().unwrap();
        let plants = plants(dir.path());
        let seen = || plants.unchanged();
        assert!(seen().ok, "{:?}", seen());
        let canary = plants.public[1].join("canary");
        fs::write(&canary, "attacked").unwrap();
        assert!(!seen().ok);
        fs::write(&canary, "token").unwrap();
        assert!(seen().ok);
        let readme = plants.scratch.join("workspace/README");
        fs::set_permissions(&readme, Permissions::from_mode(0o600)).unwrap();
        assert!(!seen().ok);
        fs::set_permissions(&readme, Permissions::from_mode(0o644)).unwrap();
        fs::write(plants.scratch.join("base.git/new"), "").unwrap();
        assert!(!seen().ok);
        fs::write(&canary, "attacked").unwrap();
        plants.restore();
        assert!(seen().ok, "{:?}", seen());
        let public = plants.public.clone();
        drop(plants);
        assert!(public.iter().all(|dir| !dir.exists()));
    }
}
