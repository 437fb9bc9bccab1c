//! Asking registries, through oci-client.

use std::{sync::Once, time::Duration};

use oci_client::{
    Client, Reference, RegistryOperation,
    client::{BlobResponse, Certificate, CertificateEncoding, ClientConfig, ClientProtocol},
    errors::{OciDistributionError, OciErrorCode},
    secrets::RegistryAuth,
};
use secrecy::ExposeSecret;

use crate::{
    config::{Credential, ImageConfig},
    fault::Fault,
    manifest::{ACCEPTED, MAX_JSON},
    places::Digest,
};

/// Longest to wait for a connection.
const CONNECT: Duration = Duration::from_secs(15);
/// How often a question is asked again when the answer did not come.
pub(crate) const ATTEMPTS: u32 = 5;
/// Pause before the second attempt; it doubles with each.
const PAUSE: Duration = Duration::from_millis(200);

/// One registry.
#[derive(Clone)]
pub(crate) struct Registry {
    client: Client,
    auth: RegistryAuth,
}

/// An answer that did not come, and whether to ask again.
#[derive(Debug)]
pub(crate) struct Missed {
    pub(crate) fault: Fault,
    pub(crate) again: bool,
}

impl Registry {
    pub(crate) fn of(reference: &Reference, config: &ImageConfig) -> Result<Self, Fault> {
        install_ring();
        let name = reference.registry();
        let plain = is_loopback(name) || config.plain_http.iter().any(|plain| names(plain, name));
        let authorities = config.authorities.iter().map(|pem| Certificate {
            encoding: CertificateEncoding::Pem,
            data: pem.clone(),
        });
        let settings = ClientConfig {
            protocol: if plain {
                ClientProtocol::Http
            } else {
                ClientProtocol::Https
            },
            extra_root_certificates: authorities.collect(),
            connect_timeout: Some(CONNECT.min(config.silence)),
            read_timeout: Some(config.silence),
            user_agent: concat!("stockade/", env!("CARGO_PKG_VERSION")),
            ..ClientConfig::default()
        };
        // `Client::new` would fall back to other settings.
        let client = Client::try_from(settings).map_err(|e| Fault::Store(format!("cannot ask {name}: {e}")))?;
        let credential = config.credentials.iter().find(|(host, _)| names(host, name));
        Ok(Self {
            client,
            auth: credential.map_or(RegistryAuth::Anonymous, |(_, c)| auth(c)),
        })
    }

    /// Gets the token a registry may want (distribution specification, "Token Authentication"). The
    /// client would do so by itself, and keep to itself why it got none.
    async fn enter(&self, reference: &Reference) -> Result<(), Fault> {
        let ask = || async {
            let entered = self.client.auth(reference, &self.auth, RegistryOperation::Pull).await;
            entered.map_err(|e| missed(&e))
        };
        patiently(ask).await.map(drop)
    }

    /// The document a reference names, and its digest.
    pub(crate) async fn manifest(&self, reference: &Reference) -> Result<(Vec<u8>, Digest), Fault> {
        self.enter(reference).await?;
        let ask = || async {
            let pulled = self.client.pull_manifest_raw(reference, &self.auth, &ACCEPTED).await;
            pulled.map_err(|e| missed(&e))
        };
        let (bytes, _) = patiently(ask).await?;
        // The client compares with what it was told; what we use is what we computed.
        let digest = Digest::of(&bytes);
        match reference.digest() {
            Some(asked) if asked != digest.to_string() => {
                Err(Fault::Unsafe(format!("the registry gave {digest} for {asked}")))
            }
            _ => Ok((bytes.to_vec(), digest)),
        }
    }

    /// A small blob, in memory.
    pub(crate) async fn small(&self, reference: &Reference, digest: &Digest, size: u64) -> Result<Vec<u8>, Fault> {
        let ask = || self.read_small(reference, digest, size);
        let bytes = patiently(ask).await?;
        let found = Digest::of(&bytes);
        if found != *digest {
            return Err(Fault::Unsafe(format!("the registry gave {found} for {digest}")));
        }
        Ok(bytes)
    }

    async fn read_small(&self, reference: &Reference, digest: &Digest, size: u64) -> Result<Vec<u8>, Missed> {
        use futures::StreamExt;
        let (_, mut pieces) = self.blob(reference, digest, 0).await?;
        let mut bytes = Vec::new();
        while let Some(piece) = pieces.next().await {
            bytes.extend_from_slice(&piece.map_err(|e| unread(&e))?);
            if bytes.len() as u64 > size || bytes.len() > MAX_JSON {
                let fault = Fault::Unsafe(format!("blob {digest} is larger than its {size} bytes"));
                return Err(Missed { fault, again: false });
            }
        }
        Ok(bytes)
    }

