//! `watch`: shows the running workers of the service (memory, growth, CPU, waiting connections, recycles), and advises what
//! to set. The loop reads a sample and passes it to the evidence in the library, the screen, the recording and the metrics.
//! The service is not affected.

mod cgroups;
mod cost;
mod find;
pub(crate) mod json;
mod metrics;
mod queue;
mod read;
mod record;
mod show;
mod terminal;
mod unit;

use std::io::{self, IsTerminal as _, Write as _};
use std::process::ExitCode;
use std::time::{Duration, Instant, SystemTime};

use anyhow::Context as _;
use pypnm_sizing::limits::Resource;
use pypnm_sizing::root::Root;
use pypnm_sizing::sized::{SizedUnit, Sizing};
use pypnm_sizing::sizing::{Request, size};
use pypnm_sizing::watch::advice::{Advice, PresentSizing, drop_in, findings};
use pypnm_sizing::watch::evidence::Evidence;
use pypnm_sizing::watch::line::{Line, rounded};
use pypnm_sizing::watch::meter::{Bounds, Meter, per_hour};
use pypnm_sizing::watch::text::duration;

use crate::cli::{FOR_EVER, Watch};
use crate::output::{self, Outcome, is_read, print_line, remark};
use crate::page::{columns, has_colors, is_capable, terminal_size};
use cost::{Cost, cpu_seconds};
use find::WatchTarget;
use read::SampleReader;
pub(crate) use record::EXTENSION;
use record::Recorder;
use show::Context;
use terminal::{Events, Screen, Woken, locale_is_utf8};
use unit::{choose_unit, index_to_watch};
pub(crate) use unit::{index_of_unit, section};

/// The fraction of a CPU that computing growth and findings may take.
const COMPUTING_BUDGET: f64 = 0.002;
/// The default interval for watching, and for recording.
const DEFAULT_INTERVAL: Duration = Duration::from_secs(2);
const RECORDING_INTERVAL: Duration = Duration::from_secs(10);
/// The interval at which a long watch reads the machine and the configuration again.
const SIZING_INTERVAL: Duration = Duration::from_mins(1);
/// Seconds after which the CPU use of `watch` itself is known, without the time to start up.
const COST_KNOWN_AFTER: f64 = 10.0;

/// How samples are shown.
#[derive(Clone, Copy, PartialEq, Eq)]
enum View {
    Screen,
    Lines,
    Json,
    /// Only the advice at the end.
    Advice,
    /// Only recordings or metrics.
    Quiet,
}

/// Why the watch ended.
enum EndReason {
    /// Because of the duration, a key or a signal: the summary follows.
    Done,
    /// The watched processes have ended: the summary follows.
    Gone,
    /// The reader of stdout has closed it.
    Unread,
}

pub(crate) fn run(root: &Root, arguments: &Watch) -> Outcome {
    let hypothetical = arguments.machine.hypothetical();
    let sizing = size(&Request { hypothetical, ..Request::new(root) });
    sizing.problems.iter().for_each(|problem| remark(problem));
    let unit = choose_unit(&sizing, arguments)?;
    let is_recorded = arguments.record.is_some() || arguments.metrics.is_some();
    let named = arguments.unit.as_deref();
    let (target, note) = WatchTarget::find(&Root::machine(), arguments.pid, named, &unit, is_recorded)?;
    if let Some(note) = note {
        remark(&note);
    }
    let view = match (arguments.write_advice, arguments.json) {
        (true, _) => View::Advice,
        (_, true) => View::Json,
        _ if is_capable(&io::stdout()) && io::stdin().is_terminal() => View::Screen,
        _ if is_recorded => View::Quiet,
        _ => View::Lines,
    };
    let name = target.name();
    let recorder = match &arguments.record {
        Some(directory) => Some(Recorder::new(directory, &name, arguments.keep)?),
        None => None,
    };
    let unit = index_to_watch(&sizing, &name);
    let mut watch = Watching {
        root,
        arguments,
        unit,
        sizing,
        interval: arguments.interval.unwrap_or(if is_recorded {
            RECORDING_INTERVAL
        } else {
            DEFAULT_INTERVAL
        }),
        name,
        target,
        view,
        counts_live: root.is_machine(),
        boot_id: Root::machine().text("/proc/sys/kernel/random/boot_id").ok().map(|id| id.trim().to_owned()),
        reader: SampleReader::new()?,
        meter: Meter::default(),
        evidence: Evidence::new(arguments.evidence.as_secs_f64()),
        findings: Vec::new(),
        remarked: Vec::new(),
        compute_at: 0.0,
        size_at: Instant::now() + SIZING_INTERVAL,
        recorder,
        began: Instant::now(),
        began_unix: unix_seconds(),
        cost_since: None,
    };
    let end = watch.run()?;
    watch.finish(&end)
}

