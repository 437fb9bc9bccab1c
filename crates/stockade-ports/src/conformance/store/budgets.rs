//! Budgets: reserved before, settled after, never exceeded.

use std::sync::Arc;

use stockade_domain::{Amounts, BudgetLimits, Limits, Verdict, admission::AdmitRequest};

use super::scene::{Scene, kinds, model_call, ok, requests};
use crate::{Store, sim::samples};

fn capped(budget: BudgetLimits) -> Limits {
    Limits {
        budget,
        ..samples::limits()
    }
}

/// A thousand at once, a hundred allowed: exactly a hundred are admitted.
pub async fn a_thousand_reservations_admit_exactly_the_limit(store: &Arc<dyn Store>) {
    let scene = Scene::new(store);
    let limits = capped(BudgetLimits {
        model_requests: Some(100),
        ..BudgetLimits::default()
    });
    let (run, lease) = scene.running(limits).await;
    let asking: Vec<_> = (0..1000)
        .map(|_| {
            let request = AdmitRequest {
                reserve: requests(1),
                ..scene.request(run, lease, model_call(), Verdict::Allow)
            };
            let store = Arc::clone(store);
            tokio::spawn(async move { store.admit(request).await })
        })
        .collect();
    let (mut admitted, mut exhausted) = (0, 0);
    for asked in asking {
        let decision = ok(asked.await.expect("an asker ends"));
        match decision.record.verdict {
            Verdict::Allow => admitted += 1,
            _ => exhausted += usize::from(decision.exhausted.is_some()),
        }
    }
    assert_eq!((admitted, exhausted), (100, 900));
    let stored = scene.run(run).await;
    assert_eq!(
        (stored.budget.reserved, stored.budget.used),
        (requests(100), requests(0))
    );
    let actions = ok(store.actions(run).await);
    assert_eq!(actions.iter().filter(|action| action.in_flight()).count(), 100);
    let history = scene.history(run).await;
    let told = |kind| history.iter().filter(|event| event.kind.as_str() == kind).count();
    assert_eq!((told("action.admitted"), told("budget.exhausted")), (100, 900));
}

/// What was reserved comes back, and what was spent is counted.
pub async fn a_settled_action_gives_its_reservation_back(store: &Arc<dyn Store>) {
    let scene = Scene::new(store);
    let limits = capped(BudgetLimits {
        tokens: Some(100),
        ..BudgetLimits::default()
    });
    let (run, lease) = scene.running(limits).await;
    let tokens = |tokens| Amounts {
        tokens,
        ..Amounts::ZERO
    };
    let ask = || AdmitRequest {
        reserve: tokens(80),
        ..scene.request(run, lease, model_call(), Verdict::Allow)
    };
    let first = ask();
    assert_eq!(scene.admit(&first).await.record.verdict, Verdict::Allow);
    assert_eq!(
        scene.admit(&ask()).await.record.verdict,
        Verdict::Deny,
        "80 of 100 are reserved"
    );
    ok(store.settle(scene.settle(run, first.id, tokens(15))).await);
    let budget = scene.run(run).await.budget;
    assert_eq!((budget.reserved, budget.used), (tokens(0), tokens(15)));
    let second = ask();
    assert_eq!(scene.admit(&second).await.record.verdict, Verdict::Allow);
    // A provider may bill more than its ceiling: counted in full.
    ok(store.settle(scene.settle(run, second.id, tokens(90))).await);
    assert_eq!(scene.run(run).await.budget.used, tokens(105));
    assert_eq!(scene.admit(&ask()).await.record.verdict, Verdict::Deny);
}

/// Turns are numbered, and the one over the limit is refused.
pub async fn turns_are_counted_and_capped(store: &Arc<dyn Store>) {
    let scene = Scene::new(store);
    let limits = capped(BudgetLimits {
        turns: Some(2),
        ..BudgetLimits::default()
    });
    let (run, lease) = scene.running(limits).await;
    let mut numbers = Vec::new();
    for _ in 0..3 {
        numbers.push(ok(store.begin_turn(run, lease, scene.now).await).number.ok());
    }
    assert_eq!(numbers, [Some(1), Some(2), None]);
    let history = scene.history(run).await;
    assert_eq!(
        kinds(&history[3..]),
        ["turn.started", "turn.started", "budget.exhausted"]
    );
    assert_eq!(scene.run(run).await.budget.used.turns, 2);
}
