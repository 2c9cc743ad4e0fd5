//! Parses cgroup files: `/proc/PID/cgroup` (cgroups(7)) and the values of limits (kernel,
//! Documentation/admin-guide/cgroup-v2.rst and cgroup-v1/memory.rst, Documentation/scheduler/sched-bwc.rst).

use crate::parse::mountinfo::lists;
use crate::parse::quantity::decimal;
use crate::parse::rest_of_line;

/// A line of `/proc/PID/cgroup`: the cgroup of the process in a hierarchy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Membership<'a> {
    /// Version 1: the controllers of the hierarchy, separated by commas. `None`: version 2.
    pub v1_controllers: Option<&'a str>,
    /// The cgroup, relative to the reader's cgroup namespace. It may contain colons.
    pub path: &'a str,
}

impl Membership<'_> {
    /// Whether it is in a hierarchy of version 1 with this controller.
    pub fn has_v1(&self, controller: &str) -> bool {
        self.v1_controllers.is_some_and(|all| lists(all, controller))
    }
}

/// Parses `/proc/PID/cgroup`. `Err`: the number of an invalid line (from 1), and the line.
pub fn memberships(text: &str) -> Result<Vec<Membership<'_>>, (u32, &str)> {
    text.lines().zip(1..).map(|(line, number)| membership(line).ok_or((number, line))).collect()
}

fn membership(line: &str) -> Option<Membership<'_>> {
    let (hierarchy, rest) = line.split_once(':')?;
    let (controllers, path) = rest.split_once(':')?;
    let hierarchy: u32 = decimal(hierarchy)?;
    if !path.starts_with('/') {
        return None;
    }
    let v1_controllers = match (hierarchy, controllers) {
        (0, "") => None,
        (0, _) | (_, "") => return None,
        _ => Some(controllers),
    };
    Some(Membership { v1_controllers, path })
}

/// The value of a limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LimitValue {
    /// There is none.
    Unlimited,
    /// Bytes or milli-CPUs.
    At(u64),
}

/// Version 1 has no word for "no limit". It shows the largest value of its counter, which depends on the page size and the
/// version of the kernel (0x7FFFFFFFFFFFF000, 0x7FFFFFFFFFFF0000, 2⁶³−1, 2⁶⁴−1). Real limits are far below this value.
const V1_NO_LIMIT: u64 = 1 << 62;
/// The default period of `cpu.max`, in µs.
const DEFAULT_PERIOD: u64 = 100_000;
/// The periods that the kernel accepts, in µs (`min_cfs_quota_period`, `max_cfs_quota_period`). The kernel never writes other
/// values, and a truncated period would turn the quota into hundreds of CPUs.
const PERIODS: std::ops::RangeInclusive<u64> = 1000..=1_000_000;

/// `memory.max` and `memory.high`: bytes or `max`.
pub fn memory_v2(text: &str) -> Option<LimitValue> {
    match text.trim() {
        "max" => Some(LimitValue::Unlimited),
        number => decimal(number).map(LimitValue::At),
    }
}

/// `memory.limit_in_bytes`.
pub fn memory_v1(text: &str) -> Option<LimitValue> {
    decimal(text.trim())
        .map(|bytes| if bytes >= V1_NO_LIMIT { LimitValue::Unlimited } else { LimitValue::At(bytes) })
}

/// `hierarchical_memory_limit` in `memory.stat` of version 1: the minimum of the cgroup and all cgroups above it, including
/// those that are not visible. The kernel always writes this line.
pub fn hierarchical_memory_limit(text: &str) -> Option<LimitValue> {
    memory_v1(rest_of_line(text, "hierarchical_memory_limit ")?)
}

/// `cpu.max`: `QUOTA PERIOD` in µs, `max` for no quota; the period may be left out. In milli-CPUs, rounded down.
pub fn cpu_v2(text: &str) -> Option<LimitValue> {
    let mut fields = text.split_ascii_whitespace();
    let quota = fields.next()?;
    let period = fields.next().map_or(Some(DEFAULT_PERIOD), decimal)?;
    if fields.next().is_some() || !PERIODS.contains(&period) {
        return None;
    }
    if quota == "max" {
        return Some(LimitValue::Unlimited);
    }
    milli_cpus(decimal(quota)?, period).map(LimitValue::At)
}

/// `cpu.cfs_quota_us`: −1 or a quota in µs.
pub fn quota_v1(text: &str) -> Option<LimitValue> {
    match text.trim() {
        "-1" => Some(LimitValue::Unlimited),
        number => decimal(number).filter(|quota| *quota > 0).map(LimitValue::At),
    }
}

/// `cpu.cfs_period_us`: µs.
pub fn period_v1(text: &str) -> Option<u64> {
    decimal(text.trim()).filter(|period| PERIODS.contains(period))
}

