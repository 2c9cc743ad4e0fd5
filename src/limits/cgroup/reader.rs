//! Reads the limits of a hierarchy (version 1 or 2) level by level, and determines what a missing, unreadable or invalid
//! file means. [`super::hierarchy`] determines the directories.

use super::hierarchy::{Doubt, Hierarchy, STANDARD_MOUNT_POINT};
use super::{Container, Member};
use crate::limits::{Amount, Limit, Resource, nodes, read_value};
use crate::parse::cgroup::{self, LimitValue};
use crate::parse::cpu_list::CpuSet;
use crate::parse::{is_at_or_below, path_in};
use crate::problem::{ASSUMING_MINIMUM, Problem, ProblemKind, Source};
use crate::root::{ReadError, Root};

/// The longest path that the kernel opens (PATH_MAX).
const MAX_PATH: usize = 4095;

/// The value of a file.
enum FileValue<T> {
    Missing,
    /// Reported in `problems`; the limit is assumed to be minimal.
    Unknown,
    Is(T),
}

pub(super) struct LimitReader<'a> {
    pub(super) root: &'a Root,
    pub(super) member: &'a Member<'a>,
    pub(super) problems: &'a mut Vec<Problem>,
    /// The path of the file that was read last.
    pub(super) path: String,
    /// A directory, and the controllers that are enabled in it.
    pub(super) controllers: (String, String),
    pub(super) found: Container,
}

