use super::*;

const I386: u32 = 0x4000_0003;

fn errno(action: u32) -> Option<i32> {
    (action & 0xffff_0000 == libc::SECCOMP_RET_ERRNO).then(|| (action & 0xffff).cast_signed())
}

fn says(number: i64, arguments: &[i32]) -> u32 {
    let filters = compile().expect("compiles");
    let mut all = [0; 6];
    for (to, from) in all.iter_mut().zip(arguments) {
        // What a caller leaves in the upper half must not matter.
        *to = u64::from(from.cast_unsigned()) | 0xdead_0000_0000_0000;
    }
    let number = u32::try_from(number).expect("a number");
    bpf::run(&filters.0[0], number, X86_64, all)
}

#[track_caller]
fn allowed(number: i64, arguments: &[i32]) {
    assert_eq!(
        says(number, arguments),
        libc::SECCOMP_RET_ALLOW,
        "{number} {arguments:?}"
    );
}

#[track_caller]
fn refused(number: i64, arguments: &[i32], with: i32) {
    assert_eq!(errno(says(number, arguments)), Some(with), "{number} {arguments:?}");
}

#[test]
fn every_number_is_treated_as_the_table_says() {
    let rules = table::rules();
    for number in 0..1200 {
        let action = says(number.into(), &[libc::AF_UNIX]);
        let known = number <= HIGHEST && !GAP.contains(&number);
        match rules.get(&number) {
            _ if !known => assert_eq!(errno(action), Some(libc::ENOSYS), "{number}"),
            None => assert_eq!(action, libc::SECCOMP_RET_ALLOW, "{number}"),
            Some(Rule::Refuse(with)) => assert_eq!(errno(action), Some(*with), "{number}"),
            // With these arguments each of them but personality is harmless.
            Some(Rule::Look(Checked::Personality | Checked::ProcessLimit | Checked::OwnLimit)) => {}
            Some(Rule::Look(_)) => assert_eq!(action, libc::SECCOMP_RET_ALLOW, "{number}"),
        }
    }
    for strange in [0x4000_0000, 0x4000_0000 | libc::SYS_getpid, 0x7fff_ffff, 0xffff_ffff] {
        refused(strange, &[], libc::ENOSYS);
    }
}

#[test]
fn a_foreign_architecture_ends_the_process() {
    let filters = compile().expect("compiles");
    let action = bpf::run(&filters.0[0], 20, I386, [0; 6]);
    assert_eq!(action, libc::SECCOMP_RET_KILL_PROCESS);
}

#[test]
fn a_lookup_is_short_and_the_program_small() {
    let filters = compile().expect("compiles");
    assert!(filters.0[0].len() < 512, "{}", filters.0[0].len());
    let runs = runs().len();
    assert!(runs <= 256, "{runs}: more than eight comparisons");
}

#[test]
fn namespaces_are_not_made_and_threads_are() {
    let thread = libc::CLONE_VM | libc::CLONE_THREAD | libc::CLONE_SIGHAND | libc::CLONE_FS;
    allowed(libc::SYS_clone, &[thread]);
    allowed(libc::SYS_clone, &[libc::SIGCHLD]);
    // The signal's bits are those of CLONE_NEWTIME.
    allowed(libc::SYS_clone, &[0x80]);
    allowed(libc::SYS_unshare, &[libc::CLONE_FILES]);
    for flag in 0..32 {
        let flag = (1u32 << flag).cast_signed();
        if NAMESPACES & flag != 0 {
            refused(libc::SYS_clone, &[flag | thread], libc::EPERM);
            refused(libc::SYS_unshare, &[flag | libc::CLONE_FS], libc::EPERM);
        }
    }
    refused(libc::SYS_unshare, &[CLONE_NEWTIME], libc::EPERM);
}

