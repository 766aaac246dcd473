//! An authoritative DNS server over bytes.
//!
//! | what | RFC |
//! |---|---|
//! | names, messages, lookups | 1034, 1035, 2181, 4343, 8020, 9619 |
//! | negative answers | 2308 |
//! | wildcards | 4592 |
//! | unknown types | 3597 |
//! | DNAME | 6672 |
//! | EDNS, NSID, cookies | 6891, 5001, 7873 and 9018 |
//! | ANY | 8482, section 4.1 |
//! | signed zones, NSEC, NSEC3 | 4034, 4035, 5155, 9276 |
//! | glue | 9471 |
//! | TCP | 7766 |
//! | zone transfer | 5936 |
//!
//! Where the RFCs leave a choice, it is made as in NSD, which this server is compared with.
//!
//! An answer is composed directly in the caller's buffer, in one pass: `wire` reads the query in place, `lookup` walks
//! the zone and has `compose` write each RRset as it is found, and `denial` adds the proofs of nonexistence. Nothing is
//! allocated.
#![no_std]
#![forbid(unsafe_code)]

use core::net::IpAddr;
use core::num::NonZeroU16;

use self::compose::{Fault, Writer};
use self::cookie::Cookie;
use self::lookup::Lookup;
use self::pointer::Owner;
use self::rate::{Limiter, Verdict};
use self::request::Request;
use self::stats::count;
use self::tail::Tails;
use self::wire::{
    Edns, HEADER_LEN, Header, NAME_MAX, OPT_LEN, OPTION_COOKIE, OPTION_NSID, Question, class, flag,
    rcode, rtype,
};
use mayfly_site::Zones;
use mayfly_stream::Millis;

mod compose;
mod cookie;
mod denial;
mod key;
mod lookup;
mod pointer;
mod rate;
mod request;
mod stats;
mod tail;
mod targets;
mod tcp;
mod transfer;
mod wire;

#[cfg(test)]
mod tests;

pub use stats::{COUNTED_TYPES, QueryCounts};
pub use tcp::{Connection, TCP_QUERY_MAX, TCP_TIMEOUT};

/// The default limit of an answer over UDP, in bytes, and the size that OPT announces: the payload that fits an IPv6
/// packet of the smallest MTU (RFC 9715 appendix A).
pub const UDP_MAX: u16 = 1232;
/// The largest answer over UDP to a query without OPT, in bytes (RFC 1035 section 2.3.4).
const UDP_MAX_PLAIN: u16 = 512;
/// The length of the longest server identity, in bytes.
pub const IDENTITY_MAX: usize = 64;
/// The buffer size with which every query over UDP can be answered, in bytes: header, question, and OPT with all
/// options.
pub const ROOM_MIN: usize = HEADER_LEN + NAME_MAX + 4 + OPT_LEN + OPTIONS_MAX;
const OPTIONS_MAX: usize = 4 + IDENTITY_MAX + 4 + cookie::COOKIE_LEN;

/// The transport of a query.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    /// A datagram: the answer is truncated to the client's limit.
    Udp,
    /// A connection.
    Tcp,
}

/// The sender of a query.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Client {
    /// The address that the query came from.
    pub address: IpAddr,
    /// The transport that it came over.
    pub transport: Transport,
}

/// The identity of a server: the bytes of NSID (RFC 5001), and of `id.server` (RFC 4892).
pub type Identity = heapless::Vec<u8, IDENTITY_MAX>;

/// The configuration of a server.
#[derive(Clone, Debug)]
pub struct ServerConfig {
    /// The identity. A server without one sends no NSID, and refuses `id.server`.
    pub identity: Identity,
    /// The secret of its cookies.
    pub cookie_secret: [u8; 16],
    /// The limit of answers over UDP to one /24 or /56, per second; no limit if `None`.
    pub rate_limit: Option<NonZeroU16>,
    /// The largest answer over UDP, in bytes.
    pub udp_max: u16,
    /// Whether records that were not asked for and are not needed are left out: the zone's NS in an answer, and the
    /// addresses of names in it.
    pub minimal: bool,
}

