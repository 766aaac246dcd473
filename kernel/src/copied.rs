//! The addresses of a copy. A toolstack that makes several guests out of one saved guest gives each its own.

use mayfly_drivers::Hypervisor;
use mayfly_drivers::xenstore::{ReqId, StoreEvent, Xenstore};
use mayfly_handoff::ADDRESSES;

use crate::cmdline::{self, GuestConfig};
use crate::line::Line;

/// The question for the addresses. It is asked when the guest goes on in a new domain, before the front end asks for
/// the network: xenstored answers in order, so no frame is sent from an old address.
#[derive(Debug, Default)]
pub struct CopiedAddresses {
    asked: Option<ReqId>,
}

impl CopiedAddresses {
    /// Asks for the addresses.
    pub fn ask<H: Hypervisor>(&mut self, store: &mut Xenstore<'_, H>) {
        self.asked = store.read(&[ADDRESSES.as_bytes()]).ok();
    }

    /// Handles a xenstore event. Returns a configuration of which only the addresses and gateways count, or a line that
    /// says what is wrong with them; `None` if nothing is to be replaced.
    pub fn xenstore_event(&mut self, event: &StoreEvent<'_>) -> Option<Result<GuestConfig, Line>> {
        let StoreEvent::Answer(id, Ok(words)) = *event else {
            return None;
        };
        self.asked.take_if(|asked| *asked == id)?;
        match cmdline::parse(words, &mut |_| {}) {
            Ok(config) if config.addresses().next().is_none() => None,
            Ok(config) => Some(Ok(config)),
            Err(error) => Some(Err(Line::new(format_args!("{ADDRESSES}: {error}")))),
        }
    }
}
