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
/// Bytes of packets that may wait to be looked at.
const ROOM: u32 = 64 << 20;

/// Counts packets that hold any `word=`, until the input ends. Every line of input is answered with the
/// counts so far, and with how many packets it could not look at.
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
    let fd = usize::try_from(socket.as_raw_fd()).unwrap_or(0);
    let option = |level: i32, name: i32, value: &mut [u32], get: Option<&mut u32>| {
        let (level, name, at) = (level as usize, name as usize, value.as_mut_ptr() as usize);
        match get {
            None => try_call(libc::SYS_setsockopt, &[fd, level, name, at, size_of_val(value)]),
            Some(length) => try_call(
                libc::SYS_getsockopt,
                &[fd, level, name, at, std::ptr::from_mut(length) as usize],
            ),
        }
    };
    // Other traffic of the host must not crowd out what is looked for.
    let _ = option(libc::SOL_SOCKET, libc::SO_RCVBUFFORCE, &mut [ROOM], None);
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
    let (mut held, mut lost) = (0_u64, 0_u64);
    let mut buffer = vec![0_u8; 1 << 16];
    while !over.load(Ordering::SeqCst) {
        match try_call(
            libc::SYS_recvfrom,
            &[fd, buffer.as_mut_ptr() as usize, buffer.len(), 0, 0, 0],
        ) {
            Ok(length) => {
                let packet = &buffer[..length.min(buffer.len())];
                held += u64::from(words.iter().any(|word| contains(packet, word)));
            }
            // Everything there is has been read.
            Err(_) if asked.swap(false, Ordering::SeqCst) => {
                // How many came, and how many of them did not fit; reading starts both anew (packet(7)).
                let (mut numbers, mut length) = ([0; 2], 8);
                if option(
                    libc::SOL_PACKET,
                    libc::PACKET_STATISTICS,
                    &mut numbers,
                    Some(&mut length),
                )
                .is_ok()
                {
                    lost += u64::from(numbers[1]);
                }
                count("lost", lost);
                count("held", held);
            }
            Err(_) => thread::sleep(Duration::from_millis(1)),
        }
    }
}
