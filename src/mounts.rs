//! Whether reading a path could block, from the lines of a mountinfo. Pure; [`crate::root`] resolves symbolic links and
//! asks for each path component.
//!
//! PID 1 waits for its generators, so no path may lead to a file system whose answers come from elsewhere: a server that is
//! down, a FUSE daemon that hangs, or an automounter that waits for the reload that waits for the generator. File systems
//! that are known to answer from memory or from a disk of this machine are *local*. All other types, including unknown
//! ones, are *remote* and are not entered. A list of remote types would be shorter, but a type missing from that list could
//! block the boot, while a type missing from this one costs a line in the log.

use std::collections::BTreeMap;

use crate::parse::is_at_or_below;
use crate::parse::mountinfo::Mount;

/// These use a block device, but depend on a daemon or on other machines.
const REMOTE_ON_A_DEVICE: [&str; 4] = ["fuseblk", "gfs2", "gpfs", "ocfs2"];
/// lxcfs shows a container its limits in files below /proc and /sys.
const LXCFS: &str = "fuse.lxcfs";
const PREFIXES_OF_LXCFS: [&[u8]; 2] = [b"/proc/", b"/sys/"];

/// The remote file systems in a mountinfo.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Mounts {
    /// The mounts that must not be entered: their IDs and mount points, and the types of their file systems.
    remote: BTreeMap<(u32, Vec<u8>), String>,
    /// The files in which lxcfs shows the limits of a container.
    lxcfs: Vec<Vec<u8>>,
}

impl Mounts {
    /// Adds a line of a mountinfo. Only remote mounts are kept. Mounts that are not below the directory `below` are
    /// ignored, and the paths of the others are relative to it.
    pub fn add(&mut self, mount: &Mount<'_>, below: &[u8]) {
        let is_local = is_local(mount);
        if is_local && self.remote.is_empty() {
            return;
        }
        let point = mount.point();
        let Some(point) = below_of(&point, below) else {
            return;
        };
        let number = |text: &[u8]| std::str::from_utf8(text).ok().and_then(|text| text.parse().ok());
        if is_local {
            // A local mount on top of a remote one hides it, such as a disk on top of its automount point.
            if let Some(parent) = number(mount.parent) {
                self.remote.remove(&(parent, point.to_vec()));
            }
            return;
        }
        // Everything is below this mount: PID 1 itself would not run if it did not respond.
        if point == b"/" {
            return;
        }
        let kind = String::from_utf8_lossy(mount.kind).into_owned();
        if kind == LXCFS && PREFIXES_OF_LXCFS.iter().any(|prefix| point.starts_with(prefix)) {
            self.lxcfs.push(point.to_vec());
            return;
        }
        let id = number(mount.id).unwrap_or_default();
        self.remote.insert((id, point.to_vec()), kind);
    }

    /// The type of the remote file system that `path` is on or crosses. `None`: the path is entirely local. The path is
    /// absolute and contains no symbolic links, no `.` or `..`, and no repeated slashes.
    pub fn remote(&self, path: &[u8]) -> Option<&str> {
        let mut inside = self.remote.iter().filter(|((_, point), _)| is_at_or_below(path, point));
        inside.next().map(|(_, kind)| kind.as_str())
    }

    /// Whether there is any remote mount.
    pub fn has_remote(&self) -> bool {
        !self.remote.is_empty()
    }

    /// Whether `path` is provided by lxcfs and therefore describes the container, not the machine.
    pub fn is_lxcfs(&self, path: &str) -> bool {
        self.lxcfs.iter().any(|point| is_at_or_below(path, point))
    }

    /// Adds the mounts of another table.
    pub fn append(&mut self, mut more: Self) {
        self.remote.append(&mut more.remote);
        self.lxcfs.append(&mut more.lxcfs);
    }

    /// Removes the mount that contains `path`, because it is known to respond.
    pub fn admit(&mut self, path: &[u8]) {
        self.remote.retain(|(_, point), _| !is_at_or_below(path, point));
    }
}

