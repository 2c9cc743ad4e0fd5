//! Sends a request to a socket, and determines from the kernel which process answered.
//!
//! An answer is the beginning of an HTTP response, or of a TLS record if the socket uses TLS. A connection that is merely
//! queued, closed or reset proves nothing about the process that holds the socket. Certificates are not verified: the peer is
//! identified by its sockets, not by its name.

use std::fmt::Display;
use std::fs::File;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6, TcpStream};
use std::os::fd::{AsFd as _, AsRawFd as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::mpsc::Sender;
use std::time::{Duration, Instant};

use rustix::fs::{Mode, OFlags, ResolveFlags};
use rustix::io::Errno;
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use super::process::sockets::{self, Address};

/// Timeout for a connection: the kernel accepts it without the service unless its queue is full.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// The maximum number of bytes read of a response.
const MAX_HEAD_BYTES: usize = 16 << 10;
/// The request, up to the value of `Host:`. Without `Connection: close`, the service keeps the connection open, so that the
/// kernel can still tell which process holds it.
const REQUEST: &str = "GET /health HTTP/1.1\r\nUser-Agent: pypnm-sizing\r\nAccept: */*\r\nHost: ";

/// How the service answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Response {
    /// With success and JSON, as PyPNM does when it is up.
    Healthy,
    /// With another HTTP response.
    Http,
    /// With a TLS handshake or alert.
    Tls,
}

/// The result of a probe.
#[derive(Debug)]
pub(crate) struct ProbeReport {
    /// The inode and the address of the listening socket.
    pub(crate) socket: (u64, Address),
    pub(crate) outcome: io::Result<(Response, Connection)>,
}

/// The connection on which the answer was received. It is kept open, so that the kernel still shows its other end.
#[derive(Debug)]
pub(crate) enum Connection {
    Tcp {
        _open: TcpStream,
        /// The caller's address.
        local: SocketAddr,
        /// The service's address.
        remote: SocketAddr,
    },
    /// The process that called listen(2), or 0 if it is not in the caller's PID namespace.
    Unix { peer: u32 },
}

/// The process and the network namespace from which a probe connects.
#[derive(Clone, Debug)]
pub(crate) struct Vantage {
    /// A process of the service that holds the socket.
    pub(crate) holder: u32,
    /// Whether its network namespace is not the caller's.
    pub(crate) foreign: bool,
}

/// Probes a socket in a separate thread until `deadline`, and sends the result.
pub(crate) fn start(
    socket: (u64, Address),
    from: Vantage,
    deadline: Instant,
    to: Sender<ProbeReport>,
) -> io::Result<()> {
    let ask = move || {
        let outcome = enter(&from).and_then(|()| ask(&socket.1, from.holder, deadline));
        // The receiver is gone if another probe was faster.
        let _ = to.send(ProbeReport { socket, outcome });
    };
    std::thread::Builder::new().name("probe".to_owned()).spawn(ask).map(drop)
}

/// Moves this thread into the network namespace of the service. That needs CAP_SYS_ADMIN there (setns(2)).
fn enter(from: &Vantage) -> io::Result<()> {
    if from.foreign {
        let namespace = File::open(format!("/proc/{}/ns/net", from.holder))?;
        move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network))?;
    }
    Ok(())
}

fn ask(address: &Address, holder: u32, deadline: Instant) -> io::Result<(Response, Connection)> {
    match address {
        Address::Tcp(listens) => ask_tcp(*listens, holder, deadline),
        Address::Path(path) => ask_unix(|| connect_path(path, holder), deadline),
        Address::Abstract(name) => {
            use std::os::linux::net::SocketAddrExt as _;
            let address = std::os::unix::net::SocketAddr::from_abstract_name(name)?;
            ask_unix(|| UnixStream::connect_addr(&address), deadline)
        }
    }
}

fn ask_tcp(listens: SocketAddr, holder: u32, deadline: Instant) -> io::Result<(Response, Connection)> {
    let (answer, stream, remote) = ask_on(|| connect_tcp(listens, holder, deadline), deadline)?;
    let local = canonical(stream.local_addr()?);
    Ok((answer, Connection::Tcp { _open: stream, local, remote: canonical(remote) }))
}

