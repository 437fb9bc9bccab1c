//! Hard budgets: reserved before an effect, settled after it.

use serde::{Deserialize, Serialize};

/// Amounts of everything a budget counts.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Amounts {
    /// Model tokens, input and output together.
    pub tokens: u64,
    /// Cost in millionths of a US dollar.
    pub cost_micro_usd: u64,
    /// Calls to a model.
    pub model_requests: u64,
    /// Turns of the agent.
    pub turns: u64,
}

impl Amounts {
    /// Nothing.
    pub const ZERO: Self = Self {
        tokens: 0,
        cost_micro_usd: 0,
        model_requests: 0,
        turns: 0,
    };

    fn combine(self, other: Self, f: impl Fn(u64, u64) -> u64) -> Self {
        Self {
            tokens: f(self.tokens, other.tokens),
            cost_micro_usd: f(self.cost_micro_usd, other.cost_micro_usd),
            model_requests: f(self.model_requests, other.model_requests),
            turns: f(self.turns, other.turns),
        }
    }

    /// The sum, held at the largest number instead of wrapping.
    pub fn plus(self, other: Self) -> Self {
        self.combine(other, u64::saturating_add)
    }

    /// The difference, held at zero.
    pub fn minus(self, other: Self) -> Self {
        self.combine(other, u64::saturating_sub)
    }

    fn named(self) -> [(&'static str, u64); 4] {
        [
            ("tokens", self.tokens),
            ("cost_micro_usd", self.cost_micro_usd),
            ("model_requests", self.model_requests),
            ("turns", self.turns),
        ]
    }
}

/// Upper limits; `None` is unlimited.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct BudgetLimits {
    /// Model tokens, input and output together.
    pub tokens: Option<u64>,
    /// Cost in millionths of a US dollar.
    pub cost_micro_usd: Option<u64>,
    /// Calls to a model.
    pub model_requests: Option<u64>,
    /// Turns of the agent.
    pub turns: Option<u64>,
}

impl BudgetLimits {
    fn named(self) -> [Option<u64>; 4] {
        [self.tokens, self.cost_micro_usd, self.model_requests, self.turns]
    }
}

/// A limit that a reservation would exceed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("budget exhausted: {resource} limit {limit}, used {used}, reserved {reserved}, asked for {asked}")]
pub struct BudgetExhausted {
    /// Which resource.
    pub resource: String,
    /// Its limit.
    pub limit: u64,
    /// Settled so far.
    pub used: u64,
    /// Held by actions in flight.
    pub reserved: u64,
    /// What was asked for on top.
    pub asked: u64,
}

/// One run's budget. `used + reserved` never exceeds a limit by admission.
///
/// Settling more than was reserved is possible (a provider may bill more than its
/// ceiling); it is counted in full, and the next reservation feels it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Budget {
    /// The limits.
    pub limits: BudgetLimits,
    /// Held by actions in flight.
    pub reserved: Amounts,
    /// Settled.
    pub used: Amounts,
}

impl Budget {
    /// A fresh budget.
    pub fn new(limits: BudgetLimits) -> Self {
        Self {
            limits,
            ..Self::default()
        }
    }

    /// Reserves all amounts or nothing.
    pub fn reserve(&mut self, asked: Amounts) -> Result<(), BudgetExhausted> {
        let rows = self
            .limits
            .named()
            .into_iter()
            .zip(self.used.named())
            .zip(self.reserved.named())
            .zip(asked.named());
        for (((limit, (resource, used)), (_, reserved)), (_, asked)) in rows {
            let Some(limit) = limit else { continue };
            let total = used.saturating_add(reserved).saturating_add(asked);
            if asked > 0 && total > limit {
                return Err(BudgetExhausted {
                    resource: resource.to_owned(),
                    limit,
                    used,
                    reserved,
                    asked,
                });
            }
        }
        self.reserved = self.reserved.plus(asked);
        Ok(())
    }

    /// Gives a reservation back and counts what was really spent.
    pub fn settle(&mut self, reserved: Amounts, spent: Amounts) {
        self.reserved = self.reserved.minus(reserved);
        self.used = self.used.plus(spent);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn amounts() -> impl Strategy<Value = Amounts> {
        (0u64..50, 0u64..50, 0u64..3, 0u64..3).prop_map(|(tokens, cost_micro_usd, model_requests, turns)| Amounts {
            tokens,
            cost_micro_usd,
            model_requests,
            turns,
        })
    }

    proptest! {
        /// Any interleaving of reservations and settlements (at most what was reserved) stays within the limit.
        #[test]
        fn never_over_the_limit(limit in 0u64..200, script in proptest::collection::vec((amounts(), any::<bool>()), 0..60)) {
            let mut budget = Budget::new(BudgetLimits { tokens: Some(limit), cost_micro_usd: Some(limit), ..BudgetLimits::default() });
            let mut open = Vec::new();
            for (asked, settle) in script {
                if settle && let Some(reserved) = open.pop() {
                    budget.settle(reserved, reserved);
                } else if budget.reserve(asked).is_ok() {
                    open.push(asked);
                }
                prop_assert!(budget.used.tokens + budget.reserved.tokens <= limit);
                prop_assert!(budget.used.cost_micro_usd + budget.reserved.cost_micro_usd <= limit);
                let held = open.iter().fold(Amounts::ZERO, |sum, a| sum.plus(*a));
                prop_assert_eq!(held, budget.reserved);
            }
        }
    }

    #[test]
    fn a_refusal_takes_nothing_and_says_why() {
        let mut budget = Budget::new(BudgetLimits {
            tokens: Some(10),
            turns: Some(1),
            ..BudgetLimits::default()
        });
        let before = budget;
        let refused = budget
            .reserve(Amounts {
                tokens: 5,
                turns: 2,
                ..Amounts::ZERO
            })
            .unwrap_err();
        assert_eq!(
            (refused.resource.as_str(), refused.limit, refused.asked),
            ("turns", 1, 2)
        );
        assert_eq!(budget, before);
        budget
            .reserve(Amounts {
                tokens: 10,
                turns: 1,
                ..Amounts::ZERO
            })
            .unwrap();
    }

    #[test]
    fn an_exhausted_resource_does_not_stop_actions_that_do_not_need_it() {
        let mut budget = Budget::new(BudgetLimits {
            tokens: Some(1),
            ..BudgetLimits::default()
        });
        budget.settle(
            Amounts::ZERO,
            Amounts {
                tokens: 5,
                ..Amounts::ZERO
            },
        );
        assert!(
            budget
                .reserve(Amounts {
                    turns: 1,
                    ..Amounts::ZERO
                })
                .is_ok()
        );
        assert!(
            budget
                .reserve(Amounts {
                    tokens: 1,
                    ..Amounts::ZERO
                })
                .is_err()
        );
    }
}
