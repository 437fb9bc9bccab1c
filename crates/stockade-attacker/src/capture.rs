//! A packet capture: what crosses any interface of this network namespace (packet(7)).

use std::{
    io::BufRead as _,
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

/// Counts packets that hold any `word=`, until the input ends. Every line of input is answered with the counts so far.
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
    let asked = Arc::new(AtomicBool::new(false));
    let (ended, wanted) = (Arc::clone(&over), Arc::clone(&asked));
    thread::spawn(move || {
        for _ in std::io::stdin().lock().lines().map_while(Result::ok) {
            wanted.store(true, Ordering::SeqCst);
        }
        ended.store(true, Ordering::SeqCst);
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
            // Everything there is has been read.
            Err(_) if asked.swap(false, Ordering::SeqCst) => {
                count("packets", all);
                count("held", held);
            }
            Err(_) => thread::sleep(Duration::from_millis(1)),
        }
    }
}
