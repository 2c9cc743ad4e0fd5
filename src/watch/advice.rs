//! Advice on sizing.conf: findings, each with its reason and the period that it is based on, and some with a line to set. Pure;
//! the profile that a line leads to is that of [`crate::policy`].
//!
//! One cause at a time: while workers grow, there is no advice on memory or the number of workers, because what they show is due
//! to the growth, and a setting made for it would outlast it.

mod finding;
mod growth;
mod memory;
mod workers;

use std::fmt::Write as _;

use super::evidence::{Epoch, Evidence};
use super::text::{duration, wrapped};
pub use finding::{Advice, AdviceTopic, PresentSizing, remarks, settings, workers};
use growth::growth_finding;
use memory::{memory_per_worker, memory_remark};
use workers::{demand, under_pressure};

/// The number of samples without which there is no advice, regardless of how long they took.
const MIN_SAMPLES: u64 = 20;
/// All findings. Without a setup, nothing can be advised. `clock` formats a time on the evidence's clock; without it (a
/// watch of a few minutes) no times are mentioned.
pub fn findings(
    evidence: &Evidence,
    setup: Option<&PresentSizing>,
    clock: Option<&dyn Fn(f64) -> String>,
) -> Vec<Advice> {
    let mut found = Vec::new();
    if evidence.short_lives >= 3 {
        let reason = format!(
            "{} workers died within 10 s of starting: a crash, not the recycle limit; see the service's log",
            evidence.short_lives
        );
        found.push(Advice::remark(AdviceTopic::Crashes, reason));
    }
    let Some(setup) = setup else {
        let reason = "sizing is turned off, so there is no advice".to_owned();
        found.push(Advice::remark(AdviceTopic::Evidence, reason));
        return found;
    };
    let epoch = evidence.epoch();
    let all = (epoch.from, epoch.until);
    if let Some(missing) = missing(evidence, &epoch) {
        let reason = format!("not enough evidence yet: {missing}");
        found.push(Advice::remark(AdviceTopic::Evidence, reason));
        return found;
    }
    let growth = evidence.growth();
    let of_growth = growth_finding(evidence, growth.as_ref(), setup);
    let grows = of_growth.line.is_some();
    let time = growth.as_ref().map_or(all, |growth| (growth.from, growth.until));
    found.push(of_growth.at(time));
    if grows {
        let reason = "no advice on memory or the number of workers while workers keep growing: contain the growth first"
            .to_owned();
        found.push(Advice::remark(AdviceTopic::Workers, reason).at(all));
        return found;
    }
    if let Some(finding) = under_pressure(&epoch, setup) {
        found.push(memory_remark(&epoch, setup).at(all));
        found.push(finding);
        return found;
    }
    let memory = memory_per_worker(&epoch, setup);
    let lowered = memory.line.is_some();
    found.push(memory.at(all));
    // If memory already calls for fewer workers, it does not also call for less per worker.
    if !lowered {
        found.push(demand(&epoch, setup, evidence.block_length(), clock));
    }
    found
}

/// The evidence that is still missing.
fn missing(evidence: &Evidence, epoch: &Epoch) -> Option<String> {
    let needed = evidence.block_length();
    // The first sample covers no time, so a watch of ten minutes has slightly less.
    if epoch.totals.seconds < needed * 0.95 {
        Some(format!("{} of {}", duration(epoch.totals.seconds), duration(needed)))
    } else if epoch.totals.samples < MIN_SAMPLES {
        Some(format!("{} of {MIN_SAMPLES} samples", epoch.totals.samples))
    } else {
        None
    }
}

/// The findings as a drop-in for sizing.conf.d: the lines to set, each below its reason, and the other findings as
/// comments.
pub fn drop_in(findings: &[Advice], section: &str, head: &str) -> String {
    let mut text = String::new();
    head.lines().for_each(|line| comment(&mut text, line));
    remarks(findings).for_each(|remark| comment(&mut text, remark));
    let mut settings = settings(findings).peekable();
    if settings.peek().is_none() {
        text.push_str("# No changes recommended.\n");
        return text;
    }
    let _ = writeln!(text, "[{section}]");
    for (line, finding) in settings {
        comment(&mut text, &finding.reason);
        let _ = writeln!(text, "{line}");
    }
    text
}

/// A comment, wrapped at 78 columns. It contains no line breaks and never ends in a backslash, because reasons are
/// fixed texts.
fn comment(text: &mut String, reason: &str) {
    for line in wrapped(reason, 76) {
        let _ = writeln!(text, "# {line}");
    }
}

#[cfg(test)]
mod tests;
