//! The installation's secrets on disk: the receipt key, the key of the teams' secrets and the operator's token.

use std::{
    fs::{self, OpenOptions},
    io::{self, Write as _},
    os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
};

use ed25519_dalek::{
    SigningKey, VerifyingKey,
    pkcs8::{
        DecodePrivateKey as _, DecodePublicKey as _, EncodePrivateKey as _, EncodePublicKey as _,
        spki::der::pem::LineEnding,
    },
};

use secrecy::ExposeSecret as _;
use stockade_vault::InstallationKey;
use zeroize::Zeroizing;

use crate::{
    exit::{Complaint, Exit},
    settings::KeySource,
};

fn private_path(state_dir: &Path) -> PathBuf {
    state_dir.join("keys/receipt.pem")
}

/// Where the public half of the receipt key lies.
pub(crate) fn public_path(state_dir: &Path) -> PathBuf {
    state_dir.join("keys/receipt.pub.pem")
}

/// The key that signs receipts (Ed25519, RFC 8032, as PKCS #8 PEM), made at first use.
pub(crate) fn signing_key(state_dir: &Path) -> Result<SigningKey, Complaint> {
    let path = private_path(state_dir);
    let broken = |what: String| {
        Complaint::new(Exit::Unsafe, format!("the receipt key {} {what}", path.display()))
            .hint("restore it from a backup; without it new receipts would not match old ones")
    };
    match fs::metadata(&path) {
        Ok(meta) if meta.permissions().mode() & 0o077 != 0 => Err(broken("can be read by others".to_owned())),
        Ok(_) => {
            let pem = fs::read_to_string(&path).map_err(|e| broken(format!("cannot be read: {e}")))?;
            SigningKey::from_pkcs8_pem(&pem).map_err(|e| broken(format!("is not a key: {e}")))
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => make_key(state_dir, &path),
        Err(error) => Err(broken(format!("cannot be read: {error}"))),
    }
}

fn make_key(state_dir: &Path, path: &Path) -> Result<SigningKey, Complaint> {
    let failed =
        |e: &dyn std::fmt::Display| Complaint::usage(format!("cannot make the receipt key {}: {e}", path.display()));
    let mut seed = [0; 32];
    getrandom::fill(&mut seed).map_err(|e| failed(&e))?;
    let key = SigningKey::from_bytes(&seed);
    let pem = key.to_pkcs8_pem(LineEnding::LF).map_err(|e| failed(&e))?;
    let public = key
        .verifying_key()
        .to_public_key_pem(LineEnding::LF)
        .map_err(|e| failed(&e))?;
    fs::create_dir_all(state_dir.join("keys")).map_err(|e| failed(&e))?;
    // The public half first: a private key without it would be found, trusted and unverifiable.
    fs::write(public_path(state_dir), public).map_err(|e| failed(&e))?;
    write_private(path, pem.as_bytes()).map_err(|e| failed(&e))?;
    Ok(key)
}

/// The key that secrets are sealed with. One of our own is made at first use, unless there are secrets already: a
/// new key would open none of them.
pub(crate) fn secrets_key(state_dir: &Path, source: &KeySource, in_use: bool) -> Result<InstallationKey, Complaint> {
    let path = match source {
        KeySource::Variable(name, text) => {
            return InstallationKey::from_text(text.expose_secret()).map_err(|e| {
                Complaint::usage(format!("the key of the secrets in {name} cannot be used: {e}"))
                    .hint("make one with: openssl rand -hex 32")
            });
        }
        KeySource::File(path) => path.clone(),
        KeySource::Own => state_dir.join("keys/secrets.key"),
    };
    let own = matches!(source, KeySource::Own);
    let broken = |what: String| {
        Complaint::new(
            Exit::Unsafe,
            format!("the key of the secrets {} {what}", path.display()),
        )
        .hint("restore it from a backup (mode 0600); another key opens none of the secrets that were set")
    };
    match fs::metadata(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound && own && !in_use => make_secrets_key(&path)?,
        Err(error) => return Err(broken(format!("cannot be read: {error}"))),
        Ok(meta) if meta.permissions().mode() & 0o077 != 0 => return Err(broken("can be read by others".to_owned())),
        Ok(_) => {}
    }
    let text = fs::read_to_string(&path).map(Zeroizing::new);
    let text = text.map_err(|e| broken(format!("cannot be read: {e}")))?;
    InstallationKey::from_text(&text).map_err(|e| broken(format!("cannot be used: {e}")))
}

/// Whoever comes second at first use finds the key of the first.
fn make_secrets_key(path: &Path) -> Result<(), Complaint> {
    let make = || -> anyhow::Result<()> {
        let key = InstallationKey::generate()?;
        if let Some(dir) = path.parent() {
            fs::create_dir_all(dir)?;
        }
        let draft = path.with_extension(format!("new.{}", std::process::id()));
        write_private(&draft, key.to_text().as_bytes())?;
        let linked = fs::hard_link(&draft, path);
        fs::remove_file(&draft)?;
        match linked {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error.into()),
            _ => Ok(()),
        }
    };
    make().map_err(|e| Complaint::usage(format!("cannot make the key of the secrets {}: {e}", path.display())))
}

