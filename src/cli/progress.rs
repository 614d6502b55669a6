//! How far a run is: a bar on a terminal, a line every half minute elsewhere, all on stderr.

use std::{
    io::IsTerminal,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use indicatif::{ProgressBar, ProgressStyle};

use super::output;
use crate::run::{Outcome, Progress};

const LINE_EVERY: Duration = Duration::from_secs(30);

pub(super) struct Bars {
    terminal: bool,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    bar: Option<ProgressBar>,
    rows: usize,
    wanted: usize,
    said: Option<Instant>,
}

impl Bars {
    pub(super) fn new() -> Self {
        Self { terminal: std::io::stderr().is_terminal(), state: Mutex::default() }
    }

    fn with(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner));
    }
}

impl Progress for Bars {
    fn device(&self, chosen: &str) {
        output::note(format!("device: {chosen}"));
    }

    fn started(&self, step: &str, rows: usize) {
        self.with(|state| {
            *state = State { wanted: rows, said: Some(Instant::now()), ..State::default() };
            if self.terminal && rows > 0 {
                let bar = ProgressBar::new(rows as u64);
                let style = ProgressStyle::with_template("{msg:12} {wide_bar} {pos}/{len} {per_sec} {eta}");
                bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
                bar.set_message(step.to_owned());
                state.bar = Some(bar);
            }
        });
    }

    fn waiting(&self, step: &str, rows: usize) {
        self.with(|state| {
            if state.said.is_none_or(|said| said.elapsed() >= LINE_EVERY) {
                state.said = Some(Instant::now());
                output::note(format!("{step}: waiting for {rows} rows of other workers"));
            }
        });
    }

    fn advanced(&self, step: &str, rows: usize) {
        self.with(|state| {
            state.rows += rows;
            match &state.bar {
                Some(bar) => bar.set_position(state.rows as u64),
                None if state.said.is_none_or(|said| said.elapsed() >= LINE_EVERY) => {
                    state.said = Some(Instant::now());
                    output::note(format!("{step}: {} of {} rows", state.rows, state.wanted));
                }
                None => {}
            }
            if state.rows >= state.wanted
                && let Some(bar) = state.bar.take()
            {
                bar.finish_and_clear();
            }
        });
    }

    fn ended(&self, outcome: &Outcome) {
        let Outcome { step, skipped, reason, rows, rejects, seconds } = outcome;
        if *skipped {
            output::note(format!("{step}: skipped, {reason}"));
        } else {
            let rejects = if *rejects > 0 { format!(", {rejects} rejects") } else { String::new() };
            output::note(format!("{step}: {rows} rows{rejects} in {seconds:.1} s; {reason}"));
        }
    }
}
