//! Sizes PyPNM's worker processes to the CPUs and the memory that are really available to them.
//!
//! Data flows one way, one module per step; [`sizing`] joins them:
//!
//! ```text
//!  files under a root   limits             capacity      policy        drop-in       disk
//!  [root] [parse]    →  [limits]        →  [capacity] →  [policy]   →  [dropin]   →  [write]
//!  [units]              host, cgroup,      the minimum   the guide     variables,    one rename
//!                       service                          [reasons]     then text
//!  what the operator sets: [config] [kernel_cmdline] [manager] [overrides] [command]
//! ```
//!
//! The generator and every verb of the helper run [`sizing::size`] and differ in the last step only. [`parse`], [`command`],
//! [`capacity`], [`policy`], [`reasons`] and [`dropin`] open no file; only [`root`] reads for sizing, and only [`write`]
//! writes. What leads root counts only where nobody else could have written it ([`trust`]), and nothing is read where it
//! could keep PID 1 waiting ([`mounts`]). Names that others rely on are in [`names`]; what was wrong with an input is a
//! [`problem`], and never ends a run.

pub mod capacity;
pub mod command;
pub mod conf_files;
pub mod config;
pub mod dropin;
pub mod kernel_cmdline;
pub mod limits;
pub mod log;
pub mod manager;
pub mod mounts;
pub mod names;
pub mod overrides;
pub mod parse;
pub mod policy;
pub mod problem;
#[cfg(feature = "helper")]
pub mod pypnm;
pub mod reasons;
pub mod root;
pub mod sizing;
pub mod trust;
pub mod units;
#[cfg(feature = "helper")]
pub mod watch;
pub mod write;
