//! Zone transfers (AXFR, RFC 5936): a whole zone as a stream of messages, from the SOA record to the SOA record. A
//! query for the difference (IXFR, RFC 1995) is answered with the whole zone, which is allowed.

use super::Request;
use super::compose::{Fault, Writer};
use super::pointer::Owner;
use super::wire::{Header, class, flag, rcode, rtype};
use mayfly_site::{RrSet, Zone, Zones, records};

/// The progress of a transfer.
#[derive(Clone, Copy, Debug)]
pub(super) struct Transfer<N> {
    id: [u8; 2],
    flags: u16,
    zone: Zone<N>,
    /// The type that was asked for, until the first message has repeated the question.
    question: Option<u16>,
    at: Position,
}

/// The record that is sent next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Position {
    Begin,
    /// A record of an RRset of a node. Signatures come after the records that they sign.
    Record {
        node: usize,
        set: usize,
        record: usize,
    },
    End,
    Done,
}

impl<N: Copy + Eq> Transfer<N> {
    /// A transfer, if this is a query for one and it is allowed.
    pub(super) fn begin(zones: &impl Zones<Node = N>, query: &[u8]) -> Option<Self> {
        let header = Header::read(query)?;
        let request = Request::read(query, &header);
        let question = request.question?;
        let is_transfer = matches!(question.qtype, rtype::AXFR | rtype::IXFR)
            && question.qclass == class::IN
            && header.flags & flag::QR == 0
            && request.rcode == rcode::NOERROR;
        if !is_transfer {
            return None;
        }
        let zone = super::lookup::apex(zones, question.name).ok()??;
        zone.transfer.then_some(Self {
            id: header.id,
            flags: flag::QR | flag::AA | header.flags & flag::RD,
            zone,
            question: Some(question.qtype),
            at: Position::Begin,
        })
    }

    pub(super) fn is_done(&self) -> bool {
        self.at == Position::Done
    }

    /// Writes the next message.
    pub(super) fn write(
        &mut self,
        zones: &impl Zones<Node = N>,
        out: &mut [u8],
    ) -> Result<usize, Fault> {
        let apex = zones.name(self.zone.apex)?;
        let mut message = Writer::new(out, usize::MAX, &[]).ok_or(Fault::Full)?;
        let is_first = self.question.is_some();
        if let Some(qtype) = self.question.take() {
            message.question(apex, qtype)?;
        }
        let mut count = 0_u16;
        let mut known = None;
        while self.at != Position::Done && count < u16::MAX {
            match self.step(zones, apex, &mut message, &mut known) {
                Ok(written) => count += written,
                Err(Fault::Full) if count > 0 => break,
                Err(fault) => return Err(fault),
            }
        }
        message
            .finish(self.id, self.flags, [is_first.into(), count, 0, 0])
            .ok_or(Fault::Full)
    }

    /// Writes the record at the current position, if there is one, and advances. Returns the number of records written.
    ///
    /// `known` is the node whose name is in the message, and the name's offset.
    fn step(
        &mut self,
        zones: &impl Zones<Node = N>,
        apex: &[u8],
        message: &mut Writer<'_>,
        known: &mut Option<(usize, usize)>,
    ) -> Result<u16, Fault> {
        match self.at {
            Position::Begin | Position::End => {
                let soa = zones.rrset(self.zone.apex, rtype::SOA)?;
                let soa = soa.ok_or(Fault::Broken)?;
                let rdata = records(soa.rdata).next().ok_or(Fault::Broken)?;
                message.record(Owner::Name(apex), soa.rtype, soa.ttl, rdata)?;
                self.at = match self.at {
                    Position::Begin => Position::Record {
                        node: 0,
                        set: 0,
                        record: 0,
                    },
                    _ => Position::Done,
                };
                Ok(1)
            }
            Position::Record { node, set, record } => {
                let Some(handle) = zones.nth_node(self.zone, node)? else {
                    self.at = Position::End;
                    return Ok(0);
                };
                let Some(found) = zones.nth_rrset(handle, set)? else {
                    self.at = Position::Record {
                        node: node + 1,
                        set: 0,
                        record: 0,
                    };
                    return Ok(0);
                };
                let is_soa = node == 0 && found.rtype == rtype::SOA;
                let Some((rtype, rdata)) = nth(&found, is_soa, record) else {
                    self.at = Position::Record {
                        node,
                        set: set + 1,
                        record: 0,
                    };
                    return Ok(0);
                };
                let owner = match *known {
                    Some((same, at)) if same == node => Owner::At(at),
                    _ => Owner::Name(zones.name(handle)?),
                };
                let place = message.record(owner, rtype, found.ttl, rdata)?;
                *known = place.owner.map(|at| (node, at));
                self.at = Position::Record {
                    node,
                    set,
                    record: record + 1,
                };
                Ok(1)
            }
            Position::Done => Ok(0),
        }
    }
}

/// The record at an index of an RRset and its signatures. The SOA record itself is only at the ends of the transfer.
fn nth<'z>(set: &RrSet<'z>, is_soa: bool, index: usize) -> Option<(u16, &'z [u8])> {
    let data = records(if is_soa { &[] } else { set.rdata }).map(|rdata| (set.rtype, rdata));
    let signatures = records(set.signatures).map(|rdata| (rtype::RRSIG, rdata));
    data.chain(signatures).nth(index)
}
