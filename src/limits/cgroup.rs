//! The limits of control groups, version 2, version 1 and hybrid: the container's, from the root that PID 1 sees down to
//! PID 1, and those of one process, from the root in sight down to its own cgroup (see [`crate::limits::process`]). For
//! the generator only the container's count: the service will live below PID 1's root, not in the generator's cgroup.
//!
//! Where others decide differently, the choice here is the one that never overcommits:
//!
//! - Go's runtime and automaxprocs read the innermost cgroup only; a limit further out binds all the same, so every
//!   level counts, as for OpenJDK and sysinfo.
//! - Go's runtime and OpenJDK round a fractional quota up (Go to 2 at least); the rest of the last CPU would be throttled,
//!   so it is rounded down, as automaxprocs does.
//! - OpenJDK and sysinfo leave `memory.high` out; above it the kernel throttles and reclaims, so it is a ceiling.
//! - All of them, and systemd's `physical_memory()`, take a file that can't be read or understood for "no limit"; here
//!   it is assumed to be minimal. Only a file that is not there says that there is no limit.

use std::borrow::Cow;

use crate::limits::{Amount, Limit, Resource, Scope, nodes};
use crate::parse::cgroup::{self, LimitValue, Membership};
use crate::parse::cpu_list::CpuSet;
use crate::parse::mountinfo::{CgroupMount, cgroup_mounts};
use crate::problem::{FileName, Problem, ProblemKind, Source};
use crate::root::{ReadError, Root};

/// Whose cgroup it is.
struct Member<'a> {
    /// In words.
    who: &'static str,
    /// Its cgroups (cgroups(7)), as the reader's cgroup namespace shows them.
    membership: &'a str,
    /// Whose view of the mounts counts, the first that can be read.
    mountinfo: &'static [&'static str],
    /// What its limits are.
    scope: Scope,
    /// Where its cgroup of one controller is.
    place: fn(&str, &[Membership<'_>], &[CgroupMount<'_>]) -> Option<Hierarchy>,
}

const PID_1: Member<'_> = Member {
    who: "PID 1",
    membership: "/proc/1/cgroup",
    // Another's where PID 1's is hidden from the caller.
    mountinfo: &["/proc/1/mountinfo", "/proc/self/mountinfo"],
    scope: Scope::Container,
    place: Hierarchy::of,
};
/// Where everybody mounts it.
const STANDARD_PLACE: &str = "/sys/fs/cgroup";
/// What systemd moves PID 1 to, below the cgroup that it was started in (`cg_get_root_path()`).
const OWN_OF_PID_1: [&str; 3] = ["/init.scope", "/system.slice", "/system"];
/// The kernel opens no longer path (PATH_MAX).
const LONGEST_PATH: usize = 4095;

const FEWEST: &str = "counting on 1 CPU";
const LEAST: &str = "taking the safest low-memory baseline";

/// What the container grants.
#[derive(Debug, Default)]
pub struct Container {
    /// Its limits, from the outside in.
    pub limits: Vec<Limit>,
    /// The memory limit of the cgroup that PID 1 was started in, in bytes: systemd takes percentages of this or of the
    /// machine's memory, whichever is less (`physical_memory()`).
    pub root_memory: Option<u64>,
}

/// Reads the container's limits below `root`.
pub fn read(root: &Root, problems: &mut Vec<Problem>) -> Container {
    read_member(root, &PID_1, problems)
}

/// Reads the limits of the cgroup that `membership` (`/proc/PID/cgroup`) names, at every level in sight of the reader.
pub fn read_process(root: &Root, membership: &str, problems: &mut Vec<Problem>) -> Vec<Limit> {
    // The kernel shows another process's cgroup as the reader's namespace sees it, so the reader's mounts belong to it.
    let mountinfo = &["/proc/self/mountinfo"];
    let place = Hierarchy::of_process;
    let member = Member { who: "the process", membership, mountinfo, scope: Scope::Process, place };
    read_member(root, &member, problems).limits
}

