//! `sql`: queries over the tables of a pipeline, with its models as functions and its `$name` parameters. It cannot write.

use std::{
    io::{BufRead, IsTerminal},
    path::PathBuf,
    process::ExitCode,
    sync::Arc,
};

use arrow::{
    array::{Array, ArrayRef, AsArray, RecordBatch, StringArray},
    datatypes::{DataType, Field, Schema},
    error::ArrowError,
    util::pretty::pretty_format_batches,
};
use clap::{Args, ValueEnum};
use datafusion::prelude::SessionContext;

use super::{
    CliError,
    output::{self, Format},
    target::{self, Models, PipelineFile, Tables},
};
use crate::{
    error::{self, Error, Result, text},
    pipeline::Project,
    plan::{
        self,
        catalogue::{self, Query},
    },
    schema, session,
};

/// How the shell is left and what it has; shown when it begins on a terminal.
const HELP: &str = "end a query with `;`, list the tables with `.tables`, leave with `.quit` or Ctrl-D";

#[derive(Debug, Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    pub(super) file: PipelineFile,
    #[command(flatten)]
    tables: Tables,
    #[command(flatten)]
    models: Models,
    /// The query; without one, queries are read from stdin, each ended by `;`
    #[arg(conflicts_with = "query_file")]
    query: Option<String>,
    /// Read the query from a file
    #[arg(short = 'f', long = "file", value_name = "FILE")]
    query_file: Option<PathBuf>,
    /// How to print results
    #[arg(long, value_enum, default_value_t, display_order = target::LAST)]
    format: RowFormat,
}

/// How rows are printed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
enum RowFormat {
    #[default]
    Text,
    Json,
    Csv,
}

impl Arguments {
    /// The format of errors.
    pub(super) fn format(&self) -> Format {
        match self.format {
            RowFormat::Text | RowFormat::Csv => Format::Text,
            RowFormat::Json => Format::Json,
        }
    }
}

pub(super) async fn execute(arguments: &Arguments) -> Result<ExitCode> {
    let Arguments { file, tables, models, query, query_file, format } = arguments;
    let text = match (query, query_file) {
        (Some(query), _) => query.clone(),
        (None, Some(file)) => std::fs::read_to_string(file)
            .map_err(|source| CliError::File { path: file.display().to_string(), source })?,
        (None, None) => {
            let shell = Shell::new(target::open(file, tables, Some(models)).await?.project).await?;
            return shell.answer_stdin(*format).await;
        }
    };
    let needs_lake_alone = match Query::parse("sql", &text) {
        Ok(query) => plan::needs_lake_alone(&query),
        Err(_) => only_plans(&text),
    };
    let project = match needs_lake_alone {
        true => target::open_project(file, tables).await?,
        false => target::open(file, tables, Some(models)).await?.project,
    };
    Shell::new(project).await?.answer(&text, *format).await?;
    Ok(ExitCode::SUCCESS)
}

/// Whether a statement that is not a query calls no function: it shows tables, or the plan of a query.
fn only_plans(text: &str) -> bool {
    let mut words = text.split_whitespace().map(str::to_ascii_uppercase);
    match words.next().as_deref() {
        Some("SHOW" | "DESCRIBE") => true,
        Some("EXPLAIN") => words.next().is_some_and(|word| word != "ANALYZE"),
        _ => false,
    }
}

/// A project, with its tables as they were when the command began.
struct Shell {
    project: Project,
    context: SessionContext,
}

impl Shell {
    async fn new(project: Project) -> Result<Self> {
        let context = project.session.context(&project.session.snapshot().await?)?;
        Ok(Self { project, context })
    }

    /// Answers queries from stdin, each ended by `;` at the end of a line. On a terminal, an error ends the query but not
    /// the session.
    async fn answer_stdin(&self, format: RowFormat) -> Result<ExitCode> {
        let terminal = std::io::stdin().is_terminal();
        if terminal {
            output::note(HELP);
        }
        let mut text = String::new();
        let mut lines = std::io::stdin().lock().lines();
        loop {
            let line = lines.next().transpose();
            let line = line.map_err(CliError::Stdin)?;
            if terminal && text.trim().is_empty() {
                match line.as_deref().map(|line| line.trim().trim_end_matches(';')) {
                    Some(".quit" | ".exit" | "quit" | "exit") => return Ok(ExitCode::SUCCESS),
                    Some(".help" | "help") => {
                        output::note(HELP);
                        continue;
                    }
                    Some(".tables") => {
                        output::line(table_names(&self.context).join("\n"));
                        continue;
                    }
                    _ => {}
                }
            }
            let ended = line.as_ref().is_none_or(|line| line.trim_end().ends_with(';'));
            let last = line.is_none();
            text.push_str(line.as_deref().unwrap_or_default());
            text.push('\n');
            if ended && !text.trim().is_empty() {
                let query = std::mem::take(&mut text);
                match self.answer(&query, format).await {
                    Err(error) if terminal => output::note(format!("error: {}", error::chain(&error))),
                    result => result?,
                }
            }
            if last {
                return Ok(ExitCode::SUCCESS);
            }
        }
    }

