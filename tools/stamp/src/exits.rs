//! Counts VM exits and hypercalls in the file that `xentrace` writes.
//!
//! The file is a sequence of records (`public/trace.h`, `struct t_rec`), the 32-bit words of which are little-endian:
//! a header (bits 0 to 27 event, 28 to 30 number of extra words, 31 whether a time stamp follows), the time stamp in
//! two words, the extra words. Before each run of records of one CPU `xentrace` puts a `TRC_TRACE_CPU_CHANGE` of its
//! own. Events of HVM and PVH guests do not name the guest: there must be one such guest only.

use std::collections::BTreeMap;

use crate::Counts;

const LOST_RECORDS: u32 = 0x0001_f001;
const CPU_CHANGE: u32 = 0x0001_f003;
const VMENTRY: u32 = 0x0008_1001;
const VMEXIT: u32 = 0x0008_1002;
const VMMCALL: u32 = 0x0008_2012;
/// Set in events with 64-bit addresses (`TRC_64_FLAG`).
const WIDE: u32 = 0x100;
/// Set in events of nested guests; the event is otherwise the same (`TRC_HVM_NESTEDFLAG`).
const NESTED: u32 = 0x400;

/// The argument of `xentrace -e`: `TRC_HVM`.
pub const EVENTS: &str = "0x0008f000";

enum Event {
    Entry,
    Exit { reason: u32 },
    Hypercall { number: u32 },
}

/// The events of one guest in the order of their time.
pub struct Trace(Vec<(u64, Event)>);

#[derive(Default)]
struct Cpu {
    /// Time of the last exit: a hypercall's record has no time.
    exit: Option<u64>,
}

impl Trace {
    /// Parses a whole file.
    ///
    /// # Errors
    /// A cut record; records that Xen has lost because its buffer was full; a hypercall outside of a VM exit.
    pub fn parse(file: &[u8]) -> Result<Self, String> {
        let mut words = file.chunks_exact(4).map(|b| {
            b.iter()
                .rev()
                .fold(0_u32, |word, byte| word << 8 | u32::from(*byte))
        });
        let mut cpus: BTreeMap<u32, Cpu> = BTreeMap::new();
        let mut cpu = 0;
        let mut events = Vec::new();
        while let Some(header) = words.next() {
            let mut next = || {
                words
                    .next()
                    .ok_or_else(|| String::from("Xen's trace ends within a record"))
            };
            let time = if header >> 31 == 1 {
                let low = next()?;
                Some(u64::from(next()?) << 32 | u64::from(low))
            } else {
                None
            };
            let extra = (0..header >> 28 & 7)
                .map(|_| next())
                .collect::<Result<Vec<_>, _>>()?;
            let first = extra.first().copied();
            let state = cpus.entry(cpu).or_default();
            match (header & 0x0fff_ffff & !WIDE, time, first) {
                (CPU_CHANGE, _, Some(number)) => cpu = number,
                (LOST_RECORDS, _, _) => {
                    return Err(format!(
                        "Xen lost {} trace records: its buffer is too small",
                        first.unwrap_or(0)
                    ));
                }
                (VMENTRY, Some(time), _) => events.push((time, Event::Entry)),
                (VMEXIT, Some(time), Some(reason)) => {
                    state.exit = Some(time);
                    events.push((time, Event::Exit { reason }));
                }
                (VMMCALL, _, Some(number)) => {
                    let time = state
                        .exit
                        .ok_or("Xen's trace has a hypercall outside a VM exit")?;
                    events.push((time, Event::Hypercall { number }));
                }
                (event, _, _)
                    if event & NESTED != 0
                        && event & !NESTED & 0xffff_f000 == VMENTRY & 0xffff_f000 =>
                {
                    return Err("Xen's trace is of a nested guest".into());
                }
                _ => {}
            }
        }
        events.sort_by_key(|(time, _)| *time);
        Ok(Self(events))
    }

