//! The command line: verbs and options with their descriptions, for the parser, the help and the completions.

mod help;
mod values;

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::{Args, Parser, Subcommand};
use pypnm_sizing::config::DEFAULT_UNIT;
use pypnm_sizing::sizing::Hypothetical;

use help::{
    ABOUT, APPLY_EXAMPLES, CHECK_EXAMPLES, ENV_NOTES, EXAMPLES, EXEC_EXAMPLES, EXPLAIN_EXAMPLES,
    PREVIEW_EXAMPLES, READY_EXAMPLES, REPORT_EXAMPLES, SETUP_EXAMPLES, SHOW_EXAMPLES, WATCH_EXAMPLES,
};
pub(crate) use values::FOR_EVER;
use values::{cpus, evidence, gib, host, interval, memory, moment, output_file, port, time, unit};

/// The whole command line.
#[derive(Parser)]
#[command(name = "pypnm-sizing", version, about = ABOUT, after_help = EXAMPLES)]
pub(crate) struct Options {
    #[command(flatten)]
    pub(crate) common: Common,
    // The options of `show`, the default verb.
    #[command(flatten)]
    pub(crate) show: Show,
    #[command(subcommand)]
    pub(crate) command: Option<Command>,
}

/// Options of every verb.
#[derive(Args)]
pub(crate) struct Common {
    /// Read all files below DIR instead of those of the running machine
    #[arg(long, value_name = "DIR", global = true, display_order = 900)]
    pub(crate) root: Option<PathBuf>,
}

/// The verbs.
#[derive(Subcommand)]
pub(crate) enum Command {
    /// Show the profile of this machine at a glance (the default)
    #[command(after_help = SHOW_EXAMPLES)]
    Show(Show),
    /// Show all limits, the tightest ones, the guide's steps, and what was set by hand
    #[command(after_help = EXPLAIN_EXAMPLES)]
    Explain(Show),
    /// Print the drop-in that the generator would write
    #[command(after_help = PREVIEW_EXAMPLES)]
    Preview(Preview),
    /// Print or write the four lines of PyPNM's profile
    Env(Env),
    /// Size PyPNM to the limits of this process, and execute a command (for containers)
    #[command(after_help = EXEC_EXAMPLES)]
    Exec(Exec),
    /// Check whether the loaded profile and the running processes still fit the machine
    #[command(after_help = CHECK_EXAMPLES)]
    Check(Check),
    /// Reload systemd, then reload or restart the service if its profile has changed
    #[command(after_help = APPLY_EXAMPLES)]
    Apply(Apply),
    /// Set up the packaged unit for a PyPNM in a checkout or another directory
    #[command(after_help = SETUP_EXAMPLES)]
    Setup(Setup),
    /// Wait until the service answers (for ExecStartPost=)
    #[command(after_help = READY_EXAMPLES)]
    Ready(Ready),
    /// Watch the running workers, and recommend settings
    #[command(after_help = WATCH_EXAMPLES)]
    Watch(Watch),
    /// Summarize the recordings of `watch --record`, and recommend settings
    Report(Report),
}

impl Command {
    /// The unit that is named on the command line, for a verb that sizes or judges units.
    pub(crate) fn unit(&mut self) -> Option<&mut String> {
        match self {
            Self::Show(of) | Self::Explain(of) => of.unit.as_mut(),
            Self::Preview(of) => of.unit.as_mut(),
            Self::Env(of) => of.unit.as_mut(),
            Self::Exec(of) => of.unit.as_mut(),
            Self::Check(of) => of.unit.as_mut(),
            Self::Apply(of) => of.unit.as_mut(),
            Self::Watch(of) => of.unit.as_mut(),
            Self::Setup(_) | Self::Ready(_) | Self::Report(_) => None,
        }
    }
}

/// Options for sizing another machine.
#[derive(Args)]
pub(crate) struct Machine {
    /// Size for a machine with N CPUs
    #[arg(long, value_name = "N", value_parser = cpus)]
    cpus: Option<u64>,
    /// The same, under the name used by PyPNM's own script
    #[arg(long, value_name = "N", value_parser = cpus, conflicts_with = "cpus")]
    cpu_count: Option<u64>,
    /// Size for a machine with this much memory: in bytes, or with K, M, G, T (base 1024) or KB, MB, GB, TB (base 1000)
    #[arg(long, value_name = "SIZE", value_parser = memory)]
    memory: Option<u64>,
    /// Size for a machine with X GiB of memory
    #[arg(long, value_name = "X", value_parser = gib, conflicts_with = "memory")]
    memory_gib: Option<u64>,
}

impl Machine {
    pub(crate) fn hypothetical(&self) -> Hypothetical {
        let cpus = self.cpus.map(|milli| (milli, "--cpus"));
        let cpu_count = self.cpu_count.map(|milli| (milli, "--cpu-count"));
        let memory = self.memory.map(|bytes| (bytes, "--memory"));
        let memory_gib = self.memory_gib.map(|bytes| (bytes, "--memory-gib"));
        Hypothetical { cpu: cpus.or(cpu_count), memory: memory.or(memory_gib) }
    }

