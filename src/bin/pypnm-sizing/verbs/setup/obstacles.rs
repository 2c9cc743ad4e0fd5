//! What would prevent the service from working: a path that cannot be written in a unit, the file system, the
//! permissions of the user, another unit, or another program on the address. Each is an error that says what to do.
//! Writes nothing.

use std::net::{IpAddr, Ipv6Addr, SocketAddr, SocketAddrV6};

use anyhow::bail;
use pypnm_sizing::names::DROP_IN as GENERATED;
use pypnm_sizing::parse::base_name;
use pypnm_sizing::parse::environment;
use pypnm_sizing::parse::words::words_of;
use pypnm_sizing::root::Root;
use pypnm_sizing::units::{Index, LoadState};
use rustix::fs::{FileType, StatVfsMountFlags};

use super::drop_in::{DROP_IN, Home, OPERATORS, SetupDropIn};
use super::plan::Plan;
use crate::output::remark;
use crate::service::account::{Access, Account, getent};
use crate::service::listener::{self, Obstacle};
use crate::service::process;
use crate::service::pypnm::{self, real_path};
use crate::service::systemctl;
use crate::service::unit_file::{Setting, service_settings};

/// Directories of units that may start the same PyPNM.
const OTHERS: [&str; 3] = [OPERATORS, "/run/systemd/system", "/usr/local/lib/systemd/system"];
/// What PyPNM creates in its working directory.
const DATA: [&str; 3] = [".data", "logs", "logs/pypnm.log"];

/// The maximum number of PyPNM's files whose owners are compared.
const MAX_FILES: usize = 4096;

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

impl Plan<'_> {
    /// Fails if the user does not have the permissions that the service needs.
    pub(super) fn check_permissions(&self, account: &Account, home: Option<&Home>) -> anyhow::Result<()> {
        let Self { root, installation, checkout, .. } = self;
        let mut wanted = vec![
            (installation.environment.clone(), Access::Read),
            (installation.command.clone(), Access::Read),
            (installation.command.clone(), Access::Execute),
        ];
        wanted.extend(installation.packages.clone().map(|packages| (packages, Access::Read)));
        let python = pypnm::python_places(root, installation).into_iter();
        wanted.extend(python.map(|directory| (directory, Access::Search)));
        wanted.extend(home.iter().flat_map(|home| &home.readable).map(|path| (path.clone(), Access::Read)));
        if let Some(checkout) = checkout {
            wanted.push((checkout.clone(), Access::Read));
            wanted.push((checkout.clone(), Access::Write));
            let data = DATA.iter().map(|name| format!("{checkout}/{name}"));
            wanted.extend(data.filter(|path| root.stat(path).is_some()).map(|path| (path, Access::Write)));
        }
        let obstacle =
            wanted.iter().find_map(|(path, access)| account.obstacle(root, &real_path(root, path)?, *access));
        if let Some(obstacle) = obstacle {
            bail!("{obstacle}: change that, or specify another user with --user");
        }
        let below = checkout.as_ref().and_then(|checkout| obstacle_below(root, account, checkout));
        if let Some(obstacle) = below {
            remark(&format!("{obstacle}; requests that write there will fail until you change that"));
        }
        Ok(())
    }

    /// Fails if another unit starts the same installation.
    pub(super) fn check_other_units(&self) -> anyhow::Result<()> {
        let root = self.root;
        let unit = &self.arguments.unit;
        let entries = |directory: &str| {
            let entries = root.entries(directory).unwrap_or_default().into_iter();
            entries.map(move |entry| entry.name)
        };
        let mut names: Vec<String> = Vec::new();
        for directory in OTHERS {
            for name in entries(directory) {
                // Instances of templates have no file, only a symbolic link if they are enabled.
                if name.ends_with(".wants") || name.ends_with(".requires") {
                    names.extend(entries(&format!("{directory}/{name}")));
                } else {
                    names.push(name);
                }
            }
        }
        names.retain(|name| name.ends_with(".service") && !name.ends_with("@.service") && name != unit);
        names.sort_unstable();
        names.dedup();
        let mut problems = Vec::new();
        let index = Index::read(root, &names, GENERATED, &mut problems);
        for name in &names {
            let other = index.load(name, &mut problems).filter(|other| other.state == LoadState::Loaded);
            if let Some(source) = other.and_then(|other| pypnm::started_by(root, &other, &self.installation))
            {
                bail!(
                    "{name} already starts this PyPNM ({}:{}). To size that service, set 'Units={name}' in [Sizing] of \
                     /etc/pypnm/sizing.conf.d/50-units.conf; to use {unit} instead, disable and remove {name} first",
                    source.file,
                    source.line
                );
            }
        }
        Ok(())
    }

    /// The variables for `--host` and `--port`. Fails if the service cannot listen there.
    pub(super) fn address(&self) -> anyhow::Result<Vec<(String, String)>> {
        let Self { root, arguments, unit, program, .. } = self;
        let prefix = program.command.replace('-', "_").to_ascii_uppercase();
        let (host_key, port_key) = (format!("{prefix}_HOST"), format!("{prefix}_PORT"));
        // `EnvironmentFile=` takes precedence over `Environment=`.
        let file = format!("/etc/pypnm/{}.env", program.command);
        let bytes = root.bytes(&file).unwrap_or_default();
        let variables = environment::variables(&bytes).unwrap_or_default();
        let in_file = |key: &str| variables.iter().rfind(|variable| variable.key == key);
        let mut words = Vec::new();
        let port = arguments.port.map(|port| port.to_string());
        for (key, value) in [(&host_key, arguments.host.clone()), (&port_key, port)] {
            let Some(value) = value else { continue };
            if let Some(set) = in_file(key).filter(|set| set.value != value) {
                bail!(
                    "{file}:{}: {key}={} takes precedence over setup; change it there",
                    set.line,
                    set.value
                );
            }
            words.push((key.clone(), value));
        }
        if root.is_machine() {
            let effective = |key: &String, default: &str| {
                let given = words.iter().find(|(name, _)| name == key).map(|(_, value)| value.clone());
                let set = in_file(key).map(|variable| variable.value.clone());
                given.or(set).or_else(|| pypnm::variable_of(unit, key)).unwrap_or_else(|| default.to_owned())
            };
            let default_port = if *program == pypnm::CMTS { "8080" } else { "8000" };
            let (host, port) = (effective(&host_key, "127.0.0.1"), effective(&port_key, default_port));
            if let Ok(port) = port.parse() {
                self.check_free(&host, port, &port_key)?;
            }
        }
        Ok(words)
    }

    /// Fails if the service cannot listen on the address, or if another process already does.
    fn check_free(&self, host: &str, port: u16, key: &str) -> anyhow::Result<()> {
        let addresses = resolved(self.root, host, port)?;
        let is_only = addresses.len() == 1;
        for address in addresses {
            match listener::obstacle(self.root, address) {
                None => {}
                // If a name has several addresses, the launcher ignores those that this machine does not have.
                Some(Obstacle::NotLocal) if !is_only => {}
                Some(Obstacle::NotLocal) => {
                    bail!("{host} is not an address of this machine: choose another with --host")
                }
                Some(Obstacle::Impossible(error)) => {
                    bail!("nothing can listen on {host}: {error}; choose another address with --host")
                }
                Some(Obstacle::Taken { pid }) if pid.is_some_and(|pid| self.is_own(pid)) => {}
                Some(Obstacle::Taken { pid }) => {
                    let who = pid.map_or_else(
                        || "another process".to_owned(),
                        |pid| {
                            let command = process::arguments(self.root, pid).join(" ");
                            format!("process {pid} ({})", command.trim_end())
                        },
                    );
                    bail!(
                        "port {port} is in use by {who}: stop it, or choose another port with --port ({key})"
                    )
                }
            }
        }
        Ok(())
    }

    /// Whether a process that listens belongs to the unit.
    fn is_own(&self, pid: u32) -> bool {
        let unit = &self.arguments.unit;
        // While the service is stopped or restarting, only systemd holds the launcher's socket.
        let is_stored = || {
            let stored = systemctl::properties(unit, &["NFileDescriptorStore"]).unwrap_or_default();
            stored.get("NFileDescriptorStore").is_some_and(|number| number != "0")
        };
        process::unit_of(self.root, pid).as_ref() == Some(unit) || pid == 1 && is_stored()
    }

    /// What later drop-ins of the unit override: an error if the service would not start, otherwise a message, because it
    /// may be intended.
    pub(super) fn overridden(&self, drop_in: &SetupDropIn) -> anyhow::Result<Vec<String>> {
        let mut lines = Vec::new();
        for file in self.unit.drop_ins.iter().filter(|file| base_name(file) > DROP_IN) {
            for Setting { key, value, line } in service_settings(self.root, file) {
                if !value.is_empty() {
                    lines.extend(overrides(drop_in, &format!("{file}:{line}"), &key, &value)?);
                }
            }
        }
        Ok(lines)
    }
}

