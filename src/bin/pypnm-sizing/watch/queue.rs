//! What waits for a worker, as the kernel sees it: connections that are established and not yet accepted, and those that
//! were dropped because a queue was full. Of a socket that listens, `rx_queue` in `/proc/PID/net/tcp{,6}` is the length
//! of its accept queue; `ListenDrops` in `/proc/PID/net/netstat` counts for the whole network namespace. Both files are
//! those of the service's own namespace.

use std::collections::BTreeSet;

use pypnm_sizing::root::Root;

/// The sockets of a service.
#[derive(Debug, Default)]
pub(super) struct Queue {
    /// Inodes of all sockets that its processes have open.
    sockets: BTreeSet<u64>,
    /// The process that they were read of.
    of: Option<u32>,
}

/// TCP_LISTEN in the kernel's include/net/tcp_states.h.
const LISTEN: &str = "0A";

impl Queue {
    /// Connections that wait, and those dropped so far; `None` where that can't be read. `anew`: the sockets are looked
    /// up again.
    pub(super) fn read(&mut self, machine: &Root, pids: &[u32], anew: bool) -> (Option<u64>, Option<u64>) {
        let Some(main) = pids.first().copied() else {
            return (None, None);
        };
        if anew || self.of != Some(main) {
            self.sockets = pids.iter().flat_map(|pid| sockets(machine, *pid)).collect();
            self.of = Some(main);
        }
        let tables = ["tcp", "tcp6"].map(|table| machine.text(&format!("/proc/{main}/net/{table}")).ok());
        let waiting: Vec<u64> =
            tables.iter().flatten().flat_map(|table| listening(table, &self.sockets)).collect();
        let dropped = machine.text(&format!("/proc/{main}/net/netstat")).ok();
        let accept_queue = (!waiting.is_empty()).then(|| waiting.iter().sum());
        (accept_queue, dropped.and_then(|text| counter(&text, "ListenDrops")))
    }
}

/// The inodes of the sockets that a process has open.
fn sockets(machine: &Root, pid: u32) -> Vec<u64> {
    let directory = format!("/proc/{pid}/fd");
    let entries = machine.entries(&directory).unwrap_or_default();
    let target = |entry: &pypnm_sizing::root::Entry| machine.link(&format!("{directory}/{}", entry.name));
    entries
        .iter()
        .filter_map(target)
        .filter_map(|target| target.strip_prefix("socket:[")?.strip_suffix(']')?.parse().ok())
        .collect()
}

/// The accept queues of those of our sockets that listen.
fn listening<'a>(table: &'a str, sockets: &'a BTreeSet<u64>) -> impl Iterator<Item = u64> + 'a {
    table.lines().filter_map(|line| {
        let mut fields = line.split_ascii_whitespace();
        // sl local rem st tx_queue:rx_queue tr:tm->when retrnsmt uid timeout inode
        let state = fields.nth(3)?;
        let (_, waiting) = fields.next()?.split_once(':')?;
        let inode: u64 = fields.nth(4)?.parse().ok()?;
        if state != LISTEN || !sockets.contains(&inode) {
            return None;
        }
        u64::from_str_radix(waiting, 16).ok()
    })
}

/// A counter of netstat: a line of names, then one of numbers.
fn counter(text: &str, name: &str) -> Option<u64> {
    let mut lines = text.lines();
    while let (Some(names), Some(values)) = (lines.next(), lines.next()) {
        let mut pairs = names.split_ascii_whitespace().zip(values.split_ascii_whitespace());
        if let Some((_, value)) = pairs.find(|(key, _)| *key == name) {
            return value.parse().ok();
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::{counter, listening};

    #[test]
    fn figures_of_recorded_files() {
        let table = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n   \
            0: 0100007F:1F40 00000000:0000 0A 00000000:00000003 00:00000000 00000000     0        0 4711 1 0 100 0\n   \
            1: 0100007F:1F40 0100007F:D2A0 01 00000000:00000009 00:00000000 00000000     0        0 4711 1 0 20 4\n   \
            2: 00000000:0016 00000000:0000 0A 00000000:00000007 00:00000000 00000000     0        0 99 1 0 100 0\njunk\n";
        let ours = [4711].into();
        assert_eq!(listening(table, &ours).collect::<Vec<u64>>(), [3]);
        let netstat =
            "TcpExt: SyncookiesSent ListenOverflows ListenDrops\nTcpExt: 0 4 5\nIpExt: InOctets\nIpExt: 9\n";
        assert_eq!(counter(netstat, "ListenDrops"), Some(5));
        assert_eq!(counter("TcpExt: A\n", "A"), None);
    }
}
