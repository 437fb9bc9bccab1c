//! The kernel by its other doors: system calls under other numbers.
#![allow(unsafe_code)]

use crate::{
    args::Args,
    sys::{in_child, try_call},
    tell::{Outcome, attempt},
};

/// `getpid` by the 32-bit gate: the registers are the same, the table is another one.
#[cfg(target_arch = "x86_64")]
fn int80(number: u32) -> i32 {
    let result: i64;
    // SAFETY: getpid takes no arguments and touches no memory; the gate keeps the registers it
    // does not document, and those it may change (r8 to r11) are named.
    unsafe {
        std::arch::asm!(
            "int 0x80",
            inlateout("rax") i64::from(number) => result,
            out("r8") _, out("r9") _, out("r10") _, out("r11") _,
            options(nostack),
        );
    }
    result as i32
}

/// The 32-bit gate alone, for the score.
pub(crate) fn gate() {
    #[cfg(target_arch = "x86_64")]
    attempt("int80", in_child(|| answered(i64::from(int80(20)))));
    #[cfg(not(target_arch = "x86_64"))]
    attempt("int80", Err(libc::ENOSYS.into()));
}

fn answered(answer: i64) -> Outcome {
    if answer > 0 {
        Ok(format!("the kernel answered {answer}"))
    } else {
        Err(i32::try_from(-answer).unwrap_or(0).into())
    }
}

/// Asks for its process id by the 32-bit gate and under the number of the x32 ABI.
pub(crate) fn abis(_: &Args) {
    gate();
    let x32 = 0x4000_0000 | libc::SYS_getpid;
    attempt(
        "x32",
        in_child(|| match try_call(x32, &[]) {
            Ok(answer) => answered(i64::try_from(answer).unwrap_or(0)),
            Err(errno) => Err(errno.into()),
        }),
    );
}
