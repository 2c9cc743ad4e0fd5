//! The file of the drop-in: writes, replaces and removes it, and restores it if systemd cannot be reloaded. Its text
//! comes from [`super::drop_in`].

use std::path::Path;

use anyhow::bail;
use pypnm_sizing::root::{ReadError, Root};
use pypnm_sizing::write::{Directory, WriteError};

use super::drop_in::{DROP_IN, MARK, SETTINGS};
use crate::output::{Outcome, answer};
use crate::service::systemctl;

/// Writes the drop-in and reloads systemd.
pub(super) fn write(root: &Root, directory: &str, unit: &str, text: &str) -> Outcome {
    if !root.is_machine() {
        bail!(
            "setup writes for the running systemd only; without --write it prints the contents of {directory}/{DROP_IN}"
        );
    }
    let path = format!("{directory}/{DROP_IN}");
    let earlier = root.text(&path).ok();
    let is_same = earlier.as_deref() == Some(text);
    if !is_same {
        replace(directory, text).map_err(|error| write_error(error, unit, "setup --write"))?;
    }
    // Even if the file is unchanged, because an earlier reload may have failed.
    if let Err(error) = systemctl::reload() {
        if !is_same {
            undo(directory, earlier.as_deref())?;
        }
        bail!("{error}; {path} is unchanged. Without --write, setup prints what it should contain");
    }
    let lost = lost_settings(earlier.as_deref().unwrap_or_default(), text);
    let what = if is_same {
        format!("{path} is up to date.")
    } else if lost.is_empty() {
        format!("Wrote {path}; systemd has reloaded.")
    } else {
        format!(
            "Replaced {path}; systemd has reloaded. These settings are no longer in it:\n  {}",
            lost.join("\n  ")
        )
    };
    let state = systemctl::properties(unit, &["ActiveState"]).unwrap_or_default();
    let state = state.get("ActiveState").map(String::as_str);
    let active = matches!(state, Some("active" | "activating" | "reloading"));
    let next =
        if active { format!("systemctl restart {unit}") } else { format!("systemctl enable --now {unit}") };
    answer(&format!("{what}\nNext: {next}\nThen: pypnm-sizing check --unit {unit}\n"))
}

/// `--remove`: removes the drop-in that `--write` wrote. If `dir` is given, only one for the PyPNM there.
pub(super) fn remove(root: &Root, directory: &str, unit: &str, dir: Option<&Path>) -> Outcome {
    if !root.is_machine() {
        bail!("setup --remove changes the running system only, not one below --root");
    }
    let path = format!("{directory}/{DROP_IN}");
    check_not_foreign(root, directory)?;
    let Ok(earlier) = root.text(&path) else {
        return answer(&format!("There is no {path}: nothing to remove.\n"));
    };
    if let Some(dir) = dir.map(std::path::absolute).transpose()? {
        // The directory may no longer exist.
        let dir = dir.canonicalize().unwrap_or(dir);
        let (environment, checkout) = places(&earlier);
        if !environment.starts_with(&dir) && checkout != Some(&dir) {
            bail!(
                "{path} is for {}; to remove it, run setup --remove without a directory",
                environment.display()
            );
        }
    }
    delete(directory).map_err(|error| write_error(error, unit, "setup --remove"))?;
    if let Err(error) = systemctl::reload() {
        undo(directory, Some(&earlier))?;
        bail!("{error}; {path} is unchanged");
    }
    let added = added_settings(&earlier);
    let what = if added.is_empty() {
        format!("Removed {path}; systemd has reloaded.")
    } else {
        format!(
            "Removed {path}; systemd has reloaded. These settings, which setup did not write, were in it:\n  {}",
            added.join("\n  ")
        )
    };
    answer(&format!(
        "{what}\nA running {unit} continues until 'systemctl restart {unit}' or 'systemctl stop {unit}'.\n"
    ))
}

fn replace(directory: &str, text: &str) -> Result<(), WriteError> {
    Directory::create(Path::new(directory))?.replace(DROP_IN, text)
}