#[test]
fn only_useful_sockets_are_made() {
    let flags = libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK;
    for family in [libc::AF_INET, libc::AF_INET6] {
        for (kind, protocol) in [
            (libc::SOCK_STREAM, 0),
            (libc::SOCK_STREAM | flags, libc::IPPROTO_TCP),
            (libc::SOCK_DGRAM, 0),
            (libc::SOCK_DGRAM | flags, libc::IPPROTO_UDP),
            (libc::SOCK_DGRAM, libc::IPPROTO_ICMP),
        ] {
            allowed(libc::SYS_socket, &[family, kind, protocol]);
        }
        for (kind, protocol, with) in [
            (libc::SOCK_RAW, libc::IPPROTO_ICMP, libc::EPERM),
            (libc::SOCK_RAW | flags, 255, libc::EPERM),
            (libc::SOCK_STREAM, 132, libc::EPROTONOSUPPORT),
            (libc::SOCK_STREAM, 262, libc::EPROTONOSUPPORT),
            (libc::SOCK_DGRAM, libc::IPPROTO_TCP, libc::EPROTONOSUPPORT),
            (libc::SOCK_SEQPACKET, 0, libc::ESOCKTNOSUPPORT),
            (6, 0, libc::ESOCKTNOSUPPORT),
            (10, 0, libc::ESOCKTNOSUPPORT),
        ] {
            refused(libc::SYS_socket, &[family, kind, protocol], with);
        }
    }
    allowed(libc::SYS_socket, &[libc::AF_UNIX, libc::SOCK_SEQPACKET, 0]);
    allowed(
        libc::SYS_socket,
        &[libc::AF_NETLINK, libc::SOCK_RAW, libc::NETLINK_ROUTE],
    );
    for protocol in 1..32 {
        let netlink = [libc::AF_NETLINK, libc::SOCK_RAW, protocol];
        refused(libc::SYS_socket, &netlink, libc::EPROTONOSUPPORT);
    }
    for family in 0..64 {
        let useful = [libc::AF_UNIX, libc::AF_INET, libc::AF_INET6, libc::AF_NETLINK].contains(&family);
        if !useful {
            refused(libc::SYS_socket, &[family, libc::SOCK_STREAM, 0], libc::EAFNOSUPPORT);
        }
        if family != libc::AF_UNIX {
            refused(libc::SYS_socketpair, &[family], libc::EAFNOSUPPORT);
        }
    }
}

#[test]
fn some_forms_of_useful_calls_are_refused() {
    for request in [0x5412, 0x541c, 0x5423] {
        refused(libc::SYS_ioctl, &[0, request], libc::EPERM);
    }
    allowed(libc::SYS_ioctl, &[0, 0x5401]);
    for personality in [0, 0x0004_0000, -1] {
        allowed(libc::SYS_personality, &[personality]);
    }
    refused(libc::SYS_personality, &[8], libc::EPERM);
    refused(libc::SYS_prlimit64, &[1], libc::EPERM);
    allowed(libc::SYS_prlimit64, &[0]);
    allowed(libc::SYS_prlimit64, &[77]);
    refused(
        libc::SYS_setsockopt,
        &[3, libc::IPPROTO_TCP, TCP_ULP],
        libc::ENOPROTOOPT,
    );
    allowed(libc::SYS_setsockopt, &[3, libc::IPPROTO_TCP, libc::TCP_NODELAY]);
    allowed(libc::SYS_setsockopt, &[3, libc::SOL_SOCKET, TCP_ULP]);
}

#[test]
fn what_runtimes_need_is_let_through() {
    for number in [
        libc::SYS_futex,
        libc::SYS_rseq,
        libc::SYS_membarrier,
        libc::SYS_memfd_create,
        libc::SYS_pidfd_open,
        libc::SYS_landlock_create_ruleset,
        libc::SYS_seccomp,
        libc::SYS_statx,
        libc::SYS_openat2,
        libc::SYS_copy_file_range,
        libc::SYS_inotify_init1,
        libc::SYS_close_range,
        libc::SYS_sched_setaffinity,
    ] {
        allowed(number, &[]);
    }
}

/// A filter the kernel does not take is no filter.
#[test]
fn the_kernel_takes_it_and_acts_on_it() {
    let filters = compile().expect("compiles");
    // Only this thread, which ends with the test, is confined.
    let thread = std::thread::spawn(move || {
        // SAFETY: an option that takes integers.
        assert_eq!(unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) }, 0);
        install(&filters).expect("installs");
        // SAFETY: impossible arguments; the kernel writes nothing.
        let refused = unsafe { libc::syscall(libc::SYS_keyctl, -1, 0, 0, 0, 0) };
        (refused, io::Error::last_os_error().raw_os_error())
    });
    assert_eq!(thread.join().expect("lives"), (-1, Some(libc::EPERM)));
}

#[test]
fn nobody_changes_the_limit_on_core_dumps_and_everybody_may_ask_for_it() {
    let core = libc::RLIMIT_CORE.cast_signed();
    let files = libc::RLIMIT_NOFILE.cast_signed();
    refused(libc::SYS_setrlimit, &[core], 0);
    allowed(libc::SYS_setrlimit, &[files]);
    let prlimit = |resource: u32, new: u64| {
        let filters = compile().expect("compiles");
        let arguments = [0, u64::from(resource), new, 0, 0, 0];
        let number = u32::try_from(libc::SYS_prlimit64).expect("a number");
        bpf::run(&filters.0[0], number, X86_64, arguments)
    };
    assert_eq!(prlimit(libc::RLIMIT_CORE, 0), libc::SECCOMP_RET_ALLOW, "asking");
    for place in [0x7fff_0000_1000, 0x7f00_0000_0000] {
        assert_eq!(errno(prlimit(libc::RLIMIT_CORE, place)), Some(0), "{place:x}");
        assert_eq!(prlimit(libc::RLIMIT_NOFILE, place), libc::SECCOMP_RET_ALLOW);
    }
}
