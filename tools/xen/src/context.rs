//! The initial state of vCPU 0 of a PVH guest, as XEN_DOMCTL_sethvmcontext takes it.
//!
//! Source: Xen docs/misc/pvh.pandoc; arch-x86/hvm/save.h, which is the same for these records in 4.17 to 4.20. The
//! records are made here rather than fetched from Xen first, which would be two more calls. Of the header, Xen checks
//! magic and version, and the CPU's identity for a warning in its log. A `gtsc_khz` of 0 leaves the domain's frequency
//! as it is.

use zerocopy::{FromZeros, IntoBytes};

use super::abi;

/// CR0: protected mode, and a bit that always reads as 1.
const CR0: u64 = 1 << 0 | 1 << 4;
/// DR6 and DR7 after a reset.
const DR6: u64 = 0xffff_0ff0;
const DR7: u64 = 0x400;
/// Attributes of flat 32-bit segments: code, data, and a busy TSS.
const CODE: u32 = 0xc9b;
const DATA: u32 = 0xc93;
const TSS: u32 = 0x8b;
/// IA32_PAT after a reset.
const PAT: u64 = 0x0007_0406_0007_0406;
/// IA32_MTRRCAP as Xen gives it to each new vCPU (arch/x86/hvm/mtrr.c): write combining, fixed ranges, eight variable ones.
const MTRR_CAP: u64 = 1 << 10 | 1 << 8 | 8;
/// MTRRs are on, and memory is write-back unless a range says otherwise.
const MTRR_DEF_TYPE: u64 = 1 << 11 | 6;

/// The records HEADER, CPU, MTRR and END.
pub(super) fn records(entry: u32, start_info: u32) -> Vec<u8> {
    let header = abi::hvm_save_header {
        magic: abi::HVM_FILE_MAGIC,
        version: abi::HVM_FILE_VERSION,
        changeset: 0,
        cpuid: identity(),
        gtsc_khz: 0,
    };
    let mut cpu = abi::hvm_hw_cpu::new_zeroed();
    cpu.rbx = u64::from(start_info);
    cpu.rip = u64::from(entry);
    cpu.cr0 = CR0;
    cpu.dr6 = DR6;
    cpu.dr7 = DR7;
    // cs, ds, es, fs, gs, ss, tr, ldtr.
    let (flat, none) = (u32::MAX, 0);
    cpu.limit = [flat, flat, flat, none, none, flat, 0x67, none];
    cpu.arbytes = [CODE, DATA, DATA, none, none, DATA, TSS, none];
    let mut mtrr = abi::hvm_hw_mtrr::new_zeroed();
    mtrr.msr_pat_cr = PAT;
    mtrr.msr_mtrr_cap = MTRR_CAP;
    mtrr.msr_mtrr_def_type = MTRR_DEF_TYPE;
    let mut all = Vec::new();
    put(&mut all, abi::HVM_SAVE_CODE_HEADER, header.as_bytes());
    put(&mut all, abi::HVM_SAVE_CODE_CPU, cpu.as_bytes());
    put(&mut all, abi::HVM_SAVE_CODE_MTRR, mtrr.as_bytes());
    put(&mut all, abi::HVM_SAVE_CODE_END, &[]);
    all
}

/// CPUID leaf 1, EAX.
fn identity() -> u32 {
    core::arch::x86_64::__cpuid(1).eax
}

fn put(all: &mut Vec<u8>, typecode: u16, record: &[u8]) {
    let length = u32::try_from(record.len()).unwrap_or(u32::MAX);
    let descriptor = abi::hvm_save_descriptor {
        typecode,
        instance: 0,
        length,
    };
    all.extend_from_slice(descriptor.as_bytes());
    all.extend_from_slice(record);
}

#[cfg(test)]
mod tests {
    use super::*;
    use zerocopy::FromBytes;

    #[test]
    fn the_records_follow_each_other_to_the_end() {
        let all = records(0x10_0000, 0x16_3000);
        let mut rest = all.as_slice();
        let mut seen = Vec::new();
        while !rest.is_empty() {
            let (descriptor, body) = abi::hvm_save_descriptor::read_from_prefix(rest).unwrap();
            let length = descriptor.length as usize;
            if descriptor.typecode == abi::HVM_SAVE_CODE_CPU {
                let cpu = abi::hvm_hw_cpu::read_from_bytes(&body[..length]).unwrap();
                assert_eq!((cpu.rip, cpu.rbx, cpu.cr0), (0x10_0000, 0x16_3000, 0x11));
                assert_eq!(
                    (cpu.limit[6], cpu.arbytes[6], cpu.arbytes[0]),
                    (0x67, 0x8b, 0xc9b)
                );
            }
            seen.push((descriptor.typecode, length));
            rest = &body[length..];
        }
        assert_eq!(seen, [(1, 24), (2, 1032), (14, 240), (0, 0)]);
    }
}
