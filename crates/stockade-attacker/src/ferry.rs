//! A ferry: carries bytes between standard input and output and connections made from here, so that whoever
//! drives it speaks any protocol from inside without this program having to know it.
//!
//! Frames on both sides: the connection's number (2 bytes), what it is (1), the length of what follows (4), all
//! big-endian, and that. It ends with its input.

use std::{
    collections::HashMap,
    io::{Read, Write as _},
    net::{IpAddr, Shutdown, SocketAddr, TcpStream, UdpSocket},
    sync::mpsc::{Receiver, Sender, channel},
    thread,
    time::Duration,
};

use crate::{
    args::Args,
    net::{PATIENCE, look_up, system_resolver},
    sys::exit,
    tell::Refusal,
};

/// In: `tcp HOST PORT` or `udp HOST PORT`; the host `resolver` is the name server of this machine.
const OPEN: u8 = 1;
/// Both ways.
const DATA: u8 = 2;
/// Both ways: nothing more comes.
const END: u8 = 3;
/// Out: the connection is there.
const OPENED: u8 = 4;
/// Out: it is not, and why.
const FAILED: u8 = 5;
/// Longest a write may take; whoever does not read is left.
const WRITE: Duration = Duration::from_secs(5);
/// Largest frame that is taken.
const LARGEST: usize = 1 << 20;

/// How connections are made here.
#[derive(Clone)]
struct Way {
    /// A gateway that takes `HOST PORT` and a line break before the rest, for where no boundary is.
    through: Option<SocketAddr>,
    /// The name server to ask in the place of the machine's.
    resolver: Option<SocketAddr>,
}

enum Side {
    Stream(TcpStream),
    Datagrams(UdpSocket),
}

/// Ferries until the input ends. `through=` and `resolver=` are for where no boundary is.
pub(crate) fn ferry(args: &Args) {
    let way = Way {
        through: args.get("through").parse().ok(),
        resolver: args.get("resolver").parse().ok(),
    };
    let mut input = std::io::stdin().lock();
    let mut sides: HashMap<u16, Sender<Vec<u8>>> = HashMap::new();
    while let Some((id, kind, bytes)) = frame(&mut input) {
        match kind {
            OPEN => {
                let (sender, orders) = channel();
                sides.insert(id, sender);
                let way = way.clone();
                thread::spawn(move || serve(id, &String::from_utf8_lossy(&bytes), &way, &orders));
            }
            DATA => {
                let gone = sides.get(&id).is_none_or(|side| side.send(bytes).is_err());
                if gone {
                    sides.remove(&id);
                }
            }
            _ => drop(sides.remove(&id)),
        }
    }
    exit(0);
}

fn frame(input: &mut impl Read) -> Option<(u16, u8, Vec<u8>)> {
    let mut head = [0; 7];
    input.read_exact(&mut head).ok()?;
    let length = u32::from_be_bytes([head[3], head[4], head[5], head[6]]) as usize;
    let mut bytes = vec![0; Some(length).filter(|length| *length <= LARGEST)?];
    input.read_exact(&mut bytes).ok()?;
    Some((u16::from_be_bytes([head[0], head[1]]), head[2], bytes))
}

fn tell(id: u16, kind: u8, bytes: &[u8]) {
    let length = u32::try_from(bytes.len()).unwrap_or(0).to_be_bytes();
    let frame = [&id.to_be_bytes()[..], &[kind], &length, bytes].concat();
    let mut out = std::io::stdout().lock();
    // Whoever drives may be gone; then the input ends as well.
    let _ = out.write_all(&frame);
    let _ = out.flush();
}

/// One connection from its opening to its end.
fn serve(id: u16, place: &str, way: &Way, orders: &Receiver<Vec<u8>>) {
    match open(place, way) {
        Err(refusal) => tell(id, FAILED, refusal.why.as_bytes()),
        Ok(Side::Stream(mut stream)) => {
            tell(id, OPENED, b"");
            if let Ok(reader) = stream.try_clone() {
                thread::spawn(move || pump(id, reader));
            }
            while let Ok(bytes) = orders.recv() {
                if stream.write_all(&bytes).is_err() {
                    break;
                }
            }
            let _ = stream.shutdown(Shutdown::Write);
        }
        Ok(Side::Datagrams(socket)) => {
            tell(id, OPENED, b"");
            if let Ok(reader) = socket.try_clone() {
                thread::spawn(move || {
                    let mut buffer = vec![0; 1 << 16];
                    while let Ok(length) = reader.recv(&mut buffer) {
                        tell(id, DATA, &buffer[..length]);
                    }
                });
            }
            while let Ok(bytes) = orders.recv() {
                if let Err(error) = socket.send(&bytes) {
                    tell(id, FAILED, error.to_string().as_bytes());
                }
            }
        }
    }
}

fn pump(id: u16, mut stream: TcpStream) {
    let mut buffer = vec![0; 1 << 14];
    while let Ok(length) = stream.read(&mut buffer) {
        if length == 0 {
            break;
        }
        tell(id, DATA, &buffer[..length]);
    }
    tell(id, END, b"");
}

fn no(why: String) -> Refusal {
    Refusal { errno: None, why }
}

fn open(place: &str, way: &Way) -> Result<Side, Refusal> {
    let mut words = place.split(' ');
    let [kind, host, port] = [(); 3].map(|()| words.next().unwrap_or_default());
    let number: u16 = port.parse().map_err(|_| no(format!("'{port}' is no port")))?;
    if kind == "udp" {
        let to = SocketAddr::new(address(host, way)?, number);
        let to = way.resolver.filter(|_| host == "resolver").unwrap_or(to);
        let any = if to.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
        let socket = UdpSocket::bind(any)?;
        socket.connect(to)?;
        return Ok(Side::Datagrams(socket));
    }
    let stream = match way.through.filter(|_| host != "resolver") {
        Some(gateway) => {
            let mut stream = TcpStream::connect_timeout(&gateway, PATIENCE)?;
            stream.write_all(format!("{host} {port}\n").as_bytes())?;
            stream
        }
        None => {
            let to = SocketAddr::new(address(host, way)?, number);
            let to = way.resolver.filter(|_| host == "resolver").unwrap_or(to);
            TcpStream::connect_timeout(&to, PATIENCE)?
        }
    };
    stream.set_write_timeout(Some(WRITE))?;
    let _ = stream.set_nodelay(true);
    Ok(Side::Stream(stream))
}

/// Where a host is, as a program inside finds out.
fn address(host: &str, way: &Way) -> Result<IpAddr, Refusal> {
    if let Ok(address) = host.parse() {
        return Ok(address);
    }
    let server = way.resolver.or_else(system_resolver);
    let server = server.ok_or_else(|| no("this machine has no name server".to_owned()))?;
    match host {
        "resolver" => Ok(server.ip()),
        name => look_up(name, server, false).map(IpAddr::V4),
    }
}
