//! An answer in a form in which the answers of two servers can be compared.

use std::fmt;

use anyhow::{Context, Result, ensure};
use domain::base::iana::Rtype;
use domain::base::name::ToName;
use domain::base::rdata::{ComposeRecordData, UnknownRecordData};
use domain::base::{Message, ParsedName, ParsedRecord};
use domain::rdata::AllRecordData;

/// Bits of the header's third and fourth byte (RFC 1035 section 4.1.1, RFC 4035 section 3.2), highest first.
const FLAGS: [(u16, &str); 8] = [
    (0x8000, "QR"),
    (0x0400, "AA"),
    (0x0200, "TC"),
    (0x0100, "RD"),
    (0x0080, "RA"),
    (0x0040, "Z"),
    (0x0020, "AD"),
    (0x0010, "CD"),
];

/// A parsed message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// The header's third and fourth byte: flags, opcode, RCODE.
    pub flags: u16,
    /// The question section as received, preceded by its count.
    pub question: Vec<u8>,
    /// Records of the answer, authority and additional section, sorted, without OPT.
    pub sections: [Vec<Record>; 3],
    /// The OPT record.
    pub opt: Option<Opt>,
    /// The length of the message in bytes.
    pub length: usize,
}

/// A record independent of its place: names in lower case, uncompressed. Records that differ only in the case of their
/// names are equal.
#[derive(Clone, Debug)]
pub struct Record {
    /// The owner in wire form.
    pub owner: Vec<u8>,
    /// The type.
    pub rtype: u16,
    /// The class.
    pub class: u16,
    /// The TTL in seconds.
    pub ttl: u32,
    /// RDATA in the canonical form of RFC 4034 section 6.2.
    pub rdata: Vec<u8>,
    /// The record as text.
    pub text: String,
}

/// The content of an OPT record (RFC 6891 section 6.1).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Opt {
    /// The largest datagram that the sender accepts, in bytes.
    pub size: u16,
    /// The upper eight bits of the RCODE.
    pub rcode: u8,
    /// The version.
    pub version: u8,
    /// DO and the reserved flags.
    pub flags: u16,
    /// Code and content of each option, sorted.
    pub options: Vec<(u16, Vec<u8>)>,
}

impl Answer {
    /// Parses a message.
    ///
    /// # Errors
    /// The bytes are not a message, or more bytes follow it.
    pub fn parse(bytes: &[u8]) -> Result<Self> {
        let message = Message::from_octets(bytes)?;
        let flags = bytes.get(2..4).context("no header")?;
        let flags = u16::from_be_bytes(flags.try_into()?);
        let mut answer = Self {
            flags,
            question: bytes.get(4..6).context("no header")?.to_vec(),
            sections: Default::default(),
            opt: None,
            length: bytes.len(),
        };
        let mut questions = message.question();
        for question in questions.by_ref() {
            question.context("the question section")?;
        }
        let end = questions.answer()?.pos();
        answer
            .question
            .extend(bytes.get(12..end).context("the question section")?);
        let mut section = Some(message.answer()?);
        for index in 0..3 {
            let Some(records) = section.as_mut() else {
                break;
            };
            for record in records.by_ref() {
                let record = record.with_context(|| format!("section {index}"))?;
                if record.rtype() == Rtype::OPT {
                    ensure!(
                        index == 2 && answer.opt.is_none(),
                        "a second or misplaced OPT"
                    );
                    answer.opt = Some(Opt::parse(&record)?);
                } else if let Some(list) = answer.sections.get_mut(index) {
                    list.push(Record::parse(&record)?);
                }
            }
            section = match section {
                Some(records) => records.next_section()?,
                None => None,
            };
        }
        for list in &mut answer.sections {
            list.sort_by(|a, b| a.key().cmp(&b.key()));
        }
        Ok(answer)
    }

    /// RCODE, with the upper bits of EDNS.
    #[must_use]
    pub fn rcode(&self) -> u16 {
        let upper = self.opt.as_ref().map_or(0, |opt| opt.rcode);
        u16::from(upper) << 4 | self.flags & 0xf
    }

    /// Whether the answer was truncated.
    #[must_use]
    pub fn truncated(&self) -> bool {
        self.flags & 0x0200 != 0
    }

    /// Whether the answer is authoritative.
    #[must_use]
    pub fn authoritative(&self) -> bool {
        self.flags & 0x0400 != 0
    }

    /// Whether a section has a record of a type for which `is` holds.
    #[must_use]
    pub fn has(&self, section: usize, is: impl Fn(u16) -> bool) -> bool {
        self.section(section).iter().any(|r| is(r.rtype))
    }

