//! Which files make a unit, and what stands in them: one listing of each directory of units, then only the files that count.

use std::borrow::Cow;

use rustix::fs::FileType;

use crate::parse::syntax::{Fault, Item, items_that};
use crate::problem::{FileName, Problem, ProblemKind, Source};
use crate::root::{ReadError, Root};
use crate::units::name::{Name, NameKind, ROOT_SLICE, SYSTEM_SLICE, Type};
use crate::units::{Assignment, State, Unit, known, may_be_known};

/// Where units lie, the strongest first (`lookup_paths_init()`), without the generators' directories.
pub const DIRECTORIES: [&str; 10] = [
    "/etc/systemd/system.control",
    "/run/systemd/system.control",
    "/run/systemd/transient",
    "/etc/systemd/system",
    "/etc/systemd/system.attached",
    "/run/systemd/system",
    "/run/systemd/system.attached",
    "/usr/local/lib/systemd/system",
    "/usr/lib/systemd/system",
    SPLIT_USR,
];
/// Only where `/lib` is no link to `/usr/lib`.
const SPLIT_USR: &str = "/lib/systemd/system";
/// A link into one of these is an alias all the same, whether the generator has written its target yet or not.
const GENERATORS: [&str; 3] =
    ["/run/systemd/generator.early", "/run/systemd/generator", "/run/systemd/generator.late"];
/// Names that lead to other names (systemd's `FOLLOW_MAX`).
const MOST_ALIASES: usize = 8;
const SKIPPED_FILE: &str = "taking the least of CPUs and memory";

/// What lies in the directories of units, as far as services and slices go.
#[derive(Debug)]
pub struct Index<'a> {
    root: &'a Root,
    /// The services whose files are wanted, by name; of others only links are kept.
    wanted: &'a [String],
    /// And their templates'.
    templates: Vec<String>,
    /// The name of the drop-in that a generator is about to write for those services. A file of that name in a weaker
    /// directory is never read, and not here either.
    generated: &'a str,
    /// Units, in the order of the directories.
    units: Vec<Entry>,
    /// Directories of drop-ins, in the same order.
    drop_ins: Vec<Entry>,
    /// Their names, one after the other.
    names: Vec<u8>,
    /// Which of [`DIRECTORIES`] there are.
    listed: [bool; DIRECTORIES.len()],
    /// Directories that are there and can't be read.
    unread: Vec<Source>,
}

/// Small, for there are hundreds, and few are looked at twice.
#[derive(Clone, Copy, Debug)]
struct Entry {
    /// Where its name begins.
    start: u32,
    length: u16,
    /// Its place in [`DIRECTORIES`].
    directory: u8,
    what: What,
}

impl Entry {
    fn directory(self) -> &'static str {
        DIRECTORIES.get(usize::from(self.directory)).copied().unwrap_or_default()
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum What {
    File,
    Link,
    /// A directory, or a link to one.
    DropIns,
}

/// What a name stands for.
enum Id {
    /// A file, or a link to one elsewhere.
    File(String),
    /// Another name.
    Alias(String),
}

impl<'a> Index<'a> {
    /// Lists the directories of units below `root`, for units that go by `names` and get a drop-in `generated`.
    pub fn read(
        root: &'a Root,
        names: &'a [String],
        generated: &'a str,
        problems: &mut Vec<Problem>,
    ) -> Self {
        let mut index = Self {
            root,
            wanted: names,
            generated,
            templates: names.iter().filter_map(|name| Name::parse(name)?.template()).collect(),
            units: Vec::with_capacity(64),
            drop_ins: Vec::with_capacity(16),
            names: Vec::with_capacity(1 << 10),
            listed: [false; DIRECTORIES.len()],
            unread: Vec::new(),
        };
        // `/lib` is the same as `/usr/lib`.
        let merged_usr = root.file_type("/lib") == Some(FileType::Symlink);
        for (number, directory) in (0..).zip(DIRECTORIES) {
            if directory == SPLIT_USR && merged_usr {
                continue;
            }
            let listed = root.each_entry(directory, |name, file_type| index.add(number, name, file_type));
            match listed {
                Ok(()) => {
                    if let Some(listed) = index.listed.get_mut(usize::from(number)) {
                        *listed = true;
                    }
                }
                Err(ReadError::Missing) => {}
                Err(error) => {
                    problems.push(Problem::unreadable(directory, error, SKIPPED_FILE));
                    index.unread.push(Source::file(directory));
                }
            }
        }
        index
    }

