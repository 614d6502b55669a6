//! Feedback: what a trainer measured on the spectrum validation set, imported from a file, so that an adaptive curriculum
//! can choose the next level.

use std::{path::Path, sync::Arc, time::Duration};

use arrow::{
    array::{AsArray, RecordBatch},
    compute::concat_batches,
};
use datafusion::{
    error::DataFusionError,
    prelude::{ParquetReadOptions, SessionContext},
};

use crate::{
    error::{Error, Result},
    lake::UnitRows,
    pipeline::Project,
    schema::{self, FEEDBACK_TABLE, conform::conform_batches},
    session::Snapshot,
};

const ID: &str = "feedback_id";
/// How often the table is checked while a run waits for more feedback.
const POLL_INTERVAL: Duration = Duration::from_secs(1);

/// An epoch for which an adaptive curriculum needs feedback.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub(crate) struct Awaited {
    pub(crate) trial: String,
    pub(crate) epoch: i64,
    /// Whether the measurement before the probe is missing.
    pub(crate) before: bool,
    /// Whether the measurement after the probe is missing.
    pub(crate) after: bool,
    /// Whether the trial was measured on another spectrum validation set than today's. Then it cannot go on.
    pub(crate) stale: bool,
}

#[derive(Debug, thiserror::Error)]
enum FeedbackError {
    #[error("`{file}` cannot be read as Parquet: {problem}")]
    File { file: String, problem: String },
    #[error("`{file}` does not have the columns of feedback: {problem}\nhint: it needs {}", .columns.join(", "))]
    Columns { file: String, columns: Vec<String>, problem: String },
    #[error("`{file}`: {}\nhint: nothing was imported; submit all rows of an epoch's phase together", .problems.join("; "))]
    Rows { file: String, problems: Vec<String> },
}

impl From<FeedbackError> for Error {
    fn from(error: FeedbackError) -> Self {
        Self::input(error)
    }
}

/// Adds the feedback in a Parquet file to the table and returns the number of rows that were new.
///
/// # Errors
/// Returns an error if the file cannot be read, lacks a column, or has any wrong row; then no row is added.
pub(crate) async fn import(project: &Project, file: &Path) -> Result<usize> {
    let mut snapshot = project.session.snapshot().await?;
    let rows = read(project, &project.session.context(&snapshot)?, file).await?;
    snapshot.set("incoming", Arc::clone(&FEEDBACK_TABLE.schema), vec![rows.clone()])?;
    let problems = problems_of(project, &snapshot).await?;
    if !problems.is_empty() {
        return Err(FeedbackError::Rows { file: file.display().to_string(), problems }.into());
    }
    let lake = project.session.lake();
    let known = lake.ids(&FEEDBACK_TABLE, ID).await?;
    let ids = rows.column_by_name(ID).map(|ids| ids.as_string::<i32>().clone());
    let added = ids.iter().flatten().flatten().filter(|id| !known.contains(*id)).count();
    lake.append(&FEEDBACK_TABLE, ID, &[UnitRows { unit: "feedback".into(), rows }]).await?;
    Ok(added)
}

/// Lists the epochs for which the curriculum needs feedback: none if it is complete or not adaptive.
///
/// # Errors
/// Returns an error if the tables cannot be read.
pub(crate) async fn awaited(project: &Project) -> Result<Vec<Awaited>> {
    let is_adaptive =
        project.plan.step(schema::SCHEDULE).is_some_and(|step| step.query.tables.contains(schema::PROGRESS));
    if !is_adaptive {
        return Ok(Vec::new());
    }
    awaited_on(project, &project.session.snapshot().await?).await
}

/// Lists the epochs for which an adaptive curriculum needs feedback, by the tables of `snapshot`.
///
/// # Errors
/// Returns an error if the tables cannot be read.
pub(crate) async fn awaited_on(project: &Project, snapshot: &Snapshot) -> Result<Vec<Awaited>> {
    let mut awaited = Vec::new();
    for columns in project.query_on(snapshot, "feedback/awaited.sql", &[]).await?.columns() {
        let (trials, epochs) = (columns.strings("trial")?, columns.integers("epoch")?);
        let (before, after) = (columns.booleans("before")?, columns.booleans("after")?);
        let stale = columns.booleans("stale")?;
        awaited.extend((0..columns.rows()).map(|row| Awaited {
            trial: trials.value(row).to_owned(),
            epoch: epochs.value(row),
            before: before.value(row),
            after: after.value(row),
            stale: stale.value(row),
        }));
    }
    Ok(awaited)
}

/// Waits until the table has another version than the plan of `project` depends on.
///
/// # Errors
/// Returns an error if the lake cannot be read.
pub(crate) async fn wait(project: &Project) -> Result<()> {
    let lake = project.session.lake();
    while lake.read(&FEEDBACK_TABLE).await?.map(|reading| reading.version) == project.feedback {
        tokio::time::sleep(POLL_INTERVAL).await;
    }
    Ok(())
}

/// Reads the rows of the file, with their ids.
async fn read(project: &Project, context: &SessionContext, file: &Path) -> Result<RecordBatch> {
    let name = file.display().to_string();
    let fail = |error: DataFusionError| FeedbackError::File {
        file: name.clone(),
        problem: error.find_root().message().into_owned(),
    };
    // The statistics of a file leave NaN out, so they could say that a column holds a single number although it does not.
    context.state_ref().write().config_mut().options_mut().execution.collect_statistics = false;
    let found = context.read_parquet(name.as_str(), ParquetReadOptions::default()).await.map_err(fail)?;
    context.register_table("file", found.into_view()).map_err(fail)?;
    let query = "feedback/incoming.sql";
    let rows = match project.plan_query(context, query, &[]).await {
        Ok(rows) => rows.collect().await.map_err(|error| Error::query(query, error)),
        Err(error) => Err(error),
    };
    let batches = rows.map_err(|error| {
        let columns =
            FEEDBACK_TABLE.schema.fields().iter().skip(1).map(|field| format!("`{}`", field.name())).collect();
        FeedbackError::Columns { file: name.clone(), columns, problem: error.to_string() }
    })?;
    let batches = conform_batches(&name, &batches, &FEEDBACK_TABLE.schema)?;
    concat_batches(&FEEDBACK_TABLE.schema, &batches).map_err(|error| Error::query(schema::FEEDBACK, error.into()))
}

/// Returns the problems of the rows `incoming` of `snapshot`, each with the number of rows that it concerns.
///
/// # Errors
/// Returns an error if the tables cannot be read.
pub(crate) async fn problems_of(project: &Project, snapshot: &Snapshot) -> Result<Vec<String>> {
    let mut problems = Vec::new();
    for columns in project.query_on(snapshot, "feedback/problems.sql", &[]).await?.columns() {
        let (descriptions, counts) = (columns.strings("problem")?, columns.integers("rows")?);
        let found =
            descriptions.iter().zip(&counts).filter_map(|(problem, count)| Some((problem?, count.filter(|&n| n > 0)?)));
        problems.extend(found.map(|(problem, count)| format!("{count} {problem}")));
    }
    problems.sort();
    Ok(problems)
}
