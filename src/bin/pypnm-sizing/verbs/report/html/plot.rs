//! A plot in SVG. Its caption and the labels of its axes are text outside of it.

use std::fmt::Write as _;

use crate::output::printable;
use crate::verbs::report::text::{shown, utc_offset};

/// The coordinate system of a plot, which is stretched to the width of the page.
const WIDTH: f64 = 1000.0;

const HEIGHT: f64 = 200.0;

/// The intervals between labels of the time axis, in seconds; the shortest that gives at most [`WORDS`] labels is used.
const STEPS: [f64; 12] =
    [60.0, 300.0, 900.0, 1800.0, 3600.0, 10_800.0, 21_600.0, 43_200.0, DAY, 2.0 * DAY, 7.0 * DAY, 28.0 * DAY];
const WORDS: f64 = 8.0;
const DAY: f64 = 86_400.0;

/// A plot under construction: time to the right, values upwards from 0.
pub(super) struct Plot {
    from: f64,
    until: f64,
    highest: f64,
    svg: String,
}

impl Plot {
    pub(super) fn new(from: f64, until: f64, highest: f64) -> Self {
        Self { from, until, highest: round_above(highest), svg: String::new() }
    }

    fn x(&self, at: f64) -> f64 {
        ((at - self.from) / (self.until - self.from).max(1.0) * WIDTH).clamp(0.0, WIDTH)
    }

    fn y(&self, value: f64) -> f64 {
        HEIGHT - (value / self.highest * HEIGHT).clamp(0.0, HEIGHT)
    }

    /// Periods to highlight.
    pub(super) fn mark(&mut self, from: f64, until: f64) {
        let (x, end) = (self.x(from), self.x(until));
        let width = (end - x).max(1.5);
        let _ = write!(
            self.svg,
            "<rect x=\"{x:.1}\" y=\"0\" width=\"{width:.1}\" height=\"{HEIGHT}\" fill=\"var(--mark)\"/>"
        );
    }

    /// A line through points, interrupted if more than `gap` seconds are missing.
    pub(super) fn line(&mut self, points: impl Iterator<Item = (f64, f64)>, gap: f64, color: &str) {
        let (mut path, mut before) = (String::new(), f64::NEG_INFINITY);
        for (at, value) in points {
            let letter = if at - before > gap { 'M' } else { 'L' };
            let _ = write!(path, "{letter}{:.1} {:.1}", self.x(at), self.y(value));
            before = at;
        }
        let _ = write!(
            self.svg,
            "<path d=\"{path}\" fill=\"none\" stroke=\"{color}\" stroke-width=\"1.5\" stroke-linejoin=\"round\" stroke-linecap=\"round\"/>"
        );
    }

    /// Bars of `width` seconds.
    pub(super) fn bars(&mut self, bars: impl Iterator<Item = (f64, f64)>, width: f64, color: &str) {
        let mut path = String::new();
        for (at, value) in bars.filter(|(_, value)| *value > 0.0) {
            let (x, end) = (self.x(at), self.x(at + width));
            let _ = write!(path, "M{x:.1} {HEIGHT}V{:.1}H{:.1}V{HEIGHT}z", self.y(value), end.max(x + 0.6));
        }
        let _ = write!(self.svg, "<path d=\"{path}\" fill=\"{color}\" fill-opacity=\".75\"/>");
    }

    /// A faint area from the minimum to the maximum at each point in time.
    pub(super) fn range(&mut self, ranges: impl Iterator<Item = (f64, (f64, f64))>, color: &str) {
        let mut path = String::new();
        for (at, (lowest, highest)) in ranges.filter(|(_, (lowest, highest))| highest > lowest) {
            let _ = write!(path, "M{:.1} {:.1}V{:.1}", self.x(at), self.y(lowest), self.y(highest));
        }
        let _ = write!(
            self.svg,
            "<path d=\"{path}\" fill=\"none\" stroke=\"{color}\" stroke-opacity=\".25\" stroke-width=\"1\"/>"
        );
    }

