//! `sql`: queries over the tables of a pipeline, with its models as functions and its `$name` parameters.
//! Nothing can be written from here.

use std::{
    io::{BufRead, IsTerminal},
    path::PathBuf,
    process::ExitCode,
    sync::Arc,
};

use arrow::{
    array::{Array, ArrayRef, AsArray, RecordBatch, StringArray},
    datatypes::{DataType, Field, Schema},
    util::pretty::pretty_format_batches,
};
use clap::Args;
use datafusion::prelude::SessionContext;

use super::{Format, Target, output};
use crate::{
    error::{self, Error, Result},
    pipeline::Project,
    plan::{
        self,
        catalogue::{self, Query},
    },
    schema, session,
};

#[derive(Debug, Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    pub(super) target: Target,
    /// The query; without one they are read from stdin, each ended by `;`
    #[arg(conflicts_with = "file")]
    query: Option<String>,
    /// A file with the query
    #[arg(short, long, value_name = "FILE")]
    file: Option<PathBuf>,
}

pub(super) async fn execute(arguments: &Arguments) -> Result<ExitCode> {
    let format = arguments.target.format;
    let text = match (&arguments.query, &arguments.file) {
        (Some(query), _) => query.clone(),
        (None, Some(file)) => std::fs::read_to_string(file)
            .map_err(|error| Error::Data(format!("`{}` cannot be read: {error}", file.display())))?,
        (None, None) => return from_stdin(&Shell::open(arguments.target.open().await?.project).await?, format).await,
    };
    let needs_lake_alone = Query::parse("sql", &text).is_ok_and(|query| plan::needs_lake_alone(&query));
    let project = match needs_lake_alone {
        true => arguments.target.open_project().await?,
        false => arguments.target.open().await?.project,
    };
    Shell::open(project).await?.answer(&text, format).await?;
    Ok(ExitCode::SUCCESS)
}

/// A project and its tables as they were when the command began.
struct Shell {
    project: Project,
    context: SessionContext,
}

impl Shell {
    async fn open(project: Project) -> Result<Self> {
        let context = project.session.context(&project.session.snapshot().await?)?;
        Ok(Self { project, context })
    }
}

/// Answers queries from stdin, each ended by `;` at the end of a line. On a terminal an error ends a query
/// and not the session.
async fn from_stdin(shell: &Shell, format: Format) -> Result<ExitCode> {
    let terminal = std::io::stdin().is_terminal();
    if terminal {
        output::note("queries end with `;`, Ctrl-D leaves; `SHOW TABLES;` lists what there is");
    }
    let mut text = String::new();
    let mut lines = std::io::stdin().lock().lines();
    loop {
        let line = lines.next().transpose();
        let line = line.map_err(|error| Error::Data(format!("stdin cannot be read: {error}")))?;
        let ended = line.as_ref().is_none_or(|line| line.trim_end().ends_with(';'));
        let last = line.is_none();
        text.push_str(line.as_deref().unwrap_or_default());
        text.push('\n');
        if ended && !text.trim().is_empty() {
            let query = std::mem::take(&mut text);
            match shell.answer(&query, format).await {
                Err(error) if terminal => output::note(format!("error: {}", error::chain(&error))),
                result => result?,
            }
        }
        if last {
            return Ok(ExitCode::SUCCESS);
        }
    }
}

impl Shell {
    async fn answer(&self, text: &str, format: Format) -> Result<()> {
        let fail = |error| Error::query("sql", error);
        catalogue::hold_chains("sql", text)?;
        let rows = match Query::parse("sql", text) {
            Ok(query) => session::query(&self.context, "sql", &query.bind(&self.project.plan.parameters)?).await?,
            // EXPLAIN and SHOW are not queries, but only read.
            Err(_) => self.context.sql_with_options(text, session::reading()).await.map_err(fail)?,
        };
        let batches: Vec<RecordBatch> = rows
            .collect()
            .await
            .map_err(fail)?
            .iter()
            .map(without_pixels)
            .collect::<Result<_, _>>()
            .map_err(|error| fail(error.into()))?;
        match format {
            Format::Text => {
                let table = pretty_format_batches(&batches).map_err(|error| fail(error.into()))?;
                output::line(table.to_string());
            }
            Format::Json => {
                let mut writer = arrow::json::ArrayWriter::new(Vec::new());
                let written = writer.write_batches(&batches.iter().collect::<Vec<_>>()).and_then(|()| writer.finish());
                written.map_err(|error| fail(error.into()))?;
                let bytes = writer.into_inner();
                output::line(if bytes.is_empty() { "[]".into() } else { String::from_utf8_lossy(&bytes) });
            }
        }
        Ok(())
    }
}

/// Images are shown as their size: a terminal has no use for their bytes.
fn without_pixels(batch: &RecordBatch) -> Result<RecordBatch, arrow::error::ArrowError> {
    let shown = |field: &Arc<Field>, column: &ArrayRef| -> (Field, ArrayRef) {
        let images = matches!(field.data_type(), DataType::Struct(fields) if fields.find("bytes").is_some());
        match schema::image_bytes(column) {
            Some(bytes) if images || column.data_type().is_binary() => {
                let errors =
                    column.as_struct_opt().and_then(|parts| parts.column_by_name(schema::ERROR_FIELD)).cloned();
                let texts: StringArray = (0..bytes.len())
                    .map(|row| match &errors {
                        Some(errors) if errors.is_valid(row) => {
                            Some(format!("error: {}", errors.as_string::<i32>().value(row)))
                        }
                        _ => bytes.is_valid(row).then(|| format!("{} bytes", bytes.value(row).len())),
                    })
                    .collect();
                (Field::new(field.name(), DataType::Utf8, true), Arc::new(texts))
            }
            _ => (field.as_ref().clone(), Arc::clone(column)),
        }
    };
    let schema = batch.schema();
    let (fields, columns): (Vec<Field>, Vec<ArrayRef>) =
        schema.fields().iter().zip(batch.columns()).map(|(field, column)| shown(field, column)).unzip();
    RecordBatch::try_new(Arc::new(Schema::new(fields)), columns)
}
