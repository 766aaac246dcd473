//! The generator of questions.

use anyhow::Result;
use fastrand::Rng;

use crate::names::Names;

/// The transport of a question.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    /// A datagram.
    Udp,
    /// A connection.
    Tcp,
}

/// One message to a server.
#[derive(Clone, Debug)]
pub struct Question {
    /// The transport.
    pub transport: Transport,
    /// The message, with an identifier of 0.
    pub bytes: Vec<u8>,
    /// The kind of name, for the report.
    pub about: &'static str,
}

impl Question {
    /// The name in lower case and the type of the first question, if it is readable.
    #[must_use]
    pub fn name_and_type(&self) -> Option<(Vec<u8>, u16)> {
        let mut at = 12;
        loop {
            match self.bytes.get(at)? {
                0 => break,
                length @ 1..64 => at += 1 + usize::from(*length),
                _ => return None,
            }
        }
        let name = self.bytes.get(12..=at)?.to_ascii_lowercase();
        let rtype = self.bytes.get(at + 1..at + 3)?;
        Some((name, u16::from_be_bytes(rtype.try_into().ok()?)))
    }

    /// Whether it asks for a transfer.
    #[must_use]
    pub fn is_transfer(&self) -> bool {
        let asked = self.name_and_type();
        asked.is_some_and(|(_, rtype)| matches!(rtype, IXFR | AXFR))
    }
}

/// The queried types.
const TYPES: [u16; 26] = [
    1, 2, 5, 6, 12, 13, 15, 16, 28, 29, 33, 35, 39, 43, 44, 46, 47, 48, 50, 51, 52, 64, 65, 99,
    257, 65280,
];
/// Types that stand for several types or for no data (RFC 6895 section 3.1).
const ODD_TYPES: [u16; 8] = [0, 41, 249, 250, 251, 252, 253, 254];
const IXFR: u16 = 251;
const AXFR: u16 = 252;
const SIZES: [u16; 9] = [0, 511, 512, 513, 900, 1232, 1400, 4096, 65535];

/// An endless sequence of questions, the same for the same seed.
pub struct Questions {
    names: Names,
    random: Rng,
}

impl Questions {
    /// The sequence of a seed.
    ///
    /// # Errors
    /// A zone of [`ZONES`](crate::ZONES) is not a valid zone file.
    pub fn new(seed: u64) -> Result<Self> {
        Ok(Self {
            names: Names::of_site()?,
            random: Rng::with_seed(seed),
        })
    }

    fn chance(&mut self, percent: u8) -> bool {
        self.random.u8(0..100) < percent
    }

