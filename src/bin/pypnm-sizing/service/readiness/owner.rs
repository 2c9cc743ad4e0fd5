//! Whose a socket is: the service's, or another program's. Owns this decision; what it needs to know is read elsewhere.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::os::unix::fs::MetadataExt as _;

use crate::service::process::sockets::{Address, Held, Listener, TcpSocket};

/// What tells the sockets of a service from others.
pub(super) struct Owner {
    pub(super) held: Held,
    /// Its processes whose descriptors are not readable: programs with capabilities of their own, or of another user.
    pub(super) denied: BTreeSet<u32>,
    /// The users of those, but root.
    pub(super) users: BTreeSet<u32>,
    /// Whether a listening socket of such a user counts as the service's.
    pub(super) by_user: bool,
}

impl Owner {
    /// Whether a listening socket is the service's.
    pub(super) fn has(&self, listener: &Listener) -> bool {
        if self.held.has(listener.inode) {
            return true;
        }
        // The kernel does not say whose a Unix socket is; its file does.
        let file = match &listener.address {
            Address::Path(path) if self.by_user => std::fs::symlink_metadata(path).ok(),
            _ => None,
        };
        let user = listener.user.or(file.map(|file| file.uid()));
        self.by_user && user.is_some_and(|user| self.users.contains(&user))
    }

    /// Whether the service has accepted a connection.
    pub(super) fn accepted(&self, connection: &TcpSocket) -> bool {
        self.held.has(connection.inode) || self.users.contains(&connection.user)
    }
}

/// Whether a connection to `remote` may have been taken by this listener.
pub(super) fn may_take(listener: &Listener, remote: SocketAddr) -> bool {
    match listener.address {
        Address::Tcp(at) if at.port() == remote.port() => match at.ip() {
            // A socket on :: may take IPv4 as well.
            IpAddr::V6(ip) if ip.is_unspecified() => true,
            ip => ip == remote.ip() || (ip.is_unspecified() && remote.is_ipv4()),
        },
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::{Address, Listener, SocketAddr, may_take};

    fn address(text: &str) -> SocketAddr {
        text.parse().unwrap_or_else(|error| panic!("{text}: {error}"))
    }

    #[test]
    fn who_may_take_a_connection() {
        let may = |listens: &str, remote: &str| {
            let address = Address::Tcp(address(listens));
            may_take(&Listener { inode: 1, address, accept_queue: None, user: None }, self::address(remote))
        };
        assert!(may("127.0.0.1:80", "127.0.0.1:80") && may("0.0.0.0:80", "127.0.0.1:80"));
        assert!(may("[::]:80", "127.0.0.1:80") && may("[::]:80", "[::1]:80"));
        assert!(!may("127.0.0.2:80", "127.0.0.1:80") && !may("127.0.0.1:81", "127.0.0.1:80"));
        assert!(!may("0.0.0.0:80", "[::1]:80"));
    }
}
