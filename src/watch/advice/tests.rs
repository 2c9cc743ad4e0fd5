use super::super::feed::Feed;
use super::super::ledger::{Bounds, ENOUGH, Ledger};
use super::super::{MIB, number};
use super::{Finding, Setup, Topic, drop_in, findings, wrapped};
use crate::policy::PolicySettings;

fn setup(cpus: u64, gib: u64) -> Setup {
    Setup { cpus, memory: gib << 30, settings: PolicySettings::default(), limit_max_requests: Some(2000) }
}

/// The lines to set.
fn lines(found: &[Finding]) -> Vec<&str> {
    found.iter().filter_map(|finding| finding.line.as_deref()).collect()
}

fn reason(found: &[Finding], topic: Topic) -> String {
    let reasons: Vec<&str> = found.iter().filter(|f| f.topic == topic).map(|f| f.reason.as_str()).collect();
    reasons.join("; ")
}

/// Workers that use a whole CPU each while so many milli-CPUs stay idle.
fn busy(workers: u32, cpus: u64, gib: u64, idle: f64) -> Feed {
    let mut feed = Feed::new(workers, cpus, gib);
    feed.cpu = 95.0;
    feed.idle = idle;
    feed.run(400);
    feed
}

#[test]
fn too_little_evidence_says_so() {
    let mut feed = Feed::new(4, 8, 32);
    feed.cpu = 99.0;
    feed.run(200);
    let found = findings(&feed.ledger, Some(&setup(8, 32)));
    assert!(lines(&found).is_empty());
    assert_eq!(reason(&found, Topic::Evidence), "too little evidence yet: 6 min of 10 min");
}

#[test]
fn idle_workers_are_nothing_to_do() {
    let mut feed = Feed::new(4, 8, 32);
    feed.run(1000);
    let found = findings(&feed.ledger, Some(&setup(8, 32)));
    assert!(lines(&found).is_empty(), "{found:?}");
    assert!(reason(&found, Topic::MemoryPerWorker).contains("idle"), "{found:?}");
    assert!(reason(&found, Topic::Growth).starts_with("no lasting growth"), "{found:?}");
    assert!(reason(&found, Topic::Workers).contains("no demand for more"), "{found:?}");
}

#[test]
fn four_saturated_workers_with_room_prove_demand() {
    let feed = busy(4, 16, 64, 12_000.0);
    let found = findings(&feed.ledger, Some(&setup(16, 64)));
    assert_eq!(lines(&found), ["MaxWorkers=8"]);
    let why = reason(&found, Topic::Workers);
    assert!(why.starts_with("all 4 workers were busy (≥ 70 % of a CPU) in 100 % of 13 min"), "{why}");
    assert!(
        why.contains("12 CPUs and 63.4 GiB stayed free") && why.contains("this gives 8 workers"),
        "{why}"
    );
    // Two CPUs are free: two more.
    let feed = busy(4, 8, 32, 2100.0);
    assert_eq!(lines(&findings(&feed.ledger, Some(&setup(8, 32)))), ["MaxWorkers=6"]);
}

#[test]
fn the_same_load_on_a_full_machine_does_not() {
    // Others on the host take the rest.
    let feed = busy(4, 16, 64, 400.0);
    let found = findings(&feed.ledger, Some(&setup(16, 64)));
    assert!(lines(&found).is_empty(), "{found:?}");
    assert!(reason(&found, Topic::Workers).ends_with("no room for another worker"), "{found:?}");
    // The service's own CPUs are used up, whatever the host has.
    let feed = busy(4, 4, 16, 12_000.0);
    let found = findings(&feed.ledger, Some(&setup(4, 16)));
    assert!(lines(&found).is_empty(), "{found:?}");
    // CPUs are free, memory is not.
    let mut feed = Feed::new(4, 16, 1);
    feed.cpu = 95.0;
    feed.idle = 12_000.0;
    feed.growth = 0.0;
    feed.ledger = Ledger::new(Bounds { cpu: 16_000, memory: 800 * MIB }, ENOUGH);
    feed.run(400);
    let full = Setup { memory: 800 * MIB, ..setup(16, 1) };
    let found = findings(&feed.ledger, Some(&full));
    assert!(!lines(&found).iter().any(|line| line.starts_with("MaxWorkers=8")), "{found:?}");
}

#[test]
fn demand_that_the_guides_guardrail_holds_back_is_told_not_advised() {
    let feed = busy(2, 4, 8, 2000.0);
    let found = findings(&feed.ledger, Some(&setup(4, 8)));
    assert!(lines(&found).is_empty(), "{found:?}");
    assert!(reason(&found, Topic::Workers).contains("the guide gives 2 workers for 8.0 GiB and 4 CPUs"));
}

#[test]
fn busy_for_a_moment_only_is_no_proof() {
    let mut feed = Feed::new(4, 16, 64);
    feed.run(500);
    feed.cpu = 99.0;
    feed.run(50);
    assert!(lines(&findings(&feed.ledger, Some(&setup(16, 64)))).is_empty());
}

