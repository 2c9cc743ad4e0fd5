//! The topics of findings with their meanings, and the states of monitoring plugins.
//!
//! `check --json` has the names of the topics in kebab case. pypnm-sizing(1) and docs/json.md list the same words, and a test
//! compares them.

use serde::ser::{Serialize, SerializeStruct as _, Serializer};

/// The state of a finding, of a unit, or of all units, as in monitoring plugins. Later variants are worse.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum State {
    /// Nothing to do.
    Ok,
    /// It cannot be determined.
    Unknown,
    /// The service is running, or can be started, but differs from what it should be.
    Warning,
    /// The service is not running although nobody stopped it.
    Critical,
}

impl State {
    /// Its name.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Unknown => "unknown",
            Self::Warning => "warning",
            Self::Critical => "critical",
        }
    }

    /// The exit status of a monitoring plugin.
    pub(crate) fn exit_status(self) -> u8 {
        match self {
            Self::Ok => 0,
            Self::Warning => 1,
            Self::Critical => 2,
            Self::Unknown => 3,
        }
    }

    /// The word in the field `status`, which has three values.
    fn status(self) -> &'static str {
        match self {
            Self::Ok => "fits",
            Self::Unknown => "unknown",
            Self::Warning | Self::Critical => "differs",
        }
    }
}

/// In JSON, the fields `status` and `state` of a unit or a finding.
impl Serialize for State {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut fields = serializer.serialize_struct("State", 2)?;
        fields.serialize_field("status", self.status())?;
        fields.serialize_field("state", self.word())?;
        fields.end()
    }
}

/// The topic of a finding.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[cfg_attr(test, derive(clap::ValueEnum))]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Topic {
    /// The service failed, or exited without having been stopped, and systemd does not start it again.
    Failed,
    /// The service exits soon after each start, and systemd keeps restarting it.
    Looping,
    /// systemd has no unit of this name, or cannot load its file.
    UnitMissing,
    /// The unit is masked, so it cannot be started.
    UnitMasked,
    /// PyPNM was not started because a condition of the unit is not met; for the packaged unit: PyPNM is not installed.
    ConditionFailed,
    /// The program of `ExecStart=` is not where systemd looks for it, or an `ExecSearchPath=` has no effect.
    ProgramPath,
    /// The service is being started.
    Starting,
    /// The service is replacing its workers: a reload as in pypnm-sizing-handover(7) is in progress.
    Reloading,
    /// The service has no processes: it was stopped, or was never started.
    NotRunning,
    /// PyPNM runs in another unit or in none, and is not sized.
    OtherUnit,
    /// systemd cannot be queried.
    NoSystemd,
    /// The unit is a template; only its instances can run.
    Template,
    /// The caller is not permitted to read what the verdict depends on.
    Hidden,
    /// The unit is not sized: sizing is turned off, or the unit is not listed in `Units=`.
    TurnedOff,
    /// sizing.conf(5) contains a mistake, and the setting is ignored.
    ConfigurationIgnored,
    /// The machine's CPUs or memory have changed since the last reload.
    MachineChanged,
    /// The configuration, or an override, has changed since the last reload.
    ConfigurationChanged,
    /// The limits in force are tighter than those that the generator could see; they are applied at each start.
    LimitsInForce,
    /// The running service still has the numbers from before the last reload.
    NotRestarted,
    /// The unit's own files or the command line override the generated drop-in.
    Override,
    /// sizing.conf(5) sets a number.
    SetByHand,
    /// The generated drop-in is masked.
    DropInMasked,
    /// A drop-in of the same name replaces the generated one.
    DropInReplaced,
    /// The generator is not installed.
    GeneratorMissing,
    /// The generator is masked, or not executable.
    GeneratorMasked,
    /// The generator has written no drop-in for this unit.
    NotGenerated,
    /// PyPNM sizes itself, because no generated drop-in is in effect.
    SizesItself,
    /// PyPNM does not take its profile from the file that was written for it.
    NotRead,
    /// Fewer or more workers are alive than PyPNM was configured to start.
    WorkersMissing,
}

/// A finding about a unit, as in `check --json`.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub(crate) struct Finding {
    pub(crate) topic: Topic,
    #[serde(flatten)]
    pub(crate) state: State,
    pub(crate) text: String,
    /// The command that fixes it.
    #[serde(rename = "mend")]
    pub(crate) fix: Option<String>,
}

impl Finding {
    pub(super) fn new(topic: Topic, state: State, text: impl Into<String>) -> Self {
        Self { topic, state, text: text.into(), fix: None }
    }

    /// The caller is not permitted to read something.
    pub(super) fn hidden(text: impl Into<String>) -> Self {
        Self::new(Topic::Hidden, State::Unknown, text).fixed_by("run it as root")
    }

    /// Adds the command that fixes it.
    pub(super) fn fixed_by(self, command: impl Into<String>) -> Self {
        Self { fix: Some(command.into()), ..self }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use clap::ValueEnum as _;

    use super::Topic;

    fn document(path: &str) -> String {
        let path = format!("{}/{path}", env!("CARGO_MANIFEST_DIR"));
        std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path}: {error}"))
    }

    /// The manual page and docs/json.md list the topics that there are, and no others.
    #[test]
    fn the_documents_list_every_topic() {
        let words: Vec<String> = Topic::value_variants()
            .iter()
            .map(|topic| serde_json::from_value(serde_json::json!(topic)).unwrap_or_default())
            .collect();
        let known: BTreeSet<&str> = words.iter().map(String::as_str).collect();
        let json = document("docs/json.md");
        let section = json.split("\n## Topics\n").nth(1).unwrap_or_default();
        let section = section.split("\n## ").next().unwrap_or_default();
        let in_json = section.lines().filter_map(|line| line.strip_prefix("| `")?.split_once('`'));
        assert_eq!(in_json.map(|(word, _)| word).collect::<BTreeSet<_>>(), known, "docs/json.md");
        let manual = document("man/pypnm-sizing.1");
        let section = manual.split("\n.Ss Topics\n").nth(1).unwrap_or_default();
        let section =
            section.split("\n.Ss ").next().unwrap_or_default().split("\n.Sh ").next().unwrap_or_default();
        let in_manual = section.lines().filter_map(|line| line.strip_prefix(".It Cm "));
        assert_eq!(in_manual.collect::<BTreeSet<_>>(), known, "man/pypnm-sizing.1");
    }
}
