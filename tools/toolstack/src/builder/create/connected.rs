//! A guest whose back end is `hatch switch`: nothing is asked of the kernel's network before it runs, and of xenstored only what it has to know by then.
//!
//! The domain is made as any other; the switch maps its rings, xenstored is told of it, and it runs. Then it is claimed, and the rest is written. A name
//! or MAC address that somebody else has is found here, after the guest has begun, and ends it; those of guests of the same switch the
//! switch itself refuses before.
//!
//! The back end's directory is no device of the kernel's: [`keys::switched`] has it where xenbus does not look.

use std::net::{Ipv4Addr, Ipv6Addr};

use mayfly_handoff::network::PATH_MAX;
use mayfly_switch::control::{Connection, Order, Reply};
use mayfly_switch::port::{Features, Rings};
use mayfly_switch::switch::{Guard, Guest, Limits};

use super::super::config::{Config, Vif};
use super::super::image::{Image, Ramdisk};
use super::super::keys::{self, Ports};
use super::super::layout::{self, Layout};
use super::super::rings::Grants;
use super::super::steps::{Step, Steps};
use super::super::{Cause, Error, Failure};
use super::{Created, Done, GRANT_FRAMES, Plan, Ready, Then, Toolstack};
use crate::host::Pages;
use mayfly_xen::NewDomain;
use mayfly_xenstore::Request;

/// A domain that the switch serves, before its first instruction.
struct OnSwitch {
    domid: u16,
    ports: Ports,
    /// The switch's port on the bridge.
    link: String,
    mapped: [Box<dyn Pages>; 3],
}

/// The addresses of a command line's `ip=ADDRESS/PREFIX` words, the first of each family.
fn addresses(cmdline: &str) -> (Option<Ipv4Addr>, Option<Ipv6Addr>) {
    let words = || {
        cmdline
            .split_ascii_whitespace()
            .filter_map(|word| word.strip_prefix("ip=")?.split('/').next())
    };
    let v4 = words().find_map(|address| address.parse().ok());
    (v4, words().find_map(|address| address.parse().ok()))
}

/// The guest, as it is handed to the switch. What has addresses of its own is held to them.
fn handed(plan: &Plan<'_>, vif: &Vif, domid: u16, ports: &Ports) -> Result<Guest, Cause> {
    let (Some(rings), Some((tx_port, _))) = (&plan.layout.rings, ports.network) else {
        return Err(Cause::Backend("has no rings"));
    };
    let grants = Grants::of(rings);
    let (ipv4, ipv6) = addresses(&plan.config.cmdline);
    let is_known = ipv4.is_some() || ipv6.is_some();
    Ok(Guest {
        name: plan.config.name.clone(),
        bridge: vif.bridge.clone(),
        mac: vif.mac,
        ipv4,
        ipv6,
        guard: if is_known { Guard::Full } else { Guard::Mac },
        rings: Rings {
            domain: domid,
            tx_ring: grants.tx_ring,
            rx_ring: grants.rx_ring,
            tx_port,
            // The guest notifies by the transmit ring's as long as the other is unbound.
            rx_port: None,
        },
        features: Features {
            csum6: true,
            persistent: true,
            ..Features::default()
        },
        limits: Limits::default(),
    })
}

fn answered(reply: std::io::Result<Reply>) -> Result<Reply, Cause> {
    match reply? {
        Reply::Error(why) => Err(Cause::Switch(why)),
        reply => Ok(reply),
    }
}

