//! The ACPI tables of a guest whose image has no note of mayfly's. They describe its CPU and no other device.
//!
//! Without them Linux starts its local APIC but no clock: it uses Xen's timer as the clock of a CPU only where a MADT
//! names that CPU (arch/x86/kernel/smpboot.c of Linux 6.1, `native_smp_prepare_cpus`).
//!
//! Source: ACPI 6.5, sections 5.2.5 to 5.2.12. The contents are those that Xen 4.17's tools/libacpi writes for a PVH
//! guest.

/// The size of the description header at the start of each table, in bytes.
const HEADER: usize = 36;
/// The size of a FADT of revision 5, in bytes.
const FADT: usize = 268;
/// FADT, flags: WBINVD works; there is no ACPI hardware.
const WBINVD: u32 = 1 << 0;
const HW_REDUCED_ACPI: u32 = 1 << 20;
/// FADT, IA-PC boot architecture flags: no VGA, no CMOS clock, and no other legacy device; MSI may be used.
const NO_VGA: u16 = 1 << 2;
const NO_CMOS_RTC: u16 = 1 << 5;
/// The physical address of the local APIC.
const LOCAL_APIC: u32 = 0xfee0_0000;

/// The tables, laid out for the physical `address`. The RSDP is the first.
pub(crate) fn tables(address: u64) -> Vec<u8> {
    const RSDP: usize = 36;
    const XSDT: usize = HEADER + 2 * 8;
    let at = |offset: usize| (address + offset as u64).to_le_bytes();
    // Each is aligned to 8 bytes.
    let xsdt = RSDP.next_multiple_of(8);
    let fadt = (xsdt + XSDT).next_multiple_of(8);
    let dsdt = (fadt + FADT).next_multiple_of(8);
    let madt = (dsdt + HEADER).next_multiple_of(8);
    let all = [
        (0, rsdp(at(xsdt))),
        (xsdt, table(b"XSDT", 1, &[at(fadt), at(madt)].concat())),
        (fadt, table(b"FACP", 5, &fixed(at(dsdt)))),
        // No device, no method.
        (dsdt, table(b"DSDT", 2, &[])),
        (madt, table(b"APIC", 3, &cpus())),
    ];
    let mut bytes = Vec::new();
    for (offset, part) in all {
        bytes.resize(offset, 0);
        bytes.extend(part);
    }
    bytes
}

/// The byte that makes the sum of all bytes 0 (modulo 256).
fn checksum(bytes: &[u8]) -> u8 {
    bytes
        .iter()
        .fold(0u8, |sum, byte| sum.wrapping_add(*byte))
        .wrapping_neg()
}

/// The root system description pointer, revision 2.
fn rsdp(xsdt: [u8; 8]) -> Vec<u8> {
    let mut first = b"RSD PTR \0mayfly\x02\0\0\0\0".to_vec();
    let sum = checksum(&first);
    if let Some(place) = first.get_mut(8) {
        *place = sum;
    }
    let mut all = [&first[..], &36u32.to_le_bytes(), &xsdt, &[0; 4]].concat();
    let sum = checksum(&all);
    if let Some(place) = all.get_mut(32) {
        *place = sum;
    }
    all
}

fn table(signature: &[u8; 4], revision: u8, body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(HEADER + body.len()).unwrap_or(0);
    let mut all = signature.to_vec();
    all.extend(length.to_le_bytes());
    all.extend([revision, 0]);
    // OEMID, OEM table ID, OEM revision; then the creator's ID and revision.
    all.extend(b"mayflyguest   ");
    all.extend(1u32.to_le_bytes());
    all.extend(b"HTCH");
    all.extend(1u32.to_le_bytes());
    all.extend(body);
    let sum = checksum(&all);
    if let Some(place) = all.get_mut(9) {
        *place = sum;
    }
    all
}

/// The fixed ACPI description table's body.
fn fixed(dsdt: [u8; 8]) -> Vec<u8> {
    let mut body = vec![0; FADT - HEADER];
    // At offsets of the whole table.
    let mut put = |offset: usize, bytes: &[u8]| {
        let at = offset - HEADER;
        if let Some(place) = body.get_mut(at..at + bytes.len()) {
            place.copy_from_slice(bytes);
        }
    };
    put(109, &(NO_VGA | NO_CMOS_RTC).to_le_bytes());
    put(112, &(WBINVD | HW_REDUCED_ACPI).to_le_bytes());
    // X_DSDT. The 32-bit field must not be used beside it.
    put(140, &dsdt);
    body
}

/// The multiple APIC description table's body: one enabled local APIC, of ID 0.
fn cpus() -> Vec<u8> {
    let mut body = LOCAL_APIC.to_le_bytes().to_vec();
    // No pair of 8259s.
    body.extend(0u32.to_le_bytes());
    body.extend([0, 8, 0, 0]);
    body.extend(1u32.to_le_bytes());
    body
}

#[cfg(test)]
mod tests {
    use super::*;

    const ADDRESS: u64 = 0xfeff_8000;

    fn sum(bytes: &[u8]) -> u8 {
        bytes.iter().fold(0, |sum, byte| sum.wrapping_add(*byte))
    }

    fn word(bytes: &[u8]) -> usize {
        u32::from_le_bytes(bytes[..4].try_into().unwrap()) as usize
    }

    /// The table at an address that another one gives.
    fn find(all: &[u8], address: &[u8]) -> Vec<u8> {
        let address = u64::from_le_bytes(address[..8].try_into().unwrap());
        let at = usize::try_from(address - ADDRESS).unwrap();
        let table = &all[at..][..word(&all[at + 4..])];
        assert_eq!((address % 8, sum(table)), (0, 0));
        table.to_vec()
    }

    #[test]
    fn each_table_is_found_from_the_root_and_adds_up() {
        let all = tables(ADDRESS);
        assert!(all.len() <= mayfly_xen::PAGE_SIZE);
        assert_eq!(&all[..8], b"RSD PTR ");
        assert_eq!((sum(&all[..20]), sum(&all[..36]), all[15]), (0, 0, 2));
        assert_eq!(word(&all[20..]), 36);
        let xsdt = find(&all, &all[24..]);
        assert_eq!((&xsdt[..4], xsdt.len()), (&b"XSDT"[..], 52));
        let fadt = find(&all, &xsdt[36..]);
        assert_eq!((&fadt[..4], fadt.len(), fadt[8]), (&b"FACP"[..], 268, 5));
        assert_eq!(word(&fadt[112..]), 0x10_0001);
        let dsdt = find(&all, &fadt[140..]);
        assert_eq!((&dsdt[..4], dsdt.len()), (&b"DSDT"[..], 36));
        let madt = find(&all, &xsdt[44..]);
        assert_eq!((&madt[..4], madt.len()), (&b"APIC"[..], 52));
        assert_eq!(
            madt[36..],
            [0, 0, 0xe0, 0xfe, 0, 0, 0, 0, 0, 8, 0, 0, 1, 0, 0, 0]
        );
    }
}
