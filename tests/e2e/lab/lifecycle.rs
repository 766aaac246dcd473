//! A guest that is saved and restored by `xl` while it serves.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};

use anyhow::{Context, Result, ensure};
use mayfly_lab::GUEST;

use crate::birth::{BOUND, CHANGED, Place};
use crate::cases::Case;
use crate::replug::{load, with_file};

pub(crate) const CASES: &[Case] = &[
    ("saved and restored by xl while a file is loaded", restored),
    ("saved by xl and left running", cancelled),
];

/// Guests that `hatch` made, which `xl` saves with their configuration.
pub(crate) const BY_HATCH: &[Case] = &[(
    "saved and restored by xl while a file is loaded",
    moved_to_xl,
)];

const SAVED: &str = "/guest/saved";
/// Rounds of each case.
const ROUNDS: u32 = 3;

/// A connection that stays open between requests.
struct KeptAlive(BufReader<TcpStream>);

impl KeptAlive {
    fn open(server: SocketAddr) -> Result<Self> {
        let stream = TcpStream::connect_timeout(&server, BOUND)?;
        stream.set_read_timeout(Some(BOUND))?;
        Ok(Self(BufReader::new(stream)))
    }

    /// Asks for a page, and reads all of the answer.
    fn ask(&mut self) -> Result<()> {
        write!(self.0.get_mut(), "GET / HTTP/1.1\r\nHost: {GUEST}\r\n\r\n")?;
        let mut length = None;
        let mut line = String::new();
        loop {
            line.clear();
            self.0.read_line(&mut line)?;
            ensure!(!line.is_empty(), "the guest has closed the connection");
            let lower = line.to_ascii_lowercase();
            if let Some(value) = lower.strip_prefix("content-length:") {
                length = Some(value.trim().parse()?);
            }
            if line == "\r\n" {
                break;
            }
        }
        let mut body = vec![0; length.context("no length")?];
        self.0.read_exact(&mut body)?;
        Ok(())
    }
}

fn domain(place: &Place) -> Result<u32> {
    let domain = place.lab.run(&["xl", "domid", "mayfly"])?;
    domain.trim().parse().context("xl domid gives no number")
}

fn key(place: &Place, path: &str) -> Result<String> {
    let path = format!("/local/domain/{}/{path}", domain(place)?);
    Ok(place.lab.xenstore_wait(&path, BOUND)?.trim().to_owned())
}

fn restored(place: &Place) -> Result<()> {
    let (birth, file) = with_file(place)?;
    let lab = &place.lab;
    let mut idle = KeptAlive::open(lab.http()?)?;
    idle.ask()?;
    for _ in 0..ROUNDS {
        let before = domain(place)?;
        key(place, "control/feature-suspend")?;
        load(lab.http()?, &file, || {
            lab.run(&["xl", "save", "mayfly", SAVED])?;
            let output = place.xl(&["restore", SAVED])?;
            ensure!(output.success(), "xl restore: {}", output.error_text());
            Ok(())
        })
        .with_context(|| format!("it says {:?}", birth.lines()))?;
        ensure!(domain(place)? != before, "it is another domain");
        idle.ask().context("the connection that was idle")?;
        ensure!(key(place, "data/mayfly/ready")? == "1");
    }
    // The new domain's xenstored has its watches.
    lab.run(&["xl", "shutdown", "-w", "mayfly"])?;
    lab.run(&["rm", SAVED]).map(drop)
}

fn cancelled(place: &Place) -> Result<()> {
    let (birth, file) = with_file(place)?;
    let lab = &place.lab;
    let mut idle = KeptAlive::open(lab.http()?)?;
    idle.ask()?;
    for _ in 0..ROUNDS {
        key(place, "control/feature-suspend")?;
        load(lab.http()?, &file, || {
            lab.run(&["xl", "save", "-c", "mayfly", SAVED]).map(drop)
        })
        .with_context(|| format!("it says {:?}", birth.lines()))?;
        ensure!(domain(place)? == birth.domain, "it is the same domain");
        idle.ask().context("the connection that was idle")?;
    }
    let lines = birth.lines();
    let said = lines
        .iter()
        .filter(|line| line.contains("resumed in the same domain"));
    ensure!(said.count() == ROUNDS as usize, "it says {lines:?}");
    lab.run(&["rm", SAVED])?;
    birth.destroy()
}

/// The guest's network was connected before it ran; `xl` gives it one by xenstore.
fn moved_to_xl(place: &Place) -> Result<()> {
    let (birth, file) = with_file(place)?;
    let lab = &place.lab;
    let mut idle = KeptAlive::open(lab.http()?)?;
    idle.ask()?;
    key(place, "control/feature-suspend")?;
    load(lab.http()?, &file, || {
        lab.run(&["xl", "save", "mayfly", SAVED, CHANGED])?;
        let output = place.xl(&["restore", SAVED])?;
        ensure!(output.success(), "xl restore: {}", output.error_text());
        Ok(())
    })
    .with_context(|| format!("it says {:?}", birth.lines()))?;
    ensure!(domain(place)? != birth.domain, "it is another domain");
    idle.ask().context("the connection that was idle")?;
    lab.run(&["xl", "shutdown", "-w", "mayfly"])?;
    lab.run(&["rm", SAVED])?;
    // hatch's index still has the guest that xl destroyed.
    lab.run(&[crate::birth::HATCH, "gc"]).map(drop)
}
