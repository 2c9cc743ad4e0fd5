//! The files of a configuration (the UAPI.6 specification): only the first main file is used. Drop-ins of all directories
//! are applied in the order of their names, and a drop-in in an earlier directory replaces one of the same name in a later
//! directory. An empty file or a symbolic link to /dev/null masks a name. Files that are not trusted ([`crate::trust`]) are
//! ignored and replace nothing.

use crate::parse::printable::is_hidden;
use crate::problem::{Problem, ProblemKind, Source};
use crate::root::{ReadError, Root};

/// The maximum number of invalid names reported for a directory.
const MOST_BAD_NAMES: usize = 50;

/// Calls `take` for the drop-ins (`*.conf`) in `directories`, which are in order of precedence. `take` returns whether the
/// file exists; if so, files of the same name in the remaining directories are ignored. Returns a directory that could not be
/// read although it is trusted.
pub fn each_drop_in<'d>(
    root: &Root,
    directories: &[&'d str],
    problems: &mut Vec<Problem>,
    take: &mut dyn FnMut(&str, &mut Vec<Problem>) -> bool,
) -> Option<&'d str> {
    let mut found: Vec<(String, usize, &str)> = Vec::new();
    let mut unread = None;
    for (precedence, directory) in directories.iter().enumerate() {
        let mut bad_names = 0;
        let listed = root.each_trusted_entry(directory, |name, _| {
            if !name.ends_with(b".conf") || name.starts_with(b".") {
                return;
            }
            match usable_name(name) {
                Ok(name) => found.push((name.to_owned(), precedence, directory)),
                Err(reason) if bad_names < MOST_BAD_NAMES => {
                    bad_names += 1;
                    let source = Source::file(format!("{directory}/{}", String::from_utf8_lossy(name)));
                    let consequence = "the file is skipped";
                    problems.push(Problem::new(source, ProblemKind::BadName { reason }, consequence));
                }
                Err(_) => {}
            }
        });
        match listed {
            Ok(()) | Err(ReadError::Missing) => {}
            Err(error) => {
                if hides(&error) {
                    unread = Some(*directory);
                }
                problems.push(Problem::unreadable((*directory).to_owned(), error, "its files are skipped"));
            }
        }
    }
    found.sort_unstable();
    let mut taken = None;
    for (name, _, directory) in found {
        if taken.as_ref() != Some(&name) && take(&format!("{directory}/{name}"), problems) {
            taken = Some(name);
        }
    }
    unread
}

/// A name that can be displayed. `Err`: the reason why it cannot.
fn usable_name(name: &[u8]) -> Result<&str, &'static str> {
    let name = std::str::from_utf8(name).map_err(|_| "its name is not UTF-8")?;
    if name.chars().any(is_hidden) { Err("its name has a control character") } else { Ok(name) }
}

/// Whether a file that could not be read still replaces others of its name: all but those that are missing or not trusted.
pub fn hides(error: &ReadError) -> bool {
    !matches!(error, ReadError::Missing | ReadError::Untrusted(_))
}
