//! Measures the time during which at least one of several models runs.

use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

/// The union of the times during which models ran: two that run in parallel for a second count as one second.
#[derive(Debug, Default)]
pub(crate) struct Busy(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    running: usize,
    since: Option<Instant>,
    before: Duration,
}

impl Busy {
    /// Runs a model and measures the time.
    pub(crate) fn during<T>(&self, run: impl FnOnce() -> T) -> T {
        self.change(1);
        let result = run();
        self.change(-1);
        result
    }

    /// Returns the time so far.
    pub(crate) fn total(&self) -> Duration {
        self.state().total()
    }

    fn change(&self, by: isize) {
        let mut state = self.state();
        state.before = state.total();
        state.running = state.running.saturating_add_signed(by);
        state.since = (state.running > 0).then(Instant::now);
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn total(&self) -> Duration {
        self.before + self.since.map_or(Duration::ZERO, |since| since.elapsed())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn models_that_run_in_parallel_count_once() {
        let busy = Busy::default();
        let nap = || busy.during(|| std::thread::sleep(Duration::from_millis(50)));
        let began = Instant::now();
        std::thread::scope(|scope| [scope.spawn(nap), scope.spawn(nap)].map(|running| running.join().unwrap()));
        let (wall, total) = (began.elapsed(), busy.total());
        assert!(total >= Duration::from_millis(50) && total <= wall, "{total:?} of {wall:?}");
        std::thread::sleep(Duration::from_millis(5));
        assert_eq!(busy.total(), total, "nothing runs");
    }
}
