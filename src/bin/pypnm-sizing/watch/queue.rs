//! Connections that wait for a worker: those that are established but not yet accepted (the queue of each listening
//! socket of the service), and those that were dropped because a queue was full (`ListenDrops` in the service's network
//! namespace, `/proc/PID/net/netstat`).

use pypnm_sizing::root::Root;

use crate::service::process::sockets::{HeldSockets, each_tcp, listen_drops};

/// The sockets of a service.
#[derive(Debug, Default)]
pub(super) struct Queue {
    held: HeldSockets,
    /// The process whose sockets they are.
    owner: Option<u32>,
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
        }
        let mut waiting = None;
        let read = each_tcp(main, |socket| {
            if let Some(listener) = socket.listener().filter(|listener| self.held.contains(listener.inode)) {
                let queue = u64::from(listener.accept_queue.unwrap_or(0));
                waiting = Some(waiting.unwrap_or(0) + queue);
            }
        });
        (waiting.filter(|_| read.is_ok()), listen_drops(machine, main))
    }
}
