//! The CPUs and memory nodes to which taskset(1) and numactl(8) confine the command that they execute. Pure.

use crate::parse::cpu_list::CpuSet;
use crate::parse::name_and_value;

/// What a wrapper restricts. `Err`: the value, which is not understood.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Confinement {
    /// The CPUs.
    Cpus(Result<CpuSet, String>),
    /// The CPUs, by their nodes.
    CpusOfNodes(Result<CpuSet, String>),
    /// The memory, by its nodes.
    MemoryOfNodes(Result<CpuSet, String>),
}

/// An option, or an operand, that confines the command to its value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Key {
    CpuMask,
    CpuList,
    NodesOfCpus,
    NodesOfMemory,
    /// It does not confine the command.
    Other,
}

impl Key {
    pub(super) fn with(self, value: &str) -> Option<Confinement> {
        let or_value = |set: Option<CpuSet>| set.ok_or_else(|| value.to_owned());
        match self {
            // Of numactl.
            _ if value == "all" => None,
            Self::CpuMask => Some(Confinement::Cpus(or_value(mask(value)))),
            Self::CpuList => Some(Confinement::Cpus(or_value(list(value)))),
            Self::NodesOfCpus => Some(Confinement::CpusOfNodes(or_value(list(value)))),
            Self::NodesOfMemory => Some(Confinement::MemoryOfNodes(or_value(list(value)))),
            Self::Other => None,
        }
    }
}

/// An option of numactl(8), `word`, and its value if that is attached.
pub(super) fn numactl(word: &str) -> (Key, Option<&str>) {
    if let Some(long) = word.strip_prefix("--") {
        let (name, value) = name_and_value(long);
        let key = match name {
            "physcpubind" => Key::CpuList,
            "cpunodebind" => Key::NodesOfCpus,
            "membind" => Key::NodesOfMemory,
            _ => Key::Other,
        };
        return (key, value);
    }
    for (at, letter) in word.char_indices().skip(1) {
        let key = match letter {
            'C' => Key::CpuList,
            'N' => Key::NodesOfCpus,
            'm' => Key::NodesOfMemory,
            'i' | 'p' => Key::Other,
            _ => continue,
        };
        let attached = word.get(at + 1..).filter(|value| !value.is_empty());
        return (key, attached);
    }
    (Key::Other, None)
}

/// A list such as `0-3,8`. Strides, negations, relative numbers and names are not understood.
fn list(value: &str) -> Option<CpuSet> {
    let is_plain = !value.contains([' ', '\t', '\n']);
    CpuSet::parse(value).filter(|set| is_plain && !set.is_empty())
}

/// A hexadecimal mask, with or without `0x`; commas separate groups of digits.
fn mask(value: &str) -> Option<CpuSet> {
    let digits = value.strip_prefix("0x").or_else(|| value.strip_prefix("0X")).unwrap_or(value);
    let mut cpus = Vec::new();
    let mut first = 0;
    for digit in digits.chars().rev().filter(|c| *c != ',') {
        let bits = digit.to_digit(16)?;
        cpus.extend((0..4).filter(|bit| bits & (1 << bit) != 0).map(|bit| (first + bit).to_string()));
        first += 4;
    }
    list(&cpus.join(","))
}

#[cfg(test)]
mod tests {
    use super::{Key, list, mask, numactl};

    #[test]
    fn masks_and_lists() {
        let shown = |set: Option<super::CpuSet>| set.map(|set| set.to_string());
        for (value, cpus) in
            [("3", "0-1"), ("0x5", "0,2"), ("FF", "0-7"), ("1,00000000", "32"), ("0x8000000000", "39")]
        {
            assert_eq!(shown(mask(value)).as_deref(), Some(cpus), "{value}");
        }
        for value in ["", "0", "0x", "g", "-1", "0x1g", "$MASK"] {
            assert_eq!(mask(value), None, "{value}");
        }
        assert_eq!(shown(list("0-2,8")).as_deref(), Some("0-2,8"));
        for value in ["", "all", "+0", "!0", "0-8:2", "3-1", "$LIST", "0 1"] {
            assert_eq!(list(value), None, "{value}");
        }
    }

    #[test]
    fn options_of_numactl() {
        for (word, key, value) in [
            ("--cpunodebind=0", Key::NodesOfCpus, Some("0")),
            ("--membind", Key::NodesOfMemory, None),
            ("-N", Key::NodesOfCpus, None),
            ("-lm1", Key::NodesOfMemory, Some("1")),
            ("-C0-3", Key::CpuList, Some("0-3")),
            ("-i", Key::Other, None),
            ("-pm", Key::Other, Some("m")),
            ("--localalloc", Key::Other, None),
        ] {
            assert_eq!(numactl(word), (key, value), "{word}");
        }
    }
}
