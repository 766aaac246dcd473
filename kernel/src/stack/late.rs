//! The DNS server, made for its first question: its secret and its tables are of no use before, and the first
//! frame does not wait for them.

use alloc::boxed::Box;

use mayfly_dns::{Config, Server, Stats};

use crate::secrets::{Purpose, Root};

/// The server, or what it is going to be made of.
pub(super) struct LateServer {
    root: Root,
    /// All but the secret.
    config: Config,
    /// Large, so that it is not moved with the rest. The heap has room for it (`sizing.rs`).
    server: Option<Box<Server>>,
}

impl LateServer {
    /// A server whose secret will be made of the root.
    pub(super) fn new(root: Root, config: impl FnOnce([u8; 16]) -> Config) -> Self {
        Self {
            root,
            config: config([0; 16]),
            server: None,
        }
    }

    /// The server.
    pub(super) fn get(&mut self) -> &mut Server {
        self.server.get_or_insert_with(|| {
            Box::new(Server::new(Config {
                cookie_secret: self.root.key(Purpose::Dns),
                ..self.config.clone()
            }))
        })
    }

    /// What it has done so far.
    pub(super) fn stats(&self) -> Stats {
        let server = self.server.as_deref();
        server.map_or_else(Stats::default, |server| server.stats)
    }
}