impl ServerConfig {
    /// The default of [`Self::rate_limit`], in answers per second: a high number for one network.
    pub const RATE_LIMIT: NonZeroU16 = NonZeroU16::new(1000).unwrap();

    /// The defaults, with this secret.
    #[must_use]
    pub fn new(cookie_secret: [u8; 16]) -> Self {
        Self {
            identity: Identity::new(),
            cookie_secret,
            rate_limit: Some(Self::RATE_LIMIT),
            udp_max: UDP_MAX,
            minimal: false,
        }
    }
}

/// An authoritative server: its configuration and its state.
#[derive(Clone, Debug)]
pub struct Server {
    config: ServerConfig,
    limiter: Limiter,
    tails: Tails,
    /// The counters.
    pub stats: QueryCounts,
}

impl Server {
    /// A server whose counters are 0.
    #[must_use]
    pub fn new(config: ServerConfig) -> Self {
        Self {
            limiter: Limiter::new(config.rate_limit, cookie::seed(&config.cookie_secret)),
            config,
            tails: Tails::new(),
            stats: QueryCounts::default(),
        }
    }

    /// Takes another secret for cookies: those that clients have are not valid any more.
    pub fn set_cookie_secret(&mut self, secret: [u8; 16]) {
        self.config.cookie_secret = secret;
    }

    /// Answers one message. Returns the number of bytes written to `out`, or `None` if there is no answer.
    ///
    /// `zones` have to be the same in each call.
    ///
    /// There is no answer to a response (two servers would answer each other for ever), to a message shorter than a
    /// header, to a network above the rate limit, and if `out` is too short ([`ROOM_MIN`] is enough). An answer that
    /// does not fit is truncated over UDP, and SERVFAIL over TCP. A zone transfer is answered only by [`Connection`].
    pub fn answer(
        &mut self,
        zones: &impl Zones,
        now: Millis,
        unix_seconds: u64,
        client: Client,
        query: &[u8],
        out: &mut [u8],
    ) -> Option<usize> {
        let Some(header) = Header::read(query).filter(|header| header.flags & flag::QR == 0) else {
            count(&mut self.stats.dropped);
            return None;
        };
        let mut request = Request::read(query, &header);
        let mut cookie = None;
        if let Some(data) = request.edns.and_then(|edns| edns.cookie) {
            let secret = &self.config.cookie_secret;
            cookie = Cookie::read(data, secret, client.address, unix_seconds);
            if cookie.is_none() {
                request.refuse(rcode::FORMERR);
            }
        }
        let is_valid = cookie.is_some_and(|cookie| cookie.is_valid);
        if is_valid {
            count(&mut self.stats.cookies);
        }
        let verdict = match client.transport {
            Transport::Udp if !is_valid => self.limiter.count(now, client.address),
            _ => Verdict::Send,
        };
        if verdict == Verdict::Drop {
            count(&mut self.stats.limited);
            return None;
        }
        let truncate = verdict == Verdict::Truncate;
        if truncate {
            count(&mut self.stats.slipped);
        }
        let written = self.respond(zones, client, &header, &request, cookie, truncate, out);
        match (written, client.transport) {
            (None, _) => count(&mut self.stats.dropped),
            (Some(_), Transport::Udp) => count(&mut self.stats.udp),
            (Some(_), Transport::Tcp) => count(&mut self.stats.tcp),
        }
        written
    }

