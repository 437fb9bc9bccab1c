//! Attempts to reach something outside, all at the same time.

use std::{
    fs, io,
    net::{Ipv4Addr, SocketAddr, UdpSocket},
    os::fd::{AsRawFd, OwnedFd},
    time::{Duration, Instant},
};

use stockade_guest_proto::{Observed, ProbeStart, Reached, Resolved};

use super::kernel;
use crate::sys;

/// Longest to wait for an answer. A boundary that works answers within a millisecond.
const PATIENCE: Duration = Duration::from_secs(2);
/// Bytes of an answer that are reported.
const ENOUGH: usize = 64;
/// Identifies our question to the resolver.
const QUESTION_ID: u16 = 0x5745;

/// One connection on its way.
struct Attempt {
    socket: Option<OwnedFd>,
    request: Option<String>,
    outcome: Reached,
}

/// One question on its way.
struct Question {
    socket: Option<UdpSocket>,
    outcome: Resolved,
}

/// Tries everything and writes down how it ended.
pub(super) fn all(start: &ProbeStart, observed: &mut Observed) {
    let targets = start.tcp.iter().chain(&start.canaries);
    let mut attempts: Vec<_> = targets.map(Attempt::to).collect();
    let mut question = (!start.name.is_empty()).then(|| Question::about(&start.name));
    observed.abstract_socket = start.abstract_socket.as_deref().map(abstract_socket);
    let deadline = Instant::now() + PATIENCE;
    while step(&mut attempts, question.as_mut(), deadline) {}
    let mut outcomes = attempts.into_iter().map(|attempt| attempt.outcome);
    observed.tcp = outcomes.by_ref().take(start.tcp.len()).collect();
    observed.canaries = outcomes.collect();
    observed.name = question.map(|question| question.outcome);
}

/// Waits for news and takes it in; `false` when there is nothing left to wait for.
fn step(attempts: &mut [Attempt], mut question: Option<&mut Question>, deadline: Instant) -> bool {
    let left = deadline.saturating_duration_since(Instant::now());
    let wait = |fd, events| libc::pollfd { fd, events, revents: 0 };
    let mut fds = Vec::new();
    for attempt in attempts.iter() {
        let events = if attempt.request.is_some() {
            libc::POLLOUT
        } else {
            libc::POLLIN
        };
        fds.push(wait(attempt.socket.as_ref().map_or(-1, AsRawFd::as_raw_fd), events));
    }
    let asking = question.as_ref().and_then(|q| q.socket.as_ref());
    fds.push(wait(asking.map_or(-1, AsRawFd::as_raw_fd), libc::POLLIN));
    if left.is_zero() || fds.iter().all(|fd| fd.fd < 0) {
        return false;
    }
    let left = i32::try_from(left.as_millis()).unwrap_or(i32::MAX).saturating_add(1);
    if sys::poll(&mut fds, left).is_err() {
        return false;
    }
    for (attempt, fd) in attempts.iter_mut().zip(&fds) {
        if fd.revents != 0 {
            attempt.go_on();
        }
    }
    if let (Some(question), Some(fd)) = (question.as_mut(), fds.last())
        && fd.revents != 0
    {
        question.go_on();
    }
    true
}

impl Attempt {
    fn to(target: &SocketAddr) -> Self {
        let refused = |error: io::Error| Self {
            socket: None,
            request: None,
            outcome: Reached::Refused(error.raw_os_error().unwrap_or(0)),
        };
        match kernel::connect_in_background(target) {
            Ok(socket) => Self {
                socket: Some(socket),
                request: Some(format!("GET / HTTP/1.0\r\nHost: {target}\r\n\r\n")),
                outcome: Reached::Silent,
            },
            Err(e) => refused(e),
        }
    }

