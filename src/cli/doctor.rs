//! `doctor`: what works on this machine.

use std::{
    path::{Path, PathBuf},
    process::ExitCode,
};

use clap::Args;
use serde_json::{Value, json};

use super::{
    output::{self, Format},
    target,
};
use crate::{
    error::{self, Result},
    models::onnx::{Finding, Runtime, State, diagnose},
};

#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// The ONNX Runtime library [default: ORT_DYLIB_PATH, else the cache]
    #[arg(long, value_name = "FILE")]
    onnxruntime: Option<PathBuf>,
    /// How to print results
    #[arg(long, value_enum, default_value_t, display_order = target::LAST)]
    pub(super) format: Format,
}

/// Fetches nothing. If something is broken, the exit code is 1; each finding that is not right says what to do.
pub(super) fn execute(arguments: &Arguments) -> Result<ExitCode> {
    let mut findings = runtime(arguments.onnxruntime.as_deref());
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    findings.push(Finding::new("processor", State::Works, format!("{cores} cores")));
    let credentials = ["AWS_ACCESS_KEY_ID", "AWS_PROFILE", "AWS_WEB_IDENTITY_TOKEN_FILE"];
    let set: Vec<_> = credentials.into_iter().filter(|name| std::env::var_os(name).is_some()).collect();
    let s3 = if set.is_empty() {
        "none in the environment; set AWS_ACCESS_KEY_ID or AWS_PROFILE to use S3".into()
    } else {
        format!("{} set", set.join(", "))
    };
    findings.push(Finding::new("s3 credentials", State::Works, s3));
    match arguments.format {
        Format::Json => output::json(&findings.iter().map(as_json).collect::<Vec<_>>()),
        Format::Text => findings.iter().for_each(|finding| output::line(as_text(finding))),
    }
    let is_broken = findings.iter().any(|finding| finding.state == State::Broken);
    Ok(if is_broken { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

/// Returns what is found about ONNX Runtime and the devices that it can use.
fn runtime(explicit: Option<&Path>) -> Vec<Finding> {
    let opened = Runtime::locate(explicit).and_then(|located| Ok((Runtime::open(Some(&located.path))?, located)));
    match opened {
        Err(error) => vec![Finding::new("onnxruntime", State::Broken, error::chain(&error))],
        Ok((runtime, located)) => {
            let found = format!("{} ({}), {}", located.path.display(), located.how, runtime.build_info());
            let mut findings = vec![Finding::new("onnxruntime", State::Works, found)];
            findings.extend(diagnose(&runtime));
            findings
        }
    }
}

fn as_json(Finding { what, state, found }: &Finding) -> Value {
    json!({ "what": what, "works": *state != State::Broken, "warning": *state == State::Doubtful, "found": found })
}

fn as_text(Finding { what, state, found }: &Finding) -> String {
    let state = match state {
        State::Works => "ok  ",
        State::Doubtful => "WARN",
        State::Broken => "FAIL",
    };
    format!("{state} {what}: {found}")
}
