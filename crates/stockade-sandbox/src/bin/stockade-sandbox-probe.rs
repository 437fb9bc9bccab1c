//! Tries things inside a sandbox and says what happened, one line each. For tests only:
//! it needs no interpreter inside, and unlike one it can make any system call.
#![allow(unsafe_code, clippy::print_stdout)]

use std::{
    io::{self, Read, Write},
    net::{SocketAddr, TcpListener, TcpStream, UdpSocket},
    time::Duration,
};

const PATIENCE: Duration = Duration::from_secs(5);

fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let outcome = match args.as_slice() {
        ["tcp", to] => tcp(to),
        ["udp", to, text] => udp(to, text),
        ["own-server", at] => own_server(at),
        ["calls"] => calls(),
        ["harmless-calls"] => harmless_calls(),
        ["foreign-abi"] => foreign_abi(),
        ["keyring", name] => keyring(name),
        ["forks", most] => forks(most),
        ["eat", mebibytes] => eat(mebibytes),
        ["daemon", seconds] => daemon(seconds),
        _ => Err(io::Error::other("unknown probe")),
    };
    match outcome {
        Ok(text) => println!("{text}"),
        Err(e) => println!("error {} {e}", e.raw_os_error().unwrap_or(0)),
    }
}

fn address(text: &str) -> io::Result<SocketAddr> {
    text.parse().map_err(io::Error::other)
}

