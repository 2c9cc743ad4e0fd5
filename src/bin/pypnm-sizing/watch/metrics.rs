//! The last sample in Prometheus' text format, for the textfile collector of node_exporter. The file is replaced
//! atomically, and removed at the end, so that the last sample is not mistaken for a current one.

use std::fmt::Write as _;
use std::path::Path;

use pypnm_sizing::policy::Profile;
use pypnm_sizing::watch::evidence::Evidence;
use pypnm_sizing::watch::line::{Line, ProcessSample, rounded};
use pypnm_sizing::watch::number;
use pypnm_sizing::write::{Directory, WriteError};

/// Replaces the file with the metrics of the last sample. `profile`: the profile that fits now.
pub(super) fn write(path: &Path, evidence: &Evidence, profile: Option<Profile>) -> Result<(), WriteError> {
    let (directory, name) = Directory::open_for(path)?;
    directory.replace(name, &text(evidence.last(), evidence, profile))
}

/// Removes the file.
pub(super) fn remove(path: &Path) {
    // If this fails, the age of the sample still shows that it is not current.
    let _ = Directory::open_for(path).and_then(|(directory, name)| directory.remove(name));
}

/// The metrics: name, type, help, value.
fn text(line: &Line, evidence: &Evidence, profile: Option<Profile>) -> String {
    let amount = |value: Option<u64>| value.map(number);
    let part = |percent: Option<f64>| percent.map(|percent| rounded(percent / 100.0, 4));
    let limit = |limit: u64| (limit > 0).then(|| number(limit));
    let largest = line.workers().map(ProcessSample::memory).max();
    let epoch = evidence.epoch();
    let growth = evidence.workers.iter().filter_map(|life| life.growth.as_ref());
    let steepest =
        growth.map(|growth| if growth.lasting { growth.per_second.max(0.0) } else { 0.0 }).reduce(f64::max);
    let drift =
        profile.map(|profile| u8::from(line.workers > 0 && u64::from(profile.workers) != line.workers));
    #[rustfmt::skip]
    let metrics: [(&str, &str, &str, Option<f64>); 24] = [
        ("pypnm_up", "gauge", "Whether any worker is alive.", Some(f64::from(u8::from(line.workers > 0)))),
        ("pypnm_workers", "gauge", "Workers alive.", Some(number(line.workers))),
        ("pypnm_memory_bytes", "gauge", "Memory of all processes of the service, shared pages counted once.", Some(number(line.memory))),
        ("pypnm_memory_peak_bytes", "gauge", "The highest pypnm_memory_bytes since the watch began.", Some(number(line.memory_peak))),
        ("pypnm_memory_limit_bytes", "gauge", "Memory that the service may use.", limit(line.memory_limit)),
        ("pypnm_worker_memory_max_bytes", "gauge", "Memory of the largest worker.", amount(largest)),
        ("pypnm_worker_growth_bytes_per_second", "gauge", "Sustained growth of the worker that grows fastest.", steepest.map(|growth| rounded(growth, 1))),
        ("pypnm_cpu_used_cpus", "gauge", "CPUs used since the previous sample.", Some(rounded(number(line.cpu_milli) / 1000.0, 3))),
        ("pypnm_cpu_limit_cpus", "gauge", "CPUs that the service may use.", limit(line.cpu_milli_limit).map(|milli| milli / 1000.0)),
        ("pypnm_workers_busy_ratio", "gauge", "Fraction of a CPU that a worker uses on average.", busy(line)),
        ("pypnm_accept_queue_connections", "gauge", "Connections waiting to be accepted.", amount(line.accept_queue)),
        ("pypnm_listen_drops_total", "counter", "Connections dropped because of full queues since the watch began.", amount(line.listen_drops)),
        ("pypnm_memory_pressure_ratio", "gauge", "Fraction of the time in which some task waited for memory.", part(line.pressure_memory_percent)),
        ("pypnm_cpu_pressure_ratio", "gauge", "Fraction of the time in which some task waited for a CPU.", part(line.pressure_cpu_percent)),
        ("pypnm_cpu_throttled_ratio", "gauge", "Fraction of the time in which the CPU quota throttled the service.", part(line.throttled_percent)),
        ("pypnm_oom_kills_total", "counter", "Processes killed because memory ran out, since the watch began.", Some(number(line.oom_kills))),
        ("pypnm_worker_recycles_total", "counter", "Workers replaced since the watch began.", Some(number(line.recycles))),
        ("pypnm_service_restarts_total", "counter", "Restarts of the service since the watch began.", Some(number(line.restarts))),
        ("pypnm_host_memory_available_bytes", "gauge", "Memory that the host could still give to programs.", amount(line.memory_available)),
        ("pypnm_sizing_workers", "gauge", "Number of workers that fits the machine now.", profile.map(|profile| f64::from(profile.workers))),
        ("pypnm_sizing_limit_max_requests", "gauge", "Recycle limit that fits the machine now.", profile.map(|profile| f64::from(profile.limit_max_requests))),
        ("pypnm_sizing_drift", "gauge", "Whether the number of workers alive differs from the number that fits the machine.", drift.map(f64::from)),
        ("pypnm_sizing_busiest_waiting_ratio", "gauge", "Fraction of the busiest ten minutes in which requests waited for a worker.", epoch.busiest.map(|(part, _, _)| rounded(part, 3))),
        ("pypnm_sizing_sample_timestamp_seconds", "gauge", "When the sample was taken, in seconds since 1970.", line.unix_seconds),
    ];
    let unit: String = line.service.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
    let mut text = String::new();
    for (name, kind, help, value) in metrics {
        if let Some(value) = value {
            let _ = write!(
                text,
                "# HELP {name} {help}\n# TYPE {name} {kind}\n{name}{{unit=\"{unit}\"}} {value}\n"
            );
        }
    }
    text
}

