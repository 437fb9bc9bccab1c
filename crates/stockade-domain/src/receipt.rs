//! Receipts: what one run did, signed.
//!
//! A receipt is an in-toto Statement v1 inside a DSSE v1 envelope, signed with Ed25519
//! (RFC 8032). Its file is the envelope as canonical JSON (RFC 8785), so that every byte
//! of it is either signed or implied.

use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use ed25519_dalek::{Signature, Signer as _, SigningKey, VerifyingKey};
use serde::{Deserialize, Serialize};

use crate::{
    ActionRecord, AddressException, Amounts, Approval, Digest, Event, EventType, Run, Verdict, canonical_json,
    run::FileChange,
    traffic::{Traffic, TrafficOf, destinations},
};

/// Payload type of in-toto statements in DSSE.
pub const PAYLOAD_TYPE: &str = "application/vnd.in-toto+json";
/// Statement type (in-toto attestation framework v1).
pub const STATEMENT_TYPE: &str = "https://in-toto.io/Statement/v1";
/// Predicate type of a run's receipt.
pub const PREDICATE_TYPE: &str = "https://stockade.dev/run-receipt/v1";

/// A DSSE envelope (secure-systems-lab/dsse, protocol v1).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Envelope {
    /// The statement's bytes in base64.
    pub payload: String,
    /// Always [`PAYLOAD_TYPE`].
    #[serde(rename = "payloadType")]
    pub payload_type: String,
    /// One signature.
    pub signatures: Vec<EnvelopeSignature>,
}

/// A signature of an envelope.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EnvelopeSignature {
    /// Digest of the 32 bytes of the public key.
    pub keyid: String,
    /// The signature in base64.
    pub sig: String,
}

/// An in-toto statement about a run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Statement {
    /// Always [`STATEMENT_TYPE`].
    #[serde(rename = "_type")]
    pub kind: String,
    /// What the run produced: its patch, or its event chain when it changed nothing.
    pub subject: Vec<Subject>,
    /// Always [`PREDICATE_TYPE`].
    #[serde(rename = "predicateType")]
    pub predicate_type: String,
    /// What the run did.
    pub predicate: Predicate,
}

/// A thing a statement is about.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Subject {
    /// Its name.
    pub name: String,
    /// Its digest by algorithm.
    pub digest: SubjectDigest,
}

/// Digest of a subject.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SubjectDigest {
    /// SHA-256 in hex.
    pub sha256: String,
}

/// What one run did.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Predicate {
    /// The run, whole: task, agent, environment, policy, limits, state, times, result.
    pub run: Run,
    /// Digests of what the run was made of.
    pub digests: SpecDigests,
    /// The sandbox as measured, from its `sandbox.ready` events.
    pub sandboxes: Vec<serde_json::Value>,
    /// Every action with verdict and outcome, in the order they were asked.
    pub actions: Vec<ActionRecord>,
    /// Every question to a person with who answered and when.
    pub approvals: Vec<Approval>,
    /// Destinations reached and refused.
    pub destinations: Vec<Destination>,
    /// Special address ranges that were open to the run, each with its reason and its use.
    #[serde(default)]
    pub address_exceptions: Vec<ExceptionUse>,
    /// Hosts that operators took away while the run went on, from its `egress.revoked` events.
    #[serde(default)]
    pub revocations: Vec<serde_json::Value>,
    /// Files changed.
    pub files: Vec<FileChange>,
    /// What was spent.
    pub spent: Amounts,
    /// Seconds from the first claim to the end.
    pub duration_seconds: Option<i64>,
    /// The event chain.
    pub events: EventChain,
}

/// Digests of what a run was made of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SpecDigests {
    /// The agent's specification.
    pub agent: Digest,
    /// The environment.
    pub environment: Digest,
    /// The compiled policy.
    pub policy: Digest,
    /// The prompt.
    pub prompt: Digest,
}

/// A destination and what the gate said.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Destination {
    /// Host and port as the agent asked.
    pub target: String,
    /// Allowed or denied.
    pub verdict: Verdict,
    /// The rule.
    pub rule: String,
    /// How often: what was only counted included.
    pub count: u64,
    /// What went there and came back, all connections together.
    #[serde(default)]
    pub traffic: Traffic,
}

/// A special address range that was open to a run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExceptionUse {
    /// The range in CIDR notation.
    pub cidr: String,
    /// Why it was open.
    pub reason: String,
    /// Connections that went there because of it.
    pub connections: u64,
}

/// The hash chain over all events of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct EventChain {
    /// How many events.
    pub count: u64,
    /// The head after the last one.
    pub head: Digest,
}

/// What of a run stands in its events alone.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Evidence {
    sandboxes: Vec<serde_json::Value>,
    exceptions: Vec<String>,
    revocations: Vec<serde_json::Value>,
    traffic: TrafficOf,
}

impl Evidence {
    /// Takes from an event what a receipt tells: the sandbox as measured, what was revoked, what a
    /// connection carried and the address exception it needed.
    pub fn take(&mut self, event: Event) {
        match event.kind {
            EventType::SandboxReady => self.sandboxes.push(event.data),
            EventType::EgressRevoked => self.revocations.push(event.data),
            EventType::ActionSettled => {
                let used = event.data["details"]["address_exception"].as_str();
                self.exceptions.extend(used.map(str::to_owned));
                self.traffic.take(&event.data);
            }
            _ => {}
        }
    }
}

