//! Lists of packages by purpose.

/// The packages of dom0. libxl loads libgcc_s by name when it cancels a thread; Xen's stock hotplug scripts need bash.
const DOM0: &[&str] = &[
    "bash",
    "busybox-static",
    "libc6",
    "libgcc-s1",
    "liblzma5",
    "libtinfo6",
    "libuuid1",
    "libxencall1",
    "libxendevicemodel1",
    "libxenevtchn1",
    "libxenforeignmemory1",
    "libxengnttab1",
    "libxenhypfs1",
    "libxenmisc4.17",
    "libxenstore4",
    "libxentoolcore1",
    "libxentoollog1",
    "libyajl2",
    "libzstd1",
    "xen-hypervisor-4.17-amd64",
    "xen-utils-4.17",
    "xen-utils-common",
    "xenstore-utils",
    "zlib1g",
];

/// The servers that mayfly is compared with, and their libraries.
const SERVERS: &[&str] = &[
    "libc6",
    "libcap2",
    "libcrypt1",
    "libevent-2.1-7",
    "libfstrm0",
    "libgcrypt20",
    "libgpg-error0",
    "liblz4-1",
    "liblzma5",
    "libpcre2-8-0",
    "libprotobuf-c1",
    "libssl3",
    "libsystemd0",
    "libzstd1",
    "nginx",
    "nginx-common",
    "nsd",
    "zlib1g",
];

/// Load generators for dom0.
const LOAD: &[&str] = &[
    "dnsperf",
    "libc6",
    "libgcc-s1",
    "libldns3",
    "libluajit2-5.1-2",
    "libnghttp2-14",
    "libssl3",
    "wrk",
];

/// The usual clients, run on the host. The host's own libraries serve where a package is not listed.
const CLIENTS: &[&str] = &[
    "bind9-dnsutils",
    "bind9-libs",
    "curl",
    "knot-dnsutils",
    "ldnsutils",
    "libbpf1",
    "libbrotli1",
    "libcom-err2",
    "libcurl4",
    "libdnssec9",
    "libedit2",
    "libelf1",
    "libffi8",
    "libfstrm0",
    "libgmp10",
    "libgnutls30",
    "libgssapi-krb5-2",
    "libhogweed6",
    "libicu72",
    "libidn2-0",
    "libjemalloc2",
    "libjson-c5",
    "libk5crypto3",
    "libkeyutils1",
    "libknot13",
    "libkrb5-3",
    "libkrb5support0",
    "libldap-2.5-0",
    "libldns3",
    "liblmdb0",
    "libmaxminddb0",
    "libnettle8",
    "libnghttp2-14",
    "libp11-kit0",
    "libprotobuf-c1",
    "libpsl5",
    "librtmp1",
    "libsasl2-2",
    "libssh2-1",
    "libssl3",
    "libtasn1-6",
    "libunistring2",
    "libuv1",
    "libxdp1",
    "libxml2",
    "libzscanner4",
];

/// systemd, with its libraries.
const SYSTEMD: &[&str] = &[
    "libacl1",
    "libapparmor1",
    "libaudit1",
    "libblkid1",
    "libc6",
    "libcap-ng0",
    "libcap2",
    "libcrypt1",
    "libgcrypt20",
    "libgpg-error0",
    "libip4tc2",
    "libkmod2",
    "liblz4-1",
    "liblzma5",
    "libmount1",
    "libpam0g",
    "libpcre2-8-0",
    "libseccomp2",
    "libselinux1",
    "libssl3",
    "libsystemd-shared",
    "libsystemd0",
    "libzstd1",
    "systemd",
];

/// A set of packages that is unpacked into one folder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Set {
    /// Xen, its tools and dom0's kernel.
    Dom0,
    /// A kernel for a Linux guest.
    LinuxGuest,
    /// NSD and nginx, with their libraries.
    Servers,
    /// dnsperf and wrk, with their libraries.
    Load,
    /// systemd, for dom0.
    Systemd,
    /// curl, dig, delv, kdig and ldns-signzone, to be run on the host with [`host_command`](crate::host_command).
    Clients,
}

impl Set {
    pub(super) fn folder(self) -> &'static str {
        match self {
            Self::Dom0 => "dom0",
            Self::LinuxGuest => "linux-guest",
            Self::Servers => "servers",
            Self::Load => "load",
            Self::Systemd => "systemd",
            Self::Clients => "clients",
        }
    }

    pub(super) fn packages(self) -> &'static [&'static str] {
        match self {
            Self::Dom0 => DOM0,
            Self::LinuxGuest => &[],
            Self::Servers => SERVERS,
            Self::Load => LOAD,
            Self::Systemd => SYSTEMD,
            Self::Clients => CLIENTS,
        }
    }

    /// The free space in bytes that downloading and unpacking take, with a margin of about a half.
    pub(super) fn room(self) -> u64 {
        match self {
            Self::Dom0 => 900 << 20,
            Self::LinuxGuest | Self::Servers | Self::Load | Self::Systemd | Self::Clients => {
                300 << 20
            }
        }
    }

    /// The package that depends on the current kernel. The `-cloud-` flavour cannot be dom0.
    pub(super) fn kernel(self) -> Option<&'static str> {
        match self {
            Self::Dom0 => Some("linux-image-amd64"),
            Self::LinuxGuest => Some("linux-image-cloud-amd64"),
            Self::Servers | Self::Load | Self::Systemd | Self::Clients => None,
        }
    }
}
