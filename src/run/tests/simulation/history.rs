//! A history: workers on one lake, their faults and restarts, what else happens to the lake, and the final state.

use std::{sync::Arc, time::Duration};

use futures::future::{FutureExt, LocalBoxFuture, join_all};

use super::{
    counts::Counts,
    engine::Engine,
    model,
    pipeline::{Opened, is_by_others},
    store::FaultyStore,
    strangers::interfere,
    world::{Nature, Rates, Turns, World},
};
use crate::{
    error::{Result, chain},
    identity::Digest,
    run::Shard,
    storage::simulated::{self, Mutant},
};

/// How long a history can take in its virtual time. One that takes longer is stuck.
const MAX_DURATION: Duration = Duration::from_secs(24 * 3600);
/// How often somebody lets others go first before they do what they came for.
const MAX_IDLE: u64 = 80;

/// Who takes part in a history.
#[derive(Debug, Clone, Default)]
pub(super) struct Cast {
    /// The shard of each worker.
    pub(super) shards: Vec<Option<Shard>>,
    /// How often each one starts at most.
    pub(super) runs: u64,
    /// Whether the user can change the pipeline meanwhile.
    pub(super) edits: bool,
    /// Whether rows fail in some runs and not in others.
    pub(super) flaws: bool,
    /// How often garbage is collected, rejects are cleared, and another program commits.
    pub(super) collections: u64,
    pub(super) clearings: u64,
    pub(super) foreign_commits: u64,
}

/// The outcome of a history.
#[derive(Debug)]
pub(super) struct Outcome {
    pub(super) violations: Vec<String>,
    pub(super) counts: Counts,
    pub(super) trace: String,
    pub(super) last: String,
}

/// What someone does who is no worker.
#[derive(Debug, Clone, Copy)]
enum Errand {
    Collect,
    Clear,
    Interfere,
}

/// What the histories of a set have in common. Chance decides the rest.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Theme {
    /// At least two workers, all with a shard or none with one; `None` leaves it to chance.
    pub(super) shards: Option<bool>,
    pub(super) is_disk: Option<bool>,
    /// Whether the user changes the pipeline, and other programs the tables.
    pub(super) edits: Option<bool>,
    pub(super) foreign: Option<bool>,
    pub(super) flaws: Option<bool>,
    pub(super) clearings: Option<bool>,
    pub(super) collections: Option<bool>,
}

/// Plays the history of a seed.
pub(super) fn of_seed(seed: u64, theme: Theme, mutant: Option<Mutant>) -> Outcome {
    let draw = |what: &str, n| Digest::new("history").part(&seed.to_le_bytes()).text(what).draw(n);
    let pick = |what: &str, of: [u64; 4]| of[usize::try_from(draw(what, 4)).unwrap()];
    let often = |what: &str, wanted: Option<bool>, of: [u64; 4]| match wanted {
        Some(wanted) => u64::from(wanted) * (1 + draw(what, 2)),
        None => pick(what, of),
    };
    // What a theme is about happens more often than otherwise.
    let more = |wanted: Option<bool>| if wanted == Some(true) { 2 } else { 0 };
    let is_disk = theme.is_disk.unwrap_or_else(|| draw("disk", 2) == 0);
    let workers = if theme.shards.is_some() { 2 + draw("workers", 2) } else { 1 + draw("workers", 3) };
    let shard = |index: u64, count: u64| Some(format!("{index}/{count}").parse().unwrap());
    // A separate shard each, two equal ones, or one that nobody has. Mostly there are none.
    let kind = match theme.shards {
        None => draw("shards", 6),
        Some(has_shards) => {
            if has_shards {
                0
            } else {
                5
            }
        }
    };
    let shards = (0..workers).map(|worker| match kind {
        0 => shard(worker, workers),
        1 => shard(worker.min(1), 2),
        2 if worker > 0 => shard(0, 2),
        _ => None,
    });
    let cast = Cast {
        shards: shards.collect(),
        runs: 1 + draw("runs", 3) + more(theme.edits),
        edits: theme.edits.unwrap_or_else(|| draw("edits", 4) == 0),
        flaws: theme.flaws.unwrap_or_else(|| draw("flaws", 4) == 0),
        collections: often("collections", theme.collections, [0, 0, 1, 2]) + more(theme.collections),
        clearings: often("clearings", theme.clearings, [0, 0, 0, 1]),
        foreign_commits: often("foreign", theme.foreign, [0, 0, 1, 2]),
    };
    let world = World::new(Nature {
        seed,
        rates: Rates { reads: pick("reads", [0, 5, 20, 60]), writes: pick("writes", [0, 100, 300, 600]) },
        turns: Turns::Drawn,
        is_disk,
        power_lost: (is_disk && draw("power", 2) == 0).then(|| 1 + draw("moment", 1000)),
    });
    play(&world, &cast, mutant)
}

/// Plays a history to its end on its own runtime.
pub(super) fn play(world: &Arc<World>, cast: &Cast, mutant: Option<Mutant>) -> Outcome {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
    let history = async { tokio::time::timeout(MAX_DURATION, run_all(world, cast)).await };
    let ended = simulated::play(mutant, || runtime.block_on(history));
    let mut violations = world.violations();
    if ended.is_err() {
        violations.push("the history is stuck".to_owned());
    }
    Outcome { violations, counts: world.counts(), trace: world.trace(), last: world.last() }
}

