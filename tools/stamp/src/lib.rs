//! The cost of a guest's boot, measured from dom0: the job from the host, the report to the host, and the two parsers
//! that turn the traces of Xen and xenstored into counts.
//!
//! All times are ticks of the time stamp counter in dom0 ([`Report::tsc_hz`] ticks make a second). On an emulated
//! machine that counts instructions (QEMU's `-icount shift=0`), one tick is one instruction of hypervisor, dom0 and
//! guest together.
//!
//! A birth is either plain or traced. Plain births give the times. Traced births give the counts; their times serve
//! only to bound the counts, because tracing costs instructions of its own.
#![forbid(unsafe_code)]

pub mod density;
pub mod exits;
pub mod wakes;
pub mod xenstored;

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

/// The start of each line of output with a [`Line`] as JSON. All other lines on the console are ignored.
pub const MARK: &str = "mayfly-stamp: ";

/// The event by which a guest counts as ready.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Ready {
    /// The first byte of an HTTP answer.
    Http,
    /// The guest has shut itself down.
    Shutdown,
}

/// The content of dom0's neighbour cache for the guest's address when the guest is unpaused.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Neighbour {
    /// The guest's link address, as a permanent entry, because an entry from an earlier birth may be about to expire.
    #[default]
    Warm,
    /// No entry: the client resolves the address first.
    Cold,
}

/// The maker of a guest, which also destroys it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Maker {
    /// `xl`, with the hotplug script that the configuration names.
    Xl,
    /// `hatch create`.
    Hatch,
    /// `hatch create`, from the pool of `hatch pool`.
    Pool,
    /// The measuring program itself, on `hatch switch`.
    Switch,
}

/// A guest to be measured.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Guest {
    /// Its label in the results.
    pub label: String,
    /// Its name in `config`.
    pub name: String,
    /// Its maker.
    pub maker: Maker,
    /// Path of its configuration in dom0, as `xl` and `hatch` read it.
    pub config: String,
    /// Whether it needs a console. `xl` gives one to all guests, `hatch` only on request.
    pub console: bool,
    /// Its MAC address.
    pub mac: [u8; 6],
    /// Its IPv4 address.
    pub address: Ipv4Addr,
    /// The event by which it counts as ready.
    pub ready: Ready,
    /// Whether it serves its boot timeline at [`TIMELINE`].
    pub timeline: bool,
}

/// The path at which a guest serves its own boot timeline.
pub const TIMELINE: &str = "/.mayfly/boot";

/// The measurements of one run of dom0.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Job {
    /// The guests, born in turn.
    pub guests: Vec<Guest>,
    /// The number of plain births of each guest.
    pub plain: u32,
    /// The number of traced births of each guest, after the plain ones.
    pub traced: u32,
    /// Bound of every single wait, in seconds.
    pub bound_s: u64,
    /// State of dom0's neighbour cache.
    pub neighbour: Neighbour,
    /// Size of Xen's trace buffer of each CPU, in pages.
    pub trace_pages: u32,
}

/// The counts of a guest up to an instant, which the owner of this value names.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counts {
    /// VM exits.
    pub exits: u64,
    /// VM exits by SVM exit code (AMD64 Architecture Programmer's Manual 2, appendix C).
    pub reasons: BTreeMap<u32, u64>,
    /// Hypercalls by number (`public/xen.h`).
    pub hypercalls: BTreeMap<u32, u64>,
    /// Ticks spent in the guest, from each VM entry to the next exit: the guest's own instructions if ticks are
    /// instructions, and Xen's few hundred around each entry and exit.
    pub guest_ticks: u64,
}

/// Counts of a traced birth.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Traced {
    /// Tick of the first VM entry, in dom0's time.
    pub entry: u64,
    /// Until dom0 has seen the first frame.
    pub to_first_frame: Option<Counts>,
    /// Until the guest, by its own timeline, had queued its first transmit request.
    pub to_transmit: Option<Counts>,
    /// Until the guest was ready.
    pub to_ready: Counts,
    /// xenstore requests of the guest until dom0 has seen the first frame.
    pub xenstore_to_first_frame: Option<u64>,
    /// xenstore requests of the guest until it was ready; unknown for a guest that was introduced to xenstored before
    /// its birth.
    pub xenstore_to_ready: Option<u64>,
}

