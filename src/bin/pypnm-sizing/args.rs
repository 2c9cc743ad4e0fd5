//! The command line: verbs, flags and what they mean, for the parser, the help and the completions alike.

use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::{Args, Parser, Subcommand};
use pypnm_sizing::config::{DEFAULT_UNIT, is_unit_name};
use pypnm_sizing::parse::quantity::{GB, GIB, Gib, Size, milli_cpus, size};
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
    Ready(Ready),
    /// Watch the live workers, and say what to set
    Watch(Watch),
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
    #[arg(long, value_name = "N", value_parser = cpus)]
    cpus: Option<u64>,
    /// The same, by the name that PyPNM's own script gives it
    #[arg(long, value_name = "N", value_parser = cpus, conflicts_with = "cpus")]
    cpu_count: Option<u64>,
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

/// Of `show` and `explain`.
#[derive(Args)]
pub(crate) struct Show {
    #[command(flatten)]
    pub(crate) machine: Machine,
    /// Only this unit (default: every unit that is sized)
    #[arg(long, value_name = "UNIT")]
    pub(crate) unit: Option<String>,
    /// For programs: one JSON object, see pypnm-sizing(1)
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
    /// For programs: one JSON object, see pypnm-sizing(1)
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
#[command(after_help = "\
PYPNM_SERVE_* in the environment win: an operator's Environment= in the unit
reaches PyPNM. A value that PyPNM would crash on is replaced, with a warning.

It stands in for PyPNM's seed-fastapi-worker-profile.py: with --cpu-count or
--memory-gib it writes the file as --write without a PATH does, unless there
is --print-only.

Examples:
  show them:                    pypnm-sizing env
  write them where PyPNM looks: pypnm-sizing env --write && pypnm serve
  another machine's:            pypnm-sizing env --cpus 16 --memory 64GB
  in a container's entry point: export PYPNM_SERVE_ENV_FILE=/run/pypnm.env
                                pypnm-sizing env --write && exec pypnm serve")]
pub(crate) struct Env {
    #[command(flatten)]
    pub(crate) machine: Machine,
    /// Write them to PATH, or where PyPNM looks: $PYPNM_SERVE_ENV_FILE, or the runtime_dir of its system.json
    #[arg(long, value_name = "PATH", num_args = 0..=1)]
    #[expect(clippy::option_option, reason = "clap's way to say a flag whose value may be left out")]
    write: Option<Option<PathBuf>>,
    /// Only show them, whatever else is said
    #[arg(long)]
    print_only: bool,
    /// The unit whose profile it is [default: the first of Units=]
    #[arg(long, value_name = "UNIT", value_parser = unit)]
    pub(crate) unit: Option<String>,
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
    /// The unit to watch
    #[arg(long, value_name = "UNIT", default_value = DEFAULT_UNIT)]
    pub(crate) unit: String,
    /// Watch this process and its children instead: a PyPNM started by hand or in a container
    #[arg(long, value_name = "PID", value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) pid: Option<u32>,
    /// Time between samples: seconds, or with ms, s, min, h
    #[arg(long, value_name = "TIME", default_value = "2s", value_parser = interval)]
    pub(crate) interval: Duration,
    /// Time watched before anything is advised; a fifth of it at full load proves demand
    #[arg(long, value_name = "TIME", default_value = "10min", value_parser = evidence)]
    pub(crate) evidence: Duration,
    /// Stop after this time (default: at Ctrl-C)
    #[arg(long, value_name = "TIME", value_parser = time)]
    pub(crate) duration: Option<Duration>,
    /// One line of JSON a sample, and one at the end
    #[arg(long)]
    pub(crate) json: bool,
    /// At the end print the advice as a drop-in for sizing.conf.d, and nothing else, on stdout
    #[arg(long, conflicts_with = "json")]
    pub(crate) write_advice: bool,
}

fn unit(text: &str) -> Result<String, String> {
    if is_unit_name(text) {
        Ok(text.to_owned())
    } else {
        Err("expected the name of a service, such as pypnm.service".to_owned())
    }
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

/// GiB as PyPNM's own script takes them. It rounds what it shows to two decimals after the binary fraction nearest to
/// the text, so of the two whole bytes around a tie the one is meant that is shown alike.
fn gib(text: &str) -> Result<u64, String> {
    let expected = || "expected GiB above 0, such as 8 or 15.63".to_owned();
    let bytes = scaled(text, GIB).filter(|bytes| *bytes > 0).ok_or_else(expected)?;
    let number: f64 = text.parse().map_err(|_| expected())?;
    let shown = |bytes: u64| Gib(bytes).to_string().parse::<f64>().ok().map(|gib| format!("{gib:.2}"));
    let meant =
        [bytes, bytes.saturating_add(1)].into_iter().find(|b| shown(*b) == Some(format!("{number:.2}")));
    Ok(meant.unwrap_or(bytes))
}

/// A decimal number of `unit`s, in bytes, rounded down; decimals past the fifteenth don't reach a byte.
fn scaled(text: &str, unit: u64) -> Option<u64> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, "0"));
    let number = |text: &str| pypnm_sizing::parse::quantity::decimal::<u64>(text);
    let fraction = match fraction.get(..15) {
        Some(enough) if fraction.bytes().all(|b| b.is_ascii_digit()) => enough,
        _ => fraction,
    };
    let digits = u32::try_from(fraction.len()).ok()?;
    let part = u128::from(number(fraction)?) * u128::from(unit) / 10u128.checked_pow(digits)?;
    number(whole)?.checked_mul(unit)?.checked_add(u64::try_from(part).ok()?)
}

/// Longer than anybody waits, and short enough for arithmetic.
pub(crate) const FOR_EVER: Duration = Duration::from_hours(100 * 365 * 24);

fn interval(text: &str) -> Result<Duration, String> {
    time(text)
        .ok()
        .filter(|time| (Duration::from_millis(50)..=Duration::from_hours(1)).contains(time))
        .ok_or_else(|| "expected a time from 50ms to 1h, such as 2s".to_owned())
}

fn evidence(text: &str) -> Result<Duration, String> {
    time(text)
        .ok()
        .filter(|time| *time >= Duration::from_secs(10))
        .ok_or_else(|| "expected a time of 10s or more, such as 10min".to_owned())
}

fn time(text: &str) -> Result<Duration, String> {
    let units = [("ms", 0.001), ("min", 60.0), ("h", 3600.0), ("d", 86_400.0), ("s", 1.0), ("m", 60.0)];
    let (number, unit) = units
        .iter()
        .find_map(|(suffix, unit)| Some((text.strip_suffix(suffix)?, *unit)))
        .unwrap_or((text, 1.0));
    let plain = number.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
    number
        .trim_end()
        .parse::<f64>()
        .ok()
        .filter(|_| plain)
        .and_then(|number| Duration::try_from_secs_f64(number * unit).ok())
        .filter(|time| !time.is_zero() && *time < FOR_EVER)
        .ok_or_else(|| "expected a time such as 90s, 10min or 24h".to_owned())
}
