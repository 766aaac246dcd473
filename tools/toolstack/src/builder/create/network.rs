//! Connects the network of a guest through netback.

use std::time::{Duration, Instant};

use mayfly_links::{Bridge, Link, vif_name};
use mayfly_switch::port_name;
use mayfly_xenstore::Request;

use super::super::config::GuestConfig;
use super::super::toolstack::Toolstack;
use super::super::{ToolstackError, keys};
use super::CreateAs;
use crate::paths;

/// The longest wait for the kernel's notification that netback is connected. After it netback's state in xenstore is
/// read.
const SOON: Duration = Duration::from_millis(200);

impl Toolstack {
    /// Makes the interface a port of its bridge as soon as it exists. The port of a shell is not flooded: it gets no
    /// broadcast, multicast or unknown unicast frames yet.
    pub(super) fn port(
        &mut self,
        (config, bridge): (&GuestConfig, Option<&Bridge>),
        domid: u16,
        then: CreateAs,
    ) -> Result<Link, ToolstackError> {
        let mut link = match self.links.appeared(&vif_name(domid, 0), self.bound) {
            Err(mayfly_links::Error::NotAppeared { .. }) if !self.has_kernel()? => {
                return Err(ToolstackError::KernelLost);
            }
            link => link?,
        };
        if let Some(bridge) = bridge {
            let mtu = config.vif.as_ref().and_then(|vif| vif.mtu);
            self.links.attach(&mut link, bridge, mtu)?;
            if then == CreateAs::Shell {
                self.links.flood(&link, false)?;
            }
            // Once the switch has served a guest with this MAC address, the bridge sends its frames to the switch.
            let vif = config.vif.as_ref();
            if let Some(vif) = vif.filter(|_| self.has_switch_port(bridge)) {
                self.links.direct(&link, vif.mac)?;
            }
        }
        Ok(link)
    }

    fn has_switch_port(&mut self, bridge: &Bridge) -> bool {
        self.links.find(&port_name(bridge.index)).is_ok()
    }

    /// Waits until frames pass in both directions. netback reports later that it is connected, after some ten requests
    /// to xenstored that no frame waits for.
    pub(super) fn on_the_network(&mut self, domid: u16) -> Result<(), ToolstackError> {
        let vif = vif_name(domid, 0);
        if !matches!(self.links.connected(&vif, SOON), Ok(true)) {
            self.store.ask(keys::plug(domid).request())?;
            self.connected(domid)?;
            self.links.running(&vif, self.bound)?;
        }
        Ok(())
    }

    /// Waits until the back end is connected.
    pub(in super::super) fn connected(&mut self, domid: u16) -> Result<(), ToolstackError> {
        self.connected_at(&paths::state(domid))
    }

    /// Waits until the back end with this state is connected.
    pub(in super::super) fn connected_at(&mut self, path: &str) -> Result<(), ToolstackError> {
        const TOKEN: &str = "hatch";
        let end = Instant::now() + self.bound;
        let watch = self.store.send(Request::watch(path, TOKEN))?;
        let mut read = self.store.send(Request::read(path))?;
        self.store.answer(watch)?;
        let result = loop {
            match self.store.answer(read)?.as_slice() {
                b"4" => break Ok(()),
                b"5" | b"6" => break Err(ToolstackError::Backend("closed instead of connecting")),
                _ => {}
            }
            let left = end.saturating_duration_since(Instant::now());
            if self.store.event(left)?.is_none() {
                break Err(ToolstackError::Backend("has not connected in time"));
            }
            read = self.store.send(Request::read(path))?;
        };
        // It is sent with the next request.
        let unwatched = self.store.send(Request::unwatch(path, TOKEN))?;
        self.store.forget(unwatched);
        // Later events of this watch are ignored.
        while self.store.take_event().is_some() {}
        result
    }
}
