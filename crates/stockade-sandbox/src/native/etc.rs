//! The sandbox's `/etc`: generated accounts and names, and settings of the host that
//! programs need and that are public on the host anyway.

use std::{
    collections::BTreeMap,
    fs::{self, DirBuilder, Permissions},
    hash::{DefaultHasher, Hash, Hasher},
    io,
    os::unix::fs::{MetadataExt, PermissionsExt, symlink},
    path::{Path, PathBuf},
};

use stockade_ports::sandbox::BASE_GIT_DIR;

use crate::INSIDE_ID;

/// Where the Guard answers DNS questions: an address of the range for benchmarks
/// (RFC 2544) that is nobody's, so that no program takes it for a loopback.
const NAME_SERVER: &str = "198.18.0.1";
/// Larger files are no settings.
const MAX_FILE: u64 = 8 << 20;
const UNAVAILABLE: [io::ErrorKind; 2] = [io::ErrorKind::PermissionDenied, io::ErrorKind::NotFound];
const MAX_DEPTH: u32 = 6;

/// Copied where they exist and everybody on the host may read them. Nothing that
/// commonly holds credentials (npmrc, pip.conf, gitconfig, environment, profile.d …).
const FILES: [&str; 22] = [
    "ld.so.cache",
    "ld.so.conf",
    "nsswitch.conf",
    "mime.types",
    "protocols",
    "services",
    "rpc",
    "localtime",
    "timezone",
    "os-release",
    "lsb-release",
    "debian_version",
    "redhat-release",
    "alpine-release",
    "locale.alias",
    "locale.conf",
    "inputrc",
    "gai.conf",
    "host.conf",
    "magic",
    "magic.mime",
    "shells",
];
const TREES: [&str; 11] = [
    "ssl/openssl.cnf",
    "pki/tls/openssl.cnf",
    "ld.so.conf.d",
    "ssl/certs",
    "pki/tls/certs",
    "pki/ca-trust/extracted",
    "crypto-policies",
    "alternatives",
    "terminfo",
    "fonts",
    "skel",
];
/// Settings of language runtimes, which carry versions in their names.
const RUNTIMES: [&str; 3] = ["python3", "perl", "java"];

/// What one entry of the generated directory is made from.
enum Entry {
    Directory,
    Link(PathBuf),
    /// A public file of the host.
    Copy,
    Text(String),
}

/// The generated directory before it exists: relative paths, parents first.
pub(crate) struct Plan {
    from: PathBuf,
    entries: BTreeMap<PathBuf, Entry>,
    fingerprint: u64,
}

impl Plan {
    /// Looks at `from` (the host's `/etc`) and decides what of it appears inside.
    pub(crate) fn make(from: &Path) -> io::Result<Self> {
        let mut plan = Self {
            from: from.to_owned(),
            entries: BTreeMap::new(),
            fingerprint: 0,
        };
        let mut hasher = DefaultHasher::new();
        env!("CARGO_PKG_VERSION").hash(&mut hasher);
        for (name, text) in generated() {
            text.hash(&mut hasher);
            plan.entries.insert(name.into(), Entry::Text(text));
        }
        let mtab = Entry::Link("/proc/self/mounts".into());
        plan.entries.insert("mtab".into(), mtab);
        for name in FILES.iter().chain(&TREES) {
            plan.add(Path::new(name), MAX_DEPTH, &mut hasher)?;
        }
        for entry in sorted(from)? {
            if RUNTIMES.iter().any(|runtime| entry.starts_with(runtime)) {
                plan.add(Path::new(&entry), MAX_DEPTH, &mut hasher)?;
            }
        }
        plan.fingerprint = hasher.finish();
        Ok(plan)
    }

    /// Differs when what [`Plan::write`] would write differs.
    pub(crate) fn fingerprint(&self) -> String {
        format!("{:016x}", self.fingerprint)
    }

    /// Adds what everybody may read below `name`. What has gone is not there.
    fn add(&mut self, name: &Path, depth: u32, hasher: &mut DefaultHasher) -> io::Result<()> {
        let path = self.from.join(name);
        let Ok(meta) = fs::symlink_metadata(&path) else {
            return Ok(());
        };
        if self.entries.contains_key(name) {
            return Ok(());
        }
        let public = meta.mode() & 0o004 != 0;
        let entry = if meta.is_symlink() {
            Entry::Link(fs::read_link(&path)?)
        } else if meta.is_dir() && public && depth > 0 {
            Entry::Directory
        } else if meta.is_file() && public && meta.len() <= MAX_FILE {
            Entry::Copy
        } else {
            return Ok(());
        };
        name.hash(hasher);
        (meta.mode(), meta.size(), meta.mtime(), meta.mtime_nsec()).hash(hasher);
        for parent in name.ancestors().skip(1).filter(|p| !p.as_os_str().is_empty()) {
            self.entries.insert(parent.to_owned(), Entry::Directory);
        }
        let is_directory = matches!(entry, Entry::Directory);
        self.entries.insert(name.to_owned(), entry);
        if is_directory {
            for child in sorted(&path)? {
                // Compressed files are manual pages: half of the alternatives of a Debian.
                if child != "private" && !child.ends_with(".gz") {
                    self.add(&name.join(child), depth - 1, hasher)?;
                }
            }
        }
        Ok(())
    }