/// A watch in progress.
struct Watching<'a> {
    root: &'a Root,
    arguments: &'a Watch,
    sizing: Sizing,
    /// The index of the unit.
    unit: Option<usize>,
    interval: Duration,
    name: String,
    target: WatchTarget,
    view: View,
    /// Whether the limits of the live process apply; below another root, a machine is given instead.
    counts_live: bool,
    boot_id: Option<String>,
    reader: SampleReader,
    meter: Meter,
    evidence: Evidence,
    findings: Vec<Advice>,
    /// The texts about unknown limits that were reported last.
    remarked: Vec<String>,
    /// When growth and findings are due again, in seconds.
    compute_at: f64,
    /// When the machine is read again.
    size_at: Instant,
    recorder: Option<Recorder>,
    began: Instant,
    began_unix: f64,
    /// When the measurement of the cost began, in seconds, and the CPU time used by then.
    cost_since: Option<(f64, f64)>,
}

impl Watching<'_> {
    fn run(&mut self) -> anyhow::Result<EndReason> {
        let events = Events::new().context("cannot handle signals")?;
        let mut screen = (self.view == View::Screen).then(Screen::new);
        let last = self.began + self.arguments.duration.unwrap_or(FOR_EVER);
        let mut next = self.began;
        loop {
            // CLOCK_MONOTONIC, which is not affected by setting the wall clock.
            let at = self.began.elapsed().as_secs_f64();
            let Some(sample) = self.reader.sample(&mut self.target, at) else {
                return Ok(EndReason::Gone);
            };
            self.remark_unknown_limits();
            self.size_again();
            let bounds = Bounds { cpu: self.bound(Resource::Cpu).0, memory: self.bound(Resource::Memory).0 };
            if let Some((line, elapsed)) = self.meter.line(sample, bounds) {
                self.add(line, at, elapsed);
            }
            if self.cost_since.is_none() {
                self.cost_since = Some((at, cpu_seconds()));
            }
            self.compute(at);
            if !self.show()? {
                return Ok(EndReason::Unread);
            }
            self.record()?;
            next += self.interval;
            let now = Instant::now();
            if next < now {
                // Late (stopped, suspended, slow machine): continue from here rather than catch up.
                next = now + self.interval;
            }
            if next > last {
                return Ok(EndReason::Done);
            }
            loop {
                match events.wait(next, screen.as_mut())? {
                    Woken::End => return Ok(EndReason::Done),
                    Woken::Redraw if self.view == View::Screen => {
                        self.show()?;
                    }
                    Woken::Time if Instant::now() >= next => break,
                    Woken::Time | Woken::Redraw => {}
                }
            }
        }
    }

    /// Completes the line and adds it to the evidence.
    fn add(&mut self, mut line: Line, at: f64, elapsed: f64) {
        // Reading all processes takes time, and a watch that begins right after this one must not seem to overlap it.
        let age = (self.began.elapsed().as_secs_f64() - at).max(0.0);
        line.unix_seconds = Some(rounded(unix_seconds() - age, 3));
        line.boot_id.clone_from(&self.boot_id);
        line.service.clone_from(&self.name);
        line.memory_limit_source = self.bound(Resource::Memory).1;
        line.limit_max_requests = self.reader.limit_max_requests.map(u64::from);
        line.cost_percent = self.cost(at).map(|cost| rounded(cost, 2));
        for process in &mut line.processes {
            let known = self.evidence.workers.iter().find(|life| life.is(process));
            process.growth_per_hour = known.and_then(|life| life.growth.as_ref()).map(per_hour);
        }
        self.evidence.take(line, at, elapsed);
    }

    /// The CPU time used by `watch`, in percent of one CPU, once it is known.
    fn cost(&self, at: f64) -> Option<f64> {
        let (since, used) = self.cost_since?;
        (at - since >= COST_KNOWN_AFTER).then(|| (cpu_seconds() - used) * 100.0 / (at - since))
    }

    /// Computes growth and findings, as often as their cost permits.
    fn compute(&mut self, at: f64) {
        let is_shown = self.arguments.metrics.is_some() || !matches!(self.view, View::Quiet | View::Advice);
        if at < self.compute_at || !is_shown {
            return;
        }
        let mut cost = Cost::default();
        cost.measure(|| {
            self.evidence.compute_growth();
            self.findings = findings(&self.evidence, self.setup().as_ref(), None);
        });
        self.compute_at = at + cost.seconds() / COMPUTING_BUDGET;
    }

    /// During a watch of several days, the machine may be resized and its configuration changed.
    fn size_again(&mut self) {
        if Instant::now() < self.size_at {
            return;
        }
        let hypothetical = self.arguments.machine.hypothetical();
        self.sizing = size(&Request { hypothetical, ..Request::new(self.root) });
        self.unit = index_to_watch(&self.sizing, &self.name);
        self.size_at = Instant::now() + SIZING_INTERVAL;
    }

    fn sized(&self) -> Option<&SizedUnit> {
        self.sizing.units.get(self.unit?)
    }

    /// Appends the line to the recording and to the metrics.
    fn record(&mut self) -> anyhow::Result<()> {
        let line = self.evidence.last();
        if let Some(recorder) = &mut self.recorder {
            recorder.append(line)?;
        }
        if let Some(path) = &self.arguments.metrics {
            metrics::write(path, &self.evidence, self.sized().map(|unit| unit.profile))?;
        }
        Ok(())
    }

    /// The amount of a resource that the service may use (0: unknown), and its source: the sized limit, or a tighter
    /// limit of the live process.
    fn bound(&self, resource: Resource) -> (u64, String) {
        let hypothetical = self.arguments.machine.hypothetical();
        let (sized, stated) = match resource {
            Resource::Cpu => (self.sized().map(|unit| unit.capacity.cpu), hypothetical.cpu.is_some()),
            Resource::Memory => {
                (self.sized().map(|unit| unit.capacity.memory), hypothetical.memory.is_some())
            }
        };
        let sized = sized.filter(|available| available.amount > 0);
        let live = self.reader.cgroups.tightest(resource).filter(|_| self.counts_live && !stated);
        match (sized, live) {
            (Some(sized), Some((amount, source))) if amount < sized.amount => (amount, source.to_string()),
            (None, Some((amount, source))) => (amount, source.to_string()),
            (Some(sized), _) => {
                let limit = self.sized().zip(sized.binding).and_then(|(unit, index)| unit.limits.get(index));
                (sized.amount, limit.map_or_else(|| "unknown".to_owned(), |limit| limit.source.to_string()))
            }
            (None, None) => (0, "unknown".to_owned()),
        }
    }

    /// Texts about the limits of the live process that are unknown.
    fn unknown_limits(&self) -> &[String] {
        if self.counts_live { &self.reader.cgroups.unknown_limits } else { &[] }
    }

    /// Reports limits that are unknown, when that changes. The screen shows them.
    fn remark_unknown_limits(&mut self) {
        if self.view != View::Screen && self.remarked != self.unknown_limits() {
            self.remarked = self.unknown_limits().to_vec();
            self.remarked.iter().for_each(|text| remark(text));
        }
    }

    fn setup(&self) -> Option<PresentSizing> {
        self.sized().map(|unit| PresentSizing {
            cpus: (self.bound(Resource::Cpu).0 / 1000).max(1),
            memory: self.bound(Resource::Memory).0,
            settings: unit.config.policy_settings(),
            limit_max_requests: self.reader.limit_max_requests,
        })
    }

    fn context(&self, colors: bool) -> Context<'_> {
        Context {
            interval: self.interval.as_secs_f64(),
            findings: &self.findings,
            unknown_limits: self.unknown_limits(),
            no_shares: self.reader.no_shares.as_ref().map(ToString::to_string),
            cost: self.cost(self.began.elapsed().as_secs_f64()),
            ascii_only: !locale_is_utf8(),
            colors,
        }
    }

    fn summary(&self, colors: bool) -> String {
        show::summary(&self.evidence, &self.context(colors), columns())
    }

    /// Prints the sample, and returns whether the output is still being read.
    fn show(&self) -> anyhow::Result<bool> {
        match self.view {
            View::Advice | View::Quiet => Ok(true),
            View::Screen => {
                let (columns, rows) = terminal_size();
                let context = self.context(has_colors(&io::stdout()));
                is_read(Screen::draw(&show::screen(&self.evidence, &context, columns, rows)))
            }
            View::Lines => print_line(&show::line(&self.evidence)),
            View::Json => print_line(&self.evidence.last().to_json()),
        }
    }

    fn finish(&mut self, end: &EndReason) -> Outcome {
        if matches!(end, EndReason::Unread) {
            return Ok(ExitCode::SUCCESS);
        }
        if matches!(end, EndReason::Gone) {
            remark(&format!("{} has ended", self.name));
        }
        if let Some(path) = &self.arguments.metrics {
            metrics::remove(path);
        }
        self.findings = findings(&self.evidence, self.setup().as_ref(), None);
        match self.view {
            View::Json => {
                let cost = self.cost(self.began.elapsed().as_secs_f64());
                print_line(&json::summary(&self.evidence, &self.findings, self.began_unix, cost))?;
            }
            View::Advice => {
                // On stdout, the drop-in is the answer; this only accompanies it.
                let _ = io::stderr().write_all(self.summary(has_colors(&io::stderr())).as_bytes());
                let section = section(&self.sizing, self.sized());
                let head = format!(
                    "From `pypnm-sizing watch`: {}, {}.\nReview it, keep what you agree with, then run: pypnm-sizing apply",
                    self.name,
                    duration(self.evidence.watched())
                );
                return output::answer(&drop_in(&self.findings, &section, &head));
            }
            View::Screen | View::Lines => {
                return output::answer_painted(&self.summary(has_colors(&io::stdout())));
            }
            View::Quiet => {}
        }
        Ok(ExitCode::SUCCESS)
    }
}

/// The wall-clock time.
fn unix_seconds() -> f64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0.0, |since| since.as_secs_f64())
}
