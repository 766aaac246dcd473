//! The kernel command line.
//!
//! Words separated by ASCII white space:
//!
//! | word | meaning |
//! |---|---|
//! | `ip=10.0.2.80/24`, `ip=fd00::80/64` | an interface address and its prefix length; up to [`MAX_ADDRESSES`] |
//! | `ip=dhcp` | ask DHCPv4; the default when there is no `ip=` at all |
//! | `ip=auto` | an IPv6 address by router advertisements (SLAAC, RFC 4862), and their router as gateway |
//! | `gw=10.0.2.2`, `gw=fd00::1` | the default gateway, one for each family |
//! | `mtu=1400` | the greatest MTU, [`MTU`] bytes of IP packet; that of the interface counts where it is less. With an IPv6 address it is 1280 at least |
//! | `console=on`, `console=off` | whether the console ring is written to; on by default. Linux' words are taken as Linux means them: a device (`hvc0`, `ttyS0,115200`) as `on`, `null` and nothing as `off` |
//! | `endpoints=healthz,boot`, `endpoints=none` | which of the guest's own pages are served: `boot`, `metrics`, `healthz` (`/.mayfly/boot` and so on), or `all` three; only `healthz` by default |
//! | `endpoints=payload:1048576` | serves `/.mayfly/payload/N` with `N` up to this many bytes, for load tests; may stand in the same list |
//! | `rrl=200`, `rrl=off` | DNS answers a second over UDP to one network (/24 or /56), or no limit; [`dns::Config::RATE_LIMIT`] by default |
//! | `minimal-responses=on`, `minimal-responses=off` | whether DNS answers leave out the zone's NS records and addresses that were not asked for; off by default |
//! | `nsid=ns1.example` | what the DNS server calls itself (RFC 5001): 1 to [`dns::IDENTITY_MAX`] printable ASCII characters |
//!
//! A known key with a bad value is an error, and so are words that contradict each other; a word
//! with an unknown key is handed to the caller and ignored.

use core::fmt;
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use core::num::NonZeroU16;
use core::ops::RangeInclusive;
use core::str::FromStr;

use mayfly_dns as dns;

/// What may be given as an MTU: what every host must take (RFC 791) to what Ethernet carries.
pub const MTU: RangeInclusive<u16> = 576..=1500;
/// The least MTU with IPv6 (RFC 8200 section 5).
const MTU6: u16 = 1280;

/// The number of interface addresses that one guest may be given.
pub const MAX_ADDRESSES: usize = 4;

/// An interface address and the length of its network prefix in bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IpCidr {
    /// The interface's own unicast address.
    pub address: IpAddr,
    /// 1 to 32 for IPv4, 1 to 128 for IPv6.
    pub prefix_len: u8,
}

impl IpCidr {
    /// Whether `other` is in this address's subnet.
    #[must_use]
    pub fn contains(&self, other: IpAddr) -> bool {
        match (self.address, other) {
            (IpAddr::V4(own), IpAddr::V4(other)) => {
                let differing = own.to_bits() ^ other.to_bits();
                differing & !host_mask4(self.prefix_len) == 0
            }
            (IpAddr::V6(own), IpAddr::V6(other)) => {
                let shift = 128 - u32::from(self.prefix_len.min(128));
                (own.to_bits() ^ other.to_bits())
                    .checked_shr(shift)
                    .unwrap_or(0)
                    == 0
            }
            _ => false,
        }
    }
}

/// The bits of an IPv4 address beyond the prefix.
fn host_mask4(prefix_len: u8) -> u32 {
    u32::MAX.checked_shr(u32::from(prefix_len)).unwrap_or(0)
}

