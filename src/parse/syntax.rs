//! The syntax of unit files and `sizing.conf`: sections, `Key=value` lines, comments and continuation lines
//! (systemd.syntax(7)), exactly as in `config_parse()` in systemd's src/shared/conf-parser.c.
//!
//! Callers determine which sections and keys are known. An invalid line is skipped; after an invalid section header, the rest
//! of the file is skipped, as by systemd.

use std::borrow::Cow;

use crate::parse::words::WHITESPACE;

/// An item of such a file. Lines are numbered from 1; a continued line has the number of its last part.
#[derive(Debug, PartialEq, Eq)]
pub enum Item {
    /// `[name]`
    Section {
        /// The text between the brackets.
        name: String,
        /// Where.
        line: u32,
    },
    /// `key=value`, both stripped; the section is the last one seen.
    Assignment {
        /// The text before the first `=`.
        key: String,
        /// The text after it; may be empty, which resets lists.
        value: String,
        /// Where.
        line: u32,
    },
    /// An invalid line.
    Fault {
        /// What is wrong.
        fault: Fault,
        /// Where.
        line: u32,
    },
}

/// Why a line is invalid.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// No `=` in the line.
    MissingEquals,
    /// The line begins with `=`.
    MissingKey,
    /// Not UTF-8.
    NotUtf8,
    /// A NUL byte in a file that must not contain any.
    Nul,
    /// A comment that ends in a backslash, in a file of `EnvironmentFile=`.
    ContinuedComment,
    /// `[` without `]`: the rest of the file is skipped, as by systemd.
    BrokenSection,
}

impl Fault {
    /// Whether systemd skips the rest of the file, as in `parse_line()` and its caller; otherwise it skips the line.
    pub fn ends_the_file(self) -> bool {
        matches!(self, Self::BrokenSection | Self::NotUtf8)
    }
}

impl std::fmt::Display for Fault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::MissingEquals => "missing '=' in the line",
            Self::MissingKey => "missing key before '='",
            Self::NotUtf8 => "not UTF-8",
            Self::Nul => "a NUL byte",
            Self::ContinuedComment => {
                "a comment that ends in a backslash, which systemd before 254 continues on the next line"
            }
            Self::BrokenSection => "a section header without closing ']'",
        })
    }
}

/// The items in `text`, in order, without comments and empty lines.
pub fn items(text: &[u8]) -> Items<'_> {
    let rest = text.strip_prefix(b"\xef\xbb\xbf").unwrap_or(text);
    Items { rest, line: 0, ended: false }
}

/// The iterator of [`items`].
pub struct Items<'a> {
    rest: &'a [u8],
    line: u32,
    ended: bool,
}

impl<'a> Items<'a> {
    /// The next line without its end. `\n`, `\r` and NUL end a line; a sequence of different ones is a single end
    /// (`read_line_full()`).
    fn next_line(&mut self) -> Option<&'a [u8]> {
        if self.rest.is_empty() {
            return None;
        }
        let end = memchr::memchr3(b'\n', b'\r', 0, self.rest).unwrap_or(self.rest.len());
        let after = self.rest.get(end..).unwrap_or_default();
        let continues = |number: &usize| match after.split_at_checked(*number) {
            Some((before, [next @ (b'\n' | b'\r' | 0), ..])) => !before.contains(next),
            _ => false,
        };
        let ends = (0..3).take_while(continues).count();
        Some(self.take(end, ends))
    }

    /// Returns the next `length` bytes as a line, and skips the `ends` bytes that end it.
    fn take(&mut self, length: usize, ends: usize) -> &'a [u8] {
        let (line, rest) = self.rest.split_at_checked(length).unwrap_or((self.rest, &[]));
        self.rest = rest.get(ends..).unwrap_or_default();
        self.line = self.line.saturating_add(1);
        line
    }
}

