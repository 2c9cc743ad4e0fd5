//! The environment that the service manager passes to services (systemd.exec(5), "Environment Variables in Spawned
//! Processes"): `DefaultEnvironment=` in systemd-system.conf(5), `systemd.setenv=` on the kernel command line, and PID 1's
//! own environment, for services with `PassEnvironment=`.
//!
//! A unit's `Environment=` takes precedence over all of these. Variables set with `systemctl set-environment` are known only
//! to PID 1 and are not visible here.

use std::collections::BTreeMap;

use crate::conf_files;
use crate::parse::syntax::{Item, items};
use crate::parse::words::words_of;
use crate::problem::{FileName, Problem, Source, Sourced};
use crate::root::{ReadError, Root};

/// The main file of systemd-system.conf(5), relative to a configuration directory.
const FILE: &str = "systemd/system.conf";
/// The initial environment of PID 1 (proc_pid_environ(5)).
const PID_1_ENVIRONMENT: &str = "/proc/1/environ";

/// The variables that the manager adds to the environment of services.
#[derive(Debug, Default)]
pub struct Manager {
    /// Those for every service.
    for_all: BTreeMap<String, Sourced<String>>,
    /// Those of the manager itself.
    own: BTreeMap<String, Sourced<String>>,
}

impl Manager {
    /// Reads the manager's configuration below `root`. `setenv`, from the kernel command line, takes precedence.
    pub fn read(root: &Root, setenv: BTreeMap<String, Sourced<String>>, problems: &mut Vec<Problem>) -> Self {
        let mut manager = Self::default();
        conf_files::each(root, FILE, problems, &mut |path, read, problems| match read {
            Ok(text) => manager.parse(path, text, problems),
            Err(error) => {
                let consequence = "what it sets for all services is unknown";
                problems.push(Problem::unreadable(path, error, consequence));
            }
        });
        manager.for_all.extend(setenv);
        manager
    }

    /// A variable that every service gets.
    pub fn for_all(&self, name: &str) -> Option<&Sourced<String>> {
        self.for_all.get(name)
    }

    /// The manager's own environment, from which `PassEnvironment=` passes variables to services. `None`: this user may not
    /// read it.
    pub fn own_environment(&self, root: &Root) -> Option<BTreeMap<String, String>> {
        let mut own = BTreeMap::new();
        let add = |text: &[u8]| {
            let words = text.split(|byte| *byte == 0).filter_map(|word| std::str::from_utf8(word).ok());
            own.extend(
                words.filter_map(|word| word.split_once('=')).map(|(k, v)| (k.to_owned(), v.to_owned())),
            );
        };
        match root.with_bytes(PID_1_ENVIRONMENT, add) {
            Ok(()) => {}
            // There is no PID 1 in an image.
            Err(ReadError::Missing) if !root.is_machine() => {}
            Err(_) => return None,
        }
        own.extend(self.own.iter().map(|(name, set)| (name.clone(), set.value.clone())));
        Some(own)
    }

    /// Other errors than those that make systemd skip the rest of the file are left to systemd to report.
    fn parse(&mut self, path: &str, text: &[u8], problems: &mut Vec<Problem>) {
        let mut inside = false;
        for item in items(text) {
            match item {
                Item::Section { name, .. } => inside = name == "Manager",
                Item::Assignment { key, value, line } if inside => match key.as_str() {
                    "DefaultEnvironment" => {
                        assign(&mut self.for_all, path, line, "DefaultEnvironment", &value);
                    }
                    "ManagerEnvironment" => assign(&mut self.own, path, line, "ManagerEnvironment", &value),
                    _ => {}
                },
                Item::Fault { fault, line } if fault.ends_the_file() => {
                    problems.push(Problem::skipped_by_systemd(Source::key(path, line, ""), fault));
                    return;
                }
                Item::Assignment { .. } | Item::Fault { .. } => {}
            }
        }
    }
}

/// Adds words of the form `NAME=value`. An empty value resets all previous assignments.
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
    for word in words_of(value) {
        if let Some((name, value)) = word.split_once('=') {
            let value = Sourced { value: value.to_owned(), source: Source::key(file.clone(), line, key) };
            variables.insert(name.to_owned(), value);
        }
    }
}
