//! What the operator's units do to the generated drop-in: which of its values others replace, and what goes past it.
//!
//! The drop-in sets variables, so an `Environment=` that systemd reads after it wins, as does any `EnvironmentFile=`, and
//! flags of `ExecStart=` win over both. What the operator's own unit says, or a drop-in that sorts before ours, would be
//! replaced; the drop-in repeats it instead ([`Overrides::repeated`]). A package's unit, below /usr, is replaced, and so
//! is what sizing.conf(5) decides. All this is data; `explain` and `check` print it, and the generator asks it how many
//! workers there will be in the end.

use std::borrow::Cow;
use std::fmt;

use crate::names::{self, DROP_IN, VARIABLES};
use crate::parse::environment;
use crate::parse::quantity::decimal;
use crate::parse::words::{Words, is_whitespace};
use crate::problem::{Problem, ProblemKind, Source};
use crate::root::{ReadError, Root};
use crate::units::{Assignment, Unit, specifier};

/// One thing that the operator set, and that holds instead of what the drop-in says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Override {
    /// Where it stands.
    pub source: Source,
    /// What it does.
    pub effect: Effect,
}

/// What an override does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// One of the drop-in's variables ([`VARIABLES`]) gets this value.
    Variable {
        /// Its name.
        key: &'static str,
        /// The value in effect.
        value: String,
    },
    /// One of the drop-in's variables is taken away: by an empty `Environment=`, or by `UnsetEnvironment=`.
    Unset {
        /// Its name.
        key: &'static str,
    },
    /// One of the drop-in's variables is taken away, and then taken over from PID 1's environment if it is there.
    Passed {
        /// Its name.
        key: &'static str,
    },
    /// The command line has a flag, which PyPNM and uvicorn take over their environment.
    Flag {
        /// `--workers` or `--limit-max-requests`
        flag: &'static str,
        /// Its value.
        value: String,
    },
    /// `Restart=` is not `always` any more, whatever the drop-in says.
    Restart {
        /// The value in effect.
        value: String,
    },
    /// `ExecStartPre=` is reset, so nobody writes the file that PyPNM takes its profile from: PyPNM sizes itself.
    NoHandOver,
    /// A file of the drop-in's own name in a stronger directory: systemd reads that one instead.
    Replaced,
    /// A file of `EnvironmentFile=` that was not looked at: it may set any of the variables.
    NotRead {
        /// Its path, or the pattern for several.
        path: String,
    },
}

impl Effect {
    /// The variable or flag that it is about.
    pub fn key(&self) -> Option<&'static str> {
        match self {
            Self::Variable { key, .. } | Self::Unset { key } | Self::Passed { key } => Some(key),
            Self::Flag { flag, .. } => Some(flag),
            Self::Restart { .. } | Self::NoHandOver | Self::Replaced | Self::NotRead { .. } => None,
        }
    }
}

/// `file:line: key: what it does`
impl fmt::Display for Override {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.source)?;
        match &self.effect {
            Effect::Variable { key, value } => write!(f, "{key}={value} is in effect"),
            Effect::Unset { key } => write!(f, "{key} is taken away"),
            Effect::Passed { key } => write!(f, "{key} is taken from PID 1's environment"),
            Effect::Flag { flag, value } => write!(f, "{flag} {value} on the command line is in effect"),
            Effect::Restart { value } => write!(f, "Restart={value} is in effect"),
            Effect::NoHandOver => f.write_str("the hand-over to PyPNM is taken away: it sizes itself"),
            Effect::Replaced => f.write_str("is read instead of the generated drop-in"),
            Effect::NotRead { path } => write!(f, "{path} was not looked at, and may set anything"),
        }
    }
}

/// All overrides of one unit.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Overrides {
    /// In the order: the drop-in as a whole, variables, flags, the rest.
    pub list: Vec<Override>,
    /// What the operator's files before the drop-in say, which it must not replace: variable, value, where.
    repeated: Vec<(&'static str, String, Source)>,
    /// There are environment files that a generator can't look at, whatever this reader could.
    has_late_files: bool,
}

/// Whether a single worker runs; at its recycle limit the whole service ends, with status 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SingleWorker {
    /// It does.
    Certain,
    /// It cannot be ruled out.
    Possible,
}

