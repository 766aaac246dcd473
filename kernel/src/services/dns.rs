//! An authoritative DNS server over bytes (RFC 1034, 1035, 2308, 4592, 6891, 7766, 8482).
//!
//! The wire format is that of the `domain` crate; what is here is the policy: what to answer.

use domain::base::iana::{Class, Opcode, OptRcode, Rtype};
use domain::base::message::Message;
use domain::base::message_builder::{
    AnswerBuilder, AuthorityBuilder, MessageBuilder, PushError, StaticCompressor,
};
use domain::base::name::{Name, ParsedName, ToName};
use domain::base::opt::{Opt, OptRecord};
use domain::base::rdata::UnknownRecordData;
use domain::base::wire::{Composer, ParseError};
use domain::base::{Question, Ttl};
use domain::dep::octseq::{OctetsBuilder, ShortBuf, Truncate};

use super::site::{RrSet, Zone, rtype};
use super::{Input, Millis, Next, Progress};

/// The largest answer over UDP, and the size that OPT announces: what fits an IPv6 packet of the
/// smallest MTU (RFC 9715 appendix A).
pub const UDP_MAX: u16 = 1232;
/// The largest answer over UDP to a query without OPT (RFC 1035 section 2.3.4).
const UDP_MAX_PLAIN: u16 = 512;
/// Octets of an OPT record without options.
const OPT_LEN: usize = 11;
/// CNAMEs that are followed for one query.
const MAX_CNAMES: usize = 8;
/// Seconds that a resolver may keep the answer to ANY.
const ANY_TTL: u32 = 3600;

/// HINFO RDATA that says why there is no more (RFC 8482 section 4.2).
const ANY_HINFO: &[u8] = b"\x07RFC8482\x00";
/// Octets in the longest name (RFC 1035 section 2.3.4).
const NAME_MAX: usize = 255;
/// Octets of a message's header.
const HEADER_LEN: usize = 12;

#[cfg(test)]
mod tests;

/// How a query came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    /// In a datagram: the answer is truncated to what the client can take.
    Udp,
    /// On a connection.
    Tcp,
}

/// Counters, which wrap.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Queries over UDP that were answered, with whatever response code.
    pub udp: u32,
    /// The same over TCP.
    pub tcp: u32,
    /// Answers by response code, 0 to 15; BADVERS (16) and above count as the last.
    pub rcodes: [u32; 16],
    /// Questions for A.
    pub a: u32,
    /// Questions for AAAA.
    pub aaaa: u32,
    /// Questions for another type.
    pub other: u32,
    /// Answers with TC set.
    pub truncated: u32,
    /// Messages that get no answer: responses, and shorter than a header.
    pub dropped: u32,
    /// TCP connections that were reset for breaking the framing or a deadline.
    pub aborted: u32,
}

fn count(counter: &mut u32) {
    *counter = counter.wrapping_add(1);
}

/// Answers one message: the octets written to `out`, or `None` when it gets no answer.
///
/// No answer goes to a response (two servers would answer each other for ever), to what is shorter
/// than a header, and when `out` has no room for a header, the question and OPT (282 octets).
pub fn answer(
    zone: &impl Zone,
    query: &[u8],
    transport: Transport,
    out: &mut [u8],
    stats: &mut Stats,
) -> Option<usize> {
    let written = respond(zone, query, transport, out, stats);
    match (written, transport) {
        (None, _) => count(&mut stats.dropped),
        (Some(_), Transport::Udp) => count(&mut stats.udp),
        (Some(_), Transport::Tcp) => count(&mut stats.tcp),
    }
    written
}

