//! A history: workers on one lake, their faults and restarts, and the final state.

use std::{sync::Arc, time::Duration};

use futures::future::join_all;

use super::{
    counts::Counts,
    model,
    pipeline::{self, Run, is_by_others},
    store::FaultyStore,
    world::{Rates, Turns, World},
};
use crate::{error::chain, identity::Digest, lake::verify_files};

/// Generations after the first that a user can request.
const MAX_EDITS: u64 = 2;
/// How long a history can take. One that takes longer is stuck.
const MAX_DURATION: Duration = Duration::from_secs(120);

/// The workers of a history.
#[derive(Debug, Clone)]
pub(super) struct Cast {
    /// The shard of each.
    pub(super) shards: Vec<Option<(u64, u64)>>,
    /// How often each one starts at most.
    pub(super) runs: u64,
    /// Whether the user can change the pipeline meanwhile.
    pub(super) edits: bool,
    /// Whether they write a ledger.
    pub(super) ledger: bool,
}

/// The outcome of a history.
#[derive(Debug)]
pub(super) struct Outcome {
    pub(super) violations: Vec<String>,
    pub(super) counts: Counts,
    pub(super) trace: String,
    pub(super) last: String,
}

/// Plays the history of a seed.
pub(super) fn of_seed(seed: u64) -> Outcome {
    let draw = |what: &str, n| Digest::new("history").part(&seed.to_le_bytes()).text(what).draw(n);
    let pick = |what: &str, of: [u64; 4]| of[usize::try_from(draw(what, 4)).unwrap()];
    let rates = Rates { reads: pick("reads", [0, 5, 20, 60]), writes: pick("writes", [0, 200, 600, 1200]) };
    let workers = 1 + draw("workers", 3);
    // A separate shard each, two equal ones, or one that nobody has. Mostly there are none.
    let shards = (0..workers).map(|worker| match draw("shards", 6) {
        0 => Some((worker, workers)),
        1 => Some((worker.min(1), 2)),
        2 => Some((0, 2)).filter(|_| worker > 0),
        _ => None,
    });
    let cast = Cast {
        shards: shards.collect(),
        runs: 1 + draw("runs", 3),
        edits: draw("edits", 4) == 0,
        ledger: draw("ledger", 4) == 0,
    };
    play(&World::new(seed, rates, Turns::Drawn), &cast)
}

/// Plays a history to its end on its own runtime.
pub(super) fn play(world: &Arc<World>, cast: &Cast) -> Outcome {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let ended = runtime.block_on(async { tokio::time::timeout(MAX_DURATION, run_all(world, cast)).await });
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
    let workers: Vec<_> = (0..cast.shards.len()).map(|worker| work(world, cast, worker)).collect();
    world.begin();
    join_all(workers).await;
    if world.draw(2) == 0 {
        world.arrive(u64::MAX);
    }
    finish(world, cast.ledger).await;
    world.arrive(u64::MAX);
    let generation = world.generation();
    world.check(|checker, bare| checker.full(bare, generation));
    if world.draw(4) == 0 {
        compare(world).await;
    }
}

/// Runs a worker, which is present at once and restarts when a run is aborted.
fn work<'a>(world: &'a Arc<World>, cast: &'a Cast, worker: usize) -> impl Future<Output = ()> + 'a {
    let (presence, turn) = world.enter(worker);
    async move {
        let _presence = presence;
        turn.await.ok();
        for run in 0..cast.runs {
            if cast.edits && world.generation() < MAX_EDITS && world.draw(4) == 0 {
                world.edit();
            }
            if once(world, cast, worker, run).await && !cast.edits {
                return;
            }
        }
    }
}

/// Returns a run on `store` of what the user requests now.
fn run_on(world: &World, store: FaultyStore, shard: Option<(u64, u64)>, ledger: bool) -> Run<'_> {
    Run { world, lake: pipeline::lake(Arc::new(store)), generation: world.generation(), shard, ledger }
}

/// Performs one run; returns whether it completed.
async fn once(world: &Arc<World>, cast: &Cast, worker: usize, run: u64) -> bool {
    let store = FaultyStore::new(world, worker, run);
    world.count(|counts| counts.runs += 1);
    let ended = run_on(world, store.clone(), cast.shards[worker], cast.ledger).complete_all().await;
    let Err(error) = ended else {
        world.note(format!("worker {worker} run {run} completes"));
        return true;
    };
    let excused = store.faults() > 0 || is_by_others(&error);
    let why = if is_by_others(&error) { error.to_string() } else { "a call failed".to_owned() };
    world.note(format!("worker {worker} run {run} is aborted: {why}"));
    world.count(|counts| counts.aborted += 1);
    world.check(|checker, _| {
        checker.claim(excused, || format!("a run is aborted without a fault: {}", chain(&error)));
    });
    false
}

/// Lets a last worker, without faults, compute what is missing.
async fn finish(world: &Arc<World>, ledger: bool) {
    let ended = run_on(world, FaultyStore::quiet(world), None, ledger).complete_all().await;
    if let Err(error) = ended {
        let error = chain(&error);
        world.check(|checker, _| checker.violations.push(format!("the last run is aborted: {error}")));
    }
}

/// Compares what the lake returns with what its log was seen to be.
async fn compare(world: &Arc<World>) {
    let bare: Arc<dyn object_store::ObjectStore> = Arc::<object_store::memory::InMemory>::clone(&world.bare);
    let lake = pipeline::lake(bare);
    for table in model::TABLES.values() {
        let message = match verify_files(&lake, table, true).await {
            Ok(findings) => findings.into_iter().map(|finding| finding.problem).collect(),
            Err(error) => vec![chain(&error)],
        };
        let rows = lake.size(table).await.ok().flatten().map_or(0, |size| size.rows);
        let ids = lake.ids(table, "id").await.unwrap_or_default();
        world.check(|checker, _| {
            let live = checker.live(&table.name);
            checker.violations.extend(message);
            if rows != live.len() || ids.len() != live.len() || !live.keys().all(|id| ids.contains(id)) {
                checker.violations.push(format!("the lake reads {rows} rows of `{}`, not {}", table.name, live.len()));
            }
        });
    }
}
