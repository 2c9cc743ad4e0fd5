//! The service on the running machine: its state in systemd, its processes, the generated files, and the installations of
//! PyPNM.

pub(crate) mod account;
pub(crate) mod container;
pub(crate) mod exec_profile;
pub(crate) mod family;
pub(crate) mod generated;
pub(crate) mod generator;
pub(crate) mod handover;
pub(crate) mod in_use;
pub(crate) mod launch;
pub(crate) mod listener;
pub(crate) mod moment;
pub(crate) mod own;
mod probe;
pub(crate) mod process;
pub(crate) mod pypnm;
pub(crate) mod readiness;
pub(crate) mod running;
pub(crate) mod systemctl;
pub(crate) mod unit_file;