/// A number in effect, and who set it where that was not the sizing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Effective<'a> {
    /// The number.
    pub value: u32,
    /// `None`: the sized one.
    pub set_by: Option<&'a Override>,
}

impl Overrides {
    /// What holds for a variable or a flag instead of the drop-in's.
    pub fn get(&self, key: &str) -> Option<&Override> {
        self.list.iter().find(|one| one.effect.key() == Some(key))
    }

    /// The value that the drop-in has for a variable because the operator's own unit has it, and where that stands.
    pub fn repeated(&self, key: &str) -> Option<(&str, &Source)> {
        self.repeated
            .iter()
            .find(|(name, ..)| *name == key)
            .map(|(_, value, source)| (value.as_str(), source))
    }

    /// The workers that `pypnm serve` will have. A value that is none is replaced by the sized one, as `env --write` does.
    pub fn workers(&self, sized: u32) -> Effective<'_> {
        self.effective_number([names::WORKERS_FLAG, names::WORKERS], 1, sized)
    }

    /// The recycle limit that `pypnm serve` will have; 0: never.
    pub fn limit_max_requests(&self, sized: u32) -> Effective<'_> {
        self.effective_number([names::LIMIT_MAX_REQUESTS_FLAG, names::LIMIT_MAX_REQUESTS], 0, sized)
    }

    /// Whether the service may end for good at its recycle limit, because a single worker runs: by `pypnm serve` or by
    /// uvicorn. A file that is there too late for the generator may decide that as well; the answer is the same for
    /// whoever asks.
    pub fn single_worker(&self, sized_workers: u32, sized_limit: u32) -> Option<SingleWorker> {
        let ends = |workers: Effective<'_>, limit: Effective<'_>| workers.value == 1 && limit.value > 0;
        let uvicorn_workers =
            self.effective_number([names::WORKERS_FLAG, names::UVICORN_WORKERS], 1, sized_workers);
        let uvicorn_limit = self.effective_number(
            [names::LIMIT_MAX_REQUESTS_FLAG, names::UVICORN_LIMIT_MAX_REQUESTS],
            0,
            sized_limit,
        );
        if ends(self.workers(sized_workers), self.limit_max_requests(sized_limit))
            || ends(uvicorn_workers, uvicorn_limit)
        {
            return Some(SingleWorker::Certain);
        }
        self.has_late_files.then_some(SingleWorker::Possible)
    }

    /// Whether the drop-in leaves a variable to what the operator sets for the whole manager.
    pub fn is_left_out(&self, _key: &str) -> bool {
        false
    }

    /// The first of `keys` with a valid number, `least` or more; else the sized one.
    pub fn effective_number(&self, keys: [&str; 2], least: u32, sized: u32) -> Effective<'_> {
        let set = keys.into_iter().find_map(|key| {
            let one = self.get(key)?;
            let (Effect::Variable { value, .. } | Effect::Flag { value, .. }) = &one.effect else {
                return None;
            };
            let value = decimal::<u32>(value).filter(|value| *value >= least)?;
            Some(Effective { value, set_by: Some(one) })
        });
        set.unwrap_or(Effective { value: sized, set_by: None })
    }
}

/// Where a file of the unit stands to the generated drop-in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Position {
    Before,
    /// Of the same name, in a stronger directory.
    Replacing,
    /// Of the same name, in a weaker one: never read.
    Hidden,
    After,
}

/// The place of one of `unit`'s files. Drop-ins of all directories are read in the order of their names; of one name the
/// strongest directory's is read, and the generators' comes before /usr and before drop-ins for the whole type.
fn position(unit: &Unit, file: &str) -> Position {
    if unit.fragment.as_deref() == Some(file) {
        return Position::Before;
    }
    let (directory, name) = file.rsplit_once('/').unwrap_or_default();
    match name.cmp(DROP_IN) {
        std::cmp::Ordering::Less => Position::Before,
        std::cmp::Ordering::Greater => Position::After,
        std::cmp::Ordering::Equal => {
            let of_type = directory.ends_with("/service.d");
            let weaker = ["/usr/", "/lib/"].iter().any(|weaker| directory.starts_with(weaker));
            if of_type || weaker { Position::Hidden } else { Position::Replacing }
        }
    }
}

