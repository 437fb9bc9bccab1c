//! What a sealed secret looks like:
//!
//! | Bytes | Meaning |
//! |---|---|
//! | 1 | the version of this format: 1 |
//! | 8 | which installation key it was sealed with |
//! | 32 | salt, random for every value |
//! | the value's and 16 | ChaCha20-Poly1305 (RFC 8439): the value and its tag |
//!
//! The key of a value comes from the installation's key and the salt by HKDF-SHA256 (RFC 5869). It is used for this
//! one value, so its nonce is zero. The bytes before the cipher text, the team and the name are authenticated
//! beside it: a sealed secret that was moved to another name opens no more than one that was changed.

use ring::{
    aead::{Aad, CHACHA20_POLY1305, LessSafeKey, Nonce, UnboundKey},
    hkdf::{HKDF_SHA256, Salt},
    rand::{SecureRandom as _, SystemRandom},
};
use stockade_domain::{SecretName, TeamId};
use stockade_ports::{SecretError, SecretValue};
use zeroize::Zeroize as _;

use crate::InstallationKey;

const VERSION: u8 = 1;
const ID: usize = 8;
const SALT: usize = 32;
const HEAD: usize = 1 + ID + SALT;
const INFO: &[u8] = b"stockade secret at rest, version 1";

/// Seals a value for one name of one team.
///
/// # Errors
///
/// [`SecretError::NoRandomness`] when the system has none.
pub fn seal(
    key: &InstallationKey,
    team: TeamId,
    name: &SecretName,
    value: &SecretValue,
) -> Result<Vec<u8>, SecretError> {
    let mut head = [0; HEAD];
    head[0] = VERSION;
    head[1..=ID].copy_from_slice(&key.id());
    let filled = SystemRandom::new().fill(&mut head[1 + ID..]);
    filled.map_err(|_| SecretError::NoRandomness)?;
    // Room for the tag from the start: a vector that grows leaves a copy of the value behind.
    let mut text = Vec::with_capacity(value.len() + CHACHA20_POLY1305.tag_len());
    text.extend_from_slice(value.expose());
    let sealed = value_key(key, &head)?.seal_in_place_append_tag(nonce(), beside(&head, team, name), &mut text);
    if sealed.is_err() {
        text.zeroize();
        return Err(SecretError::Size(value.len()));
    }
    Ok([&head[..], &text].concat())
}

/// Opens what [`seal`] made for the same key, team and name.
///
/// # Errors
///
/// [`SecretError::OtherKey`] or [`SecretError::Damaged`]; neither says what the value or its name is.
pub fn open(key: &InstallationKey, team: TeamId, name: &SecretName, sealed: &[u8]) -> Result<SecretValue, SecretError> {
    let (head, text) = sealed.split_at_checked(HEAD).ok_or(SecretError::Damaged)?;
    if head[0] != VERSION {
        return Err(SecretError::Damaged);
    }
    if head[1..=ID] != key.id() {
        return Err(SecretError::OtherKey);
    }
    let mut text = text.to_vec();
    let opened = value_key(key, head)?.open_in_place(nonce(), beside(head, team, name), &mut text);
    let value = opened.map(|value| value.len()).map_err(|_| SecretError::Damaged)?;
    text.truncate(value);
    Ok(SecretValue::new(text))
}

/// The key of one value.
fn value_key(key: &InstallationKey, head: &[u8]) -> Result<LessSafeKey, SecretError> {
    let random = Salt::new(HKDF_SHA256, &head[1 + ID..]).extract(key.bytes());
    // HKDF gives up to 255 blocks; one is asked for.
    let derived = random.expand(&[INFO], &CHACHA20_POLY1305);
    let derived = derived.map_err(|_| SecretError::Damaged)?;
    Ok(LessSafeKey::new(UnboundKey::from(derived)))
}

/// Each key seals once.
fn nonce() -> Nonce {
    Nonce::assume_unique_for_key([0; 12])
}

