//! `NETLINK_ROUTE` messages about links, sent and received.

use netlink_packet_core::{
    NLM_F_ACK, NLM_F_CREATE, NLM_F_DUMP, NLM_F_DUMP_INTR, NLM_F_REPLACE, NLM_F_REQUEST, NLMSG_DONE,
    NLMSG_ERROR, NetlinkBuffer, NetlinkHeader, NetlinkMessage, NetlinkPayload,
};
use netlink_packet_route::link::{
    AfSpecInet6, AfSpecUnspec, BridgeMulticastRouterType, In6AddrGenMode, InfoBridgePort,
    InfoPortData, InfoPortKind, LinkAttribute, LinkExtentMask, LinkFlags, LinkHeader, LinkInfo,
    LinkMessage,
};
use netlink_packet_route::neighbour::{
    NeighbourAttribute, NeighbourFlags, NeighbourMessage, NeighbourState,
};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};

use super::link::{Link, LinkChange};

/// `linux/rtnetlink.h`.
const RTM_NEWLINK: u16 = 16;
const RTM_DELLINK: u16 = 17;
const RTM_NEWQDISC: u16 = 36;
/// `TCA_STATS`. In its `struct tc_stats` (`linux/gen_stats.h`), the count of drops comes after 8 bytes with the count
/// of bytes and 4 bytes with the count of packets.
const TCA_STATS: u16 = 3;
const DROPS: std::ops::Range<usize> = 12..16;
/// `linux/if_link.h`.
const IFLA_ADDRESS: u16 = 1;
const IFLA_IFNAME: u16 = 3;
const IFLA_MTU: u16 = 4;
const IFLA_MASTER: u16 = 10;
const IFLA_LINKINFO: u16 = 18;
const IFLA_INFO_KIND: u16 = 1;
const IFLA_EVENT: u16 = 44;
const IFLA_EVENT_FEATURES: u32 = 2;
/// `NLA_TYPE_MASK` of `linux/netlink.h`: excludes the flag bits.
const NLA_TYPE_MASK: u16 = 0x3fff;
/// `sizeof(struct nlmsghdr)` and `sizeof(struct ifinfomsg)`.
const HEADER: usize = 16;
const LINK_HEADER: usize = 16;
/// `sizeof(struct tcmsg)`.
const TC_HEADER: usize = 20;

/// A netlink message of the kernel.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Netlink {
    /// A new, changed or removed link.
    Link {
        sequence: u32,
        change: LinkChange,
        interrupted: bool,
    },
    /// The end of a list.
    Done { sequence: u32, interrupted: bool },
    /// The count of drops of a link's queueing discipline.
    Qdisc { sequence: u32, drops: u32 },
    /// The outcome of a request: 0, or a negative `errno`.
    Outcome { sequence: u32, code: i32 },
}

/// Asks for one link, by name.
pub(super) fn get(sequence: u32, name: &str) -> Vec<u8> {
    let mut link = LinkMessage::default();
    link.attributes
        .push(LinkAttribute::ExtMask(vec![LinkExtentMask::SkipStats]));
    link.attributes.push(LinkAttribute::IfName(name.to_owned()));
    bytes(sequence, NLM_F_REQUEST, RouteNetlinkMessage::GetLink(link))
}

/// Asks for all links.
pub(super) fn list(sequence: u32) -> Vec<u8> {
    let mut link = LinkMessage::default();
    link.attributes
        .push(LinkAttribute::ExtMask(vec![LinkExtentMask::SkipStats]));
    bytes(
        sequence,
        NLM_F_REQUEST | NLM_F_DUMP,
        RouteNetlinkMessage::GetLink(link),
    )
}

/// Disables the automatic IPv6 address of a link.
pub(super) fn no_address(sequence: u32, index: u32) -> Vec<u8> {
    let mode = AfSpecInet6::AddrGenMode(In6AddrGenMode::None);
    let spec = LinkAttribute::AfSpecUnspec(vec![AfSpecUnspec::Inet6(vec![mode])]);
    change(sequence, index, LinkFlags::empty(), vec![spec])
}

/// Makes a link a bridge's port and sets it up.
pub(super) fn attach(sequence: u32, index: u32, bridge: u32, mtu: Option<u32>) -> Vec<u8> {
    let mut attributes = vec![LinkAttribute::Controller(bridge)];
    attributes.extend(mtu.map(LinkAttribute::Mtu));
    change(sequence, index, LinkFlags::Up, attributes)
}

