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
//! | `mtu=1400` | the greatest MTU, in bytes of IP packet: a number in [`MTU`], at least 1280 with an IPv6 address. A smaller MTU of the interface takes precedence |
//! | `console=on`, `console=off` | whether the console ring is written to; on by default. Linux' values have Linux' meaning: a device (`hvc0`, `ttyS0,115200`) is `on`, `null` and the empty value are `off` |
//! | `endpoints=healthz,boot`, `endpoints=none` | which of the guest's own pages are served: `boot`, `metrics`, `healthz` (`/.mayfly/boot` and so on), or `all` three; only `healthz` by default |
//! | `endpoints=payload:1048576` | serves `/.mayfly/payload/N` with `N` up to this many bytes, for load tests; may stand in the same list |
//! | `rrl=200`, `rrl=off` | DNS answers a second over UDP to one network (/24 or /56), or no limit; [`dns::ServerConfig::RATE_LIMIT`] by default |
//! | `minimal-responses=on`, `minimal-responses=off` | whether DNS answers leave out the zone's NS records and addresses that were not asked for; off by default |
//! | `nsid=ns1.example` | the DNS server's name for itself (RFC 5001): 1 to [`dns::IDENTITY_MAX`] printable ASCII characters |
//!
//! A known key with an invalid value is an error, and so are words that contradict each other. A word with an unknown
//! key is given to the caller and otherwise ignored.

mod address;
mod endpoints;
mod fault;
mod limits;

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use core::num::NonZeroU16;
use core::str::FromStr;

use mayfly_dns as dns;

pub use self::address::IpCidr;
use self::address::{check_gateway, interface_address, unicast};
pub use self::endpoints::Endpoints;
pub use self::fault::{CmdlineError, Fault};
use self::limits::MTU6;
pub use self::limits::{MAX_ADDRESSES, MTU};

/// The configuration that the command line gives.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GuestConfig {
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
    /// The DNS server's name for itself (NSID).
    pub nsid: dns::Identity,
    /// Whether DNS answers leave out the zone's NS records and addresses that were not asked for.
    pub minimal: bool,
}

impl GuestConfig {
    /// The static addresses, in the order given.
    pub fn addresses(&self) -> impl Iterator<Item = IpCidr> + '_ {
        self.addresses.iter().copied().flatten()
    }

    /// The DNS server's configuration. The secret is for its cookies.
    #[must_use]
    pub fn dns(&self, cookie_secret: [u8; 16]) -> dns::ServerConfig {
        dns::ServerConfig {
            identity: self.nsid.clone(),
            rate_limit: self.rrl,
            minimal: self.minimal,
            ..dns::ServerConfig::new(cookie_secret)
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

/// Parses a command line; words with unknown keys go to `unknown`.
///
/// # Errors
/// The first word that is malformed or that contradicts an earlier one.
pub fn parse<'a>(
    cmdline: &'a [u8],
    unknown: &mut dyn FnMut(&'a str),
) -> Result<GuestConfig, CmdlineError<'a>> {
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

/// The settings of the words that were read so far. A word that may occur only once or is checked at the end is kept
/// itself: gateways and `ip=dhcp` are checked against the addresses, which may follow them.
struct Words<'a> {
    config: GuestConfig,
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
            config: GuestConfig {
                addresses: [None; MAX_ADDRESSES],
                gw4: None,
                gw6: None,
                dhcp: false,
                auto: false,
                mtu: None,
                console: true,
                endpoints: Endpoints::DEFAULT,
                rrl: Some(dns::ServerConfig::RATE_LIMIT),
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

    /// Reads the word `key=value`. Returns `false` if the key is unknown.
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
            // A value of Linux', which may occur several times. mayfly's own `on` and `off` take precedence.
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

    /// Checks gateways, DHCP and MTU, for which all words must be known.
    fn finish(self) -> Result<GuestConfig, CmdlineError<'a>> {
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
        let has_no_address = config.addresses().next().is_none() && !config.auto;
        config.dhcp = self.dhcp.is_some() || has_no_address;
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

/// Stores a word that may occur only once.
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

/// Reads Linux' `console=VALUE` (admin-guide/kernel-parameters, "console="): a device with a number, and options behind
/// a comma; the empty value or `null` for no console. Returns `None` for another value.
fn linux_console(value: &str) -> Option<bool> {
    let device = value.split(',').next().unwrap_or_default();
    if matches!(device, "" | "null") {
        return Some(false);
    }
    let is_device = device.bytes().all(|byte| byte.is_ascii_alphanumeric())
        && device.starts_with(|first: char| first.is_ascii_alphabetic())
        && (device.ends_with(|last: char| last.is_ascii_digit())
            || device.starts_with("tty")
            || matches!(device, "uart" | "brl"));
    is_device.then_some(true)
}

/// Reads a number of decimal digits alone.
fn number<N: FromStr>(value: &str) -> Option<N> {
    let is_plain = value.bytes().all(|byte| byte.is_ascii_digit());
    value.parse().ok().filter(|_| is_plain)
}

fn rate(value: &str) -> Option<NonZeroU16> {
    number(value)
}

#[cfg(test)]
mod tests;
