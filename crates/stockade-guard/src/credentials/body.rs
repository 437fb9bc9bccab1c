//! Bodies that are looked at while they pass.

use std::{
    error::Error,
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};

use super::{BodyScan, Scrubber, placeholder::refuse_in_headers};

type BoxError = Box<dyn Error + Send + Sync>;

/// A request's body; it ends with a [`super::CredentialFault`] where a placeholder stands in it.
#[derive(Debug)]
pub struct ScannedBody<B> {
    inner: B,
    scan: BodyScan,
}

impl<B> ScannedBody<B> {
    /// Looks at the first `limit` bytes of a body, and at its trailers.
    pub fn new(inner: B, limit: u64) -> Self {
        Self {
            inner,
            scan: BodyScan::new(limit),
        }
    }
}

impl<B: Body<Data = Bytes, Error: Into<BoxError>> + Unpin> Body for ScannedBody<B> {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let this = self.get_mut();
        let frame = match ready!(Pin::new(&mut this.inner).poll_frame(cx)) {
            Some(Ok(frame)) => frame,
            Some(Err(error)) => return Poll::Ready(Some(Err(error.into()))),
            None => return Poll::Ready(None),
        };
        let looked = match (frame.data_ref(), frame.trailers_ref()) {
            (Some(data), _) => this.scan.push(data),
            (None, Some(trailers)) => refuse_in_headers(trailers, None),
            (None, None) => Ok(()),
        };
        Poll::Ready(Some(looked.map(|()| frame).map_err(Into::into)))
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

/// A response's body without the secrets in it. Its length is not known before its end.
#[derive(Debug)]
pub struct ScrubbedBody<B> {
    inner: B,
    scrubber: Scrubber,
    /// Trailers that wait for what was held back before them.
    trailers: Option<Frame<Bytes>>,
    ended: bool,
}

impl<B> ScrubbedBody<B> {
    /// Scrubs a body and its trailers.
    pub fn new(inner: B, scrubber: Scrubber) -> Self {
        Self {
            inner,
            scrubber,
            trailers: None,
            ended: false,
        }
    }
}

impl<B: Body<Data = Bytes, Error: Into<BoxError>> + Unpin> Body for ScrubbedBody<B> {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let this = self.get_mut();
        while !this.ended {
            let last = match ready!(Pin::new(&mut this.inner).poll_frame(cx)) {
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) => {
                        let clean = this.scrubber.push(data);
                        if !clean.is_empty() {
                            return Poll::Ready(Some(Ok(Frame::data(clean))));
                        }
                        continue;
                    }
                    Err(other) => other,
                },
                Some(Err(error)) => return Poll::Ready(Some(Err(error.into()))),
                None => Frame::data(Bytes::new()),
            };
            this.ended = true;
            this.trailers = last.into_trailers().ok().map(|mut trailers| {
                this.scrubber.headers(&mut trailers);
                Frame::trailers(trailers)
            });
            let rest = this.scrubber.finish();
            if !rest.is_empty() {
                return Poll::Ready(Some(Ok(Frame::data(rest))));
            }
        }
        Poll::Ready(this.trailers.take().map(Ok))
    }
}

#[cfg(test)]
mod tests {
    use futures::stream;
    use http::HeaderMap;
    use http_body_util::{BodyExt as _, StreamBody};
    use stockade_ports::SecretValue;

    use super::*;
    use crate::credentials::{CredentialFault, Placeholder};

    fn body(frames: Vec<Frame<Bytes>>) -> impl Body<Data = Bytes, Error = BoxError> + Unpin {
        StreamBody::new(stream::iter(frames.into_iter().map(Ok)))
    }

    fn data(text: &str) -> Frame<Bytes> {
        Frame::data(Bytes::copy_from_slice(text.as_bytes()))
    }

    fn trailers(value: &str) -> Frame<Bytes> {
        let mut map = HeaderMap::new();
        map.insert("x-note", value.parse().unwrap());
        Frame::trailers(map)
    }

    #[tokio::test]
    async fn a_response_is_scrubbed_to_its_last_byte_and_trailer() {
        let scrubber = || Scrubber::new(&[SecretValue::new(b"hunter2-hunter2".to_vec())]);
        let frames = vec![
            data("a hunter2"),
            data("-hun"),
            data("ter2 b hunt"),
            trailers("=hunter2-hunter2"),
        ];
        let clean = ScrubbedBody::new(body(frames), scrubber()).collect().await.unwrap();
        assert_eq!(clean.trailers().unwrap()["x-note"], "=[redacted]");
        assert_eq!(clean.to_bytes(), "a [redacted] b hunt");
        let plain = ScrubbedBody::new(body(vec![data("hunter")]), scrubber())
            .collect()
            .await
            .unwrap();
        assert_eq!(plain.to_bytes(), "hunter");
    }

    #[tokio::test]
    async fn a_request_ends_where_a_placeholder_stands() {
        let placeholder = Placeholder::mint().unwrap();
        let (front, back) = placeholder.as_str().split_at(9);
        for frames in [
            vec![data("x=1&y="), data(front), data(back)],
            vec![data("fine"), trailers(placeholder.as_str())],
        ] {
            let error = ScannedBody::new(body(frames), 1 << 20).collect().await.unwrap_err();
            let fault = error.downcast_ref::<CredentialFault>().unwrap();
            assert_eq!(fault.code(), "credential_placeholder", "{fault}");
        }
        let fine = ScannedBody::new(body(vec![data("x=1"), trailers("y")]), 1 << 20)
            .collect()
            .await
            .unwrap();
        assert_eq!(fine.to_bytes(), "x=1");
    }
}
