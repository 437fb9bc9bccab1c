//! Request bodies as git sends them: plain, or gzip where the request is large.

use std::io::Write as _;

use bytes::Bytes;
use flate2::write::GzDecoder;
use http::{HeaderMap, header::CONTENT_ENCODING};
use http_body_util::BodyExt;
use stockade_ports::InternalBody;

/// Compressed bytes that are decoded at a time: deflate grows them at most about a thousandfold.
const PIECE: usize = 1024;

/// Why a body ends early.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum BodyError {
    /// A coding other than gzip, or several.
    #[error("the request is encoded in a way that git does not use")]
    Coding,
    /// Not gzip after all, or something behind it.
    #[error("the request's compression is broken")]
    Broken,
    /// More than the limit.
    #[error("the request is larger than {0} bytes")]
    TooLarge(u64),
    /// The client went away.
    #[error("the request ended early: {0}")]
    Lost(String),
}

enum Coding {
    Plain,
    Gzip { decoder: Box<GzDecoder<Vec<u8>>> },
}

/// A request's body, decoded, in pieces.
pub(super) struct Decoded {
    body: InternalBody,
    coding: Coding,
    /// What of a frame was not decoded yet.
    raw: Bytes,
    left: u64,
    limit: u64,
    ended: bool,
}

impl Decoded {
    /// Reads at most `limit` decoded bytes.
    pub(super) fn new(body: InternalBody, headers: &HeaderMap, limit: u64) -> Result<Self, BodyError> {
        let codings: Vec<_> = headers.get_all(CONTENT_ENCODING).iter().collect();
        let coding = match codings.as_slice() {
            [] => Coding::Plain,
            [one] if one.as_bytes().eq_ignore_ascii_case(b"identity") => Coding::Plain,
            [one]
                if [&b"gzip"[..], b"x-gzip"]
                    .iter()
                    .any(|name| one.as_bytes().eq_ignore_ascii_case(name)) =>
            {
                let decoder = Box::new(GzDecoder::new(Vec::new()));
                Coding::Gzip { decoder }
            }
            _ => return Err(BodyError::Coding),
        };
        Ok(Self {
            body,
            coding,
            raw: Bytes::new(),
            left: limit,
            limit,
            ended: false,
        })
    }

    /// The next piece; `None` at the end.
    pub(super) async fn next(&mut self) -> Result<Option<Bytes>, BodyError> {
        loop {
            if !self.raw.is_empty() {
                let piece = self.decode()?;
                if !piece.is_empty() {
                    return self.counted(piece).map(Some);
                }
                continue;
            }
            if self.ended {
                return Ok(None);
            }
            match self.body.frame().await {
                Some(Ok(frame)) => self.raw = frame.into_data().unwrap_or_default(),
                Some(Err(error)) => return Err(BodyError::Lost(error.to_string())),
                None => {
                    self.ended = true;
                    let last = self.finish()?;
                    if !last.is_empty() {
                        return self.counted(last).map(Some);
                    }
                }
            }
        }
    }

    /// Reads what is left and forgets it, so that the client comes to read the answer.
    pub(super) async fn drain(mut self) -> Result<(), BodyError> {
        while self.next().await?.is_some() {}
        Ok(())
    }

    fn decode(&mut self) -> Result<Bytes, BodyError> {
        match &mut self.coding {
            Coding::Plain => Ok(std::mem::take(&mut self.raw)),
            Coding::Gzip { decoder } => {
                let piece = self.raw.split_to(self.raw.len().min(PIECE));
                // Behind the end of the stream nothing is taken any more.
                decoder.write_all(&piece).map_err(|_| BodyError::Broken)?;
                Ok(Bytes::from(std::mem::take(decoder.get_mut())))
            }
        }
    }

    fn finish(&mut self) -> Result<Bytes, BodyError> {
        match &mut self.coding {
            Coding::Plain => Ok(Bytes::new()),
            Coding::Gzip { decoder } => {
                decoder.try_finish().map_err(|_| BodyError::Broken)?;
                Ok(Bytes::from(std::mem::take(decoder.get_mut())))
            }
        }
    }

    fn counted(&mut self, piece: Bytes) -> Result<Bytes, BodyError> {
        let left = self.left.checked_sub(piece.len() as u64);
        self.left = left.ok_or(BodyError::TooLarge(self.limit))?;
        Ok(piece)
    }
}

#[cfg(test)]
mod tests {
    use flate2::{Compression, write::GzEncoder};
    use futures::stream;
    use http::HeaderValue;
    use http_body::Frame;
    use http_body_util::StreamBody;

    use super::*;

    async fn read(bytes: &[u8], piece: usize, coding: Option<&'static str>, limit: u64) -> Result<Vec<u8>, BodyError> {
        let frames: Vec<Result<_, std::io::Error>> = bytes
            .chunks(piece)
            .map(|piece| Ok(Frame::data(Bytes::copy_from_slice(piece))))
            .collect();
        let body = InternalBody::new(StreamBody::new(stream::iter(frames)).map_err(Into::into));
        let mut headers = HeaderMap::new();
        if let Some(coding) = coding {
            headers.insert(CONTENT_ENCODING, HeaderValue::from_static(coding));
        }
        let mut decoded = Decoded::new(body, &headers, limit)?;
        let mut all = Vec::new();
        while let Some(piece) = decoded.next().await? {
            all.extend_from_slice(&piece);
        }
        Ok(all)
    }

    fn packed(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    #[tokio::test]
    async fn plain_and_gzip_read_alike_in_any_pieces() {
        let text: Vec<u8> = (0..30_000_u32).flat_map(|n| n.to_be_bytes()).collect();
        for piece in [1000, 4096, 1 << 20] {
            assert_eq!(read(&text, piece, None, 1 << 20).await.unwrap(), text);
            assert_eq!(read(&packed(&text), piece, Some("gzip"), 1 << 20).await.unwrap(), text);
        }
        assert_eq!(read(&packed(b"x"), 1, Some("X-GZIP"), 9).await.unwrap(), b"x");
    }

    #[tokio::test]
    async fn a_bomb_goes_off_at_the_limit() {
        let bomb = packed(&vec![0; 64 << 20]);
        assert!(bomb.len() < 100_000);
        assert_eq!(
            read(&bomb, 1 << 20, Some("gzip"), 1 << 20).await,
            Err(BodyError::TooLarge(1 << 20))
        );
        assert_eq!(read(&[0; 11], 4, None, 10).await, Err(BodyError::TooLarge(10)));
    }

    #[tokio::test]
    async fn what_is_not_one_whole_gzip_is_refused() {
        let good = packed(b"hello hello hello");
        let mut flipped = good.clone();
        let last = flipped.len() - 5;
        flipped[last] ^= 1;
        for bytes in [
            b"no gzip at all".to_vec(),
            good[..good.len() - 4].to_vec(),
            flipped,
            [good.as_slice(), b"more"].concat(),
        ] {
            assert_eq!(
                read(&bytes, 7, Some("gzip"), 100).await,
                Err(BodyError::Broken),
                "{bytes:?}"
            );
        }
        for coding in ["deflate", "br", "gzip, gzip", ""] {
            assert_eq!(read(b"x", 1, Some(coding), 9).await, Err(BodyError::Coding), "{coding}");
        }
    }
}
