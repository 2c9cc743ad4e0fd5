//! The generated drop-in as data, with its only writer and its only reader. Pure.
//!
//! The file needs no quoting: there is one assignment per line, values contain no spaces, and the only specifier is `%n`,
//! the name of the unit (systemd.exec(5), systemd.unit(5)). The numbers are determined in [`crate::policy`].

use std::collections::BTreeMap;
use std::fmt::{self, Write as _};

use crate::names::{self, HELPER, RUNTIME_DIRECTORY};
use crate::overrides::{Effect, Override, SingleWorker};
use crate::parse::quantity::{Cpus, Gb, Gib};
use crate::parse::syntax::{Item, items};
use crate::problem::Source;
use crate::reasons::{cpu_reason, limit_reason, memory_reason, one_line, workers_reason};
use crate::sized::{SizedUnit, Sizing};

/// More warnings than this would obscure the rest of the file.
const MAX_WARNINGS: usize = 20;

/// The generated drop-in of a unit.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DropIn {
    /// The variables that it sets in the environment of the service, in order.
    pub variables: Vec<Variable>,
    /// The profile file that `ExecStartPre=` writes, as in the unit file; empty: none.
    pub env_file: String,
    /// Whether `Restart=always` is set, and why.
    pub restart: Option<SingleWorker>,
}

/// A variable of the drop-in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Variable {
    /// One of [`names::VARIABLES`].
    pub name: &'static str,
    /// Its value.
    pub value: String,
    /// Where the operator sets it, if the drop-in merely repeats that value.
    pub repeated: Option<Source>,
}

impl DropIn {
    /// The drop-in for `unit`.
    pub fn new(unit: &SizedUnit) -> Self {
        let profile = &unit.profile;
        let (workers, limit) = (profile.workers.to_string(), profile.limit_max_requests.to_string());
        let env_file = env_file(&unit.name);
        let sized = [
            (names::CPU_COUNT, unit.capacity.whole_cpus().to_string()),
            (names::TOTAL_MEMORY_GIB, Gib(unit.capacity.memory.amount).to_string()),
            (names::WORKERS, workers.clone()),
            (names::LIMIT_MAX_REQUESTS, limit.clone()),
            (names::UVICORN_WORKERS, workers),
            (names::UVICORN_LIMIT_MAX_REQUESTS, limit),
            (names::ENV_FILE, env_file.clone()),
        ];
        let variable = |(name, sized): (&'static str, String)| match unit.overrides.repeated(name) {
            Some(set) => {
                Some(Variable { name, value: set.value.clone(), repeated: Some(set.source.clone()) })
            }
            // With a limit of 0, uvicorn exits before the first request.
            None if name == names::UVICORN_LIMIT_MAX_REQUESTS && sized == "0" => None,
            None => Some(Variable { name, value: sized, repeated: None }),
        };
        let variables = sized.into_iter().filter(|(name, _)| !unit.overrides.is_left_out(name));
        Self {
            variables: variables.filter_map(variable).collect(),
            env_file,
            restart: unit.overrides.single_worker(profile.workers, profile.limit_max_requests),
        }
    }

    /// Parses a generated drop-in for the unit `name`. For a template, `name` is the instance.
    pub fn read(text: &[u8], name: &str) -> Self {
        let mut drop_in = Self::default();
        for item in items(text) {
            let Item::Assignment { key, value, .. } = item else {
                continue;
            };
            match key.as_str() {
                "Environment" => {
                    let known = value.split_once('=').and_then(|(key, value)| {
                        let name = names::VARIABLES.into_iter().find(|name| *name == key)?;
                        Some((name, value))
                    });
                    drop_in.variables.extend(known.map(|(variable, value)| Variable {
                        name: variable,
                        value: value.replace("%n", name),
                        repeated: None,
                    }));
                }
                "ExecStartPre" => {
                    drop_in.env_file = value.rsplit(' ').next().unwrap_or_default().replace("%n", name);
                }
                "Restart" => drop_in.restart = Some(SingleWorker::Possible),
                _ => {}
            }
        }
        drop_in
    }

    /// The variables by name.
    pub fn environment(&self) -> BTreeMap<String, String> {
        self.variables.iter().map(|variable| (variable.name.to_owned(), variable.value.clone())).collect()
    }

    /// Returns the text of the file, with the inputs and the reasons in comments.
    pub fn write(&self, sizing: &Sizing, unit: &SizedUnit) -> String {
        let mut text = String::with_capacity(2 << 10);
        // Writing to a string cannot fail.
        let _ = summary(&mut text, sizing, unit);
        let _ = self.settings(&mut text, unit);
        text
    }

