//! What the fuzzers call, and what must hold for any input; tests/corpus.rs replays their corpora through the same.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;

use pypnm_sizing::config::{self, Config};
use pypnm_sizing::limits::cgroup::Hierarchy;
use pypnm_sizing::limits::{Amount, Scope, service};
use pypnm_sizing::manager::Manager;
use pypnm_sizing::overrides::{self, Effect};
use pypnm_sizing::parse::boolean::boolean;
use pypnm_sizing::parse::cgroup::{self, LimitValue};
use pypnm_sizing::parse::cpu_list::{CpuSet, MAX_CPUS};
use pypnm_sizing::parse::environment;
use pypnm_sizing::parse::mountinfo::cgroup_mounts;
use pypnm_sizing::parse::quantity::{self, Cpus, Gb, Gib, Size};
use pypnm_sizing::parse::syntax::{Fault, Item, items};
use pypnm_sizing::policy::profile;
use pypnm_sizing::problem::Source;
use pypnm_sizing::root::Root;
use pypnm_sizing::units::name::{Name, escape, is_slice, parent_slice, unescape};
use pypnm_sizing::units::{Assignment, KEYS, LoadState, Unit, parse_assignments};

/// What systemd takes for white space.
const WHITESPACE: [char; 4] = [' ', '\t', '\n', '\r'];

/// Takes any input and panics where something does not hold.
pub(crate) type Target = fn(&[u8]);

/// Every target with its name.
pub(crate) const ALL: [(&str, Target); 7] = [
    ("cgroup", cgroup),
    ("mountinfo", mountinfo),
    ("unit_syntax", unit_syntax),
    ("cpu_list", cpu_list),
    ("sizes", sizes),
    ("configuration", configuration),
    ("unit", unit),
];

/// `/proc/1/cgroup`, then, after a NUL, `/proc/1/mountinfo`: where PID 1 is; and the same text as the value of a limit.
pub(crate) fn cgroup(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    for parse in [cgroup::memory_v1, cgroup::memory_v2] {
        if let Some(LimitValue::At(bytes)) = parse(text) {
            assert_eq!(parse(&bytes.to_string()), Some(LimitValue::At(bytes)));
        }
    }
    let _ = cgroup::hierarchical_memory_limit(text);
    if let Some(LimitValue::At(quota)) = cgroup::quota_v1(text) {
        assert!(quota > 0);
        let period = cgroup::period_v1(text).unwrap_or(1);
        let (less, more) =
            (cgroup::milli_cpus(quota, period), cgroup::milli_cpus(quota.saturating_add(1), period));
        assert!(less.is_some() && less <= more, "monotone in the quota");
    }
    if let Some(LimitValue::At(milli)) = cgroup::cpu_v2(text) {
        assert!(text.split_ascii_whitespace().count() <= 2, "{milli}");
    }

    let (membership, mountinfo) = text.split_once('\0').unwrap_or((text, ""));
    let Ok(memberships) = cgroup::memberships(membership) else {
        return;
    };
    for member in &memberships {
        assert!(member.path.starts_with('/'));
        let line = match member.v1_controllers {
            Some(controllers) => format!("7:{controllers}:{}", member.path),
            None => format!("0::{}", member.path),
        };
        assert_eq!(cgroup::memberships(&line), Ok(vec![*member]), "written and read back");
    }
    let mounts = cgroup_mounts(mountinfo.as_bytes());
    for controller in ["memory", "cpu", "cpuset"] {
        let Some(hierarchy) = Hierarchy::find(controller, &memberships, &mounts, &["/init.scope"]) else {
            assert!(memberships.iter().all(|one| one.v1_controllers.is_some() && !one.has_v1(controller)));
            continue;
        };
        let levels: Vec<&str> = hierarchy.levels().collect();
        assert!(!levels.is_empty() && levels.len() <= membership.len() + 1);
        for pair in levels.windows(2) {
            assert!(
                pair[1].len() > pair[0].len() && pair[1].starts_with(pair[0]),
                "from the outside in: {levels:?}"
            );
        }
        let (outermost, innermost) = (levels[0], levels[levels.len() - 1]);
        assert!(outermost.is_empty() || outermost.starts_with('/'));
        let below = &innermost[outermost.len()..];
        assert!(!below.split('/').any(|step| step == ".."), "never upwards: {levels:?}");
    }
}

