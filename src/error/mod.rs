//! The one public error, classed by what the caller can do about it. The class decides the exit code of the command:
//!
//! | class | exit code | meaning |
//! |---|---|---|
//! | `Config`, `Query`, `Input`, `Multiple` | 2 | the user's input is wrong, and has to be corrected |
//! | `Failed`, `Expectation` | 1 | the work failed while it ran |
//! | `Waiting` | 75 | other workers have not finished; run the command again later |
//! | `Interrupted`, `ExportInterrupted` | 130 | the user stopped the command |
//!
//! Most modules have their own error type, which converts into [`Error::Input`] or [`Error::Failed`].

pub(crate) mod diagnostics;
pub(crate) mod text;
mod warning;

use std::{
    any::Any,
    error::Error as StdError,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
};

use arrow::error::ArrowError;
use datafusion::error::DataFusionError;
use futures::FutureExt;
use tokio::task::JoinError;

pub(crate) use self::{
    diagnostics::{Diagnostic, Diagnostics},
    warning::Warning,
};

/// The result of an operation that can fail.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why a command failed. `Display` shows what is wrong, where, and what to do; `source()` returns the cause.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The pipeline file is wrong. Contains every problem of the file.
    #[error("{0}")]
    Config(Diagnostics),
    /// A query is wrong: a built-in one, a replacement, an expectation, or an argument of `sql`.
    #[error("query `{query}`: {message}")]
    Query {
        /// The path under `sql/`, the name of an `[[expect]]`, or `sql`.
        query: String,
        /// What is wrong with the query, and what is expected.
        message: String,
    },
    /// Something that the user named cannot be used: a data set, a file, a destination or an option. Contains the error
    /// of the module that found it.
    #[error(transparent)]
    Input(Box<dyn StdError + Send + Sync>),
    /// The work failed. Contains the error of the module that did it.
    #[error(transparent)]
    Failed(Box<dyn StdError + Send + Sync>),
    /// The query of an `[[expect]]` returned rows.
    #[error("expectation `{name}` failed: {rows} rows, none expected\n{table}")]
    Expectation {
        /// The `name` of the `[[expect]]`.
        name: String,
        /// The number of rows that it returned.
        rows: usize,
        /// The first rows, printed as a table, and what to do.
        table: String,
    },
    /// Several problems, all found before any work.
    #[error("{}", list(.0))]
    Multiple(Vec<Error>),
    /// This worker has finished its part, but other workers have not finished theirs in time.
    #[error(
        "step `{step}` waits for {rows} rows of other workers\nhint: run the command again when they have finished; a run \
         without `--shard` computes all missing rows itself"
    )]
    Waiting {
        /// The step whose table is incomplete.
        step: String,
        /// The number of missing rows.
        rows: usize,
    },
    /// The run was interrupted. Committed rows are kept, and the next run continues from there.
    #[error("interrupted; run the same command again to continue")]
    Interrupted,
    /// An export was interrupted within an epoch. Files that are whole are kept, and the next export continues after them.
    #[error("interrupted in epoch {epoch}, which is incomplete; run the same command again to continue")]
    ExportInterrupted {
        /// The incomplete epoch.
        epoch: i64,
    },
}

impl Error {
    /// Wraps a module's error about wrong input.
    pub(crate) fn input(error: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        Self::Input(error.into())
    }

    /// Wraps a module's error about work that failed.
    pub(crate) fn failed(error: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        Self::Failed(error.into())
    }

    /// Converts an error of DataFusion in the query named `query`. If DataFusion only passed on one of our own errors,
    /// returns that one; otherwise keeps the root cause.
    pub(crate) fn query(query: impl Into<String>, error: DataFusionError) -> Self {
        match own(error) {
            Ok(own) => own,
            Err(error) => {
                let (query, root) = (query.into(), error.find_root());
                if is_about_a_file(root) {
                    return Self::failed(Unreadable { query, message: without_backtrace(&root.message()) });
                }
                Self::Query { query, message: advise(root) }
            }
        }
    }