    pub(super) fn limit(&mut self, value: f64) {
        let y = self.y(value);
        let _ = write!(
            self.svg,
            "<line x1=\"0\" x2=\"{WIDTH}\" y1=\"{y:.1}\" y2=\"{y:.1}\" stroke=\"var(--limit)\" stroke-width=\"1.5\" stroke-dasharray=\"6 4\"/>"
        );
    }

    /// A small mark on the time axis.
    pub(super) fn tick(&mut self, at: f64, color: &str) {
        let x = self.x(at);
        let _ = write!(
            self.svg,
            "<path d=\"M{x:.1} {HEIGHT}V{}\" stroke=\"{color}\" stroke-width=\"2\"/>",
            HEIGHT - 10.0
        );
    }

    pub(super) fn figure(self, out: &mut String, caption: &str, more: &str, amount: &dyn Fn(f64) -> String) {
        let labels: String =
            [1.0, 0.5, 0.0].map(|part| format!("<span>{}</span>", amount(self.highest * part))).concat();
        let mut times = String::new();
        let span = (self.until - self.from).max(1.0);
        let step = STEPS.into_iter().find(|step| span / step < WORDS).unwrap_or(span / WORDS);
        // Midnight in the local time zone, not in UTC.
        let offset = utc_offset(self.from);
        let first = ((self.from + offset) / step).ceil() * step - offset;
        for n in 0..=9u32 {
            let at = first + step * f64::from(n);
            if at > self.until {
                break;
            }
            let part = (at - self.from) / span * 100.0;
            let few = if n % 3 == 0 { "" } else { "few" };
            let class = if part < 4.0 {
                "first"
            } else if part > 96.0 {
                "last"
            } else {
                ""
            };
            let _ = write!(
                times,
                "<span class=\"{few} {class}\" style=\"left:{part:.1}%\">{}</span>",
                escaped(&shown(at, if step >= DAY { "%a %d %b" } else { "%a %H:%M" }))
            );
        }
        let _ = writeln!(
            out,
            "<figure><figcaption>{caption} <span>{more}</span></figcaption><div class=\"plot\"><div class=\"y\">{labels}</div>\
             <svg viewBox=\"0 0 {WIDTH} {HEIGHT}\" preserveAspectRatio=\"none\" role=\"img\" aria-label=\"{caption}\">{}</svg>\
             <div class=\"x\">{times}</div></div></figure>",
            self.svg
        );
    }
}

/// The smallest round number that is not below the value: even or a power of ten, so that half of it is round too.
fn round_above(highest: f64) -> f64 {
    if !highest.is_finite() || highest <= 0.0 {
        return 1.0;
    }
    let tenfold = 10f64.powi(exponent(highest));
    let round = [1.0, 2.0, 4.0, 6.0, 8.0].into_iter().map(|n| n * tenfold).find(|round| *round >= highest);
    // Removes the digits that binary fractions add.
    let round = round.unwrap_or(10.0 * tenfold);
    format!("{round:.6}").parse().unwrap_or(round)
}

#[expect(clippy::cast_possible_truncation, reason = "of a positive finite number: -324 to 308")]
fn exponent(number: f64) -> i32 {
    number.log10().floor() as i32
}

/// Escapes text for HTML: names of units and files may contain anything.
pub(super) fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in printable(text).chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            other => out.push(other),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::round_above;

    #[test]
    fn the_top_of_an_axis_is_round_and_so_is_its_half() {
        let cases =
            [(0.0, 1.0), (0.07, 0.08), (1.0, 1.0), (2.7, 4.0), (16.0, 20.0), (850.0, 1000.0), (64.0, 80.0)];
        for (highest, top) in cases {
            assert!((round_above(highest) - top).abs() < 1e-9, "{highest}: {}", round_above(highest));
        }
        assert!(round_above(f64::NAN) > 0.0 && round_above(f64::INFINITY) > 0.0);
    }
}
