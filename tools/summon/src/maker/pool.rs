//! Guests made ahead, for services with `asleep = "pool"`.

use std::path::Path;
use std::time::{Duration, Instant};

use mayfly_toolstack::builder::{Connect, GuestConfig, GuestVif, Image, Network, Shell};
use mayfly_toolstack::pool::{BackOff, ShellKind, ShellLimits, ShellPool};
use mayfly_xen::TscMode;

use super::super::config::{Asleep, Service};
use super::{GuestMaker, MakerReport};

/// The pause after a guest that could not be made ahead.
const BACK_OFF: BackOff = BackOff {
    first: Duration::from_secs(1),
    most: Duration::from_secs(60),
};

/// A pool that keeps nothing until the daemon gives it services.
pub(super) fn empty() -> ShellPool {
    let limits = ShellLimits {
        size: 0,
        memory: u64::MAX,
        // The daemon bounds the memory of all guests, those made ahead included.
        spare: None,
    };
    ShellPool::new(limits, BACK_OFF, Instant::now())
}

impl GuestMaker {
    /// Keeps this number of guests ready for these services from now on, for each image and size.
    pub(super) fn keep_ready(&mut self, services: &[Service], ready: usize) {
        let pooled = services
            .iter()
            .filter(|service| service.asleep == Asleep::Pool);
        let templates = pooled.map(|service| {
            let template = template(service);
            (kind(service, &template), template)
        });
        self.pool.limits.size = ready;
        self.pool.keep(templates.collect());
        self.clear_out();
    }

    /// A guest that was made ahead, if the service uses the pool.
    pub(super) fn shell_for(&mut self, service: &Service, config: &GuestConfig) -> Option<Shell> {
        match service.asleep {
            Asleep::Pool => self.pool.take(&kind(service, config)),
            Asleep::Destroy | Asleep::Suspend => None,
        }
    }

    /// Makes room for a guest with this much memory, in MiB, which guests made ahead may occupy.
    pub(super) fn make_room(&mut self, memory: u64) {
        let limits = &mut self.pool.limits;
        limits.memory = limits.memory.saturating_sub(memory);
        self.clear_out();
    }

    pub(super) fn count(&self) {
        self.tell(MakerReport::Waiting(self.pool.count()));
    }

    /// Makes one guest ahead.
    pub(super) fn fill(&mut self, kind: &ShellKind) {
        match self.make_ahead(kind) {
            Ok(()) => self.count(),
            Err(why) => {
                self.pool.failed(Instant::now(), &why);
                self.tell(MakerReport::Trouble(format!("the pool: {why}")));
            }
        }
    }

    fn make_ahead(&mut self, kind: &ShellKind) -> Result<(), String> {
        let path = &kind.image;
        if !self.images.contains_key(path) {
            let image =
                Image::open_and_keep(path).map_err(|e| format!("{}: {e}", path.display()))?;
            self.images.insert(path.clone(), image);
        }
        if !kind.is_on_switch {
            self.check_kernel().map_err(|error| error.to_string())?;
        }
        self.builder().map_err(|error| error.to_string())?;
        let (Some(builder), Some(image)) = (&mut self.builder, self.images.get(path)) else {
            return Err("its image is not there".into());
        };
        if kind.is_on_switch && self.switch.connection.is_none() {
            // Without one the switch maps its rings when it is needed.
            self.switch.connection = builder.switch().ok();
        }
        let made = self
            .pool
            .fill(kind, (builder, &mut self.switch.connection), image);
        made.map(drop).map_err(|error| {
            if let Some(cause) = error.cause() {
                self.lost(cause);
            }
            error.to_string()
        })
    }

    /// Removes the guests that were made ahead from an image.
    pub(super) fn discard_image(&mut self, image: &Path) {
        let stale = self.pool.take_image(image);
        self.discard(stale);
    }

    /// Removes guests made ahead that no service can use any more, or for which there is no room.
    pub(super) fn clear_out(&mut self) {
        let surplus = self.pool.take_surplus();
        self.discard(surplus);
    }

    fn discard(&mut self, shells: Vec<Shell>) {
        if shells.is_empty() {
            return;
        }
        self.count();
        for shell in shells {
            let removed = self
                .builder()
                .map_err(|error| error.to_string())
                .and_then(|builder| {
                    let discarded = builder.discard(shell);
                    discarded.map_err(|error| error.to_string())
                });
            if let Err(why) = removed {
                self.tell(MakerReport::Trouble(format!("the pool: {why}")));
            }
        }
    }
}

/// The kind of guest made ahead that a service with this configuration can use.
fn kind(service: &Service, config: &GuestConfig) -> ShellKind {
    ShellKind::of(&service.image, config).on_switch(service.network == Network::Switch)
}

/// The configuration that guests are made from ahead of time, for this service and others of the same image and size. Name and MAC address are
/// replaced.
pub(super) fn template(service: &Service) -> GuestConfig {
    GuestConfig {
        name: "shell".into(),
        uuid: [0; 16],
        memory: service.memory,
        cmdline: String::new(),
        vif: Some(GuestVif {
            mac: service.mac,
            bridge: service.bridge.clone(),
            ip: None,
            rate: None,
            mtu: None,
        }),
        connect: Connect::Before,
        console: false,
        tsc: TscMode::Native,
        network: Network::Netback,
        watched: None,
    }
}
