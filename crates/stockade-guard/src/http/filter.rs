//! A filter in front of the HTTP parser: only requests that every server reads alike pass.
//!
//! The filter follows the framing of the byte stream (RFC 9112 6 and 7) and hands on a
//! request head only whole and unambiguous. A request that states its length twice, or in a
//! way a lenient server could read differently, ends the connection with a [`Fault`].

use std::{
    io,
    pin::Pin,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll},
};

use bytes::{Buf, BytesMut};
use stockade_policy::{Fault, RequestTarget, Scheme, TargetError, target::Http1Target};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Headers of one request.
pub(crate) const MAX_HEADERS: usize = 100;
/// Longest chunk-size line, extensions included.
const MAX_CHUNK_LINE: usize = 1024;
/// Longest trailer section.
const MAX_TRAILERS: usize = 8 * 1024;
/// Bytes read from the client at a time.
const READ: usize = 8 * 1024;

/// Where in the byte stream the filter is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    Head,
    Body(u64),
    ChunkSize,
    Chunk(u64),
    ChunkEnd,
    Trailers(usize),
}

/// What the filter and whoever answers requests tell each other.
#[derive(Debug, Default)]
pub(crate) struct Valve {
    fault: OnceLock<Fault>,
    open: AtomicBool,
}

impl Valve {
    /// The fault a connection ended with.
    pub(super) fn fault(&self) -> Option<Fault> {
        self.fault.get().copied()
    }

    /// From now on the client does not speak HTTP, and its bytes pass unread.
    pub(super) fn open(&self) {
        self.open.store(true, Ordering::SeqCst);
    }
}

/// A stream whose reads are filtered; writes pass.
#[derive(Debug)]
pub(super) struct Filter<S> {
    inner: S,
    raw: BytesMut,
    checked: BytesMut,
    place: Place,
    max_head: usize,
    valve: Arc<Valve>,
}

impl<S> Filter<S> {
    /// A filter that has already read `raw`.
    pub(super) fn new(inner: S, raw: BytesMut, max_head: usize, valve: Arc<Valve>) -> Self {
        Self {
            inner,
            raw,
            checked: BytesMut::new(),
            place: Place::Head,
            max_head,
            valve,
        }
    }

    /// The stream behind the filter, and what was read from it and not handed on.
    pub(super) fn into_parts(mut self) -> (S, BytesMut) {
        self.checked.unsplit(self.raw);
        (self.inner, self.checked)
    }

    /// Moves what can be checked from `raw` to `checked`; false when more bytes are needed.
    fn advance(&mut self) -> Result<bool, Fault> {
        if self.valve.open.load(Ordering::SeqCst) {
            let length = self.raw.len();
            self.pass(length);
            return Ok(length > 0);
        }
        match self.place {
            Place::Head => self.head(),
            Place::Body(left) => Ok(self.carry(left, Place::Head, Place::Body)),
            Place::Chunk(left) => Ok(self.carry(left, Place::ChunkEnd, Place::Chunk)),
            Place::ChunkSize => self.chunk_size(),
            Place::ChunkEnd => self.chunk_end(),
            Place::Trailers(seen) => self.trailers(seen),
        }
    }

    fn head(&mut self) -> Result<bool, Fault> {
        if self.raw.is_empty() {
            return Ok(false);
        }
        let mut headers = [httparse::EMPTY_HEADER; MAX_HEADERS];
        let mut request = httparse::Request::new(&mut headers);
        let Some(length) = whole_head(&mut request, &self.raw, self.max_head)? else {
            return Ok(false);
        };
        let next = framing(&request)?;
        self.pass(length);
        self.place = next;
        Ok(true)
    }

    fn carry(&mut self, left: u64, done: Place, more: fn(u64) -> Place) -> bool {
        let length = usize::try_from(left).unwrap_or(usize::MAX).min(self.raw.len());
        self.pass(length);
        let left = left - length as u64;
        self.place = if left == 0 { done } else { more(left) };
        length > 0 || left == 0
    }

    fn chunk_size(&mut self) -> Result<bool, Fault> {
        let Some(line) = self.line(MAX_CHUNK_LINE)? else {
            return Ok(false);
        };
        let digits = self.raw[..line].split(|b| *b == b';').next().unwrap_or_default();
        let text = std::str::from_utf8(digits).map_err(|_| Fault::MalformedRequest)?;
        let is_size = (1..=15).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_hexdigit());
        if !is_size {
            return Err(Fault::AmbiguousLength);
        }
        let size = u64::from_str_radix(text, 16).map_err(|_| Fault::AmbiguousLength)?;
        self.pass(line + 2);
        self.place = if size == 0 {
            Place::Trailers(0)
        } else {
            Place::Chunk(size)
        };
        Ok(true)
    }

    fn chunk_end(&mut self) -> Result<bool, Fault> {
        match self.raw.first_chunk::<2>() {
            Some(b"\r\n") => {
                self.pass(2);
                self.place = Place::ChunkSize;
                Ok(true)
            }
            Some(_) => Err(Fault::AmbiguousLength),
            None => Ok(false),
        }
    }

    fn trailers(&mut self, seen: usize) -> Result<bool, Fault> {
        let Some(line) = self.line(MAX_TRAILERS)? else {
            return Ok(false);
        };
        self.pass(line + 2);
        let seen = seen + line + 2;
        if seen > MAX_TRAILERS {
            return Err(Fault::HeaderTooLarge);
        }
        self.place = if line == 0 { Place::Head } else { Place::Trailers(seen) };
        Ok(true)
    }

    /// Length of the line at the front of `raw`, which ends in CR LF and holds neither alone.
    fn line(&self, longest: usize) -> Result<Option<usize>, Fault> {
        let Some(end) = self.raw.iter().position(|b| matches!(b, b'\r' | b'\n')) else {
            return if self.raw.len() > longest {
                Err(Fault::HeaderTooLarge)
            } else {
                Ok(None)
            };
        };
        match self.raw.get(end..end + 2) {
            Some(b"\r\n") if end <= longest => Ok(Some(end)),
            None if self.raw[end] == b'\r' => Ok(None),
            _ => Err(Fault::AmbiguousLength),
        }
    }

    fn pass(&mut self, length: usize) {
        self.checked.extend_from_slice(&self.raw[..length]);
        self.raw.advance(length);
    }
}

