//! Finds guests that ended without a request to the switch, as by `xl destroy` or by themselves. As long as their pages
//! are mapped, Xen keeps them.
//!
//! A thread asks xenstored, which alone is told of a domain's end, and then sends requests to the switch over its
//! control socket, as any client would. So the loop that moves frames never waits for xenstored.

use std::collections::HashMap;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use mayfly_xenstore::{Client, Request, Store as _};

use crate::control::{SwitchConnection, SwitchOrder, SwitchReply};

/// The longest wait for a reply.
const BOUND: Duration = Duration::from_secs(10);
/// The interval of looks without an event.
const PERIOD: Duration = Duration::from_secs(10);
/// The number of looks after which a guest that xenstored never knew counts as gone: it may still be being born.
const PATIENCE: u32 = 2;

/// The state of the guests so far.
#[derive(Debug, Default)]
struct Seen {
    /// By domid: whether xenstored has known the domain, and the number of looks since in which it has not.
    guests: HashMap<u16, (bool, u32)>,
}

impl Seen {
    /// Records which guests xenstored knows; returns those that are gone. For a guest that it never knew, only looks
    /// after a whole period count.
    fn gone(&mut self, now: &[(u16, bool)], is_period: bool) -> Vec<u16> {
        self.guests
            .retain(|domain, _| now.iter().any(|(other, _)| other == domain));
        let mut gone = Vec::new();
        for (domain, is_known) in now {
            let (was_known, looks) = self.guests.entry(*domain).or_default();
            if *is_known {
                (*was_known, *looks) = (true, 0);
                continue;
            }
            *looks += u32::from(is_period);
            if *was_known || *looks >= PATIENCE {
                gone.push(*domain);
            }
        }
        gone
    }

    fn was_known(&self, domain: u16) -> bool {
        self.guests
            .get(&domain)
            .is_some_and(|(was_known, _)| *was_known)
    }
}

/// Starts the thread, which runs as long as this process.
///
/// # Errors
/// The kernel has no room for a thread.
pub fn spawn(socket: PathBuf) -> io::Result<()> {
    let thread = std::thread::Builder::new().name("reaper".to_owned());
    thread.spawn(move || {
        let mut seen = Seen::default();
        loop {
            // xenstored, or the switch's own socket, may be unavailable for some time.
            let _ = look(&socket, &mut seen);
            std::thread::sleep(PERIOD);
        }
    })?;
    Ok(())
}

fn look(socket: &Path, seen: &mut Seen) -> Result<(), Box<dyn std::error::Error>> {
    let mut store = Client::connect(BOUND)?;
    store.watch("@releaseDomain", "switch")?;
    store.watch("@introduceDomain", "switch")?;
    let mut is_period = false;
    loop {
        let mut switch = SwitchConnection::open(socket, BOUND)?;
        let SwitchReply::Status(status) = switch.ask(&SwitchOrder::Status)? else {
            return Err("no status".into());
        };
        let mut now = Vec::new();
        for guest in &status.guests {
            now.push((guest.domain, is_introduced(&mut store, guest.domain)?));
        }
        for domain in seen.gone(&now, is_period) {
            // A guest that was never introduced may still serve.
            if !seen.was_known(domain)
                && switch.ask(&SwitchOrder::There(domain))? == SwitchReply::There(true)
            {
                continue;
            }
            switch.ask(&SwitchOrder::Detach(domain))?;
        }
        is_period = store.event(PERIOD)?.is_none();
        while store.take_event().is_some() {}
    }
}

fn is_introduced(store: &mut Client, domain: u16) -> Result<bool, mayfly_xenstore::Error> {
    let answer = store.ask(Request::is_domain_introduced(domain))?;
    Ok(answer.first() == Some(&b'T'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_was_known_is_gone_at_once_and_who_was_not_later() {
        let mut seen = Seen::default();
        assert_eq!(seen.gone(&[(1, true), (2, false)], false), [0_u16; 0]);
        // Events of other domains do not count: it may still be being born.
        assert_eq!(seen.gone(&[(1, true), (2, false)], false), [0_u16; 0]);
        assert_eq!(seen.gone(&[(1, false), (2, false)], false), [1]);
        assert_eq!(seen.gone(&[(2, false)], true), [0_u16; 0]);
        assert_eq!(seen.gone(&[(2, false)], true), [2]);
        assert!(seen.was_known(1) || !seen.was_known(2));
        // Another domain with the same domid starts anew.
        assert_eq!(seen.gone(&[], true), [0_u16; 0]);
        assert_eq!(seen.gone(&[(2, false)], true), [0_u16; 0]);
    }
}
