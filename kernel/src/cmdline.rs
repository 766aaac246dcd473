//! The kernel command line.
//!
//! Words separated by ASCII white space:
//!
//! | word | meaning |
//! |---|---|
//! | `ip=10.0.2.80/24`, `ip=fd00::80/64` | an interface address and its prefix length; up to [`MAX_ADDRESSES`] |
//! | `ip=dhcp` | ask DHCPv4; the default when there is no `ip=` at all |
//! | `gw=10.0.2.2`, `gw=fd00::1` | the default gateway, one for each family |
//! | `console=on`, `console=off` | whether the console ring is written to; on by default |
//! | `endpoints=all`, `endpoints=none`, `endpoints=boot,healthz` | which of `/.mayfly/boot`, `/.mayfly/metrics`, `/.mayfly/healthz` and `/.mayfly/payload/N` are served; all by default |
//! | `rrl=200`, `rrl=off` | DNS answers a second over UDP to one network (/24 or /56), or no limit; [`dns::Config::RATE_LIMIT`] by default |
//! | `minimal-responses=on`, `minimal-responses=off` | whether DNS answers leave out the zone's NS records and addresses that were not asked for; off by default |
//! | `nsid=ns1.example` | what the DNS server calls itself (RFC 5001): 1 to [`dns::IDENTITY_MAX`] printable ASCII characters |
//!
//! A known key with a bad value is an error, and so are words that contradict each other; a word
//! with an unknown key is handed to the caller and ignored.

use core::fmt;
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use core::num::NonZeroU16;

use mayfly_dns as dns;

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
    /// `/.mayfly/payload/N`
    pub payload: bool,
}

impl Endpoints {
    /// All of them.
    pub const ALL: Self = Self {
        boot: true,
        metrics: true,
        healthz: true,
        payload: true,
    };
    /// None of them.
    pub const NONE: Self = Self {
        boot: false,
        metrics: false,
        healthz: false,
        payload: false,
    };

