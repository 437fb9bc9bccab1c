//! System call filters every process of a sandbox lives under, the Guest included.
//!
//! Three classic BPF programs: numbers of the x32 ABI, calls that do not exist here
//! (so that libc and runtimes fall back), and calls that are refused. A foreign
//! architecture (`int 0x80`) ends the process.

use std::collections::BTreeMap;

use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen::Dword, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule,
    TargetArch, sock_filter,
};

use crate::failure::{Failure, Step};

type Rules = BTreeMap<i64, Vec<SeccompRule>>;

/// Calls newer than the libc crate's table; generic numbers, the same on every architecture.
const SYS_MOUNT_SETATTR: i64 = 442;
const SYS_QUOTACTL_FD: i64 = 443;
const SYS_PROCESS_MRELEASE: i64 = 448;
const SYS_STATMOUNT: i64 = 457;
const SYS_LISTMOUNT: i64 = 458;
const SYS_OPEN_TREE_ATTR: i64 = 467;
const SYS_LISTNS: i64 = 470;

/// Answered with ENOSYS: a runtime that asks then takes its older path.
const ABSENT: &[i64] = &[
    libc::SYS_clone3,
    libc::SYS_io_uring_setup,
    libc::SYS_io_uring_enter,
    libc::SYS_io_uring_register,
    libc::SYS_userfaultfd,
    libc::SYS_fsopen,
    libc::SYS_fsconfig,
    libc::SYS_fsmount,
    libc::SYS_fspick,
    libc::SYS_open_tree,
    libc::SYS_move_mount,
    SYS_MOUNT_SETATTR,
    SYS_OPEN_TREE_ATTR,
    SYS_STATMOUNT,
    SYS_LISTMOUNT,
    SYS_LISTNS,
    SYS_QUOTACTL_FD,
    SYS_PROCESS_MRELEASE,
    libc::SYS_pidfd_getfd,
];

/// Answered with EPERM whatever the arguments.
const REFUSED: &[i64] = &[
    // mounts and roots
    libc::SYS_mount,
    libc::SYS_umount2,
    libc::SYS_pivot_root,
    libc::SYS_chroot,
    libc::SYS_swapon,
    libc::SYS_swapoff,
    libc::SYS_open_by_handle_at,
    libc::SYS_quotactl,
    libc::SYS_fanotify_init,
    // other namespaces and other processes' memory
    libc::SYS_setns,
    libc::SYS_ptrace,
    libc::SYS_process_vm_readv,
    libc::SYS_process_vm_writev,
    libc::SYS_process_madvise,
    libc::SYS_kcmp,
    // the kernel itself
    libc::SYS_bpf,
    libc::SYS_perf_event_open,
    libc::SYS_kexec_load,
    libc::SYS_kexec_file_load,
    libc::SYS_init_module,
    libc::SYS_finit_module,
    libc::SYS_delete_module,
    libc::SYS_reboot,
    libc::SYS_syslog,
    libc::SYS_acct,
    libc::SYS_iopl,
    libc::SYS_ioperm,
    libc::SYS_modify_ldt,
    libc::SYS_vhangup,
    libc::SYS_lookup_dcookie,
    libc::SYS_nfsservctl,
    libc::SYS_uselib,
    libc::SYS_sysfs,
    // kernel keyrings are not namespaced
    libc::SYS_add_key,
    libc::SYS_request_key,
    libc::SYS_keyctl,
    // names and clocks
    libc::SYS_sethostname,
    libc::SYS_setdomainname,
    libc::SYS_settimeofday,
    libc::SYS_clock_settime,
    libc::SYS_clock_adjtime,
    libc::SYS_adjtimex,
    // memory placement: needs no privilege but reaches other processes
    libc::SYS_move_pages,
    libc::SYS_migrate_pages,
];

/// Flags of clone and unshare that would make a new namespace. New user namespaces
/// would give a process a full set of capabilities inside them.
const NAMESPACES: &[i32] = &[
    libc::CLONE_NEWNS,
    libc::CLONE_NEWCGROUP,
    libc::CLONE_NEWUTS,
    libc::CLONE_NEWIPC,
    libc::CLONE_NEWUSER,
    libc::CLONE_NEWPID,
    libc::CLONE_NEWNET,
];
/// Only unshare knows it by flag; in clone the same bit belongs to the exit signal.
const CLONE_NEWTIME: i32 = 0x80;

/// Address families a program may use; everything else (packet, vsock, alg …) either
/// leaves the network namespace or is kernel surface nobody here needs.
const FAMILIES: [i32; 4] = [libc::AF_UNIX, libc::AF_INET, libc::AF_INET6, libc::AF_NETLINK];
const SOCKET_TYPE_MASK: u64 = 0xf;
const SOCK_PACKET: i32 = 10;
const TIOCLINUX: u64 = 0x541c;
/// Personalities programs really ask for: Linux, without address randomisation, and the query.
const PERSONALITIES: [u64; 3] = [0, 0x0004_0000, 0xffff_ffff];

const X32_BIT: u32 = 0x4000_0000;

