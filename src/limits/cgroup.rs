//! The limits of control groups (version 2, version 1 and hybrid): those of the container, from the root that PID 1 sees
//! down to PID 1, and those of a process, from the visible root down to its own cgroup (see [`crate::limits::process`]).
//! The generator uses only those of the container: the service will run below PID 1's root, not in the generator's cgroup.
//!
//! Other programs make different choices. The choices here never overcommit:
//!
//! - Go's runtime and automaxprocs read only the innermost cgroup. A limit further out is in force nevertheless, so every
//!   level is read, as in OpenJDK and sysinfo.
//! - Go's runtime and OpenJDK round fractional quotas up (Go to at least 2). The remainder of the last CPU would be
//!   throttled, so they are rounded down here, as in automaxprocs.
//! - OpenJDK and sysinfo ignore `memory.high`. Above it, the kernel throttles and reclaims, so it is a limit here.
//! - All of them, and systemd's `physical_memory()`, treat a file that cannot be read or parsed as "no limit". Here the limit
//!   is assumed to be minimal; only a missing file means that there is no limit.

mod hierarchy;
mod reader;

pub use hierarchy::Hierarchy;
use hierarchy::{OWN_OF_PID_1, STANDARD_MOUNT_POINT};
use reader::LimitReader;

use crate::limits::{Limit, Resource, Scope};
use crate::parse::cgroup;
use crate::parse::mountinfo::{CgroupMount, cgroup_mounts};
use crate::problem::{Problem, ProblemKind, Source};
use crate::root::{ReadError, Root};

/// The process whose cgroup is read.
struct Member<'a> {
    /// Its description.
    who: &'static str,
    /// Its cgroups (cgroups(7)), as the reader's cgroup namespace shows them.
    membership: &'a str,
    /// The mountinfo files to use, in order of preference.
    mountinfo: &'static [&'static str],
    /// The scope of its limits.
    scope: Scope,
    /// The cgroups to which systemd may have moved it, below the one that it was started in.
    moved_to: &'static [&'static str],
}

const PID_1: Member<'_> = Member {
    who: "PID 1",
    membership: "/proc/1/cgroup",
    // The caller's own if that of PID 1 is hidden from it.
    mountinfo: &["/proc/1/mountinfo", "/proc/self/mountinfo"],
    scope: Scope::Container,
    moved_to: &OWN_OF_PID_1,
};

/// The kernel shows the cgroup of another process relative to the reader's namespace, so the reader's mounts apply.
const MOUNTINFO_OF_READER: &[&str] = &["/proc/self/mountinfo"];

/// The controllers, each with the resource that is unknown without it.
const CONTROLLERS: [(&str, Resource); 3] =
    [("memory", Resource::Memory), ("cpu", Resource::Cpu), ("cpuset", Resource::Cpu)];

/// The limits of the container.
#[derive(Debug, Default)]
pub struct Container {
    /// All limits, from the outermost.
    pub limits: Vec<Limit>,
    /// The memory limit of the cgroup that PID 1 was started in, in bytes. Percentages in units refer to this or to the
    /// machine's memory, whichever is less (`physical_memory()` in systemd).
    pub root_memory: Option<u64>,
}

/// Reads the container's limits below `root`.
pub fn read(root: &Root, problems: &mut Vec<Problem>) -> Container {
    read_member(root, &PID_1, problems)
}

/// Reads the limits of the cgroup in `membership` (`/proc/PID/cgroup`), at every level that is visible to the reader.
pub fn read_process(root: &Root, membership: &str, problems: &mut Vec<Problem>) -> Vec<Limit> {
    let member = Member {
        who: "the process",
        membership,
        mountinfo: MOUNTINFO_OF_READER,
        scope: Scope::Process,
        moved_to: &[],
    };
    read_member(root, &member, problems).limits
}

/// Finds the cgroup in `membership` (`/proc/PID/cgroup`) in the hierarchy of each of the controllers. What cannot be read is
/// ignored: it is a problem of [`read_process`].
pub fn find_process<const N: usize>(
    root: &Root,
    membership: &str,
    controllers: [&str; N],
) -> [Option<Hierarchy>; N] {
    let text = root.text(membership).unwrap_or_default();
    let memberships = cgroup::memberships(&text).unwrap_or_default();
    let (lines, _) = root.cgroup_mounts(MOUNTINFO_OF_READER);
    let mounts = cgroup_mounts(&lines);
    controllers.map(|controller| Hierarchy::find(controller, &memberships, &mounts, &[]))
}

