//! `ready`: waits until the service answers. PyPNM does not notify systemd, and if every worker dies at startup, its parent
//! keeps starting new ones; as `ExecStartPost=`, this verb turns that into a failed start.
//!
//! It needs no configuration: the kernel knows the sockets that the service listens on.

use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, bail};
use pypnm_sizing::root::Root;

use crate::cli::Ready;
use crate::output::{Outcome, remark};
use crate::service::family::Service;
use crate::service::readiness::{NotReady, wait};

pub(crate) fn run(root: &Root, arguments: &Ready) -> Outcome {
    if !root.is_machine() {
        bail!("ready queries running processes; there are none below --root");
    }
    let from_systemd = || std::env::var("MAINPID").ok().and_then(|pid| pid.parse().ok()).map(Service::Unit);
    let service = arguments
        .pid
        .map(Service::Tree)
        .or_else(from_systemd)
        .context("no process given: use --pid=PID (in ExecStartPost=, systemd sets $MAINPID)")?;
    match wait(root, &mut || Some(service), Duration::from_secs(arguments.timeout)) {
        Ok(caveat) => {
            if let Some(caveat) = caveat {
                remark(&caveat);
            }
            Ok(ExitCode::SUCCESS)
        }
        Err(NotReady::No(why)) => {
            remark(&format!("{why}; see the log of the service"));
            Ok(ExitCode::FAILURE)
        }
        Err(NotReady::Unknown(why)) => bail!(why),
    }
}
