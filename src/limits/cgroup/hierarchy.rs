//! The directory of a process's cgroup and the levels above it, from its memberships (cgroups(7)) and the cgroup mounts.
//! Pure; [`super::reader`] opens the directories.

use crate::parse::cgroup::Membership;
use crate::parse::is_at_or_below;
use crate::parse::mountinfo::CgroupMount;

/// The usual mount point.
pub(super) const STANDARD_MOUNT_POINT: &str = "/sys/fs/cgroup";

/// The cgroups to which systemd moves PID 1, below the one that it was started in (`cg_get_root_path()`).
pub(super) const OWN_OF_PID_1: [&str; 3] = ["/init.scope", "/system.slice", "/system"];

/// The position of a process in the hierarchy of a controller.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hierarchy {
    /// The directory of its cgroup.
    pub(super) path: String,
    /// The length of the outermost visible directory in `path`.
    pub(super) outermost: usize,
    pub(super) v1: bool,
    /// Whether its cgroup is known to be below the mount, so that the directory must exist.
    pub(super) certain: bool,
    /// Why the directory may be wrong, if that is not explained by a namespace.
    pub(super) doubt: Option<Doubt>,
}

/// Why a directory may be wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Doubt {
    /// No mount is known.
    NoMount,
    /// The mount does not contain the cgroup of the process.
    Outside,
}

impl Hierarchy {
    /// The cgroup that a process was started in. systemd may have moved it to one of the cgroups `moved_to` below that. A
    /// controller is in the hierarchy of version 1 that lists it, otherwise in that of version 2. `None`: it is in no
    /// hierarchy.
    pub fn find(
        controller: &str,
        memberships: &[Membership<'_>],
        mounts: &[CgroupMount<'_>],
        moved_to: &[&str],
    ) -> Option<Self> {
        let of_v1 = memberships.iter().find(|entry| entry.has_v1(controller));
        let member = of_v1.or_else(|| memberships.iter().find(|entry| entry.v1_controllers.is_none()));
        let v1 = match member {
            Some(member) => member.v1_controllers.is_some(),
            None => mounts.iter().any(|mount| mount.has_v1(controller)),
        };
        let path = member.map_or("/", |member| member.path);
        let path = moved_to.iter().find_map(|own| path.strip_suffix(own)).unwrap_or(path);
        let path = path.trim_end_matches('/');

        // The cgroup relative to the mount. `None`: it is elsewhere, moved or above the namespace.
        let below = |mount: &CgroupMount<'_>| {
            let below = path.strip_prefix(mount.root.trim_end_matches('/'))?;
            let clean = below.is_empty() || below.starts_with('/');
            (clean && !goes_up(path) && !goes_up(&mount.root)).then_some(below)
        };
        let rank = |mount: &CgroupMount<'_>| {
            (below(mount).is_some(), is_at_or_below(&*mount.point, STANDARD_MOUNT_POINT))
        };
        let of_ours = |mount: &&CgroupMount<'_>| {
            if v1 { mount.has_v1(controller) } else { mount.v1_options.is_none() }
        };
        // The best match; if several are mounted at the same place, the last one is on top.
        let best = mounts.iter().filter(of_ours).reduce(|best, next| {
            let on_top = rank(next) == rank(best) && next.point == best.point;
            if rank(next) > rank(best) || on_top { next } else { best }
        });
        if let Some(mount) = best {
            let point = mount.point.trim_end_matches('/');
            let below = below(mount);
            let certain = below.is_some();
            let is_explained = certain || goes_up(path) || goes_up(&mount.root);
            let doubt = (!is_explained).then_some(Doubt::Outside);
            let path = format!("{point}{}", below.unwrap_or_default());
            return Some(Self { path, outermost: point.len(), v1, certain, doubt });
        }
        // The mounts are unknown: assume the usual mount point.
        let member = member?;
        let point = match member.v1_controllers {
            Some(controllers) => format!("{STANDARD_MOUNT_POINT}/{controllers}"),
            None => STANDARD_MOUNT_POINT.to_owned(),
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

    /// The directory of its cgroup.
    pub fn directory(&self) -> &str {
        &self.path
    }

    /// The directories from the outermost visible one to that of the process.
    pub fn levels(&self) -> impl DoubleEndedIterator<Item = &str> {
        let below = self.path.get(self.outermost..).unwrap_or_default();
        let ends = below.match_indices('/').map(|(at, _)| at).chain([below.len()]);
        ends.map(|end| self.path.get(..self.outermost + end).unwrap_or_default())
    }

    /// Whether the process's own directory is not the outermost.
    pub fn is_nested(&self) -> bool {
        self.path.len() > self.outermost
    }
}

/// Whether a path contains `..`, because the cgroup is outside the reader's namespace.
fn goes_up(path: &str) -> bool {
    path.split('/').any(|step| step == "..")
}

#[cfg(test)]
mod tests {
    use std::fmt::Write as _;

    use super::{Hierarchy, OWN_OF_PID_1};
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
        let mounts = cgroup_mounts(mountinfo.as_bytes());
        match Hierarchy::find("memory", &memberships, &mounts, &OWN_OF_PID_1) {
            Some(found) => (found.levels().map(str::to_owned).collect(), found.certain),
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
    fn a_cgroup_outside_the_mount() {
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
