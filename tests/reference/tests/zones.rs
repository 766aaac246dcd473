//! Compares the records that mayfly packs from zone files with those that NSD reads.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;

use mayfly_lab::{Set, host_command};
use mayfly_pack::{Options, pack_dir, print_records};
use mayfly_reference::SITE;
use mayfly_site::Pack;

/// The folder of zone files as they are found in the wild.
const FAMILIES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/families");

/// A record: owner, TTL, type and data.
type Record = (String, String, String, String);

/// Known differences with a reason: zone, owner, NSD's data, mayfly's data, reason. No other difference is allowed.
const DIFFERENT: &[(&str, &str, &str, &str, &str)] = &[
    (
        "svcb.test",
        "j.svcb.test.",
        "alpn=\"\\002h2\"",
        "alpn=\"h2\"",
        "`key1` has the bytes of the wire (RFC 9460 section 2.1); NSD reads it as `alpn`, BIND as mayfly does",
    ),
    (
        "types.test",
        "wks.types.test.",
        "192.0.2.1 tcp smtp domain http",
        "192.0.2.1 6 25 53 80",
        "numbers do not depend on a machine's /etc/services",
    ),
    (
        "types.test",
        "wks2.types.test.",
        "192.0.2.1 udp domain",
        "192.0.2.1 17 53",
        "the same",
    ),
    (
        "svcb.test",
        "b.svcb.test.",
        "key9=\"\\000\\029\"",
        "tls-supported-groups=29",
        "a key that has got its name since",
    ),
];

/// mayfly's records in the pack of a site.
fn packed(site: &Path) -> Vec<Record> {
    let packed = pack_dir(site, &Options::default()).unwrap();
    let bytes = packed.to_vec().unwrap();
    let mut text = Vec::new();
    print_records(&Pack::open(&bytes).unwrap(), &mut text).unwrap();
    let text = String::from_utf8(text).unwrap();
    let record = |line: &str| {
        let columns: Vec<_> = line.splitn(5, '\t').map(str::to_owned).collect();
        let data = columns.get(4).cloned().unwrap_or_default();
        (
            columns[0].clone(),
            columns[1].clone(),
            columns[3].clone(),
            data,
        )
    };
    text.lines().map(record).collect()
}

/// NSD's records of a zone. `nsd-checkzone -p` prints names below `$ORIGIN`, owners once, and SOA in two lines.
fn reference(name: &str, file: &Path) -> Vec<Record> {
    let mut command = host_command(Set::Servers, "usr/sbin/nsd-checkzone", &|_| {}).unwrap();
    command.arg("-p").arg(name).arg(file.file_name().unwrap());
    let output = command
        .current_dir(file.parent().unwrap())
        .output()
        .unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{}: {told}{text}", file.display());
    let text = text.replace(" (\n\t\t", " ").replace(" )\n", "\n");
    let (mut origin, mut owner) = (".".to_owned(), String::new());
    let mut records = Vec::new();
    for line in text.lines().filter(|line| !line.starts_with(';')) {
        if let Some(name) = line.strip_prefix("$ORIGIN ") {
            name.clone_into(&mut origin);
            continue;
        }
        // NSD adds a space after the type of data that it prints as bytes.
        let mut columns = line.splitn(4, '\t');
        let first = columns.next().unwrap();
        if !first.is_empty() {
            owner = match (first, origin.as_str()) {
                ("@", origin) => origin.to_owned(),
                (first, _) if ends_with_dot(first) => first.to_owned(),
                (first, ".") => format!("{first}."),
                (first, origin) => format!("{first}.{origin}"),
            };
        }
        let ttl = columns.next().unwrap().to_owned();
        assert_eq!(columns.next(), Some("IN"));
        let (rtype, data) = columns
            .next()
            .unwrap()
            .split_once(['\t', ' '])
            .unwrap_or_default();
        let rtype = if rtype.is_empty() {
            line.rsplit('\t').next().unwrap()
        } else {
            rtype
        };
        records.push((
            owner.clone(),
            ttl,
            rtype.to_owned(),
            data.trim_end().to_owned(),
        ));
    }
    records
}

