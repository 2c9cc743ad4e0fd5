use super::super::feed::Feed;
use super::super::role::Role;
use super::super::{MIB, number};
use super::{Bounds, ENOUGH, Ledger, Process, Sample, Shares};

#[test]
fn memory_cpu_and_rates() {
    let mut feed = Feed::new(4, 8, 32);
    feed.cpu = 50.0;
    feed.idle = 5900.0;
    feed.memory_stall = 25.0;
    feed.run(10);
    let ledger = &feed.ledger;
    assert_eq!((ledger.workers.len(), ledger.companions.len()), (4, 1));
    assert_eq!(ledger.rates.cpu, 2000);
    assert_eq!(ledger.rates.idle, Some(5900));
    assert_eq!(ledger.rates.memory_stall, Some(25.0));
    // 4 × 150 MiB of shares, and the parent's 40.
    assert!((640 * MIB..641 * MIB).contains(&ledger.memory_now()), "{}", ledger.memory_now());
    assert!(ledger.has_shares());
    assert_eq!((ledger.evidence.samples, super::super::whole(ledger.evidence.seconds)), (9, 18));
    assert!((ledger.mean_worker_cpu() - 50.0).abs() < 0.1, "{}", ledger.mean_worker_cpu());
}

#[test]
fn recycles_are_replacements_under_the_same_parent() {
    let mut feed = Feed::new(4, 8, 32);
    feed.life = 600.0;
    feed.run(1500);
    // 3000 s, four workers, one life each 600 s.
    assert!((19..=20).contains(&feed.ledger.recycles), "{}", feed.ledger.recycles);
    assert_eq!((feed.ledger.restarts, feed.ledger.short_lives), (0, 0));
    assert!(feed.ledger.recycle_interval().is_some_and(|age| (age - 600.0).abs() <= 4.0));
}

#[test]
fn a_restart_of_the_service_is_no_recycle() {
    let mut feed = Feed::new(4, 8, 32);
    feed.run(50);
    feed.restart(false);
    feed.run(50);
    feed.restart(true);
    feed.run(50);
    assert_eq!((feed.ledger.recycles, feed.ledger.restarts), (0, 2));
    assert_eq!(feed.ledger.workers.len(), 4);
}

#[test]
fn workers_replaced_by_a_parent_that_is_being_stopped_are_no_recycles() {
    let mut ledger = Ledger::new(Bounds::default(), ENOUGH);
    let sample = |at: f64, parent: u32, workers: &[u32]| Sample {
        at,
        processes: std::iter::once(one(parent, Role::Parent))
            .chain(workers.iter().map(|pid| one(*pid, Role::Worker)))
            .collect(),
        ..Sample::default()
    };
    ledger.take(sample(1.0, 1, &[2, 3]));
    // A true one, long before.
    ledger.take(sample(2.0, 1, &[2, 4]));
    ledger.take(sample(60.0, 1, &[2, 4]));
    // All get the signal; the parent hears it last, having replaced both.
    ledger.take(sample(61.0, 1, &[]));
    ledger.take(sample(61.2, 1, &[5, 6]));
    assert_eq!(ledger.recycles, 3, "so far it looks like two more");
    ledger.take(sample(61.4, 1, &[]));
    ledger.take(Sample { at: 61.6, ..Sample::default() });
    assert_eq!((ledger.recycles, ledger.ages.iter().count()), (1, 1));
    ledger.take(sample(70.0, 11, &[12, 13]));
    assert_eq!((ledger.recycles, ledger.restarts, ledger.short_lives), (1, 1, 0));
    // And at once, without a moment in which it is down.
    ledger.take(sample(90.0, 11, &[12]));
    ledger.take(sample(90.2, 11, &[12, 14]));
    ledger.take(sample(91.0, 21, &[22, 23]));
    assert_eq!((ledger.recycles, ledger.restarts), (1, 2));
}

