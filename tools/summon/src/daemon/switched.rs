//! Services whose guests are on `hatch switch`.
//!
//! ```text
//!                        sleeps: held
//!  client ─► bridge ─► switch ─► guest       the bridge leads to the switch, whether there is a guest or not
//!                        │ ▲
//!            is wanted   ▼ │ declared, hold, open, drop
//!                      daemon
//! ```
//!
//! The daemon declares the services to the switch. While a service has no guest, the switch holds the frames for it,
//! answers address requests for it, and sends a notice when a client wants it. When a guest is attached, the switch puts
//! the held frames into the guest's ring before the guest runs. So neither the front nor the bridge takes part in a
//! birth.
//!
//! The switch forgets a declaration when the connection ends. The daemon declares all services to the next switch.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use mayfly_links::Link;
use mayfly_switch::control::{Notices, SentNotice, SwitchOrder, SwitchReply};
use mayfly_switch::switch::{Bounds, Life, Sleeper, WakeFrame};

use super::super::cause::WakeCause;
use super::super::channel::Wake;
use super::super::config::Network;
use super::super::fleet::{FleetEvent, ServiceId, ServiceState};
use super::super::log::{Level, line};
use super::guests::{PATIENCE, step};
use super::{Daemon, ServiceEntry};

/// The daemon's connection to the switch.
pub(super) struct Switched {
    /// The switch's control socket.
    pub(super) socket: PathBuf,
    pub(super) notices: Option<Notices>,
    /// Whether it was logged that no switch runs.
    is_missed: bool,
    /// The switch's port on each bridge.
    ports: BTreeMap<String, Link>,
}

impl Switched {
    pub(super) fn at(socket: PathBuf) -> Self {
        Self {
            socket,
            notices: None,
            is_missed: false,
            ports: BTreeMap::new(),
        }
    }
}

impl ServiceEntry {
    pub(super) fn is_on_switch(&self) -> bool {
        self.service.network == Network::Switch
    }
}

impl Daemon {
    /// Connects to the switch, if it is needed and there is no connection, and declares all services on it.
    pub(super) fn meet_switch(&mut self) {
        if self.switched.notices.is_some() || !self.entries.values().any(ServiceEntry::is_on_switch)
        {
            return;
        }
        match Notices::open(&self.switched.socket, PATIENCE) {
            Ok(notices) => {
                if std::mem::take(&mut self.switched.is_missed) {
                    line(Level::Info, "a switch runs").write();
                }
                self.switched.notices = Some(notices);
                // Another switch has other ports.
                self.switched.ports.clear();
                self.declare_all();
            }
            Err(error) => {
                if !std::mem::replace(&mut self.switched.is_missed, true) {
                    line(
                        Level::Error,
                        "no switch runs; services on it are not reached",
                    )
                    .with("why", error)
                    .write();
                }
            }
        }
    }

    /// Declares all services on the switch, as they are now.
    pub(super) fn declare_all(&mut self) {
        if self.switched.notices.is_none() {
            return;
        }
        let limits = self.config.daemon.limits;
        let entries = self.entries.iter();
        let on_switch = entries.filter(|(_, entry)| entry.is_on_switch());
        let services: Vec<_> = on_switch
            .map(|(&id, entry)| {
                let service = &entry.service;
                let sleeper = Sleeper {
                    moves: false,
                    name: service.name.clone(),
                    bridge: service.bridge.clone(),
                    mac: service.mac,
                    ipv4: service.ipv4.map(|address| address.address()),
                    ipv6: service.ipv6.map(|address| address.address()),
                    bounds: Bounds {
                        frames: limits.held_frames,
                        bytes: limits.held_bytes,
                    },
                };
                let guest = entry.guest.as_ref();
                let is_on_netback = guest.is_some_and(|guest| guest.network == Network::Netback);
                (id, sleeper, is_on_netback)
            })
            .collect();
        for (id, sleeper, is_on_netback) in services {
            let (name, bridge, mac) = (sleeper.name.clone(), sleeper.bridge.clone(), sleeper.mac);
            self.tell_switch(&SwitchOrder::Sleep(Box::new(sleeper)));
            if !is_on_netback {
                self.lead_to_switch(&bridge, mac);
            }
            if self.leaves(id) {
                self.tell_switch(&SwitchOrder::Hold(name));
            } else if self.is_suspended(id) {
                self.tell_switch(&SwitchOrder::Suspend(name));
            }
        }
    }

    fn leaves(&self, id: ServiceId) -> bool {
        let state = self.fleet.unit(id).map(|unit| unit.state);
        matches!(state, Some(ServiceState::Running(running)) if running.leaves())
    }

