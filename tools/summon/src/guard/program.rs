//! The rules of [`super`] as a program. A load beyond the frame's end would let the frame pass, so the length is
//! checked before each load.

use std::net::{Ipv4Addr, Ipv6Addr};

use mayfly_switch::guard::link_local;

use super::Identity;
use super::assembler::{Assembler, To};
use mayfly_links::Instruction;

/// `linux/pkt_cls.h`.
pub(super) const TC_ACT_OK: u32 = 0;
pub(super) const TC_ACT_SHOT: u32 = 2;

/// The MAC address that netback gives to dom0's side of every vif.
const VIF: [u8; 6] = [0xfe, 0xff, 0xff, 0xff, 0xff, 0xff];

const ARP: u32 = 0x0806;
const IPV4: u32 = 0x0800;
const IPV6: u32 = 0x86dd;

/// RFC 9293 section 3.1, RFC 768, RFC 792 and RFC 4443, RFC 8200 section 4.3.
const ICMP: u32 = 1;
const TCP: u32 = 6;
const UDP: u32 = 17;
const ICMPV6: u32 = 58;
const HOP_BY_HOP: u32 = 0;

/// The length of an Ethernet header in bytes, which is the offset of IP and ARP.
const ETH: u32 = 14;
/// The ends of the ARP, IPv4 and IPv6 headers.
const ARP_END: u32 = ETH + 28;
const IPV4_END: u32 = ETH + 20;
const IPV6_END: u32 = ETH + 40;
/// The offset of a neighbour message's target, without extension headers (RFC 4861 section 4.3).
const TARGET: u32 = IPV6_END + 8;
const TARGET_END: u32 = TARGET + 16;

const ROUTER_ADVERTISEMENT: u32 = 134;
const NEIGHBOUR_SOLICITATION: u32 = 135;
const NEIGHBOUR_ADVERTISEMENT: u32 = 136;
const REDIRECT: u32 = 137;
const ROUTER_SOLICITATION: u32 = 133;
/// Reports of multicast groups: RFC 2710 section 3.1, RFC 3810 section 5.2.
const REPORTS: [u32; 3] = [131, 132, 143];

const DHCP_SERVER: u32 = 67;
const DHCPV6_SERVER: u32 = 547;
/// The first port that is not for services but for their clients (RFC 6335 section 6).
const USER_PORTS: u32 = 1024;

/// The program for a guest.
pub(super) fn of(identity: &Identity) -> Vec<Instruction> {
    let mut a = Assembler::default();
    ethernet(&mut a, identity);
    if let Some(own) = identity.ipv4 {
        arp(&mut a, identity.mac, own);
        ipv4(&mut a, own, identity.host);
    }
    if let Some(own) = identity.ipv6 {
        ipv6(&mut a, &[own, link_local(identity.mac)], identity.host);
    }
    answers(&mut a);
    a.finish(TC_ACT_OK, TC_ACT_SHOT)
}

fn first([a, b, c, d, ..]: [u8; 6]) -> u32 {
    u32::from_be_bytes([a, b, c, d])
}

fn last([.., e, f]: [u8; 6]) -> u32 {
    u32::from_be_bytes([0, 0, e, f])
}

fn ethernet(a: &mut Assembler, identity: &Identity) {
    // The kernel has removed the tag, so the rest of the frame would look right.
    a.vlan();
    a.must_be(0);
    a.must_have(IPV4_END);
    a.word(6);
    a.must_be(first(identity.mac));
    // The bridge gives dom0 the frames to a port's own address. A bridge that has only vifs uses this address itself.
    if identity.host != VIF {
        a.word(0);
        a.is(first(VIF), To::Next, To::Named("kind"));
        a.half(4);
        a.is(last(VIF), To::Drop, To::Next);
        a.at("kind");
    }
    // The end of the address together with the type, because loads are the slowest instructions here.
    a.word(10);
    let known = |is_there, name| {
        if is_there { To::Named(name) } else { To::Drop }
    };
    let (v4, v6) = (identity.ipv4.is_some(), identity.ipv6.is_some());
    let of = |kind| last(identity.mac) << 16 | kind;
    a.is(of(ARP), known(v4, "arp"), To::Next);
    a.is(of(IPV4), known(v4, "ipv4"), To::Next);
    a.is(of(IPV6), known(v6, "ipv6"), To::Drop);
}

