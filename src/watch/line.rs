//! A sample of a watch as a line of JSON: `watch --json` prints it, `watch --record` records it, and `report` reads it.
//!
//! These structs are the schema. Sizes are in bytes, CPUs in milli-CPUs (1000 is one CPU), and percentages refer to one
//! CPU or to the time since the previous sample. Values that could not be read are null; a limit of 0 is unknown. The
//! parser is lenient: a missing field is unknown, an unknown field is ignored, and a count may be written as `4.0`. A
//! line with an impossible amount is rejected, because its peak would affect all later advice.

use serde::{Deserialize, Deserializer, Serialize};

use super::role::Role;
use super::{number, to_u64};

/// The version of the schema. It is incremented when the meaning of a field changes or a field is removed.
pub const SCHEMA: u32 = 1;
/// The maximum length of a line in bytes. A process takes about 250, so this is a service with 4096 processes.
pub const MAX_LINE_BYTES: usize = 1 << 20;
/// The maximum number of processes that are read.
const MAX_PROCESSES: usize = 4096;

/// The maximum amount: processors address at most 52 bits of memory (Intel SDM, volume 3A, 4.1.4, MAXPHYADDR).
const MOST: u64 = 1 << 52;
/// The end of the year 9999, in seconds since 1970.
const LATEST: f64 = 253_402_300_799.0;
/// Replaces an impossible amount.
const IMPOSSIBLE: u64 = u64::MAX;

/// The type of a line.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LineKind {
    /// A measurement at a point in time.
    #[default]
    Sample,
    /// The last line of a watch.
    Summary,
}

/// A sample.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Line {
    /// [`SCHEMA`].
    pub schema: u32,
    /// The type of this line.
    #[serde(rename = "type")]
    pub kind: LineKind,
    /// The wall-clock time, which may be changed at any moment.
    pub unix_seconds: Option<f64>,
    /// Seconds since the first sample of this watch, on a monotonic clock.
    pub seconds: Option<f64>,
    /// The boot during which it was taken (`/proc/sys/kernel/random/boot_id`).
    pub boot_id: Option<String>,
    /// The unit, or `process PID`.
    #[serde(deserialize_with = "text_or_null")]
    pub service: String,
    /// The workers, the oldest first, then the other processes.
    pub processes: Vec<ProcessSample>,
    /// Workers alive; 0: the service is down.
    #[serde(deserialize_with = "amount")]
    pub workers: u64,
    /// The memory of all processes in bytes.
    #[serde(deserialize_with = "amount")]
    pub memory: u64,
    /// The kind of memory: `pss`, or `rss` if PSS cannot be read.
    #[serde(deserialize_with = "text_or_null")]
    pub memory_is: String,
    /// The maximum of `memory` so far.
    #[serde(deserialize_with = "amount")]
    pub memory_peak: u64,
    /// Bytes that the service may use; 0: unknown.
    #[serde(deserialize_with = "limit")]
    pub memory_limit: u64,
    /// The source of that limit.
    #[serde(deserialize_with = "text_or_null")]
    pub memory_limit_source: String,
    /// Memory that the host could still give to programs, in bytes (MemAvailable in proc_meminfo(5)).
    #[serde(deserialize_with = "amount_or_null")]
    pub memory_available: Option<u64>,
    /// Bytes charged to the service's cgroup, including page cache.
    #[serde(deserialize_with = "amount_or_null")]
    pub cgroup_memory: Option<u64>,
    /// The maximum that was ever charged to it.
    #[serde(deserialize_with = "amount_or_null")]
    pub cgroup_memory_peak: Option<u64>,
    /// Milli-CPUs used since the previous sample.
    #[serde(deserialize_with = "amount")]
    pub cpu_milli: u64,
    /// Milli-CPUs that the service may use; 0: unknown.
    #[serde(deserialize_with = "amount")]
    pub cpu_milli_limit: u64,
    /// Idle milli-CPUs of the CPUs that the service may run on.
    #[serde(deserialize_with = "amount_or_null")]
    pub idle_milli: Option<u64>,
    /// Percentage of the time in which some task waited for memory (PSI).
    pub pressure_memory_percent: Option<f64>,
    /// Percentage of the time in which some task waited for a CPU (PSI).
    pub pressure_cpu_percent: Option<f64>,
    /// Percentage of the time in which the CPU quota throttled the service.
    pub throttled_percent: Option<f64>,
    /// Connections waiting to be accepted, on all listening sockets of the service.
    #[serde(deserialize_with = "amount_or_null")]
    pub accept_queue: Option<u64>,
    /// Connections dropped because a queue was full, in the service's network namespace, while watched.
    #[serde(deserialize_with = "amount_or_null")]
    pub listen_drops: Option<u64>,
    /// Processes in the service's cgroup that were killed because memory ran out, while watched.
    #[serde(deserialize_with = "amount")]
    pub oom_kills: u64,
    /// Workers replaced under the same parent (with one worker: by systemd's automatic restart), while watched.
    #[serde(deserialize_with = "amount")]
    pub recycles: u64,
    /// Other restarts of the service, while watched.
    #[serde(deserialize_with = "amount")]
    pub restarts: u64,
    /// The number of automatic restarts that systemd has counted (NRestarts).
    #[serde(deserialize_with = "amount_or_null")]
    pub automatic_restarts: Option<u64>,
    /// The recycle limit in effect; 0: never.
    #[serde(deserialize_with = "amount_or_null")]
    pub limit_max_requests: Option<u64>,
    /// The CPU use of `watch` itself, in percent of one CPU; null until it can be measured.
    pub cost_percent: Option<f64>,
}

