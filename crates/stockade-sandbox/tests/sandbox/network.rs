//! The boundary: nothing leaves but through its sockets.

use std::{net::SocketAddr, os::fd::OwnedFd, sync::Arc, time::Duration};

use stockade_ports::sandbox::{Boundary, Exit, SandboxHandle};
use tokio::{
    io::AsyncWriteExt,
    net::{TcpListener, UdpSocket},
    sync::mpsc,
    time::timeout,
};

use crate::bed::{Bed, cases, collect, probe, request, sh};
use stockade_sandbox::original_destination;

cases!(
    every_tcp_connection_reaches_the_boundary,
    names_are_asked_at_the_boundary,
    other_datagrams_go_nowhere,
    own_servers_work,
    an_unserved_boundary_is_closed,
    the_boundary_is_unseen,
);

/// Accepts on a listener, says hello, and reports each connection's original destination.
fn serve(fd: OwnedFd, seen: mpsc::UnboundedSender<SocketAddr>) {
    let listener = std::net::TcpListener::from(fd);
    listener.set_nonblocking(true).expect("nonblocking");
    let listener = TcpListener::from_std(listener).expect("listener");
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let local = stream.local_addr().expect("local");
            let _ = seen.send(original_destination(&stream).unwrap_or(local));
            let _ = stream.write_all(b"guarded").await;
        }
    });
}

/// Answers every datagram with what it said, reversed.
fn answer(fd: OwnedFd) {
    let socket = std::net::UdpSocket::from(fd);
    socket.set_nonblocking(true).expect("nonblocking");
    let socket = UdpSocket::from_std(socket).expect("socket");
    tokio::spawn(async move {
        let mut buffer = [0; 512];
        while let Ok((n, from)) = socket.recv_from(&mut buffer).await {
            buffer[..n].reverse();
            let _ = socket.send_to(&buffer[..n], from).await;
        }
    });
}

struct Guarded {
    handle: Arc<dyn SandboxHandle>,
    seen: mpsc::UnboundedReceiver<SocketAddr>,
    ipv6: bool,
}

async fn guarded(bed: &Bed) -> Guarded {
    let (handle, boundary) = bed.create_with_boundary(bed.spec()).await;
    let Boundary { tcp4, tcp6, dns4, dns6 } = boundary;
    let (tx, seen) = mpsc::unbounded_channel();
    let ipv6 = tcp6.is_some();
    serve(tcp4, tx.clone());
    answer(dns4);
    if let (Some(tcp6), Some(dns6)) = (tcp6, dns6) {
        serve(tcp6, tx);
        answer(dns6);
    }
    assert_eq!(ipv6, std::path::Path::new("/proc/net/if_inet6").exists());
    Guarded { handle, seen, ipv6 }
}

impl Guarded {
    async fn next(&mut self) -> SocketAddr {
        timeout(Duration::from_secs(5), self.seen.recv())
            .await
            .expect("soon")
            .expect("a connection")
    }
}

async fn every_tcp_connection_reaches_the_boundary(bed: Bed) {
    let mut guarded = guarded(&bed).await;
    let mut targets = vec![
        "93.184.216.34:443",
        "169.254.169.254:80",
        "10.0.0.1:22",
        "192.168.1.1:65111",
        "8.8.8.8:53",
        "255.255.255.254:1",
        "0.0.0.1:80",
        // Loopback ports nobody listens on.
        "127.0.0.1:6379",
        "127.8.9.10:22",
    ];
    if guarded.ipv6 {
        targets.extend(["[2606:4700::1111]:443", "[fd00:ec2::254]:80", "[::1]:6379"]);
    }
    for target in targets {
        let ran = probe(&*guarded.handle, &["tcp", target]).await;
        assert_eq!(ran.out, "guarded\n", "{target}");
        assert_eq!(guarded.next().await, target.parse().expect("address"), "{target}");
    }
}

async fn names_are_asked_at_the_boundary(bed: Bed) {
    let guarded = guarded(&bed).await;
    let mut servers = vec!["8.8.8.8:53", "198.18.0.1:53", "10.1.2.3:53"];
    if guarded.ipv6 {
        servers.push("[2001:4860:4860::8888]:53");
    }
    for server in servers {
        let ran = probe(&*guarded.handle, &["udp", server, "question"]).await;
        assert_eq!(ran.out, "noitseuq\n", "{server}: {ran:?}");
    }
    let resolver = sh(&*guarded.handle, "cat /etc/resolv.conf").await.ok();
    assert!(resolver.starts_with("nameserver 198.18.0.1\n"));
}

