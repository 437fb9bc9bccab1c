//! What every store must do, whatever it keeps things in.
//!
//! Each function is one case with a team and ids of its own, so that cases can follow one
//! another on one store. [`all`] runs them.

mod actions;
mod approvals;
mod budgets;
mod claims;
mod ends;
mod events;
mod rest;
mod revocations;
mod scene;
mod secrets;
mod tasks;

use std::{pin::Pin, sync::Arc};

use crate::Store;

pub use actions::*;
pub use approvals::*;
pub use budgets::*;
pub use claims::*;
pub use ends::*;
pub use events::*;
pub use rest::*;
pub use revocations::*;
pub use secrets::*;
pub use tasks::*;

/// Runs every case, each on a store from `make`.
///
/// # Panics
///
/// When the store does not do what it must; the message says what.
pub async fn all(make: impl AsyncFn() -> Arc<dyn Store>) {
    type Case = Pin<Box<dyn Future<Output = ()> + Send>>;
    macro_rules! cases {
        ($($case:ident),* $(,)?) => {
            [$((|store: Arc<dyn Store>| Box::pin(async move { $case(&store).await }) as Case) as fn(Arc<dyn Store>) -> Case),*]
        };
    }
    let cases = cases![
        a_task_comes_with_its_first_run,
        a_key_makes_a_task_once,
        a_key_makes_a_run_once,
        an_id_is_given_once,
        lists_are_newest_first_and_paged,
        teams_do_not_see_each_other,
        events_are_dense_under_concurrency,
        events_come_back_as_they_were,
        events_are_read_from_a_place,
        one_worker_wins_a_claim,
        the_oldest_is_claimed_first_and_a_pause_is_kept,
        an_old_fence_is_worthless,
        a_worker_reports_with_its_lease_only,
        a_terminal_run_never_changes,
        an_end_closes_what_is_open,
        a_lost_worker_fails_a_working_run,
        a_waiting_run_outlives_its_worker,
        cancelling_is_asked_or_done,
        a_thousand_reservations_admit_exactly_the_limit,
        a_settled_action_gives_its_reservation_back,
        turns_are_counted_and_capped,
        an_action_is_settled_once,
        an_action_is_admitted_once,
        a_repeated_action_asks_a_person,
        a_held_action_waits_for_its_answer,
        an_approval_is_used_once,
        an_approval_is_answered_once,
        an_approval_is_for_one_exact_action,
        an_edited_action_runs_as_edited,
        silence_is_a_no,
        messages_are_numbered,
        the_first_artifact_stays,
        tokens_are_found_by_digest_and_revoked,
        a_secret_is_replaced_and_removed,
        secrets_are_one_teams,
        secrets_put_at_once_are_all_counted,
        a_revocation_is_kept_and_lifted_once,
        revocations_are_found_by_team_and_environment,
    ];
    for case in cases {
        case(make().await).await;
    }
}