/// Why the user cannot write to some of PyPNM's files, which happens after it was started as root once.
fn obstacle_below(root: &Root, account: &Account, checkout: &str) -> Option<String> {
    let mut paths: Vec<String> = DATA.iter().map(|name| format!("{checkout}/{name}")).collect();
    let mut remaining = MAX_FILES;
    while let Some(path) = paths.pop() {
        let stat = root.stat(&path).filter(|_| remaining > 0);
        let Some(stat) = stat else { continue };
        remaining -= 1;
        if stat.st_uid != account.uid
            && let Some(obstacle) = account.obstacle(root, &path, Access::Write)
        {
            return Some(obstacle);
        }
        if root.file_type(&path) == Some(FileType::Directory) {
            let entries = root.entries(&path).unwrap_or_default().into_iter();
            paths.extend(entries.filter(|entry| !entry.link).map(|entry| format!("{path}/{}", entry.name)));
        }
    }
    None
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
    let Some(text) = getent("ahosts", host) else {
        return Ok(Vec::new());
    };
    let mut addresses: Vec<IpAddr> =
        text.lines().filter_map(|line| line.split_ascii_whitespace().next()?.parse().ok()).collect();
    addresses.sort_unstable();
    addresses.dedup();
    if addresses.is_empty() {
        bail!("this machine cannot resolve {host}: choose another with --host");
    }
    Ok(addresses.into_iter().map(|address| SocketAddr::new(address, port)).collect())
}

/// As [`Plan::overridden`], for a single setting.
fn overrides(drop_in: &SetupDropIn, source: &str, key: &str, value: &str) -> anyhow::Result<Option<String>> {
    let other = |set: Option<&String>| set.is_some_and(|set| set != value);
    let account = drop_in.account.as_ref();
    let is_other = match key {
        "User" if other(account.map(|(user, _)| user)) => {
            bail!(
                "{source}: User={value} takes precedence over setup: remove it there, or run setup --user {value}"
            )
        }
        "Environment" => {
            for word in words_of(value) {
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

/// As [`Plan::overridden`], for a variable in `Environment=`.
fn variable(drop_in: &SetupDropIn, source: &str, word: &str) -> anyhow::Result<()> {
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
