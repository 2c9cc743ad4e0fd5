//! Specifiers in the values of settings (systemd.unit(5), "Specifiers"): those derived from the unit's name, and those
//! that are the same on every system. Pure.

use std::borrow::Cow;

use crate::units::name::{Name, NameKind, unescape};

/// systemd's limit for the length of a line and of its expansion (`LONG_LINE_MAX`).
const MAX_LENGTH: usize = 1 << 20;

/// Why `text` cannot be expanded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unexpanded {
    /// It depends on something that is not read here, such as the host name, the kernel version or a credential.
    Unknown,
    /// There is no such specifier, or the result is too long for a line. systemd skips the whole setting.
    NoSuch,
}

/// Expands the specifiers in `text` for the unit `name`.
pub fn expand<'t>(text: &'t str, name: &Name<'_>) -> Result<Cow<'t, str>, Unexpanded> {
    expand_among(text, name, &|_| true)
}

/// Expands a setting whose value is the name of a unit (`Slice=`). Fewer specifiers are allowed there.
pub fn expand_name<'t>(text: &'t str, name: &Name<'_>) -> Result<Cow<'t, str>, Unexpanded> {
    expand_among(text, name, &|letter| "ijnNpaAbBHlqmMovwWgGuU".contains(letter))
}

fn expand_among<'t>(
    text: &'t str,
    name: &Name<'_>,
    allowed: &dyn Fn(char) -> bool,
) -> Result<Cow<'t, str>, Unexpanded> {
    if !text.contains('%') {
        return Ok(Cow::Borrowed(text));
    }
    let mut out = String::with_capacity(text.len());
    let mut characters = text.chars();
    while let Some(character) = characters.next() {
        if character != '%' {
            out.push(character);
            continue;
        }
        match characters.next() {
            None | Some('%') => out.push('%'),
            // Letters and digits are reserved for specifiers; anything else is literal (`POSSIBLE_SPECIFIERS`).
            Some(letter) if !letter.is_ascii_alphanumeric() => {
                out.push('%');
                out.push(letter);
            }
            Some(letter) if !allowed(letter) => return Err(Unexpanded::NoSuch),
            Some(letter) => out.push_str(&value(letter, name)?),
        }
        if out.len() > MAX_LENGTH {
            return Err(Unexpanded::NoSuch);
        }
    }
    Ok(Cow::Owned(out))
}

/// The value of a specifier in the system manager.
fn value(letter: char, name: &Name<'_>) -> Result<String, Unexpanded> {
    let instance = name.instance.unwrap_or_default();
    let unescaped = |text: &str| unescape(text).ok_or(Unexpanded::NoSuch);
    let last = name.prefix.rsplit('-').next().unwrap_or_default();
    Ok(match letter {
        'n' => name.text,
        'N' => name.stem(),
        'p' => name.prefix,
        'i' => instance,
        'j' => last,
        'P' => return unescaped(name.prefix),
        'I' => return unescaped(instance),
        'J' => return unescaped(last),
        'f' => {
            let path = unescaped(if name.kind() == NameKind::Plain { name.prefix } else { instance })?;
            return Ok(if path.starts_with('/') { path } else { format!("/{path}") });
        }
        'C' => "/var/cache",
        'E' => "/etc",
        'L' => "/var/log",
        'S' => "/var/lib",
        't' => "/run",
        'T' => "/tmp",
        'V' => "/var/tmp",
        'g' | 'u' => "root",
        'G' | 'U' => "0",
        'h' => "/root",
        _ if "aAbBdHlqmMovwWsyYcrRD".contains(letter) => return Err(Unexpanded::Unknown),
        _ => return Err(Unexpanded::NoSuch),
    }
    .to_owned())
}

#[cfg(test)]
mod tests {
    use std::borrow::Cow;

    use super::{Unexpanded, expand, expand_name};
    use crate::units::name::Name;

    #[test]
    fn specifiers_of_names() {
        let expanded =
            |text: &str, name: &str| Name::parse(name).map(|name| expand(text, &name).map(Cow::into_owned));
        for (text, expected) in [
            ("plain", Ok("plain")),
            ("100%", Ok("100%")),
            ("a%%b", Ok("a%b")),
            ("%n %N", Ok("a-b@c\\x2dd.service a-b@c\\x2dd")),
            ("%p %P %j %J", Ok("a-b a/b b b")),
            ("%i %I %f", Ok("c\\x2dd c-d /c-d")),
            ("%S/x", Ok("/var/lib/x")),
            ("%C %E %L %t %T %V", Ok("/var/cache /etc /var/log /run /tmp /var/tmp")),
            ("%g%u%G%U %h", Ok("rootroot00 /root")),
            ("50% ", Ok("50% ")),
            ("%-", Ok("%-")),
            ("%H", Err(Unexpanded::Unknown)),
            ("%Q", Err(Unexpanded::NoSuch)),
        ] {
            let expected = expected.map(str::to_owned);
            assert_eq!(expanded(text, "a-b@c\\x2dd.service"), Some(expected), "{text}");
        }
        assert_eq!(expanded("x%iy", "a.service"), Some(Ok("xy".into())));
        let name = format!("{}.service", "a".repeat(240));
        assert_eq!(expanded(&"%n".repeat(4000), &name).map(|e| e.map(|e| e.len())), Some(Ok(4000 * 248)));
        assert_eq!(expanded(&"%n".repeat(5000), &name), Some(Err(Unexpanded::NoSuch)), "no more than a line");
        let slice =
            |text: &str| Name::parse("a@b.service").map(|name| expand_name(text, &name).map(Cow::into_owned));
        assert_eq!(slice("x-%i.slice"), Some(Ok("x-b.slice".into())));
        assert_eq!(slice("x-%I.slice"), Some(Err(Unexpanded::NoSuch)));
        assert_eq!(slice("x-%m.slice"), Some(Err(Unexpanded::Unknown)));
    }
}
