//! `pypnm-sizing report` over recordings: its findings, and its messages about recordings that are damaged.

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

/// The time at which the recordings begin.
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

/// The settings that the report suggests.
fn to_set(answer: &Value) -> Vec<String> {
    let findings = answer["findings"].as_array().cloned().unwrap_or_default();
    findings.iter().filter_map(|finding| finding["line"].as_str().map(str::to_owned)).collect()
}

/// A line about a service with four workers, without the fields that 0.1.0 did not write.
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
    let peak = answer["worker_memory_peak"].as_u64().map(|bytes| bytes >> 20);
    assert!(answer["peak_95_mib"].as_u64() <= peak, "a percentile above the peak: {answer}");
}

#[test]
fn damaged_foreign_and_empty_files() {
    let mut all = lines(400, 95.0, 0.0);
    let torn = all.get(100).map(|line| line.split_at(300).0.to_owned()).unwrap_or_default();
    all.insert(101, torn);
    all.insert(50, "{\"schema\":2,\"type\":\"sample\"}".to_owned());
    all.insert(51, "{\"hello\":1}".to_owned());
    all.insert(60, String::new());
    let undamaged = json_of(&lines(400, 95.0, 0.0).join("\n"));
    let answer = json_of(&all.join("\n"));
    assert_eq!(
        (to_set(&answer), &answer["samples"]),
        (to_set(&undamaged), &undamaged["samples"]),
        "nothing else is lost"
    );
    let problems = answer["problems"].to_string();
    for problem in [
        "1 line is incomplete or not JSON",
        "1 line is not in the format of a sample",
        "1 line is of a schema that this version does not know (2)",
    ] {
        assert!(problems.contains(problem), "{problem}: {problems}");
    }
    let output = report(&["--json", "-"], b"");
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&output.stderr).contains("standard input is empty"), "{output:?}");
    let long = format!("{}\n{}\n", "x".repeat(3 << 20), lines(400, 95.0, 0.0).join("\n"));
    assert!(json_of(&long)["problems"].to_string().contains("1 line is longer than"));
}

#[test]
fn order_and_duplicates_do_not_matter() {
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
        twice["problems"].to_string().contains("900 lines cover a time that another line already covers"),
        "{twice}"
    );
}

