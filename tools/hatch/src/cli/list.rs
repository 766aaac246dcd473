//! `hatch list` and `hatch show`.

use std::path::Path;

use anyhow::Context as _;
use clap::Args;
use mayfly_switch::control::SOCKET;
use mayfly_switch::port::Traffic;
use mayfly_switch::switch::GuestStatus;
use mayfly_toolstack::paths::{self, mac_text};
use mayfly_toolstack::traffic::{self, NetworkTraffic};
use mayfly_toolstack::words;
use mayfly_xenstore::{Request, Store};
use serde::Serialize;

use super::BOUND;
use super::domains::{Domain, Meant, Ways, meant, optional};
use super::exit::Failure;

/// Lists all domains and marks those that hatch created.
#[derive(Args, Debug)]
pub(crate) struct List {
    /// Lists only domains that hatch created.
    #[arg(long)]
    ours: bool,

    /// Prints JSON, one array.
    #[arg(long)]
    pub(crate) json: bool,
}

/// Shows one domain in detail.
#[derive(Args, Debug)]
pub(crate) struct Show {
    /// The name or the number of the domain.
    #[arg(value_name = "DOMAIN")]
    domain: String,

    /// Prints JSON.
    #[arg(long)]
    pub(crate) json: bool,
}

/// A domain with its network device.
#[derive(Serialize)]
struct Shown {
    #[serde(flatten)]
    domain: Domain,
    vif: Option<Vif>,
    /// Its network as `hatch switch` sees it, if it is on the switch.
    #[serde(skip_serializing_if = "Option::is_none")]
    switch: Option<GuestStatus>,
    /// Whether mayfly has reported that its first packet has left.
    ready: bool,
    /// Its own last words, if it has ended by itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
}

#[derive(Serialize)]
struct Vif {
    mac: Option<String>,
    bridge: Option<String>,
    frontend_state: Option<String>,
    backend_state: Option<String>,
}

pub(crate) fn list(arguments: &List) -> Result<(), Failure> {
    let mut domains = Ways::open()?.all()?;
    domains.retain(|domain| domain.ours || !arguments.ours);
    let switched = traffic::on_switch(Path::new(SOCKET), BOUND);
    for domain in &mut domains {
        let guest = switched.get(&domain.domid);
        domain.network = NetworkTraffic::find(guest, domain.domid);
    }
    if arguments.json {
        println!("{}", serde_json::to_string(&domains).context("JSON")?);
        return Ok(());
    }
    println!(
        "{:<32} {:>5} {:>9} {:>5}  {:<9} {:>10}  {:<7} {:>9} {:>9} {:>7}",
        "Name",
        "ID",
        "Mem/KiB",
        "VCPUs",
        "State",
        "Time/s",
        "Network",
        "Sent/KiB",
        "Rcvd/KiB",
        "Dropped"
    );
    for domain in domains {
        println!(
            "{:<32} {:>5} {:>9} {:>5}  {:<9} {:>10}  {}{}",
            printable(domain.name.as_deref().unwrap_or("-")),
            domain.domid,
            domain.memory_kib,
            domain.vcpus,
            domain.state,
            seconds(domain.cpu_ns),
            network(domain.network.as_ref()),
            if domain.ours {
                ""
            } else {
                "  (another toolstack's)"
            }
        );
    }
    Ok(())
}

pub(crate) fn show(arguments: &Show) -> Result<(), Failure> {
    let mut ways = Ways::open()?;
    let Meant::Domain(domid) = meant(&mut ways.store, &mut ways.xen, &arguments.domain)? else {
        return Err(Failure::no_such_domain(&arguments.domain));
    };
    let domain = ways.all()?.into_iter().find(|domain| domain.domid == domid);
    let domain = domain.ok_or_else(|| Failure::no_such_domain(&arguments.domain))?;
    let shown = details(&mut ways.store, domain)?;
    if arguments.json {
        println!("{}", serde_json::to_string(&shown).context("JSON")?);
        return Ok(());
    }
    let Shown {
        domain,
        vif,
        switch,
        ready,
        error,
    } = shown;
    let mut lines = vec![
        ("name", domain.name.unwrap_or_else(|| "-".to_owned())),
        ("domid", domain.domid.to_string()),
        ("uuid", domain.uuid),
        (
            "made by",
            if domain.ours {
                "hatch"
            } else {
                "another toolstack"
            }
            .to_owned(),
        ),
        ("state", domain.state.to_owned()),
        ("memory", format!("{} KiB", domain.memory_kib)),
        ("vcpus", domain.vcpus.to_string()),
        ("time", format!("{} s", seconds(domain.cpu_ns))),
        ("ready", if ready { "yes" } else { "no" }.to_owned()),
    ];
    lines.extend(error.map(|error| ("error", error)));
    if let Some(vif) = vif.filter(|_| switch.is_none()) {
        let text = |value: Option<String>| value.unwrap_or_else(|| "-".to_owned());
        lines.push(("mac", text(vif.mac)));
        lines.push(("bridge", text(vif.bridge)));
        lines.push(("front end", text(vif.frontend_state)));
        lines.push(("back end", text(vif.backend_state)));
    }
    match (switch, &domain.network) {
        (Some(switch), _) => lines.extend(on_switch(&switch)),
        (None, Some(traffic)) => {
            lines.push(("sent", counted(&traffic.sent)));
            lines.push(("received", counted(&traffic.received)));
            lines.push(("dropped", traffic.dropped.to_string()));
        }
        (None, None) => {}
    }
    for (name, value) in lines {
        println!("{name:<10} {}", printable(&value));
    }
    Ok(())
}

