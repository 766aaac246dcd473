//! Signed zones: the requirements of RFC 4035 section 3.1 and RFC 5155 section 7.2.
//!
//! The proofs are checked here as by a validating resolver (RFC 5155 section 8, RFC 4035 section 5.4), with the tests'
//! own implementation of hashes and of the order of names. Signatures are only compared with those of the zone files,
//! which were verified by `ldns-verify-zone`.

use core::cmp::Ordering;

use super::*;

const ZONES: [&str; 3] = ["nsec.test", "nsec3.test", "optout.test"];

/// An answer's records as (section, owner in lower case, type, RDATA).
type Records = Vec<(usize, Vec<u8>, u16, Vec<u8>)>;

/// The records of an answer, read by the `domain` crate.
fn read(message: &[u8]) -> (u16, Records) {
    use domain::base::Message;
    use domain::base::name::ToName;
    use domain::base::rdata::ComposeRecordData;
    use domain::rdata::AllRecordData;
    let message = Message::from_octets(message).unwrap();
    let mut records = Vec::new();
    for (index, section) in [
        message.answer().unwrap(),
        message.authority().unwrap(),
        message.additional().unwrap(),
    ]
    .into_iter()
    .enumerate()
    {
        for record in section {
            let record = record.unwrap();
            let owner = record.owner().to_vec().as_slice().to_ascii_lowercase();
            let record = record
                .into_record::<AllRecordData<_, _>>()
                .unwrap()
                .unwrap();
            let mut rdata = Vec::new();
            record.data().compose_rdata(&mut rdata).unwrap();
            records.push((index, owner, record.rtype().to_int(), rdata));
        }
    }
    (message.header().rcode().to_int().into(), records)
}

fn labels(name: &[u8]) -> Labels {
    let mut labels = Vec::new();
    let mut at = 0;
    while name[at] > 0 {
        let end = at + 1 + usize::from(name[at]);
        labels.push(name[at + 1..end].to_ascii_lowercase());
        at = end;
    }
    labels.reverse();
    labels
}

fn has(bitmap: &[u8], rtype: u16) -> bool {
    let [window, bit] = rtype.to_be_bytes();
    let mut rest = bitmap;
    while let [number, length, tail @ ..] = rest {
        let (bits, tail) = tail.split_at((*length).into());
        if *number == window {
            let byte = bits.get(usize::from(bit / 8)).copied().unwrap_or(0);
            return byte & 0x80 >> (bit % 8) != 0;
        }
        rest = tail;
    }
    false
}

fn name_end(bytes: &[u8]) -> usize {
    let mut at = 0;
    while bytes[at] > 0 {
        at += 1 + usize::from(bytes[at]);
    }
    at + 1
}

/// A name as its labels from the root down.
type Labels = Vec<Vec<u8>>;
/// Owner, next owner, types.
type Nsec = (Labels, Labels, Vec<u8>);
/// Hash, next hash, opt-out, types.
type Nsec3 = (Vec<u8>, Vec<u8>, bool, Vec<u8>);

/// The NSEC and NSEC3 records of an answer.
struct Proofs {
    nsec: Vec<Nsec>,
    nsec3: Vec<Nsec3>,
    iterations: u16,
    salt: Vec<u8>,
}

fn base32(label: &[u8]) -> Vec<u8> {
    let bits = label.iter().flat_map(|digit| {
        let value = char::from(*digit).to_digit(32).unwrap();
        (0..5).rev().map(move |bit| value >> bit & 1)
    });
    let bits: Vec<_> = bits.collect();
    let byte = |bits: &[u32]| {
        bits.iter()
            .fold(0, |sum, bit| sum << 1 | u8::try_from(*bit).unwrap())
    };
    bits.chunks(8).map(byte).collect()
}

impl Proofs {
    fn of(records: &Records) -> Self {
        let mut proofs = Self {
            nsec: Vec::new(),
            nsec3: Vec::new(),
            iterations: 0,
            salt: Vec::new(),
        };
        for (section, owner, rtype, rdata) in records {
            assert!(*section == 1 || !matches!(*rtype, NSEC | NSEC3));
            if *rtype == NSEC {
                let (next, bitmap) = rdata.split_at(name_end(rdata));
                proofs
                    .nsec
                    .push((labels(owner), labels(next), bitmap.to_vec()));
            } else if *rtype == NSEC3 {
                let (salt, rest) = rdata[5..].split_at(rdata[4].into());
                let (next, bitmap) = rest[1..].split_at(rest[0].into());
                let hash = base32(labels(owner).last().unwrap());
                let optout = rdata[1] & 1 != 0;
                proofs
                    .nsec3
                    .push((hash, next.to_vec(), optout, bitmap.to_vec()));
                proofs.iterations = u16::from_be_bytes([rdata[2], rdata[3]]);
                proofs.salt = salt.to_vec();
            }
        }
        proofs
    }

