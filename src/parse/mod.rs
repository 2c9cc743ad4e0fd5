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
    text.lines().find_map(|line| line.strip_prefix(start))
}

/// Whether a path is that of a directory, or of something below it.
pub(crate) fn is_at_or_below(path: &[u8], directory: &[u8]) -> bool {
    path.strip_prefix(directory).is_some_and(|rest| rest.is_empty() || rest.starts_with(b"/"))
}

/// The name, and the value if there is one, in `name=value`.
pub(crate) fn name_and_value(text: &str) -> (&str, Option<&str>) {
    text.split_once('=').map_or((text, None), |(name, value)| (name, Some(value)))
}
