//! Forecasts a run: which steps run and why, how many rows, how many UNet evaluations. Full-refresh steps are computed;
//! no model runs and nothing is written.

use std::{collections::BTreeSet, sync::Arc};

use arrow::{
    array::{RecordBatch, new_null_array},
    compute::cast,
    error::ArrowError,
};
use datafusion::common::JoinType;

use super::shares;
use crate::{
    error::{Error, Result, Warning},
    pipeline::{Pipeline, Project, staleness},
    plan::Step,
    schema::{self, Kind, LISTING, Table, conform::conform_batches},
    session::{self, Snapshot},
};

/// A number, or its bounds if it depends on images that do not exist yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
pub(crate) struct Amount {
    /// Due now: first attempts, and everything else that is known to be missing.
    pub(crate) due: i64,
    /// The maximum, if every allowed attempt is needed.
    pub(crate) at_most: i64,
}

impl Amount {
    fn exactly(amount: i64) -> Self {
        Self { due: amount, at_most: amount }
    }

    /// Multiplies by `each`, rounded.
    pub(crate) fn times(self, each: f64) -> Self {
        let times = |amount: i64| (amount as f64 * each).round() as i64;
        Self { due: times(self.due), at_most: times(self.at_most) }
    }
}

/// UNet evaluations per second of the paper's authors: 10 s for one spectrum of six levels, 175 timesteps with guidance,
/// at 480 x 270 on one RTX A5000 (section A.6).
const PAPER_RATE: f64 = 35.0;

/// Bytes per pixel of a photo as PNG; two photos of 0.1 and 0.2 megapixels took 1.3 to 1.8.
const BYTES_PER_PIXEL: f64 = 1.5;
/// Bytes of a photo as PNG per byte as JPEG; the same photos at quality 90 took 5.1 to 7.2.
const PNG_PER_JPEG: f64 = 6.0;

/// How fast images are generated.
#[derive(Debug, Clone, Copy, PartialEq, serde::Serialize)]
pub(crate) struct Rate {
    /// UNet evaluations per second.
    pub(crate) unet_evaluations: f64,
    /// Whether it was measured on this lake's images; otherwise it is the paper's.
    pub(crate) measured: bool,
}

/// What a run would do in one step.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub(crate) struct StepForecast {
    /// The name of its table.
    pub(crate) step: String,
    /// Whether there is nothing to do.
    pub(crate) skipped: bool,
    /// Why it would run or be skipped.
    pub(crate) reason: String,
    /// Rows that it would add or write; `None` if they depend on images that do not exist yet.
    pub(crate) rows: Option<Amount>,
    /// Evaluations of the UNet, for the step that generates images.
    pub(crate) unet_evaluations: Option<Amount>,
    /// Seconds that these evaluations take, by [`rate`].
    pub(crate) seconds: Option<Amount>,
    /// Bytes of the rows' images, if they have any, by the mean size of the source's images or of those generated so
    /// far. Before the first one is generated, the size is estimated.
    pub(crate) bytes: Option<Amount>,
}

/// Returns how fast this lake's images were generated so far, or the paper's rate before the first one.
///
/// # Errors
/// Returns an error if the ledger cannot be read.
pub(crate) async fn rate(project: &Project) -> Result<Rate> {
    for columns in project.query("report/rate.sql").await?.columns() {
        let (evaluations, seconds) = (columns.floats("unet_evaluations")?, columns.floats("seconds")?);
        let measured =
            evaluations.iter().zip(&seconds).find_map(|(evaluations, seconds)| Some((evaluations?, seconds?)));
        if let Some((evaluations, seconds)) = measured.filter(|(_, seconds)| *seconds > 0.0) {
            return Ok(Rate { unet_evaluations: evaluations / seconds, measured: true });
        }
    }
    Ok(Rate { unet_evaluations: PAPER_RATE, measured: false })
}

/// What a run would do.
#[derive(Debug)]
pub(crate) struct Forecast {
    pub(crate) steps: Vec<StepForecast>,
    /// What is allowed and probably not intended.
    pub(crate) warnings: Vec<Warning>,
}

impl Forecast {
    /// Whether images are yet to be read.
    pub(crate) fn reads(&self) -> bool {
        self.steps.iter().any(|forecast| forecast.step == schema::PIXELS && !forecast.skipped)
    }
}