impl Toolstack {
    /// Makes a guest whose network the switch serves, and calls `ready` right before it runs. When a step fails, what was done is undone.
    ///
    /// # Errors
    /// The step that failed, why, and what of it could not be undone.
    pub fn create_on_switch(
        &mut self,
        (config, image, ramdisk): (&Config, &Image, Option<&Ramdisk>),
        switch: &mut Connection,
        then: Then,
        ready: Ready<'_>,
    ) -> Result<Created, Error> {
        let mut steps = Steps::new();
        let plan = steps.run(Step::Check, || {
            Self::plan_for_switch(config, image, ramdisk)
        })?;
        let mut done = Done::default();
        let made = self.born(&plan, switch, &mut steps, &mut done);
        let made = made.and_then(|born| {
            if then == Then::Running {
                steps.run(Step::Unpause, || self.run(born.domid, None, ready))?;
            }
            self.told(&plan, born, &mut steps, &mut done)
        });
        match made {
            Ok(domid) => Ok(Created {
                uuid: config.uuid,
                domid,
                preconnected: true,
                timeline: steps.finish(),
            }),
            Err(failure) => {
                let left = self.undo_on_switch(&plan, switch, done);
                Err(Error { failure, left })
            }
        }
    }

    fn plan_for_switch<'a>(
        config: &'a Config,
        image: &'a Image,
        ramdisk: Option<&'a Ramdisk>,
    ) -> Result<Plan<'a>, Cause> {
        if config.vif.is_none() {
            return Err(Cause::Backend("is for guests that have a network"));
        }
        if !image.takes_preconnected() {
            return Err(Cause::Backend(
                "is for images that take a network that is connected beforehand",
            ));
        }
        config.check()?;
        layout::check_cmdline(&config.cmdline)?;
        let ramdisk_size = ramdisk.map(Ramdisk::size);
        Ok(Plan {
            config,
            image,
            ramdisk,
            layout: Layout::new(config.memory, image.headers(), ramdisk_size, true)?,
            // The switch has its own port there.
            bridge: None,
        })
    }

    /// The domain, on the switch, before its first instruction.
    fn born(
        &mut self,
        plan: &Plan<'_>,
        switch: &mut Connection,
        steps: &mut Steps,
        done: &mut Done,
    ) -> Result<OnSwitch, Failure> {
        let config = plan.config;
        let domid = steps.run(Step::Domain, || {
            let new = NewDomain {
                handle: config.uuid,
                grant_frames: GRANT_FRAMES,
            };
            let domid = self.xen.create(&new)?;
            done.domain = Some(domid);
            Ok::<_, Cause>(domid)
        })?;
        steps.run(Step::Limits, || self.limits(plan, domid))?;
        steps.run(Step::Memory, || self.memory(plan, domid))?;
        let ports = steps.run(Step::Channels, || self.channels(plan, domid))?;
        let grants = plan.layout.rings.as_ref().map(Grants::of);
        let [pages, table] = steps.run(Step::Rings, || self.rings(plan, domid, grants.as_ref()))?;
        let link = steps.run(Step::Connect, || {
            let Some(vif) = &config.vif else {
                return Err(Cause::Backend("has no interface"));
            };
            let guest = handed(plan, vif, domid, &ports)?;
            let order = Order::Attach(Box::new(guest));
            match answered(switch.ask(&order))? {
                Reply::Attached { link } => Ok(link),
                _ => Err(Cause::Switch("it does not answer what it was asked".into())),
            }
        })?;
        let introduced = steps.run(Step::Front, || {
            done.keys = true;
            let answers = self.send(&keys::switched_birth(domid, config, &ports))?;
            self.store.flush()?;
            Ok::<_, Cause>(answers)
        })?;
        let image = steps.run(Step::Load, || {
            let mut network = plan.network(domid, &ports)?;
            if let Some(network) = &mut network {
                network.backend = path(domid);
            }
            self.load(plan, domid, network.as_ref())
        })?;
        let (entry, start_info) = (plan.image.headers().entry, plan.layout.info);
        steps.run(Step::Context, || {
            self.xen
                .pvh_context(domid, entry, u32::try_from(start_info).unwrap_or(u32::MAX))
        })?;
        // By now xenstored has done it, where it has a CPU of its own.
        steps.run(Step::Backend, || self.store.answers(introduced))?;
        Ok(OnSwitch {
            domid,
            ports,
            link,
            mapped: [pages, table, image],
        })
    }

    /// What others want to read of a guest that runs already, and what the bridge has to know.
    fn told(
        &mut self,
        plan: &Plan<'_>,
        born: OnSwitch,
        steps: &mut Steps,
        done: &mut Done,
    ) -> Result<u16, Failure> {
        let config = plan.config;
        let OnSwitch {
            domid,
            ports,
            link,
            mapped,
        } = born;
        // The kernel takes its time to unmap pages.
        drop(mapped);
        let transaction = steps.run(Step::Names, || self.names(config, done))?;
        let answers = steps.run(Step::Keys, || {
            done.open = None;
            done.claim = Some(self.claim(config, domid, transaction)?);
            let plain = Config {
                vif: None,
                ..config.clone()
            };
            let mut ops = Vec::new();
            if let Some(vif) = &config.vif {
                ops.extend(keys::switched_network(domid, vif));
            }
            ops.extend(keys::front(domid, &ports, None));
            ops.extend(keys::finish(domid, &plain, &ports));
            ops.push(keys::made(config));
            let answers = self.send(&ops)?;
            self.store.flush()?;
            Ok::<_, Cause>(answers)
        })?;
        steps.run(Step::Port, || {
            if let Some(vif) = &config.vif {
                let port = self.links.find(&link)?;
                self.links.direct(&port, vif.mac)?;
            }
            Ok::<_, Cause>(())
        })?;
        steps.run(Step::Claim, || {
            self.claimed(config, domid, done)?;
            self.store.answers(answers)?;
            match self.xen.info(domid)? {
                Some(info) if !info.is_dying() => Ok(domid),
                _ => Err(Cause::Destroyed),
            }
        })
    }

    /// Undoes what was done, and says what could not be.
    fn undo_on_switch(
        &mut self,
        plan: &Plan<'_>,
        switch: &mut Connection,
        mut done: Done,
    ) -> Vec<String> {
        let mut left = Vec::new();
        if let Some(open) = done.open
            && let Ok(end) = self.store.send(Request::transaction_end(open, false))
        {
            self.store.forget(end);
        }
        if let Some(claim) = done.claim.take() {
            done.claimed |= claim.ended(&mut *self.store);
        }
        if let Some(domid) = done.domain {
            // It may not have got so far; then there is nothing to let go of.
            let _ = switch.ask(&Order::Detach(domid));
            if let Err(error) = self.xen.destroy(domid)
                && !error.is_no_such_domain()
            {
                left.push(format!("domain {domid}: {error}"));
            }
            let mut ops = Vec::new();
            if done.keys {
                ops = keys::death(domid, Some(&keys::uuid(&plan.config.uuid)));
                ops.push(keys::unswitched(domid));
            }
            if done.claimed {
                ops.push(super::Op::Release(domid));
            }
            left.extend(self.remove(&ops));
            if done.claimed {
                left.extend(self.forget(domid, &plan.config.index()));
            }
        }
        if done.making && left.is_empty() {
            left.extend(self.remove(&[super::Op::Rm(keys::making_path(&plan.config.uuid))]));
        }
        left
    }
}

/// The back end's path, as the guest is told it.
fn path(domid: u16) -> [u8; PATH_MAX] {
    let mut octets = [0; PATH_MAX];
    let path = keys::switched(domid);
    if let Some(place) = octets.get_mut(..path.len()) {
        place.copy_from_slice(path.as_bytes());
    }
    octets
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_address_of_each_family() {
        let cmdline = "gw=10.0.2.2 ip=10.0.2.80/24 ip=fd00:2::80/64 ip=10.0.3.1/24 ip=dhcp";
        let (v4, v6) = addresses(cmdline);
        assert_eq!(v4, Some(Ipv4Addr::new(10, 0, 2, 80)));
        assert_eq!(v6, "fd00:2::80".parse().ok());
        assert_eq!(addresses("ip=dhcp quiet"), (None, None));
    }
}
