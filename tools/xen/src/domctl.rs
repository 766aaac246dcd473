//! The calls that create, change and destroy domains.
//!
//! domctl's interface changes between versions of Xen without negotiation. So Xen's version selects the layout, and a
//! version whose headers were not checked is refused.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};

use zerocopy::{FromZeros, IntoBytes};

use super::abi::{self, PAGE_SIZE, xen_domctl};
use super::error::Error;
use super::interface::{Interface, create_4_19};
use super::sys::{DATA_MAX, Mapping, Privcmd};

/// The parameters of a new domain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NewDomain {
    /// Its UUID.
    pub handle: [u8; 16],
    /// The greatest number of frames of its grant table.
    pub grant_frames: u16,
}

/// The behaviour of RDTSC in a domain (`TSC_MODE_*`, asm-x86/time.h, and xl.cfg's `tsc_mode`).
#[derive(
    Debug,
    Clone,
    Copy,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Default,
    serde::Serialize,
    serde::Deserialize,
)]
#[serde(rename_all = "snake_case")]
pub enum TscMode {
    /// Emulated if the hardware cannot provide it correctly.
    #[default]
    Default = 0,
    /// Always emulated.
    AlwaysEmulate = 1,
    /// Never emulated.
    Native = 2,
}

/// A range of the memory map that a guest may ask Xen for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MapEntry {
    /// Its first address.
    pub start: u64,
    /// Its size in bytes.
    pub size: u64,
    /// `XEN_HVM_MEMMAP_TYPE_*`.
    pub kind: u32,
}

/// The interface of Xen for a privileged domain.
pub struct Xen {
    pub(super) privcmd: Privcmd,
    interface: Interface,
    version: (u32, u32),
}

impl AsFd for Xen {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.privcmd.as_fd()
    }
}

/// The greatest number of repetitions of a call that Xen interrupts. Each call makes progress.
const AGAIN_MAX: usize = 100_000;

impl Xen {
    /// Opens the interface and checks Xen's version.
    ///
    /// # Errors
    /// There is no Xen; no permission; or an unsupported version of Xen.
    pub fn open() -> Result<Self, Error> {
        let mut privcmd = Privcmd::open().map_err(|source| Error::Unreachable { source })?;
        let version = privcmd
            .hypercall(abi::XEN_VERSION, Some(abi::XENVER_VERSION), &mut [], &[])
            .map_err(|source| Error::Call {
                call: "XENVER_version",
                source,
            })?;
        let version = u32::try_from(version).unwrap_or(0);
        let (major, minor) = (version >> 16, version & 0xffff);
        let interface = Interface::of(major, minor).ok_or(Error::Version { major, minor })?;
        Ok(Self {
            privcmd,
            interface,
            version: (major, minor),
        })
    }

    /// The version of Xen, as major and minor number.
    #[must_use]
    pub fn version(&self) -> (u32, u32) {
        self.version
    }

    pub(super) fn domctl(
        &mut self,
        call: &'static str,
        cmd: u32,
        domain: u16,
        u: &[u8],
        data: &[u8],
    ) -> Result<xen_domctl, Error> {
        let mut argument = self.domctl_argument(cmd, domain, u);
        self.privcmd
            .hypercall(abi::DOMCTL, None, argument.as_mut_bytes(), data)
            .map_err(|source| Error::Call { call, source })?;
        Ok(argument)
    }

    pub(super) fn domctl_argument(&self, cmd: u32, domain: u16, u: &[u8]) -> xen_domctl {
        let mut argument = xen_domctl::new_zeroed();
        argument.cmd = cmd;
        argument.interface_version = self.interface.domctl;
        argument.domain = domain;
        if let Some(place) = argument.u.get_mut(..u.len()) {
            place.copy_from_slice(u);
        }
        argument
    }

    /// Creates an empty PVH domain with hardware-assisted paging. Xen chooses its number.
    ///
    /// # Errors
    /// Xen's.
    pub fn create(&mut self, new: &NewDomain) -> Result<u16, Error> {
        let old = createdomain(new);
        let argument = if self.interface.altp2m_opts {
            create_4_19(&old).as_bytes().to_vec()
        } else {
            old.as_bytes().to_vec()
        };
        // 0 lets Xen choose the number, as does every number that is not a guest's.
        let answer = self.domctl(
            "XEN_DOMCTL_createdomain",
            abi::XEN_DOMCTL_CREATEDOMAIN,
            0,
            &argument,
            &[],
        )?;
        Ok(answer.domain)
    }

    /// Sets the memory in bytes for the paging structures of a domain. A new domain has 1 MiB.
    ///
    /// # Errors
    /// Xen's.
    pub fn paging_pool(&mut self, domain: u16, bytes: u64) -> Result<(), Error> {
        let cmd = abi::XEN_DOMCTL_SET_PAGING_MEMPOOL_SIZE;
        for _ in 0..AGAIN_MAX {
            match self.domctl(
                "XEN_DOMCTL_set_paging_mempool_size",
                cmd,
                domain,
                &bytes.to_ne_bytes(),
                &[],
            ) {
                Err(Error::Call { source, .. }) if is_again(&source) => {}
                result => return result.map(drop),
            }
        }
        Err(endless("XEN_DOMCTL_set_paging_mempool_size"))
    }

