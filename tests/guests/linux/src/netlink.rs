//! The three things that are asked of Linux's routing netlink (`linux/rtnetlink.h`, rtnetlink(7)).

use std::net::Ipv4Addr;
use std::os::fd::OwnedFd;

use anyhow::{Context, Result, bail};
use rustix::net::netlink::SocketAddrNetlink;
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketType};

const NLMSG_ERROR: u16 = 2;
const RTM_NEWLINK: u16 = 16;
const RTM_NEWADDR: u16 = 20;
const NLM_F_REQUEST_ACK: u16 = 0x1 | 0x4;
const NLM_F_CREATE_EXCL: u16 = 0x400 | 0x200;
const IFA_LOCAL: u16 = 2;
const IFF_UP: u32 = 1;
const AF_INET: u8 = 2;
/// `RTMGRP_LINK`.
const LINK_EVENTS: u32 = 1;
/// Size of `struct nlmsghdr`.
const HEADER: usize = 16;

pub(crate) struct Route {
    requests: OwnedFd,
    events: OwnedFd,
}

impl Route {
    pub(crate) fn open() -> Result<Self> {
        let open = |groups| -> Result<OwnedFd> {
            // The family's protocol 0 is NETLINK_ROUTE.
            let socket = rustix::net::socket(AddressFamily::NETLINK, SocketType::RAW, None)?;
            rustix::net::bind(&socket, &SocketAddrNetlink::new(0, groups))?;
            Ok(socket)
        };
        Ok(Self {
            requests: open(0)?,
            events: open(LINK_EVENTS)?,
        })
    }

    /// Waits for the first interface that comes into being after [`Route::open`], and gives its index.
    pub(crate) fn wait_for_interface(&mut self) -> Result<u32> {
        loop {
            let (kind, body) = receive(&self.events)?;
            // struct ifinfomsg: family, padding, type, index.
            if kind == RTM_NEWLINK
                && let Some(index) = body.get(4..8).and_then(|b| b.try_into().ok())
            {
                return Ok(u32::from_ne_bytes(index));
            }
        }
    }

    pub(crate) fn add_address(
        &mut self,
        interface: u32,
        address: Ipv4Addr,
        prefix: u8,
    ) -> Result<()> {
        // struct ifaddrmsg: family, prefix length, flags, scope, index; then the attribute.
        let mut body = vec![AF_INET, prefix, 0, 0];
        body.extend(interface.to_ne_bytes());
        body.extend(8_u16.to_ne_bytes());
        body.extend(IFA_LOCAL.to_ne_bytes());
        body.extend(address.octets());
        self.request(RTM_NEWADDR, NLM_F_CREATE_EXCL, &body)
            .context("cannot set the address")
    }

    pub(crate) fn up(&mut self, interface: u32) -> Result<()> {
        // struct ifinfomsg: family, padding, type, index, flags, mask of the flags that change.
        let mut body = vec![0; 4];
        for word in [interface, IFF_UP, IFF_UP] {
            body.extend(word.to_ne_bytes());
        }
        self.request(RTM_NEWLINK, 0, &body)
            .context("cannot bring the interface up")
    }

    fn request(&mut self, kind: u16, flags: u16, body: &[u8]) -> Result<()> {
        let length = u32::try_from(HEADER + body.len())?;
        let mut message = length.to_ne_bytes().to_vec();
        message.extend(kind.to_ne_bytes());
        message.extend((NLM_F_REQUEST_ACK | flags).to_ne_bytes());
        message.extend([0; 8]);
        message.extend(body);
        rustix::net::send(&self.requests, &message, SendFlags::empty())?;
        match receive(&self.requests)? {
            (NLMSG_ERROR, answer) => match answer.get(..4) {
                Some([0, 0, 0, 0]) => Ok(()),
                error => bail!("the kernel refuses: {error:?}"),
            },
            (kind, _) => bail!("an answer of type {kind}"),
        }
    }
}

/// Type and body of the first message of what comes next.
fn receive(socket: &OwnedFd) -> Result<(u16, Vec<u8>)> {
    let mut buffer = vec![0; 8192];
    let (length, _) = rustix::net::recv(socket, &mut buffer[..], RecvFlags::empty())?;
    buffer.truncate(length);
    let body = buffer.split_off(HEADER.min(length));
    let kind = buffer
        .get(4..6)
        .and_then(|b| b.try_into().ok())
        .context("a cut message")?;
    Ok((u16::from_ne_bytes(kind), body))
}
