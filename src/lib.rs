//! Sizes PyPNM's worker processes to what the host really grants.
//!
//! The data flows one way, one module a step; [`sizing`] is the only place that joins the steps:
//!
//! ```text
//!  files under a root   limits            capacity      policy       drop-in      disk
//!  [root] [parse]    →  [limits]       →  [capacity] →  [policy]  →  [dropin]  →  [write]
//!  [units]              host, cgroup,     the minimum   the guide    text         one rename
//!                       service
//!  [config] [kernel_cmdline] [overrides]    the operator's word
//! ```
//!
//! The generator and every verb of the helper run [`sizing::size`] and differ in the last step only.
//! `parse`, `capacity`, `policy` and `dropin` open no file; only [`root`] reads and only [`write`] writes.

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
