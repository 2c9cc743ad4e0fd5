//! PyPNM's own sizing and its parser of profile files (`pypnm/support/worker_profile.py` of pypnm-docsis 1.6.4.0). Pure.
//!
//! Nothing here affects the profile: `explain` shows how PyPNM's own sizing would differ, and `check` how PyPNM interprets
//! the profile file that it was given. `tests/pypnm` compares both with the real package.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::parse::quantity::GIB;
use crate::policy::Profile;

pub use crate::names::{CPU_COUNT, ENV_FILE, LIMIT_MAX_REQUESTS, PROFILE_KEYS, TOTAL_MEMORY_GIB, WORKERS};

/// The characters that end a line for Python's `str.splitlines()`.
const LINE_ENDS: [char; 10] =
    ['\n', '\r', '\u{b}', '\u{c}', '\u{1c}', '\u{1d}', '\u{1e}', '\u{85}', '\u{2028}', '\u{2029}'];

/// The two numbers that PyPNM starts with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Numbers {
    /// The number of workers.
    pub workers: i64,
    /// The number of requests after which a worker is recycled; 0: never.
    pub limit_max_requests: i64,
}

impl From<&Profile> for Numbers {
    fn from(profile: &Profile) -> Self {
        Self { workers: profile.workers.into(), limit_max_requests: profile.limit_max_requests.into() }
    }
}

/// PyPNM's own sizing (`build_worker_profile()`) for a number of online CPUs and an amount of memory in bytes. Its
/// guardrails are in GiB (2³⁰ bytes), while those of the guide are in GB. It ignores cgroups and affinity.
pub fn default_numbers(cpus: u64, memory: u64) -> Numbers {
    let cpu_target = cpus.clamp(1, 4);
    let memory_target = match memory {
        _ if memory < 6 * GIB => 1,
        _ if memory < 12 * GIB => 2,
        _ => 4,
    };
    let limit_max_requests = match memory {
        _ if memory < 12 * GIB => 1000,
        _ if memory >= 64 * GIB && cpus >= 8 => 4000,
        _ => 2000,
    };
    Numbers { workers: i64::try_from(cpu_target.min(memory_target)).unwrap_or(1), limit_max_requests }
}

