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

/// Allows fcntl(2) to read and set flags of descriptors, and to duplicate them. With other commands, the kernel would
/// send signals to other processes of the same user (`F_SETOWN`, `F_SETSIG`), which is root.
///
/// # Errors
/// None: the argument exists.
pub fn fcntl() -> Result<Vec<SeccompRule>, BackendError> {
    let commands = [
        libc::F_GETFL,
        libc::F_SETFL,
        libc::F_GETFD,
        libc::F_SETFD,
        libc::F_DUPFD_CLOEXEC,
    ];
    let rule = |command| SeccompRule::new(vec![masked(1, u32::MAX.into(), bit(command))?]);
    commands.into_iter().map(rule).collect()
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
