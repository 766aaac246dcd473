//! The zones of a pack as text.

use std::io::{self, Write};

use mayfly_site::{Broken, Node, Pack, RrSet, Zone, Zones as _, records};

use super::zone::{presentation, rdata, types};

const SOA: u16 = 6;
const RRSIG: u16 = 46;
const NSEC: u16 = 47;

/// Writes the zones of a pack as a master file, one record a line: owner, TTL, class, type and data, separated by tabs.
/// Names are absolute and in lower case, except the next name of NSEC. Names come in canonical order (RFC 4034 section
/// 6.1); at each name, the types come in numerical order, each followed by its signatures, and the SOA record comes
/// first. Data has the form of its type, with numbers for algorithms; unknown types, and data that is invalid for its
/// type, have the form of RFC 3597.
///
/// # Errors
///
/// The error of `out`, or that the pack is inconsistent.
pub fn print_records(pack: &Pack<'_>, out: &mut impl Write) -> io::Result<()> {
    let mut number = 0;
    while let Some(zone) = pack.nth_zone(number).map_err(broken)? {
        print_zone(pack, zone, out)?;
        number += 1;
    }
    Ok(())
}

fn broken(_: Broken) -> io::Error {
    io::Error::other("it is inconsistent: see --check")
}

fn print_zone(pack: &Pack<'_>, zone: Zone<Node>, out: &mut impl Write) -> io::Result<()> {
    let [nodes, ..] = pack.node_counts(zone).map_err(broken)?;
    for index in 0..nodes {
        let node = pack.nth_node(zone, index).map_err(broken)?;
        let node = node.ok_or_else(|| broken(Broken))?;
        let name = pack.name(node).map_err(broken)?.to_ascii_lowercase();
        let owner = presentation(&name);
        let first = pack.rrset(node, SOA).map_err(broken)?;
        if let Some(set) = first {
            print_set(&owner, set, out)?;
        }
        let mut number = 0;
        while let Some(set) = pack.nth_rrset(node, number).map_err(broken)? {
            if set.rtype != SOA {
                print_set(&owner, set, out)?;
            }
            number += 1;
        }
    }
    Ok(())
}

fn print_set(owner: &str, set: RrSet<'_>, out: &mut impl Write) -> io::Result<()> {
    for (rtype, bytes) in [(set.rtype, set.rdata), (RRSIG, set.signatures)] {
        let name = types::name(rtype);
        for data in records(bytes) {
            // The next name of NSEC keeps its case in canonical form (RFC 6840 section 5.1).
            let text = match rtype {
                NSEC => rdata::print(rtype, data),
                _ => rdata::print(rtype, &rdata::folded(rtype, data)),
            };
            let line = format!("{owner}\t{}\tIN\t{name}\t{text}", set.ttl);
            writeln!(out, "{}", line.trim_end())?;
        }
    }
    Ok(())
}
