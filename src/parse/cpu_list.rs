//! Sets of CPUs, and their two formats: the kernel's list format (`0-3,8`, cpuset(7), "List format") and that of systemd
//! (`AllowedCPUs=`, `CPUAffinity=`), which also permits spaces.

use crate::parse::quantity::{decimal, integer};
use crate::parse::words::Words;

/// The kernel's own limit (`CONFIG_NR_CPUS` is at most 8192 on x86): an index at or above it is an error.
pub const MAX_CPUS: u32 = 8192;

/// A list of CPUs in a systemd setting.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CpuListSetting {
    /// The CPUs of its valid words. A descending range is valid, but empty.
    pub set: CpuSet,
    /// The number of words.
    pub words: usize,
    /// Whether all words are valid.
    pub valid: bool,
}

/// A set of CPU indices.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CpuSet {
    /// Whether the CPU with this index is in the set, up to the highest one that is.
    contains: Vec<bool>,
}

impl CpuSet {
    /// The CPUs `0 … count-1`, at most [`MAX_CPUS`] of them.
    pub fn first(count: u32) -> Self {
        let mut set = Self::default();
        if count > 0 {
            set.insert_range(0, count.min(MAX_CPUS) - 1);
        }
        set
    }

    /// The number of CPUs in the set.
    pub fn count(&self) -> u32 {
        self.contains.iter().map(|contains| u32::from(*contains)).sum()
    }

    /// Whether the set is empty.
    pub fn is_empty(&self) -> bool {
        self.contains.is_empty()
    }

    /// The CPUs in the set, in ascending order.
    pub fn iter(&self) -> impl Iterator<Item = u32> + '_ {
        (0..).zip(&self.contains).filter(|(_, contains)| **contains).map(|(cpu, _)| cpu)
    }

    /// Whether the set contains a CPU.
    pub fn contains(&self, cpu: u32) -> bool {
        self.contains.get(cpu as usize) == Some(&true)
    }

    /// The CPUs that are in both sets.
    #[must_use]
    pub fn intersection(&self, other: &Self) -> Self {
        let mut common = Self::default();
        for cpu in self.iter().filter(|cpu| other.contains(*cpu)) {
            common.insert_range(cpu, cpu);
        }
        common
    }

    /// Adds the CPUs of `other`.
    pub fn extend(&mut self, other: &Self) {
        self.grow(other.contains.len());
        for (own, other) in self.contains.iter_mut().zip(&other.contains) {
            *own |= other;
        }
    }

    /// Adds `from..=to`; both below [`MAX_CPUS`].
    fn insert_range(&mut self, from: u32, to: u32) {
        self.grow(to as usize + 1);
        if let Some(range) = self.contains.get_mut(from as usize..=to as usize) {
            range.fill(true);
        }
    }

    fn grow(&mut self, length: usize) {
        if self.contains.len() < length {
            self.contains.resize(length, false);
        }
    }

    /// Parses a list as systemd does: words may be quoted and are separated by commas or spaces, numbers are as in C. `None`:
    /// the quotes are invalid, and the whole list is ignored.
    pub fn parse_setting(text: &str) -> Option<CpuListSetting> {
        const SEPARATORS: [char; 5] = [' ', '\t', '\n', '\r', ','];
        let words: Vec<_> = Words::new(text, &SEPARATORS, false).collect::<Result<_, _>>().ok()?;
        let mut setting = CpuListSetting { set: Self::default(), words: words.len(), valid: true };
        for item in &words {
            let (from, to) = item.split_once('-').unwrap_or((item, item));
            match (integer(from), integer(to)) {
                (Some(from), Some(to)) if from > to => {}
                (Some(from), Some(to)) if to < MAX_CPUS => setting.set.insert_range(from, to),
                _ => setting.valid = false,
            }
        }
        Some(setting)
    }

    /// Parses a list as the kernel prints it: numbers and ranges separated by commas. Spaces are allowed as separators too,
    /// as by systemd. An empty text is the empty set. `None`: the list is invalid.
    pub fn parse(text: &str) -> Option<Self> {
        let mut set = Self::default();
        for item in text.split([',', ' ', '\t', '\n']).filter(|item| !item.is_empty()) {
            let (from, to) = item.split_once('-').unwrap_or((item, item));
            let (from, to) = (index(from)?, index(to)?);
            if from > to {
                return None;
            }
            set.insert_range(from, to);
        }
        Some(set)
    }
}

