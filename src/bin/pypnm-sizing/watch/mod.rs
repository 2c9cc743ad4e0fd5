//! `watch`: the live workers of the service: memory, growth, CPU, recycles, and what to set. This loop reads a sample,
//! gives it to the library's ledger, and shows what came of it; it changes nothing.

mod cost;
mod find;
mod json;
mod place;
mod read;
mod show;
mod terminal;

use std::io::{self, IsTerminal as _, Write as _};
use std::process::ExitCode;
use std::time::Instant;

use anyhow::Error;
use pypnm_sizing::limits::Resource;
use pypnm_sizing::root::Root;
use pypnm_sizing::sizing::{Request, SizedUnit, Sizing, size};
use pypnm_sizing::watch::advice::{Finding, Setup, drop_in, duration, findings};
use pypnm_sizing::watch::ledger::{Bounds, Ledger};

use crate::cli::{FOR_EVER, Watch};
use crate::output::{Outcome, remark};
use crate::page::{has_colours, is_capable};
use cost::{Cost, cpu_seconds};
use find::Target;
use read::Reader;
use show::Context;
use terminal::{Events, Screen, Woken};

/// The part of one CPU that reckoning growth and findings may take.
const RECKONING_BUDGET: f64 = 0.002;

/// How samples are shown.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Style {
    Screen,
    Lines,
    Json,
    Silent,
}

/// What ended the watch.
enum End {
    /// Time, a key or a signal: the summary follows.
    Done,
    /// What was watched is gone: the summary follows.
    Gone,
    /// Nobody reads any more.
    Unread,
}

pub(crate) fn run(root: &Root, arguments: &Watch) -> Outcome {
    let sizing = size(&Request { hypothetical: arguments.machine.hypothetical(), ..Request::new(root) });
    sizing.problems.iter().for_each(|problem| remark(problem));
    let unit = sizing.units.iter().find(|unit| unit.name == arguments.unit).or(sizing.units.first());
    let (target, said) =
        Target::find(&Root::machine(), arguments.pid, &arguments.unit).map_err(Error::msg)?;
    if let Some(said) = said {
        remark(&said);
    }
    let style = match (arguments.write_advice, arguments.json) {
        (true, _) => Style::Silent,
        (_, true) => Style::Json,
        _ if is_capable(&io::stdout()) && io::stdin().is_terminal() => Style::Screen,
        _ => Style::Lines,
    };
    let mut watch = Watching {
        arguments,
        unit,
        name: target.name(),
        target,
        style,
        counts_live: root.is_machine(),
        reader: Reader::new().map_err(Error::msg)?,
        ledger: Ledger::new(Bounds::default(), arguments.evidence.as_secs_f64()),
        findings: Vec::new(),
        reckon_at: 0.0,
        began: Instant::now(),
        cpu_began: cpu_seconds(),
    };
    let end = watch.until_the_end().map_err(Error::msg)?;
    watch.at_the_end(&end, &sizing)
}

/// A watch going on.
struct Watching<'a> {
    arguments: &'a Watch,
    unit: Option<&'a SizedUnit>,
    name: String,
    target: Target,
    style: Style,
    /// Whether what the live process is granted counts; below another root a machine is stated instead.
    counts_live: bool,
    reader: Reader,
    ledger: Ledger,
    findings: Vec<Finding>,
    /// When growth and findings are due again, in seconds.
    reckon_at: f64,
    began: Instant,
    cpu_began: f64,
}

