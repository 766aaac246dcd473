//! Translates DHCP servers' messages for smoltcp's client.
//!
//! That client is strict: it takes a router only if there is exactly one, wants a subnet mask in each acknowledgement,
//! renews with the sender of the packet, knows neither long options in parts (RFC 3396) nor options in the fields for
//! names (RFC 2132 section 9.3) nor classless routes (RFC 3442), and refuses a message whose client identifier is no
//! MAC address. So a message is read here first ([`Message::read`]), and written again in the form that the client
//! takes ([`Message::write`]).

use smoltcp::socket::dhcpv4::RetryConfig;
use smoltcp::time::{Duration, Instant};

use crate::checksum::finish_ipv4;
use crate::nic::{IPV4_HEADER, Mac};
use mayfly_drivers::netfront::ETHERNET_HEADER;

/// The options to ask for: subnet mask, classless routes before routers (RFC 3442), lease times.
pub(super) const WANTED: &[u8] = &[1, 121, 3, 51, 54, 58, 59];
/// The longest frame that is written, in bytes.
pub(super) const FRAME_MAX: usize = ETHERNET_HEADER + IPV4_HEADER + UDP_HEADER + FIXED + 48;

const UDP_HEADER: usize = 8;
/// The size in bytes of a message before its options, the magic number included.
const FIXED: usize = 240;
const MAGIC: [u8; 4] = [0x63, 0x82, 0x53, 0x63];
/// The number of bytes that are kept of an option: one whole part, because the default route may be the last of many.
const VALUE_MAX: usize = 255;
/// The shortest lease in seconds. A shorter one would have to be renewed all the time.
const LEASE_MIN: u32 = 10;
const OFFER: u8 = 2;
const ACK: u8 = 5;
const NAK: u8 = 6;

/// The client's timeouts, when it has asked for the time `asked_for`. The first ones are as short as the pauses of
/// announcements, because the first frames of an interface may be lost. The next ones are RFC 2131's first timeout
/// (section 4.1), so that a server that starts a little late is found soon. The last ones are half a minute.
pub(super) fn patience(asked_for: Duration) -> RetryConfig {
    let mut config = RetryConfig::default();
    let soon = asked_for.clamp(Duration::from_millis(250), Duration::from_secs(4));
    config.discover_timeout = (asked_for / 16).clamp(soon, Duration::from_secs(32));
    config.initial_request_timeout = Duration::from_secs(1);
    config
}

/// Values of a server's last messages, for messages that leave them out.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Said {
    xid: [u8; 4],
    server: [u8; 4],
    mask: Option<[u8; 4]>,
    router: Option<[u8; 4]>,
    /// The end of the lease that it has acknowledged.
    pub(super) ends: Option<Instant>,
}

/// A server's message to us: the parts that are used.
#[derive(Clone, Copy, Debug)]
pub(super) struct Message<'m> {
    fixed: &'m [u8; FIXED],
    kind: u8,
    server: [u8; 4],
    mask: Option<[u8; 4]>,
    router: Option<[u8; 4]>,
    /// The lease time, and T1 with T2 if both are there and in order; in seconds.
    lease: Option<u32>,
    renewal: Option<(u32, u32)>,
}

impl<'m> Message<'m> {
    /// Reads the payload of a datagram from the address `from`. Returns `None` if it is no message to the client with
    /// the MAC address `own`.
    pub(super) fn read(payload: &'m [u8], from: [u8; 4], own: Mac) -> Option<Self> {
        let (fixed, options) = payload.split_first_chunk::<FIXED>()?;
        // BOOTREPLY, Ethernet, six bytes of address; our MAC address; the magic number.
        if fixed[..3] != [2, 1, 6] || fixed[28..34] != own || fixed[236..] != MAGIC {
            return None;
        }
        let overload = Value::of(52, [options, &[], &[]]).whole();
        let [file, name] = match overload.map_or(0, |[fields]| fields) {
            1 => [&fixed[108..236], &[][..]],
            2 => [&[][..], &fixed[44..108]],
            3 => [&fixed[108..236], &fixed[44..108]],
            _ => [&[][..]; 2],
        };
        let fields = [options, file, name];
        let four = |code| Value::of(code, fields).whole();
        let [kind] = Value::of(53, fields).whole()?;
        let routes = Value::of(121, fields);
        let router = if routes.length > 0 {
            default_route(routes.bytes())
        } else {
            four(3)
        };
        let seconds = |code| four(code).map(u32::from_be_bytes);
        let lease = seconds(51).map(|lease| lease.max(LEASE_MIN));
        let renewal = seconds(58).zip(seconds(59));
        Some(Self {
            fixed,
            kind,
            server: four(54).unwrap_or(from),
            mask: four(1).filter(|mask| is_mask(*mask)),
            router,
            lease,
            // Without T1 and T2, half and seven eighths of the lease count (RFC 2131 section 4.4.5).
            renewal: renewal.filter(|(t1, t2)| *t1 > 0 && t1 < t2 && Some(*t2) < lease),
        })
    }

    /// Whether the server refuses the requested address (DHCPNAK).
    pub(super) fn is_refusal(&self) -> bool {
        self.kind == NAK
    }

