//! The lines of a mountinfo (proc_pid_mountinfo(5)), and the cgroup file systems among them:
//! `36 35 98:0 /root /point rw,noatime master:1 - cgroup2 cgroup2 rw,nsdelegate`.
//!
//! Any line may contain a name that is not UTF-8. Which mounts could block a reader is decided in [`crate::mounts`].

use std::borrow::Cow;

use memchr::memchr;

/// A line.
#[derive(Clone, Copy, Debug)]
pub struct Mount<'l> {
    /// The ID of the mount.
    pub id: &'l [u8],
    /// The ID of the mount that it is on.
    pub parent: &'l [u8],
    /// The numbers of the device, `MAJOR:MINOR`.
    pub device: &'l [u8],
    /// The directory of the file system that is mounted, escaped.
    root: &'l [u8],
    /// The mount point, escaped.
    point: &'l [u8],
    /// The type of the file system.
    pub kind: &'l [u8],
    /// The options of the file system; `None`: the line is truncated.
    options: Option<&'l [u8]>,
}

impl<'l> Mount<'l> {
    /// Parses a line. `None`: it is not valid, or truncated before the type of the file system.
    pub fn parse(line: &'l [u8]) -> Option<Self> {
        let mut rest = Some(line);
        let mut field = || {
            let line = rest?;
            let end = memchr(b' ', line);
            rest = end.and_then(|end| line.get(end + 1..));
            line.get(..end.unwrap_or(line.len()))
        };
        let (id, parent, device, root, point) = (field()?, field()?, field()?, field()?, field()?);
        // Options, then any number of optional fields, then the separator.
        while field()? != b"-" {}
        let kind = field()?;
        // The source, which may be empty, as may the options.
        let options = field().and_then(|_| field());
        Some(Self { id, parent, device, root, point, kind, options })
    }

    /// Whether the line has all of its fields.
    pub fn is_complete(&self) -> bool {
        self.options.is_some()
    }

    /// The mount point.
    pub fn point(&self) -> Cow<'l, [u8]> {
        unescape(self.point)
    }
}

/// A mounted hierarchy of control groups.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CgroupMount<'l> {
    /// The cgroup that is visible at `point`; `/..` if it is above the reader's cgroup namespace.
    pub root: Cow<'l, str>,
    /// The mount point.
    pub point: Cow<'l, str>,
    /// Version 1: the options of the hierarchy, which include its controllers. `None`: version 2.
    pub v1_options: Option<&'l str>,
}

impl<'l> CgroupMount<'l> {
    /// `None`: it is the mount of another file system, or its line is truncated or has a path that is not UTF-8.
    fn from_mount(mount: Mount<'l>) -> Option<Self> {
        let options = mount.options?;
        let v1_options = match mount.kind {
            b"cgroup" => Some(std::str::from_utf8(options).ok()?),
            b"cgroup2" => None,
            _ => return None,
        };
        Some(Self { root: path(mount.root)?, point: path(mount.point)?, v1_options })
    }

    /// Whether it is a hierarchy of version 1 with this controller (`cpu,cpuacct` joins two of them).
    pub fn has_v1(&self, controller: &str) -> bool {
        self.v1_options.is_some_and(|options| lists(options, controller))
    }
}

/// Whether a comma-separated list contains an item.
pub(crate) fn lists(list: &str, item: &str) -> bool {
    list.as_bytes().split(|byte| *byte == b',').any(|entry| entry == item.as_bytes())
}

/// The mounted hierarchies, in the order of the file.
pub fn cgroup_mounts(text: &[u8]) -> Vec<CgroupMount<'_>> {
    text.split(|byte| *byte == b'\n')
        .filter_map(|line| CgroupMount::from_mount(Mount::parse(line)?))
        .collect()
}

/// An unescaped path. `None`: it is not absolute, or not UTF-8.
fn path(field: &[u8]) -> Option<Cow<'_, str>> {
    if !field.starts_with(b"/") {
        return None;
    }
    match unescape(field) {
        Cow::Borrowed(path) => std::str::from_utf8(path).ok().map(Cow::Borrowed),
        Cow::Owned(path) => String::from_utf8(path).ok().map(Cow::Owned),
    }
}

