//! The drop-ins of a unit, from the directories in the index that are named after it, its aliases or its type, in the order in
//! which systemd applies them. [`crate::units::load`] reads them.

use super::{Index, entries_of, yields_to_generators};
use crate::parse::path_in;
use crate::problem::{ASSUMING_MINIMUM, Problem, ProblemKind, Source};
use crate::root::ReadError;
use crate::units::name::{Name, Type};

impl Index<'_> {
    /// The unit's drop-ins, sorted by file name. Of several with the same name, the one in the directory of highest
    /// precedence is used (`unit_file_find_dropin_paths()`). systemd visits aliases in no particular order; here they are
    /// sorted.
    pub(in crate::units) fn drop_ins(
        &self,
        id: &Name<'_>,
        aliases: &[String],
        problems: &mut Vec<Problem>,
        unread: &mut Vec<Source>,
    ) -> Vec<String> {
        let mut directories: Vec<String> = Vec::new();
        // All names of a group in each directory.
        let mut add = |names: &[String]| {
            for directory in &self.listed {
                let has = |name: &&String| {
                    entries_of(&self.drop_ins, name).iter().any(|entry| entry.directory() == *directory)
                };
                directories.extend(names.iter().filter(has).map(|name| format!("{directory}/{name}.d")));
            }
        };
        for name in [*id].into_iter().chain(aliases.iter().filter_map(|alias| Name::parse(alias))) {
            add(&name.with_drop_ins());
        }
        add(&[id.unit_type.word().to_owned()]);

        // The file name, and the index of its directory.
        let mut files: Vec<(String, usize)> = Vec::new();
        for (number, directory) in directories.iter().enumerate() {
            let mut other_names = Vec::new();
            let listed = self.root.each_entry(directory, |name, _| {
                if name.ends_with(b".conf") && !name.starts_with(b".") {
                    match std::str::from_utf8(name) {
                        Ok(name) => files.push((name.to_owned(), number)),
                        Err(_) => other_names.push(String::from_utf8_lossy(name).into_owned()),
                    }
                }
            });
            // systemd reads these too.
            for name in other_names {
                let source = Source::file(path_in(directory, &name));
                unread.push(source.clone());
                let kind = ProblemKind::BadName { reason: "its name is not UTF-8" };
                problems.push(Problem::new(source, kind, ASSUMING_MINIMUM));
            }
            match listed {
                Ok(()) | Err(ReadError::Missing) => {}
                Err(error) => {
                    unread.push(Source::file(directory.clone()));
                    problems.push(Problem::unreadable(directory.clone(), error, ASSUMING_MINIMUM));
                }
            }
        }
        files.sort_unstable();
        files.dedup_by(|later, earlier| later.0 == earlier.0);
        let path = |(name, number): (String, usize)| {
            let directory = directories.get(number)?;
            let applies = id.unit_type != Type::Service || name != self.generated || is_stronger(directory);
            applies.then(|| path_in(directory, &name))
        };
        files.into_iter().filter_map(path).collect()
    }
}

/// Whether a drop-in directory takes precedence over those of generators; one for all units of a type never does.
fn is_stronger(directory: &str) -> bool {
    !directory.ends_with("/service.d") && !yields_to_generators(directory)
}