/// Asks in HTTP, then with a TLS hello on another connection. Returns the connection on which the answer was received.
/// `connect` returns a connection and the address for `Host:`.
fn ask_on<S: Read + Write, A: Display>(
    connect: impl Fn() -> io::Result<(S, A)>,
    deadline: Instant,
) -> io::Result<(Response, S, A)> {
    let (mut stream, address) = connect()?;
    match http(&mut stream, &address.to_string(), deadline) {
        Ok(answer) => Ok((answer, stream, address)),
        Err(error) => {
            drop(stream);
            let (mut stream, address) = connect()?;
            let answer = tls(&mut stream, error)?;
            Ok((answer, stream, address))
        }
    }
}

fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

/// Connects to a listening socket. Also returns the address that accepted the connection.
fn connect_tcp(listens: SocketAddr, holder: u32, deadline: Instant) -> io::Result<(TcpStream, SocketAddr)> {
    let mut failed = ErrorKind::AddrNotAvailable.into();
    for address in targets(listens, holder) {
        match TcpStream::connect_timeout(&address, remaining(deadline).min(CONNECT_TIMEOUT)) {
            Ok(stream) => {
                stream.set_read_timeout(Some(remaining(deadline)))?;
                stream.set_write_timeout(Some(remaining(deadline)))?;
                return Ok((stream, address));
            }
            Err(error) => failed = error,
        }
    }
    Err(failed)
}

/// The addresses to connect to. For a wildcard address, these are the loopback addresses, because the kernel does not show
/// whether a socket on `::` accepts IPv4 as well.
fn targets(listens: SocketAddr, holder: u32) -> Vec<SocketAddr> {
    let port = listens.port();
    match listens.ip() {
        IpAddr::V4(Ipv4Addr::UNSPECIFIED) => vec![(Ipv4Addr::LOCALHOST, port).into()],
        IpAddr::V6(Ipv6Addr::UNSPECIFIED) => {
            vec![(Ipv6Addr::LOCALHOST, port).into(), (Ipv4Addr::LOCALHOST, port).into()]
        }
        IpAddr::V6(address) if address.is_unicast_link_local() => {
            let zone = sockets::interface_of(holder, address).unwrap_or(0);
            vec![SocketAddrV6::new(address, port, 0, zone).into()]
        }
        _ => vec![listens],
    }
}

/// The time until the deadline; not zero, which would mean no timeout.
fn remaining(deadline: Instant) -> Duration {
    deadline.saturating_duration_since(Instant::now()).max(Duration::from_millis(1))
}

fn ask_unix(
    connect: impl Fn() -> io::Result<UnixStream>,
    deadline: Instant,
) -> io::Result<(Response, Connection)> {
    let connect = || {
        let stream = connect()?;
        stream.set_read_timeout(Some(remaining(deadline)))?;
        stream.set_write_timeout(Some(remaining(deadline)))?;
        Ok((stream, "localhost"))
    };
    let (answer, stream, _) = ask_on(connect, deadline)?;
    let peer = nix::sys::socket::getsockopt(&stream, nix::sys::socket::sockopt::PeerCredentials)?;
    Ok((answer, Connection::Unix { peer: peer.pid().try_into().unwrap_or(0) }))
}

/// Connects to a path as the service sees it: below its root, or below its working directory if the path is relative.
/// Symbolic links cannot lead out of it.
fn connect_path(path: &Path, holder: u32) -> io::Result<UnixStream> {
    let base = if path.is_absolute() { "root" } else { "cwd" };
    let open = || {
        let flags = OFlags::PATH | OFlags::CLOEXEC;
        let base = rustix::fs::open(format!("/proc/{holder}/{base}"), flags, Mode::empty())?;
        rustix::fs::openat2(&base, path, flags, Mode::empty(), ResolveFlags::IN_ROOT)
    };
    match open() {
        Ok(socket) => UnixStream::connect(PathBuf::from(format!("/proc/self/fd/{}", socket.as_raw_fd()))),
        // The caller is not permitted to access the service's root; its own may be the same. Kernels before 5.6 lack openat2.
        Err(Errno::ACCESS | Errno::PERM | Errno::NOSYS) => UnixStream::connect(path),
        Err(error) => Err(error.into()),
    }
}

