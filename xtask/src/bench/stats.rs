//! Numbers from samples.

/// What a list of samples says.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Stats {
    pub(crate) n: usize,
    pub(crate) median: f64,
    pub(crate) p90: f64,
    pub(crate) min: f64,
}

impl Stats {
    /// `None` for no samples, or for one that is not a number: a figure must not be made up.
    pub(crate) fn of(samples: &[f64]) -> Option<Self> {
        if samples.is_empty() || samples.iter().any(|sample| !sample.is_finite()) {
            return None;
        }
        let mut sorted = samples.to_vec();
        sorted.sort_by(f64::total_cmp);
        Some(Self {
            n: sorted.len(),
            median: at(&sorted, 50),
            p90: at(&sorted, 90),
            min: sorted[0],
        })
    }
}

/// A percentile of samples by nearest rank; `None` when there are none.
pub(crate) fn percentile(samples: &[f64], percent: usize) -> Option<f64> {
    let mut sorted = samples.to_vec();
    sorted.sort_by(f64::total_cmp);
    (!sorted.is_empty()).then(|| at(&sorted, percent))
}

/// The percentile by nearest rank: always a value that was measured. `sorted` is not empty.
fn at(sorted: &[f64], percent: usize) -> f64 {
    let rank = (sorted.len() * percent).div_ceil(100).max(1);
    sorted[rank - 1]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_values_that_were_measured() {
        let samples: Vec<f64> = (1..=10).rev().map(f64::from).collect();
        assert_eq!(
            Stats::of(&samples),
            Some(Stats {
                n: 10,
                median: 5.0,
                p90: 9.0,
                min: 1.0
            })
        );
        assert_eq!(
            Stats::of(&[7.0]),
            Some(Stats {
                n: 1,
                median: 7.0,
                p90: 7.0,
                min: 7.0
            })
        );
    }

    #[test]
    fn one_percentile_needs_no_order() {
        assert_eq!(percentile(&[3.0, 1.0, 2.0], 95), Some(3.0));
        assert_eq!(percentile(&[], 95), None);
    }

    #[test]
    fn no_samples_make_no_figure() {
        assert_eq!(Stats::of(&[]), None);
        assert_eq!(Stats::of(&[1.0, f64::NAN]), None);
    }
}
