//! An index of the services and slices in systemd's unit directories. Each directory is listed once; names, aliases and
//! drop-ins are looked up in these lists (systemd's src/shared/unit-file.c and dropin.c).

mod drop_ins;

use rustix::fs::FileType;

use crate::parse::{base_name, is_at_or_below, path_in};
use crate::problem::{ASSUMING_MINIMUM, Problem, Source};
use crate::root::{ReadError, Root};
use crate::units::name::{Name, NameKind, Type};

/// The unit directories in order of precedence (`lookup_paths_init()`), without those of generators.
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
/// Whether a file was installed by a package rather than by the operator, to whom /usr/local belongs (file-hierarchy(7)).
pub fn is_packaged(path: &str) -> bool {
    ["/usr/lib/", "/lib/"].iter().any(|packaged| path.starts_with(packaged))
}

/// Whether a file in a unit directory yields to one of the same name that a generator writes without `early` or `late`:
/// it is below /usr, including /usr/local.
pub fn yields_to_generators(path: &str) -> bool {
    ["/usr/", "/lib/"].iter().any(|weaker| path.starts_with(weaker))
}

/// Used only if `/lib` is not a symbolic link to `/usr/lib`.
const SPLIT_USR: &str = "/lib/systemd/system";
/// A symbolic link into one of these is an alias, regardless of whether the generator has written the target yet.
const GENERATORS: [&str; 3] =
    ["/run/systemd/generator.early", "/run/systemd/generator", "/run/systemd/generator.late"];
/// If more other units than this have drop-ins, symbolic links are not compared with each of them first.
const MAX_COMPARED: usize = 64;
/// The maximum length of a chain of aliases (systemd's `FOLLOW_MAX`).
const MAX_ALIASES: usize = 8;

/// The index of all unit directories.
#[derive(Debug)]
pub struct Index<'a> {
    pub(super) root: &'a Root,
    /// The requested services and their templates. Of the hundreds of other units, only symbolic links are kept.
    wanted: Vec<String>,
    /// The name of the drop-in that the generator is about to write for these services. It takes precedence over files of
    /// that name in directories of lower precedence, so these are not read.
    generated: &'a str,
    /// Units, sorted by name, then by the precedence of the directories.
    units: Vec<IndexEntry>,
    /// Directories of drop-ins for a name, or for `service` or `slice`, in the same order.
    drop_ins: Vec<IndexEntry>,
    /// The directories of [`DIRECTORIES`] that exist.
    listed: Vec<&'static str>,
    /// Directories that exist but cannot be read.
    pub(super) unread: Vec<Source>,
}

/// A name in a unit directory.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct IndexEntry {
    /// The name of a unit; without `.d` for drop-ins.
    name: String,
    /// The index of the directory in [`DIRECTORIES`].
    precedence: usize,
    is_link: bool,
}

impl IndexEntry {
    fn directory(&self) -> &'static str {
        DIRECTORIES.get(self.precedence).copied().unwrap_or_default()
    }
}

/// The entries with this name in a sorted list.
fn entries_of<'e>(sorted: &'e [IndexEntry], name: &str) -> &'e [IndexEntry] {
    let start = sorted.partition_point(|entry| entry.name.as_str() < name);
    let rest = sorted.get(start..).unwrap_or_default();
    let count = rest.iter().take_while(|entry| entry.name == name).count();
    rest.get(..count).unwrap_or_default()
}

/// The target of a name.
enum NameTarget {
    /// A file, or a symbolic link to a file outside the unit directories.
    File(String),
    /// Another name.
    Alias(String),
}

impl<'a> Index<'a> {
    /// Indexes the unit directories below `root` for the units `names`, which get a drop-in named `generated`.
    pub fn read(root: &'a Root, names: &[String], generated: &'a str, problems: &mut Vec<Problem>) -> Self {
        let templates = names.iter().filter_map(|name| Name::parse(name)?.template());
        let mut index = Self {
            root,
            wanted: names.iter().cloned().chain(templates).collect(),
            generated,
            units: Vec::new(),
            drop_ins: Vec::new(),
            listed: Vec::new(),
            unread: Vec::new(),
        };
        // `/lib` is `/usr/lib`.
        let merged_usr = root.file_type("/lib") == Some(FileType::Symlink);
        for (precedence, directory) in DIRECTORIES.into_iter().enumerate() {
            if directory == SPLIT_USR && merged_usr {
                continue;
            }
            let listed = root.each_entry(directory, |name, file_type| {
                index.add(precedence, directory, name, file_type);
            });
            match listed {
                Ok(()) => index.listed.push(directory),
                Err(ReadError::Missing) => {}
                Err(error) => {
                    problems.push(Problem::unreadable(directory, error, ASSUMING_MINIMUM));
                    index.unread.push(Source::file(directory));
                }
            }
        }
        index.units.sort_unstable();
        index.drop_ins.sort_unstable();
        index
    }