/// A mountinfo.
pub(crate) fn mountinfo(data: &[u8]) {
    let mounts = cgroup_mounts(data);
    assert!(mounts.len() <= data.split(|byte| *byte == b'\n').count());
    let escape = |path: &str| {
        let mut escaped = String::new();
        for c in path.chars() {
            match c {
                ' ' | '\t' | '\n' | '\\' => write!(escaped, "\\{:03o}", u32::from(c)).unwrap(),
                c => escaped.push(c),
            }
        }
        escaped
    };
    for mount in &mounts {
        assert!(mount.root.starts_with('/') && mount.point.starts_with('/'));
        let (root, point) = (escape(&mount.root), escape(&mount.point));
        let line = match mount.v1_options {
            Some(options) => format!("1 2 0:3 {root} {point} rw shared:4 - cgroup cgroup {options}\n"),
            None => format!("1 2 0:3 {root} {point} rw shared:4 - cgroup2 cgroup2 rw\n"),
        };
        assert_eq!(cgroup_mounts(line.as_bytes()), std::slice::from_ref(mount), "written and read back");
    }
}

/// A unit file or a configuration file: its lines.
pub(crate) fn unit_syntax(data: &[u8]) {
    let mut last = 0;
    let mut ended = false;
    let mut written = String::from("\n");
    let mut expected = Vec::new();
    for item in items(data) {
        assert!(!ended, "nothing is read after a broken header");
        let line = match &item {
            Item::Section { line, .. } | Item::Assignment { line, .. } | Item::Fault { line, .. } => *line,
        };
        assert!(line > last && line as usize <= data.len(), "lines count upwards");
        last = line;
        match item {
            Item::Fault { fault, .. } => ended = fault == Fault::BrokenSection,
            Item::Section { name, .. } => {
                writeln!(written, "[{name}]").unwrap();
                expected.push((name, None));
            }
            Item::Assignment { key, value, .. } => {
                assert!(!key.is_empty() || !value.is_empty() || data.contains(&b'='));
                assert_eq!(key, key.trim_matches(WHITESPACE));
                assert_eq!(value, value.trim_matches(WHITESPACE));
                // A backslash before trailing space is text, at the end of a line it is not.
                if value.ends_with('\\') || key.is_empty() {
                    return;
                }
                writeln!(written, "{key}={value}").unwrap();
                expected.push((key, Some(value)));
            }
        }
    }
    let read_back: Vec<_> = items(written.as_bytes())
        .map(|item| match item {
            Item::Section { name, .. } => (name, None),
            Item::Assignment { key, value, .. } => (key, Some(value)),
            Item::Fault { fault, line } => panic!("{line}: {fault} in {written:?}"),
        })
        .collect();
    assert_eq!(read_back, expected, "written and read back");
}

/// Two lists of CPUs, separated by a NUL.
pub(crate) fn cpu_list(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    let (one, other) = text.split_once('\0').unwrap_or((text, "0-3"));
    if let Some(setting) = CpuSet::parse_setting(one) {
        let (set, printed) = (&setting.set, setting.set.to_string());
        let again = CpuSet::parse_setting(&printed).expect("what is printed is a list");
        assert!(again.valid && again.set.to_string() == printed);
        assert_eq!(set.iter().count(), set.count() as usize);
        assert!(set.iter().is_sorted() && set.iter().all(|cpu| cpu < MAX_CPUS));
        assert!(setting.words <= one.len() && (set.is_empty() || setting.words > 0));
    }
    let Some(one) = CpuSet::parse(one) else {
        return;
    };
    assert!(one.count() <= MAX_CPUS);
    assert_eq!(one.is_empty(), one.count() == 0);
    let printed = one.to_string();
    let again = CpuSet::parse(&printed).expect("what is printed is a list");
    assert_eq!((again.count(), again.to_string()), (one.count(), printed));
    let Some(other) = CpuSet::parse(other) else {
        return;
    };
    let common = one.intersection(&other);
    let mut all = one.clone();
    all.extend(&other);
    assert!(common.count() <= one.count().min(other.count()));
    assert_eq!(common.count() + all.count(), one.count() + other.count());
}

