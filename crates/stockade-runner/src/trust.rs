//! What programs inside have to believe where the Guard inspects: the run's own certificate
//! authority, in the forms and behind the variables they read.
//!
//! The files are put in before the agent starts, with the rights of its user, as everything
//! that goes through a sandbox's files is: an agent that changes them only shuts itself out.
//! A program that reads the system's list and none of the variables does not believe the Guard,
//! and its connections are refused with a reason that says so.

use std::collections::BTreeMap;

use bytes::Bytes;
use stockade_domain::Failure;
use stockade_ports::{SandboxHandle, Trust, sandbox::AGENT_HOME};

use crate::mishap;

/// Variables by which a program believes one list instead of the system's.
const WHOLE: [&str; 10] = [
    // OpenSSL and all that uses it (Python, Ruby, PHP), Go, rustls-native-certs.
    "SSL_CERT_FILE",
    "REQUESTS_CA_BUNDLE",
    "PIP_CERT",
    "CURL_CA_BUNDLE",
    "GIT_SSL_CAINFO",
    "CARGO_HTTP_CAINFO",
    "AWS_CA_BUNDLE",
    "GRPC_DEFAULT_SSL_ROOTS_FILE_PATH",
    "NIX_SSL_CERT_FILE",
    "CLOUDSDK_CORE_CUSTOM_CA_CERTS_FILE",
];
/// Variables by which a program believes one more authority.
const MORE: [&str; 2] = ["NODE_EXTRA_CA_CERTS", "DENO_CERT"];
/// Where systems keep their list in one file: Debian and Alpine, Red Hat, SUSE, others.
const SYSTEM: [&str; 5] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
];
/// Larger files are no lists of authorities.
const LARGEST: u64 = 8 << 20;

/// Variables that every command of the agent gets, where neither it nor its profile sets them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Trusting(BTreeMap<String, String>);

impl Trusting {
    /// Puts the authority into a sandbox.
    pub(crate) async fn place(sandbox: &dyn SandboxHandle, trust: Trust) -> Result<Self, Failure> {
        let dir = format!("{AGENT_HOME}/.stockade/trust");
        let (authority, bundle, java) = (
            format!("{dir}/authority.pem"),
            format!("{dir}/bundle.pem"),
            format!("{dir}/java.jks"),
        );
        let list = match system_list(sandbox).await {
            Some(system) => format!("{}\n{}", system.trim_end(), trust.authority),
            None => trust.bundle,
        };
        for (path, content) in [
            (&authority, trust.authority.into_bytes()),
            (&bundle, list.into_bytes()),
            (&java, trust.java),
        ] {
            let written = sandbox.write_file(path, Bytes::from(content), 0o444).await;
            written.map_err(mishap::sandbox)?;
        }
        let mut variables = BTreeMap::new();
        variables.extend(WHOLE.map(|name| (name.to_owned(), bundle.clone())));
        variables.extend(MORE.map(|name| (name.to_owned(), authority.clone())));
        let java = format!("-Djavax.net.ssl.trustStore={java} -Djavax.net.ssl.trustStoreType=JKS");
        variables.insert("JAVA_TOOL_OPTIONS".to_owned(), java);
        Ok(Self(variables))
    }

    /// The same with variables of another kind.
    pub(crate) fn with(mut self, variables: Vec<(String, String)>) -> Self {
        self.0.extend(variables);
        self
    }

    /// Adds what is missing to a command's environment.
    pub(crate) fn extend(&self, env: &mut BTreeMap<String, String>) {
        for (name, value) in &self.0 {
            env.entry(name.clone()).or_insert_with(|| value.clone());
        }
    }
}

/// The list of authorities the sandbox came with, which an image may have changed on purpose.
async fn system_list(sandbox: &dyn SandboxHandle) -> Option<String> {
    for path in SYSTEM {
        let read = sandbox.read_file(path, LARGEST).await;
        let text = read.ok().and_then(|bytes| String::from_utf8(bytes.to_vec()).ok());
        if let Some(text) = text.filter(|text| text.contains("-----BEGIN CERTIFICATE-----")) {
            return Some(text);
        }
    }
    None
}
