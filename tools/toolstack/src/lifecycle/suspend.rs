//! Asks a guest to suspend itself, and lets it go on.

use std::time::{Duration, Instant};

use mayfly_xenstore::Request;

use super::xen::SuspendSignal;
use crate::builder::{Toolstack, ToolstackError, reason};
use crate::paths;

/// The time that a guest has to take notice. Whether it can suspend is not asked for: Linux says so in xenstore when it
/// boots, and no more after it was restored.
const NOTICE: Duration = Duration::from_secs(10);
/// The time that a guest has to suspend, as libxl gives it.
const BOUND: Duration = Duration::from_secs(60);
/// The longest pause before Xen is asked again whether the guest has suspended, should an event be lost.
const LOOK: Duration = Duration::from_secs(1);
/// The time that a guest has that was told at the last moment that it need not.
const GRACE: Duration = Duration::from_millis(500);
/// `SHUTDOWN_suspend` (sched.h).
const SUSPEND: u8 = 2;

/// The path by which xenstored reports that a domain has shut down.
const RELEASED: &str = "@releaseDomain";
const TOKEN: &str = "suspend";

fn failed(why: impl Into<String>) -> ToolstackError {
    ToolstackError::Refused(why.into())
}

impl Toolstack {
    /// Checks that a domain is there and can suspend, or has: a toolstack that was killed may have left it so.
    pub(super) fn can_suspend(&mut self, domid: u16) -> Result<(), ToolstackError> {
        let info = self.xen.info(domid)?.filter(|info| !info.is_dying());
        let info = info.ok_or_else(|| failed("the guest is gone"))?;
        if let Some(ended) = info.shutdown().filter(|reason| *reason != SUSPEND) {
            return Err(failed(format!("the guest has ended ({})", reason(ended))));
        }
        if info.is_paused() {
            return Err(failed(
                "the guest is paused, and has to run to suspend itself",
            ));
        }
        if info.vcpus > 1 {
            return Err(failed(format!(
                "the guest has {} vCPUs, and one that is saved has 1",
                info.vcpus
            )));
        }
        Ok(())
    }

    /// Has a guest suspend itself.
    ///
    /// # Errors
    /// The guest cannot, or does not within a minute. It goes on then.
    pub(super) fn suspend(&mut self, domid: u16) -> Result<(), ToolstackError> {
        if self.has_suspended(domid)? {
            return Ok(());
        }
        self.store.watch(RELEASED, TOKEN)?;
        let result = self.asked(domid);
        let unwatched = self.store.send(Request::unwatch(RELEASED, TOKEN))?;
        self.store.forget(unwatched);
        self.store.flush()?;
        while self.store.take_event().is_some() {}
        result
    }

    /// Asks a guest to suspend, by its suspend event channel if it has one.
    fn asked(&mut self, domid: u16) -> Result<(), ToolstackError> {
        let port = self.store.find(&paths::suspend_channel(domid))?;
        let port = port.and_then(|port| port.parse::<u32>().ok());
        let signal = port.and_then(|port| self.xen.suspend_signal(domid, port).ok());
        match signal {
            Some(signal) => self.asked_by_signal(domid, signal),
            None => self.asked_by_key(domid),
        }
    }

    fn asked_by_signal(
        &mut self,
        domid: u16,
        mut signal: Box<dyn SuspendSignal>,
    ) -> Result<(), ToolstackError> {
        let end = Instant::now() + BOUND;
        signal.notify()?;
        while !self.has_suspended(domid)? {
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(failed(
                    "the guest takes no notice of its suspend event channel",
                ));
            }
            signal.wait(left.min(LOOK))?;
        }
        Ok(())
    }

    fn asked_by_key(&mut self, domid: u16) -> Result<(), ToolstackError> {
        let path = paths::shutdown(domid);
        self.store.write(&path, "suspend")?;
        // A guest that suspends clears the key first.
        if self.until_suspended(domid, NOTICE)?
            || self.store.find(&path)?.as_deref() != Some("suspend")
                && self.until_suspended(domid, BOUND)?
        {
            return Ok(());
        }
        let why = match self.store.find(&path)?.as_deref() {
            // The guest has not looked at it. It must not find it later.
            Some("suspend") => {
                self.store.write(&path, "")?;
                "the guest takes no notice of being asked to suspend"
            }
            _ => "the guest says that it suspends, and does not",
        };
        match self.until_suspended(domid, GRACE)? {
            true => Ok(()),
            false => Err(failed(why)),
        }
    }

    /// Waits until a guest is suspended; returns whether it is.
    fn until_suspended(&mut self, domid: u16, bound: Duration) -> Result<bool, ToolstackError> {
        let end = Instant::now() + bound;
        loop {
            if self.has_suspended(domid)? {
                return Ok(true);
            }
            let left = end.saturating_duration_since(Instant::now());
            if self.store.event(left)?.is_none() {
                return Ok(false);
            }
        }
    }

    /// Whether a guest is suspended. It is an error if it has ended in another way.
    fn has_suspended(&mut self, domid: u16) -> Result<bool, ToolstackError> {
        let info = self.xen.info(domid)?.filter(|info| !info.is_dying());
        match info.map(|info| info.shutdown()) {
            Some(None) => Ok(false),
            Some(Some(SUSPEND)) => Ok(true),
            Some(Some(other)) => Err(failed(format!(
                "the guest has ended ({}) instead of suspending",
                reason(other)
            ))),
            None => Err(failed("the guest is gone")),
        }
    }

    /// Lets a suspended guest go on in its domain, or leaves it paused there.
    pub(super) fn go_on(&mut self, domid: u16, is_paused: bool) -> Result<(), ToolstackError> {
        if is_paused {
            self.xen.pause(domid)?;
        }
        self.xen.resume(domid)?;
        // xenstored then reports the next end of the domain.
        Ok(self.store.ask(Request::resume(domid)).map(drop)?)
    }
}
