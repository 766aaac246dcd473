//! Carries out actions, and receives the results of other threads.

use std::time::Instant;

use super::super::birth::Birth;
use super::super::cause::WakeCause;
use super::super::channel::{GuestReport, ToFront};
use super::super::config::Network;
use super::super::fleet::{FleetAction, FleetEvent, LogNews, ServiceId};
use super::super::log::{Level, line};
use super::super::maker::{MadeGuest, MakerOrder, MakerReport};
use super::super::status::{CommandResult, ServiceCommand};
use super::super::wire::Witness;
use super::Daemon;
use super::guests::RunningGuest;
use mayfly_links::Link;
use mayfly_switch::control::SwitchOrder;

impl Daemon {
    /// Carries out all actions, and the ones that follow from them.
    pub(super) fn carry_out(&mut self) {
        if self.actions.is_empty() {
            return;
        }
        while !self.actions.is_empty() {
            self.publish();
            for action in std::mem::take(&mut self.actions) {
                self.act(action);
            }
        }
        self.publish();
        // Done last, because nothing waits for it.
        self.make_room();
    }

    /// Sets the memory for guests made ahead: all that the guests of services do not need.
    pub(super) fn make_room(&mut self) {
        let room = self.config.daemon.limits.memory;
        let room = room.saturating_sub(self.fleet.used().1);
        if std::mem::replace(&mut self.room, room) != room {
            self.order(MakerOrder::Room(room));
        }
    }

    fn order(&self, order: MakerOrder) {
        if let Some(orders) = &self.orders {
            // The thread lives as long as the daemon.
            let _ = orders.send(order);
        }
    }

    fn act(&mut self, action: FleetAction) {
        match action {
            FleetAction::Make(id) => {
                if let Some(entry) = self.entries.get(&id) {
                    let service = entry.service.clone();
                    self.order(MakerOrder::Make(id, service, self.config.daemon.guard));
                    // On one CPU the thread runs now: the rest of the work here can wait for it.
                    std::thread::yield_now();
                }
            }
            FleetAction::Remove(id, domid) => {
                // From here on nothing reaches the guest any more: new packets are for the next one.
                self.shut(id);
                if let Some(entry) = self.entries.get_mut(&id) {
                    entry.guest = None;
                }
                self.order(MakerOrder::Remove(id, domid));
            }
            FleetAction::Shut(id) => self.shut(id),
            FleetAction::Open(id) => {
                if let Err(why) = self.reopen(id) {
                    self.step(Instant::now(), FleetEvent::Ended(id, true, why));
                }
            }
            FleetAction::Suspend(id, domid) => self.suspend(id, domid),
            FleetAction::Resume(id, domid) => self.resume(id, domid),
            FleetAction::Ask(id) => {
                self.publish_switched();
                self.ask(id);
            }
            FleetAction::Drop(id) => {
                self.way.say(&ToFront::Drop(id), None);
                self.tell_of(id, SwitchOrder::Drop);
            }
            FleetAction::Tell(id, tell) => self.log(id, tell),
            FleetAction::Gone(id) => self.forget(id),
        }
    }

    /// Takes the packets of a service, and pauses its guest. Flooded frames are stopped as well, because they would wait
    /// in its ring for long. The switch stops them by itself.
    fn suspend(&mut self, id: ServiceId, domid: u16) {
        // Postponed work of a resume may still be left.
        self.catch_up();
        self.shut(id);
        let flood = match self.vif(id, domid) {
            Some(vif) => self.links.flood(&vif, false),
            None => Ok(()),
        };
        let paused = flood
            .map_err(|error| error.to_string())
            .and_then(|()| self.xen.pause(domid).map_err(|error| error.to_string()));
        match paused {
            Ok(()) => self.tell_of(id, SwitchOrder::Suspend),
            Err(why) => self.step(Instant::now(), FleetEvent::Ended(id, true, why)),
        }
    }

    /// Unpauses a guest. The held packets go to it, and later ones reach it through the bridge.
    pub(super) fn resume(&mut self, id: ServiceId, domid: u16) {
        if self.is_at_switch(id) {
            return self.resume_on_switch(id, domid);
        }
        let now = Instant::now();
        let is_on_switch = self.vif(id, domid).is_none();
        // The switch tells of what the guest sends.
        let witness = match is_on_switch {
            true => None,
            false => self.witness.take().or_else(|| Witness::new().ok()),
        };
        if let Some(guest) = self.guest(id) {
            guest.goes_on(now, witness);
        }
        let redirected = self.redirect(id);
        if is_on_switch {
            // On one CPU the switch runs now, so that the held frames are in the guest's ring when it goes on.
            std::thread::yield_now();
        }
        let resumed =
            redirected.and_then(|()| self.xen.unpause(domid).map_err(|error| error.to_string()));
        match resumed {
            Ok(()) => self.takes(id),
            Err(why) => return self.step(now, FleetEvent::Ended(id, true, why)),
        }
        if let Some(birth) = self.birth(id) {
            birth.span("resume", now, Instant::now());
        }
        if !is_on_switch {
            self.later(move |daemon| {
                daemon.flood(id, domid);
                daemon.witness = Witness::new().ok();
            });
        }
    }