    fn go_on(&mut self) {
        let Some(socket) = &self.socket else { return };
        let ended = match self.request.take() {
            Some(request) => match kernel::socket_error(socket) {
                0 => sys::write(socket.as_raw_fd(), request.as_bytes())
                    .err()
                    .map(|e| Reached::Refused(e.raw_os_error().unwrap_or(0))),
                errno => Some(Reached::Refused(errno)),
            },
            None => {
                let mut bytes = [0; ENOUGH];
                Some(match sys::read(socket.as_raw_fd(), &mut bytes) {
                    Ok(0) => Reached::Closed,
                    Ok(n) => Reached::Answered(String::from_utf8_lossy(&bytes[..n]).into_owned()),
                    Err(e) => Reached::Refused(e.raw_os_error().unwrap_or(0)),
                })
            }
        };
        if let Some(outcome) = ended {
            self.outcome = outcome;
            self.socket = None;
        }
    }
}

impl Question {
    fn about(name: &str) -> Self {
        match ask(name) {
            Ok(socket) => Self {
                socket: Some(socket),
                outcome: Resolved::Silent,
            },
            Err(e) => Self {
                socket: None,
                outcome: Resolved::Failed(e.to_string()),
            },
        }
    }

    fn go_on(&mut self) {
        let Some(socket) = &self.socket else { return };
        let mut answer = [0; 512];
        let outcome = match socket.recv(&mut answer) {
            Err(e) => Resolved::Failed(e.to_string()),
            Ok(n) => match header(&answer[..n]) {
                Some((code, answers)) => Resolved::Code { code, answers },
                // Somebody else's answer: keep waiting for ours.
                None => return,
            },
        };
        self.outcome = outcome;
        self.socket = None;
    }
}

/// Asks the first resolver of `/etc/resolv.conf` (resolv.conf(5)) for an address.
fn ask(name: &str) -> io::Result<UdpSocket> {
    let text = fs::read_to_string("/etc/resolv.conf")?;
    let server = text.lines().find_map(|line| {
        let rest = line.trim().strip_prefix("nameserver")?;
        rest.trim().parse::<std::net::IpAddr>().ok()
    });
    let server = server.unwrap_or(Ipv4Addr::LOCALHOST.into());
    let any = if server.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
    let socket = UdpSocket::bind(any)?;
    socket.connect((server, 53))?;
    socket.set_nonblocking(true)?;
    socket.send(&query(name))?;
    Ok(socket)
}

/// A question for the A records of a name (RFC 1035, 4.1): one question, recursion desired.
fn query(name: &str) -> Vec<u8> {
    let mut message = QUESTION_ID.to_be_bytes().to_vec();
    message.extend([1, 0, 0, 1, 0, 0, 0, 0, 0, 0]);
    for label in name.split('.').filter(|label| !label.is_empty()) {
        let label = &label.as_bytes()[..label.len().min(63)];
        message.push(u8::try_from(label.len()).unwrap_or(63));
        message.extend(label);
    }
    message.extend([0, 0, 1, 0, 1]);
    message
}

/// RCODE and ANCOUNT of an answer to our question.
fn header(answer: &[u8]) -> Option<(u8, u16)> {
    let head = answer.first_chunk::<12>()?;
    let ours = head[..2] == QUESTION_ID.to_be_bytes() && head[2] & 0x80 != 0;
    ours.then(|| (head[3] & 0xf, u16::from_be_bytes([head[6], head[7]])))
}

/// Who takes a connection to an abstract name has answered: with unix sockets there is nobody
/// in between.
fn abstract_socket(name: &str) -> Reached {
    match kernel::connect_abstract(name) {
        Ok(()) => Reached::Answered(String::new()),
        Err(e) => Reached::Refused(e.raw_os_error().unwrap_or(0)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_question_is_well_formed_and_only_its_answer_counts() {
        let query = query("a.invalid");
        assert_eq!(&query[12..], b"\x01a\x07invalid\0\0\x01\0\x01");
        assert_eq!(header(&query), None, "a question is no answer");
        let mut answer = query;
        answer[2] |= 0x80;
        answer[3] = 3;
        assert_eq!(header(&answer), Some((3, 0)));
        answer[0] ^= 1;
        assert_eq!(header(&answer), None, "an answer to somebody else");
        assert_eq!(header(&[0; 5]), None);
    }
}
