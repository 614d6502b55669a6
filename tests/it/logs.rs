//! Logs: silent by default, with spans for steps, units, queries and model calls by `RUST_LOG`, and without a secret.

use crate::support::{Workspace, stderr};

const SECRETS: [(&str, &str); 4] = [
    ("AWS_SECRET_ACCESS_KEY", "secret-of-the-store"),
    ("AWS_SESSION_TOKEN", "session-of-the-store"),
    ("HF_TOKEN", "hf_token_of_the_hub"),
    ("OPENAI_API_KEY", "sk-key-of-the-endpoint"),
];

/// Runs the digits down to their scores and returns what was written to stderr.
fn logged(workspace: &Workspace, arguments: &[&str], level: Option<&str>) -> String {
    let mut command = workspace.command("run", arguments);
    command.envs(SECRETS);
    if let Some(level) = level {
        command.env("RUST_LOG", level);
    }
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", stderr(&output));
    stderr(&output)
}

#[test]
fn logs_show_steps_units_queries_and_calls_and_no_secret() {
    let workspace = Workspace::small();
    let text = logged(&workspace, &["--until", "kept"], Some("info"));
    for part in [
        "step{step=candidates}",
        "unit{step=spectrum",
        "query{query=hard_samples/few_shot.sql}",
        "call{function=\"img2img\"",
        "unet_evaluations=",
        "step ended",
    ] {
        assert!(text.contains(part), "no `{part}` in:\n{text}");
    }
    assert!(text.contains(" INFO "), "{text}");
    for (_, secret) in SECRETS {
        assert!(!text.contains(secret), "`{secret}` is in the log");
    }
}

#[test]
fn logs_are_json_on_request_and_silent_by_default() {
    let workspace = Workspace::small();
    let silent = logged(&workspace, &["--until", "images"], None);
    assert!(!silent.contains("INFO") && !silent.contains("step ended"), "{silent}");
    let trace = logged(&workspace, &["--until", "images", "--log-format", "json"], Some("trace"));
    let events: Vec<serde_json::Value> =
        trace.lines().filter(|line| line.starts_with('{')).map(|line| serde_json::from_str(line).unwrap()).collect();
    assert!(events.iter().any(|event| event["fields"]["message"] == "step ended"), "{trace}");
    for (_, secret) in SECRETS {
        assert!(!trace.contains(secret), "`{secret}` is in the log");
    }
}

#[test]
fn a_filter_that_is_not_one_is_bad_input() {
    let workspace = Workspace::small();
    let output = workspace.command("status", &[]).env("RUST_LOG", "discl_pipe=loudly").output().unwrap();
    assert_eq!(output.status.code(), Some(2), "{}", stderr(&output));
    assert!(stderr(&output).contains("`RUST_LOG` is not a log filter"), "{}", stderr(&output));
}
