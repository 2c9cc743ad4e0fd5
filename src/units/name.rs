//! Unit names, as in systemd.unit(5) and systemd's src/basic/unit-name.c: which names are valid, which drop-in directories
//! apply to a unit, and which slice it is in by default. Pure.

use std::fmt::Write as _;

/// The types of units that are read. Both may have drop-ins for all units of the type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Type {
    /// `.service`
    Service,
    /// `.slice`
    Slice,
}

impl Type {
    /// The suffix without the dot. `service.d` contains drop-ins for all services.
    pub fn word(self) -> &'static str {
        match self {
            Self::Service => "service",
            Self::Slice => "slice",
        }
    }

    /// The section with the settings specific to the type.
    pub fn section(self) -> &'static str {
        match self {
            Self::Service => "Service",
            Self::Slice => "Slice",
        }
    }
}

/// The kind of a name (`UnitNameFlags`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NameKind {
    /// `a.service`
    Plain,
    /// `a@b.service`
    Instance,
    /// `a@.service`
    Template,
}

/// A valid name, split into its parts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Name<'a> {
    /// The whole name.
    pub text: &'a str,
    /// The part before the first `@`, or before the suffix if there is none.
    pub prefix: &'a str,
    /// The part between the `@` and the suffix; empty for a template.
    pub instance: Option<&'a str>,
    /// The type, from the suffix.
    pub unit_type: Type,
}

impl<'a> Name<'a> {
    /// Parses the name of a service or slice. `None`: it is not a valid one.
    pub fn parse(text: &'a str) -> Option<Self> {
        let (stem, unit_type) = if let Some(stem) = text.strip_suffix(".service") {
            (stem, Type::Service)
        } else {
            (text.strip_suffix(".slice")?, Type::Slice)
        };
        let allowed = |b: u8| b.is_ascii_alphanumeric() || b":-_.\\@".contains(&b);
        if stem.is_empty() || stem.starts_with('@') || text.len() > 255 || !stem.bytes().all(allowed) {
            return None;
        }
        let (prefix, instance) = match stem.split_once('@') {
            Some((prefix, instance)) => (prefix, Some(instance)),
            None => (stem, None),
        };
        Some(Self { text, prefix, instance, unit_type })
    }

    /// The kind of the name.
    pub fn kind(&self) -> NameKind {
        match self.instance {
            None => NameKind::Plain,
            Some("") => NameKind::Template,
            Some(_) => NameKind::Instance,
        }
    }

    /// The template that an instance belongs to.
    pub fn template(&self) -> Option<String> {
        (self.kind() == NameKind::Instance).then(|| self.with_instance(""))
    }

    /// The name of another instance of the same template.
    pub fn with_instance(&self, instance: &str) -> String {
        format!("{}@{instance}.{}", self.prefix, self.unit_type.word())
    }

    /// The name without its suffix.
    pub fn stem(&self) -> &'a str {
        self.text.get(..self.text.len() - self.unit_type.word().len() - 1).unwrap_or_default()
    }

    /// The names whose `.d` directories apply to the unit, the most specific first: its own, that of its template, and
    /// those of its prefixes that end in a dash (`unit_file_find_dirs()`). The directory for the type follows all these.
    pub fn with_drop_ins(&self) -> Vec<String> {
        let mut names = Vec::new();
        self.add_with_drop_ins(&mut names);
        names
    }

    fn add_with_drop_ins(&self, names: &mut Vec<String>) {
        if names.iter().any(|known| known == self.text) {
            return;
        }
        names.push(self.text.to_owned());
        for name in self.template().into_iter().chain(self.shorter()) {
            if let Some(name) = Name::parse(&name) {
                name.add_with_drop_ins(names);
            }
        }
    }

    /// The name with the next shorter prefix that ends in a dash. A single trailing dash does not form another prefix.
    fn shorter(&self) -> Option<String> {
        let prefix = self.prefix.strip_suffix('-').unwrap_or(self.prefix);
        let dash = prefix.rfind('-').filter(|dash| *dash > 0)?;
        let prefix = self.prefix.get(..=dash)?;
        Some(match self.instance.filter(|instance| !instance.is_empty()) {
            Some(instance) => format!("{prefix}@{instance}.{}", self.unit_type.word()),
            None => format!("{prefix}.{}", self.unit_type.word()),
        })
    }

    /// The slice of a service without `Slice=` (`unit_set_default_slice()`). The instances of a template share a slice.
    pub fn default_slice(&self) -> String {
        match self.kind() {
            NameKind::Instance | NameKind::Template => format!("system-{}.slice", escape(self.prefix)),
            NameKind::Plain => SYSTEM_SLICE.to_owned(),
        }
    }
}

