//! The service as the running machine has it: what systemd says, what the generator wrote, where PyPNM looks.

pub(crate) mod account;
pub(crate) mod container;
pub(crate) mod exec_profile;
pub(crate) mod family;
pub(crate) mod generated;
pub(crate) mod handover;
pub(crate) mod launch;
pub(crate) mod listener;
pub(crate) mod own;
mod probe;
pub(crate) mod process;
pub(crate) mod pypnm;
pub(crate) mod readiness;
pub(crate) mod systemctl;
