//! What a person sees: results on standard output, progress and complaints on standard error.

pub(crate) mod live;
pub(crate) mod prompt;
pub(crate) mod question;
pub(crate) mod style;
pub(crate) mod table;
pub(crate) mod traffic;

use std::{
    io::{self, Write as _},
    process::ExitCode,
};

use crate::exit;

/// Prints a line of data. A closed pipe (`| head`) is not an error.
pub(crate) fn out(line: &str) {
    let _ = writeln!(io::stdout().lock(), "{line}");
}

/// Prints bytes of data as they are.
pub(crate) fn out_bytes(bytes: &[u8]) -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    stdout.write_all(bytes)?;
    stdout.flush()
}

/// Prints a line of progress.
pub(crate) fn say(line: &str) {
    let _ = writeln!(io::stderr().lock(), "{line}");
}

/// Prints a value as JSON, for people and programs.
pub(crate) fn json<T: serde::Serialize>(value: &T) -> anyhow::Result<()> {
    out(&serde_json::to_string_pretty(value)?);
    Ok(())
}

/// Ends the program with an error.
pub(crate) fn complain(error: &anyhow::Error) -> ExitCode {
    let (exit, hint) = exit::classify(error);
    say(&format!(
        "{} {}",
        style::bad("error:"),
        style::clean(&exit::words(error))
    ));
    if let Some(hint) = hint {
        say(&format!("{} {}", style::dim(" hint:"), style::clean(&hint)));
    }
    exit.into()
}

/// Diagnostics for operators: `STOCKADE_LOG=debug`, by default warnings only.
pub(crate) fn start_logging() {
    let filter = tracing_subscriber::EnvFilter::try_from_env("STOCKADE_LOG")
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("warn"));
    let _ = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(io::stderr)
        .try_init();
}
