//! `entry.s` and `exceptions.rs` agree: which only the two sources together tell, as neither is built on a host.
#![allow(clippy::unwrap_used, reason = "a test may stop at the first surprise")]

use std::collections::BTreeSet;

use x86_64::structures::idt::{Entry, HandlerFunc, InterruptDescriptorTable};

const ENTRY: &str = include_str!("../src/entry.s");
const EXCEPTIONS: &str = include_str!("../src/exceptions.rs");

/// The text between two texts of a source.
fn between<'a>(source: &'a str, start: &str, end: &str) -> &'a str {
    let (_, rest) = source.split_once(start).unwrap();
    rest.split_once(end).unwrap().0
}

/// The stubs push a vector below the error code, the common part pushes registers below that, and the CPU has pushed the rest
/// (Intel SDM volume 3, 6.14.2): from the last that is pushed to the first, these are the fields of the struct.
#[test]
fn the_frame_is_what_is_pushed() {
    let pushed = between(ENTRY, "\nexception_common:", "movq %rsp, %rdi").lines();
    let registers = pushed.filter_map(|line| line.trim().strip_prefix("pushq %"));
    let mut expected: Vec<_> = registers.collect();
    expected.reverse();
    expected.extend(["vector", "error_code", "rip", "cs", "rflags", "rsp", "ss"]);
    let fields = between(EXCEPTIONS, "pub struct ExceptionFrame {", "}").lines();
    let fields: Vec<_> = fields
        .filter_map(|line| line.trim().strip_prefix("pub ")?.strip_suffix(": u64,"))
        .collect();
    assert_eq!(fields, expected);
    let stub = between(ENTRY, "\nexception_stubs:", "jmp exception_common");
    let pushed = stub
        .lines()
        .filter_map(|line| line.trim().strip_prefix("pushq "));
    assert_eq!(pushed.collect::<Vec<_>>(), ["$0", "$vector"]);
}

/// Zero stands in for an error code where the CPU pushes none (Intel SDM volume 3, table 6-1; AMD APM volume 2, table 8-1).
#[test]
fn error_codes_are_expected_where_the_cpu_pushes_them() {
    let condition = between(ENTRY, "\n    .if ", "\n    .else");
    let mut with_code = BTreeSet::new();
    for part in condition
        .split("||")
        .map(|part| part.trim().trim_matches(['(', ')']))
    {
        let number = |text: &str, before: &str| -> u64 {
            text.trim()
                .strip_prefix(before)
                .unwrap()
                .trim()
                .parse()
                .unwrap()
        };
        match part.split_once("&&") {
            Some((from, to)) => {
                with_code.extend(number(from, "vector >=")..=number(to, "vector <="));
            }
            None => with_code.extend([number(part, "vector ==")]),
        }
    }
    assert_eq!(
        with_code,
        BTreeSet::from([8, 10, 11, 12, 13, 14, 17, 21, 29, 30])
    );
}

/// Each entry that is set leads to the stub of its own vector, and every vector that the architecture defines is set.
#[test]
fn each_entry_has_its_own_stub() {
    let idt = InterruptDescriptorTable::new();
    let base = (&raw const idt).addr();
    /// Names and vectors of entries, from where they lie in the table.
    macro_rules! entries {
        ($($field:ident),* $(,)?) => {
            [$((stringify!($field), ((&raw const idt.$field).addr() - base) / size_of::<Entry<HandlerFunc>>())),*]
        };
    }
    let mut expected = entries![
        divide_error,
        debug,
        non_maskable_interrupt,
        breakpoint,
        overflow,
        bound_range_exceeded,
        invalid_opcode,
        device_not_available,
        double_fault,
        invalid_tss,
        segment_not_present,
        stack_segment_fault,
        general_protection_fault,
        page_fault,
        x87_floating_point,
        alignment_check,
        machine_check,
        simd_floating_point,
        virtualization,
        cp_protection_exception,
        hv_injection_exception,
        vmm_communication_exception,
        security_exception,
    ];
    let set = between(EXCEPTIONS, "    set! {", "}").split(',');
    let mut set: Vec<_> = set
        .filter_map(|entry| {
            let (name, vector) = entry.trim().split_once(": ")?;
            Some((name, vector.parse().unwrap()))
        })
        .collect();
    expected.sort_unstable();
    set.sort_unstable();
    assert_eq!(set, expected);
}
