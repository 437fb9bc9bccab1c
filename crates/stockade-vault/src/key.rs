//! The installation's key.

use std::fmt;

use ring::{
    digest,
    rand::{SecureRandom as _, SystemRandom},
};
use stockade_ports::SecretError;
use zeroize::Zeroizing;

/// Bytes of a key.
const BYTES: usize = 32;

/// The 32 bytes every sealed secret of an installation depends on. Does not print itself.
pub struct InstallationKey(Zeroizing<[u8; BYTES]>);

/// A text that is no key. The text is not repeated.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("it is not 64 hexadecimal digits")]
pub struct InvalidKey;

impl InstallationKey {
    /// A new key.
    ///
    /// # Errors
    ///
    /// [`SecretError::NoRandomness`] when the system has none.
    pub fn generate() -> Result<Self, SecretError> {
        let mut bytes = Zeroizing::new([0; BYTES]);
        let filled = SystemRandom::new().fill(bytes.as_mut_slice());
        filled.map_err(|_| SecretError::NoRandomness)?;
        Ok(Self(bytes))
    }

    /// Reads a key as [`InstallationKey::to_text`] writes it; white space around it does not count.
    ///
    /// # Errors
    ///
    /// [`InvalidKey`] for every other text.
    pub fn from_text(text: &str) -> Result<Self, InvalidKey> {
        let mut bytes = Zeroizing::new([0; BYTES]);
        hex::decode_to_slice(text.trim(), bytes.as_mut_slice()).map_err(|_| InvalidKey)?;
        Ok(Self(bytes))
    }

    /// The key as 64 hexadecimal digits and a line break, for its file.
    pub fn to_text(&self) -> Zeroizing<String> {
        let mut text = Zeroizing::new(hex::encode(*self.0));
        text.push('\n');
        text
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        self.0.as_slice()
    }

    /// Tells keys apart without telling anything of them: the beginning of a SHA-256 over the key.
    pub(crate) fn id(&self) -> [u8; 8] {
        let mut context = digest::Context::new(&digest::SHA256);
        context.update(b"stockade installation key id\0");
        context.update(self.bytes());
        let mut id = [0; 8];
        id.copy_from_slice(&context.finish().as_ref()[..8]);
        id
    }
}

impl fmt::Debug for InstallationKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("InstallationKey(…)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_written_and_read_and_never_printed() {
        let key = InstallationKey::generate().unwrap();
        let text = key.to_text();
        assert_eq!(text.len(), 65);
        assert_eq!(InstallationKey::from_text(&text).unwrap().bytes(), key.bytes());
        assert!(!format!("{key:?}").contains(&text[..8]));
        assert_ne!(InstallationKey::generate().unwrap().bytes(), key.bytes());
        for wrong in [
            "",
            "00",
            &text[1..],
            &format!("{}00", text.trim()),
            &text.replace(&text[..1], "g"),
        ] {
            assert_eq!(InstallationKey::from_text(wrong).unwrap_err(), InvalidKey);
        }
    }
}
