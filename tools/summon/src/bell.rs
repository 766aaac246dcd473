//! A channel between threads whose receiving end can be polled.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, mpsc};

use rustix::event::{EventfdFlags, eventfd};

/// The sending end.
pub(super) struct BellSender<T> {
    sender: mpsc::Sender<T>,
    bell: Arc<OwnedFd>,
}

/// The receiving end. Its file descriptor is readable when there is something to take.
pub(super) struct BellReceiver<T> {
    receiver: mpsc::Receiver<T>,
    bell: Arc<OwnedFd>,
}

/// Makes a channel.
pub(super) fn channel<T>() -> std::io::Result<(BellSender<T>, BellReceiver<T>)> {
    let (sender, receiver) = mpsc::channel();
    let bell = Arc::new(eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?);
    let sender = BellSender {
        sender,
        bell: Arc::clone(&bell),
    };
    Ok((sender, BellReceiver { receiver, bell }))
}

impl<T> BellSender<T> {
    /// Sends a value. Does nothing if the receiving end is gone.
    pub(super) fn send(&self, one: T) {
        if self.sender.send(one).is_ok() {
            // This fails only if the counter is full, and then the receiver is readable already.
            let _ = rustix::io::write(&*self.bell, &1u64.to_ne_bytes());
        }
    }
}

impl<T> Clone for BellSender<T> {
    fn clone(&self) -> Self {
        Self {
            sender: self.sender.clone(),
            bell: Arc::clone(&self.bell),
        }
    }
}

impl<T> BellReceiver<T> {
    /// Takes all values that were sent.
    pub(super) fn take(&self) -> Vec<T> {
        let _ = rustix::io::read(&*self.bell, &mut [0; 8]);
        self.receiver.try_iter().collect()
    }
}

impl<T> AsFd for BellReceiver<T> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.bell.as_fd()
    }
}
