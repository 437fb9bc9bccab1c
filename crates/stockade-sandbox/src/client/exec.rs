//! One command from the host's side: start, input, output, end.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use stockade_guest_proto::{ExecStart, FrameKind, INITIAL_CREDIT, MAX_DATA, TerminalSize, ToGuest, data_cost};
use stockade_ports::sandbox::{
    AGENT_HOME, AGENT_USER, Control, ExecRequest, Output, Process, ProcessCommand, PtySize, SandboxError, WORKSPACE,
};
use tokio::sync::{Semaphore, mpsc, oneshot};

use super::{
    Client, fits,
    pending::{ExecEntry, Pending},
};

/// Messages waiting for a consumer of input or output.
const QUEUE: usize = 16;
const DEFAULTS: [(&str, &str); 5] = [
    (
        "PATH",
        "/home/agent/.local/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    ),
    ("HOME", AGENT_HOME),
    ("USER", AGENT_USER),
    ("LANG", "C.UTF-8"),
    ("TERM", "dumb"),
];
/// The terminal everybody emulates.
const TERMINAL: (&str, &str) = ("TERM", "xterm-256color");

pub(super) async fn start(client: &Client, request: ExecRequest) -> Result<Process, SandboxError> {
    let id = client.next_id();
    let with_stdin = request.stdin || request.pty.is_some();
    let message = ToGuest::Exec(checked(id, request, &client.environment)?);
    if !fits(&message) {
        let why = "the command with its environment is over 1 MiB".to_owned();
        return Err(SandboxError::Invalid(why));
    }
    let ToGuest::Exec(start) = &message else {
        return Err(SandboxError::Invalid("no command".to_owned()));
    };
    let program = start.argv.first().cloned().unwrap_or_default();
    let (started, has_started) = oneshot::channel();
    let (events, events_rx) = mpsc::unbounded_channel();
    let credit = usize::try_from(INITIAL_CREDIT).unwrap_or(usize::MAX);
    let input = Arc::new(Semaphore::new(credit));
    let entry = ExecEntry::new(program, started, events, Arc::clone(&input));
    client.shared.table.insert(id, Pending::Exec(entry))?;
    let abandoned = Abandoned {
        client: client.clone(),
        id,
        armed: true,
    };
    client.send(&message);
    let gone = |_| Err(SandboxError::Gone("it ended while a command started".to_owned()));
    has_started.await.unwrap_or_else(gone)?;
    let (stdin, stdin_rx) = mpsc::channel(QUEUE);
    let (output_tx, output) = mpsc::channel(QUEUE);
    if with_stdin {
        tokio::spawn(feed(client.clone(), id, stdin_rx, input));
    }
    let (control, commands) = Control::channel();
    let steering = tokio::spawn(steer(client.clone(), id, commands));
    tokio::spawn(async move {
        forward(abandoned, events_rx, output_tx).await;
        steering.abort();
    });
    Ok(Process { stdin, output, control })
}

fn checked(id: u32, request: ExecRequest, image: &[(String, String)]) -> Result<ExecStart, SandboxError> {
    let invalid = |why: String| Err(SandboxError::Invalid(why));
    if request.argv.first().is_none_or(String::is_empty) {
        return invalid("a command needs a program".to_owned());
    }
    if request.timeout == Some(Duration::ZERO) {
        return invalid("a timeout of zero: leave it out for none".to_owned());
    }
    if request.max_output == Some(0) {
        return invalid("an output limit of zero: leave it out for none".to_owned());
    }
    if request.pty.is_some_and(|size| size.rows == 0 || size.cols == 0) {
        return invalid("a terminal of size zero".to_owned());
    }
    if let Some(user) = request.user.filter(|user| user != AGENT_USER) {
        return invalid(format!(
            "there is one user in a sandbox, '{AGENT_USER}', and '{user}' is not it"
        ));
    }
    let bad_key = |k: &&String| k.is_empty() || k.contains(['=', '\0']);
    if let Some(key) = request.env.keys().find(bad_key) {
        return invalid(format!("'{key}' cannot be the name of an environment variable"));
    }
    let mut texts = request.argv.iter().chain(request.env.values());
    if texts.any(|text| text.contains('\0')) {
        return invalid("a NUL byte in an argument or in the environment".to_owned());
    }
    let cwd = request.cwd.unwrap_or_else(|| WORKSPACE.to_owned());
    if !cwd.starts_with('/') || cwd.contains('\0') {
        return invalid(format!("the working directory '{cwd}' is not an absolute path"));
    }
    let mut env = request.env;
    // An image that names a variable twice means the last one.
    let image = image.iter().rev().map(|(key, value)| (key.as_str(), value.as_str()));
    let usable = |(key, value): &(&str, &str)| !key.is_empty() && !key.contains(['=', '\0']) && !value.contains('\0');
    let terminal = request.pty.map(|_| TERMINAL);
    for (key, value) in image.filter(usable).chain(terminal).chain(DEFAULTS) {
        env.entry(key.to_owned()).or_insert_with(|| value.to_owned());
    }
    let milliseconds = |t: Duration| u64::try_from(t.as_millis()).unwrap_or(u64::MAX).max(1);
    Ok(ExecStart {
        id,
        argv: request.argv,
        env,
        cwd,
        timeout_ms: request.timeout.map(milliseconds),
        stdin: request.stdin,
        max_output: request.max_output,
        terminal: request.pty.map(terminal_size),
    })
}

fn terminal_size(PtySize { rows, cols }: PtySize) -> TerminalSize {
    TerminalSize { rows, cols }
}

/// Passes on what a [`Control`] asks, as long as the command runs.
async fn steer(client: Client, id: u32, mut commands: mpsc::Receiver<ProcessCommand>) {
    while let Some(command) = commands.recv().await {
        client.send(&match command {
            ProcessCommand::Signal(number) => ToGuest::Signal { id, number },
            ProcessCommand::Resize(size) => {
                let size = terminal_size(size);
                ToGuest::Resize { id, size }
            }
        });
    }
}

/// Kills the command when its consumer goes away before its end.
struct Abandoned {
    client: Client,
    id: u32,
    armed: bool,
}

impl Drop for Abandoned {
    fn drop(&mut self) {
        if self.armed && self.client.shared.table.remove(self.id) {
            self.client.send(&ToGuest::Kill { id: self.id });
        }
    }
}

/// Moves output to its consumer and gives the credit back as the consumer takes it.
async fn forward(mut abandoned: Abandoned, mut events: mpsc::UnboundedReceiver<Output>, output: mpsc::Sender<Output>) {
    let (client, id) = (abandoned.client.clone(), abandoned.id);
    let mut taken = 0;
    loop {
        let event = tokio::select! {
            event = events.recv() => event,
            () = output.closed() => return,
        };
        let Some(event) = event else { return };
        let cost = match &event {
            Output::Stdout(bytes) | Output::Stderr(bytes) => data_cost(bytes.len()),
            Output::Exited(_) => {
                abandoned.armed = false;
                let _ = output.send(event).await;
                return;
            }
        };
        if output.send(event).await.is_err() {
            return;
        }
        taken += cost;
        if (taken >= INITIAL_CREDIT / 4 || events.is_empty()) && client.shared.table.grant(id, taken) {
            client.send(&ToGuest::Credit { id, bytes: taken });
            taken = 0;
        }
    }
}

/// Moves input to the command as far as it has room.
async fn feed(client: Client, id: u32, mut input: mpsc::Receiver<Bytes>, credit: Arc<Semaphore>) {
    while let Some(bytes) = input.recv().await {
        for chunk in bytes.chunks(MAX_DATA / 2) {
            let cost = data_cost(chunk.len());
            let permits = u32::try_from(cost).unwrap_or(u32::MAX);
            let Ok(permit) = credit.acquire_many(permits).await else {
                return;
            };
            permit.forget();
            client.shared.table.owe(id, cost);
            if !client.send_data(FrameKind::Stdin, id, chunk).await {
                return;
            }
        }
    }
    let json = serde_json::to_vec(&ToGuest::StdinEof { id }).unwrap_or_default();
    // Through the data queue: the end must not overtake the last bytes.
    client.send_data(FrameKind::Control, 0, &json).await;
}