/// A process in a sample.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ProcessSample {
    /// The process ID.
    #[serde(deserialize_with = "amount")]
    pub pid: u64,
    /// The role of the process.
    pub role: Role,
    /// Seconds since it started.
    pub age_seconds: f64,
    /// Resident memory in bytes.
    #[serde(deserialize_with = "amount")]
    pub rss: u64,
    /// Proportional set size in bytes, as last read.
    #[serde(deserialize_with = "amount_or_null")]
    pub pss: Option<u64>,
    /// Unique set size in bytes, as last read.
    #[serde(deserialize_with = "amount_or_null")]
    pub uss: Option<u64>,
    /// The maximum resident memory (VmHWM in proc_pid_status(5)); workers only.
    #[serde(deserialize_with = "amount_or_null")]
    pub peak_rss: Option<u64>,
    /// CPU use since the previous sample, in percent of one CPU.
    pub cpu_percent: Option<f64>,
    /// CPU time since it started, in milliseconds.
    #[serde(deserialize_with = "amount_or_null")]
    pub cpu_ms: Option<u64>,
    /// Growth of a worker.
    pub growth_per_hour: Option<ByteInterval>,
}

/// Bytes, per hour or in a life, with the bounds of the 95% confidence interval; null: unknown.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ByteInterval {
    /// The estimate.
    pub bytes: Option<f64>,
    /// The lower bound.
    pub low: Option<f64>,
    /// The upper bound.
    pub high: Option<f64>,
}

impl ProcessSample {
    fn is_possible(&self) -> bool {
        let optional = [self.pss, self.uss, self.peak_rss, self.cpu_ms];
        [self.pid, self.rss].iter().chain(optional.iter().flatten()).all(|amount| *amount <= MOST)
            // It may have started in the second after its age was computed.
            && (-10.0..=LATEST).contains(&self.age_seconds)
            && self.cpu_percent.is_none_or(|percent| (0.0..=1e9).contains(&percent))
    }

    /// Its contribution to the service's memory: PSS if known, otherwise RSS.
    pub fn memory(&self) -> u64 {
        self.pss.unwrap_or(self.rss)
    }
}

impl Line {
    /// The line of JSON, without a line feed.
    pub fn to_json(&self) -> String {
        serde_json::to_string(self).unwrap_or_default()
    }

    /// The workers.
    pub fn workers(&self) -> impl Iterator<Item = &ProcessSample> {
        self.processes.iter().filter(|process| process.role == Role::Worker)
    }

    /// Whether all amounts are possible on a real machine.
    fn is_possible(&self) -> bool {
        let amounts = [
            self.workers,
            self.memory,
            self.memory_peak,
            self.memory_limit,
            self.cpu_milli,
            self.cpu_milli_limit,
            self.oom_kills,
            self.recycles,
            self.restarts,
        ];
        let optional = [
            self.memory_available,
            self.cgroup_memory,
            self.cgroup_memory_peak,
            self.idle_milli,
            self.accept_queue,
            self.listen_drops,
            self.automatic_restarts,
            self.limit_max_requests,
        ];
        let times = [self.unix_seconds, self.seconds];
        let parts = [self.pressure_memory_percent, self.pressure_cpu_percent, self.throttled_percent];
        amounts.iter().chain(optional.iter().flatten()).all(|amount| *amount <= MOST)
            && times.iter().flatten().all(|seconds| (0.0..=LATEST).contains(seconds))
            && parts.iter().flatten().all(|percent| (0.0..=number(MOST)).contains(percent))
            && self.processes.iter().all(ProcessSample::is_possible)
    }

    /// `Err`: this is not a sample in this schema, and why.
    pub fn parse(text: &[u8]) -> Result<Self, Unreadable> {
        #[derive(Deserialize)]
        struct Head {
            #[serde(default = "schema_1")]
            schema: f64,
            #[serde(rename = "type", default)]
            kind: Option<String>,
        }
        fn schema_1() -> f64 {
            1.0
        }
        let why_not = |error: serde_json::Error| {
            if error.is_data() { Unreadable::NotASample } else { Unreadable::NotJson }
        };
        let head: Head = serde_json::from_slice(text).map_err(why_not)?;
        if to_u64(head.schema) != u64::from(SCHEMA) {
            return Err(Unreadable::Schema(to_u64(head.schema)));
        }
        match head.kind.as_deref() {
            Some("sample") => {}
            Some("summary") => return Err(Unreadable::Summary),
            _ => return Err(Unreadable::NotASample),
        }
        let mut line: Self = serde_json::from_slice(text).map_err(|_| Unreadable::NotASample)?;
        if !line.is_possible() {
            return Err(Unreadable::Impossible);
        }
        line.processes.truncate(MAX_PROCESSES);
        line.service.truncate(line.service.floor_char_boundary(255));
        Ok(line)
    }
}