    /// Whether an option of PyPNM's own seeding script was used.
    pub(crate) fn is_seed(&self) -> bool {
        self.cpu_count.is_some() || self.memory_gib.is_some()
    }
}

/// Options of `show` and `explain`.
#[derive(Args)]
pub(crate) struct Show {
    #[command(flatten)]
    pub(crate) machine: Machine,
    /// Only this unit [default: every unit that is sized]
    #[arg(long, value_name = "UNIT", value_parser = unit)]
    pub(crate) unit: Option<String>,
    /// Print one JSON object, for programs; see pypnm-sizing(1)
    #[arg(long)]
    pub(crate) json: bool,
}

impl Show {
    /// Whether any of its options was given.
    pub(crate) fn is_given(&self) -> bool {
        self.json || self.unit.is_some() || self.machine.hypothetical() != Hypothetical::default()
    }
}

#[derive(Args)]
pub(crate) struct Preview {
    #[command(flatten)]
    pub(crate) machine: Machine,
    /// Only this unit [default: every unit that is sized]
    #[arg(long, value_name = "UNIT", value_parser = unit)]
    pub(crate) unit: Option<String>,
}

#[derive(Args)]
pub(crate) struct Check {
    /// Only this unit [default: every unit that is sized]
    #[arg(long, value_name = "UNIT", value_parser = unit)]
    pub(crate) unit: Option<String>,
    /// Check this process instead: PyPNM in a container, seen from inside or from the host, or started by hand
    #[arg(long, value_name = "PID", value_parser = clap::value_parser!(u32).range(1..), conflicts_with = "unit")]
    pub(crate) pid: Option<u32>,
    /// Treat a service that is not active as CRITICAL, even if an operator stopped it
    #[arg(long)]
    pub(crate) must_run: bool,
    /// Show the profiles that were compared
    #[arg(short, long, conflicts_with = "json")]
    pub(crate) verbose: bool,
    /// Print one JSON object, for programs; see pypnm-sizing(1)
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Args)]
pub(crate) struct Setup {
    /// The checkout, or the virtual environment [default: the only PyPNM on this machine]
    #[arg(value_name = "DIR")]
    pub(crate) dir: Option<PathBuf>,
    /// The packaged unit that starts it
    #[arg(long, value_name = "UNIT", default_value = DEFAULT_UNIT, value_parser = unit)]
    pub(crate) unit: String,
    /// The user to run it as [default: the owner of the directory]
    #[arg(long, value_name = "USER", conflicts_with = "remove", allow_hyphen_values = true)]
    pub(crate) user: Option<String>,
    /// The address to listen on [default: as in /etc/pypnm/pypnm.env, or 127.0.0.1]
    #[arg(long, value_name = "HOST", conflicts_with = "remove", allow_hyphen_values = true, value_parser = host)]
    pub(crate) host: Option<String>,
    /// The port to listen on [default: as in /etc/pypnm/pypnm.env, or 8000]
    #[arg(long, value_name = "PORT", conflicts_with = "remove", allow_hyphen_values = true, value_parser = port)]
    pub(crate) port: Option<u16>,
    /// Write the drop-in, and reload systemd
    #[arg(long, conflicts_with = "remove")]
    pub(crate) write: bool,
    /// Remove the drop-in, and reload systemd
    #[arg(long)]
    pub(crate) remove: bool,
}

#[derive(Args)]
pub(crate) struct Apply {
    /// Only this unit [default: every unit that is sized]
    #[arg(long, value_name = "UNIT", value_parser = unit)]
    pub(crate) unit: Option<String>,
    /// Print what would be done, but change nothing
    #[arg(short = 'n', long)]
    pub(crate) dry_run: bool,
    /// Only reload systemd; the service gets its new profile at its next start
    #[arg(long)]
    pub(crate) no_restart: bool,
    /// Fail if a service does not answer within this time
    #[arg(long, value_name = "SECONDS", default_value_t = 180, value_parser = clap::value_parser!(u64).range(1..=86_400))]
    pub(crate) timeout: u64,
}

#[derive(Args)]
#[command(after_help = ENV_NOTES)]
pub(crate) struct Env {
    #[command(flatten)]
    pub(crate) machine: Machine,
    /// Write the lines to PATH, or where PyPNM looks: $PYPNM_SERVE_ENV_FILE, or the runtime_dir in its system.json
    #[arg(long, value_name = "PATH", num_args = 0..=1, value_parser = output_file())]
    #[expect(clippy::option_option, reason = "clap's type for an option whose value is optional")]
    write: Option<Option<PathBuf>>,
    /// Print the lines without writing a file
    #[arg(long)]
    print_only: bool,
    /// Use the profile of this unit [default: the first in Units=]
    #[arg(long, value_name = "UNIT", value_parser = unit)]
    pub(crate) unit: Option<String>,
}