/// Takes away what `unit` has from a file that the generated drop-in will hide.
pub fn hide(unit: &mut Unit) {
    let hidden = |unit: &Unit, file: &str| position(unit, file) == Position::Hidden;
    if let Some(at) = unit.drop_ins.iter().position(|file| hidden(unit, file)) {
        let file = unit.drop_ins.remove(at);
        unit.assignments.retain(|assignment| *assignment.source.file != *file);
        unit.unread.retain(|source| *source.file != *file);
    }
}

/// What makes a path of `EnvironmentFile=` a pattern for several files.
const PATTERN: [char; 3] = ['*', '?', '['];

/// Whether a generator may open a file: what lies elsewhere may not be mounted yet, or its mount may wait for the very
/// reload that waits for the generator (systemd.generator(7), "Notes about writing generators").
fn is_there_early(path: &str) -> bool {
    let inside = ["/etc/", "/run/", "/usr/"].iter().any(|directory| path.starts_with(directory));
    inside && !path.split('/').any(|step| step == "..") && !path.contains(PATTERN)
}

/// A variable of the service's environment.
#[derive(Default)]
struct Variable {
    value: String,
    /// `None`: the drop-in's.
    source: Option<Source>,
}

/// Whether a value can be handed to PyPNM or uvicorn as it is; neither gets over one that can't.
pub fn is_valid_value(key: &str, value: &str) -> bool {
    match key {
        names::LIMIT_MAX_REQUESTS => decimal::<u32>(value).is_some(),
        // What bash, systemd and PyPNM's `float()` read alike.
        names::TOTAL_MEMORY_GIB => {
            let (whole, fraction) = value.split_once('.').unwrap_or((value, "0"));
            decimal::<u64>(whole).is_some() && decimal::<u64>(fraction).is_some()
        }
        // Nothing in it that a unit file would have to quote.
        names::ENV_FILE => {
            let plain = |b: u8| b.is_ascii_alphanumeric() || b"/._-:@+,".contains(&b);
            value.starts_with('/') && value.bytes().all(plain)
        }
        _ => decimal::<u32>(value).is_some_and(|number| number >= 1),
    }
}

/// Whether a file is the operator's, not a package's.
fn is_by_hand(file: &str) -> bool {
    !["/usr/lib/", "/lib/"].iter().any(|packaged| file.starts_with(packaged))
}

/// Finds the overrides among what `unit` says; reads its environment files below `root`. `decided`: the variables that
/// sizing.conf(5) decides.
pub fn read(root: &Root, unit: &Unit, decided: &[&str], problems: &mut Vec<Problem>) -> Overrides {
    let mut list = Vec::new();
    let replaced = unit.drop_ins.iter().find(|file| position(unit, file) == Position::Replacing);
    if let Some(file) = replaced {
        list.push(Override { source: Source::file(file.clone()), effect: Effect::Replaced });
    }
    let commands = commands(unit);
    let mut environment = Environment::new(&commands);
    let ours = if replaced.is_none() { VARIABLES.as_slice() } else { &[] };
    environment.assign(unit, ours, decided, problems);
    environment.read_files(root, unit, problems);
    environment.unset(unit);
    for (key, (_, variable)) in VARIABLES.into_iter().zip(&environment.variables) {
        let effect = match variable {
            Some(Variable { source: None, .. }) => continue,
            Some(Variable { source: Some(source), value, .. }) => {
                Some((source.clone(), Effect::Variable { key, value: value.clone() }))
            }
            None => environment.passed_or_unset(unit, key),
        };
        list.extend(effect.map(|(source, effect)| Override { source, effect }));
    }
    flags(&commands, &environment, &mut list);
    restart_and_hand_over(unit, &mut list);
    list.append(&mut environment.not_read);
    let Environment { repeated, has_late_files, .. } = environment;
    Overrides { list, repeated, has_late_files }
}

