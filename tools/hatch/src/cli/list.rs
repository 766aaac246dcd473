//! `hatch list` and `hatch show`.

use anyhow::Context as _;
use clap::Args;
use mayfly_toolstack::words;
use mayfly_xenstore::{Request, Store};
use serde::Serialize;

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
    if arguments.json {
        println!("{}", serde_json::to_string(&domains).context("JSON")?);
        return Ok(());
    }
    println!(
        "{:<32} {:>5} {:>9} {:>5}  {:<9} {:>10}",
        "Name", "ID", "Mem/KiB", "VCPUs", "State", "Time/s"
    );
    for domain in domains {
        println!(
            "{:<32} {:>5} {:>9} {:>5}  {:<9} {:>10}{}",
            printable(domain.name.as_deref().unwrap_or("-")),
            domain.domid,
            domain.memory_kib,
            domain.vcpus,
            domain.state,
            seconds(domain.cpu_ns),
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
    if let Some(vif) = vif {
        let text = |value: Option<String>| value.unwrap_or_else(|| "-".to_owned());
        lines.push(("mac", text(vif.mac)));
        lines.push(("bridge", text(vif.bridge)));
        lines.push(("front end", text(vif.frontend_state)));
        lines.push(("back end", text(vif.backend_state)));
    }
    for (name, value) in lines {
        println!("{name:<10} {}", printable(&value));
    }
    Ok(())
}

fn details(store: &mut dyn Store, domain: Domain) -> Result<Shown, Failure> {
    let domid = domain.domid;
    let back = format!("/local/domain/0/backend/vif/{domid}/0");
    let paths = [
        format!("{back}/mac"),
        // libxl's copy, and hatch's: the back end's directory has it only of guests that libxl made.
        format!("/libxl/{domid}/device/vif/0/bridge"),
        format!("/local/domain/{domid}/device/vif/0/state"),
        format!("{back}/state"),
        words::ready_path(domid),
        words::error_path(domid),
    ];
    let mut asked = Vec::new();
    for path in &paths {
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
    Ok(Shown {
        domain,
        vif,
        ready: ready.as_deref() == Some("1"),
        error: error.as_deref().and_then(words::shown),
    })
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