/// Connects and prints what the other side says.
fn tcp(to: &str) -> io::Result<String> {
    let mut stream = TcpStream::connect_timeout(&address(to)?, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let mut said = String::new();
    stream.read_to_string(&mut said)?;
    Ok(said)
}

/// Sends one datagram and prints the answer.
fn udp(to: &str, text: &str) -> io::Result<String> {
    let to = address(to)?;
    let any = if to.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
    let socket = UdpSocket::bind(any)?;
    socket.set_read_timeout(Some(PATIENCE))?;
    // Connected: the answer must come from the very address the question went to.
    socket.connect(to)?;
    socket.send(text.as_bytes())?;
    let mut answer = [0; 512];
    let n = socket.recv(&mut answer)?;
    Ok(String::from_utf8_lossy(&answer[..n]).into_owned())
}

/// Listens, connects to itself, and passes a word.
fn own_server(at: &str) -> io::Result<String> {
    let listener = TcpListener::bind(address(at)?)?;
    let mut client = TcpStream::connect_timeout(&listener.local_addr()?, PATIENCE)?;
    let (mut server, _) = listener.accept()?;
    server.write_all(b"own server")?;
    drop(server);
    let mut said = String::new();
    client.read_to_string(&mut said)?;
    Ok(said)
}

fn call(nr: libc::c_long, args: [libc::c_long; 6]) -> i32 {
    let [a, b, c, d, e, f] = args;
    // SAFETY: only called with numbers and null pointers; the kernel checks them.
    let result = unsafe { libc::syscall(nr, a, b, c, d, e, f) };
    if result < 0 {
        io::Error::last_os_error().raw_os_error().unwrap_or(-1)
    } else {
        0
    }
}

fn flag(value: i32) -> libc::c_long {
    value.into()
}

fn one(nr: libc::c_long, argument: libc::c_long) -> i32 {
    call(nr, [argument, 0, 0, 0, 0, 0])
}

/// Those of [`calls`] that change nothing outside a sandbox either, where they show
/// what the sandbox refuses.
fn harmless_calls() -> io::Result<String> {
    let mut out = String::new();
    for (name, errno) in [
        ("clone-newuser", clone_and_end(libc::CLONE_NEWUSER)),
        ("clone-plain", clone_and_end(0)),
        ("clone3", one(libc::SYS_clone3, 0)),
        ("keyctl", one(libc::SYS_keyctl, 0)),
        ("io_uring_setup", one(libc::SYS_io_uring_setup, 0)),
        (
            "process_vm_readv",
            one(libc::SYS_process_vm_readv, std::process::id().into()),
        ),
        ("prlimit-own", one(libc::SYS_prlimit64, 0)),
        ("prlimit-guest", one(libc::SYS_prlimit64, 1)),
        ("unshare-newuser", one(libc::SYS_unshare, flag(libc::CLONE_NEWUSER))),
    ] {
        out.push_str(&format!("{name} {errno}\n"));
    }
    Ok(out)
}

/// Makes system calls and prints `name errno`, 0 for success. Only for the inside of a
/// sandbox: some would do harm where they are not refused.
fn calls() -> io::Result<String> {
    if !std::path::Path::new("/run/stockade").exists() {
        return Err(io::Error::other("not inside a sandbox"));
    }
    let plain = [
        ("mount", libc::SYS_mount),
        ("umount2", libc::SYS_umount2),
        ("pivot_root", libc::SYS_pivot_root),
        ("chroot", libc::SYS_chroot),
        ("fsopen", libc::SYS_fsopen),
        ("open_tree", libc::SYS_open_tree),
        ("move_mount", libc::SYS_move_mount),
        ("mount_setattr", 442),
        ("statmount", 457),
        ("setns", libc::SYS_setns),
        ("ptrace", libc::SYS_ptrace),
        ("process_vm_writev", libc::SYS_process_vm_writev),
        ("pidfd_getfd", libc::SYS_pidfd_getfd),
        ("bpf", libc::SYS_bpf),
        ("perf_event_open", libc::SYS_perf_event_open),
        ("userfaultfd", libc::SYS_userfaultfd),
        ("add_key", libc::SYS_add_key),
        ("request_key", libc::SYS_request_key),
        ("kexec_load", libc::SYS_kexec_load),
        ("init_module", libc::SYS_init_module),
        ("reboot", libc::SYS_reboot),
        ("swapon", libc::SYS_swapon),
        ("open_by_handle_at", libc::SYS_open_by_handle_at),
        ("acct", libc::SYS_acct),
        ("settimeofday", libc::SYS_settimeofday),
        ("sethostname", libc::SYS_sethostname),
    ];
    let mut out = String::new();
    let mut say = |name: &str, errno: i32| {
        out.push_str(name);
        out.push_str(&format!(" {errno}\n"));
    };
    for (name, nr) in plain {
        say(name, call(nr, [0; 6]));
    }
    for (name, flags) in [
        ("newnet", libc::CLONE_NEWNET),
        ("newns", libc::CLONE_NEWNS),
        ("newpid", libc::CLONE_NEWPID),
        ("files", libc::CLONE_FILES),
    ] {
        say(&format!("unshare-{name}"), one(libc::SYS_unshare, flag(flags)));
    }
    let socket = |a, b, c| call(libc::SYS_socket, [flag(a), flag(b), flag(c), 0, 0, 0]);
    for (name, family, kind, protocol) in [
        ("unix", libc::AF_UNIX, libc::SOCK_STREAM, 0),
        ("inet", libc::AF_INET, libc::SOCK_STREAM | libc::SOCK_CLOEXEC, 0),
        ("inet6", libc::AF_INET6, libc::SOCK_DGRAM, 0),
        ("route", libc::AF_NETLINK, libc::SOCK_RAW, libc::NETLINK_ROUTE),
        ("netfilter", libc::AF_NETLINK, libc::SOCK_RAW, libc::NETLINK_NETFILTER),
        ("raw", libc::AF_INET, libc::SOCK_RAW, libc::IPPROTO_ICMP),
        (
            "raw6",
            libc::AF_INET6,
            libc::SOCK_RAW | libc::SOCK_NONBLOCK,
            libc::IPPROTO_ICMPV6,
        ),
        ("packet", libc::AF_PACKET, libc::SOCK_DGRAM, 0),
        ("vsock", libc::AF_VSOCK, libc::SOCK_STREAM, 0),
        ("alg", libc::AF_ALG, libc::SOCK_SEQPACKET, 0),
    ] {
        say(&format!("socket-{name}"), socket(family, kind, protocol));
    }
    let ioctl = |request| call(libc::SYS_ioctl, [0, request, 0, 0, 0, 0]);
    say("ioctl-tiocsti", ioctl(0x5412));
    say("ioctl-tioclinux", ioctl(0x541c));
    say("x32-getpid", one(0x4000_0000 | libc::SYS_getpid, 0));
    say("getpid", one(libc::SYS_getpid, 0));
    out.push_str(&harmless_calls()?);
    Ok(out)
}

fn clone_and_end(flags: i32) -> i32 {
    // SAFETY: without CLONE_VM this is fork; the child only calls _exit.
    unsafe {
        let pid = libc::syscall(libc::SYS_clone, flag(flags | libc::SIGCHLD), 0, 0, 0, 0);
        match pid {
            0 => libc::_exit(0),
            pid if pid > 0 => 0,
            _ => io::Error::last_os_error().raw_os_error().unwrap_or(-1),
        }
    }
}

/// `getpid` through the 32-bit gate.
fn foreign_abi() -> io::Result<String> {
    let result: i32;
    // SAFETY: getpid (number 20 there) touches no memory.
    unsafe { std::arch::asm!("int 0x80", inlateout("eax") 20 => result) };
    Ok(format!("survived {result}"))
}

/// Looks for a key in every way there is (keyctl(2)); each way's errno, 0 where it is found.
fn keyring(name: &str) -> io::Result<String> {
    const SEARCH: libc::c_long = 10;
    const KEYRING_ID: libc::c_long = 0;
    let name = std::ffi::CString::new(name)?;
    let (kind, name) = (c"user".as_ptr() as libc::c_long, name.as_ptr() as libc::c_long);
    let (session, user) = (-3, -4);
    let ways = [
        ("session", call(libc::SYS_keyctl, [SEARCH, session, kind, name, 0, 0])),
        ("user", call(libc::SYS_keyctl, [SEARCH, user, kind, name, 0, 0])),
        ("request", call(libc::SYS_request_key, [kind, name, 0, 0, 0, 0])),
        ("id", call(libc::SYS_keyctl, [KEYRING_ID, session, 0, 0, 0, 0])),
        ("add", call(libc::SYS_add_key, [kind, name, kind, 4, session, 0])),
    ];
    Ok(ways.map(|(way, errno)| format!("{way} {errno}")).join("\n"))
}

/// Makes children that wait, until one is refused or there are enough.
fn forks(most: &str) -> io::Result<String> {
    let most: u32 = most.parse().map_err(io::Error::other)?;
    let mut made = 0;
    while made < most {
        // SAFETY: one thread; the child only waits to be killed.
        match unsafe { libc::fork() } {
            0 => loop {
                std::thread::sleep(Duration::from_secs(60));
            },
            pid if pid > 0 => made += 1,
            _ => break,
        }
    }
    Ok(made.to_string())
}

/// Touches memory.
fn eat(mebibytes: &str) -> io::Result<String> {
    let mebibytes: usize = mebibytes.parse().map_err(io::Error::other)?;
    let eaten: Vec<Vec<u8>> = (0..mebibytes).map(|_| vec![1; 1 << 20]).collect();
    Ok(eaten.len().to_string())
}

/// Leaves its parent, session and group twice over and stays.
fn daemon(seconds: &str) -> io::Result<String> {
    let seconds: u64 = seconds.parse().map_err(io::Error::other)?;
    for _ in 0..2 {
        // SAFETY: one thread.
        unsafe {
            if libc::fork() > 0 {
                libc::_exit(0);
            }
            libc::setsid();
        }
    }
    std::thread::sleep(Duration::from_secs(seconds));
    Ok(String::new())
}
