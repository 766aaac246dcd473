//! The differences between versions of Xen.

use super::abi;

/// The domctl interface of a supported version of Xen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Interface {
    /// `XEN_DOMCTL_INTERFACE_VERSION`.
    pub(crate) domctl: u32,
    /// Whether `xen_domctl_createdomain` has `altp2m_opts`.
    pub(crate) altp2m_opts: bool,
}

impl Interface {
    pub(crate) fn of(major: u32, minor: u32) -> Option<Self> {
        match (major, minor) {
            (4, 17) => Some(Self {
                domctl: 0x15,
                altp2m_opts: false,
            }),
            (4, 18) => Some(Self {
                domctl: 0x16,
                altp2m_opts: false,
            }),
            (4, 19 | 20) => Some(Self {
                domctl: 0x17,
                altp2m_opts: true,
            }),
            _ => None,
        }
    }
}

/// Converts the structure to the layout of 4.19 and 4.20.
pub(super) fn create_4_19(old: &abi::xen_domctl_createdomain) -> abi::xen_domctl_createdomain_4_19 {
    abi::xen_domctl_createdomain_4_19 {
        ssidref: old.ssidref,
        handle: old.handle,
        flags: old.flags,
        iommu_opts: old.iommu_opts,
        max_vcpus: old.max_vcpus,
        max_evtchn_port: old.max_evtchn_port,
        max_grant_frames: old.max_grant_frames,
        max_maptrack_frames: old.max_maptrack_frames,
        grant_opts: old.grant_opts,
        altp2m_opts: 0,
        vmtrace_size: old.vmtrace_size,
        cpupool_id: old.cpupool_id,
        arch: old.arch,
    }
}

#[cfg(test)]
mod tests {
    use zerocopy::IntoBytes;

    use super::*;

    #[test]
    fn what_follows_altp2m_opts_has_moved_by_four() {
        let old = abi::xen_domctl_createdomain {
            ssidref: 1,
            handle: [2; 16],
            flags: 3,
            iommu_opts: 4,
            max_vcpus: 5,
            max_evtchn_port: 6,
            max_grant_frames: 7,
            max_maptrack_frames: 8,
            grant_opts: 9,
            vmtrace_size: 10,
            cpupool_id: 11,
            arch: abi::xen_arch_domainconfig {
                emulation_flags: 12,
                misc_flags: 13,
            },
        };
        let new = create_4_19(&old);
        let (old, new) = (old.as_bytes(), new.as_bytes());
        assert_eq!(old[..48], new[..48]);
        assert_eq!(new[48..52], [0; 4]);
        assert_eq!(old[48..], new[52..]);
    }
}
