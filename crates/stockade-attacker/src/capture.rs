//! A packet capture: what crosses any interface of this network namespace (packet(7)).

use std::{
    io::Read as _,
    os::fd::AsRawFd as _,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

use crate::{
    args::Args,
    sys::{contains, owned, try_call},
    tell::{attempt, count, ready},
};

/// All protocols, in network order (`ETH_P_ALL`).
const ALL: u16 = 3;
/// How long packets under way are waited for at the end.
const REST: Duration = Duration::from_millis(60);

/// Counts packets that hold any `word=`, until the input ends.
pub(crate) fn capture(args: &Args) {
    let words: Vec<Vec<u8>> = args.all("word").map(|word| word.as_bytes().to_vec()).collect();
    let flags = (libc::SOCK_DGRAM | libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK) as usize;
    let opened = try_call(
        libc::SYS_socket,
        &[libc::AF_PACKET as usize, flags, usize::from(ALL.to_be())],
    );
    let socket = match opened {
        Ok(fd) => owned(fd),
        Err(errno) => return attempt("capture", Err(errno.into())),
    };
    attempt("capture", Ok("it sees every packet".to_owned()));
    ready();
    let over = Arc::new(AtomicBool::new(false));
    let told = Arc::clone(&over);
    thread::spawn(move || {
        let mut rest = Vec::new();
        let _ = std::io::stdin().lock().read_to_end(&mut rest);
        thread::sleep(REST);
        told.store(true, Ordering::SeqCst);
    });
    let (mut all, mut held) = (0_u64, 0_u64);
    let mut buffer = vec![0_u8; 1 << 16];
    let fd = usize::try_from(socket.as_raw_fd()).unwrap_or(0);
    while !over.load(Ordering::SeqCst) {
        match try_call(
            libc::SYS_recvfrom,
            &[fd, buffer.as_mut_ptr() as usize, buffer.len(), 0, 0, 0],
        ) {
            Ok(length) => {
                all += 1;
                let packet = &buffer[..length.min(buffer.len())];
                held += u64::from(words.iter().any(|word| contains(packet, word)));
            }
            Err(_) => thread::sleep(Duration::from_millis(1)),
        }
    }
    count("packets", all);
    count("held", held);
}