/// Whether only version 2 is mounted, at its usual place: what the host gives to version 1 is then out of sight by design.
fn has_only_v2(mounts: &[CgroupMount<'_>]) -> bool {
    let is_v2 = |mount: &CgroupMount<'_>| mount.v1_options.is_none();
    mounts.iter().all(is_v2) && mounts.iter().any(|mount| mount.point == STANDARD_PLACE)
}

fn read_member(root: &Root, member: &Member<'_>, problems: &mut Vec<Problem>) -> Container {
    let path = String::with_capacity(128);
    let mut reader = LimitReader {
        root,
        member,
        problems,
        path,
        controllers: Default::default(),
        found: Container::default(),
    };
    let membership = member.membership;
    let text = match root.text(membership) {
        Ok(text) => Some(text),
        // No cgroups, or an unprivileged caller who can't see PID 1: the roots count.
        Err(ReadError::Missing) => None,
        Err(error) => {
            let instead = "taking the least of CPUs and memory";
            reader.problems.push(Problem::unreadable(membership.to_owned(), error, instead));
            reader.unknown(Resource::Cpu, Source::file(membership.to_owned()));
            reader.unknown(Resource::Memory, Source::file(membership.to_owned()));
            return reader.found;
        }
    };
    let memberships = match cgroup::memberships(text.as_deref().unwrap_or_default()) {
        Ok(memberships) => memberships,
        Err((line, bad)) => {
            let source = Source::key(membership.to_owned(), line, "");
            let instead = "taking the least of CPUs and memory";
            let problem = Problem::bad_value(source.clone(), bad, "HIERARCHY:CONTROLLERS:/PATH", instead);
            reader.problems.push(problem);
            reader.unknown(Resource::Cpu, source.clone());
            reader.unknown(Resource::Memory, source);
            return reader.found;
        }
    };
    let lines = match root.cgroup_mounts(member.mountinfo) {
        Ok(lines) => lines,
        Err((path, ReadError::Missing)) => {
            if !memberships.is_empty() {
                let instead = "taking cgroups to be mounted at /sys/fs/cgroup";
                reader.problems.push(Problem::unreadable(path, ReadError::Missing, instead));
            }
            Cow::Borrowed([].as_slice())
        }
        Err((path, error)) => {
            let instead = "taking cgroups to be mounted at /sys/fs/cgroup";
            reader.problems.push(Problem::unreadable(path, error, instead));
            Cow::Borrowed([].as_slice())
        }
    };
    let mounts = cgroup_mounts(&lines);
    if !mounts.is_empty() && memberships.is_empty() {
        // The kernel has a line for each hierarchy that is mounted.
        let directory = membership.rsplit_once('/').map_or("", |(directory, _)| directory);
        let is_hidden = text.is_none() && !root.has_directory(directory);
        if !is_hidden {
            let source = Source::file(membership.to_owned());
            let (kind, consequence) = if text.is_some() {
                reader.unknown(Resource::Cpu, source.clone());
                reader.unknown(Resource::Memory, source.clone());
                let expected = "a line for each hierarchy that is mounted";
                (ProblemKind::bad_value("", expected), "taking the least of CPUs and memory")
            } else {
                (ProblemKind::Absent, "only the outermost cgroups in sight count")
            };
            reader.problems.push(Problem { source, kind, consequence: consequence.into() });
        }
    }
    for (controller, resource) in
        [("memory", Resource::Memory), ("cpu", Resource::Cpu), ("cpuset", Resource::Cpu)]
    {
        let has_mount = mounts.iter().any(|mount| mount.has_v1(controller));
        if has_mount && !memberships.is_empty() && !memberships.iter().any(|one| one.has_v1(controller)) {
            let source = Source::key(membership.to_owned(), 0, controller);
            let consequence = instead(resource).into();
            reader.problems.push(Problem { source: source.clone(), kind: ProblemKind::Absent, consequence });
            reader.unknown(resource, source);
        }
    }
    let [memory, cpu, cpuset] = {
        let of = |controller| (member.place)(controller, &memberships, &mounts);
        let unified = memberships.iter().all(|one| one.v1_controllers.is_none())
            && mounts.iter().all(|mount| mount.v1_options.is_none());
        let memory = of("memory");
        // All controllers are in the one hierarchy of version 2.
        let (cpu, cpuset) =
            if unified { (memory.clone(), memory.clone()) } else { (of("cpu"), of("cpuset")) };
        [memory, cpu, cpuset]
    };
    if !has_only_v2(&mounts) {
        for place in [&memory, &cpu, &cpuset].into_iter().flatten() {
            reader.check_place(place);
        }
    }
    if let Some(place) = memory {
        reader.memory(&place);
    }
    if let Some(place) = cpu {
        reader.cpu_time(&place);
    }
    if let Some(place) = cpuset {
        reader.cpuset(&place);
    }
    reader.found
}

/// Where a process is, in the hierarchy of one controller. Pure: what it names is opened elsewhere.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hierarchy {
    /// Its directory.
    path: String,
    /// How much of `path` is the outermost directory in sight.
    outermost: usize,
    v1: bool,
    /// Its cgroup is below the mount, so the directory must be there.
    certain: bool,
    /// Why it may be another one, where no namespace explains that.
    doubt: Option<Doubt>,
}