/// Undoes the kernel's `\040` (space), `\011`, `\012`, `\134`.
fn unescape(field: &[u8]) -> Cow<'_, [u8]> {
    if !field.contains(&b'\\') {
        return Cow::Borrowed(field);
    }
    let mut bytes = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((first, after)) = rest.split_first() {
        let escaped = if *first == b'\\' { octal(after) } else { None };
        let (byte, after) = escaped.unwrap_or((*first, after));
        bytes.push(byte);
        rest = after;
    }
    Cow::Owned(bytes)
}

/// Three octal digits, and what follows them.
fn octal(text: &[u8]) -> Option<(u8, &[u8])> {
    let (digits, rest) = text.split_first_chunk::<3>()?;
    let value = digits.iter().try_fold(0u16, |value, digit| {
        matches!(digit, b'0'..=b'7').then(|| value * 8 + u16::from(digit - b'0'))
    })?;
    Some((u8::try_from(value).ok()?, rest))
}

#[cfg(test)]
mod tests {
    use super::{CgroupMount, cgroup_mounts};

    fn read(text: &str) -> Vec<String> {
        let show = |mount: CgroupMount<'_>| {
            format!("{} at {} {}", mount.root, mount.point, mount.v1_options.unwrap_or("v2"))
        };
        cgroup_mounts(text.as_bytes()).into_iter().map(show).collect()
    }

    #[test]
    fn both_versions_among_others() {
        let text = "22 28 0:21 / /proc rw - proc proc rw\n\
                    31 23 0:27 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate\n\
                    33 31 0:30 /a /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu,cpuacct\n\
                    34 31 0:31 / /x rw - tmpfs cgroup rw\n";
        assert_eq!(read(text), ["/ at /sys/fs/cgroup v2", "/a at /sys/fs/cgroup/cpu rw,cpu,cpuacct"]);
    }

    #[test]
    fn any_number_of_optional_fields() {
        for optional in ["", "shared:4 ", "shared:4 master:2 propagate_from:7 unbindable "] {
            let text = format!("31 23 0:27 / /c rw {optional}- cgroup2 none rw");
            assert_eq!(read(&text), ["/ at /c v2"], "{optional:?}");
        }
    }

    #[test]
    fn escapes_in_paths() {
        let text = r"31 23 0:27 /a\040-\040cgroup2 /my\040cg\134roups\011x rw - cgroup2 none rw";
        assert_eq!(read(text), ["/a - cgroup2 at /my cg\\roups\tx v2"]);
        let text = r"31 23 0:27 /a\0 /b\9\777 rw - cgroup2 none rw";
        assert_eq!(read(text), [r"/a\0 at /b\9\777 v2"], "no escapes");
    }

    #[test]
    fn invalid_lines_are_skipped() {
        for text in [
            "",
            "\n",
            " - cgroup",
            "31 23 0:27 / /c rw - cgroup2",
            "31 23 0:27 / /c rw - cgroup2 none",
            "31 23 0:27 relative /c rw - cgroup2 none rw",
            "31 23 0:27 / /c rw - cgroup3 none rw",
            "31 / /c rw - cgroup2 none rw",
        ] {
            assert!(read(text).is_empty(), "{text:?}");
        }
        let latin_1 = b"1 2 0:1 / /caf\xe9 rw - ext4 x rw\n31 23 0:27 / /c rw - cgroup2 none rw\n";
        assert_eq!(cgroup_mounts(latin_1).len(), 1, "other lines may hold anything");
        assert_eq!(
            cgroup_mounts(b"31 23 0:27 / /c rw - cgroup2 caf\xe9 rw\n").len(),
            1,
            "and so may the source"
        );
        assert_eq!(cgroup_mounts(b"31 23 0:27 / /caf\xe9 rw - cgroup2 none rw\n").len(), 0);
    }

    #[test]
    fn once_a_line() {
        assert_eq!(read("1 2 0:3 / /c rw - cgroup2 - cgroup2 - cgroup rw"), ["/ at /c v2"]);
    }

    #[test]
    fn joined_controllers() {
        let mounts = cgroup_mounts(b"3 1 0:3 / /c rw - cgroup cgroup rw,cpuacct,cpu,xattr");
        let has = |controller| mounts.iter().any(|mount| mount.has_v1(controller));
        assert!(has("cpu") && has("cpuacct"));
        assert!(!has("cpuset") && !has("cp") && !has("memory"));
    }
}
