//! Questions at a terminal, answered by typing a line.

use std::{
    io::{self, BufRead as _, IsTerminal as _, Write as _},
    sync::mpsc as std_mpsc,
};

use tokio::sync::mpsc;

/// Whether a person can be asked here.
pub(crate) fn is_interactive() -> bool {
    io::stdin().is_terminal() && io::stderr().is_terminal()
}

/// Lines a person types. Reading blocks a thread of its own, so that an answer from
/// elsewhere can end a question; what is typed while no question is open is not an answer.
pub(crate) struct Keyboard {
    lines: mpsc::UnboundedReceiver<String>,
    _stop: std_mpsc::Sender<()>,
}

impl Keyboard {
    /// Starts to read standard input.
    pub(crate) fn open() -> Self {
        let (send, lines) = mpsc::unbounded_channel();
        let (stop, stopped) = std_mpsc::channel::<()>();
        std::thread::spawn(move || {
            for line in io::stdin().lock().lines() {
                let gone = matches!(stopped.try_recv(), Err(std_mpsc::TryRecvError::Disconnected));
                let Ok(line) = line else { return };
                if gone || send.send(line).is_err() {
                    return;
                }
            }
        });
        Self { lines, _stop: stop }
    }

    /// Shows a question. What was typed before it is not its answer.
    pub(crate) fn prompt(&mut self, question: &str) {
        while self.lines.try_recv().is_ok() {}
        let mut stderr = io::stderr().lock();
        let _ = write!(stderr, "{question}");
        let _ = stderr.flush();
    }

    /// The next line; `None` at the end of input. Safe to cancel.
    pub(crate) async fn line(&mut self) -> Option<String> {
        self.lines.recv().await.map(|line| line.trim().to_owned())
    }
}

/// Asks a yes-or-no question once; anything but a yes is a no.
pub(crate) async fn confirm(question: &str) -> bool {
    let mut keyboard = Keyboard::open();
    keyboard.prompt(&format!("{question} [y/N] "));
    keyboard
        .line()
        .await
        .is_some_and(|line| matches!(line.to_lowercase().as_str(), "y" | "yes"))
}