/// What the command line asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    addresses: [Option<IpCidr>; MAX_ADDRESSES],
    /// The IPv4 default gateway.
    pub gw4: Option<Ipv4Addr>,
    /// The IPv6 default gateway.
    pub gw6: Option<Ipv6Addr>,
    /// Whether to ask DHCPv4 for an address.
    pub dhcp: bool,
    /// Whether to take an IPv6 address from router advertisements.
    pub auto: bool,
    /// The greatest MTU, in bytes of IP packet.
    pub mtu: Option<u16>,
    /// Whether to write to the console ring.
    pub console: bool,
    /// Which of the guest's own pages are served.
    pub endpoints: Endpoints,
    /// DNS answers a second to one network over UDP; no limit when `None`.
    pub rrl: Option<NonZeroU16>,
    /// What the DNS server calls itself.
    pub nsid: dns::Identity,
    /// Whether DNS answers leave out what was not asked for and is not needed.
    pub minimal: bool,
}

/// Which of the guest's own pages are served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Endpoints {
    /// `/.mayfly/boot`
    pub boot: bool,
    /// `/.mayfly/metrics`
    pub metrics: bool,
    /// `/.mayfly/healthz`
    pub healthz: bool,
    /// The greatest `N` of `/.mayfly/payload/N`; 0 when there is no such page.
    pub payload: u64,
}

/// Bytes of the longest payload that a command line can allow.
const PAYLOAD_MAX: u64 = 1 << 32;

impl Endpoints {
    /// None of them.
    pub const NONE: Self = Self {
        boot: false,
        metrics: false,
        healthz: false,
        payload: 0,
    };
    /// What is served when the command line does not say: nothing that tells an outsider anything.
    pub const DEFAULT: Self = Self {
        healthz: true,
        ..Self::NONE
    };

    fn parse(value: &str) -> Result<Self, Fault> {
        let mut endpoints = Self::NONE;
        if value == "none" {
            return Ok(endpoints);
        }
        for name in value.split(',') {
            let Self {
                boot,
                metrics,
                healthz,
                payload,
            } = &mut endpoints;
            let repeated = match name {
                "all" => {
                    [boot, metrics, healthz].map(|page| core::mem::replace(page, true))
                        != [false; 3]
                }
                "boot" => core::mem::replace(boot, true),
                "metrics" => core::mem::replace(metrics, true),
                "healthz" => core::mem::replace(healthz, true),
                "payload" => return Err(Fault::PayloadWithoutBound),
                _ => {
                    let bound = name.strip_prefix("payload:").ok_or(Fault::BadEndpoints)?;
                    let bound = number(bound).filter(|bound| (1..=PAYLOAD_MAX).contains(bound));
                    core::mem::replace(payload, bound.ok_or(Fault::PayloadWithoutBound)?) != 0
                }
            };
            if repeated {
                return Err(Fault::Repeated);
            }
        }
        Ok(endpoints)
    }
}

impl Config {
    /// The static addresses, in the order given.
    pub fn addresses(&self) -> impl Iterator<Item = IpCidr> + '_ {
        self.addresses.iter().copied().flatten()
    }

    /// What the DNS server is told, with a secret that nobody else knows.
    #[must_use]
    pub fn dns(&self, cookie_secret: [u8; 16]) -> dns::Config {
        dns::Config {
            identity: self.nsid.clone(),
            rate_limit: self.rrl,
            minimal: self.minimal,
            ..dns::Config::new(cookie_secret)
        }
    }

    /// The first static IPv4 address.
    #[must_use]
    pub fn ipv4(&self) -> Option<Ipv4Addr> {
        self.addresses().find_map(|cidr| match cidr.address {
            IpAddr::V4(address) => Some(address),
            IpAddr::V6(_) => None,
        })
    }

    /// The first static IPv6 address.
    #[must_use]
    pub fn ipv6(&self) -> Option<Ipv6Addr> {
        self.addresses().find_map(|cidr| match cidr.address {
            IpAddr::V6(address) => Some(address),
            IpAddr::V4(_) => None,
        })
    }
}