/// Whether only version 2 is mounted, at the usual mount point. Limits of the host in version 1 are then invisible by design.
fn has_only_v2(mounts: &[CgroupMount<'_>]) -> bool {
    let is_v2 = |mount: &CgroupMount<'_>| mount.v1_options.is_none();
    mounts.iter().all(is_v2) && mounts.iter().any(|mount| mount.point == STANDARD_MOUNT_POINT)
}

fn read_member(root: &Root, member: &Member<'_>, problems: &mut Vec<Problem>) -> Container {
    let mut reader = LimitReader {
        root,
        member,
        problems,
        path: String::new(),
        controllers: Default::default(),
        found: Container::default(),
    };
    let membership = member.membership;
    let text = match root.text(membership) {
        Ok(text) => Some(text),
        // There are no cgroups, or an unprivileged caller cannot see PID 1: use the roots.
        Err(ReadError::Missing) => None,
        Err(error) => {
            reader.all_unknown(Source::file(membership), error.into());
            return reader.found;
        }
    };
    let memberships = match cgroup::memberships(text.as_deref().unwrap_or_default()) {
        Ok(memberships) => memberships,
        Err((line, bad)) => {
            let expected = "HIERARCHY:CONTROLLERS:/PATH";
            reader.all_unknown(Source::key(membership, line, ""), ProblemKind::bad_value(bad, expected));
            return reader.found;
        }
    };
    let (lines, unread) = root.cgroup_mounts(member.mountinfo);
    let mounts = cgroup_mounts(&lines);
    // Without either file, there are no cgroups, or PID 1 is hidden from an unprivileged caller.
    let may_be_mounted = !mounts.is_empty() || unread.is_some() && text.is_some();
    if let Some((path, error)) = unread
        && (error != ReadError::Missing || !memberships.is_empty())
    {
        // A mount that was not read may lead to any limit.
        if error == ReadError::TooManyMounts {
            reader.all_unknown(Source::file(path), error.into());
            return reader.found;
        }
        let consequence = if mounts.is_empty() {
            "assuming that cgroups are mounted at /sys/fs/cgroup"
        } else {
            "cgroup mounts in the missing part are not considered"
        };
        reader.problems.push(Problem::unreadable(path, error, consequence));
    }
    if may_be_mounted && memberships.is_empty() {
        // The kernel writes a line for each mounted hierarchy.
        let source = Source::file(membership);
        let directory = membership.rsplit_once('/').map_or("", |(directory, _)| directory);
        if text.is_some() {
            reader
                .all_unknown(source, ProblemKind::bad_value("", "a line for each hierarchy that is mounted"));
        } else if root.has_directory(directory) {
            // Otherwise the process is hidden from the caller.
            let consequence = "only the outermost visible cgroups are considered";
            reader.problems.push(Problem::new(source, ProblemKind::Absent, consequence));
        }
    }
    for (controller, resource) in CONTROLLERS {
        let has_mount = mounts.iter().any(|mount| mount.has_v1(controller));
        if has_mount && !memberships.is_empty() && !memberships.iter().any(|entry| entry.has_v1(controller)) {
            let source = Source::key(membership, 0, controller);
            reader.unknown(resource, source, ProblemKind::Absent);
        }
    }
    let hierarchies =
        CONTROLLERS.map(|(name, _)| Hierarchy::find(name, &memberships, &mounts, member.moved_to));
    if !has_only_v2(&mounts) {
        for hierarchy in hierarchies.iter().flatten() {
            reader.check_directory(hierarchy);
        }
    }
    for ((controller, resource), hierarchy) in CONTROLLERS.into_iter().zip(&hierarchies) {
        let Some(hierarchy) = hierarchy else {
            continue;
        };
        if reader.can_be_opened(hierarchy, resource) {
            match controller {
                "memory" => reader.memory(hierarchy),
                "cpu" => reader.cpu_time(hierarchy),
                _ => reader.cpuset(hierarchy),
            }
        }
    }
    reader.found
}
