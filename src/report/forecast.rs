//! What a run would do, before it does it: which steps run and why, how many rows, how many UNet
//! evaluations. Everything that is only chosen is computed; no model runs and nothing is written.

use std::{collections::BTreeSet, sync::Arc};

use arrow::{
    array::{Array, AsArray, RecordBatch, new_null_array},
    compute::cast,
    datatypes::{DataType, Float64Type, Int64Type},
    error::ArrowError,
};
use datafusion::common::JoinType;

use crate::{
    error::{Error, Result},
    pipeline::{Pipeline, staleness::why},
    plan::Step,
    report,
    schema::{self, Kind, LISTING, Table, conform::conform_batches},
    session::{self, Snapshot},
};

/// A number that is known, or known to lie between two.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
pub struct Amount {
    /// What is due now: first attempts, and what else is known to be wanting.
    pub due: i64,
    /// At most, should every attempt that is allowed be needed.
    pub at_most: i64,
}

impl Amount {
    fn exactly(amount: i64) -> Self {
        Self { due: amount, at_most: amount }
    }

    /// As many times `each`, rounded.
    pub fn times(self, each: f64) -> Self {
        let times = |amount: i64| (amount as f64 * each).round() as i64;
        Self { due: times(self.due), at_most: times(self.at_most) }
    }
}

/// UNet evaluations a second of the paper's authors: 10 s for one spectrum of six levels, 175 timesteps with guidance, at
/// 480 x 270 on one RTX A5000 (section A.6).
const PAPERS_RATE: f64 = 35.0;

/// Bytes of a pixel of a photo as PNG; two photos of 0.1 and 0.2 megapixels took 1.3 to 1.8.
const BYTES_PER_PIXEL: f64 = 1.5;
/// Bytes of a photo as PNG for each that it has as JPEG; the same photos at quality 90 took 5.1 to 7.2.
const PNG_PER_JPEG: f64 = 6.0;

/// How fast images are made.
#[derive(Debug, Clone, Copy, PartialEq, serde::Serialize)]
pub struct Rate {
    /// UNet evaluations a second.
    pub unet_evaluations: f64,
    /// Whether this lake's own images were made at this rate; else it is the paper's.
    pub measured: bool,
}

/// What a run would do with one step.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct StepForecast {
    /// Its table.
    pub step: String,
    /// Whether there is nothing to do.
    pub skipped: bool,
    /// Why it would run, or not.
    pub reason: String,
    /// Rows that it would make; none where they depend on images that are not made yet.
    pub rows: Option<Amount>,
    /// Evaluations of the UNet; none where it is the same for `rows`.
    pub unet_evaluations: Option<Amount>,
    /// Seconds that these evaluations take, by [`rate`].
    pub seconds: Option<Amount>,
    /// Bytes of the rows' images, where they have some: those of the source, and of made ones as many as the table's
    /// have in the mean, or a guess before there are any.
    pub bytes: Option<Amount>,
}

/// How fast this lake's images were made so far; the paper's rate where there are none.
///
/// # Errors
/// Where the ledger cannot be read.
pub async fn rate(pipeline: &Pipeline) -> Result<Rate> {
    for batch in report::rows(pipeline, "report/rate.sql").await? {
        let number = |name: &str| {
            let column = cast(batch.column_by_name(name)?, &DataType::Float64).ok()?;
            let column = column.as_primitive::<Float64Type>();
            (!column.is_empty() && column.is_valid(0)).then(|| column.value(0))
        };
        if let (Some(evaluations), Some(seconds)) = (number("unet_evaluations"), number("seconds"))
            && seconds > 0.0
        {
            return Ok(Rate { unet_evaluations: evaluations / seconds, measured: true });
        }
    }
    Ok(Rate { unet_evaluations: PAPERS_RATE, measured: false })
}

/// What a run of `pipeline` would do.
///
/// # Errors
/// Where the lake or the source cannot be read, or a query fails.
pub async fn forecast(pipeline: &Pipeline) -> Result<Vec<StepForecast>> {
    let session = &pipeline.session;
    let mut snapshot = session.snapshot(&pipeline.own_tables).await?;
    let speed = rate(pipeline).await?.unet_evaluations;
    let mut unknown: BTreeSet<String> = BTreeSet::new();
    let mut forecasts = Vec::new();
    for step in &pipeline.plan.steps {
        let reason = why(session, &pipeline.own_tables, step).await?;
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
            match step.table.kind {
                Kind::Accumulated { over: LISTING, .. } => {
                    forecast.rows = Some(expect_images(pipeline, &mut snapshot, step).await?);
                }
                Kind::Accumulated { .. } => {
                    let work = work(pipeline, &snapshot, &step.table).await?;
                    forecast.rows = Some(work.rows);
                    forecast.unet_evaluations =
                        step.query.functions.contains("img2img").then_some(work.unet_evaluations);
                    forecast.seconds = forecast.unet_evaluations.map(|evaluations| evaluations.times(1.0 / speed));
                    if work.rows.at_most > 0 {
                        unknown.insert(step.table.name.clone());
                    }
                }
                _ if step.repeats_to.is_none() && step.query.tables.iter().any(|table| unknown.contains(table)) => {
                    unknown.insert(step.table.name.clone());
                    forecast.rows = None;
                }
                _ => forecast.rows = Some(choose(pipeline, &mut snapshot, step).await?),
            }
        }
        if let (Some(rows), Some(each)) = (forecast.rows, bytes_of_a_row(pipeline, step).await?) {
            forecast.bytes = Some(rows.times(each));
        }
        forecasts.push(forecast);
    }
    Ok(forecasts)
}

