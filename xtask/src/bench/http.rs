//! As much of an HTTP/1.1 client as the benches need: one request a connection, answers read line by line.

use std::io::{self, BufRead, BufReader, Read, Write as _};
use std::net::TcpStream;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};

/// How long the other side may say nothing.
const SILENCE: Duration = Duration::from_secs(30);

/// Where to ask, and as whom.
pub(crate) struct Origin {
    /// `host:port`
    authority: String,
    token: String,
}

impl Origin {
    /// From a plain `http://host:port` address.
    pub(crate) fn new(url: &str, token: &str) -> Result<Self> {
        let authority = url.strip_prefix("http://").map(|rest| rest.trim_end_matches('/'));
        let authority = authority
            .filter(|rest| !rest.contains('/'))
            .with_context(|| format!("not an origin: {url}"))?;
        Ok(Self {
            authority: authority.to_owned(),
            token: token.to_owned(),
        })
    }

    /// Sends a JSON body and returns the whole answer.
    pub(crate) fn post(&self, path: &str, body: &str) -> Result<String> {
        let head = format!("content-type: application/json\r\ncontent-length: {}\r\n", body.len());
        let mut text = String::new();
        self.send("POST", path, &head, body)?
            .read_to_string(&mut text)
            .context("the answer broke off")?;
        Ok(text)
    }

    /// Opens a stream of server-sent events.
    pub(crate) fn events(&self, path: &str) -> Result<Box<dyn BufRead>> {
        self.send("GET", path, "accept: text/event-stream\r\n", "")
    }

    fn send(&self, method: &str, path: &str, head: &str, body: &str) -> Result<Box<dyn BufRead>> {
        let Self { authority, token } = self;
        let mut stream = TcpStream::connect(authority).with_context(|| format!("cannot connect to {authority}"))?;
        stream.set_read_timeout(Some(SILENCE))?;
        stream.set_nodelay(true)?;
        let request = format!(
            "{method} {path} HTTP/1.1\r\nhost: {authority}\r\nauthorization: Bearer {token}\r\nconnection: close\r\n{head}\r\n{body}"
        );
        stream.write_all(request.as_bytes())?;
        let mut answer = answer(BufReader::new(stream))?;
        if !(200..300).contains(&answer.status) {
            let mut text = String::new();
            answer.body.read_to_string(&mut text)?;
            bail!("{method} {path}: HTTP {}: {text}", answer.status);
        }
        Ok(answer.body)
    }
}

struct Answer {
    status: u16,
    body: Box<dyn BufRead>,
}

fn answer(mut from: impl BufRead + 'static) -> Result<Answer> {
    let mut line = String::new();
    from.read_line(&mut line).context("no answer")?;
    let status = line.split(' ').nth(1).and_then(|code| code.parse().ok());
    let status = status.with_context(|| format!("not an HTTP answer: {line:?}"))?;
    let mut length = None;
    let mut chunked = false;
    loop {
        line.clear();
        from.read_line(&mut line).context("the head of the answer broke off")?;
        let header = line.trim_end().to_ascii_lowercase();
        if header.is_empty() {
            break;
        }
        match header.split_once(':').map(|(name, value)| (name, value.trim())) {
            Some(("content-length", value)) => length = Some(value.parse::<u64>()?),
            Some(("transfer-encoding", value)) => chunked = value == "chunked",
            _ => {}
        }
    }
    let body: Box<dyn BufRead> = match (chunked, length) {
        (true, _) => Box::new(BufReader::new(Chunked {
            from,
            left: 0,
            ended: false,
        })),
        (false, Some(length)) => Box::new(from.take(length)),
        (false, None) => Box::new(from),
    };
    Ok(Answer { status, body })
}

/// Takes the chunk sizes (RFC 9112, section 7.1) out of a body.
struct Chunked<R> {
    from: R,
    left: usize,
    ended: bool,
}

impl<R: BufRead> Chunked<R> {
    fn next(&mut self) -> io::Result<()> {
        let mut line = String::new();
        self.from.read_line(&mut line)?;
        let size = line.trim().split(';').next().unwrap_or_default();
        let size = usize::from_str_radix(size, 16);
        self.left = size.map_err(|_| io::Error::new(io::ErrorKind::InvalidData, format!("not a chunk: {line:?}")))?;
        self.ended = self.left == 0;
        Ok(())
    }
}

impl<R: BufRead> Read for Chunked<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.left == 0 && !self.ended {
            self.next()?;
        }
        if self.ended || buffer.is_empty() {
            return Ok(0);
        }
        let most = buffer.len().min(self.left);
        let read = self.from.read(&mut buffer[..most])?;
        if read == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.left -= read;
        if self.left == 0 {
            // The line end that closes a chunk.
            self.from.read_line(&mut String::new())?;
        }
        Ok(read)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use super::*;

    fn body(text: &'static str) -> Result<(u16, String)> {
        let mut answer = answer(Cursor::new(text))?;
        let mut body = String::new();
        answer.body.read_to_string(&mut body)?;
        Ok((answer.status, body))
    }

    #[test]
    fn bodies_are_read_by_length_by_chunks_and_to_the_end() {
        let chunked =
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\nA;x=1\r\n0123456789\r\n0\r\n\r\n";
        assert_eq!(body(chunked).unwrap(), (200, "abc0123456789".into()));
        assert_eq!(
            body("HTTP/1.1 404 No\r\nContent-Length: 2\r\n\r\nabc").unwrap(),
            (404, "ab".into())
        );
        assert_eq!(
            body("HTTP/1.1 200 OK\r\n\r\nall of it").unwrap(),
            (200, "all of it".into())
        );
    }

    #[test]
    fn what_breaks_off_is_an_error() {
        assert!(body("").is_err());
        assert!(body("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nabc").is_err());
        assert!(body("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nhello\r\n").is_err());
    }

    #[test]
    fn only_plain_origins_are_taken() {
        assert!(Origin::new("http://127.0.0.1:80/", "t").is_ok());
        assert!(Origin::new("https://127.0.0.1:80", "t").is_err());
        assert!(Origin::new("http://127.0.0.1:80/path", "t").is_err());
    }
}
