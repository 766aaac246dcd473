//! The server against zones in memory (`model`), its answers read back by a decoder of the tests' own
//! and by that of the `domain` crate.

extern crate std;

use core::net::{IpAddr, Ipv4Addr};
use std::format;
use std::string::{String, ToString};

use std::vec::Vec;

use super::wire::rtype::*;
use super::*;
use mayfly_site::{Broken, Encloser, Nsec3Parameters, RrSet, Zone, Zones};
use mayfly_stream::Input;
use mayfly_stream::Next;
use mayfly_stream::Progress;
use model::{Model, wire, zones};

mod answers;
mod hostile;
mod limits;
mod messages;
pub(crate) mod model;
mod signed;
mod size;
mod stream;
mod tails;

const IN: u16 = class::IN;

/// An address of a documentation network.
const ADDRESS: IpAddr = IpAddr::V4(Ipv4Addr::new(198, 51, 100, 7));

fn client(transport: Transport) -> Client {
    Client {
        address: ADDRESS,
        transport,
    }
}

fn server() -> Server {
    let mut config = ServerConfig::new([7; 16]);
    config.rate_limit = None;
    config.identity = Identity::from_slice(b"me").unwrap();
    Server::new(config)
}

/// A query with ID 0x1234 and these flags and counts.
fn header(flags: u16, counts: [u16; 4]) -> Vec<u8> {
    let mut bytes = Vec::from(0x1234_u16.to_be_bytes());
    bytes.extend(flags.to_be_bytes());
    bytes.extend(counts.iter().flat_map(|count| count.to_be_bytes()));
    bytes
}

fn question(name: &str, qtype: u16, class: u16) -> Vec<u8> {
    let mut bytes = wire(name);
    bytes.extend(qtype.to_be_bytes());
    bytes.extend(class.to_be_bytes());
    bytes
}

fn query(name: &str, qtype: u16) -> Vec<u8> {
    [header(flag::RD, [1, 0, 0, 0]), question(name, qtype, IN)].concat()
}

/// An OPT record; `ttl` is extended RCODE, version and flags.
fn opt(size: u16, ttl: u32, options: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::from(*b"\0\0\x29");
    bytes.extend(size.to_be_bytes());
    bytes.extend(ttl.to_be_bytes());
    bytes.extend(u16::try_from(options.len()).unwrap().to_be_bytes());
    bytes.extend_from_slice(options);
    bytes
}

/// DO, in the TTL of OPT.
const DO: u32 = 0x8000;

fn query_edns(name: &str, qtype: u16, size: u16, ttl: u32) -> Vec<u8> {
    [
        header(flag::RD, [1, 0, 0, 1]),
        question(name, qtype, IN),
        opt(size, ttl, b""),
    ]
    .concat()
}

fn ask(zones: &impl Zones, query: &[u8], transport: Transport) -> Option<Vec<u8>> {
    ask_of(&mut server(), zones, query, transport)
}

fn ask_of(
    server: &mut Server,
    zones: &impl Zones,
    query: &[u8],
    transport: Transport,
) -> Option<Vec<u8>> {
    let mut out = [0xee; 20_000];
    let written = server.answer(zones, 0, 0, client(transport), query, &mut out)?;
    assert_parses(&out[..written]);
    Some(out[..written].to_vec())
}

/// Reads an answer as the `domain` crate does.
fn assert_parses(message: &[u8]) {
    use domain::base::Message;
    use domain::rdata::AllRecordData;
    let message = Message::from_octets(message).unwrap();
    let counts = message.header_counts();
    let announced = [counts.ancount(), counts.nscount(), counts.arcount()];
    let mut sections = [0; 3];
    let mut section = Some(message.answer().unwrap());
    for count in &mut sections {
        let mut records = section.take().unwrap();
        for record in &mut records {
            let record = record.unwrap();
            record.into_record::<AllRecordData<_, _>>().unwrap();
            *count += 1;
        }
        section = records.next_section().unwrap();
    }
    assert_eq!(sections, announced);
}

/// A decoder of its own, so that the one in use does not judge itself.
struct Dump<'m> {
    message: &'m [u8],
    at: usize,
}

impl Dump<'_> {
    fn u8(&mut self) -> u8 {
        self.at += 1;
        self.message[self.at - 1]
    }

    fn u16(&mut self) -> u16 {
        u16::from(self.u8()) << 8 | u16::from(self.u8())
    }

    fn u32(&mut self) -> u32 {
        u32::from(self.u16()) << 16 | u32::from(self.u16())
    }

    fn name(&mut self) -> String {
        let mut text = String::new();
        loop {
            match self.u8() {
                0 => return if text.is_empty() { ".".into() } else { text },
                length @ 1..64 => {
                    let label = &self.message[self.at..self.at + usize::from(length)];
                    text += &format!("{}.", label.escape_ascii());
                    self.at += usize::from(length);
                }
                high @ 0xc0.. => {
                    let at = usize::from(high & 0x3f) << 8 | usize::from(self.u8());
                    assert!(at < self.at - 2, "a pointer points back");
                    return text
                        + &Dump {
                            message: self.message,
                            at,
                        }
                        .name();
                }
                other => panic!("label type {other:#x}"),
            }
        }
    }

    fn rest(&mut self, end: usize) -> String {
        let bytes = &self.message[self.at..end];
        self.at = end;
        bytes.escape_ascii().to_string()
    }

    fn record(&mut self) -> String {
        let owner = self.name();
        let (rtype, class, ttl) = (self.u16(), self.u16(), self.u32());
        let length = usize::from(self.u16());
        let end = self.at + length;
        let data = match rtype {
            A => format!("A {}", Ipv4Addr::from_bits(self.u32())),
            AAAA => {
                let high = u128::from(self.u32()) << 32 | u128::from(self.u32());
                let low = u128::from(self.u32()) << 32 | u128::from(self.u32());
                format!("AAAA {}", core::net::Ipv6Addr::from_bits(high << 64 | low))
            }
            NS => format!("NS {}", self.name()),
            CNAME => format!("CNAME {}", self.name()),
            PTR => format!("PTR {}", self.name()),
            DNAME => format!("DNAME {}", self.name()),
            MINFO => format!("MINFO {} {}", self.name(), self.name()),
            MX => format!("MX {} {}", self.u16(), self.name()),
            SRV => {
                let numbers = [self.u16(), self.u16(), self.u16()];
                format!("SRV {numbers:?} {}", self.name())
            }
            SOA => {
                let (primary, mailbox) = (self.name(), self.name());
                let numbers: Vec<_> = (0..5).map(|_| format!("{}", self.u32())).collect();
                format!("SOA {primary} {mailbox} {}", numbers.join(" "))
            }
            RRSIG => {
                let covered = self.u16();
                self.at = end;
                format!("RRSIG {covered}")
            }
            NSEC => {
                let next = self.name();
                self.at = end;
                format!("NSEC {next}")
            }
            OPT => return format!("OPT {owner} {class} {ttl:#x} \"{}\"", self.rest(end)),
            _ => format!("{rtype} \"{}\"", self.rest(end)),
        };
        assert_eq!(self.at, end, "{data}");
        match class {
            IN => format!("{owner} {ttl} {data}"),
            _ => format!("{owner} {ttl} class{class} {data}"),
        }
    }
}