/// Whether a name ends with a dot that is not escaped.
fn ends_with_dot(name: &str) -> bool {
    name.strip_suffix('.').is_some_and(|rest| {
        let escapes = rest.bytes().rev().take_while(|byte| *byte == b'\\');
        escapes.count() % 2 == 0
    })
}

/// Rewrites the escapes in names to one form: all but letters, digits, `-`, `_` and `*` as `\DDD`.
fn same_escapes(text: &str) -> String {
    let names = text.split(' ').map(|word| {
        if !ends_with_dot(word) || word.starts_with('"') {
            return word.to_owned();
        }
        let mut out = String::new();
        let mut rest = word.bytes();
        while let Some(byte) = rest.next() {
            let digit = |byte: u8| u32::from(byte - b'0');
            let escaped = byte == b'\\';
            let next = if escaped { rest.next() } else { None };
            let byte = match next {
                Some(first @ b'0'..=b'9') => {
                    let number = digit(first) * 100
                        + digit(rest.next().unwrap()) * 10
                        + digit(rest.next().unwrap());
                    u8::try_from(number).unwrap()
                }
                Some(plain) => plain,
                None => byte,
            };
            match byte {
                b'.' if !escaped => out.push('.'),
                b'-' | b'_' | b'*' => out.push(byte.into()),
                byte if byte.is_ascii_alphanumeric() => out.push(byte.into()),
                byte => out.push_str(&format!("\\{byte:03}")),
            }
        }
        out
    });
    names.collect::<Vec<_>>().join(" ")
}

/// Converts a record with data in bytes to text, by packing it and printing it.
fn in_text(record: &Record) -> String {
    let site = tempfile::TempDir::new().unwrap();
    std::fs::create_dir(site.path().join("zones")).unwrap();
    let (_, ttl, rtype, data) = record;
    let apex = "@ 1 SOA a. b. 1 2 3 4 5\n@ 1 NS a.\n";
    let text = format!("{apex}x {ttl} {rtype} {data}\n");
    std::fs::write(site.path().join("zones/test.zone"), text).unwrap();
    let found = packed(site.path())
        .into_iter()
        .find(|other| other.0 == "x.test.");
    found.unwrap().3
}

/// Compares all records of a site's zones, as read by NSD and by mayfly, except for known differences. Returns their
/// number.
fn compare(site: &Path) -> usize {
    let ours = packed(site);
    let mut zones = BTreeMap::new();
    for entry in std::fs::read_dir(site.join("zones")).unwrap() {
        let path = entry.unwrap().path();
        if path
            .extension()
            .is_some_and(|extension| extension == "zone")
        {
            let name = path.file_stem().unwrap().to_str().unwrap().to_owned();
            zones.insert(name, path);
        }
    }
    let mut theirs = Vec::new();
    for (name, path) in &zones {
        for mut record in reference(name, path) {
            for (zone, owner, has, is, _) in DIFFERENT {
                if zone == name && record.0 == *owner && record.3.contains(has) {
                    record.3 = record.3.replace(has, is);
                }
            }
            if record.3.starts_with("\\#") && !record.2.starts_with("TYPE") {
                record.3 = in_text(&record);
            }
            theirs.push(record);
        }
    }
    let normal = |record: &Record| {
        let (owner, ttl, rtype, data) = record;
        (
            same_escapes(owner),
            ttl.clone(),
            rtype.clone(),
            same_escapes(data),
        )
    };
    let count = ours.len();
    let mut ours: Vec<_> = ours.iter().map(normal).collect();
    let mut theirs: Vec<_> = theirs.iter().map(normal).collect();
    ours.sort();
    theirs.sort();
    let mut differ = String::new();
    for record in ours.iter().filter(|record| !theirs.contains(record)) {
        let _ = writeln!(differ, "mayfly alone: {record:?}");
    }
    for record in theirs.iter().filter(|record| !ours.contains(record)) {
        let _ = writeln!(differ, "NSD alone: {record:?}");
    }
    assert!(differ.is_empty(), "{differ}");
    assert_eq!(ours.len(), theirs.len());
    count
}