#[derive(Args)]
pub(crate) struct Exec {
    /// Use the profile of this unit [default: the first in Units=]
    #[arg(long, value_name = "UNIT", value_parser = unit)]
    pub(crate) unit: Option<String>,
    /// The command and its arguments
    #[arg(value_name = "COMMAND", required = true, trailing_var_arg = true)]
    pub(crate) command: Vec<OsString>,
}

/// Where `env` writes its lines.
pub(crate) enum EnvTarget<'a> {
    Stdout,
    File(&'a Path),
    WherePypnmLooks,
}

impl Env {
    pub(crate) fn target(&self) -> EnvTarget<'_> {
        match &self.write {
            _ if self.print_only => EnvTarget::Stdout,
            Some(Some(path)) => EnvTarget::File(path),
            Some(None) => EnvTarget::WherePypnmLooks,
            None if self.machine.is_seed() => EnvTarget::WherePypnmLooks,
            None => EnvTarget::Stdout,
        }
    }
}

#[derive(Args)]
pub(crate) struct Ready {
    /// The service's main process [default: $MAINPID, as systemd sets it]
    #[arg(long, value_name = "PID", value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) pid: Option<u32>,
    /// Fail if the service does not answer within this time
    #[arg(long, value_name = "SECONDS", default_value_t = 60)]
    pub(crate) timeout: u64,
}

#[derive(Args)]
pub(crate) struct Watch {
    #[command(flatten)]
    pub(crate) machine: Machine,
    /// The unit to watch [default: the first in Units=]
    #[arg(long, value_name = "UNIT", value_parser = unit)]
    pub(crate) unit: Option<String>,
    /// Watch this process and its children instead: PyPNM started by hand or in a container
    #[arg(long, value_name = "PID", value_parser = clap::value_parser!(u32).range(1..), conflicts_with = "unit")]
    pub(crate) pid: Option<u32>,
    /// Time between samples, in seconds or with ms, s, min, h [default: 2s, or 10s with --record or --metrics]
    #[arg(long, value_name = "TIME", value_parser = interval)]
    pub(crate) interval: Option<Duration>,
    /// Length of a block of evidence: any advice requires one block, more workers three, growth six to 48
    #[arg(long, value_name = "TIME", default_value = "10min", value_parser = evidence)]
    pub(crate) evidence: Duration,
    /// Stop after this time [default: at Ctrl-C]
    #[arg(long, value_name = "TIME", value_parser = time)]
    pub(crate) duration: Option<Duration>,
    /// Print a line of JSON for each sample, and one at the end
    #[arg(long)]
    pub(crate) json: bool,
    /// At the end, print only the recommended settings, as a drop-in for sizing.conf.d
    #[arg(long, conflicts_with = "json")]
    pub(crate) write_advice: bool,
    /// Append the lines of --json to DIR/UNIT/YYYY-MM-DD.jsonl (UTC), for `report`
    #[arg(long, value_name = "DIR", num_args = 0..=1, require_equals = true, default_missing_value = RECORDINGS)]
    pub(crate) record: Option<PathBuf>,
    /// Disk space for the recordings of a unit; the oldest days are deleted first
    #[arg(long, value_name = "SIZE", default_value = "64M", value_parser = memory, requires = "record")]
    pub(crate) keep: u64,
    /// Write the last sample to FILE for node_exporter's textfile collector
    #[arg(long, value_name = "FILE", value_parser = output_file())]
    pub(crate) metrics: Option<PathBuf>,
}

/// Where recordings are kept.
pub(crate) const RECORDINGS: &str = "/var/lib/pypnm-sizing";

#[derive(Args)]
#[command(after_help = REPORT_EXAMPLES)]
pub(crate) struct Report {
    /// Recordings: directories, files, or - for standard input [default: /var/lib/pypnm-sizing]
    #[arg(value_name = "DIR or FILE")]
    pub(crate) recordings: Vec<PathBuf>,
    /// The unit to report on [default: the first in Units= that was recorded]
    #[arg(long, value_name = "UNIT")]
    pub(crate) unit: Option<String>,
    /// Only what was recorded since TIME: 2026-11-20, "2026-11-20 08:00", 7d (ago), or @SECONDS
    #[arg(long, value_name = "TIME", value_parser = moment)]
    pub(crate) since: Option<f64>,
    /// Only what was recorded before TIME
    #[arg(long, value_name = "TIME", value_parser = moment)]
    pub(crate) until: Option<f64>,
    /// Print one JSON object, for programs; see pypnm-sizing(1)
    #[arg(long)]
    pub(crate) json: bool,
    /// Write a self-contained page with plots to FILE
    #[arg(long, value_name = "FILE", value_parser = output_file())]
    pub(crate) html: Option<PathBuf>,
    /// Print only the recommended settings, as a drop-in for sizing.conf.d
    #[arg(long, conflicts_with = "json")]
    pub(crate) write_advice: bool,
    /// Write the recommended settings to 60-measured.conf in /etc/pypnm/sizing.conf.d, and show their effect
    #[arg(long, conflicts_with_all = ["json", "write_advice"])]
    pub(crate) adopt: bool,
}
