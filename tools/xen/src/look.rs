//! The calls that read the state of domains and of the host.

use zerocopy::{FromBytes, FromZeros, IntoBytes};

use super::abi;
use super::domctl::Xen;
use super::error::Error;
use super::sys::DATA_MAX;

/// Xen's information about a domain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DomainInfo {
    /// Its number.
    pub domid: u16,
    /// Its UUID.
    pub handle: [u8; 16],
    /// `XEN_DOMINF_*`.
    pub flags: u32,
    /// The number of pages that it has.
    pub pages: u64,
    /// The greatest number of pages that it may have.
    pub max_pages: u64,
    /// Time on CPUs, in ns.
    pub cpu_ns: u64,
    /// The number of online vCPUs.
    pub vcpus: u32,
}

impl DomainInfo {
    /// Whether it is being destroyed.
    #[must_use]
    pub fn is_dying(&self) -> bool {
        self.flags & abi::XEN_DOMINF_DYING != 0
    }

    /// Whether it is paused by a toolstack.
    #[must_use]
    pub fn is_paused(&self) -> bool {
        self.flags & abi::XEN_DOMINF_PAUSED != 0
    }

    /// Whether all of its vCPUs are blocked.
    #[must_use]
    pub fn is_blocked(&self) -> bool {
        self.flags & abi::XEN_DOMINF_BLOCKED != 0
    }

    /// Whether it is running at the moment.
    #[must_use]
    pub fn is_running(&self) -> bool {
        self.flags & abi::XEN_DOMINF_RUNNING != 0
    }

    /// The reason of its shutdown, if it has shut down (`SHUTDOWN_*`, sched.h): 0 poweroff, 1 reboot, 2 suspend, 3
    /// crash, 4 watchdog.
    #[must_use]
    pub fn shutdown(&self) -> Option<u8> {
        let reason = (self.flags >> abi::XEN_DOMINF_SHUTDOWNSHIFT) & 0xff;
        (self.flags & abi::XEN_DOMINF_SHUTDOWN != 0)
            .then(|| u8::try_from(reason).unwrap_or(u8::MAX))
    }

    fn of(info: &abi::xen_domctl_getdomaininfo) -> Self {
        Self {
            domid: info.domain,
            handle: info.handle,
            flags: info.flags,
            pages: info.tot_pages,
            max_pages: info.max_pages,
            cpu_ns: info.cpu_time,
            vcpus: info.nr_online_vcpus,
        }
    }
}

impl Xen {
    /// Xen's information about a domain; `None` if there is no domain of this number.
    ///
    /// # Errors
    /// Xen's.
    pub fn info(&mut self, domain: u16) -> Result<Option<DomainInfo>, Error> {
        let answer = self.domctl(
            "XEN_DOMCTL_getdomaininfo",
            abi::XEN_DOMCTL_GETDOMAININFO,
            domain,
            &[],
            &[],
        );
        let answer = match answer {
            Err(error) if error.is_no_such_domain() => return Ok(None),
            answer => answer?,
        };
        let info = abi::xen_domctl_getdomaininfo::read_from_prefix(&answer.u);
        // Before 4.18, the answer for a missing domain is the next existing one.
        Ok(info
            .ok()
            .map(|(info, _)| DomainInfo::of(&info))
            .filter(|info| info.domid == domain))
    }

    /// All domains, in the order of their numbers.
    ///
    /// # Errors
    /// Xen's.
    pub fn list(&mut self) -> Result<Vec<DomainInfo>, Error> {
        const EACH: usize = size_of::<abi::xen_domctl_getdomaininfo>();
        let most = DATA_MAX / EACH;
        let mut all: Vec<DomainInfo> = Vec::new();
        let mut first = 0;
        // Each round reads at most `most` domains.
        while first < abi::DOMID_FIRST_RESERVED {
            let mut argument = abi::xen_sysctl_getdomaininfolist::new_zeroed();
            argument.cmd = abi::XEN_SYSCTL_GETDOMAININFOLIST;
            argument.interface_version = abi::XEN_SYSCTL_INTERFACE_VERSION;
            argument.first_domain = first;
            argument.max_domains = u32::try_from(most).unwrap_or(1);
            argument.buffer = self.privcmd.data_address();
            self.privcmd
                .hypercall(abi::SYSCTL, None, argument.as_mut_bytes(), &[])
                .map_err(|source| Error::Call {
                    call: "XEN_SYSCTL_getdomaininfolist",
                    source,
                })?;
            let count = usize::try_from(argument.num_domains).unwrap_or(0).min(most);
            let mut bytes = vec![0; count * EACH];
            self.privcmd.data(&mut bytes);
            let infos = bytes
                .chunks_exact(EACH)
                .filter_map(|bytes| abi::xen_domctl_getdomaininfo::read_from_bytes(bytes).ok());
            all.extend(infos.map(|info| DomainInfo::of(&info)));
            match all.last() {
                Some(last) if count == most && last.domid >= first => {
                    first = last.domid.saturating_add(1)
                }
                _ => break,
            }
        }
        Ok(all)
    }

    /// The host's free memory in MiB, memory that is still being scrubbed included.
    ///
    /// # Errors
    /// Xen's.
    pub fn free_memory(&mut self) -> Result<u64, Error> {
        let mut argument = abi::xen_sysctl_physinfo::new_zeroed();
        argument.cmd = abi::XEN_SYSCTL_PHYSINFO;
        argument.interface_version = abi::XEN_SYSCTL_INTERFACE_VERSION;
        self.privcmd
            .hypercall(abi::SYSCTL, None, argument.as_mut_bytes(), &[])
            .map_err(|source| Error::Call {
                call: "XEN_SYSCTL_physinfo",
                source,
            })?;
        Ok(argument.free_pages.saturating_add(argument.scrub_pages) >> 8)
    }

    /// The instruction pointer of vCPU 0 of a domain. Xen stops the vCPU while it reads it.
    ///
    /// # Errors
    /// Xen's.
    pub fn instruction(&mut self, domain: u16) -> Result<u64, Error> {
        let request = abi::xen_domctl_vcpucontext {
            vcpu: 0,
            pad: 0,
            ctxt: self.privcmd.data_address(),
        };
        self.domctl(
            "XEN_DOMCTL_getvcpucontext",
            abi::XEN_DOMCTL_GETVCPUCONTEXT,
            domain,
            request.as_bytes(),
            &[],
        )?;
        let mut context = [0; abi::VCPU_RIP + size_of::<u64>()];
        self.privcmd.data(&mut context);
        let (_, rip) = context.split_at(abi::VCPU_RIP);
        Ok(u64::read_from_bytes(rip).unwrap_or_default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_info_is_read() {
        let mut info = abi::xen_domctl_getdomaininfo::new_zeroed();
        info.domain = 7;
        info.flags = abi::XEN_DOMINF_SHUTDOWN | 3 << 16 | abi::XEN_DOMINF_PAUSED;
        let info = DomainInfo::of(&info);
        assert_eq!(
            (
                info.domid,
                info.shutdown(),
                info.is_paused(),
                info.is_dying()
            ),
            (7, Some(3), true, false)
        );
    }
}