/// The default slice of services.
pub const SYSTEM_SLICE: &str = "system.slice";
/// The root of all slices.
pub const ROOT_SLICE: &str = "-.slice";

/// The parent of a slice (`slice_build_parent_slice()`). `None`: it is the root, or not a valid slice.
pub fn parent_slice(slice: &str) -> Option<String> {
    if slice == ROOT_SLICE || !is_slice(slice) {
        return None;
    }
    Some(match slice.rsplit_once('-') {
        Some((parent, _)) => format!("{parent}.slice"),
        None => ROOT_SLICE.to_owned(),
    })
}

/// Whether this is the name of a slice. Dashes separate the components of its path (`slice_name_is_valid()`).
pub fn is_slice(name: &str) -> bool {
    let Some(parsed) = Name::parse(name) else {
        return false;
    };
    let steps = || parsed.prefix.split('-').all(|step| !step.is_empty());
    parsed.unit_type == Type::Slice && parsed.kind() == NameKind::Plain && (name == ROOT_SLICE || steps())
}

/// Completes the name of a service as systemctl does (`unit_name_mangle()`): `.service` is appended if there is no suffix.
/// `None`: it is not the name of a service, or of one that cannot have drop-ins and an environment file named after it.
pub fn service_name(text: &str) -> Option<String> {
    const OTHER_TYPES: [&str; 10] = [
        ".socket",
        ".target",
        ".device",
        ".mount",
        ".automount",
        ".swap",
        ".timer",
        ".path",
        ".slice",
        ".scope",
    ];
    /// The length of the longest file name (`NAME_MAX`), minus that of `.env`.
    const MAX_LENGTH: usize = 255 - ".env".len();
    if OTHER_TYPES.iter().any(|other| text.ends_with(other)) {
        return None;
    }
    let name = if text.ends_with(".service") { text.to_owned() } else { format!("{text}.service") };
    let is_service = Name::parse(&name).is_some_and(|name| name.unit_type == Type::Service);
    // systemd ignores drop-in directories whose names begin with a dot.
    (is_service && !name.starts_with('.') && name.len() <= MAX_LENGTH).then_some(name)
}

/// Escapes text for use in a unit name (`unit_name_escape()`).
pub fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for (at, byte) in text.bytes().enumerate() {
        match byte {
            b'/' => out.push('-'),
            b'.' if at == 0 => out.push_str("\\x2e"),
            b':' | b'_' | b'.' => out.push(char::from(byte)),
            _ if byte.is_ascii_alphanumeric() => out.push(char::from(byte)),
            _ => {
                // Writing to a string cannot fail.
                let _ = write!(out, "\\x{byte:02x}");
            }
        }
    }
    out
}

/// The reverse of [`escape`]. `None`: the text is not validly escaped, or the result is not valid text.
pub fn unescape(text: &str) -> Option<String> {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        rest = after;
        out.push(match first {
            b'-' => b'/',
            b'\\' => {
                let (code, after) = after.strip_prefix(b"x")?.split_at_checked(2)?;
                rest = after;
                let code = std::str::from_utf8(code).ok()?;
                let digits = code.bytes().all(|b| b.is_ascii_hexdigit());
                digits.then(|| u8::from_str_radix(code, 16).ok()).flatten()?
            }
            other => *other,
        });
    }
    String::from_utf8(out).ok()
}