/// Why a place may be wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Doubt {
    /// No mount is known.
    NoMount,
    /// The mount shows other cgroups than the process's.
    Outside,
}

impl Hierarchy {
    /// The cgroup that PID 1 was started in: what systemd moved it to below that is stripped. A controller belongs to one
    /// hierarchy: a line of version 1 that names it, else version 2. `None`: to none.
    pub fn of(controller: &str, memberships: &[Membership<'_>], mounts: &[CgroupMount<'_>]) -> Option<Self> {
        Self::find(controller, memberships, mounts, &OWN_OF_PID_1)
    }

    /// The cgroup of another process, likewise.
    pub fn of_process(
        controller: &str,
        memberships: &[Membership<'_>],
        mounts: &[CgroupMount<'_>],
    ) -> Option<Self> {
        Self::find(controller, memberships, mounts, &[])
    }

    fn find(
        controller: &str,
        memberships: &[Membership<'_>],
        mounts: &[CgroupMount<'_>],
        stripped: &[&str],
    ) -> Option<Self> {
        let of_v1 = memberships.iter().find(|one| one.has_v1(controller));
        let member = of_v1.or_else(|| memberships.iter().find(|one| one.v1_controllers.is_none()));
        let v1 = match member {
            Some(member) => member.v1_controllers.is_some(),
            None => mounts.iter().any(|mount| mount.has_v1(controller)),
        };
        let path = member.map_or("/", |member| member.path);
        let path = stripped.iter().find_map(|own| path.strip_suffix(own)).unwrap_or(path);
        let path = path.trim_end_matches('/');
        let own = path;

        // The cgroup as seen from the mount. `None`: it lies elsewhere, moved or above the namespace.
        let below = |mount: &CgroupMount<'_>| {
            let below = path.strip_prefix(mount.root.trim_end_matches('/'))?;
            let clean = below.is_empty() || below.starts_with('/');
            (clean && !goes_up(path) && !goes_up(&mount.root)).then(|| below.to_owned())
        };
        let rank = |mount: &CgroupMount<'_>| {
            let standard = mount.point.strip_prefix(STANDARD_PLACE);
            (below(mount).is_some(), standard.is_some_and(|rest| rest.is_empty() || rest.starts_with('/')))
        };
        let of_ours = |mount: &&CgroupMount<'_>| {
            if v1 { mount.has_v1(controller) } else { mount.v1_options.is_none() }
        };
        // The best one; of several at one place the last lies on top.
        let best = mounts.iter().filter(of_ours).reduce(|best, next| {
            let on_top = rank(next) == rank(best) && next.point == best.point;
            if rank(next) > rank(best) || on_top { next } else { best }
        });
        if let Some(mount) = best {
            let point = mount.point.trim_end_matches('/');
            let below = below(mount);
            let path = format!("{point}{}", below.as_deref().unwrap_or(""));
            let certain = below.is_some();
            let is_explained = certain || goes_up(own) || goes_up(&mount.root);
            let doubt = if is_explained { None } else { Some(Doubt::Outside) };
            return Some(Self { path, outermost: point.len(), v1, certain, doubt });
        }
        // The mounts can't be told: where everybody has them, or nowhere.
        let member = member?;
        let point = match member.v1_controllers {
            Some(controllers) => format!("{STANDARD_PLACE}/{controllers}"),
            None => STANDARD_PLACE.to_owned(),
        };
        let path = if goes_up(path) { "" } else { path };
        Some(Self {
            path: format!("{point}{path}"),
            outermost: point.len(),
            v1,
            certain: false,
            doubt: Some(Doubt::NoMount),
        })
    }

    /// The directories from the outermost in sight to the process's own.
    pub fn levels(&self) -> impl DoubleEndedIterator<Item = &str> {
        let below = self.path.get(self.outermost..).unwrap_or_default();
        let ends = below.match_indices('/').map(|(at, _)| at).chain([below.len()]);
        ends.map(|end| self.path.get(..self.outermost + end).unwrap_or_default())
    }

    /// Whether the process's own directory is not the outermost.
    fn is_nested(&self) -> bool {
        self.path.len() > self.outermost
    }
}

/// Whether a path has a step upwards: seen from outside the namespace.
fn goes_up(path: &str) -> bool {
    path.split('/').any(|step| step == "..")
}

/// One value of one file.
enum Value<T> {
    Missing,
    /// Said in `problems`, and no more than the least may be counted on.
    Unknown,
    Is(T),
}

struct LimitReader<'a> {
    root: &'a Root,
    member: &'a Member<'a>,
    problems: &'a mut Vec<Problem>,
    /// The path of the file that was read last.
    path: String,
    /// A directory, and the controllers that are on in it.
    controllers: (String, String),
    found: Container,
}

