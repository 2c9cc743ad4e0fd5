//! Booleans as systemd reads them (`parse_boolean()`, systemd.syntax(7)).

/// What is expected, for messages.
pub const BOOLEAN: &str = "a boolean (yes or no)";

/// `1 yes y true t on` and `0 no n false f off`, in any case.
pub fn boolean(word: &str) -> Option<bool> {
    match word.to_ascii_lowercase().as_str() {
        "1" | "yes" | "y" | "true" | "t" | "on" => Some(true),
        "0" | "no" | "n" | "false" | "f" | "off" => Some(false),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::boolean;

    #[test]
    fn the_words_of_systemd_and_no_others() {
        for word in ["1", "yes", "Y", "true", "T", "ON"] {
            assert_eq!(boolean(word), Some(true), "{word}");
        }
        for word in ["0", "no", "N", "false", "F", "Off"] {
            assert_eq!(boolean(word), Some(false), "{word}");
        }
        for word in ["", "2", "yess", "of", "disable", " no"] {
            assert_eq!(boolean(word), None, "{word:?}");
        }
    }
}