    /// Returns the exit code of the process: 2 for wrong input, 1 if the work failed, 75 (`EX_TEMPFAIL` of `sysexits.h`)
    /// if other workers have not finished, and 130 if the command was interrupted.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Config(_) | Self::Query { .. } | Self::Input(_) | Self::Multiple(_) => 2,
            Self::Waiting { .. } => 75,
            Self::Interrupted | Self::ExportInterrupted { .. } => 130,
            _ => 1,
        }
    }
}

/// A file that a query reads cannot be read.
#[derive(Debug, thiserror::Error)]
#[error("query `{query}`: a file cannot be read: {message}\nhint: `discl-pipe verify` finds what is wrong with a lake")]
struct Unreadable {
    query: String,
    message: String,
}

/// Returns whether a query failed because of a file of a table. The library for Parquet panics on some damaged ones.
pub(crate) fn is_about_a_file(root: &DataFusionError) -> bool {
    use DataFusionError as E;

    match root {
        E::ObjectStore(_) | E::ParquetError(_) | E::IoError(_) | E::ExecutionJoin(_) => true,
        E::ArrowError(error, _) => matches!(**error, ArrowError::ParquetError(_) | ArrowError::IoError(..)),
        E::External(error) => error.is::<JoinError>() || error.is::<Arc<JoinError>>(),
        _ => false,
    }
}

/// A bug, in this program or in a library. Those that read tables panic on some damaged files.
#[derive(Debug, thiserror::Error)]
#[error(
    "a bug ended the command: {0}\nhint: `discl-pipe verify` finds damaged files of a lake, on which libraries have bugs; if \
     there are none, please report this message with the lines above it. What was committed stays, and the same command \
     continues from there"
)]
struct Panicked(String);

/// Runs `work` to its end. A panic becomes an error: libraries panic on damaged files, and a command that ends must say so
/// with its own exit code.
///
/// # Errors
/// Returns the error of `work`, or [`Error::Failed`] with the message of its panic.
pub(crate) async fn catch_panic<T>(work: impl Future<Output = Result<T>>) -> Result<T> {
    contained(work).await.unwrap_or_else(|panic| Err(Error::failed(Panicked(panic))))
}

/// Lets a library read a file that may be damaged.
///
/// # Errors
/// Returns the message of its panic.
pub(crate) async fn contained<T>(work: impl Future<Output = T>) -> Result<T, String> {
    AssertUnwindSafe(work).catch_unwind().await.map_err(|panic| message(&*panic))
}

/// Does what [`contained`] does, with work that does not wait.
///
/// # Errors
/// Returns the message of its panic.
pub(crate) fn contained_now<T>(work: impl FnOnce() -> T) -> Result<T, String> {
    catch_unwind(AssertUnwindSafe(work)).map_err(|panic| message(&*panic))
}

/// Returns the message that `panic!` was called with.
fn message(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().copied().or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    text.unwrap_or("it has no message").to_owned()
}

/// Returns a library's message without the backtrace that some add to it if `RUST_BACKTRACE` is set.
fn without_backtrace(message: &str) -> String {
    let mut lines = message.lines().peekable();
    let mut kept = Vec::new();
    while let Some(line) = lines.next_if(|line| !line.trim_start().starts_with("0: ")) {
        kept.push(line);
    }
    if lines.peek().is_some() {
        while kept.pop_if(|line| line.trim().is_empty() || line.to_lowercase().contains("backtrace")).is_some() {}
    }
    kept.join("\n")
}

/// Returns the messages of `error` and its causes, joined by colons, without repetitions. What they repeat of a file may
/// hold anything, so control characters other than line breaks are shown as escapes.
pub(crate) fn chain(error: &dyn StdError) -> String {
    let text = messages(error);
    match text.contains(|character: char| character.is_control() && character != '\n') {
        true => text.lines().map(text::escape).collect::<Vec<_>>().join("\n"),
        false => text,
    }
}

