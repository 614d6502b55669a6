//! Runs the query of an incremental step over one unit, and separates the rows that failed.

use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
    time::Instant,
};

use arrow::array::{Array, RecordBatch, StringArray};

use super::{
    ledger::{Entry, Reject},
    units::Unit,
};
use crate::{
    error::{Error, Result},
    models::Models,
    plan::Step,
    schema::{
        self, Kind, SOURCE_ID,
        columns::Columns,
        conform::{check_schema, conform, sorted},
    },
    session::{self, Session, Snapshot},
    udf::Meter,
};

/// Rows per batch of a query whose rows hold images.
pub(super) const IMAGES_PER_BATCH: usize = 32;

/// Generates the rows of units. Each unit is a separate task and gets a clone.
#[derive(Clone)]
pub(super) struct Generator {
    pub(super) session: Arc<Session>,
    pub(super) snapshot: Snapshot,
    pub(super) step: Arc<Step>,
    /// The table whose rows request the work, and the column that identifies it.
    pub(super) over: String,
    pub(super) id: String,
}

/// A unit whose rows have been generated.
#[derive(Debug)]
pub(super) struct UnitResult {
    pub(super) unit: String,
    pub(super) rows: RecordBatch,
    pub(super) rejects: Vec<Reject>,
    pub(super) entry: Entry,
}

impl Generator {
    /// Runs the query of the step over the rows of `unit`.
    ///
    /// # Errors
    /// Returns an error if the query fails, has other columns than the table, or returns rows that were not requested.
    #[tracing::instrument(name = "unit", skip_all, fields(step = %self.step.table.name, unit = %unit.id))]
    pub(super) async fn generate(self, unit: Unit) -> Result<UnitResult> {
        let started = Instant::now();
        let meter: Arc<Meter> = Arc::default();
        let snapshot = self.snapshot_of(&unit)?;
        let context = self.session.metered_context(&snapshot, &meter, IMAGES_PER_BATCH)?;
        let name = &self.step.query.name;
        let rows = session::query(&context, name, &self.step.statement).await?;
        check_schema(name, rows.schema().as_arrow(), &self.step.table)?;
        let batches = rows.collect().await.map_err(|error| Error::query(name, error))?;
        let (good, rejects) = self.split(&unit, &batches)?;
        let fail = |error: arrow::error::ArrowError| Error::query(name, error.into());
        let rows = sorted(&self.step.table.schema, &good, &[&self.id]).map_err(fail)?;
        let entry = Entry {
            unit: Some(unit.id.clone()),
            rows: rows.num_rows(),
            rejects: rejects.len(),
            unet_evaluations: meter.unet_evaluations(),
            seconds: started.elapsed().as_secs_f64(),
            provider: self.session.models().and_then(Models::provider),
            batches: self.batches(),
            ..Entry::default()
        };
        let Entry { rows: count, rejects: failed, unet_evaluations, seconds, .. } = &entry;
        tracing::info!(rows = count, rejects = failed, unet_evaluations, seconds, "unit generated");
        Ok(UnitResult { unit: unit.id, rows, rejects, entry })
    }

    /// Returns the tables, restricted to the rows of `unit` in the table that requests the work, and to its sources in
    /// the incremental tables.
    fn snapshot_of(&self, unit: &Unit) -> Result<Snapshot> {
        let mut snapshot = self.snapshot.clone();
        let sources = Columns::new(&self.over, &unit.missing).strings(SOURCE_ID)?;
        let sources: BTreeSet<&str> = sources.iter().flatten().collect();
        for table in self.session.tables().iter().filter(|table| matches!(table.kind, Kind::Incremental { .. })) {
            if table.schema.field_with_name(SOURCE_ID).is_ok() {
                snapshot.restrict(&table.name, &sources)?;
            }
        }
        snapshot.set(&self.over, unit.missing.schema(), vec![unit.missing.clone()])?;
        Ok(snapshot)
    }

    /// Returns the batches of the diffusion model, if the step generates images.
    fn batches(&self) -> Option<String> {
        let generates = self.step.query.functions.contains("img2img");
        self.session.models().filter(|_| generates).and_then(Models::describe_batches)
    }

    /// Separates the sound rows from the rejects: rows with an error, and rows that the query did not return.
    fn split(&self, unit: &Unit, batches: &[RecordBatch]) -> Result<(Vec<RecordBatch>, Vec<Reject>)> {
        let name = &self.step.query.name;
        let requests = Columns::new(&self.over, &unit.missing);
        let (ids, sources) = (requests.strings(&self.id)?, requests.strings(SOURCE_ID)?);
        let mut waiting: HashMap<&str, Option<&str>> =
            ids.iter().zip(&sources).filter_map(|(id, source)| Some((id?, source))).collect();
        let (mut good, mut rejects) = (Vec::new(), Vec::new());
        for batch in batches {
            let rows = conform(name, batch, &self.step.table.schema)?;
            let found = Columns::new(name, &rows.batch).strings(&self.id)?;
            for (row, found) in found.iter().enumerate() {
                let Some(source) = found.and_then(|found| waiting.remove(found)) else {
                    return Err(self.not_requested(found));
                };
                if rows.errors.is_valid(row) {
                    rejects.push(Reject {
                        id: found.unwrap_or_default().to_owned(),
                        source_id: source.map(str::to_owned),
                        reason: rows.errors.value(row).to_owned(),
                        path: None,
                    });
                }
            }
            let sound = arrow::compute::is_null(&rows.errors as &StringArray);
            let sound = sound.and_then(|sound| arrow::compute::filter_record_batch(&rows.batch, &sound));
            good.push(sound.map_err(|error| Error::query(name, error.into()))?);
        }
        rejects.extend(waiting.into_iter().map(|(id, source)| Reject {
            id: id.to_owned(),
            source_id: source.map(str::to_owned),
            reason: "one of its inputs is missing: the query returned no row for it".into(),
            path: None,
        }));
        self.add_paths(&mut rejects)?;
        rejects.sort_by(|a, b| a.id.cmp(&b.id));
        Ok((good, rejects))
    }

    /// Adds the path of the real image to each reject.
    fn add_paths(&self, rejects: &mut [Reject]) -> Result<()> {
        let Some(listing) = self.session.input(schema::LISTING).filter(|_| !rejects.is_empty()) else { return Ok(()) };
        let listing = Columns::new(schema::LISTING, listing);
        let (sources, paths) = (listing.strings(SOURCE_ID)?, listing.strings("path")?);
        let paths: HashMap<&str, &str> = sources.iter().flatten().zip(paths.iter().flatten()).collect();
        for reject in rejects {
            reject.path = reject.source_id.as_deref().and_then(|source| paths.get(source)).map(|&path| path.to_owned());
        }
        Ok(())
    }

    fn not_requested(&self, found: Option<&str>) -> Error {
        Error::Query {
            query: self.step.query.name.clone(),
            message: format!(
                "it returns a row twice, or one that was not requested, with the `{}` `{}`; `{}` gets one row for each of `{}`",
                self.id,
                found.unwrap_or("NULL"),
                self.step.table.name,
                self.over
            ),
        }
    }
}
