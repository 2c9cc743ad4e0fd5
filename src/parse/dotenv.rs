//! The syntax of a `.env` file as python-dotenv reads it (`dotenv.parser`), which differs from that of `EnvironmentFile=`:
//! `export`, comments after a value, and quotes only around the whole value. Pure.

/// The last assignment of `key` in `text`, and its line; a value that refers to other variables is not expanded. `None`: the
/// file does not set it.
pub fn value(text: &[u8], key: &str) -> Option<(String, u32)> {
    let text = String::from_utf8_lossy(text);
    let text = text.strip_prefix('\u{feff}').unwrap_or(&text);
    let mut rest = text;
    let mut line = 1_u32;
    let mut found = None;
    loop {
        let binding = rest.trim_start();
        line = line.saturating_add(lines_between(rest, binding));
        if binding.is_empty() {
            return found;
        }
        let (assigned, after) = match assignment(binding) {
            Ok((name, value, after)) => ((name == key).then_some(value).flatten(), after),
            // The parser continues after the line on which it fails.
            Err(at) => (None, at.find(['\r', '\n']).map_or("", |end| at.get(end..).unwrap_or_default())),
        };
        if let Some(value) = assigned {
            found = Some((value.to_owned(), line));
        }
        line = line.saturating_add(lines_between(binding, after));
        rest = after;
    }
}

/// The line feeds in `text` before its end `rest`.
fn lines_between(text: &str, rest: &str) -> u32 {
    let before = text.get(..text.len() - rest.len()).unwrap_or_default();
    u32::try_from(before.matches('\n').count()).unwrap_or(u32::MAX)
}

/// The name, the value (`None`: there is no equals sign), and what follows the line. `Err`: where it is invalid.
fn assignment(text: &str) -> Result<(&str, Option<&str>, &str), &str> {
    let text = match text.strip_prefix("export") {
        Some(rest) if rest.starts_with(is_space) => rest.trim_start_matches(is_space),
        _ => text,
    };
    if text.starts_with('#') {
        return Ok(("", None, end_of_line(text)?));
    }
    let (name, rest) = match text.strip_prefix('\'') {
        Some(quoted) => quoted.split_once('\'').ok_or(text)?,
        None => text
            .split_at(text.find(|c: char| matches!(c, '=' | '#') || c.is_whitespace()).unwrap_or(text.len())),
    };
    if name.is_empty() {
        return Err(text);
    }
    let Some(after) = rest.trim_start_matches(is_space).strip_prefix('=') else {
        return Ok((name, None, end_of_line(rest)?));
    };
    let value = after.trim_start_matches(is_space);
    let (value, rest) = match value.chars().next() {
        Some(quote @ ('\'' | '"')) => quoted(value, quote).ok_or(value)?,
        // Only after white space does it begin a comment.
        Some('#') if value.len() < after.len() => ("", value),
        _ => {
            let (value, rest) = value.split_at(value.find(['\r', '\n']).unwrap_or(value.len()));
            let mut comments = value.match_indices('#').map(|(at, _)| value.get(..at).unwrap_or_default());
            (comments.find(|before| before.ends_with(char::is_whitespace)).unwrap_or(value).trim_end(), rest)
        }
    };
    Ok((name, Some(value), end_of_line(rest)?))
}

/// White space within a line.
fn is_space(c: char) -> bool {
    c.is_whitespace() && !matches!(c, '\r' | '\n')
}

/// The text in quotes, with its escape sequences, and what follows it. `None`: the quotes do not end.
fn quoted(text: &str, quote: char) -> Option<(&str, &str)> {
    let inside = text.get(1..)?;
    let mut is_escaped = false;
    let end = inside.find(|c| {
        let ends = c == quote && !is_escaped;
        is_escaped = c == '\\' && !is_escaped;
        ends
    })?;
    Some((inside.get(..end)?, inside.get(end + 1..)?))
}

/// What follows the line, which may only contain a comment.
fn end_of_line(text: &str) -> Result<&str, &str> {
    let rest = text.trim_start_matches(is_space);
    let rest = if rest.starts_with('#') {
        rest.find(['\r', '\n']).map_or("", |end| rest.get(end..).unwrap_or_default())
    } else {
        rest
    };
    if rest.is_empty() || rest.starts_with(['\r', '\n']) { Ok(rest) } else { Err(rest) }
}

#[cfg(test)]
mod tests {
    use super::value;

    /// Each was read by python-dotenv 1.2.4.
    #[test]
    fn as_python_dotenv_reads_them() {
        let read = |text: &str| value(text.as_bytes(), "A").map(|(value, line)| format!("{line}: {value}"));
        for (text, found) in [
            ("A=1", Some("1: 1")),
            ("\u{feff}A=1", Some("1: 1")),
            ("\n\n  export  A = 2 \n", Some("3: 2")),
            ("exportA=1", None),
            ("A='3'\nB=1", Some("1: 3")),
            ("'A'=\"4\" # x", Some("1: 4")),
            ("A=1 # x", Some("1: 1")),
            ("A=1#x", Some("1: 1#x")),
            ("A= # x", Some("1: ")),
            ("A=#x", Some("1: #x")),
            ("A=1\r\nA=2\r\n", Some("2: 2")),
            ("A", None),
            ("#A=1", None),
            ("# A=1\n#A=2", None),
            ("B=\"\nA=1\n\"", None),
            ("B=\"\nA=1\n", Some("2: 1")),
            ("B='x' y\nA=1", Some("2: 1")),
            ("=1\nA=1", Some("2: 1")),
            ("A='1' y", None),
            ("A=\"a\\\"b\"", Some("1: a\\\"b")),
            ("A=${B:-1}", Some("1: ${B:-1}")),
            ("WEB_A=1\nA B=1", None),
            ("", None),
        ] {
            assert_eq!(read(text).as_deref(), found, "{text:?}");
        }
    }
}