fn respond(
    zone: &impl Zone,
    query: &[u8],
    transport: Transport,
    out: &mut [u8],
    stats: &mut Stats,
) -> Option<usize> {
    let message = Message::from_slice(query).ok()?;
    let header = message.header();
    if header.qr() {
        return None;
    }
    // An operation other than QUERY may have another format: what can be read of it is echoed.
    let request = Request::parse(message);
    let mut rcode = match &request {
        _ if header.opcode() != Opcode::QUERY => OptRcode::NOTIMP,
        Err(_) => OptRcode::FORMERR,
        Ok(Request {
            edns: Some(edns), ..
        }) if edns.version != 0 => OptRcode::BADVERS,
        Ok(Request { question, .. })
            if question.qclass() != Class::IN
                || matches!(question.qtype(), Rtype::AXFR | Rtype::IXFR) =>
        {
            OptRcode::REFUSED
        }
        Ok(_) => OptRcode::NOERROR,
    };
    let edns = request.as_ref().ok().and_then(|request| request.edns);

    let limit = match (transport, edns) {
        (Transport::Tcp, _) => u16::MAX,
        (Transport::Udp, None) => UDP_MAX_PLAIN,
        (Transport::Udp, Some(edns)) => edns.udp_size.clamp(UDP_MAX_PLAIN, UDP_MAX),
    };
    let limit = usize::from(limit).min(out.len());
    let target = StaticCompressor::new(Buffer {
        octets: out.get_mut(..limit)?,
        len: 0,
    });
    let mut builder = MessageBuilder::from_target(target).ok()?;
    if edns.is_some() {
        // The last octets are kept for OPT. (The crate's limit is one that a message stays below.)
        builder.set_push_limit((limit + 1).checked_sub(OPT_LEN)?);
    }
    let to = builder.header_mut();
    to.set_id(header.id());
    to.set_qr(true);
    to.set_opcode(header.opcode());
    to.set_rd(header.rd());

    let mut question = builder.question();
    if let Ok(request) = &request {
        question.push(request.question).ok()?;
    }
    let mut authority = question.answer().authority();
    if let (OptRcode::NOERROR, Ok(request)) = (rcode, &request) {
        match request.question.qtype() {
            Rtype::A => count(&mut stats.a),
            Rtype::AAAA => count(&mut stats.aaaa),
            _ => count(&mut stats.other),
        }
        let mut answer = authority.answer();
        let mut lookup = Lookup::new(zone, &request.question);
        let outcome = lookup.answer(&mut answer);
        authority = answer.authority();
        let outcome = outcome.and_then(|found| {
            if found.negative {
                lookup.push_soa(&mut authority)?;
            }
            Ok(found.rcode)
        });
        rcode = outcome.unwrap_or_else(|failure| match (failure, transport) {
            (Failure::NoRoom, Transport::Udp) => OptRcode::NOERROR,
            _ => OptRcode::SERVFAIL,
        });
        authority
            .header_mut()
            .set_aa(matches!(rcode, OptRcode::NOERROR | OptRcode::NXDOMAIN));
        if outcome.is_err() {
            // A part of an answer is worse than none (RFC 2181 section 9).
            authority = authority.answer().rewind_into().authority();
        }
        if outcome == Err(Failure::NoRoom) && transport == Transport::Udp {
            authority.header_mut().set_tc(true);
            count(&mut stats.truncated);
        }
    }
    authority.header_mut().set_rcode(rcode.rcode());

    let mut additional = authority.additional();
    if let Some(edns) = edns {
        additional.clear_push_limit();
        let opt = additional.opt(|opt| {
            opt.set_udp_payload_size(UDP_MAX);
            opt.set_rcode(rcode);
            opt.set_dnssec_ok(edns.dnssec_ok);
            Ok(())
        });
        opt.ok()?;
    }
    if let Some(counter) = stats.rcodes.get_mut(usize::from(rcode.to_int()).min(15)) {
        count(counter);
    }
    Some(additional.finish().into_target().len)
}

/// The part of a message that a query is made of.
struct Request<'q> {
    question: Question<ParsedName<&'q [u8]>>,
    edns: Option<Edns>,
}

