//! Classic BPF (kernel: networking/filter.rst) as far as system call filters need it.

/// One instruction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Instruction {
    pub(super) code: u16,
    pub(super) jt: u8,
    pub(super) jf: u8,
    pub(super) k: u32,
}

/// BPF_LD | BPF_W | BPF_ABS: load a word of the data.
pub(super) const LOAD: u16 = 0x20;
/// BPF_ALU | BPF_AND | BPF_K
pub(super) const AND: u16 = 0x54;
/// BPF_JMP | BPF_JA
pub(super) const JUMP: u16 = 0x05;
/// BPF_JMP | BPF_JEQ | BPF_K
pub(super) const JUMP_EQUAL: u16 = 0x15;
/// BPF_JMP | BPF_JGE | BPF_K
pub(super) const JUMP_AT_LEAST: u16 = 0x35;
/// BPF_JMP | BPF_JSET | BPF_K
pub(super) const JUMP_ANY_BIT: u16 = 0x45;
/// BPF_RET | BPF_K
pub(super) const RETURN: u16 = 0x06;

/// Offsets in `struct seccomp_data` (seccomp(2)).
pub(super) const NUMBER: u32 = 0;
pub(super) const ARCHITECTURE: u32 = 4;

/// Where the lower half of an argument is. The kernel looks at no more of the numbers we check.
pub(super) const fn argument(n: u32) -> u32 {
    16 + 8 * n
}

/// Where the upper half of an argument is, which matters where all of it does: for pointers.
pub(super) const fn upper_half(n: u32) -> u32 {
    argument(n) + 4
}

impl Instruction {
    pub(super) const fn new(code: u16, k: u32) -> Self {
        Self { code, jt: 0, jf: 0, k }
    }

    /// For transport: `code << 48 | jt << 40 | jf << 32 | k`.
    pub(super) fn word(self) -> u64 {
        let [c1, c0] = self.code.to_be_bytes();
        let [k3, k2, k1, k0] = self.k.to_be_bytes();
        u64::from_be_bytes([c1, c0, self.jt, self.jf, k3, k2, k1, k0])
    }
}

/// A piece of program that ends in a verdict on every way through it.
pub(super) type Piece = Vec<Instruction>;

/// The verdict itself.
pub(super) fn verdict(action: u32) -> Piece {
    vec![Instruction::new(RETURN, action)]
}

/// Loads a word, then goes on.
pub(super) fn load(offset: u32, then: Piece) -> Piece {
    chain(Instruction::new(LOAD, offset), then)
}

/// Masks what was loaded, then goes on.
pub(super) fn masked(mask: u32, then: Piece) -> Piece {
    chain(Instruction::new(AND, mask), then)
}

fn chain(first: Instruction, rest: Piece) -> Piece {
    let mut piece = vec![first];
    piece.extend(rest);
    piece
}

/// One way if the test holds, the other if not. Jumps only reach 255 instructions far; a
/// longer piece is passed by with a jump of its own.
pub(super) fn branch(test: u16, k: u32, yes: Piece, no: Piece) -> Piece {
    let mut piece = match u8::try_from(no.len()) {
        Ok(jt) => vec![Instruction {
            code: test,
            jt,
            jf: 0,
            k,
        }],
        Err(_) => {
            let over = u32::try_from(no.len()).unwrap_or(u32::MAX);
            vec![
                Instruction {
                    code: test,
                    jt: 0,
                    jf: 1,
                    k,
                },
                Instruction::new(JUMP, over),
            ]
        }
    };
    piece.extend(no);
    piece.extend(yes);
    piece
}

/// One way if what was loaded is any of the values, the other if not.
pub(super) fn any_of(values: &[u32], yes: &Piece, no: Piece) -> Piece {
    let last_first = values.iter().rev();
    last_first.fold(no, |no, value| branch(JUMP_EQUAL, *value, yes.clone(), no))
}

/// What a program says to a system call: what the kernel does with it, in small.
#[cfg(test)]
pub(super) fn run(program: &[Instruction], number: u32, architecture: u32, arguments: [u64; 6]) -> u32 {
    let mut data = vec![number, architecture, 0, 0];
    for argument in arguments {
        data.extend([argument as u32, (argument >> 32) as u32]);
    }
    let (mut at, mut accumulator) = (0, 0);
    loop {
        let Instruction { code, jt, jf, k } = program[at];
        at += 1;
        let holds = match code {
            LOAD => {
                accumulator = data[k as usize / 4];
                continue;
            }
            AND => {
                accumulator &= k;
                continue;
            }
            JUMP => {
                at += k as usize;
                continue;
            }
            RETURN => return k,
            JUMP_EQUAL => accumulator == k,
            JUMP_AT_LEAST => accumulator >= k,
            JUMP_ANY_BIT => accumulator & k != 0,
            other => panic!("no such instruction: {other:#x}"),
        };
        at += usize::from(if holds { jt } else { jf });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_branch_over_a_long_piece_still_arrives() {
        let mut long = vec![Instruction::new(AND, u32::MAX); 300];
        long.extend(verdict(2));
        let program = load(NUMBER, branch(JUMP_EQUAL, 7, verdict(1), long));
        assert_eq!(run(&program, 7, 0, [0; 6]), 1);
        assert_eq!(run(&program, 8, 0, [0; 6]), 2);
    }

    #[test]
    fn instructions_travel_as_words() {
        let instruction = Instruction {
            code: 0x15,
            jt: 2,
            jf: 3,
            k: 0xc000_003e,
        };
        assert_eq!(instruction.word(), 0x0015_0203_c000_003e);
    }
}