    fn parse(value: &str) -> Result<Self, Fault> {
        match value {
            "all" => return Ok(Self::ALL),
            "none" => return Ok(Self::NONE),
            _ => {}
        }
        let mut endpoints = Self::NONE;
        for name in value.split(',') {
            let endpoint = match name {
                "boot" => &mut endpoints.boot,
                "metrics" => &mut endpoints.metrics,
                "healthz" => &mut endpoints.healthz,
                "payload" => &mut endpoints.payload,
                _ => return Err(Fault::BadEndpoints),
            };
            if core::mem::replace(endpoint, true) {
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
    /// Something that is no endpoint.
    BadEndpoints,
    /// Neither `off` nor a number from 1 to 65535.
    BadRate,
    /// Empty, too long, or not of printable ASCII characters.
    BadName,
}

impl Fault {
    const fn text(self) -> &'static str {
        match self {
            Self::NotUtf8 => "not UTF-8",
            Self::BadAddress => "not an IP address",
            Self::NoPrefix => "a prefix length is missing, as in 10.0.2.80/24 or fd00::80/64",
            Self::BadPrefix => "the prefix length must be 1 to 32 (IPv4) or 1 to 128 (IPv6)",
            Self::NotUnicast => "not a unicast address of an interface",
            Self::NotHost => "the network or broadcast address of its subnet",
            Self::Repeated => "given twice",
            Self::TooMany => "more than 4 addresses",
            Self::DhcpAndStatic => "ip=dhcp excludes a static IPv4 address",
            Self::NoAddressForGateway => "there is no static address of this family",
            Self::GatewayUnreachable => "not in the subnet of any address",
            Self::GatewayIsSelf => "the guest's own address",
            Self::NotOnOff => "must be on or off",
            Self::BadEndpoints => {
                "must be all, none, or some of boot, metrics, healthz and payload with commas between"
            }
            Self::BadRate => "must be off or 1 to 65535",
            Self::BadName => "must be 1 to 64 printable ASCII characters",
        }
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
            self.fault.text()
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
    let mut config = Config {
        addresses: [None; MAX_ADDRESSES],
        gw4: None,
        gw6: None,
        dhcp: false,
        console: true,
        endpoints: Endpoints::ALL,
        rrl: Some(dns::Config::RATE_LIMIT),
        nsid: dns::Identity::new(),
        minimal: false,
    };
    // Gateways and `ip=dhcp` are checked against the addresses, which may come after them.
    let (mut dhcp, mut gw4, mut gw6, mut console) = (None, None, None, None);
    let (mut endpoints, mut rrl, mut nsid, mut minimal) = (None, None, None, None);

    for word in cmdline
        .split(u8::is_ascii_whitespace)
        .filter(|word| !word.is_empty())
    {
        let error = |fault| CmdlineError { word, fault };
        let text = core::str::from_utf8(word).map_err(|_| error(Fault::NotUtf8))?;
        match text.split_once('=') {
            Some(("ip", "dhcp")) => set(&mut dhcp, word).map_err(error)?,
            Some(("ip", value)) => {
                let cidr = interface_address(value).map_err(error)?;
                if config
                    .addresses()
                    .any(|known| known.address == cidr.address)
                {
                    return Err(error(Fault::Repeated));
                }
                let slot = config.addresses.iter_mut().find(|slot| slot.is_none());
                *slot.ok_or(error(Fault::TooMany))? = Some(cidr);
            }
            Some(("gw", value)) => {
                let address = unicast(value).map_err(error)?;
                match address {
                    IpAddr::V4(address) => {
                        set(&mut gw4, word).map_err(error)?;
                        config.gw4 = Some(address);
                    }
                    IpAddr::V6(address) => {
                        set(&mut gw6, word).map_err(error)?;
                        config.gw6 = Some(address);
                    }
                }
            }
            Some(("console", value)) => {
                set(&mut console, word).map_err(error)?;
                config.console = switch(value).map_err(error)?;
            }
            Some(("endpoints", value)) => {
                set(&mut endpoints, word).map_err(error)?;
                config.endpoints = Endpoints::parse(value).map_err(error)?;
            }
            Some(("rrl", value)) => {
                set(&mut rrl, word).map_err(error)?;
                config.rrl = match value {
                    "off" => None,
                    _ => Some(rate(value).ok_or(error(Fault::BadRate))?),
                };
            }
            Some(("nsid", value)) => {
                set(&mut nsid, word).map_err(error)?;
                let is_plain =
                    !value.is_empty() && value.bytes().all(|octet| octet.is_ascii_graphic());
                config.nsid = dns::Identity::from_slice(value.as_bytes())
                    .ok()
                    .filter(|_| is_plain)
                    .ok_or(error(Fault::BadName))?;
            }
            Some(("minimal-responses", value)) => {
                set(&mut minimal, word).map_err(error)?;
                config.minimal = switch(value).map_err(error)?;
            }
            _ => unknown(text),
        }
    }

    if let Some(word) = dhcp
        && config.ipv4().is_some()
    {
        return Err(CmdlineError {
            word,
            fault: Fault::DhcpAndStatic,
        });
    }
    config.dhcp = dhcp.is_some() || config.addresses().next().is_none();
    for (word, gateway) in [
        (gw4, config.gw4.map(IpAddr::V4)),
        (gw6, config.gw6.map(IpAddr::V6)),
    ] {
        if let (Some(word), Some(gateway)) = (word, gateway) {
            check_gateway(&config, gateway).map_err(|fault| CmdlineError { word, fault })?;
        }
    }
    Ok(config)
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

fn rate(value: &str) -> Option<NonZeroU16> {
    let is_plain = value.bytes().all(|octet| octet.is_ascii_digit());
    value.parse().ok().filter(|_| is_plain)
}

fn interface_address(value: &str) -> Result<IpCidr, Fault> {
    let (address, prefix_len) = match value.split_once('/') {
        Some((address, prefix_len)) => (unicast(address)?, prefix_len),
        None => return Err(unicast(value).err().unwrap_or(Fault::NoPrefix)),
    };
    let bits = if address.is_ipv4() { 32 } else { 128 };
    let plain = prefix_len.bytes().all(|octet| octet.is_ascii_digit());
    let prefix_len = prefix_len
        .parse()
        .ok()
        .filter(|length| plain && (1..=bits).contains(length))
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
    fn accepted() {
        for (cmdline, dhcp, addresses) in [
            ("ip=dhcp", true, 0),
            ("ip=dhcp ip=fd00::80/64 gw=fe80::1", true, 1),
            ("ip=fd00::80/64", false, 1),
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
            (b"console=yes", b"console=yes", NotOnOff),
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
        assert_eq!(config.endpoints, Endpoints::ALL);
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
        for (word, fault) in [
            ("endpoints=", Fault::BadEndpoints),
            ("endpoints=all,boot", Fault::BadEndpoints),
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
