//! The red team against every backend this machine can have, as a step of the tests.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::Instant;

use anyhow::{Context as _, Result, bail};
use serde_json::{Value, json};

use crate::dockerd::Dockerd;
use crate::process;
use crate::setup;
use crate::tally::Tally;

/// Longest all backends together may take, in seconds; a sixth of it is usual. What hangs is ended.
const PATIENCE: &str = "600";
/// Fewest cases a backend is attacked with; a list that has become shorter by accident is no success.
const CASES: usize = 97;

/// Backends attacked one after the other; the lanes run beside each other, each on an installation of its own. Most
/// of the time is waiting.
const LANES: [&[&str]; 2] = [&["native", "runc", "crun"], &["runsc", "docker"]];
/// What there is without root.
const ROOTLESS: [&[&str]; 1] = [&["native"]];

/// Attacks every backend and counts the cases; a lane in which one is not well gets one more turn alone. A case counts as failed when something got through, and when it is
/// void for a reason that `docs/redteam.md` does not list.
pub(crate) fn run(stockade: &Path) -> Result<Tally> {
    // Stopped when the red team has ended, however it did.
    let docker = if setup::is_root() {
        Some(Dockerd::start()?)
    } else {
        None
    };
    let socket = docker.as_ref().map(Dockerd::socket);
    let lanes: &[&[&str]] = if docker.is_some() { &LANES } else { &ROOTLESS };
    let verdicts: Vec<Result<Verdict>> = thread::scope(|scope| {
        let start = |backends: &&'static [&'static str]| {
            let (backends, socket) = (*backends, socket.as_deref());
            scope.spawn(move || attack(stockade, backends, socket))
        };
        let lanes: Vec<_> = lanes.iter().map(start).collect();
        let ended = lanes.into_iter().map(|lane| lane.join());
        ended
            .map(|lane| lane.unwrap_or_else(|_| Err(anyhow::anyhow!("panicked"))))
            .collect()
    });
    let mut tally = Tally::default();
    for (backends, verdict) in lanes.iter().zip(verdicts) {
        let mut verdict = verdict?;
        if verdict.tally.failed > 0 {
            // What a neighbour notices of a bomb is measured in time, and the other lane throws bombs too.
            verdict.print();
            println!("once more, with nothing beside it: {}", backends.join(", "));
            verdict = attack(stockade, backends, socket.as_deref())?;
        }
        verdict.print();
        tally.add(verdict.tally);
    }
    Ok(tally)
}

/// Attacks some backends, one after the other.
fn attack(stockade: &Path, backends: &[&str], docker: Option<&Path>) -> Result<Verdict> {
    let dir = Scratch::make(backends)?;
    let mut sandbox = json!({ "backends": backends });
    if let Some(socket) = docker {
        sandbox["docker_socket"] = json!(socket);
    }
    fs::write(dir.0.join("stockade.yaml"), json!({ "sandbox": sandbox }).to_string())?;
    let begun = Instant::now();
    let mut command = Command::new("timeout");
    command.args(["--kill-after=10", PATIENCE]).arg(stockade);
    command.args(["redteam", "--backend", "all", "--json"]);
    let output = process::capture(command.env("STOCKADE_STATE_DIR", &dir.0).env("HOME", &dir.0))?;
    let report: Value = serde_json::from_str(&output.stdout).with_context(|| {
        let took = begun.elapsed().as_secs();
        format!("the red team told nothing within {took} s; it said:\n{}", output.stderr)
    })?;
    let verdict = judge(&report, backends.len());
    // The program's own opinion and ours have to be the same.
    match (verdict.tally.failed, output.success) {
        (0, false) => bail!(
            "every case is well, and the red team ended with failure:\n{}",
            output.stderr
        ),
        (failed @ 1.., true) => bail!(
            "{failed} cases are not well, and the red team ended with success:\n{}",
            verdict.lines.join("\n")
        ),
        _ => Ok(verdict),
    }
}

/// What a report comes to, and what to print about it.
struct Verdict {
    tally: Tally,
    lines: Vec<String>,
}

impl Verdict {
    fn print(&self) {
        for line in &self.lines {
            println!("{line}");
        }
    }
}

