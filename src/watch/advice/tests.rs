use super::super::evidence::{BLOCK, Evidence};
use super::super::line::{Line, ProcessSample};
use super::super::role::Role;
use super::super::{MIB, number, to_u64};
use super::{Advice, AdviceTopic, PresentSizing, drop_in, findings};
use crate::policy::PolicySettings;

/// A simulated service in which all workers behave in the same way.
struct Feed {
    workers: u64,
    cpus: u64,
    memory: u64,
    cpu: f64,
    idle: u64,
    stalled: f64,
    /// Bytes per second.
    growth: f64,
    /// Seconds after which a worker is recycled; 0: never.
    life: f64,
    base: u64,
    at: f64,
    evidence: Evidence,
}

impl Feed {
    fn new(workers: u64, cpus: u64, gib: u64) -> Self {
        let (memory, idle) = (gib << 30, cpus * 1000);
        Self {
            workers,
            cpus,
            memory,
            cpu: 0.1,
            idle,
            stalled: 0.0,
            growth: 0.0,
            life: 0.0,
            base: 200 * MIB,
            at: 0.0,
            evidence: Evidence::new(BLOCK),
        }
    }

    fn run(mut self, hours: f64) -> Self {
        for _ in 0..to_u64(hours * 360.0) {
            self.at += 10.0;
            let worker = |n: u64| {
                let (generation, age) = if self.life > 0.0 {
                    let lived = self.at + number(n) * self.life / number(self.workers);
                    (to_u64((lived / self.life).floor()), lived % self.life)
                } else {
                    (0, self.at + 500.0)
                };
                let jitter = (self.at * 7919.0 + number(n) * 104_729.0) % 65_536.0;
                ProcessSample {
                    pid: 100 + n * 1000 + generation,
                    role: Role::Worker,
                    age_seconds: age,
                    rss: self.base + to_u64(self.growth * age + jitter),
                    cpu_percent: Some(self.cpu),
                    cpu_ms: Some(to_u64(self.cpu * age * 10.0)),
                    ..ProcessSample::default()
                }
            };
            let parent = ProcessSample {
                pid: 1,
                role: Role::Parent,
                age_seconds: self.at + 900.0,
                ..ProcessSample::default()
            };
            let processes: Vec<ProcessSample> =
                std::iter::once(parent).chain((0..self.workers).map(worker)).collect();
            let line = Line {
                workers: self.workers,
                memory: processes.iter().map(ProcessSample::memory).sum(),
                memory_limit: self.memory,
                cpu_milli: to_u64(self.cpu * 10.0) * self.workers,
                cpu_milli_limit: self.cpus * 1000,
                idle_milli: Some(self.idle),
                pressure_memory_percent: Some(self.stalled),
                processes,
                ..Line::default()
            };
            let elapsed = if self.at > 10.0 { 10.0 } else { 0.0 };
            self.evidence.take(line, self.at, elapsed);
        }
        self
    }

    fn setup(&self) -> PresentSizing {
        let settings = PolicySettings::default();
        PresentSizing { cpus: self.cpus, memory: self.memory, settings, limit_max_requests: Some(2000) }
    }

    fn found(&self) -> Vec<Advice> {
        findings(&self.evidence, Some(&self.setup()), None)
    }

    fn found_with(&self, settings: PolicySettings) -> Vec<Advice> {
        findings(&self.evidence, Some(&PresentSizing { settings, ..self.setup() }), None)
    }
}

/// The settings that are advised.
fn lines(found: &[Advice]) -> Vec<&str> {
    found.iter().filter_map(|finding| finding.line.as_deref()).collect()
}

fn reason(found: &[Advice], topic: AdviceTopic) -> String {
    let reasons: Vec<&str> = found.iter().filter(|f| f.topic == topic).map(|f| f.reason.as_str()).collect();
    reasons.join("; ")
}

fn busy(workers: u64, cpus: u64, gib: u64, idle: u64) -> Feed {
    Feed { cpu: 95.0, idle, ..Feed::new(workers, cpus, gib) }.run(1.0)
}

#[test]
fn nothing_is_advised_without_enough_evidence() {
    let feed = Feed { cpu: 99.0, ..Feed::new(4, 8, 32) }.run(0.1);
    let found = feed.found();
    assert!(lines(&found).is_empty());
    assert_eq!(reason(&found, AdviceTopic::Evidence), "not enough evidence yet: 6 min of 10 min");
}