impl LimitReader<'_> {
    fn push(&mut self, amount: Amount, source: Source) {
        self.found.limits.push(Limit { scope: self.member.scope, amount, source, shared_by: 1 });
    }

    fn unknown(&mut self, resource: Resource, source: Source) {
        self.push(Amount::Unknown(resource), source);
    }

    /// Where the last value stands.
    fn source(&self) -> Source {
        Source::file(FileName::from(self.path.as_str()))
    }

    /// Reads `level/file`; one that can't be read or understood becomes a problem and an unknown amount of `resource`.
    fn value<T>(
        &mut self,
        (level, file): (&str, &str),
        resource: Resource,
        parse: impl FnOnce(&str) -> Option<T>,
        expected: &'static str,
    ) -> Value<T> {
        self.path.clear();
        self.path.push_str(level);
        self.path.push('/');
        self.path.push_str(file);
        let parse = |text: &str| parse(text).ok_or_else(|| ProblemKind::bad_value(text.trim(), expected));
        let problem = match self.root.with_text(&self.path, parse) {
            Ok(Ok(value)) => return Value::Is(value),
            Ok(Err(kind)) => Problem { source: self.source(), kind, consequence: instead(resource).into() },
            Err(ReadError::Missing) => return Value::Missing,
            Err(error) => Problem::unreadable(self.path.clone(), error, instead(resource)),
        };
        self.problems.push(problem);
        self.unknown(resource, self.source());
        Value::Unknown
    }

    /// Where the mounts don't show the process's cgroup, a limit may be out of sight.
    fn check_place(&mut self, place: &Hierarchy) {
        let is_wrong = match place.doubt {
            None => false,
            Some(Doubt::NoMount) => !self.root.has_directory(&place.path),
            Some(Doubt::Outside) => true,
        };
        let source = Source::file(place.path.clone());
        if is_wrong && !self.problems.iter().any(|problem| problem.source == source) {
            let Member { membership, who, .. } = self.member;
            let consequence =
                format!("limits of the cgroup that {membership} says {who} runs in may be out of sight");
            let kind = ProblemKind::Absent;
            self.problems.push(Problem { source, kind, consequence: consequence.into() });
        }
    }

    /// A file of version 2 was not there. The real root has none of a controller's, nor has a cgroup in which the controller is
    /// off; in another it must be there.
    fn check_missing(&mut self, level: &str, controller: &str, resource: Resource) {
        if self.controllers.0 != level || controller == "cpuset" {
            // The real root has no events, and of the files that are looked for a cpuset's only. What is kept of it serves
            // the first two controllers, which come before cpuset.
            let is_root = self.root.file_type(&format!("{level}/cgroup.events")).is_none();
            let controllers = format!("{level}/cgroup.controllers");
            let controllers = if is_root && controller != "cpuset" {
                String::new()
            } else {
                self.root.text(&controllers).unwrap_or_default()
            };
            self.controllers = (level.to_owned(), controllers);
        }
        if self.controllers.1.split_ascii_whitespace().any(|on| on == controller) {
            self.absent(resource);
        }
    }

    /// The file that was read last must be there, and is not.
    fn absent(&mut self, resource: Resource) {
        let source = self.source();
        let consequence = instead(resource).into();
        self.problems.push(Problem { source: source.clone(), kind: ProblemKind::Absent, consequence });
        self.unknown(resource, source);
    }

    /// False where the place is nonsense; then nothing below it is read.
    fn can_be_opened(&mut self, place: &Hierarchy, resource: Resource) -> bool {
        if place.path.len() <= LONGEST_PATH {
            return true;
        }
        let source = Source::file(self.member.membership.to_owned());
        let expected = "a path that can be opened";
        self.problems.push(Problem::bad_value(source.clone(), &place.path, expected, instead(resource)));
        self.unknown(resource, source);
        false
    }

    /// The process's own cgroup holds no file of a controller: most likely the controller is off there. But were the
    /// directory itself missing, a limit could be out of sight.
    fn check_own_directory(&mut self, place: &Hierarchy, resource: Resource) {
        // The usual place of a process at the root is not looked for.
        let may_lack = place.is_nested() || !place.path.starts_with(STANDARD_PLACE);
        if place.certain && may_lack && !self.root.has_directory(&place.path) {
            let source = Source::file(place.path.clone());
            let Member { membership, who, .. } = self.member;
            let instead = format!("{membership} says that {who} runs in it, so {}", instead(resource));
            self.problems.push(Problem {
                source: source.clone(),
                kind: ProblemKind::Absent,
                consequence: instead.into(),
            });
            self.unknown(resource, source);
        }
    }

    fn memory(&mut self, place: &Hierarchy) {
        const RESOURCE: Resource = Resource::Memory;
        if !self.can_be_opened(place, RESOURCE) {
            return;
        }
        let own = place.path.len();
        let mut least = u64::MAX;
        let mut own_is_there = false;
        for level in place.levels() {
            let mut is_there = false;
            let (file, parse): (_, fn(&str) -> Option<LimitValue>) = if place.v1 {
                ("memory.limit_in_bytes", cgroup::memory_v1)
            } else {
                ("memory.max", cgroup::memory_v2)
            };
            match self.value((level, file), RESOURCE, parse, "bytes, or max") {
                Value::Missing if place.v1 => {}
                Value::Missing => self.check_missing(level, "memory", RESOURCE),
                Value::Is(LimitValue::At(bytes)) => {
                    is_there = true;
                    least = least.min(bytes);
                    self.push(Amount::Memory(bytes), self.source());
                    if level.len() == own {
                        self.found.root_memory = Some(bytes);
                    }
                }
                Value::Is(LimitValue::Unlimited) | Value::Unknown => is_there = true,
            }
            if !place.v1 {
                match self.value((level, "memory.high"), RESOURCE, cgroup::memory_v2, "bytes, or max") {
                    Value::Missing => self.check_missing(level, "memory", RESOURCE),
                    Value::Is(LimitValue::At(bytes)) => {
                        is_there = true;
                        self.push(Amount::Memory(bytes), self.source());
                    }
                    Value::Is(LimitValue::Unlimited) | Value::Unknown => is_there = true,
                }
            }
            if level.len() == own {
                own_is_there = is_there;
                if !is_there {
                    self.check_own_directory(place, RESOURCE);
                }
            }
        }
        if place.v1 {
            // Knows the levels out of sight as well.
            let parse = cgroup::hierarchical_memory_limit;
            let expected = "statistics with a hierarchical_memory_limit in bytes";
            match self.value((&place.path, "memory.stat"), RESOURCE, parse, expected) {
                Value::Is(LimitValue::At(bytes)) if bytes < least => {
                    let source = Source::key(self.path.clone(), 0, "hierarchical_memory_limit");
                    self.push(Amount::Memory(bytes), source);
                }
                // The two are only ever there together.
                Value::Missing if own_is_there => {
                    let (source, kind) = (self.source(), ProblemKind::Absent);
                    let consequence = "limits out of sight are not known".into();
                    self.problems.push(Problem { source, kind, consequence });
                }
                Value::Is(_) | Value::Missing | Value::Unknown => {}
            }
        }
    }

    fn cpu_time(&mut self, place: &Hierarchy) {
        const RESOURCE: Resource = Resource::Cpu;
        if !self.can_be_opened(place, RESOURCE) {
            return;
        }
        for level in place.levels() {
            let value = if place.v1 {
                self.quota_v1(level)
            } else {
                let expected = "QUOTA PERIOD in microseconds, or max";
                self.value((level, "cpu.max"), RESOURCE, cgroup::cpu_v2, expected)
            };
            match value {
                Value::Is(LimitValue::At(milli)) => self.push(Amount::CpuTime(milli), self.source()),
                Value::Missing => {
                    if !place.v1 {
                        self.check_missing(level, "cpu", RESOURCE);
                    }
                    if level.len() == place.path.len() {
                        self.check_own_directory(place, RESOURCE);
                    }
                }
                Value::Is(LimitValue::Unlimited) | Value::Unknown => {}
            }
        }
    }

    /// The quota of one cgroup of version 1 over its period, in milli-CPUs.
    fn quota_v1(&mut self, level: &str) -> Value<LimitValue> {
        const RESOURCE: Resource = Resource::Cpu;
        let expected = "a quota in microseconds above 0, or -1";
        let quota = match self.value((level, "cpu.cfs_quota_us"), RESOURCE, cgroup::quota_v1, expected) {
            Value::Is(LimitValue::At(quota)) => quota,
            // The two are only ever there together.
            Value::Missing if self.root.file_type(&format!("{level}/cpu.cfs_period_us")).is_some() => {
                self.absent(RESOURCE);
                return Value::Unknown;
            }
            other => return other,
        };
        let expected = "a period of 1000 to 1000000 microseconds";
        let milli = |text: &str| cgroup::milli_cpus(quota, cgroup::period_v1(text)?);
        match self.value((level, "cpu.cfs_period_us"), RESOURCE, milli, expected) {
            Value::Is(milli) => {
                // What the operator knows is the quota.
                self.path.truncate(level.len());
                self.path.push_str("/cpu.cfs_quota_us");
                Value::Is(LimitValue::At(milli))
            }
            Value::Missing => {
                let source = self.source();
                self.problems.push(Problem {
                    source: source.clone(),
                    kind: ProblemKind::Absent,
                    consequence: FEWEST.into(),
                });
                self.unknown(RESOURCE, source);
                Value::Unknown
            }
            Value::Unknown => Value::Unknown,
        }
    }

    /// The CPUs and the memory nodes of the innermost cgroup that says any: what the kernel has made of all levels. Those
    /// further out don't count, as a cpuset partition takes its CPUs away from them; an empty list means the parent's.
    fn cpuset(&mut self, place: &Hierarchy) {
        if !self.can_be_opened(place, Resource::Cpu) {
            return;
        }
        // Kernels before 4.2 have no effective list in version 1.
        let [cpus, nodes]: [&[&str]; 2] = if place.v1 {
            [&["cpuset.effective_cpus", "cpuset.cpus"], &["cpuset.effective_mems", "cpuset.mems"]]
        } else {
            [&["cpuset.cpus.effective"], &["cpuset.mems.effective"]]
        };
        if let Value::Is(cpus) = self.innermost_set(place, cpus, Resource::Cpu) {
            self.push(Amount::Cpus(cpus), self.source());
        }
        if let Value::Is(allowed) = self.innermost_set(place, nodes, Resource::Memory) {
            let source = self.source();
            if let Some(amount) = nodes::granted(self.root, &allowed, self.problems) {
                self.push(amount, source);
            }
        }
    }

    /// The first of `files` that is there and not empty, from the process's own cgroup outwards.
    fn innermost_set(&mut self, place: &Hierarchy, files: &[&str], resource: Resource) -> Value<CpuSet> {
        // An empty list is a line, too.
        let parse = |text: &str| CpuSet::parse(text).filter(|_| !text.is_empty());
        let expected = match resource {
            Resource::Cpu => "a list of CPUs",
            Resource::Memory => "a list of memory nodes",
        };
        for level in place.levels().rev() {
            let mut is_there = false;
            for file in files {
                match self.value((level, file), resource, parse, expected) {
                    Value::Is(set) if !set.is_empty() => return Value::Is(set),
                    Value::Unknown => return Value::Unknown,
                    Value::Is(_) => is_there = true,
                    Value::Missing => {}
                }
            }
            if is_there || resource == Resource::Memory {
                continue;
            }
            if !place.v1 {
                self.check_missing(level, "cpuset", resource);
            } else if place.certain && level.len() == place.path.len() && self.root.has_directory(level) {
                // In version 1 every cgroup has them.
                self.absent(resource);
            }
        }
        Value::Missing
    }
}

