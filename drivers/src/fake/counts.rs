//! Counters of the guest's requests to Xen.

/// The number of calls by the guest, by kind. All but `now` are hypercalls on a real Xen.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// `EVTCHNOP_alloc_unbound`
    pub evtchn_alloc_unbound: u64,
    /// `EVTCHNOP_close`
    pub evtchn_close: u64,
    /// `EVTCHNOP_send`
    pub evtchn_send: u64,
    /// `EVTCHNOP_status`
    pub evtchn_status: u64,
    /// `SCHEDOP_poll`
    pub poll: u64,
    /// `HVMOP_get_param`
    pub hvm_param: u64,
    /// `XENMEM_add_to_physmap` of a grant frame
    pub grant_frame: u64,
    /// Reads of the clock
    pub now: u64,
}

impl Counts {
    /// Hypercalls of all kinds.
    #[must_use]
    pub fn hypercalls(&self) -> u64 {
        self.evtchn_alloc_unbound
            + self.evtchn_close
            + self.evtchn_send
            + self.evtchn_status
            + self.poll
            + self.hvm_param
            + self.grant_frame
    }
}