#[test]
fn nothing_is_advised_for_idle_workers() {
    let found = Feed::new(4, 8, 32).run(2.0).found();
    assert!(lines(&found).is_empty(), "{found:?}");
    assert!(reason(&found, AdviceTopic::MemoryPerWorker).contains("idle"), "{found:?}");
    assert!(reason(&found, AdviceTopic::Growth).starts_with("no lasting growth"), "{found:?}");
    assert!(reason(&found, AdviceTopic::Workers).contains("no need for more"), "{found:?}");
}

#[test]
fn observed_and_inferred_waiting_are_worded_differently() {
    let found = Feed { cpu: 30.0, ..Feed::new(4, 8, 32) }.run(1.0).found();
    let reason_of = |found: &[Advice]| reason(found, AdviceTopic::Workers);
    assert!(
        reason_of(&found)
            .starts_with("judging by the workers' CPU use, requests waited for a worker during 4%"),
        "{found:?}"
    );
    let found = busy(4, 16, 64, 12_000).found();
    assert!(reason_of(&found).starts_with("requests waited for a worker during 100%"), "{found:?}");
}

#[test]
fn saturated_workers_get_as_many_more_as_fit() {
    let found = busy(4, 16, 64, 12_000).found();
    assert_eq!(lines(&found), ["MaxWorkers=8"]);
    // With two idle CPUs, two more workers fit; without, none does.
    assert_eq!(lines(&busy(4, 8, 32, 2100).found()), ["MaxWorkers=6"]);
    let found = busy(4, 16, 64, 400).found();
    assert!(
        lines(&found).is_empty()
            && reason(&found, AdviceTopic::Workers).ends_with("no room for another worker")
    );
    // CPUs are idle, but there is no memory.
    let tight = Feed { cpu: 95.0, idle: 12_000, base: 7 << 30, ..Feed::new(4, 16, 32) }.run(1.0);
    assert!(lines(&tight.found()).is_empty(), "{:?}", tight.found());
}

#[test]
fn advice_respects_the_guardrail_and_the_operators_settings() {
    let found = busy(2, 4, 8, 2000).found();
    assert!(lines(&found).is_empty(), "{found:?}");
    assert!(
        reason(&found, AdviceTopic::Workers).contains("the guide gives 2 workers for 8.0 GiB and 4 CPUs")
    );
    let own = PolicySettings { workers: Some(2), ..PolicySettings::default() };
    assert_eq!(lines(&busy(2, 8, 32, 6000).found_with(own)), ["Workers=4"]);
    // The machine has grown, but the service has not been restarted since.
    let found = busy(2, 8, 32, 6000).found();
    assert!(
        reason(&found, AdviceTopic::Workers).contains("the profile already gives 4 workers"),
        "{found:?}"
    );
}

#[test]
fn a_leak_that_recycling_does_not_contain_lowers_the_limit() {
    // 100 MiB in a life of 2000 requests, twice the permitted growth.
    let leak = || Feed { cpu: 30.0, life: 3000.0, growth: number(100 * MIB) / 3000.0, ..Feed::new(4, 8, 32) };
    let feed = leak().run(8.0);
    let found = feed.found();
    assert_eq!(lines(&found), ["InvestigateMemoryCreep=yes"], "{found:?}");
    assert!(reason(&found, AdviceTopic::Growth).contains("50 MiB per 1000 requests"), "{found:?}");
    // A limit of 1000 can only be lowered by an explicit number, and an operator's own limit takes precedence over
    // InvestigateMemoryCreep=.
    let small = PresentSizing { limit_max_requests: Some(1000), ..feed.setup() };
    let line = lines(&findings(&feed.evidence, Some(&small), None)).join("");
    let limit = line.strip_prefix("LimitMaxRequests=").and_then(|limit| limit.parse::<u32>().ok());
    assert!(limit.is_some_and(|limit| (450..=650).contains(&limit)), "{line}");
    let own = PolicySettings { limit_max_requests: Some(2000), ..PolicySettings::default() };
    assert!(lines(&feed.found_with(own)).join("").starts_with("LimitMaxRequests=1"));
    // A fifth of that growth is contained by recycling.
    let found = Feed { growth: number(20 * MIB) / 3000.0, ..leak() }.run(8.0).found();
    assert!(lines(&found).is_empty(), "{found:?}");
    assert!(reason(&found, AdviceTopic::Growth).ends_with("recycling contains it"), "{found:?}");
}

