//! The command line: verbs, flags and what they mean, for the parser, the help and the completions alike.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};
use pypnm_sizing::config::DEFAULT_UNIT;
use pypnm_sizing::parse::quantity::{GB, GIB, Size, milli_cpus, size};
use pypnm_sizing::sizing::Instead;

/// All that stands on it.
#[derive(Parser)]
#[command(name = "pypnm-sizing", version, about = ABOUT, after_help = EXAMPLES, max_term_width = 80)]
pub(crate) struct Options {
    #[command(flatten)]
    pub(crate) common: Common,
    // Of `show`, the verb where none is given.
    #[command(flatten)]
    pub(crate) show: Show,
    #[command(subcommand)]
    pub(crate) command: Option<Command>,
}

const ABOUT: &str = "Sizes PyPNM's workers to what this machine really grants";
const EXAMPLES: &str = "\
Examples:
  pypnm-sizing                              what this machine gets, at a glance
  pypnm-sizing explain                      every limit, and the guide's steps
  pypnm-sizing --cpus 16 --memory 64GB      another machine, before it is bought
  pypnm-sizing check && echo it still fits  for scripts, cron and Nagios
  pypnm-sizing apply --dry-run              what a reload and a restart would do

Without a verb it shows. Files: /etc/pypnm/sizing.conf, sizing.conf.d/*.conf;
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
    /// What this machine gets, at a glance (the default)
    #[command(after_help = SHOW_EXAMPLES)]
    Show(Show),
    /// Every limit found, the one that binds, the guide's steps, what was set by hand
    #[command(after_help = EXPLAIN_EXAMPLES)]
    Explain(Show),
    /// The drop-in that the generator would write
    #[command(after_help = PREVIEW_EXAMPLES)]
    Preview(Preview),
    /// PyPNM's four lines, shown or written
    Env(Env),
    /// Whether what systemd has loaded, and what runs, still fits the machine
    #[command(after_help = CHECK_EXAMPLES)]
    Check(Check),
    /// Reload, and restart the service if its profile changed
    #[command(after_help = APPLY_EXAMPLES)]
    Apply(Apply),
    /// Wait until the service answers (for ExecStartPost=)
    Ready(crate::ready::Ready),
    /// Watch the live workers, and say what to set
    Watch(crate::watch::Watch),
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

const CHECK_EXAMPLES: &str = "\
Status:
  0  it fits; an operator's own numbers fit as well, and are named
  1  it does not: the line says what differs, and the command that mends it
  2  it could not be told: no systemd here, no such unit, no permission

Examples:
  pypnm-sizing check                           one line, as Nagios wants it
  pypnm-sizing check --verbose
  pypnm-sizing check >/dev/null || mail -s sizing root </dev/null";

const APPLY_EXAMPLES: &str = "\
It asks systemd to reload, restarts the service only where its workers or its
recycle limit changed, waits until it answers and checks. A service that does
not run is not started. Needs the rights that systemctl needs.

Status:
  0  done, or nothing to do     1  it was done and still does not fit
  2  it could not be done

Examples:
  pypnm-sizing apply --dry-run                 what would happen
  sudo pypnm-sizing apply
  sudo pypnm-sizing apply --no-restart         the numbers count from its next start on";

/// Another machine to try.
#[derive(Args)]
pub(crate) struct Machine {
    /// Try a machine with N CPUs
    #[arg(long, visible_alias = "cpu-count", value_name = "N", value_parser = cpus)]
    cpus: Option<u64>,
    /// Try a machine with so much memory: bytes with K, M, G, T (base 1024) or KB, MB, GB, TB (base 1000)
    #[arg(long, value_name = "SIZE", value_parser = memory)]
    memory: Option<u64>,
    /// Try a machine with X GiB of memory
    #[arg(long, value_name = "X", value_parser = gib, conflicts_with = "memory")]
    memory_gib: Option<u64>,
}

impl Machine {
    pub(crate) fn instead(&self) -> Instead {
        Instead {
            cpu: self.cpus.map(|milli| (milli, "--cpus")),
            memory: self
                .memory
                .map(|bytes| (bytes, "--memory"))
                .or(self.memory_gib.map(|bytes| (bytes, "--memory-gib"))),
        }
    }
}

/// Of `show` and `explain`.
#[derive(Args)]
pub(crate) struct Show {
    #[command(flatten)]
    pub(crate) machine: Machine,
    /// Only this unit (default: every unit that is sized)
    #[arg(long, value_name = "UNIT")]
    pub(crate) unit: Option<String>,
    /// For programs: one JSON object (described in json.md)
    #[arg(long)]
    pub(crate) json: bool,
}

impl Show {
    /// Whether any of its flags was given.
    pub(crate) fn is_given(&self) -> bool {
        self.json || self.unit.is_some() || self.machine.instead() != Instead::default()
    }
}

#[derive(Args)]
pub(crate) struct Preview {
    #[command(flatten)]
    pub(crate) machine: Machine,
    /// Only this unit (default: every unit that is sized)
    #[arg(long, value_name = "UNIT")]
    pub(crate) unit: Option<String>,
}

#[derive(Args)]
pub(crate) struct Check {
    /// Only this unit (default: every unit that is sized)
    #[arg(long, value_name = "UNIT")]
    pub(crate) unit: Option<String>,
    /// Say what was compared
    #[arg(short, long, conflicts_with = "json")]
    pub(crate) verbose: bool,
    /// For programs: one JSON object (described in json.md)
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Args)]
pub(crate) struct Apply {
    /// Only this unit (default: every unit that is sized)
    #[arg(long, value_name = "UNIT")]
    pub(crate) unit: Option<String>,
    /// Say what would be done, and do nothing
    #[arg(short = 'n', long)]
    pub(crate) dry_run: bool,
    /// Reload only; the service takes its new profile at its next start
    #[arg(long)]
    pub(crate) no_restart: bool,
    /// Give up waiting for the service after so many seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 180, value_parser = clap::value_parser!(u64).range(1..=86_400))]
    pub(crate) timeout: u64,
}

#[derive(Args)]
pub(crate) struct Env {
    #[command(flatten)]
    pub(crate) machine: Machine,
    /// Write the lines to PATH, whole and by a rename; remove PATH where that fails
    #[arg(long, value_name = "PATH")]
    pub(crate) write: Option<PathBuf>,
    /// The unit whose profile it is
    #[arg(long, value_name = "UNIT", default_value = DEFAULT_UNIT)]
    pub(crate) unit: String,
}

fn cpus(text: &str) -> Result<u64, String> {
    milli_cpus(text)
        .filter(|milli| *milli > 0)
        .ok_or_else(|| "expected a number of CPUs above 0, such as 4 or 1.5".to_owned())
}

fn memory(text: &str) -> Result<u64, String> {
    let decimal = [("KB", 1000), ("MB", 1_000_000), ("GB", GB), ("TB", 1000 * GB)];
    let bytes = match decimal.iter().find_map(|(unit, bytes)| Some((text.strip_suffix(unit)?, bytes))) {
        Some((number, unit)) => scaled(number.trim_end(), *unit),
        None => match size(text.strip_suffix("iB").unwrap_or(text)) {
            Some(Size::Bytes(bytes)) => Some(bytes),
            _ => None,
        },
    };
    bytes
        .filter(|bytes| *bytes > 0)
        .ok_or_else(|| "expected a size such as 16GB (10^9 bytes), 15.6GiB or 8G (base 1024)".to_owned())
}

fn gib(text: &str) -> Result<u64, String> {
    scaled(text, GIB)
        .filter(|bytes| *bytes > 0)
        .ok_or_else(|| "expected GiB above 0, such as 8 or 15.63".to_owned())
}

/// A decimal number of `unit`s, in bytes, rounded down; at most nine decimals.
fn scaled(text: &str, unit: u64) -> Option<u64> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, "0"));
    let digits = u32::try_from(fraction.len()).ok().filter(|digits| *digits <= 9)?;
    let number = |text: &str| pypnm_sizing::parse::quantity::decimal::<u64>(text);
    let fraction = u128::from(number(fraction)?) * u128::from(unit) / 10u128.pow(digits);
    number(whole)?.checked_mul(unit)?.checked_add(u64::try_from(fraction).ok()?)
}
