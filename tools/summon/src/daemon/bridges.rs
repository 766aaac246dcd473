//! Recovery of bridges that disappear and come back, and of lost ports: sleeping services are reachable again as soon
//! as their bridge has a port.

use std::collections::BTreeSet;

use super::super::channel::ToFront;
use super::super::log::{Level, line};
use super::super::wire::BridgePort;
use super::Daemon;
use mayfly_links::LinkChange;

impl Daemon {
    /// Reads the kernel's events about links.
    pub(super) fn links_have_changed(&mut self) {
        let mut is_ours = false;
        loop {
            match self.link_events.change() {
                Ok(Some(change)) => is_ours |= self.concerns(&change),
                Ok(None) => break,
                Err(error) => {
                    line(Level::Error, "links").with("why", error).write();
                    break;
                }
            }
        }
        if is_ours {
            self.mend_ports();
        }
    }

    /// Whether a change is about one of our bridges or ports. Most are about guests' vifs.
    fn concerns(&self, change: &LinkChange) -> bool {
        match change {
            LinkChange::Lost => true,
            LinkChange::Gone { index, .. } => self.ports.values().any(|port| {
                let link = port.link();
                link.index == *index || link.master == Some(*index)
            }),
            LinkChange::Is(link) | LinkChange::Featured(link) => {
                let is_new = |port: &BridgePort| port.link().master != Some(link.index);
                let is_bridge = match self.ports.get(&link.name) {
                    Some(port) => is_new(port),
                    None => self.needs_port(&link.name),
                };
                let has_left = |port: &BridgePort| {
                    port.link().index == link.index && port.link().master != link.master
                };
                is_bridge || self.ports.values().any(has_left)
            }
        }
    }

    /// Whether a bridge has services whose frames come to a port of ours. For those on the switch, the switch holds
    /// frames and answers address requests; a port of ours would only have the front read what is for all, which delays
    /// the answer where dom0 has one CPU.
    pub(super) fn needs_port(&self, bridge: &str) -> bool {
        let mut entries = self.entries.values();
        entries.any(|entry| entry.service.bridge == bridge && !entry.is_on_switch())
    }

    /// Makes sure that each existing bridge that needs one has a working port.
    pub(super) fn mend_ports(&mut self) {
        let entries = self.entries.values();
        let entries = entries.filter(|entry| !entry.is_on_switch());
        let bridges: BTreeSet<String> = entries.map(|entry| entry.service.bridge.clone()).collect();
        for bridge in bridges {
            if self.is_right(&bridge) {
                continue;
            }
            let say = |level, what| line(level, what).with("bridge", &bridge);
            // The old port goes first, because the new one has the same name.
            self.lose_port(&bridge);
            if self.links.bridge(&bridge).is_err() {
                continue;
            }
            match self.links.port(&bridge) {
                Ok(port) => {
                    self.have_port(bridge.clone(), port);
                    self.shut_all(&bridge);
                    say(Level::Info, "the bridge has a port again").write();
                }
                Err(error) => say(Level::Error, "no port").with("why", error).write(),
            }
        }
    }

    /// Keeps a port, and gives its frames to the front.
    pub(super) fn have_port(&mut self, bridge: String, port: BridgePort) {
        // Without a descriptor for the front, the port counts as lost and is made again when links change.
        if let Ok(frames) = port.frames() {
            let message = ToFront::Port(bridge.clone());
            self.way.say(&message, Some(frames));
            self.ports.insert(bridge, port);
        }
    }

    /// Drops the port of a bridge, if there is one.
    pub(super) fn lose_port(&mut self, bridge: &str) {
        if self.ports.remove(bridge).is_some() {
            self.way.say_now(&ToFront::PortGone(bridge.to_owned()));
            if self.needs_port(bridge) {
                line(Level::Error, "the port is lost; services there sleep on")
                    .with("bridge", bridge)
                    .write();
            }
        }
    }

    /// Whether our port exists and is on the bridge.
    fn is_right(&mut self, bridge: &str) -> bool {
        let Some(port) = self.ports.get(bridge) else {
            return false;
        };
        let there = self.links.bridge(bridge).map(|bridge| bridge.index);
        let found = self.links.find(&port.link().name);
        match (there, found) {
            (Ok(there), Ok(found)) => {
                found.index == port.link().index && found.master == Some(there)
            }
            _ => false,
        }
    }

    /// Makes a bridge send the frames for its sleeping services to our port.
    fn shut_all(&mut self, bridge: &str) {
        let ids: Vec<_> = self
            .entries
            .iter()
            .filter(|(_, entry)| entry.service.bridge == bridge)
            .map(|(&id, _)| id)
            .collect();
        for id in ids {
            if !self.fleet.takes(id) {
                self.shut(id);
            }
        }
    }
}