    /// Unpauses a guest to which the switch gives frames already. The switch opens it, and the front is told, when the
    /// client has its answer.
    fn resume_on_switch(&mut self, id: ServiceId, domid: u16) {
        let now = Instant::now();
        if let Some(guest) = self.guest(id) {
            guest.goes_on(now, None);
        }
        if let Err(error) = self.xen.unpause(domid) {
            return self.step(now, FleetEvent::Ended(id, true, error.to_string()));
        }
        // On one CPU the switch runs now, and takes the guest's answer.
        std::thread::yield_now();
        if let Some(birth) = self.birth(id) {
            birth.span("resume", now, Instant::now());
        }
        self.later(move |daemon| daemon.opens(id));
    }

    /// Lets the switch give a guest that goes on all frames, unless it is suspended again by now.
    fn opens(&mut self, id: ServiceId) {
        if self.fleet.takes(id) {
            self.tell_of(id, SwitchOrder::Open);
        }
    }

    /// Whether a service's guest is on the switch that the service is declared to.
    fn is_at_switch(&self, id: ServiceId) -> bool {
        let entry = self.entries.get(&id).filter(|entry| entry.is_on_switch());
        let guest = entry.and_then(|entry| entry.guest.as_ref());
        self.switched.notices.is_some()
            && guest.is_some_and(|guest| guest.network == Network::Switch)
    }

    /// The interface of this guest, if it has one of its own: one on the switch shares the switch's port with others.
    fn vif(&mut self, id: ServiceId, domid: u16) -> Option<Link> {
        let guest = self.guest(id)?;
        let is_own = guest.domid == domid && guest.network == Network::Netback;
        is_own.then(|| guest.vif.clone())
    }

    /// Lets flooded frames reach a guest again, which they did not while it was paused.
    fn flood(&mut self, id: ServiceId, domid: u16) {
        if let Some(vif) = self.vif(id, domid)
            && let Err(error) = self.links.flood(&vif, true)
        {
            self.step(
                Instant::now(),
                FleetEvent::Ended(id, true, error.to_string()),
            );
        }
    }

    /// Gives the held packets to the guest. Later ones reach it through the bridge.
    fn reopen(&mut self, id: ServiceId) -> Result<(), String> {
        self.redirect(id)?;
        self.takes(id);
        Ok(())
    }

    /// Makes the bridge send a guest's frames to it.
    fn redirect(&mut self, id: ServiceId) -> Result<(), String> {
        let entry = self.entries.get_mut(&id).ok_or("it is not a service")?;
        let guest = entry.guest.as_mut().ok_or("its guest is not known")?;
        if guest.network == Network::Switch {
            if entry.service.network == Network::Switch && self.switched.notices.is_some() {
                // The bridge leads to the switch in any case.
                self.tell_of(id, SwitchOrder::Open);
                return Ok(());
            }
            // A restarted switch has a new port of the same name.
            let port = self.links.find(&guest.vif.name);
            guest.vif = port.map_err(|error| error.to_string())?;
        }
        let mac = entry.service.mac;
        let directed = self.links.direct(&guest.vif, mac);
        directed.map_err(|error| error.to_string())?;
        self.tell_of(id, SwitchOrder::Open);
        Ok(())
    }

    pub(super) fn guest(&mut self, id: ServiceId) -> Option<&mut RunningGuest> {
        self.entries.get_mut(&id)?.guest.as_mut()
    }

    pub(super) fn ask(&mut self, id: ServiceId) {
        let Some(guest) = self.guest(id) else {
            return;
        };
        // A second question might arrive after the guest is gone, and wake the service.
        if std::mem::replace(&mut guest.is_asked, true) {
            return;
        }
        self.way.say(&ToFront::Ask(id), None);
    }

    pub(super) fn asked(&mut self, id: ServiceId, said: Option<GuestReport>) {
        if let Some(entry) = self.entries.get_mut(&id)
            && let Some(guest) = entry.guest.as_mut()
        {
            guest.answered();
            if let Some(said) = said {
                // Our own questions are among the requests.
                entry.requests = Some(said.requests.saturating_sub(guest.asked));
                guest.asked += 1;
            }
        }
        let open = said.map(|said| said.connections);
        self.step(Instant::now(), FleetEvent::Connections(id, open));
    }

