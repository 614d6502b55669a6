//! A step whose rows are only ever added, unit by unit: everything that a model makes.

use std::{
    collections::{BTreeSet, HashMap, HashSet},
    sync::Arc,
    time::Instant,
};

use arrow::array::{Array, RecordBatch, StringArray};
use futures::{StreamExt, stream};
use tokio::sync::mpsc;

use super::{
    Runner,
    journal::{self, Entry, Reject},
    rows::{check_schema, conform, sorted, text_column},
    units::{self, Unit},
};
use crate::{
    error::{Error, Result},
    identity::Digest,
    lake::{DataFile, UnitFiles},
    plan::Step,
    schema::{self, Kind},
    session::{self, Session, Snapshot},
    udf::Meter,
};

/// Rows of a batch where rows carry pictures.
const PICTURES_PER_BATCH: usize = 32;
/// Units that share a commit at most.
const UNITS_PER_COMMIT: usize = 64;

/// How a table accumulates.
#[derive(Debug, Clone, Copy)]
pub(super) struct Accumulation<'a> {
    pub(super) over: &'a str,
    pub(super) id: &'a str,
    pub(super) sources_per_unit: usize,
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
    file: Option<DataFile>,
    rejects: Vec<Reject>,
    entry: Entry,
}

/// Makes what is missing of `step`.
///
/// # Errors
/// Where a model, the lake or the query fails, or more rows fail than the pipeline allows.
pub(super) async fn run(runner: &Runner, step: &Step, how: Accumulation<'_>) -> Result<Done> {
    let snapshot = runner.session.snapshot(&runner.own_tables).await?;
    let units = missing(runner, step, how, &snapshot).await?;
    let wanted: usize = units.iter().map(|unit| unit.wanted.num_rows()).sum();
    runner.progress.started(&step.table.name, wanted);
    let (sender, receiver) = mpsc::channel(UNITS_PER_COMMIT);
    let work = stream::iter(units)
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
            let made = made.map_err(|error| Error::Data(format!("a unit of `{}`: {error}", step.table.name)))?;
            if sender.send(made?).await.is_err() {
                break;
            }
        }
        drop(sender);
        Ok::<_, Error>(())
    };
    let (_, done) = tokio::try_join!(produce, commit(runner, step, wanted, receiver))?;
    Ok(done)
}

/// The units of `step` with work to do.
async fn missing(runner: &Runner, step: &Step, how: Accumulation<'_>, snapshot: &Snapshot) -> Result<Vec<Unit>> {
    let context = runner.session.context(snapshot, &Arc::default())?;
    let name = &step.table.name;
    let fail = |error| Error::query(name, error);
    let asking = context.table(how.over).await.map_err(fail)?.collect().await.map_err(fail)?;
    let mut done = HashSet::new();
    let made = context.table(name.as_str()).await.map_err(fail)?;
    collect_texts(made.select_columns(&[how.id]).map_err(fail)?, name, &mut done).await?;
    let rejects = context.table(schema::REJECTS).await.map_err(fail)?;
    let own = datafusion::prelude::col("step").eq(datafusion::prelude::lit(name.as_str()));
    let rejects = rejects.filter(own).and_then(|rows| rows.select_columns(&["id"])).map_err(fail)?;
    collect_texts(rejects, name, &mut done).await?;
    let mut units = units::cut(name, &asking, how.id, how.sources_per_unit, &done)?;
    if let Some(salt) = runner.options.unit_order {
        units.sort_by_cached_key(|unit| Digest::new("order").part(&salt.to_le_bytes()).text(&unit.id).id());
    }
    Ok(units)
}

