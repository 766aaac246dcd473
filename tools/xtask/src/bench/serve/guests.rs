//! Guests that serve each other, and one that floods beside them, on netback and on the switch: counted, with the same
//! guests in one run, which are moved from one to the other.

use std::fmt::Write as _;

use anyhow::{Context, Result};
use mayfly_lab::{Lab, Options, Placed, Report, linux};

use super::super::job::{HATCH, forget};
use super::bed::{self, Files, Peer, Server, Size};
use super::counted::{BOUND, MARK, SCRIPT, sections};
use super::load::{BULK, Load, Sample};
use super::{figures, site};

/// The back ends, in the order in which the guests are on them.
const NETWORKS: [&str; 2] = ["netback", "switch"];
/// The Linux guests: the client, and the one that floods.
const LINUX: [(&str, &str); 2] = [("client", "10.0.2.90"), ("flooder", "10.0.2.91")];
/// The rate of the queries beside a flood, per second.
const RATE: u64 = 500;

/// What the flooder does, and its script. Each ends by itself, a little after the queries beside it.
const NOISES: [(&str, &str); 5] = [
    ("nothing", "true"),
    ("computes", "timeout 1.5 sh -c 'while :; do :; done'"),
    (
        "sends frames to the bridge",
        "flood 02:00:00:00:00:99 10.0.2.99",
    ),
    ("sends frames to all", "flood ff:ff:ff:ff:ff:ff 10.0.2.255"),
    (
        "sends frames to the guest that is asked",
        "flood $SERVER 10.0.2.80",
    ),
];

/// Sends frames to the MAC address $1 and the IPv4 address $2 as fast as it can.
const FLOOD: &str = r#"flood() {
    echo rem_device_all >/proc/net/pktgen/kpktgend_0
    echo add_device eth0 >/proc/net/pktgen/kpktgend_0
    for word in "count 0" "pkt_size 60" "dst_mac $1" "dst $2" "delay 0" "udp_dst_min 9" "udp_dst_max 9"; do
        echo "$word" >/proc/net/pktgen/eth0
    done
    timeout -s INT 1.5 sh -c 'echo start >/proc/net/pktgen/pgctrl'
    grep -o '[0-9]*pps' /proc/net/pktgen/eth0
}"#;