/// A size, a share, a number of CPUs, a boolean.
pub(crate) fn sizes(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    match quantity::size(text) {
        Some(Size::Bytes(bytes)) => {
            assert_eq!(quantity::size(&bytes.to_string()), Some(Size::Bytes(bytes)));
            for shown in [Gib(bytes).to_string(), Gb(bytes).to_string(), Cpus(bytes).to_string()] {
                assert!(shown.starts_with(|c: char| c.is_ascii_digit()));
            }
        }
        Some(Size::Permyriad(share)) => {
            assert!(share <= 10_000);
            for host in [0, 1, 4 << 30, u64::MAX] {
                assert!(Size::Permyriad(share).in_bytes(host) <= host);
            }
            assert_eq!(quantity::permyriad(text), Some(share));
        }
        None => {}
    }
    if let Some(milli) = quantity::milli_cpus(text) {
        assert_eq!(quantity::milli_cpus(&Cpus(milli).to_string()), Some(milli), "written and read back");
    }
    if let Some(number) = quantity::decimal::<u64>(text) {
        assert!(text.trim_start_matches('0') == number.to_string().trim_start_matches('0'));
    }
    if let Some(number) = quantity::integer(text) {
        assert_eq!(quantity::integer(&number.to_string()), Some(number));
        assert_eq!(quantity::integer(&format!("{number:#x}")), Some(number));
    }
    let _ = (boolean(text), quantity::permyriad(text));
}

/// A configuration file.
pub(crate) fn configuration(data: &[u8]) {
    let read = |config: &mut Config| {
        let mut problems = Vec::new();
        config::parse_into("/etc/pypnm/sizing.conf", data, config, &mut problems);
        problems
    };
    let mut config = Config::default();
    let problems = read(&mut config);
    assert!(problems.len() <= data.len());
    for problem in &problems {
        let said = problem.to_string();
        assert!(said.starts_with("/etc/pypnm/sizing.conf:") && !said.contains('\n'), "{said:?}");
    }
    let units = config.units();
    assert!(!units.is_empty() && units.len() <= 64);
    for unit in &units {
        assert!(unit.ends_with(".service") && !unit.contains('/') && !unit.starts_with('.'), "{unit:?}");
        let settings = config.for_unit(unit).policy_settings();
        assert!((1..=1024).contains(&settings.max_workers));
        for (cpus, memory) in [(0, 0), (4, 16 << 30), (1024, 64 << 40)] {
            let profile = profile(cpus, memory, &settings);
            assert!((1..=1024).contains(&profile.workers));
        }
    }
    let mut twice = config.clone();
    assert_eq!(read(&mut twice), problems, "read twice, the same is said");
    assert_eq!(twice, config, "read twice, nothing changes");
}

