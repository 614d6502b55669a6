//! `benches/gpu`: what is packed runs on the CPU in an empty folder without network, and a broken part is a failed part.

use std::{
    collections::BTreeMap,
    fs,
    path::Path,
    process::{Command, Output},
};

use serde_json::Value;

use crate::{
    readers::environment,
    support::{Workspace, program, root, stderr},
};

/// Returns Python with the packages that the scripts need, and with nothing of the user's environment.
fn python(folder: &Path) -> Command {
    let mut python = Command::new(environment("graphs").join("bin/python"));
    let nowhere = "http://127.0.0.1:9";
    python.env_clear().env("PATH", "/usr/bin:/bin").env("HOME", folder).envs([
        ("http_proxy", nowhere),
        ("https_proxy", nowhere),
        ("ALL_PROXY", nowhere),
    ]);
    python.arg("-B").current_dir(folder);
    python
}

/// Packs a model into parts of 2 MB, without compressing them much and without the program, which is large in a test.
fn prepare(folder: &Path, model: &Path) {
    let doctor = program().args(["doctor", "--format", "json"]).output().unwrap();
    let doctor: Value = serde_json::from_slice(&doctor.stdout).unwrap();
    let found = doctor.as_array().unwrap().iter().find(|entry| entry["what"] == "onnxruntime").unwrap();
    let library = found["found"].as_str().unwrap().split(" (").next().unwrap();
    let model = format!("digits={}", model.display());
    let options = ["--onnxruntime", library, "--model", &model, "--part-bytes", "2000000", "--preset", "0"];
    let output = python(folder).arg(root().join("benches/gpu/prepare.py")).arg("parts").args(options).output().unwrap();
    assert!(output.status.success(), "{}", stderr(&output));
}

/// Runs the check that was packed, and returns what it says of each part.
fn check(folder: &Path, arguments: &[&str]) -> (Output, BTreeMap<String, Value>) {
    let _ = fs::remove_dir_all(folder.join("out"));
    let mut check = python(folder);
    check.args(["parts/check.py", "parts", "out", "--device", "cpu", "--scale", "0.1", "--program"]);
    let output = check.arg(env!("CARGO_BIN_EXE_discl-pipe")).args(arguments).output().unwrap();
    let lines = fs::read_to_string(folder.join("out/results.jsonl")).unwrap();
    let results = lines.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    (output, results.map(|result| (result["part"].as_str().unwrap().to_owned(), result)).collect())
}

#[track_caller]
fn assert_part(results: &BTreeMap<String, Value>, part: &str, status: &str, reason: &str) {
    let result = &results[part];
    assert_eq!(result["status"], status, "{result}");
    assert!(result["reason"].as_str().unwrap().contains(reason), "{result}");
}

#[test]
fn what_was_packed_runs_on_a_cpu_and_a_damaged_part_is_named() {
    let workspace = Workspace::small();
    let folder = workspace.path("");
    prepare(&folder, &root().join("models/digits"));
    let (output, results) = check(&folder, &[]);
    assert!(output.status.success(), "{}{}", String::from_utf8_lossy(&output.stdout), stderr(&output));
    for part in ["unpack", "doctor", "recorded", "digits", "bench", "engine"] {
        assert_part(&results, part, "passed", "");
    }
    for part in ["ceilings", "diffusers", "failures"] {
        assert_part(&results, part, "not run", "no GPU");
    }
    assert_part(&results, "weights", "not run", "no model without weights");
    assert_eq!(results["recorded"]["figures"]["images"], 16);

    let mut part = fs::read(folder.join("parts/part-001")).unwrap();
    part[1000] ^= 1;
    fs::write(folder.join("parts/part-001"), part).unwrap();
    let (output, results) = check(&folder, &[]);
    assert_eq!(output.status.code(), Some(1));
    assert_part(&results, "unpack", "failed", "`part-001` does not have the SHA-256");
    for part in ["doctor", "recorded", "digits", "engine", "bench"] {
        assert_part(&results, part, "not run", "nothing was unpacked");
    }
}

#[test]
fn a_model_that_does_not_load_fails_its_part_alone() {
    let workspace = Workspace::small();
    let (folder, model) = (workspace.path(""), workspace.path("model"));
    let copied = Command::new("cp").arg("-r").arg(root().join("models/digits")).arg(&model).status().unwrap();
    assert!(copied.success());
    fs::write(model.join("unet/model.onnx"), b"").unwrap();
    prepare(&folder, &model);
    let (output, results) = check(&folder, &["--only", "doctor", "engine"]);
    assert_eq!(output.status.code(), Some(1));
    assert_part(&results, "doctor", "passed", "");
    assert_part(&results, "engine", "failed", "an empty file");
    assert_eq!(results.len(), 3, "{results:?}");
}