    /// Makes the directory `to` and fills it.
    pub(crate) fn write(&self, to: &Path) -> io::Result<()> {
        directory(to)?;
        for (name, entry) in &self.entries {
            let target = to.join(name);
            match entry {
                Entry::Directory => directory(&target)?,
                Entry::Link(link) => symlink(link, &target)?,
                Entry::Text(text) => write(&target, text.as_bytes())?,
                Entry::Copy => match fs::read(self.from.join(name)) {
                    Ok(bytes) => write(&target, &bytes)?,
                    // It may have gone since; what we cannot read is not public.
                    Err(e) if UNAVAILABLE.contains(&e.kind()) => {}
                    Err(e) => return Err(e),
                },
            }
        }
        Ok(())
    }
}

/// Writes the accounts and names every sandbox has, whatever its image says.
pub(crate) fn write_generated(to: &Path) -> io::Result<()> {
    directory(to)?;
    generated()
        .iter()
        .try_for_each(|(name, text)| write(&to.join(name), text.as_bytes()))
}

/// Accounts and names, the same in every sandbox.
pub(crate) fn generated() -> [(&'static str, String); 6] {
    let id = INSIDE_ID;
    [
        (
            "passwd",
            format!(
                "root:x:0:0:root:/root:/usr/sbin/nologin\n\
                 agent:x:{id}:{id}:agent:/home/agent:/bin/bash\n\
                 nobody:x:65534:65534:nobody:/nonexistent:/usr/sbin/nologin\n"
            ),
        ),
        ("group", format!("root:x:0:\nagent:x:{id}:\nnogroup:x:65534:\n")),
        ("hostname", "sandbox\n".to_owned()),
        (
            "hosts",
            "127.0.0.1 localhost sandbox\n::1 localhost ip6-localhost ip6-loopback\n".to_owned(),
        ),
        (
            "resolv.conf",
            format!("nameserver {NAME_SERVER}\noptions timeout:5 attempts:2\n"),
        ),
        ("gitconfig", format!("[safe]\n\tdirectory = {BASE_GIT_DIR}\n")),
    ]
}

fn sorted(dir: &Path) -> io::Result<Vec<String>> {
    let entries = fs::read_dir(dir)?.flatten();
    let names = entries.filter_map(|e| e.file_name().into_string().ok());
    let mut names: Vec<_> = names.collect();
    names.sort_unstable();
    Ok(names)
}

fn directory(path: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).create(path)?;
    fs::set_permissions(path, Permissions::from_mode(0o755))
}

fn write(path: &Path, bytes: &[u8]) -> io::Result<()> {
    fs::write(path, bytes)?;
    fs::set_permissions(path, Permissions::from_mode(0o644))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_public_listed_settings_arrive() {
        let dir = tempfile::tempdir().expect("temp dir");
        let (from, to) = (dir.path().join("host"), dir.path().join("etc"));
        fs::create_dir_all(from.join("ssl/private")).expect("mkdir");
        fs::create_dir_all(from.join("ssl/certs")).expect("mkdir");
        fs::create_dir_all(from.join("alternatives")).expect("mkdir");
        for (name, mode) in [
            ("ssl/private/key.pem", 0o644),
            ("ssl/certs/ca.pem", 0o644),
            ("ssl/certs/secret.pem", 0o600),
            ("shadow", 0o644),
            ("npmrc", 0o644),
            ("services", 0o644),
            ("alternatives/vi.1.gz", 0o644),
            ("alternatives/vi", 0o644),
            ("passwd", 0o644),
        ] {
            fs::write(from.join(name), format!("host {name}")).expect("write");
            fs::set_permissions(from.join(name), Permissions::from_mode(mode)).expect("chmod");
        }
        let plan = Plan::make(&from).expect("plans");
        plan.write(&to).expect("writes");
        for there in [
            "ssl/certs/ca.pem",
            "services",
            "alternatives/vi",
            "passwd",
            "resolv.conf",
        ] {
            assert!(to.join(there).exists(), "{there}");
        }
        for absent in [
            "ssl/private",
            "ssl/certs/secret.pem",
            "shadow",
            "npmrc",
            "alternatives/vi.1.gz",
        ] {
            assert!(!to.join(absent).exists(), "{absent}");
        }
        let passwd = fs::read_to_string(to.join("passwd")).expect("passwd");
        assert!(passwd.contains("agent:x:1000") && !passwd.contains("host"));
        let again = Plan::make(&from).expect("plans").fingerprint();
        assert_eq!(plan.fingerprint(), again);
        fs::write(from.join("services"), "another length").expect("write");
        let changed = Plan::make(&from).expect("plans").fingerprint();
        assert_ne!(plan.fingerprint(), changed);
    }
}
