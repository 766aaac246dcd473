//! The links of the simulated dom0.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::time::Duration;

use mayfly_links::{Bridge, Instruction, Link};

use crate::host::Links;

/// The interface index of domain 0's vif. Others add their domid.
const FIRST: u32 = 100;

/// dom0's links. A vif exists as soon as it is waited for.
#[derive(Clone, Default)]
pub struct FakeLinks(Rc<RefCell<State>>);

#[derive(Default)]
struct State {
    bridges: BTreeMap<String, Bridge>,
    ports: BTreeMap<String, String>,
    quiet: BTreeSet<String>,
    filtered: BTreeSet<u32>,
    refused: BTreeSet<&'static str>,
}

impl FakeLinks {
    /// Adds a bridge.
    pub fn add_bridge(&self, name: &str) {
        let mut state = self.0.borrow_mut();
        let index = u32::try_from(state.bridges.len()).unwrap_or(0) + 1;
        let bridge = Bridge {
            index,
            name: name.to_owned(),
            mac: [0xfe, 0xff, 0xff, 0xff, 0xff, 0xff],
            mtu: 1500,
        };
        state.bridges.insert(name.to_owned(), bridge);
    }

    /// The bridge that a link is a port of.
    #[must_use]
    pub fn bridge_of(&self, link: &str) -> Option<String> {
        self.0.borrow().ports.get(link).cloned()
    }

    /// Whether a port is flooded.
    #[must_use]
    pub fn floods(&self, link: &str) -> bool {
        !self.0.borrow().quiet.contains(link)
    }

    /// Whether a domain's interface has a filter.
    #[must_use]
    pub fn is_filtered(&self, domid: u16) -> bool {
        self.0
            .borrow()
            .filtered
            .contains(&(FIRST + u32::from(domid)))
    }

    /// Makes calls of this name fail, or none if it is empty.
    pub fn refuses(&self, call: &'static str) {
        let mut state = self.0.borrow_mut();
        state.refused.clear();
        state
            .refused
            .extend(Some(call).filter(|call| !call.is_empty()));
    }

    fn refused(&self, call: &'static str) -> Result<(), mayfly_links::Error> {
        if self.0.borrow().refused.contains(call) {
            return Err(mayfly_links::Error::Silent(call));
        }
        Ok(())
    }
}

impl Links for FakeLinks {
    fn find(&mut self, name: &str) -> Result<Link, mayfly_links::Error> {
        self.refused("find")?;
        let domid: Option<u32> = name
            .strip_prefix("vif")
            .and_then(|rest| rest.strip_suffix(".0")?.parse().ok())
            // A switch's port on a bridge.
            .or_else(|| name.strip_prefix("switch")?.parse().ok());
        let domid = domid.ok_or_else(|| mayfly_links::Error::NoSuchLink(name.to_owned()))?;
        Ok(Link {
            index: FIRST + domid,
            name: name.to_owned(),
            mac: Some([0xfe, 0xff, 0xff, 0xff, 0xff, 0xff]),
            kind: None,
            master: None,
            mtu: 1500,
            up: false,
            running: false,
        })
    }

    fn bridge(&mut self, name: &str) -> Result<Bridge, mayfly_links::Error> {
        self.refused("bridge")?;
        let bridge = self.0.borrow().bridges.get(name).cloned();
        bridge.ok_or_else(|| mayfly_links::Error::NoSuchLink(name.to_owned()))
    }

    fn appeared(&mut self, name: &str, bound: Duration) -> Result<Link, mayfly_links::Error> {
        if self.refused("appeared").is_err() {
            let name = name.to_owned();
            return Err(mayfly_links::Error::NotAppeared { name, bound });
        }
        self.find(name)
    }

    fn gone(&mut self, name: &str, _: Duration) -> Result<(), mayfly_links::Error> {
        let mut state = self.0.borrow_mut();
        state.ports.remove(name);
        state.quiet.remove(name);
        Ok(())
    }

    fn attach(
        &mut self,
        link: &mut Link,
        bridge: &Bridge,
        _: Option<u32>,
    ) -> Result<(), mayfly_links::Error> {
        self.refused("attach")?;
        let mut state = self.0.borrow_mut();
        state.ports.insert(link.name.clone(), bridge.name.clone());
        link.up = true;
        Ok(())
    }

    fn flood(&mut self, link: &Link, floods: bool) -> Result<(), mayfly_links::Error> {
        self.refused("flood")?;
        let mut state = self.0.borrow_mut();
        match floods {
            true => state.quiet.remove(&link.name),
            false => state.quiet.insert(link.name.clone()),
        };
        Ok(())
    }

    fn direct(&mut self, _: &Link, _: [u8; 6]) -> Result<(), mayfly_links::Error> {
        self.refused("direct")
    }

    fn pass(&mut self) -> Result<(), mayfly_links::Error> {
        self.refused("pass")
    }

    fn connected(&mut self, _: &str, _: Duration) -> Result<bool, mayfly_links::Error> {
        Ok(self.refused("connected").is_ok())
    }

    fn running(&mut self, _: &str, _: Duration) -> Result<(), mayfly_links::Error> {
        self.refused("running")
    }

    fn filter(&mut self, link: u32, _: &[Instruction]) -> Result<(), mayfly_links::Error> {
        self.refused("filter")?;
        self.0.borrow_mut().filtered.insert(link);
        Ok(())
    }
}
