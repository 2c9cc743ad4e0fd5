//! Which files make up a configuration (the UAPI.6 specification): the first main file wins; drop-ins of all directories are
//! merged in the order of their names, and one in an earlier directory hides the same name in a later one. An empty file or
//! a link to /dev/null hides a name without replacing it. Only files that nobody but root can write count
//! ([`crate::trust`]); one that is not trusted hides nothing.

use crate::parse::printable::is_hidden;
use crate::problem::{Problem, ProblemKind, Source};
use crate::root::{ReadError, Root};

/// Of one directory no more bad names are reported.
const MOST_BAD_NAMES: usize = 50;

/// Calls `take` for the drop-ins (`*.conf`) of `directories`, the strongest first, in the order in which they count; `take`
/// says whether there is such a file, which then hides weaker ones of its name.
pub fn each_drop_in(
    root: &Root,
    directories: &[&str],
    problems: &mut Vec<Problem>,
    take: &mut dyn FnMut(&str, &mut Vec<Problem>) -> bool,
) {
    let mut found: Vec<(String, &str)> = Vec::new();
    for directory in directories {
        let mut bad_names = 0;
        let listed = root.each_trusted_entry(directory, |name, _| {
            if !name.ends_with(b".conf") || name.starts_with(b".") {
                return;
            }
            match usable_name(name) {
                Ok(name) => found.push((name.to_owned(), directory)),
                Err(reason) if bad_names < MOST_BAD_NAMES => {
                    bad_names += 1;
                    let source = Source::file(format!("{directory}/{}", String::from_utf8_lossy(name)));
                    let consequence = "the file is skipped".into();
                    problems.push(Problem { source, kind: ProblemKind::BadName { reason }, consequence });
                }
                Err(_) => {}
            }
        });
        match listed {
            Ok(()) | Err(ReadError::Missing) => {}
            Err(error) => {
                problems.push(Problem::unreadable((*directory).to_owned(), error, "its files are skipped"));
            }
        }
    }
    // Stable, so of one name the strongest directory's comes first.
    found.sort_by(|a, b| a.0.cmp(&b.0));
    let mut taken = None;
    for (name, directory) in found {
        if taken.as_ref() != Some(&name) && take(&format!("{directory}/{name}"), problems) {
            taken = Some(name);
        }
    }
}

/// A name that can be shown as it is; `Err`: why not.
fn usable_name(name: &[u8]) -> Result<&str, &'static str> {
    let name = std::str::from_utf8(name).map_err(|_| "its name is not UTF-8")?;
    if name.chars().any(is_hidden) { Err("its name has a control character") } else { Ok(name) }
}

/// Whether a file that could not be read hides weaker ones: all but one that is missing or not trusted.
pub fn hides(error: &ReadError) -> bool {
    !matches!(error, ReadError::Missing | ReadError::Untrusted(_))
}