/// Reads a public key.
pub(crate) fn verifying_key(path: &Path) -> Result<VerifyingKey, Complaint> {
    let pem = fs::read_to_string(path).map_err(|e| {
        Complaint::usage(format!("cannot read the public key {}: {e}", path.display()))
            .hint("pass the key of the installation that made the receipt with --key FILE")
    })?;
    VerifyingKey::from_public_key_pem(&pem)
        .map_err(|e| Complaint::usage(format!("{} is not an Ed25519 public key in PEM: {e}", path.display())))
}

/// Writes a file that only its owner reads, whole or not at all.
pub(crate) fn write_private(path: &Path, content: &[u8]) -> io::Result<()> {
    let draft = path.with_extension(format!("{}.tmp", std::process::id()));
    let mut file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&draft)?;
    file.write_all(content)?;
    file.sync_all()?;
    fs::rename(&draft, path)
}

/// The first digits of a key's id, enough for people to compare.
pub(crate) fn short(key_id: &str) -> &str {
    key_id.get(..23).unwrap_or(key_id)
}

/// The operator's token as the CLI finds it, if one was made.
pub(crate) fn operator_token(state_dir: &Path) -> Result<Option<String>, Complaint> {
    let path = state_dir.join("token");
    match fs::read_to_string(&path) {
        Ok(text) => Ok(Some(text.trim().to_owned())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(Complaint::usage(format!(
            "cannot read the token {}: {error}",
            path.display()
        ))),
    }
}

/// Keeps the operator's token for the CLI.
pub(crate) fn keep_operator_token(state_dir: &Path, secret: &str) -> io::Result<()> {
    write_private(&state_dir.join("token"), secret.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_key_of_the_secrets_is_made_once_and_never_in_the_place_of_another() {
        let dir = tempfile::tempdir().unwrap();
        let key = |source: &KeySource, in_use| secrets_key(dir.path(), source, in_use).map(|key| key.to_text());
        let lost = key(&KeySource::Own, true).unwrap_err();
        assert_eq!(lost.exit, Exit::Unsafe, "there are secrets and no key");
        let first = key(&KeySource::Own, false).unwrap();
        assert_eq!(key(&KeySource::Own, true).unwrap(), first);
        make_secrets_key(&dir.path().join("keys/secrets.key")).unwrap();
        assert_eq!(key(&KeySource::Own, false).unwrap(), first, "the first one stays");
        let path = dir.path().join("keys/secrets.key");
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(
            fs::read_dir(dir.path().join("keys")).unwrap().count(),
            1,
            "no draft is left"
        );
        let named = KeySource::File(path.clone());
        assert_eq!(key(&named, false).unwrap(), first);
        let elsewhere = KeySource::File(dir.path().join("none"));
        assert_eq!(
            key(&elsewhere, false).unwrap_err().exit,
            Exit::Unsafe,
            "a named one is not made"
        );
        let variable = |text: &str| KeySource::Variable("KEY".to_owned(), text.to_owned().into());
        assert_eq!(key(&variable(&first), false).unwrap(), first);
        let wrong = key(&variable("canary"), false).unwrap_err();
        assert!(
            wrong.message.contains("KEY") && !wrong.message.contains("canary"),
            "{wrong}"
        );
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        assert_eq!(key(&named, false).unwrap_err().exit, Exit::Unsafe);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        fs::write(&path, "canary").unwrap();
        let damaged = key(&KeySource::Own, false).unwrap_err();
        assert!(!damaged.message.contains("canary"), "{damaged}");
    }

    #[test]
    fn the_key_is_made_once_and_kept_private() {
        let dir = tempfile::tempdir().unwrap();
        let first = signing_key(dir.path()).unwrap();
        assert_eq!(signing_key(dir.path()).unwrap().to_bytes(), first.to_bytes());
        assert_eq!(verifying_key(&public_path(dir.path())).unwrap(), first.verifying_key());
        let path = private_path(dir.path());
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        assert_eq!(signing_key(dir.path()).unwrap_err().exit, Exit::Unsafe);
    }
}
