//! What would prevent the service from working: a path that cannot be written in a unit, the file system, the
//! permissions of the user, another unit, or another program on the address. Each is an error that says what to do.
//! Writes nothing.

use std::net::{IpAddr, Ipv6Addr, SocketAddr, SocketAddrV6};
use std::process::{Command, Stdio};

use anyhow::bail;
use pypnm_sizing::names::DROP_IN as GENERATED;
use pypnm_sizing::parse::environment;
use pypnm_sizing::parse::syntax::{Item, items};
use pypnm_sizing::parse::words::words_of;
use pypnm_sizing::root::Root;
use pypnm_sizing::units::{Index, State, Unit};
use rustix::fs::{FileType, StatVfsMountFlags};

use super::drop_in::{DROP_IN, DropIn, Home, OPERATORS};
use crate::cli::Setup;
use crate::output::remark;
use crate::service::account::{Account, Use};
use crate::service::listener::{self, Obstacle};
use crate::service::process;
use crate::service::pypnm::{self, Installation, Program, real_path};
use crate::service::systemctl;

/// Directories of units that may start the same PyPNM.
const OTHERS: [&str; 3] = [OPERATORS, "/run/systemd/system", "/usr/local/lib/systemd/system"];
/// What PyPNM creates in its working directory.
const DATA: [&str; 3] = [".data", "logs", "logs/pypnm.log"];

/// The maximum number of PyPNM's files whose owners are compared.
const MOST_FILES: usize = 4096;

/// Fails if a path has a special meaning in any setting of a unit.
pub(super) fn check_path(path: &str) -> anyhow::Result<()> {
    match path.chars().find(|c| c.is_whitespace() || c.is_control() || "\"'\\%:$".contains(*c)) {
        None => Ok(()),
        Some(c) => {
            bail!(
                "{path}: {c:?} in a path has a special meaning for systemd; move it to a path without that character"
            )
        }
    }
}

/// Fails if nothing can be executed on the file system, or if it is only mounted while a user is logged in.
pub(super) fn check_mount(root: &Root, path: &str) -> anyhow::Result<()> {
    if !root.is_machine() {
        return Ok(());
    }
    let flags = rustix::fs::statvfs(path).map_or(StatVfsMountFlags::empty(), |found| found.f_flag);
    if flags.contains(StatVfsMountFlags::NOEXEC) {
        bail!(
            "{path} is on a file system mounted noexec: programs in it cannot be started; mount it with exec, or move it"
        );
    }
    let mounts = root.text("/proc/self/mounts").unwrap_or_default();
    let of_path = |line: &str| -> Option<(String, String)> {
        let mut fields = line.split(' ').skip(1);
        let (point, kind) = (fields.next()?.to_owned(), fields.next()?.to_owned());
        let is_above = point == "/"
            || path == point
            || path.strip_prefix(&point).is_some_and(|rest| rest.starts_with('/'));
        is_above.then_some((point, kind))
    };
    let nearest = mounts.lines().filter_map(of_path).max_by_key(|(point, _)| point.len());
    if let Some((point, kind)) = nearest.filter(|(_, kind)| kind == "ecryptfs" || kind.starts_with("fuse.")) {
        bail!(
            "{path} is on {point}, a file system ({kind}) of a user who is logged in, which is not mounted at boot; move PyPNM elsewhere"
        );
    }
    Ok(())
}

