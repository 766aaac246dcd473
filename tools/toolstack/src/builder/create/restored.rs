//! Creates a guest whose memory and state come from a saved one. The steps are those of a creation, but for the
//! machine's contents, and the guest connects its network itself when it goes on.

use super::super::config::GuestConfig;
use super::super::keys;
use super::super::layout::{CONSOLE_GFN, XENSTORE_GFN};
use super::super::names::XlLock;
use super::super::rings;
use super::super::steps::{CreateStep, CreateSteps};
use super::super::toolstack::Toolstack;
use super::super::{CreateError, FailedStep, ToolstackError};
use super::{CreateAs, Created, DoneSteps};
use crate::host::Xen;
use mayfly_links::Bridge;
use mayfly_xen::{NewDomain, PAGE_SIZE};

/// A guest that is made of a saved one, but for its contents.
pub(crate) struct RestoredGuest<'a> {
    pub(crate) config: &'a GuestConfig,
    /// The greatest number of frames of its grant table.
    pub(crate) grant_frames: u16,
    /// Words of a command line with the addresses that the guest uses from now on; `None` if it keeps its own.
    pub(crate) addresses: Option<String>,
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
        let bridge = steps.run(CreateStep::Check, || {
            config.check()?;
            let bridge = config
                .vif
                .as_ref()
                .map(|vif| self.links.bridge(&vif.bridge));
            Ok::<_, ToolstackError>(bridge.transpose()?)
        })?;
        let mut done = DoneSteps::default();
        let new = NewDomain {
            handle: config.uuid,
            grant_frames: guest.grant_frames,
        };
        let made = self.steps_from(
            (guest, new, bridge),
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

    fn steps_from(
        &mut self,
        (guest, new, bridge): (&RestoredGuest<'_>, NewDomain, Option<Bridge>),
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
        let mut answers = steps.run(CreateStep::Keys, || {
            self.keys((config, config), domid, transaction, (false, done))
        })?;
        let ram_pages = config.memory << 8;
        steps.run(CreateStep::Limits, || self.limits(config, ram_pages, domid))?;
        let filled = steps.run(CreateStep::Pages, || contents.fill(&mut *self.xen, domid))?;
        let has_console = filled.has_console;
        let ports = steps.run(CreateStep::Channels, || self.channels(domid, has_console))?;
        steps.run(CreateStep::Rings, || {
            let mut gfns = vec![XENSTORE_GFN];
            gfns.extend(has_console.then_some(CONSOLE_GFN));
            // What the guest and the daemons had to say to each other is over.
            let pages = self.xen.map(domid, &gfns)?;
            pages.zero(0, gfns.len() * PAGE_SIZE)?;
            let table = self.xen.map_grants(domid)?;
            Ok::<_, ToolstackError>(table.write(0, &rings::grant_table(None, has_console))?)
        })?;
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
        let mut link = None;
        if config.vif.is_some() {
            let whose = (config, bridge.as_ref());
            link = Some(steps.run(CreateStep::Port, || self.port(whose, domid, then))?);
        }
        steps.run(CreateStep::Claim, || {
            self.introduced((config, domid, &ports), answers, (&lock, done))
        })?;
        steps.run(CreateStep::Finish, || {
            let mut ops = keys::finish(domid, config, &ports);
            ops.push(keys::made(config));
            self.finish(domid, &ops, false)
        })?;
        if then == CreateAs::Running {
            let port = link.as_ref().zip(bridge.as_ref());
            steps.run(CreateStep::Unpause, || {
                self.run(domid, port, &mut |_| Ok(()))
            })?;
        }
        Ok(domid)
    }
}
