//! Sizes PyPNM's worker processes to the CPUs and memory that are available to them.
//!
//! Data flows in one direction, with a module for each step; [`sizing`] connects the steps:
//!
//! ```text
//!  files under a root   limits             capacity      policy        drop-in       disk
//!  [root] [parse]    →  [limits]        →  [capacity] →  [policy]   →  [dropin]   →  [write]
//!  [units]              host, cgroup,      the minimum   the guide     variables,    one rename
//!                       service                          [reasons]     then text
//!  what the operator sets: [config] [kernel_cmdline] [manager] [overrides] [command]
//! ```
//!
//! The generator and every verb of the helper call [`sizing::size`] and differ only in the last step. [`parse`], [`command`],
//! [`capacity`], [`policy`], [`sized`], [`reasons`] and [`dropin`] open no files; for sizing, only [`root`] reads files, and
//! only [`mod@write`] writes them. Files that influence what root does are used only if nobody else could have written them
//! ([`trust`]), and nothing is read that could block PID 1 ([`mounts`]). Names that others rely on are in [`names`]. An
//! invalid input is a [`problem`], which never ends a run.
//!
//! [`conf_files`] finds the files of a configuration directory, and [`log`] reports to the kernel log or stderr. Only the
//! helper uses `pypnm`, which knows PyPNM's own defaults and profile file, and `watch`, which evaluates measurements of a
//! running service.

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
pub mod sized;
pub mod sizing;
pub mod trust;
pub mod units;
#[cfg(feature = "helper")]
pub mod watch;
pub mod write;