    async fn answer(&self, text: &str, format: RowFormat) -> Result<()> {
        let fail = |error| Error::query("sql", error);
        catalogue::limit_chains("sql", text)?;
        let rows = match Query::parse("sql", text) {
            Ok(query) => session::query(&self.context, "sql", &query.bind(&self.project.plan.parameters)?)
                .await
                .map_err(|error| suggest_table(&query, &self.context, error))?,
            // EXPLAIN and SHOW are not queries, but only read.
            Err(_) => self.context.sql_with_options(text, session::reading()).await.map_err(fail)?,
        };
        // Without a row there is no batch, and only the schema has the headings.
        let empty = RecordBatch::new_empty(Arc::clone(rows.schema().inner()));
        let mut batches = rows.collect().await.map_err(fail)?;
        if batches.is_empty() && format != RowFormat::Json {
            batches.push(empty);
        }
        let batches: Vec<RecordBatch> =
            batches.iter().map(without_pixels).collect::<Result<_, _>>().map_err(|error| fail(error.into()))?;
        let printed = print(&batches, format).map_err(|error| fail(error.into()))?;
        output::line(printed);
        Ok(())
    }
}

/// The tables that a query may name, in order.
fn table_names(context: &SessionContext) -> Vec<String> {
    let options = context.copied_config().options().catalog.clone();
    let schema = context.catalog(&options.default_catalog).and_then(|catalog| catalog.schema(&options.default_schema));
    let mut names = schema.map(|schema| schema.table_names()).unwrap_or_default();
    names.sort();
    names
}

fn print(batches: &[RecordBatch], format: RowFormat) -> Result<String, ArrowError> {
    let bytes = match format {
        RowFormat::Text => return Ok(pretty_format_batches(batches)?.to_string()),
        RowFormat::Json => {
            let mut writer = arrow::json::ArrayWriter::new(Vec::new());
            writer.write_batches(&batches.iter().collect::<Vec<_>>())?;
            writer.finish()?;
            let bytes = writer.into_inner();
            if bytes.is_empty() { b"[]".to_vec() } else { bytes }
        }
        RowFormat::Csv => {
            let mut writer = arrow::csv::Writer::new(Vec::new());
            batches.iter().try_for_each(|batch| writer.write(batch))?;
            writer.into_inner()
        }
    };
    Ok(String::from_utf8_lossy(&bytes).trim_end_matches('\n').to_owned())
}

/// `error` of `query`, with the table that was probably meant if one does not exist.
fn suggest_table(query: &Query, context: &SessionContext, error: Error) -> Error {
    let Error::Query { message, .. } = &error else { return error };
    let known = table_names(context);
    let unknown =
        query.tables.iter().find(|name| !known.contains(name) && message.contains(&format!(".{name}' not found")));
    let Some(unknown) = unknown else { return error };
    let known: Vec<&str> = known.iter().map(String::as_str).collect();
    let hint = match text::similar(unknown, &known) {
        Some(meant) => format!("did you mean `{meant}`?"),
        None => format!("the tables are {}", text::list(&known, "and")),
    };
    let message = format!("there is no table `{unknown}`; {hint}");
    Error::Query { query: "sql".to_owned(), message }
}

/// Replaces the bytes of images by their size: a terminal has no use for them.
fn without_pixels(batch: &RecordBatch) -> Result<RecordBatch, ArrowError> {
    let shown = |field: &Arc<Field>, column: &ArrayRef| -> (Field, ArrayRef) {
        let images = matches!(field.data_type(), DataType::Struct(fields) if fields.find("bytes").is_some());
        match schema::image_bytes(column) {
            Some(bytes) if images || column.data_type().is_binary() => {
                let errors =
                    column.as_struct_opt().and_then(|parts| parts.column_by_name(schema::ERROR_FIELD)).cloned();
                let sizes: StringArray = (0..bytes.len())
                    .map(|row| match &errors {
                        Some(errors) if errors.is_valid(row) => {
                            Some(format!("error: {}", errors.as_string::<i32>().value(row)))
                        }
                        _ => bytes.is_valid(row).then(|| format!("{} bytes", bytes.value(row).len())),
                    })
                    .collect();
                (Field::new(field.name(), DataType::Utf8, true), Arc::new(sizes))
            }
            _ => (field.as_ref().clone(), Arc::clone(column)),
        }
    };
    let schema = batch.schema();
    let (fields, columns): (Vec<Field>, Vec<ArrayRef>) =
        schema.fields().iter().zip(batch.columns()).map(|(field, column)| shown(field, column)).unzip();
    RecordBatch::try_new(Arc::new(Schema::new(fields)), columns)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plans_are_shown_without_calling_a_function() {
        for text in ["SHOW TABLES", "describe images;", "EXPLAIN SELECT img2img(image, '', 0, 0) FROM pixels"] {
            assert!(only_plans(text), "{text}");
        }
        for text in ["EXPLAIN ANALYZE SELECT 1", "explain", "SELEC 1", ""] {
            assert!(!only_plans(text), "{text}");
        }
    }
}