#[test]
fn one_worker_is_recycled_by_an_automatic_restart() {
    let mut feed = Feed::new(1, 2, 4).single();
    feed.run(50);
    feed.restart(true);
    feed.run(50);
    assert_eq!((feed.ledger.recycles, feed.ledger.restarts), (1, 0));
    assert!(feed.ledger.recycle_interval().is_some_and(|age| (age - 200.0).abs() <= 4.0));
    feed.restart(false);
    feed.run(50);
    assert_eq!((feed.ledger.recycles, feed.ledger.restarts), (1, 1), "by hand");
}

#[test]
fn a_worker_that_went_without_a_successor_is_no_recycle_and_the_end_is_none_either() {
    let mut ledger = Ledger::new(Bounds::default(), ENOUGH);
    let sample = |at: f64, pids: &[u32]| Sample {
        at,
        processes: pids
            .iter()
            .map(|pid| one(*pid, if *pid == 1 { Role::Parent } else { Role::Worker }))
            .collect(),
        ..Sample::default()
    };
    ledger.take(sample(1.0, &[1, 2, 3]));
    ledger.take(sample(2.0, &[1, 2]));
    assert_eq!(ledger.recycles, 0);
    ledger.take(sample(3.0, &[1, 2, 4]));
    assert_eq!(ledger.recycles, 1);
    ledger.take(sample(34.0, &[1]));
    ledger.take(sample(35.0, &[]));
    assert_eq!((ledger.recycles, ledger.workers.len(), ledger.memory_now()), (1, 0, 0));
    ledger.take(sample(36.0, &[1, 7, 8, 9]));
    assert_eq!(ledger.recycles, 3, "two came back under the same parent, one is more than there were");
}

#[test]
fn the_first_process_becomes_a_parent_without_counting() {
    let mut ledger = Ledger::new(Bounds::default(), ENOUGH);
    let at = |at, processes| Sample { at, processes, ..Sample::default() };
    ledger.take(at(1.0, vec![one(1, Role::Worker)]));
    ledger.take(at(2.0, vec![one(1, Role::Parent), one(2, Role::Tracker), one(3, Role::Worker)]));
    assert_eq!((ledger.recycles, ledger.restarts, ledger.workers.len()), (0, 0, 1));
    assert_eq!(ledger.growth(), None);
}

#[test]
fn peaks_between_samples_count_by_the_kernels_mark() {
    let mut ledger = Ledger::new(Bounds::default(), ENOUGH);
    for n in 0..=120u32 {
        let mut worker = one(2, Role::Worker);
        worker.cpu_ms = u64::from(n) * 500;
        worker.peak = Some(if n < 80 { 200 * MIB } else { 600 * MIB });
        ledger.take(Sample { at: f64::from(n), processes: vec![worker], ..Sample::default() });
    }
    assert_eq!(ledger.evidence.peaks.total(), 2);
    assert_eq!(ledger.evidence.peaks.percentile(50), Some(150), "200 MiB less 50 shared");
    assert_eq!(ledger.evidence.peaks.percentile(95), Some(550));
}

#[test]
fn without_shares_resident_bytes_count() {
    let mut ledger = Ledger::new(Bounds::default(), ENOUGH);
    let mut worker = one(2, Role::Worker);
    worker.shares = None;
    ledger.take(Sample { at: 0.0, processes: vec![worker], ..Sample::default() });
    assert_eq!((ledger.memory_now(), ledger.has_shares()), (200 * MIB, false));
}

#[test]
fn time_that_stands_still_or_goes_back_is_passed_over_and_counters_that_fall_are_no_rise() {
    let mut feed = Feed::new(2, 4, 8);
    feed.run(10);
    let before = (feed.ledger.evidence.samples, feed.ledger.watched());
    let mut again = Sample { at: 5.0, oom_kills: Some(9), ..Sample::default() };
    feed.ledger.take(again.clone());
    assert_eq!((feed.ledger.evidence.samples, feed.ledger.watched()), before);
    again.at = f64::NAN;
    feed.ledger.take(again.clone());
    again.at = 1e9;
    again.oom_kills = Some(0);
    feed.ledger.take(again);
    assert_eq!((feed.ledger.evidence.oom_kills, feed.ledger.workers.len()), (0, 0));
}

