//! The sockets of processes: those that a process holds (`/proc/PID/fd`), those that listen, and the ends of connections
//! (`/proc/PID/net/tcp`, `tcp6` and `unix`; see proc(5), and proc_net_tcp.rst in the kernel's documentation).
//!
//! `/proc/PID/net` shows the network namespace of PID. This module only reads and parses these files; it makes no connections.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, BufRead as _, BufReader, ErrorKind, Read as _};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::unix::ffi::OsStrExt as _;
use std::path::PathBuf;

use pypnm_sizing::root::Root;

/// The maximum number of bytes read of a table: about 200,000 sockets.
const MAX_TABLE_BYTES: u64 = 32 << 20;
/// The tables of TCP sockets, by the type of the listening socket. For each that is read, the kernel walks the hash table of all
/// connections, whose size depends on the memory of the machine.
pub(crate) const TCP_TABLES: [&str; 2] = ["tcp", "tcp6"];
/// The maximum number of descriptors read of a process.
const MAX_DESCRIPTORS: usize = 1 << 16;
/// State of a listening TCP socket (`TCP_LISTEN` in the kernel's include/net/tcp_states.h).
const LISTEN: u8 = 0x0A;
/// Flag of a listening Unix socket (`__SO_ACCEPTCON` in the kernel's include/uapi/linux/net.h).
const ACCEPTS_CONNECTIONS: u32 = 1 << 16;
/// Type of a Unix socket (`SOCK_STREAM`).
const STREAM: u32 = 1;

/// The address of a listening socket.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Address {
    /// An IPv6 address without its zone, which the kernel's table lacks.
    Tcp(SocketAddr),
    /// As given to bind(2): relative to the working directory of the process at that time, or absolute.
    Path(PathBuf),
    /// In the abstract namespace (unix(7)), without the leading null byte.
    Abstract(Vec<u8>),
}

impl std::fmt::Display for Address {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Tcp(address) => write!(f, "{address}"),
            Self::Path(path) => write!(f, "{}", path.display().to_string().escape_debug()),
            Self::Abstract(name) => write!(f, "@{}", name.escape_ascii()),
        }
    }
}

/// A listening socket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Listener {
    /// Identifies the socket in `/proc/PID/fd`.
    pub(crate) inode: u64,
    pub(crate) address: Address,
    /// Connections that wait to be accepted. `None`: the kernel does not show it (Unix sockets).
    pub(crate) accept_queue: Option<u32>,
    /// The user that created the socket. `None`: the kernel does not show it (Unix sockets).
    pub(crate) user: Option<u32>,
}

/// A line of `/proc/PID/net/tcp` or `tcp6`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TcpSocket {
    /// IPv4-mapped addresses as IPv4.
    pub(crate) local: SocketAddr,
    pub(crate) remote: SocketAddr,
    state: u8,
    /// Bytes received and not yet read; of a listening socket, connections not yet accepted.
    receive_queue: u32,
    /// The user that created it.
    pub(crate) user: u32,
    /// 0: no process holds it, because it is not yet accepted or already closed.
    pub(crate) inode: u64,
}

impl TcpSocket {
    /// Parses `  0: 0100007F:1F40 00000000:0000 0A 00000000:00000003 00:00000000 00000000   997        0 244929 1 …`.
    /// `None`: a header, or not such a line.
    fn parse(line: &[u8]) -> Option<Self> {
        let mut fields = std::str::from_utf8(line).ok()?.split_ascii_whitespace();
        let local = socket_address(fields.nth(1)?)?;
        let remote = socket_address(fields.next()?)?;
        let state = u8::from_str_radix(fields.next()?, 16).ok()?;
        let (_, receive_queue) = fields.next()?.split_once(':')?;
        let receive_queue = u32::from_str_radix(receive_queue, 16).ok()?;
        let user = fields.nth(2)?.parse().ok()?;
        let inode = fields.nth(1)?.parse().ok()?;
        Some(Self { local, remote, state, receive_queue, user, inode })
    }

    /// The listening socket, if it is one.
    pub(crate) fn listener(self) -> Option<Listener> {
        (self.state == LISTEN).then_some(Listener {
            inode: self.inode,
            address: Address::Tcp(self.local),
            accept_queue: Some(self.receive_queue),
            user: Some(self.user),
        })
    }
}

