//! Answers for a person: rows of a label and a text, wrapped at 80 columns; bold and colours on a terminal only.

use std::io::IsTerminal;

/// What a terminal has at least.
const COLUMNS: usize = 80;

/// What a text is indented by whose words don't fit beside its label.
const INDENT: usize = 8;

/// How a word is set off on a terminal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ink {
    Bold,
    Green,
    Yellow,
    Red,
}

/// An answer being written.
pub(crate) struct Page {
    text: String,
    colours: bool,
    /// A person reads it, no program.
    terminal: bool,
}

impl Page {
    /// An answer for stdout.
    pub(crate) fn new() -> Self {
        let stdout = std::io::stdout();
        Self { text: String::new(), colours: colours(&stdout), terminal: stdout.is_terminal() }
    }

    /// A heading, an empty line before it where there is something above.
    pub(crate) fn heading(&mut self, text: &str) {
        if !self.text.is_empty() {
            self.text.push('\n');
        }
        self.line("", 0, text, Some(Ink::Bold));
    }

    /// A text after a label of at least `width` columns; further lines of the text begin where its first does.
    pub(crate) fn row(&mut self, label: &str, width: usize, text: &str) {
        self.line(label, width, text, None);
    }

    /// As [`Page::row`], with the label, words of ours, set off.
    pub(crate) fn marked(&mut self, label: &str, width: usize, text: &str, ink: Ink) {
        let before = self.text.len();
        self.line(label, width, text, None);
        let painted = self.painted(label, ink);
        self.text.replace_range(before..before + label.len(), &painted);
    }

    /// A word set off and a text: in one line however long, but on a terminal.
    pub(crate) fn one_line(&mut self, word: &str, ink: Ink, text: &str) {
        let whole = format!("{word}: {}", printable(text));
        let columns = if self.terminal { COLUMNS - 3 } else { usize::MAX };
        let lines = wrapped(&whole, columns).join("\n  ");
        self.text.push_str(&self.painted(word, ink));
        self.text.push_str(lines.get(word.len()..).unwrap_or_default());
        self.text.push('\n');
    }

    fn line(&mut self, label: &str, width: usize, text: &str, ink: Option<Ink>) {
        let (label, text) = (printable(label), printable(text));
        let written = label.chars().count();
        let longest = text.split(' ').map(|word| word.chars().count()).max().unwrap_or(0);
        let mut indent = written.max(width);
        self.text.push_str(&label);
        if indent + longest < COLUMNS {
            self.text.extend(std::iter::repeat_n(' ', indent - written));
        } else {
            // A long path gets a line of its own.
            indent = indent.min(INDENT);
            self.text.truncate(self.text.trim_end_matches(' ').len());
            if written > 0 {
                self.text.push('\n');
            }
            self.text.extend(std::iter::repeat_n(' ', indent));
        }
        for (number, line) in wrapped(&text, COLUMNS - 1 - indent).iter().enumerate() {
            if number > 0 {
                self.text.extend(std::iter::repeat_n(' ', indent));
            }
            match ink {
                Some(ink) => self.text.push_str(&self.painted(line, ink)),
                None => self.text.push_str(line),
            }
            self.text.push('\n');
        }
    }

    fn painted(&self, text: &str, ink: Ink) -> String {
        let code = match ink {
            Ink::Bold => "1",
            Ink::Green => "1;32",
            Ink::Yellow => "1;33",
            Ink::Red => "1;31",
        };
        if self.colours { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    }

    /// All of it.
    pub(crate) fn into_text(self) -> String {
        self.text
    }
}

/// Whether `stream` is a terminal that may show colours (no-color.org).
pub(crate) fn colours(stream: &impl IsTerminal) -> bool {
    stream.is_terminal()
        && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
        && std::env::var_os("TERM").is_none_or(|term| term != "dumb")
}

/// Names of files may hold anything; a terminal must not obey it.
fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '?' } else { c }).collect()
}

/// Lines of at most `columns` columns, broken at spaces; a longer word, such as a path, stays whole.
fn wrapped(text: &str, columns: usize) -> Vec<String> {
    let mut lines = vec![String::new()];
    let mut used = 0;
    for word in text.split(' ') {
        let long = word.chars().count();
        match lines.last_mut() {
            Some(line) if used == 0 || used + 1 + long <= columns => {
                if used > 0 {
                    line.push(' ');
                    used += 1;
                }
                line.push_str(word);
                used += long;
            }
            _ => {
                lines.push(word.to_owned());
                used = long;
            }
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::{Page, wrapped};

    #[test]
    fn wraps_at_spaces_only() {
        assert_eq!(wrapped("one two three", 7), ["one two", "three"]);
        assert_eq!(wrapped("/a/path/longer/than/that of it", 7), ["/a/path/longer/than/that", "of it"]);
        assert_eq!(wrapped("", 7), [""]);
    }

    #[test]
    fn rows_hang_and_escapes_do_not_pass() {
        let mut page = Page { text: String::new(), colours: false, terminal: false };
        page.row("  CPUs", 8, &"word ".repeat(20));
        assert!(page.text.lines().all(|line| line.len() < 80), "{}", page.text);
        assert_eq!(page.text.lines().nth(1).map(|line| line.get(..9)), Some(Some("        w")));
        let path = format!("/{}", "x".repeat(65));
        page.row("  > 3.5 GB  container  ", 0, &format!("{path} it is"));
        assert!(
            page.text.ends_with(&format!("\n  > 3.5 GB  container\n        {path} it\n        is\n")),
            "{}",
            page.text
        );
        page.row("", 0, "a\x1b[31mb");
        assert!(page.into_text().ends_with("a?[31mb\n"));
    }
}
