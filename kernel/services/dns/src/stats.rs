//! The counters of a server.

use super::wire::rtype;

/// The query types with a counter of their own (IANA "Resource Record (RR) TYPEs").
pub const COUNTED_TYPES: [(u16, &str); 16] = [
    (rtype::A, "A"),
    (rtype::NS, "NS"),
    (rtype::CNAME, "CNAME"),
    (rtype::SOA, "SOA"),
    (rtype::PTR, "PTR"),
    (rtype::MX, "MX"),
    (rtype::TXT, "TXT"),
    (rtype::AAAA, "AAAA"),
    (rtype::SRV, "SRV"),
    (rtype::DS, "DS"),
    (rtype::DNSKEY, "DNSKEY"),
    (rtype::SVCB, "SVCB"),
    (rtype::HTTPS, "HTTPS"),
    (rtype::IXFR, "IXFR"),
    (rtype::AXFR, "AXFR"),
    (rtype::ANY, "ANY"),
];

/// The counters. They wrap.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct QueryCounts {
    /// Queries over UDP that were answered, with any response code.
    pub udp: u32,
    /// Queries over TCP that were answered, with any response code.
    pub tcp: u32,
    /// Answers by response code, 0 to 15; BADVERS (16) and above count as the last.
    pub rcodes: [u32; 16],
    /// Questions by type, as in [`COUNTED_TYPES`].
    pub types: [u32; COUNTED_TYPES.len()],
    /// Questions for another type.
    pub other_types: u32,
    /// Answers with TC set because they did not fit.
    pub truncated: u32,
    /// Answers with TC set because there were too many to one network.
    pub slipped: u32,
    /// Answers that were not sent because there were too many to one network.
    pub limited: u32,
    /// Messages that get no answer: responses, and shorter than a header.
    pub dropped: u32,
    /// Answers of SERVFAIL because the zone contradicts itself.
    pub broken: u32,
    /// Queries with a valid cookie of this server.
    pub cookies: u32,
    /// Zone transfers that were begun.
    pub transfers: u32,
    /// TCP connections that were reset for breaking the framing or a deadline.
    pub aborted: u32,
}

pub(super) fn count(counter: &mut u32) {
    *counter = counter.wrapping_add(1);
}

impl QueryCounts {
    pub(super) fn count_type(&mut self, rtype: u16) {
        // The most frequent types need no search.
        let index = match rtype {
            rtype::A => Some(0),
            _ => COUNTED_TYPES.iter().position(|(known, _)| *known == rtype),
        };
        let counter = index.and_then(|index| self.types.get_mut(index));
        count(counter.unwrap_or(&mut self.other_types));
    }
}
