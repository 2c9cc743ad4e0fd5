//! The profile file that `exec` writes at each start: PyPNM's lines, below comments that tell it from an operator's file and
//! a number set by hand from a sized one. Pure.

/// The first line of a file that is written anew at each start: one without it is the operator's.
const MARK: &str = "# Written by pypnm-sizing exec at each start.\n";
const SET_BY: &str = " is set by ";

/// The text of the file: `profile` are PyPNM's lines, `by_hand` its keys that somebody set, each with who did.
pub(crate) fn text<'a>(profile: &str, by_hand: impl Iterator<Item = (&'a str, &'a str)>) -> String {
    let mut text = MARK.to_owned();
    for (key, set_by) in by_hand {
        // A name of a file may have any character; a comment ends with its line.
        text.extend(["# ", key, SET_BY, &set_by.escape_debug().to_string(), ".\n"]);
    }
    text + profile
}

/// Whether `exec` wrote it.
pub(crate) fn is_ours(text: &str) -> bool {
    text.starts_with(MARK)
}

/// Who set the value of `key` at that start; `None`: it was sized.
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
