//! Whether a service can listen on an address, and who does already. Looks at the running machine only.

use std::io::ErrorKind;
use std::net::{IpAddr, SocketAddr, TcpListener};

use pypnm_sizing::root::Root;

/// What keeps a service from listening.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Obstacle {
    /// Somebody listens there.
    Taken {
        /// The process, where it can be found.
        pid: Option<u32>,
    },
    /// No interface of this machine has the address.
    NotOurs,
}

/// Tries to listen on the address, for a moment. What only the service will be allowed, a port below 1024, is no obstacle.
pub(crate) fn obstacle(machine: &Root, address: IpAddr, port: u16) -> Option<Obstacle> {
    match TcpListener::bind(SocketAddr::new(address, port)) {
        Err(error) if error.kind() == ErrorKind::AddrInUse => {
            Some(Obstacle::Taken { pid: listener(machine, port) })
        }
        Err(error) if error.kind() == ErrorKind::AddrNotAvailable => Some(Obstacle::NotOurs),
        _ => None,
    }
}

/// The first process that has a socket listening on the port (proc(5), /proc/net/tcp and /proc/PID/fd).
fn listener(machine: &Root, port: u16) -> Option<u32> {
    let tables = ["/proc/net/tcp", "/proc/net/tcp6"].map(|path| machine.text(path).unwrap_or_default());
    let inodes: Vec<&str> =
        tables.iter().flat_map(|table| table.lines()).filter_map(|line| listening(line, port)).collect();
    let pids = machine.entries("/proc").unwrap_or_default();
    pids.iter().filter_map(|entry| entry.name.parse().ok()).find(|pid: &u32| {
        let directory = format!("/proc/{pid}/fd");
        machine.entries(&directory).unwrap_or_default().iter().any(|entry| {
            let target = std::fs::read_link(format!("{directory}/{}", entry.name)).unwrap_or_default();
            let inode = target.to_str().and_then(|target| target.strip_prefix("socket:[")?.strip_suffix(']'));
            inode.is_some_and(|inode| inodes.contains(&inode))
        })
    })
}

/// The inode of a line's socket if that listens (state 0A) on the port.
fn listening(line: &str, port: u16) -> Option<&str> {
    let mut fields = line.split_ascii_whitespace().skip(1);
    let local = fields.next()?.rsplit_once(':')?.1;
    let state = fields.nth(1)?;
    let inode = fields.nth(5)?;
    (state == "0A" && u16::from_str_radix(local, 16).ok() == Some(port)).then_some(inode)
}

#[cfg(test)]
mod tests {
    use super::listening;

    #[test]
    fn recorded_lines() {
        let line = "   0: 0100007F:1F40 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 34142 1 0 100 0 0 10 0";
        assert_eq!(listening(line, 8000), Some("34142"));
        assert_eq!(listening(line, 8001), None);
        assert_eq!(listening(&line.replace(" 0A ", " 01 "), 8000), None);
        assert_eq!(listening("  sl  local_address rem_address   st tx_queue", 8000), None);
    }
}