/// What one section of the log is about.
enum Measured {
    /// The client asks the guest that serves.
    Pair(Load),
    /// dom0 asks it, while the flooder does this.
    Beside(&'static str),
}

/// One section.
struct Section {
    network: &'static str,
    what: Measured,
}

/// Counts, and returns the tables.
///
/// # Errors
/// The errors of the lab; a guest that does not serve; malformed output.
pub(super) fn run(loads: Vec<Load>, report: Report<'_>) -> Result<String> {
    let size = Size::Small;
    let peer = Peer {
        server: Server::Mayfly,
        size,
    };
    let mut files = Files::make(&[size], 1, report)?.0;
    let questions = site::questions("small.test", site::SMALL)?.into_bytes();
    let guest = linux::client(
        &[(size.questions().trim_start_matches('/'), questions)],
        report,
    )?;
    files.push(("/guest/client".into(), 0o644, guest.ramdisk));
    let kernel = linux::vmlinux(&std::fs::read(&guest.kernel)?)?;
    files.push(("/guest/vmlinux".into(), 0o644, kernel));
    for (name, address) in LINUX {
        let config = format!(
            "name = \"{name}\"\ntype = \"pvh\"\nkernel = \"/guest/vmlinux\"\nramdisk = \"/guest/client\"\nmemory = 256\n\
             vcpus = 1\nextra = \"console=hvc0 quiet pci=off address={address}/24\"\nvif = [ \"bridge=xenbr0\" ]\n\
             tsc_mode = \"native\"\non_crash = \"preserve\"\n"
        );
        files.push((format!("/guest/{name}.cfg"), 0o644, config.into()));
    }
    let (script, plan) = script(peer, loads)?;
    files.push((SCRIPT.into(), 0o755, script.into()));
    let name = format!("serve-guests-{}", std::process::id());
    let counted = Options::counted(&name, &[SCRIPT]);
    let placed = files.into_iter().map(|(path, mode, content)| Placed {
        path,
        mode,
        content,
    });
    let options = Options {
        files: placed.collect(),
        counted: true,
        autorun: counted.autorun,
        bound: counted.bound,
        ..bed::options(&name, 1)
    };
    let lab = Lab::up(&options, report)?;
    report("counting");
    let log = lab.wait_off(BOUND)?;
    let table = table(&plan, &log)?;
    forget(&name)?;
    Ok(table)
}

fn script(peer: Peer, loads: Vec<Load>) -> Result<(String, Vec<Section>)> {
    let mut script = String::from("#!/bin/sh\n");
    writeln!(script, "{}", bed::switch())?;
    writeln!(script, "{}", peer.create())?;
    for (name, _) in LINUX {
        writeln!(
            script,
            "{HATCH} create --network netback /guest/{name}.cfg > /dev/null"
        )?;
    }
    let waits = [bed::serves(peer)]
        .into_iter()
        .chain(LINUX.map(|(_, address)| ask(address, "true")));
    for wait in waits {
        writeln!(
            script,
            "for i in $(seq 300); do ({wait}) > /dev/null 2>&1 && break; sleep 1; done"
        )?;
    }
    let name = peer.name();
    writeln!(
        script,
        "SERVER=$(xenstore-read /local/domain/$(xl domid {name})/device/vif/0/mac)"
    )?;
    let mut plan = Vec::new();
    for network in NETWORKS {
        if network != "netback" {
            for guest in [name.as_str()]
                .into_iter()
                .chain(LINUX.map(|(name, _)| name))
            {
                writeln!(script, "{HATCH} network {guest} {network} > /dev/null")?;
            }
        }
        let (_, client) = LINUX[0];
        let pairs = loads.iter().cloned().map(Measured::Pair);
        let noises = NOISES.map(|(what, _)| Measured::Beside(what));
        for what in pairs.chain(noises) {
            writeln!(script, "echo; echo '{MARK}{}'", plan.len())?;
            let line = match &what {
                Measured::Pair(load) => {
                    format!(
                        "cat > /run/posted <<'END'\n{}\nEND\n{}",
                        load.command(&peer.address(), 1),
                        ask(client, "$(cat /run/posted)")
                    )
                }
                Measured::Beside(noise) => beside(noise, peer),
            };
            writeln!(script, "{line}")?;
            plan.push(Section { network, what });
        }
    }
    writeln!(script, "echo; echo '{MARK}{}'", plan.len())?;
    Ok((script, plan))
}

/// The command by which a Linux guest runs a script.
fn ask(address: &str, script: &str) -> String {
    format!("wget -q -O - --post-data \"{script}\" http://{address}/cgi-bin/run")
}

/// The queries beside a noise.
fn queries() -> Load {
    Load::Dns {
        questions: Size::Small.questions(),
        concurrency: 1,
        rate: Some(RATE),
    }
}

fn beside(noise: &str, peer: Peer) -> String {
    let (_, flooder) = LINUX[1];
    let does = NOISES.iter().find(|(what, _)| *what == noise);
    let does = does.map_or("", |(_, does)| does);
    let queries = queries().command(&peer.address(), 1);
    format!(
        "cat > /run/posted <<END\n{}\n{does}\nEND\n({} 2>&1 | tail -c 1000 > /run/noise) & noise=$!; usleep 200000; {queries}; wait $noise; grep pps /run/noise",
        FLOOD.replace('$', "\\$"),
        ask(flooder, "$(cat /run/posted)"),
    )
}

fn table(plan: &[Section], log: &str) -> Result<String> {
    let mut texts = sections(log);
    let mut samples: Vec<(&Section, Sample)> = Vec::new();
    for section in plan {
        let text = texts.next().context("the script did not get to its end")?;
        let load = match &section.what {
            Measured::Pair(load) => load.clone(),
            Measured::Beside(_) => queries(),
        };
        samples.push((section, load.sample(&text)?));
    }
    let half = plan.len() / NETWORKS.len();
    let (netback, switch) = samples.split_at(half);
    let mut out = format!(
        "{:58}{:>12}{:>12}{:>8}{:>10}\n",
        "a Linux guest asks mayfly: answers", "netback", "switch", "times", "errors"
    );
    let mut noises = format!(
        "\n{:58}{:>20}{:>20}\n",
        "ms for a query of dom0's, p50 / p99, while another guest", "netback", "switch"
    );
    for ((section, one), (_, other)) in netback.iter().zip(switch) {
        debug_assert_eq!(section.network, NETWORKS[0]);
        match &section.what {
            Measured::Pair(load) => writeln!(
                out,
                "{:58}{:>12.0}{:>12.0}{:>8.2}{:>10}",
                figures::title(load),
                one.rate,
                other.rate,
                other.rate / one.rate,
                format!("{} / {}", one.errors, other.errors),
            )?,
            Measured::Beside(noise) => {
                let times = |sample: &Sample| {
                    let ms = |time: Option<f64>| time.map_or("-".into(), |ms| format!("{ms:.2}"));
                    format!("{} / {}", ms(sample.p50_ms), ms(sample.p99_ms))
                };
                writeln!(noises, "{noise:58}{:>20}{:>20}", times(one), times(other))?;
            }
        }
    }
    Ok(out + &noises)
}

/// The loads of the pair.
pub(super) fn loads() -> Vec<Load> {
    let dns = |concurrency| Load::Dns {
        questions: Size::Small.questions(),
        concurrency,
        rate: None,
    };
    let http = |path, connections| Load::Http {
        path,
        connections,
        keep_alive: true,
        pause_ms: None,
    };
    let [short, middle, _] = site::FILES.map(|file| file.name);
    vec![dns(64), http(short, 64), http(middle, 64), http(BULK, 8)]
}
