//! Where a process's cgroup is in the file system. Pure: its cgroups (cgroups(7)) and the cgroup mounts in, a directory
//! and the levels above it out; [`super::reader`] opens them.

use crate::parse::cgroup::Membership;
use crate::parse::mountinfo::CgroupMount;

/// Where everybody mounts it.
pub(super) const STANDARD_PLACE: &str = "/sys/fs/cgroup";
/// What systemd moves PID 1 to, below the cgroup that it was started in (`cg_get_root_path()`).
const OWN_OF_PID_1: [&str; 3] = ["/init.scope", "/system.slice", "/system"];

/// Where a process is, in the hierarchy of one controller. Pure: what it names is opened elsewhere.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hierarchy {
    /// Its directory.
    pub(super) path: String,
    /// How much of `path` is the outermost directory in sight.
    pub(super) outermost: usize,
    pub(super) v1: bool,
    /// Its cgroup is below the mount, so the directory must be there.
    pub(super) certain: bool,
    /// Why it may be another one, where no namespace explains that.
    pub(super) doubt: Option<Doubt>,
}

/// Why a place may be wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Doubt {
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
    pub(super) fn is_nested(&self) -> bool {
        self.path.len() > self.outermost
    }
}

/// Whether a path has a step upwards: seen from outside the namespace.
fn goes_up(path: &str) -> bool {
    path.split('/').any(|step| step == "..")
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