    /// A blob from an offset on, and where it really begins. Not verified: that is the reader's.
    pub(crate) async fn blob(
        &self,
        reference: &Reference,
        digest: &Digest,
        offset: u64,
    ) -> Result<(u64, Pieces), Missed> {
        let registry = reference.resolve_registry();
        self.client.store_auth_if_needed(registry, &self.auth).await;
        let name = digest.to_string();
        // By digest alone: the other addresses a manifest may name are never asked.
        if offset > 0 {
            let answer = self
                .client
                .pull_blob_stream_partial(reference, name.as_str(), offset, None)
                .await;
            return Ok(match answer.map_err(|e| missed(&e))? {
                BlobResponse::Partial(rest) => (offset, rest.stream),
                BlobResponse::Full(whole) => (0, whole.stream),
            });
        }
        let answer = self.client.pull_blob_stream(reference, name.as_str()).await;
        answer.map(|whole| (0, whole.stream)).map_err(|e| missed(&e))
    }
}

/// Bytes as they come.
pub(crate) type Pieces = futures::stream::BoxStream<'static, std::io::Result<bytes::Bytes>>;

fn auth(credential: &Credential) -> RegistryAuth {
    match credential {
        Credential::Password { user, password } => {
            RegistryAuth::Basic(user.clone(), password.expose_secret().to_owned())
        }
        Credential::Token(token) => RegistryAuth::Bearer(token.expose_secret().to_owned()),
    }
}

/// Whether a setting (`host` or `host:port`) is about a registry.
fn names(setting: &str, registry: &str) -> bool {
    setting == registry
}

fn is_loopback(registry: &str) -> bool {
    let host = registry.rsplit_once(':').map_or(registry, |(host, _)| host);
    host == "localhost" || host.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

/// Asks until there is an answer, a few times.
async fn patiently<T, F: Future<Output = Result<T, Missed>>>(mut ask: impl FnMut() -> F) -> Result<T, Fault> {
    let mut attempt = 0;
    loop {
        match ask().await {
            Ok(answer) => return Ok(answer),
            Err(missed) if missed.again && attempt + 1 < ATTEMPTS => pause(attempt).await,
            Err(missed) => return Err(missed.fault),
        }
        attempt += 1;
    }
}

/// Waits before the next attempt.
pub(crate) async fn pause(attempt: u32) {
    tokio::time::sleep(PAUSE * 2_u32.pow(attempt.min(6))).await;
}

/// A stream that broke off.
pub(crate) fn unread(error: &std::io::Error) -> Missed {
    // The client reports a wrong digest through the same channel.
    let wrong = error
        .get_ref()
        .is_some_and(|e| e.is::<oci_client::errors::DigestError>());
    if wrong {
        let fault = Fault::Unsafe(error.to_string());
        return Missed { fault, again: false };
    }
    let fault = Fault::Unavailable(chain(error));
    Missed { fault, again: true }
}

fn missed(error: &OciDistributionError) -> Missed {
    use OciDistributionError as E;
    let (fault, again) = match error {
        E::UnauthorizedError { .. } | E::AuthenticationFailure(_) => {
            let hint = "it asks for credentials this installation does not have or that are wrong";
            (Fault::Refused(format!("{hint}: {}", cut(&error.to_string()))), false)
        }
        E::RegistryError { envelope, .. } => {
            let busy = envelope.errors.iter().any(|e| e.code == OciErrorCode::Toomanyrequests);
            let why = cut(&error.to_string());
            if busy {
                (Fault::Unavailable(why), true)
            } else {
                (Fault::Refused(why), false)
            }
        }
        E::ServerError { code, .. } if *code >= 500 || *code == 429 => {
            (Fault::Unavailable(cut(&error.to_string())), true)
        }
        E::RequestError(request) => (Fault::Unavailable(chain(request)), true),
        E::IoError(io) => (Fault::Unavailable(chain(io)), true),
        E::DigestError(_) | E::ManifestParsingError(_) | E::VersionedParsingError(_) => {
            (Fault::Unsafe(cut(&error.to_string())), false)
        }
        _ => (Fault::Refused(cut(&error.to_string())), false),
    };
    Missed { fault, again }
}

/// An error with its causes: the outer ones alone say "error sending request".
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    cut(&text)
}

/// A registry's words, printable and not too many.
fn cut(text: &str) -> String {
    let clean = text.chars().map(|c| if c.is_control() { ' ' } else { c });
    clean.take(500).collect()
}

/// Makes `ring` the process's TLS provider if there is none yet; the client cannot be made before.
fn install_ring() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        // `Err` carries the provider that was installed first; it is as good.
        let _ = rustls::crypto::ring::default_provider().install_default();
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_loopback_is_plain_by_itself() {
        for name in ["localhost", "localhost:5000", "127.0.0.1:5000", "127.8.9.10"] {
            assert!(is_loopback(name), "{name}");
        }
        for name in [
            "localhost.evil.example",
            "127.0.0.1.evil.example:80",
            "10.0.0.1:5000",
            "docker.io",
        ] {
            assert!(!is_loopback(name), "{name}");
        }
    }
}
