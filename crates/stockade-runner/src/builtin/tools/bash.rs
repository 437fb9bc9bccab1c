//! `bash`: a command line in a shell.

use std::{collections::BTreeMap, time::Duration};

use serde_json::{Value, json};
use stockade_ports::{ExecRequest, Exit, SandboxError};

use super::{Hand, Said, spec::USUAL_COMMAND};

/// Starts bash where there is one. The command line is an argument and never part of the script.
const SHELL: &str = "if command -v bash >/dev/null 2>&1; then exec bash -c \"$1\"; else exec sh -c \"$1\"; fi";

/// Most bytes one command may print: a flood costs the host time even where it is thrown away.
const MAX_OUTPUT: u64 = 64 << 20;

pub(super) async fn bash(hand: &Hand<'_>, args: &Value) -> Result<Said, SandboxError> {
    let command = args["command"].as_str().unwrap_or_default();
    let seconds = args["timeout_seconds"].as_u64().unwrap_or(USUAL_COMMAND);
    let quiet = [("GIT_PAGER", "cat"), ("PAGER", "cat"), ("GIT_TERMINAL_PROMPT", "0")];
    let request = ExecRequest {
        argv: ["sh", "-c", SHELL, "sh", command].map(str::to_owned).to_vec(),
        env: quiet
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .into_iter()
            .collect::<BTreeMap<_, _>>(),
        timeout: Some(Duration::from_secs(seconds)),
        max_output: Some(MAX_OUTPUT),
        ..ExecRequest::default()
    };
    let ran = hand.run(request, hand.limit, true).await?;
    let end = match ran.exit {
        _ if ran.interrupted => "[ended: a person interrupted; read their words]".to_owned(),
        Exit::Code(0) => String::new(),
        Exit::Code(code) => format!("[exit code {code}]"),
        Exit::Signal(signal) => format!("[ended by signal {signal}]"),
        Exit::TimedOut => format!("[ended after {seconds} seconds; give a longer timeout_seconds or do less at once]"),
        Exit::OutputLimit => format!(
            "[ended: it printed more than {} MiB; send output to a file]",
            MAX_OUTPUT >> 20
        ),
        Exit::SandboxGone => "[the sandbox ended]".to_owned(),
    };
    let details = match ran.exit {
        _ if ran.interrupted => json!({ "interrupted": true, "output_bytes": ran.total }),
        Exit::Code(code) => json!({ "exit_code": code, "output_bytes": ran.total }),
        Exit::Signal(signal) => json!({ "signal": signal, "output_bytes": ran.total }),
        Exit::OutputLimit => json!({ "output_limit": MAX_OUTPUT, "output_bytes": ran.total }),
        _ => json!({ "timed_out": true, "output_bytes": ran.total }),
    };
    let mut text = ran.output;
    if !end.is_empty() {
        if !text.is_empty() && !text.ends_with('\n') {
            text.push('\n');
        }
        text.push_str(&end);
    } else if text.is_empty() {
        text.push_str("[no output]");
    }
    Ok(Said {
        text,
        error: ran.exit != Exit::Code(0),
        details,
    })
}
