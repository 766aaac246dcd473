//! The guest: its boot order, on one page.
//!
//! Nothing here waits for anything that the first answer does not need. The
//! only wait is for the first burst of xenstore answers, and it has a bound.
#![no_std]
#![no_main]
#![deny(unsafe_code)]

extern crate alloc;

#[allow(unsafe_code, reason = "hypercalls, RAM and the end of the domain")]
mod machine;

use machine::builder::{self, Left};
use machine::crash::crash;
use machine::xen::{self, Xen};
use mayfly::cmdline;
use mayfly::guest::{Guest, instant};
use mayfly::nic::Nic;
use mayfly::report::{Facts, Report, WithReport};
use mayfly::stack::Stack;
use mayfly::timeline::{Phase, Timeline};
use mayfly_boot::exceptions;
use mayfly_drivers::grant::GrantTable;
use mayfly_drivers::netfront::{self, NetFront};
use mayfly_drivers::{Hypervisor, SystemTime};
use mayfly_site::{BuiltIn, Pack, Site};

/// A xenstored that has not answered the first burst by then is not going to.
const XENSTORE_PATIENCE_NS: u64 = 10_000_000_000;

/// Called by entry.s, once, on the boot stack.
#[allow(unsafe_code, reason = "entry.s calls it by name")]
#[unsafe(no_mangle)]
extern "C" fn mayfly_main(start_info: u32, entry_tsc: u64, long_mode_tsc: u64) -> ! {
    // 1. The machine: exceptions are reported, Xen can be called, RAM is ours.
    exceptions::init();
    let timeline = Timeline::new(xen::tsc);
    timeline.stamp_at(Phase::Entry, entry_tsc);
    timeline.stamp_at(Phase::LongMode, long_mode_tsc);
    if !xen::init_hypercall_page() {
        crash(format_args!("not on Xen: no CPUID leaf says so"));
    }
    timeline.stamp(Phase::HypercallPage);
    let left = builder::read(start_info).unwrap_or_else(|error| crash(format_args!("{error}")));
    let Left {
        info,
        ram,
        pack,
        network,
        network_pages,
    } = left;
    let config = cmdline::parse(info.cmdline, &mut |word| {
        xen::debug_print(format_args!("command line: {word}: unknown, ignored"));
    })
    .unwrap_or_else(|error| crash(format_args!("{error}")));
    let site = match pack {
        None => Site::BuiltIn(BuiltIn::new(config.ipv4(), config.ipv6())),
        Some(octets) => match Pack::open(octets) {
            Ok(pack) => Site::Pack(pack),
            Err(error) => crash(format_args!("site pack (module 0): {error}")),
        },
    };
    let xen = &Xen::new(ram, network_pages)
        .unwrap_or_else(|error| crash(format_args!("shared_info: {error}")));
    timeline.stamp(Phase::SharedInfo);
    let grants = match &network {
        None => GrantTable::new(xen),
        Some(network) => GrantTable::used_below(xen, network.free),
    };
    let grants = grants.unwrap_or_else(|error| crash(format_args!("grant table: {error}")));
    timeline.stamp(Phase::GrantTable);

    // 2. The toolstack has connected the network; or the first burst goes out: which back end, which MAC address?
    let mut store = xen
        .xenstore(network.as_ref())
        .unwrap_or_else(|error| crash(format_args!("xenstore: {error}")));
    let sizing = xen.ram().sizing();
    let buffers = netfront::Config {
        rx_buffers: sizing.rx_pages,
        tx_buffers: sizing.tx_pages,
    };
    let mut front = NetFront::new(xen, grants, buffers);
    if let Some(network) = &network {
        front
            .adopt(network)
            .unwrap_or_else(|why| crash(format_args!("{}", why.as_str())));
        timeline.stamp(Phase::Preconnected);
    } else {
        front.start(&mut store);
        timeline.stamp(Phase::XenstoreSent);
    }

    // 3. While xenstored works, if it has to: the services.
    let figures = || xen.ram().memory();
    let report = Report::new(&timeline, xen.tsc_khz(), &figures);
    let pages = WithReport::new(site.clone(), &report, config.endpoints);
    let memory = &mut |len| xen.ram().bytes(len);
    let mut nic = Nic::new(front, &timeline);
    let now = instant(xen.now());
    report.began.set(now);
    let (root, is_random) = xen.root(network.as_ref());
    if !is_random {
        xen::debug_print(format_args!(
            "neither the CPU nor the toolstack gives random numbers: secrets can be guessed"
        ));
    }
    let stack = Stack::new(
        &mut nic, &config, &root, &sizing, site, &pages, &report, now,
    );

    // 4. Rings are granted and published; the first frame is queued before any back end looks.
    if network.is_none() {
        let patience = SystemTime(xen.now().0.saturating_add(XENSTORE_PATIENCE_NS));
        nic.front()
            .discover(&mut store, patience)
            .unwrap_or_else(|why| crash(format_args!("{}", why.as_str())));
        timeline.stamp(Phase::XenstoreAnswered);
        nic.front()
            .connect(&mut store)
            .unwrap_or_else(|why| crash(format_args!("{}", why.as_str())));
        timeline.stamp(Phase::RingsPosted);
    }
    let mut guest = Guest::new(xen, store, nic, stack, &timeline, &report, config.console);
    guest.link_up(xen.now());
    report.facts.set(Facts {
        slept_tsc: xen.slept(),
        hypercalls_to_first_tx: xen::hypercalls(),
        xenstore_requests: guest.store.counters().requests,
        xenstore_round_trips: guest.store.counters().round_trips,
    });

    // 5. From here on everything is an event. This is the one place where the guest sleeps.
    loop {
        let now = xen.now();
        let wake = guest.step(memory, now, xen.unix_seconds(now));
        if wake.is_none_or(|at| at > now) {
            xen.poll(&guest.ports(), wake);
        }
    }
}
