use super::super::MIB;
use super::super::line::{Line, ProcessSample};
use super::super::role::Role;
use super::{BLOCK, Evidence};

fn process(pid: u64, role: Role, age: f64) -> ProcessSample {
    ProcessSample {
        pid,
        role,
        age_seconds: age,
        rss: 200 * MIB,
        pss: Some(150 * MIB),
        ..ProcessSample::default()
    }
}

/// A sample at `at` of a parent and workers, each with its age.
fn line(at: f64, parent: Option<(u64, f64)>, workers: &[(u64, f64)]) -> (Line, f64) {
    let parent = parent.map(|(pid, born)| process(pid, Role::Parent, at - born));
    let workers: Vec<ProcessSample> =
        workers.iter().map(|(pid, born)| process(*pid, Role::Worker, at - born)).collect();
    (
        Line {
            workers: workers.len() as u64,
            processes: parent.into_iter().chain(workers).collect(),
            ..Line::default()
        },
        at,
    )
}

fn take(evidence: &mut Evidence, (line, at): (Line, f64)) {
    evidence.take(line, at, 1.0);
}

#[test]
fn workers_replaced_while_the_parent_is_stopping_are_not_recycles() {
    let mut seen = Evidence::new(BLOCK);
    let one = Some((1, -50.0));
    take(&mut seen, line(1.0, one, &[(2, -40.0), (3, -40.0)]));
    // A real recycle, long before the stop.
    take(&mut seen, line(2.0, one, &[(2, -40.0), (4, 2.0)]));
    take(&mut seen, line(60.0, one, &[(2, -40.0), (4, 2.0)]));
    // All processes receive the signal. The parent receives it last, after it has replaced both workers.
    take(&mut seen, line(61.0, one, &[]));
    take(&mut seen, line(61.2, one, &[(5, 61.2), (6, 61.2)]));
    assert_eq!(seen.recycles, 3, "at this point, these look like two more recycles");
    take(&mut seen, line(61.4, one, &[]));
    take(&mut seen, line(61.6, None, &[]));
    assert_eq!(seen.recycles, 1);
    take(&mut seen, line(70.0, Some((11, 65.0)), &[(12, 65.0), (13, 65.0)]));
    assert_eq!((seen.recycles, seen.restarts, seen.short_lives), (1, 1, 0));
    // The same if the service is up again in the next sample.
    take(&mut seen, line(90.0, Some((11, 65.0)), &[(12, 65.0)]));
    take(&mut seen, line(90.2, Some((11, 65.0)), &[(12, 65.0), (14, 90.2)]));
    take(&mut seen, line(91.0, Some((21, 90.5)), &[(22, 90.6), (23, 90.6)]));
    assert_eq!((seen.recycles, seen.restarts), (1, 2));
}

#[test]
fn one_worker_is_recycled_by_an_automatic_restart() {
    let mut seen = Evidence::new(BLOCK);
    let single = |at: f64, pid: u64, born: f64, automatic: Option<u64>, recycles: u64| {
        let (line, at) = line(at, None, &[(pid, born)]);
        (Line { automatic_restarts: automatic, recycles, ..line }, at)
    };
    take(&mut seen, single(1.0, 1, -200.0, Some(3), 0));
    take(&mut seen, single(5.0, 2, 4.0, Some(4), 0));
    assert_eq!((seen.recycles, seen.restarts), (1, 0));
    assert!(seen.recycle_age().is_some_and(|age| (age - 201.0).abs() < 0.1));
    take(&mut seen, single(60.0, 3, 59.0, Some(4), 0));
    assert_eq!((seen.recycles, seen.restarts), (1, 1), "by hand");
    // Recordings of 0.1.0 have a number of recycles instead of NRestarts.
    let mut seen = Evidence::new(BLOCK);
    take(&mut seen, single(1.0, 1, -200.0, None, 0));
    take(&mut seen, single(5.0, 2, 4.0, None, 1));
    assert_eq!((seen.recycles, seen.restarts), (1, 0));
}