#[test]
fn a_leak_without_observed_recycles_lowers_the_limit() {
    let feed = Feed { growth: number(30 * MIB) / 3600.0, ..Feed::new(4, 8, 32) }.run(3.0);
    let with = |limit| {
        lines(&findings(
            &feed.evidence,
            Some(&PresentSizing { limit_max_requests: limit, ..feed.setup() }),
            None,
        ))
        .join("")
    };
    assert_eq!(with(Some(2000)), "InvestigateMemoryCreep=yes");
    assert_eq!(with(None), "InvestigateMemoryCreep=yes", "the profile's 2000");
    assert_eq!(with(Some(1000)), "LimitMaxRequests=500");
    assert_eq!(with(Some(100)), "", "a lower limit would not help");
    let never = PolicySettings { limit_max_requests: Some(0), ..PolicySettings::default() };
    let setup = PresentSizing { settings: never, limit_max_requests: Some(0), ..feed.setup() };
    let found = findings(&feed.evidence, Some(&setup), None);
    assert_eq!(lines(&found), ["LimitMaxRequests=1000"]);
    assert!(reason(&found, AdviceTopic::Growth).contains("workers are never recycled"), "{found:?}");
    // Configured, but not yet in effect.
    let creep = PolicySettings { investigate_memory_creep: true, ..PolicySettings::default() };
    let found = feed.found_with(creep);
    assert!(
        lines(&found).is_empty()
            && reason(&found, AdviceTopic::Growth).contains("the profile already has 1000")
    );
    // A worker takes more than a week to grow by a quarter.
    let found = Feed { growth: 60.0, ..Feed::new(4, 8, 32) }.run(24.0).found();
    assert!(
        lines(&found).is_empty() && reason(&found, AdviceTopic::Growth).ends_with("too slow to matter"),
        "{found:?}"
    );
}

#[test]
fn memory_lowers_the_profile_only_if_it_does_not_fit() {
    let found = Feed { cpu: 30.0, ..Feed::new(4, 8, 16) }.run(1.0).found();
    assert!(lines(&found).is_empty(), "{found:?}");
    assert!(
        reason(&found, AdviceTopic::MemoryPerWorker).ends_with("memory is enough for 4 workers"),
        "{found:?}"
    );
    let found = Feed { cpu: 30.0, base: 5 << 30, ..Feed::new(4, 8, 16) }.run(1.0).found();
    let line = lines(&found).join(" ");
    assert!(line.starts_with("MaxWorkers=3") || line.starts_with("MemoryPerWorker="), "{found:?}");
}

#[test]
fn pressure_lowers_the_number_of_workers() {
    let found = Feed { stalled: 20.0, cpu: 95.0, ..Feed::new(4, 8, 32) }.run(1.0).found();
    assert_eq!(lines(&found), ["MaxWorkers=3"], "and not for more workers at the same time: {found:?}");
    let found = Feed { stalled: 50.0, ..Feed::new(1, 2, 4) }.run(1.0).found();
    assert!(
        lines(&found).is_empty()
            && reason(&found, AdviceTopic::Workers).contains("one worker is the minimum")
    );
    // Four workers on two busy CPUs.
    let four = Feed { cpu: 50.0, idle: 0, ..Feed::new(4, 2, 24) }.run(1.0);
    let own = PolicySettings { workers: Some(4), ..PolicySettings::default() };
    assert_eq!(lines(&four.found_with(own)), ["Workers=2"]);
    let found = four.found();
    assert!(
        reason(&found, AdviceTopic::Workers).contains("the profile already gives 2 workers"),
        "{found:?}"
    );
}

#[test]
fn crashes_are_reported_and_nothing_is_advised_if_sizing_is_off() {
    let found = Feed { life: 9.0, ..Feed::new(2, 4, 8) }.run(0.5).found();
    assert!(reason(&found, AdviceTopic::Crashes).contains("died within 10 s"), "{found:?}");
    let found = findings(&Feed::new(2, 4, 8).run(1.0).evidence, None, None);
    assert!(lines(&found).is_empty() && reason(&found, AdviceTopic::Evidence).contains("turned off"));
}

#[test]
fn the_drop_in_is_valid_configuration_with_the_advised_settings() {
    let found = busy(4, 16, 64, 12_000).found();
    let text = drop_in(&found, "Sizing", "From `pypnm-sizing watch`: pypnm.service, 1 h.\nReview it.");
    let mut problems = Vec::new();
    let mut config = crate::config::Config::default();
    crate::config::parse_into("/x", text.as_bytes(), &mut config, &mut problems);
    assert!(problems.is_empty(), "{problems:?}\n{text}");
    assert_eq!(config.for_unit("pypnm.service").policy_settings().max_workers, 8, "{text}");
    assert!(text.lines().all(|line| line.chars().count() <= 78), "{text}");
    let nothing = drop_in(&[], "Sizing", "pypnm.service, 13 min");
    assert!(
        nothing.lines().all(|line| line.starts_with('#')) && nothing.ends_with("# No changes recommended.\n")
    );
}
