//! The environment that the operator gives to all services at once, from the service manager's own configuration:
//! `DefaultEnvironment=` of systemd-system.conf(5), `systemd.setenv=` on the kernel command line, and, for services that
//! ask for it with `PassEnvironment=`, PID 1's own environment (systemd.exec(5), "Environment Variables in Spawned
//! Processes").
//!
//! A unit's `Environment=` wins over all of these. What `systemctl set-environment` adds at run time is known to PID 1 only
//! and is not seen here.

use std::collections::BTreeMap;

use crate::conf_files;
use crate::kernel_cmdline::Setenv;
use crate::parse::syntax::{Item, items};
use crate::parse::words::{Words, is_whitespace};
use crate::problem::{FileName, Problem, Source, Sourced};
use crate::root::{ReadError, Root};

/// systemd-system.conf(5), the strongest first: the main file, and the directory of its drop-ins.
const MAIN_FILES: [&str; 4] = [
    "/etc/systemd/system.conf",
    "/run/systemd/system.conf",
    "/usr/local/lib/systemd/system.conf",
    "/usr/lib/systemd/system.conf",
];
const DIRECTORIES: [&str; 4] = [
    "/etc/systemd/system.conf.d",
    "/run/systemd/system.conf.d",
    "/usr/local/lib/systemd/system.conf.d",
    "/usr/lib/systemd/system.conf.d",
];
/// What the kernel started PID 1 with (proc_pid_environ(5)).
const PID_1_ENVIRONMENT: &str = "/proc/1/environ";

/// What the manager adds to the environment of services.
#[derive(Debug, Default)]
pub struct Manager {
    /// For every service.
    for_all: BTreeMap<String, Sourced<String>>,
    /// The manager's own.
    own: BTreeMap<String, Sourced<String>>,
}

impl Manager {
    /// Reads the manager's configuration below `root`; `setenv` comes from the kernel command line, and wins.
    pub fn read(root: &Root, setenv: Vec<Setenv>, problems: &mut Vec<Problem>) -> Self {
        let mut manager = Self::default();
        for path in MAIN_FILES {
            if manager.read_file(root, path, problems) {
                break;
            }
        }
        conf_files::each_drop_in(root, &DIRECTORIES, problems, &mut |path, problems| {
            manager.read_file(root, path, problems)
        });
        for Setenv { name, value, file } in setenv {
            let source = Source::key(file, 0, "systemd.setenv");
            manager.for_all.insert(name, Sourced { value, source });
        }
        manager
    }

    /// A variable that every service gets.
    pub fn for_all(&self, name: &str) -> Option<&Sourced<String>> {
        self.for_all.get(name)
    }

    /// The manager's own environment, of which services get what `PassEnvironment=` names; `None`: this user may not read
    /// it.
    pub fn own_environment(&self, root: &Root) -> Option<BTreeMap<String, String>> {
        let words = |text: &[u8]| -> BTreeMap<String, String> {
            let words = text.split(|byte| *byte == 0).filter_map(|word| std::str::from_utf8(word).ok());
            words.filter_map(|word| word.split_once('=')).map(|(k, v)| (k.to_owned(), v.to_owned())).collect()
        };
        let mut own = match root.with_bytes(PID_1_ENVIRONMENT, words) {
            Ok(own) => own,
            // An image has no PID 1.
            Err(ReadError::Missing) if !root.is_machine() => BTreeMap::new(),
            Err(_) => return None,
        };
        own.extend(self.own.iter().map(|(name, set)| (name.clone(), set.value.clone())));
        Some(own)
    }

    /// Takes one file; whether there is such a file.
    fn read_file(&mut self, root: &Root, path: &str, problems: &mut Vec<Problem>) -> bool {
        match root.with_trusted_bytes(path, |text| self.parse(path, text)) {
            Ok(()) => true,
            Err(ReadError::Missing) => false,
            Err(error) => {
                let hides = conf_files::hides(&error);
                let consequence = "what it sets for all services is unknown";
                problems.push(Problem::unreadable(path.to_owned(), error, consequence));
                hides
            }
        }
    }

    /// Its faults are for systemd to report.
    fn parse(&mut self, path: &str, text: &[u8]) {
        let mut inside = false;
        for item in items(text) {
            match item {
                Item::Section { name, .. } => inside = name == "Manager",
                Item::Assignment { key, value, line } if inside => match key.as_ref() {
                    "DefaultEnvironment" => {
                        assign(&mut self.for_all, path, line, "DefaultEnvironment", &value);
                    }
                    "ManagerEnvironment" => assign(&mut self.own, path, line, "ManagerEnvironment", &value),
                    _ => {}
                },
                Item::Assignment { .. } | Item::Fault { .. } => {}
            }
        }
    }
}

/// Words of the form `NAME=value`; an empty value takes back what was said before.
fn assign(
    variables: &mut BTreeMap<String, Sourced<String>>,
    path: &str,
    line: u32,
    key: &'static str,
    value: &str,
) {
    if value.is_empty() {
        variables.clear();
        return;
    }
    let file = FileName::from(path);
    for word in Words::new(value, is_whitespace, true).map_while(Result::ok) {
        if let Some((name, value)) = word.split_once('=') {
            let value = Sourced { value: value.to_owned(), source: Source::key(file.clone(), line, key) };
            variables.insert(name.to_owned(), value);
        }
    }
}