    fn hash(&self, name: &[Vec<u8>]) -> Vec<u8> {
        let mut bytes: Vec<u8> = Vec::new();
        for label in name.iter().rev() {
            bytes.push(u8::try_from(label.len()).unwrap());
            bytes.extend(label);
        }
        bytes.push(0);
        for _ in 0..=self.iterations {
            bytes.extend(&self.salt);
            let mut sha1 = sha1_smol::Sha1::new();
            sha1.update(&bytes);
            bytes = sha1.digest().bytes().to_vec();
        }
        bytes
    }

    /// The types at a name, if a record matches it.
    fn types(&self, name: &[Vec<u8>]) -> Option<&[u8]> {
        let nsec = self.nsec.iter().find(|(owner, ..)| owner == name);
        let hash = self.hash(name);
        let nsec3 = self.nsec3.iter().find(|(owner, ..)| *owner == hash);
        nsec.map(|found| &*found.2).or(nsec3.map(|found| &*found.3))
    }

    /// Whether a record proves that there is no such name; and whether it excepts unsigned delegations (opt-out).
    fn covers(&self, name: &[Vec<u8>]) -> Option<bool> {
        let between = |low: Ordering, high: Ordering, wraps: bool| match wraps {
            false => low.is_lt() && high.is_lt(),
            true => low.is_lt() || high.is_lt(),
        };
        let nsec = self.nsec.iter().any(|(owner, next, _)| {
            // A name above the next name is an empty non-terminal, and exists.
            let is_above = next.starts_with(name);
            !is_above && between((**owner).cmp(name), name.cmp(next), next <= owner)
        });
        let hash = self.hash(name);
        let nsec3 = self
            .nsec3
            .iter()
            .find(|(owner, next, ..)| between(owner.cmp(&hash), hash.cmp(next), next <= owner));
        nsec.then_some(false)
            .or(nsec3.map(|(_, _, optout, _)| *optout))
    }

    /// The closest encloser of a name that is proven, as the number of its labels: the next closer
    /// name does not exist. With NSEC the encloser follows from the ends of the covering record.
    fn encloser(&self, name: &[Vec<u8>], apex: usize) -> Option<(usize, bool)> {
        for length in (apex..name.len()).rev() {
            let exists = self.types(&name[..length]).is_some()
                || self.nsec.iter().any(|(owner, next, _)| {
                    owner.starts_with(&name[..length]) || next.starts_with(&name[..length])
                });
            if exists {
                return self
                    .covers(&name[..length + 1])
                    .map(|optout| (length, optout));
            }
        }
        None
    }
}

/// The proof that an answer with DO has to have.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Proof {
    Nothing,
    /// There is no such name, nor a wildcard for it.
    NoName,
    /// There is no such type at the name.
    NoType,
    /// The name comes from a wildcard, as there is no other.
    Expansion,
    /// As before, and the wildcard has no such type.
    NoTypeAtWildcard,
    /// A delegation is not signed.
    NoDs(&'static str),
}

