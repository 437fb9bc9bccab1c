//! What a sandbox on gVisor needs beside the rest.

/// Calls that send a signal to the process of their first argument, by number.
const SIGNALS: [libc::c_long; 5] = [
    libc::SYS_kill,
    libc::SYS_tkill,
    libc::SYS_tgkill,
    libc::SYS_rt_sigqueueinfo,
    libc::SYS_rt_tgsigqueueinfo,
];
/// The Guest's number.
const GUEST: u32 = 1;
/// Where `seccomp_data` has the number of the call and the low half of its first argument.
const NUMBER: u32 = 0;
const FIRST_ARGUMENT: u32 = 16;

/// A system call filter, in the form of [`crate::filter::words`]: nobody signals the Guest.
///
/// Linux ignores signals to the first process of a pid namespace that come from inside. gVisor
/// does not, and an agent could end its own sandbox by accident.
pub(super) fn untouchable_guest() -> Vec<u64> {
    let load = |offset| word(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0, offset);
    let equal = libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K;
    let verdict = |action| word(libc::BPF_RET | libc::BPF_K, 0, 0, action);
    let mut program = vec![load(NUMBER)];
    // Each test leads past the tests after it and the verdict that follows the last.
    for (left, number) in (1..)
        .zip(SIGNALS.into_iter().rev())
        .collect::<Vec<_>>()
        .into_iter()
        .rev()
    {
        program.push(word(equal, left, 0, u32::try_from(number).unwrap_or(u32::MAX)));
    }
    program.push(verdict(libc::SECCOMP_RET_ALLOW));
    program.push(load(FIRST_ARGUMENT));
    program.push(word(equal, 1, 0, GUEST));
    program.push(verdict(libc::SECCOMP_RET_ALLOW));
    program.push(verdict(libc::SECCOMP_RET_ERRNO | libc::EPERM.unsigned_abs()));
    program
}

fn word(code: u32, yes: u8, no: u8, k: u32) -> u64 {
    u64::from(code) << 48 | u64::from(yes) << 40 | u64::from(no) << 32 | u64::from(k)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_program_is_what_the_kernel_reads() {
        // As `bpf_asm -c` prints it: { code, jt, jf, k }.
        assert_eq!(
            untouchable_guest(),
            [
                0x0020_0000_0000_0000,
                0x0015_0500_0000_003e,
                0x0015_0400_0000_00c8,
                0x0015_0300_0000_00ea,
                0x0015_0200_0000_0081,
                0x0015_0100_0000_0129,
                0x0006_0000_7fff_0000,
                0x0020_0000_0000_0010,
                0x0015_0100_0000_0001,
                0x0006_0000_7fff_0000,
                0x0006_0000_0005_0001,
            ]
        );
    }
}
