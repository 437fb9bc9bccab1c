//! Many interleavings of everything at once: answers, cancellations, kills, restarts and a
//! store that comes and goes. Whatever happens, the invariants hold and every run ends.

mod support;

use std::{collections::BTreeMap, time::Duration};

use stockade_domain::{Decision, Failure, Run, RunId};
use stockade_engine::EmbeddedEngine;
use stockade_ports::{Engine, sim::samples};
use support::{Move, Plan, World};
use tokio::time::sleep;

const SEEDS: u64 = 50;

/// xorshift64*: small, and the same everywhere.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) % sides
    }

    fn moves(&mut self, most: u64) -> Vec<Move> {
        let commands = ["make deploy", "make release", "rm -r build"];
        let count = self.roll(most + 1);
        (0..count)
            .map(|_| match self.roll(12) {
                0..=3 => Move::Work(self.roll(400)),
                4..=6 => Move::Ask(commands[usize::try_from(self.roll(3)).unwrap()]),
                7..=9 => Move::Model,
                10 => Move::FailFirst(1, Failure::transient("flaky", "played")),
                _ => match self.roll(4) {
                    0 => Move::Panic,
                    1 => Move::Fail(Failure::terminal("played", "played")),
                    2 => Move::Deaf,
                    _ => Move::Forever,
                },
            })
            .collect()
    }

    fn plan(&mut self) -> Plan {
        let only_work = |moves: Vec<Move>| {
            // Before and after the agent there is nobody to act.
            moves
                .into_iter()
                .filter(|one| !matches!(one, Move::Ask(_) | Move::Model))
                .collect()
        };
        Plan {
            provision: only_work(self.moves(2)),
            drive: self.moves(6),
            export: only_work(self.moves(1)),
            seal: Vec::new(),
        }
    }
}

/// What happens to the world from outside, once.
async fn happen(world: &World, engine: &mut Option<std::sync::Arc<EmbeddedEngine>>, runs: &[RunId], dice: &mut Dice) {
    sleep(Duration::from_millis(dice.roll(300))).await;
    let run = runs[usize::try_from(dice.roll(runs.len() as u64)).unwrap()];
    match dice.roll(20) {
        0..=8 => {
            if let Some(approval) = world.pending(run).await.first() {
                let decision = if dice.roll(3) == 0 {
                    Decision::Reject
                } else {
                    Decision::Approve
                };
                // Somebody may have been quicker, or the run has ended.
                let _ = world.decide(approval, decision).await;
            }
        }
        9 => {
            let _ = world.cancel(engine.as_ref().unwrap(), run).await;
        }
        10..=12 => {
            world.kill(engine.take().unwrap()).await;
            *engine = Some(world.engine().await);
        }
        13 => {
            engine.as_ref().unwrap().shutdown().await;
            world.kill(engine.take().unwrap()).await;
            *engine = Some(world.engine().await);
        }
        14 | 15 => {
            world.store.unavailable(true);
            sleep(Duration::from_millis(dice.roll(2000))).await;
            world.store.unavailable(false);
        }
        16 | 17 => world.store.lose_steps(1),
        _ => engine.as_ref().unwrap().wake(run).await,
    }
}

async fn simulate(seed: u64) -> (usize, BTreeMap<&'static str, usize>) {
    let mut dice = Dice(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
    let mut world = World::new();
    world.config.max_concurrent = 3;
    let mut engine = Some(world.engine().await);
    let mut runs = Vec::new();
    for _ in 0..6 {
        let mut limits = samples::limits();
        limits.wall_clock_seconds = 300;
        limits.approval_timeout_seconds = 120;
        limits.budget.model_requests = Some(2);
        runs.push(world.queue_with(dice.plan(), limits).await);
    }
    let mut ended: BTreeMap<RunId, Run> = BTreeMap::new();
    for _ in 0..60 {
        happen(&world, &mut engine, &runs, &mut dice).await;
        for run in &runs {
            let now = world.run(*run).await;
            if now.state().is_terminal() {
                let first = ended.entry(*run).or_insert_with(|| now.clone());
                assert_eq!(*first, now, "a terminal run changed");
            }
        }
    }
    // A run that a lost store left behind is found by the next start.
    world.kill(engine.take().unwrap()).await;
    let _engine = world.engine().await;
    let (mut effects, mut states) = (0, BTreeMap::new());
    for run in runs {
        let now = world.until_sealed(run).await;
        assert_eq!(
            *ended.entry(run).or_insert_with(|| now.clone()),
            now,
            "a terminal run changed"
        );
        *states.entry(now.state().as_str()).or_default() += 1;
        effects += world.puppet.effects(run).len();
    }
    sleep(Duration::from_secs(2)).await;
    world.check().await;
    (effects, states)
}

#[test]
fn the_invariants_hold_in_every_interleaving() {
    let (mut effects, mut states) = (0, BTreeMap::new());
    for seed in 0..SEEDS {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .start_paused(true)
            .build()
            .unwrap();
        let played = std::panic::catch_unwind(|| runtime.block_on(simulate(seed)));
        let Ok((some, ends)) = played else {
            panic!("seed {seed} breaks an invariant; see above");
        };
        effects += some;
        for (state, count) in ends {
            *states.entry(state).or_insert(0) += count;
        }
    }
    // The dice must really have led everywhere, or this shows nothing.
    assert!(effects > 60, "{effects}");
    for state in ["completed", "failed", "cancelled"] {
        assert!(states[state] > 15, "{states:?}");
    }
}
