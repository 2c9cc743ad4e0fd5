//! Counts the lines that a report ignores, by reason, and describes them.

use std::collections::BTreeSet;

use pypnm_sizing::watch::line::MAX_LINE_BYTES;

/// The maximum number of units that are distinguished in the same recordings.
pub(super) const UNITS: usize = 16;
/// The maximum number of schemas that are listed.
pub(super) const SCHEMAS: usize = 8;

/// The singular and the plural of a verb.
type Verb = (&'static str, &'static str);
const IS: Verb = ("is", "are");
const HAS: Verb = ("has", "have");
const COVERS: Verb = ("covers", "cover");
const COMES: Verb = ("comes", "come");
const BELONGS: Verb = ("belongs", "belong");

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
    /// Jumps of the system clock. No line is ignored because of them.
    pub(in super::super) jumps: u64,
    pub(in super::super) other_units: BTreeSet<String>,
}

impl Skipped {
    /// A sentence for each reason.
    pub(in super::super) fn sentences(&self, chosen: Option<&str>) -> Vec<String> {
        let schemas: Vec<String> = self.schemas.iter().map(u64::to_string).collect();
        let unknown = format!("of a schema that this version does not know ({})", schemas.join(", "));
        let long = format!("longer than {MAX_LINE_BYTES} bytes");
        let beyond = format!("to units beyond the first {UNITS}");
        let mut sentences: Vec<String> = [
            ignored(self.torn, IS, "incomplete or not JSON"),
            ignored(self.foreign, IS, "not in the format of a sample"),
            ignored(self.impossible, HAS, "negative amounts, or larger ones than any machine has,"),
            ignored(self.schema, IS, &unknown),
            ignored(self.long, IS, &long),
            ignored(self.timeless, HAS, "no time"),
            ignored(self.late, COMES, "too late to be sorted"),
            ignored(self.twice, COVERS, "a time that another line already covers"),
            ignored(self.too_many_units, BELONGS, &beyond),
        ]
        .into_iter()
        .flatten()
        .collect();
        if self.jumps > 0 {
            let times = if self.jumps == 1 { "once".to_owned() } else { format!("{} times", self.jumps) };
            sentences.push(format!("the system clock jumped {times}; the monotonic clock was used"));
        }
        if let Some(example) = self.other_units.first() {
            let here = chosen.map_or_else(String::new, |chosen| format!("this report is about {chosen}; "));
            let others: Vec<&str> = self.other_units.iter().map(String::as_str).collect();
            sentences.push(format!(
                "{here}the recordings also contain {}: --unit=\"{example}\"",
                others.join(", ")
            ));
        }
        sentences
    }
}

/// A sentence about the lines ignored for one reason, if there are any.
fn ignored(count: u64, (singular, plural): Verb, why: &str) -> Option<String> {
    match count {
        0 => None,
        1 => Some(format!("1 line {singular} {why} and was ignored")),
        _ => Some(format!("{count} lines {plural} {why} and were ignored")),
    }
}