fn arp(a: &mut Assembler, mac: [u8; 6], own: Ipv4Addr) {
    a.at("arp");
    a.must_have(ARP_END);
    // Hardware Ethernet, protocol IPv4, with the lengths of their addresses.
    a.word(ETH);
    a.must_be(0x0001_0800);
    // A request or a reply.
    a.word(ETH + 4);
    a.is(0x0604_0001, To::Named("sender"), To::Next);
    a.must_be(0x0604_0002);
    a.at("sender");
    a.word(ETH + 8);
    a.must_be(first(mac));
    a.half(ETH + 12);
    a.must_be(last(mac));
    a.word(ETH + 14);
    a.is(own.to_bits(), To::Pass, To::Next);
    // A probe (RFC 5227): its sender is 0.0.0.0.
    a.must_be(0);
    a.word(ETH + 24);
    a.is(own.to_bits(), To::Pass, To::Drop);
}

fn ipv4(a: &mut Assembler, own: Ipv4Addr, host: [u8; 6]) {
    a.at("ipv4");
    a.byte(ETH);
    // Version 4 with a header of at least five words.
    a.is_at_least(0x45, To::Next, To::Drop);
    a.is_at_least(0x50, To::Drop, To::Next);
    a.word(ETH + 12);
    a.must_be(own.to_bits());
    a.x_header(ETH);
    // Only the first fragment has the ports. (The time to live lies between the fragment offset and the protocol.)
    a.word(ETH + 6);
    a.and(0x1fff_00ff);
    a.is(UDP, To::Next, To::Named("ipv4 receiver"));
    has_behind(a, 4);
    a.half_behind(ETH);
    a.is(DHCP_SERVER, To::Drop, To::Next);
    a.at("ipv4 receiver");
    is_for(a, host);
    // No fragments to dom0.
    a.word(ETH + 6);
    a.and(0x3fff_00ff);
    a.is(TCP, To::Named("tcp"), To::Next);
    a.is(UDP, To::Named("udp"), To::Next);
    a.must_be(ICMP);
    has_behind(a, 1);
    a.byte_behind(ETH);
    // Echo reply, destination unreachable, time exceeded, parameter problem.
    passes(a, &[0, 3, 11, 12]);
}

/// Drops a frame that has fewer than this many bytes behind the Ethernet header and X. All frames here have an IPv4
/// header at least.
fn has_behind(a: &mut Assembler, bytes: u32) {
    a.length();
    a.subtract(ETH + bytes);
    a.is_at_least_x(To::Next, To::Drop);
}

/// Lets a frame pass if the loaded value is one of these, and drops it otherwise.
fn passes(a: &mut Assembler, all: &[u32]) {
    for one in all {
        a.is(*one, To::Pass, To::Next);
    }
    a.end(TC_ACT_SHOT);
}

/// Drops frames to groups, lets frames to another MAC address than this one pass, and goes on with the rest.
fn is_for(a: &mut Assembler, host: [u8; 6]) {
    a.word(0);
    a.has(0x0100_0000, To::Drop, To::Next);
    a.is(first(host), To::Next, To::Pass);
    a.half(4);
    a.is(last(host), To::Next, To::Pass);
}

