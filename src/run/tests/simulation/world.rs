//! What the workers of a history share: one store, one generator, one turn, one trace.
//!
//! Only the worker whose turn it is continues; all others wait at the door of their stores. So a history has one order of
//! events, whatever threads the library uses, and that order follows from the seed. Time is virtual, too: a worker that
//! sleeps keeps its turn.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    thread::ThreadId,
};

use futures::FutureExt;
use object_store::{
    GetOptions, GetResult, ListResult, ObjectStore, PutMode, PutOptions, PutPayload, PutResult, Result,
    memory::InMemory, path::Path,
};
use tokio::sync::oneshot;

use super::{
    check::Checker,
    counts::Counts,
    disk::{Disk, Writer},
    fault::{Fault, Kind},
    model::GENERATIONS,
};
use crate::identity::Digest;

/// The most calls by which an effect is delayed.
const MAX_DELAY: u64 = 40;
/// Lines of the trace that are shown of a history that failed.
const MAX_SHOWN: usize = 80;
/// Milliseconds of this world that a call takes.
const CALL_MS: i64 = 100;

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
    /// The same one, except that the first worker that reaches this object lets the others come to their end first.
    Late(String),
    /// The same one, except that the first worker that reaches this object waits until another one has reached it too, and
    /// then does one call before that one goes on.
    Overtaken(String),
}

/// The kind of world.
#[derive(Debug, Clone)]
pub(super) struct Nature {
    pub(super) seed: u64,
    pub(super) rates: Rates,
    pub(super) turns: Turns,
    /// Whether the store is a disk, and not a cloud.
    pub(super) is_disk: bool,
    /// The number of the call at which the power of a disk is lost.
    pub(super) power_lost: Option<u64>,
}

/// The shared state.
#[derive(Debug)]
pub(super) struct World {
    nature: Nature,
    pub(super) is_disk: bool,
    /// The thread of the runtime. Calls of the library on other threads keep the turn.
    thread: ThreadId,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
pub(super) struct State {
    draws: u64,
    trace: Vec<String>,
    /// Workers that are not done.
    present: BTreeSet<usize>,
    waiting: BTreeMap<usize, oneshot::Sender<()>>,
    /// The workers that reached the object of [`Turns`], in their order.
    met: Vec<usize>,
    late: Vec<Late>,
    ordered: Option<(String, Fault)>,
    generation: u64,
    /// The time in milliseconds.
    now: i64,
    losses: u64,
    deleted: BTreeSet<Path>,
    /// Files that runs have put and not committed.
    uncommitted: BTreeMap<Writer, BTreeSet<Path>>,
    pub(super) disk: Disk,
    counts: Counts,
    pub(super) checker: Checker,
}

/// A put that its sender gave up and that is still in flight.
#[derive(Debug)]
struct Late {
    calls: u64,
    path: Path,
    payload: PutPayload,
    options: PutOptions,
    by: Writer,
}

impl World {
    pub(super) fn new(nature: Nature) -> Arc<Self> {
        let is_disk = nature.is_disk;
        let state = State { disk: Disk::new(is_disk), ..State::default() };
        Arc::new(Self { nature, is_disk, thread: std::thread::current().id(), state: Mutex::new(state) })
    }

    /// Orders one fault for the first suitable call that writes an object with `part` in its path.
    pub(super) fn order(&self, part: &str, fault: Fault) {
        self.state().ordered = Some((part.to_owned(), fault));
    }

    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn seed(&self) -> u64 {
        self.nature.seed
    }

    /// Draws from `0..n`.
    pub(super) fn draw(&self, n: u64) -> u64 {
        self.state().draw(self.nature.seed, n)
    }

    /// Draws the fault of a call for `object`.
    pub(super) fn fault(&self, object: &str, kind: Kind) -> Option<Fault> {
        let candidates = kind.faults(self.is_disk);
        let mut state = self.state();
        candidates.iter().for_each(|&fault| state.counts.could(fault));
        let fits = |(part, fault): &mut (String, Fault)| {
            !kind.is_read() && object.contains(part.as_str()) && candidates.contains(fault)
        };
        let rate = if kind.is_read() { self.nature.rates.reads } else { self.nature.rates.writes };
        let ordered = state.ordered.take_if(fits);
        let fault = match ordered {
            Some((_, fault)) => Some(fault),
            None if state.draw(self.nature.seed, 10_000) >= rate => None,
            None => {
                let chosen = state.draw(self.nature.seed, candidates.len() as u64);
                candidates.get(usize::try_from(chosen).unwrap()).copied()
            }
        };
        fault.inspect(|&fault| state.counts.had(fault))
    }