/// Fails if the user does not have the permissions that the service needs.
pub(super) fn check_permissions(
    root: &Root,
    account: &Account,
    checkout: Option<&str>,
    installation: &Installation,
    home: Option<&Home>,
) -> anyhow::Result<()> {
    let mut wanted = vec![
        (installation.environment.clone(), Use::Read),
        (installation.command.clone(), Use::Read),
        (installation.command.clone(), Use::Execute),
    ];
    wanted.extend(installation.packages.as_deref().map(|packages| (packages.to_owned(), Use::Read)));
    let python = pypnm::python_places(root, installation).into_iter();
    wanted.extend(python.map(|directory| (directory, Use::Search)));
    wanted.extend(home.iter().flat_map(|home| &home.readable).map(|path| (path.clone(), Use::Read)));
    if let Some(checkout) = checkout {
        wanted.push((checkout.to_owned(), Use::Read));
        wanted.push((checkout.to_owned(), Use::Write));
        let data = DATA.iter().map(|name| format!("{checkout}/{name}"));
        wanted.extend(data.filter(|path| root.stat(path).is_some()).map(|path| (path, Use::Write)));
    }
    let obstacle =
        wanted.iter().find_map(|(path, use_)| account.obstacle(root, &real_path(root, path)?, *use_));
    if let Some(obstacle) = obstacle {
        bail!("{obstacle}: change that, or specify another user with --user");
    }
    if let Some(obstacle) = checkout.and_then(|checkout| obstacle_below(root, account, checkout)) {
        remark(&format!("{obstacle}; requests that write there will fail until you change that"));
    }
    Ok(())
}

/// Why the user cannot write to some of PyPNM's files, which happens after it was started as root once.
fn obstacle_below(root: &Root, account: &Account, checkout: &str) -> Option<String> {
    let mut paths: Vec<String> = DATA.iter().map(|name| format!("{checkout}/{name}")).collect();
    let mut remaining = MOST_FILES;
    while let Some(path) = paths.pop() {
        let stat = root.stat(&path).filter(|_| remaining > 0);
        let Some(stat) = stat else { continue };
        remaining -= 1;
        if stat.st_uid != account.uid
            && let Some(obstacle) = account.obstacle(root, &path, Use::Write)
        {
            return Some(obstacle);
        }
        if root.file_type(&path) == Some(FileType::Directory) {
            let entries = root.entries(&path).unwrap_or_default();
            paths.extend(
                entries.into_iter().filter(|entry| !entry.link).map(|entry| format!("{path}/{}", entry.name)),
            );
        }
    }
    None
}

/// Fails if another unit starts the same installation.
pub(super) fn check_other_units(
    root: &Root,
    unit: &str,
    installation: &Installation,
    program: Program,
) -> anyhow::Result<()> {
    let entries = |directory: &str| {
        let entries = root.entries(directory).unwrap_or_default().into_iter();
        entries.map(|entry| entry.name).collect::<Vec<String>>()
    };
    // Instances of templates have no file, only a symbolic link if they are enabled.
    let enabled = OTHERS.iter().flat_map(|directory| {
        let wanted = entries(directory)
            .into_iter()
            .filter(|name| name.ends_with(".wants") || name.ends_with(".requires"));
        wanted.flat_map(|wanted| entries(&format!("{directory}/{wanted}"))).collect::<Vec<String>>()
    });
    let mut names: Vec<String> = OTHERS
        .iter()
        .flat_map(|directory| entries(directory))
        .chain(enabled)
        .filter(|name| name.ends_with(".service") && !name.ends_with("@.service") && name != unit)
        .collect();
    names.sort_unstable();
    names.dedup();
    let mut problems = Vec::new();
    let index = Index::read(root, &names, GENERATED, &mut problems);
    for name in &names {
        let Some(other) = index.load(name, &mut problems).filter(|other| other.state == State::Loaded) else {
            continue;
        };
        if let Some(source) = pypnm::started_by(root, program, &other, installation) {
            bail!(
                "{name} already starts this PyPNM ({}:{}). To size that service, write 'Units={name}' below [Sizing] into \
                 /etc/pypnm/sizing.conf.d/50-units.conf; to use {unit} instead, disable and remove {name} first",
                source.file,
                source.line
            );
        }
    }
    Ok(())
}

