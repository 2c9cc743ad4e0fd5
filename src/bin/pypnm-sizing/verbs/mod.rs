//! The verbs. Each gathers its data, creates its answer and prints it.

pub(crate) mod apply;
pub(crate) mod check;
pub(crate) mod env;
pub(crate) mod exec;
pub(crate) mod explain;
pub(crate) mod preview;
pub(crate) mod ready;
pub(crate) mod report;
pub(crate) mod setup;
pub(crate) mod show;