/// `0100007F:1F40`: the address as 32-bit words of the machine's byte order, and the port.
fn socket_address(text: &str) -> Option<SocketAddr> {
    let (address, port) = text.split_once(':')?;
    let port = u16::from_str_radix(port, 16).ok()?;
    let word = |at: usize| {
        let digits = address.get(at * 8..at * 8 + 8)?;
        u32::from_str_radix(digits, 16).ok().map(u32::to_ne_bytes)
    };
    let address = match address.len() {
        8 => IpAddr::from(Ipv4Addr::from(word(0)?)),
        32 => {
            let mut bytes = [0; 16];
            for (at, part) in bytes.chunks_exact_mut(4).enumerate() {
                part.copy_from_slice(&word(at)?);
            }
            IpAddr::from(bytes).to_canonical()
        }
        _ => return None,
    };
    Some(SocketAddr::new(address, port))
}

/// Parses `0000000000000000: 00000002 00000000 00010000 0001 01 24857 /run/pypnm.sock`, a listening stream socket with a
/// name. Names may contain any bytes, so a user who creates a socket can make its line look like two, and a name proves
/// nothing about the process that listens.
fn unix_listener(line: &[u8]) -> Option<Listener> {
    let mut fields = line.splitn(7, |byte| *byte == b' ');
    let mut number = |skipped| u32::from_str_radix(std::str::from_utf8(fields.nth(skipped)?).ok()?, 16).ok();
    let flags = number(3)?;
    let kind = number(0)?;
    // A short inode is padded with spaces.
    let rest = fields.nth(1)?.trim_ascii_start();
    let end = rest.iter().position(|byte| *byte == b' ')?;
    let (inode, name) = (rest.get(..end)?, rest.get(end + 1..)?);
    if flags & ACCEPTS_CONNECTIONS == 0 || kind != STREAM || name.is_empty() {
        return None;
    }
    let address = match name.strip_prefix(b"@") {
        Some(name) => Address::Abstract(name.to_vec()),
        None => Address::Path(PathBuf::from(OsStr::from_bytes(name))),
    };
    let inode = std::str::from_utf8(inode).ok()?.parse().ok()?;
    Some(Listener { inode, address, accept_queue: None, user: None })
}

/// The inode in the target of a link in `/proc/PID/fd`: `socket:[244929]`.
fn socket_inode(target: &[u8]) -> Option<u64> {
    let number = target.strip_prefix(b"socket:[")?.strip_suffix(b"]")?;
    std::str::from_utf8(number).ok()?.parse().ok()
}

/// Parses a line of `/proc/PID/net/if_inet6`: an address and the index of its interface.
fn interface_address(line: &[u8]) -> Option<(Ipv6Addr, u32)> {
    let mut fields = std::str::from_utf8(line).ok()?.split_ascii_whitespace();
    let address = u128::from_str_radix(fields.next()?, 16).ok()?;
    let index = u32::from_str_radix(fields.next()?, 16).ok()?;
    Some((Ipv6Addr::from(address), index))
}

/// Calls `visit` for each line of a file, without its end, up to [`MAX_TABLE_BYTES`].
fn each_line(path: &str, mut visit: impl FnMut(&[u8])) -> io::Result<()> {
    let mut reader = BufReader::new(File::open(path)?.take(MAX_TABLE_BYTES));
    let mut line = Vec::new();
    while reader.read_until(b'\n', &mut line)? > 0 {
        visit(line.strip_suffix(b"\n").unwrap_or(&line));
        line.clear();
    }
    Ok(())
}

/// Calls `visit` for each TCP socket in the network namespace of a process.
pub(crate) fn each_tcp(pid: u32, mut visit: impl FnMut(TcpSocket)) -> io::Result<()> {
    TCP_TABLES.iter().try_for_each(|table| each_tcp_in(table, pid, &mut visit))
}

/// Calls `visit` for each TCP socket in one of [`TCP_TABLES`].
pub(crate) fn each_tcp_in(table: &str, pid: u32, mut visit: impl FnMut(TcpSocket)) -> io::Result<()> {
    let read = each_line(&format!("/proc/{pid}/net/{table}"), |line| {
        TcpSocket::parse(line).into_iter().for_each(&mut visit);
    });
    match read {
        // A kernel without IPv6.
        Err(error) if table == "tcp6" && error.kind() == ErrorKind::NotFound => Ok(()),
        read => read,
    }
}