/// What is wrong with a word.
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
    /// Neither `on` nor `off`, nor the name of a device.
    BadConsole,
    /// Something that is no endpoint.
    BadEndpoints,
    /// `payload` without a number of bytes, or with one that is out of range.
    PayloadWithoutBound,
    /// Not a number in [`MTU`].
    BadMtu,
    /// Less than IPv6 needs.
    MtuOfIpv6,
    /// Neither `off` nor a number from 1 to 65535.
    BadRate,
    /// Empty, too long, or not of printable ASCII characters.
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

/// An error in the command line: the word, and what is wrong with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CmdlineError<'a> {
    /// The word as it was given.
    pub word: &'a [u8],
    /// What is wrong with it.
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

/// Parses a command line; words with unknown keys go to `unknown`.
///
/// # Errors
/// The first word that is malformed or that contradicts an earlier one.
pub fn parse<'a>(
    cmdline: &'a [u8],
    unknown: &mut dyn FnMut(&'a str),
) -> Result<Config, CmdlineError<'a>> {
    let mut words = Words::new();
    for word in cmdline
        .split(u8::is_ascii_whitespace)
        .filter(|word| !word.is_empty())
    {
        let error = |fault| CmdlineError { word, fault };
        let text = core::str::from_utf8(word).map_err(|_| error(Fault::NotUtf8))?;
        let is_known = match text.split_once('=') {
            Some((key, value)) => words.take(key, value, word).map_err(error)?,
            None => false,
        };
        if !is_known {
            unknown(text);
        }
    }
    words.finish()
}

/// What the words so far have set, and the words themselves where they may stand once or are checked at the end:
/// gateways and `ip=dhcp` are checked against the addresses, which may come after them.
struct Words<'a> {
    config: Config,
    dhcp: Option<&'a [u8]>,
    auto: Option<&'a [u8]>,
    gw4: Option<&'a [u8]>,
    gw6: Option<&'a [u8]>,
    mtu: Option<&'a [u8]>,
    console: Option<&'a [u8]>,
    endpoints: Option<&'a [u8]>,
    rrl: Option<&'a [u8]>,
    nsid: Option<&'a [u8]>,
    minimal: Option<&'a [u8]>,
}

impl<'a> Words<'a> {
    fn new() -> Self {
        Self {
            config: Config {
                addresses: [None; MAX_ADDRESSES],
                gw4: None,
                gw6: None,
                dhcp: false,
                auto: false,
                mtu: None,
                console: true,
                endpoints: Endpoints::DEFAULT,
                rrl: Some(dns::Config::RATE_LIMIT),
                nsid: dns::Identity::new(),
                minimal: false,
            },
            dhcp: None,
            auto: None,
            gw4: None,
            gw6: None,
            mtu: None,
            console: None,
            endpoints: None,
            rrl: None,
            nsid: None,
            minimal: None,
        }
    }