    fn is_suspended(&self, id: ServiceId) -> bool {
        let state = self.fleet.unit(id).map(|unit| unit.state);
        matches!(state, Some(ServiceState::Suspended(..)))
    }

    /// Makes the bridge send the frames for a MAC address to the switch.
    pub(super) fn lead_to_switch(&mut self, bridge: &str, mac: [u8; 6]) {
        let known = self.switched.ports.get(bridge).cloned();
        let port = known.map_or_else(
            || {
                let index = self.links.bridge(bridge)?.index;
                self.links.find(&mayfly_switch::port_name(index))
            },
            Ok,
        );
        let led = port.and_then(|port| {
            self.links.direct(&port, mac)?;
            self.switched.ports.insert(bridge.to_owned(), port);
            Ok(())
        });
        if let Err(error) = led {
            line(Level::Error, "not led to the switch")
                .with("bridge", bridge)
                .with("why", error)
                .write();
        }
    }

    /// Sends the switch a request about a service, if the service is on the switch.
    pub(super) fn tell_of(&mut self, id: ServiceId, order: impl FnOnce(String) -> SwitchOrder) {
        let entry = self.entries.get(&id).filter(|entry| entry.is_on_switch());
        if let Some(entry) = entry {
            let order = order(entry.service.name.clone());
            self.tell_switch(&order);
        }
    }

    pub(super) fn tell_switch(&mut self, order: &SwitchOrder) {
        if let Some(notices) = &mut self.switched.notices
            && notices.send(order).is_err()
        {
            // The next switch is told everything.
            self.switched.notices = None;
        }
    }

    /// Handles the replies and notices of the switch.
    pub(super) fn hear_switch(&mut self) {
        let heard = self.switched.notices.as_mut();
        let heard = heard.map(Notices::take);
        let replies = match heard {
            Some(Ok(replies)) => replies,
            Some(Err(_)) => {
                self.switched.notices = None;
                return;
            }
            None => return,
        };
        for reply in replies {
            match reply {
                SwitchReply::Notice(SentNotice::Wanted { name, cause, from }) => {
                    if let Some(&id) = self.ids.get(&name) {
                        self.wanted_of(id, cause, from);
                    }
                }
                SwitchReply::Notice(SentNotice::Lives { name, domain, life }) => {
                    if let Some(&id) = self.ids.get(&name) {
                        self.lives(id, domain, &life);
                    }
                }
                SwitchReply::Error(why) => {
                    line(Level::Warning, "the switch").with("why", why).write()
                }
                // The daemon learns of the end of a guest in other ways.
                _ => {}
            }
        }
    }

    /// Handles a notice that a client wants a service which sleeps, or whose guest is about to go.
    fn wanted_of(&mut self, id: ServiceId, cause: WakeFrame, from: IpAddr) {
        let now = Instant::now();
        if self.leaves(id) {
            self.step(now, FleetEvent::Heard(id));
            return;
        }
        let cause = match cause {
            WakeFrame::Arp => WakeCause::Arp,
            WakeFrame::Nd => WakeCause::Nd,
            WakeFrame::Syn => WakeCause::Syn,
            WakeFrame::Udp => WakeCause::Udp,
            // The frame was for a guest that is gone by now.
            WakeFrame::Other => return self.tell_of(id, SwitchOrder::Drop),
        };
        let wake = Wake {
            service: id,
            cause,
            from,
            at: self.clock.moment(now),
            answered: None,
            ticket: None,
        };
        self.wake(&wake, now);
        let state = self.fleet.unit(id).map(|unit| unit.state);
        let is_there = matches!(state, Some(ServiceState::Running(_)));
        if !is_there && !self.fleet.holds(id) && !self.fleet.takes(id) {
            self.tell_of(id, SwitchOrder::Drop);
        }
    }

    /// Handles a notice that a new guest has sent its first frames.
    fn lives(&mut self, id: ServiceId, domain: u16, life: &Life) {
        let now = Instant::now();
        let Some(entry) = self.entries.get_mut(&id) else {
            return;
        };
        let held = u64::try_from(life.held).unwrap_or(u64::MAX);
        entry.frames.held = entry.frames.held.saturating_add(held);
        entry.frames.replayed = entry.frames.replayed.saturating_add(held);
        let at = |ago| now.checked_sub(Duration::from_nanos(ago)).unwrap_or(now);
        if let Some(birth) = &mut entry.birth {
            birth.once("on the switch", at(life.attached));
            for (sign, ago) in &life.signs {
                birth.once(step(*sign), at(*ago));
            }
        }
        match entry.guest.as_ref().map(|guest| guest.domid) {
            Some(known) if known == domain => self.step(now, FleetEvent::Heard(id)),
            // The thread that made the guest reports it a little later.
            _ => entry.heard = Some(domain),
        }
    }
}
