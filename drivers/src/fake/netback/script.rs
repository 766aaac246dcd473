//! Scripted misbehaviour of the fake back end: arbitrary responses, lying indices, pages kept or released.

use super::{FakeNetback, Ring, next_rx, put_rx, put_tx};
use crate::abi::{PAGE_SIZE, netif_rx_response, netif_tx_response, sring};
use crate::fake::machine::Machine;

impl FakeNetback {
    /// Answers the next receive request with an arbitrary response and puts `data` at the start of its page. Returns
    /// whether there was a request.
    pub fn answer_rx(
        &mut self,
        machine: &mut Machine,
        response: impl FnOnce(u16) -> netif_rx_response,
        data: &[u8],
    ) -> bool {
        let Some(connection) = &mut self.connection else {
            return false;
        };
        let Some(request) = next_rx(connection) else {
            return false;
        };
        if let Some(page) = machine.copy_grant(request.gref, true) {
            page.copy_in(0, &data[..data.len().min(PAGE_SIZE)]);
        }
        put_rx(connection, response(request.id));
        self.publish(machine);
        true
    }

    /// Answers a held transmit request with an arbitrary response. Returns whether there was a request.
    pub fn answer_tx(
        &mut self,
        machine: &mut Machine,
        response: impl FnOnce(u16) -> netif_tx_response,
    ) -> bool {
        let Some(connection) = &mut self.connection else {
            return false;
        };
        let Some(id) = connection.tx_pending.pop_front() else {
            return false;
        };
        put_tx(connection, response(id.unwrap_or(0)));
        self.publish(machine);
        true
    }

    /// Answers the requests that [`FakeNetback::hold_tx`] held back.
    pub fn release(&mut self, machine: &mut Machine) {
        self.answer_pending();
        self.publish(machine);
    }

    /// Writes a response index that is wrong by `jump`, and notifies.
    pub fn jump(&mut self, machine: &mut Machine, ring: Ring, jump: u32) {
        if let Some(connection) = &self.connection {
            let (page, index) = match ring {
                Ring::Tx => (&connection.tx, connection.tx_prod),
                Ring::Rx => (&connection.rx, connection.rx_cons),
            };
            page.store_release(sring::RSP_PROD, index.wrapping_add(jump));
            self.notifications += 1;
            machine.notify_guest(connection.tx_port);
        }
    }

    /// Notifies the guest without a response.
    pub fn notify(&mut self, machine: &mut Machine) {
        if let Some(connection) = &self.connection {
            machine.notify_guest(connection.tx_port);
        }
    }

    /// Unmaps grants that [`FakeNetback::keep_mapped`] kept mapped.
    pub fn unmap(&mut self, machine: &mut Machine, grefs: &[u32]) {
        for &gref in grefs {
            machine.unmap_grant(gref);
        }
    }

    /// Unmaps all grants that it kept mapped.
    pub fn let_go(&mut self, machine: &mut Machine) {
        (self.keep_mapped, self.map_all) = (false, false);
        for gref in core::mem::take(&mut self.kept) {
            machine.unmap_grant(gref);
        }
    }

    /// The grant references of the rings, transmit first.
    #[must_use]
    pub fn ring_refs(&self) -> Option<[u32; 2]> {
        self.connection
            .as_ref()
            .map(|connection| [connection.tx_ref, connection.rx_ref])
    }
}
