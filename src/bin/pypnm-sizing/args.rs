//! The command line: verbs, flags and what they mean, for the parser, the help and the completions alike.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};
use pypnm_sizing::config::DEFAULT_UNIT;
use pypnm_sizing::parse::quantity::{GB, GIB, Size, milli_cpus, size};
use pypnm_sizing::sizing::Instead;

/// Sizes PyPNM's workers to what this machine really grants.
#[derive(Parser)]
#[command(name = "pypnm-sizing", version, about)]
pub(crate) struct Options {
    #[command(flatten)]
    pub(crate) common: Common,
    #[command(subcommand)]
    pub(crate) command: Command,
}

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
    /// Show the drop-in that the generator would write
    Preview(Preview),
    /// Show or write PyPNM's four lines
    Env(Env),
    /// Wait until the service answers (for ExecStartPost=)
    Ready(crate::ready::Ready),
    /// Watch the live workers, and say what to set
    Watch(crate::watch::Watch),
}

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

#[derive(Args)]
pub(crate) struct Preview {
    #[command(flatten)]
    pub(crate) machine: Machine,
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