/// The variables for `--host` and `--port`. Fails if the service cannot listen there.
pub(super) fn address(
    root: &Root,
    arguments: &Setup,
    unit: &Unit,
    program: Program,
) -> anyhow::Result<Vec<(String, String)>> {
    let prefix = program.command.replace('-', "_").to_ascii_uppercase();
    let (host_key, port_key) = (format!("{prefix}_HOST"), format!("{prefix}_PORT"));
    // `EnvironmentFile=` takes precedence over `Environment=`.
    let file = format!("/etc/pypnm/{}.env", program.command);
    let bytes = root.bytes(&file).unwrap_or_default();
    let variables = environment::variables(&bytes).unwrap_or_default();
    let in_file = |key: &str| variables.iter().rfind(|variable| variable.key == key);
    let mut words = Vec::new();
    let given =
        [(&host_key, arguments.host.clone()), (&port_key, arguments.port.map(|port| port.to_string()))];
    for (key, value) in given {
        let Some(value) = value else { continue };
        if let Some(set) = in_file(key).filter(|set| set.value != value) {
            bail!("{file}:{}: {key}={} takes precedence over setup; change it there", set.line, set.value);
        }
        words.push((key.clone(), value));
    }
    if root.is_machine() {
        let of = |key: &String, default: &str| {
            let given = words.iter().find(|(name, _)| name == key).map(|(_, value)| value.clone());
            let set = in_file(key).map(|variable| variable.value.clone());
            given.or(set).or_else(|| pypnm::variable_of(unit, key)).unwrap_or_else(|| default.to_owned())
        };
        let default_port = if program == pypnm::CMTS { "8080" } else { "8000" };
        check_free(
            root,
            &arguments.unit,
            &of(&host_key, "127.0.0.1"),
            &of(&port_key, default_port),
            &port_key,
        )?;
    }
    Ok(words)
}

/// Fails if the service cannot listen on the address, or if another process already does.
fn check_free(root: &Root, unit: &str, host: &str, port: &str, key: &str) -> anyhow::Result<()> {
    let Ok(port) = port.parse::<u16>() else {
        return Ok(());
    };
    let addresses = resolved(root, host, port)?;
    let is_only = addresses.len() == 1;
    for address in addresses {
        match listener::obstacle(root, address) {
            None => {}
            // If a name has several addresses, the launcher ignores those that this machine does not have.
            Some(Obstacle::NotOurs) if !is_only => {}
            Some(Obstacle::NotOurs) => {
                bail!("{host} is not an address of this machine: choose another with --host")
            }
            Some(Obstacle::Impossible(error)) => {
                bail!("nothing can listen on {host}: {error}; choose another address with --host")
            }
            Some(Obstacle::Taken { pid }) => check_listener(root, unit, port, pid, key)?,
        }
    }
    Ok(())
}

/// The addresses of a host, resolved as the launcher does it. Empty: unknown.
fn resolved(root: &Root, host: &str, port: u16) -> anyhow::Result<Vec<SocketAddr>> {
    if let Ok(address) = host.parse::<IpAddr>() {
        return Ok(vec![SocketAddr::new(address, port)]);
    }
    if let Some((address, interface)) = host.split_once('%') {
        let Ok(address) = address.parse::<Ipv6Addr>() else {
            return Ok(Vec::new());
        };
        let index = root.text(&format!("/sys/class/net/{interface}/ifindex")).unwrap_or_default();
        let Ok(index) = index.trim().parse() else {
            bail!("{host}: this machine has no network interface {interface}");
        };
        return Ok(vec![SocketAddrV6::new(address, port, 0, index).into()]);
    }
    // An empty host means every address. One that begins with a dash would be an option of getent.
    if host.is_empty() || host.starts_with('-') {
        return Ok(Vec::new());
    }
    // getent uses the name service of this machine, which a statically linked program does not have.
    let mut getent = Command::new("getent");
    getent.args(["ahosts", host]).stdin(Stdio::null()).stderr(Stdio::null());
    let Ok(output) = getent.output() else {
        return Ok(Vec::new());
    };
    let text = String::from_utf8_lossy(&output.stdout);
    let mut addresses: Vec<IpAddr> =
        text.lines().filter_map(|line| line.split_ascii_whitespace().next()?.parse().ok()).collect();
    addresses.sort_unstable();
    addresses.dedup();
    if addresses.is_empty() {
        bail!("this machine cannot resolve {host}: choose another with --host");
    }
    Ok(addresses.into_iter().map(|address| SocketAddr::new(address, port)).collect())
}

