//! A step whose rows are only ever added, unit by unit: everything that a model makes.

use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
    time::{Duration, Instant},
};

use arrow::array::{Array, RecordBatch, StringArray};
use futures::{StreamExt, stream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};

use super::{
    ledger::{self, Entry, Reject},
    runner::{IMAGES_PER_BATCH, Runner},
    shard::Shard,
    units::{self, Unit},
};
use crate::{
    error::{Error, Result},
    identity::Digest,
    lake::UnitRows,
    plan::Step,
    schema::{
        self, Kind,
        conform::{check_schema, conform, sorted, text_column},
    },
    session::{self, Session, Snapshot},
    udf::Meter,
};

/// Images of a unit that only refers to them.
const LISTED_PER_UNIT: usize = 1 << 16;
/// Units that share a commit at most.
const UNITS_PER_COMMIT: usize = 16;

/// MiB of finished units that wait for a commit or are in one, so that others are begun meanwhile. One larger unit may
/// wait alone.
const MIB_WAITING: u32 = 256;

/// How often a worker looks whether the others are done.
const PAUSE: Duration = Duration::from_secs(1);

/// How a table accumulates.
#[derive(Debug, Clone, Copy)]
pub(super) struct Accumulation<'a> {
    pub(super) over: &'a str,
    pub(super) id: &'a str,
    pub(super) sources_per_unit: usize,
}

impl<'a> Accumulation<'a> {
    /// How the table of `step` accumulates; none where it is chosen.
    pub(super) fn of(step: &'a Step) -> Option<Self> {
        let Kind::Accumulated { over, id, sources_per_unit } = step.table.kind else { return None };
        // without images, what a unit costs is its commit and its plan
        let light = over == schema::LISTING && !step.query.functions.contains("read_image");
        let sources_per_unit = if light { sources_per_unit.max(LISTED_PER_UNIT) } else { sources_per_unit };
        Some(Self { over, id, sources_per_unit })
    }
}

/// What a step has done.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Done {
    /// Rows that were added.
    pub rows: usize,
    /// Rows that failed.
    pub rejects: usize,
}

/// A unit whose rows have been made.
struct Made {
    unit: String,
    rows: RecordBatch,
    rejects: Vec<Reject>,
    entry: Entry,
}

impl Made {
    /// Its size in memory in whole MiB, at most [`MIB_WAITING`].
    fn mib(&self) -> u32 {
        u32::try_from(self.rows.get_array_memory_size() >> 20).unwrap_or(u32::MAX).saturating_add(1).min(MIB_WAITING)
    }
}

/// A unit that waits for its commit, and the memory that it may take meanwhile.
type Waiting = (Made, OwnedSemaphorePermit);

/// Makes what is missing of `step`; of several workers each makes its own units, and waits for the others'.
///
/// # Errors
/// Where a model, the lake or the query fails, or more rows fail than the pipeline allows. [`Error::Interrupted`] where
/// the run was asked to stop, [`Error::Waiting`] where other workers have not made their units in time; what was
/// finished is committed.
pub(super) async fn run(runner: &Runner, step: &Step, how: Accumulation<'_>, snapshot: Snapshot) -> Result<Done> {
    let done = make_own(runner, step, how, &snapshot).await?;
    if runner.options.stop.is_asked() {
        return Err(Error::Interrupted);
    }
    if runner.options.shard.is_some() {
        wait_for_others(runner, step, how, &snapshot).await?;
    }
    Ok(done)
}

/// Waits until every row that is asked for is there or rejected, whoever makes it.
async fn wait_for_others(runner: &Runner, step: &Step, how: Accumulation<'_>, snapshot: &Snapshot) -> Result<()> {
    let started = Instant::now();
    loop {
        let left = missing(runner, step, how, snapshot, None).await?.rows();
        if left == 0 {
            return Ok(());
        }
        if started.elapsed() >= runner.options.wait {
            return Err(Error::Waiting { step: step.table.name.clone(), rows: left });
        }
        runner.progress.waiting(&step.table.name, left);
        tokio::select! {
            () = tokio::time::sleep(PAUSE.min(runner.options.wait)) => {}
            () = runner.options.stop.asked() => return Err(Error::Interrupted),
        }
    }
}

