//! Feedback: what a trainer measured on the spectrum validation set, handed in as a file, so that an adaptive
//! curriculum can choose the next level.

use std::{path::Path, sync::Arc, time::Duration};

use arrow::{
    array::{AsArray, RecordBatch},
    compute::concat_batches,
    datatypes::Int64Type,
};
use datafusion::prelude::{ParquetReadOptions, SessionContext};

use crate::{
    error::{Error, Result},
    lake::UnitRows,
    pipeline::Pipeline,
    schema::{self, Table},
    session,
};

const ID: &str = "feedback_id";
/// How often the table is looked at while a run waits for more.
const PAUSE: Duration = Duration::from_secs(1);

/// An epoch that an adaptive curriculum waits for.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Awaited {
    /// The training run.
    pub trial: String,
    /// Its next epoch.
    pub epoch: i64,
}

/// Adds the feedback in a Parquet file to the table; rows that are there already stay as they are. Gives the number of
/// rows that were added.
///
/// # Errors
/// Where the file cannot be read, has not the columns, or anything is wrong with its rows: then none is added.
pub async fn import(pipeline: &Pipeline, file: &Path) -> Result<usize> {
    let table = table()?;
    let mut snapshot = pipeline.session.snapshot(&pipeline.own_tables).await?;
    let context = pipeline.session.context(&snapshot, &Arc::default())?;
    let rows = read(pipeline, &context, file, table).await?;
    snapshot.set("incoming", Arc::clone(&table.schema), vec![rows.clone()])?;
    let context = pipeline.session.context(&snapshot, &Arc::default())?;
    let problems = problems(pipeline, &context).await?;
    if !problems.is_empty() {
        let said = format!("`{}`: {}", file.display(), problems.join("; "));
        return Err(Error::Data(format!(
            "{said}\nhint: nothing of it was taken; hand in the whole of an epoch's phases"
        )));
    }
    let lake = pipeline.session.lake();
    let known = lake.ids(table, ID).await?;
    let ids = rows.column_by_name(ID).map(|ids| ids.as_string::<i32>().clone());
    let added = ids.iter().flatten().flatten().filter(|id| !known.contains(*id)).count();
    lake.append(table, ID, &[UnitRows { unit: "feedback".into(), rows }]).await?;
    Ok(added)
}

/// What the curriculum of `pipeline` waits for; nothing where it is not adaptive, or through.
///
/// # Errors
/// Where the tables cannot be read.
pub async fn awaited(pipeline: &Pipeline) -> Result<Vec<Awaited>> {
    let adapts = |step: &crate::plan::Step| step.table.name == "schedule" && step.query.tables.contains("progress");
    if !pipeline.plan.steps.iter().any(adapts) {
        return Ok(Vec::new());
    }
    let snapshot = pipeline.session.snapshot(&pipeline.own_tables).await?;
    let context = pipeline.session.context(&snapshot, &Arc::default())?;
    let mut awaited = Vec::new();
    for batch in rows(pipeline, &context, "report/awaited.sql").await? {
        let (Some(trials), Some(epochs)) = (batch.column_by_name("trial"), batch.column_by_name("epoch")) else {
            continue;
        };
        let trials = arrow::compute::cast(trials, &arrow::datatypes::DataType::Utf8).map_err(failed)?;
        let pairs = trials.as_string::<i32>().iter().zip(epochs.as_primitive::<Int64Type>());
        awaited.extend(pairs.filter_map(|(trial, epoch)| Some(Awaited { trial: trial?.to_owned(), epoch: epoch? })));
    }
    Ok(awaited)
}

/// Waits until the table has changed since `pipeline` was opened.
///
/// # Errors
/// Where the lake cannot be read.
pub async fn wait(pipeline: &Pipeline) -> Result<()> {
    let lake = pipeline.session.lake();
    while lake.read(table()?).await?.map(|reading| reading.version) == pipeline.feedback {
        tokio::time::sleep(PAUSE).await;
    }
    Ok(())
}

fn table() -> Result<&'static Table> {
    schema::find(schema::FEEDBACK).ok_or_else(|| Error::Data("no schema of `feedback`".into()))
}

async fn read(pipeline: &Pipeline, context: &SessionContext, file: &Path, table: &Table) -> Result<RecordBatch> {
    let name = file.display().to_string();
    let fail = |error| Error::query(name.clone(), error);
    let found = context.read_parquet(name.as_str(), ParquetReadOptions::default()).await.map_err(fail)?;
    context.register_table("file", found.into_view()).map_err(fail)?;
    let batches = rows(pipeline, context, "feedback/incoming.sql").await.map_err(|error| {
        let columns: Vec<_> = table.schema.fields().iter().skip(1).map(|field| format!("`{}`", field.name())).collect();
        Error::Data(format!("`{name}` is no feedback, which has {}: {error}", columns.join(", ")))
    })?;
    let batches = schema::conform::conform_batches(&name, &batches, &table.schema)?;
    concat_batches(&table.schema, &batches).map_err(failed)
}

async fn problems(pipeline: &Pipeline, context: &SessionContext) -> Result<Vec<String>> {
    let mut problems = Vec::new();
    for batch in rows(pipeline, context, "feedback/problems.sql").await? {
        let (Some(said), Some(counts)) = (batch.column_by_name("problem"), batch.column_by_name("rows")) else {
            continue;
        };
        let said = arrow::compute::cast(said, &arrow::datatypes::DataType::Utf8).map_err(failed)?;
        for (problem, count) in said.as_string::<i32>().iter().zip(counts.as_primitive::<Int64Type>()) {
            if let (Some(problem), Some(count @ 1..)) = (problem, count) {
                problems.push(format!("{count} {problem}"));
            }
        }
    }
    problems.sort();
    Ok(problems)
}

async fn rows(pipeline: &Pipeline, context: &SessionContext, name: &str) -> Result<Vec<RecordBatch>> {
    let statement = pipeline.catalogue.get(name)?.bind(&pipeline.plan.parameters)?;
    let rows = session::query(context, name, &statement).await?;
    rows.collect().await.map_err(|error| Error::query(name, error))
}

fn failed(error: arrow::error::ArrowError) -> Error {
    Error::query("feedback", error.into())
}
