//! The command line: verbs, flags and what they mean, for the parser, the help and the completions alike.

mod values;

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::{Args, Parser, Subcommand};
use pypnm_sizing::config::DEFAULT_UNIT;
use pypnm_sizing::sizing::Hypothetical;

pub(crate) use values::FOR_EVER;
use values::{cpus, evidence, gib, host, interval, memory, moment, time, unit};

/// The whole command line.
#[derive(Parser)]
#[command(name = "pypnm-sizing", version, about = ABOUT, after_help = EXAMPLES)]
pub(crate) struct Options {
    #[command(flatten)]
    pub(crate) common: Common,
    // Of `show`, the verb where none is given.
    #[command(flatten)]
    pub(crate) show: Show,
    #[command(subcommand)]
    pub(crate) command: Option<Command>,
}

const ABOUT: &str = "Sizes PyPNM's workers to the CPUs and memory that are really available";
const EXAMPLES: &str = "\
Examples:
  pypnm-sizing                              the profile of this machine at a glance
  pypnm-sizing explain                      every limit, and the guide's steps
  pypnm-sizing --cpus 16 --memory 64GB      another machine, before it is bought
  pypnm-sizing check                        for people, cron and monitoring
  pypnm-sizing apply --dry-run              what a reload and a restart would do

Without a command, show is run. Files: /etc/pypnm/sizing.conf, sizing.conf.d/*.conf;
see sizing.conf(5), pypnm-sizing(1).";

/// For every verb.
#[derive(Args)]
pub(crate) struct Common {
    /// Read every file below DIR instead of the running machine's
    #[arg(long, value_name = "DIR", global = true)]
    pub(crate) root: Option<PathBuf>,
}

/// The verbs.
#[derive(Subcommand)]
pub(crate) enum Command {
    /// Show the profile of this machine at a glance (the default)
    #[command(after_help = SHOW_EXAMPLES)]
    Show(Show),
    /// Show every limit found, the tightest, the guide's steps, what was set by hand
    #[command(after_help = EXPLAIN_EXAMPLES)]
    Explain(Show),
    /// Print the drop-in that the generator would write
    #[command(after_help = PREVIEW_EXAMPLES)]
    Preview(Preview),
    /// Print or write the four lines of PyPNM's profile
    Env(Env),
    /// Size PyPNM to what this process may use, and become the command: for containers
    #[command(after_help = EXEC_EXAMPLES)]
    Exec(Exec),
    /// Check whether what systemd has loaded, and what runs, still fits the machine
    #[command(after_help = CHECK_EXAMPLES)]
    Check(Check),
    /// Reload systemd, and restart the service if its profile changed
    #[command(after_help = APPLY_EXAMPLES)]
    Apply(Apply),
    /// Make a PyPNM in a checkout or another directory a sized, hardened service
    #[command(after_help = SETUP_EXAMPLES)]
    Setup(Setup),
    /// Wait until the service answers (for ExecStartPost=)
    Ready(Ready),
    /// Watch the live workers, and advise what to set
    Watch(Watch),
    /// What the recordings of `watch --record` say: a page, and what to set
    Report(Report),
}

const SHOW_EXAMPLES: &str = "\
Examples:
  pypnm-sizing show
  pypnm-sizing show --cpus 4 --memory 8GB      the guide's balanced node
  pypnm-sizing show --json | jq '.units[0].workers'";

const EXPLAIN_EXAMPLES: &str = "\
Examples:
  pypnm-sizing explain
  pypnm-sizing explain --unit pypnm-cmts.service
  pypnm-sizing explain --memory-gib 15.63      with another machine's memory
  pypnm-sizing explain --root /mnt/image       for an image that is mounted there";

const PREVIEW_EXAMPLES: &str = "\
Examples:
  pypnm-sizing preview                         nothing is written anywhere
  pypnm-sizing preview --cpus 16 --memory 64GB
  systemctl cat pypnm.service                  what systemd has loaded, to compare";

const EXEC_EXAMPLES: &str = "\
Variables that are set and not empty stay, and so does a complete profile file
of your own in PYPNM_SERVE_ENV_FILE. The command starts whatever happens.

Status: 125 wrong usage, 126 the command can't be executed, 127 it is not there;
else the command's own.

Examples:
  in an image's ENTRYPOINT:  pypnm-sizing exec -- /app/entrypoint.sh
  by hand:                   pypnm-sizing exec pypnm serve --port 8000";

const CHECK_EXAMPLES: &str = "\
Exit status, as for monitoring plugins:
  0  OK: the profile in use fits; numbers set by hand are fine, and named
  1  WARNING: it does not fit; the line names the difference and the fix
  2  CRITICAL: the service failed, keeps ending, or systemd has no such unit
  3  UNKNOWN: no systemd here, hidden from this user, or wrong usage

Examples:
  pypnm-sizing check                           one line, with performance data
  pypnm-sizing check --verbose
  pypnm-sizing check --must-run                a stopped service is CRITICAL
  podman exec -u 10001 pypnm pypnm-sizing check --pid 1
  pypnm-sizing check >/dev/null || mail -s sizing root </dev/null";

const SETUP_EXAMPLES: &str = "\
It prints a drop-in for the packaged unit that fits it to where PyPNM is, a
comment with each setting. What would not work is refused, with the reason.
Nothing is started, and nothing is changed without --write or --remove.

Status:
  0  printed, written, removed, or nothing to do
  2  refused, or not possible; nothing was changed

Examples:
  pypnm-sizing setup ~/PyPNM                   what would be written
  sudo pypnm-sizing setup ~/PyPNM --write
  sudo systemctl enable --now pypnm.service
  sudo pypnm-sizing setup --remove             back to the packaged unit";

const APPLY_EXAMPLES: &str = "\
Reloads systemd, restarts the service only where its workers or its recycle
limit have changed, waits until it answers, and checks. A service that is not
running is not started. Needs the rights that systemctl needs.

Exit status:
  0  done, or nothing to do     1  done, and check still finds something
  2  it could not be done

Examples:
  pypnm-sizing apply --dry-run                 what would happen
  sudo pypnm-sizing apply
  sudo pypnm-sizing apply --no-restart         takes effect at the next start";

/// Options that name another machine to try.
#[derive(Args)]
pub(crate) struct Machine {
    /// Try a machine with N CPUs
    #[arg(long, value_name = "N", value_parser = cpus)]
    cpus: Option<u64>,
    /// The same, under the name that PyPNM's own script uses
    #[arg(long, value_name = "N", value_parser = cpus, conflicts_with = "cpus")]
    cpu_count: Option<u64>,
    /// Try a machine with this much memory: bytes, with K, M, G, T (base 1024) or KB, MB, GB, TB (base 1000)
    #[arg(long, value_name = "SIZE", value_parser = memory)]
    memory: Option<u64>,
    /// Try a machine with X GiB of memory
    #[arg(long, value_name = "X", value_parser = gib, conflicts_with = "memory")]
    memory_gib: Option<u64>,
}

impl Machine {
    pub(crate) fn hypothetical(&self) -> Hypothetical {
        Hypothetical {
            cpu: self
                .cpus
                .map(|milli| (milli, "--cpus"))
                .or(self.cpu_count.map(|milli| (milli, "--cpu-count"))),
            memory: self
                .memory
                .map(|bytes| (bytes, "--memory"))
                .or(self.memory_gib.map(|bytes| (bytes, "--memory-gib"))),
        }
    }

    /// Whether it was named in the words of PyPNM's own seeding script.
    pub(crate) fn is_seed(&self) -> bool {
        self.cpu_count.is_some() || self.memory_gib.is_some()
    }
}

/// Options of `show` and `explain`.
#[derive(Args)]
pub(crate) struct Show {
    #[command(flatten)]
    pub(crate) machine: Machine,
    /// Only this unit (default: every unit that is sized)
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
    /// Only this unit (default: every unit that is sized)
    #[arg(long, value_name = "UNIT", value_parser = unit)]
    pub(crate) unit: Option<String>,
}

#[derive(Args)]
pub(crate) struct Check {
    /// Only this unit (default: every unit that is sized)
    #[arg(long, value_name = "UNIT", value_parser = unit)]
    pub(crate) unit: Option<String>,
    /// Check this process instead: a PyPNM in a container, from inside it or from its host, or started by hand
    #[arg(long, value_name = "PID", value_parser = clap::value_parser!(u32).range(1..), conflicts_with = "unit")]
    pub(crate) pid: Option<u32>,
    /// A service that is not active is critical, even if an operator stopped it
    #[arg(long)]
    pub(crate) must_run: bool,
    /// Show what was compared
    #[arg(short, long, conflicts_with = "json")]
    pub(crate) verbose: bool,
    /// Print one JSON object, for programs; see pypnm-sizing(1)
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Args)]
pub(crate) struct Setup {
    /// The checkout, or the virtual environment (default: the only PyPNM on this machine)
    #[arg(value_name = "DIR", conflicts_with = "remove")]
    pub(crate) dir: Option<PathBuf>,
    /// The packaged unit that is to start it
    #[arg(long, value_name = "UNIT", default_value = DEFAULT_UNIT, value_parser = unit)]
    pub(crate) unit: String,
    /// The user to run it as (default: the owner of the directory)
    #[arg(long, value_name = "USER", conflicts_with = "remove")]
    pub(crate) user: Option<String>,
    /// The address to listen on (default: as in /etc/pypnm/pypnm.env, else 127.0.0.1)
    #[arg(long, value_name = "HOST", conflicts_with = "remove", value_parser = host)]
    pub(crate) host: Option<String>,
    /// The port to listen on (default: likewise, else 8000)
    #[arg(long, value_name = "PORT", conflicts_with = "remove", value_parser = clap::value_parser!(u16).range(1..))]
    pub(crate) port: Option<u16>,
    /// Write the drop-in, and have systemd read it
    #[arg(long, conflicts_with = "remove")]
    pub(crate) write: bool,
    /// Remove the drop-in, and have systemd read that
    #[arg(long)]
    pub(crate) remove: bool,
}

#[derive(Args)]
pub(crate) struct Apply {
    /// Only this unit (default: every unit that is sized)
    #[arg(long, value_name = "UNIT", value_parser = unit)]
    pub(crate) unit: Option<String>,
    /// Show what would be done, and do nothing
    #[arg(short = 'n', long)]
    pub(crate) dry_run: bool,
    /// Reload only; the service takes its new profile at its next start
    #[arg(long)]
    pub(crate) no_restart: bool,
    /// Give up on a service that does not answer after this time, in seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 180, value_parser = clap::value_parser!(u64).range(1..=86_400))]
    pub(crate) timeout: u64,
}

#[derive(Args)]
#[command(after_help = "\
PYPNM_SERVE_* in the environment win: an operator's Environment= in the unit
reaches PyPNM. A value that PyPNM would crash on is replaced, with a warning.

It stands in for PyPNM's seed-fastapi-worker-profile.py: with --cpu-count or
--memory-gib it writes the file as --write without a PATH does, unless there
is --print-only.

Examples:
  show them:                    pypnm-sizing env
  write them where PyPNM looks: pypnm-sizing env --write
  another machine's:            pypnm-sizing env --cpus 16 --memory 64GB
In a container use 'pypnm-sizing exec'.")]
pub(crate) struct Env {
    #[command(flatten)]
    pub(crate) machine: Machine,
    /// Write them to PATH, or where PyPNM looks: $PYPNM_SERVE_ENV_FILE, or the runtime_dir of its system.json
    #[arg(long, value_name = "PATH", num_args = 0..=1)]
    #[expect(clippy::option_option, reason = "clap's way to say a flag whose value may be left out")]
    write: Option<Option<PathBuf>>,
    /// Only print them, whatever other options are given
    #[arg(long)]
    print_only: bool,
    /// The unit whose profile it is [default: the first of Units=]
    #[arg(long, value_name = "UNIT", value_parser = unit)]
    pub(crate) unit: Option<String>,
}

#[derive(Args)]
pub(crate) struct Exec {
    /// The unit whose profile it is [default: the first of Units=]
    #[arg(long, value_name = "UNIT", value_parser = unit)]
    pub(crate) unit: Option<String>,
    /// The command and its arguments
    #[arg(value_name = "COMMAND", required = true, trailing_var_arg = true)]
    pub(crate) command: Vec<OsString>,
}

/// Where `env` puts its lines.
pub(crate) enum Target<'a> {
    Stdout,
    File(&'a Path),
    WherePypnmLooks,
}

impl Env {
    pub(crate) fn target(&self) -> Target<'_> {
        match &self.write {
            _ if self.print_only => Target::Stdout,
            Some(Some(path)) => Target::File(path),
            Some(None) => Target::WherePypnmLooks,
            None if self.machine.is_seed() => Target::WherePypnmLooks,
            None => Target::Stdout,
        }
    }
}

#[derive(Args)]
pub(crate) struct Ready {
    /// The service's main process [default: $MAINPID, as systemd sets it]
    #[arg(long, value_name = "PID", value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) pid: Option<u32>,
    /// Give up after so many seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 60)]
    pub(crate) timeout: u64,
}

#[derive(Args)]
pub(crate) struct Watch {
    #[command(flatten)]
    pub(crate) machine: Machine,
    /// The unit to watch [default: the first of Units=]
    #[arg(long, value_name = "UNIT", value_parser = unit)]
    pub(crate) unit: Option<String>,
    /// Watch this process and its children instead: a PyPNM started by hand or in a container
    #[arg(long, value_name = "PID", value_parser = clap::value_parser!(u32).range(1..), conflicts_with = "unit")]
    pub(crate) pid: Option<u32>,
    /// Time between samples: seconds, or with ms, s, min, h [default: 2s, or 10s where it is recorded]
    #[arg(long, value_name = "TIME", value_parser = interval)]
    pub(crate) interval: Option<Duration>,
    /// The length of a block of evidence: one before anything is advised, three for demand, six for growth
    #[arg(long, value_name = "TIME", default_value = "10min", value_parser = evidence)]
    pub(crate) evidence: Duration,
    /// Stop after this time (default: at Ctrl-C)
    #[arg(long, value_name = "TIME", value_parser = time)]
    pub(crate) duration: Option<Duration>,
    /// One line of JSON for each sample, and one at the end
    #[arg(long)]
    pub(crate) json: bool,
    /// At the end print the advice as a drop-in for sizing.conf.d, and nothing else, on stdout
    #[arg(long, conflicts_with = "json")]
    pub(crate) write_advice: bool,
    /// Append the lines of --json to DIR/UNIT/YYYY-MM-DD.jsonl (UTC), for `report`
    #[arg(long, value_name = "DIR", num_args = 0..=1, require_equals = true, default_missing_value = RECORDINGS)]
    pub(crate) record: Option<PathBuf>,
    /// Disk space for the recordings of a unit; the oldest days are deleted first
    #[arg(long, value_name = "SIZE", default_value = "64M", value_parser = memory, requires = "record")]
    pub(crate) keep: u64,
    /// Write the last sample to FILE for node_exporter's textfile collector
    #[arg(long, value_name = "FILE")]
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
    /// The unit to report on [default: the first of Units= that was recorded]
    #[arg(long, value_name = "UNIT")]
    pub(crate) unit: Option<String>,
    /// Only what was recorded since then: 2026-11-20, "2026-11-20 08:00", 7d (ago), or @SECONDS
    #[arg(long, value_name = "TIME", value_parser = moment)]
    pub(crate) since: Option<f64>,
    /// Only what was recorded before then
    #[arg(long, value_name = "TIME", value_parser = moment)]
    pub(crate) until: Option<f64>,
    /// For programs: one JSON object, see pypnm-sizing(1)
    #[arg(long)]
    pub(crate) json: bool,
    /// Write a page with plots to FILE, which needs nothing else to be shown
    #[arg(long, value_name = "FILE")]
    pub(crate) html: Option<PathBuf>,
    /// Print the advice as a drop-in for sizing.conf.d, and nothing else
    #[arg(long, conflicts_with = "json")]
    pub(crate) write_advice: bool,
    /// Write the advice to /etc/pypnm/sizing.conf.d/60-measured.conf, and say what `apply` would change
    #[arg(long, conflicts_with_all = ["json", "write_advice"])]
    pub(crate) adopt: bool,
}

const REPORT_EXAMPLES: &str = "\
Examples:
  pypnm-sizing report                          all that was recorded
  pypnm-sizing report --since 7d --html week.html
  pypnm-sizing report --json | jq '.findings[].line'
  sudo pypnm-sizing report --adopt && sudo pypnm-sizing apply
  ssh host cat /var/lib/pypnm-sizing/*/* | pypnm-sizing report -";
