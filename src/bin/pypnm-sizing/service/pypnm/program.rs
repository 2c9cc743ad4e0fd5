//! The two programs, PyPNM and PyPNM-CMTS, and which of them a unit starts.

use pypnm_sizing::parse::base_name;
use pypnm_sizing::units::Unit;

use super::commands::start_words;

/// The directory in which the packaged unit looks first.
pub(super) const PACKAGED: &str = "/opt/pypnm";

/// One of the two programs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct PypnmProgram {
    /// The command.
    pub(crate) command: &'static str,
    /// Its package on PyPI.
    pub(crate) package: &'static str,
    /// The name of the package in metadata directories (PEP 503 and 427).
    pub(super) normalized: &'static str,
    /// The package that Python imports.
    pub(super) import: &'static str,
}

/// PyPNM itself.
pub(crate) const PYPNM: PypnmProgram =
    PypnmProgram { command: "pypnm", package: "pypnm-docsis", normalized: "pypnm_docsis", import: "pypnm" };
/// PyPNM-CMTS.
pub(crate) const CMTS: PypnmProgram = PypnmProgram {
    command: "pypnm-cmts",
    package: "pypnm-docsis-cmts",
    normalized: "pypnm_docsis_cmts",
    import: "pypnm_cmts",
};

impl PypnmProgram {
    /// The program that a unit starts, or that belongs to its name if the unit does not tell.
    pub(crate) fn for_unit(name: &str, unit: Option<&Unit>) -> Self {
        let words = unit.map(start_words).unwrap_or_default();
        let starts = |program: Self| words.iter().any(|(word, _)| base_name(word) == program.command);
        if starts(CMTS) || name.starts_with(CMTS.command) && !starts(PYPNM) { CMTS } else { PYPNM }
    }

    /// The path of the program in an environment.
    pub(super) fn in_environment(self, environment: &str) -> String {
        format!("{}/bin/{}", environment.trim_end_matches('/'), self.command)
    }

    /// The paths that the program may have in the directories of `path`, a value of `PATH`.
    pub(super) fn in_path(self, path: &str) -> impl Iterator<Item = String> {
        let directories = path.split(':').filter(|directory| directory.starts_with('/'));
        directories.map(move |directory| format!("{}/{}", directory.trim_end_matches('/'), self.command))
    }

    /// The text that none is installed, and how to install it.
    pub(crate) fn none_found(self) -> String {
        format!("none found; {}", self.how_to_install())
    }

    /// The command that installs it where the packaged unit looks first.
    pub(crate) fn how_to_install(self) -> String {
        format!(
            "install it with 'python3 -m venv {PACKAGED} && {PACKAGED}/bin/pip install {}', or, if it is installed \
             elsewhere, run 'pypnm-sizing setup DIR'",
            self.package
        )
    }
}