    /// Pauses a domain. Pauses are counted.
    ///
    /// # Errors
    /// Xen's.
    pub fn pause(&mut self, domain: u16) -> Result<(), Error> {
        self.domctl(
            "XEN_DOMCTL_pausedomain",
            abi::XEN_DOMCTL_PAUSEDOMAIN,
            domain,
            &[],
            &[],
        )
        .map(drop)
    }

    /// Undoes one [`Self::pause`]. The domain runs when all are undone.
    ///
    /// # Errors
    /// Xen's.
    pub fn unpause(&mut self, domain: u16) -> Result<(), Error> {
        self.domctl(
            "XEN_DOMCTL_unpausedomain",
            abi::XEN_DOMCTL_UNPAUSEDOMAIN,
            domain,
            &[],
            &[],
        )
        .map(drop)
    }

    /// Destroys a domain. It is gone when none of its pages is mapped any more.
    ///
    /// # Errors
    /// Xen's.
    pub fn destroy(&mut self, domain: u16) -> Result<(), Error> {
        for _ in 0..AGAIN_MAX {
            match self.domctl(
                "XEN_DOMCTL_destroydomain",
                abi::XEN_DOMCTL_DESTROYDOMAIN,
                domain,
                &[],
                &[],
            ) {
                Err(Error::Call { source, .. }) if is_again(&source) => {}
                result => return result.map(drop),
            }
        }
        Err(endless("XEN_DOMCTL_destroydomain"))
    }

    /// Shuts a domain down from outside, as if it had shut itself down.
    ///
    /// # Errors
    /// Xen's.
    pub fn shutdown(&mut self, domain: u16, reason: u8) -> Result<(), Error> {
        let mut argument = abi::sched_remote_shutdown {
            domain_id: domain,
            pad: 0,
            reason: u32::from(reason),
        };
        self.privcmd
            .hypercall(
                abi::SCHED_OP,
                Some(abi::SCHEDOP_REMOTE_SHUTDOWN),
                argument.as_mut_bytes(),
                &[],
            )
            .map(drop)
            .map_err(|source| Error::Call {
                call: "SCHEDOP_remote_shutdown",
                source,
            })
    }

    /// Maps pages of a domain, in the order given.
    pub fn map(&self, domain: u16, gfns: &[u64]) -> Result<Mapping, Error> {
        let call = "IOCTL_PRIVCMD_MMAPBATCH_V2";
        self.privcmd
            .map(domain, gfns)
            .map_err(|source| Error::Call { call, source })
    }

    /// Maps the first frame of a domain's grant table: 512 entries of version 1.
    pub fn map_grants(&self, domain: u16) -> Result<Mapping, Error> {
        let (kind, id) = (
            abi::XENMEM_RESOURCE_GRANT_TABLE,
            abi::XENMEM_RESOURCE_GRANT_TABLE_ID_SHARED,
        );
        let call = "XENMEM_acquire_resource";
        self.privcmd
            .map_resource(domain, kind, id, 1)
            .map_err(|source| Error::Call { call, source })
    }
}

/// The parameters of a new domain, for Xen 4.17 and 4.18.
fn createdomain(new: &NewDomain) -> abi::xen_domctl_createdomain {
    abi::xen_domctl_createdomain {
        ssidref: abi::SECINITSID_DOMU,
        handle: new.handle,
        flags: abi::XEN_DOMCTL_CDF_HVM | abi::XEN_DOMCTL_CDF_HAP,
        iommu_opts: 0,
        max_vcpus: 1,
        max_evtchn_port: 1023,
        max_grant_frames: i32::from(new.grant_frames),
        max_maptrack_frames: 0,
        // Version 1 only: a table of prepared entries can't change its version under the back end.
        grant_opts: 1,
        vmtrace_size: 0,
        cpupool_id: 0,
        arch: abi::xen_arch_domainconfig {
            emulation_flags: abi::XEN_X86_EMU_LAPIC,
            misc_flags: 0,
        },
    }
}

const _: () = assert!(DATA_MAX.is_multiple_of(PAGE_SIZE));

fn is_again(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EAGAIN | libc::EINTR))
}

fn endless(call: &'static str) -> Error {
    Error::Call {
        call,
        source: io::Error::from_raw_os_error(libc::EAGAIN),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Without a label FLASK refuses what a guest asks for: `unlabeled_t` may do nothing.
    #[test]
    fn a_new_domain_has_the_label_of_a_guest() {
        let new = NewDomain {
            handle: [7; 16],
            grant_frames: 4,
        };
        let old = createdomain(&new);
        for bytes in [old.as_bytes(), create_4_19(&old).as_bytes()] {
            let label = bytes.first_chunk().map(|label| u32::from_ne_bytes(*label));
            assert_eq!(label, Some(12), "domU in xen/xsm/flask/policy/initial_sids");
            assert_eq!(bytes.get(4..20), Some(&[7; 16][..]));
        }
    }
}
