//! The syntax of an `EnvironmentFile=` (systemd.exec(5)), exactly as in `parse_env_file_internal()`.
//!
//! Before systemd 254, a comment that ends in a backslash continues on the next line; since then, it does not. Both are read.

use memchr::memchr3;

use crate::parse::syntax::Fault;

/// An assignment in such a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EnvironmentAssignment {
    /// The name; any text, valid or not.
    pub key: String,
    /// The value, unquoted.
    pub value: String,
    /// The line on which the assignment begins.
    pub line: u32,
}

#[derive(Clone, Copy)]
enum In {
    Start,
    Key,
    BeforeValue,
    Value,
    ValueEscape,
    Single,
    Double,
    DoubleEscape,
    Comment,
    CommentEscape,
}

/// The assignments in `text`, in order. `Err`: the whole file is invalid because of a NUL (`read_full_file()`; the line is 0)
/// or an assignment that is not UTF-8 (`load_env_file_push()`), with the line of the assignment.
pub fn variables(text: &[u8]) -> Result<Vec<EnvironmentAssignment>, (u32, Fault)> {
    parse(text, Comments::End)
}

/// The assignments as read by systemd before 254; `None`: they are the same.
pub fn variables_before_254(text: &[u8]) -> Option<Vec<EnvironmentAssignment>> {
    let has = |end: &[u8]| text.windows(2).any(|pair| pair == end);
    if !has(b"\\\n") && !has(b"\\\r") {
        return None;
    }
    let before = parse(text, Comments::Continue).ok()?;
    (parse(text, Comments::End).ok()? != before).then_some(before)
}

/// The effect of a backslash at the end of a comment.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Comments {
    End,
    Continue,
}

fn parse(text: &[u8], comments: Comments) -> Result<Vec<EnvironmentAssignment>, (u32, Fault)> {
    if text.contains(&0) {
        return Err((0, Fault::Nul));
    }
    let mut reader =
        Parser { all: Vec::new(), key: Vec::new(), value: Vec::new(), kept: 0, begun: 1, fault: None };
    let mut state = In::Start;
    let mut line = 1;
    let mut rest = text;
    while let Some((byte, after)) = rest.split_first() {
        let ends = matches!(state, In::CommentEscape) && comments == Comments::End;
        state = reader.step(if ends { In::Comment } else { state }, *byte, line);
        if *byte == b'\n' {
            line += 1;
        }
        // Such files consist mostly of comments, which are skipped at once.
        let skipped = match state {
            In::Comment => memchr3(b'\\', b'\n', b'\r', after).unwrap_or(after.len()),
            _ => 0,
        };
        rest = after.get(skipped..).unwrap_or_default();
    }
    match state {
        In::Start | In::Key | In::Comment | In::CommentEscape => {}
        In::Value => reader.push_trimmed(),
        _ => reader.push(),
    }
    reader.fault.map_or(Ok(reader.all), Err)
}

struct Parser {
    all: Vec<EnvironmentAssignment>,
    key: Vec<u8>,
    value: Vec<u8>,
    /// The length of the value without trailing white space.
    kept: usize,
    begun: u32,
    /// The first assignment that is not UTF-8.
    fault: Option<(u32, Fault)>,
}

impl Parser {
    fn step(&mut self, state: In, byte: u8, line: u32) -> In {
        let newline = matches!(byte, b'\n' | b'\r');
        let space = newline || matches!(byte, b' ' | b'\t');
        match state {
            In::Start if matches!(byte, b'#' | b';') => return In::Comment,
            In::Start if space => return In::Start,
            In::Start => {
                self.key.clear();
                self.key.push(byte);
                self.begun = line;
                return In::Key;
            }
            In::Key if newline => return In::Start,
            In::Key if byte == b'=' => return In::BeforeValue,
            In::Key => self.key.push(byte),
            In::BeforeValue if newline => {
                self.push();
                return In::Start;
            }
            In::BeforeValue if byte == b'\'' => return In::Single,
            In::BeforeValue if byte == b'"' => return In::Double,
            In::BeforeValue | In::Value if byte == b'\\' => return In::ValueEscape,
            In::BeforeValue if space => {}
            In::Value if newline => {
                self.push_trimmed();
                return In::Start;
            }
            In::BeforeValue | In::Value => {
                self.value.push(byte);
                if !space {
                    self.kept = self.value.len();
                }
                return In::Value;
            }
            In::ValueEscape => {
                if !newline {
                    self.value.push(byte);
                }
                self.kept = self.value.len();
                return In::Value;
            }
            In::Single if byte == b'\'' => return In::BeforeValue,
            In::Double if byte == b'"' => return In::BeforeValue,
            In::Double if byte == b'\\' => return In::DoubleEscape,
            In::Single | In::Double => self.value.push(byte),
            In::DoubleEscape => {
                if matches!(byte, b'"' | b'\\' | b'`' | b'$') {
                    self.value.push(byte);
                } else if byte != b'\n' {
                    self.value.extend([b'\\', byte]);
                }
                return In::Double;
            }
            In::Comment if byte == b'\\' => return In::CommentEscape,
            In::Comment if newline => return In::Start,
            In::Comment | In::CommentEscape => return In::Comment,
        }
        state
    }