#[derive(Clone, Copy)]
struct Edns {
    udp_size: u16,
    version: u8,
    dnssec_ok: bool,
}

impl<'q> Request<'q> {
    /// Reads the question and OPT; every record is checked for its framing, and nothing may follow.
    fn parse(message: &'q Message<[u8]>) -> Result<Self, ParseError> {
        // RFC 9619: one question, no more and no fewer.
        let question = message.sole_question()?;
        // There is nothing before the name that it could point to but the header.
        if question.qname().is_compressed() {
            return Err(ParseError::form_error("compressed question"));
        }
        let mut edns = None;
        let mut additional = message.additional()?;
        for record in &mut additional {
            let record = record?;
            if record.rtype() != Rtype::OPT {
                continue;
            }
            // RFC 6891 section 6.1.1 and 6.1.2: one, and its owner is the root.
            let opt = record
                .to_record::<Opt<_>>()?
                .filter(|opt| opt.owner().is_root());
            let opt = match opt {
                Some(opt) if edns.is_none() => OptRecord::from_record(opt),
                _ => return Err(ParseError::form_error("bad OPT")),
            };
            edns = Some(Edns {
                udp_size: opt.udp_payload_size(),
                version: opt.version(),
                dnssec_ok: opt.dnssec_ok(),
            });
        }
        if additional.pos() != message.as_slice().len() {
            return Err(ParseError::form_error("trailing octets"));
        }
        Ok(Self { question, edns })
    }
}

/// Why there is no complete answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Failure {
    /// It does not fit.
    NoRoom,
    /// The zone contradicts itself.
    BadZone,
}

impl From<PushError> for Failure {
    fn from(_: PushError) -> Self {
        Self::NoRoom
    }
}

/// What a lookup came to.
struct Found {
    rcode: OptRcode,
    /// Whether the SOA record belongs into the authority section.
    negative: bool,
}

/// One walk through a zone (RFC 1034 section 4.3.2, RFC 4592).
struct Lookup<'z, Z> {
    zone: &'z Z,
    qtype: Rtype,
    /// The name that is looked for, in lower case, and its length.
    key: [u8; NAME_MAX],
    len: usize,
    /// Where the apex of its zone begins in it.
    apex: usize,
}

impl<'z, Z: Zone> Lookup<'z, Z> {
    fn new(zone: &'z Z, question: &Question<ParsedName<&[u8]>>) -> Self {
        let mut lookup = Self {
            zone,
            qtype: question.qtype(),
            key: [0; NAME_MAX],
            len: 0,
            apex: 0,
        };
        lookup.set_key(question.qname());
        lookup
    }

    fn set_key(&mut self, name: &(impl ToName + ?Sized)) {
        let mut key = Buffer {
            octets: &mut self.key,
            len: 0,
        };
        // A name that was parsed is not longer than the key.
        let _ = name.compose_canonical(&mut key);
        self.len = key.len;
    }

    fn name(&self, from: usize) -> Result<&Name<[u8]>, Failure> {
        self.key
            .get(from..self.len)
            .and_then(|octets| Name::from_slice(octets).ok())
            .ok_or(Failure::BadZone)
    }

