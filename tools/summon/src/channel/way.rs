//! The maker's way to the front, for all of its threads. Fronts come and go; the way stays.

use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::{ChannelError, Sender, ToFront};

/// The way to the front that there is.
#[derive(Clone, Default)]
pub struct Way(Arc<Mutex<Line>>);

#[derive(Default)]
struct Line {
    sender: Option<Sender<ToFront>>,
    /// Which front it is: the first has number 1.
    front: u64,
    /// Whether something waits that was said, and not only put there.
    is_said: bool,
    /// Why nothing more goes that way.
    trouble: Option<ChannelError>,
}

impl Way {
    /// Leads to a new front from here on.
    pub fn lead_to(&self, sender: Sender<ToFront>) {
        let mut line = self.line();
        line.is_said = sender.is_waiting();
        line.sender = Some(sender);
        line.front += 1;
        line.trouble = None;
    }

    /// Puts something behind what was said before. It goes out with what is said next, or after [`Self::mark`].
    pub fn put(&self, message: &ToFront) {
        self.line().with(|sender| sender.push(message, None));
    }

    /// Says something, behind what was said before: it goes out with the next [`Self::flush`].
    pub fn say(&self, message: &ToFront, descriptor: Option<OwnedFd>) {
        let mut line = self.line();
        line.with(|sender| sender.push(message, descriptor));
        line.is_said = true;
    }

    /// Says something at once, and to which front that was.
    pub fn say_now(&self, message: &ToFront) -> u64 {
        let mut line = self.line();
        line.with(|sender| sender.push(message, None));
        line.flush();
        line.front
    }

    /// What was only put there has been said.
    pub fn mark(&self) {
        self.line().is_said = true;
    }

    /// Sends what was said, as far as there is room.
    pub fn flush(&self) {
        let mut line = self.line();
        if line.is_said {
            line.flush();
        }
    }

    /// Whether something that was said waits for room.
    #[must_use]
    pub fn is_waiting(&self) -> bool {
        let line = self.line();
        line.is_said && line.sender.as_ref().is_some_and(Sender::is_waiting)
    }

    /// The number of the front.
    #[must_use]
    pub fn front(&self) -> u64 {
        self.line().front
    }

    /// Why the front is not spoken to any more, told once.
    #[must_use]
    pub fn trouble(&self) -> Option<ChannelError> {
        self.line().trouble.take()
    }

    fn line(&self) -> MutexGuard<'_, Line> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Line {
    fn flush(&mut self) {
        self.with(Sender::flush);
        self.is_said = self.sender.as_ref().is_some_and(Sender::is_waiting);
    }

    fn with(&mut self, say: impl FnOnce(&mut Sender<ToFront>) -> Result<(), ChannelError>) {
        if let Some(sender) = &mut self.sender
            && let Err(error) = say(sender)
        {
            self.sender = None;
            self.trouble = Some(error);
        }
    }
}
