//! The back ends of services whose file names none.
//!
//! They are on the switch where one runs when the daemon first has a service on the bridge, and on netback elsewhere.
//! The choice holds until the daemon ends: a switch that is started later changes nothing, and one that ends is waited
//! for. So no service changes its back end without a word of the administrator.

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::path::Path;
use std::time::{Duration, Instant};

use mayfly_switch::control::{SwitchConnection, SwitchOrder};
use mayfly_switch::port_name;
use mayfly_toolstack::builder::Image;

use super::super::config::{Network, Service, SummonConfig};
use super::super::log::{Level, line};
use super::Daemon;
use super::dom0::Ports;

/// The time for which a switch that has ended is waited for: it may be in the middle of a restart, as the daemon is.
const RESTART: Duration = Duration::from_secs(1);
/// The time between two looks at it.
const PAUSE: Duration = Duration::from_millis(20);

/// The choices so far.
#[derive(Debug, Default)]
pub(super) struct BackEnds {
    /// For each bridge.
    of_bridges: BTreeMap<String, Network>,
}

impl BackEnds {
    fn choose(&mut self, service: &Service, links: &mut dyn Ports, socket: &Path) -> Network {
        let bridge = &service.bridge;
        let known = self.of_bridges.get(bridge).copied();
        let network = known.unwrap_or_else(|| {
            let network = match has_switch(bridge, links, socket) {
                true => Network::Switch,
                false => Network::Netback,
            };
            line(Level::Info, "services that name no back end have this one")
                .with("bridge", bridge)
                .with("network", network.as_str())
                .write();
            self.of_bridges.insert(bridge.clone(), network);
            network
        });
        // An image that is not there yet, and never was known, is taken for one that can.
        let image = Image::open(&service.image);
        if network == Network::Switch && image.is_ok_and(|image| !image.takes_preconnected()) {
            line(Level::Info, "its image takes no connected network")
                .with("service", &service.name)
                .with("network", Network::Netback.as_str())
                .write();
            return Network::Netback;
        }
        network
    }
}

impl Daemon {
    /// Chooses the back ends that the file leaves open.
    pub(super) fn choose_networks(&mut self, config: &mut SummonConfig) {
        let (back_ends, links) = (&mut self.back_ends, &mut *self.links);
        let socket = &self.switched.socket;
        config.choose_networks(|service| back_ends.choose(service, links, socket));
    }
}

/// Whether a switch runs that has a port on this bridge.
fn has_switch(bridge: &str, links: &mut dyn Ports, socket: &Path) -> bool {
    answers(socket)
        && links
            .bridge(bridge)
            .and_then(|bridge| links.find(&port_name(bridge.index)))
            .is_ok()
}

/// Whether a switch answers at this socket, which it does when it has its ports.
fn answers(socket: &Path) -> bool {
    let end = Instant::now() + RESTART;
    loop {
        match SwitchConnection::open(socket, RESTART) {
            Ok(mut switch) => return switch.ask(&SwitchOrder::Frames).is_ok(),
            Err(error) if error.kind() == ErrorKind::ConnectionRefused && Instant::now() < end => {
                std::thread::sleep(PAUSE);
            }
            Err(_) => return false,
        }
    }
}
