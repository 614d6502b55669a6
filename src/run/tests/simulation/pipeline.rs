//! Runs of the program's own steps, on a lake in a simulated store.

use std::{sync::Arc, time::Duration};

use object_store::ObjectStore;
use url::Url;

use super::{check::ROOT, engine::Engine, model, store::FaultyStore};
use crate::{
    error::{Error, Result},
    lake::{Collector, Lake},
    plan::Plan,
    run::{
        self, Options, Outcome, Progress, Shard,
        job::Job,
        rejects::{clear, notice_changes},
    },
    schema,
    session::{Session, Settings},
    storage::{Durable, Location},
};

/// How long a worker waits for others; it looks once a second.
const WAIT: Duration = Duration::from_secs(3);
/// How old a file must be for `gc` to delete it.
pub(super) const AGE: Duration = Duration::from_secs(3600);

/// The pipeline as one run of one process has opened it.
pub(super) struct Opened {
    session: Arc<Session>,
    plan: Plan,
}

/// Receives what a run tells its user.
struct Told<'a>(&'a FaultyStore);

impl Progress for Told<'_> {
    fn device(&self, _: &str) {}

    fn started(&self, _: &str, _: usize) {}

    fn waiting(&self, _: &str, _: usize) {}

    fn advanced(&self, step: &str, _: usize) {
        self.0.told(step, None);
    }

    fn ended(&self, outcome: &Outcome) {
        self.0.told(&outcome.step, Some(outcome.skipped));
    }
}

impl Opened {
    /// Opens the pipeline of a generation in `store`, which syncs what it writes if it is a disk.
    pub(super) fn new(store: &FaultyStore, generation: u64, engine: Engine) -> Self {
        let stored: Arc<dyn ObjectStore> = match store.is_disk() {
            true => Arc::new(Durable::new(store.clone())),
            false => Arc::new(store.clone()),
        };
        let location = Location::at(stored, Url::parse(&format!("memory:///{ROOT}/")).unwrap()).unwrap();
        let settings = Settings { target_partitions: 1, ..Settings::default() };
        let inputs = vec![(schema::LISTING.to_owned(), model::listing())];
        let lake = Arc::new(Lake::at(location));
        let session = Session::new(lake, Arc::new(engine), model::stored_tables(), inputs, settings).unwrap();
        Self { session: Arc::new(session), plan: model::plan(generation) }
    }

    pub(super) fn lake(&self) -> &Lake {
        self.session.lake()
    }

    /// Runs all steps, as the command `run` does.
    pub(super) async fn run(&self, store: &FaultyStore, shard: Option<Shard>) -> Result<()> {
        let options = Options { units_in_flight: Some(2), shard, wait: WAIT, ..Options::default() };
        let told = Told(store);
        let Self { session, plan } = self;
        let job = Job { plan, session, max_reject_fraction: 1.0, options: &options, progress: &told };
        notice_changes(job.lake(), &plan.steps).await?;
        run::run_steps(job, plan.steps.len() - 1, async |_| Ok(())).await.map(drop)
    }

    /// Clears rejects, as `--retry-rejects` does.
    pub(super) async fn clear_rejects(&self) -> Result<usize> {
        clear(&self.session, &self.plan.steps).await
    }

    /// Deletes what is not needed, as `gc --apply` does. Returns the number of files.
    pub(super) async fn collect_garbage(&self) -> Result<usize> {
        let tables = model::stored_tables();
        let (mut collector, found) = Collector::find(self.lake(), tables.iter().collect(), AGE, true).await?;
        let mut deleted = 0;
        for garbage in &found {
            deleted += usize::from(collector.delete(garbage).await?);
        }
        Ok(deleted)
    }
}

/// Returns whether a command can end like this without a fault: others were not done, or kept changing what it reads.
pub(super) fn is_by_others(error: &Error) -> bool {
    let text = error.to_string();
    let contended =
        ["another run keeps changing", "another run adds to", "lost to other writers", "its rows still change"];
    matches!(error, Error::Waiting { .. }) || contended.iter().any(|words| text.contains(words))
}
