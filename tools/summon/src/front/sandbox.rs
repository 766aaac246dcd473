//! The front's sandbox: it can read, write and poll its open descriptors, connect over IP, and nothing else.
//!
//! It has no capabilities and cannot get any. It cannot open a file, start a program, send a signal or load code.

use std::io;

use mayfly_toolstack::privileges;
use mayfly_xen::filter::{self, bit, masked};
use rustix::thread::CapabilitySet;
use seccompiler::{
    BackendError, BpfProgram, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompRule,
};

/// System calls that are allowed with any arguments.
const ANY: &[libc::c_long] = &[
    // Open descriptors.
    libc::SYS_read,
    libc::SYS_write,
    libc::SYS_readv,
    libc::SYS_writev,
    libc::SYS_pread64,
    libc::SYS_lseek,
    libc::SYS_close,
    libc::SYS_fstat,
    libc::SYS_statx,
    libc::SYS_eventfd2,
    // Sockets.
    libc::SYS_accept4,
    libc::SYS_connect,
    libc::SYS_getpeername,
    libc::SYS_getsockname,
    libc::SYS_getsockopt,
    libc::SYS_recvfrom,
    libc::SYS_recvmsg,
    libc::SYS_sendto,
    libc::SYS_shutdown,
    // Time.
    libc::SYS_clock_gettime,
    libc::SYS_clock_nanosleep,
    libc::SYS_nanosleep,
    libc::SYS_poll,
    libc::SYS_ppoll,
    // Memory and threads.
    libc::SYS_brk,
    libc::SYS_madvise,
    libc::SYS_mremap,
    libc::SYS_munmap,
    libc::SYS_exit,
    libc::SYS_exit_group,
    libc::SYS_futex,
    libc::SYS_getpid,
    libc::SYS_gettid,
    libc::SYS_rseq,
    libc::SYS_sched_getaffinity,
    libc::SYS_sched_yield,
    libc::SYS_set_robust_list,
    libc::SYS_sigaltstack,
    libc::SYS_restart_syscall,
    libc::SYS_rt_sigaction,
    libc::SYS_rt_sigprocmask,
    libc::SYS_rt_sigreturn,
    libc::SYS_getrandom,
];

/// The bits of a socket's type without its flags (`SOCK_TYPE_MASK` of the kernel).
const SOCKET_KIND: u64 = 0xf;

/// Gives up all capabilities and installs the filter. Must be called on the only thread of the process; later threads
/// inherit both.
///
/// # Errors
/// The kernel refuses.
pub(super) fn enter() -> io::Result<()> {
    privileges::keep(CapabilitySet::empty())?;
    let program = program().map_err(io::Error::other)?;
    seccompiler::apply_filter_all_threads(&program).map_err(io::Error::other)
}

/// The filter. Other system calls fail with ENOSYS, as on an older kernel, which libraries can handle.
fn program() -> Result<BpfProgram, BackendError> {
    let mut rules = filter::any(ANY);
    rules.insert(libc::SYS_fcntl, filter::fcntl()?);
    // Streams and datagrams over IP, with the protocols that the kernel has anyway: others are modules, which it would
    // load.
    let mut sockets = Vec::new();
    for family in [libc::AF_INET, libc::AF_INET6] {
        for kind in [libc::SOCK_STREAM, libc::SOCK_DGRAM] {
            let kind = masked(1, SOCKET_KIND, bit(kind))?;
            sockets.push(SeccompRule::new(vec![
                equals(0, family)?,
                kind,
                equals(2, 0)?,
            ])?);
        }
    }
    rules.insert(libc::SYS_socket, sockets);
    // Socket options for timeouts and lingering, none of a protocol.
    rules.insert(
        libc::SYS_setsockopt,
        vec![SeccompRule::new(vec![equals(1, libc::SOL_SOCKET)?])?],
    );
    // Makes a descriptor non-blocking.
    rules.insert(
        libc::SYS_ioctl,
        vec![SeccompRule::new(vec![masked(
            1,
            u32::MAX.into(),
            libc::FIONBIO,
        )?])?],
    );
    // Memory without the right to execute.
    let no_code = masked(2, bit(libc::PROT_EXEC), 0)?;
    rules.insert(
        libc::SYS_mmap,
        vec![SeccompRule::new(vec![no_code.clone()])?],
    );
    rules.insert(libc::SYS_mprotect, vec![SeccompRule::new(vec![no_code])?]);
    // A new thread and its name.
    let thread = bit(libc::CLONE_VM | libc::CLONE_THREAD);
    rules.insert(
        libc::SYS_clone,
        vec![SeccompRule::new(vec![masked(0, thread, thread)?])?],
    );
    rules.insert(
        libc::SYS_prctl,
        vec![SeccompRule::new(vec![equals(0, libc::PR_SET_NAME)?])?],
    );
    filter::program(rules, libc::ENOSYS)
}

fn equals(argument: u8, value: libc::c_int) -> Result<SeccompCondition, BackendError> {
    SeccompCondition::new(
        argument,
        SeccompCmpArgLen::Dword,
        SeccompCmpOp::Eq,
        bit(value),
    )
}
