//! Counts the lines that a report ignores, by reason, and describes them.

use std::collections::BTreeSet;

use pypnm_sizing::watch::line::LONGEST;

/// The maximum number of units that are distinguished in the same recordings.
pub(super) const UNITS: usize = 16;
/// The maximum number of schemas that are listed.
pub(super) const SCHEMAS: usize = 8;

/// The ignored lines, and why.
#[derive(Default)]
pub(in super::super) struct Skipped {
    pub(in super::super) torn: u64,
    pub(in super::super) foreign: u64,
    pub(in super::super) impossible: u64,
    /// Lines of unknown schemas, and the first few of these schemas.
    pub(in super::super) schema: u64,
    pub(in super::super) schemas: BTreeSet<u64>,
    pub(in super::super) long: u64,
    pub(in super::super) late: u64,
    pub(in super::super) twice: u64,
    pub(in super::super) timeless: u64,
    pub(in super::super) too_many_units: u64,
    pub(in super::super) jumps: u64,
    pub(in super::super) other_units: BTreeSet<String>,
}

impl Skipped {
    /// A sentence for each reason.
    pub(in super::super) fn sentences(&self, chosen: Option<&str>) -> Vec<String> {
        let lines = |count: u64| if count == 1 { "1 line".to_owned() } else { format!("{count} lines") };
        let is = |count: u64| if count == 1 { "is" } else { "are" };
        let was = |count: u64| if count == 1 { "was" } else { "were" };
        let mut sentences = Vec::new();
        let mut add = |count: u64, sentence: String| {
            if count > 0 {
                sentences.push(sentence);
            }
        };
        add(
            self.torn,
            format!("{} {} torn or not JSON and {} ignored", lines(self.torn), is(self.torn), was(self.torn)),
        );
        add(
            self.foreign,
            format!(
                "{} {} not a recorded sample and {} ignored",
                lines(self.foreign),
                is(self.foreign),
                was(self.foreign)
            ),
        );
        add(
            self.impossible,
            format!(
                "{} {} negative amounts or larger ones than any machine has and {} ignored",
                lines(self.impossible),
                if self.impossible == 1 { "has" } else { "have" },
                was(self.impossible)
            ),
        );
        let schemas: Vec<String> = self.schemas.iter().map(u64::to_string).collect();
        add(
            self.schema,
            format!(
                "{} {} of a schema that this version does not know ({}) and {} ignored",
                lines(self.schema),
                is(self.schema),
                schemas.join(", "),
                was(self.schema)
            ),
        );
        add(
            self.long,
            format!(
                "{} {} longer than {LONGEST} bytes and {} ignored",
                lines(self.long),
                is(self.long),
                was(self.long)
            ),
        );
        add(
            self.timeless,
            format!(
                "{} {} no time and {} ignored",
                lines(self.timeless),
                if self.timeless == 1 { "has" } else { "have" },
                was(self.timeless)
            ),
        );
        add(
            self.late,
            format!("{} came too late to be sorted and {} ignored", lines(self.late), was(self.late)),
        );
        add(
            self.twice,
            format!(
                "{} {} of a time that another line covers, and {} counted once",
                lines(self.twice),
                is(self.twice),
                was(self.twice)
            ),
        );
        add(
            self.jumps,
            format!(
                "the system clock jumped {}; the monotonic clock was used",
                if self.jumps == 1 { "once".to_owned() } else { format!("{} times", self.jumps) }
            ),
        );
        add(
            self.too_many_units,
            format!(
                "{} {} of more than {UNITS} units and {} ignored",
                lines(self.too_many_units),
                is(self.too_many_units),
                was(self.too_many_units)
            ),
        );
        let others: Vec<&str> = self.other_units.iter().map(String::as_str).collect();
        if !others.is_empty() {
            let here = chosen.map_or_else(String::new, |chosen| format!("this report is on {chosen}; "));
            let example = others.first().copied().unwrap_or_default();
            sentences.push(format!(
                "{here}the recordings also contain {}: --unit=\"{example}\"",
                others.join(", ")
            ));
        }
        sentences
    }
}