#[test]
fn the_reference_zones_are_what_nsd_reads() {
    assert!(compare(Path::new(SITE)) > 500);
}

#[test]
fn zones_that_others_write_are_what_nsd_reads() {
    assert!(compare(Path::new(FAMILIES)) > 150);
}

/// The fields of each type's data, for the generator.
const SHAPES: &[(&str, &str)] = &[
    ("A", "ipv4"),
    ("NS", "name"),
    ("MB", "name"),
    ("MG", "name"),
    ("MR", "name"),
    ("PTR", "name"),
    ("HINFO", "text text"),
    ("MINFO", "name name"),
    ("MX", "u16 name"),
    ("TXT", "text text text"),
    ("RP", "name name"),
    ("AFSDB", "u16 name"),
    ("X25", "digits"),
    ("ISDN", "digits text"),
    ("RT", "u16 name"),
    ("NSAP", "nsap"),
    ("KEY", "u16 u8 u8 base64"),
    ("PX", "u16 name name"),
    ("AAAA", "ipv6"),
    (
        "LOC",
        "degrees minutes seconds N degrees minutes W metres metres metres metres",
    ),
    ("SRV", "u16 u16 u16 name"),
    ("NAPTR", "u16 u16 text text text name"),
    ("KX", "u16 name"),
    ("CERT", "u16 u16 u8 base64"),
    ("APL", "prefix prefix"),
    ("DS", "u16 u8 2 digest"),
    ("SSHFP", "u8 u8 hex"),
    ("IPSECKEY", "u8 1 u8 ipv4 base64"),
    ("IPSECKEY", "u8 3 u8 gateway base64"),
    ("DNSKEY", "u16 u8 u8 base64"),
    ("DHCID", "base64"),
    ("TLSA", "u8 u8 u8 hex"),
    ("SMIMEA", "u8 u8 u8 hex"),
    ("CDS", "u16 u8 2 digest"),
    ("CDNSKEY", "u16 u8 u8 base64"),
    ("OPENPGPKEY", "base64"),
    ("CSYNC", "u32 u16 types"),
    ("ZONEMD", "u32 u8 u8 hex"),
    ("SVCB", "u16 name alpn port"),
    ("HTTPS", "u16 name hint key"),
    ("SPF", "text"),
    ("NID", "u16 locator"),
    ("L32", "u16 ipv4"),
    ("L64", "u16 locator"),
    ("LP", "u16 name"),
    ("EUI48", "eui48"),
    ("URI", "u16 u16 text"),
    ("CAA", "u8 issue text"),
    ("AVC", "text"),
    ("TYPE65280", "generic"),
];

/// Generates zones, the same ones for the same seed.
struct Generator(fastrand::Rng);

impl Generator {
    fn bytes(&mut self, most: usize) -> Vec<u8> {
        let count = self.0.usize(1..=most);
        (0..count).map(|_| self.0.u8(..)).collect()
    }

    fn hex(&mut self, bytes: usize) -> String {
        (0..bytes)
            .map(|_| format!("{:02x}", self.0.u8(..)))
            .collect()
    }