    /// Whether the files of a unit of that name are kept; there are hundreds of others.
    fn is_wanted(&self, name: &[u8]) -> bool {
        name.last_chunk() == Some(b".slice")
            || self.wanted.iter().chain(&self.templates).any(|wanted| wanted.as_bytes() == name)
    }

    /// Takes one name of a directory, if it has to do with services or slices.
    fn add(&mut self, directory: u8, name: &[u8], file_type: FileType) {
        let of_type =
            |name: &[u8]| name.last_chunk() == Some(b".service") || name.last_chunk() == Some(b".slice");
        let of_drop_ins = || match name {
            [name @ .., b'.', b'd'] => of_type(name) || name == b"service" || name == b"slice",
            _ => false,
        };
        let what = match file_type {
            // Most of them, and few of those are wanted.
            FileType::RegularFile if !self.is_wanted(name) => return,
            FileType::RegularFile if of_type(name) => What::File,
            FileType::Symlink if of_type(name) => What::Link,
            FileType::Directory | FileType::Symlink | FileType::Unknown if of_drop_ins() => What::DropIns,
            FileType::Unknown if of_type(name) => {
                let directory = DIRECTORIES.get(usize::from(directory)).copied().unwrap_or_default();
                let path = join(directory, &String::from_utf8_lossy(name));
                match self.root.file_type(&path) {
                    Some(FileType::Symlink) => What::Link,
                    _ if self.is_wanted(name) => What::File,
                    _ => return,
                }
            }
            _ => return,
        };
        // No name of a file is longer than 255 bytes, and no directory has more than 100,000 that are looked at.
        if let (Ok(start), Ok(length)) = (u32::try_from(self.names.len()), u16::try_from(name.len())) {
            self.names.extend_from_slice(name);
            let entries = if what == What::DropIns { &mut self.drop_ins } else { &mut self.units };
            entries.push(Entry { start, length, directory, what });
        }
    }

    fn name_bytes(&self, entry: Entry) -> &[u8] {
        let start = entry.start as usize;
        self.names.get(start..start + usize::from(entry.length)).unwrap_or_default()
    }

    /// Empty where it is not UTF-8, which no unit's name is.
    fn name(&self, entry: Entry) -> &str {
        std::str::from_utf8(self.name_bytes(entry)).unwrap_or_default()
    }

