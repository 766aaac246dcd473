//! A client's question for the resolver, and the check of the answer.
//!
//! The resolver gets a new query with the question, the flags RD and CD, and OPT if the client sent one. The client's
//! message id, its cookie (RFC 7873 section 5) and all other options are not forwarded.

use std::net::IpAddr;

use domain::base::iana::Opcode;
use domain::base::{Message, Name, ToName as _};

/// The size in bytes of a message's header (RFC 1035 section 4.1.1).
const HEADER: usize = 12;
/// Bits of the header's third and fourth byte.
const QR: u8 = 0x80;
const OPCODE: u8 = 0x78;
const TC: u8 = 0x02;
const RD: u8 = 0x01;
const RA: u8 = 0x80;
const CD: u8 = 0x10;
const SERVFAIL: u8 = 2;
/// The longest answer over UDP in bytes (RFC 9715 appendix A), and the longest for a client without OPT.
const UDP_MAX: u16 = 1232;
const UDP_PLAIN: u16 = 512;

/// A client's question.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct DnsQuestion {
    /// The client's message id.
    id: [u8; 2],
    /// The message id of the query to the resolver, which its answer must have.
    number: [u8; 2],
    /// RD and CD, as the client has set them.
    flags: [u8; 2],
    /// Name, type and class in wire form, in the client's spelling.
    asked: Vec<u8>,
    /// Whether the client's OPT record has the flag DO; `None` if it sent no OPT record.
    opt: Option<bool>,
    /// The longest answer that the client takes over UDP, in bytes.
    room: usize,
}

impl DnsQuestion {
    /// Reads a client's query. Returns `None` if it is no query with one question, or if the kernel gives no random
    /// numbers.
    pub(super) fn read(query: &[u8]) -> Option<Self> {
        let message = Message::from_octets(query).ok()?;
        let header = message.header();
        if header.qr() || header.opcode() != Opcode::QUERY {
            return None;
        }
        let question = message.sole_question().ok()?;
        let name: Name<Vec<u8>> = question.qname().to_name();
        let mut asked = name.as_slice().to_vec();
        asked.extend(question.qtype().to_int().to_be_bytes());
        asked.extend(question.qclass().to_int().to_be_bytes());
        let opt = message.opt();
        let room = opt.as_ref().map_or(UDP_PLAIN, |opt| {
            opt.udp_payload_size().clamp(UDP_PLAIN, UDP_MAX)
        });
        let mut number = [0; 2];
        rustix::rand::getrandom(&mut number, rustix::rand::GetRandomFlags::empty()).ok()?;
        Some(Self {
            id: *query.first_chunk()?,
            number,
            flags: [query.get(2)? & RD, query.get(3)? & CD],
            asked,
            opt: opt.map(|opt| opt.dnssec_ok()),
            room: room.into(),
        })
    }

    /// The query for the resolver.
    pub(super) fn query(&self) -> Vec<u8> {
        let mut query = self.head(self.number, self.flags);
        if let Some(dnssec) = self.opt {
            if let Some(additional) = query.get_mut(11) {
                *additional = 1;
            }
            // The root's name, type OPT, our size, the flag DO, no options (RFC 6891 section 6.1.2).
            query.extend([0, 0, 41]);
            query.extend(UDP_MAX.to_be_bytes());
            query.extend([0, 0, u8::from(dnssec) << 7, 0, 0, 0]);
        }
        query
    }

    /// A header and the question.
    fn head(&self, id: [u8; 2], flags: [u8; 2]) -> Vec<u8> {
        let mut message = vec![0; HEADER];
        let fields = id.into_iter().chain(flags).chain([0, 1]);
        message
            .iter_mut()
            .zip(fields)
            .for_each(|(to, from)| *to = from);
        message.extend_from_slice(&self.asked);
        message
    }

    /// The answer for the client. Returns `None` if the id or the question does not match (RFC 5452 section 9.1).
    pub(super) fn answer(&self, answer: &[u8]) -> Option<Vec<u8>> {
        let (header, rest) = answer.split_first_chunk::<HEADER>()?;
        let is_it = header.starts_with(&self.number)
            && header[2] & (QR | OPCODE) == QR
            && header[4..6] == [0, 1]
            && rest.starts_with(&self.asked);
        is_it.then(|| [&self.id, answer.get(2..).unwrap_or_default()].concat())
    }

    /// The answer for a client over UDP: truncated if it is too long, so that the client comes over TCP.
    pub(super) fn answer_over_udp(&self, answer: &[u8]) -> Option<Vec<u8>> {
        let whole = self.answer(answer)?;
        if whole.len() <= self.room {
            return Some(whole);
        }
        let &[_, _, flags, more, ..] = whole.as_slice() else {
            return None;
        };
        Some(self.head(self.id, [flags | TC, more]))
    }

