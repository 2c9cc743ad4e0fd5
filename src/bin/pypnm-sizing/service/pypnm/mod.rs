//! Installations of PyPNM: where they are, their version, and whether they read a worker profile.
//!
//! No Python is run: pip and venv store all of this in files, which [`metadata`] parses and [`installation`] evaluates.
//! [`installed`] finds installations, [`started`] those that a unit starts, [`search`] determines where a unit looks for its
//! program, [`lost_program`] why it does not find it, and [`profile_file`] where PyPNM keeps its profile.

mod commands;
mod installation;
mod installed;
mod lost_program;
mod metadata;
mod paths;
mod profile_file;
mod program;
mod search;
mod started;

pub(crate) use installation::{Discovery, Installation, is_user_base, names_in_use, python_places};
pub(crate) use installed::{Installations, in_directory, is_checkout, nearest};
pub(crate) use lost_program::LostProgram;
pub(crate) use paths::real_path;
pub(crate) use profile_file::profile_file;
pub(crate) use program::{CMTS, PYPNM, PypnmProgram};
pub(crate) use search::{DEFAULT_PATH, is_packaged, setting, variable_of};
pub(crate) use started::{started_by, started_otherwise, starts};