#[test]
fn changes_of_the_wall_clock_do_not_matter() {
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
fn a_watch_restarted_seconds_later_is_separate() {
    // A recorder that is restarted two seconds after it was started: its clock begins again at 0.
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
fn filters_by_unit_and_time() {
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

fn text_of(count: u32) -> Vec<u8> {
    lines(count, 95.0, 0.0).join("\n").into_bytes()
}

fn put(path: &Path, bytes: &[u8]) {
    let made = path.parent().map_or(Ok(()), fs::create_dir_all);
    made.and_then(|()| fs::write(path, bytes)).unwrap_or_else(|error| panic!("{error}"));
}

#[test]
fn compressed_and_foreign_files_are_reported_with_a_hint() {
    let dir = tempfile::tempdir().unwrap_or_else(|error| panic!("{error}"));
    let mut archive = vec![b'x'; 257];
    archive.extend(b"ustar\0");
    let array = format!("[{}]", lines(3, 95.0, 0.0).join(","));
    let indented = serde_json::to_string_pretty(&line(1, 95.0, 0.0)).unwrap_or_default();
    let cases: [(&[u8], &str); 8] = [
        (b"\x1f\x8b\x08\x00rest", "zcat"),
        (b"\xfd7zXZ\0rest", "xzcat"),
        (b"\x28\xb5\x2f\xfdrest", "zstdcat"),
        (b"PK\x03\x04rest", "unzip -p"),
        (&archive, "tar -xOf"),
        (b"\xff\xfe{\0", "iconv -f UTF-16"),
        (array.as_bytes(), "jq -c '.[]'"),
        (indented.as_bytes(), "jq -c . "),
    ];
    for (bytes, program) in cases {
        let file = dir.path().join("recording");
        put(&file, bytes);
        let output = report(&[&file.display().to_string()], b"");
        let messages = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(2), "{messages}");
        assert!(messages.contains("was not read") && messages.contains(program), "{program}: {messages}");
    }
    // Files rotated by logrotate in a unit's directory; those that can be read are used.
    put(&dir.path().join("pypnm.service/2025-11-24.jsonl.gz"), b"\x1f\x8b\x08\x00rest");
    put(&dir.path().join("pypnm.service/2025-11-25.jsonl"), &text_of(400));
    let answer = answer(&report(&["--json", &dir.path().display().to_string()], b""));
    assert_eq!(answer["samples"], 399, "{answer}");
    assert!(answer["problems"].to_string().contains("2025-11-24.jsonl.gz is compressed"), "{answer}");
}

#[test]
fn byte_order_marks_and_dos_line_ends_are_accepted() {
    let text = lines(400, 95.0, 0.0);
    let expected = json_of(&text.join("\n"));
    for other in [format!("\u{feff}{}", text.join("\n")), text.join("\r\n")] {
        let answer = json_of(&other);
        assert_eq!((&answer["samples"], &answer["problems"]), (&expected["samples"], &json!([])));
    }
}

#[test]
fn impossible_amounts_do_not_affect_later_advice() {
    let expected = to_set(&json_of(&lines(720, 95.0, 0.0).join("\n")));
    for (field, value) in [("memory", "1e23"), ("memory", "-5"), ("cpu_milli", "1e300"), ("seconds", "-1e9")]
    {
        let mut all = lines(720, 95.0, 0.0);
        for n in (3..700).step_by(50) {
            if let Some(line) = all.get_mut(n) {
                let mut one: Value = serde_json::from_str(line).unwrap_or_default();
                one[field] = json!("@");
                *line = one.to_string().replace("\"@\"", value);
            }
        }
        let answer = json_of(&all.join("\n"));
        assert_eq!(to_set(&answer), expected, "{field}: {value}");
        assert!(
            answer["problems"].to_string().contains("14 lines have negative amounts"),
            "{}",
            answer["problems"]
        );
        assert_eq!(answer["restarts"], 0, "{field}: {value}");
    }
    let peak = lines(720, 95.0, 0.0).join("\n").replacen(
        "\"peak_rss\":null",
        "\"peak_rss\":18446744073709551615",
        1,
    );
    assert_eq!(to_set(&json_of(&peak)), expected);
}

#[test]
fn many_units_and_schemas_take_one_line_each() {
    let mut flood = String::new();
    for n in 0..20_000u32 {
        let _ = writeln!(
            flood,
            "{{\"schema\":1,\"type\":\"sample\",\"unix_seconds\":{},\"service\":\"u{n}.service\"}}",
            BEGINS + f64::from(n)
        );
        if n < 50 {
            let _ = writeln!(flood, "{{\"schema\":{},\"type\":\"sample\"}}", n + 2);
        }
    }
    let text = lines(400, 95.0, 0.0).join("\n");
    for all in [format!("{flood}{text}"), format!("{text}\n{flood}")] {
        let answer = json_of(&all);
        assert_eq!((&answer["unit"], &answer["samples"]), (&json!("pypnm.service"), &json!(399)));
        let problems = answer["problems"].as_array().cloned().unwrap_or_default();
        assert_eq!(problems.len(), 3, "{problems:?}");
        assert!(
            problems
                .iter()
                .any(|one| one.as_str().is_some_and(|one| one.starts_with("50 lines are of a schema")))
        );
    }
    // A unit that is not sized is reported along with others.
    let other = json_of(&format!("{flood}{}", text.replace("pypnm.service", "other.service")));
    assert_eq!(other["unit"], "other.service", "{other}");
    assert!(other["samples"].as_u64() >= Some(290), "{}", other["samples"]);
}

#[test]
fn unreadable_files_in_a_directory_are_reported_and_skipped() {
    let dir = tempfile::tempdir().unwrap_or_else(|error| panic!("{error}"));
    let unit = dir.path().join("pypnm.service");
    put(&unit.join("2025-11-25.jsonl"), &text_of(400));
    let made = fs::create_dir(unit.join("2025-11-26.jsonl"));
    let linked = std::os::unix::fs::symlink("nowhere", unit.join("2025-11-27.jsonl"));
    made.and(linked).unwrap_or_else(|error| panic!("{error}"));
    let answer = answer(&report(&["--json", &dir.path().display().to_string()], b""));
    let problems = answer["problems"].to_string();
    assert_eq!(answer["samples"], 399, "{answer}");
    for name in ["2025-11-26.jsonl is not a file", "2025-11-27.jsonl is not a file"] {
        assert!(problems.contains(name), "{name}: {problems}");
    }
}

#[test]
fn a_named_pipe_is_opened_once() {
    let dir = tempfile::tempdir().unwrap_or_else(|error| panic!("{error}"));
    let pipe = dir.path().join("pipe");
    let made = Command::new("mkfifo").arg(&pipe).status();
    assert!(made.is_ok_and(|status| status.success()));
    let to = pipe.clone();
    // Opening a pipe just to examine it would kill its writer with SIGPIPE.
    let writer = std::thread::spawn(move || fs::write(to, text_of(400)));
    let answer = answer(&report(&["--json", &pipe.display().to_string()], b""));
    assert_eq!(answer["samples"], 399, "{answer}");
    assert!(writer.join().is_ok_and(|written| written.is_ok()));
}

#[test]
fn an_instance_has_the_settings_and_the_section_of_its_template() {
    let dir = tempfile::tempdir().unwrap_or_else(|error| panic!("{error}"));
    put(&dir.path().join("sys/devices/system/cpu/online"), b"0-15\n");
    put(&dir.path().join("proc/meminfo"), b"MemTotal:       67108864 kB\n");
    let settings = b"[Sizing]\nUnits=pypnm@.service other.service\n[pypnm@.service]\nMaxWorkers=2\n";
    put(&dir.path().join("etc/pypnm/sizing.conf"), settings);
    let root = format!("--root={}", dir.path().display());
    let all = lines(720, 95.0, 0.0).join("\n");
    let (a, b) =
        (all.replace("pypnm.service", "pypnm@a.service"), all.replace("pypnm.service", "pypnm@b.service"));
    let output = report(&[&root, "--write-advice", "--unit", "pypnm@b", "-"], format!("{a}\n{b}").as_bytes());
    let messages = String::from_utf8_lossy(&output.stdout).replace("\n# ", " ");
    // Sized for two workers, running with four: not the four of other.service.
    assert!(messages.contains("memory is enough for 2"), "{messages}");
    assert!(!messages.contains("[Sizing]"), "{messages}");
    let problems = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(problems.contains("the recordings also contain pypnm@a.service"), "{problems}");
}

#[test]
fn the_html_page_is_self_contained_and_the_text_fits() {
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
    assert!(page.matches("<svg").count() >= 3 && page.contains("prefers-color-scheme: dark"));
}

#[test]
fn adoption_writes_one_effective_file_and_reports_the_change() {
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
    put("etc/pypnm/sizing.conf.d/50-site.conf", "[Sizing]\nLimitMaxRequests=0\n");
    let root = format!("--root={}", dir.path().display());
    let adopt = report(&[&root, "--adopt", "-"], lines(720, 95.0, 0.0).join("\n").as_bytes());
    let messages = String::from_utf8_lossy(&adopt.stdout).into_owned();
    assert!(adopt.status.success(), "{adopt:?}");
    for line in ["before  4 workers, never recycled\n", "after   8 workers, never recycled\n"] {
        assert!(messages.contains(line), "{line}: {messages}");
    }
    let file =
        fs::read_to_string(dir.path().join("etc/pypnm/sizing.conf.d/60-measured.conf")).unwrap_or_default();
    assert!(file.contains("\nMaxWorkers=8\n") && file.contains("\nReserveCPUs=1\n"), "{file}");
    assert!(
        file.replace("\n# ", " ").contains("concurrency demand is proven"),
        "the evidence is in the comments: {file}"
    );
    // A recording of `watch --pid` counts for the units that are sized here.
    put("etc/pypnm/sizing.conf.d/60-measured.conf", "");
    let of_process = lines(720, 95.0, 0.0).join("\n").replace("pypnm.service", "process 4711");
    let adopt = report(&[&root, "--adopt", "-"], of_process.as_bytes());
    let messages = String::from_utf8_lossy(&adopt.stdout).into_owned();
    assert!(messages.contains("before  4 workers") && messages.contains("after   8 workers"), "{messages}");
    let again = report(&[&root, "--adopt", "-"], lines(720, 5.0, 0.0).join("\n").as_bytes());
    assert!(String::from_utf8_lossy(&again.stdout).contains("No changes are recommended"), "{again:?}");
    assert!(Path::new(&dir.path().join("etc/pypnm/sizing.conf.d/60-measured.conf")).exists());
}

/// The author of a recording can influence nothing but what the report shows about the unit.
#[test]
fn names_in_recordings_are_harmless() {
    let dir = tempfile::tempdir().unwrap_or_else(|error| panic!("{error}"));
    let name = "x]\n[Sizing]\nWorkers=64\n#\u{1b}]0;X\u{7}\u{202e}.service";
    let foreign: Vec<String> = (0..720)
        .map(|n| {
            let mut line = line(n, 95.0, 0.0);
            line["service"] = json!(name);
            line.to_string()
        })
        .collect();
    let foreign = foreign.join("\n");
    let root = format!("--root={}", dir.path().display());
    for arguments in [vec!["-"], vec!["--write-advice", "-"]] {
        let output = report(&[&[root.as_str()][..], &arguments].concat(), foreign.as_bytes());
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.success(), "{output:?}");
        assert!(!text.contains(['\u{1b}', '\u{7}', '\u{202e}']), "{text:?}");
        assert!(!text.contains("\nWorkers=64"), "{text:?}");
    }
    let adopt = report(&[&root, "--adopt", "-"], foreign.as_bytes());
    let messages = String::from_utf8_lossy(&adopt.stderr).into_owned();
    assert!(adopt.status.code() == Some(2) && messages.contains("is not sized here"), "{adopt:?}");
    assert!(!dir.path().join("etc").exists(), "it would count for other units");
}

#[test]
fn an_endless_line_is_given_up() {
    let output = report(&["/dev/zero"], b"");
    let messages = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(
        output.status.code() == Some(2) && messages.contains("/dev/zero contains an endless line"),
        "{messages}"
    );
    assert_eq!(messages.lines().count(), 2, "{messages}");
}

/// A FIFO ends with its first reader, so it must be opened only once.
#[test]
fn a_fifo_is_read_to_its_end() {
    let dir = tempfile::tempdir().unwrap_or_else(|error| panic!("{error}"));
    let pipe = dir.path().join("pipe").display().to_string();
    assert!(Command::new("mkfifo").arg(&pipe).status().is_ok_and(|status| status.success()));
    let text = lines(100, 5.0, 0.0).join("\n");
    let writer = {
        let pipe = pipe.clone();
        std::thread::spawn(move || fs::write(pipe, text))
    };
    let answer = answer(&report(&["--json", &pipe], b""));
    assert!(writer.join().is_ok_and(|written| written.is_ok()));
    assert_eq!(answer["samples"], 99);
}
