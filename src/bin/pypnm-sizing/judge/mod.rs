//! Whether what systemd has loaded, and what really runs, still fits the machine, of one unit.

mod facts;
#[cfg(test)]
mod tests;
mod verdict;

use std::time::Duration;

use pypnm_sizing::root::Root;
use pypnm_sizing::sizing::Sizing;

use crate::service::systemctl::Trouble;
use facts::gather;
pub(crate) use facts::server;
use verdict::verdict;
pub(crate) use verdict::{Facts, Live, Status, Verdict};

/// A worker that ends at its limit is replaced within a second or so; only what stays is a finding.
const LOOKS: u32 = 4;
const PAUSE: Duration = Duration::from_millis(700);

/// One unit judged, or why that was not possible.
pub(crate) struct Judged {
    pub(crate) unit: String,
    pub(crate) facts: Option<Facts>,
    pub(crate) verdict: Result<Verdict, String>,
}

impl Judged {
    pub(crate) fn status(&self) -> Status {
        self.verdict.as_ref().map_or(Status::Unknown, Verdict::status)
    }
}

/// The units to judge: those of the configuration, or the one that was asked for.
pub(crate) fn names(sizing: &Sizing, asked: Option<&str>) -> Vec<String> {
    asked.map_or_else(|| sizing.config.units(), |asked| vec![asked.to_owned()])
}

/// Judges one unit; looks again where only a worker seems to be missing.
pub(crate) fn judge(root: &Root, sizing: &Sizing, name: &str) -> Judged {
    let mut judged = judge_once(root, sizing, name);
    for _ in 1..LOOKS {
        let leading = judged.verdict.as_ref().ok().and_then(Verdict::leading);
        if leading.is_none_or(|finding| finding.topic != "workers-missing") {
            break;
        }
        std::thread::sleep(PAUSE);
        judged = judge_once(root, sizing, name);
    }
    judged
}

fn judge_once(root: &Root, sizing: &Sizing, name: &str) -> Judged {
    let unit = name.to_owned();
    if let Some((stem, _)) = name.split_once("@.") {
        let why = format!("it is a template; name an instance, --unit={stem}@NAME.service");
        return Judged { unit, facts: None, verdict: Err(why) };
    }
    let facts = match gather(root, sizing, name) {
        Ok(facts) => facts,
        Err(trouble) => {
            let hint = match trouble {
                Trouble::NoSystemctl | Trouble::NotRunning(_) => {
                    "; without it, 'pypnm-sizing env --write FILE' hands PyPNM its profile"
                }
                _ => "",
            };
            return Judged { unit, facts: None, verdict: Err(format!("{trouble}{hint}")) };
        }
    };
    let verdict = match facts.loaded.load.as_str() {
        "loaded" => Ok(verdict(&facts)),
        "not-found" => Err("systemd knows no such unit".to_owned()),
        "masked" => Err("the unit is masked".to_owned()),
        other => Err(format!("systemd could not load the unit ({other})")),
    };
    Judged { unit, facts: Some(facts), verdict }
}

/// The worst of all, as a status for the shell.
pub(crate) fn status(judged: &[Judged]) -> u8 {
    let any = |status| judged.iter().any(|one| one.status() == status);
    match (any(Status::Differs), any(Status::Unknown)) {
        (true, _) => 1,
        (_, true) => 2,
        _ => 0,
    }
}
