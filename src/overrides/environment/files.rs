//! `EnvironmentFile=`: which files can be read now, and what they set.
//!
//! [`crate::parse::environment`] parses them; [`super::slot`] determines which assignment takes effect.

use std::collections::BTreeSet;

use super::Environment;
use crate::overrides::effect::{Effect, Override};
use crate::parse::environment::{self, EnvironmentAssignment};
use crate::parse::syntax::Fault;
use crate::problem::{Problem, ProblemKind, Source};
use crate::root::{ReadError, Root};
use crate::units::{Assignment, Unit, specifier};

/// The characters that make a path in `EnvironmentFile=` a glob pattern.
const PATTERN: [char; 3] = ['*', '?', '['];

/// Whether a generator may open a file. Other file systems may not be mounted yet, or mounting them may wait for the reload
/// that waits for the generator (systemd.generator(7), "Notes about writing generators").
pub(super) fn is_there_early(path: &str) -> bool {
    let inside = ["/etc/", "/run/", "/usr/"].iter().any(|directory| path.starts_with(directory));
    inside && !path.split('/').any(|step| step == "..") && !path.contains(PATTERN)
}

impl Environment<'_> {
    /// Adds `EnvironmentFile=` of all files, which are applied after every `Environment=`.
    pub(in crate::overrides) fn read_files(&mut self, root: &Root, unit: &Unit, problems: &mut Vec<Problem>) {
        // There is no path if its specifiers are unknown here.
        let mut files: Vec<(Option<String>, &Assignment)> = Vec::new();
        for assignment in unit.list_of("EnvironmentFile") {
            let Some(name) = unit.name_at(assignment) else {
                continue;
            };
            let path = assignment.value.strip_prefix('-').unwrap_or(&assignment.value);
            if path.starts_with(['/', '%']) {
                files.push((specifier::expand(path, &name).ok().map(Into::into), assignment));
            }
        }
        // If a file is listed again, what it sets counts as of then.
        let mut later: BTreeSet<String> = BTreeSet::new();
        let mut is_last = |path: &Option<String>| path.as_ref().is_none_or(|path| later.insert(path.clone()));
        let mut last: Vec<_> = files.into_iter().rev().filter(|(path, _)| is_last(path)).collect();
        last.reverse();
        for (path, assignment) in last {
            let is_early = path.as_deref().is_some_and(is_there_early);
            self.has_late_files |= !is_early;
            let path = path.filter(|path| !path.contains(PATTERN) && (is_early || !root.is_early()));
            let Some(path) = path else {
                self.add_not_read(assignment.value.trim_start_matches('-').to_owned(), assignment);
                continue;
            };
            let read = root.with_guarded_bytes(&path, |text| {
                (environment::variables(text), environment::variables_before_254(text))
            });
            let (variables, before_254) = match read {
                Ok((Ok(variables), before_254)) => (variables, before_254),
                Ok((Err((line, fault)), _)) => {
                    problems.push(Problem::new(
                        Source::key(path, line, ""),
                        ProblemKind::Syntax(fault),
                        "systemd ignores the whole file",
                    ));
                    continue;
                }
                Err(ReadError::Missing) => {
                    // Files in /run are created during the boot, perhaps later than this.
                    let is_late = path.starts_with("/run/");
                    self.has_late_files |= is_late;
                    if is_late && root.is_early() {
                        self.add_not_read(path, assignment);
                    }
                    continue;
                }
                Err(error) => {
                    // systemd may be able to read it when it starts the service.
                    self.has_late_files = true;
                    self.add_not_read(path.clone(), assignment);
                    problems.push(Problem::unreadable(path, error, "what it sets is unknown"));
                    continue;
                }
            };
            let only_since_254 = variables.iter().find(|variable| {
                let is_new = before_254.as_ref().is_some_and(|before| !before.contains(variable));
                is_new && self.slots.contains_key(variable.key.as_str())
            });
            if let Some(EnvironmentAssignment { key, line, .. }) = only_since_254 {
                self.has_late_files = true;
                problems.push(Problem::new(
                    Source::key(path.clone(), line.saturating_sub(1), ""),
                    ProblemKind::Syntax(Fault::ContinuedComment),
                    format!("{key} is assumed to be set"),
                ));
            }
            for variable in variables {
                let source = || Source::key(path.clone(), variable.line, variable.key.clone());
                self.set(&variable.key, &variable.value, source);
            }
        }
    }

    fn add_not_read(&mut self, path: String, assignment: &Assignment) {
        let effect = Effect::NotRead { path };
        self.not_read.push(Override::new(assignment.source.clone(), effect));
    }
}