    /// Whether `is` holds for the types of all records of a section.
    #[must_use]
    pub fn all(&self, section: usize, is: impl Fn(u16) -> bool) -> bool {
        self.section(section).iter().all(|r| is(r.rtype))
    }

    /// Whether `other` has all records of a section of this answer.
    #[must_use]
    pub fn within(&self, other: &Self, section: usize) -> bool {
        let others = other.section(section);
        self.section(section).iter().all(|r| others.contains(r))
    }

    /// Whether `is` holds for the types of all records of a section that `other` lacks.
    #[must_use]
    pub fn lacking(&self, other: &Self, section: usize, is: impl Fn(u16) -> bool) -> bool {
        let others = other.section(section);
        let mut lacking = self.section(section).iter().filter(|r| !others.contains(r));
        lacking.all(|r| is(r.rtype))
    }

    /// Owner and type of the records of a section that `other` lacks.
    #[must_use]
    pub fn only(&self, other: &Self, section: usize) -> Vec<(&[u8], u16)> {
        let others = other.section(section);
        let all = self.section(section).iter();
        all.filter(|r| !others.contains(r))
            .map(|r| (r.owner.as_slice(), r.rtype))
            .collect()
    }

    fn section(&self, index: usize) -> &[Record] {
        self.sections.get(index).map_or(&[], Vec::as_slice)
    }

    /// The options as text, without values that differ between servers.
    #[must_use]
    pub fn options_text(&self) -> String {
        let options = self.opt.iter().flat_map(|opt| &opt.options);
        options
            .map(|(code, data)| option(*code, data))
            .collect::<Vec<_>>()
            .join(", ")
    }

    /// Opcode and flags as text.
    #[must_use]
    pub fn flags_text(&self) -> String {
        let set = FLAGS.iter().filter(|(bit, _)| self.flags & bit != 0);
        let names: Vec<_> = set.map(|(_, name)| *name).collect();
        format!("opcode {} {}", self.flags >> 11 & 0xf, names.join(" "))
    }
}

/// An option as text, without values that differ between servers.
fn option(code: u16, data: &[u8]) -> String {
    match code {
        3 => "NSID".to_owned(),
        10 => format!(
            "COOKIE of {} bytes for {:02x?}",
            data.len(),
            data.get(..8).unwrap_or_default()
        ),
        _ => format!("option {code} {data:02x?}"),
    }
}

type Parsed<'a> = ParsedRecord<'a, &'a [u8]>;

impl Record {
    fn parse(record: &Parsed<'_>) -> Result<Self> {
        let whole = record
            .to_record::<AllRecordData<&[u8], ParsedName<&[u8]>>>()
            .with_context(|| format!("a record of type {}", record.rtype()))?
            .context("a record of no type")?;
        let mut rdata = Vec::new();
        whole.data().compose_canonical_rdata(&mut rdata)?;
        let mut owner = record.owner().to_vec().as_slice().to_vec();
        owner.make_ascii_lowercase();
        Ok(Self {
            owner,
            rtype: record.rtype().to_int(),
            class: record.class().to_int(),
            ttl: record.ttl().as_secs(),
            rdata,
            text: whole.to_string(),
        })
    }
}

impl Opt {
    fn parse(record: &Parsed<'_>) -> Result<Self> {
        ensure!(
            record.owner().to_vec().as_slice() == [0],
            "the owner of OPT is not the root"
        );
        let [rcode, version, high, low] = record.ttl().as_secs().to_be_bytes();
        let whole = record
            .to_record::<UnknownRecordData<&[u8]>>()?
            .context("no OPT")?;
        let mut rest = *whole.data().data();
        let mut options = Vec::new();
        while let [a, b, c, d, tail @ ..] = rest {
            let length = usize::from(u16::from_be_bytes([*c, *d]));
            let (data, tail) = tail.split_at_checked(length).context("a cut option")?;
            options.push((u16::from_be_bytes([*a, *b]), data.to_vec()));
            rest = tail;
        }
        ensure!(rest.is_empty(), "a cut option");
        options.sort();
        Ok(Self {
            size: record.class().to_int(),
            rcode,
            version,
            flags: u16::from_be_bytes([high, low]),
            options,
        })
    }

    /// The content of an option.
    #[must_use]
    pub fn option(&self, code: u16) -> Option<&[u8]> {
        let found = self.options.iter().find(|(c, _)| *c == code);
        found.map(|(_, data)| data.as_slice())
    }
}

impl Record {
    fn key(&self) -> (&[u8], u16, u16, u32, &[u8]) {
        (&self.owner, self.rtype, self.class, self.ttl, &self.rdata)
    }
}

impl PartialEq for Record {
    fn eq(&self, other: &Self) -> bool {
        self.key() == other.key()
    }
}

impl Eq for Record {}

impl fmt::Display for Record {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}
