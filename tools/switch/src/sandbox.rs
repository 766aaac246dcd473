//! The system calls of the process that moves frames, and of the one that does handshakes: those on what they have open,
//! and memory.
//!
//! They open no file, name none, start no program and no thread, make no socket, send no signal to another process, and
//! make no memory executable. The ring of io_uring, whose requests no filter sees, takes none but reads and writes
//! ([`mayfly_links::Batch`]).

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
    // The journal is emptied.
    libc::SYS_ftruncate,
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

/// Allows the calling thread only these system calls from now on. Others fail with EPERM. It must not be able to gain
/// privileges ([`mayfly_xen::privileges`]). All threads have to do so: one without a filter could be made to do anything
/// by one that shares its memory.
///
/// # Errors
/// The kernel has no seccomp.
pub(crate) fn enter() -> io::Result<()> {
    let program = program().map_err(io::Error::other)?;
    seccompiler::apply_filter(&program).map_err(io::Error::other)
}

/// The same for all threads of the process.
///
/// # Errors
/// The kernel has no seccomp, or a thread has entered already.
pub(crate) fn enter_all() -> io::Result<()> {
    let program = program().map_err(io::Error::other)?;
    seccompiler::apply_filter_all_threads(&program).map_err(io::Error::other)
}

fn program() -> Result<BpfProgram, BackendError> {
    let mut rules = filter::any(ANY);
    let rule = |argument, mask, value| SeccompRule::new(vec![masked(argument, mask, value)?]);
    let mut ioctls = vec![rule(1, u32::MAX.into(), libc::FIONBIO)?];
    for kind in TYPES {
        ioctls.push(rule(1, TYPE, u64::from(kind) << 8)?);
    }
    rules.insert(libc::SYS_ioctl, ioctls);
    // It may end itself by a signal, and nobody else.
    let own = std::process::id().into();
    rules.insert(libc::SYS_tgkill, vec![rule(0, u32::MAX.into(), own)?]);
    rules.insert(libc::SYS_fcntl, filter::fcntl()?);
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

    use mayfly_switch::journal::{Journal, JournalEntry};
    use mayfly_xen::privileges;
    use rustix::fs::MemfdFlags;
    use rustix::thread::CapabilitySet;

    use super::*;

    #[test]
    fn what_the_loop_does_is_allowed_and_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("journal");
        let mut journal = Journal::open(&path).unwrap();
        let socket = folder.path().join("socket");
        let listener = UnixListener::bind(&socket).unwrap();
        listener.set_nonblocking(true).unwrap();
        let mut client = UnixStream::connect(&socket).unwrap();
        fs::write(folder.path().join("old"), "").unwrap();
        let old = folder.path().join("old");
        let memory_file = rustix::fs::memfd_create("test", MemfdFlags::ALLOW_SEALING).unwrap();
        let parent = rustix::process::getppid().unwrap();
        let thread = std::thread::spawn(move || {
            privileges::keep(CapabilitySet::empty()).unwrap();
            enter().unwrap();
            // The journal goes on in its other file, several times.
            for _ in 0..100_000 {
                journal.write(JournalEntry::Detach(1)).unwrap();
            }
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
            let new = old.with_extension("new");
            refused(File::create(&old).map(drop));
            refused(File::create_new(&new).map(drop));
            refused(fs::rename(&old, &new));
            refused(fs::rename(&path, &new));
            refused(fs::remove_file(&old));
            refused(fs::remove_file(&path));
            refused(fs::create_dir(&new));
            refused(std::os::unix::fs::symlink(&old, &new));
            refused(UnixStream::connect(&socket).map(drop));
            refused(std::thread::Builder::new().spawn(|| ()).map(drop));
            refused(std::net::TcpListener::bind("127.0.0.1:0").map(drop));
            // By other commands of fcntl, the kernel would send signals to others.
            let sealed = rustix::fs::fcntl_add_seals(&memory_file, rustix::fs::SealFlags::SEAL);
            refused(sealed.map_err(io::Error::from));
            let signal = rustix::process::test_kill_process(parent);
            refused(signal.map_err(io::Error::from));
        });
        let mut hello = [0; 5];
        client.read_exact(&mut hello).unwrap();
        assert_eq!(&hello, b"hello");
        thread.join().unwrap();
    }
}