    /// The time of the first VM entry, in ticks.
    #[must_use]
    pub fn entry(&self) -> Option<u64> {
        self.0
            .iter()
            .find(|(_, event)| matches!(event, Event::Entry))
            .map(|(time, _)| *time)
    }

    /// The counts up to this tick.
    #[must_use]
    pub fn until(&self, tick: u64) -> Counts {
        let mut counts = Counts::default();
        let mut entered = None;
        for (time, event) in self.0.iter().take_while(|(time, _)| *time <= tick) {
            match event {
                Event::Entry => entered = Some(*time),
                Event::Exit { reason } => {
                    counts.exits += 1;
                    *counts.reasons.entry(*reason).or_default() += 1;
                    counts.guest_ticks += entered.take().map_or(0, |entered| time - entered);
                }
                Event::Hypercall { number } => *counts.hypercalls.entry(*number).or_default() += 1,
            }
        }
        // The guest was running at that tick.
        counts.guest_ticks += entered.map_or(0, |entered| tick.saturating_sub(entered));
        counts
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(words: &[u32]) -> Vec<u8> {
        words.iter().flat_map(|word| word.to_le_bytes()).collect()
    }

    /// The do-nothing guest, as `xentrace` of Xen 4.17 wrote it.
    const NULL: [u32; 13] = [
        0x2001_f003,
        1,
        0x28, // CPU 1, 40 bytes
        0x8008_1001,
        0x0edc_8bc8,
        0xd, // entry
        0xa008_1002,
        0x0eef_bba6,
        0xd,
        0x81,
        0x0010_000f, // exit: VMMCALL at 0x10000f
        0x1008_2012,
        29, // SCHEDOP
    ];

    #[test]
    fn the_null_guest_exits_once() {
        let trace = Trace::parse(&file(&NULL)).unwrap();
        assert_eq!(trace.entry(), Some(0xd_0edc_8bc8));
        assert_eq!(trace.until(0xd_0edc_8bc7), Counts::default());
        assert_eq!(
            trace.until(0xd_0edc_8bd0),
            Counts {
                guest_ticks: 8,
                ..Counts::default()
            }
        );
        let counts = trace.until(u64::MAX);
        assert_eq!(counts.exits, 1);
        assert_eq!(counts.reasons, [(0x81, 1)].into());
        assert_eq!(counts.hypercalls, [(29, 1)].into());
        assert_eq!(counts.guest_ticks, 0x0eef_bba6 - 0x0edc_8bc8);
    }

    #[test]
    fn wide_exits_count_and_the_order_is_that_of_time() {
        let words = [
            0x2001_f003,
            1,
            0,
            0x8008_1001,
            30,
            0,
            0xb008_1102,
            40,
            0,
            0x6e,
            0,
            0, // the later ones, on CPU 1
            0x2001_f003,
            0,
            0,
            0x8008_1001,
            10,
            0,
            0xb008_1102,
            15,
            0,
            0x81,
            0,
            0,
            0x1008_2012,
            32,
        ];
        let trace = Trace::parse(&file(&words)).unwrap();
        assert_eq!(trace.entry(), Some(10));
        assert_eq!(trace.until(20).hypercalls, [(32, 1)].into());
        assert_eq!(trace.until(20).guest_ticks, 5);
        assert_eq!(trace.until(40).guest_ticks, 15);
        assert_eq!(trace.until(40).reasons, [(0x6e, 1), (0x81, 1)].into());
    }

    #[test]
    fn what_is_missing_is_an_error() {
        for cut in [4, 5, 7, 10] {
            let words = NULL.get(..cut).unwrap();
            assert!(Trace::parse(&file(words)).is_err(), "{cut}");
        }
        let lost = [0x4001_f001, 17, 0, 0, 0];
        assert!(Trace::parse(&file(&lost)).err().unwrap().contains("17"));
        assert!(Trace::parse(&file(&[0x1008_2012, 29])).is_err());
    }
}
