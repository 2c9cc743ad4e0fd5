//! `pypnm-sizing report` over recordings: what it finds, and what it says of recordings that are not as they should be.

#![expect(
    clippy::indexing_slicing,
    reason = "a field of JSON that is not there is null, which fails the test"
)]

use std::fmt::Write as _;
use std::fs;
use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use serde_json::{Value, json};

/// When the recordings begin.
const BEGINS: f64 = 1_764_028_800.0;

fn report(arguments: &[&str], stdin: &[u8]) -> Output {
    let mut child = Command::new(env!("CARGO_BIN_EXE_pypnm-sizing"))
        .arg("report")
        .args(arguments)
        .env("TZ", "UTC")
        .env("COLUMNS", "80")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| panic!("{error}"));
    let input = stdin.to_owned();
    let mut pipe = child.stdin.take().unwrap_or_else(|| panic!("no stdin"));
    let writer = std::thread::spawn(move || drop(pipe.write_all(&input)));
    let output = child.wait_with_output().unwrap_or_else(|error| panic!("{error}"));
    let _ = writer.join();
    output
}

fn answer(output: &Output) -> Value {
    let text = String::from_utf8_lossy(&output.stdout);
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text} {output:?}"))
}

/// The lines to set.
fn to_set(answer: &Value) -> Vec<String> {
    let findings = answer["findings"].as_array().cloned().unwrap_or_default();
    findings.iter().filter_map(|finding| finding["line"].as_str().map(str::to_owned)).collect()
}

/// A line of a service with four workers; the fields that 0.1.0 did not have are left out.
fn line(n: u32, cpu: f64, growth_per_hour: f64) -> Value {
    let seconds = f64::from(n) * 10.0;
    let jitter = f64::from(n * 7919 % 101) * 10_000.0;
    let worker = |pid: u32| {
        let rss = 246_415_360.0 + growth_per_hour * seconds / 3600.0 + jitter;
        json!({"pid": pid, "role": "worker", "age_seconds": seconds + 900.0, "rss": rss.round(), "pss": null,
               "uss": null, "peak_rss": null, "cpu_percent": cpu, "growth_per_hour": null})
    };
    let mut processes: Vec<Value> = (11..15).map(worker).collect();
    processes.push(json!({"pid": 10, "role": "parent", "age_seconds": seconds + 950.0, "rss": 60_000_000}));
    json!({"schema": 1, "type": "sample", "unix_seconds": BEGINS + seconds, "seconds": seconds,
           "service": "pypnm.service", "processes": processes, "workers": 4, "memory": 1_045_000_000u64,
           "memory_is": "rss", "memory_limit": 64u64 << 30, "memory_limit_source": "/proc/meminfo: MemTotal",
           "cpu_milli": (cpu * 40.0).round(), "cpu_milli_limit": 16_000, "idle_milli": 11_000,
           "oom_kills": 0, "recycles": 0, "restarts": 0, "limit_max_requests": 2000})
}

fn lines(count: u32, cpu: f64, growth: f64) -> Vec<String> {
    (0..count).map(|n| line(n, cpu, growth).to_string()).collect()
}

fn json_of(text: &str) -> Value {
    let output = report(&["--json", "-"], text.as_bytes());
    assert!(output.status.success(), "{output:?}");
    answer(&output)
}

#[test]
fn demand_and_growth_in_recordings_of_0_1_0() {
    let answer = json_of(&lines(720, 95.0, 0.0).join("\n"));
    assert_eq!(to_set(&answer), ["MaxWorkers=8"], "{answer}");
    let finding = &answer["findings"].as_array().and_then(|f| f.last()).cloned().unwrap_or_default();
    assert!(
        finding["from"].as_f64() >= Some(BEGINS) && finding["until"].as_f64() <= Some(BEGINS + 7200.0),
        "{finding}"
    );
    assert_eq!((answer["schema"].as_u64(), answer["verb"].as_str()), (Some(1), Some("report")));
    let answer = json_of(&lines(1080, 20.0, 50e6).join("\n"));
    assert_eq!(to_set(&answer), ["InvestigateMemoryCreep=yes"], "{answer}");
    let growth = answer["growth_per_hour"]["bytes"].as_f64();
    assert!(growth.is_some_and(|growth| (growth / 50e6 - 1.0).abs() < 0.05), "{growth:?}");
}

