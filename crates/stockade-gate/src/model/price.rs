//! What models cost.

use stockade_domain::Amounts;

use super::Usage;

/// Prices in billionths of a US dollar for one token, which is thousandths of a US dollar
/// for a million of them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Price {
    /// Input tokens outside a cache.
    pub input: u64,
    /// Output tokens.
    pub output: u64,
    /// Input tokens read from a cache.
    pub cache_read: u64,
    /// Input tokens written to a cache.
    pub cache_write: u64,
}

impl Price {
    /// Costs nothing.
    pub const FREE: Self = Self {
        input: 0,
        output: 0,
        cache_read: 0,
        cache_write: 0,
    };

    /// Anthropic's rule: a cache is read at a tenth and written at five quarters of the input price.
    const fn anthropic(input: u64, output: u64) -> Self {
        Self {
            input,
            output,
            cache_read: input / 10,
            cache_write: input / 4 * 5,
        }
    }

    /// OpenAI's rule: a cache is written at the input price and read at its own.
    const fn openai(input: u64, cache_read: u64, output: u64) -> Self {
        Self {
            input,
            output,
            cache_read,
            cache_write: input,
        }
    }

    /// The cost of a call in millionths of a US dollar, rounded up.
    pub fn cost_micro_usd(&self, usage: Usage) -> u64 {
        let part = |tokens: u64, price: u64| u128::from(tokens) * u128::from(price);
        let billionths = part(usage.input, self.input)
            + part(usage.output, self.output)
            + part(usage.cache_read, self.cache_read)
            + part(usage.cache_write, self.cache_write);
        u64::try_from(billionths.div_ceil(1000)).unwrap_or(u64::MAX)
    }

    /// What a call counts against a budget.
    pub(super) fn amounts(&self, usage: Usage) -> Amounts {
        Amounts {
            tokens: usage.total(),
            cost_micro_usd: self.cost_micro_usd(usage),
            model_requests: 1,
            turns: 0,
        }
    }

    /// The dearest way to read input: what a reservation assumes.
    pub(super) fn worst_input(&self) -> Self {
        Self {
            input: self.input.max(self.cache_write),
            ..*self
        }
    }
}

/// Prices by the beginning of a model's name; the longest beginning wins.
#[derive(Debug, Clone)]
pub struct PriceTable {
    version: String,
    rows: Vec<(String, Price)>,
    unknown: Price,
}

/// List prices in US dollars per million tokens, times a thousand.
const BUILTIN: &[(&str, Price)] = &[
    ("claude-opus-4", Price::anthropic(15_000, 75_000)),
    ("claude-opus-4-5", Price::anthropic(5_000, 25_000)),
    ("claude-opus-4-6", Price::anthropic(5_000, 25_000)),
    ("claude-sonnet-4", Price::anthropic(3_000, 15_000)),
    ("claude-haiku-4", Price::anthropic(1_000, 5_000)),
    ("claude-3-opus", Price::anthropic(15_000, 75_000)),
    ("claude-3-7-sonnet", Price::anthropic(3_000, 15_000)),
    ("claude-3-5-sonnet", Price::anthropic(3_000, 15_000)),
    ("claude-3-5-haiku", Price::anthropic(800, 4_000)),
    ("claude-3-haiku", Price::anthropic(252, 1_250)),
    ("gpt-5", Price::openai(1_250, 125, 10_000)),
    ("gpt-5-mini", Price::openai(250, 25, 2_000)),
    ("gpt-5-nano", Price::openai(50, 5, 400)),
    ("gpt-5-pro", Price::openai(15_000, 15_000, 120_000)),
    ("gpt-5.1-codex-mini", Price::openai(250, 25, 2_000)),
    ("gpt-5.2", Price::openai(1_750, 175, 14_000)),
    ("gpt-5.2-pro", Price::openai(21_000, 21_000, 168_000)),
    ("gpt-4.1", Price::openai(2_000, 500, 8_000)),
    ("gpt-4.1-mini", Price::openai(400, 100, 1_600)),
    ("gpt-4.1-nano", Price::openai(100, 25, 400)),
    ("gpt-4o", Price::openai(2_500, 1_250, 10_000)),
    ("gpt-4o-mini", Price::openai(150, 75, 600)),
    ("o3", Price::openai(2_000, 500, 8_000)),
    ("o3-pro", Price::openai(20_000, 20_000, 80_000)),
    ("o3-mini", Price::openai(1_100, 550, 4_400)),
    ("o4-mini", Price::openai(1_100, 275, 4_400)),
    ("scripted", Price::FREE),
];

