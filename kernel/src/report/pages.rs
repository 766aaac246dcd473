//! The guest's own pages (`/.mayfly/`), which take precedence over the site's.

use mayfly_site::{Broken, File, Pages, Resource};

use super::Report;
use super::metrics::Metrics;
use crate::cmdline::Endpoints;

/// A site together with the guest's own pages.
pub struct WithReport<'a, P> {
    site: P,
    report: &'a Report<'a>,
    metrics: Metrics<'a>,
    endpoints: Endpoints,
}

impl<'a, P> WithReport<'a, P> {
    /// The site with the own pages that the command line asks for.
    pub fn new(site: P, report: &'a Report<'a>, endpoints: Endpoints) -> Self {
        Self {
            site,
            report,
            metrics: Metrics(report),
            endpoints,
        }
    }

    /// The guest's own page at `/.mayfly/NAME`.
    fn own_page(&self, name: &[u8]) -> Option<Resource<'_>> {
        let rendered = |content_type, text| Some(Resource::Rendered { content_type, text });
        match name {
            b"boot" if self.endpoints.boot => rendered("application/json", self.report),
            b"metrics" if self.endpoints.metrics => {
                rendered("text/plain; version=0.0.4; charset=utf-8", &self.metrics)
            }
            b"healthz" if self.endpoints.healthz => rendered("text/plain", &"ok\n"),
            _ => {
                let number = name.strip_prefix(b"payload/")?;
                let is_plain = !number.is_empty() && number.iter().all(u8::is_ascii_digit);
                let bytes = core::str::from_utf8(number).ok()?.parse().ok()?;
                let max = self.endpoints.payload;
                (is_plain && max > 0 && bytes <= max).then_some(Resource::Payload(bytes))
            }
        }
    }
}

impl<P: Pages> Pages for WithReport<'_, P> {
    fn resource(&self, host: &[u8], path: &[u8]) -> Result<Option<Resource<'_>>, Broken> {
        let own = path
            .strip_prefix(b"/.mayfly/")
            .and_then(|name| self.own_page(name));
        match own {
            Some(own) => Ok(Some(own)),
            None => self.site.resource(host, path),
        }
    }

    fn error_page(&self, host: &[u8], status: u16) -> Result<Option<File<'_>>, Broken> {
        self.site.error_page(host, status)
    }

    fn lines(&self, host: &[u8], path: &[u8]) -> Result<&[u8], Broken> {
        self.site.lines(host, path)
    }
}
