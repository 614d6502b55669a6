//! How many images share a batch: what is said and recorded of it, and what a device with too little memory gets.

use std::fs;

use insta::assert_snapshot;
use serde_json::json;

use crate::support::{Workspace, copy_all, root, stderr};

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
    set `models.batch` to 8, or end other programs that use the device
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
