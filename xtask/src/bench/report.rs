//! The table of figures: on the terminal and in docs/benchmarks.md.

use std::fmt::Write as _;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result, bail};

use super::stats::Stats;
use crate::process;

/// One measured thing.
#[derive(Debug)]
pub(crate) struct Row {
    pub(crate) what: String,
    pub(crate) stats: Stats,
    /// How many times the median of what it is compared with, and what that is.
    pub(crate) ratio: Option<(f64, String)>,
}

/// A rate that a bench measured as a whole.
#[derive(Debug)]
pub(crate) struct Rate {
    pub(crate) what: String,
    pub(crate) per_second: f64,
}

/// What one bench found.
#[derive(Debug, Default)]
pub(crate) struct Report {
    pub(crate) rows: Vec<Row>,
    pub(crate) rates: Vec<Rate>,
    /// What a reader must know to judge the figures.
    pub(crate) notes: Vec<String>,
}

impl Report {
    /// Adds a row; an error when nothing was measured.
    pub(crate) fn row(&mut self, what: &str, samples: &[f64]) -> Result<()> {
        let stats = Stats::of(samples).with_context(|| format!("no samples of `{what}`"))?;
        self.rows.push(Row {
            what: what.to_owned(),
            stats,
            ratio: None,
        });
        Ok(())
    }

    /// Gives the row `what` its ratio to the row `base`, both by exact name.
    pub(crate) fn compare(&mut self, what: &str, base: &str) -> Result<()> {
        let below = self.median(base)?;
        let row = self
            .rows
            .iter_mut()
            .find(|row| row.what == what)
            .with_context(|| format!("no row `{what}`"))?;
        if below <= 0.0 {
            bail!("`{base}` took no time, so there is no ratio");
        }
        row.ratio = Some((row.stats.median / below, base.to_owned()));
        Ok(())
    }

    /// Says what the ratio of two rows is, for a row that is compared with several others.
    pub(crate) fn ratio_note(&mut self, what: &str, base: &str) -> Result<()> {
        let ratio = self.median(what)? / self.median(base)?;
        self.notes.push(format!("{what}: {ratio:.3} × {base}"));
        Ok(())
    }

    /// The median of a row in milliseconds.
    pub(crate) fn median(&self, what: &str) -> Result<f64> {
        let row = self.rows.iter().find(|row| row.what == what);
        row.map(|row| row.stats.median)
            .with_context(|| format!("no row `{what}`"))
    }

    /// A Markdown table, readable as it stands.
    pub(crate) fn table(&self) -> String {
        let mut out = String::new();
        if !self.rows.is_empty() {
            out.push_str("| What | n | median ms | p90 ms | min ms | ratio |\n|---|---:|---:|---:|---:|---|\n");
        }
        for row in &self.rows {
            let ratio = row
                .ratio
                .as_ref()
                .map(|(ratio, base)| format!("{ratio:.2} × {base}"))
                .unwrap_or_default();
            let Stats { n, median, p90, min } = row.stats;
            let _ = writeln!(
                out,
                "| {} | {n} | {} | {} | {} | {ratio} |",
                row.what,
                shown(median),
                shown(p90),
                shown(min)
            );
        }
        if !self.rates.is_empty() {
            out.push_str("\n| Rate | per second |\n|---|---:|\n");
        }
        for rate in &self.rates {
            let _ = writeln!(out, "| {} | {:.0} |", rate.what, rate.per_second);
        }
        for note in &self.notes {
            let _ = writeln!(out, "\n{note}");
        }
        out
    }
}

/// Milliseconds; what takes microseconds with as many digits as that needs.
fn shown(milliseconds: f64) -> String {
    if milliseconds > 0.0 && milliseconds < 0.05 {
        format!("{milliseconds:.4}")
    } else {
        format!("{milliseconds:.2}")
    }
}

/// Puts a report between the markers of its bench in docs/benchmarks.md.
pub(crate) fn write(root: &Path, name: &str, report: &Report) -> Result<()> {
    let path = root.join("docs/benchmarks.md");
    let document = std::fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
    let section = format!("{}\n\n{}", machine()?, report.table().trim_end());
    let document = splice(&document, name, &section)?;
    std::fs::write(&path, document).with_context(|| format!("cannot write {}", path.display()))
}

/// Replaces what stands between `<!-- bench:NAME -->` and `<!-- /bench:NAME -->`.
fn splice(document: &str, name: &str, section: &str) -> Result<String> {
    let (open, close) = (format!("<!-- bench:{name} -->"), format!("<!-- /bench:{name} -->"));
    let parts = document
        .split_once(&open)
        .and_then(|(before, rest)| Some((before, rest.split_once(&close)?.1)));
    let Some((before, after)) = parts else {
        bail!("docs/benchmarks.md has no place for `{name}`: add the lines {open} and {close}");
    };
    Ok(format!("{before}{open}\n{section}\n{close}{after}"))
}

/// Date, cores and kernel: without them a figure means nothing.
fn machine() -> Result<String> {
    let date = process::capture(Command::new("date").args(["-u", "+%Y-%m-%d"]))?;
    let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease").context("cannot read the kernel's release")?;
    let cores = std::thread::available_parallelism().context("cannot count the cores")?;
    Ok(format!(
        "{}, {cores} cores, Linux {}",
        date.stdout.trim(),
        kernel.trim()
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_becomes_a_table_with_ratios() {
        let mut report = Report::default();
        report.row("ours", &[3.0, 2.0, 1.0]).unwrap();
        report.row("theirs", &[1.0, 1.0]).unwrap();
        report.compare("ours", "theirs").unwrap();
        report.rates.push(Rate {
            what: "all".into(),
            per_second: 1234.4,
        });
        let table = report.table();
        assert!(
            table.contains("| ours | 3 | 2.00 | 3.00 | 1.00 | 2.00 × theirs |"),
            "{table}"
        );
        assert!(table.contains("| all | 1234 |"), "{table}");
    }

    #[test]
    fn nothing_measured_is_an_error_and_not_a_zero() {
        let mut report = Report::default();
        assert!(report.row("ours", &[]).is_err());
        assert!(report.compare("ours", "theirs").is_err());
        report.row("ours", &[1.0]).unwrap();
        report.row("instant", &[0.0]).unwrap();
        assert!(report.compare("ours", "instant").is_err());
    }

    #[test]
    fn only_the_part_between_the_markers_changes() {
        let document = "a\n<!-- bench:x -->\nold\n<!-- /bench:x -->\nb\n";
        let once = splice(document, "x", "new").unwrap();
        assert_eq!(once, "a\n<!-- bench:x -->\nnew\n<!-- /bench:x -->\nb\n");
        assert_eq!(splice(&once, "x", "new").unwrap(), once);
        assert!(splice(document, "y", "new").is_err());
    }
}