#[test]
fn the_operators_own_workers_line_is_the_one_to_change() {
    let feed = busy(2, 8, 32, 6000.0);
    let own = PolicySettings { workers: Some(2), ..PolicySettings::default() };
    let found = findings(&feed.ledger, Some(&Setup { settings: own, ..setup(8, 32) }));
    assert_eq!(lines(&found), ["Workers=4"]);
}

#[test]
fn a_leak_that_recycling_does_not_contain_wants_a_lower_limit() {
    let mut feed = Feed::new(4, 8, 32);
    feed.cpu = 30.0;
    feed.life = 1000.0;
    // 100 MiB in a life of 2000 requests: twice the 50 allowed.
    feed.growth = number(100 * MIB) / 1000.0;
    feed.run(2000);
    let found = findings(&feed.ledger, Some(&setup(8, 32)));
    assert_eq!(lines(&found), ["InvestigateMemoryCreep=yes"], "{found:?}");
    let why = reason(&found, Topic::Growth);
    assert!(why.contains("50 MiB per 1000 requests"), "{why}");
    // At 1000 requests already: only a number of its own can lower it.
    let small = Setup { limit_max_requests: Some(1000), ..setup(8, 32) };
    let found = findings(&feed.ledger, Some(&small));
    let line = lines(&found).join("");
    let limit = line.strip_prefix("LimitMaxRequests=").and_then(|limit| limit.parse::<u32>().ok());
    assert!(limit.is_some_and(|limit| (450..=650).contains(&limit)), "{found:?}");
    // The operator's own limit beats InvestigateMemoryCreep=.
    let own = PolicySettings { limit_max_requests: Some(2000), ..PolicySettings::default() };
    let found = findings(&feed.ledger, Some(&Setup { settings: own, ..setup(8, 32) }));
    assert!(lines(&found).join("").starts_with("LimitMaxRequests=1"), "{found:?}");
}

#[test]
fn a_leak_that_recycling_contains_is_nothing_to_do() {
    let mut feed = Feed::new(4, 8, 32);
    feed.cpu = 30.0;
    feed.life = 1000.0;
    feed.growth = number(20 * MIB) / 1000.0;
    feed.run(2000);
    let found = findings(&feed.ledger, Some(&setup(8, 32)));
    assert!(lines(&found).is_empty(), "{found:?}");
    assert!(reason(&found, Topic::Growth).ends_with("recycling contains it"), "{found:?}");
}

#[test]
fn a_leak_without_a_recycle_in_sight() {
    let mut feed = Feed::new(4, 8, 32);
    feed.growth = number(30 * MIB) / 3600.0;
    feed.run(2000);
    let with = |limit| {
        lines(&findings(&feed.ledger, Some(&Setup { limit_max_requests: limit, ..setup(8, 32) }))).join("")
    };
    assert_eq!(with(Some(2000)), "InvestigateMemoryCreep=yes");
    assert_eq!(with(None), "InvestigateMemoryCreep=yes", "the profile's 2000");
    assert_eq!(with(Some(1000)), "LimitMaxRequests=500");
    assert_eq!(with(Some(100)), "", "as low as is of use");
    let never = PolicySettings { limit_max_requests: Some(0), ..PolicySettings::default() };
    let found =
        findings(&feed.ledger, Some(&Setup { settings: never, limit_max_requests: Some(0), ..setup(8, 32) }));
    assert_eq!(lines(&found), ["LimitMaxRequests=1000"]);
    assert!(reason(&found, Topic::Growth).contains("workers are never recycled"), "{found:?}");
    // A quarter in more than a week.
    let mut slow = Feed::new(4, 8, 32);
    slow.interval = 60.0;
    slow.growth = 60.0;
    slow.run(2000);
    let found = findings(&slow.ledger, Some(&setup(8, 32)));
    assert!(
        lines(&found).is_empty() && reason(&found, Topic::Growth).ends_with("too slow to matter"),
        "{found:?}"
    );
}

#[test]
fn measured_memory_lowers_the_profile_only_where_it_does_not_fit() {
    let mut feed = Feed::new(4, 8, 16);
    feed.cpu = 30.0;
    feed.run(400);
    let found = findings(&feed.ledger, Some(&setup(8, 16)));
    assert!(lines(&found).is_empty(), "{found:?}");
    // 150 MiB of shares, 10 of the parent's: 160 MiB.
    let why = reason(&found, Topic::MemoryPerWorker);
    assert!(
        why.starts_with("a worker at work needs 176 MiB (95 % of") || why.contains("needs 160 MiB"),
        "{why}"
    );
    assert!(why.ends_with("the profile stays 4 workers"), "{why}");
    // Workers of 5 GiB each: 16 GiB hold two.
    let mut feed = Feed::new(4, 8, 64);
    feed.cpu = 30.0;
    feed.growth = number(5u64 << 30) / 800.0;
    feed.run(400);
    let found = findings(&feed.ledger, Some(&setup(8, 16)));
    let line = lines(&found).into_iter().find(|line| line.starts_with("MemoryPerWorker="));
    assert!(line.is_some_and(|line| line.ends_with('M')), "{found:?}");
    assert!(reason(&found, Topic::MemoryPerWorker).contains("hold 2 of them, not 4"), "{found:?}");
}

