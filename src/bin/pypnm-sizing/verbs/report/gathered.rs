//! The data of a report, from the recordings and the configuration.

use std::path::{Path, PathBuf};

use anyhow::bail;
use pypnm_sizing::policy::PolicySettings;
use pypnm_sizing::sized::Sizing;
use pypnm_sizing::units::name::service_name;
use pypnm_sizing::watch::advice::{Advice, PresentSizing, findings, workers};
use pypnm_sizing::watch::days::Days;
use pypnm_sizing::watch::evidence::{Epoch, Evidence};
use pypnm_sizing::watch::text::{duration, gib};

use super::read::{RecordingReader, Wanted};
use super::text::clock;
use crate::cli::{RECORDINGS, Report};
use crate::output::remark;
use crate::watch::{index_of_unit, section};

/// The minimum number of blocks of evidence for comparing earlier conditions with the present ones.
const COMPARABLE: f64 = 3.0;

/// The data of a report.
pub(super) struct Gathered {
    pub(super) unit: String,
    pub(super) evidence: Evidence,
    pub(super) days: Days,
    pub(super) findings: Vec<Advice>,
    pub(super) problems: Vec<String>,
    /// The comparison with the time before the number of workers last changed.
    pub(super) before: Option<String>,
    pub(super) section: String,
}

pub(super) fn gather(sizing: &Sizing, arguments: &Report) -> anyhow::Result<Gathered> {
    let preferred = sizing.units.iter().map(|unit| unit.name.as_str()).collect();
    // The name as recorded: a unit with its suffix, or "process PID".
    let is_process = |name: &str| name.starts_with("process ");
    let unit = arguments
        .unit
        .as_ref()
        .map(|name| service_name(name).filter(|_| !is_process(name)).unwrap_or_else(|| name.clone()));
    let wanted = Wanted { unit: unit.as_deref(), preferred, since: arguments.since, until: arguments.until };
    let mut reader = RecordingReader::new(wanted);
    let default = [PathBuf::from(RECORDINGS)];
    let recordings: &[PathBuf] =
        if arguments.recordings.is_empty() { &default } else { &arguments.recordings };
    if arguments.recordings.is_empty() && !Path::new(RECORDINGS).is_dir() {
        bail!(
            "no recordings in {RECORDINGS}; to start recording: systemctl enable --now pypnm-sizing-watch.service"
        );
    }
    reader.read(recordings)?;
    let chosen = reader.choose();
    let mut problems = std::mem::take(&mut reader.files);
    problems.extend(reader.skipped.sentences(chosen.as_ref().map(|(unit, _)| unit.as_str())));
    let Some((unit, recording)) = chosen else {
        for problem in &problems {
            remark(problem);
        }
        let what = unit.as_deref().map_or_else(String::new, |unit| format!(" of {unit}"));
        let when = if arguments.since.or(arguments.until).is_some() { " in that time" } else { "" };
        bail!("there are no samples{what}{when} in {}", named(recordings));
    };
    let (evidence, days) = (recording.evidence, recording.days);
    let (cpu, memory, limit) = evidence.limits();
    let sized = index_of_unit(sizing, &unit).and_then(|index| sizing.units.get(index));
    let setup = (!sizing.units.is_empty()).then(|| PresentSizing {
        cpus: (cpu / 1000).max(1),
        memory,
        settings: sized.map_or_else(PolicySettings::default, |unit| unit.config.policy_settings()),
        limit_max_requests: limit.and_then(|limit| u32::try_from(limit).ok()),
    });
    let findings = findings(&evidence, setup.as_ref(), Some(&clock));
    Ok(Gathered {
        before: compared(&evidence),
        section: section(sizing, sized),
        unit,
        evidence,
        days,
        findings,
        problems,
    })
}

fn named(recordings: &[PathBuf]) -> String {
    recordings.iter().map(|path| path.display().to_string()).collect::<Vec<_>>().join(", ")
}

/// Compares what was observed with the previous number of workers and with the present one.
fn compared(evidence: &Evidence) -> Option<String> {
    let now = evidence.epoch();
    let long = |epoch: &Epoch| epoch.totals.seconds >= COMPARABLE * evidence.block_length();
    let before = evidence
        .earlier()
        .filter(|epoch| long(epoch) && epoch.workers != now.workers && epoch.until <= now.until)
        .max_by(|a, b| a.until.total_cmp(&b.until))?;
    if !long(&now) {
        return None;
    }
    let of = |epoch: &Epoch| {
        let waiting = epoch.busiest.map_or(0.0, |(part, _, _)| part * 100.0);
        let killed = if epoch.totals.oom_kills > 0 {
            format!(", {} killed because memory ran out", epoch.totals.oom_kills)
        } else {
            String::new()
        };
        format!(
            "with {}, requests waited during {waiting:.0}% of the busiest {}, memory peak {}{killed}",
            workers(epoch.workers),
            duration(evidence.block_length()),
            gib(epoch.totals.total_peak)
        )
    };
    Some(format!("{}; until {}, {}", of(&now), clock(before.until), of(before)))
}