    #[expect(
        clippy::too_many_arguments,
        reason = "what a query is, taken apart once"
    )]
    fn respond(
        &mut self,
        zones: &impl Zones,
        client: Client,
        header: &Header,
        request: &Request<'_>,
        cookie: Option<Cookie>,
        truncate: bool,
        out: &mut [u8],
    ) -> Option<usize> {
        let limit = usize::from(match (client.transport, request.edns) {
            (Transport::Tcp, _) => u16::MAX,
            (Transport::Udp, None) => UDP_MAX_PLAIN,
            (Transport::Udp, Some(edns)) => {
                edns.udp_size.min(self.config.udp_max).max(UDP_MAX_PLAIN)
            }
        });
        let limit = limit.min(out.len());
        let nsid = request.edns.is_some_and(|edns| edns.nsid) && !self.config.identity.is_empty();
        let mut reserved = 0;
        if request.edns.is_some() {
            reserved += OPT_LEN;
            reserved += if nsid {
                4 + self.config.identity.len()
            } else {
                0
            };
            reserved += cookie.map_or(0, |cookie| 4 + cookie.reply.len());
        }
        let question = request.question.map_or(&[][..], |question| question.bytes);
        let mut message = Writer::new(out, limit.checked_sub(reserved)?, question)?;

        let mut found = Answer::of(request.rcode);
        if let (false, Some(question)) = (truncate, &request.question)
            && request.rcode == rcode::NOERROR
        {
            self.stats.count_type(question.qtype);
            found = self.look_up(zones, client, question, request.edns, &mut message);
        }
        if truncate {
            found.truncated = true;
        } else if found.truncated {
            count(&mut self.stats.truncated);
        }

        message.set_limit(limit);
        if let Some(edns) = request.edns {
            let options = u16::try_from(reserved - OPT_LEN).ok()?.to_be_bytes();
            let [s0, s1] = self.config.udp_max.to_be_bytes();
            let extended = (found.rcode >> 4).to_be_bytes()[1];
            let flags = if edns.dnssec_ok { 0x80 } else { 0 };
            let [t0, t1] = rtype::OPT.to_be_bytes();
            let opt = [
                0, t0, t1, s0, s1, extended, 0, flags, 0, options[0], options[1],
            ];
            message.bytes(&opt).ok()?;
            if nsid {
                option(&mut message, OPTION_NSID, &self.config.identity)?;
            }
            if let Some(cookie) = cookie {
                option(&mut message, OPTION_COOKIE, &cookie.reply)?;
            }
            found.counts[2] += 1;
        }
        if let Some(counter) = self.stats.rcodes.get_mut(usize::from(found.rcode.min(15))) {
            count(counter);
        }
        let [answer, authority, additional] = found.counts;
        let counts = [
            request.question.is_some().into(),
            answer,
            authority,
            additional,
        ];
        message.finish(header.id, found.flags(header), counts)
    }

    /// Fills in the sections of an answer.
    fn look_up(
        &mut self,
        zones: &impl Zones,
        client: Client,
        question: &Question<'_>,
        edns: Option<Edns<'_>>,
        message: &mut Writer<'_>,
    ) -> Answer {
        if question.qclass == class::CH {
            return self.chaos(question, message);
        }
        if matches!(question.qtype, rtype::AXFR | rtype::IXFR) {
            return self.transfer(zones, client, question, message);
        }
        let mark = message.mark();
        let options = lookup::Options {
            minimal: self.config.minimal,
            dnssec: edns.is_some_and(|edns| edns.dnssec_ok),
            ipv6: client.address.is_ipv6(),
            transport: client.transport,
        };
        let found = Lookup::new(zones, question, options, message, &mut self.tails).run();
        found.unwrap_or_else(|fault| {
            // A partial answer is worse than none (RFC 2181 section 9).
            message.rewind(mark);
            self.fail(fault)
        })
    }

    fn fail(&mut self, fault: Fault) -> Answer {
        if fault == Fault::Broken {
            count(&mut self.stats.broken);
        }
        Answer::of(rcode::SERVFAIL)
    }

    /// Answers a query for a zone transfer that is not carried out. Transfers are carried out only on a [`Connection`],
    /// if they are allowed.
    fn transfer(
        &mut self,
        zones: &impl Zones,
        client: Client,
        question: &Question<'_>,
        message: &mut Writer<'_>,
    ) -> Answer {
        let is_udp = client.transport == Transport::Udp;
        if is_udp && question.qtype == rtype::AXFR {
            return Answer::of(rcode::NOTIMP);
        }
        let zone = match lookup::apex(zones, question.name) {
            Ok(Some(zone)) => zone,
            Ok(None) => return Answer::of(rcode::NOTAUTH),
            Err(fault) => return self.fail(fault),
        };
        if !zone.transfer {
            return Answer::of(rcode::REFUSED);
        }
        if !is_udp {
            return Answer::of(rcode::SERVFAIL);
        }
        // The serial number shows whether a retry over TCP is worth it (RFC 1995 section 2).
        let soa = zones.rrset(zone.apex, rtype::SOA).map_err(Fault::from);
        let written = soa
            .and_then(|soa| soa.ok_or(Fault::Broken))
            .and_then(|soa| message.set(Owner::At(HEADER_LEN), &soa, false, None));
        match written {
            Ok(written) => Answer {
                authoritative: true,
                counts: [written.count, 0, 0],
                ..Answer::of(rcode::NOERROR)
            },
            Err(fault) => self.fail(fault),
        }
    }

    /// Counts a zone transfer as an answer.
    fn count_transfer(&mut self) {
        count(&mut self.stats.tcp);
        if let Some(counter) = self.stats.rcodes.first_mut() {
            count(counter);
        }
        self.stats.count_type(rtype::AXFR);
    }

    /// Answers the queries for this server's identity and version (RFC 4892).
    fn chaos(&self, question: &Question<'_>, message: &mut Writer<'_>) -> Answer {
        let is = |name: &[u8]| question.name.eq_ignore_ascii_case(name);
        let text = match question.qtype {
            rtype::TXT | rtype::ANY if is(b"\x07version\x04bind\0") => Some(VERSION),
            rtype::TXT | rtype::ANY if is(b"\x07version\x06server\0") => Some(VERSION),
            rtype::TXT | rtype::ANY if is(b"\x02id\x06server\0") => Some(&*self.config.identity),
            rtype::TXT | rtype::ANY if is(b"\x08hostname\x04bind\0") => {
                Some(&*self.config.identity)
            }
            _ => None,
        };
        let mut answer = Answer::of(rcode::REFUSED);
        if let Some(text) = text.filter(|text| !text.is_empty())
            && message.text(HEADER_LEN, class::CH, text).is_ok()
        {
            answer.rcode = rcode::NOERROR;
            answer.counts[0] = 1;
        }
        answer
    }
}

