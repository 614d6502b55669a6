//! How many images share a batch: what is said and recorded of it, and what a device with too little memory gets.

use std::{fs, path::PathBuf};

use insta::assert_snapshot;
use serde_json::{Value, json};

use crate::support::{Workspace, copy_all, program, root, stderr};

/// The small pipeline with a UNet that asks for more memory than any device has if it gets more than 16 rows, which are 8
/// images with classifier-free guidance.
fn limited() -> Workspace {
    let mut workspace = Workspace::small();
    copy_all(&root().join("models/digits"), &workspace.path("models"));
    fs::copy(root().join("tests/fixtures/onnx/limited_unet.onnx"), workspace.path("models/unet/model.onnx")).unwrap();
    workspace.edit(&format!("models.diffusion={:?}", workspace.path("models")));
    workspace.edit("filter.min_text_similarity=-1.0");
    workspace.edit("filter.max_attempts=1");
    workspace
}

#[test]
fn a_batch_that_does_not_fit_into_memory_is_halved_and_ends_no_run() {
    let workspace = limited();
    let run = workspace.json("run", &["--until", "scores", "--model-batch", "16"]);
    let engine = &run["engine"];
    assert_eq!(engine["batches"], json!([{ "width": 32, "height": 32, "samples": 8, "planned": 16 }]), "{engine}");
    let (requested, made) = (workspace.number("SELECT count(*) FROM candidates"), "SELECT count(*) FROM spectrum");
    assert!(requested > 16.0, "{requested}");
    assert_eq!(workspace.number(made), requested);
    assert_eq!(workspace.query("SELECT reason FROM rejects"), [json!(null); 0]);
    let warnings = run["warnings"].as_array().unwrap();
    let said = warnings.iter().find(|warning| warning["message"].to_string().contains("memory")).unwrap();
    assert_snapshot!(format!("{}\n{}", said["message"].as_str().unwrap(), said["hint"].as_str().unwrap()), @r"
    a batch of 16 images of 32 x 32 did not fit into the memory of cpu; 8 were generated at once
    end other programs that use the device, set a smaller size in `[spectrum]`, or set `models.batch` to 8 for all sizes
    ");
    let batches = "SELECT DISTINCT batches FROM ledger WHERE step = 'spectrum' AND parts IS NULL";
    assert_eq!(workspace.query(batches), [json!({ "batches": "8 of 32 x 32" })]);

    // The same images as with 8 from the beginning.
    let small = limited();
    small.json("run", &["--until", "scores"]);
    let images = "SELECT sample_id, sha256(image['bytes']) AS digest FROM spectrum ORDER BY sample_id";
    assert_eq!(workspace.query(images), small.query(images));
}

#[test]
fn the_pipeline_may_set_the_batch_and_a_flag_goes_before_it() {
    let mut workspace = Workspace::small();
    let said = |workspace: &Workspace, arguments: &[&str]| {
        let output = workspace.command("run", &[&["--until", "scores"], arguments].concat()).output().unwrap();
        let said = stderr(&output);
        said.lines().find(|line| line.contains("per batch")).unwrap().to_owned()
    };
    assert!(said(&workspace, &[]).ends_with("8 images of 32 x 32 per batch"));
    workspace.edit("models.batch=3");
    workspace.edit("seed=1");
    assert!(said(&workspace, &[]).ends_with("3 images of 32 x 32 per batch"));
    workspace.edit("seed=2");
    assert!(said(&workspace, &["--model-batch", "5"]).ends_with("5 images of 32 x 32 per batch"));
}

#[test]
fn images_are_brought_to_one_area() {
    let mut workspace = Workspace::small();
    workspace.edit("spectrum.area=16384");
    let run = workspace.json("run", &["--until", "scores"]);
    let sizes = workspace.query("SELECT DISTINCT image_info(image['bytes'])['width'] AS width FROM spectrum");
    assert_eq!(sizes, [json!({ "width": 128 })]);
    assert_eq!(run["engine"]["batches"][0]["height"], 128);
    workspace.edit("spectrum.width=32");
    workspace.edit("spectrum.height=32");
    let output = workspace.command("check", &[]).output().unwrap();
    let said = stderr(&output);
    assert!(said.contains("`spectrum.area`: found together with `spectrum.width` or `spectrum.height`"), "{said}");
}

/// The digits with graphs by opset 23, which say what an evaluation costs.
fn by_opset_23(workspace: &Workspace) -> PathBuf {
    let (digits, unet) = (workspace.path("digits"), workspace.path("digits/unet"));
    copy_all(&root().join("models/digits"), &digits);
    // The weights of the newer graphs stand in the older one.
    fs::rename(unet.join("model.onnx"), unet.join("model.onnx_data")).unwrap();
    copy_all(&root().join("tests/fixtures/opset23/digits"), &digits);
    digits
}

#[test]
fn a_run_and_the_ledger_say_how_fast_the_unet_was() {
    let mut workspace = Workspace::small();
    let digits = by_opset_23(&workspace);
    workspace.edit(&format!("models.diffusion={digits:?}"));
    let run = workspace.json("run", &["--until", "scores"]);
    let rates = &run["engine"]["rates"];
    for key in ["tflops", "gap_ms", "gap_share", "memory_mib"] {
        assert!(rates[key].as_f64().unwrap() > 0.0, "{key}: {rates}");
    }
    assert_eq!(rates["peak_share"], json!(null), "no data sheet says what this CPU can do");
    let step = run["steps"].as_array().unwrap().iter().find(|step| step["step"] == "spectrum").unwrap();
    let recorded = workspace.query("SELECT tflops, gap_ms FROM ledger WHERE step = 'spectrum' AND parts IS NOT NULL");
    assert_eq!(recorded, [json!({ "tflops": step["rates"]["tflops"], "gap_ms": step["rates"]["gap_ms"] })]);
    let output = workspace.command("run", &["--until", "scores", "--set", "seed=7"]).output().unwrap();
    assert!(stderr(&output).contains(" TFLOP/s, "), "{}", stderr(&output));
}

#[test]
fn a_model_is_measured_on_this_machine() {
    let workspace = Workspace::small();
    let digits = by_opset_23(&workspace);
    let bench = |arguments: &[&str]| {
        let mut bench = program();
        bench.args(["models", "bench"]).arg(&digits).args(["--device", "cpu", "--seconds", "0"]).args(arguments);
        bench.output().unwrap()
    };
    let output = bench(&["--rows", "2,3", "--size", "32,48x24", "--format", "json"]);
    let rows: Vec<Value> = serde_json::from_slice(&output.stdout).unwrap();
    let what = |row: &Value| format!("{} {} {}x{}", row["model"], row["rows"], row["width"], row["height"]);
    assert_eq!(
        rows.iter().map(|row| what(row).replace('"', "")).collect::<Vec<_>>(),
        [
            "product 1 512x512",
            "unet 2 32x32",
            "unet 3 32x32",
            "vae_decoder 1 32x32",
            "unet 2 48x24",
            "unet 3 48x24",
            "vae_decoder 1 48x24"
        ]
    );
    for row in &rows {
        assert!(row["ms_per_call"].as_f64().unwrap() > 0.0 && row["error"].is_null(), "{row}");
        assert_eq!(row["tflops"].is_null(), row["model"] == "vae_decoder", "{row}");
    }
    assert!(rows[1]["share_of_peak"].as_f64().unwrap() < 1.5, "{}", rows[1]);
    let text = String::from_utf8(bench(&["--rows", "2"]).stdout).unwrap();
    assert!(text.lines().nth(1).unwrap().starts_with("unet (model.onnx), 2 rows of 32 x 32: "), "{text}");
    assert_eq!(bench(&["--size", "7"]).status.code(), Some(2));
    let output = program().args(["models", "bench", "models/digits/clip"]).output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    let said = stderr(&output);
    assert!(said.contains("is not a diffusion model") && said.contains("\nhint: `models bench` measures"), "{said}");
}

#[test]
fn the_graph_for_speed_is_there_or_it_is_an_error() {
    let mut workspace = Workspace::small();
    workspace.edit("cuda.fast=true");
    let output = workspace.command("check", &[]).output().unwrap();
    let said = stderr(&output);
    assert!(
        said.contains("`cuda.fast` is set, but `") && said.contains("unet/model.cuda.onnx` does not exist"),
        "{said}"
    );
    let digits = by_opset_23(&workspace);
    workspace.edit(&format!("models.diffusion={digits:?}"));
    workspace.ok("check", &[]);
}
