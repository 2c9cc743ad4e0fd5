//! Answers for people: headings, and rows of a label and a text, wrapped at the width of the terminal, with bold text and
//! colors on a terminal only. Owns the layout and the colors of every verb, including `watch`, but none of the texts.

use std::io::IsTerminal;

use pypnm_sizing::watch::text;

use crate::output::{self, Outcome, printable};

/// The columns and rows of a terminal that does not report its size.
const DEFAULT_SIZE: (usize, usize) = (80, 24);
/// The minimum and the maximum number of columns that a text uses.
const MIN_COLUMNS: usize = 60;
const MAX_COLUMNS: usize = 200;

/// The indentation of a text whose words do not fit next to its label.
const INDENT: usize = 8;

/// How a text is highlighted on a terminal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ink {
    Bold,
    Green,
    Yellow,
    Red,
}

/// A page of output.
pub(crate) struct Page {
    text: String,
    columns: usize,
    /// Whether colors may be used.
    colors: bool,
    /// The output is a terminal: words longer than a line are broken, and not left to the terminal to wrap.
    terminal: bool,
}

impl Page {
    /// A page for stdout.
    pub(crate) fn new() -> Self {
        let stdout = std::io::stdout();
        Self {
            text: String::new(),
            columns: columns(),
            colors: has_colors(&stdout),
            terminal: stdout.is_terminal(),
        }
    }

    /// Adds a heading, with an empty line before it unless it is the first line.
    pub(crate) fn heading(&mut self, text: &str) {
        if !self.text.is_empty() {
            self.text.push('\n');
        }
        self.add("", None, 0, text, Some(Ink::Bold));
    }

    /// Adds an empty line.
    pub(crate) fn gap(&mut self) {
        self.text.push('\n');
    }

    /// Adds a text after a label of at least `width` columns. Further lines of the text are aligned with the first.
    pub(crate) fn row(&mut self, label: &str, width: usize, text: &str) {
        self.add(label, None, width, text, None);
    }

    /// Adds rows whose texts begin in the same column. If a text contains a word that does not fit, such as a long path, all
    /// texts are put on separate lines below their labels.
    pub(crate) fn table(&mut self, rows: &[TableRow]) {
        let width = rows.iter().map(|row| row.label.chars().count()).max().unwrap_or(0);
        let longest = rows.iter().map(|row| longest_word(&row.text)).max().unwrap_or(0);
        let fits = width + longest < self.columns;
        for TableRow { label, text, ink } in rows {
            if fits {
                self.add(label, *ink, width, text, None);
            } else {
                self.add(label.trim_end(), *ink, 0, "", None);
                self.add("", None, INDENT, text, None);
            }
        }
    }

    /// Adds a highlighted word and a text, on a single line of any length unless the output is a terminal.
    pub(crate) fn one_line(&mut self, word: &str, ink: Ink, text: &str) {
        let line = format!("{word}{}", printable(text));
        let columns = if self.terminal { self.columns - 3 } else { usize::MAX };
        let lines = wrapped(&line, columns, self.terminal).join("\n  ");
        self.push(word, Some(ink));
        self.text.push_str(lines.get(word.len()..).unwrap_or_default());
        self.text.push('\n');
    }

    fn add(&mut self, label: &str, label_ink: Option<Ink>, width: usize, text: &str, ink: Option<Ink>) {
        let (label, text) = (printable(label), printable(text));
        let written = label.chars().count();
        let mut indent = written.max(width);
        self.push(&label, label_ink);
        if indent + longest_word(&text) < self.columns || indent <= INDENT {
            self.text.extend(std::iter::repeat_n(' ', indent - written));
        } else {
            // A long path gets a separate line.
            self.text.truncate(self.text.trim_end_matches(' ').len());
            if !label.trim_end().is_empty() {
                self.text.push('\n');
            }
            indent = INDENT;
            self.text.extend(std::iter::repeat_n(' ', indent));
        }
        for (number, line) in wrapped(&text, self.columns - 1 - indent, self.terminal).iter().enumerate() {
            if number > 0 {
                self.text.extend(std::iter::repeat_n(' ', indent));
            }
            self.push(line, ink);
            // A label without a text may end in spaces.
            self.text.truncate(self.text.trim_end_matches(' ').len());
            self.text.push('\n');
        }
    }

