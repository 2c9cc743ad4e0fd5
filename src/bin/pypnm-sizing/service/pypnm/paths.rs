//! Paths below a root: symbolic links, prefixes and names.

use pypnm_sizing::root::Root;
use rustix::fs::FileType;

/// The maximum number of home directories, and of directories in a checkout, that are searched.
pub(super) const MAX_DIRECTORIES: usize = 256;
/// As in the kernel, see path_resolution(7).
pub(super) const MAX_LINKS: usize = 40;

/// `/opt/pypnm` of `/opt/pypnm/bin/pypnm`.
pub(super) fn prefix_of(command: &str) -> Option<String> {
    let (directory, _) = command.rsplit_once('/')?;
    let prefix = directory.strip_suffix("/bin").or_else(|| directory.strip_suffix("/sbin"))?;
    prefix.starts_with('/').then(|| prefix.to_owned())
}

/// The names in a directory, at most [`MAX_DIRECTORIES`]; none if it cannot be read.
pub(super) fn names(root: &Root, directory: &str) -> Vec<String> {
    let entries = root.entries(directory).unwrap_or_default();
    entries.into_iter().map(|entry| entry.name).take(MAX_DIRECTORIES).collect()
}

/// `path` with all symbolic links resolved within the root. `None`: it does not exist, or cannot be reached.
pub(crate) fn real_path(root: &Root, path: &str) -> Option<String> {
    let mut resolved = String::new();
    let mut steps: Vec<String> = path.split('/').rev().map(str::to_owned).collect();
    let mut links = 0;
    while let Some(step) = steps.pop() {
        match step.as_str() {
            "" | "." => continue,
            ".." => {
                resolved.truncate(resolved.rfind('/').unwrap_or(0));
                continue;
            }
            _ => {}
        }
        let next = format!("{resolved}/{step}");
        match root.file_type(&next)? {
            FileType::Symlink => {
                links += 1;
                let target = root.link(&next).filter(|_| links <= MAX_LINKS)?;
                if target.starts_with('/') {
                    resolved.clear();
                }
                steps.extend(target.split('/').rev().map(str::to_owned));
            }
            _ => resolved = next,
        }
    }
    Some(if resolved.is_empty() { "/".to_owned() } else { resolved })
}
