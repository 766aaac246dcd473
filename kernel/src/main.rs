//! The guest: the machine first, then the boot order of [`mayfly::boot`], then the event loop.
#![no_std]
#![no_main]
#![deny(unsafe_code)]

extern crate alloc;

#[allow(unsafe_code, reason = "hypercalls, RAM and the end of the domain")]
mod machine;

use core::convert::Infallible;

use machine::builder::{self, Left};
use machine::crash::crash;
use machine::hypercall;
use machine::xen::Xen;
use mayfly::boot::{Machine, boot};
use mayfly::report::Facts;
use mayfly::timeline::{BootPhase, Timeline};
use mayfly_boot::exceptions;
use mayfly_drivers::Hypervisor;

/// Called by entry.s, once, on the boot stack.
#[allow(unsafe_code, reason = "entry.s calls it by name")]
#[unsafe(no_mangle)]
extern "C" fn mayfly_main(start_info: u32, entry_tsc: u64, long_mode_tsc: u64) -> ! {
    // Step 2 of the boot order in ARCHITECTURE.md, the machine: exceptions, hypercalls, RAM, xenstored's ring.
    exceptions::init();
    let timeline = Timeline::new(hypercall::tsc);
    timeline.stamp_at(BootPhase::Entry, entry_tsc);
    timeline.stamp_at(BootPhase::LongMode, long_mode_tsc);
    if !hypercall::init_hypercall_page() {
        crash(format_args!("not on Xen: no CPUID leaf says so"));
    }
    timeline.stamp(BootPhase::HypercallPage);
    let left = builder::read(start_info).unwrap_or_else(|error| crash(format_args!("{error}")));
    let Left {
        info,
        ram,
        pack,
        network,
        network_pages,
    } = left;
    let xen = &Xen::new(ram, network_pages)
        .unwrap_or_else(|error| crash(format_args!("shared_info: {error}")));
    timeline.stamp(BootPhase::SharedInfo);
    let store = xen
        .xenstore(network.as_ref())
        .unwrap_or_else(|error| crash(format_args!("xenstore: {error}")));

    // Steps 3 to 6, the network and the services: `mayfly::boot` has their order.
    let machine = Machine {
        xen,
        store,
        cmdline: info.cmdline,
        pack,
        network: network.as_ref(),
        sizing: &xen.ram().sizing(),
        memory: &|| xen.ram().memory(),
        entropy: &|| xen.entropy(),
        tsc_khz: xen.tsc_khz(),
        timeline: &timeline,
    };
    let never = boot(machine, |mut guest| -> Infallible {
        guest.report.facts.set(Facts {
            slept_tsc: xen.slept(),
            hypercalls_to_first_tx: hypercall::hypercalls(),
            xenstore_requests: guest.store.counters().requests,
            xenstore_round_trips: guest.store.counters().round_trips,
        });
        // Step 7, the event loop. After the boot, the guest sleeps only here.
        let memory = &mut |len| xen.ram().bytes(len);
        loop {
            let now = xen.now();
            let wake = guest.step(memory, now, xen.unix_seconds(now));
            if wake.is_none_or(|at| at > now) {
                xen.poll(&guest.ports(), wake);
            }
        }
    });
    match never {
        Ok(never) => match never {},
        Err(failure) => crash(format_args!("{failure}")),
    }
}