/// All listening sockets in the network namespace of a process, regardless of the process that holds them.
pub(crate) fn listening(pid: u32) -> io::Result<Vec<Listener>> {
    let mut listeners = Vec::new();
    each_tcp(pid, |socket| listeners.extend(socket.listener()))?;
    each_line(&format!("/proc/{pid}/net/unix"), |line| listeners.extend(unix_listener(line)))?;
    Ok(listeners)
}

/// The interface that has this link-local address in the network namespace of a process.
pub(crate) fn interface_of(pid: u32, address: Ipv6Addr) -> Option<u32> {
    let mut found = None;
    let read = each_line(&format!("/proc/{pid}/net/if_inet6"), |line| {
        if let Some((known, index)) = interface_address(line)
            && known == address
        {
            found = Some(index);
        }
    });
    read.ok().and(found)
}

/// The sockets that a process holds, by their inodes. An error: the process is gone, or the caller is not permitted to see its
/// descriptors (`PTRACE_MODE_READ_FSCREDS` in ptrace(2)).
pub(crate) fn held(pid: u32) -> io::Result<BTreeSet<u64>> {
    let descriptors = std::fs::read_dir(format!("/proc/{pid}/fd"))?.take(MAX_DESCRIPTORS);
    let targets = descriptors.filter_map(|entry| std::fs::read_link(entry.ok()?.path()).ok());
    Ok(targets.filter_map(|target| socket_inode(target.as_os_str().as_bytes())).collect())
}

/// The sockets of several processes.
#[derive(Debug, Default)]
pub(crate) struct HeldSockets {
    inodes: BTreeSet<u64>,
    /// Processes whose descriptors the caller is not permitted to see.
    pub(crate) denied: BTreeSet<u32>,
}

impl HeldSockets {
    /// The sockets that `pids` hold; a process that has ended holds none.
    pub(crate) fn read(pids: impl IntoIterator<Item = u32>) -> Self {
        let mut all = Self::default();
        for pid in pids {
            match held(pid) {
                Ok(inodes) => all.inodes.extend(inodes),
                Err(error) if error.kind() == ErrorKind::PermissionDenied => {
                    all.denied.insert(pid);
                }
                Err(_) => {}
            }
        }
        all
    }

    pub(crate) fn contains(&self, inode: u64) -> bool {
        self.inodes.contains(&inode)
    }
}