    fn pick<'a, T>(random: &mut Rng, list: &'a [T]) -> Option<&'a T> {
        (!list.is_empty())
            .then(|| list.get(random.usize(0..list.len())))
            .flatten()
    }

    fn label(&mut self) -> Vec<u8> {
        const WORDS: [&[u8]; 12] = [
            b"a", b"www", b"any", b"*", b"ns", b"mail", b"zz", b"x", b"_tcp", b"h05", b"0",
            b"target",
        ];
        let word = if self.chance(70) {
            Self::pick(&mut self.random, &WORDS).map(|w| w.to_vec())
        } else {
            let length = if self.chance(90) { 12 } else { 63 };
            let length = self.random.usize(1..=length);
            let any = self.chance(10);
            Some(
                (0..length)
                    .map(|_| {
                        if any {
                            self.random.u8(..)
                        } else {
                            self.random.u8(b'a'..=b'z')
                        }
                    })
                    .collect(),
            )
        };
        word.unwrap_or_default()
    }

    /// A name with one to three labels added in front, as far as they fit.
    fn below(&mut self, name: &[u8]) -> Vec<u8> {
        let mut name = name.to_vec();
        for _ in 0..self.random.u8(1..=3) {
            let label = self.label();
            if name.len() + 1 + label.len() > 255 {
                break;
            }
            let mut longer = vec![u8::try_from(label.len()).unwrap_or_default()];
            longer.extend(label);
            longer.extend(&name);
            name = longer;
            if self.chance(60) {
                break;
            }
        }
        name
    }

    fn name(&mut self) -> (Vec<u8>, &'static str) {
        let kind = self.random.u8(0..100);
        let names = &self.names;
        let (list, about, below) = match kind {
            0..28 => (&names.owners, "an owner", false),
            28..32 => (&names.apexes, "an apex", false),
            32..38 => (&names.between, "a name above an owner", false),
            38..42 => (&names.cuts, "a delegation", false),
            42..49 => (&names.cuts, "below a delegation", true),
            49..54 => (&names.dnames, "below a DNAME", true),
            54..60 => (&names.aliases, "an alias", false),
            60..72 => (&names.wild, "below the parent of a wildcard", true),
            72..84 => (&names.apexes, "below an apex", true),
            84..94 => (&names.owners, "below an owner", true),
            94..96 => (&names.between, "below a name above an owner", true),
            _ => {
                let root = vec![0];
                let name = if self.chance(20) {
                    root
                } else {
                    self.below(&root)
                };
                return (name, "outside");
            }
        };
        let name = Self::pick(&mut self.random, list)
            .cloned()
            .unwrap_or_default();
        (if below { self.below(&name) } else { name }, about)
    }

    fn rtype(&mut self) -> u16 {
        match self.random.u8(0..100) {
            0..25 => 1,
            25..88 => Self::pick(&mut self.random, &TYPES).copied().unwrap_or(1),
            88..92 => 255,
            92..96 => Self::pick(&mut self.random, &ODD_TYPES)
                .copied()
                .unwrap_or(0),
            _ => self.random.u16(..),
        }
    }

    fn class(&mut self) -> u16 {
        match self.random.u8(0..100) {
            0..96 => 1,
            96..98 => *Self::pick(&mut self.random, &[3, 4, 254, 255]).unwrap_or(&3),
            _ => self.random.u16(..),
        }
    }

    /// The options of an OPT record.
    fn options(&mut self) -> Vec<u8> {
        let mut all = Vec::new();
        let mut option = |code: u16, data: &[u8]| {
            all.extend(code.to_be_bytes());
            all.extend(u16::try_from(data.len()).unwrap_or_default().to_be_bytes());
            all.extend(data);
        };
        let random = &mut self.random;
        if random.u8(0..100) < 25 {
            option(3, b"");
        }
        if random.u8(0..100) < 25 {
            // A client's cookie, a cookie with a server part of another server, and invalid lengths (RFC 7873 section
            // 5.2.2).
            let length = match random.u8(0..20) {
                0..14 => 8,
                14..17 => 24,
                17 => 40,
                18 => 7,
                _ => random.usize(9..16),
            };
            let mut cookie = vec![0; length];
            random.fill(&mut cookie);
            option(10, &cookie);
        }
        if random.u8(0..100) < 10 {
            option(8, &[0, 1, 24, 0, 192, 0, 2]);
        }
        if random.u8(0..100) < 10 {
            option(12, &[0; 20]);
        }
        if random.u8(0..100) < 10 {
            option(random.u16(65001..), b"unknown");
        }
        all
    }

    /// An OPT record.
    fn edns(&mut self) -> Vec<u8> {
        let mut opt = if self.chance(99) {
            vec![0]
        } else {
            b"\x01a\0".to_vec()
        };
        opt.extend(41u16.to_be_bytes());
        let size = Self::pick(&mut self.random, &SIZES)
            .copied()
            .unwrap_or(1232);
        opt.extend(size.to_be_bytes());
        let version = if self.chance(96) {
            0
        } else {
            self.random.u8(1..)
        };
        let rcode = if self.chance(98) {
            0
        } else {
            self.random.u8(..)
        };
        let mut flags = if self.chance(50) { 0x8000 } else { 0 };
        if self.chance(3) {
            flags |= self.random.u16(..0x8000);
        }
        opt.extend([rcode, version]);
        opt.extend(flags.to_be_bytes());
        let options = if self.chance(50) {
            self.options()
        } else {
            Vec::new()
        };
        opt.extend(
            u16::try_from(options.len())
                .unwrap_or_default()
                .to_be_bytes(),
        );
        opt.extend(options);
        opt
    }

    fn flags(&mut self) -> u16 {
        let mut flags = 0;
        let opcode = if self.chance(97) {
            0
        } else {
            self.random.u16(1..16)
        };
        flags |= opcode << 11;
        for (bit, percent) in [
            (0x0100, 40),
            (0x0020, 10),
            (0x0010, 10),
            (0x0400, 1),
            (0x0200, 1),
            (0x0080, 1),
            (0x0040, 1),
        ] {
            if self.chance(percent) {
                flags |= bit;
            }
        }
        if self.chance(1) {
            flags |= self.random.u16(1..16);
        }
        // A response must not be answered.
        if self.random.u16(0..500) == 0 {
            flags |= 0x8000;
        }
        flags
    }

    fn chaos(&mut self) -> Option<(Vec<u8>, u16, u16)> {
        const NAMES: [&[u8]; 5] = [
            b"\x07version\x04bind\0",
            b"\x07version\x06server\0",
            b"\x02id\x06server\0",
            b"\x08hostname\x04bind\0",
            b"\x07authors\x04bind\0",
        ];
        let rtype = if self.chance(80) { 16 } else { 255 };
        (self.random.u8(0..100) == 0)
            .then(|| Self::pick(&mut self.random, &NAMES).map(|name| (name.to_vec(), rtype, 3)))
            .flatten()
    }

    fn message(&mut self) -> (Vec<u8>, &'static str) {
        let (mut name, about) = self.name();
        let (mut rtype, mut class) = (self.rtype(), self.class());
        if let Some(chaos) = self.chaos() {
            (name, rtype, class) = chaos;
        }
        if self.chance(40) {
            // The lengths of labels are not letters, so they stay unchanged.
            for byte in &mut name {
                if self.random.bool() {
                    *byte = byte.to_ascii_uppercase();
                }
            }
        }
        let opt = self.chance(65).then(|| self.edns());
        let mut bytes = vec![0, 0];
        bytes.extend(self.flags().to_be_bytes());
        bytes.extend([0, 1, 0, 0, 0, 0, 0, u8::from(opt.is_some())]);
        bytes.extend(&name);
        bytes.extend(rtype.to_be_bytes());
        bytes.extend(class.to_be_bytes());
        bytes.extend(opt.into_iter().flatten());
        (bytes, about)
    }

    /// Damages a message. Returns how.
    fn spoil(&mut self, bytes: &mut Vec<u8>) -> &'static str {
        let at = |random: &mut Rng, bytes: &[u8]| random.usize(0..bytes.len().max(1));
        match self.random.u8(0..8) {
            0 => {
                let end = at(&mut self.random, bytes);
                bytes.truncate(end);
                "cut off"
            }
            1 => {
                bytes.extend([0; 7]);
                "with bytes after its end"
            }
            2 => {
                let (index, value) = (self.random.usize(4..12), self.random.u8(0..3));
                if let Some(count) = bytes.get_mut(index) {
                    *count = value;
                }
                "with other counts"
            }
            3 => {
                // A pointer to itself.
                if let Some(name) = bytes.get_mut(12..14) {
                    name.copy_from_slice(&[0xc0, 12]);
                }
                "with a pointer that goes round"
            }
            4 => {
                if let Some(length) = bytes.get_mut(12) {
                    *length |= 0x40;
                }
                "with a label of another type"
            }
            5 => {
                let edns = self.edns();
                bytes.extend(edns);
                if let Some(count) = bytes.get_mut(11) {
                    *count += 1;
                }
                "with one more OPT"
            }
            6 => {
                bytes.extend(b"\0\0\x01\0\x01\0\0\0\0\0\x04\x01\x02\x03\x04");
                if let Some(count) = bytes.get_mut(11) {
                    *count += 1;
                }
                "with an A record after all"
            }
            _ => {
                let (index, value) = (at(&mut self.random, bytes), self.random.u8(..));
                if let Some(byte) = bytes.get_mut(index) {
                    *byte = value;
                }
                "with one byte changed"
            }
        }
    }
}

impl Iterator for Questions {
    type Item = Question;

    fn next(&mut self) -> Option<Question> {
        let (mut bytes, mut about) = self.message();
        if self.chance(4) {
            about = self.spoil(&mut bytes);
        }
        for byte in bytes.iter_mut().take(2) {
            *byte = 0;
        }
        let mut question = Question {
            transport: Transport::Udp,
            bytes,
            about,
        };
        // Transfers are compared elsewhere: an answer of several messages does not fit this comparison.
        if !question.is_transfer() && self.chance(15) {
            question.transport = Transport::Tcp;
        }
        Some(question)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_gives_the_same_questions() {
        let some = |seed| -> Vec<_> {
            let all = Questions::new(seed).unwrap();
            all.take(500).map(|q| q.bytes).collect()
        };
        assert_eq!(some(1), some(1));
        assert_ne!(some(1), some(2));
    }
}
