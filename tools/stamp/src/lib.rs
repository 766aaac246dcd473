//! What one boot of a guest costs, measured from dom0: the job that the host gives, the result that it gets back, and
//! the two parsers that turn Xen's and xenstored's own traces into counts.
//!
//! All times are ticks of the time stamp counter that dom0 reads ([`Report::tsc_hz`] of them make a second). On an
//! emulated machine that counts instructions (QEMU's `-icount shift=0`) one tick is one instruction of everything
//! together: hypervisor, dom0 and guest.
//!
//! A birth is either plain or traced. Plain births give the times; traced ones the counts, and their times are kept
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

/// Start of each line of output that holds a [`Line`] as JSON; everything else on the console is not ours.
pub const MARK: &str = "mayfly-stamp: ";

/// What tells that a guest is ready.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Ready {
    /// The first byte of an HTTP answer.
    Http,
    /// The guest has shut itself down.
    Shutdown,
}

/// What dom0's neighbour cache holds for the guest's address when it is unpaused.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Neighbour {
    /// The guest's link address, for good: what an earlier birth has left may be about to expire.
    #[default]
    Warm,
    /// Nothing: the client asks for the address first.
    Cold,
}

/// Who makes a guest, and takes it away.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Maker {
    /// `xl`, with the hotplug script that the configuration names.
    Xl,
    /// `hatch create`.
    Hatch,
    /// `hatch create`, out of a pool of `hatch pool`.
    Pool,
}

/// A guest to be measured.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Guest {
    /// What it is called in the results.
    pub label: String,
    /// Its name in `config`.
    pub name: String,
    /// Who makes it.
    pub maker: Maker,
    /// Path of its configuration in dom0, as `xl` and `hatch` read it.
    pub config: String,
    /// Whether it does not run without a console, which `xl` gives to all and `hatch` to who asks for it.
    pub console: bool,
    /// Its MAC address.
    pub mac: [u8; 6],
    /// Its IPv4 address.
    pub address: Ipv4Addr,
    /// When it counts as ready.
    pub ready: Ready,
    /// Whether it serves its boot timeline at [`TIMELINE`].
    pub timeline: bool,
}

/// Where a guest serves its own boot timeline.
pub const TIMELINE: &str = "/.mayfly/boot";

/// Everything to be measured in one run of dom0.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Job {
    /// The guests, born in turn.
    pub guests: Vec<Guest>,
    /// Plain births of each.
    pub plain: u32,
    /// Traced births of each, after the plain ones.
    pub traced: u32,
    /// Bound of every single wait, in seconds.
    pub bound_s: u64,
    /// State of dom0's neighbour cache.
    pub neighbour: Neighbour,
    /// Size of Xen's trace buffer of each CPU, in pages.
    pub trace_pages: u32,
}

/// What was seen of a guest by the instant that the owner of this value names.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counts {
    /// VM exits.
    pub exits: u64,
    /// VM exits by SVM exit code (AMD64 Architecture Programmer's Manual 2, appendix C).
    pub reasons: BTreeMap<u32, u64>,
    /// Hypercalls by number (`public/xen.h`).
    pub hypercalls: BTreeMap<u32, u64>,
    /// Ticks spent in the guest, from each VM entry to the exit that follows it: the guest's own instructions where
    /// ticks are instructions, and Xen's few hundred around each entry and exit.
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
    /// xenstore requests of the guest until it was ready; not known of one that was introduced to xenstored before its birth.
    pub xenstore_to_ready: Option<u64>,
}

/// One boot of one guest. Instants are ticks; `None` is what this guest does not do.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Birth {
    /// [`Guest::label`].
    pub guest: String,
    /// Its number.
    pub domid: u16,
    /// Before the program that makes it was started.
    pub create: u64,
    /// When it had ended.
    pub created: u64,
    /// Before the unpause hypercall.
    pub unpause: u64,
    /// When the first frame from the guest was read from its vif.
    pub first_frame: Option<u64>,
    /// When the connection to port 80 was established: asked for at the first frame, or before the guest ran where its
    /// network was connected by then.
    pub syn_ack: Option<u64>,
    /// When it was ready.
    pub ready: u64,
    /// Before the program that destroys it was started.
    pub destroy: u64,
    /// When it had ended.
    pub destroyed: u64,
    /// When the kernel had taken its interface away, and Xen had forgotten it.
    pub gone: u64,
    /// The guest's CPU time when it was ready, in ns, by `XEN_DOMCTL_getdomaininfo`.
    pub cpu_ns: u64,
    /// Counts, of a traced birth.
    pub traced: Option<Traced>,
    /// What the guest says of its own boot.
    pub timeline: Option<serde_json::Value>,
    /// What its maker says of its own work.
    pub making: Option<serde_json::Value>,
}

impl Birth {
    /// Ticks from nothing until it has answered, without what the measuring program does between making it and unpausing it.
    #[must_use]
    pub fn whole(&self) -> u64 {
        self.created - self.create + self.ready - self.unpause
    }
}

/// Everything that was measured.
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
    /// Something that was measured.
    Seen(T),
    /// What went wrong; nothing follows.
    Failed(String),
    /// Ticks in a second; nothing follows.
    End(u64),
}

/// Collects the lines that [`MARK`] starts out of everything that was on a console: what was measured, and the ticks in a second.
///
/// # Errors
/// The program's own, a line that is cut or is not JSON, and output without an end.
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
    /// Collects the births out of everything that was on a console.
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