fn check(zone: &str, name: &str, looked_for: &str, qtype: u16, rcode: u16, proof: Proof) {
    let zones = zones();
    let full = |name: &str| match name {
        "@" => zone.to_string(),
        _ => format!("{name}.{zone}"),
    };
    let title = format!("{} {qtype}", full(name));
    let message = query_edns(&full(name), qtype, 1232, DO);
    for transport in [Transport::Udp, Transport::Tcp] {
        let response = ask(&zones, &message, transport).unwrap();
        assert_eq!(
            Header::read(&response).unwrap().flags & flag::TC,
            0,
            "{title}"
        );
        let (found, records) = read(&response);
        assert_eq!(found, rcode, "{title}");
        signed(zone, &records, &title);
        let proofs = Proofs::of(&records);
        let target = labels(&wire(&full(looked_for)));
        let apex = labels(&wire(zone)).len();
        let wildcard = |length: usize| [&target[..length], &[b"*".to_vec()]].concat();
        match proof {
            Proof::Nothing => assert!(proofs.nsec.is_empty() && proofs.nsec3.is_empty()),
            Proof::NoName => {
                let (encloser, optout) = proofs.encloser(&target, apex).expect(&title);
                let is_covered = proofs.covers(&wildcard(encloser)).is_some();
                assert!(is_covered || optout, "{title}");
            }
            Proof::NoType => match proofs.types(&target) {
                Some(types) => assert!(!has(types, qtype) && !has(types, CNAME), "{title}"),
                // An empty non-terminal lies on the way to the next name.
                None => {
                    let is_way = |next: &Labels| next.starts_with(&target);
                    let is_between = proofs.nsec.iter().any(|(_, next, _)| is_way(next));
                    let optout = proofs
                        .encloser(&target, apex)
                        .is_some_and(|(_, optout)| optout);
                    assert!(is_between || optout, "{title}");
                }
            },
            Proof::Expansion | Proof::NoTypeAtWildcard => {
                // All wildcards are that far below the apex.
                let length = apex + 1;
                assert!(proofs.covers(&target[..=length]).is_some(), "{title}");
                if proof == Proof::NoTypeAtWildcard {
                    let types = proofs.types(&wildcard(length)).expect(&title);
                    assert!(!has(types, qtype), "{title}");
                }
            }
            Proof::NoDs(cut) => {
                let cut = labels(&wire(&full(cut)));
                match proofs.types(&cut) {
                    Some(types) => assert!(has(types, NS) && !has(types, DS) && !has(types, SOA)),
                    None => assert!(proofs.encloser(&cut, apex).expect(&title).1, "opt-out"),
                }
            }
        }
        // There is no proof without a purpose.
        assert!(proofs.nsec.len() <= 2 && proofs.nsec3.len() <= 3, "{title}");
    }
    // Without DO there are no proofs.
    let response = ask(&zones, &query(&full(name), qtype), Transport::Udp).unwrap();
    let (found, records) = read(&response);
    assert_eq!(found, rcode, "{title}");
    let is_dnssec = |rtype: &u16| matches!(*rtype, RRSIG | NSEC | NSEC3);
    assert!(
        !records
            .iter()
            .any(|(_, _, rtype, _)| *rtype != qtype && is_dnssec(rtype))
    );
}

/// Every set that the zone answers for is signed.
fn signed(zone: &str, records: &Records, title: &str) {
    let covered = |owner: &[u8], covered: u16| {
        records.iter().any(|(_, signed, rtype, rdata)| {
            *rtype == RRSIG && signed == owner && rdata[..2] == covered.to_be_bytes()
        })
    };
    let cuts: Vec<_> = ["secure", "insecure", "deep.cut"]
        .map(|cut| wire(&format!("{cut}.{zone}")))
        .into();
    for (_, owner, rtype, rdata) in records {
        let is_beyond = cuts.iter().any(|cut| owner.ends_with(cut)) && !matches!(*rtype, DS | NSEC);
        let is_made = *rtype == CNAME
            && records
                .iter()
                .any(|(_, above, rtype, _)| *rtype == DNAME && owner.ends_with(above));
        if matches!(*rtype, RRSIG | OPT) || is_beyond || is_made {
            continue;
        }
        assert!(covered(owner, *rtype), "{title}: {rtype} {rdata:?}");
    }
}

