//! The outer end of a connection: every byte is counted, within the limits, until it is cut.
//!
//! Bytes are reserved with every ledger before the system is asked to move them and settled right
//! after, in one poll: what is moved never exceeds a limit, not by a byte. Where no limit is set and
//! nothing is cut, that costs two counters and no lock.

use std::{
    io,
    pin::Pin,
    sync::{Arc, OnceLock},
    task::{Context, Poll, ready},
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
};

use super::{
    cut::{Cut, Severed},
    ledger::{Reserved, Tab, Way, reserve, settle},
};
use crate::meter::Meter;

/// What all who carry the bytes of one connection share.
#[derive(Debug)]
pub(crate) struct Tap {
    pub(crate) meter: Arc<Meter>,
    pub(crate) cut: Arc<Cut>,
    /// What its bytes count towards.
    tabs: Vec<Arc<Tab>>,
    /// Where the Guard stops reading: bytes it does not see into from there on.
    blind: OnceLock<Arc<Meter>>,
}

impl Tap {
    pub(crate) fn new(cut: Arc<Cut>, tabs: Vec<Arc<Tab>>) -> Arc<Self> {
        Arc::new(Self {
            meter: Arc::new(Meter::new()),
            cut,
            tabs,
            blind: OnceLock::new(),
        })
    }

    /// A tap within this connection, for bytes the Guard does not see into: cut with it, counted apart.
    pub(crate) fn blind(&self, tabs: Vec<Arc<Tab>>) -> Arc<Self> {
        let inner = Self::new(Arc::clone(&self.cut), tabs);
        let _ = self.blind.set(Arc::clone(&inner.meter));
        inner
    }

    /// Bytes up and down that the Guard did not see into, though it read the connection.
    pub(crate) fn blind_bytes(&self) -> (u64, u64) {
        self.blind.get().map_or((0, 0), |meter| meter.bytes())
    }

    pub(crate) fn tabs(&self) -> &[Arc<Tab>] {
        &self.tabs
    }

    fn spent(&self, spent: &super::ledger::Spent) -> io::Error {
        self.cut.cut(Severed::limit(spent));
        io::Error::new(io::ErrorKind::QuotaExceeded, spent.reason())
    }
}

/// A stream outwards: what is written goes up, what is read comes down.
#[derive(Debug)]
pub(crate) struct Tolled<S> {
    inner: S,
    tap: Arc<Tap>,
    /// Drops what the system has taken and not sent yet.
    abort: fn(&S),
}

impl Tolled<TcpStream> {
    /// The connection outwards itself. When it is cut, it ends with a reset: what the system has
    /// taken and not sent yet is not sent any more.
    pub(crate) fn wire(inner: TcpStream, tap: Arc<Tap>) -> Self {
        let abort = |stream: &TcpStream| drop(stream.set_zero_linger());
        Self { inner, tap, abort }
    }
}

impl<S> Tolled<S> {
    /// Something carried within a connection.
    pub(crate) fn within(inner: S, tap: Arc<Tap>) -> Self {
        let abort = |_: &S| {};
        Self { inner, tap, abort }
    }
}

impl<S> Drop for Tolled<S> {
    fn drop(&mut self) {
        if self.tap.cut.why().is_some() {
            (self.abort)(&self.inner);
        }
    }
}

impl<S: AsyncRead + Unpin> Tolled<S> {
    /// Reads at most `most` bytes.
    fn read_some(&mut self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>, most: usize) -> Poll<io::Result<()>> {
        if most >= buf.remaining() {
            return Pin::new(&mut self.inner).poll_read(cx, buf);
        }
        // Near the end of a limit only.
        let mut some = vec![0; most];
        let mut part = ReadBuf::new(&mut some);
        ready!(Pin::new(&mut self.inner).poll_read(cx, &mut part))?;
        buf.put_slice(part.filled());
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Tolled<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        let tap = Arc::clone(&this.tap);
        if let Err(error) = tap.cut.check_read(cx) {
            return Poll::Ready(Err(error));
        }
        let before = buf.filled().len();
        if tap.tabs.is_empty() || buf.remaining() == 0 {
            let polled = Pin::new(&mut this.inner).poll_read(cx, buf);
            tap.meter.came_down(buf.filled().len() - before);
            return polled;
        }
        match reserve(&tap.tabs, Way::Down, buf.remaining()) {
            Reserved::Bytes(most) => {
                let polled = this.read_some(cx, buf, most);
                let came = buf.filled().len() - before;
                settle(&tap.tabs, Way::Down, most, came);
                tap.meter.came_down(came);
                polled
            }
            Reserved::Held => {
                cx.waker().wake_by_ref();
                Poll::Pending
            }
            Reserved::Spent(spent) => Poll::Ready(Err(tap.spent(&spent))),
        }
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Tolled<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let this = &mut *self;
        let tap = Arc::clone(&this.tap);
        if let Err(error) = tap.cut.check_write(cx) {
            return Poll::Ready(Err(error));
        }
        if tap.tabs.is_empty() || buf.is_empty() {
            let polled = Pin::new(&mut this.inner).poll_write(cx, buf);
            if let Poll::Ready(Ok(went)) = &polled {
                tap.meter.went_up(*went);
            }
            return polled;
        }
        match reserve(&tap.tabs, Way::Up, buf.len()) {
            Reserved::Bytes(most) => {
                let polled = Pin::new(&mut this.inner).poll_write(cx, &buf[..most]);
                let went = match &polled {
                    Poll::Ready(Ok(went)) => *went,
                    Poll::Ready(Err(_)) | Poll::Pending => 0,
                };
                settle(&tap.tabs, Way::Up, most, went);
                tap.meter.went_up(went);
                polled
            }
            Reserved::Held => {
                cx.waker().wake_by_ref();
                Poll::Pending
            }
            Reserved::Spent(spent) => Poll::Ready(Err(tap.spent(&spent))),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}
