//! Pure parsers for the formats of the inputs. They open no files.

pub mod boolean;
pub mod cgroup;
pub mod cpu_list;
pub mod dotenv;
pub mod environment;
pub mod mountinfo;
pub mod printable;
pub mod quantity;
pub mod syntax;
pub mod words;

use memchr::{memchr, memchr_iter};

/// The rest of the first line that begins with `start`.
pub(crate) fn rest_of_line<'t>(text: &'t str, start: &str) -> Option<&'t str> {
    let after_newlines = memchr_iter(b'\n', text.as_bytes()).map(|newline| newline + 1);
    let mut starts = std::iter::once(0).chain(after_newlines);
    let rest = starts.find_map(|at| text.get(at..)?.strip_prefix(start))?;
    rest.get(..memchr(b'\n', rest.as_bytes()).unwrap_or(rest.len()))
}
