//! An interpreter of classic BPF, as `bpf(4)` of the BSDs describes it. A load beyond the frame's end is an error here;
//! the kernel would let the frame pass.

use mayfly_links::Instruction;

/// Runs a program over a frame. Returns the program's result, or the error that it makes.
pub(super) fn run(program: &[Instruction], frame: &[u8], tagged: bool) -> Result<u32, String> {
    let (mut a, mut x, mut at) = (0u32, 0u32, 0usize);
    let load = |from: u32, width: u32| -> Result<u32, String> {
        let from = from as usize;
        let bytes = frame.get(from..from + width as usize);
        let bytes = bytes.ok_or_else(|| format!("{width} bytes at {from} of {}", frame.len()))?;
        Ok(bytes
            .iter()
            .fold(0, |word, byte| word << 8 | u32::from(*byte)))
    };
    loop {
        let Instruction { code, jt, jf, k } = *program.get(at).ok_or("no end")?;
        at += 1;
        let width = match code & 0x18 {
            0x00 => 4,
            0x08 => 2,
            _ => 1,
        };
        let operand = if code & 0x08 == 0 { k } else { x };
        let mut jump = |yes: bool| at += usize::from(if yes { jt } else { jf });
        match code {
            // LD LEN, the VLAN extension, LD ABS, LD IND.
            0x80 => a = u32::try_from(frame.len()).map_err(|error| error.to_string())?,
            0x20 if k == 0xffff_f030 => a = u32::from(tagged),
            0x20 | 0x28 | 0x30 => a = load(k, width)?,
            0x40 | 0x48 | 0x50 => a = load(x + k, width)?,
            // LDX IMM, LDX MSH.
            0x01 => x = k,
            0xb1 => x = (load(k, 1)? & 0x0f) * 4,
            // SUB, AND.
            0x14 => a = a.wrapping_sub(k),
            0x54 => a &= k,
            // JEQ, JGE, JSET.
            0x15 | 0x1d => jump(a == operand),
            0x35 | 0x3d => jump(a >= operand),
            0x45 | 0x4d => jump(a & operand != 0),
            0x06 => return Ok(k),
            other => return Err(format!("the instruction {other:#x}")),
        }
    }
}
