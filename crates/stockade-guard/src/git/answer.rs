//! Answers that are not git's own, and watching one pass.

use std::{
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use http::{
    HeaderMap, HeaderValue, Response, StatusCode, Uri,
    header::{CACHE_CONTROL, CONTENT_ENCODING, CONTENT_TYPE},
};
use http_body::{Body, Frame, SizeHint};
use http_body_util::{BodyExt, Full};
use stockade_ports::InternalBody;

use super::request::Service;

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// A refusal in the form that its client prints: Git LFS reads JSON
/// (git-lfs/docs/api/batch.md, "Response Errors"), git itself plain text.
pub(crate) fn refusal(request: &Uri, words: &str) -> Response<InternalBody> {
    if !request.path().contains("/info/lfs") {
        return text(StatusCode::FORBIDDEN, words);
    }
    let body = serde_json::json!({ "message": format!("stockade: {words}") }).to_string();
    let mut response = Response::new(full(Bytes::from(body)));
    *response.status_mut() = StatusCode::FORBIDDEN;
    let kind = HeaderValue::from_static("application/vnd.git-lfs+json");
    response.headers_mut().insert(CONTENT_TYPE, kind);
    response
}

/// A refusal in plain text: git prints it where it asks for references.
pub(super) fn text(status: StatusCode, words: &str) -> Response<InternalBody> {
    let clean: String = words.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    let mut response = Response::new(full(Bytes::from(format!("stockade: {clean}\n"))));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/plain"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    response
}

/// An answer of the service itself.
pub(super) fn result(service: Service, body: InternalBody) -> Response<InternalBody> {
    let mut response = Response::new(body);
    let kind = match service {
        Service::UploadPack => "application/x-git-upload-pack-result",
        Service::ReceivePack => "application/x-git-receive-pack-result",
    };
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    response
}

/// A body of bytes that are there.
pub(super) fn full(bytes: Bytes) -> InternalBody {
    InternalBody::new(Full::new(bytes).map_err(|never| match never {}))
}

/// Whether a body is readable as it comes.
pub(super) fn is_plain(headers: &HeaderMap) -> bool {
    let mut codings = headers.get_all(CONTENT_ENCODING).iter();
    codings.all(|coding| coding.as_bytes().eq_ignore_ascii_case(b"identity"))
}

/// A body that somebody looks at as it passes.
pub(super) struct Watched<W: Watch> {
    inner: InternalBody,
    watch: Option<W>,
}

/// Looks at a body.
pub(super) trait Watch: Send + Unpin + 'static {
    /// Some of it.
    fn see(&mut self, bytes: &[u8]);
    /// It ended as it should.
    fn end(self);
}

impl<W: Watch> Watched<W> {
    pub(super) fn over(inner: InternalBody, watch: W) -> InternalBody {
        let watch = Some(watch);
        InternalBody::new(Self { inner, watch })
    }
}

impl<W: Watch> Body for Watched<W> {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let frame = ready!(Pin::new(&mut self.inner).poll_frame(cx));
        match &frame {
            Some(Ok(frame)) => {
                if let (Some(data), Some(watch)) = (frame.data_ref(), &mut self.watch) {
                    watch.see(data);
                }
            }
            Some(Err(_)) => self.watch = None,
            None => {}
        }
        // A server of known length is not asked for a frame behind the last.
        if (frame.is_none() || self.inner.is_end_stream())
            && let Some(watch) = self.watch.take()
        {
            watch.end();
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream() && self.watch.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}