/// Gives a link a MAC address.
pub(super) fn address(sequence: u32, index: u32, mac: [u8; 6]) -> Vec<u8> {
    let mac = LinkAttribute::Address(mac.to_vec());
    change(sequence, index, LinkFlags::empty(), vec![mac])
}

/// Sets a port from which the bridge learns no addresses and to which it sends all multicast, as to a router.
pub(super) fn own_port(sequence: u32, index: u32) -> Vec<u8> {
    let port = vec![
        InfoBridgePort::Learning(false),
        InfoBridgePort::MulticastRouter(BridgeMulticastRouterType::Permanent),
    ];
    set_port(sequence, index, port)
}

/// Sets whether a bridge floods a port with frames whose MAC address it does not know, and with groups.
pub(super) fn flood(sequence: u32, index: u32, floods: bool) -> Vec<u8> {
    let port = vec![
        InfoBridgePort::UnicastFlood(floods),
        InfoBridgePort::MulticastFlood(floods),
        InfoBridgePort::BroadcastFlood(floods),
    ];
    set_port(sequence, index, port)
}

fn set_port(sequence: u32, index: u32, port: Vec<InfoBridgePort>) -> Vec<u8> {
    let info = vec![
        LinkInfo::PortKind(InfoPortKind::Bridge),
        LinkInfo::PortData(InfoPortData::BridgePort(port)),
    ];
    change(
        sequence,
        index,
        LinkFlags::empty(),
        vec![LinkAttribute::LinkInfo(info)],
    )
}

/// Adds a static, sticky entry by which a bridge sends frames for a MAC address to one port only.
pub(super) fn direct(sequence: u32, port: u32, mac: [u8; 6]) -> Vec<u8> {
    let flags = NLM_F_REQUEST | NLM_F_ACK | NLM_F_CREATE | NLM_F_REPLACE;
    let message = RouteNetlinkMessage::NewNeighbour(forwarding(port, mac));
    bytes(sequence, flags, message)
}

/// Undoes [`direct`].
pub(super) fn undirect(sequence: u32, port: u32, mac: [u8; 6]) -> Vec<u8> {
    let message = RouteNetlinkMessage::DelNeighbour(forwarding(port, mac));
    bytes(sequence, NLM_F_REQUEST | NLM_F_ACK, message)
}

fn forwarding(port: u32, mac: [u8; 6]) -> NeighbourMessage {
    let mut entry = NeighbourMessage::default();
    entry.header.family = AddressFamily::Bridge;
    entry.header.ifindex = port;
    entry.header.state = NeighbourState::Noarp;
    entry.header.flags = NeighbourFlags::Controller | NeighbourFlags::Sticky;
    entry
        .attributes
        .push(NeighbourAttribute::LinkLayerAddress(mac.to_vec()));
    entry
}

fn change(sequence: u32, index: u32, set: LinkFlags, attributes: Vec<LinkAttribute>) -> Vec<u8> {
    let mut link = LinkMessage::default();
    link.header.interface_family = AddressFamily::Unspec;
    link.header.index = index;
    (link.header.flags, link.header.change_mask) = (set, set);
    link.attributes = attributes;
    bytes(
        sequence,
        NLM_F_REQUEST | NLM_F_ACK,
        RouteNetlinkMessage::NewLink(link),
    )
}

pub(super) fn bytes(sequence: u32, flags: u16, message: RouteNetlinkMessage) -> Vec<u8> {
    let mut header = NetlinkHeader::default();
    (header.flags, header.sequence_number) = (flags, sequence);
    let mut message = NetlinkMessage::new(header, NetlinkPayload::from(message));
    message.finalize();
    let mut bytes = vec![0; message.buffer_len()];
    message.serialize(&mut bytes);
    bytes
}

