//! Logs: silent unless `RUST_LOG` is set, then on stderr with spans for steps, units, queries, model calls and store
//! requests.

use std::io;

use clap::ValueEnum;
use tracing::{Level, level_filters::LevelFilter, subscriber::set_global_default};
use tracing_subscriber::{
    EnvFilter, Layer, Registry,
    filter::{FilterExt, filter_fn},
    fmt::{self, format::FmtSpan},
    layer::SubscriberExt,
};

use super::CliError;

/// The variable that turns logs on, as in `RUST_LOG=info` or `RUST_LOG=discl_pipe=debug`.
const VARIABLE: &str = "RUST_LOG";

/// Packages whose debug and trace messages may contain headers of requests, and so credentials.
const HTTP_PACKAGES: [&str; 8] = ["h2", "hf_hub", "hyper", "hyper_util", "object_store", "reqwest", "rustls", "tower"];

/// How logs are written.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub(super) enum LogFormat {
    /// A line per event
    #[default]
    Text,
    /// A JSON object per event
    Json,
}

/// Turns logs on if `RUST_LOG` is set.
///
/// # Errors
/// Returns an error if `RUST_LOG` cannot be parsed.
pub(super) fn init(format: LogFormat) -> Result<(), CliError> {
    let Some(directives) = std::env::var(VARIABLE).ok().filter(|directives| !directives.is_empty()) else {
        return Ok(());
    };
    let requested = EnvFilter::builder()
        .with_default_directive(LevelFilter::OFF.into())
        .parse(directives)
        .map_err(|source| CliError::LogFilter { variable: VARIABLE, source })?;
    let filter = requested.and(filter_fn(|metadata| !may_show_credentials(metadata.target(), *metadata.level())));
    let layer = fmt::layer().with_writer(io::stderr).with_ansi(false).with_span_events(FmtSpan::NONE);
    let result = match format {
        LogFormat::Text => set_global_default(Registry::default().with(layer.with_filter(filter))),
        LogFormat::Json => set_global_default(Registry::default().with(layer.json().with_filter(filter))),
    };
    result.map_err(CliError::Logs)
}

fn may_show_credentials(target: &str, level: Level) -> bool {
    let package = target.split("::").next().unwrap_or_default();
    level > Level::INFO && HTTP_PACKAGES.contains(&package)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_that_may_contain_headers_are_never_logged() {
        assert!(may_show_credentials("hyper::proto::h1", Level::TRACE));
        assert!(may_show_credentials("object_store::client::retry", Level::DEBUG));
        assert!(!may_show_credentials("object_store::client::retry", Level::INFO));
        assert!(!may_show_credentials("discl_pipe::run", Level::TRACE));
    }
}