/// The compiled filters, in the order they are to be installed.
pub(super) struct Filters(Vec<BpfProgram>);

/// Compiles the filters. Needs no privilege.
pub(super) fn compile() -> Result<Filters, Failure> {
    let absent = ABSENT.iter().map(|nr| (*nr, Vec::new())).collect();
    let mut refused: Rules = REFUSED.iter().map(|nr| (*nr, Vec::new())).collect();
    let step = "compile the system call filter";
    arguments(&mut refused).step(step)?;
    Ok(Filters(vec![
        no_x32(),
        program(absent, libc::ENOSYS).step(step)?,
        program(refused, libc::EPERM).step(step)?,
    ]))
}

/// Installs the filters for good. `no_new_privs` must be set already.
pub(super) fn install(filters: &Filters) -> Result<(), Failure> {
    for program in &filters.0 {
        seccompiler::apply_filter(program).step("install the system call filter")?;
    }
    Ok(())
}

fn program(rules: Rules, errno: i32) -> Result<BpfProgram, seccompiler::Error> {
    let refuse = SeccompAction::Errno(errno.unsigned_abs());
    let filter = SeccompFilter::new(rules, SeccompAction::Allow, refuse, TargetArch::x86_64)?;
    Ok(BpfProgram::try_from(filter)?)
}

fn when(argument: u8, op: SeccompCmpOp, value: u64) -> Result<SeccompCondition, seccompiler::Error> {
    Ok(SeccompCondition::new(argument, Dword, op, value)?)
}

fn bits(value: i32) -> u64 {
    u64::from(value.unsigned_abs())
}

/// Calls that are refused for some arguments only.
fn arguments(rules: &mut Rules) -> Result<(), seccompiler::Error> {
    use SeccompCmpOp::{Eq, MaskedEq, Ne};
    let has = |argument, flag| when(argument, MaskedEq(flag), flag);
    let is_type = |kind: i32| when(1, MaskedEq(SOCKET_TYPE_MASK), bits(kind));
    let any_of = |conditions: Vec<Vec<SeccompCondition>>| {
        let rules = conditions.into_iter().map(SeccompRule::new);
        rules.collect::<Result<Vec<_>, _>>()
    };

    let namespaces = || NAMESPACES.iter().map(|flag| Ok(vec![has(0, bits(*flag))?]));
    let in_clone = namespaces().collect::<Result<Vec<_>, seccompiler::Error>>()?;
    let mut in_unshare = in_clone.clone();
    in_unshare.push(vec![has(0, bits(CLONE_NEWTIME))?]);
    rules.insert(libc::SYS_clone, any_of(in_clone)?);
    rules.insert(libc::SYS_unshare, any_of(in_unshare)?);

    let mut strange = Vec::new();
    for family in FAMILIES {
        strange.push(when(0, Ne, bits(family))?);
    }
    let netlink_other_than_route = vec![
        when(0, Eq, bits(libc::AF_NETLINK))?,
        when(2, Ne, bits(libc::NETLINK_ROUTE))?,
    ];
    let sockets = vec![
        strange.clone(),
        netlink_other_than_route,
        vec![when(0, Eq, bits(libc::AF_INET))?, is_type(libc::SOCK_RAW)?],
        vec![when(0, Eq, bits(libc::AF_INET6))?, is_type(libc::SOCK_RAW)?],
        vec![is_type(SOCK_PACKET)?],
    ];
    rules.insert(libc::SYS_socket, any_of(sockets)?);
    rules.insert(libc::SYS_socketpair, any_of(vec![strange])?);

    let ioctls = vec![vec![when(1, Eq, libc::TIOCSTI)?], vec![when(1, Eq, TIOCLINUX)?]];
    rules.insert(libc::SYS_ioctl, any_of(ioctls)?);
    let mut odd = Vec::new();
    for personality in PERSONALITIES {
        odd.push(when(0, Ne, personality)?);
    }
    rules.insert(libc::SYS_personality, any_of(vec![odd])?);
    // The Guest's own limits are not the agent's to lower.
    let guest = any_of(vec![vec![when(0, Eq, 1)?]])?;
    rules.insert(libc::SYS_prlimit64, guest);
    Ok(())
}

/// Refuses system call numbers with the x32 bit: they reach the same kernel code under
/// numbers the other filters do not know.
fn no_x32() -> BpfProgram {
    let statement = |code, k| sock_filter { code, jt: 0, jf: 0, k };
    let load = u16::try_from(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS).unwrap_or(0);
    let at_least = u16::try_from(libc::BPF_JMP | libc::BPF_JGE | libc::BPF_K).unwrap_or(0);
    let ret = u16::try_from(libc::BPF_RET | libc::BPF_K).unwrap_or(0);
    vec![
        // seccomp_data.nr is at offset 0.
        statement(load, 0),
        sock_filter {
            code: at_least,
            jt: 0,
            jf: 1,
            k: X32_BIT,
        },
        statement(ret, libc::SECCOMP_RET_ERRNO | libc::ENOSYS.unsigned_abs()),
        statement(ret, libc::SECCOMP_RET_ALLOW),
    ]
}