/// Why a line is not a sample.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unreadable {
    /// Incomplete, or not JSON.
    NotJson,
    /// JSON with a different content.
    NotASample,
    /// An amount is negative, or impossibly large.
    Impossible,
    /// An unknown schema.
    Schema(u64),
    /// The last line of a watch, which only summarizes its samples.
    Summary,
}

/// A count that may be written with a fraction; null is 0.
fn amount<'de, D: Deserializer<'de>>(from: D) -> Result<u64, D::Error> {
    Ok(amount_or_null(from)?.unwrap_or(0))
}

fn amount_or_null<'de, D: Deserializer<'de>>(from: D) -> Result<Option<u64>, D::Error> {
    let amount = Option::<f64>::deserialize(from)?;
    Ok(amount.map(|amount| if (0.0..=number(MOST)).contains(&amount) { to_u64(amount) } else { IMPOSSIBLE }))
}

/// Ignores a limit that no machine reaches, such as the default of memory.limit_in_bytes in cgroup version 1.
fn limit<'de, D: Deserializer<'de>>(from: D) -> Result<u64, D::Error> {
    let limit = Option::<f64>::deserialize(from)?.unwrap_or(0.0);
    Ok(if limit < 0.0 { IMPOSSIBLE } else { Some(to_u64(limit)).filter(|limit| *limit <= MOST).unwrap_or(0) })
}

fn text_or_null<'de, D: Deserializer<'de>>(from: D) -> Result<String, D::Error> {
    Ok(Option::<String>::deserialize(from)?.unwrap_or_default())
}

/// Rounds to `decimals`, so that JSON has only as many digits as were measured.
pub fn rounded(number: f64, decimals: i32) -> f64 {
    let scale = 10f64.powi(decimals);
    let rounded = (number * scale).round() / scale;
    if rounded.is_finite() { rounded } else { number }
}

#[cfg(test)]
mod tests {
    use super::{Line, Role, Unreadable};

    #[test]
    fn a_line_of_0_1_0_and_one_with_fractions() {
        let line = br#"{"schema":1,"type":"sample","unix_seconds":1764200000.5,"seconds":2.0,"service":"pypnm.service",
            "processes":[{"pid":7,"role":"worker","age_seconds":9.5,"rss":246415360.0,"pss":null,"uss":null,
            "peak_rss":1,"cpu_percent":12.5,"growth_per_hour":null},{"pid":1,"role":"something","rss":5}],
            "workers":1,"memory":null,"memory_is":null,"memory_limit":9.2e18,"limit_max_requests":2000,"new_field":{"a":[1]}}"#;
        let line = Line::parse(line).unwrap_or_else(|error| panic!("{error:?}"));
        assert_eq!((line.seconds, line.memory, line.accept_queue), (Some(2.0), 0, None));
        assert_eq!(line.memory_limit, 0, "no limit");
        assert_eq!((line.processes.len(), line.workers().count()), (2, 1));
        assert_eq!(line.processes.first().map(|p| (p.rss, p.cpu_ms)), Some((246_415_360, None)));
        assert_eq!(line.processes.last().map(|p| p.role), Some(Role::Other));
        assert_eq!(Line::parse(line.to_json().as_bytes()), Ok(line));
    }

    #[test]
    fn lines_that_are_not_samples_are_rejected() {
        let cases: [(&str, Unreadable); 13] = [
            ("", Unreadable::NotJson),
            (r#"{"schema":1,"type":"sam"#, Unreadable::NotJson),
            ("[1]", Unreadable::NotASample),
            (r#"{"schema":3,"type":"sample"}"#, Unreadable::Schema(3)),
            (r#"{"schema":1,"type":"summary"}"#, Unreadable::Summary),
            (r#"{"schema":1,"verb":"show"}"#, Unreadable::NotASample),
            (r#"{"schema":1,"type":"sample","workers":"four"}"#, Unreadable::NotASample),
            (r#"{"schema":1,"type":"sample","memory":-4}"#, Unreadable::Impossible),
            (r#"{"schema":1,"type":"sample","memory":1e23}"#, Unreadable::Impossible),
            (r#"{"schema":1,"type":"sample","seconds":1e300}"#, Unreadable::Impossible),
            (
                r#"{"schema":1,"type":"sample","processes":[{"peak_rss":18446744073709551615}]}"#,
                Unreadable::Impossible,
            ),
            (r#"{"schema":1,"type":"sample","processes":[{"cpu_percent":-1}]}"#, Unreadable::Impossible),
            (r#"{"schema":1,"type":"sample","memory_limit":-1}"#, Unreadable::Impossible),
        ];
        for (text, why) in cases {
            assert_eq!(Line::parse(text.as_bytes()), Err(why), "{text}");
        }
    }
}
