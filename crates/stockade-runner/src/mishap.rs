//! From what broke to the failure a run ends with: a class, a code, words and a way out.

use stockade_domain::{Failure, FailureClass, failure::class_of_io};
use stockade_gate::Refusal;
use stockade_policy::PolicyError;
use stockade_ports::{EgressError, ImageError, SandboxError, StoreError};

/// The failure of an activity that was asked to stop.
pub(crate) fn stopped() -> Failure {
    Failure::terminal("stopped", "the run was asked to stop")
}

/// The sandbox's errors.
pub(crate) fn sandbox(error: SandboxError) -> Failure {
    let message = error.to_string();
    match error {
        SandboxError::Unsupported { fix, .. } => Failure::terminal("sandbox_unsupported", message).with_hint(fix),
        SandboxError::Setup { .. } => {
            Failure::transient("sandbox_setup", message).with_hint("'stockade doctor' says what this host lacks")
        }
        SandboxError::Incapable { .. } => Failure::terminal("backend_incapable", message)
            .with_hint("choose another backend, or ask for less in the environment"),
        SandboxError::Unproved { .. } => Failure::terminal("sandbox_unproved", message)
            .with_hint("nothing of the agent ran; 'stockade doctor' says what this host lacks"),
        SandboxError::Invalid(_) => Failure::terminal("sandbox_invalid", message),
        SandboxError::NotFound(_) => Failure::terminal("not_found", message),
        SandboxError::TooLarge { .. } => Failure::terminal("too_large", message),
        SandboxError::DiskFull(_) => Failure::terminal("disk_full", message)
            .with_hint("raise limits.disk_bytes of the environment, or let the agent write less"),
        SandboxError::Inside { .. } => Failure::unknown("sandbox_inside", message),
        SandboxError::Gone(_) => Failure::unknown("sandbox_gone", message)
            .with_hint("look at memory and process limits of the environment: the sandbox may have run out of them"),
    }
}

/// The image store's errors.
pub(crate) fn image(error: &ImageError) -> Failure {
    let message = error.to_string();
    match error {
        ImageError::Reference { .. } => Failure::terminal("image_reference", message),
        ImageError::Refused { .. } => Failure::terminal("image_refused", message)
            .with_hint("check the name, the digest and the registry's credentials"),
        ImageError::Unavailable { .. } => Failure::transient("image_unavailable", message),
        ImageError::Unsafe { .. } => Failure::terminal("image_unsafe", message),
        ImageError::Store(_) => Failure::unknown("image_store", message),
    }
}

/// The Guard's errors.
pub(crate) fn egress(error: &EgressError) -> Failure {
    match error {
        EgressError::Environment { .. } => Failure::terminal("environment", error.to_string()),
        EgressError::Boundary(_) => Failure::transient("boundary", error.to_string()),
    }
}

/// The store's errors.
pub(crate) fn store(error: &StoreError) -> Failure {
    match error {
        StoreError::Unavailable(_) => Failure::transient("store_unavailable", error.to_string()),
        StoreError::Fenced { .. } => Failure::terminal("fenced", error.to_string()),
        _ => Failure::unknown("store", error.to_string()),
    }
}

/// A refusal that ends the run, and not only an action of it.
pub(crate) fn refusal(refusal: &Refusal) -> Failure {
    match refusal {
        Refusal::Exhausted { exhausted } => {
            Failure::terminal("budget_exhausted", exhausted.to_string()).with_hint(format!(
                "raise the limit '{}' of the agent or the run, or ask for less",
                exhausted.resource
            ))
        }
        Refusal::Unrecorded(error) => store(error),
        Refusal::Denied { record } if record.rule == "stockade.run_state" => stopped(),
        Refusal::Denied { .. } => Failure::terminal("refused", refusal.to_string()),
    }
}

/// Whether a refusal is about more than the one action.
pub(crate) fn ends_run(refusal: &Refusal) -> bool {
    match refusal {
        Refusal::Exhausted { .. } | Refusal::Unrecorded(_) => true,
        Refusal::Denied { record } => record.rule == "stockade.run_state",
    }
}

/// Rules that do not compile.
pub(crate) fn policy(error: &PolicyError) -> Failure {
    Failure::terminal("policy", error.to_string())
}

/// The host's file system.
pub(crate) fn io(what: &str, error: &std::io::Error) -> Failure {
    let message = format!("{what}: {error}");
    match class_of_io(error.kind()) {
        _ if error.kind() == std::io::ErrorKind::StorageFull => {
            Failure::terminal("disk_full", message).with_hint("free some space on the runner's host")
        }
        FailureClass::Transient => Failure::transient("host_io", message),
        FailureClass::Terminal => Failure::terminal("host_io", message),
        FailureClass::Unknown => Failure::unknown("host_io", message),
    }
}

/// An agent that repeats itself, and nobody let it go on.
pub(crate) fn repeating(what: &str) -> Failure {
    let what = crate::text::clip(what, 200).0;
    Failure::terminal(
        "loop",
        format!("the agent kept asking for the same thing without progress: {what}"),
    )
    .with_hint("look at its last tool calls; a clearer task or a raised limits.repeat_limit may help")
}