/// The environment's exceptions with how often each was used.
fn exceptions(run: &Run, used: &[String]) -> Vec<ExceptionUse> {
    let count = |exception: &AddressException| {
        let text = exception.to_string();
        ExceptionUse {
            cidr: exception.cidr.clone(),
            reason: exception.reason.clone(),
            connections: used.iter().filter(|own| **own == text).count() as u64,
        }
    };
    run.spec.environment.address_exceptions.iter().map(count).collect()
}

impl Statement {
    /// Tells a terminal run's whole story; `evidence` is what only its events know.
    pub fn new(run: Run, actions: Vec<ActionRecord>, approvals: Vec<Approval>, evidence: Evidence) -> Self {
        let patch = run.result.as_ref().and_then(|result| result.patch_digest);
        let subject = match patch {
            Some(digest) => Subject {
                name: format!("{}.patch", run.id),
                digest: SubjectDigest { sha256: digest.hex() },
            },
            None => Subject {
                name: format!("{}.events", run.id),
                digest: SubjectDigest {
                    sha256: run.chain_head.hex(),
                },
            },
        };
        let predicate = Predicate {
            digests: SpecDigests {
                agent: crate::digest_of(&run.spec.agent),
                environment: crate::digest_of(&run.spec.environment),
                policy: run.spec.policy_version,
                prompt: Digest::of_bytes(run.spec.prompt.as_bytes()),
            },
            destinations: destinations(&actions, &evidence.traffic),
            revocations: evidence.revocations,
            address_exceptions: exceptions(&run, &evidence.exceptions),
            files: run
                .result
                .as_ref()
                .map(|result| result.files.clone())
                .unwrap_or_default(),
            spent: run.budget.used,
            duration_seconds: run
                .started_at
                .zip(run.ended_at)
                .map(|(from, to)| (to.as_second() - from.as_second()).max(0)),
            events: EventChain {
                count: run.last_seq,
                head: run.chain_head,
            },
            run,
            sandboxes: evidence.sandboxes,
            actions,
            approvals,
        };
        Self {
            kind: STATEMENT_TYPE.to_owned(),
            subject: vec![subject],
            predicate_type: PREDICATE_TYPE.to_owned(),
            predicate,
        }
    }
}

/// DSSE pre-authentication encoding, version 1.
fn pae(payload_type: &str, payload: &[u8]) -> Vec<u8> {
    let mut bytes = format!("DSSEv1 {} {payload_type} {} ", payload_type.len(), payload.len()).into_bytes();
    bytes.extend_from_slice(payload);
    bytes
}

/// The id of a key in an envelope.
pub fn key_id(key: &VerifyingKey) -> String {
    Digest::of_bytes(key.as_bytes()).to_string()
}

/// Signs a statement; the result is the receipt's file.
pub fn sign(statement: &Statement, key: &SigningKey) -> Vec<u8> {
    let payload = canonical_json(statement);
    let signature = key.sign(&pae(PAYLOAD_TYPE, &payload));
    canonical_json(&Envelope {
        payload: BASE64.encode(&payload),
        payload_type: PAYLOAD_TYPE.to_owned(),
        signatures: vec![EnvelopeSignature {
            keyid: key_id(&key.verifying_key()),
            sig: BASE64.encode(signature.to_bytes()),
        }],
    })
}

/// Why a file is not a valid receipt.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidReceipt {
    /// Not an envelope, or not written the one way it is written.
    #[error("not a receipt: {0}")]
    Malformed(String),
    /// Signed with another key.
    #[error("the receipt is signed with key {found}, not with the expected key {expected}")]
    WrongKey {
        /// What the receipt names.
        found: String,
        /// What the verifier trusts.
        expected: String,
    },
    /// The signature is not of this content.
    #[error("the signature does not match the content: the receipt was changed")]
    BadSignature,
}

/// Checks a receipt's file against a trusted key, offline.
///
/// # Errors
///
/// [`InvalidReceipt`] for any changed byte, with what is wrong.
pub fn verify(file: &[u8], key: &VerifyingKey) -> Result<Statement, InvalidReceipt> {
    let malformed = |why: &str| InvalidReceipt::Malformed(why.to_owned());
    let envelope: Envelope = serde_json::from_slice(file).map_err(|e| malformed(&e.to_string()))?;
    // One spelling only: otherwise bytes could change that no signature covers.
    if canonical_json(&envelope) != file {
        return Err(malformed("the envelope is not canonical JSON"));
    }
    if envelope.payload_type != PAYLOAD_TYPE {
        return Err(malformed("unknown payload type"));
    }
    let [signature] = envelope.signatures.as_slice() else {
        return Err(malformed("expected exactly one signature"));
    };
    let expected = key_id(key);
    if signature.keyid != expected {
        return Err(InvalidReceipt::WrongKey {
            found: signature.keyid.clone(),
            expected,
        });
    }
    let payload = BASE64
        .decode(&envelope.payload)
        .map_err(|_| malformed("the payload is not base64"))?;
    let bytes: [u8; 64] = BASE64
        .decode(&signature.sig)
        .ok()
        .and_then(|sig| sig.try_into().ok())
        .ok_or_else(|| malformed("the signature is not 64 bytes of base64"))?;
    key.verify_strict(&pae(PAYLOAD_TYPE, &payload), &Signature::from_bytes(&bytes))
        .map_err(|_| InvalidReceipt::BadSignature)?;
    let statement: Statement = serde_json::from_slice(&payload).map_err(|e| malformed(&e.to_string()))?;
    if statement.kind != STATEMENT_TYPE || statement.predicate_type != PREDICATE_TYPE {
        return Err(malformed("not a statement about a run"));
    }
    Ok(statement)
}

#[cfg(test)]
#[path = "receipt_tests.rs"]
mod tests;