/// Neither a team's id nor a name can hold the byte between them.
fn beside(head: &[u8], team: TeamId, name: &SecretName) -> Aad<Vec<u8>> {
    let mut beside = head.to_vec();
    beside.extend_from_slice(team.to_string().as_bytes());
    beside.push(0);
    beside.extend_from_slice(name.as_str().as_bytes());
    Aad::from(beside)
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    const CANARY: &[u8] = b"canary-value-51c0\n\x00\xff";

    fn name(text: &str) -> SecretName {
        text.parse().unwrap()
    }

    fn sealed(key: &InstallationKey) -> Vec<u8> {
        let value = SecretValue::new(CANARY.to_vec());
        seal(key, TeamId::DEFAULT, &name("token"), &value).unwrap()
    }

    /// The refusal, in words that give nothing away.
    fn refusal(key: &InstallationKey, team: TeamId, as_name: &str, sealed: &[u8]) -> SecretError {
        let error = open(key, team, &name(as_name), sealed).expect_err("it must not open");
        let words = format!("{error} {error:?}");
        assert!(!words.contains("canary") && !words.contains("token"), "{words}");
        error
    }

    #[test]
    fn a_value_comes_back_and_looks_different_every_time() {
        let key = InstallationKey::generate().unwrap();
        let (one, other) = (sealed(&key), sealed(&key));
        for sealed in [&one, &other] {
            let value = open(&key, TeamId::DEFAULT, &name("token"), sealed).unwrap();
            assert_eq!(value.expose(), CANARY);
            assert_eq!(sealed.len(), HEAD + CANARY.len() + 16);
            assert!(!sealed.windows(6).any(|window| window == &CANARY[..6]));
        }
        assert_ne!(one[1 + ID..], other[1 + ID..]);
        let empty = SecretValue::new(Vec::new());
        let sealed = seal(&key, TeamId::DEFAULT, &name("e"), &empty).unwrap();
        assert!(open(&key, TeamId::DEFAULT, &name("e"), &sealed).unwrap().is_empty());
    }

    #[test]
    fn every_flipped_bit_is_seen() {
        let key = InstallationKey::generate().unwrap();
        let whole = sealed(&key);
        for at in 0..whole.len() {
            for bit in 0..8 {
                let mut changed = whole.clone();
                changed[at] ^= 1 << bit;
                refusal(&key, TeamId::DEFAULT, "token", &changed);
            }
        }
        for end in 0..whole.len() {
            refusal(&key, TeamId::DEFAULT, "token", &whole[..end]);
        }
        refusal(&key, TeamId::DEFAULT, "token", &[&whole[..], b"x"].concat());
        open(&key, TeamId::DEFAULT, &name("token"), &whole).expect("the control opens");
    }

    #[test]
    fn another_name_team_or_key_opens_nothing() {
        let key = InstallationKey::generate().unwrap();
        let whole = sealed(&key);
        let team = TeamId::from_uuid(Uuid::from_u128(7));
        assert!(matches!(refusal(&key, team, "token", &whole), SecretError::Damaged));
        assert!(matches!(
            refusal(&key, TeamId::DEFAULT, "tokens", &whole),
            SecretError::Damaged
        ));
        let other = InstallationKey::generate().unwrap();
        assert!(matches!(
            refusal(&other, TeamId::DEFAULT, "token", &whole),
            SecretError::OtherKey
        ));
        // Also where the key's mark is made to fit.
        let mut marked = whole.clone();
        marked[1..=ID].copy_from_slice(&other.id());
        assert!(matches!(
            refusal(&other, TeamId::DEFAULT, "token", &marked),
            SecretError::Damaged
        ));
    }

    /// What one version has sealed, the next must open: the format is fixed by this example.
    #[test]
    fn what_was_sealed_before_still_opens() {
        let key = InstallationKey::from_text(&"07".repeat(32)).unwrap();
        let sealed = hex::decode(SEALED_BEFORE).unwrap();
        let value = open(&key, TeamId::DEFAULT, &name("token"), &sealed).unwrap();
        assert_eq!(value.expose(), b"sealed by version 1");
    }

    /// Made by another implementation of the same RFCs, with the salt 00 01 … 1f.
    const SEALED_BEFORE: &str = concat!(
        "010069232fd438bd56000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c",
        "1d1e1f29ea1ea237e88e425a666ca4b83d130385c8fcc0498ddd622cc66979249db3d2c17504"
    );
}
