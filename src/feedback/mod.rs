//! Feedback: what a trainer measured on the spectrum validation set, imported from a file, so that an adaptive curriculum
//! can choose the next level.

#[cfg(any(test, fuzzing))]
pub(crate) mod fuzzing;

use std::{path::Path, sync::Arc, time::Duration};

use arrow::{
    array::{AsArray, RecordBatch},
    compute::concat_batches,
};
use datafusion::{
    dataframe::DataFrame,
    error::DataFusionError,
    prelude::{ParquetReadOptions, SessionContext},
};

use crate::{
    error::{Error, Result, contained, is_about_a_file},
    lake::UnitRows,
    pipeline::Project,
    schema::{self, FEEDBACK_TABLE, conform::conform_batches},
    session::Snapshot,
};

/// Rows of a file. A few kilobytes can stand for a billion of equal ones.
const MAX_ROWS: usize = 1 << 22;
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
    #[error("`{file}` has more than {max} rows; submit each epoch in a separate file")]
    TooLong { file: String, max: usize },
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
    let batches = contained(read_file(project, context, &name)).await.unwrap_or_else(|panic| {
        let problem = format!("its reader panics: {panic}");
        Err(FeedbackError::File { file: name.clone(), problem })
    })?;
    let batches = conform_batches(&name, &batches, &FEEDBACK_TABLE.schema)?;
    concat_batches(&FEEDBACK_TABLE.schema, &batches).map_err(|error| Error::query(schema::FEEDBACK, error.into()))
}

async fn read_file(project: &Project, context: &SessionContext, file: &str) -> Result<Vec<RecordBatch>, FeedbackError> {
    let unreadable = |error: DataFusionError| FeedbackError::File {
        file: file.to_owned(),
        problem: error.find_root().message().into_owned(),
    };
    let other_columns = |error: Error| {
        let columns =
            FEEDBACK_TABLE.schema.fields().iter().skip(1).map(|field| format!("`{}`", field.name())).collect();
        FeedbackError::Columns { file: file.to_owned(), columns, problem: error.to_string() }
    };
    // The statistics of a file leave NaN out, so they could say that a column holds a single number although it does not.
    context.state_ref().write().config_mut().options_mut().execution.collect_statistics = false;
    let found = context.read_parquet(file, ParquetReadOptions::default()).await.map_err(unreadable)?;
    context.register_table("file", found.into_view()).map_err(unreadable)?;
    let query = "feedback/incoming.sql";
    let rows = project.plan_query(context, query, &[]).await.map_err(other_columns)?;
    let rows = at_most(rows, MAX_ROWS).await.map_err(|error| match is_about_a_file(error.find_root()) {
        true => unreadable(error),
        false => other_columns(Error::query(query, error)),
    })?;
    rows.ok_or_else(|| FeedbackError::TooLong { file: file.to_owned(), max: MAX_ROWS })
}

/// Returns the rows of a query, or `None` if there are more than `max`.
async fn at_most(rows: DataFrame, max: usize) -> Result<Option<Vec<RecordBatch>>, DataFusionError> {
    let rows = rows.limit(0, Some(max + 1))?.collect().await?;
    let count: usize = rows.iter().map(RecordBatch::num_rows).sum();
    Ok((count <= max).then_some(rows))
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