    /// Those of `entries` with that name, the strongest directory's first.
    fn named<'n>(&'n self, entries: &'n [Entry], name: &'n str) -> impl Iterator<Item = Entry> + 'n {
        let same_length = move |entry: &Entry| usize::from(entry.length) == name.len();
        let entries = entries.iter().copied().filter(same_length);
        entries.filter(move |entry| self.name_bytes(*entry) == name.as_bytes())
    }

    /// Loads the unit that goes by `name`; `None` where that is no name of a service or slice. Of a template, what all its
    /// instances have in common.
    pub fn load(&self, name: &str, problems: &mut Vec<Problem>) -> Option<Unit> {
        let asked = Name::parse(name)?;
        let of_template = || asked.template().and_then(|template| self.follow(&template));
        let fragment = self.follow(name).or_else(of_template);
        let mut unit = Unit {
            name: name.to_owned(),
            asked: name.to_owned(),
            aliases: Vec::new(),
            state: State::NotFound,
            fragment: None,
            drop_ins: Vec::new(),
            // Slices mostly have no file.
            assignments: Vec::with_capacity(if fragment.is_some() { 16 } else { 0 }),
            unread: self.unread.clone(),
        };
        let mut namesake = None;
        if let Some(path) = fragment {
            unit.state = take_file(self.root, &path, asked.unit_type, &mut unit, problems);
            if unit.state != State::NotFound {
                // An instance that has a file of its own is another unit; only its drop-ins count here as well.
                let id = name_of_file(&path, &asked);
                let differs = |own: String| base_of(&own) != base_of(&path);
                if id != name && self.follow(&id).is_some_and(differs) {
                    namesake = Some(id);
                } else {
                    unit.name = id;
                }
                unit.fragment = Some(path);
            }
        }
        if asked.unit_type == Type::Slice {
            // A slice needs no file, and those two are always there.
            let perpetual = unit.state == State::Masked && [ROOT_SLICE, SYSTEM_SLICE].contains(&name);
            if unit.state == State::NotFound || perpetual {
                unit.state = State::Loaded;
            }
        }
        let of_template = |path: &String| path.ends_with(&["@.", asked.unit_type.word()].concat());
        if unit.state == State::Masked && unit.fragment.as_ref().is_some_and(of_template) {
            // The other name is no more than an alias then.
            unit.aliases.push(std::mem::replace(&mut unit.name, name.to_owned()));
            unit.aliases.retain(|alias| alias != name);
        }
        let id = unit.name.clone();
        let id = Name::parse(&id).unwrap_or(asked);
        if unit.state == State::Loaded && asked.unit_type == Type::Service {
            unit.aliases = self.aliases(&asked, &id, unit.fragment.as_deref());
        } else if asked.text != id.text {
            unit.aliases.push(name.to_owned());
        }
        unit.aliases.extend(namesake.filter(|_| unit.state == State::Loaded));
        for path in self.drop_ins(&id, &unit.aliases, problems, &mut unit.unread) {
            // One that can't be read to its end says what it said until there; so it does for systemd.
            take_file(self.root, &path, asked.unit_type, &mut unit, problems);
            unit.drop_ins.push(path);
        }
        Some(unit)
    }

    /// The file of a name; `None`: it has none, or leads to itself.
    fn follow(&self, name: &str) -> Option<String> {
        let mut id = Cow::Borrowed(name);
        for hop in 0..MOST_ALIASES {
            // An alias of an instance leads to the template where the instance has no file.
            let template = || Name::parse(&id).and_then(|id| id.template());
            let found = match self.id(&id) {
                None if hop > 0 => template().and_then(|template| self.id(&template)),
                other => other,
            };
            match found? {
                Id::File(path) => return Some(path),
                Id::Alias(next) => id = Cow::Owned(next),
            }
        }
        None
    }

    /// What a name stands for in the strongest directory that has it.
    fn id(&self, name: &str) -> Option<Id> {
        if self.is_wanted(name.as_bytes()) {
            return self.named(&self.units, name).find_map(|entry| self.id_at(entry, name));
        }
        // An alias led here: files of that name were not kept.
        DIRECTORIES.into_iter().zip(self.listed).filter(|(_, listed)| *listed).find_map(|(directory, _)| {
            let link = self.named(&self.units, name).find(|entry| entry.directory() == directory);
            let path = join(directory, name);
            match link {
                Some(entry) => self.id_at(entry, name),
                None if self.root.file_type(&path) == Some(FileType::RegularFile) => Some(Id::File(path)),
                None => None,
            }
        })
    }

    /// What it stands for in the directory of `entry`.
    fn id_at(&self, entry: Entry, name: &str) -> Option<Id> {
        let path = join(entry.directory(), name);
        if entry.what != What::Link {
            return Some(Id::File(path));
        }
        let target = self.root.link(&path)?;
        match self.alias_target(entry.directory(), &target) {
            None => Some(Id::File(path)),
            // Where it is no good alias, a weaker directory's entry counts.
            Some(target) => may_alias(name, &target).then_some(Id::Alias(target)),
        }
    }

    /// The name that a link stands for, if it leads to a directory of units; one that leads elsewhere is the unit's
    /// own file, which only lies there (or it leads to /dev/null).
    fn alias_target(&self, directory: &str, target: &str) -> Option<String> {
        let absolute = if target.starts_with('/') {
            simplify(target)
        } else {
            simplify(&format!("{directory}/{target}"))
        };
        if absolute == "/dev/null" {
            return None;
        }
        let (parent, base) = absolute.rsplit_once('/')?;
        let known = DIRECTORIES.iter().chain(&GENERATORS);
        let lexically = known.into_iter().any(|known| {
            parent.strip_prefix(known).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        });
        let inside = lexically || {
            // A directory of units may itself be a link.
            let parent = self.root.identity(parent);
            parent.is_some() && DIRECTORIES.iter().any(|known| self.root.identity(known) == parent)
        };
        inside.then(|| base.to_owned())
    }

    /// The other names of the service `id`, as far as there are drop-ins for them, sorted; the name asked for is one.
    fn aliases(&self, asked: &Name<'_>, id: &Name<'_>, fragment: Option<&str>) -> Vec<String> {
        let mut aliases = Vec::new();
        if asked.text != id.text {
            aliases.push(asked.text.to_owned());
        }
        // Hardly any host has a link that begins like a directory of drop-ins, so that is looked for first.
        let prefix = |entry: &Entry| {
            let stem = self.name_bytes(*entry).strip_suffix(b".service.d")?;
            stem.split(|byte| *byte == b'@').next()
        };
        let prefixes: Vec<&[u8]> = self.drop_ins.iter().filter_map(prefix).collect();
        let may_be_one = |entry: &&Entry| {
            let link = self.name_bytes(**entry);
            // The first letter tells most of them.
            let begins_like = |prefix: &&[u8]| link.first() == prefix.first() && link.starts_with(prefix);
            entry.what == What::Link
                && link.last_chunk() == Some(b".service")
                && prefixes.iter().any(begins_like)
        };
        let mut links = self.units.iter().filter(may_be_one).peekable();
        if links.peek().is_none() {
            return aliases;
        }
        let own = id.with_drop_ins();
        let others: Vec<Name<'_>> = (self.drop_ins.iter())
            .filter_map(|entry| Name::parse(self.name(*entry).strip_suffix(".d")?))
            .filter(|name| name.unit_type == id.unit_type && !own.iter().any(|own| own == name.text))
            .collect();
        for entry in links {
            let name = self.name(*entry);
            let Some(link) = Name::parse(name) else {
                continue;
            };
            // A template's link is an alias of each instance.
            let alias = match (link.kind(), id.instance) {
                (NameKind::Template, Some(instance)) => link.with_instance(instance),
                (NameKind::Template, None) => continue,
                _ => name.to_owned(),
            };
            let Some(parsed) = Name::parse(&alias) else {
                continue;
            };
            let dropped = parsed.with_drop_ins();
            if alias == id.text
                || aliases.contains(&alias)
                || !others.iter().any(|other| dropped.iter().any(|name| name == other.text))
            {
                continue;
            }
            // It must lead to this very file, and an instance's own link must not lead elsewhere.
            let Some(path) = self.follow(name) else {
                continue;
            };
            let other = |path: String| Some(base_of(&path)) != fragment.map(base_of);
            let elsewhere = alias != name && self.follow(&alias).is_some_and(other);
            let of_template =
                Name::parse(base_of(&path)).is_some_and(|name| name.kind() == NameKind::Template);
            let same_instance = !of_template || parsed.instance == id.instance;
            if !other(path) && same_instance && !elsewhere {
                aliases.push(alias);
            }
        }
        aliases.sort_unstable();
        aliases
    }

    /// The unit's drop-ins, sorted by their names; of the same name the strongest directory's
    /// (`unit_file_find_dropin_paths()`). systemd takes the aliases in no certain order, here they are sorted.
    fn drop_ins(
        &self,
        id: &Name<'_>,
        aliases: &[String],
        problems: &mut Vec<Problem>,
        unread: &mut Vec<Source>,
    ) -> Vec<String> {
        let mut places: Vec<(&'static str, String)> = Vec::new();
        let mut add = |names: &[Cow<'_, str>]| {
            let from = places.len();
            for name in names {
                let of_name = |entry: &&Entry| {
                    usize::from(entry.length) == name.len() + 2
                        && self.name_bytes(**entry).starts_with(name.as_bytes())
                };
                places.extend(
                    self.drop_ins
                        .iter()
                        .filter(of_name)
                        .map(|entry| (entry.directory(), format!("{name}.d"))),
                );
            }
            // Directory by directory; stable, so that the names stay in their order.
            let rank =
                |(directory, _): &(&str, String)| DIRECTORIES.iter().position(|known| known == directory);
            if let Some(added) = places.get_mut(from..).filter(|added| added.len() > 1) {
                added.sort_by_key(rank);
            }
        };
        add(&id.with_drop_ins());
        for alias in aliases.iter().filter_map(|alias| Name::parse(alias)) {
            add(&alias.with_drop_ins());
        }
        add(&[Cow::Borrowed(id.unit_type.word())]);

        // (name of the file, number of its place)
        let mut files: Vec<(String, usize)> = Vec::new();
        for (number, (directory, name)) in places.iter().enumerate() {
            let path = join(directory, name);
            let mut not_utf8 = Vec::new();
            let listed = self.root.each_entry(&path, |name, _| {
                if !name.ends_with(b".conf") || name.starts_with(b".") {
                    return;
                }
                match std::str::from_utf8(name) {
                    Ok(name) => files.push((name.to_owned(), number)),
                    // systemd reads it.
                    Err(_) => not_utf8.push(join(&path, &String::from_utf8_lossy(name))),
                }
            });
            for path in not_utf8 {
                let source = Source::file(path);
                unread.push(source.clone());
                let kind = ProblemKind::BadName { reason: "its name is not UTF-8" };
                problems.push(Problem { source, kind, consequence: SKIPPED_FILE.into() });
            }
            match listed {
                Ok(()) | Err(ReadError::Missing) => {}
                Err(error) => {
                    unread.push(Source::file(path.clone()));
                    problems.push(Problem::unreadable(path, error, SKIPPED_FILE));
                }
            }
        }
        files.sort_unstable();
        files.dedup_by(|later, earlier| later.0 == earlier.0);
        if id.unit_type == Type::Service {
            files.retain(|(name, place)| {
                *name != self.generated
                    || places.get(*place).is_some_and(|place| is_stronger(place.0, &place.1))
            });
        }
        let path = |(file, place): (String, usize)| {
            places.get(place).map(|(directory, name)| join(&join(directory, name), &file))
        };
        files.into_iter().filter_map(path).collect()
    }
}