fn judge(report: &Value, backends: usize) -> Verdict {
    let mut tally = Tally::default();
    let mut lines = Vec::new();
    let all = |key: &str| report[key].as_array().map(Vec::as_slice).unwrap_or_default();
    for missing in all("missing") {
        tally.failed += 1;
        lines.push(format!("{}: not attacked: {}", missing[0], missing[1]));
    }
    for backend in all("backends") {
        let name = backend["backend"].as_str().unwrap_or("?");
        let mode = backend["mode"].as_str().unwrap_or("?");
        let cases = backend["cases"].as_array().map(Vec::as_slice).unwrap_or_default();
        let mut void = 0;
        for case in cases {
            let listed = case["verdict"] == "void" && !case["excuse"].is_null();
            let well = case["verdict"] == "passed" || listed;
            tally.add(Tally::one(well));
            void += u64::from(listed);
            if !well {
                let (id, verdict, reasons) = (&case["id"], &case["verdict"], &case["reasons"]);
                lines.push(format!("{name}: {id} {verdict}: {reasons}"));
            }
        }
        if cases.len() < CASES || backend["left_out"] != 0 || !backend["score"]["missing"].is_null() {
            tally.failed += 1;
            lines.push(format!(
                "{name}: {} cases, {} left out, score {}",
                cases.len(),
                backend["left_out"],
                backend["score"]
            ));
        }
        let seconds = backend["millis"].as_u64().unwrap_or(0) as f64 / 1000.0;
        lines.push(format!(
            "{name} ({mode}): {} attacks, {void} void for a listed reason, {seconds:.1} s",
            cases.len()
        ));
    }
    if all("backends").len() + all("missing").len() != backends {
        tally.failed += 1;
        lines.push(format!("{backends} backends were to be attacked"));
    }
    Verdict { tally, lines }
}

/// A state directory that is gone afterwards.
struct Scratch(PathBuf);

impl Scratch {
    fn make(backends: &[&str]) -> Result<Self> {
        let name = format!("stockade-redteam-{}-{}", std::process::id(), backends.join("-"));
        let dir = std::env::temp_dir().join(name);
        fs::create_dir(&dir).with_context(|| format!("cannot make {}", dir.display()))?;
        Ok(Self(dir))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.0) {
            eprintln!("NOTE: {} was left: {error}", self.0.display());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(change: impl FnOnce(&mut Value)) -> Value {
        let passed = json!({ "id": "A-1", "verdict": "passed", "excuse": null, "reasons": [] });
        let mut report = json!({ "missing": [], "backends": [{
            "backend": "native", "mode": "root", "left_out": 0, "millis": 9, "score": { "answered": 1 },
            "cases": vec![passed; CASES],
        }] });
        change(&mut report);
        report
    }

    fn failed(change: impl FnOnce(&mut Value)) -> u64 {
        judge(&report(change), 1).tally.failed
    }

    #[test]
    fn only_a_pass_and_a_listed_void_are_no_failure() {
        let case = "/backends/0/cases/3";
        let set =
            |key: &'static str, value: Value| move |report: &mut Value| report.pointer_mut(case).unwrap()[key] = value;
        assert_eq!(failed(|_| {}), 0);
        assert_eq!(failed(set("verdict", json!("failed"))), 1);
        assert_eq!(failed(set("verdict", json!("void"))), 1);
        let listed = |report: &mut Value| {
            set("verdict", json!("void"))(report);
            set("excuse", json!("needs-root"))(report);
        };
        assert_eq!(failed(listed), 0);
        let excused = |report: &mut Value| {
            set("verdict", json!("failed"))(report);
            set("excuse", json!("needs-root"))(report);
        };
        assert_eq!(failed(excused), 1, "an attack that got through is not excused");
    }

    #[test]
    fn what_was_not_attacked_is_a_failure() {
        assert_eq!(failed(|r| r["missing"] = json!([["docker", "no daemon"]])), 2);
        assert_eq!(failed(|r| r["backends"] = json!([])), 1);
        assert_eq!(failed(|r| r["backends"][0]["left_out"] = json!(3)), 1);
        assert_eq!(failed(|r| r["backends"][0]["cases"] = json!([])), 1);
        assert_eq!(
            failed(|r| r["backends"][0]["score"]["missing"] = json!("it did not run")),
            1
        );
    }
}
