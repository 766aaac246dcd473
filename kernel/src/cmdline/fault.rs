//! Errors in the command line.

use core::fmt;

use mayfly_dns as dns;

use super::limits::{MAX_ADDRESSES, MTU, MTU6, PAYLOAD_MAX};

/// The error in a word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The word is not UTF-8.
    NotUtf8,
    /// The address cannot be parsed.
    BadAddress,
    /// An interface address has no `/` and prefix length.
    NoPrefix,
    /// The prefix length is not a number from 1 to the family's number of bits.
    BadPrefix,
    /// The address is unspecified, loopback, multicast, broadcast or IPv4-mapped.
    NotUnicast,
    /// The address is its subnet's network or broadcast address (RFC 1122 section 3.2.1.3).
    NotHost,
    /// The same address, gateway family or switch was given before.
    Repeated,
    /// More than [`MAX_ADDRESSES`] addresses.
    TooMany,
    /// `ip=dhcp` together with a static IPv4 address.
    DhcpAndStatic,
    /// A gateway of a family that has no static address.
    NoAddressForGateway,
    /// A gateway outside every subnet of its family.
    GatewayUnreachable,
    /// A gateway that is the guest's own address.
    GatewayIsSelf,
    /// A switch that is neither `on` nor `off`.
    NotOnOff,
    /// A console that is neither `on`, `off` nor a device.
    BadConsole,
    /// An unknown endpoint.
    BadEndpoints,
    /// `payload` without a number of bytes, or with one that is out of range.
    PayloadWithoutBound,
    /// An MTU that is no number in [`MTU`].
    BadMtu,
    /// An MTU below the least that IPv6 allows.
    MtuOfIpv6,
    /// A rate that is neither `off` nor a number from 1 to 65535.
    BadRate,
    /// A name that is empty, too long, or not of printable ASCII characters.
    BadName,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NotUtf8 => "not UTF-8",
            Self::BadAddress => "not an IP address",
            Self::NoPrefix => "a prefix length is missing, as in 10.0.2.80/24 or fd00::80/64",
            Self::BadPrefix => "the prefix length must be 1 to 32 (IPv4) or 1 to 128 (IPv6)",
            Self::NotUnicast => "not a unicast address of an interface",
            Self::NotHost => "the network or broadcast address of its subnet",
            Self::Repeated => "given twice",
            Self::TooMany => return write!(f, "more than {MAX_ADDRESSES} addresses"),
            Self::DhcpAndStatic => "ip=dhcp excludes a static IPv4 address",
            Self::NoAddressForGateway => "there is no static address of this family",
            Self::GatewayUnreachable => "not in the subnet of any address",
            Self::GatewayIsSelf => "the guest's own address",
            Self::NotOnOff => "must be on or off",
            Self::BadConsole => "must be on or off, or a device such as hvc0",
            Self::BadEndpoints => {
                "must be none, or some of boot, metrics, healthz (all: these three) and payload:BYTES with commas between"
            }
            Self::PayloadWithoutBound => {
                return write!(
                    f,
                    "payload must have a bound of 1 to {PAYLOAD_MAX} bytes, as in payload:1048576"
                );
            }
            Self::BadMtu => {
                return write!(f, "must be {} to {}", MTU.start(), MTU.end());
            }
            Self::MtuOfIpv6 => return write!(f, "must be {MTU6} or more with an IPv6 address"),
            Self::BadRate => "must be off or 1 to 65535",
            Self::BadName => {
                return write!(f, "must be 1 to {} printable ASCII characters", dns::IDENTITY_MAX);
            }
        })
    }
}

/// An error in the command line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CmdlineError<'a> {
    /// The word as it was given.
    pub word: &'a [u8],
    /// The error in it.
    pub fault: Fault,
}

impl fmt::Display for CmdlineError<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "command line: {}: {}",
            self.word.escape_ascii(),
            self.fault
        )
    }
}

impl core::error::Error for CmdlineError<'_> {}
