//! Draws a birth as inline SVG: it needs no script, has the page's colours, and is text for screen readers.
//!
//! `cargo xtask bench` draws with `plotters`, which sets colours and sizes in each element. That would be twice as
//! long, and white in a dark theme.

use maud::{Markup, html};

use super::BirthStep;
use super::table::micros;

/// Sizes in pixels: the whole width, the left edge of the bars, the widest bar, the height of a row and of the scale.
const WIDTH: u64 = 720;
const LEFT: u64 = 220;
const SPAN: u64 = 400;
const ROW: u64 = 22;
const SCALE: u64 = 26;
/// The least width of a bar, so that every step is visible.
const LEAST: u64 = 2;
/// The greatest number of steps that are drawn.
const STEPS_MAX: usize = 64;

/// The picture of a birth of the service `name`. `id` differs from the other pictures of the page.
pub(super) fn waterfall(id: usize, name: &str, steps: &[BirthStep]) -> Markup {
    let steps = steps.get(..STEPS_MAX.min(steps.len())).unwrap_or_default();
    let total = steps.iter().map(|step| step.to_us).max().unwrap_or(0);
    let x = |us: u64| LEFT + scaled(us, total);
    let rows = u64::try_from(steps.len()).unwrap_or(0);
    let bottom = rows * ROW;
    let height = bottom + SCALE;
    let (title, text) = (format!("t{id}"), format!("d{id}"));
    html! {
        svg role="img" aria-labelledby=(title) aria-describedby=(text) viewBox={ "0 0 " (WIDTH) " " (height) } width=(WIDTH) height=(height) {
            title id=(title) { "The last birth of " (name) }
            desc id=(text) {
                (steps.len()) " steps in " (micros(total)) ":"
                @for step in steps {
                    " " (step.what) " " (when(step)) ";"
                }
            }
            @for quarter in 0..=4 {
                @let at = LEFT + SPAN / 4 * quarter;
                line class="grid" x1=(at) y1="0" x2=(at) y2=(bottom) {}
                text class="scale" x=(at) y=(bottom + 17) text-anchor="middle" { (micros(total.saturating_mul(quarter) / 4)) }
            }
            @for (row, step) in (0..).zip(steps) {
                @let (from, to) = (x(step.from_us), x(step.to_us.max(step.from_us)));
                @let wide = (to - from).max(LEAST);
                text x=(LEFT - 8) y=(row * ROW + 15) text-anchor="end" { (step.what) }
                rect class=(if is_moment(step) { "moment" } else { "bar" })
                    x=(from) y=(row * ROW + 4) width=(wide) height=(ROW - 8) {}
                text class="scale" x=(from + wide + 5) y=(row * ROW + 15) { (took(step)) }
            }
        }
    }
}

fn when(step: &BirthStep) -> String {
    let (from, to) = (micros(step.from_us), micros(step.to_us));
    match is_moment(step) {
        true => format!("at {from}"),
        false => format!("from {from} to {to}"),
    }
}

fn took(step: &BirthStep) -> String {
    match is_moment(step) {
        true => when(step),
        false => micros(step.to_us - step.from_us),
    }
}

fn is_moment(step: &BirthStep) -> bool {
    step.to_us <= step.from_us
}

fn scaled(us: u64, total: u64) -> u64 {
    let wide = u128::from(us.min(total)) * u128::from(SPAN) / u128::from(total.max(1));
    u64::try_from(wide).unwrap_or(SPAN)
}