/// The answer to `version.bind`.
const VERSION: &[u8] = concat!("mayfly ", env!("CARGO_PKG_VERSION")).as_bytes();

fn option(message: &mut Writer<'_>, code: u16, data: &[u8]) -> Option<()> {
    let length = u16::try_from(data.len()).ok()?;
    message.bytes(&code.to_be_bytes()).ok()?;
    message.bytes(&length.to_be_bytes()).ok()?;
    message.bytes(data).ok()
}

/// The fields of an answer's header.
#[derive(Clone, Copy, Debug)]
struct Answer {
    rcode: u16,
    authoritative: bool,
    truncated: bool,
    /// The numbers of records in the answer, authority and additional sections.
    counts: [u16; 3],
}

impl Answer {
    fn of(rcode: u16) -> Self {
        Self {
            rcode,
            authoritative: false,
            truncated: false,
            counts: [0; 3],
        }
    }

    /// The flags of a message with this answer to a query.
    fn flags(&self, query: &Header) -> u16 {
        let mut flags = query.flags & (flag::OPCODE | flag::RD) | flag::QR;
        flags |= self.rcode & flag::RCODE;
        if self.authoritative {
            flags |= flag::AA;
        }
        if self.truncated {
            flags |= flag::TC;
        }
        flags
    }
}

/// The low 32 bits of a number.
fn low(number: u64) -> u32 {
    let [a, b, c, d, ..] = number.to_le_bytes();
    u32::from_le_bytes([a, b, c, d])
}
