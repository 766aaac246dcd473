//! Lists domains with their owners, and finds a domain by name or number.

use anyhow::Context as _;
use clap::Args;
use mayfly_toolstack::builder::index::{self, IndexEntry, IndexRecord, Named};
use mayfly_toolstack::builder::{check_name, reason};
use mayfly_toolstack::paths;
use mayfly_toolstack::traffic::NetworkTraffic;
use mayfly_toolstack::{host, privileges};
use mayfly_xen::{DomainInfo, Xen};
use mayfly_xenstore::{Client, Request, Store};
use rustix::thread::CapabilitySet;
use serde::Serialize;

use super::BOUND;
use super::exit::Failure;
use mayfly_commands::Exit;

/// Arguments that verbs on domains share.
#[derive(Args, Debug, Default)]
pub(crate) struct Domains {
    /// The names or numbers of domains.
    #[arg(required = true, value_name = "DOMAIN")]
    pub(crate) domains: Vec<String>,

    /// Also acts on domains that another toolstack created.
    #[arg(long)]
    pub(crate) force: bool,

    /// Prints JSON, one object a line.
    #[arg(long)]
    pub(crate) json: bool,
}

/// An existing domain.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Domain {
    pub(crate) domid: u16,
    /// Its name in xenstore.
    pub(crate) name: Option<String>,
    /// Whether hatch created it.
    pub(crate) ours: bool,
    pub(crate) uuid: String,
    pub(crate) state: &'static str,
    pub(crate) memory_kib: u64,
    pub(crate) vcpus: u32,
    pub(crate) cpu_ns: u64,
    /// Its network's back end, with counters; `null` if it has none.
    pub(crate) network: Option<NetworkTraffic>,
}

/// The ways to Xen and xenstored.
pub(crate) struct Ways {
    pub(crate) xen: Xen,
    pub(crate) store: Client,
}

impl Ways {
    pub(crate) fn open() -> Result<Self, Failure> {
        let ways = Self {
            store: Client::connect(BOUND)?,
            xen: Xen::open()?,
        };
        privileges::keep(CapabilitySet::empty()).context("capabilities")?;
        Ok(ways)
    }

    /// The number of a domain, which exists. One that others made takes `force`.
    pub(crate) fn find(&mut self, what: &str, force: bool) -> Result<u16, Failure> {
        found(&mut self.store, &mut self.xen, what, force)
    }

    /// All domains, asked for in one round trip.
    pub(crate) fn all(&mut self) -> Result<Vec<Domain>, Failure> {
        let infos = self.xen.list()?;
        let mut asked = Vec::new();
        for info in &infos {
            let name = self
                .store
                .send(Request::read(&paths::domain_name(info.domid)))?;
            let ours = self
                .store
                .send(Request::read(&paths::domain_path(info.domid)))?;
            asked.push((name, ours));
        }
        let mut domains = Vec::new();
        for (info, (name, ours)) in infos.iter().zip(asked) {
            let name = optional(self.store.answer(name))?;
            let record = optional(self.store.answer(ours))?;
            let record = record.and_then(|record| record.parse::<IndexRecord>().ok());
            let ours = record.is_some_and(|record| record.is_of(info));
            domains.push(Domain::new(info, name, ours));
        }
        Ok(domains)
    }
}

impl Domain {
    fn new(info: &DomainInfo, name: Option<String>, ours: bool) -> Self {
        Self {
            domid: info.domid,
            name,
            ours,
            uuid: paths::uuid(&info.handle),
            state: state(info),
            memory_kib: info.pages * 4,
            vcpus: info.vcpus,
            cpu_ns: info.cpu_ns,
            network: None,
        }
    }
}

fn state(info: &DomainInfo) -> &'static str {
    match info.shutdown() {
        _ if info.is_dying() => "dying",
        Some(shutdown) => reason(shutdown),
        None if info.is_paused() => "paused",
        None if info.is_running() => "running",
        None => "blocked",
    }
}