#[test]
fn torn_foreign_empty_and_of_another_schema() {
    let mut all = lines(400, 95.0, 0.0);
    let torn = all.get(100).map(|line| line.split_at(300).0.to_owned()).unwrap_or_default();
    all.insert(101, torn);
    all.insert(50, "{\"schema\":2,\"type\":\"sample\"}".to_owned());
    all.insert(51, "{\"hello\":1}".to_owned());
    all.insert(60, String::new());
    let whole = json_of(&lines(400, 95.0, 0.0).join("\n"));
    let answer = json_of(&all.join("\n"));
    assert_eq!(
        (to_set(&answer), &answer["samples"]),
        (to_set(&whole), &whole["samples"]),
        "nothing else is lost"
    );
    let problems = answer["problems"].to_string();
    for problem in ["1 line is torn", "1 line is not a recorded sample", "1 line is of schema 2"] {
        assert!(problems.contains(problem), "{problem}: {problems}");
    }
    let output = report(&["--json", "-"], b"");
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&output.stderr).contains("standard input is empty"), "{output:?}");
    let long = format!("{}\n{}\n", "x".repeat(3 << 20), lines(400, 95.0, 0.0).join("\n"));
    assert!(json_of(&long)["problems"].to_string().contains("1 line is longer than"));
}

#[test]
fn files_in_any_order_lines_a_little_out_of_order_and_everything_twice() {
    let dir = tempfile::tempdir().unwrap_or_else(|error| panic!("{error}"));
    let all = lines(900, 95.0, 30e6);
    let expected = json_of(&all.join("\n"));
    let write = |name: &str, lines: &[String]| {
        let path = dir.path().join(name);
        fs::write(&path, lines.join("\n")).unwrap_or_else(|error| panic!("{error}"));
        path.display().to_string()
    };
    let (first, second) = all.split_at(450);
    let (a, b) = (write("z", first), write("a", second));
    let same = |answer: &Value| {
        for field in ["samples", "growth_per_hour", "findings", "watched_seconds"] {
            assert_eq!(answer[field], expected[field], "{field}");
        }
    };
    same(&answer(&report(&["--json", &b, &a], b"")));
    same(&answer(&report(&["--json", &a, &b, &a], b"")));
    let mut shuffled = all.clone();
    for n in (0..890).step_by(7) {
        shuffled.swap(n, n + 9);
    }
    same(&json_of(&shuffled.join("\n")));
    let twice = json_of(&[all.clone(), all.clone()].concat().join("\n"));
    same(&twice);
    assert!(
        twice["problems"].to_string().contains("900 lines are of a time that another line covers"),
        "{twice}"
    );
}

#[test]
fn a_calendar_that_jumps_moves_nothing() {
    let jumping = |jump: f64| {
        let set = |n: u32| {
            let mut line = line(n, 95.0, 30e6);
            if n >= 300 {
                line["unix_seconds"] = json!(BEGINS + f64::from(n) * 10.0 + jump);
            }
            line.to_string()
        };
        json_of(&(0..900).map(set).collect::<Vec<_>>().join("\n"))
    };
    let expected = jumping(0.0);
    for jump in [-7200.0, 86_400.0] {
        let answer = jumping(jump);
        assert_eq!(
            (&answer["watched_seconds"], &answer["findings"]),
            (&expected["watched_seconds"], &expected["findings"])
        );
        assert!(
            answer["problems"].to_string().contains("the system clock jumped once"),
            "{}",
            answer["problems"]
        );
    }
}

#[test]
fn a_watch_that_begins_again_seconds_later_is_another() {
    // A recorder restarted two seconds after it was started: its clock begins anew.
    let mut all = vec![line(0, 5.0, 0.0)];
    all.extend((0..400).map(|n| {
        let mut line = line(n, 5.0, 0.0);
        line["unix_seconds"] = json!(BEGINS + 2.0 + f64::from(n) * 10.0);
        line
    }));
    let answer = json_of(&all.iter().map(Value::to_string).collect::<Vec<_>>().join("\n"));
    assert_eq!(
        (answer["until"].as_f64(), &answer["restarts"]),
        (Some(BEGINS + 3992.0), &json!(0)),
        "{answer}"
    );
    assert_eq!(answer["problems"], json!([]), "{answer}");
}

