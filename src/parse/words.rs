//! Words of a setting's value as systemd splits them (`extract_first_word()`): quotes, escapes, separators.

use std::borrow::Cow;

/// An iterator over the unquoted words of a text, up to the first word with invalid quotes or, with `escapes`, an invalid
/// escape sequence.
///
/// With `escapes`, a backslash begins a C escape sequence (systemd.syntax(7), "Quoting"); otherwise it quotes the next
/// character.
pub struct Words<'t> {
    rest: &'t str,
    /// The ASCII characters that separate words; repeated ones are treated as one.
    separators: &'static [char],
    escapes: bool,
}

/// The quotes or escape sequences of a word are invalid.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Broken;

/// systemd's `WHITESPACE`; Unicode spaces are text.
pub const WHITESPACE: [char; 4] = [' ', '\t', '\n', '\r'];

impl<'t> Iterator for Words<'t> {
    type Item = Result<Cow<'t, str>, Broken>;

    fn next(&mut self) -> Option<Self::Item> {
        let word = self.next_word().transpose();
        if matches!(word, Some(Err(Broken))) {
            self.rest = "";
        }
        word
    }
}

impl<'t> Words<'t> {
    /// The words of `text`.
    pub fn new(text: &'t str, separators: &'static [char], escapes: bool) -> Self {
        Self { rest: text, separators, escapes }
    }

    /// The next word; `None`: there are no more.
    fn next_word(&mut self) -> Result<Option<Cow<'t, str>>, Broken> {
        let text = self.rest.trim_start_matches(self.separators);
        if text.is_empty() {
            return Ok(None);
        }
        let is_special = |c| matches!(c, '"' | '\'' | '\\');
        let stops = |c| is_special(c) || self.separators.contains(&c);
        // The part before any quotes and backslashes, nearly always the whole word, is taken as it is.
        let (plain, mut rest) = text.split_at(text.find(stops).unwrap_or(text.len()));
        if !rest.starts_with(is_special) {
            self.rest = rest;
            return Ok(Some(Cow::Borrowed(plain)));
        }
        let mut word = plain.as_bytes().to_vec();
        let mut quote = None;
        loop {
            let end = match quote {
                Some(mark) => rest.find([mark, '\\']),
                None => rest.find(stops),
            };
            let (plain, special) = rest.split_at(end.unwrap_or(rest.len()));
            word.extend_from_slice(plain.as_bytes());
            let mut characters = special.chars();
            match characters.next() {
                Some('\\') => {
                    let decode = if self.escapes { unescape } else { literal };
                    let taken = decode(characters.as_str(), &mut word).ok_or(Broken)?;
                    rest = characters.as_str().get(taken..).unwrap_or_default();
                }
                Some(mark @ ('"' | '\'')) => {
                    quote = if quote.is_some() { None } else { Some(mark) };
                    rest = characters.as_str();
                }
                // The end, or a separator.
                _ => {
                    self.rest = special;
                    break;
                }
            }
        }
        if quote.is_some() {
            return Err(Broken);
        }
        String::from_utf8(word).map(|word| Some(Cow::Owned(word))).map_err(|_| Broken)
    }
}

/// The character after a backslash, and its length in bytes.
fn literal(after: &str, word: &mut Vec<u8>) -> Option<usize> {
    let character = after.chars().next()?;
    word.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes());
    Some(character.len_utf8())
}

/// Decodes a C escape sequence after its backslash (`cunescape_one()`). Returns its length in bytes as well.
fn unescape(after: &str, word: &mut Vec<u8>) -> Option<usize> {
    let first = after.chars().next()?;
    let digits = |from: usize, count: usize, radix: u32| -> Option<u32> {
        let digits = after.get(from..from + count)?;
        let valid = digits.chars().all(|digit| digit.is_digit(radix));
        valid.then(|| u32::from_str_radix(digits, radix).ok()).flatten()
    };
    let mut byte = |byte: u8, taken: usize| {
        word.push(byte);
        Some(taken)
    };
    match first {
        'a' => byte(7, 1),
        'b' => byte(8, 1),
        'f' => byte(12, 1),
        'n' => byte(b'\n', 1),
        'r' => byte(b'\r', 1),
        't' => byte(b'\t', 1),
        'v' => byte(11, 1),
        's' => byte(b' ', 1),
        '\\' | '"' | '\'' => byte(first as u8, 1),
        'x' => byte(u8::try_from(digits(1, 2, 16)?).ok().filter(|byte| *byte > 0)?, 3),
        '0'..='7' => byte(u8::try_from(digits(0, 3, 8)?).ok().filter(|byte| *byte > 0)?, 3),
        'u' | 'U' => {
            let count = if first == 'u' { 4 } else { 8 };
            let character = char::from_u32(digits(1, count, 16)?).filter(|character| *character != '\0')?;
            word.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes());
            Some(1 + count)
        }
        _ => None,
    }
}

/// The unquoted words of a setting's value, up to the first invalid one.
pub fn words_of(value: &str) -> impl Iterator<Item = Cow<'_, str>> {
    Words::new(value, &WHITESPACE, true).map_while(Result::ok)
}

#[cfg(test)]
mod tests {
    use super::{Broken, WHITESPACE, Words};

    #[test]
    fn as_systemd_splits_them() {
        let list = |text, escapes| -> Option<Vec<String>> {
            let words = Words::new(text, &WHITESPACE, escapes);
            words.map(|word| word.ok().map(String::from)).collect()
        };
        let some = |words: &[&str]| Some(words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>());
        assert_eq!(list(" a  b\tc ", true), some(&["a", "b", "c"]));
        assert_eq!(list("\"A=1 2\" 'B=\"3\"' C='4'5", true), some(&["A=1 2", "B=\"3\"", "C=45"]));
        assert_eq!(list("a\\tb \\x41\\101\\u00e4", true), some(&["a\tb", "AA\u{e4}"]));
        assert_eq!(list("\\a\\b\\f\\n\\r\\t\\v\\s", true), some(&["\x07\x08\x0c\n\r\t\x0b "]));
        assert_eq!(list("\\\\ \\\" \\' \\U0001f600", true), some(&["\\", "\"", "'", "\u{1f600}"]));
        assert_eq!(list("\\a\\\\ \\\u{e4}", false), some(&["a\\", "\u{e4}"]));
        assert_eq!(list("\u{e4}\u{a0}b \u{f6}", true), some(&["\u{e4}\u{a0}b", "\u{f6}"]));
        assert_eq!(list("''", true), some(&[""]));
        assert_eq!(list("", true), some(&[]));
        for broken in ["\"a", "'", "a\\", "\\q", "\\x4", "\\x00", "\\000", "\\u0000", "\\xff"] {
            assert_eq!(list(broken, true), None, "{broken}");
        }
        let up_to_fault: Vec<_> = Words::new("a b \"c", &WHITESPACE, true).collect();
        assert_eq!(up_to_fault, [Ok("a".into()), Ok("b".into()), Err(Broken)]);
    }
}