async fn make_own(runner: &Runner, step: &Step, how: Accumulation<'_>, snapshot: &Snapshot) -> Result<Done> {
    let missing = missing(runner, step, how, snapshot, runner.options.shard).await?;
    let wanted = missing.rows();
    let Missing { units, asked, rejected } = missing;
    let allowed = (runner.options.max_reject_fraction * asked as f64).ceil() as usize;
    let ceiling = Ceiling { asked, allowed, rejected };
    ceiling.check(step, &[])?;
    runner.progress.started(&step.table.name, wanted);
    let (sender, receiver) = mpsc::unbounded_channel();
    let memory = Arc::new(Semaphore::new(MIB_WAITING as usize));
    let work = stream::iter(units)
        .take_until(runner.options.stop.asked())
        .map(|unit| {
            let (session, snapshot) = (Arc::clone(&runner.session), snapshot.clone());
            let step = step.clone();
            let (over, id) = (how.over.to_owned(), how.id.to_owned());
            // a task of its own: units go on while others are committed
            tokio::spawn(async move { make(&session, snapshot, &step, &over, &id, unit).await })
        })
        .buffer_unordered(runner.options.units_in_flight.max(1));
    let produce = async {
        let mut work = std::pin::pin!(work);
        while let Some(made) = work.next().await {
            let made = made.map_err(|error| Error::Data(format!("a unit of `{}`: {error}", step.table.name)))??;
            let Ok(permit) = Arc::clone(&memory).acquire_many_owned(made.mib()).await else { break };
            if sender.send((made, permit)).is_err() {
                break;
            }
        }
        drop(sender);
        Ok::<_, Error>(())
    };
    let (_, done) = tokio::try_join!(produce, commit(runner, step, how.id, ceiling, receiver))?;
    Ok(done)
}

/// The work of a step: its units with something to do, and how much was asked for and rejected before.
struct Missing {
    units: Vec<Unit>,
    asked: usize,
    rejected: usize,
}

impl Missing {
    fn rows(&self) -> usize {
        self.units.iter().map(|unit| unit.wanted.num_rows()).sum()
    }
}

async fn missing(
    runner: &Runner,
    step: &Step,
    how: Accumulation<'_>,
    snapshot: &Snapshot,
    shard: Option<Shard>,
) -> Result<Missing> {
    let context = runner.session.context(snapshot, &Arc::default())?;
    let name = &step.table.name;
    let fail = |error| Error::query(name, error);
    let asking = context.table(how.over).await.map_err(fail)?.collect().await.map_err(fail)?;
    let lake = runner.session.lake();
    let mut done = lake.ids(&step.table, how.id).await?;
    let rejects = lake.ids(ledger::rejects_table()?, ledger::REJECT_ID).await?;
    let ids = asking.iter().map(|batch| text_column(batch, how.id));
    let rejected = ids.map(|ids| ids.iter().flatten().filter(|id| rejects.contains(*id)).count()).sum();
    done.extend(rejects);
    let mut units = units::cut(name, &asking, how.id, how.sources_per_unit, &done, shard)?;
    if let Some(salt) = runner.options.unit_order {
        units.sort_by_cached_key(|unit| Digest::new("order").part(&salt.to_le_bytes()).text(&unit.id).id());
    }
    Ok(Missing { units, asked: asking.iter().map(RecordBatch::num_rows).sum(), rejected })
}

/// Runs the query of `step` over the rows of `unit`.
async fn make(
    session: &Session,
    mut snapshot: Snapshot,
    step: &Step,
    over: &str,
    id: &str,
    unit: Unit,
) -> Result<Made> {
    let started = Instant::now();
    let meter: Arc<Meter> = Arc::default();
    let sources = text_column(&unit.wanted, "source_id");
    let sources: BTreeSet<&str> = sources.iter().flatten().collect();
    for table in schema::TABLES.iter().filter(|table| matches!(table.kind, Kind::Accumulated { .. })) {
        if table.schema.field_with_name("source_id").is_ok() {
            snapshot.restrict(&table.name, &sources)?;
        }
    }
    snapshot.set(over, unit.wanted.schema(), vec![unit.wanted.clone()])?;
    let context = session.context_with(&snapshot, &meter, IMAGES_PER_BATCH)?;
    let name = &step.query.name;
    let rows = session::query(&context, name, &step.statement).await?;
    check_schema(name, rows.schema().as_arrow(), &step.table)?;
    let batches = rows.collect().await.map_err(|error| Error::query(name, error))?;
    let (good, rejects) = divide(step, (over, id), &unit, &batches)?;
    let fail = |error: arrow::error::ArrowError| Error::query(name, error.into());
    let rows = sorted(&step.table.schema, &good, &[id]).map_err(fail)?;
    let entry = Entry {
        unit: Some(unit.id.clone()),
        rows: rows.num_rows(),
        rejects: rejects.len(),
        unet_evaluations: meter.unet_evaluations(),
        seconds: started.elapsed().as_secs_f64(),
        provider: session.functions().models.provider(),
    };
    Ok(Made { unit: unit.id, rows, rejects, entry })
}