    /// Fills missing values in from the server's earlier messages and from the class of the address, and remembers this
    /// message's values.
    pub(super) fn complete(&mut self, said: &mut Said, now: Instant) {
        let until = |lease: u32| now + Duration::from_secs(lease.into());
        let xid = [self.fixed[4], self.fixed[5], self.fixed[6], self.fixed[7]];
        if self.kind == ACK && said.server == self.server {
            self.mask = self.mask.or(said.mask);
            self.router = self.router.or(said.router);
        }
        // Of several offers the client takes the first.
        if self.kind == ACK || self.kind == OFFER && said.xid != xid {
            *said = Said {
                xid,
                server: self.server,
                mask: self.mask,
                router: self.router,
                ends: self.lease.filter(|_| self.kind == ACK).map(until),
            };
        }
        self.mask = self.mask.or(Some(class_mask(self.fixed[16])));
    }

    /// Writes the message as a broadcast frame from its server's address. Returns the frame's length in bytes.
    pub(super) fn write(&self, frame: &mut [u8; FRAME_MAX], from: Mac) -> usize {
        let (headers, message) = frame.split_at_mut(ETHERNET_HEADER + IPV4_HEADER + UDP_HEADER);
        message.fill(0);
        let (fixed, mut options) = message.split_at_mut(FIXED);
        // The fields for names stay empty. Options in them were read.
        fixed[..44].copy_from_slice(&self.fixed[..44]);
        fixed[236..].copy_from_slice(&MAGIC);
        let mut length = FIXED + 1;
        let mut put = |code: u8, value: &[u8]| {
            let whole = 2 + value.len();
            let Some((place, rest)) = core::mem::take(&mut options).split_at_mut_checked(whole)
            else {
                return;
            };
            place[0] = code;
            place[1] = value.len().to_le_bytes()[0];
            place[2..].copy_from_slice(value);
            options = rest;
            length += whole;
        };
        put(53, &[self.kind]);
        put(54, &self.server);
        let (t1, t2) = self.renewal.unzip();
        let times = [(51, self.lease), (58, t1), (59, t2)];
        let times = times.map(|(code, time)| (code, time.map(u32::to_be_bytes)));
        let addresses = [(1, self.mask), (3, self.router)];
        for (code, value) in addresses.into_iter().chain(times) {
            if let Some(value) = value {
                put(code, &value);
            }
        }
        // The option "end". The rest of the message is zeros.
        if let Some(end) = options.first_mut() {
            *end = 255;
        }
        let [_, _, _, _, _, _, a, b] = (UDP_HEADER + length).to_be_bytes();
        let [_, _, _, _, _, _, c, d] = (IPV4_HEADER + UDP_HEADER + length).to_be_bytes();
        let (ethernet, rest) = headers.split_at_mut(ETHERNET_HEADER);
        let (ip, udp) = rest.split_at_mut(IPV4_HEADER);
        crate::nic::ethernet_header(ethernet, [0xff; 6], from, true);
        ip[..12].copy_from_slice(&[0x45, 0, c, d, 0, 0, 0x40, 0, 64, 17, 0, 0]);
        ip[12..16].copy_from_slice(&self.server);
        ip[16..].fill(0xff);
        finish_ipv4(ip);
        // No checksum: that of the received datagram was verified.
        udp.copy_from_slice(&[0, 67, 0, 68, a, b, 0, 0]);
        ETHERNET_HEADER + IPV4_HEADER + UDP_HEADER + length
    }
}

/// The first bytes of an option, all its parts joined (RFC 3396).
struct Value {
    bytes: [u8; VALUE_MAX],
    length: usize,
}

impl Value {
    /// Reads an option from fields of options, in this order. A malformed field is read up to its error.
    #[inline(never)]
    fn of(wanted: u8, fields: [&[u8]; 3]) -> Self {
        let mut value = Self {
            bytes: [0; VALUE_MAX],
            length: 0,
        };
        for mut field in fields {
            while let [code, rest @ ..] = field {
                field = rest;
                match code {
                    0 => continue,
                    255 => break,
                    _ => {}
                }
                let Some((part, rest)) = rest
                    .split_first()
                    .and_then(|(length, rest)| rest.split_at_checked(usize::from(*length)))
                else {
                    break;
                };
                field = rest;
                if *code == wanted {
                    value.join(part);
                }
            }
        }
        value
    }

    fn join(&mut self, part: &[u8]) {
        for byte in part {
            if let Some(place) = self.bytes.get_mut(self.length) {
                *place = *byte;
                self.length += 1;
            }
        }
    }

    fn bytes(&self) -> &[u8] {
        self.bytes.get(..self.length).unwrap_or(&[])
    }

    /// The first `N` bytes, if the option has as many.
    fn whole<const N: usize>(&self) -> Option<[u8; N]> {
        self.bytes().first_chunk().copied()
    }
}

/// The router of the default route among classless routes (RFC 3442).
fn default_route(mut routes: &[u8]) -> Option<[u8; 4]> {
    while let [width, rest @ ..] = routes {
        let bytes = usize::from(*width).div_ceil(8);
        let rest = rest.get(bytes..).filter(|_| *width <= 32)?;
        let (router, rest) = rest.split_first_chunk::<4>()?;
        if *width == 0 {
            return Some(*router);
        }
        routes = rest;
    }
    None
}

/// Whether a mask consists of ones followed by zeros. With no ones at all, every address would be in the network, and no
/// router be used.
fn is_mask(mask: [u8; 4]) -> bool {
    let mask = u32::from_be_bytes(mask);
    mask != 0 && mask.leading_ones() + mask.trailing_zeros() == 32
}

/// The mask of an address's class (RFC 791), by its first byte.
fn class_mask(first: u8) -> [u8; 4] {
    match first {
        0..128 => [255, 0, 0, 0],
        128..192 => [255, 255, 0, 0],
        _ => [255, 255, 255, 0],
    }
}
