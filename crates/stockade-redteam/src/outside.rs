//! The attacker where nothing stops it.

use std::{path::Path, process::Stdio, time::Duration};

use tokio::{
    io::{AsyncBufReadExt as _, BufReader},
    process::{Child, Command},
    time::timeout,
};

use crate::{RedTeamError, inside::Call, prepare, told::Told};

/// Longest a control may take.
const PATIENCE: Duration = Duration::from_secs(20);

fn command(attacker: &Path, dir: &Path, call: &Call) -> Command {
    let mut command = Command::new(attacker);
    command
        .arg(call.attack)
        .args(&call.args)
        .current_dir(dir)
        .env_clear()
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .kill_on_drop(true);
    if let Some(user) = call.user {
        command.uid(user).gid(user);
    }
    command
}

/// Runs one control to its end.
pub(crate) async fn run(attacker: &Path, dir: &Path, call: &Call) -> Told {
    let child = match command(attacker, dir, call).spawn() {
        Ok(child) => child,
        Err(error) => return Told::fault(format!("the attacker does not start: {error}")),
    };
    match timeout(PATIENCE, child.wait_with_output()).await {
        Ok(Ok(output)) => {
            let mut told = Told::read(&output.stdout);
            if !told.done {
                told.fault = Some(format!("it ended with {}", output.status));
            }
            told
        }
        Ok(Err(error)) => Told::fault(error.to_string()),
        Err(_) => Told::fault(format!("it did not end within {PATIENCE:?}")),
    }
}

/// Starts one that stays, and waits until it is in place. It ends when it is dropped.
pub(crate) async fn start(attacker: &Path, dir: &Path, call: &Call, env: (&str, &str)) -> Result<Child, RedTeamError> {
    let mut child = command(attacker, dir, call)
        .env(env.0, env.1)
        .spawn()
        .map_err(prepare("a process of its own"))?;
    let output = child.stdout.take();
    let ready = async {
        let mut lines = BufReader::new(output?).lines();
        while let Ok(Some(line)) = lines.next_line().await {
            if line.contains("\"ready\"") {
                return Some(());
            }
        }
        None
    };
    match timeout(PATIENCE, ready).await {
        Ok(Some(())) => Ok(child),
        _ => Err(prepare("a process of its own")("it does not come up")),
    }
}
