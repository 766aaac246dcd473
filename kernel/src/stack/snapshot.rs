//! All counters of the stack, for reports.

use mayfly_dns as dns;
use mayfly_drivers::netfront;
use mayfly_http as http;
use smoltcp::time::Instant;

use super::StackStats;

/// Everything that is counted, at one time.
#[derive(Debug, Clone, Copy)]
pub struct Snapshot {
    /// When.
    pub now: Instant,
    /// Connections.
    pub stack: StackStats,
    /// DNS.
    pub dns: dns::Stats,
    /// HTTP.
    pub http: http::Stats,
    /// Frames with a wrong checksum.
    pub bad_checksums: u64,
    /// The network interface.
    pub front: netfront::Counters,
    /// Pages that back ends keep mapped after their time.
    pub quarantined: usize,
}

impl Default for Snapshot {
    fn default() -> Self {
        Self {
            now: Instant::ZERO,
            stack: StackStats::default(),
            dns: dns::Stats::default(),
            http: http::Stats::default(),
            bad_checksums: 0,
            front: netfront::Counters::default(),
            quarantined: 0,
        }
    }
}