async fn other_datagrams_go_nowhere(bed: Bed) {
    let guarded = guarded(&bed).await;
    let mut targets = vec!["8.8.8.8:443", "169.254.169.254:123", "224.0.0.251:5353"];
    if guarded.ipv6 {
        targets.extend(["[2606:4700::1111]:443", "[ff02::fb]:5353"]);
    }
    for target in targets {
        let ran = probe(&*guarded.handle, &["udp", target, "x"]).await;
        assert!(ran.out.starts_with("error"), "{target}: {ran:?}");
    }
    // Control: the same probe gets an answer where one is given.
    assert_eq!(probe(&*guarded.handle, &["udp", "8.8.8.8:53", "ab"]).await.out, "ba\n");
}

async fn own_servers_work(bed: Bed) {
    let mut guarded = guarded(&bed).await;
    let mut places = vec!["127.0.0.1:0", "127.0.0.1:8080", "127.3.2.1:8081"];
    if guarded.ipv6 {
        places.push("[::1]:0");
    }
    for at in places {
        assert_eq!(
            probe(&*guarded.handle, &["own-server", at]).await.out,
            "own server\n",
            "{at}"
        );
    }
    assert!(guarded.seen.try_recv().is_err(), "none of them passed the boundary");
    // Nobody can sit on the boundary's own port.
    let ran = probe(&*guarded.handle, &["own-server", "0.0.0.0:65111"]).await;
    assert!(ran.out.starts_with("error 98"), "{ran:?}");
    assert_eq!(
        probe(&*guarded.handle, &["tcp", "127.0.0.1:65111"]).await.out,
        "guarded\n"
    );
    assert!(guarded.next().await.ip().is_loopback());
}

async fn an_unserved_boundary_is_closed(bed: Bed) {
    let (handle, boundary) = bed.create_with_boundary(bed.spec()).await;
    let target = "93.184.216.34:80";
    // Accepted by nobody: the connection says nothing and goes nowhere. The probe gives up after
    // 5 seconds; gVisor before 2023 does not know time limits on the host's sockets, so there it
    // waits until it is ended.
    let mut patient = request(&["/opt/agents/probe", "tcp", target]);
    patient.timeout = Some(Duration::from_secs(8));
    let ran = collect(handle.exec(patient).await.expect("starts")).await;
    if bed.mode.shares_the_kernel() {
        assert_eq!(
            (ran.out.as_str(), ran.exit),
            (
                "error 11 Resource temporarily unavailable (os error 11)\n",
                Exit::Code(0)
            )
        );
    } else {
        assert_eq!((ran.out.as_str(), ran.exit), ("", Exit::TimedOut));
    }
    // It still stands at the boundary, where it would have been judged.
    let listener = std::net::TcpListener::from(boundary.tcp4.try_clone().expect("dup"));
    listener.set_nonblocking(true).expect("nonblocking");
    let (waiting, _) = listener.accept().expect("a connection nobody has taken");
    assert_eq!(
        waiting.local_addr().expect("local").port(),
        listener.local_addr().expect("local").port()
    );
    drop((listener, boundary));
    let ran = probe(&*handle, &["tcp", target]).await;
    assert!(ran.out.starts_with("error 111 "), "refused: {ran:?}");
}

async fn the_boundary_is_unseen(bed: Bed) {
    let handle = bed.create().await;
    let interfaces = sh(&*handle, "tail -n +3 /proc/net/dev | cut -d: -f1 | tr -d ' '")
        .await
        .ok();
    assert_eq!(interfaces, "lo\n", "no network card");
    // Of the Guest and its keepers gVisor shows the numbers of their sockets, which nobody can open.
    let own =
        "for p in /proc/[0-9]*; do case $(cat $p/comm) in stockade-*) ;; *) find $p/fd -printf '%l ';; esac; done";
    let open = sh(&*handle, &format!("{own} 2>/dev/null; true")).await.ok();
    assert!(open.contains("pipe:") && !open.contains("socket:"), "{open}");
}
