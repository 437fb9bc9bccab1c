//! The measurement that stands between a sandbox and its agent.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::Arc,
};

use super::{FreshSandbox, SandboxError, SandboxHandle};
use crate::EgressSession;

/// Checks every backend measures; a measurement that lacks one is not a proof.
pub const MEASURED_INSIDE: [&str; 6] = [
    // There is no interface but the loopback.
    "network.card",
    // What the plan says is denied was denied.
    "egress.denied",
    // What the plan asks not to be reachable gave no answer.
    "canary.unreachable",
    // Dangerous system calls are refused.
    "filter.installed",
    // No capability in any set, no_new_privs, not the superuser.
    "privileges.none",
    // The kernel has the limits of the specification, by its own account.
    "limits.in_force",
];

/// What to try from inside.
#[derive(Clone)]
pub struct ProbePlan {
    /// Web servers nobody may reach, whatever the environment says.
    pub denied: Vec<SocketAddr>,
    /// A name nobody may look up.
    pub denied_name: String,
    /// Servers of this process that are alive and must not be reached.
    pub witness: Option<Arc<dyn Witness>>,
}

impl ProbePlan {
    /// Documentation addresses (RFC 5737, RFC 3849) and a reserved name (RFC 2606), which every
    /// environment refuses.
    #[must_use]
    pub fn standard(witness: Option<Arc<dyn Witness>>) -> Self {
        let v6 = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1);
        Self {
            denied: vec![
                SocketAddr::new(IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1)), 80),
                SocketAddr::new(IpAddr::V6(v6), 80),
            ],
            denied_name: "probe.stockade.invalid".to_owned(),
            witness,
        }
    }
}

/// Servers of the host that a sandbox must not reach, and whether one did.
pub trait Witness: Send + Sync {
    /// Where they listen, on the host's loopback and other addresses.
    fn addresses(&self) -> Vec<SocketAddr>;
    /// Name of a socket in the host's abstract namespace (unix(7)), without the leading NUL.
    fn abstract_socket(&self) -> Option<String>;
    /// Connections seen so far.
    fn hits(&self) -> u64;
}

/// One thing that was measured.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Check {
    /// Its name, for example `egress.denied`.
    pub name: &'static str,
    /// What must be.
    pub expected: String,
    /// What was.
    pub seen: String,
    /// Whether they agree.
    pub ok: bool,
}

/// Everything that was measured.
#[derive(Debug, Clone, Default)]
pub struct Measurement {
    /// The checks.
    pub checks: Vec<Check>,
    /// Microseconds it took.
    pub micros: u64,
}

impl Measurement {
    /// Writes down one check.
    pub fn note(&mut self, name: &'static str, expected: impl Into<String>, seen: impl Into<String>, ok: bool) {
        self.checks.push(Check {
            name,
            expected: expected.into(),
            seen: seen.into(),
            ok,
        });
    }

    fn failures(&self) -> Vec<String> {
        let failed = self.checks.iter().filter(|check| !check.ok);
        let failed = failed.map(|c| format!("{}: expected {}, saw {}", c.name, c.expected, c.seen));
        let has = |name: &str| self.checks.iter().any(|check| check.name == name);
        let missing = MEASURED_INSIDE.iter().filter(|name| !has(name));
        failed
            .chain(missing.map(|name| format!("{name}: was not measured")))
            .collect()
    }
}

/// That a sandbox was measured and held. Only [`prove`] makes one:
///
/// ```compile_fail
/// use stockade_ports::sandbox::Proof;
/// let forged = Proof(());
/// ```
///
/// and without one nothing can be started in a fresh sandbox:
///
/// ```compile_fail
/// # use stockade_ports::{ExecRequest, FreshSandbox};
/// async fn early(fresh: Box<dyn FreshSandbox>) {
///     let _ = fresh.exec(ExecRequest::default()).await;
/// }
/// ```
///
/// ```
/// # use stockade_ports::{ExecRequest, SandboxHandle};
/// async fn released(handle: &dyn SandboxHandle) {
///     let _ = handle.exec(ExecRequest::default()).await;
/// }
/// ```
#[derive(Debug)]
pub struct Proof(());

/// Measures a sandbox whose boundary `session` serves, and releases it if everything holds.
///
/// The session must have decided every attempt itself and let none pass: a denial nobody made
/// would be luck. Afterwards the session is opened for the agent.
///
/// # Errors
///
/// [`SandboxError::Unproved`] with each failed check; the sandbox is destroyed.
pub async fn prove(
    fresh: Box<dyn FreshSandbox>,
    plan: &ProbePlan,
    session: &dyn EgressSession,
) -> Result<(Arc<dyn SandboxHandle>, Measurement), SandboxError> {
    let hits = plan.witness.as_ref().map_or(0, |witness| witness.hits());
    let measured = fresh.measure(plan).await;
    let mut measurement = match measured {
        Ok(measurement) => measurement,
        Err(error) => {
            let _ = fresh.destroy().await;
            return Err(error);
        }
    };
    guarded(&mut measurement, plan, session);
    if let Some(witness) = &plan.witness {
        let reached = witness.hits() - hits;
        let seen = format!("{reached} connections");
        measurement.note("canary.silent", "0 connections", seen, reached == 0);
    }
    let failed = measurement.failures();
    if failed.is_empty() {
        session.open();
        return Ok((fresh.release(Proof(())), measurement));
    }
    let _ = fresh.destroy().await;
    Err(SandboxError::Unproved { failed })
}

/// The Guard itself refused every attempt, and saw each.
fn guarded(measurement: &mut Measurement, plan: &ProbePlan, session: &dyn EgressSession) {
    let tally = session.tally();
    let unseen = plan.denied.iter().filter(|addr| {
        // Without IPv6 on the host there is nothing that could reach the Guard.
        addr.is_ipv4() && !tally.denied.iter().any(|seen| *seen == addr.ip().to_string())
    });
    let unseen: Vec<_> = unseen.map(ToString::to_string).collect();
    let named = tally.denied.contains(&plan.denied_name);
    let seen = format!(
        "{} denied, {} allowed{}{}",
        tally.denied.len(),
        tally.allowed.len(),
        if unseen.is_empty() {
            String::new()
        } else {
            format!(", never saw {}", unseen.join(", "))
        },
        if named { "" } else { ", never saw the name" },
    );
    let ok = tally.allowed.is_empty() && unseen.is_empty() && named;
    measurement.note("egress.guarded", "every attempt seen and denied by the Guard", seen, ok);
}