fn ipv6(a: &mut Assembler, own: &[Ipv6Addr], host: [u8; 6]) {
    a.at("ipv6");
    a.must_have(IPV6_END);
    a.byte(ETH);
    a.and(0xf0);
    a.must_be(0x60);
    is_one_of(
        a,
        ETH + 8,
        own,
        To::Named("ipv6 own"),
        ["source 1", "source 2"],
    );
    // From the unspecified address: probes for duplicates of its addresses, and reports.
    is_one_of(
        a,
        ETH + 8,
        &[Ipv6Addr::UNSPECIFIED],
        To::Named("from nobody"),
        ["source 3"; 2],
    );
    a.end(TC_ACT_SHOT);

    a.at("from nobody");
    a.byte(ETH + 6);
    a.is(HOP_BY_HOP, To::Named("report"), To::Next);
    a.must_be(ICMPV6);
    a.must_have(TARGET_END);
    a.byte(IPV6_END);
    a.is(NEIGHBOUR_SOLICITATION, To::Named("target"), To::Drop);

    a.at("ipv6 own");
    a.x(IPV6_END - ETH);
    a.byte(ETH + 6);
    a.is(HOP_BY_HOP, To::Named("report"), To::Next);
    a.is(ICMPV6, To::Named("icmpv6"), To::Next);
    a.is(TCP, To::Named("ipv6 receiver"), To::Next);
    a.must_be(UDP);
    a.must_have(IPV6_END + 4);
    a.half(IPV6_END);
    a.is(DHCPV6_SERVER, To::Drop, To::Named("ipv6 receiver"));

    a.at("report");
    // A hop-by-hop header of eight bytes before ICMPv6 (RFC 3810 section 5).
    a.must_have(IPV6_END + 9);
    a.half(IPV6_END);
    a.must_be(ICMPV6 << 8);
    a.byte(IPV6_END + 8);
    passes(a, &REPORTS);

    a.at("icmpv6");
    a.must_have(IPV6_END + 4);
    a.byte(IPV6_END);
    a.is(ROUTER_ADVERTISEMENT, To::Drop, To::Next);
    a.is(REDIRECT, To::Drop, To::Next);
    a.is(ROUTER_SOLICITATION, To::Pass, To::Next);
    a.is(NEIGHBOUR_SOLICITATION, To::Pass, To::Next);
    a.is(
        NEIGHBOUR_ADVERTISEMENT,
        To::Next,
        To::Named("ipv6 receiver"),
    );
    a.must_have(TARGET_END);
    a.at("target");
    is_one_of(a, TARGET, own, To::Pass, ["target 1", "target 2"]);
    a.end(TC_ACT_SHOT);

    a.at("ipv6 receiver");
    is_for(a, host);
    a.byte(ETH + 6);
    a.is(TCP, To::Named("tcp"), To::Next);
    a.is(UDP, To::Named("udp"), To::Next);
    a.byte(IPV6_END);
    // Errors and an echo reply.
    passes(a, &[1, 2, 3, 4, 129]);
}

/// Jumps to `yes` if the address at an offset is one of these. `names` are for the places in between.
fn is_one_of(a: &mut Assembler, at: u32, all: &[Ipv6Addr], yes: To, names: [&'static str; 2]) {
    for (address, name) in all.iter().zip(names) {
        let bits = address.to_bits().to_be_bytes();
        for (index, part) in (0..).zip(bits.chunks_exact(4)) {
            a.word(at + index * 4);
            let part = part
                .iter()
                .fold(0, |word, byte| word << 8 | u32::from(*byte));
            let equal = if index == 3 { yes } else { To::Next };
            a.is(part, equal, To::Named(name));
        }
        a.at(name);
    }
}

/// The rules for TCP and UDP to dom0. The header begins at X.
fn answers(a: &mut Assembler) {
    a.at("tcp");
    has_behind(a, 14);
    a.byte_behind(ETH + 13);
    // SYN without ACK.
    a.and(0x12);
    a.is(0x02, To::Drop, To::Pass);
    a.at("udp");
    has_behind(a, 4);
    a.half_behind(ETH);
    a.is_at_least(USER_PORTS, To::Drop, To::Next);
    a.half_behind(ETH + 2);
    a.is_at_least(USER_PORTS, To::Pass, To::Drop);
}
