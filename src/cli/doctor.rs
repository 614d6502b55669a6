//! `doctor`: what works on this machine.

use std::{path::PathBuf, process::ExitCode};

use clap::Args;
use serde_json::json;

use super::{
    output::{self, Format},
    target,
};
use crate::{
    error::{self, Result},
    models::onnx::{Device, Runtime},
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

/// Fetches nothing. If something is missing, the exit code is 1 and the finding says what to do.
pub(super) fn execute(arguments: &Arguments) -> Result<ExitCode> {
    let mut findings: Vec<(&str, bool, String)> = Vec::new();
    match Runtime::locate(arguments.onnxruntime.as_deref()) {
        Err(error) => findings.push(("onnxruntime", false, error::chain(&error))),
        Ok(located) => match Runtime::open(Some(&located.path)) {
            Err(error) => findings.push(("onnxruntime", false, error::chain(&error))),
            Ok(runtime) => {
                let how = format!("{} ({}), {}", located.path.display(), located.how, runtime.build_info());
                findings.push(("onnxruntime", true, how));
                findings.push(match Device::Auto.choose(&runtime) {
                    Ok(chosen) => ("device", true, format!("auto is {chosen}: {}", chosen.why)),
                    Err(error) => ("device", false, error::chain(&error)),
                });
            }
        },
    }
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    findings.push(("processor", true, format!("{cores} cores")));
    let credentials = ["AWS_ACCESS_KEY_ID", "AWS_PROFILE", "AWS_WEB_IDENTITY_TOKEN_FILE"];
    let set: Vec<_> = credentials.into_iter().filter(|name| std::env::var_os(name).is_some()).collect();
    let s3 = if set.is_empty() {
        "none in the environment; set AWS_ACCESS_KEY_ID or AWS_PROFILE to use S3".into()
    } else {
        format!("{} set", set.join(", "))
    };
    findings.push(("s3 credentials", true, s3));
    match arguments.format {
        Format::Json => output::json(
            &findings
                .iter()
                .map(|(what, works, found)| json!({ "what": what, "works": works, "found": found }))
                .collect::<Vec<_>>(),
        ),
        Format::Text => {
            for (what, works, found) in &findings {
                output::line(format!("{} {what}: {found}", if *works { "ok  " } else { "FAIL" }));
            }
        }
    }
    Ok(if findings.iter().all(|finding| finding.1) { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
