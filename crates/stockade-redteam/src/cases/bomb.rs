//! Bombs: set off in a sandbox of their own, with a neighbour beside it.

use stockade_domain::SandboxLimits;

use super::trial;
use crate::{
    field::{Field, TIGHT},
    inside::{Call, Inside},
    judge::{Excuse, Sighting, Trial},
    neighbour::{Pace, beside},
    told::Told,
};

/// EAGAIN, ENOSPC, EDQUOT, ENOMEM, EMFILE, EFBIG: the kernel's names for limits.
const LIMITS: [i32; 6] = [11, 28, 122, 12, 24, 27];
/// A neighbour is measured again when it noticed something: another process of the host may have
/// been the reason. What a sandbox does to it, it does every time.
pub(super) const TRIES: usize = 3;

/// Something that takes more than its share.
pub(super) struct Bomb {
    /// The limit that has to be enforced for it to be tried.
    pub(super) needs: Option<&'static str>,
    pub(super) limits: SandboxLimits,
    pub(super) inside: Call,
    pub(super) control: Control,
}

pub(super) enum Control {
    /// The same where nothing stops it.
    Outside(Call),
    /// An ordinary amount, inside.
    Inside(Call),
}

/// What came of it.
pub(super) struct Blast {
    /// The sandbox it was in.
    pub(super) own: Inside,
    pub(super) inside: Told,
    pub(super) pace: Pace,
}

impl Bomb {
    pub(super) fn new(needs: &'static str, inside: Call, control: Call) -> Self {
        Self {
            needs: Some(needs),
            limits: TIGHT,
            inside,
            control: Control::Outside(control),
        }
    }

    pub(super) async fn set_off(&self, field: &Field, neighbour: &Inside) -> Result<Blast, Trial> {
        if self.needs.is_some_and(|limit| !field.enforces(limit)) {
            return Err(not_enforced());
        }
        let mut tries = 1;
        loop {
            let own = field.sandbox(self.limits).await.map_err(no_sandbox)?;
            let (inside, pace) = beside(neighbour, own.run(&self.inside)).await;
            // What got all it wanted has failed already.
            let lost = inside.attempts.iter().any(|attempt| attempt.got);
            if pace.holds() || lost || tries >= TRIES {
                return Ok(Blast { own, inside, pace });
            }
            own.end().await;
            tries += 1;
        }
    }

    pub(super) async fn control(&self, field: &Field, own: &Inside) -> Told {
        match &self.control {
            Control::Outside(call) => field.outside(call).await,
            Control::Inside(call) => own.run(call).await,
        }
    }

    /// One that is stopped by a limit the kernel names, in a sandbox that outlives it.
    pub(super) async fn contain(self, field: &Field, neighbour: &Inside) -> Trial {
        let Blast { own, inside, pace } = match self.set_off(field, neighbour).await {
            Ok(blast) => blast,
            Err(trial) => return trial,
        };
        let mut found = trial(inside, self.control(field, &own).await);
        found.host.push(pace.sighting());
        named(&own, &mut found).await;
        own.end().await;
        found
    }
}

fn not_enforced() -> Trial {
    Trial {
        excuse: Some(Excuse::NotEnforced),
        ..Trial::default()
    }
}

pub(super) fn no_sandbox(error: impl std::fmt::Display) -> Trial {
    Trial {
        not_tried: Some(error.to_string()),
        ..Trial::default()
    }
}

/// The last refusal has to be a limit's, and the sandbox has to outlive it.
async fn named(own: &Inside, trial: &mut Trial) {
    let refused: Vec<_> = trial.inside.iter().filter(|attempt| !attempt.got).collect();
    let ok = refused
        .iter()
        .all(|attempt| attempt.errno.is_some_and(|errno| LIMITS.contains(&errno)));
    let seen = refused
        .iter()
        .map(|attempt| attempt.why.clone())
        .collect::<Vec<_>>()
        .join("; ");
    trial
        .host
        .push(Sighting::new("the limit", "named by the kernel", seen, ok));
    let well = own.is_healthy().await;
    let seen = if well { "works".to_owned() } else { own.ailment().await };
    trial
        .host
        .push(Sighting::new("the sandbox afterwards", "works", seen, well));
}