/// The type of the mount `id` in a mountinfo, and whether it is local; `None`: there is no such mount.
pub(crate) fn kind_of(mountinfo: &[u8], id: u64) -> Option<(String, bool)> {
    let id = id.to_string();
    let mut mounts = mountinfo.split(|byte| *byte == b'\n').filter_map(Mount::parse);
    let mount = mounts.find(|mount| mount.id == id.as_bytes())?;
    Some((String::from_utf8_lossy(mount.kind).into_owned(), is_local(&mount)))
}

/// `point` relative to `below`, which does not end in a slash. `None`: it is not below that directory.
fn below_of<'p>(point: &'p [u8], below: &[u8]) -> Option<&'p [u8]> {
    point.strip_prefix(below).filter(|rest| rest.starts_with(b"/"))
}

fn is_local(mount: &Mount<'_>) -> bool {
    if REMOTE_ON_A_DEVICE.iter().any(|known| known.as_bytes() == mount.kind) {
        return false;
    }
    is_known_local(mount.kind) || !mount.device.starts_with(b"0:")
}

/// Whether it is a local file system without a block device. A file system on a block device is local regardless of its type.
fn is_known_local(kind: &[u8]) -> bool {
    matches!(
        kind,
        b"aufs"
            | b"bcachefs"
            | b"binder"
            | b"binfmt_misc"
            | b"bpf"
            | b"btrfs"
            | b"cgroup"
            | b"cgroup2"
            | b"configfs"
            | b"cpuset"
            | b"debugfs"
            | b"devpts"
            | b"devtmpfs"
            | b"ecryptfs"
            | b"efivarfs"
            | b"erofs"
            | b"exfat"
            | b"ext2"
            | b"ext3"
            | b"ext4"
            | b"f2fs"
            | b"functionfs"
            | b"fusectl"
            | b"hugetlbfs"
            | b"iso9660"
            | b"jffs2"
            | b"mqueue"
            | b"nsfs"
            | b"ntfs3"
            | b"nullfs"
            | b"overlay"
            | b"overlayfs"
            | b"proc"
            | b"pstore"
            | b"ramfs"
            | b"resctrl"
            | b"rootfs"
            | b"rpc_pipefs"
            | b"securityfs"
            | b"selinuxfs"
            | b"shiftfs"
            | b"smackfs"
            | b"squashfs"
            | b"sysfs"
            | b"tmpfs"
            | b"tracefs"
            | b"ubifs"
            | b"xfs"
            | b"zfs"
    )
}

#[cfg(test)]
mod tests {
    use super::Mounts;
    use crate::parse::mountinfo::Mount;

    fn mounts(text: &str, below: &str) -> Mounts {
        let mut mounts = Mounts::default();
        for mount in text.lines().filter_map(|line| Mount::parse(line.as_bytes())) {
            mounts.add(&mount, below.as_bytes());
        }
        mounts
    }

    #[test]
    fn known_local_types_and_disks_are_entered_and_nothing_else() {
        let text = "22 1 8:1 / / rw - ext4 /dev/sda1 rw\n\
            23 22 0:5 / /proc rw - proc proc rw\n\
            24 22 0:30 / /srv rw shared:1 - nfs4 server:/srv rw\n\
            25 22 8:17 / /disk rw - unheard /dev/sdb1 rw\n\
            26 22 0:31 / /new rw - unheard none rw\n\
            27 22 8:18 / /ntfs rw - fuseblk /dev/sdc1 rw\n\
            28 23 0:32 / /proc/sys/fs/binfmt_misc rw - autofs systemd-1 rw\n\
            29 22 0:33 / /my\\040mount rw - fuse.sshfs x rw\n";
        let mounts = mounts(text, "");
        for (path, kind) in [
            ("/etc/pypnm/sizing.conf", None),
            ("/srv", Some("nfs4")),
            ("/srv/a/b", Some("nfs4")),
            ("/srvx/a", None),
            ("/disk/a", None),
            ("/new/a", Some("unheard")),
            ("/ntfs/a", Some("fuseblk")),
            ("/proc/sys/fs/binfmt_misc/status", Some("autofs")),
            ("/proc/1/status", None),
            ("/my mount/a", Some("fuse.sshfs")),
        ] {
            assert_eq!(mounts.remote(path.as_bytes()), kind, "{path}");
        }
    }

