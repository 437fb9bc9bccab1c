//! Reaching a server: connections, datagrams, names, raw sockets, abstract sockets.

use std::{
    fs,
    io::{Read as _, Write as _},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket},
    os::{
        linux::net::SocketAddrExt as _,
        unix::net::{SocketAddr as UnixAddr, UnixListener, UnixStream},
    },
    thread,
    time::{Duration, Instant},
};

use crate::{
    args::Args,
    sys::{contains, owned, try_call},
    tell::{Outcome, attempt, ready, refused},
};

/// Longest one server is waited for.
pub(crate) const PATIENCE: Duration = Duration::from_millis(1500);

fn address(text: &str) -> Result<SocketAddr, crate::tell::Refusal> {
    text.parse().map_err(|_| crate::tell::Refusal {
        errno: None,
        why: format!("'{text}' is no address"),
    })
}

/// Starts the servers a control needs on its own stage: each says `token=` to whoever comes.
fn stage_servers(args: &Args) {
    for place in args.all("serve") {
        if let Ok(listener) = TcpListener::bind(place) {
            let token = args.get("token").to_owned();
            thread::spawn(move || greet(&listener, &token));
        }
    }
}

fn greet(listener: &TcpListener, token: &str) {
    for stream in listener.incoming().flatten() {
        let mut stream = stream;
        let _ = stream.write_all(format!("HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n{token}\n").as_bytes());
    }
}

/// All targets at once; told in order.
fn together(targets: Vec<String>, one: impl Fn(&str) -> Outcome + Send + Sync + Clone + 'static) {
    let started: Vec<_> = targets
        .into_iter()
        .map(|target| {
            let (own, one) = (target.clone(), one.clone());
            (target, thread::spawn(move || one(&own)))
        })
        .collect();
    for (target, running) in started {
        attempt(&target, running.join().unwrap_or_else(|_| refused("it broke")));
    }
}

/// Connects to every `to=` and looks for `token=` in what the other side says.
pub(crate) fn tcp(args: &Args) {
    stage_servers(args);
    let token = args.get("token").to_owned();
    together(args.all("to").map(str::to_owned).collect(), move |target| {
        let stream = TcpStream::connect_timeout(&address(target)?, PATIENCE)?;
        ask(stream, target, "/", &token)
    });
}

/// Says a request and listens until the canary speaks or nobody does.
fn ask(mut stream: TcpStream, host: &str, path: &str, token: &str) -> Outcome {
    stream.set_read_timeout(Some(PATIENCE))?;
    let _ = write!(
        stream,
        "GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n"
    );
    let begun = Instant::now();
    let mut heard = Vec::new();
    let mut buffer = [0; 1024];
    while begun.elapsed() < PATIENCE {
        match stream.read(&mut buffer) {
            Ok(0) => break,
            Ok(length) => heard.extend_from_slice(&buffer[..length]),
            Err(error) if heard.is_empty() => return Err(error.into()),
            Err(_) => break,
        }
        if contains(&heard, token.as_bytes()) {
            return Ok("the canary answered".to_owned());
        }
    }
    let line = String::from_utf8_lossy(&heard)
        .lines()
        .next()
        .unwrap_or_default()
        .to_owned();
    refused(format!("no word of the canary; heard '{line}'"))
}

/// Waits for a datagram. Asked again and again: not every kernel keeps a socket's own time limit.
fn receive(socket: &UdpSocket, buffer: &mut [u8], patience: Duration) -> std::io::Result<usize> {
    socket.set_nonblocking(true)?;
    let begun = Instant::now();
    loop {
        match socket.recv_from(buffer) {
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock && begun.elapsed() < patience => {
                thread::sleep(Duration::from_millis(5));
            }
            other => return other.map(|(length, _)| length),
        }
    }
}

