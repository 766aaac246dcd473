//! The suspend event channel: a toolstack that notifies it has the guest suspended without a word to xenstore.
//!
//! Source: Xen docs/misc/xenstore-paths.pandoc, `~/device/suspend/event-channel`. The toolstack makes the node, and the
//! guest writes the number of a port into it that domain 0 may bind.

use crate::decimal::Decimal;
use crate::xenstore::{ReqId, StoreEvent, Xenstore};
use crate::{DomId, EventPort, Hypervisor};

const KEY: &[u8] = b"device/suspend/event-channel";
/// The toolstack's domain.
const TOOLSTACK: DomId = DomId(0);

/// The suspend event channel.
#[derive(Debug, Default)]
pub struct SuspendChannel {
    port: Option<EventPort>,
    /// The write of the port.
    asked: Option<ReqId>,
}

impl SuspendChannel {
    /// A channel that is not offered yet.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            port: None,
            asked: None,
        }
    }

    /// Writes the port for the toolstack, and allocates it the first time.
    pub fn offer<H: Hypervisor>(&mut self, xen: &H, store: &mut Xenstore<'_, H>) {
        if self.port.is_none() {
            self.port = xen.evtchn_alloc_unbound(TOOLSTACK).ok();
        }
        if let Some(port) = self.port {
            self.asked = store
                .write(&[KEY], Decimal::new(port.get()).as_bytes())
                .ok();
        }
    }

    /// Handles a xenstore event. Where the toolstack has not made the node, xenstored refuses the write, and the port is
    /// closed: each port that the guest polls costs Xen some thousand instructions.
    pub fn xenstore_event<H: Hypervisor>(&mut self, xen: &H, event: &StoreEvent<'_>) {
        if let StoreEvent::Answer(id, result) = *event
            && self.asked == Some(id)
        {
            self.asked = None;
            if let (Err(_), Some(port)) = (result, self.port) {
                let _ = xen.evtchn_close(port);
                self.port = None;
            }
        }
    }

    /// The port, once the channel is offered.
    #[must_use]
    pub fn port(&self) -> Option<EventPort> {
        self.port
    }

    /// Whether the toolstack has asked the guest to suspend. Clears the event.
    #[must_use]
    pub fn take<H: Hypervisor>(&self, xen: &H) -> bool {
        self.port.is_some_and(|port| xen.evtchn_take(port))
    }

    /// To be called after the guest was resumed in a new domain, which does not have the port.
    pub fn resumed(&mut self) {
        *self = Self::new();
    }
}
