//! Questions as they arrive: datagrams, and streams to port 53.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpStream, UdpSocket},
    sync::Semaphore,
    time::timeout,
};

use super::answer::{MAX_QUESTION, answer};
use crate::session::Session;

/// Questions answered at a time; what is over is dropped and asked again.
const AT_ONCE: usize = 64;
/// Questions on one stream.
const PER_STREAM: usize = 1000;

/// Answers datagrams until the session ends.
pub(crate) async fn serve_datagrams(session: Arc<Session>, socket: UdpSocket) {
    let socket = Arc::new(socket);
    let places = Arc::new(Semaphore::new(AT_ONCE));
    let mut rate = Rate::new(session.config.max_dns_per_second);
    // One byte more than a question may have shows that one is too long.
    let mut buffer = vec![0; MAX_QUESTION + 1];
    loop {
        let received = tokio::select! {
            received = socket.recv_from(&mut buffer) => received,
            () = session.stop.cancelled() => return,
        };
        let Ok((length, from)) = received else {
            // An earlier answer that could not be delivered; the socket itself is fine.
            tokio::time::sleep(Duration::from_millis(5)).await;
            continue;
        };
        if !rate.admits(Instant::now()) {
            continue;
        }
        let Ok(place) = Arc::clone(&places).try_acquire_owned() else {
            continue;
        };
        let question = buffer[..length].to_vec();
        let (own, socket) = (Arc::clone(&session), Arc::clone(&socket));
        session.tasks.spawn(async move {
            if let Some(answer) = answer(&own, &question).await {
                let _ = socket.send_to(&answer, from).await;
            }
            drop(place);
        });
    }
}

/// Answers questions on a stream, each with its length before it (RFC 1035 4.2.2).
pub(crate) async fn serve_stream(session: Arc<Session>, mut stream: TcpStream) {
    for _ in 0..PER_STREAM {
        let question = tokio::select! {
            question = timeout(session.config.handshake_timeout, read_question(&mut stream)) => question,
            () = session.stop.cancelled() => return,
        };
        let Ok(Some(question)) = question else { return };
        let Some(answer) = answer(&session, &question).await else {
            return;
        };
        let Ok(length) = u16::try_from(answer.len()) else {
            return;
        };
        let mut framed = length.to_be_bytes().to_vec();
        framed.extend_from_slice(&answer);
        if stream.write_all(&framed).await.is_err() {
            return;
        }
    }
}

async fn read_question(stream: &mut TcpStream) -> Option<Vec<u8>> {
    let length = usize::from(stream.read_u16().await.ok()?);
    if length > MAX_QUESTION {
        return None;
    }
    let mut question = vec![0; length];
    stream.read_exact(&mut question).await.ok()?;
    Some(question)
}

/// So many per second, counted per second.
struct Rate {
    limit: u32,
    since: Instant,
    count: u32,
}

impl Rate {
    fn new(limit: u32) -> Self {
        Self {
            limit,
            since: Instant::now(),
            count: 0,
        }
    }

    fn admits(&mut self, now: Instant) -> bool {
        if now.duration_since(self.since) >= Duration::from_secs(1) {
            self.since = now;
            self.count = 0;
        }
        self.count = self.count.saturating_add(1);
        self.count <= self.limit
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_starts_anew_each_second() {
        let mut rate = Rate::new(2);
        let start = rate.since;
        assert!(rate.admits(start) && rate.admits(start));
        assert!(!rate.admits(start));
        assert!(rate.admits(start + Duration::from_secs(1)));
    }
}
