//! Record types: their numbers, names and fields (IANA's registry "Resource Record (RR) TYPEs").

use super::kinds::Field::{self, *};
use super::mnemonics::{
    ALGORITHMS, CERTIFICATES, DIGESTS, DSYNC_SCHEMES, KEY_PROTOCOLS, MATCHINGS, NSEC3_HASHES,
    SELECTORS, USAGES,
};

/// A type that has a name.
pub(crate) struct Type {
    pub(crate) number: u16,
    pub(crate) name: &'static str,
    /// The fields in wire order. A type without fields has only the form of RFC 3597.
    pub(crate) fields: &'static [Field],
}

const fn of(number: u16, name: &'static str, fields: &'static [Field]) -> Type {
    Type {
        number,
        name,
        fields,
    }
}

/// Fields that several types have.
const DS: &[Field] = &[U16, Named8(&ALGORITHMS), Named8(&DIGESTS), Hex];
const DNSKEY: &[Field] = &[U16, U8, Named8(&ALGORITHMS), Base64];
const SIGNATURE: &[Field] = &[
    RecordType,
    Named8(&ALGORITHMS),
    U8,
    Time,
    Date,
    Date,
    U16,
    Name,
    Base64,
];
const TLSA: &[Field] = &[Named8(&USAGES), Named8(&SELECTORS), Named8(&MATCHINGS), Hex];
const SERVICE: &[Field] = &[U16, Name, ServiceParameters];

/// All types in the order of numbers, except those that only questions have.
static TYPES: &[Type] = &[
    of(1, "A", &[Ipv4]),
    of(2, "NS", &[Name]),
    of(3, "MD", &[Name]),
    of(4, "MF", &[Name]),
    of(5, "CNAME", &[Name]),
    of(6, "SOA", &[Name, Name, U32, Time, Time, Time, Time]),
    of(7, "MB", &[Name]),
    of(8, "MG", &[Name]),
    of(9, "MR", &[Name]),
    of(10, "NULL", &[]),
    of(11, "WKS", &[Ipv4, Services]),
    of(12, "PTR", &[Name]),
    of(13, "HINFO", &[Text, Text]),
    of(14, "MINFO", &[Name, Name]),
    of(15, "MX", &[U16, Name]),
    of(16, "TXT", &[Texts]),
    of(17, "RP", &[Name, Name]),
    of(18, "AFSDB", &[U16, Name]),
    of(19, "X25", &[Digits]),
    of(20, "ISDN", &[Text, OptionalText]),
    of(21, "RT", &[U16, Name]),
    of(22, "NSAP", &[Nsap]),
    of(23, "NSAP-PTR", &[Name]),
    of(24, "SIG", SIGNATURE),
    // A key may be missing (RFC 2535 section 3.1.2).
    of(
        25,
        "KEY",
        &[
            U16,
            Named8(&KEY_PROTOCOLS),
            Named8(&ALGORITHMS),
            OptionalBase64,
        ],
    ),
    of(26, "PX", &[U16, Name, Name]),
    of(27, "GPOS", &[Degrees(90), Degrees(180), Degrees(u32::MAX)]),
    of(28, "AAAA", &[Ipv6]),
    of(29, "LOC", &[Location]),
    of(30, "NXT", &[Name, OldBitmap]),
    of(31, "EID", &[Hex]),
    of(32, "NIMLOC", &[Hex]),
    of(33, "SRV", &[U16, U16, U16, Name]),
    of(34, "ATMA", &[]),
    of(35, "NAPTR", &[U16, U16, Text, Text, Text, Name]),
    of(36, "KX", &[U16, Name]),
    of(
        37,
        "CERT",
        &[Named16(&CERTIFICATES), U16, Named8(&ALGORITHMS), Base64],
    ),
    of(38, "A6", &[Prefixed]),
    of(39, "DNAME", &[Name]),
    of(40, "SINK", &[U8, U8, U8, OptionalBase64]),
    of(42, "APL", &[Prefixes]),
    of(43, "DS", DS),
    of(44, "SSHFP", &[U8, U8, Hex]),
    of(45, "IPSECKEY", &[U8, U8, U8, Gateway, OptionalBase64]),
    of(46, "RRSIG", SIGNATURE),
    of(47, "NSEC", &[Name, Bitmap]),
    of(48, "DNSKEY", DNSKEY),
    of(49, "DHCID", &[Base64]),
    of(
        50,
        "NSEC3",
        &[Named8(&NSEC3_HASHES), U8, U16, Salt, Hash, Bitmap],
    ),
    of(51, "NSEC3PARAM", &[Named8(&NSEC3_HASHES), U8, U16, Salt]),
    of(52, "TLSA", TLSA),
    of(53, "SMIMEA", TLSA),
    of(55, "HIP", &[HostIdentity, Names]),
    of(56, "NINFO", &[Texts]),
    of(57, "RKEY", DNSKEY),
    of(58, "TALINK", &[Name, Name]),
    of(
        59,
        "CDS",
        &[U16, Named8(&ALGORITHMS), Named8(&DIGESTS), Digest],
    ),
    of(60, "CDNSKEY", DNSKEY),
    of(61, "OPENPGPKEY", &[Base64]),
    of(62, "CSYNC", &[U32, U16, Bitmap]),
    of(63, "ZONEMD", &[U32, U8, U8, Hex]),
    of(64, "SVCB", SERVICE),
    of(65, "HTTPS", SERVICE),
    of(
        66,
        "DSYNC",
        &[RecordType, Named8(&DSYNC_SCHEMES), U16, Name],
    ),
    of(67, "HHIT", &[Base64]),
    of(68, "BRID", &[Base64]),
    of(99, "SPF", &[Texts]),
    of(100, "UINFO", &[]),
    of(101, "UID", &[]),
    of(102, "GID", &[]),
    of(103, "UNSPEC", &[]),
    of(104, "NID", &[U16, Locator]),
    of(105, "L32", &[U16, Ipv4]),
    of(106, "L64", &[U16, Locator]),
    of(107, "LP", &[U16, Name]),
    of(108, "EUI48", &[Eui(6)]),
    of(109, "EUI64", &[Eui(8)]),
    of(256, "URI", &[U16, U16, LongText]),
    of(257, "CAA", &[U8, Tag, LongText]),
    of(258, "AVC", &[Texts]),
    of(259, "DOA", &[U32, U32, U8, Text, DashedBase64]),
    of(260, "AMTRELAY", &[U8, Relay]),
    of(261, "RESINFO", &[Texts]),
    of(262, "WALLET", &[Texts]),
    of(263, "CLA", &[Texts]),
    of(264, "IPN", &[U64]),
    of(32768, "TA", DS),
    of(32769, "DLV", DS),
];