    /// Takes the word `key=value`; false when the key is not known.
    fn take(&mut self, key: &str, value: &str, word: &'a [u8]) -> Result<bool, Fault> {
        match (key, value) {
            ("ip", "dhcp") => set(&mut self.dhcp, word)?,
            ("ip", "auto") => set(&mut self.auto, word)?,
            ("ip", _) => self.address(value)?,
            ("gw", _) => match unicast(value)? {
                IpAddr::V4(address) => {
                    set(&mut self.gw4, word)?;
                    self.config.gw4 = Some(address);
                }
                IpAddr::V6(address) => {
                    set(&mut self.gw6, word)?;
                    self.config.gw6 = Some(address);
                }
            },
            ("mtu", _) => {
                set(&mut self.mtu, word)?;
                let mtu = number(value).filter(|mtu| MTU.contains(mtu));
                self.config.mtu = Some(mtu.ok_or(Fault::BadMtu)?);
            }
            ("console", "on" | "off") => {
                set(&mut self.console, word)?;
                self.config.console = value == "on";
            }
            // Linux' words, of which there may be several. What mayfly's own word says stands.
            ("console", _) => {
                let is_on = linux_console(value).ok_or(Fault::BadConsole)?;
                if self.console.is_none() {
                    self.config.console = is_on;
                }
            }
            ("endpoints", _) => {
                set(&mut self.endpoints, word)?;
                self.config.endpoints = Endpoints::parse(value)?;
            }
            ("rrl", _) => {
                set(&mut self.rrl, word)?;
                self.config.rrl = match value {
                    "off" => None,
                    _ => Some(rate(value).ok_or(Fault::BadRate)?),
                };
            }
            ("nsid", _) => {
                set(&mut self.nsid, word)?;
                let is_plain =
                    !value.is_empty() && value.bytes().all(|byte| byte.is_ascii_graphic());
                self.config.nsid = dns::Identity::from_slice(value.as_bytes())
                    .ok()
                    .filter(|_| is_plain)
                    .ok_or(Fault::BadName)?;
            }
            ("minimal-responses", _) => {
                set(&mut self.minimal, word)?;
                self.config.minimal = switch(value)?;
            }
            _ => return Ok(false),
        }
        Ok(true)
    }

    fn address(&mut self, value: &str) -> Result<(), Fault> {
        let cidr = interface_address(value)?;
        if (self.config.addresses()).any(|known| known.address == cidr.address) {
            return Err(Fault::Repeated);
        }
        let slot = self.config.addresses.iter_mut().find(|slot| slot.is_none());
        *slot.ok_or(Fault::TooMany)? = Some(cidr);
        Ok(())
    }

    /// Checks what can only be checked when all words are known.
    fn finish(self) -> Result<Config, CmdlineError<'a>> {
        let mut config = self.config;
        if let Some(word) = self.dhcp
            && config.ipv4().is_some()
        {
            let fault = Fault::DhcpAndStatic;
            return Err(CmdlineError { word, fault });
        }
        if let Some(word) = self.mtu
            && config.mtu.is_some_and(|mtu| mtu < MTU6)
            && (config.ipv6().is_some() || self.auto.is_some())
        {
            let fault = Fault::MtuOfIpv6;
            return Err(CmdlineError { word, fault });
        }
        config.auto = self.auto.is_some();
        let is_silent = config.addresses().next().is_none() && !config.auto;
        config.dhcp = self.dhcp.is_some() || is_silent;
        for (word, gateway) in [
            (self.gw4, config.gw4.map(IpAddr::V4)),
            (self.gw6, config.gw6.map(IpAddr::V6)),
        ] {
            if let (Some(word), Some(gateway)) = (word, gateway) {
                check_gateway(&config, gateway).map_err(|fault| CmdlineError { word, fault })?;
            }
        }
        Ok(config)
    }
}

/// Keeps the word that sets something which may be set once.
fn set<'a>(slot: &mut Option<&'a [u8]>, word: &'a [u8]) -> Result<(), Fault> {
    match slot.replace(word) {
        None => Ok(()),
        Some(_) => Err(Fault::Repeated),
    }
}

fn switch(value: &str) -> Result<bool, Fault> {
    match value {
        "on" => Ok(true),
        "off" => Ok(false),
        _ => Err(Fault::NotOnOff),
    }
}

/// What Linux means by `console=VALUE` (its admin-guide/kernel-parameters, "console="): a device with a number, and
/// options behind a comma; nothing or `null` for no console. `None` for what is neither.
fn linux_console(value: &str) -> Option<bool> {
    let device = value.split(',').next().unwrap_or_default();
    if matches!(device, "" | "null") {
        return Some(false);
    }
    let is_device = device.bytes().all(|byte| byte.is_ascii_alphanumeric())
        && device.starts_with(|first: char| first.is_ascii_alphabetic())
        && (device.ends_with(|last: char| last.is_ascii_digit()) || device.starts_with("tty"));
    is_device.then_some(true)
}

