//! The profile file that `exec` writes at each start: PyPNM's lines, with comments that distinguish it from a file of the
//! operator, and numbers set by hand from sized ones. Pure.

/// The first line of a file that is replaced at each start. A file without it belongs to the operator.
const MARK: &str = "# Written by pypnm-sizing exec at each start.\n";
const SET_BY: &str = " is set by ";

/// The text of the file. `profile`: PyPNM's lines; `by_hand`: the keys that are set by hand, with their sources.
pub(crate) fn text<'a>(profile: &str, by_hand: impl Iterator<Item = (&'a str, &'a str)>) -> String {
    let mut text = MARK.to_owned();
    for (key, set_by) in by_hand {
        // A file name may contain any character, but a comment ends with its line.
        text.extend(["# ", key, SET_BY, &set_by.escape_debug().to_string(), ".\n"]);
    }
    text + profile
}

/// Whether the file was written by `exec`.
pub(crate) fn is_ours(text: &str) -> bool {
    text.starts_with(MARK)
}

/// What set the value of `key` at that start. `None`: it was sized.
pub(crate) fn set_by<'a>(text: &'a str, key: &str) -> Option<&'a str> {
    let comments = text.lines().map_while(|line| line.strip_prefix("# "));
    comments.filter_map(|line| line.split_once(SET_BY)).find(|(name, _)| *name == key)?.1.strip_suffix('.')
}

#[cfg(test)]
mod tests {
    use super::{is_ours, set_by, text};

    #[test]
    fn what_was_written_is_read_back() {
        let set = [("PYPNM_SERVE_WORKERS", "WEB_CONCURRENCY")];
        let written = text("PYPNM_SERVE_WORKERS=3\n", set.into_iter());
        assert!(is_ours(&written) && written.ends_with("\nPYPNM_SERVE_WORKERS=3\n"));
        assert_eq!(set_by(&written, "PYPNM_SERVE_WORKERS"), Some("WEB_CONCURRENCY"));
        assert_eq!(set_by(&written, "PYPNM_SERVE_LIMIT_MAX_REQUESTS"), None);
        let odd = text("", [("A", "b\n# C is set by d.")].into_iter());
        assert_eq!(set_by(&odd, "C"), None, "{odd}");
        assert!(!is_ours("PYPNM_SERVE_WORKERS=3\n"));
    }
}
