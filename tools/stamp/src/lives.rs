//! What a guest on `hatch switch` costs: its making, its listing and its end, by programs and in this process.

use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, ensure};
use mayfly_stamp::wakes::{Cost, Lives};
use mayfly_switch::control::{SwitchOrder, SwitchReply};
use mayfly_toolstack::builder::{CreateAs, Image, Toolstack, WantedOnSwitch};
use mayfly_toolstack::config::{self, Overrides};
use mayfly_xen::Xen;

use crate::birth::HATCH;
use crate::page::page;
use crate::sys::ticks;
use crate::wait::{Bound, started};

/// The name of the guest in the configuration.
const NAME: &str = "mayfly";
/// The name in the template of the others.
const OTHER: &str = "other";
/// The time after which nothing is under way any more that was begun by what is measured.
const SETTLED: Duration = Duration::from_millis(200);
/// The time that a guest has for its first frames before it is introduced to xenstored.
const FIRST_ANSWER: Duration = Duration::from_millis(4);
/// The interval at which a domain is looked for that goes.
const GLANCE: Duration = Duration::from_micros(100);

struct Place<'a> {
    lives: &'a Lives,
    bound: Bound,
    xen: Xen,
    toolstack: Toolstack,
}

/// Measures everything `rounds` times.
pub(crate) fn run(
    lives: &Lives,
    rounds: u32,
    bound: Bound,
    seen: &mut dyn FnMut(Cost),
) -> Result<()> {
    let mut place = Place {
        lives,
        bound,
        xen: Xen::open()?,
        toolstack: Toolstack::open(bound.0)?,
    };
    let mut note = |what: &str, ticks| {
        let what = what.to_owned();
        seen(Cost { what, ticks });
        sleep(SETTLED);
    };
    place.resident(rounds, &mut note)?;
    for _ in 0..rounds {
        place.programs("", &mut note)?;
        note("create, to first HTTP byte", place.first_byte()?);
    }
    let (others, first) = (lives.others.to_string(), format!("{}/24", lives.first));
    let made = [
        HATCH,
        "create",
        "-n",
        &others,
        "--template",
        "--no-pool",
        "--network",
        "switch",
        "--ip",
        &first,
        &lives.template,
    ];
    bound.run(&made)?;
    sleep(SETTLED);
    for _ in 0..rounds {
        place.programs(&format!(", beside {others} others"), &mut note)?;
    }
    let names: Vec<String> = (1..=lives.others).map(|n| format!("{OTHER}-{n}")).collect();
    let names = names.iter().map(String::as_str);
    bound.run(
        &[HATCH, "destroy"]
            .into_iter()
            .chain(names)
            .collect::<Vec<_>>(),
    )?;
    sleep(SETTLED);
    Ok(())
}

impl Place<'_> {
    fn program(&self, words: &[&str]) -> Result<u64> {
        let start = ticks();
        self.bound.run(&[&[HATCH], words].concat())?;
        Ok(ticks() - start)
    }

    /// The words of the program that makes the guest.
    fn making(&self) -> [&str; 5] {
        [
            "create",
            "--no-pool",
            "--network",
            "switch",
            &self.lives.config,
        ]
    }

    /// Runs each program once. `beside` says what else there is.
    fn programs(&mut self, beside: &str, note: &mut dyn FnMut(&str, u64)) -> Result<()> {
        let mut note = |what: &str, ticks| note(&format!("{what}{beside}"), ticks);
        note("create", self.program(&self.making())?);
        note("list", self.program(&["list"])?);
        let domid = self.toolstack.domid(NAME)?.context("no guest")?;
        let start = ticks();
        let returned = self.program(&["destroy", NAME])?;
        let gone = self.gone(domid, start)?;
        note("destroy", returned);
        note("destroy, until all is gone", gone);
        Ok(())
    }

    /// The ticks from the start of the program that makes the guest until a client has the first byte of an answer.
    fn first_byte(&mut self) -> Result<u64> {
        let address = self.lives.address;
        drop(self.bound.run(&["arp", "-d", &address.to_string()]));
        let words = [&[HATCH], &self.making()[..]].concat();
        let words: Vec<String> = words.into_iter().map(str::to_owned).collect();
        let start = ticks();
        let mut program = started(&words)?;
        let stream = TcpStream::connect_timeout(&SocketAddr::from((address, 80)), self.bound.0)?;
        let first = page(stream, self.bound.0)? - start;
        self.bound.exit(&mut program, "what makes it")?;
        sleep(SETTLED);
        self.program(&["destroy", NAME])?;
        Ok(first)
    }

    /// Makes and destroys guests in this process, as the daemon does.
    fn resident(&mut self, rounds: u32, note: &mut dyn FnMut(&str, u64)) -> Result<()> {
        let guest = config::load(Path::new(&self.lives.config), &Overrides::default());
        let guest = guest.map_err(|problems| anyhow!("{problems}"))?;
        let image = Image::open_and_keep(&guest.kernel)?;
        let mut connection = self.toolstack.switch()?;
        for _ in 0..rounds {
            self.toolstack.make_mark_ahead()?;
            let config = guest.config(self.toolstack.next_uuid()?);
            let wanted = WantedOnSwitch {
                config: &config,
                image: &image,
                ramdisk: None,
                is_guarded: true,
                is_declared: false,
            };
            let start = ticks();
            let mut until = start;
            let newborn =
                self.toolstack
                    .bear(wanted, &mut connection, CreateAs::Running, &mut |_| {
                        // From here on the guest runs, and on one CPU this process does not.
                        until = ticks();
                        Ok(())
                    })?;
            sleep(FIRST_ANSWER);
            let domid = self.toolstack.introduce(newborn)?.domid;
            note("resident: create, until it runs", until - start);
            let start = ticks();
            self.toolstack.destroy(domid, false)?;
            let gone = self.gone(domid, start)?;
            note("resident: destroy, until all is gone", gone);
        }
        Ok(())
    }

    /// The ticks since `start` until there is no such domain, not even without memory, and the switch has no guest.
    fn gone(&mut self, domid: u16, start: u64) -> Result<u64> {
        let end = Instant::now() + self.bound.0;
        while self.xen.info(domid)?.is_some() {
            ensure!(Instant::now() < end, "domain {domid} does not go");
            sleep(GLANCE);
        }
        let gone = ticks() - start;
        match self.toolstack.switch()?.ask(&SwitchOrder::Frames)? {
            SwitchReply::Frames(guests) => ensure!(guests.iter().all(|(other, _)| *other != domid)),
            other => return Err(anyhow!("the switch says {other:?}")),
        }
        Ok(gone)
    }
}
