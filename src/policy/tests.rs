use super::{GB, LimitStep, PolicySettings, Profile, WorkersStep, profile};

/// Workers and recycle limit by the defaults.
fn sized(cpus: u64, memory: u64) -> (u32, u32) {
    let Profile { workers, limit_max_requests, .. } = profile(cpus, memory, &PolicySettings::default());
    (workers, limit_max_requests)
}

// The guide's seven rows, each with the memory that the guide names and with the MemTotal that such a machine
// really reports (kernel 6.12 in QEMU, kB).

#[test]
fn row_1_small_lab_vm_2_cores_4_gb() {
    assert_eq!(sized(2, 4 * GB), (1, 1000));
    assert_eq!(sized(2, 4_016_576 * 1024), (1, 1000));
}

#[test]
fn row_2_small_production_node_2_cores_8_gb() {
    assert_eq!(sized(2, 8 * GB), (2, 1000));
    assert_eq!(sized(2, 8_139_200 * 1024), (2, 1000));
}

#[test]
fn row_3_balanced_node_4_cores_8_gb() {
    assert_eq!(sized(4, 8 * GB), (2, 2000));
    assert_eq!(sized(4, 8_139_200 * 1024), (2, 2000));
    let by = profile(4, 8 * GB, &PolicySettings::default()).workers_step;
    assert_eq!(by, WorkersStep::Memory, "CPU allows 4, but memory is the limiter");
}

#[test]
fn row_4_standard_production_node_4_cores_16_gb() {
    assert_eq!(sized(4, 16 * GB), (4, 2000));
    assert_eq!(sized(4, 16_383_912 * 1024), (4, 2000));
}

#[test]
fn row_5_larger_analysis_node_8_cores_16_gb() {
    assert_eq!(sized(8, 16 * GB), (4, 2000));
    assert_eq!(sized(8, 16_383_912 * 1024), (4, 2000));
}

#[test]
fn row_6_larger_production_node_8_cores_32_gb() {
    assert_eq!(sized(8, 32 * GB), (4, 2000));
    assert_eq!(sized(8, 32_873_276 * 1024), (4, 2000));
}

#[test]
fn row_7_high_capacity_node_16_cores_64_gb() {
    assert_eq!(sized(16, 64 * GB), (4, 2000));
    assert_eq!(sized(16, 65_852_000 * 1024), (4, 2000));
    let proven = PolicySettings { max_workers: 8, ..PolicySettings::default() };
    assert_eq!(profile(16, 64 * GB, &proven).workers, 8, "only above 4 when concurrency is proven");
}

#[test]
fn the_guardrails_are_seamless_and_end_at_the_most_workers() {
    let [first, second, third, last] = super::GUARDRAILS;
    for (lower, upper) in [(first, second), (second, third), (third, last)] {
        assert_eq!(lower.below, Some(upper.from));
    }
    assert_eq!((first.from, last.below, last.workers), (0, None, super::GUIDE_MAX_WORKERS));
}

// Both sides of each of the guide's four guardrails; CPUs and MaxWorkers are no limit.

fn by_memory(memory: u64) -> u32 {
    profile(1024, memory, &PolicySettings { max_workers: 1024, ..PolicySettings::default() }).workers
}

#[test]
fn guardrail_under_6_gb_1_worker() {
    assert_eq!(by_memory(0), 1);
    assert_eq!(by_memory(6 * GB - 1), 1);
}

#[test]
fn guardrail_6_to_12_gb_at_most_2_workers() {
    assert_eq!(by_memory(6 * GB), 2);
    assert_eq!(by_memory(12 * GB - 1), 2);
    assert_eq!(sized(1, 8 * GB).0, 1, "at most: one CPU still gets one");
}

#[test]
fn guardrail_12_to_24_gb_at_most_4_workers() {
    assert_eq!(by_memory(12 * GB), 4);
    assert_eq!(by_memory(24 * GB - 1), 4);
}

#[test]
fn guardrail_above_24_gb_4_and_more_only_when_proven() {
    assert_eq!(sized(1024, 24 * GB), (4, 2000));
    assert_eq!(by_memory(24 * GB), 8);
    assert_eq!(by_memory(u64::MAX), 8, "an absolute cap stays");
}

#[test]
fn a_machine_sold_with_6_gb_is_a_6_gb_machine() {
    assert_eq!(sized(4, 6_081_740 * 1024).0, 2, "5.8 GiB is 6.2 GB");
}

