//! The one public error: classed by what the caller can do about it.

pub(crate) mod diagnostics;
pub(crate) mod text;

pub use diagnostics::{Diagnostic, Diagnostics};

/// The result of everything here that can fail.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why a command failed. `Display` says what was wrong, where, and what to do; `source()` has the cause.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The pipeline's file is wrong: every problem of it, none of the work done.
    #[error("{0}")]
    Config(Diagnostics),
    /// A query is wrong: in the catalogue, in a replacement, or typed at the prompt.
    #[error("query `{query}`: {message}")]
    Query {
        /// Its path under `sql/`, the name of an `[[expect]]`, or `prompt`.
        query: String,
        /// What is wrong with it, and what would be right.
        message: String,
    },
    /// Something that the user named cannot be used: a data set, a file, a destination, an option. The module that found
    /// it has the typed error.
    #[error(transparent)]
    Input(Box<dyn std::error::Error + Send + Sync>),
    /// The work failed. The module that did it has the typed error.
    #[error(transparent)]
    Failed(Box<dyn std::error::Error + Send + Sync>),
    /// The data cannot be used as the pipeline says.
    #[error("{0}")]
    Data(String),
    /// A model directory does not fit, or a model failed.
    #[error("{0}")]
    Model(String),
    /// The lake or the source cannot be read or written.
    #[error("`{url}`: {message}")]
    Lake {
        /// The table or object that was touched.
        url: String,
        /// What was tried, and what to do.
        message: String,
        /// The library's own error.
        #[source]
        source: Option<Box<dyn std::error::Error + Send + Sync>>,
    },
    /// A test of the data returned rows.
    #[error("expectation `{name}` failed: {rows} rows, none expected\n{table}")]
    Expectation {
        /// Its `name` in the pipeline.
        name: String,
        /// How many rows it returned.
        rows: usize,
        /// The first of them, as a table.
        table: String,
    },
    /// Every problem of the job, found before any work.
    #[error("{}", list(.0))]
    Several(Vec<Error>),
    /// Other workers have not made their part in time; what this one made stays.
    #[error(
        "step `{step}` waits for {rows} rows of other workers\nhint: run again when they are done; without `--shard` a \
         run makes what is missing itself"
    )]
    Waiting {
        /// The step.
        step: String,
        /// Rows that are missing.
        rows: usize,
    },
    /// The run was interrupted; what was committed stays, and the next run goes on from there.
    #[error("interrupted; the same command goes on from here")]
    Interrupted,
    /// An export was interrupted within an epoch, which does not go on by itself.
    #[error(
        "interrupted in epoch {epoch}; its files are whole, but not all are there\nhint: delete `{files}…`, and go on by \
         `--epoch`"
    )]
    ExportInterrupted {
        /// The epoch that is not complete.
        epoch: i64,
        /// How the names of its files begin.
        files: String,
    },
}

impl Error {
    /// Bad input, by the typed error of a module.
    pub(crate) fn input(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        Self::Input(error.into())
    }

    /// Work that failed, by the typed error of a module.
    pub(crate) fn failed(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        Self::Failed(error.into())
    }

    /// A failure in the lake with the library's error as its source.
    pub fn lake(
        url: impl Into<String>,
        message: impl Into<String>,
        source: impl Into<Box<dyn std::error::Error + Send + Sync>>,
    ) -> Self {
        Self::Lake { url: url.into(), message: message.into(), source: Some(source.into()) }
    }

    /// A failure of the query named `query`, with what DataFusion makes of it reduced to its root.
    pub fn query(query: impl Into<String>, error: datafusion::error::DataFusionError) -> Self {
        match own(error) {
            Ok(own) => own,
            Err(error) => {
                let root = error.find_root();
                Self::Query { query: query.into(), message: advise(root) }
            }
        }
    }

    /// The process exit code: 1 the run failed, 2 bad input (nothing was run), 75 (`EX_TEMPFAIL` of sysexits.h) other
    /// workers are not done, 130 interrupted.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Config(_) | Self::Query { .. } | Self::Input(_) | Self::Several(_) => 2,
            Self::Waiting { .. } => 75,
            Self::Interrupted | Self::ExportInterrupted { .. } => 130,
            _ => 1,
        }
    }
}

/// `error` and its causes on one line, each said once.
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let said = error.to_string();
        if !text.contains(&said) {
            text = format!("{text}: {said}");
        }
        cause = error.source();
    }
    text
}

/// DataFusion's message, with what to do where memory was not enough; another one where a model stands in a place that
/// DataFusion moved into a scan or a join.
fn advise(error: &datafusion::error::DataFusionError) -> String {
    let message = error.message().into_owned();
    if matches!(error, datafusion::error::DataFusionError::ResourcesExhausted(_)) {
        return format!("{message}\nhint: raise `memory_limit_mib` of `[queries]`, or leave it out");
    }
    if message.contains("async functions should not be called directly") {
        return "a model function (`img2img`, `clip_image`, `clip_text`, `read_image`) stands where the engine cannot \
                wait for it: in a join, a GROUP BY or ORDER BY, or a filter that was moved below one; select it in a \
                subquery with `LIMIT 1000000000`, which nothing is moved below, and filter outside"
            .into();
    }
    message
}

fn list(errors: &[Error]) -> String {
    let lines: Vec<_> = errors.iter().map(|error| chain(error)).collect();
    let problems = if errors.len() == 1 { "1 problem".to_owned() } else { format!("{} problems", errors.len()) };
    format!("{}\n{problems}; nothing was run", lines.join("\n"))
}

/// Our own error, carried through DataFusion as `External`, or DataFusion's.
fn own(error: datafusion::error::DataFusionError) -> std::result::Result<Error, datafusion::error::DataFusionError> {
    use datafusion::error::DataFusionError as E;
    match error {
        E::External(inner) => match inner.downcast::<Error>() {
            Ok(own) => Ok(*own),
            Err(inner) => Err(E::External(inner)),
        },
        E::Context(context, inner) => own(*inner).map_err(|inner| E::Context(context, Box::new(inner))),
        E::ArrowError(inner, trace) => match *inner {
            arrow::error::ArrowError::ExternalError(inner) => match inner.downcast::<Error>() {
                Ok(own) => Ok(*own),
                Err(inner) => match inner.downcast::<E>() {
                    Ok(inner) => own(*inner),
                    Err(inner) => Err(E::External(inner)),
                },
            },
            inner => Err(E::ArrowError(Box::new(inner), trace)),
        },
        E::Shared(shared) => match std::sync::Arc::try_unwrap(shared) {
            Ok(inner) => own(inner),
            Err(shared) => Err(E::Shared(shared)),
        },
        other => Err(other),
    }
}

impl From<Error> for datafusion::error::DataFusionError {
    fn from(error: Error) -> Self {
        Self::External(Box::new(error))
    }
}

impl From<Diagnostics> for Error {
    fn from(diagnostics: Diagnostics) -> Self {
        Self::Config(diagnostics)
    }
}