impl PriceTable {
    /// The list prices this version of Stockade was made with.
    ///
    /// A model that is not in it costs as much as the dearest common one, so that a cap on
    /// cost errs on the safe side; see [`PriceTable::unknown`] and [`PriceTable::with`].
    pub fn builtin() -> Self {
        Self {
            version: "2026-01".to_owned(),
            rows: BUILTIN
                .iter()
                .map(|(prefix, price)| ((*prefix).to_owned(), *price))
                .collect(),
            unknown: Price::anthropic(15_000, 75_000),
        }
    }

    /// A table in which everything is free, for models that nobody bills.
    pub fn free() -> Self {
        Self {
            version: "free".to_owned(),
            rows: Vec::new(),
            unknown: Price::FREE,
        }
    }

    /// Sets or replaces the price of the models whose names begin so.
    #[must_use]
    pub fn with(mut self, prefix: &str, price: Price) -> Self {
        self.rows.retain(|(known, _)| known != prefix);
        self.rows.push((prefix.to_owned(), price));
        self
    }

    /// Sets the price of models that no row names.
    #[must_use]
    pub fn unknown(mut self, price: Price) -> Self {
        self.unknown = price;
        self
    }

    /// When the built-in rows were written down.
    pub fn version(&self) -> &str {
        &self.version
    }

    /// The price of a model, and whether a row names it.
    ///
    /// What stands before the last `/` (a router's `vendor/model`) is not looked at.
    pub fn price(&self, model: &str) -> (Price, bool) {
        let name = model.rsplit('/').next().unwrap_or(model);
        self.rows
            .iter()
            .filter(|(prefix, _)| name.starts_with(prefix.as_str()))
            .max_by_key(|(prefix, _)| prefix.len())
            .map_or((self.unknown, false), |(_, price)| (*price, true))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_beginning_wins_and_unknown_models_are_dear() {
        let table = PriceTable::builtin();
        assert_eq!(table.price("claude-opus-4-1-20250805").0.output, 75_000);
        assert_eq!(table.price("claude-opus-4-5-20251101").0.output, 25_000);
        assert_eq!(table.price("openai/gpt-5-mini-2025-08-07").0.output, 2_000);
        assert_eq!(table.price("scripted"), (Price::FREE, true));
        let (dear, known) = table.price("never-heard-of");
        assert!(!known && dear.output >= 75_000);
        let own = table.with("never", Price::FREE);
        assert_eq!(own.price("never-heard-of"), (Price::FREE, true));
    }

    #[test]
    fn a_cost_is_rounded_up_and_does_not_overflow() {
        let price = Price::anthropic(3_000, 15_000);
        let usage = Usage {
            input: 1_000_000,
            output: 1_000_000,
            cache_read: 1_000_000,
            cache_write: 1_000_000,
        };
        assert_eq!(
            price.cost_micro_usd(usage),
            3_000_000 + 15_000_000 + 300_000 + 3_750_000
        );
        let one = Usage {
            output: 1,
            ..Usage::default()
        };
        assert_eq!(Price::openai(50, 5, 400).cost_micro_usd(one), 1);
        let huge = Usage {
            output: u64::MAX,
            ..Usage::default()
        };
        assert_eq!(price.cost_micro_usd(huge), u64::MAX);
    }
}
