//! The sandbox's `/etc`: generated accounts and names, and settings of the host that
//! programs need and that are public on the host anyway.

use std::{
    fs::{self, DirBuilder, Permissions},
    io,
    os::unix::fs::{MetadataExt, PermissionsExt, symlink},
    path::Path,
};

use crate::INSIDE_ID;

/// Where the Guard answers DNS questions: an address of the range for benchmarks
/// (RFC 2544) that is nobody's, so that no program takes it for a loopback.
const NAME_SERVER: &str = "198.18.0.1";
/// Larger files are no settings.
const MAX_FILE: u64 = 8 << 20;
const MAX_DEPTH: u32 = 6;

/// Copied where they exist and everybody on the host may read them. Nothing that
/// commonly holds credentials (npmrc, pip.conf, gitconfig, environment, profile.d …).
const FILES: [&str; 22] = [
    "ld.so.cache", "ld.so.conf", "nsswitch.conf", "mime.types", "protocols", "services", "rpc",
    "localtime", "timezone", "os-release", "lsb-release", "debian_version", "redhat-release",
    "alpine-release", "locale.alias", "locale.conf", "inputrc", "gai.conf", "host.conf", "magic",
    "magic.mime", "shells",
];
const DIRECTORIES: [&str; 9] = [
    "ld.so.conf.d", "ssl/certs", "pki/tls/certs", "pki/ca-trust/extracted", "crypto-policies",
    "alternatives", "terminfo", "fonts", "skel",
];
/// Settings of language runtimes, which carry versions in their names.
const RUNTIMES: [&str; 3] = ["python3", "perl", "java"];
const SSL_FILES: [&str; 2] = ["ssl/openssl.cnf", "pki/tls/openssl.cnf"];

/// Makes the directory `to` and fills it from `from` (the host's `/etc`).
pub(crate) fn generate(from: &Path, to: &Path) -> io::Result<()> {
    directory(to)?;
    for name in FILES.iter().chain(&SSL_FILES) {
        copy(from, to, name)?;
    }
    for name in DIRECTORIES {
        copy(from, to, name)?;
    }
    for entry in fs::read_dir(from)?.flatten() {
        if let Some(name) = entry.file_name().to_str()
            && RUNTIMES.iter().any(|runtime| name.starts_with(runtime))
        {
            copy(from, to, name)?;
        }
    }
    let id = INSIDE_ID;
    for (name, text) in [
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
        ("resolv.conf", format!("nameserver {NAME_SERVER}\noptions timeout:5 attempts:2\n")),
        ("gitconfig", "[safe]\n\tdirectory = /run/stockade/base.git\n".to_owned()),
    ] {
        write(&to.join(name), text.as_bytes())?;
    }
    symlink("/proc/self/mounts", to.join("mtab"))
}

fn directory(path: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).create(path)?;
    fs::set_permissions(path, Permissions::from_mode(0o755))
}

fn write(path: &Path, bytes: &[u8]) -> io::Result<()> {
    fs::write(path, bytes)?;
    fs::set_permissions(path, Permissions::from_mode(0o644))
}

fn copy(from: &Path, to: &Path, name: &str) -> io::Result<()> {
    let target = to.join(name);
    if fs::symlink_metadata(&target).is_ok() {
        return Ok(());
    }
    if let Some(parent) = target.parent() {
        directory(parent)?;
    }
    copy_public(&from.join(name), &target, MAX_DEPTH)
}

/// Copies what everybody may read. What cannot be read or has gone is not there.
fn copy_public(from: &Path, to: &Path, depth: u32) -> io::Result<()> {
    let Ok(meta) = fs::symlink_metadata(from) else {
        return Ok(());
    };
    if meta.is_symlink() {
        return symlink(fs::read_link(from)?, to);
    }
    let public = meta.mode() & 0o004 != 0;
    if meta.is_dir() && public && depth > 0 {
        directory(to)?;
        for entry in fs::read_dir(from)?.flatten() {
            if entry.file_name() != "private" {
                copy_public(&entry.path(), &to.join(entry.file_name()), depth - 1)?;
            }
        }
    } else if meta.is_file() && public && meta.len() <= MAX_FILE {
        match fs::read(from) {
            Ok(bytes) => write(to, &bytes)?,
            Err(e) if e.kind() == io::ErrorKind::PermissionDenied => {}
            Err(e) => return Err(e),
        }
    }
    Ok(())
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
        for (name, mode) in [
            ("ssl/private/key.pem", 0o644),
            ("ssl/certs/ca.pem", 0o644),
            ("ssl/certs/secret.pem", 0o600),
            ("shadow", 0o644),
            ("npmrc", 0o644),
            ("services", 0o644),
            ("passwd", 0o644),
        ] {
            fs::write(from.join(name), format!("host {name}")).expect("write");
            fs::set_permissions(from.join(name), Permissions::from_mode(mode)).expect("chmod");
        }
        generate(&from, &to).expect("generates");
        for there in ["ssl/certs/ca.pem", "services", "passwd", "resolv.conf"] {
            assert!(to.join(there).exists(), "{there}");
        }
        for absent in ["ssl/private", "ssl/certs/secret.pem", "shadow", "npmrc"] {
            assert!(!to.join(absent).exists(), "{absent}");
        }
        let passwd = fs::read_to_string(to.join("passwd")).expect("passwd");
        assert!(passwd.contains("agent:x:1000") && !passwd.contains("host"));
    }
}
