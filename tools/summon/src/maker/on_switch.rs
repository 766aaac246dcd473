//! Guests on `hatch switch`. They are introduced to xenstored and to other tools after they had time for their first
//! answer, when no birth waits.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use mayfly_links::Link;
use mayfly_switch::control::SwitchConnection;
use mayfly_toolstack::builder::{
    CreateAs, GuestConfig, Newborn, Ready, Shell, ToolstackError, WantedOnSwitch,
};

use super::super::config::{Network, Service};
use super::super::fleet::ServiceId;
use super::super::made_of::MadeOf;
use super::{GuestMaker, LOOK, MadeGuest, MakerReport};

/// The time from the start of a guest until the daemon is told of it. Told earlier, the daemon would run before the
/// clients for which the guest's first frames are.
const BEGUN: Duration = Duration::from_millis(1);
/// The time that a guest has for its first answer.
const FIRST_ANSWER: Duration = Duration::from_millis(4);
/// The time after which a guest is introduced even if births wait, so that other tools find it within 50 ms.
const LATEST: Duration = Duration::from_millis(25);

/// The maker's state about the switch.
#[derive(Default)]
pub(super) struct OnSwitch {
    pub(super) connection: Option<SwitchConnection>,
    /// The switch's port, as it was looked up last.
    port: Option<Link>,
    /// Running guests that are not introduced yet, oldest first.
    newborns: VecDeque<Waiting>,
}

struct Waiting {
    id: ServiceId,
    name: String,
    mac: [u8; 6],
    born: Instant,
    of: Option<MadeOf>,
    /// What the daemon is to be told of it.
    made: Option<MadeGuest>,
    newborn: Newborn,
}

impl GuestMaker {
    /// Makes a guest on the switch, and lets it run.
    pub(super) fn bear(
        &mut self,
        id: ServiceId,
        service: &Service,
        (config, is_guarded, began, of): (GuestConfig, bool, Instant, Option<MadeOf>),
    ) -> Result<(), String> {
        let mut shell = self.shell_for(service, &config);
        let is_from_pool = shell.is_some();
        self.make_room(service.memory);
        let text = |cause: &dyn std::fmt::Display| cause.to_string();
        // xenstored is needed only when the guest is introduced: whether it has ended is found then.
        if self.builder.is_none() {
            self.builder().map_err(|error| text(&error))?;
        }
        let what = (&config, is_guarded, began, of);
        let born = match self.switch.connection.is_some() {
            // The switch at the other end of this connection may have ended. A shell that was taken is gone with it.
            true => match self.born(service, what, shell.take()) {
                Err(ToolstackError::Io(_)) => {
                    self.switch.connection = None;
                    self.born(service, what, None)
                }
                born => born,
            },
            false => self.born(service, what, shell.take()),
        };
        if is_from_pool {
            self.count();
        }
        let (newborn, made) = born.map_err(|cause| {
            self.lost(&cause);
            text(&cause)
        })?;
        self.switch.newborns.push_back(Waiting {
            id,
            name: service.name.clone(),
            mac: service.mac,
            born: Instant::now(),
            of,
            made: Some(made),
            newborn,
        });
        Ok(())
    }