/// A quota divided by its period, in milli-CPUs, rounded down. `None`: one of them is 0.
pub fn milli_cpus(quota: u64, period: u64) -> Option<u64> {
    if quota == 0 {
        return None;
    }
    let milli = u128::from(quota).checked_mul(1000)?.checked_div(u128::from(period))?;
    Some(u64::try_from(milli).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::{
        LimitValue::{At, Unlimited},
        cpu_v2, hierarchical_memory_limit, memberships, memory_v1, memory_v2, milli_cpus, period_v1,
        quota_v1,
    };

    #[test]
    fn memberships_of_a_process() {
        let text = "12:cpu,cpuacct:/a:b\n3:name=systemd:/init.scope\n0::/../x y\n";
        let all = memberships(text).unwrap_or_default();
        let shown: Vec<_> =
            all.iter().map(|membership| (membership.v1_controllers, membership.path)).collect();
        assert_eq!(
            shown,
            [(Some("cpu,cpuacct"), "/a:b"), (Some("name=systemd"), "/init.scope"), (None, "/../x y")]
        );
        assert!(
            all.iter().any(|membership| membership.has_v1("cpuacct"))
                && !all.iter().any(|membership| membership.has_v1("cp"))
        );
        assert_eq!(memberships(""), Ok(vec![]));
    }

    #[test]
    fn invalid_lines() {
        for line in ["x", "0:", "0::", "0::relative", ":cpu:/", "1::/", "0:cpu:/", "-1:cpu:/", "1:cpu"] {
            assert_eq!(memberships(&format!("0::/\n{line}\n")), Err((2, line)), "{line:?}");
        }
    }

    #[test]
    fn memory() {
        for (text, expected) in [
            ("max\n", Some(Unlimited)),
            ("0\n", Some(At(0))),
            ("2147483648\n", Some(At(2 << 30))),
            ("9223372036854771712", Some(At(9_223_372_036_854_771_712))),
            ("", None),
            ("\n", None),
            ("-1", None),
            ("2G", None),
            ("maximum", None),
            ("18446744073709551616", None),
        ] {
            assert_eq!(memory_v2(text), expected, "{text:?}");
        }
        for text in
            ["9223372036854771712\n", "9223372036854710272", "9223372036854775807", "18446744073709551615"]
        {
            assert_eq!(memory_v1(text), Some(Unlimited), "{text:?}");
        }
        assert_eq!(memory_v1("2147483648\n"), Some(At(2 << 30)));
        assert_eq!(memory_v1("max"), None);
    }

    #[test]
    fn the_minimum_of_all_levels_above() {
        let text = "cache 1\nhierarchical_memory_limit 2147483648\nhierarchical_memsw_limit 1\n";
        assert_eq!(hierarchical_memory_limit(text), Some(At(2 << 30)));
        assert_eq!(
            hierarchical_memory_limit("hierarchical_memory_limit 9223372036854771712"),
            Some(Unlimited)
        );
        assert_eq!(hierarchical_memory_limit("cache 1\nxhierarchical_memory_limit 5\n"), None);
        assert_eq!(hierarchical_memory_limit("hierarchical_memory_limit \n"), None);
        assert_eq!(hierarchical_memory_limit("hierarchical_memory_limit x\n"), None);
    }

    #[test]
    fn cpu_time() {
        for (text, expected) in [
            ("max 100000\n", Some(Unlimited)),
            ("max\n", Some(Unlimited)),
            ("150000 100000\n", Some(At(1500))),
            ("150000\n", Some(At(1500))),
            ("1000 100000\n", Some(At(10))),
            ("99999 100000\n", Some(At(999))),
            ("1 1000000\n", Some(At(0))),
            ("18446744073709551615 1000\n", Some(At(u64::MAX))),
            ("150000 999\n", None),
            ("150000 1000001\n", None),
            ("150000 0\n", None),
            ("max 0\n", None),
            ("0 100000\n", None),
            ("150000 100000 1\n", None),
            ("-1 100000\n", None),
            ("max max\n", None),
            ("x y\n", None),
            ("", None),
        ] {
            assert_eq!(cpu_v2(text), expected, "{text:?}");
        }
        assert_eq!(quota_v1("-1\n"), Some(Unlimited));
        assert_eq!(quota_v1("250000\n"), Some(At(250_000)));
        assert_eq!((quota_v1("0"), quota_v1("-2"), quota_v1("max")), (None, None, None));
        assert_eq!((period_v1("100000\n"), period_v1("0"), period_v1("-1")), (Some(100_000), None, None));
        assert_eq!((milli_cpus(250_000, 100_000), milli_cpus(1, 0)), (Some(2500), None));
    }
}