/// Parses the first message of a datagram. Returns also its length in bytes. `None` is a message that is ignored.
pub(super) fn take(datagram: &[u8]) -> Result<(Option<Netlink>, usize), String> {
    let buffer = NetlinkBuffer::new_checked(datagram).map_err(|error| error.to_string())?;
    let length = usize::try_from(buffer.length()).map_err(|error| error.to_string())?;
    let payload = datagram
        .get(HEADER..length)
        .ok_or("it is shorter than it says")?;
    let sequence = buffer.sequence_number();
    let interrupted = buffer.flags() & NLM_F_DUMP_INTR != 0;
    let told = match buffer.message_type() {
        NLMSG_ERROR => {
            let code = payload.get(..4).and_then(|code| code.try_into().ok());
            let code = i32::from_ne_bytes(code.ok_or("an outcome has no code")?);
            Some(Netlink::Outcome { sequence, code })
        }
        NLMSG_DONE => Some(Netlink::Done {
            sequence,
            interrupted,
        }),
        kind @ (RTM_NEWLINK | RTM_DELLINK) => {
            link(kind == RTM_DELLINK, payload)?.map(|change| Netlink::Link {
                sequence,
                change,
                interrupted,
            })
        }
        RTM_NEWQDISC => Some(Netlink::Qdisc {
            sequence,
            drops: drops(payload),
        }),
        _ => None,
    };
    // The next message begins at a multiple of four.
    Ok((told, length.next_multiple_of(4).min(datagram.len())))
}

fn link(gone: bool, payload: &[u8]) -> Result<Option<LinkChange>, String> {
    let header = LinkHeader::parse(payload).map_err(|error| error.to_string())?;
    // A bridge sends messages about its ports too. The end of such a message's port is not the end of the link.
    if header.interface_family != AddressFamily::Unspec {
        return Ok(None);
    }
    let mut link = Link {
        index: header.index,
        name: String::new(),
        mac: None,
        kind: None,
        master: None,
        mtu: 0,
        up: header.flags.contains(LinkFlags::Up),
        running: header.flags.contains(LinkFlags::Running),
    };
    let mut is_featured = false;
    for attribute in attributes(payload.get(LINK_HEADER..).unwrap_or_default()) {
        let (kind, value) = attribute?;
        match kind {
            IFLA_ADDRESS => link.mac = value.try_into().ok(),
            IFLA_IFNAME => link.name = string(value),
            IFLA_MTU => link.mtu = number(value).unwrap_or(0),
            IFLA_MASTER => link.master = number(value),
            IFLA_LINKINFO => link.kind = find(value, IFLA_INFO_KIND).map(string),
            IFLA_EVENT => is_featured = number(value) == Some(IFLA_EVENT_FEATURES),
            _ => {}
        }
    }
    Ok(Some(match gone {
        true => LinkChange::Gone {
            index: link.index,
            name: link.name,
        },
        false if is_featured => LinkChange::Featured(link),
        false => LinkChange::Is(link),
    }))
}

/// The attributes of a message, or of another attribute (`linux/netlink.h`, `struct nlattr`). They are parsed by hand
/// for speed, because each birth of a guest causes many messages with some fifty attributes each.
fn attributes(mut rest: &[u8]) -> impl Iterator<Item = Result<(u16, &[u8]), String>> {
    std::iter::from_fn(move || {
        let (&[low, high, kind, more], _) = rest.split_first_chunk()?;
        let length = usize::from(u16::from_ne_bytes([low, high]));
        let Some(value) = rest.get(4..length) else {
            rest = &[];
            return Some(Err("an attribute of a wrong length".to_owned()));
        };
        rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
        let kind = u16::from_ne_bytes([kind, more]) & NLA_TYPE_MASK;
        Some(Ok((kind, value)))
    })
}

/// The first attribute of a kind.
fn find(all: &[u8], wanted: u16) -> Option<&[u8]> {
    attributes(all)
        .filter_map(Result::ok)
        .find_map(|(kind, value)| (kind == wanted).then_some(value))
}

/// The count of drops; 0 for a qdisc without statistics.
fn drops(payload: &[u8]) -> u32 {
    let stats = find(payload.get(TC_HEADER..).unwrap_or_default(), TCA_STATS);
    stats
        .and_then(|stats| number(stats.get(DROPS)?))
        .unwrap_or(0)
}

fn string(value: &[u8]) -> String {
    let name = value.split(|byte| *byte == 0).next().unwrap_or_default();
    String::from_utf8_lossy(name).into_owned()
}

fn number(value: &[u8]) -> Option<u32> {
    Some(u32::from_ne_bytes(value.get(..4)?.try_into().ok()?))
}
