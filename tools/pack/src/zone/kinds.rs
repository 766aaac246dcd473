//! The kinds of fields in record data.

use super::mnemonics::Names as Mnemonics;

/// A kind of field.
#[derive(Clone, Copy)]
pub(crate) enum Field {
    /// A number in 8 bits, and in more.
    U8,
    U16,
    U32,
    U64,
    /// A number in 8 or 16 bits that may have a name.
    Named8(&'static Mnemonics),
    Named16(&'static Mnemonics),
    /// Seconds, in 32 bits.
    Time,
    /// A date, in 32 bits.
    Date,
    /// A type of records, in 16 bits.
    RecordType,
    /// A name.
    Name,
    /// Names up to the end, also none.
    Names,
    /// An address.
    Ipv4,
    Ipv6,
    /// A string of at most 255 bytes; a string of digits; degrees up to a maximum, or metres (RFC 1712).
    Text,
    Digits,
    Degrees(u32),
    /// A string, or nothing.
    OptionalText,
    /// Strings up to the end, at least one.
    Texts,
    /// The tag of CAA (RFC 8659 section 4.1).
    Tag,
    /// A string without a length, up to the end.
    LongText,
    /// Bytes up to the end: in base 64 (at least one; or also none; or `-` for none), or in base 16.
    Base64,
    OptionalBase64,
    DashedBase64,
    Hex,
    /// The digest of CDS: also a single 0 (RFC 8078 section 4).
    Digest,
    /// The salt of NSEC3 in base 16, after its length.
    Salt,
    /// A hash of NSEC3 in base 32, after its length.
    Hash,
    /// Types of records (RFC 4034 section 4.1.2; RFC 2535 section 5.2).
    Bitmap,
    OldBitmap,
    /// Protocol and services of WKS (RFC 1035 section 3.4.2).
    Services,
    /// An address of an NSAP (RFC 1706).
    Nsap,
    /// A place on Earth (RFC 1876).
    Location,
    /// Prefixes of addresses (RFC 3123).
    Prefixes,
    /// The gateway of IPSECKEY (RFC 4025 section 2.5), the relay of AMTRELAY (RFC 8777 section 4.2).
    Gateway,
    Relay,
    /// The fields of HIP before its servers (RFC 8005 section 5).
    HostIdentity,
    /// The fields of A6 (RFC 2874 section 3.1).
    Prefixed,
    /// A MAC address with this number of bytes (RFC 7043).
    Eui(usize),
    /// 64 bits as four numbers of base 16 (RFC 6742 section 2.1.2).
    Locator,
    /// Parameters of SVCB (RFC 9460 section 2).
    ServiceParameters,
}
