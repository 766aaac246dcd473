//! Errors of hypercalls and of Xen's devices.

use std::io;

/// An error of Xen or of the path to it.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Xen cannot be reached.
    #[error(
        "cannot speak to Xen: {source}; hatch runs as root in dom0, and needs Linux 5.0 or later with xen-privcmd"
    )]
    Unreachable {
        /// The error of the device.
        source: io::Error,
    },
    /// The version of Xen is not supported.
    #[error(
        "Xen {major}.{minor} is not known to hatch, which knows 4.17 to 4.20: its domctl interface may differ"
    )]
    Version {
        /// The 4 of 4.17.
        major: u32,
        /// The 17 of 4.17.
        minor: u32,
    },
    /// Xen, or the kernel on the way to it, refused a call.
    #[error("{call}: {source}{}", hint(.call, .source))]
    Call {
        /// The call, as the headers name it.
        call: &'static str,
        /// Xen's error.
        source: io::Error,
    },
}

/// A likely cause, for errors whose number says little.
fn hint(call: &str, error: &io::Error) -> &'static str {
    match (call, error.raw_os_error()) {
        (
            "XENMEM_populate_physmap" | "XEN_DOMCTL_createdomain" | "XEN_DOMCTL_max_vcpus",
            Some(libc::ENOMEM),
        ) => {
            " (Xen has no free memory for this domain: see `xl info`, free_memory; dom0 may have it all, and hatch takes none from it, as \
             autoballoon=\"on\" of xl.conf does: `xl mem-set 0 MIB`, or dom0_mem=MIB on Xen's command line)"
        }
        ("XEN_DOMCTL_createdomain", Some(libc::EOPNOTSUPP | libc::EINVAL | libc::ENODEV)) => {
            " (PVH needs a CPU with hardware-assisted paging, switched on in the firmware: see `xl info`, virt_caps)"
        }
        (_, Some(libc::EACCES)) => {
            " (this Xen's interface has another version than its number tells)"
        }
        (_, Some(libc::EPERM)) => " (only a privileged domain may do this)",
        _ => "",
    }
}

impl Error {
    /// Whether the domain that was asked about does not exist.
    #[must_use]
    pub fn is_no_such_domain(&self) -> bool {
        matches!(self, Self::Call { source, .. } if source.raw_os_error() == Some(libc::ESRCH))
    }

    /// Whether a permission is missing.
    #[must_use]
    pub fn is_permission(&self) -> bool {
        match self {
            Self::Unreachable { source } => source.kind() == io::ErrorKind::PermissionDenied,
            Self::Call { source, .. } => source.raw_os_error() == Some(libc::EPERM),
            Self::Version { .. } => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// hatch takes no memory from dom0, as xl does where autoballoon is on: it says so when there is none.
    #[test]
    fn want_of_memory_names_the_way_out() {
        let error = |call, number| Error::Call {
            call,
            source: io::Error::from_raw_os_error(number),
        };
        let text = error("XENMEM_populate_physmap", libc::ENOMEM).to_string();
        for word in ["autoballoon", "xl mem-set 0", "dom0_mem", "free_memory"] {
            assert!(text.contains(word), "{word}: {text}");
        }
        let other = error("XENMEM_populate_physmap", libc::EBUSY).to_string();
        assert!(!other.contains("autoballoon"), "{other}");
    }
}
