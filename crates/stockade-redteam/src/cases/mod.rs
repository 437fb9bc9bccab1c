//! The attacks. Each is a function that carries out both runs and says what was seen.

mod bomb;
mod escape;
mod files;
mod images;
mod kept;
mod leads;
mod leftovers;
mod lent;
mod names;
mod network;
mod plan;
mod process;
mod reach;
mod requests;
mod resources;
mod secure;

use std::pin::Pin;

use crate::{
    field::Field,
    inside::{Call, Inside},
    judge::{Excuse, Trial},
    report::Group,
    told::Told,
};

/// A trial under way.
pub(crate) type Pending<'a> = Pin<Box<dyn Future<Output = Trial> + Send + 'a>>;

/// One attack. Ids that begin with `A-` are those of the common attack checklist; `A-EX` and
/// `A-LO` are further ones.
pub(crate) struct Case {
    pub(crate) id: &'static str,
    pub(crate) group: Group,
    pub(crate) tried: &'static str,
    pub(crate) expected: &'static str,
    pub(crate) run: for<'a> fn(&'a Field, &'a Inside) -> Pending<'a>,
}

/// Every case in the order they are carried out.
pub(crate) fn all() -> Vec<&'static Case> {
    [
        files::CASES,
        images::CASES,
        process::CASES,
        network::CASES,
        reach::CASES,
        requests::CASES,
        names::CASES,
        leads::CASES,
        secure::CASES,
        lent::CASES,
        kept::CASES,
        escape::CASES,
        resources::CASES,
        leftovers::CASES,
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// The same for cases that can be without a control for these reasons.
const ROOT_OR_KERNEL: &[Excuse] = &[Excuse::NeedsRoot, Excuse::KernelLacks];

/// Both runs of one attack.
pub(crate) fn trial(inside: Told, control: Told) -> Trial {
    let mut trial = Trial {
        inside: inside.attempts.clone(),
        control: control.attempts.clone(),
        ..Trial::default()
    };
    trial.not_tried = inside.complete().err();
    trial.no_control = control.complete().err();
    trial
}

/// The attack inside, and the same or another call where nothing stops it.
pub(crate) async fn against(field: &Field, target: &Inside, inside: &Call, control: &Call) -> Trial {
    trial(target.run(inside).await, field.outside(control).await)
}

/// The attack inside, and its allowed form, also inside.
pub(crate) async fn beside(target: &Inside, inside: &Call, twin: &Call) -> Trial {
    trial(target.run(inside).await, target.run(twin).await)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn ids_are_unique_and_every_group_has_cases() {
        let cases = all();
        let ids: BTreeSet<_> = cases.iter().map(|case| case.id).collect();
        assert_eq!(ids.len(), cases.len());
        for group in Group::ALL {
            assert!(cases.iter().any(|case| case.group == group), "{}", group.name());
        }
    }
}