/// Forecasts what a run of `pipeline` would do, step by step; until the step `last`, if there is one.
///
/// # Errors
/// Returns an error if the lake or the source cannot be read, if a query fails, or if an epoch would train on no synthetic
/// image.
pub(crate) async fn forecast(pipeline: &Pipeline, last: Option<&str>) -> Result<Forecast> {
    let project = &pipeline.project;
    let speed = rate(project).await?.unet_evaluations;
    let mut forecaster = Forecaster { pipeline, snapshot: project.session.snapshot().await?, unknown: BTreeSet::new() };
    let mut forecasts = Forecast { steps: Vec::new(), warnings: Vec::new() };
    for (step, reason) in project.plan.steps.iter().zip(staleness::reasons(project).await?) {
        let mut forecast = StepForecast {
            step: step.table.name.clone(),
            skipped: reason.is_none(),
            reason: reason.unwrap_or_else(|| "it is up to date".into()),
            rows: Some(Amount::exactly(0)),
            unet_evaluations: None,
            seconds: None,
            bytes: None,
        };
        if !forecast.skipped {
            (forecast.rows, forecast.unet_evaluations) = forecaster.work(step).await?;
            forecast.seconds = forecast.unet_evaluations.map(|evaluations| evaluations.times(1.0 / speed));
        }
        if let (Some(rows), Some(each)) = (forecast.rows, bytes_per_row(pipeline, step).await?) {
            forecast.bytes = Some(rows.times(each));
        }
        forecasts.steps.push(forecast);
        // Until all images are read, only the queries that come with the program need no more than the listing.
        let is_known =
            !forecaster.unknown.contains(&step.table.name) && (step.query.is_built_in() || !forecasts.reads());
        if step.table.name == schema::HARD_SAMPLES && is_known {
            forecasts.warnings.extend(shares::check(project, &forecaster.snapshot).await?);
        }
        if step.table.name == schema::MANIFEST && !forecaster.unknown.contains(schema::MANIFEST) {
            forecasts.warnings.extend(shares::empty_epochs(project, &forecaster.snapshot).await?);
        }
        if last == Some(step.table.name.as_str()) {
            break;
        }
    }
    Ok(forecasts)
}

/// Follows the steps without running a model: computes the rows of full-refresh tables, and counts those of incremental
/// tables.
struct Forecaster<'a> {
    pipeline: &'a Pipeline,
    /// The tables as a run would leave them, as far as that is known.
    snapshot: Snapshot,
    /// Tables whose rows depend on images that do not exist yet.
    unknown: BTreeSet<String>,
}

