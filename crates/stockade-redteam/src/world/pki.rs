//! Certificates of the red team's world: an authority the Guard is told to believe, and good and bad servers.

use std::time::{Duration, SystemTime};

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

use crate::{RedTeamError, prepare};

/// The authority.
pub(crate) struct Pki {
    issuer: Issuer<'static, KeyPair>,
    root: CertificateDer<'static>,
}

/// A server's certificate and its key.
pub(crate) struct Identity {
    pub(crate) chain: Vec<CertificateDer<'static>>,
    pub(crate) key: PrivateKeyDer<'static>,
}

fn wrong(error: rcgen::Error) -> RedTeamError {
    prepare("a certificate")(error)
}

impl Pki {
    pub(crate) fn new(name: &str) -> Result<Self, RedTeamError> {
        let key = KeyPair::generate().map_err(wrong)?;
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, name);
        let root = params.self_signed(&key).map_err(wrong)?.der().clone();
        let issuer = Issuer::new(params, key);
        Ok(Self { issuer, root })
    }

    /// The authority's certificate.
    pub(crate) fn root(&self) -> &CertificateDer<'static> {
        &self.root
    }

    /// A server of these names.
    pub(crate) fn server(&self, names: &[&str]) -> Result<Identity, RedTeamError> {
        self.sign(names, |_| {})
    }

    /// One that ended an hour ago.
    pub(crate) fn expired(&self, names: &[&str]) -> Result<Identity, RedTeamError> {
        let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        let ended = since.unwrap_or_default().saturating_sub(Duration::from_hours(1));
        self.sign(names, |params| {
            params.not_after = rcgen::date_time_ymd(1970, 1, 1) + ended
        })
    }

    fn sign(&self, names: &[&str], change: impl FnOnce(&mut CertificateParams)) -> Result<Identity, RedTeamError> {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let mut params = CertificateParams::new(names).map_err(wrong)?;
        change(&mut params);
        let key = KeyPair::generate().map_err(wrong)?;
        let certificate = params.signed_by(&key, &self.issuer).map_err(wrong)?;
        let chain = vec![certificate.der().clone()];
        let key = PrivateKeyDer::try_from(key.serialize_der()).map_err(prepare("a key"))?;
        Ok(Identity { chain, key })
    }
}
