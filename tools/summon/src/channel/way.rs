//! The maker's sending side to the front, shared by all of its threads. It outlives each front.

use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::{ChannelError, Sender, ToFront};

/// The sending side to the present front.
#[derive(Clone, Default)]
pub struct FrontSender(Arc<Mutex<Line>>);

#[derive(Default)]
struct Line {
    sender: Option<Sender<ToFront>>,
    /// The number of the front; the first is 1.
    front: u64,
    /// Whether a message waits that must be sent soon, not only messages that may wait for the next one.
    is_said: bool,
    /// The error that has ended the channel.
    trouble: Option<ChannelError>,
}

impl FrontSender {
    /// Sends to a new front from here on.
    pub fn lead_to(&self, sender: Sender<ToFront>) {
        let mut line = self.line();
        line.is_said = sender.is_waiting();
        line.sender = Some(sender);
        line.front += 1;
        line.trouble = None;
    }

    /// Queues a message that may wait: it is sent with the next message of [`Self::say`], or after [`Self::mark`].
    pub fn put(&self, message: &ToFront) {
        self.line().with(|sender| sender.push(message, None));
    }

    /// Queues a message, which the next [`Self::flush`] sends.
    pub fn say(&self, message: &ToFront, descriptor: Option<OwnedFd>) {
        let mut line = self.line();
        line.with(|sender| sender.push(message, descriptor));
        line.is_said = true;
    }

    /// Sends a message at once. Returns the number of the front.
    pub fn say_now(&self, message: &ToFront) -> u64 {
        let mut line = self.line();
        line.with(|sender| sender.push(message, None));
        line.flush();
        line.front
    }

    /// Lets the next [`Self::flush`] send the messages of [`Self::put`].
    pub fn mark(&self) {
        self.line().is_said = true;
    }

    /// Sends the queued messages, as far as there is room.
    pub fn flush(&self) {
        let mut line = self.line();
        if line.is_said {
            line.flush();
        }
    }

    /// Whether messages wait for room.
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

    /// Takes the error that has ended the channel, if there is one.
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