    fn push(&mut self, text: &str, ink: Option<Ink>) {
        match ink {
            Some(ink) => self.text.push_str(&painted(text, ink, self.colors)),
            None => self.text.push_str(text),
        }
    }

    /// Writes the page to stdout.
    pub(crate) fn print(&self) -> Outcome {
        output::answer_painted(&self.text)
    }
}

/// A row of a [`Page::table`].
pub(crate) struct TableRow {
    pub(crate) label: String,
    pub(crate) text: String,
    /// How the label is highlighted.
    pub(crate) ink: Option<Ink>,
}

/// `text`, highlighted if `colors` may be used.
pub(crate) fn painted(text: &str, ink: Ink, colors: bool) -> String {
    let code = match ink {
        Ink::Bold => "1",
        Ink::Green => "1;32",
        Ink::Yellow => "1;33",
        Ink::Red => "1;31",
    };
    if colors { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
}

/// Whether `stream` is a terminal that supports control sequences. As in systemd, one whose type is unknown or `dumb` does
/// not.
pub(crate) fn is_capable(stream: &impl IsTerminal) -> bool {
    stream.is_terminal() && std::env::var_os("TERM").is_some_and(|term| !term.is_empty() && term != "dumb")
}

/// Whether colors may be used on `stream` (no-color.org).
pub(crate) fn has_colors(stream: &impl IsTerminal) -> bool {
    is_capable(stream) && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}

/// The columns and rows of the terminal on standard output; 80 × 24 if it is none, or does not report them.
pub(crate) fn terminal_size() -> (usize, usize) {
    let size = rustix::termios::tcgetwinsize(std::io::stdout());
    let (columns, rows) = size.map_or((0, 0), |size| (usize::from(size.ws_col), usize::from(size.ws_row)));
    let reported_or = |default, reported| if reported == 0 { default } else { reported };
    (reported_or(DEFAULT_SIZE.0, columns), reported_or(DEFAULT_SIZE.1, rows))
}

/// The number of columns that a text on standard output uses: `$COLUMNS`, or those of the terminal. A screen uses exactly
/// those of the terminal, see [`terminal_size`].
pub(crate) fn columns() -> usize {
    text_columns(std::env::var("COLUMNS").ok().as_deref(), terminal_size().0)
}

/// The number of columns that a text uses, from `$COLUMNS` and the columns of the terminal.
fn text_columns(variable: Option<&str>, measured: usize) -> usize {
    let stated = variable.and_then(|value| value.parse::<usize>().ok()).filter(|columns| *columns > 0);
    stated.unwrap_or(measured).clamp(MIN_COLUMNS, MAX_COLUMNS)
}

fn longest_word(text: &str) -> usize {
    text.split(' ').map(|word| word.chars().count()).max().unwrap_or(0)
}

/// Wraps `text` at spaces into lines of at most `columns` columns. A longer word, such as a path, is kept in one piece unless
/// `broken` is true.
fn wrapped(text: &str, columns: usize, broken: bool) -> Vec<String> {
    let mut lines = Vec::new();
    let mut words = String::new();
    for word in text.split(' ') {
        let mut pieces = if broken { pieces(word, columns.max(1)) } else { vec![word] };
        let last = pieces.pop().unwrap_or_default();
        if !pieces.is_empty() {
            lines.extend(text::wrapped(&words, columns));
            words.clear();
            lines.extend(pieces.into_iter().map(str::to_owned));
        }
        words.push_str(last);
        words.push(' ');
    }
    lines.extend(text::wrapped(&words, columns));
    if lines.is_empty() {
        lines.push(String::new());
    }
    lines
}

/// Breaks a word into pieces of at most `columns` characters: after a `/` if possible, else after another separator.
fn pieces(word: &str, columns: usize) -> Vec<&str> {
    let mut pieces = Vec::new();
    let mut rest = word;
    while let Some((end, _)) = rest.char_indices().nth(columns) {
        let (head, _) = rest.split_at(end);
        let slash = head.rfind('/').filter(|at| *at > 0);
        let at = slash.or_else(|| head.rfind(['-', '_', '.', ',', '='])).map_or(end, |at| at + 1);
        let (piece, tail) = rest.split_at(at);
        pieces.push(piece);
        rest = tail;
    }
    pieces.push(rest);
    pieces
}

#[cfg(test)]
mod tests {
    use super::{Page, TableRow, text_columns, wrapped};

    fn page(columns: usize) -> Page {
        Page { text: String::new(), columns, colors: false, terminal: true }
    }

    #[test]
    fn a_text_is_as_wide_as_stated_or_as_the_terminal() {
        for (variable, measured, columns) in [
            (None, 132, 132),
            (Some("100"), 132, 100),
            (Some("100"), 70, 100),
            (Some("0"), 132, 132),
            (Some(""), 132, 132),
            (Some("wide"), 132, 132),
            (Some("20"), 132, 60),
            (Some("1000"), 132, 200),
            (None, 20, 60),
            (None, 1000, 200),
        ] {
            assert_eq!(text_columns(variable, measured), columns, "{variable:?}, {measured}");
        }
    }

    #[test]
    fn wraps_at_spaces_and_breaks_only_what_is_longer_than_a_line() {
        assert_eq!(wrapped("one two three", 7, true), ["one two", "three"]);
        assert_eq!(wrapped("/a/path/longer of it", 7, false), ["/a/path/longer", "of it"]);
        assert_eq!(wrapped("at /a/path/longer of", 7, true), ["at", "/a/", "path/", "longer", "of"]);
        assert_eq!(wrapped("abcdefghij", 4, true), ["abcd", "efgh", "ij"]);
        assert_eq!(
            wrapped("/a/some-long-name.conf of", 9, true),
            ["/a/", "some-", "long-", "name.conf", "of"]
        );
        assert_eq!(wrapped("", 7, true), [""]);
    }

    #[test]
    fn rows_hang_at_every_width() {
        for columns in [60, 80, 200] {
            let mut page = page(columns);
            page.row("  CPUs", 8, &"word ".repeat(60));
            assert!(page.text.lines().all(|line| line.len() < columns), "{}", page.text);
            assert_eq!(page.text.lines().nth(1).map(|line| line.get(..9)), Some(Some("        w")));
        }
        let mut page = page(80);
        let path = format!("/{}", "x".repeat(65));
        page.row("  > 3.5 GB  container  ", 0, &format!("{path} it is"));
        assert_eq!(page.text, format!("  > 3.5 GB  container\n        {path} it\n        is\n"));
        page.row("  - ", 4, &format!("{path}{path}"));
        assert!(page.text.lines().all(|line| line.len() <= 80), "{}", page.text);
        page.row("", 0, "a\x1b[31mb");
        assert!(page.text.ends_with("a?[31mb\n"));
    }

    #[test]
    fn no_line_ends_in_a_space() {
        let mut page = page(80);
        page.row("  Mon 21 Sep     24h  ", 0, "");
        page.row("  label  ", 12, "");
        page.row("", 0, "");
        assert_eq!(page.text, "  Mon 21 Sep     24h\n  label\n\n");
    }

    #[test]
    fn the_columns_of_a_table_hold() {
        let row = |label: &str, text: &str| TableRow { label: label.into(), text: text.into(), ink: None };
        let long = format!("/{}", "x".repeat(65));
        let mut short = page(80);
        short.table(&[row("  1  machine  ", "/a"), row("  16  container  ", "/b c")]);
        assert_eq!(short.text, "  1  machine     /a\n  16  container  /b c\n");
        let mut stacked = page(80);
        stacked.table(&[row("  1  machine  ", "/a"), row("  16  container  ", &long)]);
        assert_eq!(stacked.text, format!("  1  machine\n        /a\n  16  container\n        {long}\n"));
    }
}