/// What is done where nothing is known of a resource.
fn instead(resource: Resource) -> &'static str {
    match resource {
        Resource::Cpu => FEWEST,
        Resource::Memory => LEAST,
    }
}

#[cfg(test)]
mod tests {
    use std::fmt::Write as _;

    use super::Hierarchy;
    use crate::parse::cgroup::memberships;
    use crate::parse::mountinfo::cgroup_mounts;

    /// The directories that are read for `memory`, and whether the last one must be there.
    fn levels(membership: &str, mounts: &[(&str, &str, &str)]) -> (Vec<String>, bool) {
        let mut mountinfo = String::new();
        for (root, point, options) in mounts {
            let kind = if *options == "v2" { "cgroup2" } else { "cgroup" };
            writeln!(mountinfo, "30 24 0:26 {root} {point} rw shared:4 - {kind} {kind} {options}")
                .unwrap_or_default();
        }
        let memberships = memberships(membership).unwrap_or_default();
        match Hierarchy::of("memory", &memberships, &cgroup_mounts(mountinfo.as_bytes())) {
            Some(place) => (place.levels().map(str::to_owned).collect(), place.certain),
            None => (Vec::new(), false),
        }
    }

    const V2: (&str, &str, &str) = ("/", "/sys/fs/cgroup", "v2");

