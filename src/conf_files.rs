//! The files of a configuration (the UAPI.6 specification), in the order in which they apply: only the first main file is
//! used. Drop-ins of all directories are applied in the order of their names, and a drop-in in an earlier directory replaces
//! one of the same name in a later directory. An empty file or a symbolic link to /dev/null masks a name. Files that are not
//! trusted ([`crate::trust`]) are ignored and replace nothing. The callers parse the files.

use crate::parse::path_in;
use crate::parse::printable::is_hidden;
use crate::problem::{Problem, ProblemKind, Source};
use crate::root::{ReadError, Root};

/// The parents of configuration directories, in order of precedence.
const PARENTS: [&str; 4] = ["/etc", "/run", "/usr/local/lib", "/usr/lib"];
/// The maximum number of invalid names reported for a directory.
const MAX_BAD_NAMES: usize = 50;

/// Called with the path of a file, and with its contents or the reason why it could not be read.
type Visit<'v> = dyn FnMut(&str, Result<&[u8], ReadError>, &mut Vec<Problem>) + 'v;

/// Calls `visit` for the files of the configuration `name`, such as `systemd/system.conf`. Returns a directory of drop-ins
/// that could not be read although it is trusted.
pub fn each(root: &Root, name: &str, problems: &mut Vec<Problem>, visit: &mut Visit<'_>) -> Option<String> {
    let main_files = PARENTS.map(|parent| path_in(parent, name));
    // Stops at the first one that exists.
    let _ = main_files.iter().any(|path| visit_file(root, path, problems, visit));

    let mut found: Vec<(String, usize, String)> = Vec::new();
    let mut unread = None;
    for (precedence, main_file) in main_files.iter().enumerate() {
        let directory = [main_file, ".d"].concat();
        let mut bad_names = 0;
        let listed = root.each_trusted_entry(&directory, |name, _| {
            if !name.ends_with(b".conf") || name.starts_with(b".") {
                return;
            }
            match usable_name(name) {
                Ok(name) => found.push((name.to_owned(), precedence, path_in(&directory, name))),
                Err(reason) if bad_names < MAX_BAD_NAMES => {
                    bad_names += 1;
                    let source = Source::file(path_in(&directory, &String::from_utf8_lossy(name)));
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
                    unread = Some(directory.clone());
                }
                problems.push(Problem::unreadable(directory, error, "its files are skipped"));
            }
        }
    }
    found.sort_unstable();
    let mut taken = None;
    for (name, _, path) in found {
        if taken.as_ref() != Some(&name) && visit_file(root, &path, problems, visit) {
            taken = Some(name);
        }
    }
    unread
}

/// Returns whether the file replaces others of its name.
fn visit_file(root: &Root, path: &str, problems: &mut Vec<Problem>, visit: &mut Visit<'_>) -> bool {
    match root.with_trusted_bytes(path, |text| visit(path, Ok(text), problems)) {
        Ok(()) => true,
        Err(ReadError::Missing) => false,
        Err(error) => {
            let hides = hides(&error);
            visit(path, Err(error), problems);
            hides
        }
    }
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
