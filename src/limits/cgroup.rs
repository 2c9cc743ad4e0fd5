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

mod hierarchy;
mod reader;

use std::borrow::Cow;

pub use hierarchy::Hierarchy;
use hierarchy::STANDARD_PLACE;
use reader::{LimitReader, instead};

use crate::limits::{Limit, Resource, Scope};
use crate::parse::cgroup::{self, Membership};
use crate::parse::mountinfo::{CgroupMount, cgroup_mounts};
use crate::problem::{Problem, ProblemKind, Source};
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
            let instead = "assuming minimal CPUs and memory";
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
            let instead = "assuming minimal CPUs and memory";
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
                let instead = "assuming that cgroups are mounted at /sys/fs/cgroup";
                reader.problems.push(Problem::unreadable(path, ReadError::Missing, instead));
            }
            Cow::Borrowed([].as_slice())
        }
        Err((path, error)) => {
            let instead = "assuming that cgroups are mounted at /sys/fs/cgroup";
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
                (ProblemKind::bad_value("", expected), "assuming minimal CPUs and memory")
            } else {
                (ProblemKind::Absent, "only the outermost visible cgroups are considered")
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