    #[test]
    fn a_mount_by_its_id() {
        let text =
            b"22 1 8:1 / / rw - ext4 /dev/sda1 rw\n24 22 0:30 / /srv rw shared:1 - nfs4 server:/srv rw\n\
            25 22 0:31 / /run rw - tmpfs none rw\nx\n";
        assert_eq!(super::kind_of(text, 22), Some(("ext4".to_owned(), true)));
        assert_eq!(super::kind_of(text, 24), Some(("nfs4".to_owned(), false)));
        assert_eq!(super::kind_of(text, 25), Some(("tmpfs".to_owned(), true)));
        assert_eq!(super::kind_of(text, 2), None);
    }

    #[test]
    fn the_root_itself_is_entered() {
        let mounts =
            mounts("22 1 0:40 / / rw - nfs server:/root rw\n23 22 0:41 / /usr rw - nfs s:/usr rw\n", "");
        assert_eq!(mounts.remote(b"/etc/x"), None);
        assert_eq!(mounts.remote(b"/usr/lib/x"), Some("nfs"));
    }

    #[test]
    fn a_disk_on_an_automount_is_entered() {
        let automount = "40 22 0:40 / /data rw - autofs systemd-1 rw\n";
        assert_eq!(mounts(automount, "").remote(b"/data/x"), Some("autofs"));
        let disk = [automount, "41 40 8:2 / /data rw - xfs /dev/sda2 rw\n"].concat();
        assert_eq!(mounts(&disk, "").remote(b"/data/x"), None);
        let elsewhere = [automount, "41 40 8:2 / /data/disk rw - xfs /dev/sda2 rw\n"].concat();
        assert_eq!(
            mounts(&elsewhere, "").remote(b"/data/x"),
            Some("autofs"),
            "a disk below it does not hide it"
        );
        let server = [automount, "41 40 0:50 / /data rw - nfs s:/data rw\n"].concat();
        assert_eq!(mounts(&server, "").remote(b"/data/x"), Some("autofs"));
    }

    #[test]
    fn lxcfs_is_distinguished_from_other_daemons() {
        let text = "50 23 0:60 /proc/meminfo /proc/meminfo rw - fuse.lxcfs lxcfs rw\n\
            51 23 0:60 /sys/devices/system/cpu /sys/devices/system/cpu rw - fuse.lxcfs lxcfs rw\n\
            52 22 0:60 / /var/lib/lxcfs rw - fuse.lxcfs lxcfs rw\n";
        let mounts = mounts(text, "");
        assert!(mounts.is_lxcfs("/proc/meminfo") && mounts.is_lxcfs("/sys/devices/system/cpu/online"));
        assert!(!mounts.is_lxcfs("/proc/1/status"));
        assert_eq!(mounts.remote(b"/proc/meminfo"), None);
        assert_eq!(mounts.remote(b"/var/lib/lxcfs/x"), Some("fuse.lxcfs"));
    }

    #[test]
    fn mounts_below_a_directory_are_seen_from_there() {
        let text = "24 22 0:30 / /images/a/srv rw - nfs4 s:/ rw\n25 22 0:31 / /images/a rw - fuse.x x rw\n\
            26 22 0:32 / /images/ab/srv rw - nfs4 s:/ rw\n";
        let mounts = mounts(text, "/images/a");
        assert_eq!(mounts.remote(b"/srv/x"), Some("nfs4"));
        assert_eq!(mounts.remote(b"/etc/x"), None);
    }

    #[test]
    fn the_mount_of_the_program_itself_is_admitted() {
        let text = "24 22 0:30 / /nix rw - nfs4 s:/ rw\n25 22 0:31 / /nix/store rw - 9p x rw\n\
            26 22 0:31 / /nix/store/dead rw - 9p x rw\n";
        let mut mounts = mounts(text, "");
        assert!(mounts.has_remote() && !Mounts::default().has_remote());
        mounts.admit(b"/nix/store/abc/bin/generator");
        assert_eq!(mounts.remote(b"/nix/store/abc/etc"), None);
        assert_eq!(mounts.remote(b"/nix/store/dead/x"), Some("9p"));
    }
}