#[test]
fn pressure_asks_for_fewer() {
    let mut feed = Feed::new(4, 8, 32);
    feed.memory_stall = 20.0;
    feed.cpu = 95.0;
    feed.run(400);
    let found = findings(&feed.ledger, Some(&setup(8, 32)));
    assert_eq!(lines(&found), ["MaxWorkers=3"], "and never more at once: {found:?}");
    let mut feed = Feed::new(4, 8, 32);
    feed.run(200);
    feed.oom_kills = 2;
    feed.run(200);
    let found = findings(&feed.ledger, Some(&setup(8, 32)));
    assert_eq!(lines(&found), ["MaxWorkers=3"]);
    assert!(reason(&found, Topic::Workers).starts_with("the kernel killed 2 processes"), "{found:?}");
    // One worker can't be fewer.
    let mut feed = Feed::new(1, 2, 4).single();
    feed.memory_stall = 50.0;
    feed.run(400);
    let found = findings(&feed.ledger, Some(&setup(2, 4)));
    assert!(lines(&found).is_empty() && reason(&found, Topic::Workers).contains("one worker is the least"));
}

#[test]
fn more_workers_than_cpus_only_wait() {
    let mut feed = Feed::new(4, 2, 24);
    feed.cpu = 50.0;
    feed.idle = 0.0;
    feed.run(400);
    let own = PolicySettings { workers: Some(4), ..PolicySettings::default() };
    let found = findings(&feed.ledger, Some(&Setup { settings: own, ..setup(2, 24) }));
    assert_eq!(lines(&found), ["Workers=2"]);
}

#[test]
fn what_the_profile_has_already_is_no_line_to_set() {
    // Four run on two CPUs by flags of their own: sized are two.
    let mut feed = Feed::new(4, 2, 24);
    feed.cpu = 50.0;
    feed.idle = 0.0;
    feed.run(400);
    let found = findings(&feed.ledger, Some(&setup(2, 24)));
    assert!(lines(&found).is_empty(), "{found:?}");
    assert!(
        reason(&found, Topic::Workers)
            .contains("the profile gives 2 workers already: it takes effect at a restart")
    );
    // Two run, not restarted since the machine has grown: sized are four.
    let feed = busy(2, 8, 32, 6000.0);
    let found = findings(&feed.ledger, Some(&setup(8, 32)));
    assert!(lines(&found).is_empty(), "{found:?}");
    assert!(reason(&found, Topic::Workers).contains("the profile gives 4 workers already"), "{found:?}");
    // The lower limit is configured and not in effect yet.
    let mut feed = Feed::new(4, 8, 32);
    feed.growth = number(30 * MIB) / 3600.0;
    feed.run(2000);
    let creep = PolicySettings { investigate_memory_creep: true, ..PolicySettings::default() };
    let found = findings(&feed.ledger, Some(&Setup { settings: creep, ..setup(8, 32) }));
    assert!(lines(&found).is_empty(), "{found:?}");
    assert!(reason(&found, Topic::Growth).contains("the profile has 1000 already"), "{found:?}");
}

#[test]
fn a_crash_loop_is_named() {
    let mut feed = Feed::new(2, 4, 8);
    feed.life = 5.0;
    feed.run(100);
    let found = findings(&feed.ledger, Some(&setup(4, 8)));
    assert!(reason(&found, Topic::Crashes).contains("died within 10 s"), "{found:?}");
}

#[test]
fn switched_off_there_is_nothing_to_advise() {
    let mut feed = Feed::new(2, 4, 8);
    feed.run(500);
    let found = findings(&feed.ledger, None);
    assert!(lines(&found).is_empty() && reason(&found, Topic::Evidence).contains("turned off"));
}

#[test]
fn the_drop_in_is_valid_configuration_and_gives_what_it_says() {
    let feed = busy(4, 16, 64, 12_000.0);
    let found = findings(&feed.ledger, Some(&setup(16, 64)));
    let text = drop_in(&found, "Sizing", "pypnm.service, 13 min");
    let mut problems = Vec::new();
    let mut config = crate::config::Config::default();
    crate::config::parse_into("/x", text.as_bytes(), &mut config, &mut problems);
    assert!(problems.is_empty(), "{problems:?}\n{text}");
    assert_eq!(config.for_unit("pypnm.service").policy_settings().max_workers, 8, "{text}");
    assert!(text.lines().all(|line| line.chars().count() <= 78), "{text}");
    let nothing = drop_in(&[], "Sizing", "pypnm.service, 13 min");
    assert!(nothing.lines().all(|line| line.starts_with('#')) && nothing.ends_with("# Nothing to set.\n"));
}

#[test]
fn words_are_wrapped() {
    assert_eq!(wrapped("a bb ccc", 4), ["a bb", "ccc"]);
    assert_eq!(wrapped("abcdef", 2), ["abcdef"]);
    assert!(wrapped("", 4).is_empty());
}