#[test]
fn proofs() {
    for zone in ZONES {
        for (name, looked_for, qtype, rcode, proof) in [
            ("@", "@", SOA, 0, Proof::Nothing),
            ("@", "@", DNSKEY, 0, Proof::Nothing),
            ("host", "host", A, 0, Proof::Nothing),
            ("www", "host", A, 0, Proof::Nothing),
            ("host", "host", MX, 0, Proof::NoType),
            ("@", "@", DS, 0, Proof::NoType),
            ("www", "host", MX, 0, Proof::NoType),
            ("*.wild", "*.wild", MX, 0, Proof::NoType),
            ("ent", "ent", A, 0, Proof::NoType),
            ("b.ent", "b.ent", A, 0, Proof::NoType),
            ("cut", "cut", A, 0, Proof::NoType),
            ("nothing", "nothing", A, 3, Proof::NoName),
            ("a.nothing", "a.nothing", A, 3, Proof::NoName),
            ("a.b.c.nothing", "a.b.c.nothing", A, 3, Proof::NoName),
            ("0", "0", A, 3, Proof::NoName),
            ("zzz", "zzz", A, 3, Proof::NoName),
            ("x.host", "x.host", A, 3, Proof::NoName),
            ("x.b.ent", "x.b.ent", A, 3, Proof::NoName),
            ("x.cut", "x.cut", A, 3, Proof::NoName),
            ("x.exists.wild", "x.exists.wild", A, 3, Proof::NoName),
            ("dangling", "nothing", A, 3, Proof::NoName),
            ("x.wild", "x.wild", A, 0, Proof::Expansion),
            ("y.x.wild", "y.x.wild", A, 0, Proof::Expansion),
            ("x.cw", "x.cw", A, 0, Proof::Expansion),
            ("x.d", "x.wild", A, 0, Proof::Expansion),
            ("x.wild", "x.wild", MX, 0, Proof::NoTypeAtWildcard),
            ("y.x.wild", "y.x.wild", DS, 0, Proof::NoTypeAtWildcard),
            ("x.d", "x.wild", MX, 0, Proof::NoTypeAtWildcard),
            ("secure", "secure", DS, 0, Proof::Nothing),
            ("x.secure", "x.secure", A, 0, Proof::Nothing),
            ("insecure", "insecure", DS, 0, Proof::NoDs("insecure")),
            ("insecure", "insecure", A, 0, Proof::NoDs("insecure")),
            ("x.insecure", "insecure", A, 0, Proof::NoDs("insecure")),
            ("deep.cut", "deep.cut", DS, 0, Proof::NoDs("deep.cut")),
            ("x.y.deep.cut", "deep.cut", TXT, 0, Proof::NoDs("deep.cut")),
        ] {
            check(zone, name, looked_for, qtype, rcode, proof);
        }
    }
}

/// The names of NSEC3 records do not exist for a query (RFC 5155 section 7.2.8), nor what is below.
#[test]
fn hashes_are_no_names() {
    let zones = zones();
    let mut names = 0;
    for (name, types) in zones.names() {
        if !types.into_iter().eq([NSEC3]) {
            continue;
        }
        names += 1;
        let text = model::text(name);
        let (first, zone) = text.split_once('.').unwrap();
        for name in [first.to_string(), format!("x.{first}")] {
            for qtype in [A, NSEC3, DS] {
                check(
                    zone.trim_end_matches('.'),
                    &name,
                    &name,
                    qtype,
                    3,
                    Proof::NoName,
                );
            }
        }
    }
    assert!(names > 20);
}

/// A chain shows a proof for each wildcard on the way.
#[test]
fn chain_of_wildcards() {
    for zone in ZONES {
        let message = query_edns(&format!("x.dcw.{zone}"), A, 1232, DO);
        let (rcode, records) = read(&ask(&zones(), &message, Transport::Udp).unwrap());
        assert_eq!(rcode, 0);
        signed(zone, &records, zone);
        let proofs = Proofs::of(&records);
        for name in ["x.dcw", "nothing.wild"] {
            let name = labels(&wire(&format!("{name}.{zone}")));
            assert!(proofs.covers(&name).is_some(), "{zone}");
        }
    }
}

/// A question for signatures is answered with all of a name.
#[test]
fn signatures() {
    let zones = zones();
    let response = ask(&zones, &query("host.nsec.test", RRSIG), Transport::Udp).unwrap();
    let (_, records) = read(&response);
    let covered: Vec<_> = records
        .iter()
        .filter(|(section, _, rtype, _)| *section == 0 && *rtype == RRSIG)
        .map(|(.., rdata)| u16::from_be_bytes([rdata[0], rdata[1]]))
        .collect();
    assert_eq!(covered, [A, NSEC]);
}

/// A large number of iterations cannot be used to keep the server busy (RFC 9276 section 3.2).
#[test]
fn iterations() {
    let text = include_str!("zones/nsec3.zone");
    for (iterations, rcode) in [("100", 3), ("101", 2), ("65535", 2)] {
        let text = text.replace(
            "NSEC3PARAM 1 0 2 ",
            &format!("NSEC3PARAM 1 0 {iterations} "),
        );
        assert!(text.contains(iterations));
        let zones = Model::default().with("nsec3.test.", &text, false);
        let message = query_edns("nothing.nsec3.test", A, 1232, DO);
        let response = ask(&zones, &message, Transport::Udp).unwrap();
        assert_eq!(u16::from(response[3] & 15), rcode);
    }
}