/// Sends an HTTP request and reads the head of the response.
fn http(stream: &mut (impl Read + Write), host: &str, deadline: Instant) -> io::Result<Response> {
    stream.write_all(format!("{REQUEST}{host}\r\n\r\n").as_bytes())?;
    let mut head = Vec::new();
    let mut buffer = [0; 2048];
    loop {
        let end = match stream.read(&mut buffer) {
            Ok(read) => {
                head.extend(buffer.iter().take(read));
                read == 0
            }
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            // After an error, use what was read before.
            Err(_) if is_status_line(&head) => true,
            Err(error) => return Err(error),
        };
        let is_complete =
            end || head.len() >= MAX_HEAD_BYTES || head.windows(4).any(|bytes| bytes == b"\r\n\r\n");
        if !head.is_empty() && !is_status_line(&head) && (is_complete || head.len() >= 8) {
            return Err(io::Error::new(ErrorKind::InvalidData, "it does not use HTTP"));
        }
        if is_complete || Instant::now() >= deadline {
            return response(&head).ok_or_else(|| ErrorKind::UnexpectedEof.into());
        }
    }
}

fn is_status_line(head: &[u8]) -> bool {
    head.starts_with(b"HTTP/1.")
}

/// Parses the head of a response. `None`: it is not HTTP.
fn response(head: &[u8]) -> Option<Response> {
    if !is_status_line(head) {
        return None;
    }
    let text = String::from_utf8_lossy(head).to_ascii_lowercase();
    let mut lines = text.split("\r\n");
    let status = lines.next()?.split(' ').nth(1)?;
    let success = status.len() == 3 && status.starts_with('2');
    let json = lines
        .filter_map(|line| line.split_once(':'))
        .any(|(name, value)| name == "content-type" && value.contains("json"));
    Some(if success && json { Response::Healthy } else { Response::Http })
}

/// Sends the hello of a TLS client and reads the beginning of the reply. `otherwise` is the error if there is none.
fn tls(stream: &mut (impl Read + Write), otherwise: io::Error) -> io::Result<Response> {
    // Without any reply, the error of plain HTTP is more useful.
    if stream.write_all(&client_hello()).is_err() {
        return Err(otherwise);
    }
    let mut record = [0; 3];
    match stream.read_exact(&mut record) {
        // A record of TLS 1.0 to 1.3: its type is 22, a handshake, or 21, an alert (RFC 8446, section 5.1).
        Ok(()) if matches!(record, [21 | 22, 3, 1..=4]) => Ok(Response::Tls),
        _ => Err(otherwise),
    }
}

