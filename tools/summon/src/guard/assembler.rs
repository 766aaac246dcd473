//! An assembler for classic BPF (`linux/filter.h`) with named jump targets.

use mayfly_links::Instruction;

/// `linux/bpf_common.h`: the accumulator from the frame, by width; with `IND`, at X and further on.
const LD: u16 = 0x00;
const LDX: u16 = 0x01;
const ALU: u16 = 0x04;
const JMP: u16 = 0x05;
const RET: u16 = 0x06;
const W: u16 = 0x00;
const H: u16 = 0x08;
const B: u16 = 0x10;
const ABS: u16 = 0x20;
const IND: u16 = 0x40;
const LEN: u16 = 0x80;
const IMM: u16 = 0x00;
const MSH: u16 = 0xa0;
const SUB: u16 = 0x10;
const AND: u16 = 0x50;
const JEQ: u16 = 0x10;
const JGE: u16 = 0x30;
const JSET: u16 = 0x40;
const X: u16 = 0x08;
/// `SKF_AD_OFF + SKF_AD_VLAN_TAG_PRESENT`: whether the kernel has removed a VLAN tag.
const VLAN: u32 = 0xffff_f000 + 48;

/// The target of a jump.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum To {
    /// The next instruction.
    Next,
    /// The end of the program: the frame passes.
    Pass,
    /// The end of the program: the frame is dropped.
    Drop,
    /// The place with this name, set by [`Assembler::at`].
    Named(&'static str),
}

/// A program that is being assembled.
#[derive(Default)]
pub(super) struct Assembler {
    code: Vec<(Instruction, To, To)>,
    places: Vec<(&'static str, usize)>,
}

impl Assembler {
    fn push(&mut self, code: u16, k: u32) {
        let (jt, jf) = (0, 0);
        let instruction = Instruction { code, jt, jf, k };
        self.code.push((instruction, To::Next, To::Next));
    }

    /// Names the place of the next instruction.
    pub(super) fn at(&mut self, name: &'static str) {
        self.places.push((name, self.code.len()));
    }

    /// Loads a byte of the frame.
    pub(super) fn byte(&mut self, at: u32) {
        self.push(LD | B | ABS, at);
    }

    /// Loads two bytes.
    pub(super) fn half(&mut self, at: u32) {
        self.push(LD | H | ABS, at);
    }

    /// Loads four bytes.
    pub(super) fn word(&mut self, at: u32) {
        self.push(LD | W | ABS, at);
    }

    /// Loads the byte at X plus `at`.
    pub(super) fn byte_behind(&mut self, at: u32) {
        self.push(LD | B | IND, at);
    }

    /// Loads two bytes at X plus `at`.
    pub(super) fn half_behind(&mut self, at: u32) {
        self.push(LD | H | IND, at);
    }

    /// Loads the frame's length.
    pub(super) fn length(&mut self) {
        self.push(LD | W | LEN, 0);
    }

    /// Loads whether there was a VLAN tag.
    pub(super) fn vlan(&mut self) {
        self.push(LD | W | ABS, VLAN);
    }

    /// Sets X to four times the lower half of a byte: the length of the IPv4 header that begins there.
    pub(super) fn x_header(&mut self, at: u32) {
        self.push(LDX | B | MSH, at);
    }

    /// Sets X to a number.
    pub(super) fn x(&mut self, number: u32) {
        self.push(LDX | W | IMM, number);
    }

    pub(super) fn subtract(&mut self, number: u32) {
        self.push(ALU | SUB, number);
    }

    pub(super) fn and(&mut self, mask: u32) {
        self.push(ALU | AND, mask);
    }

    fn jump(&mut self, code: u16, k: u32, yes: To, no: To) {
        self.push(JMP | code, k);
        if let Some(last) = self.code.last_mut() {
            (last.1, last.2) = (yes, no);
        }
    }

    /// Jumps by whether the loaded value equals `k`.
    pub(super) fn is(&mut self, k: u32, yes: To, no: To) {
        self.jump(JEQ, k, yes, no);
    }

    /// Jumps by whether the loaded value is at least `k`.
    pub(super) fn is_at_least(&mut self, k: u32, yes: To, no: To) {
        self.jump(JGE, k, yes, no);
    }

    /// Jumps by whether the loaded value is at least X.
    pub(super) fn is_at_least_x(&mut self, yes: To, no: To) {
        self.jump(JGE | X, 0, yes, no);
    }

    /// Jumps by whether the loaded value has any of these bits.
    pub(super) fn has(&mut self, k: u32, yes: To, no: To) {
        self.jump(JSET, k, yes, no);
    }

    /// Drops the frame if the loaded value differs from `k`.
    pub(super) fn must_be(&mut self, k: u32) {
        self.is(k, To::Next, To::Drop);
    }

    /// Drops a frame that is shorter than this many bytes.
    pub(super) fn must_have(&mut self, bytes: u32) {
        self.length();
        self.is_at_least(bytes, To::Next, To::Drop);
    }

    /// Ends with a verdict.
    pub(super) fn end(&mut self, verdict: u32) {
        self.push(RET, verdict);
    }

    /// The program, which returns `pass` or `drop`.
    ///
    /// # Panics
    /// If a jump's target does not exist, precedes the jump, or is too far ahead. This depends on the rules only, not
    /// on the guest.
    pub(super) fn finish(mut self, pass: u32, drop: u32) -> Vec<Instruction> {
        let end = self.code.len();
        self.end(pass);
        self.end(drop);
        let distance = |from: usize, to: To| {
            let target = match to {
                To::Next => from + 1,
                To::Pass => end,
                To::Drop => end + 1,
                To::Named(name) => {
                    let place = self.places.iter().find(|(place, _)| *place == name);
                    place.map_or(usize::MAX, |(_, at)| *at)
                }
            };
            let distance = target.checked_sub(from + 1);
            distance.and_then(|distance| u8::try_from(distance).ok())
        };
        let resolve = |(from, (instruction, yes, no)): (usize, &(Instruction, To, To))| {
            let (Some(jt), Some(jf)) = (distance(from, *yes), distance(from, *no)) else {
                panic!(
                    "instruction {from} jumps to {yes:?} or {no:?}, which is too far away or does not exist"
                );
            };
            Instruction {
                jt,
                jf,
                ..*instruction
            }
        };
        self.code.iter().enumerate().map(resolve).collect()
    }
}
