//! A finding, and the setup that it is judged by. Pure; the evidence is judged in the modules beside this one.

use serde::Serialize;

use crate::policy::{PolicySettings, Profile, profile};
use crate::watch::text::counted;

/// Appended to a number that the profile already has, but the running service does not.
pub(super) const NOT_IN_EFFECT: &str =
    ": it takes effect at a restart, unless something overrides it (pypnm-sizing explain)";

/// How the service is sized at present.
#[derive(Clone, Copy, Debug)]
pub struct PresentSizing {
    /// Whole CPUs that it may use.
    pub cpus: u64,
    /// Bytes that it may use.
    pub memory: u64,
    /// The operator's settings.
    pub settings: PolicySettings,
    /// The recycle limit of the running service, if it is known; 0: never.
    pub limit_max_requests: Option<u32>,
}

impl PresentSizing {
    /// The profile with the current settings.
    pub fn profile(&self) -> Profile {
        self.with(|_| ())
    }

    /// The profile with a setting changed.
    pub(super) fn with(&self, change: impl FnOnce(&mut PolicySettings)) -> Profile {
        let mut settings = self.settings;
        change(&mut settings);
        profile(self.cpus, self.memory, &settings)
    }

    /// Advises at most `cap` workers, with `MaxWorkers=`, or with `Workers=` if the operator has set that. `live`: their
    /// present number.
    pub(super) fn fewer(&self, cap: u32, live: u32, reason: &str, topic: AdviceTopic) -> Advice {
        let sized = self.profile().workers;
        if sized <= cap {
            let reason = format!("{reason}; the profile already gives {}{NOT_IN_EFFECT}", workers(sized));
            return Advice::remark(topic, reason);
        }
        let capped = self.with(|settings| settings.max_workers = cap).workers;
        let (setting, then) = if capped < live && self.settings.workers.is_none() {
            (format!("MaxWorkers={cap}"), capped)
        } else {
            (format!("Workers={cap}"), cap)
        };
        Advice::set(topic, setting, format!("{reason}; this gives {}", workers(then)))
    }
}

/// The topic of a finding.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum AdviceTopic {
    /// Whether there is evidence at all.
    Evidence,
    /// Memory growth and the recycle limit.
    Growth,
    /// The measured memory of a worker.
    MemoryPerWorker,
    /// More workers, or fewer.
    Workers,
    /// Workers that die young.
    Crashes,
}

/// A conclusion from the evidence; `findings` in the JSON output.
#[derive(Clone, Debug, PartialEq)]
pub struct Advice {
    /// What it is about.
    pub topic: AdviceTopic,
    /// The line for sizing.conf, if a setting is advised.
    pub line: Option<String>,
    /// The reason, with numbers.
    pub reason: String,
    /// The period that it is based on, on the evidence's clock.
    pub time: Option<(f64, f64)>,
}

impl Advice {
    pub(super) fn set(topic: AdviceTopic, line: String, reason: String) -> Self {
        Self { topic, line: Some(line), reason, time: None }
    }

    pub(super) fn remark(topic: AdviceTopic, reason: String) -> Self {
        Self { topic, line: None, reason, time: None }
    }

    pub(super) fn at(self, time: (f64, f64)) -> Self {
        Self { time: Some(time), ..self }
    }
}

/// The advised settings: the line of each, and its finding.
pub fn settings(findings: &[Advice]) -> impl Iterator<Item = (&str, &Advice)> {
    findings.iter().filter_map(|finding| Some((finding.line.as_deref()?, finding)))
}

/// The findings that advise no setting.
pub fn remarks(findings: &[Advice]) -> impl Iterator<Item = &str> {
    findings.iter().filter(|finding| finding.line.is_none()).map(|finding| finding.reason.as_str())
}

/// `1 worker`, `4 workers`.
pub fn workers(count: impl Into<u64>) -> String {
    counted(count.into(), "worker", "workers")
}