    #[test]
    fn from_the_root_to_pid_1() {
        assert_eq!(levels("0::/init.scope\n", &[V2]), (vec!["/sys/fs/cgroup".into()], true));
        assert_eq!(levels("0::/\n", &[V2]).0, ["/sys/fs/cgroup"]);
        let (got, certain) = levels("0::/lxc/a:b/init.scope\n", &[V2]);
        assert_eq!(got, ["/sys/fs/cgroup", "/sys/fs/cgroup/lxc", "/sys/fs/cgroup/lxc/a:b"]);
        assert!(certain);
        let docker = ("/docker/1", "/sys/fs/cgroup", "v2");
        assert_eq!(levels("0::/docker/1/x\n", &[docker]).0, ["/sys/fs/cgroup", "/sys/fs/cgroup/x"]);
        assert_eq!(levels("0::/docker/1\n", &[docker]).0, ["/sys/fs/cgroup"]);
        assert_eq!(levels("0::/a\n", &[("/", "/", "v2")]).0, ["", "/a"]);
    }

    #[test]
    fn what_lies_outside_the_mount_leaves_its_root() {
        let root = (vec!["/sys/fs/cgroup".to_owned()], false);
        assert_eq!(levels("0::/../other\n", &[V2]), root);
        assert_eq!(levels("0::/\n", &[("/../..", "/sys/fs/cgroup", "v2")]), root);
        assert_eq!(levels("0::/docker/12\n", &[("/docker/1", "/sys/fs/cgroup", "v2")]), root);
    }