fn delete(directory: &str) -> Result<(), WriteError> {
    Directory::open(Path::new(directory))?.remove(DROP_IN)?;
    // Fails if the directory contains other files, which belong to the operator.
    let _ = std::fs::remove_dir(directory);
    Ok(())
}

/// Restores the previous file, or removes the new one if there was none.
fn undo(directory: &str, earlier: Option<&str>) -> Result<(), WriteError> {
    earlier.map_or_else(|| delete(directory), |text| replace(directory, text))
}

/// The error for a failed write, with the cause.
fn write_error(error: WriteError, unit: &str, what: &str) -> anyhow::Error {
    let as_root = if error.error.kind() == std::io::ErrorKind::PermissionDenied {
        format!("; run {what} as root")
    } else {
        String::new()
    };
    anyhow::Error::new(error).context(format!("{unit} is unchanged{as_root}"))
}

/// Fails if a file with the drop-in's name exists that `setup` did not write.
pub(super) fn check_not_foreign(root: &Root, directory: &str) -> anyhow::Result<()> {
    let path = format!("{directory}/{DROP_IN}");
    match root.text(&path) {
        Ok(text) if text.starts_with(MARK) => Ok(()),
        Err(ReadError::Missing) if root.file_type(&path).is_none() => Ok(()),
        Ok(_) | Err(_) => {
            bail!("{path} was not written by 'pypnm-sizing setup' and is left unchanged: move or rename it")
        }
    }
}

/// The environment and the checkout that a drop-in is for.
fn places(text: &str) -> (&Path, Option<&Path>) {
    let environment =
        text.strip_prefix(MARK).and_then(|rest| rest.strip_prefix(" for ")?.split("; '").next());
    let checkout = text.lines().find_map(|line| line.strip_prefix("WorkingDirectory="));
    (Path::new(environment.unwrap_or_default()), checkout.map(Path::new))
}

/// The settings of a drop-in that `setup` does not write.
fn added_settings(text: &str) -> Vec<&str> {
    let is_own =
        |line: &&str| line.split_once('=').is_some_and(|(key, _)| SETTINGS.contains(&key.trim_end()));
    lost_settings(text, "").into_iter().filter(|line| !is_own(line)).collect()
}

/// The settings of the previous drop-in that the new one does not contain.
pub(super) fn lost_settings<'a>(earlier: &'a str, new: &str) -> Vec<&'a str> {
    let is_setting = |line: &&str| !line.is_empty() && !line.starts_with(['#', ';', '[']);
    earlier
        .lines()
        .map(str::trim)
        .filter(is_setting)
        .filter(|line| !new.lines().any(|kept| kept == *line))
        .collect()
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::super::drop_in::{Home, SetupDropIn};
    use super::{added_settings, places};

    #[test]
    fn only_foreign_settings_are_reported() {
        let paths = || vec!["/home/op/a".to_owned()];
        let home = Home {
            elsewhere: Some("/data/op".into()),
            writable: paths(),
            readable: paths(),
            aliases: vec![("/data/op/a".into(), "/home/op/a".into())],
        };
        let drop_in = SetupDropIn {
            is_user_base: true,
            checkout: Some("/home/op/a".into()),
            account: Some(("op".into(), "op".into())),
            home: Some(home),
            address: vec![("PYPNM_HOST".into(), "::".into())],
            ..SetupDropIn::default()
        };
        let text = drop_in.text();
        assert!(text.contains("BindReadOnlyPaths=/data/op/a:/home/op/a\n"), "{text}");
        assert_eq!(added_settings(&text), [""; 0]);
        assert_eq!(added_settings(&format!("{text}# mine\nNice=5\n")), ["Nice=5"]);
    }

    #[test]
    fn a_drop_in_names_its_places() {
        for environment in ["/opt/api", "/home/op/Py;PNM/.env", "/home/op/a for b/.env"] {
            let checkout = Some("/home/op/Py;PNM".to_owned());
            let drop_in = SetupDropIn { environment: environment.into(), checkout, ..SetupDropIn::default() };
            assert_eq!(places(&drop_in.text()), (Path::new(environment), Some(Path::new("/home/op/Py;PNM"))));
        }
    }
}