/// How PyPNM interprets a profile file (`load_seeded_profile()`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ProfileFile {
    /// It uses these numbers.
    Taken(Numbers),
    /// It ignores the whole file because this key is missing, and sizes itself.
    Ignored(&'static str),
    /// It exits with a traceback because of the value of this key.
    Crashes(&'static str, String),
}

impl ProfileFile {
    /// The numbers, if PyPNM uses them.
    pub fn taken(self) -> Option<Numbers> {
        match self {
            Self::Taken(numbers) => Some(numbers),
            Self::Ignored(_) | Self::Crashes(..) => None,
        }
    }
}

/// The keys and values of a profile file (`parse_env_file()`). If a key is repeated, the last value is used.
pub fn profile_values(text: &str) -> BTreeMap<&str, &str> {
    let lines = text.split(LINE_ENDS).map(str::trim).filter(|line| !line.starts_with('#'));
    let pairs = lines.filter_map(|line| line.split_once('='));
    pairs.map(|(key, value)| (key.trim(), value.trim())).collect()
}

/// Reads a profile file as PyPNM does.
pub fn read_profile_file(text: &str) -> ProfileFile {
    let values = profile_values(text);
    let value = |key| values.get(key).copied().unwrap_or_default();
    // In PyPNM's order: it checks the values before it looks for missing keys.
    let mut numbers = [0, 0];
    for (number, key) in numbers.iter_mut().zip([WORKERS, LIMIT_MAX_REQUESTS]) {
        match integer(value(key)) {
            Some(read) => *number = read,
            None if value(key).is_empty() => {}
            None => return ProfileFile::Crashes(key, value(key).to_owned()),
        }
    }
    for (key, reads) in [
        (CPU_COUNT, integer(value(CPU_COUNT)).is_some()),
        (TOTAL_MEMORY_GIB, is_float(value(TOTAL_MEMORY_GIB))),
    ] {
        if !reads && !value(key).is_empty() {
            return ProfileFile::Crashes(key, value(key).to_owned());
        }
    }
    match PROFILE_KEYS.into_iter().find(|key| value(key).is_empty()) {
        Some(missing) => ProfileFile::Ignored(missing),
        None => ProfileFile::Taken(Numbers { workers: numbers[0], limit_max_requests: numbers[1] }),
    }
}

/// Python's `int()`: an optional sign and digits, with single underscores allowed between digits.
pub fn integer(text: &str) -> Option<i64> {
    without_underscores(text)?.parse().ok()
}

/// Python's `float()`.
fn is_float(text: &str) -> bool {
    without_underscores(text).is_some_and(|text| text.parse::<f64>().is_ok())
}

fn without_underscores(text: &str) -> Option<String> {
    let ends = text.starts_with('_') || text.ends_with('_') || text.contains("__");
    (!ends).then(|| text.replace('_', ""))
}

#[cfg(test)]
mod tests {
    use super::{
        CPU_COUNT, GIB, LIMIT_MAX_REQUESTS, Numbers, ProfileFile, TOTAL_MEMORY_GIB, WORKERS, default_numbers,
        read_profile_file,
    };

    fn own(cpus: u64, memory: u64) -> (i64, i64) {
        let Numbers { workers, limit_max_requests } = default_numbers(cpus, memory);
        (workers, limit_max_requests)
    }

    #[test]
    fn default_numbers_as_in_its_table() {
        for (cpus, gib, numbers) in [
            (2, 4, (1, 1000)),
            (2, 8, (2, 1000)),
            (4, 8, (2, 1000)),
            (4, 16, (4, 2000)),
            (8, 32, (4, 2000)),
            (16, 64, (4, 4000)),
            (7, 64, (4, 2000)),
            (1, 64, (1, 2000)),
            (0, 0, (1, 1000)),
        ] {
            assert_eq!(own(cpus, gib * GIB), numbers, "{cpus} CPUs, {gib} GiB");
        }
        assert_eq!(own(16, 64 * GIB - 1), (4, 2000));
        assert_eq!(own(4, 6 * GIB - 1), (1, 1000));
        assert_eq!(own(4, 12 * GIB - 1), (2, 1000));
        assert_eq!(own(u64::MAX, u64::MAX), (4, 4000));
    }

    fn file(cpus: &str, gib: &str, workers: &str, limit: &str) -> String {
        format!(
            "{CPU_COUNT}={cpus}\n{TOTAL_MEMORY_GIB}={gib}\n{WORKERS}={workers}\n{LIMIT_MAX_REQUESTS}={limit}\n"
        )
    }

    #[test]
    fn profile_files() {
        let taken = |workers, limit_max_requests| ProfileFile::Taken(Numbers { workers, limit_max_requests });
        assert_eq!(read_profile_file(&file("4", "7.77", "2", "2000")), taken(2, 2000));
        assert_eq!(read_profile_file(&format!("# a\n{}", file("4", "8", " 2 ", "0"))), taken(2, 0));
        assert_eq!(
            read_profile_file(&(file("4", "8", "1", "1") + &file("4", "8", "1_0", "+5"))),
            taken(10, 5)
        );
        assert_eq!(read_profile_file(""), ProfileFile::Ignored(CPU_COUNT));
        assert_eq!(read_profile_file(&file("4", "8", "", "2000")), ProfileFile::Ignored(WORKERS));
        assert_eq!(
            read_profile_file(&format!("export {}", file("4", "8", "2", "2"))),
            ProfileFile::Ignored(CPU_COUNT)
        );
        for bad in ["\"2\"", "2.0", "abc", "2 # two", "_2", "1__0"] {
            assert_eq!(
                read_profile_file(&file("4", "8", bad, "2")),
                ProfileFile::Crashes(WORKERS, bad.to_owned())
            );
        }
        assert_eq!(
            read_profile_file(&file("4", "8G", "2", "2")),
            ProfileFile::Crashes(TOTAL_MEMORY_GIB, "8G".to_owned())
        );
    }
}