impl Forecaster<'_> {
    /// Returns the rows and UNet evaluations of a step that has to run; `None` for what is not known or does not apply.
    async fn work(&mut self, step: &Step) -> Result<(Option<Amount>, Option<Amount>)> {
        let name = &step.table.name;
        match step.table.kind {
            Kind::Incremental { over: LISTING, .. } => Ok((Some(self.expect_images(step).await?), None)),
            Kind::Incremental { .. } => {
                let work = self.model_work(name).await?;
                if work.rows.at_most > 0 {
                    self.unknown.insert(name.clone());
                }
                let generates = step.query.functions.contains("img2img");
                Ok((Some(work.rows), generates.then_some(work.unet_evaluations)))
            }
            _ if step.calls_models()
                || (step.repeats_to.is_none()
                    && step.query.tables.iter().any(|table| self.unknown.contains(table))) =>
            {
                self.unknown.insert(name.clone());
                Ok((None, None))
            }
            _ => Ok((Some(self.compute(step).await?), None)),
        }
    }

    /// Runs the query of a full-refresh step, and puts its rows into the snapshot.
    async fn compute(&mut self, step: &Step) -> Result<Amount> {
        let name = &step.query.name;
        let context = self.pipeline.project.session.context(&self.snapshot)?;
        let rows = session::query(&context, name, &step.statement).await?;
        let batches = rows.collect().await.map_err(|error| Error::query(name, error))?;
        let batches = conform_batches(name, &batches, &step.table.schema)?;
        let count: usize = batches.iter().map(RecordBatch::num_rows).sum();
        self.snapshot.set(&step.table.name, Arc::clone(&step.table.schema), batches)?;
        Ok(Amount::exactly(count as i64))
    }

    /// Expects every image of the source that was not read yet to be readable. Puts rows without pixels for these into
    /// the snapshot, next to those that exist, and returns their number.
    async fn expect_images(&mut self, step: &Step) -> Result<Amount> {
        let fail = |error| Error::query(&step.query.name, error);
        let context = self.pipeline.project.session.context(&self.snapshot)?;
        let table = step.table.name.as_str();
        let read = context.table(table).await.and_then(|rows| rows.select_columns(&["pixel_id"]));
        let rejected = context.table(schema::REJECTS).await.and_then(|rows| rows.select_columns(&["id"]));
        let listing = context.table(LISTING).await.map_err(fail)?;
        let due = listing
            .join(read.map_err(fail)?, JoinType::LeftAnti, &["pixel_id"], &["pixel_id"], None)
            .and_then(|rows| rows.join(rejected?, JoinType::LeftAnti, &["pixel_id"], &["id"], None))
            .map_err(fail)?;
        let due = due.collect().await.map_err(fail)?;
        let columns = ["pixel_id", "source_id", "info"];
        let existing = context.table(table).await.and_then(|rows| rows.select_columns(&columns)).map_err(fail)?;
        let mut rows: Vec<RecordBatch> = Vec::new();
        for batch in existing.collect().await.map_err(fail)?.iter().chain(&due) {
            rows.push(without_pixels(batch, &step.table).map_err(|error| fail(error.into()))?);
        }
        self.snapshot.set(table, Arc::clone(&step.table.schema), rows)?;
        Ok(Amount::exactly(due.iter().map(RecordBatch::num_rows).sum::<usize>() as i64))
    }

    /// Returns the row of `sql/report/forecast.sql` for `table`.
    async fn model_work(&self, table: &str) -> Result<Work> {
        let answer = self.pipeline.project.query_on(&self.snapshot, "report/forecast.sql", &[]).await?;
        for columns in answer.columns() {
            let steps = columns.strings("step")?;
            let Some(row) = steps.iter().position(|step| step == Some(table)) else { continue };
            let number = |name: &str| Ok::<_, Error>(columns.integers(name)?.value(row));
            return Ok(Work {
                rows: Amount { due: number("rows")?, at_most: number("rows_at_most")? },
                unet_evaluations: Amount {
                    due: number("unet_evaluations")?,
                    at_most: number("unet_evaluations_at_most")?,
                },
            });
        }
        Ok(Work { rows: Amount::exactly(0), unet_evaluations: Amount::exactly(0) })
    }
}

struct Work {
    rows: Amount,
    unet_evaluations: Amount,
}

/// Returns the columns of `table` that `batch` has, and nulls for the others.
fn without_pixels(batch: &RecordBatch, table: &Table) -> Result<RecordBatch, ArrowError> {
    let columns = table.schema.fields().iter().map(|field| match batch.column_by_name(field.name()) {
        Some(column) => cast(column, field.data_type()),
        None => Ok(new_null_array(field.data_type(), batch.num_rows())),
    });
    RecordBatch::try_new(Arc::clone(&table.schema), columns.collect::<Result<_, _>>()?)
}

/// Returns the mean bytes of the image in a row of `step`; `None` if its rows have no images, or if nothing is known
/// about their size.
async fn bytes_per_row(pipeline: &Pipeline, step: &Step) -> Result<Option<f64>> {
    let source = pipeline.source.mean_bytes();
    if step.query.functions.contains("read_image") {
        return Ok(source);
    }
    if !step.query.functions.contains("img2img") {
        return Ok(None);
    }
    let project = &pipeline.project;
    if let Some(size) = project.session.lake().size(&step.table).await?.filter(|size| size.rows > 0) {
        return Ok(Some(size.bytes as f64 / size.rows as f64));
    }
    let spectrum = &project.config.spectrum;
    let pixels = spectrum.area.or(spectrum.size.map(|(width, height)| width * height));
    let sized = pixels.map(|pixels| pixels as f64 * BYTES_PER_PIXEL);
    Ok(sized.or(source.map(|bytes| bytes * PNG_PER_JPEG)))
}