/// The domain that a name or a number stands for.
pub(crate) enum Meant {
    /// The domain with this domid, if there is one.
    Domain(u16),
    /// The index's entry of a domain that is gone. Another domain may have its domid.
    Remainder(IndexEntry),
}

/// Finds the domain of a name or a number. A name is looked up in hatch's index first; only the names of other
/// toolstacks' domains are searched for.
pub(crate) fn meant(
    store: &mut dyn Store,
    xen: &mut dyn host::Xen,
    what: &str,
) -> Result<Meant, Failure> {
    if !what.is_empty() && what.bytes().all(|byte| byte.is_ascii_digit()) {
        let number = what.parse().map(Meant::Domain);
        return number.map_err(|_| Failure::no_such_domain(what));
    }
    // An invalid name is not in the index.
    let named = match check_name(what) {
        Ok(()) => index::named(store, xen, what)?,
        Err(_) => None,
    };
    let remainder = match named {
        Some(Named::Domain(domid)) => return Ok(Meant::Domain(domid)),
        Some(Named::Remainder(entry)) => Some(entry),
        None => None,
    };
    let mut asked = Vec::new();
    for domid in store.directory(paths::HOMES)? {
        let Ok(domid) = domid.parse::<u16>() else {
            continue;
        };
        asked.push((
            domid,
            store.send(Request::read(&paths::domain_name(domid)))?,
        ));
    }
    let mut found = Vec::new();
    for (domid, name) in asked {
        if optional(store.answer(name))?.as_deref() == Some(what) {
            found.push(domid);
        }
    }
    // The home that a destroyed domain has left still has its name. A domain that is being destroyed is not meant.
    for domid in found {
        if xen.info(domid)?.is_some_and(|info| !info.is_dying()) {
            return Ok(Meant::Domain(domid));
        }
    }
    let remainder = remainder.map(Meant::Remainder);
    remainder.ok_or_else(|| Failure::no_such_domain(what))
}

/// The number of a domain, which exists. One that others made takes `force`.
pub(crate) fn found(
    store: &mut dyn Store,
    xen: &mut dyn host::Xen,
    what: &str,
    force: bool,
) -> Result<u16, Failure> {
    let Meant::Domain(domid) = meant(store, xen, what)? else {
        return Err(Failure::no_such_domain(what));
    };
    let Some(info) = xen.info(domid)? else {
        return Err(Failure::no_such_domain(what));
    };
    if domid == 0 {
        return Err(Failure::new(
            Exit::Failed,
            "domain 0 is the one that hatch runs in",
        ));
    }
    let record = index::record(store, domid)?;
    if !force && !record.is_some_and(|record| record.is_of(&info)) {
        let message =
            format!("hatch has not made the domain {what}: `xl` handles it, or hatch with --force");
        return Err(Failure::new(Exit::Failed, message));
    }
    Ok(domid)
}

/// A value that may be missing, because domains come and go.
pub(crate) fn optional(
    answer: Result<Vec<u8>, mayfly_xenstore::Error>,
) -> Result<Option<String>, mayfly_xenstore::Error> {
    match answer {
        Ok(value) => Ok(Some(String::from_utf8_lossy(&value).into_owned())),
        Err(error) if error.is_absent() => Ok(None),
        Err(error) => Err(error),
    }
}

/// Acts on every domain and prints each result. Returns the first failure when all have had their turn.
pub(crate) fn each<D: Into<Option<u16>>>(
    domains: &Domains,
    done: &'static str,
    mut one: impl FnMut(&str) -> Result<D, Failure>,
) -> Result<(), Failure> {
    let mut first = Ok(());
    for what in &domains.domains {
        match one(what) {
            Ok(domid) if domains.json => println!(
                "{}",
                serde_json::json!({ "domain": what, "domid": domid.into(), "done": done })
            ),
            Ok(_) => {}
            Err(failure) if first.is_ok() => first = Err(failure),
            Err(failure) => eprintln!("hatch: {}", failure.message),
        }
    }
    first
}
