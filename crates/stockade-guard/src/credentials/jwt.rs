//! JSON Web Tokens that an app signs to say who it is (RFC 7519), with RS256 (RFC 7518, section 3.3).

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use ring::{
    rand::SystemRandom,
    signature::{RSA_PKCS1_SHA256, RsaKeyPair},
};
use rustls::pki_types::{PrivateKeyDer, pem::PemObject as _};
use serde_json::json;
use stockade_domain::Timestamp;
use zeroize::Zeroizing;

/// How far back the token is dated, in seconds: the other side's clock may be behind.
const EARLIER: i64 = 60;
/// How long it works, in seconds, counted from now: GitHub takes at most ten minutes.
const LONGEST: i64 = 540;

/// Signs who an app is with its private key: RSA of 2048 bits or more, PKCS #1 or PKCS #8, in PEM.
///
/// # Errors
///
/// In words what is wrong with the key; nothing of the key is in them.
pub(super) fn signed(issuer: &str, pem: &[u8], now: Timestamp) -> Result<Zeroizing<String>, &'static str> {
    let key = PrivateKeyDer::from_pem_slice(pem)
        .map_err(|_| "it is no private key in PEM; set the file that was downloaded for the app, as it is")?;
    let pair = match &key {
        PrivateKeyDer::Pkcs1(der) => RsaKeyPair::from_der(der.secret_pkcs1_der()),
        PrivateKeyDer::Pkcs8(der) => RsaKeyPair::from_pkcs8(der.secret_pkcs8_der()),
        _ => return Err("it is a key of another kind; apps sign with RSA"),
    };
    let pair = pair.map_err(|_| "it is no RSA key of at least 2048 bits")?;
    let second = now.as_second();
    let header = json!({ "alg": "RS256", "typ": "JWT" }).to_string();
    let claims = json!({ "iat": second - EARLIER, "exp": second + LONGEST, "iss": issuer }).to_string();
    let signed = format!("{}.{}", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(claims));
    let mut signature = vec![0; pair.public().modulus_len()];
    pair.sign(
        &RSA_PKCS1_SHA256,
        &SystemRandom::new(),
        signed.as_bytes(),
        &mut signature,
    )
    .map_err(|_| "it cannot sign")?;
    Ok(Zeroizing::new(format!(
        "{signed}.{}",
        URL_SAFE_NO_PAD.encode(signature)
    )))
}
