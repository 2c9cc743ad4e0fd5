//! Words of a setting's value as systemd splits them (`extract_first_word()`): quotes, escapes, separators.

use std::borrow::Cow;

/// The words of `text`, without their quotes. `None`: the quotes or, with `escapes`, an escape sequence are broken.
///
/// `separators` part words, several count as one. With `escapes` a backslash begins one of C's escape sequences
/// (systemd.syntax(7), "Quoting"); without, it stands for the character after it.
pub fn words<'t>(text: &'t str, separators: &[char], escapes: bool) -> Option<Vec<Cow<'t, str>>> {
    let (words, whole) = words_up_to_fault(text, separators, escapes);
    whole.then_some(words)
}

/// The words before the first broken one, for who takes them one by one; and whether there was none.
pub fn words_up_to_fault<'t>(text: &'t str, separators: &[char], escapes: bool) -> (Vec<Cow<'t, str>>, bool) {
    let mut all = Vec::with_capacity(8);
    let separators = bits(separators);
    let mut words = Words { rest: text, separators, stops: separators | bits(&['"', '\'', '\\']), escapes };
    loop {
        match words.next_word() {
            Ok(Some(word)) => all.push(word),
            Ok(None) => return (all, true),
            Err(Broken) => return (all, false),
        }
    }
}

struct Words<'t> {
    rest: &'t str,
    /// [`bits`] of what parts words.
    separators: u128,
    /// And of what ends a run of text outside of quotes: a quote, a backslash, a separator.
    stops: u128,
    escapes: bool,
}

/// Its quotes or escapes are.
struct Broken;

/// A set of ASCII characters.
fn bits(characters: &[char]) -> u128 {
    characters.iter().fold(0, |all, character| all | 1 << (*character as u32 & 127))
}

/// How much of `text` comes before the first byte that is one of `set`, or is none.
fn run(text: &str, set: u128, is_one: bool) -> usize {
    let ends = |byte: u8| (byte.is_ascii() && set >> byte & 1 == 1) == is_one;
    text.bytes().position(ends).unwrap_or(text.len())
}

impl<'t> Words<'t> {
    /// The next word; `None`: there are no more.
    fn next_word(&mut self) -> Result<Option<Cow<'t, str>>, Broken> {
        let space = run(self.rest, self.separators, false);
        self.rest = self.rest.get(space..).unwrap_or_default();
        if self.rest.is_empty() {
            return Ok(None);
        }
        // As it stands there, as far as there are no quotes and no backslashes; nearly always to the word's end.
        let end = run(self.rest, self.stops, true);
        let (plain, rest) = self.rest.split_at_checked(end).unwrap_or((self.rest, ""));
        if !rest.starts_with(['"', '\'', '\\']) {
            self.rest = rest;
            return Ok(Some(Cow::Borrowed(plain)));
        }
        let mut word = Vec::with_capacity(self.rest.len());
        word.extend_from_slice(plain.as_bytes());
        let mut quote = None;
        let mut at = end;
        let mut ended = false;
        while !ended {
            let rest = self.rest.get(at..).unwrap_or_default();
            let end = run(rest, quote.map_or(self.stops, |mark| bits(&[mark, '\\'])), true);
            word.extend_from_slice(rest.get(..end).unwrap_or_default().as_bytes());
            at += end;
            match rest.as_bytes().get(end) {
                Some(b'\\') => {
                    let after = rest.get(end + 1..).unwrap_or_default();
                    let taken =
                        if self.escapes { unescape(after, &mut word) } else { literal(after, &mut word) };
                    at += 1 + taken.ok_or(Broken)?;
                }
                Some(mark @ (b'"' | b'\'')) => {
                    quote = if quote.is_some() { None } else { Some(char::from(*mark)) };
                    at += 1;
                }
                // The end, or a separator.
                _ => ended = true,
            }
        }
        self.rest = self.rest.get(at..).unwrap_or_default();
        if quote.is_some() {
            return Err(Broken);
        }
        String::from_utf8(word).map(|word| Some(Cow::Owned(word))).map_err(|_| Broken)
    }
}

/// The character after a backslash as it is; how many bytes it has.
fn literal(after: &str, word: &mut Vec<u8>) -> Option<usize> {
    let character = after.chars().next()?;
    word.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes());
    Some(character.len_utf8())
}

/// One of C's escape sequences after its backslash (`cunescape_one()`); how many bytes it has.
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

#[cfg(test)]
mod tests {
    use std::borrow::Cow;

    use super::{words, words_up_to_fault};
    use crate::parse::syntax::WHITESPACE;

    #[test]
    fn as_systemd_splits_them() {
        let list = |text: &'static str, escapes| words(text, &WHITESPACE, escapes);
        let some = |words: &[&str]| {
            Some(words.iter().map(|word| Cow::Owned((*word).to_owned())).collect::<Vec<_>>())
        };
        assert_eq!(list(" a  b\tc ", true), some(&["a", "b", "c"]));
        assert_eq!(list("\"A=1 2\" 'B=\"3\"' C='4'5", true), some(&["A=1 2", "B=\"3\"", "C=45"]));
        assert_eq!(list("a\\tb \\x41\\101\\u00e4", true), some(&["a\tb", "AA\u{e4}"]));
        assert_eq!(list("\\a\\\\ \\\u{e4}", false), some(&["a\\", "\u{e4}"]));
        assert_eq!(list("''", true), some(&[""]));
        assert_eq!(list("", true), some(&[]));
        for broken in ["\"a", "'", "a\\", "\\q", "\\x4", "\\x00", "\\xff"] {
            assert_eq!(list(broken, true), None, "{broken}");
        }
        assert_eq!(words_up_to_fault("a b \"c", &WHITESPACE, true), (vec!["a".into(), "b".into()], false));
    }
}
