//! The word `endpoints=`.

use super::fault::Fault;
use super::limits::PAYLOAD_MAX;
use super::number;

/// Which of the guest's own pages are served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Endpoints {
    /// `/.mayfly/boot`
    pub boot: bool,
    /// `/.mayfly/metrics`
    pub metrics: bool,
    /// `/.mayfly/healthz`
    pub healthz: bool,
    /// The greatest `N` of `/.mayfly/payload/N`, in bytes; 0 if payloads are not served.
    pub payload: u64,
}

impl Endpoints {
    /// No page.
    pub const NONE: Self = Self {
        boot: false,
        metrics: false,
        healthz: false,
        payload: 0,
    };
    /// The default: only the page that tells nothing about the guest.
    pub const DEFAULT: Self = Self {
        healthz: true,
        ..Self::NONE
    };

    pub(super) fn parse(value: &str) -> Result<Self, Fault> {
        let mut endpoints = Self::NONE;
        if value == "none" {
            return Ok(endpoints);
        }
        for name in value.split(',') {
            let Self {
                boot,
                metrics,
                healthz,
                payload,
            } = &mut endpoints;
            let repeated = match name {
                "all" => {
                    [boot, metrics, healthz].map(|page| core::mem::replace(page, true))
                        != [false; 3]
                }
                "boot" => core::mem::replace(boot, true),
                "metrics" => core::mem::replace(metrics, true),
                "healthz" => core::mem::replace(healthz, true),
                "payload" => return Err(Fault::PayloadWithoutBound),
                _ => {
                    let bound = name.strip_prefix("payload:").ok_or(Fault::BadEndpoints)?;
                    let bound = number(bound).filter(|bound| (1..=PAYLOAD_MAX).contains(bound));
                    core::mem::replace(payload, bound.ok_or(Fault::PayloadWithoutBound)?) != 0
                }
            };
            if repeated {
                return Err(Fault::Repeated);
            }
        }
        Ok(endpoints)
    }
}
