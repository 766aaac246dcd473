//! The netlink socket: requests, their outcomes, and notifications of the kernel.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use rustix::buffer::spare_capacity;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::netlink::SocketAddrNetlink;
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, bind, recvfrom, send,
    socket_with, sockopt,
};

use super::error::Error;
use super::link::{Bridge, Link, LinkChange, check_name};
use super::message::{self, Netlink};

/// `RTMGRP_LINK` of `linux/rtnetlink.h`: the group RTNLGRP_LINK as a bit.
const RTMGRP_LINK: u32 = 1;
/// The size of the buffer for a datagram (`netlink_recvmsg` never makes a larger part of a list).
const DATAGRAM: usize = 32 * 1024;
/// The size of the socket's receive buffer in bytes: enough for the births of many vifs at once.
const ROOM: usize = 4 << 20;
/// The time limit for an answer of the kernel, which answers within the system call.
const ANSWER: Duration = Duration::from_secs(5);
/// The number of times that a list is read again because it changed meanwhile.
const LISTS: u32 = 16;
/// The greatest number of stored changes. Beyond that, all are dropped, and the caller queries the kernel.
const CHANGES_MAX: usize = 1024;

/// dom0's links, and their changes since this was opened.
pub struct Links {
    fd: OwnedFd,
    sequence: u32,
    datagram: Vec<u8>,
    /// Received messages that have not been handled.
    inbox: VecDeque<Netlink>,
    changes: VecDeque<LinkChange>,
}

impl Links {
    /// Opens the socket and asks to be told of changes.
    ///
    /// # Errors
    /// The kernel lacks or forbids netlink.
    pub fn open() -> Result<Self, Error> {
        Self::of(RTMGRP_LINK)
    }

