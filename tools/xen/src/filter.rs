//! Filters of system calls (seccomp(2)), out of parts that programs share.

use std::collections::BTreeMap;

use seccompiler::{
    BackendError, BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition,
    SeccompFilter, SeccompRule, TargetArch,
};

/// The system calls that are allowed: those with an empty list with any arguments, the others if one of the rules fits.
pub type Rules = BTreeMap<i64, Vec<SeccompRule>>;

/// Allows these system calls with any arguments.
#[must_use]
pub fn any(calls: &[libc::c_long]) -> Rules {
    calls.iter().map(|&call| (call, Vec::new())).collect()
}

/// The filter. System calls that it does not allow fail with the error of this number.
///
/// # Errors
/// A rule is not valid.
pub fn program(rules: Rules, error: libc::c_int) -> Result<BpfProgram, BackendError> {
    let filter = SeccompFilter::new(
        rules,
        SeccompAction::Errno(error.unsigned_abs()),
        SeccompAction::Allow,
        TargetArch::x86_64,
    )?;
    filter.try_into()
}

/// Flags of an argument, as a condition compares them.
#[must_use]
pub fn bit(flags: libc::c_int) -> u64 {
    flags.unsigned_abs().into()
}

/// An argument has this value in the bits of the mask.
///
/// # Errors
/// There is no such argument.
pub fn masked(argument: u8, mask: u64, value: u64) -> Result<SeccompCondition, BackendError> {
    let how = SeccompCmpOp::MaskedEq(mask);
    SeccompCondition::new(argument, SeccompCmpArgLen::Qword, how, value)
}
