//! What programs inside have to believe where the Guard inspects: the run's own certificate
//! authority, in the forms and behind the variables they read.
//!
//! The files are put in before the agent starts, with the rights of its user, as everything
//! that goes through a sandbox's files is: an agent that changes them only shuts itself out.
//! The system's own list gets the authority too, where a backend has opened its place to the
//! sandbox's user; it is the sandbox's copy. A program that brings a list of its own and reads
//! none of the variables does not believe the Guard, and its connections are refused with a
//! reason that says so.

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
/// Variables that keep programs from trying a host again for minutes. A host that is refused stays
/// refused, and npm takes any refusal for a network that comes back: it waits 10 seconds, then 60.
const PATIENCE: [(&str, &str); 2] = [
    ("npm_config_fetch_retry_mintimeout", "1000"),
    ("npm_config_fetch_retry_maxtimeout", "5000"),
];
/// Where systems keep their list in one file: Debian and Alpine, Red Hat, SUSE, others.
const SYSTEM: [&str; 5] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
];
/// Where systems keep their list for Java.
const SYSTEM_JAVA: [&str; 2] = [
    "/etc/ssl/certs/java/cacerts",
    "/etc/pki/ca-trust/extracted/java/cacerts",
];
/// Directories in which OpenSSL looks an authority up by its hash.
const HASHED: [&str; 2] = ["/etc/ssl/certs", "/etc/pki/tls/certs"];
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
        let lists = system_lists(sandbox).await;
        join_system(sandbox, &lists, &trust).await;
        let list = match lists.first() {
            Some((_, system)) => joined(system, &trust),
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

    /// The same with what keeps programs from waiting for what never comes.
    pub(crate) fn impatient(self) -> Self {
        self.with(PATIENCE.map(|(name, value)| (name.to_owned(), value.to_owned())).into())
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

/// A list with the authority at its end.
fn joined(list: &str, trust: &Trust) -> String {
    format!("{}\n{}", list.trim_end(), trust.authority)
}

/// The lists of authorities the sandbox came with, which an image may have changed on purpose.
async fn system_lists(sandbox: &dyn SandboxHandle) -> Vec<(&'static str, String)> {
    let mut lists = Vec::new();
    for path in SYSTEM {
        let read = sandbox.read_file(path, LARGEST).await;
        let text = read.ok().and_then(|bytes| String::from_utf8(bytes.to_vec()).ok());
        if let Some(text) = text.filter(|text| text.contains("-----BEGIN CERTIFICATE-----")) {
            lists.push((path, text));
        }
    }
    lists
}

/// Adds the authority to the system's own lists, where that can be done: a list in a place that
/// is not opened stays as it is, and so does one that is a link into such a place.
async fn join_system(sandbox: &dyn SandboxHandle, lists: &[(&'static str, String)], trust: &Trust) {
    for (path, list) in lists {
        put(sandbox, path, joined(list, trust).into()).await;
    }
    if !lists.is_empty() {
        for dir in HASHED {
            // Where there is no such directory, or a link in its place, nothing is made.
            let name = format!("{dir}/{}.0", trust.subject_hash);
            put(sandbox, &name, trust.authority.clone().into()).await;
        }
    }
    for path in SYSTEM_JAVA {
        if sandbox.read_file(path, LARGEST).await.is_ok() {
            put(sandbox, path, trust.java.clone().into()).await;
        }
    }
}

async fn put(sandbox: &dyn SandboxHandle, path: &str, content: Bytes) {
    if let Err(error) = sandbox.write_file(path, content, 0o644).await {
        tracing::debug!(path, %error, "a list of the sandbox's system stays without the run's authority");
    }
}
