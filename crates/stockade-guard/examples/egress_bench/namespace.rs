//! A network namespace as a sandbox has it: loopback only, everything redirected to the Guard.

use std::{
    fs::File,
    io::Write as _,
    net::{TcpListener, UdpSocket},
    os::fd::{AsRawFd as _, OwnedFd},
    process::{Command, Stdio},
    thread,
};

use stockade_ports::Boundary;

/// Makes one, with the Guard's sockets in it; its path stays good as long as this process lives.
pub(crate) fn boundary() -> (String, Boundary) {
    let made = thread::spawn(|| {
        // SAFETY: changes the network namespace of this thread alone.
        let done = unsafe { libc::unshare(libc::CLONE_NEWNET) };
        assert_eq!(done, 0, "a network namespace: {}", std::io::Error::last_os_error());
        run("ip", &["link", "set", "lo", "up"]);
        run("ip", &["route", "add", "local", "default", "dev", "lo"]);
        let tcp4 = TcpListener::bind("0.0.0.0:0").expect("a socket");
        let dns4 = UdpSocket::bind("0.0.0.0:0").expect("a socket");
        let tcp = tcp4.local_addr().expect("an address").port();
        let udp = dns4.local_addr().expect("an address").port();
        nft(&format!(
            "add table ip bench\n\
             add chain ip bench out {{ type nat hook output priority -100; }}\n\
             add rule ip bench out ip protocol tcp redirect to :{tcp}\n\
             add rule ip bench out udp dport 53 redirect to :{udp}\n"
        ));
        let namespace = File::open("/proc/thread-self/ns/net").expect("a namespace");
        let boundary = Boundary {
            tcp4: OwnedFd::from(tcp4),
            tcp6: None,
            dns4: OwnedFd::from(dns4),
            dns6: None,
        };
        (namespace, boundary)
    });
    let (namespace, boundary) = made.join().expect("it is made");
    let path = format!("/proc/{}/fd/{}", std::process::id(), namespace.as_raw_fd());
    std::mem::forget(namespace);
    (path, boundary)
}

/// Brings the calling thread into a namespace.
pub(crate) fn enter(path: &str) {
    let namespace = File::open(path).expect("a namespace");
    // SAFETY: changes the network namespace of this thread alone.
    let done = unsafe { libc::setns(namespace.as_raw_fd(), libc::CLONE_NEWNET) };
    assert_eq!(done, 0, "entering: {}", std::io::Error::last_os_error());
}

fn run(program: &str, arguments: &[&str]) {
    let status = Command::new(program).args(arguments).status();
    assert!(
        status.is_ok_and(|status| status.success()),
        "{program} {arguments:?} failed"
    );
}

fn nft(rules: &str) {
    let mut child = Command::new("nft")
        .args(["-f", "-"])
        .stdin(Stdio::piped())
        .spawn()
        .expect("nft starts");
    child
        .stdin
        .take()
        .expect("an input")
        .write_all(rules.as_bytes())
        .expect("it reads");
    assert!(
        child.wait().is_ok_and(|status| status.success()),
        "nft refused the rules"
    );
}
