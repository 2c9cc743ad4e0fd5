//! The table of the keys in sizing.conf(5) that may be set for all units or for a single one, with the parser and the
//! formatter of each value.

use crate::parse::boolean::{BOOLEAN, boolean};
use crate::parse::quantity::{Cpus, Size, decimal, in_gib, memory_size, milli_cpus};
use crate::problem::{Problem, ProblemKind, Source, Sourced};

/// The maximum number of workers; more are a mistake.
pub const MAX_SETTABLE_WORKERS: u32 = 1024;
/// The consequence of an invalid setting.
pub(super) const SKIPPED: &str = "the setting is ignored";
/// The minimum of a size, if it is not 0.
const MIN_BYTES: u64 = 1_000_000;
const COUNT: &str = "a whole number from 1 to 1024";

/// Each row: field, key, default, type, parser, what is expected, formatter.
macro_rules! keys {
    ($($(#[$doc:meta])* $field:ident $key:literal = $default:literal: $type:ty,
        $read:expr, $expected:expr, $write:expr;)+) => {
        /// The settings of a unit, or of `[Sizing]` for all units. `None`: not set. The
        /// values are boxed, because most are not set, and a file may have thousands of sections.
        #[derive(Clone, Debug, Default, PartialEq, Eq)]
        pub struct UnitConfig {
            $($(#[$doc])* pub $field: Option<Box<Sourced<$type>>>,)+
            /// A file or directory that exists and could not be read: it may set any of the keys that no later file sets.
            pub unread: Option<Source>,
        }

        /// The keys with their defaults.
        pub const KEYS: &[(&str, &str)] = &[$(($key, $default)),+];

        impl UnitConfig {
            /// Applies an assignment. An empty value resets the key.
            pub(super) fn set(&mut self, key: &str, value: &str, source: Source, problems: &mut Vec<Problem>) {
                match key {
                    $($key => assign(&mut self.$field, $read, $expected, value, source, problems),)+
                    _ if key.starts_with("X-") => {}
                    _ => problems.push(Problem::new(source, ProblemKind::UnknownKey { nearest: nearest(key) }, SKIPPED)),
                }
            }

            /// These settings, and those of `general` for keys that are not set.
            #[must_use]
            pub(super) fn or(self, general: &Self) -> Self {
                Self {
                    $($field: self.$field.or_else(|| general.$field.clone()),)+
                    unread: self.unread.or_else(|| general.unread.clone()),
                }
            }

            /// Takes back all settings of earlier files: the file at `source`, which could not be read, may change them.
            pub(super) fn forget(&mut self, source: &Source) {
                *self = Self { enabled: self.enabled.take(), unread: Some(source.clone()), ..Self::default() };
            }

            /// The keys that are set, with their values as text.
            pub fn set_keys(&self) -> Vec<(&'static str, Sourced<String>)> {
                let mut set = Vec::new();
                $(if let Some(own) = &self.$field {
                    let write: fn(&$type) -> String = $write;
                    set.push(($key, Sourced { value: write(&own.value), source: own.source.clone() }));
                })+
                set
            }
        }
    };
}

keys! {
    /// Whether the unit is sized.
    enabled "Enabled" = "yes": bool, boolean, BOOLEAN, yes_no;
    /// A fixed number of workers; the inner `None` is `auto`.
    workers "Workers" = "auto": Option<u32>, |text| auto_or(text, count), "a whole number from 1 to 1024, or auto", auto_or_number;
    /// A fixed recycle limit, 0: never; the inner `None` is `auto`.
    limit_max_requests "LimitMaxRequests" = "auto": Option<u32>, |text| auto_or(text, decimal), "a whole number, or auto", auto_or_number;
    /// The maximum of the CPU target.
    max_workers "MaxWorkers" = "4": u32, count, COUNT, ToString::to_string;
    /// Memory reserved for other services.
    reserve_memory "ReserveMemory" = "0": Size, reserve,
        "a size of 1 MB or more (K, M, G, T: base 1024; KB, MB, GB, TB: base 1000) or a percentage up to 100%", size_text;
    /// Milli-CPUs reserved for other services.
    reserve_cpus "ReserveCPUs" = "0": u64, milli_cpus, "a number of CPUs with at most three decimals", |milli| Cpus(*milli).to_string();
    /// The memory that a worker needs, in bytes.
    memory_per_worker "MemoryPerWorker" = "": u64, bytes,
        "a size of 1 MB or more (K, M, G, T: base 1024; KB, MB, GB, TB: base 1000)", |bytes| in_gib(*bytes);
    /// Whether memory creep is being investigated.
    investigate_memory_creep "InvestigateMemoryCreep" = "no": bool, boolean, BOOLEAN, yes_no;
}

fn assign<T>(
    slot: &mut Option<Box<Sourced<T>>>,
    read: fn(&str) -> Option<T>,
    expected: &'static str,
    value: &str,
    source: Source,
    problems: &mut Vec<Problem>,
) {
    if value.is_empty() {
        *slot = None;
        return;
    }
    match read(value) {
        Some(value) => *slot = Some(Box::new(Sourced { value, source })),
        None => problems.push(Problem::bad_value(source, value, expected, SKIPPED)),
    }
}

fn count(text: &str) -> Option<u32> {
    decimal(text).filter(|n| (1..=MAX_SETTABLE_WORKERS).contains(n))
}

// The outer `Option` is `None` if the value is invalid.
#[allow(clippy::option_option)]
fn auto_or(text: &str, read: fn(&str) -> Option<u32>) -> Option<Option<u32>> {
    if text == "auto" { Some(None) } else { read(text).map(Some) }
}

/// A number without a unit is in bytes. Nobody means less than a megabyte, but the unit is easily forgotten.
fn reserve(text: &str) -> Option<Size> {
    memory_size(text).filter(|size| !matches!(size, Size::Bytes(1..MIN_BYTES)))
}

fn bytes(text: &str) -> Option<u64> {
    match memory_size(text) {
        Some(Size::Bytes(bytes)) if bytes >= MIN_BYTES => Some(bytes),
        _ => None,
    }
}

// The table calls all formatters with a reference.
#[allow(clippy::trivially_copy_pass_by_ref)]
fn yes_no(value: &bool) -> String {
    if *value { "yes" } else { "no" }.to_owned()
}

#[allow(clippy::trivially_copy_pass_by_ref, clippy::ref_option)]
fn auto_or_number(value: &Option<u32>) -> String {
    value.map_or_else(|| "auto".to_owned(), |number| number.to_string())
}

fn size_text(size: &Size) -> String {
    match size {
        Size::Bytes(bytes) => in_gib(*bytes),
        Size::Permyriad(share) => format!("{}%", f64::from(*share) / 100.0),
    }
}

/// The known key that is most similar, if it was probably meant.
fn nearest(key: &str) -> Option<&'static str> {
    /// A key with more wrong letters than this is probably not a typing error.
    const MAX_WRONG: usize = 3;
    /// Longer keys are not compared, because the time grows with the length.
    const MAX_LENGTH: usize = 64;
    if key.len() > MAX_LENGTH {
        return None;
    }
    let key = key.to_ascii_lowercase();
    let known = KEYS.iter().map(|(key, _)| *key).chain(["Units"]);
    let distances =
        known.map(|known| (strsim::damerau_levenshtein(&known.to_ascii_lowercase(), &key), known));
    distances.min().filter(|(wrong, _)| *wrong <= MAX_WRONG).map(|(_, known)| known)
}

#[cfg(test)]
mod tests {
    use super::{KEYS, UnitConfig, nearest};
    use crate::problem::Source;

    fn set(key: &str, value: &str) -> (Vec<(&'static str, String)>, Vec<String>) {
        let (mut config, mut problems) = (UnitConfig::default(), Vec::new());
        config.set(key, value, Source::key("/x", 1, key.to_owned()), &mut problems);
        let set = config.set_keys().into_iter().map(|(key, set)| (key, set.value)).collect();
        (set, problems.iter().map(ToString::to_string).collect())
    }

    #[test]
    fn defaults_are_valid_values() {
        for (key, default) in KEYS.iter().filter(|(_, default)| !default.is_empty()) {
            let (set, problems) = set(key, default);
            assert_eq!((set.len(), problems.len()), (1, 0), "{key}={default}");
            let written = if *default == "0" && *key == "ReserveMemory" { "0.0 GiB" } else { default };
            assert_eq!(set, [(*key, written.to_owned())]);
        }
    }

    #[test]
    fn boundary_values() {
        for (key, value, written) in [
            ("Workers", "1024", "1024"),
            ("Workers", "auto", "auto"),
            ("LimitMaxRequests", "0", "0"),
            ("MaxWorkers", "1", "1"),
            ("ReserveMemory", "4GB", "3.73 GiB"),
            ("ReserveMemory", "4 GB", "3.73 GiB"),
            ("ReserveMemory", "1.5GiB", "1.5 GiB"),
            ("ReserveMemory", "4G", "4.0 GiB"),
            ("ReserveMemory", "100%", "100%"),
            ("MemoryPerWorker", "1MB", "0.0 GiB"),
            ("ReserveMemory", "1000000", "0.0 GiB"),
            ("ReserveMemory", "0G", "0.0 GiB"),
            ("ReserveCPUs", "0.001", "0.001"),
        ] {
            assert_eq!(set(key, value), (vec![(key, written.to_owned())], vec![]), "{key}={value}");
        }
        for (key, value) in [
            ("Enabled", "maybe"),
            ("Workers", "0"),
            ("Workers", "1025"),
            ("LimitMaxRequests", "4294967296"),
            ("MaxWorkers", "auto"),
            ("ReserveMemory", "101%"),
            ("ReserveMemory", "4gb"),
            ("ReserveMemory", "64"),
            ("ReserveMemory", "999999"),
            ("MemoryPerWorker", "0"),
            ("MemoryPerWorker", "1"),
            ("MemoryPerWorker", "600"),
            ("MemoryPerWorker", "1K"),
            ("MemoryPerWorker", "10%"),
            ("ReserveCPUs", "1.0001"),
        ] {
            let (set, problems) = set(key, value);
            assert_eq!((set.len(), problems.len()), (0, 1), "{key}={value}");
            assert!(problems.iter().all(|p| p.contains("is not a") && p.ends_with("the setting is ignored")));
        }
    }

    #[test]
    fn the_nearest_key() {
        for (typed, meant) in [
            ("Worker", Some("Workers")),
            ("unit", Some("Units")),
            ("LIMITMAXREQUEST", Some("LimitMaxRequests")),
            ("ReserveCPU", Some("ReserveCPUs")),
            ("MaxWorkrzzs", Some("MaxWorkers")),
            ("MaxWorkrzzzz", None),
            ("Color", None),
            ("", None),
        ] {
            assert_eq!(nearest(typed), meant, "{typed}");
        }
        // Similar enough, but too long.
        assert_eq!(nearest(&format!("{}{}", "Workers", " ".repeat(58))), None);
    }
}
