//! The topics of findings with their meanings, and the states of monitoring plugins.
//!
//! These are the words of `check --json`. pypnm-sizing(1) and docs/json.md list the same words, and a test compares them.

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
    /// The word in JSON.
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

    /// The word in the field `status` of schema 1, which has three values.
    pub(crate) fn fit(self) -> &'static str {
        match self {
            Self::Ok => "fits",
            Self::Unknown => "unknown",
            Self::Warning | Self::Critical => "differs",
        }
    }
}

macro_rules! topics {
    ($($(#[doc = $meaning:literal])+ $name:ident = $word:literal,)+) => {
        /// The topic of a finding.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub(crate) enum Topic {
            $($(#[doc = $meaning])+ $name,)+
        }

        impl Topic {
            /// Every topic.
            #[cfg(test)]
            pub(crate) const ALL: &'static [Self] = &[$(Self::$name),+];

            /// The word in JSON.
            pub(crate) fn word(self) -> &'static str {
                match self {
                    $(Self::$name => $word,)+
                }
            }
        }
    };
}

topics! {
    /// The service failed, or exited without having been stopped, and systemd does not start it again.
    Failed = "failed",
    /// The service exits soon after each start, and systemd keeps restarting it.
    Looping = "looping",
    /// systemd has no unit of this name, or cannot load its file.
    UnitMissing = "unit-missing",
    /// The unit is masked, so it cannot be started.
    UnitMasked = "unit-masked",
    /// PyPNM was not started because a condition of the unit is not met; for the packaged unit: PyPNM is not installed.
    ConditionFailed = "condition-failed",
    /// The program of `ExecStart=` is not where systemd looks for it, or an `ExecSearchPath=` has no effect.
    ProgramPath = "program-path",
    /// The service is being started.
    Starting = "starting",
    /// The service is replacing its workers: a reload as in pypnm-sizing-handover(7) is in progress.
    Reloading = "reloading",
    /// The service has no processes: it was stopped, or was never started.
    NotRunning = "not-running",
    /// PyPNM runs in another unit or in none, and is not sized.
    OtherUnit = "other-unit",
    /// systemd cannot be queried.
    NoSystemd = "no-systemd",
    /// The unit is a template; only its instances can run.
    Template = "template",
    /// The caller is not permitted to read what the verdict depends on.
    Hidden = "hidden",
    /// The unit is not sized: sizing is turned off, or the unit is not listed in `Units=`.
    TurnedOff = "turned-off",
    /// sizing.conf(5) contains a mistake, and the setting is ignored.
    ConfigurationIgnored = "configuration-ignored",
    /// The machine's CPUs or memory have changed since the last reload.
    MachineChanged = "machine-changed",
    /// The configuration, or an override, has changed since the last reload.
    ConfigurationChanged = "configuration-changed",
    /// The limits in force are tighter than those that the generator could see; they are applied at each start.
    LimitsInForce = "limits-in-force",
    /// The running service still has the numbers from before the last reload.
    NotRestarted = "not-restarted",
    /// The unit's own files or the command line override the generated drop-in.
    Override = "override",
    /// sizing.conf(5) sets a number.
    SetByHand = "set-by-hand",
    /// The generated drop-in is masked.
    DropInMasked = "drop-in-masked",
    /// A drop-in of the same name replaces the generated one.
    DropInReplaced = "drop-in-replaced",
    /// The generator is not installed.
    GeneratorMissing = "generator-missing",
    /// The generator is masked, or not executable.
    GeneratorMasked = "generator-masked",
    /// The generator has written no drop-in for this unit.
    NotGenerated = "not-generated",
    /// PyPNM sizes itself, because no generated drop-in is in effect.
    SizesItself = "sizes-itself",
    /// PyPNM does not take its profile from the file that was written for it.
    NotRead = "not-read",
    /// Fewer or more workers are alive than PyPNM was configured to start.
    WorkersMissing = "workers-missing",
}

/// A finding about a unit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Finding {
    pub(crate) topic: Topic,
    pub(crate) state: State,
    pub(crate) text: String,
    /// The command that fixes it.
    pub(crate) fix: Option<String>,
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::Topic;

    fn document(path: &str) -> String {
        let path = format!("{}/{path}", env!("CARGO_MANIFEST_DIR"));
        std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path}: {error}"))
    }

    /// The manual page and docs/json.md list the topics that there are, and no others.
    #[test]
    fn the_documents_list_every_topic() {
        let known: BTreeSet<&str> = Topic::ALL.iter().map(|topic| topic.word()).collect();
        assert_eq!(known.len(), Topic::ALL.len());
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
