//! Tips for mistakes that clap does not know, and for a pipeline that cannot be one.

use std::path::Path;

use clap::{
    builder::StyledStr,
    error::{ContextKind, ContextValue},
};

use crate::error::{Diagnostic, Diagnostics, Result};

/// Options of commands that run models; the others do not have them.
const OF_MODELS: [&str; 4] = ["--device", "--onnxruntime", "--model-batch", "--model-threads"];

/// Adds a tip to an error of the command line.
pub(super) fn explain(mut error: clap::Error) -> clap::Error {
    let context = |kind| match error.get(kind) {
        Some(ContextValue::String(text)) => Some(text.clone()),
        _ => None,
    };
    let tip = match (context(ContextKind::InvalidSubcommand), context(ContextKind::InvalidArg)) {
        (Some(name), _) if name.ends_with(".toml") => format!("did you mean `discl-pipe run {name}`?"),
        (_, Some(option)) if option == "--dry-run" => "`discl-pipe plan` shows what a run would do".to_owned(),
        (_, Some(option)) if OF_MODELS.contains(&option.as_str()) => {
            format!("this command runs no model: leave `{option}` out")
        }
        _ => return error,
    };
    error.insert(ContextKind::Suggested, ContextValue::StyledStrs(vec![StyledStr::from(tip)]));
    error
}

/// Returns an error if `path` is a directory: the data set's, most likely.
pub(super) fn check_pipeline(path: &Path) -> Result<()> {
    if !path.is_dir() {
        return Ok(());
    }
    let message = "expected a pipeline's TOML file, found a directory".to_owned();
    let help = Some("did you mean a pipeline with this `source.root`? (see docs/quickstart.md)".to_owned());
    let file = path.display().to_string();
    Err(Diagnostics::from(vec![Diagnostic { file, line: None, key: String::new(), message, help }]).into())
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::{super::Cli, *};

    fn said(arguments: &[&str]) -> String {
        let arguments = ["discl-pipe"].iter().chain(arguments);
        explain(Cli::try_parse_from(arguments).unwrap_err()).to_string()
    }

    #[test]
    fn mistakes_get_a_tip() {
        insta::assert_snapshot!(said(&["mine.toml"]), @r"
        error: unrecognized subcommand 'mine.toml'

          tip: did you mean `discl-pipe run mine.toml`?

        Usage: discl-pipe [OPTIONS] <COMMAND>

        For more information, try '--help'.
        ");
        insta::assert_snapshot!(said(&["run", "mine.toml", "--dry-run"]), @r"
        error: unexpected argument '--dry-run' found

          tip: `discl-pipe plan` shows what a run would do

        Usage: discl-pipe run <PIPELINE>

        For more information, try '--help'.
        ");
        insta::assert_snapshot!(said(&["status", "mine.toml", "--device", "cuda"]), @r"
        error: unexpected argument '--device' found

          tip: this command runs no model: leave `--device` out

        Usage: discl-pipe status <PIPELINE>

        For more information, try '--help'.
        ");
    }
}