/// Bytes of the image of a row that `step` makes; none where it makes none, or nobody can say.
async fn bytes_of_a_row(pipeline: &Pipeline, step: &Step) -> Result<Option<f64>> {
    let source = pipeline.session.functions().source.mean_bytes();
    if step.query.functions.contains("read_image") {
        return Ok(source);
    }
    if !step.query.functions.contains("img2img") {
        return Ok(None);
    }
    if let Some(size) = pipeline.session.lake().size(&step.table).await?.filter(|size| size.rows > 0) {
        return Ok(Some(size.bytes as f64 / size.rows as f64));
    }
    let sized = pipeline.config.spectrum.size.map(|(width, height)| (width * height) as f64 * BYTES_PER_PIXEL);
    Ok(sized.or(source.map(|bytes| bytes * PNG_PER_JPEG)))
}

/// Evaluates a step that only chooses, and puts its rows into `snapshot`.
async fn choose(pipeline: &Pipeline, snapshot: &mut Snapshot, step: &Step) -> Result<Amount> {
    let name = &step.query.name;
    let context = pipeline.session.context(snapshot, &Arc::default())?;
    let rows = session::query(&context, name, &step.statement).await?;
    let batches = rows.collect().await.map_err(|error| Error::query(name, error))?;
    let batches = conform_batches(name, &batches, &step.table.schema)?;
    let count: usize = batches.iter().map(RecordBatch::num_rows).sum();
    snapshot.set(&step.table.name, Arc::clone(&step.table.schema), batches)?;
    Ok(Amount::exactly(count as i64))
}

/// Expects every image that is not there yet to be readable: their number, and rows without pixels beside
/// those that are there.
async fn expect_images(pipeline: &Pipeline, snapshot: &mut Snapshot, step: &Step) -> Result<Amount> {
    let fail = |error| Error::query(&step.query.name, error);
    let context = pipeline.session.context(snapshot, &Arc::default())?;
    let made = context.table(step.table.name.as_str()).await.and_then(|rows| rows.select_columns(&["pixel_id"]));
    let rejected = context.table(schema::REJECTS).await.and_then(|rows| rows.select_columns(&["id"]));
    let listing = context.table(LISTING).await.map_err(fail)?;
    let due = listing
        .join(made.map_err(fail)?, JoinType::LeftAnti, &["pixel_id"], &["pixel_id"], None)
        .and_then(|rows| rows.join(rejected?, JoinType::LeftAnti, &["pixel_id"], &["id"], None))
        .map_err(fail)?;
    let due = due.collect().await.map_err(fail)?;
    let there = context
        .table(step.table.name.as_str())
        .await
        .and_then(|rows| rows.select_columns(&["pixel_id", "source_id", "info"]));
    let mut rows: Vec<RecordBatch> = Vec::new();
    for batch in there.map_err(fail)?.collect().await.map_err(fail)?.iter().chain(&due) {
        rows.push(without_pixels(batch, &step.table).map_err(|error| fail(error.into()))?);
    }
    snapshot.set(&step.table.name, Arc::clone(&step.table.schema), rows)?;
    Ok(Amount::exactly(due.iter().map(RecordBatch::num_rows).sum::<usize>() as i64))
}

/// The columns of `table` that `batch` has, and nothing in the others.
fn without_pixels(batch: &RecordBatch, table: &Table) -> Result<RecordBatch, ArrowError> {
    let columns = table.schema.fields().iter().map(|field| match batch.column_by_name(field.name()) {
        Some(column) => cast(column, field.data_type()),
        None => Ok(new_null_array(field.data_type(), batch.num_rows())),
    });
    RecordBatch::try_new(Arc::clone(&table.schema), columns.collect::<Result<_, _>>()?)
}

struct Work {
    rows: Amount,
    unet_evaluations: Amount,
}

/// The row of `sql/report/forecast.sql` for `table`.
async fn work(pipeline: &Pipeline, snapshot: &Snapshot, table: &Table) -> Result<Work> {
    let path = "report/forecast.sql";
    let statement = pipeline.catalogue.get(path)?.bind(&pipeline.plan.parameters)?;
    let context = pipeline.session.context(snapshot, &Arc::default())?;
    let rows = session::query(&context, path, &statement).await?;
    for batch in rows.collect().await.map_err(|error| Error::query(path, error))? {
        let column = |name: &str, ty: &DataType| batch.column_by_name(name).and_then(|c| cast(c, ty).ok());
        let Some(steps) = column("step", &DataType::Utf8) else {
            continue;
        };
        let Some(row) = (0..batch.num_rows()).find(|&row| steps.as_string::<i32>().value(row) == table.name) else {
            continue;
        };
        let number = |name: &str| {
            column(name, &DataType::Int64).map_or(0, |column| column.as_primitive::<Int64Type>().value(row))
        };
        return Ok(Work {
            rows: Amount { due: number("rows"), at_most: number("rows_at_most") },
            unet_evaluations: Amount { due: number("unet_evaluations"), at_most: number("unet_evaluations_at_most") },
        });
    }
    Ok(Work { rows: Amount::exactly(0), unet_evaluations: Amount::exactly(0) })
}