fn details(store: &mut dyn Store, domain: Domain) -> Result<Shown, Failure> {
    let domid = domain.domid;
    let back = paths::backend(domid);
    let read = [
        format!("{back}/mac"),
        // Read from libxl's directory, which hatch writes too: only libxl writes the bridge into the back end's.
        format!("{}/bridge", paths::libxl_vif(domid)),
        format!("{}/state", paths::front(domid)),
        paths::state(domid),
        paths::ready(domid),
        paths::error(domid),
    ];
    let mut asked = Vec::new();
    for path in &read {
        asked.push(store.send(Request::read(path))?);
    }
    let mut answers = Vec::new();
    for id in asked {
        answers.push(optional(store.answer(id))?);
    }
    let [mac, bridge, frontend_state, backend_state, ready, error] =
        <[_; 6]>::try_from(answers).unwrap_or_default();
    let state = |state: Option<String>| state.map(|state| xenbus_state(&state));
    let vif = backend_state.is_some().then(|| Vif {
        mac,
        bridge,
        frontend_state: state(frontend_state),
        backend_state: state(backend_state),
    });
    // A guest that began on netback keeps its back end's directory when it is moved to the switch.
    let switched = status_on_switch(domid);
    let network = NetworkTraffic::find(switched.as_ref(), domid);
    Ok(Shown {
        domain: Domain { network, ..domain },
        vif,
        switch: switched,
        ready: ready.as_deref() == Some("1"),
        error: error.as_deref().and_then(words::shown),
    })
}

/// The columns of a domain's network.
fn network(network: Option<&NetworkTraffic>) -> String {
    let Some(traffic) = network else {
        return format!("{:<7} {:>9} {:>9} {:>7}", "-", "-", "-", "-");
    };
    let on = traffic.network.as_str();
    let kib = |traffic: &Traffic| traffic.bytes.div_ceil(1024);
    let (sent, received) = (kib(&traffic.sent), kib(&traffic.received));
    format!("{on:<7} {sent:>9} {received:>9} {:>7}", traffic.dropped)
}

/// The status of a guest on the switch; `None` if no switch runs, or it does not have the guest.
fn status_on_switch(domid: u16) -> Option<GuestStatus> {
    traffic::on_switch(Path::new(SOCKET), BOUND).remove(&domid)
}

fn counted(traffic: &Traffic) -> String {
    format!("{} frames, {} bytes", traffic.frames, traffic.bytes)
}

/// Lines on a guest's network. Causes for which nothing was dropped are left out.
fn on_switch(guest: &GuestStatus) -> Vec<(&'static str, String)> {
    let counters = &guest.counters;
    let shut = guest.shut.as_ref();
    let mut lines = vec![
        ("mac", mac_text(&guest.mac)),
        ("bridge", guest.bridge.clone()),
        (
            "back end",
            shut.map_or("switch".to_owned(), |why| format!("switch, shut: {why}")),
        ),
        ("sent", counted(&counters.from_guest)),
        ("received", counted(&counters.to_guest)),
    ];
    let dropped: Vec<String> = counters
        .drops()
        .filter(|(_, count)| *count > 0)
        .map(|(cause, count)| format!("{count} ({cause})"))
        .collect();
    if !dropped.is_empty() {
        lines.push(("dropped", dropped.join(", ")));
    }
    lines
}

/// `enum xenbus_state` of public/io/xenbus.h.
fn xenbus_state(state: &str) -> String {
    let name = match state {
        "1" => "initialising",
        "2" => "waiting for the other end",
        "3" => "initialised",
        "4" => "connected",
        "5" => "closing",
        "6" => "closed",
        _ => return format!("unknown ({})", printable(state)),
    };
    name.to_owned()
}

fn seconds(ns: u64) -> String {
    format!("{}.{:03}", ns / 1_000_000_000, ns / 1_000_000 % 1000)
}

/// A guest's text for the terminal, cut to 128 characters and with control characters escaped: a guest may write any
/// bytes.
fn printable(text: &str) -> String {
    let shown: String = text.chars().take(128).collect();
    match shown.chars().any(char::is_control) {
        true => shown.escape_debug().to_string(),
        false => shown,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_guest_on_the_switch_is_shown_with_what_was_dropped() {
        let mut guest = GuestStatus {
            bridge: "xenbr0".to_owned(),
            mac: [0, 0x16, 0x3e, 0, 0, 1],
            ..GuestStatus::default()
        };
        guest.counters.to_guest.frames = 3;
        guest.counters.to_guest.bytes = 180;
        let line = |guest: &GuestStatus, name| {
            let lines = on_switch(guest).into_iter();
            let mut found = lines.filter(|(known, _)| *known == name);
            found.next().map(|(_, text)| text)
        };
        assert_eq!(line(&guest, "received").unwrap(), "3 frames, 180 bytes");
        assert_eq!(line(&guest, "back end").unwrap(), "switch");
        assert_eq!(line(&guest, "dropped"), None);
        guest.counters.guard_source = 2;
        guest.counters.dropped_full = 1;
        guest.shut = Some("a slot crosses its page".to_owned());
        assert_eq!(
            line(&guest, "dropped").unwrap(),
            "1 (its ring was full), 2 (guard: source)"
        );
        assert!(line(&guest, "back end").unwrap().contains("shut: a slot"));
    }
}
