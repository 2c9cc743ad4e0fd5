//! The file that uvicorn reads itself (`--env-file`, `UVICORN_ENV_FILE`), with python-dotenv: it sets what the environment
//! does not. uvicorn has read its own variables by then, so only `WEB_CONCURRENCY` affects its workers.

use super::Environment;
use super::files::is_there_early;
use super::slot::{Assigned, Slot};
use crate::names;
use crate::overrides::effect::{Effect, Override};
use crate::parse::dotenv;
use crate::problem::{Problem, Source, Sourced};
use crate::root::{ReadError, Root};

impl Environment<'_> {
    /// Adds `WEB_CONCURRENCY` of the file at `path`, which `named_at` names. If a generator cannot read that file, the
    /// drop-in omits `UVICORN_WORKERS`, which would take precedence over it, unless sizing.conf(5) has set the workers
    /// (`is_decided`).
    pub(in crate::overrides) fn read_dotenv(
        &mut self,
        root: &Root,
        path: &str,
        named_at: &Source,
        is_decided: bool,
        problems: &mut Vec<Problem>,
    ) {
        const KEY: &str = names::WEB_CONCURRENCY;
        if path.is_empty() || self.slots.get(KEY).is_some_and(|slot| slot.value().is_some()) {
            return;
        }
        let is_early = is_there_early(path);
        // A relative path begins in the service's working directory.
        let is_readable = path.starts_with('/') && (is_early || !root.is_early());
        let read = is_readable.then(|| root.with_guarded_bytes(path, |text| dotenv::value(text, KEY)));
        let is_known = match read {
            Some(Ok(found)) => {
                if let Some((value, line)) = found
                    && let Some(slot) = self.slots.get_mut(KEY)
                {
                    let source = Source::key(path.to_owned(), line, KEY);
                    slot.assigned = Some(Assigned::Unit(Sourced { value, source }));
                }
                is_early
            }
            // Files in /run are created during the boot.
            Some(Err(ReadError::Missing)) => is_early && !path.starts_with("/run/"),
            Some(Err(error)) => {
                problems.push(Problem::unreadable(path.to_owned(), error, "what it sets is unknown"));
                false
            }
            None => false,
        };
        if is_known
            || is_decided
            || !self.slots.get(names::UVICORN_WORKERS).is_some_and(Slot::is_from_drop_in)
        {
            return;
        }
        self.has_late_files = true;
        self.not_read.push(Override::new(named_at.clone(), Effect::NotRead { path: path.to_owned() }));
        let expected = "a file in /etc or /usr, which a generator can read";
        let consequence = "uvicorn starts one worker, unless WEB_CONCURRENCY in that file or Workers= in sizing.conf(5) \
                           says otherwise";
        problems.push(Problem::bad_value(named_at.clone(), path, expected, consequence));
        if let Some(workers) = self.slots.get_mut(names::UVICORN_WORKERS) {
            workers.assigned = None;
            self.left_out.push(names::UVICORN_WORKERS);
        }
    }
}
