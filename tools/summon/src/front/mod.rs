//! The front: the process that reads DNS queries, frames and requests for the page, and asks the maker to wake
//! services.
//!
//! It has no device of Xen's, no capability and no file, and the kernel lets it do little (`sandbox.rs`). All that it
//! knows comes from the maker ([`ToFront`]), and the maker decides about its requests ([`ToMaker`]). If the maker ends,
//! the front ends; if the front ends, the maker starts another one.

mod asker;
mod frames;
mod sandbox;
mod start;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, VecDeque};
use std::net::IpAddr;
use std::os::fd::{AsFd as _, OwnedFd};
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use mayfly_toolstack::readable::ready;
use rustix::event::PollFlags;

use super::bell;
use super::cause::WakeCause;
use super::channel::{
    ChannelError, FrontTable, Sender, ServiceAddresses, Stance, ToFront, ToMaker, Wake,
    receive_with,
};
use super::clock::{Clock, Moment};
use super::dns::{self, Dns, Elsewhere, QueryCounts};
use super::fleet::ServiceId;
use super::held::{Bounds, HeldFrames};
use super::names::Names;
use super::status::FrameCounts;
use super::wire::Wire;
use asker::{ConnectionsAnswer, ConnectionsQuestion};
use frames::Waiting;

pub use start::run;

/// The longest delay of counters to the maker.
const COUNT: Duration = Duration::from_millis(100);

/// A service.
struct Entry {
    place: ServiceAddresses,
    stance: Stance,
    held: HeldFrames,
    /// DNS queries for its address.
    queries: u64,
    /// The counters that the maker was told.
    told: (u64, FrameCounts),
    /// The times between which the held frames were given to its guest, until the maker is told.
    replayed: Option<(Moment, Moment)>,
    /// Lives as long as its guest, so that a question for this guest does not reach the next one.
    guest: Option<Arc<()>>,
    /// Whether the maker was told of a packet while its guest is about to be removed.
    has_told: bool,
    /// The ticket of its last undecided wake.
    ticket: Option<u32>,
}

/// The front.
pub(super) struct Front {
    clock: Clock,
    from: OwnedFd,
    to: Sender<ToMaker>,
    dns: Dns,
    names: Names,
    bounds: Bounds,
    entries: BTreeMap<ServiceId, Entry>,
    /// The ports, by bridge.
    ports: BTreeMap<String, Wire>,
    macs: BTreeMap<(String, [u8; 6]), ServiceId>,
    addresses: BTreeMap<(String, IpAddr), ServiceId>,
    /// Frames whose wake is not decided yet, by its ticket.
    waiting: BTreeMap<u32, Waiting>,
    next_ticket: u32,
    /// The buffer for a frame.
    buffer: Vec<u8>,
    questions: mpsc::Sender<ConnectionsQuestion>,
    answers: bell::BellReceiver<ConnectionsAnswer>,
    /// The DNS counters that the maker was told.
    told: QueryCounts,
    count_at: Option<Instant>,
}

/// A source of input, or a connection that waits for room.
enum Source {
    Maker,
    Answers,
    Port(String),
    Dns(dns::DnsSocket),
}

impl Front {
    /// Serves until the maker is gone.
    fn serve(&mut self) -> ChannelError {
        loop {
            for source in self.wait() {
                if let Err(error) = self.come(source) {
                    return error;
                }
            }
            if let Err(error) = self.pass() {
                return error;
            }
        }
    }

    fn wait(&self) -> Vec<Source> {
        let mut flags = PollFlags::IN;
        flags.set(PollFlags::OUT, self.to.is_waiting());
        let mut sources = vec![
            (Source::Maker, self.from.as_fd(), flags),
            (Source::Answers, self.answers.as_fd(), PollFlags::IN),
        ];
        for (bridge, port) in &self.ports {
            let source = Source::Port(bridge.clone());
            sources.push((source, port.as_fd(), PollFlags::IN));
        }
        for (source, fd) in self.dns.sources() {
            let flags = match self.dns.is_writing(source) {
                true => PollFlags::OUT,
                false => PollFlags::IN,
            };
            sources.push((Source::Dns(source), fd, flags));
        }
        let until = self.count_at.into_iter().chain(self.dns.deadline()).min();
        ready(sources, until).unwrap_or_default()
    }

    /// Handles a source that is ready.
    fn come(&mut self, source: Source) -> Result<(), ChannelError> {
        match source {
            Source::Maker => {
                self.to.flush()?;
                // Reads one packet; the next poll shows whether there is another one.
                if let Some((messages, mut descriptors)) = receive_with(&self.from)? {
                    for message in messages {
                        self.take(message, &mut descriptors)?;
                    }
                }
            }
            Source::Answers => {
                for (service, said) in self.answers.take() {
                    self.tell(&ToMaker::Said(service, said));
                }
            }
            Source::Port(bridge) => {
                self.count();
                self.frames(&bridge);
            }
            Source::Dns(source) => {
                self.count();
                let mut queries = Vec::new();
                self.dns.serve(source, &self.names, &mut queries);
                for query in queries {
                    self.queried(&query);
                }
            }
        }
        self.to.flush()
    }

    /// Does the work that is due.
    fn pass(&mut self) -> Result<(), ChannelError> {
        let now = Instant::now();
        if self.dns.deadline().is_some_and(|at| at <= now) {
            self.dns.expire(&self.names);
        }
        if self.count_at.is_some_and(|at| at <= now) {
            self.count_at = None;
            self.tell_counts();
            self.to.flush()?;
        }
        Ok(())
    }