    fn label(&mut self) -> String {
        let bytes = self.bytes(6);
        let each = bytes.into_iter().map(|byte| match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' => char::from(byte).to_string(),
            byte => format!("\\{byte:03}"),
        });
        each.collect()
    }

    fn text(&mut self) -> String {
        let bytes = self.bytes(20);
        let each = bytes.into_iter().map(|byte| match byte {
            b'"' | b'\\' => format!("\\{}", char::from(byte)),
            b' '..=b'~' if self.0.bool() => char::from(byte).to_string(),
            byte => format!("\\{byte:03}"),
        });
        format!("\"{}\"", each.collect::<String>())
    }

    fn base64(&mut self) -> String {
        // Whole groups need no padding, and any letters are valid.
        const LETTERS: &[u8; 64] =
            b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
        let count = 4 * self.0.usize(1..20);
        (0..count)
            .map(|_| char::from(LETTERS[self.0.usize(..64)]))
            .collect()
    }

    fn field(&mut self, shape: &str) -> String {
        match shape {
            "u8" => self.0.u8(..).to_string(),
            "u16" => self.0.u16(..).to_string(),
            "u32" => self.0.u32(..).to_string(),
            "ipv4" => std::net::Ipv4Addr::from(self.0.u32(..)).to_string(),
            "ipv6" => std::net::Ipv6Addr::from(self.0.u128(..)).to_string(),
            "name" if self.0.bool() => format!("{}.{}.", self.label(), self.label()),
            "name" => self.label(),
            "text" => self.text(),
            // NSD prints the names of gateways without their escapes.
            "gateway" => format!("gw{}", self.0.u8(..)),
            "digits" => self.0.u64(1000..).to_string(),
            "hex" => {
                let bytes = self.0.usize(1..40);
                self.hex(bytes)
            }
            "digest" => self.hex(32),
            "base64" => self.base64(),
            "nsap" => format!("0x{}", self.hex(20)),
            "locator" => format!("{0}:{0}:{1}:{1}", self.hex(2), self.hex(2)),
            "eui48" => [
                self.hex(1),
                self.hex(1),
                self.hex(1),
                self.hex(1),
                self.hex(1),
                self.hex(1),
            ]
            .join("-"),
            "degrees" => self.0.u8(..90).to_string(),
            "minutes" => self.0.u8(..60).to_string(),
            "seconds" => format!("{}.{:03}", self.0.u8(..60), self.0.u16(..1000)),
            "metres" => format!("{}.{:02}m", self.0.u32(..1000), self.0.u8(..100)),
            "prefix" => format!("1:{}.0.0.0/{}", self.0.u8(..), self.0.u8(8..=32)),
            "types" => format!("A TYPE{} MX TYPE{}", self.0.u16(1000..), self.0.u16(1000..)),
            "alpn" => format!("alpn=\"h{},h3\"", self.0.u8(..)),
            "port" => format!("port={}", self.0.u16(..)),
            "hint" => format!("ipv4hint={}", std::net::Ipv4Addr::from(self.0.u32(..))),
            "key" => format!("key{}={}", self.0.u16(1000..60_000), self.text()),
            "generic" => {
                let bytes = self.0.usize(..50);
                format!("\\# {bytes} {}", self.hex(bytes))
            }
            plain => plain.to_owned(),
        }
    }

    fn zone(&mut self) -> String {
        let mut text = "$TTL 1h\n@ SOA ns hostmaster 7 2h 15m 3w 5m\n@ NS ns\n".to_owned();
        for number in 0..4 {
            for (index, (rtype, shape)) in SHAPES.iter().enumerate() {
                let fields: Vec<_> = shape.split(' ').map(|shape| self.field(shape)).collect();
                let _ = writeln!(
                    text,
                    "n{index}.{number}.{} {} {rtype} {}",
                    self.label(),
                    self.0.u32(..1 << 30),
                    fields.join(" ")
                );
            }
        }
        text
    }
}

#[test]
fn generated_zones_are_what_nsd_reads() {
    let mut generator = Generator(fastrand::Rng::with_seed(mayfly_seeds::seed()));
    for _ in 0..mayfly_seeds::scaled(5) {
        let site = tempfile::TempDir::new().unwrap();
        std::fs::create_dir(site.path().join("zones")).unwrap();
        let text = generator.zone();
        std::fs::write(site.path().join("zones/made.test.zone"), &text).unwrap();
        assert_eq!(compare(site.path()), 2 + 4 * SHAPES.len(), "{text}");
    }
}