impl Watching<'_> {
    fn until_the_end(&mut self) -> Result<End, String> {
        let events = Events::new().map_err(|error| format!("can't handle signals: {error}"))?;
        let mut screen = (self.style == Style::Screen).then(Screen::new);
        let last = self.began + self.arguments.duration.unwrap_or(FOR_EVER);
        let mut next = self.began;
        loop {
            // CLOCK_MONOTONIC: setting the clock changes nothing here.
            let at = self.began.elapsed().as_secs_f64();
            let Some(sample) = self.reader.sample(&mut self.target, at) else {
                return Ok(End::Gone);
            };
            let bounds = Bounds { cpu: self.bound(Resource::Cpu).0, memory: self.bound(Resource::Memory).0 };
            self.ledger.rebound(bounds);
            self.ledger.take(sample);
            self.reckon(at);
            if !self.show() {
                return Ok(End::Unread);
            }
            next += self.arguments.interval;
            let now = Instant::now();
            if next < now {
                // Late (stopped, suspended, a slow machine): go on from here rather than catch up.
                next = now + self.arguments.interval;
            }
            if next > last {
                return Ok(End::Done);
            }
            loop {
                match events.wait(next, screen.as_mut())? {
                    Woken::End => return Ok(End::Done),
                    Woken::Redraw if self.style == Style::Screen => {
                        self.show();
                    }
                    Woken::Time if Instant::now() >= next => break,
                    Woken::Time | Woken::Redraw => {}
                }
            }
        }
    }

    /// Growth and findings, as often as their cost allows.
    fn reckon(&mut self, at: f64) {
        if at < self.reckon_at {
            return;
        }
        let mut cost = Cost::default();
        cost.of(|| {
            self.ledger.reckon_growth();
            self.findings = findings(&self.ledger, self.setup().as_ref());
        });
        self.reckon_at = at + cost.seconds() / RECKONING_BUDGET;
    }

    /// How much of a resource the service may use (0: not known), and what says so: as it is sized, or less where the
    /// live process is granted less.
    fn bound(&self, resource: Resource) -> (u64, String) {
        let hypothetical = self.arguments.machine.hypothetical();
        let (sized, stated) = match resource {
            Resource::Cpu => (self.unit.map(|unit| unit.capacity.cpu), hypothetical.cpu.is_some()),
            Resource::Memory => (self.unit.map(|unit| unit.capacity.memory), hypothetical.memory.is_some()),
        };
        let sized = sized.filter(|grant| grant.amount > 0);
        let live = self.reader.place.least(resource).filter(|_| self.counts_live && !stated);
        match (sized, live) {
            (Some(sized), Some(live)) if live.amount < sized.amount => (live.amount, live.source.clone()),
            (None, Some(live)) => (live.amount, live.source.clone()),
            (Some(sized), _) => {
                let limit = self.unit.zip(sized.binding).and_then(|(unit, index)| unit.limits.get(index));
                (sized.amount, limit.map_or_else(|| "not known".to_owned(), |limit| limit.source.to_string()))
            }
            (None, None) => (0, "not known".to_owned()),
        }
    }

    fn setup(&self) -> Option<Setup> {
        self.unit.map(|unit| Setup {
            cpus: (self.ledger.bounds().cpu / 1000).max(1),
            memory: self.ledger.bounds().memory,
            settings: unit.config.policy_settings(),
            limit_max_requests: self.reader.limit_max_requests,
        })
    }

    fn with_context<T>(&self, colours: bool, use_it: impl FnOnce(&Context<'_>) -> T) -> T {
        let (_, source) = self.bound(Resource::Memory);
        let watched = self.began.elapsed().as_secs_f64().max(f64::MIN_POSITIVE);
        use_it(&Context {
            name: &self.name,
            interval: self.arguments.interval.as_secs_f64(),
            memory_source: &source,
            limit_max_requests: self.reader.limit_max_requests,
            findings: &self.findings,
            no_shares: self.reader.no_shares.as_ref().map(ToString::to_string),
            cost: (cpu_seconds() - self.cpu_began) * 100.0 / watched,
            letters: !speaks_utf8(),
            colours,
        })
    }

    /// Shows the sample. Whether somebody still reads.
    fn show(&self) -> bool {
        match self.style {
            Style::Silent => true,
            Style::Screen => {
                let (columns, rows) = Screen::size();
                let lines = self.with_context(has_colours(&io::stdout()), |context| {
                    show::screen(&self.ledger, context, columns, rows)
                });
                Screen::draw(&lines).is_ok()
            }
            Style::Lines => say(&show::line(&self.ledger)),
            Style::Json => say(&self.with_context(false, |context| json::sample(&self.ledger, context))),
        }
    }

    fn at_the_end(&mut self, end: &End, sizing: &Sizing) -> Outcome {
        if matches!(end, End::Unread) {
            return Ok(ExitCode::SUCCESS);
        }
        if matches!(end, End::Gone) {
            remark(&format!("{} has ended", self.name));
        }
        self.findings = findings(&self.ledger, self.setup().as_ref());
        let colours_of_stderr = has_colours(&io::stderr());
        match self.style {
            Style::Json => {
                say(&self.with_context(false, |context| json::summary(&self.ledger, context)));
            }
            Style::Silent => {
                let text =
                    self.with_context(colours_of_stderr, |context| show::summary(&self.ledger, context));
                // The drop-in below is the answer; this only goes with it.
                let _ = io::stderr().write_all(text.as_bytes());
                let section = section(sizing, self.unit);
                let watched = format!("{}, {}", self.name, duration(self.ledger.watched()));
                return crate::output::answer(&drop_in(&self.findings, &section, &watched));
            }
            Style::Screen | Style::Lines => {
                let colours = has_colours(&io::stdout());
                let text = self.with_context(colours, |context| show::summary(&self.ledger, context));
                return crate::output::answer_painted(&text);
            }
        }
        Ok(ExitCode::SUCCESS)
    }
}

/// The section of sizing.conf that the advice belongs in: the unit's own where several are sized.
fn section(sizing: &Sizing, unit: Option<&SizedUnit>) -> String {
    match unit {
        Some(unit) if sizing.units.len() > 1 => unit.name.clone(),
        _ => "Sizing".to_owned(),
    }
}

/// Writes a line to stdout. Whether somebody reads it.
fn say(line: &str) -> bool {
    let mut stdout = io::stdout().lock();
    writeln!(stdout, "{line}").and_then(|()| stdout.flush()).is_ok()
}

/// Whether the locale's character set has block characters.
fn speaks_utf8() -> bool {
    let set = |name| std::env::var(name).ok().filter(|value| !value.is_empty());
    let locale = set("LC_ALL").or_else(|| set("LC_CTYPE")).or_else(|| set("LANG")).unwrap_or_default();
    let locale = locale.to_ascii_lowercase();
    locale.contains("utf-8") || locale.contains("utf8")
}