    /// Adds a line to the trace.
    pub(super) fn note(&self, line: String) {
        self.state().trace.push(line);
    }

    /// Returns the generation that the user requests now.
    pub(super) fn generation(&self) -> u64 {
        self.state().generation
    }

    /// Lets the user request another generation, which may be one of before.
    pub(super) fn edit(&self) {
        let mut state = self.state();
        state.generation = (state.generation + 1 + state.draw(self.nature.seed, GENERATIONS - 1)) % GENERATIONS;
        state.counts.edits += 1;
        let line = format!("the user requests generation {}", state.generation);
        state.trace.push(line);
    }

    pub(super) fn count(&self, count: impl FnOnce(&mut Counts)) {
        count(&mut self.state().counts);
    }

    pub(super) fn check(&self, check: impl FnOnce(&mut Checker, &Disk)) {
        let mut state = self.state();
        let State { checker, disk, .. } = &mut *state;
        check(checker, disk);
    }

    /// Notes what a run has told its user. From then on a loss of power must not take it.
    pub(super) fn told(&self, by: Writer, step: &str, skipped: Option<bool>) {
        let mut state = self.state();
        let State { checker, disk, .. } = &mut *state;
        let loose = disk.unsynced(by);
        checker.claim(loose.is_none(), || format!("`{step}` is said to be written, and {loose:?} is not synced"));
        if disk.is_synced() {
            checker.promise(step);
        }
        if skipped == Some(false) {
            checker.completed(step);
        }
    }

    pub(super) fn put(&self, path: &Path, payload: PutPayload, options: PutOptions, by: Writer) -> Result<PutResult> {
        let mut state = self.state();
        let now = state.now;
        let put = state.disk.put(path, payload, options, by, now);
        state.uncommitted.entry(by).or_default().insert(path.clone());
        state.wrote(path, by, put.is_ok());
        put
    }

    pub(super) fn rename(&self, from: &Path, to: &Path, mode: PutMode, by: Writer) -> Result<()> {
        let mut state = self.state();
        let renamed = state.disk.rename(from, to, mode, by);
        if renamed.is_ok() {
            state.deleted.insert(from.clone());
        }
        state.wrote(to, by, renamed.is_ok());
        renamed
    }

    pub(super) fn delete(&self, path: &Path, by: Writer) -> Result<()> {
        let mut state = self.state();
        let age = state.age(path);
        let State { checker, disk, .. } = &mut *state;
        if disk.read(path).is_some() {
            checker.deletes(path, age);
        }
        disk.delete(path, by);
        state.deleted.insert(path.clone());
        state.counts.deleted += 1;
        Ok(())
    }

    pub(super) fn sync_bytes(&self, path: &Path) -> Result<()> {
        self.state().disk.sync_bytes(path);
        Ok(())
    }

    pub(super) fn sync_names(&self) -> Result<()> {
        self.state().disk.sync_names();
        Ok(())
    }

    pub(super) fn with_objects<T>(&self, read: impl FnOnce(&InMemory) -> T) -> T {
        read(self.state().disk.objects())
    }

    pub(super) fn get(&self, path: &Path, options: GetOptions) -> Result<GetResult> {
        self.with_objects(|objects| objects.get_opts(path, options).now_or_never().expect("memory never waits"))
    }

    pub(super) fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.with_objects(|objects| objects.list_with_delimiter(prefix).now_or_never().expect("memory never waits"))
    }

    /// Returns the age of an object in milliseconds.
    pub(super) fn age(&self, path: &Path) -> u64 {
        self.state().age(path)
    }

    pub(super) fn was_deleted(&self, path: &Path) -> bool {
        self.state().deleted.contains(path)
    }

    /// Returns how often power was lost.
    pub(super) fn losses(&self) -> u64 {
        self.state().losses
    }

    /// Lets a day pass. What runs in progress have put stays young, because they take a moment to commit it.
    pub(super) fn pass_a_day(&self) {
        let mut state = self.state();
        state.now += 24 * 3600 * 1000;
        let State { disk, uncommitted, now, .. } = &mut *state;
        uncommitted.values().flatten().for_each(|path| disk.renew(path, *now));
        state.trace.push("a day passes".to_owned());
    }

