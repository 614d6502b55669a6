//! The progress of a run on stderr: a bar on a terminal, otherwise a line every 30 seconds.

use std::{
    borrow::Cow,
    collections::BTreeMap,
    fmt::Write,
    io::IsTerminal,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use indicatif::{ProgressBar, ProgressState, ProgressStyle};

use super::output;
use crate::run::{Outcome, Progress};

/// How often a line is printed without a terminal.
pub(super) const LINE_EVERY: Duration = Duration::from_secs(30);
/// A bar with its rate and the time that is left.
const BAR: &str = "{msg} {wide_bar} {pos}/{len} rows, {rate}/s, {eta} left";

#[derive(Debug)]
pub(super) struct Bars {
    terminal: bool,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    bar: Option<ProgressBar>,
    /// The step, with its round if it is not the first.
    label: String,
    rows: usize,
    total: usize,
    started: Option<Instant>,
    printed: Option<Instant>,
    /// How often each step has started: one whose scores are too low starts again for its next attempts.
    rounds: BTreeMap<String, usize>,
}

impl Bars {
    pub(super) fn new() -> Self {
        Self { terminal: std::io::stderr().is_terminal(), state: Mutex::default() }
    }

    fn with(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner));
    }
}

impl State {
    /// Whether it is time for a line; if so, the next one is due later.
    fn is_due(&mut self) -> bool {
        let due = self.printed.is_none_or(|printed| printed.elapsed() >= LINE_EVERY);
        if due {
            self.printed = Some(Instant::now());
        }
        due
    }

    fn line(&self) -> String {
        let Self { label, rows, total, .. } = self;
        let seconds = self.started.map_or(0.0, |started| started.elapsed().as_secs_f64());
        let rate = *rows as f64 / seconds.max(1e-3);
        let left = total.saturating_sub(*rows) as f64 / rate.max(1e-9);
        format!("{label}: {rows} of {total} rows, {rate:.1}/s, {} left", output::duration(left))
    }
}

impl Progress for Bars {
    fn device(&self, chosen: &str) {
        output::note(format!("device: {chosen}"));
    }

    fn started(&self, step: &str, rows: usize) {
        self.with(|state| {
            let mut rounds = std::mem::take(&mut state.rounds);
            let round = rounds.entry(step.to_owned()).or_insert(0);
            // A round without rows only finds that there is nothing to do.
            *round += usize::from(rows > 0);
            let label = if *round > 1 { format!("{step} (round {round})") } else { step.to_owned() };
            let now = Some(Instant::now());
            *state = State { label, total: rows, started: now, printed: now, rounds, ..State::default() };
            if self.terminal && rows > 0 {
                let bar = ProgressBar::new(rows as u64);
                let style = ProgressStyle::with_template(BAR).unwrap_or_else(|_| ProgressStyle::default_bar());
                bar.set_style(style.with_key("rate", |state: &ProgressState, text: &mut dyn Write| {
                    // A formatter has nowhere to report an error.
                    let _ = write!(text, "{:.1}", state.per_sec());
                }));
                bar.set_message(state.label.clone());
                state.bar = Some(bar);
            }
        });
    }

    fn waiting(&self, step: &str, rows: usize) {
        self.with(|state| {
            if state.is_due() {
                output::note(format!("{step}: waiting for other workers: {} missing", output::count(rows, "row")));
            }
        });
    }

    fn advanced(&self, _: &str, rows: usize) {
        self.with(|state| {
            state.rows += rows;
            if let Some(bar) = &state.bar {
                bar.set_position(state.rows as u64);
            } else if state.is_due() {
                output::note(state.line());
            }
            if state.rows >= state.total
                && let Some(bar) = state.bar.take()
            {
                bar.finish_and_clear();
            }
        });
    }

    fn ended(&self, outcome: &Outcome) {
        let Outcome { step, skipped, reason, rows, rejects, seconds, .. } = outcome;
        if *skipped {
            output::note(format!("{step}: skipped, {reason}"));
            return;
        }
        let rejects = if *rejects > 0 { format!(" and {}", output::count(*rejects, "reject")) } else { String::new() };
        let rows = output::count(*rows, "row");
        let why = past_reason(reason).map_or(String::new(), |why| format!(", because {why}"));
        output::note(format!("{step}: {rows}{rejects} in {seconds:.1} s{why}"));
    }
}

/// Why a step had to run, now that it has; nothing if it was its first run.
fn past_reason(reason: &str) -> Option<Cow<'_, str>> {
    match reason {
        "it has never run" => None,
        "it is incomplete" => Some("it was incomplete".into()),
        _ => Some(match reason.strip_prefix("changed: ") {
            Some(changes) => format!("of changes: {changes}").into(),
            None => reason.into(),
        }),
    }
}
