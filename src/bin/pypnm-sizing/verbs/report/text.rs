//! The texts, and the times of day, that the pages of text and the HTML page share.

use std::collections::BTreeMap;

use jiff::Timestamp;
use jiff::tz::TimeZone;
use pypnm_sizing::watch::advice::{Advice, AdviceTopic, settings};
use pypnm_sizing::watch::days::{Days, Hour};
use pypnm_sizing::watch::evidence::{Epoch, Evidence};
use pypnm_sizing::watch::number;
use pypnm_sizing::watch::text::{clock_range, counted, duration, gib, interval, percent, size};

use crate::page::{Ink, Page};

/// The limits of the report.
pub(super) const UNSEEN: &str = "What this cannot show: requests that wait for a modem inside a worker, or for their turn on a \
                      keep-alive connection. They are in no queue and use no CPU time; PyPNM's own log has their durations.";

/// A time of day.
pub(super) fn clock(at: f64) -> String {
    shown(at, "%a %d %b %H:%M")
}

pub(super) fn shown(at: f64, format: &str) -> String {
    let moment = Timestamp::from_second(pypnm_sizing::watch::to_u64(at.max(0.0)).cast_signed());
    moment.unwrap_or_default().to_zoned(TimeZone::system()).strftime(format).to_string()
}

/// The offset of local time from UTC, in seconds.
pub(super) fn utc_offset(at: f64) -> f64 {
    let moment = Timestamp::from_second(pypnm_sizing::watch::to_u64(at.max(0.0)).cast_signed());
    f64::from(TimeZone::system().to_offset(moment.unwrap_or_default()).seconds())
}

/// The days of the recording in the local time zone.
pub(super) fn by_day(days: &Days) -> BTreeMap<String, (f64, Hour)> {
    let mut found: BTreeMap<String, (f64, Hour)> = BTreeMap::new();
    for (hour, figures) in &days.hours {
        let at = begin(*hour);
        let day = found.entry(shown(at, "%Y-%m-%d")).or_insert_with(|| (at, Hour::default()));
        day.1.add(figures);
    }
    found
}

/// The beginning of an hour, in seconds since 1970.
#[expect(clippy::cast_precision_loss, reason = "an hour since 1970")]
pub(super) fn begin(hour: i64) -> f64 {
    hour as f64 * 3600.0
}

pub(super) fn is_too_little(findings: &[Advice]) -> bool {
    findings.iter().any(|finding| finding.topic == AdviceTopic::Evidence)
}

/// The reason, with the period that it is based on.
pub(super) fn with_time(finding: &Advice) -> String {
    match finding.time {
        Some((from, until)) => format!("{} [{}]", finding.reason, clock_range(&clock, from, until)),
        None => finding.reason.clone(),
    }
}

/// The advised settings, each with its reason.
pub(super) fn recommended(page: &mut Page, findings: &[Advice]) {
    for (line, finding) in settings(findings) {
        page.one_line(&format!("  {line}"), Ink::Green, "");
        page.row("      ", 6, &with_time(finding));
    }
}

pub(super) fn covered(evidence: &Evidence, from: f64, until: f64) -> String {
    let of = (until - from).max(f64::MIN_POSITIVE);
    let part = percent((evidence.watched() / of * 100.0).min(100.0));
    let zone = shown(until, "%Z");
    format!("{} ({zone}), {part} of that time watched", clock_range(&clock, from, until))
}

pub(super) fn busiest(at: f64, hour: &Hour) -> String {
    format!(
        "Busiest hour: {}; {:.2} CPUs used, requests waited during {:.0}% of it (up to {} in the queue), memory up to {}",
        clock_range(&clock, at, at + 3600.0),
        hour.cpus(),
        hour.waiting_part() * 100.0,
        hour.queue_peak,
        gib(hour.memory_peak)
    )
}

pub(super) fn memory(evidence: &Evidence, epoch: &Epoch) -> String {
    let (_, limit, _) = evidence.limits();
    let mut text = format!("up to {}", size(evidence.memory_peak));
    if limit > 0 {
        text = format!(
            "{text} of {} ({:.0}%)",
            gib(limit),
            number(evidence.memory_peak) * 100.0 / number(limit)
        );
    }
    if epoch.memory_samples == 0 {
        return text;
    }
    format!(
        "{text}; a worker: 95th percentile {} in the busiest {}, peak {}",
        size(epoch.worker_memory),
        duration(evidence.block_length()),
        size(epoch.totals.worker_peak)
    )
}

pub(super) fn growth(evidence: &Evidence) -> String {
    match evidence.growth() {
        None => "unknown: no worker has been watched for a full hour".to_owned(),
        Some(growth) => {
            let lasting =
                if growth.all.lasting { "" } else { ", which does not last or may be due to chance" };
            format!("{} per worker{lasting}", interval(&growth.all))
        }
    }
}

pub(super) fn queue(evidence: &Evidence, epoch: &Epoch) -> String {
    if evidence.last().accept_queue.is_none() && epoch.totals.queue_peak == 0 {
        return "not recorded: the service's sockets could not be read".to_owned();
    }
    if epoch.totals.queue_peak == 0 {
        return "empty in all samples".to_owned();
    }
    format!(
        "up to {}; not empty for {} of {}",
        counted(epoch.totals.queue_peak, "connection", "connections"),
        duration(epoch.totals.queued),
        duration(epoch.totals.seconds)
    )
}