    /// Fills the answer section.
    fn answer<T: Composer>(&mut self, answer: &mut AnswerBuilder<T>) -> Result<Found, Failure> {
        let positive = Found {
            rcode: OptRcode::NOERROR,
            negative: false,
        };
        for links in 0..=MAX_CNAMES {
            match self.zone.apex(self.name(0)?.as_slice()) {
                Some(apex) => self.apex = apex,
                None if links == 0 => {
                    return Ok(Found {
                        rcode: OptRcode::REFUSED,
                        negative: false,
                    });
                }
                // The resolver goes on from where the zone ends.
                None => return Ok(positive),
            }
            let Some(node) = self.find() else {
                return Ok(Found {
                    rcode: OptRcode::NXDOMAIN,
                    negative: true,
                });
            };
            if self.qtype == Rtype::ANY {
                let data = UnknownRecordData::from_octets(Rtype::HINFO, ANY_HINFO)
                    .map_err(|_| Failure::BadZone)?;
                answer.push((self.name(0)?, Class::IN, Ttl::from_secs(ANY_TTL), data))?;
                return Ok(positive);
            }
            if let Some(set) = self.zone.rrset(node, self.qtype.to_int()) {
                self.push(answer, self.qtype, set)?;
                return Ok(positive);
            }
            let Some(set) = self.zone.rrset(node, rtype::CNAME) else {
                return Ok(Found {
                    rcode: OptRcode::NOERROR,
                    negative: true,
                });
            };
            self.push(answer, Rtype::CNAME, set)?;
            let target = set
                .records()
                .next()
                .and_then(|rdata| Name::from_slice(rdata).ok());
            self.set_key(target.ok_or(Failure::BadZone)?);
        }
        // A chain this long is a loop, or as good as one.
        Err(Failure::BadZone)
    }

    /// The node of the name, or of the wildcard that stands in for it.
    fn find(&mut self) -> Option<Z::Node> {
        if let Some(node) = self.zone.node(self.key.get(..self.len)?) {
            return Some(node);
        }
        // Up to the closest encloser: the longest suffix that exists.
        let mut encloser = 0;
        while encloser < self.apex {
            encloser += 1 + usize::from(*self.key.get(encloser)?);
            if self.zone.node(self.key.get(encloser..self.len)?).is_none() {
                continue;
            }
            // The label before it has at least two octets, which lend their place to `*`.
            let start = encloser.checked_sub(2)?;
            let label: &mut [u8; 2] = self.key.get_mut(start..encloser)?.try_into().ok()?;
            let kept = core::mem::replace(label, *b"\x01*");
            let node = self.zone.node(self.key.get(start..self.len)?);
            self.key.get_mut(start..encloser)?.copy_from_slice(&kept);
            return node;
        }
        None
    }

    fn push<T: Composer>(
        &self,
        answer: &mut AnswerBuilder<T>,
        rtype: Rtype,
        set: RrSet<'_>,
    ) -> Result<(), Failure> {
        let owner = self.name(0)?;
        for rdata in set.records() {
            let data =
                UnknownRecordData::from_octets(rtype, rdata).map_err(|_| Failure::BadZone)?;
            answer.push((owner, Class::IN, Ttl::from_secs(set.ttl), data))?;
        }
        Ok(())
    }

    /// Says how long the absence may be remembered (RFC 2308 section 3).
    fn push_soa<T: Composer>(&self, authority: &mut AuthorityBuilder<T>) -> Result<(), Failure> {
        let owner = self.name(self.apex)?;
        let soa = || {
            let set = self
                .zone
                .rrset(self.zone.node(owner.as_slice())?, rtype::SOA)?;
            let rdata = set.records().next()?;
            let minimum = u32::from_be_bytes(*rdata.last_chunk()?);
            let data = UnknownRecordData::from_octets(Rtype::SOA, rdata).ok()?;
            Some((set.ttl.min(minimum), data))
        };
        let (ttl, data) = soa().ok_or(Failure::BadZone)?;
        authority.push((owner, Class::IN, Ttl::from_secs(ttl), data))?;
        Ok(())
    }
}

/// Octets written to the start of a slice.
struct Buffer<'o> {
    octets: &'o mut [u8],
    len: usize,
}

impl AsRef<[u8]> for Buffer<'_> {
    fn as_ref(&self) -> &[u8] {
        self.octets.get(..self.len).unwrap_or_default()
    }
}

impl AsMut<[u8]> for Buffer<'_> {
    fn as_mut(&mut self) -> &mut [u8] {
        self.octets.get_mut(..self.len).unwrap_or_default()
    }
}