    /// The name of the file of a unit, which is the same for all its aliases. `None`: it has no file. Problems are ignored:
    /// they are reported when the unit is sized.
    pub fn id(&self, name: &str) -> Option<String> {
        let unit = self.load(name, &mut Vec::new())?;
        unit.fragment.and(Some(unit.name))
    }

    /// The name under which `listed` has the unit `asked`, if that is another one: an alias, or the name of its file. `None`:
    /// it has the same name there, or is not listed.
    pub fn listed_name(root: &Root, listed: &[String], asked: &str) -> Option<String> {
        let asked_name = Name::parse(asked)?;
        // Most often, there is a single unit, and it has this name.
        if listed.first().is_some_and(|name| name == asked || asked_name.template().as_ref() == Some(name)) {
            return None;
        }
        let names = [listed, &[asked.to_owned()]].concat();
        // The caller reads the same directories again, and reports their problems.
        let index = Index::read(root, &names, "", &mut Vec::new());
        let id = index.id(asked)?;
        let template = Name::parse(&id)?.template();
        let found = listed.iter().find_map(|name| {
            let listed_id = index.id(name)?;
            if listed_id == id {
                return Some(name.clone());
            }
            let instance = asked_name.instance.filter(|_| template.as_ref() == Some(&listed_id))?;
            Some(Name::parse(name)?.with_instance(instance))
        });
        found.filter(|name| name != asked)
    }

    fn is_wanted(&self, name: &[u8]) -> bool {
        name.ends_with(b".slice") || self.wanted.iter().any(|wanted| wanted.as_bytes() == name)
    }

    /// Takes one name of a directory, if it has to do with services or slices.
    fn add(&mut self, precedence: usize, directory: &str, name: &[u8], file_type: FileType) {
        // There are hundreds, and most are files of other units.
        if file_type == FileType::RegularFile && !self.is_wanted(name) {
            return;
        }
        let may_be_directory =
            matches!(file_type, FileType::Directory | FileType::Symlink | FileType::Unknown);
        let (unit, is_drop_in) = match name.strip_suffix(b".d") {
            Some(unit) if may_be_directory => (unit, true),
            _ => (name, false),
        };
        let of_all_units = is_drop_in && matches!(unit, b"service" | b"slice");
        if !(unit.ends_with(b".service") || unit.ends_with(b".slice") || of_all_units) {
            return;
        }
        // A name that is not UTF-8 is not the name of a unit.
        let Ok(unit) = std::str::from_utf8(unit) else {
            return;
        };
        if is_drop_in {
            self.drop_ins.push(IndexEntry { name: unit.to_owned(), precedence, is_link: false });
            return;
        }
        let file_type = match file_type {
            FileType::Unknown => self.root.file_type(&path_in(directory, unit)),
            known => Some(known),
        };
        let is_link = match file_type {
            Some(FileType::Symlink) => true,
            Some(FileType::RegularFile) | None if self.is_wanted(unit.as_bytes()) => false,
            _ => return,
        };
        self.units.push(IndexEntry { name: unit.to_owned(), precedence, is_link });
    }

    /// The file that a name leads to. `None`: there is none, or the aliases form a loop.
    pub(super) fn follow(&self, name: &str) -> Option<String> {
        let mut name = name.to_owned();
        for hop in 0..MAX_ALIASES {
            // An alias of an instance leads to the template if the instance has no file.
            let template = || Name::parse(&name).and_then(|name| name.template());
            let found = match self.target(&name) {
                None if hop > 0 => template().and_then(|template| self.target(&template)),
                other => other,
            };
            match found? {
                NameTarget::File(path) => return Some(path),
                NameTarget::Alias(next) => name = next,
            }
        }
        None
    }

    /// The target of a name in the first directory that contains it.
    fn target(&self, name: &str) -> Option<NameTarget> {
        let entries = entries_of(&self.units, name);
        if self.is_wanted(name.as_bytes()) {
            return entries.iter().find_map(|entry| self.target_of(entry));
        }
        // An alias led here, and files of that name were not kept.
        self.listed.iter().find_map(|directory| {
            let path = path_in(directory, name);
            match entries.iter().find(|entry| entry.directory() == *directory) {
                Some(entry) => self.target_of(entry),
                None if self.root.file_type(&path) == Some(FileType::RegularFile) => {
                    Some(NameTarget::File(path))
                }
                None => None,
            }
        })
    }

