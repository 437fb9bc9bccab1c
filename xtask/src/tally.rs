//! Counts what test runners report, from the text they print.

/// How many passed and how many failed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Tally {
    pub(crate) passed: u64,
    pub(crate) failed: u64,
}

impl Tally {
    pub(crate) fn add(&mut self, other: Self) {
        self.passed += other.passed;
        self.failed += other.failed;
    }

    /// One check that is not a test runner's.
    pub(crate) fn one(passed: bool) -> Self {
        Self {
            passed: u64::from(passed),
            failed: u64::from(!passed),
        }
    }
}

/// The `Summary [ 1.234s] 12 tests run: 10 passed (1 slow), 1 failed, 1 timed out, 0 skipped` line of cargo-nextest.
/// `None` when there is no such line, which means that the tests did not come to their end.
pub(crate) fn nextest(stderr: &str) -> Option<Tally> {
    let line = stderr
        .lines()
        .rev()
        .find(|line| line.trim_start().starts_with("Summary ["))?;
    let counts = line.split_once("run:")?.1;
    Some(Tally {
        passed: count(counts, &["passed"]),
        failed: count(counts, &["failed", "timed out", "exec failed"]),
    })
}

/// The `test result: ok. 10 passed; 0 failed; 0 ignored; …` lines of `cargo test`, one per test binary.
pub(crate) fn libtest(stdout: &str) -> Option<Tally> {
    let mut total = None;
    for line in stdout
        .lines()
        .filter_map(|line| line.trim().strip_prefix("test result: "))
    {
        let tally: &mut Tally = total.get_or_insert_default();
        tally.add(Tally {
            passed: count(line, &["passed"]),
            failed: count(line, &["failed"]),
        });
    }
    total
}

/// Sums the numbers that stand before one of these words, in a text like `10 passed (1 slow), 1 failed`.
fn count(text: &str, words: &[&str]) -> u64 {
    let parts = text.split([',', ';', '(', ')', '.']).map(str::trim);
    let numbers = parts
        .filter_map(|part| part.split_once(' '))
        .filter(|(_, word)| words.contains(word));
    numbers.filter_map(|(number, _)| number.parse::<u64>().ok()).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nextest_summaries_are_read() {
        let text = "     Summary [   1.234s] 15 tests run: 11 passed (1 slow), 2 failed, 1 timed out, 1 exec failed, 4 skipped\n";
        assert_eq!(nextest(text), Some(Tally { passed: 11, failed: 4 }));
        let flaky = "     Summary [ 1.2s] 5 tests run: 5 passed (1 slow, 2 flaky), 7 skipped";
        assert_eq!(nextest(flaky), Some(Tally { passed: 5, failed: 0 }));
        let partial = "     Summary [   0.1s] 3/15 tests run: 2 passed, 1 failed, 0 skipped";
        assert_eq!(nextest(partial), Some(Tally { passed: 2, failed: 1 }));
        assert_eq!(nextest("error: could not compile"), None);
    }

    #[test]
    fn libtest_results_are_summed_over_binaries() {
        let text = "\
running 2 tests
test result: ok. 2 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.00s
test result: FAILED. 3 passed; 1 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.00s
";
        assert_eq!(libtest(text), Some(Tally { passed: 5, failed: 1 }));
        assert_eq!(libtest("error: could not compile"), None);
    }
}