impl OctetsBuilder for Buffer<'_> {
    type AppendError = ShortBuf;

    fn append_slice(&mut self, slice: &[u8]) -> Result<(), ShortBuf> {
        let end = self.len.checked_add(slice.len()).ok_or(ShortBuf)?;
        self.octets
            .get_mut(self.len..end)
            .ok_or(ShortBuf)?
            .copy_from_slice(slice);
        self.len = end;
        Ok(())
    }
}

impl Truncate for Buffer<'_> {
    fn truncate(&mut self, len: usize) {
        self.len = self.len.min(len);
    }
}

impl Composer for Buffer<'_> {}

/// DNS on a TCP connection: messages after their length in 16 bits (RFC 1035 section 4.2.2),
/// pipelined as the client likes, answered in order (RFC 7766).
#[derive(Debug)]
pub struct Connection {
    /// When the client must have sent the rest of a query, or have taken an answer.
    deadline: Millis,
    closed: bool,
}

/// The longest query that is taken over TCP.
pub const TCP_QUERY_MAX: usize = 1024;
/// Time for the next whole query to arrive, and for an answer to find room.
pub const TCP_TIMEOUT: Millis = 10_000;

impl Connection {
    /// A connection that was accepted now.
    #[must_use]
    pub fn new(now: Millis) -> Self {
        Self {
            deadline: now.saturating_add(TCP_TIMEOUT),
            closed: false,
        }
    }

    /// When `process` must be called again, whatever happens until then.
    #[must_use]
    pub fn deadline(&self) -> Millis {
        self.deadline
    }

    /// Answers the queries in `input` for which `out` has room.
    ///
    /// An answer is written when `out` has `room` octets or more, and is at most that long (with its
    /// length): what does not fit is answered with SERVFAIL. `room` is at most the size of the send
    /// buffer, at least 512; `input` must be able to grow to [`TCP_QUERY_MAX`] and 2.
    pub fn process(
        &mut self,
        now: Millis,
        zone: &impl Zone,
        input: Input<'_>,
        out: &mut [u8],
        room: usize,
        stats: &mut Stats,
    ) -> Progress {
        let (mut consumed, mut written) = (0, 0);
        // Whether what is missing is the peer's to send; otherwise it is room for the answer.
        let mut starved = true;
        while !self.closed {
            let rest = input.octets.get(consumed..).unwrap_or_default();
            let Some((length, tail)) = rest.split_first_chunk() else {
                break;
            };
            let length = usize::from(u16::from_be_bytes(*length));
            if !(HEADER_LEN..=TCP_QUERY_MAX).contains(&length) {
                return self.abort(input, written, stats);
            }
            let Some(query) = tail.get(..length) else {
                break;
            };
            let space = out
                .get_mut(written..)
                .and_then(|space| space.get_mut(..room));
            let Some((prefix, space)) = space.and_then(<[u8]>::split_first_chunk_mut) else {
                starved = false;
                break;
            };
            if let Some(length) = answer(zone, query, Transport::Tcp, space, stats) {
                *prefix = u16::try_from(length).unwrap_or(0).to_be_bytes();
                written += prefix.len() + length;
            }
            consumed += 2 + length;
            self.deadline = now.saturating_add(TCP_TIMEOUT);
        }
        let expired = now >= self.deadline;
        if !starved && expired {
            return self.abort(input, written, stats);
        }
        self.closed |= starved && (input.ended || expired);
        if self.closed {
            return Progress {
                consumed: input.octets.len(),
                written,
                next: Next::Close,
            };
        }
        Progress {
            consumed,
            written,
            next: Next::Keep,
        }
    }

    fn abort(&mut self, input: Input<'_>, written: usize, stats: &mut Stats) -> Progress {
        self.closed = true;
        count(&mut stats.aborted);
        Progress {
            consumed: input.octets.len(),
            written,
            next: Next::Abort,
        }
    }
}