    #[test]
    fn of_several_mounts_the_one_that_shows_pid_1_at_the_usual_place() {
        assert_eq!(levels("0::/\n", &[("/", "/mnt/cg", "v2"), V2]).0, ["/sys/fs/cgroup"]);
        assert_eq!(levels("0::/\n", &[V2, ("/", "/sys/fs/cgroupx", "v2")]).0, ["/sys/fs/cgroup"]);
        let elsewhere = ("/other", "/sys/fs/cgroup", "v2");
        assert_eq!(levels("0::/a\n", &[elsewhere, ("/", "/mnt/cg", "v2")]).0, ["/mnt/cg", "/mnt/cg/a"]);
        let below = ("/a", "/sys/fs/cgroup", "v2");
        assert_eq!(levels("0::/a/b\n", &[V2, below]).0, ["/sys/fs/cgroup", "/sys/fs/cgroup/b"], "on top");
    }

    #[test]
    fn a_controller_is_in_one_version() {
        let v1 = ("/", "/sys/fs/cgroup/memory", "rw,memory");
        let unified = ("/", "/sys/fs/cgroup/unified", "v2");
        assert_eq!(
            levels("4:memory:/a\n0::/b\n", &[v1, unified]).0,
            ["/sys/fs/cgroup/memory", "/sys/fs/cgroup/memory/a"]
        );
        assert_eq!(
            levels("4:freezer:/a\n1:name=systemd:/x\n0::/\n", &[v1, unified]).0,
            ["/sys/fs/cgroup/unified"]
        );
        assert_eq!(levels("4:hugetlb,memory:/\n", &[]).0, ["/sys/fs/cgroup/hugetlb,memory"], "a guess");
        assert_eq!(
            levels("0::/a/init.scope\n", &[]),
            (vec!["/sys/fs/cgroup".into(), "/sys/fs/cgroup/a".into()], false)
        );
        assert_eq!(levels("", &[v1, unified]).0, ["/sys/fs/cgroup/memory"], "PID 1 out of sight");
        assert!(levels("", &[]).0.is_empty(), "no cgroups at all");
    }
}
