//! The wire format of a query, read in place, and of names (RFC 1035 section 4, RFC 6891).

pub(super) use mayfly_site::rtype;

/// The length of a message's header, in bytes.
pub(super) const HEADER_LEN: usize = 12;
/// The length of the longest name, in bytes (RFC 1035 section 2.3.4).
pub(super) const NAME_MAX: usize = 255;
/// The length of an OPT record without options, in bytes.
pub(super) const OPT_LEN: usize = 11;

/// Classes (IANA "DNS CLASSes").
pub(super) mod class {
    pub(crate) const IN: u16 = 1;
    pub(crate) const CH: u16 = 3;
    pub(crate) const ANY: u16 = 255;
}

/// Response codes (IANA "DNS RCODEs").
pub(super) mod rcode {
    pub(crate) const NOERROR: u16 = 0;
    pub(crate) const FORMERR: u16 = 1;
    pub(crate) const SERVFAIL: u16 = 2;
    pub(crate) const NXDOMAIN: u16 = 3;
    pub(crate) const NOTIMP: u16 = 4;
    pub(crate) const REFUSED: u16 = 5;
    pub(crate) const YXDOMAIN: u16 = 6;
    pub(crate) const NOTAUTH: u16 = 9;
    pub(crate) const BADVERS: u16 = 16;
}

/// The flags: bits of the second 16-bit word of a header.
pub(super) mod flag {
    pub(crate) const QR: u16 = 0x8000;
    pub(crate) const OPCODE: u16 = 0x7800;
    pub(crate) const AA: u16 = 0x0400;
    pub(crate) const TC: u16 = 0x0200;
    pub(crate) const RD: u16 = 0x0100;
    pub(crate) const RCODE: u16 = 0x000f;
}

/// A header (RFC 1035 section 4.1.1).
#[derive(Clone, Copy, Debug)]
pub(super) struct Header {
    pub(super) id: [u8; 2],
    pub(super) flags: u16,
    pub(super) counts: [u16; 4],
}

impl Header {
    pub(super) fn read(message: &[u8]) -> Option<Self> {
        let bytes: &[u8; HEADER_LEN] = message.first_chunk()?;
        let word = |at: usize| u16::from_be_bytes([bytes[at], bytes[at + 1]]);
        Some(Self {
            id: [bytes[0], bytes[1]],
            flags: word(2),
            counts: [word(4), word(6), word(8), word(10)],
        })
    }
}

/// The question of a query.
#[derive(Clone, Copy, Debug)]
pub(super) struct Question<'q> {
    /// The name as received, uncompressed.
    pub(super) name: &'q [u8],
    pub(super) qtype: u16,
    pub(super) qclass: u16,
    /// The whole question's bytes, as received.
    pub(super) bytes: &'q [u8],
}

impl<'q> Question<'q> {
    /// Parses the first question of a message. Its name cannot be compressed: there is nothing before it that a pointer
    /// could point to.
    pub(super) fn read(message: &'q [u8]) -> Option<Self> {
        let rest = message.get(HEADER_LEN..)?;
        let length = name_length(rest)?;
        let (name, tail) = rest.split_at_checked(length)?;
        let [t0, t1, c0, c1] = *tail.first_chunk()?;
        Some(Self {
            name,
            qtype: u16::from_be_bytes([t0, t1]),
            qclass: u16::from_be_bytes([c0, c1]),
            bytes: rest.get(..length + 4)?,
        })
    }
}

/// The length of the uncompressed name at the start of `bytes`, in bytes, including its root label.
pub(super) fn name_length(bytes: &[u8]) -> Option<usize> {
    let mut at = 0;
    loop {
        match *bytes.get(at)? {
            0 => return Some(at + 1),
            length @ 1..64 => at += 1 + usize::from(length),
            _ => return None,
        }
        if at >= NAME_MAX {
            return None;
        }
    }
}

/// Whether these bytes are exactly one uncompressed name.
pub(super) fn is_name(bytes: &[u8]) -> bool {
    name_length(bytes) == Some(bytes.len())
}

/// Whether `name` is `suffix` or below it; both are uncompressed. Case is ignored.
pub(super) fn is_below(name: &[u8], suffix: &[u8]) -> bool {
    let Some(start) = name.len().checked_sub(suffix.len()) else {
        return false;
    };
    let mut at = 0;
    while at < start {
        match name.get(at) {
            // A suffix of the bytes is a suffix of the labels only if a label begins there.
            Some(length) => at += 1 + usize::from(*length),
            None => return false,
        }
    }
    at == start
        && name
            .get(at..)
            .is_some_and(|rest| rest.eq_ignore_ascii_case(suffix))
}

/// The offset of the label right before the one at `at`; `None` if none begins there.
pub(super) fn label_before(name: &[u8], at: usize) -> Option<usize> {
    let mut label = 0;
    loop {
        let next = label + 1 + usize::from(*name.get(label)?);
        if next >= at {
            return (next == at).then_some(label);
        }
        label = next;
    }
}

