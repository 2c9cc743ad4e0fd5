use super::{Advice, Context, Evidence, screen, summary};
use pypnm_sizing::watch::MIB;
use pypnm_sizing::watch::advice::AdviceTopic;
use pypnm_sizing::watch::evidence::BLOCK;
use pypnm_sizing::watch::line::{Line, ProcessSample};
use pypnm_sizing::watch::role::Role;

fn evidence(workers: u64) -> Evidence {
    let mut evidence = Evidence::new(BLOCK);
    for at in 1..50u32 {
        let process = |pid| ProcessSample {
            pid,
            role: if pid == 1 { Role::Parent } else { Role::Worker },
            age_seconds: f64::from(at),
            rss: 235 * MIB,
            pss: Some(170 * MIB),
            uss: Some(162 * MIB),
            peak_rss: Some(235 * MIB),
            cpu_ms: Some(u64::from(at) * 900),
            ..ProcessSample::default()
        };
        let line = Line {
            service: "pypnm.service".into(),
            workers,
            processes: (1..=workers + 1).map(process).collect(),
            memory: (workers + 1) * 170 * MIB,
            memory_limit: 8 << 30,
            memory_limit_source: "/sys/fs/cgroup/system.slice/pypnm.service/memory.max".into(),
            accept_queue: Some(2),
            ..Line::default()
        };
        evidence.take(line, f64::from(at), 1.0);
    }
    evidence.compute_growth();
    evidence
}

fn context(findings: &[Advice]) -> Context<'_> {
    Context {
        interval: 2.0,
        findings,
        unknown_limits: &[],
        no_shares: None,
        cost: Some(0.42),
        ascii_only: false,
        colors: false,
    }
}

fn finding(line: Option<&str>, word: &str) -> Advice {
    Advice {
        topic: AdviceTopic::Workers,
        line: line.map(str::to_owned),
        reason: format!("{word} ").repeat(30),
        time: None,
    }
}

#[test]
fn a_screen_of_any_size() {
    let evidence = evidence(8);
    let findings = [finding(Some("MaxWorkers=6"), "set ≥"), finding(None, "one"), finding(None, "two")];
    let context = context(&findings);
    for columns in 1..140 {
        for rows in 1..50 {
            let shown = screen(&evidence, &context, columns, rows);
            assert!(shown.len() <= rows, "{columns}×{rows}: {} lines", shown.len());
            let widest = shown.iter().map(|line| line.chars().count()).max();
            assert!(widest <= Some(columns), "{columns}×{rows}: {widest:?} columns");
            let has = |text: &str| shown.iter().any(|line| line.contains(text));
            if columns >= 60 && rows >= 12 {
                assert!(has("MaxWorkers=6") && has("watch uses 0.42%"), "{columns}×{rows}: {shown:#?}");
                assert!(columns < 72 || has("memory.max"), "{columns}×{rows}: {shown:#?}");
            }
        }
    }
}

#[test]
fn eighty_by_twenty_four() {
    let all = evidence(8);
    let findings = [finding(None, "one"), finding(None, "two"), finding(None, "three")];
    let shown = screen(&all, &context(&findings), 80, 24);
    assert_eq!(shown.iter().filter(|line| line.contains(" worker ")).count(), 8, "{shown:#?}");
    assert!(shown.iter().any(|line| line == "  (2 more remarks in the final summary)"), "{shown:#?}");
    assert!(!shown.iter().any(|line| line.contains("two")), "whole remarks only: {shown:#?}");
    // More workers than rows.
    let shown = screen(&evidence(40), &context(&findings), 80, 24);
    assert!(shown.iter().any(|line| line.starts_with("    and ") && line.ends_with(" more")), "{shown:#?}");
    assert!(shown.iter().any(|line| line == "no changes recommended"), "{shown:#?}");
}

#[test]
fn an_unknown_limit_is_named() {
    let text = "/sys/fs/cgroup/memory.max: Permission denied; this limit is unknown";
    let context = Context { unknown_limits: &[text.to_owned()], ..context(&[]) };
    let shown = screen(&evidence(2), &context, 80, 24);
    assert!(shown.iter().any(|line| line == text), "{shown:#?}");
    let last = summary(&evidence(2), &context, 80);
    assert!(last.lines().any(|line| line == text), "{last}");
}

#[test]
fn ascii_alone_where_the_terminal_has_nothing_else() {
    let findings = [finding(Some("MaxWorkers=6"), "≥ ≤ ± ü")];
    let context = Context { ascii_only: true, ..context(&findings) };
    let shown = screen(&evidence(2), &context, 80, 24).join("\n");
    assert!(shown.is_ascii() && shown.contains(">= <= +- ?"), "{shown}");
}
