//! Whether this process is part of the service, so that the limits of its own cgroup are those of the service, and the
//! request for a sizing that follows from this.

use pypnm_sizing::limits::process::LimitedProcess;
use pypnm_sizing::root::Root;
use pypnm_sizing::sizing::{Hypothetical, Request};

/// This directory exists if systemd is running (sd_booted(3)).
const BOOTED: &str = "/run/systemd/system";
/// cgroups(7).
const MEMBERSHIP: &str = "/proc/self/cgroup";

/// Whether systemd is PID 1.
pub(crate) fn is_booted(root: &Root) -> bool {
    root.has_directory(BOOTED)
}

/// The request of a verb that shows a sizing.
pub(crate) fn request<'a>(root: &'a Root, hypothetical: &Hypothetical) -> Request<'a> {
    Request { hypothetical: hypothetical.clone(), process: without_systemd(root), ..Request::new(root) }
}

/// For verbs that people run: without systemd, they run in the container of PyPNM. With systemd, their cgroup is that of a
/// shell, which is unrelated to the service.
pub(crate) fn without_systemd(root: &Root) -> Option<LimitedProcess> {
    (!is_booted(root)).then_some(LimitedProcess::Own)
}

/// For `ExecStartPre=` of `unit`: its cgroup is that of the service if the path contains the unit's name.
pub(crate) fn within_unit(root: &Root, unit: &str) -> Option<LimitedProcess> {
    let is_named = root.text(MEMBERSHIP).is_ok_and(|text| names_unit(&text, unit));
    if is_named { Some(LimitedProcess::InUnit) } else { without_systemd(root) }
}

/// Whether a component of a path in a /proc/PID/cgroup is the unit. systemd puts `_` before names that might conflict with
/// files of the kernel (`cg_escape()`).
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
