//! The system calls that the thread which moves frames may make: those on what it has open, memory, and the journal.
//!
//! It opens no file but new ones, which it does for the journal, starts no program and no thread, makes no socket, and
//! makes no memory executable. Beside the journal's, all calls are on descriptors that were opened before. (The thread
//! that takes care of the process for xenstore has to start that again, so it has no filter.)

use std::io;

use mayfly_xen::filter::{self, bit, masked};
use seccompiler::{BackendError, BpfProgram, SeccompRule};

/// System calls that are allowed with any arguments.
const ANY: &[libc::c_long] = &[
    // Open descriptors.
    libc::SYS_read,
    libc::SYS_write,
    libc::SYS_readv,
    libc::SYS_writev,
    libc::SYS_close,
    libc::SYS_fstat,
    libc::SYS_statx,
    libc::SYS_lseek,
    libc::SYS_fsync,
    libc::SYS_fdatasync,
    libc::SYS_io_uring_enter,
    libc::SYS_poll,
    libc::SYS_ppoll,
    // The control socket's connections.
    libc::SYS_accept4,
    libc::SYS_recvfrom,
    libc::SYS_recvmsg,
    libc::SYS_sendto,
    libc::SYS_sendmsg,
    libc::SYS_shutdown,
    // The journal is replaced.
    libc::SYS_rename,
    libc::SYS_unlink,
    // Memory, time and the end.
    libc::SYS_brk,
    libc::SYS_madvise,
    libc::SYS_mremap,
    libc::SYS_munmap,
    libc::SYS_futex,
    libc::SYS_clock_gettime,
    libc::SYS_clock_nanosleep,
    libc::SYS_sched_yield,
    libc::SYS_getrandom,
    libc::SYS_getpid,
    libc::SYS_gettid,
    libc::SYS_tgkill,
    libc::SYS_exit,
    libc::SYS_exit_group,
    libc::SYS_rt_sigaction,
    libc::SYS_rt_sigprocmask,
    libc::SYS_rt_sigreturn,
    libc::SYS_sigaltstack,
    libc::SYS_restart_syscall,
];

/// The types of ioctls (ioctl(2)): event channels (`xen/evtchn.h`) and grants (`xen/gntdev.h`).
const TYPES: [u8; 2] = [b'E', b'G'];
/// The bits of an ioctl that have its type.
const TYPE: u64 = 0xff00;

/// Allows the calling thread only these system calls from now on, and the threads that it starts. Others fail with
/// EPERM. It must not be able to gain privileges ([`mayfly_xen::privileges`]).
///
/// # Errors
/// The kernel has no seccomp.
pub(crate) fn enter() -> io::Result<()> {
    let program = program().map_err(io::Error::other)?;
    seccompiler::apply_filter(&program).map_err(io::Error::other)
}

fn program() -> Result<BpfProgram, BackendError> {
    let mut rules = filter::any(ANY);
    let rule = |argument, mask, value| SeccompRule::new(vec![masked(argument, mask, value)?]);
    let mut ioctls = vec![rule(1, u32::MAX.into(), libc::FIONBIO)?];
    for kind in TYPES {
        ioctls.push(rule(1, TYPE, u64::from(kind) << 8)?);
    }
    rules.insert(libc::SYS_ioctl, ioctls);
    // Files that there are not yet.
    let new = bit(libc::O_CREAT | libc::O_EXCL);
    rules.insert(libc::SYS_openat, vec![rule(2, new, new)?]);
    // Descriptors are duplicated and made non-blocking.
    let commands = [
        libc::F_GETFL,
        libc::F_SETFL,
        libc::F_GETFD,
        libc::F_DUPFD_CLOEXEC,
    ];
    let commands = commands.map(|command| rule(1, u32::MAX.into(), bit(command)));
    rules.insert(
        libc::SYS_fcntl,
        commands.into_iter().collect::<Result<_, _>>()?,
    );
    for call in [libc::SYS_mmap, libc::SYS_mprotect] {
        rules.insert(call, vec![rule(2, bit(libc::PROT_EXEC), 0)?]);
    }
    filter::program(rules, libc::EPERM)
}

#[cfg(test)]
mod tests {
    use std::fs::{self, File};
    use std::io::{Read as _, Write as _};
    use std::os::unix::net::{UnixListener, UnixStream};

    use mayfly_xen::privileges;
    use rustix::thread::CapabilitySet;

    use super::*;

    #[test]
    fn what_the_loop_does_is_allowed_and_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("journal");
        let socket = folder.path().join("socket");
        let listener = UnixListener::bind(&socket).unwrap();
        listener.set_nonblocking(true).unwrap();
        let mut client = UnixStream::connect(&socket).unwrap();
        fs::write(folder.path().join("old"), "").unwrap();
        let old = folder.path().join("old");
        let thread = std::thread::spawn(move || {
            privileges::keep(CapabilitySet::empty()).unwrap();
            enter().unwrap();
            // The journal is replaced.
            let new = path.with_extension("new");
            let mut file = File::options()
                .write(true)
                .create_new(true)
                .open(&new)
                .unwrap();
            file.write_all(b"one").unwrap();
            fs::rename(&new, &path).unwrap();
            // A client is served.
            let (mut served, _) = listener.accept().unwrap();
            served.set_nonblocking(true).unwrap();
            served.write_all(b"hello").unwrap();
            let mut memory = vec![0_u8; 16 << 20];
            memory[5 << 20] = 1;
            std::thread::yield_now();
            drop(memory);
            // Nothing that there is can be opened, and nothing can be started.
            let refused = |result: io::Result<()>| {
                assert_eq!(result.unwrap_err().kind(), io::ErrorKind::PermissionDenied);
            };
            refused(File::open(&old).map(drop));
            refused(
                File::options()
                    .write(true)
                    .create(true)
                    .truncate(true)
                    .open(&old)
                    .map(drop),
            );
            refused(UnixStream::connect(&socket).map(drop));
            refused(std::thread::Builder::new().spawn(|| ()).map(drop));
            refused(std::net::TcpListener::bind("127.0.0.1:0").map(drop));
        });
        let mut hello = [0; 5];
        client.read_exact(&mut hello).unwrap();
        assert_eq!(&hello, b"hello");
        thread.join().unwrap();
    }
}