/// `RCODE flags; question; answers; authority; additional`, records separated by commas.
fn dump(message: &[u8]) -> String {
    let mut dump = Dump { message, at: 0 };
    assert_eq!(dump.u16(), 0x1234, "ID");
    let flags = dump.u16();
    let mut text = format!("{}", flags & 15);
    for (bit, name) in [
        (0x8000, " qr"),
        (0x0400, " aa"),
        (0x0200, " tc"),
        (0x0100, " rd"),
        (0x0080, " ra"),
        (0x0070, " z"),
    ] {
        if flags & bit != 0 {
            text += name;
        }
    }
    match flags >> 11 & 15 {
        0 => {}
        opcode => text += &format!(" op{opcode}"),
    }
    let counts = [dump.u16(), dump.u16(), dump.u16(), dump.u16()];
    for (section, count) in counts.into_iter().enumerate() {
        let records: Vec<_> = (0..count)
            .map(|_| {
                if section > 0 {
                    return dump.record();
                }
                format!("{} {}/{}", dump.name(), dump.u16(), dump.u16())
            })
            .collect();
        text += &format!(
            ";{}{}",
            if count > 0 { " " } else { "" },
            records.join(", ")
        );
    }
    assert_eq!(dump.at, message.len(), "nothing follows");
    text
}

/// The sections of an answer: its flags, and what follows the question.
fn sections(message: &[u8]) -> Vec<String> {
    let text = dump(message);
    let mut sections: Vec<_> = text.split(';').map(|section| section.trim()).collect();
    sections.remove(1);
    sections.into_iter().map(String::from).collect()
}

/// A node as `rrset` sees it, with every call counted, one of which fails.
struct Failing<'m> {
    model: &'m Model,
    calls: core::cell::Cell<usize>,
    fails_at: usize,
}

impl<'m> Failing<'m> {
    fn new(model: &'m Model, fails_at: usize) -> Self {
        Self {
            model,
            calls: core::cell::Cell::new(0),
            fails_at,
        }
    }

    fn call(&self) -> Result<&'m Model, Broken> {
        let call = self.calls.get();
        self.calls.set(call + 1);
        if call == self.fails_at {
            return Err(Broken);
        }
        Ok(self.model)
    }
}

type Handle = <Model as Zones>::Node;

impl Zones for Failing<'_> {
    type Node = Handle;

    fn zone(&self, name: &[u8]) -> Result<Option<Zone<Handle>>, Broken> {
        self.call()?.zone(name)
    }

    fn closest_encloser(
        &self,
        zone: Zone<Handle>,
        name: &[u8],
    ) -> Result<Encloser<Handle>, Broken> {
        self.call()?.closest_encloser(zone, name)
    }

    fn wildcard(&self, node: Handle) -> Result<Option<Handle>, Broken> {
        self.call()?.wildcard(node)
    }

    fn delegation(&self, node: Handle) -> Result<Option<Handle>, Broken> {
        self.call()?.delegation(node)
    }

    fn name(&self, node: Handle) -> Result<&[u8], Broken> {
        self.call()?.name(node)
    }

    fn rrset(&self, node: Handle, rtype: u16) -> Result<Option<RrSet<'_>>, Broken> {
        self.call()?.rrset(node, rtype)
    }

    fn nth_rrset(&self, node: Handle, index: usize) -> Result<Option<RrSet<'_>>, Broken> {
        self.call()?.nth_rrset(node, index)
    }

    fn nth_node(&self, zone: Zone<Handle>, index: usize) -> Result<Option<Handle>, Broken> {
        self.call()?.nth_node(zone, index)
    }

    fn nsec(&self, zone: Zone<Handle>, name: &[u8]) -> Result<Option<Handle>, Broken> {
        self.call()?.nsec(zone, name)
    }

    fn nsec3_parameters(&self, zone: Zone<Handle>) -> Result<Option<Nsec3Parameters<'_>>, Broken> {
        self.call()?.nsec3_parameters(zone)
    }

    fn nsec3(&self, zone: Zone<Handle>, hash: &[u8; 20]) -> Result<Option<(Handle, bool)>, Broken> {
        self.call()?.nsec3(zone, hash)
    }
}