async fn run_all(world: &Arc<World>, cast: &Cast) {
    world.count(|counts| {
        counts.histories += 1;
        counts.workers += cast.shards.len() as u64;
    });
    let workers = cast.shards.len();
    let mut all: Vec<LocalBoxFuture<'_, ()>> =
        (0..workers).map(|worker| work(world, cast, worker).boxed_local()).collect();
    let errands = [
        (Errand::Collect, cast.collections),
        (Errand::Clear, cast.clearings),
        (Errand::Interfere, cast.foreign_commits),
    ];
    for (number, (errand, times)) in errands.into_iter().enumerate().filter(|(_, (_, times))| *times > 0) {
        all.push(run_errands(world, workers + number, errand, times).boxed_local());
    }
    world.begin();
    join_all(all).await;
    if world.draw(2) == 0 {
        world.arrive(u64::MAX);
    }
    finish(world, cast).await;
}

/// Runs a worker, which is present at once and restarts when a run is aborted.
fn work<'a>(world: &'a Arc<World>, cast: &'a Cast, worker: usize) -> impl Future<Output = ()> + 'a {
    let (presence, turn) = world.enter(worker);
    async move {
        let _presence = presence;
        turn.await.ok();
        for run in 0..cast.runs {
            if cast.edits && world.draw(2) == 0 {
                world.edit();
            }
            if once(world, cast, worker, run).await && !cast.edits {
                return;
            }
        }
    }
}

/// Does something at random moments.
fn run_errands<'a>(world: &'a Arc<World>, number: usize, errand: Errand, times: u64) -> impl Future<Output = ()> + 'a {
    let (presence, turn) = world.enter(number);
    async move {
        let _presence = presence;
        turn.await.ok();
        for run in 0..times {
            for _ in 0..world.draw(MAX_IDLE) {
                world.pass(number, "").await;
            }
            do_errand(world, number, run, errand).await;
        }
    }
}

async fn do_errand(world: &Arc<World>, number: usize, run: u64, errand: Errand) {
    if let Errand::Interfere = errand {
        return interfere(world);
    }
    let store = FaultyStore::new(world, number, run);
    let opened = Opened::new(&store, world.generation(), engine(world, None));
    let ended = match errand {
        Errand::Collect => {
            world.pass_a_day();
            world.count(|counts| counts.collected += 1);
            opened.collect_garbage().await
        }
        _ => {
            world.count(|counts| counts.cleared += 1);
            opened.clear_rejects().await
        }
    };
    note_end(world, &store, &format!("{errand:?}"), ended.map(drop));
}

/// Notes how a command has ended; returns whether it completed. One that fails needs a reason.
fn note_end(world: &World, store: &FaultyStore, what: &str, ended: Result<()>) -> bool {
    world.ended(store.by);
    let Err(error) = ended else {
        world.note(format!("{} completes: {what}", store.name()));
        return true;
    };
    let by_others = is_by_others(&error);
    let excused = store.is_faulty() || by_others || is_by_strangers(world, &chain(&error));
    let why = if by_others { error.to_string() } else { "a call failed".to_owned() };
    world.note(format!("{} is aborted: {what}: {why}", store.name()));
    world.check(|checker, _| {
        checker.claim(excused, || format!("{what} is aborted without a fault: {}", chain(&error)));
    });
    false
}

/// Returns whether an error is one that other programs can cause while a run is in progress.
fn is_by_strangers(world: &World, error: &str) -> bool {
    let duplicates = ["only another program can have added", "it returns two rows with the same"];
    world.counts().foreign > 0 && duplicates.iter().any(|words| error.contains(words))
}

fn engine(world: &World, flaws_of: Option<String>) -> Engine {
    Engine { seed: world.seed(), flaws_of }
}

/// Performs one run; returns whether it completed.
async fn once(world: &Arc<World>, cast: &Cast, worker: usize, run: u64) -> bool {
    let store = FaultyStore::new(world, worker, run);
    world.count(|counts| counts.runs += 1);
    let flaws_of = cast.flaws.then(|| store.name());
    let opened = Opened::new(&store, world.generation(), engine(world, flaws_of));
    let ended = opened.run(&store, cast.shards[worker]).await;
    let completes = note_end(world, &store, "run", ended);
    world.count(|counts| counts.aborted += u64::from(!completes));
    completes
}

/// Lets a last worker, without faults, compute what is missing, and then what was rejected.
async fn finish(world: &Arc<World>, cast: &Cast) {
    let is_pure = !cast.flaws && world.counts().foreign == 0;
    finish_once(world, 0, false, is_pure).await;
    if !is_pure || world.draw(4) == 0 {
        finish_once(world, 1, true, true).await;
    }
    if world.draw(4) == 0 {
        compare(world).await;
    }
}

async fn finish_once(world: &Arc<World>, run: u64, clears: bool, is_pure: bool) {
    let store = FaultyStore::quiet(world, run);
    let opened = Opened::new(&store, world.generation(), engine(world, None));
    let ended = async {
        if clears {
            opened.clear_rejects().await?;
        }
        opened.run(&store, None).await
    };
    if let Err(error) = ended.await {
        let error = chain(&error);
        world.check(|checker, _| checker.violations.push(format!("the last run is aborted: {error}")));
    }
    world.arrive(u64::MAX);
    let generation = world.generation();
    world.check(|checker, disk| checker.full(disk, generation, is_pure));
}

/// Compares what the lake returns with what its log was seen to be.
async fn compare(world: &Arc<World>) {
    let opened = Opened::new(&FaultyStore::quiet(world, 2), 0, engine(world, None));
    for table in &model::tables() {
        let rows = opened.lake().size(table).await.ok().flatten().map_or(0, |size| size.rows);
        let ids = opened.lake().ids(table, "id").await.unwrap_or_default();
        world.check(|checker, _| {
            let live = checker.live(&table.name);
            let same = rows == live.len() && ids.len() == live.len() && live.keys().all(|id| ids.contains(id));
            checker.claim(same, || format!("the lake reads {rows} rows of `{}`, not {}", table.name, live.len()));
        });
    }
}