    /// Carries out a command of the administrator.
    pub(super) fn request(&mut self, request: &ServiceCommand) -> CommandResult {
        let ServiceCommand { service, command } = request;
        let id = self.ids.get(service).copied();
        let id = id.ok_or_else(|| format!("there is no service {service:?}"))?;
        let now = Instant::now();
        let done = self.fleet.command(now, id, *command, &mut self.actions);
        done.map_err(|why| format!("{service}: {why}"))?;
        if self.fleet.holds(id) {
            *self.wakes.entry(WakeCause::Command).or_default() += 1;
            if let Some(entry) = self.entries.get_mut(&id) {
                entry.birth = Some(Birth::new(WakeCause::Command, now));
            }
        }
        line(Level::Info, "told")
            .with("service", service)
            .with("to", command.name())
            .write();
        Ok(())
    }

    fn log(&mut self, id: ServiceId, tell: LogNews) {
        let Some(entry) = self.entries.get(&id) else {
            return;
        };
        let name = entry.service.name.clone();
        let domid = entry.guest.as_ref().map(|guest| guest.domid);
        let took = entry.birth.as_ref().map(|birth| birth.woken().elapsed());
        let of = move |level, what| line(level, what).with("service", name);
        self.note(move || match tell {
            LogNews::Queued => of(Level::Warning, "waits for room"),
            LogNews::Up => of(Level::Info, "up")
                .with("domid", domid.unwrap_or_default())
                .with("ms", took.unwrap_or_default().as_millis()),
            LogNews::Down(why) => of(Level::Info, "goes").with("why", why),
            LogNews::Asleep => of(Level::Info, "asleep"),
            LogNews::Suspended => of(Level::Info, "suspended"),
            LogNews::Resumed => of(Level::Info, "resumed"),
            LogNews::Failed(why, pause) => of(Level::Error, "failed")
                .with("why", why)
                .with("next_ms", pause.as_millis()),
        });
    }

    pub(super) fn told(&mut self, told: MakerReport) {
        let now = Instant::now();
        match told {
            MakerReport::Made(id, made) => self.made(now, id, made),
            MakerReport::Runs(id, timeline) => {
                if let Some(birth) = self.birth(id) {
                    birth.runs(&timeline);
                }
            }
            MakerReport::NotMade(id, why) => {
                // The guest may have been about to run.
                if let Some(entry) = self.entries.get_mut(&id)
                    && entry.guest.take().is_some()
                {
                    self.shut(id);
                }
                self.step(now, FleetEvent::NotMade(id, why));
            }
            MakerReport::Removed(id, trouble) => self.step(now, FleetEvent::Removed(id, trouble)),
            MakerReport::Found(id, found) => self.found(now, id, &found),
            MakerReport::Searched => self.searched(now),
            MakerReport::Waiting(waiting) => self.pool = waiting,
            MakerReport::Trouble(what) => {
                line(Level::Warning, "trouble").with("what", what).write()
            }
        }
    }

    /// Takes a guest whose network is connected. The bridge leads to it, and the front knows that.
    fn made(&mut self, now: Instant, id: ServiceId, made: MadeGuest) {
        let domid = made.domid;
        let mut is_heard = false;
        if let Some(entry) = self.entries.get_mut(&id) {
            if let Some(birth) = &mut entry.birth {
                birth.made(&made);
            }
            let (network, front) = (made.network, made.front);
            entry.guest = Some(RunningGuest::new(made, now));
            entry.requests = None;
            is_heard = entry.heard.take() == Some(domid);
            // The front gets no frames for a guest on the switch, so it is told of the guest later.
            if network == Network::Netback {
                self.takes_since(id, front);
            }
        }
        self.step(now, FleetEvent::Made(id, domid));
        if is_heard {
            self.step(now, FleetEvent::Heard(id));
        }
    }

    /// Makes the bridge send a service's frames to our port, or the switch hold them.
    pub(super) fn shut(&mut self, id: ServiceId) {
        let Some(entry) = self.entries.get(&id) else {
            return;
        };
        if entry.is_on_switch() {
            let (bridge, mac) = (entry.service.bridge.clone(), entry.service.mac);
            let guest = entry.guest.as_ref();
            if guest.is_some_and(|guest| guest.network == Network::Netback) {
                self.lead_to_switch(&bridge, mac);
            }
            return self.tell_of(id, SwitchOrder::Hold);
        }
        let Some(port) = self.ports.get(&entry.service.bridge) else {
            return;
        };
        if let Err(error) = self.links.direct(port.link(), entry.service.mac) {
            line(Level::Error, "not watched")
                .with("service", &entry.service.name)
                .with("why", error)
                .write();
        }
    }

    fn forget(&mut self, id: ServiceId) {
        self.tell_of(id, SwitchOrder::Forget);
        if let Some(entry) = self.entries.remove(&id)
            && let Some(port) = self.ports.get(&entry.service.bridge)
        {
            // Another service may have this MAC address by now.
            let key = (entry.service.bridge.clone(), entry.service.mac);
            if !self.macs.contains_key(&key) {
                let _ = self.links.undirect(port.link(), key.1);
            }
        }
        self.ids.retain(|_, known| *known != id);
        self.forget_stance(id);
    }
}
