//! The status as Prometheus' text (OpenMetrics 1.0).

use std::fmt::Error;

use mayfly_toolstack::traffic::NetworkTraffic;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric, text};
use prometheus_client::metrics::TypedMetric;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Registry;

use super::{CountsByKind, ServiceStatus, ShownState, SummonStatus};

/// The media type of the text.
pub(super) const TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// The text of a status.
pub(super) fn text(status: &SummonStatus) -> String {
    let mut registry = Registry::with_prefix("hatch_summon");
    registry.register_collector(Box::new(Snapshot(status.clone())));
    let mut text = String::new();
    // Writing to a string does not fail.
    let _ = text::encode(&mut text, &registry);
    text
}

#[derive(Debug)]
struct Snapshot(SummonStatus);

impl Collector for Snapshot {
    fn encode(&self, encoder: DescriptorEncoder) -> Result<(), Error> {
        let SummonStatus {
            uptime_ms,
            services,
            totals,
        } = &self.0;
        let mut out = Out { encoder, services };
        out.one(
            "uptime_seconds",
            "Since the daemon began",
            seconds(*uptime_ms),
        )?;
        out.one("running", "Guests that run", totals.running)?;
        out.one(
            "memory_bytes",
            "Memory of guests that run",
            totals.memory << 20,
        )?;
        out.one("queued", "Services that wait for room", totals.queued)?;
        out.one("pool", "Guests that wait in the pool", totals.pool)?;
        out.counts("queries", "DNS queries", "answer", &totals.queries)?;
        out.counts("wakes", "Wakes of services", "cause", &totals.wakes)?;
        out.counts(
            "refused",
            "Wakes that were refused",
            "limit",
            &totals.refused,
        )?;
        out.states()?;
        out.gauges(
            "service_uptime_seconds",
            "Since the guest was born",
            |service| service.uptime_ms.map(seconds),
        )?;
        out.gauges(
            "service_last_boot_seconds",
            "From the packet that caused it",
            |service| service.last_boot_us().map(|us| float(us) / 1e6),
        )?;
        let resumed = "Guests that went on after they had been suspended";
        out.counters("service_resumes", resumed, |service| Some(service.resumes))?;
        out.counters("service_births", "Guests that were made", |service| {
            Some(service.births)
        })?;
        out.counters("service_deaths", "Guests that ended", |service| {
            Some(service.deaths)
        })?;
        out.counters("service_failures", "Births that failed", |service| {
            Some(service.failures)
        })?;
        out.counters("service_queries", "DNS queries for its names", |service| {
            Some(service.queries)
        })?;
        // A gauge, because each guest starts from 0.
        out.gauges(
            "service_requests",
            "Requests that its guest has answered",
            |service| service.requests.map(float),
        )?;
        out.counters("service_held_frames", "Frames that were held", |service| {
            Some(service.frames.held)
        })?;
        out.counters(
            "service_replayed_frames",
            "Frames that were held, and given to the guest",
            |service| Some(service.frames.replayed),
        )?;
        out.counters(
            "service_dropped_frames",
            "Frames that could not be held or could not be given to the guest",
            |service| Some(service.frames.dropped),
        )?;
        out.counters(
            "service_guarded_frames",
            "Frames of its guest that the guard has dropped",
            |service| Some(service.guarded),
        )?;
        out.traffic()?;
        out.drops()
    }
}

struct Out<'e, 's> {
    encoder: DescriptorEncoder<'e>,
    services: &'s [ServiceStatus],
}

impl Out<'_, '_> {
    fn one<T>(&mut self, name: &str, help: &str, value: T) -> Result<(), Error>
    where
        ConstGauge<T>: EncodeMetric + TypedMetric,
    {
        let gauge = ConstGauge::new(value);
        let kind = ConstGauge::<T>::TYPE;
        let encoder = self.encoder.encode_descriptor(name, help, None, kind)?;
        gauge.encode(encoder)
    }

