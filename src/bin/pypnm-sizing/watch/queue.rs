//! Connections that wait for a worker: those that are established but not yet accepted (the queue of each listening
//! socket of the service), and those that were dropped because a queue was full (`ListenDrops` in the service's network
//! namespace, `/proc/PID/net/netstat`).

use pypnm_sizing::root::Root;

use crate::service::process::sockets::{HeldSockets, TCP_TABLES, each_tcp_in, listen_drops};

/// The sockets of a service.
#[derive(Debug, Default)]
pub(super) struct Queue {
    held: HeldSockets,
    /// The process whose sockets they are.
    owner: Option<u32>,
    /// The tables that contain any that listen; empty: unknown. The others are read only when the sockets are looked up again,
    /// because reading a table takes more time than everything else in a sample.
    tables: Vec<&'static str>,
}

impl Queue {
    /// The number of waiting connections, and of those dropped so far; `None`: it cannot be read. The first of `pids`
    /// is the main process. `refresh`: whether to look up the sockets again.
    pub(super) fn read(&mut self, machine: &Root, pids: &[u32], refresh: bool) -> (Option<u64>, Option<u64>) {
        let Some(main) = pids.first().copied() else {
            return (None, None);
        };
        if refresh || self.owner != Some(main) {
            self.held = HeldSockets::read(pids.iter().copied());
            self.owner = Some(main);
            self.tables.clear();
        }
        let tables =
            if self.tables.is_empty() { TCP_TABLES.to_vec() } else { std::mem::take(&mut self.tables) };
        let mut waiting = None;
        let mut is_read = true;
        for table in tables {
            let mut has_listener = false;
            let read = each_tcp_in(table, main, |socket| {
                if let Some(listener) =
                    socket.listener().filter(|listener| self.held.contains(listener.inode))
                {
                    let queue = u64::from(listener.accept_queue.unwrap_or(0));
                    waiting = Some(waiting.unwrap_or(0) + queue);
                    has_listener = true;
                }
            });
            is_read &= read.is_ok();
            if has_listener {
                self.tables.push(table);
            }
        }
        (waiting.filter(|_| is_read), listen_drops(machine, main))
    }
}