async fn collect_texts(rows: datafusion::dataframe::DataFrame, name: &str, texts: &mut HashSet<String>) -> Result<()> {
    let mut stream = rows.execute_stream().await.map_err(|error| Error::query(name, error))?;
    while let Some(batch) = stream.next().await {
        let batch = batch.map_err(|error| Error::query(name, error))?;
        let column = batch.schema().field(0).name().clone();
        texts.extend(text_column(&batch, &column).iter().flatten().map(str::to_owned));
    }
    Ok(())
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
    let context = session.context_with(&snapshot, &meter, PICTURES_PER_BATCH)?;
    let name = &step.query.name;
    let rows = session::query(&context, name, &step.statement).await?;
    check_schema(name, rows.schema().as_arrow(), &step.table)?;
    let batches = rows.collect().await.map_err(|error| Error::query(name, error))?;
    let (good, rejects) = divide(step, id, &unit, &batches)?;
    let fail = |error: arrow::error::ArrowError| Error::query(name, error.into());
    let rows = sorted(&step.table.schema, &good, &[id]).map_err(fail)?;
    let file = match rows.num_rows() {
        0 => None,
        _ => Some(DataFile::write(&unit.id, &step.table.schema, std::slice::from_ref(&rows))?),
    };
    let entry = Entry {
        unit: Some(unit.id.clone()),
        rows: rows.num_rows(),
        rejects: rejects.len(),
        unet_evaluations: meter.unet_evaluations(),
        seconds: started.elapsed().as_secs_f64(),
        provider: session.functions().models.provider(),
    };
    Ok(Made { unit: unit.id, file, rejects, entry })
}

/// The rows that came out well, and the rejects: those with an error, and those that did not come out.
fn divide(step: &Step, id: &str, unit: &Unit, batches: &[RecordBatch]) -> Result<(Vec<RecordBatch>, Vec<Reject>)> {
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
                        "it gives `{id}` {found:?} twice, or unasked; one row per row of its input is expected"
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

/// Commits units as they come; those that are ready share a commit.
async fn commit(runner: &Runner, step: &Step, wanted: usize, mut receiver: mpsc::Receiver<Made>) -> Result<Done> {
    let allowed = (runner.options.max_reject_fraction * wanted as f64).ceil() as usize;
    let mut done = Done::default();
    let mut ready = Vec::new();
    while receiver.recv_many(&mut ready, UNITS_PER_COMMIT).await > 0 {
        commit_units(runner, step, &ready).await?;
        for made in ready.drain(..) {
            done.rows += made.entry.rows;
            done.rejects += made.entry.rejects;
            runner.progress.advanced(&step.table.name, made.entry.rows + made.entry.rejects);
            if done.rejects > allowed {
                return Err(too_many(step, done.rejects, wanted, allowed, &made.rejects));
            }
        }
    }
    Ok(done)
}

fn too_many(step: &Step, rejects: usize, wanted: usize, allowed: usize, latest: &[Reject]) -> Error {
    let reason = latest.first().map_or("see the table `rejects`", |reject| reject.reason.as_str());
    Error::Data(format!(
        "step `{}`: {rejects} of {wanted} rows failed, {allowed} are allowed (`rejects.max_fraction`); the latest: \
         {reason}; the table `rejects` has them all",
        step.table.name
    ))
}

/// A unit's rejects and its ledger row go first; the unit is done when its rows are there.
async fn commit_units(runner: &Runner, step: &Step, units: &[Made]) -> Result<()> {
    let lake = runner.session.lake();
    let name = &step.table.name;
    let (mut rejects, mut ledger, mut rows) = (Vec::new(), Vec::new(), Vec::new());
    for made in units {
        let unit = format!("{name}/{}", made.unit);
        if !made.rejects.is_empty() {
            let table = journal::rejects_table()?;
            let batch = journal::reject_rows(name, &made.unit, &made.rejects)?;
            let file = DataFile::write(&made.unit, &table.schema, &[batch])?;
            rejects.push(UnitFiles { unit: unit.clone(), files: vec![file] });
        }
        let batch = journal::ledger_row(name, step.fingerprint.value, None, &made.entry)?;
        let file = DataFile::write(&made.unit, &journal::ledger_table()?.schema, &[batch])?;
        ledger.push(UnitFiles { unit: unit.clone(), files: vec![file] });
        rows.push(UnitFiles { unit, files: made.file.iter().cloned().collect() });
    }
    if !rejects.is_empty() {
        lake.append(journal::rejects_table()?, &rejects).await?;
    }
    lake.append(journal::ledger_table()?, &ledger).await?;
    lake.append(&step.table, &rows).await
}
