//! The DNS server, made when the first query arrives, so that the first frame does not wait for its secret and tables.

use alloc::boxed::Box;

use mayfly_dns as dns;

use crate::secrets::{Purpose, Root};

/// The server, or the values to make it of.
pub(super) struct LateServer {
    root: Root,
    /// The configuration without the secret.
    config: dns::ServerConfig,
    /// Boxed, because it is large and would be moved with the rest. The heap has room for it (`sizing.rs`).
    server: Option<Box<dns::Server>>,
}

impl LateServer {
    /// A server whose secret will be derived from the root key.
    pub(super) fn new(root: Root, config: impl FnOnce([u8; 16]) -> dns::ServerConfig) -> Self {
        Self {
            root,
            config: config([0; 16]),
            server: None,
        }
    }

    /// The server, made at the first call.
    pub(super) fn get(&mut self) -> &mut dns::Server {
        self.server.get_or_insert_with(|| {
            Box::new(dns::Server::new(dns::ServerConfig {
                cookie_secret: self.root.key(Purpose::Dns),
                ..self.config.clone()
            }))
        })
    }

    /// Takes another root key, of which the secret is derived.
    pub(super) fn renew_secrets(&mut self, root: Root) {
        if let Some(server) = &mut self.server {
            server.set_cookie_secret(root.key(Purpose::Dns));
        }
        self.root = root;
    }

    /// The server's counters so far.
    pub(super) fn stats(&self) -> dns::QueryCounts {
        let server = self.server.as_deref();
        server.map_or_else(dns::QueryCounts::default, |server| server.stats)
    }
}
