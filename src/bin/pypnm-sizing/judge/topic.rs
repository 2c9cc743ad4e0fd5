//! What can be found of a service: the topics of findings with their meanings, and the states of monitoring plugins.
//!
//! The words are those of `check --json`; pypnm-sizing(1) and docs/json.md list the same, and a test compares them.

/// The state of a unit, of a finding, of all units together, as monitoring plugins have it. The later is the worse.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum State {
    /// Nothing to do.
    Ok,
    /// It cannot be determined.
    Unknown,
    /// The service runs, or could, and differs from what it should be.
    Warning,
    /// The service does not run, and nobody stopped it.
    Critical,
}

impl State {
    /// In the lower case of JSON.
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

    /// The word of schema 1's `status`, which had three.
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
        /// What a finding is about.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub(crate) enum Topic {
            $($(#[doc = $meaning])+ $name,)+
        }

        impl Topic {
            /// Every topic.
            #[cfg(test)]
            pub(crate) const ALL: &'static [Self] = &[$(Self::$name),+];

            /// The word for programs.
            pub(crate) fn word(self) -> &'static str {
                match self {
                    $(Self::$name => $word,)+
                }
            }
        }
    };
}

topics! {
    /// The service failed, and systemd does not start it again.
    Failed = "failed",
    /// The service ends soon after each start, and systemd starts it again and again.
    Looping = "looping",
    /// systemd has no unit of this name, or cannot load its file.
    UnitMissing = "unit-missing",
    /// The unit is masked: it cannot be started.
    UnitMasked = "unit-masked",
    /// PyPNM was not started because a condition of the unit is not met; for the packaged unit: PyPNM is not installed.
    ConditionFailed = "condition-failed",
    /// The program of `ExecStart=` is not where systemd looks for it, or an `ExecSearchPath=` has no effect.
    ProgramPath = "program-path",
    /// The service is being started.
    Starting = "starting",
    /// The service replaces its workers: a reload of pypnm-sizing-handover(7) is in progress.
    Reloading = "reloading",
    /// The service is inactive: stopped, or never started.
    NotRunning = "not-running",
    /// PyPNM runs under another unit's name, which is not sized.
    OtherUnit = "other-unit",
    /// systemd cannot be asked.
    NoSystemd = "no-systemd",
    /// The name is a template's: only its instances run.
    Template = "template",
    /// The caller may not read what the verdict depends on.
    Hidden = "hidden",
    /// The unit is not sized: turned off, or not in `Units=`.
    TurnedOff = "turned-off",
    /// sizing.conf(5) has a mistake; what is wrong there is ignored.
    ConfigurationIgnored = "configuration-ignored",
    /// The machine's CPUs or memory have changed since the last reload.
    MachineChanged = "machine-changed",
    /// The configuration, or an override, has changed since the last reload.
    ConfigurationChanged = "configuration-changed",
    /// The limits in force allow less than the generator could see; the last look at each start counts them.
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
    /// PyPNM sizes itself, since no generated drop-in is in force.
    SizesItself = "sizes-itself",
    /// PyPNM does not take its profile from the file that was meant for it.
    NotRead = "not-read",
    /// Fewer or more workers are alive than PyPNM was told to start.
    WorkersMissing = "workers-missing",
}

/// One thing found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Finding {
    pub(crate) topic: Topic,
    pub(crate) state: State,
    pub(crate) text: String,
    /// The one command that fixes it.
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
