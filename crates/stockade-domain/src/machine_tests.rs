use proptest::prelude::*;
use uuid::Uuid;

use super::*;

fn approval(n: u8) -> ApprovalId {
    ApprovalId::from_uuid(Uuid::from_u128(u128::from(n)))
}

fn input() -> impl Strategy<Value = RunInput> {
    prop_oneof![
        4 => Just(RunInput::Claim),
        4 => Just(RunInput::Provisioned),
        3 => (0u8..3).prop_map(|n| RunInput::ApprovalOpened(approval(n))),
        3 => (0u8..3).prop_map(|n| RunInput::ApprovalClosed(approval(n))),
        2 => Just(RunInput::AgentFinished),
        2 => Just(RunInput::Exported(RunResult::default())),
        1 => Just(RunInput::Fail(Failure::transient("t", "t"))),
        1 => Just(RunInput::Fail(Failure::terminal("x", "x"))),
        1 => Just(RunInput::Cancel(Cancellation { by: "a".into(), reason: None })),
        1 => Just(RunInput::Stopped),
        2 => Just(RunInput::WorkerLost),
    ]
}

fn run_through(inputs: &[RunInput]) -> Machine {
    inputs.iter().fold(Machine::new(3), |machine, input| {
        step(&machine, input.clone()).unwrap_or_else(|e| panic!("{e}")).machine
    })
}

proptest! {
    #[test]
    fn invariants_hold_on_every_path(inputs in proptest::collection::vec(input(), 0..60)) {
        let mut machine = Machine::new(3);
        for input in inputs {
            let Ok(step) = step(&machine, input.clone()) else { continue };
            prop_assert!(!machine.state.is_terminal(), "a terminal run took {input:?}");
            let next = &step.machine;
            if next.state.is_terminal() {
                prop_assert!(next.open.is_empty() && !next.attached && next.cancelling.is_none());
                prop_assert!(step.commands.contains(&Command::Seal), "every ended run gets a receipt");
                prop_assert!(step.cancel_approvals && step.lose_actions);
                prop_assert_eq!(step.events.iter().filter(|e| e.kind.as_str() == format!("run.{}", next.state.as_str())).count(), 1);
            }
            // A worker's sandbox is destroyed exactly when the worker lets go of the run, unless the worker died.
            if machine.attached && !next.attached && input != RunInput::WorkerLost {
                prop_assert!(step.commands.contains(&Command::Cleanup));
            }
            prop_assert_eq!(next.state == RunState::Running && !next.open.is_empty(), false);
            // A running run is never claimable by a second worker.
            prop_assert!(!(next.attached && next.is_claimable()));
            prop_assert_eq!(next.state == RunState::Provisioning, step.commands.contains(&Command::Provision) || (machine.state == RunState::Provisioning && next.state == RunState::Provisioning));
            machine = step.machine;
        }
    }

    #[test]
    fn a_terminal_run_takes_nothing(inputs in proptest::collection::vec(input(), 0..60), late in input()) {
        let mut machine = Machine::new(1);
        for input in inputs {
            if let Ok(step) = step(&machine, input) { machine = step.machine; }
        }
        if machine.state.is_terminal() {
            prop_assert!(step(&machine, late).is_err());
        }
    }
}

#[test]
fn the_ordinary_life() {
    let machine = run_through(&[
        RunInput::Claim,
        RunInput::Provisioned,
        RunInput::ApprovalOpened(approval(1)),
        RunInput::ApprovalClosed(approval(1)),
        RunInput::AgentFinished,
        RunInput::Exported(RunResult::default()),
    ]);
    assert_eq!(machine.state, RunState::Completed);
}

#[test]
fn a_waiting_run_outlives_its_worker_and_starts_over_once_decided() {
    let lost = run_through(&[
        RunInput::Claim,
        RunInput::Provisioned,
        RunInput::ApprovalOpened(approval(1)),
        RunInput::WorkerLost,
    ]);
    assert_eq!(
        (lost.state, lost.attached, lost.is_claimable()),
        (RunState::Waiting, false, false)
    );
    let decided = step(&lost, RunInput::ApprovalClosed(approval(1))).unwrap();
    assert_eq!(decided.machine.state, RunState::Waiting);
    assert!(decided.machine.is_claimable());
    assert_eq!(decided.commands, [Command::Requeue { after_ms: 0 }]);
    let again = step(&decided.machine, RunInput::Claim).unwrap();
    assert_eq!(
        (again.machine.state, again.machine.attempt),
        (RunState::Provisioning, 2)
    );
}

#[test]
fn a_working_run_whose_worker_dies_fails_honestly() {
    let running = run_through(&[RunInput::Claim, RunInput::Provisioned]);
    let lost = step(&running, RunInput::WorkerLost).unwrap();
    assert_eq!(lost.machine.state, RunState::Failed);
    assert_eq!(lost.failure.unwrap().code, "interrupted");
    assert!(!lost.commands.contains(&Command::Cleanup));
}

#[test]
fn provisioning_is_retried_a_bounded_number_of_times() {
    let mut machine = Machine::new(2);
    let flaky = || RunInput::Fail(Failure::transient("registry", "busy"));
    machine = step(&machine, RunInput::Claim).unwrap().machine;
    let first = step(&machine, flaky()).unwrap();
    assert_eq!(first.commands, [Command::Cleanup, Command::Requeue { after_ms: 500 }]);
    machine = step(&first.machine, RunInput::Claim).unwrap().machine;
    assert_eq!(step(&machine, flaky()).unwrap().machine.state, RunState::Failed);
}

#[test]
fn a_terminal_failure_stops_at_once() {
    let machine = run_through(&[RunInput::Claim]);
    let step = step(&machine, RunInput::Fail(Failure::terminal("unauthorized", "401"))).unwrap();
    assert_eq!(step.machine.state, RunState::Failed);
}

#[test]
fn cancel_ends_an_idle_run_at_once_and_asks_a_worker_to_stop_a_busy_one() {
    let by = || {
        RunInput::Cancel(Cancellation {
            by: "ada".into(),
            reason: None,
        })
    };
    assert_eq!(step(&Machine::new(1), by()).unwrap().machine.state, RunState::Cancelled);
    let busy = run_through(&[RunInput::Claim, RunInput::Provisioned]);
    let asked = step(&busy, by()).unwrap();
    assert_eq!(asked.commands, [Command::Stop]);
    assert!(!asked.machine.may_act());
    assert_eq!(
        step(&asked.machine, RunInput::Stopped).unwrap().machine.state,
        RunState::Cancelled
    );
}

#[test]
fn a_change_that_is_out_stays_the_result_when_the_time_to_answer_is_over() {
    let waiting = run_through(&[
        RunInput::Claim,
        RunInput::Provisioned,
        RunInput::AgentFinished,
        RunInput::ApprovalOpened(approval(1)),
    ]);
    assert_eq!(waiting.state, RunState::Waiting);
    let ended = step(&waiting, RunInput::Exported(RunResult::default())).unwrap();
    assert_eq!(
        (ended.machine.state, ended.cancel_approvals),
        (RunState::Completed, true)
    );
    let lost = step(&waiting, RunInput::WorkerLost).unwrap().machine;
    assert!(
        step(&lost, RunInput::Exported(RunResult::default())).is_err(),
        "nobody holds it"
    );
}