fn busy(line: &Line) -> Option<f64> {
    let used: Vec<f64> = line.workers().filter_map(|worker| worker.cpu_percent).collect();
    (!used.is_empty()).then(|| rounded(used.iter().sum::<f64>() / number(used.len() as u64) / 100.0, 4))
}

#[cfg(test)]
mod tests {
    use super::{Evidence, Line, text};

    /// The files for Prometheus and Grafana.
    const RULES: &str = include_str!("../../../../packaging/monitoring/pypnm.rules.yml");
    const DASHBOARD: &str = include_str!("../../../../packaging/monitoring/pypnm.dashboard.json");
    const DOCUMENTATION: &str = include_str!("../../../../docs/monitoring.md");

    /// The words in a text that begin like our metrics.
    fn metrics_in(text: &str) -> std::collections::BTreeSet<&str> {
        let words = text.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_'));
        words.filter(|word| word.starts_with("pypnm_")).collect()
    }

    #[test]
    fn rules_and_dashboard_name_what_is_exported_and_the_documentation_names_all_of_it() {
        let source = include_str!("metrics.rs");
        let table = source.split_once("let metrics: [").and_then(|(_, rest)| rest.split_once("\n    ];"));
        let exported = metrics_in(table.map(|(table, _)| table).unwrap_or_default());
        assert_eq!(exported.len(), 24);
        for (name, text) in [("rules", RULES), ("dashboard", DASHBOARD)] {
            let unknown: Vec<_> = metrics_in(text).difference(&exported).copied().collect();
            assert!(unknown.is_empty(), "{name}: {unknown:?}");
        }
        let mut documented = metrics_in(DOCUMENTATION);
        // A variable in the example for Icinga.
        documented.remove("pypnm_unit");
        let difference: Vec<_> = exported.symmetric_difference(&documented).collect();
        assert!(difference.is_empty(), "docs/monitoring.md: {difference:?}");
    }

    #[test]
    fn every_metric_is_described_once_and_names_its_unit() {
        let line = Line { service: "a\"b.service".into(), accept_queue: Some(3), ..Line::default() };
        let text = text(&line, &Evidence::new(600.0), None);
        assert!(text.contains("pypnm_accept_queue_connections{unit=\"a\\\"b.service\"} 3\n"), "{text}");
        assert!(text.contains("pypnm_up{unit=\"a\\\"b.service\"} 0\n"), "{text}");
        assert!(!text.contains("pypnm_memory_limit_bytes"), "what is unknown is left out");
        let described = text.lines().filter(|line| line.starts_with("# HELP")).count();
        assert_eq!(described, text.lines().filter(|line| !line.starts_with('#')).count());
    }
}