fn messages(error: &dyn StdError) -> String {
    let mut text = without_backtrace(&error.to_string());
    let mut cause = error.source();
    while let Some(error) = cause {
        let message = without_backtrace(&error.to_string());
        if !text.contains(&message) {
            text = format!("{text}: {message}");
        }
        cause = error.source();
    }
    text
}

/// Returns DataFusion's message, with a hint if memory ran out. An unsupported call of an async function gets a message
/// of ours, because DataFusion's does not help the user.
fn advise(error: &DataFusionError) -> String {
    let message = error.message().into_owned();
    if matches!(error, DataFusionError::ResourcesExhausted(_)) {
        return format!("{message}\nhint: raise `memory_limit_mib` of `[queries]`, or leave it out");
    }
    if message.contains("async functions should not be called directly") {
        return "async functions (`classify`, `clip_image`, `clip_text`, `img2img`, `load_image`, `read_image`) are not \
                supported in joins, GROUP BY, ORDER BY, pushed-down filters, or as arguments of one another\n\
                hint: compute the value in a subquery with `LIMIT 1000000000`, which stops the pushdown, and filter \
                outside; to pass the result of one to another, store it in the table of a `[[step]]`"
            .into();
    }
    message
}

fn list(errors: &[Error]) -> String {
    let lines: Vec<_> = errors.iter().map(|error| chain(error)).collect();
    let problems = if errors.len() == 1 { "1 problem".to_owned() } else { format!("{} problems", errors.len()) };
    format!("{}\n{problems}; nothing was run", lines.join("\n"))
}

/// Unwraps our own error, which DataFusion carries as `External`. Returns any other error unchanged.
fn own(error: DataFusionError) -> Result<Error, DataFusionError> {
    use DataFusionError as E;

    match error {
        E::External(inner) => match inner.downcast::<Error>() {
            Ok(own) => Ok(*own),
            Err(inner) => Err(E::External(inner)),
        },
        E::Context(context, inner) => own(*inner).map_err(|inner| E::Context(context, Box::new(inner))),
        E::ArrowError(inner, trace) => match *inner {
            ArrowError::ExternalError(inner) => match inner.downcast::<Error>() {
                Ok(own) => Ok(*own),
                Err(inner) => match inner.downcast::<E>() {
                    Ok(inner) => own(*inner),
                    Err(inner) => Err(E::External(inner)),
                },
            },
            inner => Err(E::ArrowError(Box::new(inner), trace)),
        },
        E::Shared(shared) => match Arc::try_unwrap(shared) {
            Ok(inner) => own(inner),
            Err(shared) => Err(E::Shared(shared)),
        },
        other => Err(other),
    }
}

impl From<Error> for DataFusionError {
    fn from(error: Error) -> Self {
        Self::External(Box::new(error))
    }
}

impl From<Diagnostics> for Error {
    fn from(diagnostics: Diagnostics) -> Self {
        Self::Config(diagnostics)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_does_not_control_a_terminal() {
        let cause = std::io::Error::other("found \u{1b}[2Jx\0\nhint: a\tb");
        let error = Error::failed(std::io::Error::other(cause));
        assert_eq!(chain(&error), "found \\u{1b}[2Jx\\0\nhint: a\\tb");
    }

    #[test]
    fn a_backtrace_is_not_part_of_a_message() {
        let plain = "no table\nhint: create it";
        assert_eq!(without_backtrace(plain), plain);
        assert_eq!(without_backtrace("no table\n   0: std::backtrace\n             at a.rs:1:2\n   1: b"), "no table");
        assert_eq!(without_backtrace("no table\n\nstack backtrace:\n   0: std::backtrace\n   1: b"), "no table");
    }
}
