//! `cargo xtask fuzz`: the fuzzers of `fuzz/`, one after the other, with what they did in figures.
//!
//! No nightly compiler is needed: the code under test is safe Rust, so that coverage and assertions say what a
//! sanitizer would. What is found stays outside the repository, in the target directory; an input worth keeping is
//! copied to `fuzz/corpus/TARGET`, which every test run replays.

use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result, bail};

use crate::process::{self, Captured};
use crate::tools::Tool;
use crate::workspace::{Workspace, cargo_program, clean};

/// Longest input, in bytes: heads and frames of interest are shorter.
const MAX_INPUT: u32 = 4096;
/// Memory that a fuzzer may take, in MiB: more means that hostile bytes make a reader keep too much.
const MAX_MEMORY: u32 = 1024;
/// Seconds that one input may take.
const MAX_INPUT_SECONDS: u32 = 20;

#[derive(clap::Args)]
pub(crate) struct Args {
    /// Only this target (all of them one after the other without it)
    target: Option<String>,
    /// How long each target runs
    #[arg(long, default_value_t = 600)]
    seconds: u32,
}

/// What one fuzzer did.
struct Line {
    target: String,
    executions: u64,
    coverage: u64,
    memory: u64,
    clean: bool,
}

pub(crate) fn run(args: &Args) -> Result<()> {
    let workspace = Workspace::load()?;
    let tool = Tool::fuzz(&workspace.target)?;
    tool.install()?;
    let targets = choose(&workspace.root, args.target.as_deref())?;
    let mut lines = Vec::new();
    for target in targets {
        println!("== fuzz {target}: {} s", args.seconds);
        lines.push(fuzz(&workspace, &tool, &target, args.seconds)?);
    }
    println!(
        "\n{:<8}  {:>12}  {:>8}  {:>10}  result",
        "target", "executions", "coverage", "memory MiB"
    );
    for line in &lines {
        let result = if line.clean { "clean" } else { "FAILED" };
        println!(
            "{:<8}  {:>12}  {:>8}  {:>10}  {result}",
            line.target, line.executions, line.coverage, line.memory
        );
    }
    if lines.iter().all(|line| line.clean) {
        return Ok(());
    }
    bail!(
        "a fuzzer failed; the input is in {} (see above), replay it with `cargo xtask fuzz TARGET` after copying it to \
         fuzz/corpus/TARGET",
        found(&workspace.target).display()
    )
}

/// Every target there is, or the one that was named.
fn choose(root: &Path, named: Option<&str>) -> Result<Vec<String>> {
    let directory = root.join("fuzz/fuzz_targets");
    let mut targets = Vec::new();
    for entry in std::fs::read_dir(&directory).with_context(|| format!("no {}", directory.display()))? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        targets.extend(name.strip_suffix(".rs").map(str::to_owned));
    }
    targets.sort();
    match named {
        None => Ok(targets),
        Some(named) if targets.iter().any(|target| target == named) => Ok(vec![named.to_owned()]),
        Some(named) => bail!("no target `{named}`: there are {}", targets.join(", ")),
    }
}

fn found(target: &Path) -> std::path::PathBuf {
    target.join("fuzz-found")
}

fn fuzz(workspace: &Workspace, tool: &Tool, target: &str, seconds: u32) -> Result<Line> {
    let kept = found(&workspace.target).join(target);
    std::fs::create_dir_all(&kept).with_context(|| format!("cannot make {}", kept.display()))?;
    let program = tool.command()?;
    let mut command = Command::new("nice");
    command.args(["-n", "15"]).arg(program.get_program());
    clean(&mut command);
    command
        .args(["run", "--sanitizer", "none", "-O", "--fuzz-dir"])
        .arg(workspace.root.join("fuzz"))
        .arg(target)
        .args([&kept, &workspace.root.join("fuzz/corpus").join(target)])
        .args([
            "--".to_owned(),
            format!("-max_total_time={seconds}"),
            format!("-max_len={MAX_INPUT}"),
            format!("-rss_limit_mb={MAX_MEMORY}"),
            format!("-timeout={MAX_INPUT_SECONDS}"),
            "-print_final_stats=1".to_owned(),
            format!("-artifact_prefix={}/crash-", found(&workspace.target).display()),
        ])
        .env("CARGO", cargo_program())
        .env("CARGO_TARGET_DIR", workspace.target.join("fuzz"))
        .current_dir(&workspace.root);
    let output = process::tee(&mut command)?;
    read(target, &output)
}

/// Reads what libFuzzer prints at the end; a fuzzer that said nothing did not run.
fn read(target: &str, output: &Captured) -> Result<Line> {
    let number = |key: &str| {
        let line = output
            .stderr
            .lines()
            .rev()
            .find_map(|line| line.trim().strip_prefix(key));
        line.and_then(|rest| rest.trim().parse::<u64>().ok())
    };
    let coverage = output.stderr.lines().rev().find_map(|line| {
        let (_, rest) = line.split_once(" cov: ")?;
        rest.split(' ').next()?.parse().ok()
    });
    let executions = number("stat::number_of_executed_units:");
    match (output.success, executions, coverage) {
        (true, None, _) | (_, None, None) => bail!("the fuzzer of {target} did not come to its end"),
        _ => Ok(Line {
            target: target.to_owned(),
            executions: executions.unwrap_or(0),
            coverage: coverage.unwrap_or(0),
            memory: number("stat::peak_rss_mb:").unwrap_or(0),
            clean: output.success,
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn captured(success: bool, stderr: &str) -> Captured {
        Captured {
            success,
            stdout: String::new(),
            stderr: stderr.to_owned(),
        }
    }

    #[test]
    fn the_figures_are_read_and_silence_is_no_success() {
        let printed = "#12\tNEW    cov: 7 ft: 9 corp: 1/1b\n#99\tDONE   cov: 321 ft: 9 corp: 1/1b\n\
                       stat::number_of_executed_units: 4567\nstat::peak_rss_mb:              89\n";
        let line = read("hello", &captured(true, printed)).unwrap();
        assert_eq!(
            (line.executions, line.coverage, line.memory, line.clean),
            (4567, 321, 89, true)
        );
        assert!(!read("hello", &captured(false, printed)).unwrap().clean);
        assert!(read("hello", &captured(true, "")).is_err());
        assert!(read("hello", &captured(false, "error: no such target\n")).is_err());
    }

    #[test]
    fn every_target_is_found_and_an_unknown_one_is_not() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        let all = choose(&root, None).unwrap();
        assert!(all.contains(&"hello".to_owned()) && all.contains(&"http2".to_owned()));
        assert_eq!(choose(&root, Some("dns")).unwrap(), ["dns"]);
        let error = choose(&root, Some("none")).unwrap_err().to_string();
        assert!(error.contains("`none`") && error.contains("dns"), "{error}");
    }
}
