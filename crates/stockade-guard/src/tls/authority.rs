//! The certificate authority of one run.
//!
//! It is made in memory when a session begins whose rules need inspection, and gone with it:
//! no key is ever written down or leaves this process. It may sign certificates of servers and
//! no further authority, and it signs one for a name only after a connection to that very name
//! was let through.

use std::{
    collections::HashMap,
    fmt,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, SystemTime},
};

use rcgen::{
    BasicConstraints, Certificate, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer,
    KeyPair, KeyUsagePurpose, PKCS_ECDSA_P256_SHA256, PublicKeyData, SanType, SignatureAlgorithm, SigningKey,
};
use rustls::{
    ServerConfig,
    crypto::ring::sign::any_ecdsa_type,
    pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer},
    server::{ServerSessionMemoryCache, StoresServerSessions},
    sign::{CertifiedKey, SingleCertAndKey},
};
use stockade_domain::RunId;
use stockade_policy::Host;
use zeroize::Zeroize;

use super::{
    Alpn, provider,
    subject::{COMMON_NAME, ORGANIZATION_NAME, subject_hash},
};

/// How long the authority itself is valid; no run lasts so long.
const AUTHORITY: Duration = Duration::from_hours(30 * 24);
/// How long a server's certificate is valid.
const LEAF: Duration = Duration::from_hours(24);
/// After so long a new one is made, so that what is handed out has time left.
const FRESH: Duration = Duration::from_hours(12);
/// Clocks inside may be a little behind.
const SLACK: Duration = Duration::from_mins(5);
/// Names whose certificates are kept; more start the list anew.
const KEPT: usize = 512;
/// Sessions that clients may resume.
const SESSIONS: usize = 256;

/// What every name of this program's begins with.
const ORGANIZATION: &str = "Stockade";

/// The authority of one run and the certificates it has signed.
pub(crate) struct Authority {
    /// Its own name, beside the organization.
    common: String,
    issuer: Issuer<'static, RunKey>,
    certificate: Certificate,
    /// The key of every server certificate of the run.
    leaf: RunKey,
    signer: Arc<dyn rustls::sign::SigningKey>,
    sessions: Arc<dyn StoresServerSessions>,
    minted: Mutex<HashMap<Host, Minted>>,
}

struct Minted {
    at: SystemTime,
    http1: Arc<ServerConfig>,
    http2: Arc<ServerConfig>,
}

/// Why there is no authority or no certificate; a fault of this program, not of a client.
#[derive(Debug, thiserror::Error)]
#[error("the run's certificates could not be made: {0}")]
pub(crate) struct Unsigned(String);

impl From<rcgen::Error> for Unsigned {
    fn from(error: rcgen::Error) -> Self {
        Self(error.to_string())
    }
}

impl From<rustls::Error> for Unsigned {
    fn from(error: rustls::Error) -> Self {
        Self(error.to_string())
    }
}

impl Authority {
    pub(crate) fn new(run: RunId) -> Result<Self, Unsigned> {
        let key = RunKey::generate()?;
        let mut params = CertificateParams::default();
        let common = format!("Stockade run {run}");
        params.distinguished_name = named(&common);
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        valid(&mut params, SystemTime::now(), AUTHORITY);
        let certificate = params.self_signed(&key)?;
        let leaf = RunKey::generate()?;
        let der = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(leaf.0.serialized_der()));
        Ok(Self {
            signer: any_ecdsa_type(&der)?,
            common,
            issuer: Issuer::new(params, key),
            certificate,
            leaf,
            sessions: ServerSessionMemoryCache::new(SESSIONS),
            minted: Mutex::default(),
        })
    }

    /// The authority's certificate.
    pub(crate) fn certificate(&self) -> &CertificateDer<'static> {
        self.certificate.der()
    }

    /// The same in PEM.
    pub(crate) fn pem(&self) -> String {
        self.certificate.pem()
    }

    /// Its name in a directory of certificates that OpenSSL reads.
    pub(crate) fn subject_hash(&self) -> String {
        subject_hash(&[(ORGANIZATION_NAME, ORGANIZATION), (COMMON_NAME, &self.common)])
    }

    /// What to be a server of this name with. The certificate is for this name alone.
    pub(crate) fn server(&self, name: &Host, alpn: Alpn) -> Result<Arc<ServerConfig>, Unsigned> {
        let mut minted = self.minted.lock().unwrap_or_else(PoisonError::into_inner);
        let now = SystemTime::now();
        let fresh = |at: SystemTime| now.duration_since(at).is_ok_and(|age| age < FRESH);
        if !minted.get(name).is_some_and(|known| fresh(known.at)) {
            if minted.len() >= KEPT {
                minted.clear();
            }
            minted.insert(name.clone(), self.mint(name, now)?);
        }
        let known = minted.get(name).ok_or_else(|| Unsigned("lost".to_owned()))?;
        Ok(Arc::clone(match alpn {
            Alpn::Http1 => &known.http1,
            Alpn::Http2 => &known.http2,
        }))
    }

    fn mint(&self, name: &Host, now: SystemTime) -> Result<Minted, Unsigned> {
        let mut params = CertificateParams::default();
        // Clients read the alternative name; a subject could not hold every name (X.520).
        params.distinguished_name = named("Stockade inspection");
        params.subject_alt_names = vec![match name {
            Host::Name(name) => SanType::DnsName(name.as_str().try_into()?),
            Host::Address(address) => SanType::IpAddress(*address),
        }];
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        params.use_authority_key_identifier_extension = true;
        valid(&mut params, now, LEAF);
        let certificate = params.signed_by(&self.leaf, &self.issuer)?;
        let chain = vec![certificate.der().clone(), self.certificate.der().clone()];
        let certified = Arc::new(SingleCertAndKey::from(CertifiedKey::new(
            chain,
            Arc::clone(&self.signer),
        )));
        let config = |alpn: Alpn| -> Result<Arc<ServerConfig>, Unsigned> {
            let mut config = ServerConfig::builder_with_provider(provider())
                .with_safe_default_protocol_versions()?
                .with_no_client_auth()
                .with_cert_resolver(Arc::clone(&certified) as _);
            config.alpn_protocols = vec![alpn.id().to_vec()];
            config.session_storage = Arc::clone(&self.sessions);
            Ok(Arc::new(config))
        };
        Ok(Minted {
            at: now,
            http1: config(Alpn::Http1)?,
            http2: config(Alpn::Http2)?,
        })
    }
}

impl fmt::Debug for Authority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Authority").finish_non_exhaustive()
    }
}

fn named(common: &str) -> DistinguishedName {
    let mut name = DistinguishedName::new();
    name.push(DnType::OrganizationName, ORGANIZATION);
    name.push(DnType::CommonName, common);
    name
}

fn valid(params: &mut CertificateParams, now: SystemTime, span: Duration) {
    let since = now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let epoch = rcgen::date_time_ymd(1970, 1, 1);
    params.not_before = epoch + since.saturating_sub(SLACK);
    params.not_after = epoch + since + span;
}

/// A key whose encoded form is wiped when it goes.
struct RunKey(KeyPair);

impl RunKey {
    fn generate() -> Result<Self, Unsigned> {
        Ok(Self(KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?))
    }
}

impl Drop for RunKey {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

impl PublicKeyData for RunKey {
    fn der_bytes(&self) -> &[u8] {
        self.0.der_bytes()
    }

    fn algorithm(&self) -> &'static SignatureAlgorithm {
        self.0.algorithm()
    }
}

impl SigningKey for RunKey {
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, rcgen::Error> {
        self.0.sign(message)
    }
}
