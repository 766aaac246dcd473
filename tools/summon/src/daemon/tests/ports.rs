//! Bridges in memory.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use mayfly_links::{Bridge, Link};

use super::*;

/// Fake links of dom0: the bridges' tables by MAC address, the settings of flooding, and whether links refuse changes.
#[derive(Clone, Default)]
pub(super) struct FakePorts(
    pub(super) Rc<RefCell<BTreeMap<[u8; 6], String>>>,
    pub(super) Rc<RefCell<Vec<bool>>>,
    pub(super) Rc<Cell<bool>>,
);

impl FakePorts {
    fn refuses(&self) -> Result<(), mayfly_links::Error> {
        match self.2.get() {
            true => Err(mayfly_links::Error::NoSuchLink("vif7.0".to_owned())),
            false => Ok(()),
        }
    }
}

pub(super) fn link(name: &str) -> Link {
    Link {
        index: 1,
        name: name.to_owned(),
        mac: None,
        kind: None,
        master: Some(9),
        mtu: 1500,
        up: true,
        running: true,
    }
}

impl Ports for FakePorts {
    fn find(&mut self, name: &str) -> Result<Link, mayfly_links::Error> {
        Ok(link(name))
    }

    fn bridge(&mut self, name: &str) -> Result<Bridge, mayfly_links::Error> {
        Ok(Bridge {
            index: 9,
            name: name.to_owned(),
            mac: [2; 6],
            mtu: 1500,
        })
    }

    fn port(&mut self, _: &str) -> Result<BridgePort, mayfly_links::Error> {
        let (ours, _) = channel::pair().unwrap();
        Ok(BridgePort::of(ours, link("summon9")))
    }

    fn flood(&mut self, _: &Link, floods: bool) -> Result<(), mayfly_links::Error> {
        self.refuses()?;
        self.1.borrow_mut().push(floods);
        Ok(())
    }

    fn direct(&mut self, link: &Link, mac: [u8; 6]) -> Result<(), mayfly_links::Error> {
        self.refuses()?;
        self.0.borrow_mut().insert(mac, link.name.clone());
        Ok(())
    }

    fn undirect(&mut self, _: &Link, mac: [u8; 6]) -> Result<(), mayfly_links::Error> {
        self.0.borrow_mut().remove(&mac);
        Ok(())
    }
}
