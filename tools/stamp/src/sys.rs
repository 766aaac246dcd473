//! The three things that no safe crate offers: the time stamp counter, hypercalls through `/dev/xen/privcmd`, and
//! binding a packet socket to an interface.
//!
//! ABI: `public/domctl.h` of Xen 4.17 (interface version 0x15), Linux `xen/privcmd.h` and `linux/if_packet.h`.
#![allow(unsafe_code)]
// Constants of the ABI that fit, and whose types in `libc` are wider than the fields they go into.
#![allow(clippy::cast_possible_truncation)]

use std::fs::File;
use std::io;
use std::mem::{offset_of, size_of};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

use rustix::mm::{MapFlags, ProtFlags, mmap};

/// The time stamp counter.
pub(crate) fn ticks() -> u64 {
    // SAFETY: RDTSC reads no memory; Linux leaves it to user programs unless one asks for the contrary with prctl.
    unsafe { core::arch::x86_64::_rdtsc() }
}

const HYPERVISOR_DOMCTL: u64 = 36;
const DOMCTL_INTERFACE_VERSION: u32 = 0x15;
const DOMCTL_UNPAUSEDOMAIN: u32 = 4;
const DOMCTL_GETDOMAININFO: u32 = 5;
const DOMCTL_GETVCPUCONTEXT: u32 = 13;
const PAGE: usize = 4096;
/// Pages for hypercalls: one for `struct xen_domctl`, two for `struct vcpu_guest_context` (5,168 octets).
const PAGES: usize = 3;
/// Where `user_regs.rip` is in `struct vcpu_guest_context`: after `fpu_ctxt`, `flags`, fifteen registers and two words.
const RIP: usize = 512 + 8 + 15 * 8 + 2 * 4;
/// `IOCTL_PRIVCMD_HYPERCALL`: `_IOC(_IOC_NONE, 'P', 0, sizeof(struct privcmd_hypercall))`.
const IOCTL_PRIVCMD_HYPERCALL: libc::Ioctl = 0x0030_5000;

/// `struct privcmd_hypercall`.
#[repr(C)]
struct PrivcmdHypercall {
    op: u64,
    arg: [u64; 5],
}
const _: () = assert!(size_of::<PrivcmdHypercall>() == 48);

/// `struct xen_domctl_getdomaininfo`, as far as it is read.
#[repr(C)]
#[derive(Clone, Copy)]
struct GetDomainInfo {
    domain: u16,
    pad1: u16,
    flags: u32,
    pages: [u64; 5],
    shared_info_frame: u64,
    cpu_time: u64,
    rest: [u64; 6],
}
/// What a call that takes no argument takes.
const NOTHING: GetDomainInfo = GetDomainInfo {
    domain: 0,
    pad1: 0,
    flags: 0,
    pages: [0; 5],
    shared_info_frame: 0,
    cpu_time: 0,
    rest: [0; 6],
};
const _: () = assert!(size_of::<GetDomainInfo>() == 112);
// Where `ctxt` of `struct xen_domctl_vcpucontext` is.
const _: () = assert!(offset_of!(GetDomainInfo, pages) == 8);
const _: () = assert!(RIP.is_multiple_of(8));
const _: () = assert!(offset_of!(GetDomainInfo, cpu_time) == 56);

/// `struct xen_domctl`.
#[repr(C)]
#[derive(Clone, Copy)]
struct Domctl {
    cmd: u32,
    interface_version: u32,
    domain: u16,
    pad: [u16; 3],
    info: GetDomainInfo,
    rest: [u64; 2],
}
const _: () = assert!(size_of::<Domctl>() == 144);
const _: () = assert!(offset_of!(Domctl, domain) == 8);
const _: () = assert!(offset_of!(Domctl, info) == 16);

/// What `XEN_DOMCTL_getdomaininfo` says of a domain.
pub(crate) struct DomainInfo {
    /// Whether it has shut itself down.
    pub(crate) shut_down: bool,
    /// Whether all of its vCPUs wait for something.
    pub(crate) blocked: bool,
    /// CPU time of all its vCPUs, in ns.
    pub(crate) cpu_ns: u64,
}

/// dom0's way to Xen.
pub(crate) struct Privcmd {
    device: File,
    /// [`PAGES`] of `/dev/xen/hypercall`: the kernel never moves or unmaps them, so Xen can always write to them.
    buffer: *mut Domctl,
}

