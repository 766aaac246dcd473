//! All counters of the stack, for reports.

use mayfly_dns as dns;
use mayfly_drivers::netfront;
use mayfly_http as http;
use smoltcp::time::Instant;

use super::StackStats;

/// The counters at one time.
#[derive(Debug, Clone, Copy)]
pub struct Snapshot {
    /// The time.
    pub now: Instant,
    /// The counters of the stack.
    pub stack: StackStats,
    /// The counters of DNS.
    pub dns: dns::QueryCounts,
    /// The counters of HTTP.
    pub http: http::RequestCounts,
    /// Frames dropped for a wrong TCP or UDP checksum.
    pub bad_checksums: u64,
    /// The counters of the network interface.
    pub front: netfront::Counters,
    /// Pages that back ends keep mapped after their links were closed.
    pub quarantined: usize,
}

impl Default for Snapshot {
    fn default() -> Self {
        Self {
            now: Instant::ZERO,
            stack: StackStats::default(),
            dns: dns::QueryCounts::default(),
            http: http::RequestCounts::default(),
            bad_checksums: 0,
            front: netfront::Counters::default(),
            quarantined: 0,
        }
    }
}