    fn counts(
        &mut self,
        name: &str,
        help: &str,
        label: &str,
        counts: &CountsByKind,
    ) -> Result<(), Error> {
        let kind = ConstCounter::<u64>::TYPE;
        let mut encoder = self.encoder.encode_descriptor(name, help, None, kind)?;
        for (value, count) in counts {
            let labels = [(label, value.as_str())];
            ConstCounter::new(*count).encode(encoder.encode_family(&labels)?)?;
        }
        Ok(())
    }

    /// One metric for each service and state. The one of the present state is 1.
    fn states(&mut self) -> Result<(), Error> {
        let kind = ConstGauge::<u64>::TYPE;
        let mut encoder =
            self.encoder
                .encode_descriptor("service_state", "Its state", None, kind)?;
        for service in self.services {
            for state in ShownState::ALL {
                let labels = [
                    ("service", service.name.as_str()),
                    ("state", state.as_str()),
                ];
                let is = ConstGauge::new(u64::from(service.state == state));
                is.encode(encoder.encode_family(&labels)?)?;
            }
        }
        Ok(())
    }

    /// What the back ends of the guests have counted.
    fn traffic(&mut self) -> Result<(), Error> {
        // Gauges, because each back end starts from 0.
        let of = |count: fn(&NetworkTraffic) -> u64| {
            move |service: &ServiceStatus| {
                service
                    .traffic
                    .as_ref()
                    .map(|traffic| float(count(traffic)))
            }
        };
        self.gauges(
            "service_sent_frames",
            "Frames that its guest has sent",
            of(|traffic| traffic.sent.frames),
        )?;
        self.gauges(
            "service_sent_bytes",
            "Bytes of these frames",
            of(|traffic| traffic.sent.bytes),
        )?;
        self.gauges(
            "service_received_frames",
            "Frames that its guest was given",
            of(|traffic| traffic.received.frames),
        )?;
        self.gauges(
            "service_received_bytes",
            "Bytes of these frames",
            of(|traffic| traffic.received.bytes),
        )
    }

    /// One metric for each service and cause for which its guest's back end has dropped frames.
    fn drops(&mut self) -> Result<(), Error> {
        let kind = ConstGauge::<f64>::TYPE;
        let help = "Frames of its guest, or for it, that the back end has dropped";
        let name = "service_back_end_drops";
        let mut encoder = self.encoder.encode_descriptor(name, help, None, kind)?;
        for service in self.services {
            for (cause, count) in service.traffic.iter().flat_map(|traffic| &traffic.drops) {
                let labels = [
                    ("service", service.name.as_str()),
                    ("cause", cause.as_str()),
                ];
                ConstGauge::new(float(*count)).encode(encoder.encode_family(&labels)?)?;
            }
        }
        Ok(())
    }

    fn counters(
        &mut self,
        name: &str,
        help: &str,
        count: impl Fn(&ServiceStatus) -> Option<u64>,
    ) -> Result<(), Error> {
        let kind = ConstCounter::<u64>::TYPE;
        let mut encoder = self.encoder.encode_descriptor(name, help, None, kind)?;
        for service in self.services {
            if let Some(count) = count(service) {
                let labels = [("service", service.name.as_str())];
                ConstCounter::new(count).encode(encoder.encode_family(&labels)?)?;
            }
        }
        Ok(())
    }

    fn gauges(
        &mut self,
        name: &str,
        help: &str,
        value: impl Fn(&ServiceStatus) -> Option<f64>,
    ) -> Result<(), Error> {
        let kind = ConstGauge::<f64>::TYPE;
        let mut encoder = self.encoder.encode_descriptor(name, help, None, kind)?;
        for service in self.services {
            if let Some(value) = value(service) {
                let labels = [("service", service.name.as_str())];
                ConstGauge::new(value).encode(encoder.encode_family(&labels)?)?;
            }
        }
        Ok(())
    }
}

fn seconds(ms: u64) -> f64 {
    float(ms) / 1e3
}

#[allow(
    clippy::cast_precision_loss,
    reason = "nothing here is as large as 2^53"
)]
fn float(count: u64) -> f64 {
    count as f64
}