    /// Sends the maker a message that may be lost if the maker does not keep up.
    fn tell(&mut self, message: &ToMaker) -> bool {
        self.to.push(message, None).is_ok()
    }

    /// Schedules the counters for the maker.
    fn count(&mut self) {
        self.count_at.get_or_insert_with(|| Instant::now() + COUNT);
    }

    fn tell_counts(&mut self) {
        let queries = self.dns.counts.since(&self.told);
        if queries != QueryCounts::default() && self.tell(&ToMaker::Queries(queries)) {
            self.told = self.dns.counts;
        }
        let ids: Vec<ServiceId> = self.entries.keys().copied().collect();
        for id in ids {
            self.tell_counts_of(id);
        }
    }

    fn tell_counts_of(&mut self, id: ServiceId) {
        let Some(entry) = self.entries.get_mut(&id) else {
            return;
        };
        if let Some((from, to)) = entry.replayed.take() {
            let _ = self.to.push(&ToMaker::Replayed(id, from, to), None);
        }
        let (queries, frames) = (entry.queries, entry.held.counts);
        let (told_queries, told_frames) = entry.told;
        if (queries, frames) == entry.told {
            return;
        }
        let more = FrameCounts {
            held: frames.held - told_frames.held,
            replayed: frames.replayed - told_frames.replayed,
            dropped: frames.dropped - told_frames.dropped,
        };
        let counted = ToMaker::Counted(id, queries - told_queries, more);
        if self.to.push(&counted, None).is_ok() {
            entry.told = (queries, frames);
        }
    }

    /// Handles a query for the address of a service.
    fn queried(&mut self, query: &dns::Query) {
        let Some(entry) = self.entries.get_mut(&query.service) else {
            return;
        };
        entry.queries += 1;
        if matches!(entry.stance, Stance::Sleeps | Stance::Leaves) {
            let wake = Wake {
                service: query.service,
                cause: WakeCause::Dns,
                from: query.from,
                at: self.clock.moment(query.at),
                answered: Some(self.clock.moment(query.answered)),
                ticket: None,
            };
            self.tell(&ToMaker::Wake(wake));
        }
    }

    /// Handles a message of the maker.
    fn take(
        &mut self,
        message: ToFront,
        descriptors: &mut VecDeque<OwnedFd>,
    ) -> Result<(), ChannelError> {
        match message {
            ToFront::Table => {
                let file = descriptors.pop_front().ok_or(ChannelError::Malformed)?;
                self.adopt(start::read_table(file)?)?;
            }
            ToFront::Port(bridge) => {
                let port = descriptors.pop_front().ok_or(ChannelError::Malformed)?;
                self.ports.insert(bridge, Wire::from(port));
            }
            ToFront::PortGone(bridge) => drop(self.ports.remove(&bridge)),
            ToFront::Is(id, stance) => self.stand(id, stance),
            ToFront::Decided(ticket, is_woken) => self.decided(ticket, is_woken),
            ToFront::Drop(id) => {
                if let Some(entry) = self.entries.get_mut(&id) {
                    entry.held.drop_all();
                    self.count();
                }
            }
            ToFront::Ask(id) => self.ask(id),
            // These messages come only at the start.
            ToFront::Udp | ToFront::Listener | ToFront::Page | ToFront::Status => {
                return Err(ChannelError::Malformed);
            }
        }
        Ok(())
    }

    /// Changes to another table. A service that stays keeps its held frames.
    fn adopt(&mut self, table: FrontTable) -> Result<(), ChannelError> {
        self.bounds = Bounds {
            frames: table.held_frames,
            bytes: table.held_bytes,
        };
        self.names = Names::of(table.pack, table.hosts);
        let elsewhere = Elsewhere {
            resolver: table.forward,
            clients: &table.forward_for,
        };
        self.dns.configure(table.nsid.as_deref(), elsewhere)?;
        self.macs.clear();
        self.addresses.clear();
        let mut entries = BTreeMap::new();
        for place in table.services {
            let id = place.service;
            if place.is_held_here {
                self.macs.insert((place.bridge.clone(), place.mac), id);
                for &address in &place.addresses {
                    self.addresses.insert((place.bridge.clone(), address), id);
                }
            }
            let entry = match self.entries.remove(&id) {
                Some(entry) => Entry { place, ..entry },
                None => Entry::new(place),
            };
            entries.insert(id, entry);
        }
        self.entries = entries;
        Ok(())
    }

    fn ask(&mut self, id: ServiceId) {
        let entry = self.entries.get(&id);
        let asked = entry.and_then(|entry| {
            Some(ConnectionsQuestion {
                service: id,
                address: *entry.place.addresses.first()?,
                guest: Arc::downgrade(entry.guest.as_ref()?),
            })
        });
        match asked {
            // The thread lives as long as the front.
            Some(question) => drop(self.questions.send(question)),
            None => drop(self.tell(&ToMaker::Said(id, None))),
        }
    }
}

impl Entry {
    fn new(place: ServiceAddresses) -> Self {
        Self {
            place,
            stance: Stance::default(),
            held: HeldFrames::default(),
            queries: 0,
            told: Default::default(),
            replayed: None,
            guest: None,
            has_told: false,
            ticket: None,
        }
    }
}
