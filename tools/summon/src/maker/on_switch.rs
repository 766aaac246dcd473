//! Guests on `hatch switch`. They are introduced to xenstored and to other tools after they had time for their first
//! answer, when no birth waits.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use mayfly_links::Link;
use mayfly_switch::control::Connection;
use mayfly_toolstack::builder::{Cause, Config, Newborn, Ready, Soon, Then, Wanted};

use super::super::channel::{Stance, ToFront};
use super::super::config::{Network, Service};
use super::super::fleet::Id;
use super::super::made_of::MadeOf;
use super::super::wire::Witness;
use super::{LOOK, Made, Maker, Told};

/// The time that a guest has for its first answer.
const FIRST_ANSWER: Duration = Duration::from_millis(4);
/// The time after which a guest is introduced even if births wait, so that other tools find it within 50 ms.
const LATEST: Duration = Duration::from_millis(25);

/// The maker's state about the switch.
#[derive(Default)]
pub(super) struct OnSwitch {
    connection: Option<Connection>,
    /// The switch's port, as it was looked up last.
    port: Option<Link>,
    /// Running guests that are not introduced yet, oldest first.
    newborns: VecDeque<Waiting>,
}

struct Waiting {
    id: Id,
    name: String,
    mac: [u8; 6],
    born: Instant,
    of: Option<MadeOf>,
    newborn: Newborn,
}

impl Maker {
    /// Makes a guest on the switch, and lets it run.
    pub(super) fn bear(
        &mut self,
        id: Id,
        service: &Service,
        (config, is_guarded, began, of): (Config, bool, Instant, Option<MadeOf>),
    ) -> Result<(), String> {
        self.room = self.room.saturating_sub(service.memory);
        self.clear_out();
        let text = |cause: &dyn std::fmt::Display| cause.to_string();
        self.builder().map_err(|error| text(&error))?;
        let born = match self.switch.connection.is_some() {
            // The switch at the other end of this connection may have ended.
            true => match self.born(id, service, (&config, is_guarded, began, of)) {
                Err(Cause::Io(_)) => {
                    self.switch.connection = None;
                    self.born(id, service, (&config, is_guarded, began, of))
                }
                born => born,
            },
            false => self.born(id, service, (&config, is_guarded, began, of)),
        };
        let newborn = born.map_err(|cause| {
            self.lost(&cause);
            text(&cause)
        })?;
        self.switch.newborns.push_back(Waiting {
            id,
            name: service.name.clone(),
            mac: service.mac,
            born: Instant::now(),
            of,
            newborn,
        });
        Ok(())
    }

    fn born(
        &mut self,
        id: Id,
        service: &Service,
        (config, is_guarded, began, of): (&Config, bool, Instant, Option<MadeOf>),
    ) -> Result<Newborn, Cause> {
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
                let opened = opened.map_err(|_| Cause::Switch("none runs".to_owned()))?;
                connection.insert(opened)
            }
        };
        let (told, front) = (&self.told, &self.front);
        let ready: Ready<'_> = &mut |soon| {
            let Soon {
                domid,
                switch,
                links,
                ..
            } = soon;
            let name = switch.ok_or(Cause::Backend("has no port"))?;
            let vif = match port.take().filter(|port| port.name == name) {
                Some(known) => known,
                None => links.find(name)?,
            };
            *port = Some(vif.clone());
            links.direct(&vif, service.mac)?;
            let made = Made {
                domid,
                witness: Witness::open(&vif).ok(),
                vif,
                network: Network::Switch,
                began,
                is_from_pool: false,
                of,
                front: front.say_now(&ToFront::Is(id, Stance::Takes)),
            };
            told.send(Told::Made(id, made));
            Ok(())
        };
        let wanted = Wanted {
            config,
            image,
            ramdisk: site,
            is_guarded,
        };
        let born = builder.bear(wanted, connection, Then::Running, ready);
        born.map_err(|error| match error.left.is_empty() {
            true => error.failure.cause,
            false => Cause::Switch(error.to_string()),
        })
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
            newborn,
            ..
        } = waiting;
        let domid = newborn.domid();
        match builder.introduce(newborn) {
            Ok(created) => {
                self.made_of.extend(of.map(|of| (domid, (of, false))));
                if let Err(cause) = self.know(domid, &name, mac) {
                    self.lost(&cause);
                }
                self.tell(Told::Runs(id, Box::new(created.timeline)));
            }
            Err(error) => {
                self.lost(&error.failure.cause);
                self.tell(Told::NotMade(id, error.to_string()));
            }
        }
        true
    }

    /// Whether a guest was not introduced yet.
    pub(super) fn is_newborn(&self, domid: u16) -> bool {
        let mut newborns = self.switch.newborns.iter();
        newborns.any(|waiting| waiting.newborn.domid() == domid)
    }
}
