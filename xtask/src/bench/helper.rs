//! Measuring programs inside the crates: they know the types, the harness knows the statistics.
//!
//! A helper prints one JSON object as the last line of its standard output:
//! `{"samples":{"NAME":[milliseconds, …], …},"rates":{"NAME":per_second, …},"notes":["…"]}`.
//! `rates` and `notes` may be absent. Everything else it prints is shown only when it fails.

use std::ffi::OsStr;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context as _, Result, bail};
use serde_json::{Map, Value};

use super::report::{Rate, Report};
use crate::process;
use crate::workspace::{Workspace, cargo};

/// A program that cargo builds from one of our crates.
pub(crate) struct Helper {
    pub(crate) package: &'static str,
    /// cargo's word: `bin` or `example`.
    pub(crate) kind: &'static str,
    pub(crate) name: &'static str,
}

impl Helper {
    /// Builds it with the release profile and returns where it is.
    pub(crate) fn build(&self, workspace: &Workspace) -> Result<PathBuf> {
        let Self { package, kind, name } = self;
        if !workspace.has_target(package, kind, name) {
            bail!("{package} has no {kind} `{name}` (what it must print: xtask/README.md)");
        }
        let mut build = cargo();
        build.args([
            "build",
            "--release",
            "--locked",
            "-p",
            package,
            &format!("--{kind}"),
            name,
        ]);
        process::run(build.current_dir(&workspace.root))?;
        let dir = if *kind == "example" {
            "release/examples"
        } else {
            "release"
        };
        Ok(workspace.target.join(dir).join(name))
    }
}

/// Runs a built helper and reads what it measured.
pub(crate) fn measure(program: &OsStr, args: &[&OsStr]) -> Result<Measured> {
    let mut command = Command::new(program);
    command.args(args);
    let shown = process::show(&command);
    let output = process::capture(&mut command)?;
    if !output.success {
        bail!("`{shown}` failed:\n{}{}", output.stdout, output.stderr);
    }
    Measured::read(&output.stdout).with_context(|| format!("`{shown}` did not print its figures"))
}

/// What a helper measured.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Measured {
    pub(crate) samples: Vec<(String, Vec<f64>)>,
    pub(crate) rates: Vec<(String, f64)>,
    pub(crate) notes: Vec<String>,
}

impl Measured {
    fn read(stdout: &str) -> Result<Self> {
        let line = stdout
            .lines()
            .rev()
            .find(|line| !line.trim().is_empty())
            .context("no output")?;
        let json: Value = serde_json::from_str(line).context("the last line is not JSON")?;
        let numbers = |value: &Value| -> Option<Vec<f64>> { value.as_array()?.iter().map(Value::as_f64).collect() };
        let samples = entries(&json, "samples", numbers)?;
        if samples.is_empty() {
            bail!("no `samples`");
        }
        let notes = json.get("notes").and_then(Value::as_array).into_iter().flatten();
        let notes = notes.filter_map(Value::as_str).map(str::to_owned).collect();
        Ok(Self {
            samples,
            rates: entries(&json, "rates", Value::as_f64)?,
            notes,
        })
    }

    /// The samples of this name.
    pub(crate) fn get(&self, name: &str) -> Result<&[f64]> {
        let found = self.samples.iter().find(|(known, _)| known == name);
        found
            .map(|(_, samples)| samples.as_slice())
            .with_context(|| format!("no samples `{name}`"))
    }

    /// All of it, as a report.
    pub(crate) fn report(self) -> Result<Report> {
        let mut report = Report {
            notes: self.notes,
            ..Report::default()
        };
        for (what, samples) in &self.samples {
            report.row(what, samples)?;
        }
        report.rates.extend(
            self.rates
                .into_iter()
                .map(|(what, per_second)| Rate { what, per_second }),
        );
        Ok(report)
    }
}

fn entries<T>(json: &Value, key: &str, read: impl Fn(&Value) -> Option<T>) -> Result<Vec<(String, T)>> {
    let empty = Map::new();
    let object = match json.get(key) {
        None => &empty,
        Some(value) => value.as_object().with_context(|| format!("`{key}` is not an object"))?,
    };
    let entry = |(name, value): (&String, &Value)| {
        let value = read(value).with_context(|| format!("`{key}.{name}` is not made of numbers"))?;
        Ok((name.clone(), value))
    };
    object.iter().map(entry).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_line_is_read() {
        let text = "warming up\n{\"samples\":{\"admit\":[1,2.5]},\"rates\":{\"all\":10},\"notes\":[\"n\"]}\n\n";
        let measured = Measured::read(text).unwrap();
        assert_eq!(measured.get("admit").unwrap(), [1.0, 2.5]);
        assert!(measured.get("settle").is_err());
        assert_eq!(measured.rates, [("all".to_owned(), 10.0)]);
        assert_eq!(measured.notes, ["n"]);
    }

    #[test]
    fn what_is_not_a_figure_is_refused() {
        for text in [
            "",
            "fast!",
            "{}",
            r#"{"samples":{}}"#,
            r#"{"samples":{"a":["1"]}}"#,
            r#"{"samples":[1]}"#,
        ] {
            assert!(Measured::read(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_failing_helper_is_an_error_with_its_output() {
        let args = ["-c", "echo half; echo reason >&2; exit 1"].map(OsStr::new);
        let error = measure(OsStr::new("sh"), &args).unwrap_err().to_string();
        assert!(error.contains("half") && error.contains("reason"), "{error}");
    }
}