    /// The answer for the client when the resolver has none: SERVFAIL.
    pub(super) fn failure(&self) -> Vec<u8> {
        let [rd, cd] = self.flags;
        self.head(self.id, [QR | rd, RA | cd | SERVFAIL])
    }
}

/// The networks of clients whose queries are forwarded.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Allowed(pub(super) Vec<ipnet::IpNet>);

impl Allowed {
    pub(super) fn has(&self, client: IpAddr) -> bool {
        let client = client.to_canonical();
        self.0.iter().any(|network| network.contains(&client))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A query for www.example.org A, with RD, an OPT of 4096 bytes with DO, and a cookie in it.
    fn query() -> Vec<u8> {
        let mut query = vec![0x12, 0x34, RD, 0x20, 0, 1, 0, 0, 0, 0, 0, 1];
        query.extend(b"\x03www\x07Example\x03org\0\0\x01\0\x01");
        query.extend([0, 0, 41, 0x10, 0, 0, 0, 0x80, 0, 0, 12]);
        query.extend([0, 10, 0, 8, 1, 2, 3, 4, 5, 6, 7, 8]);
        query
    }

    fn answer(question: &DnsQuestion, length: usize) -> Vec<u8> {
        let mut answer = question.head(question.number, [QR | RD, RA]);
        answer.resize(length, 0);
        answer
    }

    #[test]
    fn the_resolver_sees_the_question_and_nothing_of_the_client() {
        let question = DnsQuestion::read(&query()).unwrap();
        let sent = question.query();
        let message = Message::from_octets(sent.as_slice()).unwrap();
        assert_eq!(
            message.sole_question().unwrap().qname().to_string(),
            "www.Example.org"
        );
        let opt = message.opt().unwrap();
        assert!(opt.dnssec_ok());
        assert_eq!(opt.udp_payload_size(), UDP_MAX);
        assert_eq!(opt.opt().len(), 0, "no option");
        assert!(message.header().rd() && !message.header().ad());
    }

    #[test]
    fn only_the_answer_to_this_question_is_one() {
        let question = DnsQuestion::read(&query()).unwrap();
        let right = answer(&question, 60);
        let told = question.answer(&right).unwrap();
        assert_eq!((&told[..2], &told[2..]), (&[0x12, 0x34][..], &right[2..]));
        for at in [0, 1, 2, 5, 14, 22, 30, 32] {
            let mut wrong = right.clone();
            wrong[at] ^= if at == 2 { QR } else { 1 };
            assert_eq!(question.answer(&wrong), None, "byte {at}");
        }
        for length in 0..HEADER + question.asked.len() {
            assert_eq!(question.answer(&right[..length]), None, "{length} bytes");
        }
    }

    #[test]
    fn a_client_gets_no_more_over_udp_than_it_takes() {
        let question = DnsQuestion::read(&query()).unwrap();
        assert_eq!(
            question
                .answer_over_udp(&answer(&question, 1232))
                .unwrap()
                .len(),
            1232
        );
        let cut = question.answer_over_udp(&answer(&question, 1233)).unwrap();
        assert_eq!(cut.len(), HEADER + question.asked.len());
        assert_eq!((cut[2] & TC, &cut[6..12]), (TC, &[0; 6][..]));
        // Without OPT it takes 512 bytes.
        let mut plain = query();
        plain.truncate(HEADER + question.asked.len());
        plain[11] = 0;
        let question = DnsQuestion::read(&plain).unwrap();
        assert!(question.opt.is_none() && question.query().len() == plain.len());
        assert!(
            question
                .answer_over_udp(&answer(&question, 513))
                .unwrap()
                .len()
                < 100
        );
    }

    #[test]
    fn what_is_no_question_is_not_forwarded() {
        let query = query();
        for at in 0..query.len() {
            let _ = DnsQuestion::read(&query[..at]);
        }
        let mut response = query.clone();
        response[2] |= QR;
        let mut notify = query.clone();
        notify[2] |= 4 << 3;
        let mut two = query;
        two[5] = 2;
        for wrong in [response, notify, two] {
            assert_eq!(DnsQuestion::read(&wrong), None);
        }
    }

    #[test]
    fn networks_are_those_that_were_named() {
        let allowed = Allowed(vec![
            "10.0.0.0/8".parse().unwrap(),
            "fd00::/16".parse().unwrap(),
        ]);
        for (client, may) in [
            ("10.1.2.3", true),
            ("::ffff:10.1.2.3", true),
            ("11.0.0.1", false),
            ("fd00:1::1", true),
            ("fe80::1", false),
        ] {
            assert_eq!(allowed.has(client.parse().unwrap()), may, "{client}");
        }
    }
}
