//! Creates a guest whose memory and state come from a saved one. The steps are those of a creation, but for the
//! machine's contents, and the guest connects its network itself when it goes on, with netback or with the switch.

use std::borrow::Cow;

use super::super::config::{GuestConfig, Network};
use super::super::keys;
use super::super::layout::{CONSOLE_GFN, XENSTORE_GFN};
use super::super::names::XlLock;
use super::super::rings;
use super::super::steps::{CreateStep, CreateSteps};
use super::super::toolstack::Toolstack;
use super::super::{CreateError, FailedStep, ToolstackError};
use super::{CreateAs, Created, DoneSteps, interface_of};
use crate::host::Xen;
use mayfly_links::{Bridge, Link};
use mayfly_switch::port_name;
use mayfly_switch::xenbus::Interface;
use mayfly_xen::{NewDomain, PAGE_SIZE};

/// A guest that is made of a saved one, but for its contents.
pub(crate) struct RestoredGuest<'a> {
    pub(crate) config: &'a GuestConfig,
    /// The greatest number of frames of its grant table.
    pub(crate) grant_frames: u16,
    /// Words of a command line with the addresses that the guest uses from now on; `None` if it keeps its own.
    pub(crate) addresses: Option<String>,
}

/// What a restored guest connects its network with.
enum RestoredNetwork {
    /// It has none.
    None,
    /// netback, whose interface becomes a port of this bridge.
    Netback(Bridge),
    /// The switch, with its port on the bridge.
    Switch(Box<Interface>, Link),
}

/// The memory and the state of a guest.
pub trait GuestContents {
    /// Gives a new domain its memory.
    ///
    /// # Errors
    /// The contents are not valid, or Xen refuses.
    fn fill(&mut self, xen: &mut dyn Xen, domid: u16) -> Result<FilledMemory, ToolstackError>;

    /// Sets the state of the domain and of its vCPU, when the memory is complete.
    ///
    /// # Errors
    /// Xen refuses it.
    fn start(&mut self, xen: &mut dyn Xen, domid: u16) -> Result<(), ToolstackError>;
}

/// What a domain's memory has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FilledMemory {
    /// Whether there is a console's page.
    pub has_console: bool,
}

impl Toolstack {
    /// Creates a guest from these contents. When a step fails, the steps before it are undone.
    ///
    /// # Errors
    /// The step that failed, why, and what of it could not be undone.
    pub(crate) fn create_from(
        &mut self,
        guest: &RestoredGuest<'_>,
        contents: &mut dyn GuestContents,
        then: CreateAs,
        mut steps: CreateSteps,
    ) -> Result<Created, CreateError> {
        let config = guest.config;
        let network = steps.run(CreateStep::Check, || {
            config.check()?;
            self.network_for(config)
        })?;
        let mut done = DoneSteps {
            switched: matches!(network, RestoredNetwork::Switch(..)),
            ..DoneSteps::default()
        };
        let new = NewDomain {
            handle: config.uuid,
            grant_frames: guest.grant_frames,
        };
        let made = self.steps_from(
            (guest, new, network),
            contents,
            then,
            (&mut steps, &mut done),
        );
        match made {
            Ok(domid) => Ok(Created {
                domid,
                uuid: config.uuid,
                preconnected: false,
                timeline: steps.finish(),
            }),
            Err(failure) => {
                let left = self.undo(config, done);
                Err(CreateError { failure, left })
            }
        }
    }

    /// What is to be known of the network before there is a domain.
    fn network_for(&mut self, config: &GuestConfig) -> Result<RestoredNetwork, ToolstackError> {
        let Some(vif) = &config.vif else {
            return Ok(RestoredNetwork::None);
        };
        let bridge = self.links.bridge(&vif.bridge)?;
        Ok(match config.network {
            Network::Netback => RestoredNetwork::Netback(bridge),
            Network::Switch => {
                let port = self.links.find(&port_name(bridge.index))?;
                let interface = interface_of(config, vif, true);
                RestoredNetwork::Switch(Box::new(interface), port)
            }
        })
    }