/// Types of questions and of signalling, which no zone contains (RFC 6895 section 3.1).
const ELSEWHERE: &[(u16, &str)] = &[
    (41, "OPT"),
    (128, "NXNAME"),
    (249, "TKEY"),
    (250, "TSIG"),
    (251, "IXFR"),
    (252, "AXFR"),
    (253, "MAILB"),
    (254, "MAILA"),
    (255, "ANY"),
];

/// The fields of a type's data, if they are known.
pub(crate) fn fields(number: u16) -> Option<&'static [Field]> {
    let index = TYPES.binary_search_by_key(&number, |known| known.number);
    let known = index.ok().and_then(|index| TYPES.get(index))?;
    (!known.fields.is_empty()).then_some(known.fields)
}

/// The type that a word names, by its mnemonic or as `TYPE` and a number (RFC 3597 section 5).
pub(crate) fn number(word: &[u8]) -> Option<u16> {
    let named = |name: &str| word.eq_ignore_ascii_case(name.as_bytes());
    let known = TYPES.iter().find(|known| named(known.name));
    let known = known.map(|known| known.number);
    let elsewhere = || ELSEWHERE.iter().find(|(_, name)| named(name));
    known
        .or_else(|| elsewhere().map(|(number, _)| *number))
        .or_else(|| numbered(word, "TYPE"))
}

/// The number in a word like `TYPE123` or `CLASS1`.
pub(crate) fn numbered(word: &[u8], before: &str) -> Option<u16> {
    let (start, digits) = word.split_at_checked(before.len())?;
    let digits = std::str::from_utf8(digits).ok()?;
    let right = start.eq_ignore_ascii_case(before.as_bytes())
        && digits.bytes().all(|byte| byte.is_ascii_digit());
    digits.parse().ok().filter(|_| right)
}

/// A type as a master file writes it.
pub(crate) fn name(number: u16) -> String {
    let index = TYPES.binary_search_by_key(&number, |known| known.number);
    let known = index.ok().and_then(|index| TYPES.get(index));
    let elsewhere = || ELSEWHERE.iter().find(|(known, _)| *known == number);
    known
        .map(|known| known.name)
        .or_else(|| elsewhere().map(|(_, name)| *name))
        .map_or_else(|| format!("TYPE{number}"), str::to_owned)
}

/// Whether no zone may contain records of a type: OPT, question types and meta types (RFC 6895 section 3.1).
pub(crate) fn is_elsewhere(number: u16) -> bool {
    number == 0 || number == 41 || (128..=255).contains(&number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_in_order_and_names_are_found() {
        assert!(TYPES.is_sorted_by_key(|known| known.number));
        for known in TYPES {
            assert_eq!(
                number(known.name.to_ascii_lowercase().as_bytes()),
                Some(known.number)
            );
            assert_eq!(name(known.number), known.name);
            assert!(!is_elsewhere(known.number));
        }
        for (known, text) in ELSEWHERE {
            assert_eq!(number(text.as_bytes()), Some(*known));
            assert!(is_elsewhere(*known));
        }
        assert_eq!(number(b"type65280"), Some(65280));
        assert_eq!(name(65280), "TYPE65280");
        for wrong in ["", "TYPE", "TYPE65536", "TYPE-1", "TYPE+1", "X", "TYPE1x"] {
            assert_eq!(number(wrong.as_bytes()), None, "{wrong}");
        }
    }
}
