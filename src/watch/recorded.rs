//! Replays recordings of the real PyPNM under load, made by `tests/watch/run --record`, in recorded/.

use super::advice::{Advice, AdviceTopic, PresentSizing, findings};
use super::evidence::Evidence;
use super::meter::{Bounds, Meter, Reading, Sample, Shares};
use super::role::Role;
use super::{MIB, number};
use crate::policy::PolicySettings;

fn samples(recording: &str) -> Vec<Sample> {
    let samples: Vec<Sample> =
        recording.lines().filter(|line| !line.starts_with('#')).filter_map(sample).collect();
    assert_eq!(samples.len() + 1, recording.lines().count(), "every line is understood");
    samples
}

fn sample(line: &str) -> Option<Sample> {
    let mut fields = line.split('\t');
    Some(Sample {
        at: fields.next()?.parse().ok()?,
        idle_ms: fields.next()?.parse().ok(),
        memory_stall_us: fields.next()?.parse().ok(),
        processes: fields.map(process).collect::<Option<_>>()?,
        ..Sample::default()
    })
}

fn process(field: &str) -> Option<Reading> {
    let words: Vec<&str> = field.split(' ').collect();
    let [pid, role, age, rss, pss, cpu_ms] = words.as_slice() else { return None };
    let roles = [Role::Worker, Role::Parent, Role::Tracker, Role::Other];
    let pss = pss.parse::<u64>().ok()? << 10;
    Some(Reading {
        pid: pid.parse().ok()?,
        started: 1,
        role: roles.into_iter().find(|one| one.word() == *role)?,
        age: age.parse().ok()?,
        rss: rss.parse::<u64>().ok()? << 10,
        shares: Some(Shares { pss, uss: pss }),
        peak: None,
        cpu_ms: cpu_ms.parse().ok()?,
    })
}

/// Evidence on a machine with these CPUs and GiB, with blocks of a few seconds.
struct Replayed {
    evidence: Evidence,
    bounds: Bounds,
}

fn replayed(samples: Vec<Sample>, cpus: u64, gib: u64) -> Replayed {
    let bounds = Bounds { cpu: cpus * 1000, memory: gib << 30 };
    let (mut meter, mut evidence) = (Meter::default(), Evidence::new(3.0));
    for sample in samples {
        let at = sample.at;
        if let Some((line, elapsed)) = meter.line(sample, bounds) {
            evidence.take(line, at, elapsed);
        }
    }
    Replayed { evidence, bounds }
}

/// The settings advised about `topic`, and the reasons.
fn advice_on(replayed: &Replayed, settings: PolicySettings, topic: AdviceTopic) -> (Vec<String>, String) {
    let Bounds { cpu, memory } = replayed.bounds;
    let setup = PresentSizing { cpus: cpu / 1000, memory, settings, limit_max_requests: Some(2000) };
    let found = findings(&replayed.evidence, Some(&setup), None);
    let about: Vec<&Advice> = found.iter().filter(|finding| finding.topic == topic).collect();
    let lines = about.iter().filter_map(|finding| finding.line.clone()).collect();
    (lines, about.iter().map(|finding| finding.reason.as_str()).collect())
}

#[test]
fn a_leak() {
    let seen = replayed(samples(include_str!("recorded/leak.tsv")), 8, 32);
    let truth = number(2 * MIB);
    let growth = seen.evidence.growth().map(|growth| growth.all);
    assert!(
        growth.is_some_and(|all| {
            all.lasting && all.low <= truth && truth <= all.high && (all.per_second / truth - 1.0).abs() < 0.1
        }),
        "{growth:?}"
    );
    assert_eq!(
        advice_on(&seen, PolicySettings::default(), AdviceTopic::Growth).0,
        ["InvestigateMemoryCreep=yes"]
    );
}

#[test]
fn recycles() {
    let recording = include_str!("recorded/recycles.tsv");
    let seen = replayed(samples(recording), 2, 8);
    let died = recording.split(' ').zip(recording.split(' ').skip(1)).find(|(_, next)| *next == "recycled");
    assert_eq!(died.map(|(count, _)| count), Some(seen.evidence.recycles.to_string().as_str()));
    assert_eq!((seen.evidence.restarts, seen.evidence.workers.len()), (0, 2));
}

#[test]
fn four_saturated_workers_on_a_full_machine() {
    let seen = replayed(samples(include_str!("recorded/full.tsv")), 2, 64);
    let (lines, why) = advice_on(
        &seen,
        PolicySettings { workers: Some(4), ..PolicySettings::default() },
        AdviceTopic::Workers,
    );
    assert_eq!(lines, ["Workers=2"], "{why}");
    assert!(why.contains("4 workers only compete for 2 CPUs"), "{why}");
}

/// Four copies of the recorded worker, on a machine with these CPUs, some milli-CPUs of which are idle.
fn fourfold(cpus: u64, idle: u64) -> Replayed {
    let four = |sample: Sample| {
        let worker = sample.processes.iter().find(|process| process.role == Role::Worker).cloned();
        let parent =
            worker.clone().map(|process| Reading { pid: 1, role: Role::Parent, cpu_ms: 0, ..process });
        let workers = (0..4).filter_map(|n| worker.clone().map(|process| Reading { pid: 10 + n, ..process }));
        Sample {
            processes: parent.into_iter().chain(workers).collect(),
            idle_ms: Some(super::to_u64(sample.at * number(idle))),
            ..sample
        }
    };
    let samples = samples(include_str!("recorded/saturated.tsv"));
    replayed(samples.into_iter().map(four).collect(), cpus, 64)
}

#[test]
fn four_saturated_workers_get_more_only_if_cpus_are_idle() {
    let (lines, why) = advice_on(&fourfold(16, 12_000), PolicySettings::default(), AdviceTopic::Workers);
    assert_eq!(lines, ["MaxWorkers=8"], "{why}");
    assert!(why.contains("concurrency demand is proven"), "{why}");
    let (lines, why) = advice_on(&fourfold(16, 300), PolicySettings::default(), AdviceTopic::Workers);
    assert!(lines.is_empty() && why.contains("no room for another worker"), "{lines:?} {why}");
}