    /// Leads the bridge to the guest; returns its interface, if it is netback's.
    fn port_of(
        &mut self,
        network: RestoredNetwork,
        (config, domid, then): (&GuestConfig, u16, CreateAs),
    ) -> Result<Option<(Link, Bridge)>, ToolstackError> {
        Ok(match network {
            RestoredNetwork::None => None,
            RestoredNetwork::Netback(bridge) => {
                let link = self.port((config, Some(&bridge)), domid, then)?;
                Some((link, bridge))
            }
            RestoredNetwork::Switch(interface, port) => {
                self.links.direct(&port, interface.mac)?;
                None
            }
        })
    }

    /// Empties the rings of xenstore and of the console, and grants them: what the guest and the daemons had to say to
    /// each other is over.
    fn empty_rings(&mut self, domid: u16, has_console: bool) -> Result<(), ToolstackError> {
        let mut gfns = vec![XENSTORE_GFN];
        gfns.extend(has_console.then_some(CONSOLE_GFN));
        let pages = self.xen.map(domid, &gfns)?;
        pages.zero(0, gfns.len() * PAGE_SIZE)?;
        let table = self.xen.map_grants(domid)?;
        Ok(table.write(0, &rings::grant_table(None, has_console))?)
    }

    fn steps_from(
        &mut self,
        (guest, new, network): (&RestoredGuest<'_>, NewDomain, RestoredNetwork),
        contents: &mut dyn GuestContents,
        then: CreateAs,
        (steps, done): (&mut CreateSteps, &mut DoneSteps),
    ) -> Result<u16, FailedStep> {
        let config = guest.config;
        let lock = XlLock::take();
        let transaction = steps.run(CreateStep::Names, || self.names(config, done))?;
        let domid = steps.run(CreateStep::Domain, || {
            let domid = self.xen.create(&new)?;
            done.domain = Some(domid);
            Ok::<_, ToolstackError>(domid)
        })?;
        let keyed = match network {
            RestoredNetwork::Switch(..) => Cow::Owned(keys::off_netback(config)),
            _ => Cow::Borrowed(config),
        };
        let mut answers = steps.run(CreateStep::Keys, || {
            let mut answers = self.keys((config, &keyed), domid, transaction, (false, done))?;
            if let RestoredNetwork::Switch(interface, _) = &network {
                let mtu = config.vif.as_ref().and_then(|vif| vif.mtu);
                answers.extend(self.switched(domid, interface, mtu)?);
            }
            Ok::<_, ToolstackError>(answers)
        })?;
        let ram_pages = config.memory << 8;
        steps.run(CreateStep::Limits, || self.limits(config, ram_pages, domid))?;
        let filled = steps.run(CreateStep::Pages, || contents.fill(&mut *self.xen, domid))?;
        let has_console = filled.has_console;
        let ports = steps.run(CreateStep::Channels, || self.channels(domid, has_console))?;
        steps.run(CreateStep::Rings, || self.empty_rings(domid, has_console))?;
        steps.run(CreateStep::Front, || {
            let mut ops = keys::front(domid, &ports, None);
            ops.extend(keys::suspend_channel(domid));
            ops.extend(
                guest
                    .addresses
                    .as_ref()
                    .map(|words| keys::addresses(domid, words)),
            );
            answers.extend(self.send(&ops)?);
            Ok::<_, ToolstackError>(self.store.flush()?)
        })?;
        steps.run(CreateStep::State, || contents.start(&mut *self.xen, domid))?;
        let port = match network {
            RestoredNetwork::None => None,
            network => steps.run(CreateStep::Port, || {
                self.port_of(network, (config, domid, then))
            })?,
        };
        steps.run(CreateStep::Claim, || {
            self.introduced((config, domid, &ports), answers, (&lock, done))
        })?;
        steps.run(CreateStep::Finish, || {
            let mut ops = keys::finish(domid, &keyed, &ports);
            ops.push(keys::made(config));
            self.finish(domid, &ops, false)
        })?;
        if then == CreateAs::Running {
            let port = port.as_ref().map(|(link, bridge)| (link, bridge));
            steps.run(CreateStep::Unpause, || {
                self.run(domid, port, &mut |_| Ok(()))
            })?;
        }
        Ok(domid)
    }
}