impl Iterator for Items<'_> {
    type Item = Item;

    fn next(&mut self) -> Option<Item> {
        let mut continued: Option<Vec<u8>> = None;
        while !self.ended {
            let Some(line) = self.next_line() else {
                // The last line ends in a backslash.
                return continued.and_then(|so_far| self.item(&so_far));
            };
            match line {
                // A comment, possibly after spaces: a continued line continues after it.
                [b'#' | b';', ..] => continue,
                [b' ' | b'\t', ..] if is_indented_comment(line) => continue,
                [] if continued.is_none() => continue,
                _ => {}
            }
            let mut text = match continued.take() {
                None => Cow::Borrowed(line),
                Some(mut so_far) => {
                    so_far.extend_from_slice(line);
                    Cow::Owned(so_far)
                }
            };
            // An odd number of backslashes at the end: the newline is escaped.
            let backslashes = || text.iter().rev().take_while(|b| **b == b'\\').count();
            if text.last() == Some(&b'\\') && backslashes() % 2 == 1 {
                if let Some(last) = text.to_mut().last_mut() {
                    *last = b' ';
                }
                continued = Some(text.into_owned());
                continue;
            }
            if let Some(item) = self.item(&text) {
                return Some(item);
            }
        }
        None
    }
}

impl Items<'_> {
    /// The item in a complete line. `None`: the line is empty.
    fn item(&mut self, text: &[u8]) -> Option<Item> {
        let line = self.line;
        let Ok(text) = std::str::from_utf8(text) else {
            return Some(Item::Fault { fault: Fault::NotUtf8, line });
        };
        let stripped = text.trim_matches(WHITESPACE);
        if stripped.is_empty() {
            return None;
        }
        if let Some(header) = stripped.strip_prefix('[') {
            let Some(name) = header.strip_suffix(']') else {
                self.ended = true;
                return Some(Item::Fault { fault: Fault::BrokenSection, line });
            };
            return Some(Item::Section { name: name.to_owned(), line });
        }
        Some(match stripped.split_once('=') {
            None => Item::Fault { fault: Fault::MissingEquals, line },
            Some(("", _)) => Item::Fault { fault: Fault::MissingKey, line },
            Some((key, value)) => Item::Assignment {
                key: key.trim_matches(WHITESPACE).to_owned(),
                value: value.trim_matches(WHITESPACE).to_owned(),
                line,
            },
        })
    }
}

fn is_indented_comment(line: &[u8]) -> bool {
    let first = line.iter().find(|byte| !matches!(byte, b' ' | b'\t'));
    matches!(first, Some(b'#' | b';'))
}

#[cfg(test)]
mod tests {
    use super::{Fault, Item, items};

    fn read(text: &[u8]) -> Vec<String> {
        items(text)
            .map(|item| match item {
                Item::Section { name, line } => format!("{line} [{name}]"),
                Item::Assignment { key, value, line } => format!("{line} {key}={value}"),
                Item::Fault { fault, line } => format!("{line} ! {fault}"),
            })
            .collect()
    }

    #[test]
    fn sections_assignments_comments() {
        let text = b"# c\n ; c\n\n[Service]\n MemoryMax = 2 G \nA==b\nEmpty=\n\xc3\xa4=\xc3\xb6\n";
        let expected = ["4 [Service]", "5 MemoryMax=2 G", "6 A==b", "7 Empty=", "8 \u{e4}=\u{f6}"];
        assert_eq!(read(text), expected);
    }

    #[test]
    fn continuation_lines() {
        assert_eq!(read(b"a=1 \\\n# between\n; too\n 2\nb=3"), ["4 a=1   2", "5 b=3"]);
        assert_eq!(read(b"a=1\\\\\nb=2"), ["1 a=1\\\\", "2 b=2"], "an escaped backslash continues nothing");
        assert_eq!(read(b"a=1\\"), ["1 a=1"], "the end of the file ends it");
        assert_eq!(read(b"a=1\\\n\nb=2"), ["2 a=1", "3 b=2"], "an empty line ends it");
    }

    #[test]
    fn a_fault_skips_its_line_and_a_broken_header_the_rest() {
        let text = b"junk\n=x\n\xff=1\nok=1\n[Serv\nlost=1";
        let expected = [
            "1 ! missing '=' in the line",
            "2 ! missing key before '='",
            "3 ! not UTF-8",
            "4 ok=1",
            "5 ! a section header without closing ']'",
        ];
        assert_eq!(read(text), expected);
        assert!(items(text).any(|i| matches!(i, Item::Fault { fault: Fault::BrokenSection, line: 5 })));
    }

    #[test]
    fn ends_of_lines_and_a_byte_order_mark() {
        assert_eq!(
            read(b"\xef\xbb\xbfa=1\r\nb=2\n\rc=3\0d=4\n\ne=5"),
            ["1 a=1", "2 b=2", "3 c=3", "4 d=4", "6 e=5"]
        );
    }
}
