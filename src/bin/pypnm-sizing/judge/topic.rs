//! The topics of findings with their meanings, and the states of monitoring plugins.
//!
//! `check --json` has the names of the topics in kebab case. pypnm-sizing(1) and docs/json.md list the same words with the same
//! meanings, and a test compares them.

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
    /// How to fix it, usually a command.
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

    /// Adds how to fix it, usually a command.
    pub(super) fn fixed_by(self, fix: impl Into<String>) -> Self {
        Self { fix: Some(fix.into()), ..self }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use clap::ValueEnum as _;

    use super::Topic;

    /// The text of the document from `heading` to the next heading of the same level.
    fn section(path: &str, heading: &str) -> String {
        let path = format!("{}/{path}", env!("CARGO_MANIFEST_DIR"));
        let text = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path}: {error}"));
        let level = heading.split(' ').next().unwrap_or_default();
        let section = text.split(&format!("\n{heading}\n")).nth(1).unwrap_or_default();
        section.split(&format!("\n{level} ")).next().unwrap_or_default().to_owned()
    }

    /// The meaning without markup, the capital letter at its beginning and the full stop at its end.
    fn normalized(meaning: &str) -> String {
        let meaning = meaning.trim().trim_end_matches('.').replace('`', "");
        let mut characters = meaning.chars();
        characters.next().map(|first| first.to_lowercase().chain(characters).collect()).unwrap_or_default()
    }

    /// The text of a macro of mdoc(7): `.Xr sizing.conf 5`, `.Va Units= .`.
    fn without_macro(line: &str) -> String {
        if let Some((page, number)) = line.strip_prefix(".Xr ").and_then(|link| link.split_once(' ')) {
            return format!("{page}({number})");
        }
        let argument = line.strip_prefix(".Cm ").or_else(|| line.strip_prefix(".Va "));
        argument.map_or_else(|| line.to_owned(), |argument| argument.replace(" .", "."))
    }

    /// The comments above, docs/json.md and the manual page list the same topics with the same meanings.
    #[test]
    fn the_documents_list_every_topic() {
        let mut known = BTreeMap::new();
        for topic in Topic::value_variants() {
            let word: String = serde_json::from_value(serde_json::json!(topic)).unwrap_or_default();
            let comment =
                topic.to_possible_value().and_then(|value| value.get_help().map(ToString::to_string));
            known.insert(word, normalized(&comment.unwrap_or_default()));
        }
        let json = section("docs/json.md", "## Topics");
        let rows =
            json.lines().filter_map(|line| line.strip_prefix("| `")?.strip_suffix(" |")?.split_once("` | "));
        let in_json: BTreeMap<_, _> =
            rows.map(|(word, meaning)| (word.to_owned(), normalized(meaning))).collect();
        assert_eq!(in_json, known, "docs/json.md");
        let manual = section("man/pypnm-sizing.1", ".Ss Topics");
        let list = manual.split("\n.El").next().unwrap_or_default();
        let items = list.split(".It Cm ").skip(1).filter_map(|item| item.split_once('\n'));
        let in_manual: BTreeMap<_, _> = items
            .map(|(word, lines)| {
                let meaning: Vec<String> = lines.lines().map(without_macro).collect();
                (word.to_owned(), normalized(&meaning.join(" ")))
            })
            .collect();
        assert_eq!(in_manual, known, "man/pypnm-sizing.1");
    }
}