    /// Opens the socket for queries and settings only: [`Self::appeared`] and the like get no notifications.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub fn asking() -> Result<Self, Error> {
        Self::of(0)
    }

    fn of(groups: u32) -> Result<Self, Error> {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        // NETLINK_ROUTE is protocol 0.
        let fd = socket_with(AddressFamily::NETLINK, SocketType::RAW, flags, None)
            .map_err(io::Error::from)?;
        // A size beyond the administrator's limit needs a privilege. Without it, a loss of notifications is more
        // likely, and is noticed.
        if sockopt::set_socket_recv_buffer_size_force(&fd, ROOM).is_err() {
            sockopt::set_socket_recv_buffer_size(&fd, ROOM).map_err(io::Error::from)?;
        }
        bind(&fd, &SocketAddrNetlink::new(0, groups)).map_err(io::Error::from)?;
        Ok(Self {
            fd,
            sequence: 0,
            datagram: Vec::new(),
            inbox: VecDeque::new(),
            changes: VecDeque::new(),
        })
    }

    /// Finds a link by name.
    ///
    /// # Errors
    /// No such link, or an invalid name.
    pub fn find(&mut self, name: &str) -> Result<Link, Error> {
        check_name(name)?;
        let sequence = self.next();
        self.ask(&message::get(sequence, name))?;
        match self.reply(sequence, "a link")? {
            Netlink::Link {
                change: LinkChange::Is(link),
                ..
            } => Ok(link),
            Netlink::Outcome { code, .. } => Err(refused(code, &format!("the link {name}"), name)),
            _ => Err(Error::Malformed("another answer than a link".to_owned())),
        }
    }

    /// Finds a bridge by name.
    ///
    /// # Errors
    /// No such link, or it is not a bridge.
    pub fn bridge(&mut self, name: &str) -> Result<Bridge, Error> {
        let Link {
            index,
            name,
            mac,
            kind,
            mtu,
            ..
        } = self.find(name)?;
        match kind.as_deref() {
            // A link cannot join Open vSwitch by RTM_NEWLINK.
            Some("bridge") => Ok(Bridge {
                index,
                name,
                mac: mac.unwrap_or_default(),
                mtu,
            }),
            Some(kind) => Err(Error::NotABridge {
                name,
                kind: format!("of the kind {kind}"),
            }),
            None => Err(Error::NotABridge {
                name,
                kind: "a plain link".to_owned(),
            }),
        }
    }

    /// All links.
    ///
    /// # Errors
    /// The kernel does not answer, or the list keeps changing.
    pub fn list(&mut self) -> Result<Vec<Link>, Error> {
        for _ in 0..LISTS {
            let sequence = self.next();
            self.ask(&message::list(sequence))?;
            let mut links = Vec::new();
            let mut unsteady = false;
            loop {
                match self.reply(sequence, "the list of links")? {
                    Netlink::Link {
                        change: LinkChange::Is(link),
                        interrupted,
                        ..
                    } => {
                        unsteady |= interrupted;
                        links.push(link);
                    }
                    Netlink::Link { .. } | Netlink::Qdisc { .. } => {}
                    Netlink::Done { interrupted, .. } => {
                        unsteady |= interrupted;
                        break;
                    }
                    Netlink::Outcome { code, .. } => {
                        return Err(refused(code, "the list of links", ""));
                    }
                }
            }
            if !unsteady {
                return Ok(links);
            }
        }
        Err(Error::Unsteady)
    }

    /// Waits for a link to appear. A link that has appeared since this was opened counts.
    ///
    /// # Errors
    /// The link does not appear within the bound.
    pub fn appeared(&mut self, name: &str, bound: Duration) -> Result<Link, Error> {
        check_name(name)?;
        let found = self.until(name, bound, |heard| heard.flatten())?;
        found.ok_or_else(|| Error::NotAppeared {
            name: name.to_owned(),
            bound,
        })
    }

    /// Waits for a link to be gone. It may be gone already.
    ///
    /// # Errors
    /// The link is still there after the bound.
    pub fn gone(&mut self, name: &str, bound: Duration) -> Result<(), Error> {
        if self.there(name)?.is_none() {
            return Ok(());
        }
        let found = self.until(name, bound, |heard| {
            matches!(heard, Some(None)).then_some(())
        })?;
        found.ok_or_else(|| Error::NotGone {
            name: name.to_owned(),
            bound,
        })
    }

    /// Makes a link a port of a bridge, without an IPv6 address of its own, and sets it up. `mtu` defaults to the
    /// bridge's.
    ///
    /// # Errors
    /// The kernel refuses; the error names the link, the bridge or the missing permission.
    pub fn attach(
        &mut self,
        link: &mut Link,
        bridge: &Bridge,
        mtu: Option<u32>,
    ) -> Result<(), Error> {
        // Setting the same MTU again would cost a notification to all listeners.
        let mtu = Some(mtu.unwrap_or(bridge.mtu)).filter(|mtu| *mtu != link.mtu && *mtu != 0);
        let what = format!("cannot make {} a port of {}", link.name, bridge.name);
        self.set_up(link, &what, |sequence, link| {
            message::attach(sequence, link, bridge.index, mtu)
        })
    }

    /// Sends a message that sets a link up, if it is down. Before that, it disables the link's IPv6 address.
    fn set_up(
        &mut self,
        link: &mut Link,
        what: &str,
        message: impl FnOnce(u32, u32) -> Vec<u8>,
    ) -> Result<(), Error> {
        let (quiet, sequence) = (self.next(), self.next());
        // Both messages are sent in one datagram; the kernel handles them in order. The first is a separate message
        // because kernels read IFLA_AF_SPEC last, when the link is up and has its address, and because a kernel without
        // IPv6 refuses it.
        let mut messages = Vec::new();
        if !link.up {
            messages = message::no_address(quiet, link.index);
        }
        messages.extend(message(sequence, link.index));
        self.ask(&messages)?;
        if !link.up {
            self.outcome(quiet, "no IPv6 address on the vif")?;
        }
        match self.outcome(sequence, "a change of the vif")? {
            0 => link.up = true,
            code => return Err(refused(code, what, &link.name)),
        }
        Ok(())
    }

    /// Discards all notifications so far.
    ///
    /// # Errors
    /// The socket fails.
    pub fn pass(&mut self) -> Result<(), Error> {
        while self.receive()? {}
        self.sort();
        self.changes.clear();
        Ok(())
    }

    /// Waits until netback has connected a link, by the notifications since [`Self::pass`]. Returns false if there was
    /// none within the bound. There is none for a front end that supports all of netback's features: a caller that
    /// needs to know reads xenstore.
    ///
    /// The link has a carrier as soon as a thread of netback runs, but it still drops frames for some time. When all is
    /// set up, netback takes the kernel's lock of links, updates the link's features for this front end, and lets
    /// frames pass (`xenvif_carrier_on` of drivers/net/xen-netback/interface.c). So frames pass after any query or
    /// setting of links that follows this call, because that takes the lock as well.
    ///
    /// # Errors
    /// The socket fails, or the link is gone.
    pub fn connected(&mut self, name: &str, bound: Duration) -> Result<bool, Error> {
        let end = Instant::now() + bound;
        let featured =
            |change: &LinkChange| matches!(change, LinkChange::Featured(link) if link.name == name);
        loop {
            while self.receive()? {}
            self.sort();
            if self.changes.iter().any(featured) {
                break;
            }
            if !self.readable(end)? {
                return Ok(false);
            }
        }
        self.running(name, end.saturating_duration_since(Instant::now()))?;
        Ok(true)
    }

    /// Waits until a link has a carrier and its bridge knows.
    ///
    /// The kernel tells its bridges before it tells us (`netdev_state_change` of net/core/dev.c). It does so at once
    /// for a link that was up when it got its carrier, and within a second for any other (`linkwatch_urgent_event` of
    /// net/core/link_watch.c).
    ///
    /// # Errors
    /// The link has no carrier within the bound.
    pub fn running(&mut self, name: &str, bound: Duration) -> Result<(), Error> {
        let found = self.until(name, bound, |heard| {
            heard.flatten().filter(|link| link.running)
        })?;
        found.map(drop).ok_or_else(|| Error::NotRunning {
            name: name.to_owned(),
            bound,
        })
    }

    /// The next change received, without waiting. A caller that polls the descriptor along with others must empty this
    /// first.
    ///
    /// # Errors
    /// The socket fails.
    pub fn change(&mut self) -> Result<Option<LinkChange>, Error> {
        while self.receive()? {}
        self.sort();
        Ok(self.changes.pop_front())
    }

    fn there(&mut self, name: &str) -> Result<Option<Link>, Error> {
        match self.find(name) {
            Ok(link) => Ok(Some(link)),
            Err(Error::NoSuchLink(_)) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The link's state after its last change; `None` if there was no notification.
    fn heard(&mut self, name: &str) -> Result<Option<Option<Link>>, Error> {
        self.sort();
        for change in self.changes.iter().rev() {
            match change {
                LinkChange::Is(link) | LinkChange::Featured(link) if link.name == name => {
                    return Ok(Some(Some(link.clone())));
                }
                LinkChange::Gone { name: gone, .. } if gone == name => return Ok(Some(None)),
                LinkChange::Lost => {
                    let there = self.there(name)?;
                    // If there is one, it is the first.
                    self.changes.pop_front();
                    return Ok(Some(there));
                }
                LinkChange::Is(_) | LinkChange::Featured(_) | LinkChange::Gone { .. } => {}
            }
        }
        Ok(None)
    }

    /// Checks the notifications about a link until `found` returns a value; `None` when the bound is over.
    fn until<T>(
        &mut self,
        name: &str,
        bound: Duration,
        mut look: impl FnMut(Option<Option<Link>>) -> Option<T>,
    ) -> Result<Option<T>, Error> {
        let end = Instant::now() + bound;
        loop {
            while self.receive()? {}
            let heard = self.heard(name)?;
            if let Some(found) = look(heard) {
                return Ok(Some(found));
            }
            if !self.readable(end)? {
                return Ok(None);
            }
        }
    }

    pub(super) fn next(&mut self) -> u32 {
        // The kernel's notifications have the sequence number 0.
        self.sequence = self.sequence.checked_add(1).unwrap_or(1);
        self.sequence
    }

    pub(super) fn ask(&mut self, messages: &[u8]) -> Result<(), Error> {
        match send(&self.fd, messages, SendFlags::empty()) {
            Ok(_) => Ok(()),
            Err(error) => Err(Error::Io(error.into())),
        }
    }

    /// Waits for the outcome of a request. Other messages are kept.
    pub(super) fn outcome(&mut self, wanted: u32, what: &'static str) -> Result<i32, Error> {
        let mine = |told: &Netlink| matches!(told, Netlink::Outcome { sequence, .. } if *sequence == wanted);
        match self.get(mine, what)? {
            Netlink::Outcome { code, .. } => Ok(code),
            _ => Err(Error::Silent(what)),
        }
    }

    /// Waits for the next part of an answer, or the outcome. Other messages are kept.
    pub(super) fn reply(&mut self, wanted: u32, what: &'static str) -> Result<Netlink, Error> {
        let mine = |told: &Netlink| match told {
            Netlink::Link { sequence, .. }
            | Netlink::Done { sequence, .. }
            | Netlink::Qdisc { sequence, .. }
            | Netlink::Outcome { sequence, .. } => *sequence == wanted,
        };
        self.get(mine, what)
    }

    fn get(&mut self, mine: impl Fn(&Netlink) -> bool, of: &'static str) -> Result<Netlink, Error> {
        let end = Instant::now() + ANSWER;
        loop {
            while let Some(told) = self.inbox.pop_front() {
                if mine(&told) {
                    return Ok(told);
                }
                self.keep(told);
            }
            if !self.receive()? && !self.readable(end)? {
                return Err(Error::Silent(of));
            }
        }
    }

    fn sort(&mut self) {
        while let Some(told) = self.inbox.pop_front() {
            self.keep(told);
        }
    }

    /// Keeps a change. Late outcomes are dropped.
    fn keep(&mut self, told: Netlink) {
        let Netlink::Link { change, .. } = told else {
            return;
        };
        if self.changes.len() >= CHANGES_MAX {
            self.lose();
        }
        self.changes.push_back(change);
    }

    fn lose(&mut self) {
        self.changes.clear();
        self.changes.push_back(LinkChange::Lost);
    }

    /// Reads one datagram into the inbox. Returns false if there is none.
    fn receive(&mut self) -> Result<bool, Error> {
        loop {
            let flags = RecvFlags::TRUNC | RecvFlags::DONTWAIT;
            // The memory is not written before the kernel does: most datagrams touch one page of it.
            self.datagram.clear();
            self.datagram.reserve_exact(DATAGRAM);
            let space = spare_capacity(&mut self.datagram);
            let (length, from) = match recvfrom(&self.fd, space, flags) {
                Ok((_, length, from)) => (length, from),
                Err(Errno::AGAIN) => return Ok(false),
                Err(Errno::INTR) => continue,
                // The socket's buffer was full, so notifications were lost.
                Err(Errno::NOBUFS) => {
                    self.lose();
                    continue;
                }
                Err(error) => return Err(Error::Io(error.into())),
            };
            // Other processes can write to the socket as well. Only the kernel's messages count.
            let from = from.and_then(|from| SocketAddrNetlink::try_from(from).ok());
            if from.is_none_or(|from| from.pid() != 0) {
                continue;
            }
            let Some(mut rest) = self.datagram.get(..length) else {
                self.lose();
                continue;
            };
            while !rest.is_empty() {
                let (told, taken) = message::take(rest).map_err(Error::Malformed)?;
                self.inbox.extend(told);
                rest = rest.get(taken..).unwrap_or_default();
            }
            return Ok(true);
        }
    }

    /// Returns whether a message has come by `end`. (The toolstack's `ready`, which also waits, is above this crate.)
    fn readable(&self, end: Instant) -> Result<bool, Error> {
        loop {
            let left = end.saturating_duration_since(Instant::now());
            let left = Timespec::try_from(left).ok();
            match poll(&mut [PollFd::new(&self.fd, PollFlags::IN)], left.as_ref()) {
                Ok(ready) => return Ok(ready > 0),
                Err(Errno::INTR) => {}
                Err(error) => return Err(Error::Io(error.into())),
            }
        }
    }
}

impl AsFd for Links {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// The error of a negative `errno` from the kernel.
pub(super) fn refused(code: i32, what: &str, name: &str) -> Error {
    let code = code.saturating_neg();
    match Errno::from_raw_os_error(code) {
        Errno::NODEV => Error::NoSuchLink(name.to_owned()),
        Errno::PERM | Errno::ACCESS => Error::Permission(what.to_owned()),
        _ => Error::Refused {
            what: what.to_owned(),
            source: io::Error::from_raw_os_error(code),
        },
    }
}