/// A number in decimal digits and nothing else.
fn number<N: FromStr>(value: &str) -> Option<N> {
    let is_plain = value.bytes().all(|byte| byte.is_ascii_digit());
    value.parse().ok().filter(|_| is_plain)
}

fn rate(value: &str) -> Option<NonZeroU16> {
    number(value)
}

fn interface_address(value: &str) -> Result<IpCidr, Fault> {
    let (address, prefix_len) = match value.split_once('/') {
        Some((address, prefix_len)) => (unicast(address)?, prefix_len),
        None => return Err(unicast(value).err().unwrap_or(Fault::NoPrefix)),
    };
    let bits = if address.is_ipv4() { 32 } else { 128 };
    let prefix_len = number(prefix_len)
        .filter(|length| (1..=bits).contains(length))
        .ok_or(Fault::BadPrefix)?;
    // RFC 3021 gives both addresses of a /31 to hosts.
    if let IpAddr::V4(address) = address
        && prefix_len < 31
    {
        let mask = host_mask4(prefix_len);
        let host = address.to_bits() & mask;
        if host == 0 || host == mask {
            return Err(Fault::NotHost);
        }
    }
    Ok(IpCidr {
        address,
        prefix_len,
    })
}

fn unicast(value: &str) -> Result<IpAddr, Fault> {
    let address: IpAddr = value.parse().map_err(|_| Fault::BadAddress)?;
    let special = address.is_unspecified()
        || address.is_loopback()
        || address.is_multicast()
        || match address {
            IpAddr::V4(address) => address.is_broadcast(),
            IpAddr::V6(address) => address.to_ipv4_mapped().is_some(),
        };
    if special {
        Err(Fault::NotUnicast)
    } else {
        Ok(address)
    }
}

fn check_gateway(config: &Config, gateway: IpAddr) -> Result<(), Fault> {
    let same_family = || {
        config
            .addresses()
            .filter(|c| c.address.is_ipv4() == gateway.is_ipv4())
    };
    if same_family().next().is_none() {
        return Err(Fault::NoAddressForGateway);
    }
    if same_family().any(|cidr| cidr.address == gateway) {
        return Err(Fault::GatewayIsSelf);
    }
    // A link-local router is on the link whatever the subnets are (RFC 4861 section 6.3.4).
    let link_local = matches!(gateway, IpAddr::V6(v6) if v6.is_unicast_link_local());
    if link_local || same_family().any(|cidr| cidr.contains(gateway)) {
        Ok(())
    } else {
        Err(Fault::GatewayUnreachable)
    }
}

#[cfg(test)]
mod tests {
    extern crate std;
    use super::*;
    use std::string::{String, ToString};
    use std::vec::Vec;

    fn ok(cmdline: &str) -> (Config, Vec<String>) {
        let mut words = Vec::new();
        let config = parse(cmdline.as_bytes(), &mut |word| words.push(word.to_string()));
        (
            config.unwrap_or_else(|error| panic!("{cmdline}: {error}")),
            words,
        )
    }

    fn cidr(address: &str, prefix_len: u8) -> IpCidr {
        IpCidr {
            address: address.parse().unwrap(),
            prefix_len,
        }
    }

    #[test]
    fn defaults() {
        for empty in ["", " \t\n "] {
            let (config, unknown) = ok(empty);
            assert!(config.dhcp && config.console && unknown.is_empty());
            assert_eq!(
                (config.addresses().count(), config.gw4, config.gw6),
                (0, None, None)
            );
        }
    }