/// A unit: its name, its file, a drop-in, an environment file, separated by NULs; what it limits and overrides.
pub(crate) fn unit(data: &[u8]) {
    const FILE: &str = "/etc/systemd/system/x.service";
    const DROP_IN: &str = "/etc/systemd/system/x.service.d/50.conf";
    let mut parts = data.splitn(4, |byte| *byte == 0);
    let mut next = || parts.next().unwrap_or_default();
    let (whole, file, drop_in, variables) = (String::from_utf8_lossy(next()), next(), next(), next());
    for variable in environment::variables(variables).unwrap_or_default() {
        // Only the first byte of a name may be a '='.
        assert!(!variable.key.chars().skip(1).any(|c| c == '=') && !variable.key.contains(['\n', '\r']));
        assert!(variable.line as usize <= variables.len());
    }
    assert_eq!(unescape(&escape(&whole)).as_deref(), Some(&*whole));
    let name = Name::parse(&whole).or_else(|| Name::parse("a-b@c.service")).expect("a name");
    let dropped = name.with_drop_ins();
    assert_eq!(dropped[0], name.text);
    assert!(dropped.iter().all(|other| Name::parse(other).is_some_and(|o| o.unit_type == name.unit_type)));
    // Escaping a long prefix makes a name that is too long.
    assert!(is_slice(&name.default_slice()) || name.prefix.len() > 60);

    let mut problems = Vec::new();
    let mut assignments = Vec::new();
    parse_assignments(FILE, file, name.unit_type, &mut assignments, &mut problems);
    parse_assignments(DROP_IN, drop_in, name.unit_type, &mut assignments, &mut problems);
    assert!(problems.len() <= 4, "the first fault, and the one that ends the file");
    assert!(
        assignments
            .iter()
            .all(|one| KEYS.contains(&one.key) && one.value == one.value.trim_matches(WHITESPACE))
    );
    let mut unit = Unit {
        name: name.text.to_owned(),
        asked: name.text.to_owned(),
        aliases: Vec::new(),
        state: LoadState::Loaded,
        fragment: Some(FILE.to_owned()),
        drop_ins: vec![DROP_IN.to_owned()],
        assignments,
        unread: Vec::new(),
    };
    let root = Root::below(Path::new("/proc/self/fdinfo")).expect("a directory without these files");
    for memory in [None, Some(16 << 30)] {
        let settings = service::settings(&unit, memory, &mut problems);
        for said in
            [&settings.memory_max, &settings.memory_high, &settings.memory_limit].into_iter().flatten()
        {
            assert!(said.value > 0 && said.value < u64::MAX);
        }
        let mut slice = settings.slice.clone();
        let mut steps = 0;
        while let Some(inner) = slice {
            assert!(Name::parse(&inner).is_some() || inner.len() > 255);
            slice = parent_slice(&inner);
            steps += 1;
        }
        assert!(steps <= 256);
        for limit in service::limits(&root, &settings, Scope::Service, &mut problems) {
            match limit.amount {
                Amount::Memory(bytes) => assert!(bytes > 0),
                Amount::Cpus(_) | Amount::CpuTime(_) | Amount::MemoryNodes(_) | Amount::Unknown(_) => {}
            }
        }
    }
    let overrides = overrides::read(&root, &unit, &Manager::default(), &BTreeMap::new(), &mut problems);
    // Each of them once, save the files that were not looked at.
    let looked_at = overrides
        .list
        .iter()
        .filter(|one| !matches!(one.effect, Effect::NotRead { .. } | Effect::UnknownCommand { .. }));
    assert!(looked_at.count() <= 1 + 8 + 8 + 2 + 2);
    for one in &overrides.list {
        assert!(one.source.file.starts_with('/') && one.effect != Effect::Replaced);
    }
    assert!(overrides.workers(2).value >= 1);

    for (key, value) in
        [("MemoryMax", ""), ("CPUQuota", ""), ("AllowedCPUs", ""), ("CPUAffinity", ""), ("MemoryHigh", "1G")]
    {
        let source = Source::key(DROP_IN, 9999, key);
        unit.assignments.push(Assignment { key, value: value.to_owned(), source });
    }
    let settings = service::settings(&unit, None, &mut problems);
    assert!(settings.memory_max.is_none() && settings.cpu_quota.is_none() && settings.allowed_cpus.is_none());
    assert!(
        settings.cpu_affinity.is_none() && settings.numa_affinity.is_none(),
        "an empty assignment resets"
    );
    assert_eq!(settings.memory_high.map(|said| said.value), Some(1 << 30), "the last one wins");
}
