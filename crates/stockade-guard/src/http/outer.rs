//! A connection outwards that speaks HTTP.

use std::sync::Arc;

use hyper::{
    client::conn::{http1, http2},
    rt::Executor,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use serde_json::json;
use stockade_domain::Action;
use stockade_ports::InternalBody;
use tokio::io::{AsyncRead, AsyncWrite};

use super::{
    WINDOW, WINDOWS,
    tasks::{Ending, Tasks},
};
use crate::{
    GuardConfig,
    door::Opened,
    tls::Alpn,
    traffic::{Spent, Tab, Tap},
};

/// A stream of bytes, whatever is underneath.
pub(crate) trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}
impl<S: AsyncRead + AsyncWrite + Unpin + Send> Stream for S {}

/// A connection outwards and what was admitted for it.
pub(crate) struct Outer {
    pub(super) sender: Sender,
    tasks: Ending,
    opened: Opened,
    requests: u64,
}

pub(super) enum Sender {
    Http1(http1::SendRequest<InternalBody>),
    Http2(http2::SendRequest<InternalBody>),
}

impl Outer {
    /// Begins to speak. An error has been settled.
    pub(crate) async fn speak(
        stream: Box<dyn Stream>,
        opened: Opened,
        alpn: Alpn,
        config: &GuardConfig,
    ) -> Result<Self, String> {
        let io = TokioIo::new(stream);
        let (tasks, ending) = Tasks::new();
        let begun = match alpn {
            Alpn::Http1 => begin_http1(io, tasks, config).await,
            Alpn::Http2 => begin_http2(io, tasks, config).await,
        };
        match begun {
            Ok(sender) => Ok(Self {
                sender,
                tasks: ending,
                opened,
                requests: 0,
            }),
            Err(error) => {
                opened.abort(error.to_string()).await;
                Err(error.to_string())
            }
        }
    }

    pub(super) fn action(&self) -> &Action {
        self.opened.action()
    }

    /// Whether it takes another request.
    pub(super) async fn is_ready(&mut self) -> bool {
        match &mut self.sender {
            Sender::Http1(sender) => sender.ready().await.is_ok(),
            Sender::Http2(sender) => sender.ready().await.is_ok(),
        }
    }

    /// Counts a request that is about to go.
    pub(super) fn count(&mut self) {
        self.requests += 1;
    }

    /// Adds to what is settled.
    pub(super) fn note(&mut self, key: &str, value: serde_json::Value) {
        self.opened.note(key, value);
    }

    /// What carries its bytes.
    pub(super) fn tap(&self) -> Arc<Tap> {
        Arc::clone(&self.opened.tap)
    }

    /// Counts it towards the rules of a request.
    pub(super) fn carries(&mut self, tabs: &[Arc<Tab>]) -> Result<(), Spent> {
        tabs.iter().try_for_each(|tab| self.opened.carries(tab))
    }

    pub(super) async fn close(self, ended: &str) {
        // First the bytes stop, then they are counted.
        drop(self.sender);
        self.tasks.end().await;
        let mut opened = self.opened;
        opened.note("requests", json!(self.requests));
        opened.close(ended).await;
    }
}

type Io = TokioIo<Box<dyn Stream>>;

async fn begin_http1(io: Io, tasks: Tasks, config: &GuardConfig) -> hyper::Result<Sender> {
    let (sender, connection) = http1::Builder::new()
        .preserve_header_case(true)
        .max_buf_size(config.max_header_bytes.max(8192))
        .handshake(io)
        .await?;
    tasks.execute(connection.with_upgrades());
    Ok(Sender::Http1(sender))
}

async fn begin_http2(io: Io, tasks: Tasks, config: &GuardConfig) -> hyper::Result<Sender> {
    let (sender, connection) = http2::Builder::new(tasks.clone())
        .timer(TokioTimer::new())
        .initial_stream_window_size(WINDOW)
        .initial_connection_window_size(WINDOWS)
        .max_header_list_size(u32::try_from(config.max_header_bytes).unwrap_or(u32::MAX))
        .handshake(io)
        .await?;
    tasks.execute(connection);
    Ok(Sender::Http2(sender))
}
