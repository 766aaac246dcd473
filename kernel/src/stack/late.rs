//! The DNS server, made for its first question: its secret and its tables are of no use before, and the first
//! frame does not wait for them.

use alloc::boxed::Box;

use mayfly_dns as dns;

use crate::secrets::{Purpose, Root};

/// The server, or what it is going to be made of.
pub(super) struct LateServer {
    root: Root,
    /// All but the secret.
    config: dns::Config,
    /// Large, so that it is not moved with the rest. The heap has room for it (`sizing.rs`).
    server: Option<Box<dns::Server>>,
}

impl LateServer {
    /// A server whose secret will be made of the root.
    pub(super) fn new(root: Root, config: impl FnOnce([u8; 16]) -> dns::Config) -> Self {
        Self {
            root,
            config: config([0; 16]),
            server: None,
        }
    }

    /// The server.
    pub(super) fn get(&mut self) -> &mut dns::Server {
        self.server.get_or_insert_with(|| {
            Box::new(dns::Server::new(dns::Config {
                cookie_secret: self.root.key(Purpose::Dns),
                ..self.config.clone()
            }))
        })
    }

    /// What it has done so far.
    pub(super) fn stats(&self) -> dns::Stats {
        let server = self.server.as_deref();
        server.map_or_else(dns::Stats::default, |server| server.stats)
    }
}
