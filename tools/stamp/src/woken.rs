//! Connections to services that sleep, or run, and to guests that a program makes for each.

use std::fs;
use std::io::ErrorKind;
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::Child;
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use mayfly_stamp::wakes::{By, Connection, Job, Seen, Subject};
use mayfly_summon::config::SOCKET;
use mayfly_summon::status::{self, ShownState, SummonStatus};

use crate::birth::HATCH;
use crate::lives;
use crate::order;
use crate::page::page;
use crate::switched::Switch;
use crate::sys::ticks;
use crate::wait::{Bound, LOG, started};

/// The time after which the daemon's status is up to date, and the kernel's workers have cleaned up after a guest.
const SETTLE: Duration = Duration::from_millis(300);

/// Runs the job.
pub(crate) fn run(job: &Job, seen: &mut Vec<Seen>) -> Result<()> {
    let bound = Bound(Duration::from_secs(job.bound_s));
    let switch = job.switch.as_ref();
    let switch = switch
        .map(|bridge| Switch::start(bridge, bound.0))
        .transpose()?;
    if let Some(lives) = &job.lives {
        lives::run(lives, job.rounds, bound, &mut |cost| {
            seen.push(Seen::Cost(cost))
        })?;
    }
    let place = Place {
        job,
        bound,
        _switch: switch,
        _daemon: Running(started(&[
            HATCH.into(),
            "summon".into(),
            job.services.clone(),
        ])?),
    };
    let result = place.rounds(seen);
    result.with_context(|| fs::read_to_string(LOG).unwrap_or_default())
}

struct Place<'a> {
    job: &'a Job,
    bound: Bound,
    _daemon: Running,
    _switch: Option<Switch>,
}

/// A program that runs; dropping it ends it.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Place<'_> {
    fn rounds(&self, seen: &mut Vec<Seen>) -> Result<()> {
        for round in 0..self.job.rounds {
            for subject in order(&self.job.subjects, round) {
                self.rest()?;
                let connection = self.connection(subject);
                let connection = connection.with_context(|| subject.name.clone())?;
                seen.push(Seen::Connection(connection));
            }
        }
        Ok(())
    }

    /// Waits until no guest is being made or removed, and every service is in its idle state.
    fn rest(&self) -> Result<()> {
        let end = Instant::now() + self.bound.0;
        loop {
            // Wait before the first check too: the status lags a little.
            sleep(SETTLE);
            match status::ask(Path::new(SOCKET), self.bound.0)? {
                Some(status) if self.is_at_rest(&status) => return Ok(()),
                status => ensure!(Instant::now() < end, "there is no rest: {status:?}"),
            }
        }
    }

    fn is_at_rest(&self, status: &SummonStatus) -> bool {
        let mut subjects = self.job.subjects.iter();
        status.totals.pool == self.job.pool
            && subjects.all(|subject| match subject.by {
                By::Programs(..) => true,
                By::Summon(state) => status.services.iter().any(|service| {
                    // Before its first birth, a service has no guest, whatever its idle state is.
                    let is_new = service.births == 0 && service.state == ShownState::Asleep;
                    service.name == subject.name && (service.state == state || is_new)
                }),
            })
    }

    fn connection(&self, subject: &Subject) -> Result<Connection> {
        // The client must not know the link address. This fails if there is no such entry.
        drop(self.bound.run(&["arp", "-d", &subject.address.to_string()]));
        let start = ticks();
        let program = match &subject.by {
            By::Summon(_) => None,
            By::Programs(make, _) => Some(started(make)?),
        };
        let stream = self.connected((subject.address, 80).into())?;
        let ticks = ticks() - start;
        let first_byte = page(stream, self.bound.0)? - start;
        let mut steps = Vec::new();
        match &subject.by {
            By::Summon(_) => {
                sleep(SETTLE);
                let status = status::ask(Path::new(SOCKET), self.bound.0)?;
                let mut services = status.into_iter().flat_map(|status| status.services);
                let service = services.find(|service| service.name == subject.name);
                steps = service.context("the service is gone")?.last_boot;
            }
            By::Programs(_, remove) => {
                if let Some(mut program) = program {
                    self.bound.exit(&mut program, "what makes it")?;
                }
                let words: Vec<&str> = remove.iter().map(String::as_str).collect();
                self.bound.run(&words)?;
            }
        }
        Ok(Connection {
            subject: subject.name.clone(),
            ticks,
            first_byte,
            steps,
        })
    }

    fn connected(&self, address: SocketAddr) -> Result<TcpStream> {
        let end = Instant::now() + self.bound.0;
        loop {
            match TcpStream::connect_timeout(&address, self.bound.0) {
                // Its link address was not resolved within three seconds.
                Err(error) if error.kind() == ErrorKind::HostUnreachable => {
                    ensure!(Instant::now() < end, "{address}: {error}");
                }
                connected => return connected.with_context(|| address.to_string()),
            }
        }
    }
}
