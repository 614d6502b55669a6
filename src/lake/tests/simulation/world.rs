//! What the workers of a history share: one store, one generator, one turn, one trace.
//!
//! Only the worker whose turn it is continues; all others wait at the door of their stores. So a history has one order of
//! events, whatever threads the library uses, and that order follows from the seed.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    thread::ThreadId,
};

use futures::FutureExt;
use object_store::{ObjectStore, PutOptions, PutPayload, PutResult, Result, memory::InMemory, path::Path};
use tokio::sync::oneshot;

use super::{check::Checker, counts::Counts, fault::Fault};
use crate::identity::Digest;

/// The most calls by which an effect is delayed.
const MAX_DELAY: u64 = 40;
/// Lines of the trace that are shown of a history that failed.
const MAX_SHOWN: usize = 60;

/// How many of 10,000 calls fail.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Rates {
    pub(super) reads: u64,
    pub(super) writes: u64,
}

/// Which worker continues when one is at the door.
#[derive(Debug, Clone)]
pub(super) enum Turns {
    /// A random one.
    Drawn,
    /// The same one, except that a worker that reaches this object for the first time lets all others go first.
    Meeting(String),
}

/// The shared state.
#[derive(Debug)]
pub(super) struct World {
    seed: u64,
    pub(super) rates: Rates,
    turns: Turns,
    /// The store below all faults.
    pub(super) bare: Arc<InMemory>,
    /// The thread of the runtime. Calls of the library on other threads keep the turn.
    thread: ThreadId,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    draws: u64,
    trace: Vec<String>,
    /// Workers that are not done.
    present: BTreeSet<usize>,
    waiting: BTreeMap<usize, oneshot::Sender<()>>,
    met: BTreeSet<usize>,
    late: Vec<Late>,
    ordered: Option<(String, Fault)>,
    generation: u64,
    counts: Counts,
    checker: Checker,
}

/// A put that its sender gave up and that is still in flight.
#[derive(Debug)]
struct Late {
    calls: u64,
    path: Path,
    payload: PutPayload,
    options: PutOptions,
}

impl World {
    pub(super) fn new(seed: u64, rates: Rates, turns: Turns) -> Arc<Self> {
        Arc::new(Self {
            seed,
            rates,
            turns,
            bare: Arc::default(),
            thread: std::thread::current().id(),
            state: Mutex::default(),
        })
    }

