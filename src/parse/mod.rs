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

/// The rest of the first line that begins with `start`.
pub(crate) fn rest_of_line<'t>(text: &'t str, start: &str) -> Option<&'t str> {
    let ends = memchr::memchr_iter(b'\n', text.as_bytes());
    let starts = std::iter::once(0).chain(ends.map(|end| end + 1));
    let rest = starts.filter_map(|at| text.get(at..)).find_map(|line| line.strip_prefix(start))?;
    Some(rest.lines().next().unwrap_or_default())
}

/// The last component of a path.
pub fn base_name(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or_default()
}

/// The path of `name` in `directory`.
pub(crate) fn path_in(directory: &str, name: &str) -> String {
    [directory, "/", name].concat()
}

/// Whether a path is that of a directory, or of something below it.
pub fn is_at_or_below(path: impl AsRef<[u8]>, directory: impl AsRef<[u8]>) -> bool {
    let rest = path.as_ref().strip_prefix(directory.as_ref());
    rest.is_some_and(|rest| rest.is_empty() || rest.starts_with(b"/"))
}

/// The name, and the value if there is one, in `name=value`.
pub(crate) fn name_and_value(text: &str) -> (&str, Option<&str>) {
    text.split_once('=').map_or((text, None), |(name, value)| (name, Some(value)))
}
