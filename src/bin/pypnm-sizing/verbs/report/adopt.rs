//! `report --adopt`: writes the advice, with its evidence, as a drop-in of sizing.conf, and shows its effect.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;

use anyhow::bail;
use pypnm_sizing::pypnm::Numbers;
use pypnm_sizing::root::{ReadError, Root};
use pypnm_sizing::sized::Sizing;
use pypnm_sizing::sizing::{Request, size};
use pypnm_sizing::watch::advice::{Advice, drop_in, remarks, settings};
use pypnm_sizing::watch::text::{clock_range, duration};
use pypnm_sizing::write::Directory;

use super::gathered::Gathered;
use super::text::{clock, recommended};
use crate::output::{Outcome, printable, remark};
use crate::page::Page;
use crate::wording;

/// The file that `--adopt` writes, below the root. Operators can override it with a higher number.
const ADOPTED: (&str, &str) = ("etc/pypnm/sizing.conf.d", "60-measured.conf");

/// Writes the advice, and shows its effect.
pub(super) fn adopt(root: &Root, top: &Path, gathered: &Gathered) -> Outcome {
    let mut page = Page::new();
    gathered.problems.iter().for_each(|problem| remark(problem));
    if settings(&gathered.findings).next().is_none() {
        page.row("", 0, "No changes are recommended, so nothing was written.");
        remarks(&gathered.findings).for_each(|remark| page.row("  - ", 4, remark));
        return page.print();
    }
    let (directory, name) = ADOPTED;
    let path = format!("/{directory}/{name}");
    let sizing = size(&Request::new(root));
    // A recording of a process counts for all units; one of another unit does not count for these.
    let is_unit = gathered.unit.ends_with(".service");
    if is_unit && !sizing.units.iter().any(|unit| unit.name == gathered.unit) {
        bail!("{} is not sized here, so nothing was written; --unit= selects another unit", gathered.unit);
    }
    let of_process = sizing.units.first().filter(|_| !is_unit);
    let name_of_unit = of_process.map_or_else(|| gathered.unit.clone(), |unit| unit.name.clone());
    let profile = |sizing: &Sizing| {
        let unit = sizing.units.iter().find(|unit| unit.name == name_of_unit);
        unit.map(|unit| Numbers::from(&unit.profile))
    };
    let before = profile(&sizing);
    let kept = kept(&adopted(root, &path)?, &gathered.findings, &gathered.section);
    let text = format!("{}{kept}", advice_file(gathered));
    Directory::create_below(root, &Path::new("/").join(directory))?.replace(name, &text)?;
    let after = profile(&size(&Request::new(root)));
    page.heading(&format!("Wrote {}", top.join(directory).join(name).display()));
    recommended(&mut page, &gathered.findings);
    let text = |profile: Option<Numbers>| match profile {
        Some(numbers) => wording::profile(numbers),
        None => format!("{name_of_unit} is not sized"),
    };
    page.row("  before  ", 10, &text(before));
    page.row("  after   ", 10, &text(after));
    let next = if before == after {
        format!("Another setting takes precedence; see pypnm-sizing explain. To undo it: rm {path}")
    } else {
        format!(
            "To put it into effect: pypnm-sizing apply (it reloads or restarts {name_of_unit}). To undo it: rm {path}"
        )
    };
    page.gap();
    page.row("", 0, &next);
    page.print()
}

/// The advice adopted earlier. A file that another user may have written is not copied into a file of root.
fn adopted(root: &Root, path: &str) -> anyhow::Result<String> {
    match root.with_trusted_bytes(path, |text| String::from_utf8_lossy(text).into_owned()) {
        Ok(text) => Ok(text),
        Err(ReadError::Missing) => Ok(String::new()),
        Err(error) => bail!("{path}: {error}; nothing was written"),
    }
}

/// The settings in the file that the advice does not replace, which are kept.
fn kept(text: &str, findings: &[Advice], section: &str) -> String {
    let key = |line: &str| line.split_once('=').map(|(key, _)| key.trim().to_owned());
    let replaced: Vec<String> = settings(findings).filter_map(|(line, _)| key(line)).collect();
    let mut sections: BTreeMap<String, Vec<String>> = BTreeMap::new();
    let mut current = String::new();
    for line in text.lines().map(str::trim).filter(|line| !line.starts_with(['#', ';'])) {
        if let Some(name) = line.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
            name.clone_into(&mut current);
        } else if let Some(key) = key(line)
            && !(current == section && replaced.contains(&key))
        {
            sections.entry(current.clone()).or_default().push(line.to_owned());
        }
    }
    let mut kept = String::new();
    for (section, lines) in sections {
        let _ = write!(kept, "\n# Adopted earlier.\n[{section}]\n{}\n", lines.join("\n"));
    }
    kept
}

/// The advice as a file of sizing.conf.d.
pub(super) fn advice_file(gathered: &Gathered) -> String {
    let (from, until) = gathered.evidence.range().unwrap_or_default();
    let head = format!(
        "From `pypnm-sizing report`: {}, {} watched, {}.\nReview it, keep what you agree with, then run: pypnm-sizing apply",
        // The text is from a recording and may contain anything.
        printable(&gathered.unit),
        duration(gathered.evidence.watched()),
        clock_range(&clock, from, until)
    );
    drop_in(&gathered.findings, &gathered.section, &head)
}

#[cfg(test)]
mod tests {
    use super::{Advice, kept};
    use pypnm_sizing::watch::advice::AdviceTopic;

    #[test]
    fn what_was_adopted_before_stays_unless_it_is_replaced() {
        let text = "# old\n[Sizing]\nMaxWorkers=6\n# why\nLimitMaxRequests=500\n[b.service]\nMaxWorkers=2\n";
        let finding = Advice {
            topic: AdviceTopic::Workers,
            line: Some("MaxWorkers=8".into()),
            reason: String::new(),
            time: None,
        };
        let kept = kept(text, &[finding], "Sizing");
        assert_eq!(
            kept,
            "\n# Adopted earlier.\n[Sizing]\nLimitMaxRequests=500\n\n# Adopted earlier.\n[b.service]\nMaxWorkers=2\n"
        );
    }
}