/// A CPU index: digits only, below [`MAX_CPUS`].
fn index(text: &str) -> Option<u32> {
    decimal(text).filter(|n| *n < MAX_CPUS)
}

/// In the list format, such as `0-3,8`.
impl std::fmt::Display for CpuSet {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let cpus: Vec<u32> = self.iter().collect();
        let mut separator = "";
        for range in cpus.chunk_by(|cpu, next| cpu + 1 == *next) {
            match range {
                [first, .., last] => write!(f, "{separator}{first}-{last}")?,
                [cpu] => write!(f, "{separator}{cpu}")?,
                [] => {}
            }
            separator = ",";
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::{CpuSet, MAX_CPUS};

    fn set(text: &str) -> CpuSet {
        CpuSet::parse(text).unwrap_or_else(|| panic!("{text:?} is a list"))
    }

    #[test]
    fn a_range_that_ends_before_it_begins_is_skipped() {
        for (text, valid, count) in
            [("3-1", true, 0), ("3-1 5", true, 1), ("9000-8999", true, 0), ("9000", false, 0)]
        {
            let setting = CpuSet::parse_setting(text).map(|setting| (setting.valid, setting.set.count()));
            assert_eq!(setting, Some((valid, count)), "{text}");
        }
    }

    #[test]
    fn lists_as_the_kernel_prints_them() {
        for (text, count) in [
            ("", 0),
            ("\n", 0),
            ("0\n", 1),
            ("0-3\n", 4),
            ("0,2-3,7\n", 4),
            ("63-64", 2),
            ("0-1023", 1024),
            ("0 2\t4", 3),
            ("1,1,1-2", 2),
            ("8191", 1),
            ("5-5", 1),
            (",,3,", 1),
        ] {
            assert_eq!(set(text).count(), count, "{text:?}");
        }
    }

    #[test]
    fn members_of_a_set() {
        let some = set("1,63-64,8191");
        let inside = [1, 63, 64, 8191].iter().all(|cpu| some.contains(*cpu));
        let outside = [0, 2, 62, 65, 8190, 8192, u32::MAX].iter().any(|cpu| some.contains(*cpu));
        assert_eq!((inside, outside, CpuSet::default().contains(0)), (true, false, false));
    }

    #[test]
    fn invalid_lists() {
        for text in [
            "x",
            "-1",
            "1-",
            "3-1",
            "0-8192",
            "99999999999999999999",
            "+1",
            "0x1",
            "1--2",
            "1-2-3",
            "\u{661}",
        ] {
            assert_eq!(CpuSet::parse(text), None, "{text:?}");
        }
    }

    #[test]
    fn lists_as_systemd_reads_them() {
        let list = |text: &str| {
            CpuSet::parse_setting(text).map(|list| (list.set.to_string(), list.words, list.valid))
        };
        for (text, expected) in [
            ("0-3", Some(("0-3", 1, true))),
            ("0 2\t4,6", Some(("0,2,4,6", 4, true))),
            ("\"1 \" '2'", Some(("2", 2, false))),
            ("'1' \"2\"", Some(("1-2", 2, true))),
            ("3-1", Some(("", 1, true))),
            ("3-1 5", Some(("5", 2, true))),
            ("0x4 010", Some(("4,8", 2, true))),
            ("", Some(("", 0, true))),
            (",", Some(("", 0, true))),
            ("8191", Some(("8191", 1, true))),
            ("8192", Some(("", 1, false))),
            ("2 - 3", Some(("2-3", 3, false))),
            ("1-", Some(("", 1, false))),
            ("-1", Some(("", 1, false))),
            ("1-2-3", Some(("", 1, false))),
            ("a", Some(("", 1, false))),
            ("'1", None),
            ("1\\", None),
        ] {
            let expected = expected.map(|(set, words, valid)| (set.to_owned(), words, valid));
            assert_eq!(list(text), expected, "{text:?}");
        }
    }

    #[test]
    fn printed_lists_are_read_back() {
        for text in ["", "0", "0-3,8", "62-65,127-128,8191"] {
            assert_eq!(set(text).to_string(), text);
        }
        assert_eq!(CpuSet::first(MAX_CPUS + 5).count(), MAX_CPUS);
        assert_eq!(CpuSet::first(0), CpuSet::default());
    }

    #[test]
    fn intersection_and_union() {
        let mut a = set("0-3,100").intersection(&set("2-5"));
        assert_eq!(a.to_string(), "2-3");
        a.extend(&set("200"));
        assert_eq!(a.to_string(), "2-3,200");
        assert!(a.intersection(&set("64")).is_empty());
    }
}