/// The rows that came out well, and the rejects: those with an error, and those that did not come out.
fn divide(
    step: &Step,
    (over, id): (&str, &str),
    unit: &Unit,
    batches: &[RecordBatch],
) -> Result<(Vec<RecordBatch>, Vec<Reject>)> {
    let name = &step.query.name;
    let ids = text_column(&unit.wanted, id);
    let sources = text_column(&unit.wanted, "source_id");
    let mut waiting: HashMap<&str, Option<&str>> = ids.iter().flatten().zip(sources.iter()).collect();
    let (mut good, mut rejects) = (Vec::new(), Vec::new());
    for batch in batches {
        let rows = conform(name, batch, &step.table.schema)?;
        let found = text_column(&rows.batch, id);
        for (row, found) in found.iter().enumerate() {
            let Some(source) = found.and_then(|found| waiting.remove(found)) else {
                return Err(Error::Query {
                    query: name.clone(),
                    message: format!(
                        "it gives a row twice, or unasked, with the `{id}` `{}`; `{}` gets one row for each of `{over}`",
                        found.unwrap_or("NULL"),
                        step.table.name
                    ),
                });
            };
            if rows.errors.is_valid(row) {
                rejects.push(Reject {
                    id: found.unwrap_or_default().to_owned(),
                    source_id: source.map(str::to_owned),
                    reason: rows.errors.value(row).to_owned(),
                });
            }
        }
        let whole = arrow::compute::is_null(&rows.errors as &StringArray);
        let whole = whole.and_then(|whole| arrow::compute::filter_record_batch(&rows.batch, &whole));
        good.push(whole.map_err(|error| Error::query(name, error.into()))?);
    }
    rejects.extend(waiting.into_iter().map(|(id, source)| Reject {
        id: id.to_owned(),
        source_id: source.map(str::to_owned),
        reason: "an input of it is missing: the query gave no row for it".into(),
    }));
    rejects.sort_by(|a, b| a.id.cmp(&b.id));
    Ok((good, rejects))
}

/// How many rows of a step may fail.
#[derive(Debug, Clone, Copy)]
struct Ceiling {
    asked: usize,
    allowed: usize,
    rejected: usize,
}

impl Ceiling {
    fn check(&self, step: &Step, latest: &[Reject]) -> Result<()> {
        let Self { asked, allowed, rejected } = self;
        if rejected <= allowed {
            return Ok(());
        }
        let reason = latest.iter().map(|reject| &reject.reason).min();
        let reason = reason.map(|reason| format!("; among the latest: {reason}")).unwrap_or_default();
        Err(Error::Data(format!(
            "step `{}`: {rejected} of {asked} rows failed, {allowed} are allowed (`rejects.max_fraction`){reason}\n\
             hint: the table `rejects` has each with its reason",
            step.table.name
        )))
    }
}

/// Commits units as they come; those that are ready share a commit.
async fn commit(
    runner: &Runner,
    step: &Step,
    id: &str,
    mut ceiling: Ceiling,
    mut receiver: mpsc::UnboundedReceiver<Waiting>,
) -> Result<Done> {
    let mut done = Done::default();
    let mut ready = Vec::new();
    while receiver.recv_many(&mut ready, UNITS_PER_COMMIT).await > 0 {
        commit_units(runner, step, id, &ready).await?;
        for (made, _) in ready.drain(..) {
            done.rows += made.entry.rows;
            done.rejects += made.entry.rejects;
            ceiling.rejected += made.entry.rejects;
            runner.progress.advanced(&step.table.name, made.entry.rows + made.entry.rejects);
            ceiling.check(step, &made.rejects)?;
        }
    }
    Ok(done)
}

/// A unit's rejects and its ledger row go first; the unit is done when its rows are there.
async fn commit_units(runner: &Runner, step: &Step, id: &str, units: &[Waiting]) -> Result<()> {
    let lake = runner.session.lake();
    let name = &step.table.name;
    let (mut rejects, mut ledger, mut rows) = (Vec::new(), Vec::new(), Vec::new());
    for (made, _) in units {
        let unit = made.unit.clone();
        if !made.rejects.is_empty() {
            let batch = ledger::reject_rows(name, &unit, &made.rejects)?;
            rejects.push(UnitRows { unit: unit.clone(), rows: batch });
        }
        let batch = ledger::ledger_row(name, step.fingerprint.value, None, &made.entry)?;
        ledger.push(UnitRows { unit: unit.clone(), rows: batch });
        rows.push(UnitRows { unit, rows: made.rows.clone() });
    }
    if !rejects.is_empty() {
        lake.append(ledger::rejects_table()?, ledger::REJECT_ID, &rejects).await?;
    }
    lake.append(ledger::ledger_table()?, ledger::LEDGER_ID, &ledger).await?;
    lake.append(&step.table, id, &rows).await
}