    #[test]
    fn everything() {
        let (config, unknown) = ok(
            "gw=10.0.2.2  ip=10.0.2.80/24\tip=fd00::80/64 quiet gw=fd00::1 console=off root=/dev/x",
        );
        assert_eq!(
            config.addresses().collect::<Vec<_>>(),
            [cidr("10.0.2.80", 24), cidr("fd00::80", 64)]
        );
        assert_eq!(config.gw4, Some(Ipv4Addr::new(10, 0, 2, 2)));
        assert_eq!(config.gw6, "fd00::1".parse().ok());
        assert_eq!(config.ipv4(), Some(Ipv4Addr::new(10, 0, 2, 80)));
        assert_eq!(config.ipv6(), "fd00::80".parse().ok());
        assert!(!config.dhcp && !config.console);
        assert_eq!(unknown, ["quiet", "root=/dev/x"]);
    }

    #[test]
    fn an_mtu() {
        assert_eq!(ok("").0.mtu, None);
        for (cmdline, mtu) in [
            ("mtu=576", 576),
            ("mtu=1500", 1500),
            ("mtu=1280 ip=fd00::80/64", 1280),
        ] {
            assert_eq!(ok(cmdline).0.mtu, Some(mtu));
        }
    }

    #[test]
    fn accepted() {
        for (cmdline, dhcp, addresses) in [
            ("ip=dhcp", true, 0),
            ("ip=dhcp ip=fd00::80/64 gw=fe80::1", true, 1),
            ("ip=fd00::80/64", false, 1),
            ("ip=auto", false, 0),
            ("ip=auto ip=dhcp", true, 0),
            ("ip=auto ip=10.0.0.1/8", false, 1),
            ("ip=10.0.0.1/31 gw=10.0.0.0", false, 1),
            ("ip=10.0.0.1/32", false, 1),
            ("ip=fd00::1/128", false, 1),
            (
                "ip=10.0.0.1/8 ip=10.0.0.2/8 ip=10.0.0.3/8 ip=10.0.0.4/8",
                false,
                4,
            ),
            ("console=on", true, 0),
        ] {
            let (config, _) = ok(cmdline);
            assert_eq!(
                (config.dhcp, config.addresses().count()),
                (dhcp, addresses),
                "{cmdline}"
            );
        }
    }

