//! Determines whether a socket belongs to the service. Its data is read in other modules.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::os::unix::fs::MetadataExt as _;

use crate::service::process::sockets::{Address, HeldSockets, Listener, TcpSocket};

/// The data that distinguishes the sockets of a service from others.
pub(super) struct Owner {
    pub(super) held: HeldSockets,
    /// The processes of the service whose descriptors are not readable, because they have file capabilities or run as another
    /// user.
    pub(super) denied: BTreeSet<u32>,
    /// The users of these processes, except root.
    pub(super) users: BTreeSet<u32>,
    /// Whether a listening socket of such a user is attributed to the service.
    pub(super) by_user: bool,
}

impl Owner {
    /// Whether a listening socket belongs to the service.
    pub(super) fn owns(&self, listener: &Listener) -> bool {
        if self.held.contains(listener.inode) {
            return true;
        }
        // The kernel does not show the user of a Unix socket, but its file has an owner.
        let file = match &listener.address {
            Address::Path(path) if self.by_user => std::fs::symlink_metadata(path).ok(),
            _ => None,
        };
        let user = listener.user.or(file.map(|file| file.uid()));
        self.by_user && user.is_some_and(|user| self.users.contains(&user))
    }

    /// Whether the service has accepted a connection.
    pub(super) fn accepted(&self, connection: &TcpSocket) -> bool {
        self.held.contains(connection.inode) || self.users.contains(&connection.user)
    }
}

/// Whether this listener may have accepted a connection to `remote`.
pub(super) fn may_accept(listener: &Listener, remote: SocketAddr) -> bool {
    match listener.address {
        Address::Tcp(at) if at.port() == remote.port() => match at.ip() {
            // A socket on :: may accept IPv4 as well.
            IpAddr::V6(ip) if ip.is_unspecified() => true,
            ip => ip == remote.ip() || (ip.is_unspecified() && remote.is_ipv4()),
        },
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::{Address, Listener, SocketAddr, may_accept};

    fn address(text: &str) -> SocketAddr {
        text.parse().unwrap_or_else(|error| panic!("{text}: {error}"))
    }

    #[test]
    fn listeners_that_may_accept_a_connection() {
        let may = |listens: &str, remote: &str| {
            let address = Address::Tcp(address(listens));
            may_accept(&Listener { inode: 1, address, accept_queue: None, user: None }, self::address(remote))
        };
        assert!(may("127.0.0.1:80", "127.0.0.1:80") && may("0.0.0.0:80", "127.0.0.1:80"));
        assert!(may("[::]:80", "127.0.0.1:80") && may("[::]:80", "[::1]:80"));
        assert!(!may("127.0.0.2:80", "127.0.0.1:80") && !may("127.0.0.1:81", "127.0.0.1:80"));
        assert!(!may("0.0.0.0:80", "[::1]:80"));
    }
}