    /// Orders one fault for the first suitable call that writes an object with `part` in its path.
    pub(super) fn order(&self, part: &str, fault: Fault) {
        self.state().ordered = Some((part.to_owned(), fault));
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Draws from `0..n`.
    pub(super) fn draw(&self, n: u64) -> u64 {
        self.state().draw(self.seed, n)
    }

    /// Draws the fault of a call for `object` from those that fit it.
    pub(super) fn fault(&self, object: &str, candidates: &[Fault], rate: u64) -> Option<Fault> {
        let mut state = self.state();
        candidates.iter().for_each(|&fault| state.counts.could(fault));
        let writes = candidates.contains(&Fault::CrashAfter);
        let fits = |(part, fault): &mut (String, Fault)| {
            writes && object.contains(part.as_str()) && candidates.contains(fault)
        };
        let ordered = state.ordered.take_if(fits);
        let fault = match ordered {
            Some((_, fault)) => Some(fault),
            None if state.draw(self.seed, 10_000) >= rate => None,
            None => {
                let chosen = state.draw(self.seed, candidates.len() as u64);
                candidates.get(usize::try_from(chosen).unwrap()).copied()
            }
        };
        fault.inspect(|&fault| state.counts.had(fault))
    }

    /// Adds a line to the trace.
    pub(super) fn note(&self, line: String) {
        self.state().trace.push(line);
    }

    /// Returns the time of this world, which counts its events.
    pub(super) fn now(&self) -> i64 {
        i64::try_from(self.state().trace.len()).unwrap()
    }

    /// Returns the generation that the user requests now.
    pub(super) fn generation(&self) -> u64 {
        self.state().generation
    }

    /// Lets the user request the next generation.
    pub(super) fn edit(&self) {
        let mut state = self.state();
        state.generation += 1;
        state.counts.edits += 1;
    }

    pub(super) fn count(&self, count: impl FnOnce(&mut Counts)) {
        count(&mut self.state().counts);
    }

    pub(super) fn check(&self, check: impl FnOnce(&mut Checker, &InMemory)) {
        check(&mut self.state().checker, &self.bare);
    }

    /// Performs a put, and checks it if it is a commit.
    pub(super) fn put(&self, path: &Path, payload: PutPayload, options: PutOptions) -> Result<PutResult> {
        let put = self.bare.put_opts(path, payload, options).now_or_never().expect("memory never waits");
        let mut state = self.state();
        let State { checker, counts, .. } = &mut *state;
        if path.as_ref().ends_with(".json") {
            match &put {
                Ok(_) => counts.commits += 1,
                Err(_) => counts.conflicts += 1,
            }
        }
        if put.is_ok() {
            counts.checkpoints += u64::from(path.as_ref().contains(".checkpoint."));
            counts.data_files += u64::from(path.as_ref().contains("-") && !path.as_ref().contains("_delta_log"));
            checker.saw(&self.bare, path);
        }
        put
    }

    /// Leaves a put in flight.
    pub(super) fn put_late(&self, path: &Path, payload: PutPayload, options: PutOptions) {
        let mut state = self.state();
        let calls = 1 + state.draw(self.seed, MAX_DELAY);
        state.late.push(Late { calls, path: path.clone(), payload, options });
    }

    /// Counts a call, which brings delayed puts nearer.
    pub(super) fn tick(&self) {
        self.state().late.iter_mut().for_each(|late| late.calls = late.calls.saturating_sub(1));
        self.arrive(0);
    }

    /// Performs the delayed puts with at most `calls` left.
    pub(super) fn arrive(&self, calls: u64) {
        let arrived: Vec<Late> = self.state().late.extract_if(.., |late| late.calls <= calls).collect();
        for late in arrived {
            let put = self.put(&late.path, late.payload, late.options);
            self.note(format!("late put {}: {}", late.path, if put.is_ok() { "done" } else { "rejected" }));
        }
    }

    /// Adds a worker.
    pub(super) fn enter(self: &Arc<Self>, worker: usize) -> (Presence, oneshot::Receiver<()>) {
        let mut state = self.state();
        let (sender, receiver) = oneshot::channel();
        state.present.insert(worker);
        state.waiting.insert(worker, sender);
        (Presence { world: Arc::clone(self), worker }, receiver)
    }

    /// Lets one of the waiting workers continue.
    pub(super) fn begin(&self) {
        let mut state = self.state();
        state.pass_on(self.seed);
    }

    /// Passes the door, at which another worker can get its turn.
    pub(super) async fn pass(&self, worker: usize, object: &str) {
        if std::thread::current().id() != self.thread {
            return;
        }
        let turn = self.let_go(worker, object);
        if let Some(turn) = turn {
            turn.await.ok();
        }
    }

    fn let_go(&self, worker: usize, object: &str) -> Option<oneshot::Receiver<()>> {
        let mut state = self.state();
        if !state.present.contains(&worker) {
            return None;
        }
        let next = match &self.turns {
            Turns::Drawn if state.draw(self.seed, 2) == 0 => worker,
            Turns::Drawn => state.anybody(self.seed)?,
            Turns::Meeting(place)
                if !place.is_empty() && object.ends_with(place.as_str()) && state.met.insert(worker) =>
            {
                state.waiting.keys().next().copied().unwrap_or(worker)
            }
            Turns::Meeting(_) => worker,
        };
        if next == worker {
            return None;
        }
        let (sender, receiver) = oneshot::channel();
        state.waiting.insert(worker, sender);
        state.wake(next);
        Some(receiver)
    }

    /// Returns the violations so far.
    pub(super) fn violations(&self) -> Vec<String> {
        self.state().checker.violations.clone()
    }

    /// Returns all events in their order.
    pub(super) fn trace(&self) -> String {
        self.state().trace.join("\n")
    }

    /// Returns the last events.
    pub(super) fn last(&self) -> String {
        let state = self.state();
        let skipped = state.trace.len().saturating_sub(MAX_SHOWN);
        state.trace[skipped..].iter().fold(String::new(), |mut text, line| {
            writeln!(text, "  {line}").unwrap();
            text
        })
    }

    pub(super) fn counts(&self) -> Counts {
        self.state().counts.clone()
    }
}

impl State {
    fn draw(&mut self, seed: u64, n: u64) -> u64 {
        self.draws += 1;
        Digest::new("simulation").part(&seed.to_le_bytes()).part(&self.draws.to_le_bytes()).draw(n)
    }

    fn anybody(&mut self, seed: u64) -> Option<usize> {
        let chosen = self.draw(seed, self.present.len().max(1) as u64);
        self.present.iter().nth(usize::try_from(chosen).unwrap()).copied()
    }

    fn pass_on(&mut self, seed: u64) {
        if let Some(next) = self.anybody(seed) {
            self.wake(next);
        }
    }

    fn wake(&mut self, worker: usize) {
        let woken = self.waiting.remove(&worker).is_some_and(|waiting| waiting.send(()).is_ok());
        if !woken {
            self.checker.violations.push(format!("worker {worker} is not waiting for its turn"));
        }
    }
}

/// A worker that is present until this is dropped. Then another one gets its turn.
pub(super) struct Presence {
    world: Arc<World>,
    worker: usize,
}

impl Drop for Presence {
    fn drop(&mut self) {
        let mut state = self.world.state();
        state.present.remove(&self.worker);
        state.pass_on(self.world.seed);
    }
}