/// One boot of one guest. Instants are in ticks; `None` if this guest does not do it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Birth {
    /// [`Guest::label`].
    pub guest: String,
    /// Its number.
    pub domid: u16,
    /// Before the start of the program that makes it.
    pub create: u64,
    /// At the end of that program.
    pub created: u64,
    /// Before the unpause hypercall.
    pub unpause: u64,
    /// At the first frame from the guest, read from its vif.
    pub first_frame: Option<u64>,
    /// At the establishment of the connection to port 80. It was requested at the first frame, or before the guest ran
    /// if its network was connected by then.
    pub syn_ack: Option<u64>,
    /// When the guest was ready.
    pub ready: u64,
    /// Before the start of the program that destroys it.
    pub destroy: u64,
    /// At the end of that program.
    pub destroyed: u64,
    /// When its interface and its domain were gone.
    pub gone: u64,
    /// The guest's CPU time when it was ready, in ns, by `XEN_DOMCTL_getdomaininfo`.
    pub cpu_ns: u64,
    /// Counts, of a traced birth.
    pub traced: Option<Traced>,
    /// The guest's own boot timeline.
    pub timeline: Option<serde_json::Value>,
    /// The maker's report of its own work.
    pub making: Option<serde_json::Value>,
}

impl Birth {
    /// Ticks from the start of the maker until the answer, without the work of the measuring program between making and
    /// unpausing.
    #[must_use]
    pub fn whole(&self) -> u64 {
        self.created - self.create + self.ready - self.unpause
    }
}

/// All measurements.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// Ticks in a second.
    pub tsc_hz: u64,
    /// The births, in the order of their making.
    pub births: Vec<Birth>,
}

/// One line of output.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Line<T> {
    /// A measurement.
    Seen(T),
    /// The error; it is the last line.
    Failed(String),
    /// Ticks in a second; it is the last line.
    End(u64),
}

/// Collects the lines that [`MARK`] starts from a console's output: the measurements, and the ticks in a second.
///
/// # Errors
/// The program's own error; a line that is cut or is not JSON; output without an end.
pub fn seen<T: DeserializeOwned>(text: &str) -> Result<(Vec<T>, u64), String> {
    let mut seen = Vec::new();
    for line in text.lines() {
        let Some((_, json)) = line.split_once(MARK) else {
            continue;
        };
        match serde_json::from_str(json.trim_end()).map_err(|e| format!("{e} in {line:?}"))? {
            Line::Seen(one) => seen.push(one),
            Line::Failed(e) => return Err(e),
            Line::End(tsc_hz) => return Ok((seen, tsc_hz)),
        }
    }
    Err("the measuring program did not come to its end".into())
}

impl Report {
    /// Collects the births from a console's output.
    ///
    /// # Errors
    /// Those of [`seen`].
    pub fn from_console(text: &str) -> Result<Self, String> {
        let (births, tsc_hz) = seen(text)?;
        Ok(Self { tsc_hz, births })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn birth() -> Birth {
        Birth {
            guest: "null".into(),
            domid: 1,
            create: 1,
            created: 2,
            unpause: 3,
            first_frame: None,
            syn_ack: None,
            ready: 4,
            destroy: 5,
            destroyed: 6,
            gone: 6,
            cpu_ns: 7,
            traced: Some(Traced {
                to_ready: Counts {
                    hypercalls: [(29, 1)].into(),
                    ..Counts::default()
                },
                ..Traced::default()
            }),
            timeline: None,
            making: None,
        }
    }

    fn line(line: &Line<Birth>) -> String {
        format!("{MARK}{}\r\n", serde_json::to_string(line).unwrap())
    }

    #[test]
    fn a_report_is_found_among_other_lines() {
        let text = format!(
            "(XEN) d1: hello\r\n{}[    1.0] noise\r\n{}after",
            line(&Line::Seen(birth())),
            line(&Line::End(1_000_000_000))
        );
        let report = Report::from_console(&text).unwrap();
        assert_eq!(
            report,
            Report {
                tsc_hz: 1_000_000_000,
                births: vec![birth()]
            }
        );
    }

    #[test]
    fn incomplete_output_is_an_error() {
        let whole = line(&Line::Seen(birth()));
        assert!(Report::from_console(&whole).unwrap_err().contains("end"));
        let (cut, _) = whole.split_at(60);
        assert!(Report::from_console(&format!("{cut}\n{}", line(&Line::End(1)))).is_err());
        assert_eq!(
            Report::from_console(&line(&Line::Failed("no vif".into()))),
            Err("no vif".into())
        );
    }
}