#[test]
fn two_units_and_a_time() {
    let mut all = lines(400, 95.0, 0.0);
    all.extend((0..600).map(|n| {
        let mut line = line(n, 5.0, 0.0);
        line["service"] = json!("other.service");
        line.to_string()
    }));
    let answer = json_of(&all.join("\n"));
    assert_eq!(answer["unit"], "pypnm.service", "the first of Units=");
    assert!(
        answer["problems"].to_string().contains("--unit=\\\"other.service\\\""),
        "{}",
        answer["problems"]
    );
    let other = report(&["--json", "--unit", "other.service", "-"], all.join("\n").as_bytes());
    assert_eq!(self::answer(&other)["unit"], "other.service");
    let since = format!("@{}", BEGINS + 2000.0);
    let later = report(&["--json", "--since", &since, "-"], all.join("\n").as_bytes());
    assert_eq!(self::answer(&later)["from"].as_f64(), Some(BEGINS + 2000.0));
    let none = report(&["--json", "--since", "@99999999999", "-"], all.join("\n").as_bytes());
    assert_eq!(none.status.code(), Some(2), "{none:?}");
    assert!(String::from_utf8_lossy(&none.stderr).contains("no samples in that time"), "{none:?}");
}

#[test]
fn compressed_recordings_are_named_with_what_reads_them() {
    let dir = tempfile::tempdir().unwrap_or_else(|error| panic!("{error}"));
    let file = dir.path().join("2025-11-25.jsonl");
    fs::write(&file, b"\x1f\x8b\x08\x00rest").unwrap_or_else(|error| panic!("{error}"));
    let output = report(&[&dir.path().display().to_string()], b"");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(2), "{said}");
    assert!(said.contains("is compressed") && said.contains("zcat"), "{said}");
}

#[test]
fn the_page_for_a_browser_loads_nothing_and_the_text_fits() {
    let dir = tempfile::tempdir().unwrap_or_else(|error| panic!("{error}"));
    let file = dir.path().join("page.html");
    let mut all = String::new();
    for line in lines(900, 95.0, 0.0) {
        let _ = writeln!(all, "{}", line.replace("pypnm.service", "<b>&.service"));
    }
    let output = report(&["--html", &file.display().to_string(), "-"], all.as_bytes());
    assert!(output.status.success(), "{output:?}");
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(text.lines().all(|line| line.chars().count() <= 80), "{text}");
    assert!(text.contains("MaxWorkers=8") && text.contains("What this cannot show"), "{text}");
    let page = fs::read_to_string(&file).unwrap_or_default();
    assert!(page.contains("&lt;b&gt;&amp;.service") && !page.contains("<b>&"), "names are escaped");
    for foreign in ["http:", "https:", "<script", "<link", "url(", "src=", "@import"] {
        assert!(!page.contains(foreign), "{foreign}");
    }
    assert_eq!(page.matches("<svg").count(), page.matches("</svg>").count());
    assert!(page.matches("<svg").count() >= 4 && page.contains("prefers-color-scheme: dark"));
}

#[test]
fn adoption_writes_one_file_that_counts_and_says_what_changes() {
    let dir = tempfile::tempdir().unwrap_or_else(|error| panic!("{error}"));
    let put = |path: &str, text: &str| {
        let path = dir.path().join(path);
        let made = path.parent().map_or(Ok(()), fs::create_dir_all);
        made.and_then(|()| fs::write(&path, text)).unwrap_or_else(|error| panic!("{error}"));
    };
    put("sys/devices/system/cpu/online", "0-15\n");
    put("proc/1/status", "Cpus_allowed_list:\t0-15\n");
    put("proc/meminfo", "MemTotal:       67108864 kB\n");
    put("etc/pypnm/sizing.conf.d/60-measured.conf", "[Sizing]\nReserveCPUs=1\n");
    let root = format!("--root={}", dir.path().display());
    let adopt = report(&[&root, "--adopt", "-"], lines(720, 95.0, 0.0).join("\n").as_bytes());
    let said = String::from_utf8_lossy(&adopt.stdout).into_owned();
    assert!(adopt.status.success(), "{adopt:?}");
    assert!(said.contains("before  4 workers") && said.contains("after   8 workers"), "{said}");
    let file =
        fs::read_to_string(dir.path().join("etc/pypnm/sizing.conf.d/60-measured.conf")).unwrap_or_default();
    assert!(file.contains("\nMaxWorkers=8\n") && file.contains("\nReserveCPUs=1\n"), "{file}");
    assert!(
        file.replace("\n# ", " ").contains("concurrency demand is proven"),
        "the evidence is in the comments: {file}"
    );
    let again = report(&[&root, "--adopt", "-"], lines(720, 5.0, 0.0).join("\n").as_bytes());
    assert!(String::from_utf8_lossy(&again.stdout).contains("Nothing to set"), "{again:?}");
    assert!(Path::new(&dir.path().join("etc/pypnm/sizing.conf.d/60-measured.conf")).exists());
}