/// A hello that servers answer since TLS 1.2: with a hello, with a request for a key share (TLS 1.3), or with an alert (RFC
/// 8446, section 4.1.2). Nothing secret depends on it, so its random bytes are constant.
fn client_hello() -> Vec<u8> {
    fn with_length<const N: usize>(body: &[u8]) -> Vec<u8> {
        let length = body.len().to_be_bytes();
        let mut out = length.iter().skip(length.len() - N).copied().collect::<Vec<_>>();
        out.extend(body);
        out
    }
    let extension = |kind: u16, body: &[u8]| {
        let mut out = kind.to_be_bytes().to_vec();
        out.extend(with_length::<2>(body));
        out
    };
    // TLS_AES_128_GCM_SHA256, TLS_AES_256_GCM_SHA384, TLS_CHACHA20_POLY1305_SHA256; then ECDHE with ECDSA and with RSA, each
    // with AES-128-GCM and AES-256-GCM.
    let suites = [0x13, 1, 0x13, 2, 0x13, 3, 0xc0, 0x2b, 0xc0, 0x2c, 0xc0, 0x2f, 0xc0, 0x30];
    let mut extensions = extension(10, &with_length::<2>(&[0, 0x1d, 0, 0x17, 0, 0x18]));
    extensions.extend(extension(11, &with_length::<1>(&[0])));
    extensions.extend(extension(13, &with_length::<2>(&[4, 3, 8, 4, 4, 1, 5, 3, 8, 5, 5, 1, 8, 7])));
    extensions.extend(extension(43, &with_length::<1>(&[3, 4, 3, 3])));
    extensions.extend(extension(51, &with_length::<2>(&[])));
    let mut body = vec![3, 3];
    body.extend([0x5a; 32]);
    body.extend(with_length::<1>(&[]));
    body.extend(with_length::<2>(&suites));
    body.extend(with_length::<1>(&[0]));
    body.extend(with_length::<2>(&extensions));
    let mut handshake = vec![1];
    handshake.extend(with_length::<3>(&body));
    let mut record = vec![22, 3, 1];
    record.extend(with_length::<2>(&handshake));
    record
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};
    use std::net::{SocketAddr, TcpListener};
    use std::time::{Duration, Instant};

    use super::{Response, ask_tcp, client_hello, response, targets};

    #[test]
    fn responses() {
        let healthy = b"HTTP/1.1 200 OK\r\ndate: x\r\nContent-Type: application/json\r\n\r\n{}";
        assert_eq!(response(healthy), Some(Response::Healthy));
        for other in [
            &b"HTTP/1.1 503 Service Unavailable\r\ncontent-type: application/json\r\n\r\n"[..],
            b"HTTP/1.0 200 OK\r\ncontent-type: text/plain\r\n\r\nx\r\ncontent-kind: application/json",
            b"HTTP/1.1 404 Not Found\r\n",
            b"HTTP/1.1 2000 \xff\r\ncontent-type: application/json",
        ] {
            assert_eq!(response(other), Some(Response::Http), "{}", other.escape_ascii());
        }
        for none in [&b""[..], b"HTTP", b"SSH-2.0-OpenSSH_9.2\r\n", b"\x15\x03\x01\x00\x02\x02\x46"] {
            assert_eq!(response(none), None, "{}", none.escape_ascii());
        }
    }

    #[test]
    fn the_lengths_in_the_hello_are_right() {
        let hello = client_hello();
        let be = |at: usize, n: usize| {
            hello.iter().skip(at).take(n).fold(0, |sum, byte| sum << 8 | usize::from(*byte))
        };
        assert_eq!(be(3, 2), hello.len() - 5);
        assert_eq!(be(6, 3), hello.len() - 9);
        let extensions = 9 + 2 + 32 + 1 + 2 + be(44, 2) + 2;
        assert_eq!(be(extensions, 2), hello.len() - extensions - 2);
    }

    #[test]
    fn where_to_connect() {
        let of = |listens: &str| -> Vec<String> {
            let listens: SocketAddr = listens.parse().unwrap_or_else(|error| panic!("{error}"));
            targets(listens, 0).iter().map(ToString::to_string).collect()
        };
        assert_eq!(of("0.0.0.0:8000"), ["127.0.0.1:8000"]);
        assert_eq!(of("[::]:8000"), ["[::1]:8000", "127.0.0.1:8000"]);
        assert_eq!(of("[::1]:8000"), ["[::1]:8000"]);
        assert_eq!(of("10.0.0.1:8000"), ["10.0.0.1:8000"]);
    }

    /// The result for a server that sends `reply` on each connection.
    fn asked(reply: &'static [u8]) -> std::io::Result<Response> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let address = listener.local_addr()?;
        std::thread::spawn(move || {
            for mut stream in listener.incoming().take(2).flatten() {
                let _ = stream.read(&mut [0; 512]);
                let _ = stream.write_all(reply);
            }
        });
        ask_tcp(address, std::process::id(), Instant::now() + Duration::from_secs(20))
            .map(|(answer, _)| answer)
    }

    #[test]
    fn only_an_answer_counts() -> std::io::Result<()> {
        assert_eq!(asked(b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n\r\n")?, Response::Healthy);
        assert_eq!(asked(b"HTTP/1.1 404 Not Found\r\n\r\n")?, Response::Http);
        assert_eq!(asked(b"\x15\x03\x03\x00\x02\x02\x28")?, Response::Tls);
        for nothing in [&b""[..], b"SSH-2.0-OpenSSH_9.2\r\n", b"HTT", b"\x15\x03"] {
            assert!(asked(nothing).is_err(), "{}", nothing.escape_ascii());
        }
        Ok(())
    }
}