    fn settings(&self, out: &mut String, unit: &SizedUnit) -> fmt::Result {
        writeln!(out, "\n[Service]")?;
        let mut of_uvicorn = false;
        for Variable { name, value, repeated } in &self.variables {
            match *name {
                names::UVICORN_WORKERS | names::UVICORN_LIMIT_MAX_REQUESTS if !of_uvicorn => {
                    of_uvicorn = true;
                    writeln!(
                        out,
                        "# For units that start uvicorn directly, which does not read the variables above."
                    )?;
                }
                names::ENV_FILE => writeln!(
                    out,
                    "# PyPNM reads its profile only from a file, which is written at each start from the\n\
                     # variables above or from what overrides them."
                )?,
                _ => {}
            }
            if let Some(source) = repeated {
                let place = Source { key: "".into(), ..source.clone() };
                writeln!(out, "# Set in {}:", one_line(place.to_string()))?;
            }
            writeln!(out, "Environment={name}={value}")?;
        }
        for name in names::VARIABLES.into_iter().filter(|name| unit.overrides.is_left_out(name)) {
            writeln!(out, "# {name} is left out, so that WEB_CONCURRENCY= takes effect.")?;
        }
        writeln!(out, "ExecStartPre=-+{HELPER} env --unit=%n --write {}", self.env_file)?;
        match self.restart {
            None => {}
            Some(SingleWorker::Certain) => writeln!(
                out,
                "# When a single worker reaches its recycle limit, the whole service exits with\n\
                 # status 0.\n\
                 Restart=always"
            )?,
            Some(SingleWorker::Possible) => writeln!(
                out,
                "# This unit may run a single worker. When that worker reaches its recycle limit,\n\
                 # the whole service exits with status 0.\n\
                 Restart=always"
            )?,
        }
        let end_of_options = if unit.name.starts_with('-') { "-- " } else { "" };
        writeln!(
            out,
            "\n# To override these settings, set Workers= or other keys in\n\
             # /etc/pypnm/sizing.conf.d/*.conf, see sizing.conf(5); or add\n\
             # Environment=PYPNM_SERVE_WORKERS=N to [Service] with\n\
             # 'systemctl edit {end_of_options}{}'.",
            unit.name
        )
    }
}

/// The comments at the top.
fn summary(out: &mut String, sizing: &Sizing, unit: &SizedUnit) -> fmt::Result {
    let (profile, cpu, memory) = (&unit.profile, unit.capacity.cpu.amount, unit.capacity.memory.amount);
    writeln!(
        out,
        "# Automatically generated by pypnm-sizing-generator(8) at every boot and\n\
         # daemon-reload; edits are lost. See the end of this file for how to override it.\n\
         # To see all inputs, run 'pypnm-sizing explain'.\n#"
    )?;
    writeln!(out, "# CPUs     {} ({})", Cpus(cpu), cpu_reason(unit))?;
    writeln!(out, "# Memory   {} = {} GiB ({})", Gb(memory), Gib(memory), memory_reason(unit))?;
    writeln!(out, "# Workers  {}: {}", profile.workers, workers_reason(unit))?;
    writeln!(out, "# Recycle  {}: {}", profile.limit_max_requests, limit_reason(unit))?;
    // Those that keep the numbers below from reaching PyPNM.
    let is_obstacle = |found: &&Override| {
        matches!(found.effect, Effect::Withheld | Effect::NoHandOver | Effect::Unset { .. })
    };
    for found in unit.overrides.list.iter().filter(is_obstacle) {
        writeln!(out, "# Override {}", one_line(found.to_string()))?;
    }
    for problem in sizing.problems.iter().take(MAX_WARNINGS) {
        writeln!(out, "# Warning  {}", one_line(problem.to_string()))?;
    }
    match sizing.problems.len().saturating_sub(MAX_WARNINGS) {
        0 => Ok(()),
        more => writeln!(out, "# Warning  and {more} more"),
    }
}

/// The path of the profile file. `%n` stands for names with characters that would have to be escaped in a unit file, and
/// for instances.
fn env_file(unit: &str) -> String {
    if unit.bytes().all(|b| b.is_ascii_alphanumeric() || b".-_:".contains(&b)) {
        format!("{RUNTIME_DIRECTORY}/{unit}.env")
    } else {
        format!("{RUNTIME_DIRECTORY}/%n.env")
    }
}

#[cfg(test)]
mod tests {
    use super::DropIn;
    use crate::root::Root;
    use crate::sizing::{Hypothetical, Request, size};

    #[test]
    fn written_drop_ins_are_read_back() {
        let root = Root::below(std::path::Path::new("/proc/self/fdinfo")).ok();
        let root = root.unwrap_or_else(Root::machine);
        let hypothetical = Hypothetical { cpu: Some((4000, "--cpus")), memory: Some((16 << 30, "--memory")) };
        for name in ["pypnm.service", "pypnm-cmts@east.service", "a\\x2db.service"] {
            let request =
                Request { hypothetical: hypothetical.clone(), extra_unit: Some(name), ..Request::new(&root) };
            let sizing = size(&request);
            let unit = sizing.units.iter().find(|unit| unit.name == name);
            let written = unit.map(|unit| (DropIn::new(unit), DropIn::new(unit).write(&sizing, unit)));
            let (drop_in, text) = written.unwrap_or_default();
            let read = DropIn::read(text.as_bytes(), name);
            assert_eq!(drop_in.variables.len(), 7, "{name}");
            let expanded = |text: &str| text.replace("%n", name);
            let environment: Vec<_> =
                drop_in.variables.iter().map(|v| (v.name, expanded(&v.value))).collect();
            let read_back: Vec<_> = read.variables.iter().map(|v| (v.name, v.value.clone())).collect();
            assert_eq!(read_back, environment, "{name}");
            assert_eq!(read.env_file, expanded(&drop_in.env_file));
            assert_eq!(read.env_file, format!("/run/pypnm-sizing/{name}.env"));
            assert_eq!(read.restart.is_some(), drop_in.restart.is_some());
        }
    }

    #[test]
    fn restart_and_environment_are_read_back() {
        let text = "[Service]\nEnvironment=UVICORN_WORKERS=1\nEnvironment=OTHER=2\nRestart=always\n";
        let read = DropIn::read(text.as_bytes(), "a.service");
        assert!(read.restart.is_some() && DropIn::read(b"[Service]\n", "a.service").restart.is_none());
        let environment: Vec<_> = read.environment().into_iter().collect();
        assert_eq!(environment, [("UVICORN_WORKERS".to_owned(), "1".to_owned())]);
    }
}