/// Fails if the process that listens on the port does not belong to the unit.
fn check_listener(root: &Root, unit: &str, port: u16, pid: Option<u32>, key: &str) -> anyhow::Result<()> {
    let Some(pid) = pid else {
        bail!(
            "port {port} is in use by another process: stop it, or choose another port with --port ({key})"
        );
    };
    if process::unit_of(root, pid).as_deref() == Some(unit) {
        return Ok(());
    }
    // While the service is stopped or restarting, only systemd holds the launcher's socket.
    let stored = systemctl::properties(unit, &["NFileDescriptorStore"]).unwrap_or_default();
    if pid == 1 && stored.get("NFileDescriptorStore").is_some_and(|number| number != "0") {
        return Ok(());
    }
    let command = process::arguments(root, pid).join(" ");
    bail!(
        "port {port} is in use by process {pid} ({}): stop it, or choose another port with --port ({key})",
        command.trim_end()
    )
}

/// What later drop-ins of the unit override: an error if the service would not start, otherwise a message, because it
/// may be intended.
pub(super) fn overridden(root: &Root, unit: &Unit, drop_in: &DropIn) -> anyhow::Result<Vec<String>> {
    let base_name = |path: &str| path.rsplit('/').next().unwrap_or(path).to_owned();
    let mut lines = Vec::new();
    for file in unit.drop_ins.iter().filter(|file| base_name(file).as_str() > DROP_IN) {
        let bytes = root.bytes(file).unwrap_or_default();
        let mut is_service = false;
        for item in items(&bytes) {
            match item {
                Item::Section { name, .. } => is_service = name == "Service",
                Item::Assignment { key, value, line } if is_service && !value.is_empty() => {
                    lines.extend(overrides(drop_in, &format!("{file}:{line}"), &key, &value)?);
                }
                _ => {}
            }
        }
    }
    Ok(lines)
}

/// As [`overridden`], for a single setting.
fn overrides(drop_in: &DropIn, source: &str, key: &str, value: &str) -> anyhow::Result<Option<String>> {
    let other = |set: Option<&String>| set.is_some_and(|set| set != value);
    let account = drop_in.account.as_ref();
    let is_other = match key {
        "User" if other(account.map(|(user, _)| user)) => {
            bail!(
                "{source}: User={value} takes precedence over setup: remove it there, or run setup --user {value}"
            )
        }
        "Environment" => {
            let words = words_of(value);
            for word in words {
                variable(drop_in, source, &word)?;
            }
            false
        }
        "Group" => other(account.map(|(_, group)| group)),
        "WorkingDirectory" => other(drop_in.checkout.as_ref()),
        "ProtectHome" => drop_in.home.is_some() && value != "tmpfs",
        "RootDirectory" | "RootImage" => true,
        _ => false,
    };
    Ok(is_other.then(|| format!("{source}: {key}={value} takes precedence over what setup writes")))
}

/// As [`overridden`], for a variable in `Environment=`.
fn variable(drop_in: &DropIn, source: &str, word: &str) -> anyhow::Result<()> {
    let Some((key, value)) = word.split_once('=') else {
        return Ok(());
    };
    let directory = format!("{}/bin", drop_in.environment);
    if key == "PATH" && !value.split(':').any(|there| there == directory) {
        bail!(
            "{source}: PATH={value} takes precedence over setup: remove it there, or begin it with {directory}"
        );
    }
    if let Some((_, wanted)) = drop_in.address.iter().find(|(name, wanted)| name == key && wanted != value) {
        bail!("{source}: {key}={value} takes precedence over setup; change it there to {wanted}");
    }
    Ok(())
}