/// Reads the request head at the front of `raw` and tells its length; `None` while more is needed.
pub(crate) fn whole_head<'raw>(
    request: &mut httparse::Request<'_, 'raw>,
    raw: &'raw [u8],
    longest: usize,
) -> Result<Option<usize>, Fault> {
    match request.parse(raw) {
        Ok(httparse::Status::Complete(length)) if length > longest => Err(Fault::HeaderTooLarge),
        Ok(httparse::Status::Complete(length)) if has_bare_line_end(&raw[..length]) => Err(Fault::MalformedRequest),
        Ok(httparse::Status::Complete(length)) => Ok(Some(length)),
        Ok(httparse::Status::Partial) if raw.len() > longest => Err(Fault::HeaderTooLarge),
        Ok(httparse::Status::Partial) => Ok(None),
        Err(httparse::Error::TooManyHeaders) => Err(Fault::HeaderTooLarge),
        Err(_) => Err(Fault::MalformedRequest),
    }
}

/// The values of every header of this name.
pub(crate) fn values<'raw>(request: &httparse::Request<'_, 'raw>, name: &str) -> Vec<&'raw [u8]> {
    let named = request.headers.iter().filter(|h| h.name.eq_ignore_ascii_case(name));
    named.map(|h| h.value.trim_ascii()).collect()
}

/// Whether a CR or LF stands alone: some servers take it for the end of a line (RFC 9112 2.2).
fn has_bare_line_end(head: &[u8]) -> bool {
    let mut after_cr = false;
    head.iter().any(|byte| {
        let bare = (*byte == b'\n') != after_cr;
        after_cr = *byte == b'\r';
        bare
    })
}

/// Has the policy's own reader look at the request target as it was sent: a parser behind this
/// one drops some of it. That the names are the connection's is for whoever answers to see.
fn well_formed(request: &httparse::Request<'_, '_>) -> Result<(), Fault> {
    let hosts: Vec<_> = values(request, "host")
        .into_iter()
        .map(String::from_utf8_lossy)
        .collect();
    let hosts: Vec<&str> = hosts.iter().map(AsRef::as_ref).collect();
    let read = RequestTarget::http1(&Http1Target {
        scheme: Scheme::Http,
        method: request.method.unwrap_or_default(),
        target: request.path.unwrap_or_default(),
        hosts: &hosts,
    });
    match read {
        Err(TargetError::OtherScheme) | Ok(_) => Ok(()),
        Err(error) if error.is_about_names() => Ok(()),
        Err(error) => Err(error.fault()),
    }
}

/// What follows a request head (RFC 9112 6.3), where that is clear beyond doubt.
fn framing(request: &httparse::Request<'_, '_>) -> Result<Place, Fault> {
    if request
        .method
        .is_some_and(|method| method.eq_ignore_ascii_case("CONNECT"))
    {
        return Err(Fault::ConnectMethod);
    }
    well_formed(request)?;
    match (
        values(request, "transfer-encoding").as_slice(),
        values(request, "content-length").as_slice(),
    ) {
        ([], []) => Ok(Place::Head),
        ([], [length]) => {
            let text = std::str::from_utf8(length).map_err(|_| Fault::AmbiguousLength)?;
            let is_number = (1..=18).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_digit());
            match text.parse::<u64>() {
                Ok(0) if is_number => Ok(Place::Head),
                Ok(length) if is_number => Ok(Place::Body(length)),
                _ => Err(Fault::AmbiguousLength),
            }
        }
        ([coding], []) if coding.eq_ignore_ascii_case(b"chunked") && request.version == Some(1) => Ok(Place::ChunkSize),
        _ => Err(Fault::AmbiguousLength),
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Filter<S> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        loop {
            if !this.checked.is_empty() {
                let length = this.checked.len().min(buf.remaining());
                buf.put_slice(&this.checked[..length]);
                this.checked.advance(length);
                return Poll::Ready(Ok(()));
            }
            match this.advance() {
                Ok(true) => continue,
                Ok(false) => {}
                Err(fault) => {
                    let _ = this.valve.fault.set(fault);
                    return Poll::Ready(Err(io::Error::new(io::ErrorKind::InvalidData, fault.reason())));
                }
            }
            let mut space = [0; READ];
            let mut read = ReadBuf::new(&mut space);
            match Pin::new(&mut this.inner).poll_read(cx, &mut read) {
                Poll::Ready(Ok(())) if read.filled().is_empty() => return Poll::Ready(Ok(())),
                Poll::Ready(Ok(())) => this.raw.extend_from_slice(read.filled()),
                other => return other,
            }
        }
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Filter<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}

#[cfg(test)]
#[path = "filter_tests.rs"]
mod tests;
