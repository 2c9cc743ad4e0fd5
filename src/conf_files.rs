//! Which files make up a configuration (the UAPI.6 specification): the first main file wins; drop-ins of all directories are
//! merged in the order of their names, and one in an earlier directory hides the same name in a later one. An empty file or
//! a link to /dev/null hides a name without replacing it.

use crate::problem::Problem;
use crate::root::{ReadError, Root};

/// The drop-ins (`*.conf`) of `directories`, the strongest first, as paths in the order in which they are read.
pub fn drop_ins(root: &Root, directories: &[&str], problems: &mut Vec<Problem>) -> Vec<String> {
    let mut found: Vec<(String, &str)> = Vec::new();
    for directory in directories {
        let entries = match root.entries(directory) {
            Ok(entries) => entries,
            Err(ReadError::Missing) => continue,
            Err(error) => {
                problems.push(Problem::unreadable((*directory).to_owned(), error, "its files are skipped"));
                continue;
            }
        };
        let is_one = |name: &str| name.ends_with(".conf") && !name.starts_with('.');
        found.extend(entries.into_iter().filter(|e| is_one(&e.name)).map(|e| (e.name, *directory)));
    }
    // Stable, so of one name the strongest directory's comes first.
    found.sort_by(|a, b| a.0.cmp(&b.0));
    found.dedup_by(|later, earlier| later.0 == earlier.0);
    found.into_iter().map(|(name, directory)| [directory, "/", &name].concat()).collect()
}