    #[test]
    fn rejected() {
        use Fault::*;
        for (cmdline, word, fault) in [
            (&b"ip="[..], &b"ip="[..], BadAddress),
            (b"ip=dhcp6", b"ip=dhcp6", BadAddress),
            (b"ip=auto ip=auto", b"ip=auto", Repeated),
            (b"mtu=1000 ip=auto", b"mtu=1000", MtuOfIpv6),
            (b"mtu=575", b"mtu=575", BadMtu),
            (b"mtu=1501", b"mtu=1501", BadMtu),
            (b"mtu=+1400", b"mtu=+1400", BadMtu),
            (b"mtu=1400 mtu=1400", b"mtu=1400", Repeated),
            (b"mtu=1279 ip=fd00::80/64", b"mtu=1279", MtuOfIpv6),
            (b"ip=10.0.2.256/24", b"ip=10.0.2.256/24", BadAddress),
            (b"ip=10.0.2.080/24", b"ip=10.0.2.080/24", BadAddress),
            (b"quiet ip=10.0.2.80", b"ip=10.0.2.80", NoPrefix),
            (b"ip=10.0.2.80/", b"ip=10.0.2.80/", BadPrefix),
            (b"ip=10.0.2.80/0", b"ip=10.0.2.80/0", BadPrefix),
            (b"ip=10.0.2.80/33", b"ip=10.0.2.80/33", BadPrefix),
            (b"ip=10.0.2.80/+24", b"ip=10.0.2.80/+24", BadPrefix),
            (b"ip=10.0.2.80/24/24", b"ip=10.0.2.80/24/24", BadPrefix),
            (b"ip=10.0.2.80/300", b"ip=10.0.2.80/300", BadPrefix),
            (b"ip=fd00::1/129", b"ip=fd00::1/129", BadPrefix),
            (b"ip=0.0.0.0/8", b"ip=0.0.0.0/8", NotUnicast),
            (b"ip=::/64", b"ip=::/64", NotUnicast),
            (b"ip=127.0.0.1/8", b"ip=127.0.0.1/8", NotUnicast),
            (b"ip=::1/128", b"ip=::1/128", NotUnicast),
            (b"ip=224.0.0.1/24", b"ip=224.0.0.1/24", NotUnicast),
            (b"ip=ff02::1/64", b"ip=ff02::1/64", NotUnicast),
            (
                b"ip=255.255.255.255/32",
                b"ip=255.255.255.255/32",
                NotUnicast,
            ),
            (
                b"ip=::ffff:10.0.0.1/96",
                b"ip=::ffff:10.0.0.1/96",
                NotUnicast,
            ),
            (b"ip=10.0.2.0/24", b"ip=10.0.2.0/24", NotHost),
            (b"ip=10.0.2.255/24", b"ip=10.0.2.255/24", NotHost),
            (
                b"ip=10.0.2.80/24 ip=10.0.2.80/16",
                b"ip=10.0.2.80/16",
                Repeated,
            ),
            (b"ip=dhcp ip=dhcp", b"ip=dhcp", Repeated),
            (b"ip=dhcp ip=10.0.2.80/24", b"ip=dhcp", DhcpAndStatic),
            (b"ip=10.0.2.80/24 ip=dhcp", b"ip=dhcp", DhcpAndStatic),
            (
                b"ip=1.0.0.1/8 ip=1.0.0.2/8 ip=1.0.0.3/8 ip=1.0.0.4/8 ip=1.0.0.5/8",
                b"ip=1.0.0.5/8",
                TooMany,
            ),
            (
                b"ip=10.0.2.80/24 gw=10.0.2.2 gw=10.0.2.3",
                b"gw=10.0.2.3",
                Repeated,
            ),
            (b"gw=10.0.2.2", b"gw=10.0.2.2", NoAddressForGateway),
            (b"ip=dhcp gw=10.0.2.2", b"gw=10.0.2.2", NoAddressForGateway),
            (
                b"ip=10.0.2.80/24 gw=fd00::1",
                b"gw=fd00::1",
                NoAddressForGateway,
            ),
            (
                b"ip=10.0.2.80/24 gw=10.0.3.2",
                b"gw=10.0.3.2",
                GatewayUnreachable,
            ),
            (
                b"ip=fd00::80/64 gw=fd01::1",
                b"gw=fd01::1",
                GatewayUnreachable,
            ),
            (
                b"ip=10.0.2.80/24 gw=10.0.2.80",
                b"gw=10.0.2.80",
                GatewayIsSelf,
            ),
            (
                b"ip=10.0.2.80/24 gw=10.0.2.2/24",
                b"gw=10.0.2.2/24",
                BadAddress,
            ),
            (b"ip=10.0.2.80/24 gw=239.0.0.1", b"gw=239.0.0.1", NotUnicast),
            (b"console=yes", b"console=yes", BadConsole),
            (b"console=maybe", b"console=maybe", BadConsole),
            (b"console=0", b"console=0", BadConsole),
            (b"console=on console=on", b"console=on", Repeated),
            (b"console=on console=off", b"console=off", Repeated),
            (b"quiet \xff\xfe", b"\xff\xfe", NotUtf8),
        ] {
            assert_eq!(
                parse(cmdline, &mut |_| ()),
                Err(CmdlineError { word, fault })
            );
        }
    }

    #[test]
    fn consoles_of_linux_are_taken() {
        for (words, expected) in [
            ("console=hvc0", true),
            ("console=tty0 console=hvc0", true),
            ("console=hvc0 console=hvc0", true),
            ("console=ttyS0,115200n8", true),
            ("console=tty", true),
            ("console=ttyAMA0", true),
            ("console=xvc0 earlyprintk=xen", true),
            ("console=", false),
            ("console=null", false),
            ("console=off console=hvc0", false),
            ("console=hvc0 console=off", false),
            ("console=null console=on", true),
        ] {
            assert_eq!(ok(words).0.console, expected, "{words}");
        }
    }