#[cfg(test)]
mod tests {
    use super::{Name, NameKind, escape, is_slice, parent_slice, service_name, unescape};

    fn drop_ins(name: &str) -> Vec<String> {
        Name::parse(name).map(|name| name.with_drop_ins()).unwrap_or_default()
    }

    #[test]
    fn names_and_their_parts() {
        for (name, kind) in [
            ("a.service", NameKind::Plain),
            ("a@.service", NameKind::Template),
            ("a@b.service", NameKind::Instance),
            ("a@b@c.service", NameKind::Instance),
            ("-.slice", NameKind::Plain),
            (".a.service", NameKind::Plain),
        ] {
            assert_eq!(Name::parse(name).map(|name| name.kind()), Some(kind), "{name}");
        }
        for name in
            ["", ".service", "@a.service", "a b.service", "a/b.service", "a.socket", "a", "\u{e4}.service"]
        {
            assert_eq!(Name::parse(name), None, "{name}");
        }
        let of_length = |length: usize| format!("{}.service", "a".repeat(length - ".service".len()));
        assert!(Name::parse(&of_length(255)).is_some() && Name::parse(&of_length(256)).is_none());
    }

    #[test]
    fn names_of_services_as_they_are_typed() {
        for (typed, name) in [
            ("pypnm", Some("pypnm.service")),
            ("pypnm.service", Some("pypnm.service")),
            ("a.b", Some("a.b.service")),
            ("a@b", Some("a@b.service")),
            ("-a.service", Some("-a.service")),
            ("a:-_.\\b.service", Some("a:-_.\\b.service")),
            ("", None),
            (".service", None),
            (".a", None),
            ("@a", None),
            ("a/b", None),
            ("a b", None),
            ("a.socket", None),
            ("\u{e4}", None),
        ] {
            assert_eq!(service_name(typed).as_deref(), name, "{typed}");
        }
        let long = |length: usize| service_name(&"a".repeat(length - ".service".len()));
        assert!(long(251).is_some() && long(252).is_none());
    }

    #[test]
    fn directories_of_drop_ins() {
        assert_eq!(drop_ins("pypnm.service"), ["pypnm.service"]);
        assert_eq!(drop_ins("a-b-c.service"), ["a-b-c.service", "a-b-.service", "a-.service"]);
        assert_eq!(
            drop_ins("a-b@i.service"),
            ["a-b@i.service", "a-b@.service", "a-.service", "a-@i.service", "a-@.service"]
        );
        assert_eq!(drop_ins("a--b.service"), ["a--b.service", "a--.service", "a-.service"]);
        assert_eq!(drop_ins("-a.service"), ["-a.service"]);
        assert_eq!(drop_ins("-.slice"), ["-.slice"]);
    }

    #[test]
    fn slices_up_to_the_root() {
        assert_eq!(parent_slice("a-b.slice").as_deref(), Some("a.slice"));
        assert_eq!(parent_slice("a.slice").as_deref(), Some("-.slice"));
        assert_eq!(parent_slice("-.slice"), None);
        for name in ["-a.slice", "a-.slice", "a--b.slice", "a@b.slice", "a.service", ""] {
            assert!(!is_slice(name), "{name}");
        }
        let slice = |name: &str| Name::parse(name).map(|name| name.default_slice()).unwrap_or_default();
        assert_eq!(slice("a.service"), "system.slice");
        assert_eq!(slice("a-b@c.service"), "system-a\\x2db.slice");
    }

    #[test]
    fn escaped_names_are_read_back() {
        for text in ["a-b/c", ".x.y", "a b\u{e4}", "", "\\x"] {
            assert_eq!(unescape(&escape(text)).as_deref(), Some(text));
        }
        assert_eq!(escape(".x.y-z/0"), "\\x2ex.y\\x2dz-0");
        for text in ["\\x2", "\\y41", "\\x+1", "\\xff"] {
            assert_eq!(unescape(text), None, "{text}");
        }
    }
}