/// Whether systemd prefers a directory of drop-ins to the generators': those below /etc and /run, unless they are for the
/// whole type.
fn is_stronger(directory: &str, name: &str) -> bool {
    name != "service.d" && !["/usr/", "/lib/"].iter().any(|weaker| directory.starts_with(weaker))
}

/// Takes what one file says into `unit`; an empty one is `Masked`, one that is not there `NotFound`, one that is not read
/// to its end `Bad`.
fn take_file(
    root: &Root,
    path: &str,
    unit_type: Type,
    unit: &mut Unit,
    problems: &mut Vec<Problem>,
) -> State {
    let taken = root.with_bytes(path, |text| match text {
        [] => State::Masked,
        text if parse_assignments(path, text, unit_type, &mut unit.assignments, problems) => State::Loaded,
        _ => State::Bad,
    });
    match taken {
        Ok(state) => state,
        Err(ReadError::Missing) => State::NotFound,
        Err(error) => {
            unit.unread.push(Source::file(path.to_owned()));
            problems.push(Problem::unreadable(path.to_owned(), error, SKIPPED_FILE));
            State::Bad
        }
    }
}

/// Takes the assignments of one file's text, in sections of that type; whether it could be read to its end. Of its faults
/// the first is reported, and the one that ends it: systemd itself reports them all.
pub fn parse_assignments(
    path: &str,
    text: &[u8],
    unit_type: Type,
    assignments: &mut Vec<Assignment>,
    problems: &mut Vec<Problem>,
) -> bool {
    let file = FileName::found(path);
    let mut inside = false;
    let mut told = false;
    for item in items_that(text, may_be_known) {
        match item {
            Item::Section { name, .. } => inside = name == unit_type.section(),
            Item::Assignment { key, value, line } if inside => {
                if let Some(key) = known(&key) {
                    let source = Source::key(file.clone(), line, key);
                    assignments.push(Assignment { key, value: value.into_owned(), source });
                }
            }
            Item::Assignment { .. } => {}
            Item::Fault { fault, line } => {
                // As `parse_line()` and its caller have it.
                let rest = matches!(fault, Fault::BrokenSection | Fault::NotUtf8);
                if rest || !told {
                    let instead =
                        if rest { "systemd skips the rest of the file" } else { "systemd skips the line" };
                    let source = Source::key(file.clone(), line, "");
                    problems.push(Problem {
                        source,
                        kind: ProblemKind::Syntax(fault),
                        consequence: instead.into(),
                    });
                }
                told = true;
                if rest {
                    return false;
                }
            }
        }
    }
    true
}

