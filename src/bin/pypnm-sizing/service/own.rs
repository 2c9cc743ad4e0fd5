//! Whether this very process is the service, or a part of it, so that the limits of its own cgroup are the service's.

use pypnm_sizing::limits::process::Process;
use pypnm_sizing::root::Root;

/// Where systemd runs, this is (sd_booted(3)).
const BOOTED: &str = "/run/systemd/system";
/// cgroups(7).
const MEMBERSHIP: &str = "/proc/self/cgroup";

/// Whether systemd is PID 1.
pub(crate) fn is_booted(root: &Root) -> bool {
    root.has_directory(BOOTED)
}

/// For a verb that a person runs: without systemd it runs where PyPNM does, in a container. With systemd its cgroup is a
/// shell's, which says nothing of the service.
pub(crate) fn without_systemd(root: &Root) -> Option<Process> {
    (!is_booted(root)).then_some(Process::Own)
}

/// For `ExecStartPre=` of `unit`: its cgroup is the service's if its path names the unit.
pub(crate) fn within_unit(root: &Root, unit: &str) -> Option<Process> {
    let is_named = root.text(MEMBERSHIP).is_ok_and(|text| names_unit(&text, unit));
    if is_named { Some(Process::InUnit) } else { without_systemd(root) }
}

/// Whether a step of a path in a /proc/PID/cgroup is the unit. systemd puts a `_` before a name that the kernel might take
/// for a file of its own (`cg_escape()`).
fn names_unit(membership: &str, unit: &str) -> bool {
    let paths = membership.lines().filter_map(|line| line.splitn(3, ':').nth(2));
    paths.flat_map(|path| path.split('/')).any(|step| step == unit || step.strip_prefix('_') == Some(unit))
}

#[cfg(test)]
mod tests {
    use super::names_unit;

    #[test]
    fn the_unit_is_a_step_of_the_path() {
        assert!(names_unit("0::/system.slice/pypnm.service\n", "pypnm.service"));
        assert!(names_unit("4:memory:/\n1:name=systemd:/a.slice/pypnm.service/.control\n", "pypnm.service"));
        assert!(names_unit("0::/system.slice/_memory.service\n", "memory.service"));
        assert!(!names_unit("0::/system.slice/ssh.service\n", "pypnm.service"));
        assert!(!names_unit("0::/system.slice/xpypnm.service\n", "pypnm.service"));
        assert!(!names_unit("", "pypnm.service"));
    }
}
