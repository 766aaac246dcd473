//! A switch that maps nothing.

use std::io::{self, BufRead as _, BufReader, Write as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use mayfly_switch::Guest;
use mayfly_switch::control::{SwitchOrder, SwitchReply, line};
use mayfly_switch::switch::GuestStatus;

/// A switch that answers in threads of its own.
#[derive(Clone, Default)]
pub struct FakeSwitch(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    domains: Vec<u16>,
    /// The domains of which only the rings are mapped.
    prepared: Vec<u16>,
    /// The guest that was declared.
    known: Option<String>,
    /// The orders about guests that move, by their names.
    moves: Vec<String>,
    /// The last guest that was attached, if all was told of it.
    last: Option<Guest>,
    refuses: bool,
}

impl FakeSwitch {
    /// Listens on the switch's socket in this folder.
    ///
    /// # Errors
    /// The socket cannot be made.
    pub fn listen(run: &Path) -> io::Result<Self> {
        let listener = UnixListener::bind(run.join("switch.sock"))?;
        let this = Self::default();
        let served = this.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let served = served.clone();
                std::thread::spawn(move || served.serve(&stream));
            }
        });
        Ok(this)
    }

    /// The domids that it serves.
    #[must_use]
    pub fn domains(&self) -> Vec<u16> {
        self.state().domains.clone()
    }

    /// The orders about guests that move so far.
    #[must_use]
    pub fn moves(&self) -> Vec<String> {
        self.state().moves.clone()
    }

    /// The domids of the guests that it is prepared for.
    #[must_use]
    pub fn prepared(&self) -> Vec<u16> {
        self.state().prepared.clone()
    }

    /// Makes it know a guest of this name, and no other, as declared.
    pub fn knows(&self, name: Option<&str>) {
        self.state().known = name.map(str::to_owned);
    }

    /// The last guest that it was given, if it was told all of it.
    #[must_use]
    pub fn last(&self) -> Option<Guest> {
        self.state().last.clone()
    }

    /// Sets whether it refuses further guests.
    pub fn refuses(&self, does: bool) {
        self.state().refuses = does;
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn serve(&self, stream: &UnixStream) -> Option<()> {
        for question in BufReader::new(stream).lines() {
            let order = serde_json::from_str(&question.ok()?).ok()?;
            let reply = self.state().answer(order);
            let mut stream = stream;
            stream.write_all(&line(&reply).ok()?).ok()?;
        }
        None
    }
}

impl State {
    fn serve(&mut self, domain: u16) -> SwitchReply {
        self.prepared.retain(|other| *other != domain);
        self.domains.push(domain);
        SwitchReply::Attached {
            link: "switch1".to_owned(),
        }
    }

    fn moved(&mut self, order: String) -> SwitchReply {
        self.moves.push(order);
        SwitchReply::Done
    }

    fn answer(&mut self, order: SwitchOrder) -> SwitchReply {
        match order {
            SwitchOrder::Attach(guest) if !self.refuses => {
                let reply = self.serve(guest.rings.domain);
                self.last = Some(*guest);
                reply
            }
            SwitchOrder::Awake(awake)
                if !self.refuses && self.known.as_ref() == Some(&awake.name) =>
            {
                self.last = None;
                self.serve(awake.rings.domain)
            }
            SwitchOrder::Prepare { rings, .. } if !self.refuses => {
                self.prepared.push(rings.domain);
                SwitchReply::Done
            }
            SwitchOrder::Detach(domain) if self.prepared.contains(&domain) => {
                self.prepared.retain(|other| *other != domain);
                SwitchReply::Done
            }
            SwitchOrder::Detach(domain) if self.domains.contains(&domain) => {
                self.domains.retain(|other| *other != domain);
                SwitchReply::Detached(Box::<GuestStatus>::default())
            }
            SwitchOrder::Frames => {
                SwitchReply::Frames(self.domains.iter().map(|domain| (*domain, 0)).collect())
            }
            SwitchOrder::Sleep(sleeper) if sleeper.moves => {
                self.moved(format!("sleep {}", sleeper.name))
            }
            SwitchOrder::Hold(name) => self.moved(format!("hold {name}")),
            SwitchOrder::Relay(name) => self.moved(format!("relay {name}")),
            _ => SwitchReply::Error("refused".to_owned()),
        }
    }
}