/// The name of the unit that was asked for by one name, from the name of its file.
fn name_of_file(path: &str, asked: &Name<'_>) -> String {
    match (Name::parse(base_of(path)), asked.instance) {
        (Some(base), Some(instance)) if base.kind() == NameKind::Template => base.with_instance(instance),
        (Some(base), _) => base.text.to_owned(),
        (None, _) => asked.text.to_owned(),
    }
}

/// What a directory has by a name.
fn join(directory: &str, name: &str) -> String {
    [directory, "/", name].concat()
}

/// The last step of a path.
fn base_of(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or_default()
}

/// Whether a link of the first name may stand for a unit of the second (`unit_validate_alias_symlink_or_warn()`).
fn may_alias(link: &str, target: &str) -> bool {
    let (Some(link), Some(target)) = (Name::parse(link), Name::parse(target)) else {
        return false;
    };
    let kinds = match (link.kind(), target.kind()) {
        (NameKind::Instance, NameKind::Template) => true,
        (NameKind::Instance, NameKind::Instance) => link.instance == target.instance,
        (link, target) => link == target,
    };
    kinds && link.text != target.text && link.unit_type == Type::Service && target.unit_type == Type::Service
}

/// A path without `.`, `..` and doubled slashes.
fn simplify(path: &str) -> String {
    let mut steps: Vec<&str> = Vec::new();
    for step in path.split('/') {
        match step {
            "" | "." => {}
            ".." => {
                steps.pop();
            }
            step => steps.push(step),
        }
    }
    format!("/{}", steps.join("/"))
}