/// Copies a name in lower case. The length bytes of labels are less than any letter, and stay as they are.
pub(super) fn to_lower(name: &[u8], to: &mut [u8]) {
    for (to, from) in to.iter_mut().zip(name) {
        *to = from.to_ascii_lowercase();
    }
}

/// The additional section of a query.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Extra<'q> {
    pub(super) edns: Option<Edns<'q>>,
    /// Whether there is a transaction signature (RFC 8945). This server has no keys.
    pub(super) is_signed: bool,
}

/// An OPT record (RFC 6891 section 6.1.2).
#[derive(Clone, Copy, Debug)]
pub(super) struct Edns<'q> {
    pub(super) udp_size: u16,
    pub(super) version: u8,
    pub(super) dnssec_ok: bool,
    /// Whether the client asks for the server's identity (RFC 5001).
    pub(super) nsid: bool,
    /// The data of the first COOKIE option (RFC 7873).
    pub(super) cookie: Option<&'q [u8]>,
}

/// EDNS options (IANA "DNS EDNS0 Option Codes").
pub(super) const OPTION_NSID: u16 = 3;
pub(super) const OPTION_COOKIE: u16 = 10;

impl<'q> Edns<'q> {
    fn read(size: [u8; 2], ttl: [u8; 4], mut options: &'q [u8]) -> Option<Self> {
        let [_, version, flags, _] = ttl;
        let mut edns = Self {
            udp_size: u16::from_be_bytes(size),
            version,
            dnssec_ok: flags & 0x80 != 0,
            nsid: false,
            cookie: None,
        };
        // Another version may have other options.
        while version == 0 && !options.is_empty() {
            let (code, rest) = options.split_first_chunk()?;
            let (length, rest) = rest.split_first_chunk()?;
            let (data, rest) = rest.split_at_checked(u16::from_be_bytes(*length).into())?;
            match u16::from_be_bytes(*code) {
                OPTION_NSID => edns.nsid = true,
                OPTION_COOKIE => edns.cookie = edns.cookie.or(Some(data)),
                _ => {}
            }
            options = rest;
        }
        Some(edns)
    }
}

impl<'q> Extra<'q> {
    /// Parses the `count` records of the additional section; `None` if their format is wrong.
    ///
    /// There may be one OPT, at any place (RFC 6891 section 6.1.1), and one TSIG, which is the last (RFC 8945 section
    /// 5.1). Bytes after them are ignored.
    pub(super) fn read(message: &'q [u8], mut at: usize, count: u16) -> Option<Self> {
        let mut extra = Self::default();
        for _ in 0..count {
            let root = message.get(at) == Some(&0);
            let (rtype, fixed, data, end) = record(message, at)?;
            let [c0, c1, t0, t1, t2, t3] = fixed;
            at = end;
            match rtype {
                _ if extra.is_signed => return None,
                rtype::OPT if root && extra.edns.is_none() => {
                    extra.edns = Some(Edns::read([c0, c1], [t0, t1, t2, t3], data)?);
                }
                // A TSIG that cannot be parsed is a format error (RFC 8945 section 5.2). For all others the key is
                // unknown.
                rtype::TSIG if fixed == [0, 255, 0, 0, 0, 0] && is_signature(data) => {
                    extra.is_signed = true;
                }
                _ => return None,
            }
        }
        Some(extra)
    }
}

/// Whether bytes are the RDATA of a TSIG record (RFC 8945 section 4.2).
fn is_signature(data: &[u8]) -> bool {
    let other = || {
        // Algorithm, time and fudge, MAC, original ID and error.
        let rest = data.get(name_length(data)? + 8..)?;
        let (mac, rest) = rest.split_first_chunk()?;
        let rest = rest.get(usize::from(u16::from_be_bytes(*mac)) + 4..)?;
        let (length, other) = rest.split_first_chunk()?;
        Some(other.len() == usize::from(u16::from_be_bytes(*length)))
    };
    other() == Some(true)
}

/// The type, the class and TTL, and the RDATA of the record at `at`, and the offset of its end.
fn record(message: &[u8], at: usize) -> Option<(u16, [u8; 6], &[u8], usize)> {
    let at = skip_name(message, at)?;
    let rest = message.get(at..)?;
    let ([t0, t1, fixed @ .., l0, l1], rest) = rest.split_first_chunk::<10>()?;
    let data = rest.get(..u16::from_be_bytes([*l0, *l1]).into())?;
    let rtype = u16::from_be_bytes([*t0, *t1]);
    Some((rtype, *fixed, data, at + 10 + data.len()))
}

/// The offset of the end of the record at `at`.
pub(super) fn skip_record(message: &[u8], at: usize) -> Option<usize> {
    record(message, at).map(|(_, _, _, end)| end)
}

/// The offset of the end of the name at `at`, which may be compressed.
fn skip_name(message: &[u8], mut at: usize) -> Option<usize> {
    loop {
        match *message.get(at)? {
            0 => return Some(at + 1),
            length @ 1..64 => at += 1 + usize::from(length),
            0xc0.. => return Some(at + 2),
            _ => return None,
        }
    }
}
