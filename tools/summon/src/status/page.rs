//! The status page: one self-contained document that reloads itself.

use maud::{DOCTYPE, Markup, html};

use mayfly_toolstack::traffic::NetworkTraffic;

use super::picture::waterfall;
use super::table::{COLUMNS, cells, micros, time};
use super::{CountsByKind, ServiceStatus, SummonStatus};

/// The style of the page, for light and dark themes.
pub(super) const STYLE: &str = include_str!("style.css");
/// The number of seconds after which the page reloads itself.
const AGAIN: u32 = 5;
/// The number of columns in the table. The last failure is below the table, where there is more room.
const SHOWN: usize = COLUMNS.len() - 1;

pub(super) fn page(status: &SummonStatus) -> String {
    let SummonStatus {
        uptime_ms,
        services,
        totals,
    } = status;
    let page = html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                meta http-equiv="refresh" content=(AGAIN);
                title { "hatch summon: " (totals.running) " of " (services.len()) " run" }
                link rel="stylesheet" href="style.css";
            }
            body {
                header {
                    h1 { "hatch summon" }
                    p {
                        (totals.running) " of " (services.len()) " services run, in " (totals.memory) " MiB; "
                        (totals.queued) " wait for room; " (totals.pool) " guests are ready in the pool; up for "
                        (time(*uptime_ms)) "."
                    }
                }
                main {
                    section {
                        h2 id="services" { "Services" }
                        (table(services))
                    }
                    section {
                        h2 id="networks" { "Networks" }
                        (networks(services))
                    }
                    section {
                        h2 { "Last births" }
                        @for (id, service) in services.iter().enumerate() {
                            @if !service.last_boot.is_empty() || service.last_trouble.is_some() {
                                (birth(id, service))
                            }
                        }
                    }
                    section {
                        h2 { "Since the daemon began" }
                        div class="counts" {
                            (counts("DNS queries", "Answer", &totals.queries))
                            (counts("Wakes", "Cause", &totals.wakes))
                            (counts("Wakes refused", "Limit", &totals.refused))
                        }
                    }
                }
                footer {
                    p { "The page reloads itself every " (AGAIN) " seconds. The same status as "
                        a href="metrics" { "metrics" } " and " a href="status.json" { "JSON" } "." }
                }
            }
        }
    };
    page.into_string()
}

fn table(services: &[ServiceStatus]) -> Markup {
    html! {
        div class="wide" tabindex="0" role="region" aria-labelledby="services" {
            table aria-labelledby="services" {
                thead { tr {
                    @for name in &COLUMNS[..SHOWN] { th scope="col" { (name) } }
                } }
                tbody {
                    @for service in services {
                        tr {
                            @for (index, cell) in cells(service).iter().take(SHOWN).enumerate() {
                                @match index {
                                    0 => th scope="row" { (cell) },
                                    1 => td { span class={ "state " (service.state.as_str()) } { (cell) } },
                                    _ => td { (cell) },
                                }
                            }
                        }
                    }
                }
            }
        }
    }
}

/// What the back end of each guest has counted since it serves the guest.
fn networks(services: &[ServiceStatus]) -> Markup {
    let columns = [
        "Service",
        "Back end",
        "Frames sent",
        "Bytes sent",
        "Frames received",
        "Bytes received",
        "Dropped",
    ];
    html! {
        div class="wide" tabindex="0" role="region" aria-labelledby="networks" {
            table aria-labelledby="networks" {
                thead { tr {
                    @for name in columns { th scope="col" { (name) } }
                } }
                tbody {
                    @for service in services {
                        @if let Some(traffic) = &service.traffic {
                            tr {
                                th scope="row" { (service.name) }
                                td { (traffic.network.as_str()) }
                                td { (traffic.sent.frames) }
                                td { (traffic.sent.bytes) }
                                td { (traffic.received.frames) }
                                td { (traffic.received.bytes) }
                                td { (drops(traffic)) }
                            }
                        }
                    }
                }
            }
        }
    }
}

/// The number of dropped frames, with its parts by cause.
fn drops(traffic: &NetworkTraffic) -> String {
    let causes = traffic.drops.iter();
    let causes: Vec<_> = causes
        .map(|(why, count)| format!("{count} {why}"))
        .collect();
    match causes.is_empty() {
        true => traffic.dropped.to_string(),
        false => format!("{} ({})", traffic.dropped, causes.join(", ")),
    }
}

fn birth(id: usize, service: &ServiceStatus) -> Markup {
    html! {
        article {
            h3 { (service.name) }
            p class="hosts" { (service.hosts.join(", ")) }
            @if let Some(trouble) = &service.last_trouble {
                p class="trouble" { strong { "Trouble: " } (trouble) }
            }
            @match service.last_boot_us() {
                Some(us) => {
                    p { "From the packet that caused it to its end: " (micros(us)) "." }
                    div class="wide" tabindex="0" role="region" aria-label={ "The last birth of " (service.name) } {
                        (waterfall(id, &service.name, &service.last_boot))
                    }
                }
                None => p { "No guest was made yet." },
            }
        }
    }
}

fn counts(caption: &str, what: &str, counts: &CountsByKind) -> Markup {
    html! {
        table {
            caption { (caption) }
            thead { tr { th scope="col" { (what) } th scope="col" { "Number" } } }
            tbody {
                @for (name, count) in counts {
                    tr { th scope="row" { (name) } td { (count) } }
                }
                @if counts.is_empty() {
                    tr { td colspan="2" { "none" } }
                }
            }
        }
    }
}