impl LimitReader<'_> {
    fn push(&mut self, amount: Amount, source: Source) {
        self.found.limits.push(Limit::new(self.member.scope, amount, source));
    }

    /// Reports why the amount of a resource is unknown.
    pub(super) fn unknown(&mut self, resource: Resource, source: Source, kind: ProblemKind) {
        self.push(Amount::Unknown(resource), source.clone());
        self.problems.push(Problem::new(source, kind, resource.assumed()));
    }

    /// Reports why the amounts of all resources are unknown.
    pub(super) fn all_unknown(&mut self, source: Source, kind: ProblemKind) {
        for resource in [Resource::Cpu, Resource::Memory] {
            self.push(Amount::Unknown(resource), source.clone());
        }
        self.problems.push(Problem::new(source, kind, ASSUMING_MINIMUM));
    }

    /// The source of the last value.
    fn source(&self) -> Source {
        Source::file(self.path.as_str())
    }

    /// Reads `level/file`. If it cannot be read or parsed, adds a problem and an unknown amount of `resource`.
    fn value<T>(
        &mut self,
        (level, file): (&str, &str),
        resource: Resource,
        parse: impl FnOnce(&str) -> Option<T>,
        expected: &'static str,
    ) -> FileValue<T> {
        self.path = path_in(level, file);
        match read_value(self.root, &self.path, parse, expected) {
            Ok(value) => FileValue::Is(value),
            Err(ProblemKind::Unreadable(ReadError::Missing)) => FileValue::Missing,
            Err(kind) => {
                self.unknown(resource, self.source(), kind);
                FileValue::Unknown
            }
        }
    }

    /// Reports that limits may not be visible, if the mounts do not contain the process's cgroup.
    pub(super) fn check_directory(&mut self, hierarchy: &Hierarchy) {
        let is_wrong = match hierarchy.doubt {
            None => false,
            Some(Doubt::NoMount) => !self.root.has_directory(&hierarchy.path),
            Some(Doubt::Outside) => true,
        };
        let source = Source::file(hierarchy.path.clone());
        if is_wrong && !self.problems.iter().any(|problem| problem.source == source) {
            let Member { membership, who, .. } = self.member;
            let consequence =
                format!("according to {membership}, {who} runs in a cgroup whose limits may not be visible");
            let kind = ProblemKind::Absent;
            self.problems.push(Problem::new(source, kind, consequence));
        }
    }

    /// Handles a missing file of version 2. Only the real root, and cgroups in which the controller is disabled, lack the
    /// files of a controller.
    fn check_missing(&mut self, level: &str, controller: &str, resource: Resource) {
        if self.controllers.0 != level || controller == "cpuset" {
            // The real root has no cgroup.events, and of the files that are read here only those of cpuset. The result is
            // kept for the first two controllers, which are read before cpuset.
            let is_root = self.root.file_type(&path_in(level, "cgroup.events")).is_none();
            let controllers = path_in(level, "cgroup.controllers");
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

    /// Reports that the file that was read last is missing although it must exist.
    fn absent(&mut self, resource: Resource) {
        self.unknown(resource, self.source(), ProblemKind::Absent);
    }

    /// Returns false if the path is invalid, so that nothing below it is read.
    pub(super) fn can_be_opened(&mut self, hierarchy: &Hierarchy, resource: Resource) -> bool {
        if hierarchy.path.len() <= MAX_PATH {
            return true;
        }
        let source = Source::file(self.member.membership.to_owned());
        self.unknown(resource, source, ProblemKind::bad_value(&hierarchy.path, "a path that can be opened"));
        false
    }

    /// Handles a process's own cgroup without files of a controller. Most likely the controller is disabled there; but if
    /// the directory itself is missing, limits may not be visible.
    fn check_own_directory(&mut self, hierarchy: &Hierarchy, resource: Resource) {
        if let Some(problem) = self.own_directory_is_missing(hierarchy, resource.assumed()) {
            self.push(Amount::Unknown(resource), problem.source.clone());
            self.problems.push(problem);
        }
    }

    fn own_directory_is_missing(&self, hierarchy: &Hierarchy, consequence: &str) -> Option<Problem> {
        // The usual mount point is not checked for a process at the root.
        let may_lack = hierarchy.is_nested() || !is_at_or_below(&hierarchy.path, STANDARD_MOUNT_POINT);
        if !hierarchy.certain || !may_lack || self.root.has_directory(&hierarchy.path) {
            return None;
        }
        let Member { membership, who, .. } = self.member;
        let consequence = format!("{consequence}, because {who} runs in it according to {membership}");
        Some(Problem::new(Source::file(hierarchy.path.clone()), ProblemKind::Absent, consequence))
    }

    pub(super) fn memory(&mut self, hierarchy: &Hierarchy) {
        const RESOURCE: Resource = Resource::Memory;
        const HIGH: &str = "memory.high";
        let files: &[&str] = if hierarchy.v1 { &["memory.limit_in_bytes"] } else { &["memory.max", HIGH] };
        let parse = if hierarchy.v1 { cgroup::memory_v1 } else { cgroup::memory_v2 };
        let mut least = u64::MAX;
        let mut own_is_there = false;
        for level in hierarchy.levels() {
            let is_own = level.len() == hierarchy.path.len();
            let mut is_there = false;
            for file in files {
                let value = self.value((level, file), RESOURCE, parse, "bytes, or max");
                is_there |= !matches!(value, FileValue::Missing);
                match value {
                    FileValue::Missing if hierarchy.v1 => {}
                    FileValue::Missing => self.check_missing(level, "memory", RESOURCE),
                    FileValue::Is(LimitValue::At(bytes)) => {
                        least = least.min(bytes);
                        self.push(Amount::Memory(bytes), self.source());
                        if is_own && *file != HIGH {
                            self.found.root_memory = Some(bytes);
                        }
                    }
                    FileValue::Is(LimitValue::Unlimited) | FileValue::Unknown => {}
                }
            }
            if is_own {
                own_is_there = is_there;
                if !is_there {
                    self.check_own_directory(hierarchy, RESOURCE);
                }
            }
        }
        if hierarchy.v1 {
            // This includes levels that are not visible.
            let parse = cgroup::hierarchical_memory_limit;
            let expected = "statistics with a hierarchical_memory_limit in bytes";
            match self.value((&hierarchy.path, "memory.stat"), RESOURCE, parse, expected) {
                FileValue::Is(LimitValue::At(bytes)) if bytes < least => {
                    let source = Source::key(self.path.clone(), 0, "hierarchical_memory_limit");
                    self.push(Amount::Memory(bytes), source);
                }
                // The kernel provides both files or neither.
                FileValue::Missing if own_is_there => {
                    let (source, kind) = (self.source(), ProblemKind::Absent);
                    let consequence = "limits that are not visible are unknown";
                    self.problems.push(Problem::new(source, kind, consequence));
                }
                FileValue::Is(_) | FileValue::Missing | FileValue::Unknown => {}
            }
        }
    }

    pub(super) fn cpu_time(&mut self, hierarchy: &Hierarchy) {
        const RESOURCE: Resource = Resource::Cpu;
        for level in hierarchy.levels() {
            let value = if hierarchy.v1 {
                self.quota_v1(level)
            } else {
                let expected = "QUOTA PERIOD in microseconds, or max";
                self.value((level, "cpu.max"), RESOURCE, cgroup::cpu_v2, expected)
            };
            match value {
                FileValue::Is(LimitValue::At(milli)) => self.push(Amount::CpuTime(milli), self.source()),
                FileValue::Missing => {
                    if !hierarchy.v1 {
                        self.check_missing(level, "cpu", RESOURCE);
                    }
                    if level.len() == hierarchy.path.len() {
                        self.check_own_directory(hierarchy, RESOURCE);
                    }
                }
                FileValue::Is(LimitValue::Unlimited) | FileValue::Unknown => {}
            }
        }
    }

    /// The quota of a cgroup of version 1 divided by its period, in milli-CPUs.
    fn quota_v1(&mut self, level: &str) -> FileValue<LimitValue> {
        const RESOURCE: Resource = Resource::Cpu;
        let expected = "a quota in microseconds above 0, or -1";
        let quota = match self.value((level, "cpu.cfs_quota_us"), RESOURCE, cgroup::quota_v1, expected) {
            FileValue::Is(LimitValue::At(quota)) => quota,
            // The kernel provides both files or neither.
            FileValue::Missing if self.root.file_type(&path_in(level, "cpu.cfs_period_us")).is_some() => {
                self.absent(RESOURCE);
                return FileValue::Unknown;
            }
            other => return other,
        };
        let expected = "a period of 1000 to 1000000 microseconds";
        let milli = |text: &str| cgroup::milli_cpus(quota, cgroup::period_v1(text)?);
        match self.value((level, "cpu.cfs_period_us"), RESOURCE, milli, expected) {
            FileValue::Is(milli) => {
                // Operators set the quota, so that file is the source.
                self.path = path_in(level, "cpu.cfs_quota_us");
                FileValue::Is(LimitValue::At(milli))
            }
            FileValue::Missing => {
                self.absent(RESOURCE);
                FileValue::Unknown
            }
            FileValue::Unknown => FileValue::Unknown,
        }
    }

    /// The CPUs and memory nodes of the innermost cgroup that has any, which the kernel has derived from all levels. Levels
    /// further out are ignored, because a cpuset partition removes its CPUs from them. An empty list means that of the
    /// parent.
    pub(super) fn cpuset(&mut self, hierarchy: &Hierarchy) {
        // Kernels before 4.2 have no effective list in version 1.
        let [cpus, nodes]: [&[&str]; 2] = if hierarchy.v1 {
            [&["cpuset.effective_cpus", "cpuset.cpus"], &["cpuset.effective_mems", "cpuset.mems"]]
        } else {
            [&["cpuset.cpus.effective"], &["cpuset.mems.effective"]]
        };
        if let FileValue::Is(cpus) = self.innermost_set(hierarchy, cpus, Resource::Cpu) {
            self.push(Amount::Cpus(cpus), self.source());
        }
        if let FileValue::Is(allowed) = self.innermost_set(hierarchy, nodes, Resource::Memory) {
            let source = self.source();
            if let Some(amount) = nodes::granted(self.root, &allowed, self.problems) {
                self.push(amount, source);
            }
        }
    }

    /// The first of `files` that exists and is not empty, from the process's own cgroup outwards.
    fn innermost_set(
        &mut self,
        hierarchy: &Hierarchy,
        files: &[&str],
        resource: Resource,
    ) -> FileValue<CpuSet> {
        // The kernel writes a line feed even if the list is empty.
        let parse = |text: &str| CpuSet::parse(text).filter(|_| !text.is_empty());
        let expected = match resource {
            Resource::Cpu => "a list of CPUs",
            Resource::Memory => "a list of memory nodes",
        };
        for level in hierarchy.levels().rev() {
            let mut is_there = false;
            for file in files {
                match self.value((level, file), resource, parse, expected) {
                    FileValue::Is(set) if !set.is_empty() => return FileValue::Is(set),
                    FileValue::Unknown => return FileValue::Unknown,
                    FileValue::Is(_) => is_there = true,
                    FileValue::Missing => {}
                }
            }
            // A single memory node needs no list.
            if is_there || resource == Resource::Memory && !nodes::may_be_several(self.root) {
                continue;
            }
            if !hierarchy.v1 {
                self.check_missing(level, "cpuset", resource);
            } else if hierarchy.certain && level.len() == hierarchy.path.len() {
                if self.root.has_directory(level) {
                    // In version 1 every cgroup has them.
                    self.absent(resource);
                } else if resource == Resource::Memory {
                    self.check_own_directory(hierarchy, resource);
                } else {
                    // The affinity of PID 1 shows its CPUs as well.
                    let consequence = "the CPUs of its cpuset are not considered";
                    self.problems.extend(self.own_directory_is_missing(hierarchy, consequence));
                }
            }
        }
        FileValue::Missing
    }
}
