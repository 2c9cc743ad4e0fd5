//! Parses the settings of a unit as systemd does (src/core/load-fragment.c). [`super`] derives the limits from them. Pure.

use super::{CpuLists, Nodes};
use crate::limits::Resource;
use crate::parse::cpu_list::CpuSet;
use crate::parse::quantity::{Size, permyriad, size};
use crate::problem::{Problem, ProblemKind, Source, Sourced};
use crate::units::name::{Name, NameKind, Type};
use crate::units::specifier::{self, Unexpanded};
use crate::units::{Assignment, Unit};

const SKIPPED: &str = "systemd skips the line";
/// The maximum number of invalid values reported for a unit; systemd itself reports all of them.
const MAX_FAULTS: usize = 50;
/// The smallest page size of any machine. Percentages are rounded down to whole pages.
const PAGE: u64 = 4096;

pub(super) struct SettingReader<'a> {
    pub(super) unit: &'a Unit,
    pub(super) name: Name<'a>,
    pub(super) physical_memory: Option<u64>,
    /// Settings whose value is unknown here, and files that cannot be read.
    pub(super) unknown: Vec<(Resource, Source)>,
    pub(super) problems: &'a mut Vec<Problem>,
    /// The number of invalid values.
    pub(super) reported: usize,
}

impl SettingReader<'_> {
    fn name_at(&self, assignment: &Assignment) -> Name<'_> {
        self.unit.name_at(assignment).unwrap_or(self.name)
    }

    fn report_skipped(&mut self, assignment: &Assignment, expected: &'static str) {
        self.report(assignment, ProblemKind::bad_value(&assignment.value, expected), SKIPPED);
    }

    fn report(&mut self, assignment: &Assignment, kind: ProblemKind, consequence: &'static str) {
        self.reported += 1;
        if self.reported <= MAX_FAULTS {
            self.problems.push(Problem::new(assignment.source.clone(), kind, consequence));
        }
    }

    /// Records a value with specifiers that only systemd can resolve.
    fn has_unknown_specifier(&mut self, assignment: &Assignment, resources: &[Resource]) {
        let kind = ProblemKind::undetermined(&assignment.value, "the values of the specifiers");
        self.report(assignment, kind, "assuming the minimum");
        let unknown = resources.iter().map(|resource| (*resource, assignment.source.clone()));
        self.unknown.extend(unknown);
    }

    /// `config_parse_memory_limit()`
    pub(super) fn memory(&mut self, key: &'static str) -> Option<Sourced<u64>> {
        let mut setting = None;
        for assignment in self.unit.assignments_of(key) {
            if ["", "infinity"].contains(&assignment.value.as_str()) {
                setting = None;
                continue;
            }
            let source = assignment.source.clone();
            let bytes = match (size(&assignment.value), self.physical_memory) {
                (Some(Size::Permyriad(_)), None) => {
                    self.unknown.push((Resource::Memory, source));
                    setting = None;
                    continue;
                }
                (Some(Size::Permyriad(10_000)), Some(memory)) => Some(memory),
                (Some(share @ Size::Permyriad(_)), Some(memory)) => {
                    Some(share.in_bytes(memory / PAGE) * PAGE)
                }
                (Some(Size::Bytes(bytes)), _) => Some(bytes),
                (None, _) => None,
            };
            match (bytes, key) {
                // A limit cannot be 0, except for settings where that turns something off.
                (Some(0), "MemoryMin" | "MemoryLow") => setting = None,
                (Some(0), "MemorySwapMax") => setting = Some(Sourced { value: 0, source }),
                (Some(value), _) if value > 0 && value < u64::MAX => {
                    setting = Some(Sourced { value, source });
                }
                _ => self.report_skipped(
                    assignment,
                    "bytes above 0 (with K, M, G, T), a percentage up to 100%, or infinity",
                ),
            }
        }
        setting
    }

    /// `config_parse_cpu_quota()`
    pub(super) fn cpu_quota(&mut self) -> Option<Sourced<u32>> {
        let mut setting = None;
        for assignment in self.unit.assignments_of("CPUQuota") {
            match permyriad(&assignment.value).filter(|share| *share > 0) {
                _ if assignment.value.is_empty() => setting = None,
                Some(value) => setting = Some(Sourced { value, source: assignment.source.clone() }),
                None => self.report_skipped(assignment, "a percentage above 0"),
            }
        }
        setting
    }

    /// `config_parse_allowed_cpuset()`
    pub(super) fn allowed(&mut self, key: &'static str) -> Option<Sourced<CpuLists>> {
        let mut setting = None;
        for assignment in self.unit.assignments_of(key) {
            self.add_cpus(assignment, &mut setting);
        }
        setting.filter(restricts)
    }

    /// Applies an assignment of a list of CPUs: it adds to the previous ones, and an empty one resets them. Returns whether
    /// all versions accept it.
    fn add_cpus(&mut self, assignment: &Assignment, setting: &mut Option<Sourced<CpuLists>>) -> bool {
        let value = match specifier::expand(&assignment.value, &self.name_at(assignment)) {
            Ok(value) => value,
            Err(Unexpanded::Unknown) => {
                let resources: &[Resource] = match assignment.key {
                    "AllowedMemoryNodes" => &[Resource::Memory],
                    "NUMAMask" => &[Resource::Cpu, Resource::Memory],
                    _ => &[Resource::Cpu],
                };
                self.has_unknown_specifier(assignment, resources);
                return false;
            }
            Err(Unexpanded::NoSuch) => {
                self.report_skipped(assignment, "a list of CPUs with known specifiers");
                return false;
            }
        };
        let Some(list) = CpuSet::parse_setting(&value) else {
            self.report_skipped(assignment, list_of(assignment));
            return false;
        };
        let valid = list.valid;
        if !valid {
            let consequence = "systemd skips the line, or since version 258 only the invalid part";
            self.report(
                assignment,
                ProblemKind::bad_value(&assignment.value, list_of(assignment)),
                consequence,
            );
        }
        let mut cpus = setting.take().map(|setting| setting.value).unwrap_or_default();
        if valid && list.words == 0 {
            cpus.until_257 = CpuSet::default();
        } else if valid {
            cpus.until_257.extend(&list.set);
        }
        if value.is_empty() {
            cpus.from_258 = CpuSet::default();
        } else {
            cpus.from_258.extend(&list.set);
        }
        *setting = Some(Sourced { value: cpus, source: assignment.source.clone() });
        valid
    }

    /// `config_parse_exec_cpu_affinity()`: a list, or `numa`; both if versions differ on which one applies.
    pub(super) fn affinity(&mut self, mask: &Nodes) -> (Option<Sourced<CpuLists>>, Option<Sourced<Nodes>>) {
        let mut setting = None;
        let mut numa = None;
        for assignment in self.unit.assignments_of("CPUAffinity") {
            if assignment.value == "numa" {
                numa = Some(assignment.source.clone());
                setting = None;
            } else if self.add_cpus(assignment, &mut setting) {
                numa = None;
            }
        }
        let numa = numa.map(|source| Sourced { value: mask.clone(), source });
        (setting.filter(restricts), numa)
    }

    /// `NUMAPolicy=`: the nodes of `bind`. `interleave` and `preferred` fall back to other nodes when memory runs out.
    pub(super) fn bound_nodes(&mut self, mask: &Nodes) -> Option<Sourced<CpuSet>> {
        const POLICIES: [&str; 5] = ["default", "preferred", "bind", "interleave", "local"];
        let mut policy = None;
        for assignment in self.unit.assignments_of("NUMAPolicy") {
            match assignment.value.as_str() {
                "" => policy = None,
                known if POLICIES.contains(&known) => policy = Some(assignment),
                _ => self
                    .report_skipped(assignment, "a policy (bind, preferred, interleave, local or default)"),
            }
        }
        let policy = policy.filter(|policy| policy.value == "bind")?;
        match mask {
            // Without nodes there is no policy, and no limit either (`nodes::granted`).
            Nodes::Some(nodes) => Some(Sourced { value: nodes.clone(), source: policy.source.clone() }),
            // All nodes are no restriction.
            Nodes::All => None,
        }
    }

    /// `NUMAMask=`. An invalid one is ignored. Since 258 it seems to reset earlier ones, which would grant more.
    pub(super) fn numa_mask(&mut self) -> Nodes {
        let mut setting: Option<Sourced<CpuLists>> = None;
        let mut all = false;
        for assignment in self.unit.assignments_of("NUMAMask") {
            if assignment.value == "all" {
                all = true;
            } else if self.add_cpus(assignment, &mut setting) {
                all = false;
            }
        }
        if all {
            Nodes::All
        } else {
            Nodes::Some(setting.map(|setting| setting.value.granted()).unwrap_or_default())
        }
    }

    /// `config_parse_unit_slice()`, or the default slice.
    pub(super) fn slice(&mut self) -> Option<String> {
        let mut slice = Some(self.name.default_slice());
        for assignment in self.unit.assignments_of("Slice") {
            match specifier::expand_name(&assignment.value, &self.name_at(assignment)) {
                Ok(name) if is_loadable_slice(&name) => slice = Some(name.into_owned()),
                Err(Unexpanded::Unknown) => {
                    self.has_unknown_specifier(assignment, &[Resource::Cpu, Resource::Memory]);
                    slice = None;
                }
                Ok(_) | Err(Unexpanded::NoSuch) => self.report_skipped(assignment, "the name of a slice"),
            }
        }
        slice
    }
}

/// What is expected for a list.
fn list_of(assignment: &Assignment) -> &'static str {
    if matches!(assignment.key, "AllowedMemoryNodes" | "NUMAMask") {
        "a list of memory nodes"
    } else {
        "a list of CPUs"
    }
}

/// Whether a list is not empty: an empty one is not a restriction.
fn restricts(setting: &Sourced<CpuLists>) -> bool {
    !setting.value.until_257.is_empty() || !setting.value.from_258.is_empty()
}

/// Whether systemd would load a slice with this name.
fn is_loadable_slice(name: &str) -> bool {
    Name::parse(name).is_some_and(|name| name.unit_type == Type::Slice && name.kind() == NameKind::Plain)
}

#[cfg(test)]
mod tests {
    use super::is_loadable_slice;

    #[test]
    fn slices_have_neither_instances_nor_templates() {
        for (name, is_loadable) in [
            ("a.slice", true),
            ("a-b.slice", true),
            ("-.slice", true),
            ("a@.slice", false),
            ("a@b.slice", false),
            ("a.service", false),
            ("a@b.service", false),
            ("a", false),
        ] {
            assert_eq!(is_loadable_slice(name), is_loadable, "{name}");
        }
    }
}
