//! The switch, with guests that write into their rings what no front end would, and some that are sound.

mod forwarding;
mod hostile;
mod moves;
mod peers;
mod prepared;
mod shares;
mod sleepers;

use crate::fake::{self, BRIDGE, HOST, Machines, Tap, guest};
use crate::switch::{Notice, Rest};

/// dom0.
struct Dom0 {
    machines: Machines,
    tap: Tap,
    switch: super::Switch<Machines, Tap>,
    now: u64,
}

impl Dom0 {
    fn new() -> Self {
        let (machines, tap) = (Machines::default(), Tap::default());
        let mut switch = super::Switch::new(machines.clone());
        switch.add_bridge(BRIDGE, HOST, 1500, tap.clone());
        Self {
            machines,
            tap,
            switch,
            now: 1,
        }
    }

    /// A guest that is attached, all of whose buffers from 32 on are posted.
    fn add(&mut self, domain: u16) -> std::rc::Rc<std::cell::RefCell<fake::Memory>> {
        self.add_as(guest(domain))
    }

    fn add_as(&mut self, guest: crate::Guest) -> std::rc::Rc<std::cell::RefCell<fake::Memory>> {
        let memory = self.add_unbound(guest);
        self.bind();
        memory
    }

    /// The same, before its event channels are bound.
    fn add_unbound(
        &mut self,
        guest: crate::Guest,
    ) -> std::rc::Rc<std::cell::RefCell<fake::Memory>> {
        let domain = guest.rings.domain;
        let memory = self.machines.add(domain);
        for buffer in 32..fake::COUNT {
            memory.borrow_mut().post(buffer);
        }
        memory.borrow().publish();
        self.switch.attach(guest, self.now).unwrap();
        memory
    }

    /// The time passes until event channels are bound.
    fn bind(&mut self) {
        self.now += super::BIND_AFTER;
        self.run(0);
    }

    /// The guest has notified, and the loop runs until there is nothing left to do.
    fn run(&mut self, domain: u16) {
        self.switch.event(domain.into());
        for _ in 0..1000 {
            self.now += 1000;
            self.switch.readable(0);
            let is_busy = self.switch.turn(self.now);
            self.switch.bind(self.now, is_busy);
            if !is_busy && self.switch.rest(self.now) != Rest::Busy {
                return;
            }
        }
        panic!("the switch does not come to rest");
    }

    fn notices(&mut self) -> Vec<Notice> {
        std::iter::from_fn(|| self.switch.notice()).collect()
    }
}