impl Privcmd {
    pub(crate) fn open() -> io::Result<Self> {
        let device = File::options()
            .read(true)
            .write(true)
            .open("/dev/xen/privcmd")?;
        let pages = File::options()
            .read(true)
            .write(true)
            .open("/dev/xen/hypercall")?;
        let protection = ProtFlags::READ | ProtFlags::WRITE;
        // SAFETY: a new mapping at an address of the kernel's choice; it lives until the process ends.
        let page = unsafe {
            mmap(
                std::ptr::null_mut(),
                PAGES * PAGE,
                protection,
                MapFlags::SHARED,
                &pages,
                0,
            )
        }?;
        Ok(Self {
            device,
            buffer: page.cast(),
        })
    }

    /// Lets a paused domain run.
    pub(crate) fn unpause(&mut self, domid: u16) -> io::Result<()> {
        self.domctl(DOMCTL_UNPAUSEDOMAIN, domid, NOTHING).map(drop)
    }

    pub(crate) fn info(&mut self, domid: u16) -> io::Result<DomainInfo> {
        let answer = self.domctl(DOMCTL_GETDOMAININFO, domid, NOTHING)?;
        // Xen answers with the next domain that exists.
        if answer.info.domain != domid {
            return Err(io::Error::new(
                io::ErrorKind::NotFound,
                format!("there is no domain {domid}"),
            ));
        }
        Ok(DomainInfo {
            shut_down: answer.info.flags & 4 != 0,
            blocked: answer.info.flags & 16 != 0,
            cpu_ns: answer.info.cpu_time,
        })
    }

    /// Where the first vCPU of a domain executes. Xen stops it for as long as that takes.
    pub(crate) fn instruction(&mut self, domid: u16) -> io::Result<u64> {
        let context = self.buffer.cast::<u8>().wrapping_add(PAGE);
        // struct xen_domctl_vcpucontext: the vCPU's number, padding, and the address of struct vcpu_guest_context.
        let request = GetDomainInfo {
            pages: [context as u64, 0, 0, 0, 0],
            ..NOTHING
        };
        self.domctl(DOMCTL_GETVCPUCONTEXT, domid, request)?;
        // SAFETY: inside the pages mapped in `open`, which only `&mut self` reaches; the offset is a multiple of 8.
        Ok(unsafe { context.wrapping_add(RIP).cast::<u64>().read() })
    }

    fn domctl(&mut self, cmd: u32, domid: u16, info: GetDomainInfo) -> io::Result<Domctl> {
        let request = Domctl {
            cmd,
            interface_version: DOMCTL_INTERFACE_VERSION,
            domain: domid,
            pad: [0; 3],
            info,
            rest: [0; 2],
        };
        // SAFETY: `buffer` is the page mapped in `open`, large and aligned enough, and only `&mut self` reaches it.
        unsafe { self.buffer.write(request) };
        let mut call = PrivcmdHypercall {
            op: HYPERVISOR_DOMCTL,
            arg: [self.buffer as u64, 0, 0, 0, 0],
        };
        // SAFETY: the ioctl reads `call`, and Xen reads and writes the one `struct xen_domctl` it points to, neither
        // of which anything else touches meanwhile.
        let result = unsafe {
            libc::ioctl(
                self.device.as_raw_fd(),
                IOCTL_PRIVCMD_HYPERCALL,
                &raw mut call,
            )
        };
        if result < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: as for the write; all bit patterns are values of `Domctl`.
        Ok(unsafe { self.buffer.read() })
    }
}

/// A packet socket that gets every frame of one interface, and does not block.
pub(crate) fn packet_socket(interface: u32) -> io::Result<OwnedFd> {
    // Protocol 0: nothing is received before the socket is bound to its interface.
    // SAFETY: no memory is passed.
    let fd = unsafe {
        libc::socket(
            libc::AF_PACKET,
            libc::SOCK_RAW | libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK,
            0,
        )
    };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the descriptor is new, and nothing else owns it.
    let socket = unsafe { OwnedFd::from_raw_fd(fd) };
    let address = libc::sockaddr_ll {
        sll_family: libc::AF_PACKET as u16,
        sll_protocol: (libc::ETH_P_ALL as u16).to_be(),
        sll_ifindex: i32::try_from(interface).map_err(|_| io::ErrorKind::InvalidInput)?,
        sll_hatype: 0,
        sll_pkttype: 0,
        sll_halen: 0,
        sll_addr: [0; 8],
    };
    let size = size_of::<libc::sockaddr_ll>() as libc::socklen_t;
    // SAFETY: `address` is a `sockaddr_ll` of that size, and is only read.
    let result = unsafe { libc::bind(socket.as_raw_fd(), (&raw const address).cast(), size) };
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(socket)
    }
}