/// `Restart=` and `ExecStartPre=`.
fn restart_and_hand_over(unit: &Unit, list: &mut Vec<Override>) {
    const RESTART: [&str; 7] =
        ["no", "on-success", "on-failure", "on-abnormal", "on-watchdog", "on-abort", "always"];
    let after = |assignment: &&Assignment| position(unit, &assignment.source.file) == Position::After;
    let restart =
        unit.assignments_of("Restart").rfind(|assignment| RESTART.contains(&assignment.value.as_str()));
    if let Some(restart) = restart.filter(after).filter(|restart| restart.value != "always") {
        let effect = Effect::Restart { value: restart.value.clone() };
        list.push(Override { source: restart.source.clone(), effect });
    }
    let reset =
        unit.assignments_of("ExecStartPre").filter(after).rfind(|assignment| assignment.value.is_empty());
    if let Some(reset) = reset {
        list.push(Override { source: reset.source.clone(), effect: Effect::NoHandOver });
    }
}

/// The words of a value, up to one that is broken.
fn words_of(value: &str) -> impl Iterator<Item = Cow<'_, str>> {
    Words::new(value, is_whitespace, true).map_while(Result::ok)
}

/// A command of `ExecStart=`.
struct Command<'a> {
    words: Vec<Cow<'a, str>>,
    /// Variables are replaced (no `:` before the path).
    expands: bool,
    source: &'a Source,
}

/// The commands of `ExecStart=` in effect.
fn commands(unit: &Unit) -> Vec<Command<'_>> {
    let mut commands = Vec::new();
    for assignment in unit.assignments_of("ExecStart") {
        let name = unit.name_at(assignment);
        if assignment.value.is_empty() {
            commands.clear();
            continue;
        }
        let mut words = Vec::with_capacity(16);
        words.extend(words_of(&assignment.value));
        let prefix =
            words.first().map_or("", |path| path.get(..path.find('/').unwrap_or(path.len())).unwrap_or(""));
        let expands = !prefix.trim_matches(['@', '-', '+', '!', '|']).starts_with(':');
        for word in &mut words {
            if let Some(Ok(Cow::Owned(expanded))) = name.map(|name| specifier::expand(word, &name)) {
                *word = Cow::Owned(expanded);
            }
        }
        commands.push(Command { words, expands, source: &assignment.source });
    }
    commands
}