    /// Ends an assignment whose value does not end in quotes.
    fn push_trimmed(&mut self) {
        self.value.truncate(self.kept);
        self.push();
    }

    /// Ends an assignment.
    fn push(&mut self) {
        if let (Ok(key), Ok(value)) = (std::str::from_utf8(&self.key), std::str::from_utf8(&self.value)) {
            let key = key.trim_end_matches([' ', '\t']).to_owned();
            self.all.push(EnvironmentAssignment { key, value: value.to_owned(), line: self.begun });
        } else {
            self.fault = self.fault.or(Some((self.begun, Fault::NotUtf8)));
        }
        self.value.clear();
        self.kept = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::{variables, variables_before_254};

    fn read(text: &str) -> Vec<String> {
        let variables = variables(text.as_bytes()).unwrap_or_default();
        variables.into_iter().map(|v| format!("{} {}={}", v.line, v.key, v.value)).collect()
    }

    #[test]
    fn as_systemd_reads_them() {
        assert_eq!(read("A=1\n# c\n;c\n\n B = 2 x \nC="), ["1 A=1", "5 B=2 x", "6 C="]);
        assert_eq!(read("A='1 2'\"3\\\"\\q\"4\nB=a\\\nb\nC=\\ x"), ["1 A=1 23\"\\q4", "2 B=ab", "4 C= x"]);
        assert_eq!(read("# goes on \\\nA=1\nB=2"), ["2 A=1", "3 B=2"]);
        assert_eq!(read("junk\nA=1"), ["2 A=1"]);
        assert_eq!(read("A=1 2 \t"), ["1 A=1 2"], "at the end of the file as well");
        assert_eq!(read("A=\nB= \nC=1"), ["1 A=", "2 B=", "3 C=1"]);
        assert_eq!(read("export A=1\nA=\"1\n2\"\n"), ["1 export A=1", "2 A=1\n2"]);
    }

    #[test]
    fn comments_that_continue_before_254() {
        let before = |text: &str| {
            let variables = variables_before_254(text.as_bytes())?;
            Some(
                variables
                    .into_iter()
                    .map(|v| format!("{} {}={}", v.line, v.key, v.value))
                    .collect::<Vec<_>>(),
            )
        };
        assert_eq!(before("# goes on \\\nA=1\nB=2"), Some(vec!["3 B=2".to_owned()]));
        assert_eq!(before("# goes on \\\n# B\nB=2"), None, "the same variables");
        assert_eq!(before("A=1\\\n2\n# \\ \nB=2"), None, "no comment goes on");
        assert_eq!(before("# a\nA=1\n"), None);
        assert_eq!(before("# goes on \\\rA=1\rB=2"), Some(vec!["1 B=2".to_owned()]));
    }

    #[test]
    fn invalid_utf_8_invalidates_the_file() {
        let fault = |text: &[u8]| variables(text).map_err(|(line, _)| line).err();
        assert_eq!(fault(b"A=1\n\nB=\xe4\nC=3\n"), Some(3));
        assert_eq!(fault(b"A=1\n\xe4=2"), Some(2));
        assert_eq!(fault(b"A=1\0"), Some(0));
        assert_eq!(fault(b"# \xe4\nA=1\n\xe4\n"), None, "a comment, and a line that is no assignment");
    }
}