    fn born(
        &mut self,
        service: &Service,
        (config, is_guarded, began, of): (&GuestConfig, bool, Instant, Option<MadeOf>),
        shell: Option<Shell>,
    ) -> Result<(Newborn, MadeGuest), ToolstackError> {
        let image = self.images.get(&service.image);
        let site = service.site.as_ref().and_then(|path| self.sites.get(path));
        let (Some(builder), Some(image)) = (&mut self.builder, image) else {
            return Err(std::io::Error::other("its image is not there").into());
        };
        let OnSwitch {
            connection, port, ..
        } = &mut self.switch;
        let connection = match connection {
            Some(connection) => connection,
            None => {
                // A new switch has a new port.
                *port = None;
                let opened = builder.switch();
                let opened = opened.map_err(|_| ToolstackError::Switch("none runs".to_owned()))?;
                connection.insert(opened)
            }
        };
        // The bridge leads to the switch already, as the service was declared to it.
        let mut vif = None;
        let ready: Ready<'_> = &mut |soon| {
            let name = soon.switch.ok_or(ToolstackError::Backend("has no port"))?;
            vif = Some(match port.take().filter(|port| port.name == name) {
                Some(known) => known,
                None => soon.links.find(name)?,
            });
            port.clone_from(&vif);
            Ok(())
        };
        let wanted = WantedOnSwitch {
            config,
            image,
            ramdisk: site,
            is_guarded,
            is_declared: true,
        };
        let is_from_pool = shell.is_some();
        let born = match shell {
            Some(shell) => builder.bear_from(shell, wanted, connection, ready),
            None => builder.bear(wanted, connection, CreateAs::Running, ready),
        };
        let newborn = born.map_err(|error| match error.left.is_empty() {
            true => error.failure.cause,
            false => ToolstackError::Switch(error.to_string()),
        })?;
        let made = MadeGuest {
            domid: newborn.domid(),
            vif: vif.ok_or(ToolstackError::Backend("has no port"))?,
            network: Network::Switch,
            began,
            is_from_pool,
            of,
            // The switch sees what goes to it and comes from it.
            witness: None,
            front: 0,
        };
        Ok((newborn, made))
    }

    /// Tells the daemon of the guests that have had the time to begin; returns when to do so next.
    pub(super) fn announce(&mut self, now: Instant) -> Option<Instant> {
        let mut next = None;
        for waiting in &mut self.switch.newborns {
            let at = waiting.born + BEGUN;
            if at > now && waiting.made.is_some() {
                next = next.or(Some(at));
            } else if let Some(made) = waiting.made.take() {
                self.told.send(MakerReport::Made(waiting.id, made));
            }
        }
        next
    }

    /// The time at which the next guest is to be introduced, which may be now.
    pub(super) fn introduce_at(&mut self, now: Instant) -> Option<Instant> {
        while let Some(first) = self.switch.newborns.front()
            && first.born + LATEST <= now
            && self.introduce()
        {}
        let first = self.switch.newborns.front();
        first.map(|first| first.born + FIRST_ANSWER)
    }

    /// Introduces the guest that has waited longest. Returns `false` if there is none, or no xenstored.
    pub(super) fn introduce(&mut self) -> bool {
        if self.switch.newborns.is_empty() {
            return false;
        }
        // The guest serves without xenstored, and is introduced when a xenstored is there again.
        if self.builder().is_err() {
            for waiting in &mut self.switch.newborns {
                waiting.born = Instant::now() + LOOK;
            }
            return false;
        }
        let (Some(builder), Some(waiting)) = (&mut self.builder, self.switch.newborns.pop_front())
        else {
            return false;
        };
        let Waiting {
            id,
            name,
            mac,
            of,
            made,
            newborn,
            ..
        } = waiting;
        if let Some(made) = made {
            self.told.send(MakerReport::Made(id, made));
        }
        let domid = newborn.domid();
        match builder.introduce(newborn) {
            Ok(created) => {
                self.made_of.extend(of.map(|of| (domid, (of, false))));
                if let Err(cause) = self.know(domid, &name, mac) {
                    self.lost(&cause);
                }
                self.tell(MakerReport::Runs(id, Box::new(created.timeline)));
            }
            Err(error) => {
                self.lost(&error.failure.cause);
                self.tell(MakerReport::NotMade(id, error.to_string()));
            }
        }
        self.make_mark_ahead();
        true
    }

    /// Makes the mark of the next birth, if there is none.
    pub(super) fn make_mark_ahead(&mut self) {
        if let Some(builder) = &mut self.builder {
            // The birth makes it, and says why it cannot.
            let _ = builder.make_mark_ahead();
        }
    }

    /// Whether a guest was not introduced yet.
    pub(super) fn is_newborn(&self, domid: u16) -> bool {
        let mut newborns = self.switch.newborns.iter();
        newborns.any(|waiting| waiting.newborn.domid() == domid)
    }
}
