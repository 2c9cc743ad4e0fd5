//! Whether a service can listen on an address, and which process already does. For the running machine only.

use std::io::ErrorKind;
use std::net::{SocketAddr, TcpListener};

use pypnm_sizing::root::Root;

use super::process::{self, sockets};

/// Why a service cannot listen on an address.
#[derive(Debug)]
pub(crate) enum Obstacle {
    /// Another process listens there.
    Taken {
        /// The process, if it can be found.
        pid: Option<u32>,
    },
    /// No interface of this machine has the address.
    NotLocal,
    /// The kernel does not permit any process to listen there.
    Impossible(std::io::Error),
}

/// Tries to listen on the address. Ports below 1024, which only the service may use, are not an obstacle.
pub(crate) fn obstacle(machine: &Root, address: SocketAddr) -> Option<Obstacle> {
    let error = TcpListener::bind(address).err()?;
    match error.kind() {
        ErrorKind::AddrInUse => Some(Obstacle::Taken { pid: listener(machine, address.port()) }),
        ErrorKind::AddrNotAvailable => Some(Obstacle::NotLocal),
        ErrorKind::PermissionDenied => None,
        _ => Some(Obstacle::Impossible(error)),
    }
}

/// A process with a socket that listens on the port. PID 1 if there is no other: systemd keeps the sockets of socket units,
/// and those in the file descriptor stores of services (sd_notify(3), `FDSTORE=1`).
fn listener(machine: &Root, port: u16) -> Option<u32> {
    let mut inodes = Vec::new();
    let own = std::process::id();
    let read = sockets::each_tcp(own, |socket| {
        if socket.local.port() == port {
            inodes.extend(socket.listener().map(|listener| listener.inode));
        }
    });
    read.ok()?;
    let holds =
        |pid: &u32| sockets::held(*pid).is_ok_and(|held| inodes.iter().any(|inode| held.contains(inode)));
    let others = process::all_pids(machine).into_iter().filter(|pid| *pid != 1);
    others.chain([1]).find(holds)
}