/// Sends `token=` to every `to=` by datagram and waits for an echo.
pub(crate) fn udp(args: &Args) {
    let token = args.get("token").to_owned();
    together(args.all("to").map(str::to_owned).collect(), move |target| {
        let to = address(target)?;
        let any: IpAddr = if to.is_ipv4() {
            Ipv4Addr::UNSPECIFIED.into()
        } else {
            Ipv6Addr::UNSPECIFIED.into()
        };
        let socket = UdpSocket::bind((any, 0))?;
        socket.send_to(token.as_bytes(), to)?;
        let mut buffer = [0; 512];
        let length = receive(&socket, &mut buffer, Duration::from_millis(400))?;
        if contains(&buffer[..length], token.as_bytes()) {
            Ok("the canary echoed".to_owned())
        } else {
            refused("somebody else answered")
        }
    });
}

/// The name server this machine is told to ask.
pub(crate) fn system_resolver() -> Option<SocketAddr> {
    let text = fs::read_to_string("/etc/resolv.conf").ok()?;
    let server = text.lines().find_map(|line| line.strip_prefix("nameserver"))?;
    Some(SocketAddr::new(server.trim().parse().ok()?, 53))
}

/// A question for the IPv4 addresses of a name (RFC 1035, 4.1).
fn question(name: &str) -> Vec<u8> {
    let mut packet = vec![0x5a, 0xa5, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    for label in name.split('.').filter(|label| !label.is_empty()) {
        packet.push(u8::try_from(label.len().min(63)).unwrap_or(63));
        packet.extend(label.bytes().take(63));
    }
    packet.extend([0, 0, 1, 0, 1]);
    packet
}

/// The first IPv4 address of an answer.
fn answer(packet: &[u8]) -> Result<Ipv4Addr, crate::tell::Refusal> {
    let no = |why: String| crate::tell::Refusal { errno: None, why };
    if packet.len() < 12 {
        return Err(no("no answer".to_owned()));
    }
    let code = packet[3] & 15;
    // Whatever comes before it, an address record ends with its length (4) and the address;
    // the additional section is left out of the questions asked here.
    let answers = u16::from_be_bytes([packet[6], packet[7]]);
    if code != 0 || answers == 0 {
        return Err(no(format!("answered with code {code} and {answers} records")));
    }
    // Type A, class IN, any time to live, length 4.
    let found = packet
        .windows(14)
        .rev()
        .find(|w| w[..4] == [0, 1, 0, 1] && w[8..10] == [0, 4]);
    let record = found.ok_or_else(|| no("no address among the records".to_owned()))?;
    Ok(Ipv4Addr::new(record[10], record[11], record[12], record[13]))
}

pub(crate) fn look_up(name: &str, server: SocketAddr, stream: bool) -> Result<Ipv4Addr, crate::tell::Refusal> {
    let packet = question(name);
    let mut buffer = vec![0; 1500];
    if stream {
        let mut connection = TcpStream::connect_timeout(&server, PATIENCE)?;
        connection.set_read_timeout(Some(PATIENCE))?;
        let length = u16::try_from(packet.len()).unwrap_or(0).to_be_bytes();
        connection.write_all(&[&length[..], &packet].concat())?;
        let length = connection.read(&mut buffer)?;
        return answer(buffer.get(2..length).unwrap_or_default());
    }
    let any: IpAddr = if server.is_ipv4() {
        Ipv4Addr::UNSPECIFIED.into()
    } else {
        Ipv6Addr::UNSPECIFIED.into()
    };
    let socket = UdpSocket::bind((any, 0))?;
    socket.send_to(&packet, server)?;
    let length = receive(&socket, &mut buffer, PATIENCE)?;
    answer(&buffer[..length])
}

/// Looks up `name=` at the system's resolver (`server=system`) and at every other `server=`, by
/// datagram and by stream. What counts beside an answer is whether the canary's name server
/// heard the question.
pub(crate) fn dns(args: &Args) {
    let name = args.get("name").to_owned();
    let mut targets = Vec::new();
    for server in args.all("server") {
        targets.extend([format!("udp:{server}"), format!("tcp:{server}")]);
    }
    together(targets, move |target| {
        let (way, server) = target.split_once(':').unwrap_or(("udp", target));
        let server = match server {
            "system" => system_resolver().ok_or(libc::ENOENT)?,
            other => address(other)?,
        };
        let found = look_up(&format!("{way}.{name}"), server, way == "tcp")?;
        Ok(format!("resolved to {found}"))
    });
}

/// Gets a page of `host=` the way a program does: asks the resolver, connects, names the host.
pub(crate) fn fetch(args: &Args) {
    let (host, port) = (args.get("host"), u16::try_from(args.number("port")).unwrap_or(80));
    let outcome = || -> Outcome {
        let server = system_resolver().ok_or(libc::ENOENT)?;
        let found = look_up(host, server, false)?;
        let stream = TcpStream::connect_timeout(&(found, port).into(), PATIENCE)?;
        ask(stream, &format!("{host}:{port}"), "/", args.get("token"))
    };
    attempt("fetch", outcome());
}

/// The old way to a packet socket (packet(7), "Compatibility").
const SOCK_PACKET: i32 = 10;

/// Sockets that see or make packets themselves, or speak to machines by other ways than IP.
pub(crate) fn raw(_: &Args) {
    let kinds: [(&str, i32, i32, i32); 12] = [
        ("raw.ipv4", libc::AF_INET, libc::SOCK_RAW, libc::IPPROTO_ICMP),
        ("raw.ipv6", libc::AF_INET6, libc::SOCK_RAW, libc::IPPROTO_ICMPV6),
        ("raw.tcp", libc::AF_INET, libc::SOCK_RAW, libc::IPPROTO_TCP),
        ("packet", libc::AF_PACKET, libc::SOCK_RAW, 0x0300),
        ("packet.datagram", libc::AF_PACKET, libc::SOCK_DGRAM, 0x0300),
        ("packet.old", libc::AF_INET, SOCK_PACKET, 0x0300),
        ("vsock", libc::AF_VSOCK, libc::SOCK_STREAM, 0),
        ("alg", libc::AF_ALG, libc::SOCK_SEQPACKET, 0),
        ("netfilter", libc::AF_NETLINK, libc::SOCK_RAW, libc::NETLINK_NETFILTER),
        ("audit", libc::AF_NETLINK, libc::SOCK_RAW, libc::NETLINK_AUDIT),
        ("xfrm", libc::AF_NETLINK, libc::SOCK_RAW, libc::NETLINK_XFRM),
        ("key", libc::AF_KEY, libc::SOCK_RAW, 2),
    ];
    for (name, family, kind, protocol) in kinds {
        let args = [family, kind, protocol].map(|n| usize::try_from(n).unwrap_or(0));
        let outcome = try_call(libc::SYS_socket, &args).map(|fd| drop(owned(fd)));
        attempt(
            name,
            outcome.map(|()| "it has the socket".to_owned()).map_err(Into::into),
        );
    }
}

/// Connects to sockets in the abstract namespace.
pub(crate) fn abstract_socket(args: &Args) {
    for name in args.all("name") {
        let outcome = || -> Outcome {
            let stream = UnixStream::connect_addr(&UnixAddr::from_abstract_name(name)?)?;
            stream.set_read_timeout(Some(PATIENCE))?;
            let mut text = [0; 64];
            let length = (&stream).read(&mut text)?;
            if contains(&text[..length], args.get("token").as_bytes()) {
                Ok("the canary answered".to_owned())
            } else {
                refused("somebody else listens there")
            }
        };
        attempt(
            if args.get("label").is_empty() {
                "abstract"
            } else {
                args.get("label")
            },
            outcome(),
        );
    }
}

/// Serves `token=` on `port=` of every address and on the abstract socket `name=`, until it is
/// ended: the neighbour that must not be reached.
pub(crate) fn serve(args: &Args) {
    let port = u16::try_from(args.number("port")).unwrap_or(0);
    let token = args.get("token").to_owned();
    let all: [IpAddr; 2] = [Ipv4Addr::UNSPECIFIED.into(), Ipv6Addr::UNSPECIFIED.into()];
    for place in all {
        if let Ok(listener) = TcpListener::bind((place, port)) {
            let token = token.clone();
            thread::spawn(move || greet(&listener, &token));
        }
    }
    let listener = UnixAddr::from_abstract_name(args.get("name")).and_then(|name| UnixListener::bind_addr(&name));
    let Ok(listener) = listener else { return };
    ready();
    for stream in listener.incoming().flatten() {
        let mut stream = stream;
        let _ = stream.write_all(token.as_bytes());
    }
}