#[test]
fn a_worker_without_a_successor_is_not_a_recycle() {
    let mut seen = Evidence::new(BLOCK);
    let one = Some((1, -50.0));
    take(&mut seen, line(1.0, one, &[(2, 0.0), (3, 0.0)]));
    take(&mut seen, line(2.0, one, &[(2, 0.0)]));
    assert_eq!(seen.recycles, 0);
    take(&mut seen, line(3.0, one, &[(2, 0.0), (4, 3.0)]));
    assert_eq!(seen.recycles, 1);
    take(&mut seen, line(34.0, one, &[]));
    take(&mut seen, line(35.0, None, &[]));
    assert_eq!((seen.recycles, seen.workers.len()), (1, 0));
    // Before the first process starts its workers, it looks like a worker itself.
    let mut seen = Evidence::new(BLOCK);
    take(&mut seen, line(1.0, None, &[(1, 0.0)]));
    take(&mut seen, line(2.0, Some((1, 0.0)), &[(3, 1.5)]));
    assert_eq!((seen.recycles, seen.restarts, seen.workers.len()), (0, 0, 1));
}

#[test]
fn a_worker_whose_successor_came_first_is_a_recycle_when_it_ends() {
    let mut seen = Evidence::new(BLOCK);
    let one = Some((1, -50.0));
    take(&mut seen, line(1.0, one, &[(2, -500.0)]));
    take(&mut seen, line(5.0, one, &[(2, -500.0), (3, 4.0)]));
    assert_eq!(seen.recycles, 0);
    take(&mut seen, line(10.0, one, &[(3, 4.0)]));
    assert_eq!((seen.recycles, seen.short_lives), (1, 0));
    // A worker that is killed, and then replaced.
    take(&mut seen, line(600.0, one, &[]));
    take(&mut seen, line(605.0, one, &[(4, 604.0)]));
    assert_eq!(seen.recycles, 2);
    // An additional worker is not the successor of one that ends much later.
    take(&mut seen, line(610.0, one, &[(4, 604.0), (5, 609.0)]));
    take(&mut seen, line(2000.0, one, &[(4, 604.0)]));
    assert_eq!((seen.recycles, seen.restarts), (2, 0));
}

#[test]
fn samples_that_are_not_later_are_ignored() {
    let mut seen = Evidence::new(BLOCK);
    take(&mut seen, line(5.0, None, &[(1, 0.0)]));
    for at in [5.0, 4.0, f64::NAN, f64::INFINITY] {
        take(&mut seen, line(at, None, &[(1, 0.0)]));
    }
    assert_eq!(seen.range(), Some((5.0, 5.0)));
}

#[test]
fn a_week_of_recycles_takes_bounded_memory() {
    let mut seen = Evidence::new(BLOCK);
    for n in 0..60_480u32 {
        let at = f64::from(n) * 10.0;
        let workers: Vec<(u64, f64)> = (0..8u64)
            .map(|slot| (100 + slot * 1000 + u64::from(n / 90), f64::from(n / 90) * 900.0 - 1.0))
            .collect();
        seen.take(line(at, Some((1, -50.0)), &workers).0, at, 10.0);
    }
    assert!(seen.recycles > 5000, "{}", seen.recycles);
    assert!(seen.run.ended.items().len() <= 512 && seen.run.ages.len() <= super::AGES);
    assert!(seen.epochs.len() <= super::CONDITIONS);
}

#[test]
fn without_a_parent_workers_replaced_one_by_one_are_recycles() {
    let mut seen = Evidence::new(BLOCK);
    take(&mut seen, line(1.0, None, &[(2, 0.0), (3, 0.0)]));
    take(&mut seen, line(20.0, None, &[(2, 0.0), (4, 19.0)]));
    assert_eq!((seen.recycles, seen.restarts), (1, 0));
    take(&mut seen, line(40.0, None, &[(5, 39.0), (6, 39.0)]));
    assert_eq!((seen.recycles, seen.restarts), (1, 1));
}