/// The flags among the commands' words, the last of each.
fn flags(commands: &[Command<'_>], environment: &Environment<'_>, list: &mut Vec<Override>) {
    let mut words = Vec::with_capacity(16);
    for command in commands {
        environment.expand(command, &mut words);
    }
    for flag in [names::WORKERS_FLAG, names::LIMIT_MAX_REQUESTS_FLAG] {
        let mut found: Option<(String, Source)> = None;
        for (at, (word, source)) in words.iter().enumerate() {
            let value = match word.strip_prefix(flag) {
                Some("") => words.get(at + 1).map(|(value, _)| value.as_ref()),
                Some(rest) => rest.strip_prefix('='),
                None => None,
            };
            found = value.map(|value| (value.to_owned(), (*source).clone())).or(found);
        }
        list.extend(found.map(|(value, source)| Override { source, effect: Effect::Flag { flag, value } }));
    }
}

/// The service's environment, as far as it is asked for: the drop-in's variables, and those that its command uses.
struct Environment<'a> {
    variables: Vec<(&'a str, Option<Variable>)>,
    /// Where `Environment=` was reset last, after the drop-in.
    reset: Option<Source>,
    /// What `UnsetEnvironment=` took away.
    unset: Vec<(String, Source)>,
    /// What the drop-in must not replace.
    repeated: Vec<(&'static str, String, Source)>,
    /// Files that were not looked at.
    not_read: Vec<Override>,
    /// There are files that a generator can't look at.
    has_late_files: bool,
}

impl<'a> Environment<'a> {
    fn new(commands: &'a [Command<'_>]) -> Self {
        let mut variables = Vec::with_capacity(16);
        variables.extend(VARIABLES.map(|key| (key, None)));
        for word in commands.iter().filter(|command| command.expands).flat_map(|command| &command.words) {
            for piece in word.split('$').skip(1) {
                let piece = piece.strip_prefix('{').unwrap_or(piece);
                let end = piece.bytes().take_while(|b| b.is_ascii_alphanumeric() || *b == b'_').count();
                variables.extend(piece.get(..end).map(|name| (name, None)));
            }
        }
        Self {
            variables,
            reset: None,
            unset: Vec::new(),
            repeated: Vec::new(),
            not_read: Vec::new(),
            has_late_files: false,
        }
    }

    /// Whether an assignment with its specifiers may be of one of the variables.
    fn may_set(&self, assignment: &str) -> bool {
        let mut known = self.variables.iter().map(|(name, _)| name.as_bytes());
        let end = assignment.bytes().position(|byte| matches!(byte, b'=' | b'%')).unwrap_or(assignment.len());
        let (key, rest) = assignment.as_bytes().split_at(end);
        rest.first() == Some(&b'%') || known.any(|name| name == key)
    }

    fn of(&self, key: &str) -> Option<&Variable> {
        self.variables.iter().find(|(name, _)| *name == key)?.1.as_ref()
    }

    fn set(&mut self, key: &str, value: &str, source: impl FnOnce() -> Option<Source>) {
        if let Some((_, variable)) = self.variables.iter_mut().find(|(name, _)| *name == key) {
            *variable = Some(Variable { value: value.to_owned(), source: source() });
        }
    }

    /// `Environment=` of all files, with the drop-in's own `ours` in its place.
    fn assign(&mut self, unit: &Unit, ours: &[&'static str], decided: &[&str], problems: &mut Vec<Problem>) {
        let mut ours = Some(ours);
        for assignment in unit.assignments_of("Environment") {
            if position(unit, &assignment.source.file) != Position::Before {
                self.set_ours(ours.take(), decided, problems);
            }
            if assignment.value.is_empty() {
                self.variables.iter_mut().for_each(|(_, variable)| *variable = None);
                self.reset = ours.is_none().then(|| assignment.source.clone());
                continue;
            }
            let Some(name) = unit.name_at(assignment) else {
                continue;
            };
            for word in words_of(&assignment.value) {
                if !self.may_set(&word) {
                    continue;
                }
                let Ok(word) = specifier::expand(&word, &name) else {
                    continue;
                };
                if let Some((key, value)) = word.split_once('=') {
                    self.set(key, value, || Some(assignment.source.clone()));
                }
            }
        }
        self.set_ours(ours.take(), decided, problems);
    }

    /// The drop-in's place has come: what the operator said before it stays, all else is replaced.
    fn set_ours(&mut self, ours: Option<&[&'static str]>, decided: &[&str], problems: &mut Vec<Problem>) {
        // They are the first variables, in this order.
        for (key, (_, variable)) in ours.unwrap_or_default().iter().zip(&mut self.variables) {
            if let Some(Variable { value, source: Some(source) }) = variable
                && !value.is_empty()
                && !decided.contains(key)
                && is_by_hand(&source.file)
            {
                if is_valid_value(key, value) {
                    self.repeated.push((key, value.clone(), source.clone()));
                    continue;
                }
                let source = Source { key: (*key).into(), ..source.clone() };
                let expected = "a value that PyPNM can take";
                problems.push(Problem::bad_value(source, value, expected, "the sized one is used"));
            }
            *variable = Some(Variable::default());
        }
    }

    /// `EnvironmentFile=` of all files: what they say comes after every `Environment=`.
    fn read_files(&mut self, root: &Root, unit: &Unit, problems: &mut Vec<Problem>) {
        // Without a path: its specifiers are not known here.
        let mut files: Vec<(Option<String>, &Assignment)> = Vec::new();
        for assignment in unit.assignments_of("EnvironmentFile") {
            if assignment.value.is_empty() {
                files.clear();
                continue;
            }
            let Some(name) = unit.name_at(assignment) else {
                continue;
            };
            let path = assignment.value.strip_prefix('-').unwrap_or(&assignment.value);
            if path.starts_with(['/', '%']) {
                files.push((specifier::expand(path, &name).ok().map(Into::into), assignment));
            }
        }
        for (path, assignment) in files {
            let is_early = path.as_deref().is_some_and(is_there_early);
            self.has_late_files |= !is_early;
            let path = path.filter(|path| !path.contains(PATTERN) && (is_early || !root.is_early()));
            let Some(path) = path else {
                let path = assignment.value.trim_start_matches('-').to_owned();
                let effect = Effect::NotRead { path };
                self.not_read.push(Override { source: assignment.source.clone(), effect });
                continue;
            };
            match root.bytes(&path) {
                Ok(text) => {
                    for variable in environment::variables(&text) {
                        let source = || Some(Source::key(path.clone(), variable.line, variable.key.clone()));
                        self.set(&variable.key, &variable.value, source);
                    }
                }
                Err(ReadError::Missing) => {}
                Err(error) => problems.push(Problem {
                    source: Source::file(path),
                    kind: ProblemKind::Unreadable(error),
                    consequence: "what it would set is not known".into(),
                }),
            }
        }
    }

    /// `UnsetEnvironment=`: names, or names with the one value that is taken away.
    fn unset(&mut self, unit: &Unit) {
        let mut taken: Vec<(Cow<'_, str>, &Source)> = Vec::new();
        for assignment in unit.assignments_of("UnsetEnvironment") {
            if assignment.value.is_empty() {
                taken.clear();
            }
            taken.extend(words_of(&assignment.value).map(|word| (word, &assignment.source)));
        }
        for (word, source) in taken {
            let (key, value) = match word.split_once('=') {
                Some((key, value)) => (key, Some(value)),
                None => (word.as_ref(), None),
            };
            let Some((_, variable)) = self.variables.iter_mut().find(|(name, _)| *name == key) else {
                continue;
            };
            // The drop-in's own values are not known here, so one of them is never taken for that value.
            let has = |variable: &Variable| {
                value.is_none_or(|value| variable.source.is_some() && variable.value == value)
            };
            if variable.as_ref().is_some_and(has) {
                *variable = None;
                self.unset.push((key.to_owned(), source.clone()));
            }
        }
    }

    /// Why a variable of the drop-in is not there.
    fn passed_or_unset(&self, unit: &Unit, key: &'static str) -> Option<(Source, Effect)> {
        if let Some((_, source)) = self.unset.iter().rfind(|(unset, _)| unset == key) {
            return Some((source.clone(), Effect::Unset { key }));
        }
        let mut passed = None;
        for assignment in unit.assignments_of("PassEnvironment") {
            if assignment.value.is_empty() {
                passed = None;
            } else if assignment.value.split_ascii_whitespace().any(|name| name == key) {
                passed = Some(assignment.source.clone());
            }
        }
        match (passed, &self.reset) {
            (Some(source), _) => Some((source, Effect::Passed { key })),
            (None, Some(source)) => Some((source.clone(), Effect::Unset { key })),
            (None, None) => None,
        }
    }

    /// The words of a command with its variables replaced (systemd.service(5), "Command lines"): `$NAME` alone becomes
    /// words, `${NAME}` stays within its word. Each with where it stands.
    fn expand<'e>(&'e self, command: &'e Command<'_>, all: &mut Vec<(Cow<'e, str>, &'e Source)>) {
        for word in &command.words {
            let plain = || (Cow::Borrowed(word.as_ref()), command.source);
            if !command.expands || memchr::memchr(b'$', word.as_bytes()).is_none() {
                all.push(plain());
                continue;
            }
            if let Some(name) = word.strip_prefix('$').filter(|name| !name.starts_with(['{', '$'])) {
                if let Some(variable) = self.of(name) {
                    let source = variable.source.as_ref().unwrap_or(command.source);
                    all.extend(words_of(&variable.value).map(|word| (word, source)));
                }
                continue;
            }
            let mut text = String::new();
            let mut rest = word.as_ref();
            while let Some((before, after)) = rest.split_once('$') {
                text.push_str(before);
                if let Some(after) = after.strip_prefix('{') {
                    let (name, behind) = after.split_once('}').unwrap_or((after, ""));
                    text.push_str(self.of(name).map_or("", |variable| &variable.value));
                    rest = behind;
                } else {
                    text.push('$');
                    rest = after;
                }
            }
            text.push_str(rest);
            all.push((Cow::Owned(text), command.source));
        }
    }
}
