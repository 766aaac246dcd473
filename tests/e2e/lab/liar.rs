//! A guest that lies in every field of its rings, on the switch beside one that serves.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use mayfly_lab::{GUEST, ask, workspace};
use serde_json::Value;

use crate::birth::{BOUND, EXAMPLE, HATCH, Place};
use crate::cases::Case;
use crate::summon::mac;
use crate::switch::Switch;

/// They run in a lab that captures frames.
pub(crate) const CASES: &[Case] = &[(
    "a guest that lies in every field of its rings harms nobody else",
    lies,
)];

const LIAR: &str = "/guest/liar";
const CONFIG: &str = "/guest/liar.cfg";
const DUMP: &str = "/run/beside.pcap";
/// The first bytes of the liar's source addresses that are not its own (tests/guests/liar/src/frames.rs).
const FORGED: [u8; 3] = [0x02, 0x6c, 0x69];
/// The liar's own MAC address.
const MAC: [u8; 6] = [0x00, 0x16, 0x3e, 0, 0, 3];
/// The longest time that one liar runs; then the next one, with other lies, takes its place.
const LIFE: Duration = Duration::from_secs(3);

/// What was seen of all liars.
#[derive(Default)]
struct Seen {
    /// The switch's counters, added up by name.
    counters: BTreeMap<String, u64>,
    /// The reasons why ports were shut.
    shut: BTreeMap<String, u32>,
    /// The requests to transmit that the liars made and that were answered, as they report it.
    requests: u64,
    latencies: Vec<Duration>,
    lives: u64,
}

impl Seen {
    fn count(&mut self, status: &Value) {
        if let Some(why) = status["shut"].as_str() {
            *self.shut.entry(why.to_owned()).or_default() += 1;
        }
        for (name, value) in status["counters"].as_object().into_iter().flatten() {
            let value = value.as_u64().or_else(|| value["frames"].as_u64());
            *self.counters.entry(name.clone()).or_default() += value.unwrap_or(0);
        }
    }

    fn of(&self, counter: &str) -> u64 {
        self.counters.get(counter).copied().unwrap_or(0)
    }
}

/// Asks for the page beside once, and checks it.
fn page(place: &Place, right: &str) -> Result<Duration> {
    let start = Instant::now();
    let (status, body) = ask::http(place.lab.http()?, "/", Duration::ZERO)?;
    ensure!(status == 200 && body == right, "GET / gives {status}");
    Ok(start.elapsed())
}

/// Percentiles of them, in ms.
fn percentiles(mut latencies: Vec<Duration>) -> String {
    latencies.sort();
    let last = latencies.len().saturating_sub(1);
    let at = |part: usize| latencies.get(last * part / 100).map(Duration::as_millis);
    let parts = [50, 90, 99, 100].map(|part| at(part).unwrap_or(0));
    format!("{} pages, {parts:?} ms at 50, 90, 99 and 100 %", last + 1)
}

fn lies(place: &Place) -> Result<()> {
    let lab = &place.lab;
    let span = Duration::from_secs(crate::cycles(8)?.clamp(8, 60).into());
    let image = workspace().join("target/guest/liar-guest");
    lab.put(LIAR, 0o644, &std::fs::read(image)?)?;
    let switch = Switch::start(place)?;
    // The host remembers the MAC address of this IP address, which is that of a service in other cases.
    let mac = ["--mac", &mac(GUEST)];
    let create = ["create", "--network", "switch", "--json"];
    place.hatched(&[&create[..], &mac, &[EXAMPLE]].concat())?;
    let (_, right) = ask::http(lab.http()?, "/", BOUND)?;
    let alone: Result<Vec<_>> = (0..50).map(|_| page(place, &right)).collect();
    println!("alone: {}", percentiles(alone?));
    // A record of the first frames of the other guest.
    lab.shell(&format!(
        "rm -f {DUMP}.over; (setsid {HATCH} switch dump mayfly --seconds 5 --frames 100000 >{DUMP}; touch {DUMP}.over) </dev/null >/dev/null 2>&1 &"
    ))?;
    let mut seen = Seen::default();
    let start = Instant::now();
    while start.elapsed() < span {
        seen.lives += 1;
        live(place, &switch, &right, &mut seen)
            .with_context(|| format!("the liar with seed {}", seen.lives))?;
    }
    page(place, &right)?;
    println!(
        "beside {} liars: {}",
        seen.lives,
        percentiles(seen.latencies.clone())
    );
    println!(
        "{} requests; {:?}; shut: {:?}",
        seen.requests, seen.counters, seen.shut
    );
    for cause in [
        "guard_source",
        "bad_grant",
        "bad_size",
        "bad_offload",
        "too_many_slots",
    ] {
        ensure!(seen.of(cause) > 0, "nothing is dropped for {cause}");
    }
    ensure!(seen.shut.len() > 1, "ports are shut for {:?}", seen.shut);
    // It is the same switch, and it has no other guest.
    lab.run(&["kill", "-0", &switch.pid])?;
    let serving = switch.guest("mayfly")?;
    let status = switch.status()?;
    ensure!(
        serving["shut"].is_null() && status["guests"].as_array().map(Vec::len) == Some(1),
        "{status}"
    );
    unforged(place)?;
    place.hatched(&["destroy", "mayfly"])?;
    ensure!(lab.shell("xl list | grep -c null || true")?.trim() == "0");
    drop(switch);
    place.nothing_left()
}