    /// The target of a name in one directory.
    fn target_of(&self, entry: &IndexEntry) -> Option<NameTarget> {
        let path = path_in(entry.directory(), &entry.name);
        if !entry.is_link {
            return Some(NameTarget::File(path));
        }
        let target = self.root.link(&path)?;
        match self.alias_target(entry.directory(), &target) {
            None => Some(NameTarget::File(path)),
            // If it is not a valid alias, the entry of the next directory applies.
            Some(target) => may_alias(&entry.name, &target).then_some(NameTarget::Alias(target)),
        }
    }

    /// The unit name that a symbolic link refers to if its target is in a unit directory. A link to any other place is the
    /// unit's own file, which is merely stored there, or masks the unit (/dev/null).
    fn alias_target(&self, directory: &str, target: &str) -> Option<String> {
        let absolute =
            if target.starts_with('/') { simplify(target) } else { simplify(&path_in(directory, target)) };
        if absolute == "/dev/null" {
            return None;
        }
        let (parent, base) = absolute.rsplit_once('/')?;
        let is_inside = |directory: &&str| is_at_or_below(parent, directory);
        let inside = DIRECTORIES.iter().chain(&GENERATORS).any(is_inside) || {
            // A unit directory may itself be a symbolic link.
            let parent = self.root.identity(parent);
            parent.is_some() && DIRECTORIES.iter().any(|known| self.root.identity(known) == parent)
        };
        inside.then(|| base.to_owned())
    }

    /// The aliases of the service `id` for which there are drop-ins, sorted, including the requested name.
    pub(super) fn aliases(&self, asked: &Name<'_>, id: &Name<'_>, fragment: Option<&str>) -> Vec<String> {
        let mut aliases = Vec::new();
        if asked.text != id.text {
            aliases.push(asked.text.to_owned());
        }
        let own = id.with_drop_ins();
        let is_own = |name: &str| own.iter().any(|own| own == name);
        let others: Vec<Name<'_>> = (self.drop_ins.chunk_by(|one, next| one.name == next.name))
            .filter_map(|of_name| Name::parse(&of_name.first()?.name))
            .filter(|name| name.unit_type == id.unit_type && !is_own(name.text))
            .collect();
        let links = self.units.iter().filter(|entry| entry.is_link);
        for link in links.filter_map(|entry| Name::parse(&entry.name)) {
            // Drop-in directories are named after the unit or a prefix of it. There are hundreds of symbolic links.
            let may_have_drop_ins = || {
                others.len() > MAX_COMPARED || others.iter().any(|other| link.text.starts_with(other.prefix))
            };
            if link.unit_type != id.unit_type || others.is_empty() || !may_have_drop_ins() {
                continue;
            }
            // A symbolic link of a template is an alias of each instance.
            let alias = match (link.kind(), id.instance) {
                (NameKind::Template, Some(instance)) => link.with_instance(instance),
                _ => link.text.to_owned(),
            };
            let has_drop_ins = |alias: &Name<'_>| {
                let mut names = alias.with_drop_ins().into_iter();
                names.any(|name| !is_own(&name) && !entries_of(&self.drop_ins, &name).is_empty())
            };
            let Some(parsed) = Name::parse(&alias).filter(has_drop_ins) else {
                continue;
            };
            if alias != id.text && self.leads_to(&link, &parsed, fragment, id) {
                aliases.push(alias);
            }
        }
        aliases.sort_unstable();
        aliases.dedup();
        aliases
    }

    /// Whether a symbolic link leads to this file, and the instance's own link does not lead to another one.
    fn leads_to(&self, link: &Name<'_>, alias: &Name<'_>, fragment: Option<&str>, id: &Name<'_>) -> bool {
        let Some(path) = self.follow(link.text) else {
            return false;
        };
        let differs = |path: &str| Some(base_name(path)) != fragment.map(base_name);
        let elsewhere = alias.text != link.text && self.follow(alias.text).is_some_and(|path| differs(&path));
        let of_template = Name::parse(base_name(&path)).is_some_and(|name| name.kind() == NameKind::Template);
        let same_instance = !of_template || alias.instance == id.instance;
        !differs(&path) && same_instance && !elsewhere
    }
}

/// Whether a symbolic link named `link` is a valid alias of `target` (`unit_validate_alias_symlink_or_warn()`).
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

/// The path without `.`, `..` and repeated slashes.
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