    #[test]
    fn error_text() {
        let error = parse(b"ip=10.0.2.80\x1b[m", &mut |_| ()).unwrap_err();
        assert_eq!(
            error.to_string(),
            "command line: ip=10.0.2.80\\x1b[m: not an IP address"
        );
    }

    proptest::proptest! {
        #![proptest_config(mayfly_seeds::cases(256))]

        #[test]
        fn never_panics(cmdline in proptest::collection::vec(proptest::num::u8::ANY, 0..80)) {
            let _ = parse(&cmdline, &mut |_| ());
        }

        #[test]
        fn never_panics_on_words(
            cmdline in "((ip|gw|console)=[0-9a-f.:/]{0,12} ?){0,6}"
        ) {
            if let Ok(config) = parse(cmdline.as_bytes(), &mut |_| ()) {
                proptest::prop_assert!(config.addresses().count() <= MAX_ADDRESSES);
            }
        }
    }

    #[test]
    fn switches_of_the_services() {
        let (config, unknown) = ok("");
        assert_eq!(config.endpoints, Endpoints::DEFAULT);
        assert_eq!(config.rrl, Some(dns::Config::RATE_LIMIT));
        assert!(config.nsid.is_empty() && unknown.is_empty() && !config.minimal);
        let (config, _) =
            ok("endpoints=metrics,boot rrl=off nsid=ns1.example minimal-responses=on");
        let expected = Endpoints {
            boot: true,
            metrics: true,
            ..Endpoints::NONE
        };
        assert_eq!(config.endpoints, expected);
        assert_eq!(config.rrl, None);
        assert_eq!(config.nsid, b"ns1.example");
        assert!(config.minimal && config.dns([0; 16]).minimal);
        assert!(!ok("minimal-responses=off").0.minimal);
        assert_eq!(ok("rrl=65535").0.rrl, NonZeroU16::new(65535));
        assert_eq!(ok("endpoints=none").0.endpoints, Endpoints::NONE);
        let long = std::format!("nsid={}", "x".repeat(dns::IDENTITY_MAX + 1));
        let all = ok("endpoints=all").0.endpoints;
        assert!(all.boot && all.metrics && all.healthz && all.payload == 0);
        let some = ok("endpoints=payload:4294967296,boot").0.endpoints;
        assert!(some.boot && !some.healthz && some.payload == 1 << 32);
        for (word, fault) in [
            ("endpoints=", Fault::BadEndpoints),
            ("endpoints=all,boot", Fault::Repeated),
            ("endpoints=none,boot", Fault::BadEndpoints),
            ("endpoints=payload", Fault::PayloadWithoutBound),
            ("endpoints=payload:", Fault::PayloadWithoutBound),
            ("endpoints=payload:0", Fault::PayloadWithoutBound),
            ("endpoints=payload:+5", Fault::PayloadWithoutBound),
            ("endpoints=payload:4294967297", Fault::PayloadWithoutBound),
            ("endpoints=payload:5,payload:6", Fault::Repeated),
            ("endpoints=boot,boot", Fault::Repeated),
            ("rrl=0", Fault::BadRate),
            ("rrl=+5", Fault::BadRate),
            ("rrl=65536", Fault::BadRate),
            ("nsid=", Fault::BadName),
            (long.as_str(), Fault::BadName),
            ("rrl=1 rrl=2", Fault::Repeated),
            ("minimal-responses=yes", Fault::NotOnOff),
            ("minimal-responses=on minimal-responses=on", Fault::Repeated),
        ] {
            let error = parse(word.as_bytes(), &mut |_| ()).unwrap_err();
            assert_eq!(error.fault, fault, "{word}");
        }
    }
}