/// One liar, until its port is shut or its time is over.
fn live(place: &Place, switch: &Switch<'_>, right: &str, seen: &mut Seen) -> Result<()> {
    let lab = &place.lab;
    let config = format!(
        "name = \"liar\"\ntype = \"pvh\"\nkernel = \"{LIAR}\"\nmemory = 8\nextra = \"seed={}\"\n\
         vif = [ \"mac=00:16:3e:00:00:03,bridge=xenbr0,script=vif-mayfly\" ]\n",
        seen.lives
    );
    lab.put(CONFIG, 0o644, config.as_bytes())?;
    let mark = lab.serial_mark()?;
    place.hatched(&["create", "--network", "switch", CONFIG])?;
    let start = Instant::now();
    let status = loop {
        seen.latencies.push(page(place, right)?);
        let status = switch.guest("liar")?;
        if start.elapsed() > LIFE || !status["shut"].is_null() {
            break status;
        }
    };
    seen.count(&status);
    place.hatched(&["destroy", "liar"])?;
    let said = lab.serial_from(mark)?;
    let requests = said.lines().filter_map(|line| {
        let (_, rest) = line.split_once("liar: seed ")?;
        rest.split(' ').nth(2)?.parse::<u64>().ok()
    });
    seen.requests += requests.max().unwrap_or(0);
    Ok(())
}

/// No frame with a forged source address has reached the other guest, or the bridge's network card.
fn unforged(place: &Place) -> Result<()> {
    let lab = &place.lab;
    lab.shell(&format!(
        "for n in $(seq 200); do [ -e {DUMP}.over ] && exit; usleep 100000; done; exit 1"
    ))?;
    let dump = lab.get(DUMP)?;
    let is_forged = |frame: &[u8]| frame.get(6..9) == Some(&FORGED[..]);
    let captured = lab.captured()?;
    let beside = frames(&dump);
    for (place, frames) in [("the card", &captured), ("the other guest", &beside)] {
        // The liar's valid broadcasts have, so a forged one would be seen.
        let own = frames
            .iter()
            .filter(|frame| frame.get(6..12) == Some(&MAC[..]));
        ensure!(own.count() > 10, "few frames of the liar's at {place}");
        let count = frames.iter().filter(|frame| is_forged(frame)).count();
        ensure!(count == 0, "{count} forged frames at {place}");
    }
    Ok(())
}

/// The frames of a pcap file: each has a header of 16 bytes, with its length as the third word.
fn frames(mut file: &[u8]) -> Vec<Vec<u8>> {
    file = file.get(24..).unwrap_or_default();
    let mut frames = Vec::new();
    while let Some((header, rest)) = file.split_first_chunk::<16>() {
        let [.., a, b, c, d, _, _, _, _] = *header;
        let length = u32::from_le_bytes([a, b, c, d]) as usize;
        let Some((frame, rest)) = rest.split_at_checked(length) else {
            break;
        };
        frames.push(frame.to_vec());
        file = rest;
    }
    frames
}
