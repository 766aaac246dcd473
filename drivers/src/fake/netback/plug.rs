//! The life of the fake back end: plugged, unplugged, recreated, unloaded, loaded.

use std::string::{String, ToString};

use super::{FRONTEND, FakeNetback, set_frontend};
use crate::abi::XenbusState;
use crate::fake::machine::Machine;
use crate::fake::store::FakeStore;

impl FakeNetback {
    /// The toolstack adds the interface, and netback gets ready.
    pub fn plug(&mut self, store: &mut FakeStore) {
        if self.state != XenbusState::Unknown {
            return;
        }
        self.make_directory(store);
        set_frontend(store, "backend-id", "0");
        set_frontend(store, "mac", "00:16:3e:00:00:01");
        set_frontend(store, "state", "1");
        set_frontend(store, "backend", &self.path);
        self.switch(store, XenbusState::InitWait);
    }

    fn make_directory(&self, store: &mut FakeStore) {
        self.set(store, "frontend-id", "1");
        self.set(store, "online", "1");
        self.set(store, "mtu", "1500");
        for key in [
            "feature-sg",
            "feature-gso-tcpv4",
            "feature-ipv6-csum-offload",
        ] {
            self.set(store, key, "1");
        }
    }

    pub(super) fn set(&self, store: &mut FakeStore, key: &str, value: &str) {
        let path: String = [&self.path, "/", key].concat();
        store.set(path.as_bytes(), value.as_bytes());
    }

    /// The toolstack replaces the back end by another one, at `path`. It writes the front end's keys afterwards.
    pub fn remake(&mut self, machine: &mut Machine, store: &mut FakeStore, path: &str) {
        self.disconnect(machine);
        store.remove(self.path.as_bytes());
        self.path = path.to_string();
        self.make_directory(store);
        self.switch(store, XenbusState::InitWait);
    }

    /// The toolstack removes the interface by force.
    pub fn unplug(&mut self, machine: &mut Machine, store: &mut FakeStore) {
        self.disconnect(machine);
        self.state = XenbusState::Unknown;
        store.remove(self.path.as_bytes());
        store.remove(FRONTEND.as_bytes());
    }

    /// The toolstack asks for the interface to be closed (`xl network-detach`).
    pub fn begin_close(&mut self, store: &mut FakeStore) {
        if self.state == XenbusState::Unknown {
            return;
        }
        self.set(store, "online", "0");
        self.switch(store, XenbusState::Closing);
    }

    /// The netback module is unloaded: the back end closes without waiting for the front end.
    pub fn unload(&mut self, machine: &mut Machine, store: &mut FakeStore) {
        if self.state != XenbusState::Unknown {
            self.disconnect(machine);
            self.switch(store, XenbusState::Closed);
            self.state = XenbusState::Unknown;
        }
    }

    /// The netback module is loaded again.
    pub fn load(&mut self, store: &mut FakeStore) {
        let state: String = [&self.path, "/state"].concat();
        let there = store.get(state.as_bytes()).is_some();
        if there && self.state == XenbusState::Unknown {
            self.switch(store, XenbusState::InitWait);
        }
    }
}