#[test]
fn a_long_gap_is_one_interval() {
    let mut feed = Feed::new(2, 4, 8);
    feed.run(10);
    // Suspended for an hour: the counters went on by what was really used.
    feed.interval = 3600.0;
    feed.cpu = 40.0;
    feed.run(1);
    assert_eq!(feed.ledger.rates.cpu, 800);
}

#[test]
fn no_cpu_is_left() {
    let full = |cpu, idle| {
        let mut feed = Feed::new(4, 4, 16);
        (feed.cpu, feed.idle) = (cpu, idle);
        feed.run(11);
        super::super::whole(feed.ledger.evidence.cpu_full)
    };
    assert_eq!(full(96.0, 100.0), 20, "the service alone");
    assert_eq!(full(60.0, 100.0), 20, "others have the rest");
    assert_eq!(full(40.0, 100.0), 0, "others have most");
    assert_eq!(full(60.0, 1600.0), 0);
}

#[test]
fn a_day_of_recycling_workers_stays_small() {
    let mut feed = Feed::new(8, 16, 64);
    feed.cpu = 60.0;
    feed.growth = 20_000.0;
    feed.life = 900.0;
    feed.run(43_200);
    let ledger = &feed.ledger;
    assert!((760..=768).contains(&ledger.recycles), "{}", ledger.recycles);
    assert!(ledger.memory.points().len() <= super::super::history::POINTS);
    assert_eq!(ledger.ended.iter().count(), super::LIVES);
    assert!(ledger.ended.iter().all(|life| life.len() <= super::POINTS_OF_A_LIFE));
    assert!(ledger.workers.iter().all(|life| life.history.points().len() <= super::super::history::POINTS));
    assert!(ledger.ages.iter().count() <= super::AGES && ledger.gone.iter().count() <= super::AGES);
    let growth = ledger.growth().map(|growth| growth.all);
    assert!(growth.is_some_and(|all| (all.per_second - 20_000.0).abs() < 200.0), "{growth:?}");
    assert!(growth.is_some_and(|all| all.low <= 20_000.0 && 20_000.0 <= all.high), "{growth:?}");
    assert!((number(ledger.evidence.samples) - 43_199.0).abs() < 1.0);
}

#[test]
fn a_single_step_is_not_growth() {
    // One heavy request takes a worker up, and it stays there.
    let mut ledger = Ledger::new(Bounds::default(), ENOUGH);
    for n in 0..400u32 {
        let mut worker = one(2, Role::Worker);
        worker.rss = (if n < 230 { 240 } else { 470 }) * MIB + u64::from(n % 7) * 4096;
        ledger.take(Sample { at: f64::from(n) * 2.0, processes: vec![worker], ..Sample::default() });
    }
    assert!(ledger.growth().is_some_and(|growth| !growth.goes_on), "{:?}", ledger.growth());
}

#[test]
fn growth_that_levels_off_is_not_a_leak() {
    // A cache that fills: fast at first, then no more.
    let mut ledger = Ledger::new(Bounds::default(), ENOUGH);
    for n in 0..400u32 {
        let mut worker = one(2, Role::Worker);
        let filled = 1.0 - (-f64::from(n) / 60.0).exp();
        worker.rss = 240 * MIB + super::super::whole(filled * 8e7) + u64::from(n % 5) * 4096;
        ledger.take(Sample { at: f64::from(n) * 2.0, processes: vec![worker], ..Sample::default() });
    }
    assert!(ledger.growth().is_some_and(|growth| !growth.goes_on), "{:?}", ledger.growth());
}

fn one(pid: u32, role: Role) -> Process {
    Process {
        pid,
        started: 1,
        role,
        age: 100.0,
        rss: 200 * MIB,
        shares: Some(Shares { pss: 150 * MIB, uss: 120 * MIB }),
        peak: None,
        cpu_ms: 0,
    }
}