#[test]
fn the_recycle_limit() {
    assert_eq!(sized(64, 6 * GB - 1).1, 1000);
    assert_eq!(sized(2, 6 * GB).1, 1000);
    assert_eq!(sized(3, 6 * GB).1, 2000);
    assert_eq!(sized(2, 12 * GB - 1).1, 1000);
    assert_eq!(sized(2, 12 * GB).1, 2000);
    let creep = PolicySettings { investigate_memory_creep: true, ..PolicySettings::default() };
    assert_eq!(profile(8, 32 * GB, &creep).limit_max_requests, 1000);
    assert_eq!(profile(8, 32 * GB, &creep).limit_step, LimitStep::MemoryCreep);
}

#[test]
fn nothing_known_is_the_safest_low_memory_baseline() {
    assert_eq!(sized(0, 0), (1, 1000));
    assert_eq!(sized(64, 0), (1, 1000));
    assert_eq!(sized(0, 64 * GB), (1, 2000));
}

#[test]
fn settings_of_the_operator() {
    let own = PolicySettings { workers: Some(6), limit_max_requests: Some(0), ..PolicySettings::default() };
    let got = profile(1, GB, &own);
    assert_eq!((got.workers, got.workers_step), (6, WorkersStep::Operator));
    assert_eq!((got.limit_max_requests, got.limit_step), (0, LimitStep::Operator));
    assert_eq!((got.cpu_target, got.guardrail.workers), (1, 1), "the targets remain visible");
    let per_worker = PolicySettings { memory_per_worker: Some(6 * GB), ..PolicySettings::default() };
    let got = profile(8, 16 * GB, &per_worker);
    assert_eq!((got.workers, got.workers_step), (2, WorkersStep::MemoryPerWorker));
    assert_eq!(profile(8, GB, &per_worker).workers, 1);
    let cap = PolicySettings { max_workers: 3, ..PolicySettings::default() };
    assert_eq!(profile(8, 64 * GB, &cap).workers_step, WorkersStep::MaxWorkers);
    assert_eq!(profile(2, 64 * GB, &cap).workers_step, WorkersStep::Cpus);
}

/// Every number of CPUs from 1 to 1024, combined with memory from nothing to 64 TiB and with both sides of every
/// guardrail: never 0 workers, never more than a maximum, and never fewer workers with more of a resource.
#[test]
fn property_bounded_and_monotone_in_both() {
    let mut memories: Vec<u64> = (0..=160).map(|half| half * GB / 2).collect();
    for edge in [6, 12, 24] {
        memories.extend([edge * GB - 1, edge * GB, edge * GB + 1]);
    }
    memories.extend([1 << 40, 64 << 40, u64::MAX]);
    memories.sort_unstable();
    for max_workers in [1, 2, 4, 8, 1024] {
        let settings = PolicySettings { max_workers, ..PolicySettings::default() };
        let mut fewer_cpus = vec![0; memories.len()];
        for cpus in 1..=1024 {
            let mut less_memory = 0;
            for (memory, fewer) in memories.iter().zip(&mut fewer_cpus) {
                let got = profile(cpus, *memory, &settings);
                assert!((1..=max_workers.min(8)).contains(&got.workers), "{cpus} {memory} {got:?}");
                assert!(u64::from(got.workers) <= cpus, "{cpus} {memory} {got:?}");
                assert!(matches!(got.limit_max_requests, 1000 | 2000), "{cpus} {memory} {got:?}");
                assert!(got.workers >= less_memory, "monotone in memory: {cpus} {memory}");
                assert!(got.workers >= *fewer, "monotone in CPUs: {cpus} {memory}");
                less_memory = got.workers;
                *fewer = got.workers;
            }
        }
    }
}

#[test]
fn the_step_if_several_targets_are_the_lowest() {
    let with = |cpus, memory, per_worker| {
        let settings = PolicySettings { memory_per_worker: Some(per_worker), ..PolicySettings::default() };
        let profile = profile(cpus, memory, &settings);
        (profile.lowest_target, profile.workers_step)
    };
    assert_eq!(
        with(2, 32 * GB, 16 * GB),
        (2, WorkersStep::Cpus),
        "as many by MemoryPerWorker= as by the CPUs"
    );
    assert_eq!(with(4, 32 * GB, 16 * GB), (2, WorkersStep::MemoryPerWorker));
    assert_eq!(with(4, 8 * GB, 4 * GB), (2, WorkersStep::Memory), "as many as by the guardrail");
    assert_eq!(with(2, 8 * GB, GB), (2, WorkersStep::Cpus), "as many by the guardrail as by the CPUs");
    let by_hand = PolicySettings { workers: Some(7), ..PolicySettings::default() };
    assert_eq!(profile(3, 32 * GB, &by_hand).lowest_target, 3, "whatever the operator sets");
}