/// Connections dropped because a queue was full, in the network namespace of a process (`netstat` in proc_net(5)).
pub(crate) fn listen_drops(machine: &Root, pid: u32) -> Option<u64> {
    counter(&machine.text(&format!("/proc/{pid}/net/netstat")).ok()?, "ListenDrops")
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
    use super::{
        Address, Listener, TcpSocket, counter, interface_address, socket_address, socket_inode, unix_listener,
    };

    fn tcp(line: &str) -> Option<(String, Option<u32>, u64)> {
        let socket = TcpSocket::parse(line.as_bytes())?;
        let queue = socket.listener().and_then(|listener| listener.accept_queue);
        Some((socket.local.to_string(), queue, socket.inode))
    }

    fn unix(line: &[u8]) -> Option<(String, u64)> {
        unix_listener(line).map(|Listener { address, inode, .. }| (address.to_string(), inode))
    }

    #[test]
    fn recorded_tcp_sockets() {
        let rest = "00000000   997        0 244929 1 000000008ed5e8d1 100 0 0 10 0                    ";
        let line = |addresses: &str, state: &str, queues: &str| {
            tcp(&format!("   0: {addresses} {state} {queues} 00:00000000 {rest}"))
        };
        let any = "00000000:0000";
        assert_eq!(
            line(&format!("0100007F:1F40 {any}"), "0A", "00000000:00000003"),
            Some(("127.0.0.1:8000".to_owned(), Some(3), 244_929))
        );
        let (any, mapped) = (format!("{}:0000", "0".repeat(32)), "0000000000000000FFFF00000100007F:1F41");
        assert_eq!(
            line(&format!("{mapped} {any}"), "0A", "00000000:00000000"),
            Some(("127.0.0.1:8001".to_owned(), Some(0), 244_929))
        );
        assert_eq!(
            line(&format!("{mapped} {mapped}"), "01", "00000000:00000000"),
            Some(("127.0.0.1:8001".to_owned(), None, 244_929)),
            "an established connection listens to nothing"
        );
        assert_eq!(
            tcp(
                "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode"
            ),
            None
        );
    }

    #[test]
    fn addresses_of_both_families() {
        let address = |text: &str| socket_address(text).map(|address| address.to_string());
        assert_eq!(address("00000000:0050").as_deref(), Some("0.0.0.0:80"));
        assert_eq!(address("00000000000000000000000001000000:FFFF").as_deref(), Some("[::1]:65535"));
        assert_eq!(
            address("000080FE00000000FF005450A1B2C3FE:1F40").as_deref(),
            Some("[fe80::5054:ff:fec3:b2a1]:8000")
        );
        for wrong in [
            "",
            ":",
            "0100007F",
            "0100007F:",
            "0100007F:10000",
            "0100007:1F40",
            "é0100007:1F40",
            "+100007F:1F40é",
        ] {
            assert_eq!(address(wrong), None, "{wrong:?}");
        }
    }

    #[test]
    fn listening_unix_sockets() {
        let row = |flags: &str, kind: &str, rest: &str| {
            unix(format!("0000000000000000: 00000002 00000000 {flags} {kind} 01 {rest}").as_bytes())
        };
        let (listens, stream) = ("00010000", "0001");
        let found = |name: &str, inode| Some((name.to_owned(), inode));
        assert_eq!(row(listens, stream, "24857 /run/pypnm.sock"), found("/run/pypnm.sock", 24857));
        assert_eq!(row(listens, stream, "   12 a b "), found("a b ", 12));
        assert_eq!(row(listens, stream, "123456 @hidden@"), found("@hidden@", 123_456));
        assert_eq!(row(listens, stream, "24857"), None, "it has no name");
        assert_eq!(row(listens, "0005", "24857 /run/x"), None, "sequential packets");
        assert_eq!(row("00000000", stream, "24857 /run/x"), None, "it does not listen");
        let raw = b"0000000000000000: 00000002 00000000 00010000 0001 01 24857 /run/\xff\x1b[2J";
        assert_eq!(unix(raw), found("/run/\u{fffd}\\u{1b}[2J", 24857), "shown without control characters");
        assert!(
            matches!(unix_listener(raw), Some(Listener { address: Address::Path(path), .. }) if path.as_os_str().len() == 10)
        );
    }

    #[test]
    fn malformed_lines_do_not_panic() {
        let lines: [&[u8]; 9] = [
            b"",
            b" ",
            b"\xff\xfe",
            b"0: 0: 0: 0: 0: 0: 0: 0: 0:",
            b"0: 0100007F:1F40 00000000:0000 0A 0:99999999999 0:0 0 0 0 1",
            b"0: 0100007F:1F40 00000000:0000 0A 0:0 0:0 0 -1 0 1",
            b"0: 0100007F:1F40 00000000:0000 0A 0:0 0:0 0 0 0 99999999999999999999",
            b"0: 0 0 00010000 0001 01 99999999999999999999 /x",
            b"0: 0 0 00010000 0001 01        ",
        ];
        for line in lines {
            assert_eq!(
                (TcpSocket::parse(line), unix_listener(line)),
                (None, None),
                "{}",
                line.escape_ascii()
            );
            assert_eq!(
                (socket_inode(line), interface_address(line)),
                (None, None),
                "{}",
                line.escape_ascii()
            );
        }
        assert_eq!(socket_inode(b"socket:[244929]"), Some(244_929));
        for other in [&b"pipe:[1]"[..], b"socket:[]", b"socket:[1", b"socket:[-1]", b"/tmp/socket:[1]"] {
            assert_eq!(socket_inode(other), None);
        }
        let interface = interface_address(b"fe80000000000000505400fffec3b2a1 02 40 20 80     eth0");
        assert_eq!(
            interface.map(|(address, index)| (address.to_string(), index)),
            Some(("fe80::5054:ff:fec3:b2a1".to_owned(), 2))
        );
    }

    #[test]
    fn a_counter_of_a_recorded_file() {
        let netstat =
            "TcpExt: SyncookiesSent ListenOverflows ListenDrops\nTcpExt: 0 4 5\nIpExt: InOctets\nIpExt: 9\n";
        assert_eq!(counter(netstat, "ListenDrops"), Some(5));
        assert_eq!(counter("TcpExt: A\n", "A"), None);
    }
}