    /// Notes that a run has ended.
    pub(super) fn ended(&self, by: Writer) {
        self.state().uncommitted.remove(&by);
    }

    /// Leaves a put in flight.
    pub(super) fn put_late(&self, path: &Path, payload: PutPayload, options: PutOptions, by: Writer) {
        let mut state = self.state();
        let calls = 1 + state.draw(self.nature.seed, MAX_DELAY);
        state.late.push(Late { calls, path: path.clone(), payload, options, by });
    }

    /// Counts a call, which brings delayed puts nearer, and the loss of power.
    pub(super) fn tick(&self) {
        let mut state = self.state();
        state.counts.calls += 1;
        state.now += CALL_MS;
        if self.nature.power_lost == Some(state.counts.calls) && !state.present.is_empty() {
            state.lose_power(self.nature.seed);
        }
        state.late.iter_mut().for_each(|late| late.calls = late.calls.saturating_sub(1));
        drop(state);
        self.arrive(0);
    }

    /// Performs the delayed puts with at most `calls` left.
    pub(super) fn arrive(&self, calls: u64) {
        let arrived: Vec<Late> = self.state().late.extract_if(.., |late| late.calls <= calls).collect();
        for late in arrived {
            let put = self.put(&late.path, late.payload, late.options, late.by);
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
        state.pass_on(self.nature.seed);
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
        let next = match &self.nature.turns {
            Turns::Drawn if state.draw(self.nature.seed, 2) == 0 => worker,
            Turns::Drawn => state.anybody(self.nature.seed)?,
            Turns::Meeting(place)
                if !place.is_empty() && object.ends_with(place.as_str()) && !state.met.contains(&worker) =>
            {
                state.met.push(worker);
                state.waiting.keys().next().copied().unwrap_or(worker)
            }
            Turns::Late(place) if object.ends_with(place.as_str()) && state.met.is_empty() => {
                state.met.push(worker);
                state.waiting.keys().next().copied().unwrap_or(worker)
            }
            Turns::Overtaken(place)
                if object.ends_with(place.as_str()) && state.met.len() < 2 && !state.met.contains(&worker) =>
            {
                state.met.push(worker);
                state.waiting.keys().next().copied().unwrap_or(worker)
            }
            Turns::Overtaken(_) if state.met.len() == 2 && state.met[0] == worker => {
                let second = state.met[1];
                // Once they have met, nobody waits for anybody.
                state.met.push(worker);
                if state.waiting.contains_key(&second) { second } else { worker }
            }
            Turns::Meeting(_) | Turns::Late(_) | Turns::Overtaken(_) => worker,
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

    fn age(&self, path: &Path) -> u64 {
        let written = self.disk.written(path).unwrap_or(self.now);
        u64::try_from(self.now - written).unwrap()
    }

    /// Notes that an object was written, or refused, and checks it if it is a commit.
    fn wrote(&mut self, path: &Path, by: Writer, done: bool) {
        let name = path.filename().unwrap_or_default();
        if name.contains('#') {
            return;
        }
        let is_entry = name.ends_with(".json");
        if is_entry && !done {
            self.counts.conflicts += 1;
        }
        if !done {
            return;
        }
        self.deleted.remove(path);
        let (is_log, is_checkpoint) = (path.as_ref().contains("_delta_log"), name.contains(".checkpoint."));
        self.counts.commits += u64::from(is_entry);
        self.counts.checkpoints += u64::from(is_checkpoint);
        if is_entry {
            self.uncommitted.remove(&by);
        } else if !is_log {
            self.counts.data_files += 1;
            self.uncommitted.entry(by).or_default().insert(path.clone());
        }
        let before = self.checker.violations.len();
        self.checker.saw(&self.disk, path);
        let found = self.checker.violations[before..].iter().map(|what| format!("VIOLATION {what}"));
        self.trace.extend(found);
    }

    fn lose_power(&mut self, seed: u64) {
        self.losses += 1;
        self.counts.losses += 1;
        self.late.clear();
        self.uncommitted.clear();
        let mut disk = std::mem::take(&mut self.disk);
        disk.lose_power(|n| self.draw(seed, n));
        self.disk = disk;
        self.trace.push("the power is lost".to_owned());
        self.checker = std::mem::take(&mut self.checker).after_power_loss(&self.disk);
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
        state.pass_on(self.world.nature.seed);
    }
}
