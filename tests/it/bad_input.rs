//! Bad input of every kind: what the program says, that it never panics, and that nothing is lost.

use std::{path::Path, process::Command, sync::Arc};

use arrow::{
    array::{Array, ArrayRef, AsArray, BinaryArray, Int64Array, RecordBatch, StringArray, StructArray},
    buffer::NullBuffer,
    datatypes::{DataType, Field, Schema},
};
use insta::{assert_snapshot, internals::SettingsBindDropGuard};
use parquet::arrow::{ArrowWriter, arrow_reader::ParquetRecordBatchReaderBuilder};

use crate::support::{Workspace, copy_all, root, stderr};

/// What the program says on stderr, after its exit code, where it has to fail. It never panics.
#[track_caller]
fn said(process: &mut Command) -> String {
    let output = process.output().unwrap();
    let (code, said) = (output.status.code().unwrap_or(-1), stderr(&output));
    assert!(code > 0 && code != 101 && !said.contains("panicked"), "exit code {code}\n{said}");
    format!("exit code {code}\n{said}")
}

/// What `check` says of a pipeline with these edits; nothing is written.
#[track_caller]
fn check(workspace: &mut Workspace, edits: &[&str]) -> String {
    for edit in edits {
        workspace.edit(edit);
    }
    let said = said(&mut workspace.command("check", &[]));
    assert!(!workspace.lake().exists(), "`check` wrote something");
    said
}

/// In snapshots, `[dir]` is the temporary directory and `[root]` the repository.
fn filters(workspace: &Workspace) -> SettingsBindDropGuard {
    let mut settings = insta::Settings::clone_current();
    let directory = workspace.path("");
    for (path, name) in [(directory.as_path(), "[dir]"), (root(), "[root]")] {
        // a library's message may leave the first slash out
        let path = path.to_str().unwrap().trim_matches('/').replace('.', r"\.");
        settings.add_filter(&format!("/?{path}"), name);
    }
    settings.add_filter(r"in \d+\.\d s", "in [time]");
    settings.add_filter(r"[\w./-]+/libonnxruntime[\w.]*", "[library]");
    settings.bind_to_scope()
}

/// The pipeline as it ships, in an empty directory.
fn shipped() -> (Workspace, SettingsBindDropGuard) {
    let workspace = Workspace::full();
    let guard = filters(&workspace);
    (workspace, guard)
}

/// The small pipeline.
fn small() -> (Workspace, SettingsBindDropGuard) {
    let workspace = Workspace::small();
    let guard = filters(&workspace);
    (workspace, guard)
}

/// `key="<path of name>"`, as an edit.
fn at(workspace: &Workspace, key: &str, name: &str) -> String {
    format!("{key}={:?}", workspace.path(name))
}

// ---- the pipeline's file ----

#[test]
fn unknown_key() {
    let (mut workspace, _guard) = shipped();
    assert_snapshot!(check(&mut workspace, &["spectrum.timestep=3"]), @r"
    exit code 2
    error: --set spectrum.timestep=3: unknown key `spectrum.timestep`, did you mean `timesteps`?
    1 problem; nothing was run
    ");
}

#[test]
fn wrong_type() {
    let (mut workspace, _guard) = shipped();
    assert_snapshot!(check(&mut workspace, &["spectrum.timesteps=\"ten\""]), @r#"
    exit code 2
    error: --set spectrum.timesteps="ten": `spectrum.timesteps`: found "ten", expected an integer 1 to 1000
    1 problem; nothing was run
    "#);
}

#[test]
fn guidance_beyond_the_real_image() {
    let (mut workspace, _guard) = shipped();
    assert_snapshot!(check(&mut workspace, &["spectrum.image_guidance=[0,101]"]), @r"
    exit code 2
    error: --set spectrum.image_guidance=[0,101]: `spectrum.image_guidance[1]`: found 101, allowed are integers 0 to 100 (percent of the real image kept)
    1 problem; nothing was run
    ");
}

/// The shipped pipeline with lines replaced, as `bad.toml` of the workspace.
fn rewritten(workspace: &mut Workspace, lines: &[(&str, &str)]) {
    let mut text = std::fs::read_to_string(&workspace.pipeline).unwrap();
    for (start, line) in lines {
        let old = text.lines().find(|line| line.starts_with(start)).unwrap().to_owned();
        text = text.replace(&old, line);
    }
    workspace.pipeline = workspace.path("bad.toml");
    std::fs::write(&workspace.pipeline, text).unwrap();
}

#[test]
fn several_errors_are_said_at_once() {
    let (mut workspace, _guard) = shipped();
    let lines = [
        ("seed = 0", "seeed = 0"),
        ("guidance_scale", "guidance_scale = 400"),
        ("scheduler", "scheduler = \"ddmi\""),
        ("max_attempts", "max_attempts = \"three\""),
        ("hard_share", "hard_share = 1.0"),
    ];
    rewritten(&mut workspace, &lines);
    assert_snapshot!(check(&mut workspace, &[]), @r#"
    exit code 2
    error: [dir]/bad.toml:3: unknown key `seeed`, did you mean `seed`?
    [dir]/bad.toml:32: `spectrum.guidance_scale`: found 400, allowed are numbers 0 to 100 (factor)
    [dir]/bad.toml:33: `spectrum.scheduler`: found "ddmi", allowed are `ddim`, `pndm`, `euler`, `euler_ancestral`, `dpmpp_2m`, `dpmpp_2m_karras` and `lcm`, did you mean `ddim`?
    [dir]/bad.toml:37: `filter.max_attempts`: found "three", expected an integer 1 to 100
    [dir]/bad.toml:43: `curriculum.hard_share`: found 1.0, allowed are numbers 0 to below 1 (share of images)
    5 problems; nothing was run
    "#);
}

#[test]
fn no_toml() {
    let (mut workspace, _guard) = shipped();
    rewritten(&mut workspace, &[("seeds ", "seeds = [10, 20")]);
    assert_snapshot!(check(&mut workspace, &[]), @r"
    exit code 2
    error: [dir]/bad.toml:31: not valid TOML: missing comma between array elements, expected `,`
    1 problem; nothing was run
    ");
}

#[test]
fn no_pipeline() {
    let (mut workspace, _guard) = shipped();
    workspace.pipeline = workspace.path("none.toml");
    assert_snapshot!(check(&mut workspace, &[]), @r"
    exit code 2
    error: [dir]/none.toml: no such file
    1 problem; nothing was run
    ");
    workspace.pipeline = workspace.path("");
    assert_snapshot!(check(&mut workspace, &[]), @r"
    exit code 2
    error: [dir]/: cannot be read: is a directory
    1 problem; nothing was run
    ");
}

#[test]
fn edits_that_are_none() {
    let (workspace, _guard) = shipped();
    let said = ["spectrum", "spectral.seeds=3", "spectrum.seeds=[1,", "seed=x"].map(|edit| {
        let said = said(&mut workspace.command("check", &["--set", edit]));
        assert!(!workspace.lake().exists());
        said
    });
    assert_snapshot!(said.join("\n"), @r#"
    exit code 2
    error: --set spectrum: expected `key=value`, found no `=`
    1 problem; nothing was run

    exit code 2
    error: --set spectral.seeds=3: unknown section `spectral`, did you mean `spectrum`?
    1 problem; nothing was run

    exit code 2
    error: --set spectrum.seeds=[1,: `spectrum.seeds`: found "[1,": unclosed array, expected `]`
    1 problem; nothing was run

    exit code 2
    error: --set seed=x: `seed`: found "x", expected an integer of 64 bits
    1 problem; nothing was run
    "#);
}

#[test]
fn a_step_that_is_not_there() {
    let (workspace, _guard) = small();
    assert_snapshot!(said(&mut workspace.command("run", &["--until", "imgaes"])), @r"
    exit code 2
    error: --until imgaes: no such step, steps are `pixels`, `images`, `hard_samples`, `candidates`, `spectrum`, `scores`, `kept`, `validation`, `probe`, `progress`, `schedule`, `manifest`
    1 problem; nothing was run
    ");
    assert!(!workspace.lake().exists());
}

// ---- models ----

/// A copy of the shipped models that the pipeline names.
fn copied_models(workspace: &mut Workspace) {
    copy_all(&root().join("models/digits"), &workspace.path("models"));
    workspace.edit(&at(workspace, "models.diffusion", "models"));
    workspace.edit(&at(workspace, "models.clip", "models/clip"));
}

#[test]
fn models_that_are_missing() {
    let (mut workspace, _guard) = shipped();
    copied_models(&mut workspace);
    std::fs::remove_file(workspace.path("models/unet/model.onnx")).unwrap();
    assert_snapshot!(check(&mut workspace, &[]), @r"
    exit code 2
    error: `models.diffusion`: cannot read `[dir]/models/unet/model.onnx`: No such file or directory (os error 2)
    1 problem; nothing was run
    ");
    std::fs::remove_dir_all(workspace.path("models")).unwrap();
    assert_snapshot!(check(&mut workspace, &[]), @r"
    exit code 2
    error: `models.diffusion`: cannot read `[dir]/models/model_index.json`: No such file or directory (os error 2)
    `models.clip`: cannot read `[dir]/models/clip/preprocessor_config.json`: No such file or directory (os error 2)
    2 problems; nothing was run
    ");
}

#[test]
fn a_unet_with_another_input() {
    let (mut workspace, _guard) = shipped();
    copied_models(&mut workspace);
    let path = workspace.path("models/unet/model.onnx");
    let mut graph = std::fs::read(&path).unwrap();
    let found: Vec<usize> = (0..graph.len() - 8).filter(|&at| &graph[at..at + 8] == b"timestep").collect();
    assert!(!found.is_empty());
    for at in found {
        graph[at + 7] = b'x';
    }
    std::fs::write(&path, graph).unwrap();
    assert_snapshot!(check(&mut workspace, &[]), @r"
    exit code 2
    error: `models.diffusion`: `[dir]/models/unet/model.onnx`: unknown input `timestex`; known are `sample`, `timestep`, `encoder_hidden_states`
    `models.diffusion`: `[dir]/models/unet/model.onnx`: no input `timestep`; it has `sample`, `timestex`, `encoder_hidden_states`
    2 problems; nothing was run
    ");
}

#[test]
fn graphs_that_are_none_or_cut_off() {
    let (mut workspace, _guard) = shipped();
    copied_models(&mut workspace);
    let path = workspace.path("models/unet/model.onnx");
    let graph = std::fs::read(&path).unwrap();
    std::fs::write(&path, "This is not the graph you are looking for.").unwrap();
    assert_snapshot!(check(&mut workspace, &[]), @r"
    exit code 2
    error: `models.diffusion`: `[dir]/models/unet/model.onnx` is not a complete ONNX file: its contents are something else
    1 problem; nothing was run
    ");
    std::fs::write(&path, &graph[..graph.len() / 3]).unwrap();
    assert_snapshot!(check(&mut workspace, &[]), @r"
    exit code 2
    error: `models.diffusion`: `[dir]/models/unet/model.onnx` is not a complete ONNX file: it is cut off
    1 problem; nothing was run
    ");
    // and both models at once
    std::fs::write(workspace.path("models/clip/model.onnx"), "").unwrap();
    assert_snapshot!(check(&mut workspace, &[]), @r"
    exit code 2
    error: `models.diffusion`: `[dir]/models/unet/model.onnx` is not a complete ONNX file: it is cut off
    `models.clip`: `[dir]/models/clip/model.onnx` is not a complete ONNX file: it is empty
    2 problems; nothing was run
    ");
}

#[test]
fn a_scheduler_that_nobody_knows() {
    let (mut workspace, _guard) = shipped();
    copied_models(&mut workspace);
    rewritten(&mut workspace, &[("scheduler", "")]);
    let path = workspace.path("models/scheduler/scheduler_config.json");
    let config = std::fs::read_to_string(&path).unwrap();
    let mut config: serde_json::Value = serde_json::from_str(&config).unwrap();
    config["_class_name"] = "HeunDiscreteScheduler".into();
    std::fs::write(&path, config.to_string()).unwrap();
    assert_snapshot!(check(&mut workspace, &[]), @r"
    exit code 2
    error: `[dir]/models/scheduler/scheduler_config.json`: `_class_name` is `HeunDiscreteScheduler`; supported are `DDIMScheduler`, `PNDMScheduler`, `EulerDiscreteScheduler`, `EulerAncestralDiscreteScheduler`, `DPMSolverMultistepScheduler`, `LCMScheduler`; `spectrum.scheduler` puts one of `ddim`, `pndm`, `euler`, `euler_ancestral`, `dpmpp_2m`, `dpmpp_2m_karras`, `lcm` in its place
    1 problem; nothing was run
    ");
    // the pipeline may name another in its place
    workspace.edit("spectrum.scheduler=ddim");
    workspace.ok("check", &[]);
    std::fs::write(&path, "{").unwrap();
    assert_snapshot!(check(&mut workspace, &[]), @r"
    exit code 2
    error: `[dir]/models/scheduler/scheduler_config.json` is not a valid configuration: EOF while parsing an object at line 1 column 1
    1 problem; nothing was run
    ");
}

// ---- the runtime ----

#[test]
fn devices_that_are_not_there() {
    let (workspace, _guard) = small();
    assert_snapshot!(said(&mut workspace.command("run", &["--device", "gpu"])), @r"
    exit code 2
    error: invalid value 'gpu' for '--device <DEVICE>': unknown device `gpu`; valid devices are `auto`, `cpu`, `cuda`, `cuda:N` and `cuda:N,M`

    For more information, try '--help'.
    ");
    assert!(!workspace.lake().exists());
}

#[test]
fn cuda_by_name_without_cuda() {
    let (workspace, _guard) = small();
    let run = said(&mut workspace.command("run", &["--device", "cuda:99"]));
    // why not depends on the library and the machine
    let (run, why) = run.split_once("cannot be used: ").expect(&run);
    assert!(why.contains("\nhint: "), "{why}");
    assert_snapshot!(run, @r"
    exit code 1
    error: device `cuda:99` was asked for, and its provider
    ");
    assert!(!workspace.lake().exists(), "it began to work without the device that was asked for");
}

#[test]
fn no_runtime() {
    let (workspace, _guard) = small();
    let run = || {
        let mut run = workspace.command("run", &[]);
        run.env_remove("ORT_DYLIB_PATH").env("HOME", workspace.path("home")).env("XDG_CACHE_HOME", workspace.path("c"));
        run
    };
    assert_snapshot!(said(run().env("ORT_DYLIB_PATH", workspace.path("none.so"))), @r"
    exit code 1
    error: the ONNX Runtime library `[dir]/none.so`, named by `ORT_DYLIB_PATH`, does not exist
    ");
    assert_snapshot!(said(run().env("PATH", workspace.path("empty"))), @r"
    exit code 1
    error: ONNX Runtime 1.24.4 could not be fetched: `python3` cannot be started (No such file or directory (os error 2))
    hint: set `ORT_DYLIB_PATH` to a library of version 1.24 or later; `python3 -m pip download --no-deps onnxruntime==1.24.4` and `python3 -m zipfile -e` on the wheel give one under onnxruntime/capi/
    ");
    std::fs::write(workspace.path("text.so"), "no library").unwrap();
    assert_snapshot!(said(run().arg("--onnxruntime").arg(workspace.path("text.so"))), @r"
    exit code 1
    error: the ONNX Runtime library `[dir]/text.so` cannot be used: failed to load from `[dir]/text.so`: dlopen failed
    ");
    // said before any work
    assert!(!workspace.lake().exists());
}

// ---- the source ----

#[test]
fn sources_that_are_missing() {
    let (mut workspace, _guard) = shipped();
    assert_snapshot!(check(&mut workspace, &["source.splits.train=nothing.parquet"]), @r"
    exit code 2
    error: `file://[root]/data/digits_lt/nothing.parquet`: there is no such file; it is one of `source.splits`, below `source.root`
    1 problem; nothing was run
    ");
    let (mut workspace, _guard) = shipped();
    let nowhere = at(&workspace, "source.root", "nowhere");
    assert_snapshot!(check(&mut workspace, &[&nowhere]), @r"
    exit code 2
    error: `file://[dir]/nowhere/train.parquet`: there is no such file; it is one of `source.splits`, below `source.root`
    1 problem; nothing was run
    ");
}

/// Makes the source the one file `train.parquet` of the workspace.
fn own_source(workspace: &mut Workspace) -> std::path::PathBuf {
    workspace.edit(&at(workspace, "source.root", ""));
    workspace.edit("source.splits={train=\"train.parquet\"}");
    workspace.path("train.parquet")
}

#[test]
fn sources_that_are_no_parquet() {
    let (mut workspace, _guard) = shipped();
    let path = own_source(&mut workspace);
    let whole = std::fs::read(root().join("data/digits_lt/train.parquet")).unwrap();
    let said = [b"image,label\n" as &[u8], b"", &whole[..whole.len() / 2]].map(|bytes| {
        std::fs::write(&path, bytes).unwrap();
        check(&mut workspace, &[])
    });
    assert_snapshot!(said.join("\n"), @r"
    exit code 2
    error: `file://[dir]/train.parquet`: it is not a Parquet file: Parquet error: Invalid Parquet file. Corrupt footer
    1 problem; nothing was run

    exit code 2
    error: `file://[dir]/train.parquet`: it is not a Parquet file: EOF: file size of 0 is less than footer
    1 problem; nothing was run

    exit code 2
    error: `file://[dir]/train.parquet`: it is not a Parquet file: Parquet error: Invalid Parquet file. Corrupt footer
    1 problem; nothing was run
    ");
}

#[test]
fn columns_that_are_missing_or_of_another_type() {
    let edits = ["image_column=image", "label_column=class", "image_column=label", "label_column=image"];
    let (workspace, _guard) = shipped();
    let said = edits.map(|edit| said(&mut workspace.command("check", &["--set", &format!("source.{edit}")])));
    assert_snapshot!(said.join("\n"), @r#"
    exit code 2
    error: `train.parquet` has no column `image` (`source.image_column`); its columns are `image`, `label`, `scan`
    1 problem; nothing was run

    exit code 2
    error: `train.parquet` has no column `class` (`source.label_column`); its columns are `image`, `label`, `scan`
    1 problem; nothing was run

    exit code 2
    error: `train.parquet`: column `label` (`source.image_column`) holds Int64, images (their bytes, or a struct with `bytes`) are expected
    1 problem; nothing was run

    exit code 2
    error: `train.parquet`: column `image` (`source.label_column`) holds Struct("bytes": Binary, "path": Utf8), integers are expected
    1 problem; nothing was run
    "#);
}

/// A Parquet file with an image and a label column; no bytes are NULL bytes.
fn write_source(path: &Path, rows: &[(Option<Vec<u8>>, Option<i64>)]) {
    let bytes: BinaryArray = rows.iter().map(|row| row.0.as_deref()).collect();
    let paths: StringArray = rows.iter().map(|_| Some("a.png")).collect();
    let fields = vec![Field::new("bytes", DataType::Binary, true), Field::new("path", DataType::Utf8, true)];
    let images: Vec<ArrayRef> = vec![Arc::new(bytes), Arc::new(paths)];
    let images = StructArray::try_new(fields.into(), images, None::<NullBuffer>).unwrap();
    let labels: Int64Array = rows.iter().map(|row| row.1).collect();
    let schema = Schema::new(vec![
        Field::new("image", images.data_type().clone(), true),
        Field::new("label", DataType::Int64, true),
    ]);
    let batch = RecordBatch::try_new(Arc::new(schema), vec![Arc::new(images), Arc::new(labels)]).unwrap();
    let mut writer = ArrowWriter::try_new(std::fs::File::create(path).unwrap(), batch.schema(), None).unwrap();
    writer.write(&batch).unwrap();
    writer.close().unwrap();
}

/// The first images of the shipped data set.
fn images(count: usize) -> Vec<Vec<u8>> {
    let file = std::fs::File::open(root().join("data/digits_lt/train.parquet")).unwrap();
    let mut reader = ParquetRecordBatchReaderBuilder::try_new(file).unwrap().with_batch_size(count).build().unwrap();
    let batch = reader.next().unwrap().unwrap();
    let images = batch.column_by_name("image").unwrap().as_struct();
    let bytes = images.column_by_name("bytes").unwrap().as_binary::<i32>();
    bytes.iter().map(|bytes| bytes.unwrap().to_vec()).collect()
}

#[test]
fn a_row_without_a_label() {
    let (mut workspace, _guard) = shipped();
    let path = own_source(&mut workspace);
    let mut rows: Vec<_> = images(3).into_iter().map(|image| (Some(image), Some(1))).collect();
    rows[1].1 = None;
    write_source(&path, &rows);
    assert_snapshot!(check(&mut workspace, &[]), @r"
    exit code 2
    error: `train.parquet`: row 1 has no `label`; every image needs one
    1 problem; nothing was run
    ");
}

/// A PNG whose header promises 30,000 × 30,000 pixels.
fn huge_png() -> Vec<u8> {
    fn chunk(png: &mut Vec<u8>, kind: &[u8; 4], data: &[u8]) {
        let body = [kind, data].concat();
        let crc = !body.iter().fold(!0_u32, |crc, &byte| {
            (0..8).fold(crc ^ u32::from(byte), |crc, _| (crc >> 1) ^ (0xedb8_8320 & (crc & 1).wrapping_neg()))
        });
        png.extend(u32::try_from(data.len()).unwrap().to_be_bytes());
        png.extend(body);
        png.extend(crc.to_be_bytes());
    }
    let mut png = b"\x89PNG\r\n\x1a\n".to_vec();
    let side = 30_000_u32.to_be_bytes();
    chunk(&mut png, b"IHDR", &[&side[..], &side, &[8, 2, 0, 0, 0]].concat());
    chunk(&mut png, b"IDAT", b"\x78\x9c\x03\x00\x00\x00\x00\x01");
    chunk(&mut png, b"IEND", b"");
    png
}

/// Every kind of image that is none.
fn bad_images() -> Vec<Option<Vec<u8>>> {
    let png = images(1).remove(0);
    let jpeg = std::fs::read(root().join("tests/fixtures/imaging/progressive.jpg")).unwrap();
    vec![
        Some(jpeg[..jpeg.len() / 2].to_vec()),
        Some(png[..png.len() / 2].to_vec()),
        Some(b"I am called .png, and I am a text.".to_vec()),
        Some(Vec::new()),
        None,
        Some(huge_png()),
        Some(b"GIF89a\x01\x00\x01\x00\x80\x00\x00\xff\xff\xff\x00\x00\x00,\x00\x00\x00\x00\x01\x00\x01\x00\x00\x02\x02D\x01\x00;".to_vec()),
    ]
}

#[test]
fn bad_images_are_rejects_up_to_a_ceiling() {
    const GOOD: usize = 20;
    let (mut workspace, _guard) = small();
    let path = own_source(&mut workspace);
    let mut rows: Vec<_> = images(GOOD).into_iter().map(|image| (Some(image), Some(1))).collect();
    let bad = bad_images();
    for (index, image) in bad.iter().enumerate() {
        rows.insert(2 * index, (image.clone(), Some(2)));
    }
    write_source(&path, &rows);
    // no class is hard: what is asked here needs no model
    workspace.edit("hard_samples.max_class_count=1");
    assert_snapshot!(said(&mut workspace.command("run", &[])), @r"
    exit code 1
    device: cpu (no usable GPU: this ONNX Runtime is built without CUDA)
    error: step `pixels`: 7 of 27 rows failed, 1 are allowed (`rejects.max_fraction`); among the latest: not an image: it looks like `text`
    hint: the table `rejects` has each with its reason
    ");
    workspace.edit("rejects.max_fraction=1.0");
    workspace.run();
    let rejects = workspace.query("SELECT step, reason FROM rejects ORDER BY reason");
    let reasons: Vec<_> = rejects.iter().map(|row| row["reason"].as_str().unwrap()).collect();
    assert_snapshot!(reasons.join("\n"), @r"
    not an image: it looks like `text`
    the `jpeg` image is truncated or corrupt: the end of the image is missing
    the `png` image is truncated or corrupt: the end of the image is missing
    the file is empty
    the image format `gif` is not supported; supported are `png`, `jpeg` and `webp`
    the image is 30000 x 30000 pixels, and a side may have 16384 at most
    the source has no bytes for it
    ");
    let distinct = workspace.number("SELECT count(DISTINCT source_id) FROM rejects");
    assert_eq!((rejects.len(), distinct), (bad.len(), bad.len() as f64));
    assert_eq!(workspace.number("SELECT count(*) FROM images WHERE label = 1"), GOOD as f64);
    assert_eq!(workspace.number("SELECT count(*) FROM images"), GOOD as f64);
    workspace.ok("verify", &[]);
}

// ---- classes and descriptions ----

/// What `check` says of each text in the file that `key` names; at first there is no file.
fn files_said(workspace: &mut Workspace, key: &str, texts: &[Option<&str>]) -> String {
    let edit = at(workspace, key, "file.json");
    let said = texts.iter().map(|text| {
        if let Some(text) = text {
            std::fs::write(workspace.path("file.json"), text).unwrap();
        }
        check(workspace, &[&edit])
    });
    said.collect::<Vec<_>>().join("\n")
}

#[test]
fn class_names_that_are_none() {
    let cases = [
        None,
        Some(r#""zero""#),
        Some(r#"["zero""#),
        Some(r#"{"0": "zero", "5": "five"}"#),
        Some(r#"{"zero": "0"}"#),
        Some(r#"["zero", "one"]"#),
    ];
    let (mut workspace, _guard) = shipped();
    let said = files_said(&mut workspace, "source.classes", &cases);
    assert_snapshot!(said, @r"
    exit code 2
    error: `[dir]/file.json` (`source.classes`) cannot be read: No such file or directory (os error 2)
    1 problem; nothing was run

    exit code 2
    error: `[dir]/file.json` (`source.classes`): it is not a list of class names, or an object from number to name
    1 problem; nothing was run

    exit code 2
    error: `[dir]/file.json` (`source.classes`): it is not a list of class names, or an object from number to name: EOF while parsing a list at line 1 column 7
    1 problem; nothing was run

    exit code 2
    error: `[dir]/file.json` (`source.classes`): class 1 has no name; every number below 6 needs one
    1 problem; nothing was run

    exit code 2
    error: `[dir]/file.json` (`source.classes`): it is not a list of class names, or an object from number to name
    1 problem; nothing was run

    exit code 2
    error: `test.parquet#0` has the label 5, and `[dir]/file.json` (`source.classes`) has names for the labels 0 to 1 only
    1 problem; nothing was run
    ");
}

#[test]
fn classes_without_images_are_legal() {
    let (mut workspace, _guard) = small();
    let names: Vec<String> = (0..12).map(|label| format!("\"{label}\": \"class {label}\"")).collect();
    std::fs::write(workspace.path("classes.json"), format!("{{{}}}", names.join(", "))).unwrap();
    workspace.edit(&at(&workspace, "source.classes", "classes.json"));
    workspace.ok("run", &["--until", "hard_samples"]);
    assert_eq!(workspace.number("SELECT count(DISTINCT class_name) FROM images WHERE class_name LIKE 'class %'"), 10.0);
    // some classes have no hard sample
    assert!(workspace.number("SELECT count(DISTINCT label) FROM hard_samples") < 10.0);
}

#[test]
fn nothing_is_hard() {
    let (mut workspace, _guard) = small();
    workspace.edit("hard_samples.max_class_count=1");
    workspace.ok("plan", &[]);
    let run = workspace.run();
    assert!(run["engine"].is_null());
    assert_eq!(workspace.number("SELECT count(*) FROM kept"), 0.0);
    let epochs = workspace.number("SELECT count(DISTINCT epoch) FROM manifest WHERE origin = 'non_hard'");
    assert_eq!(epochs, 5.0);
    workspace.ok("plan", &[]);
    workspace.ok("status", &[]);
    workspace.ok("verify", &[]);
}

#[test]
fn descriptions_that_are_none() {
    let cases = [
        None,
        Some(r#"["zero"]"#),
        Some(r#"{"zero": "a round one"}"#),
        Some(r#"{"zero": ["a round one"], "one": [" "]}"#),
        Some(r#"{"zero": []}"#),
        Some(r#"{"zero": ["#),
    ];
    let (mut workspace, _guard) = shipped();
    let said = files_said(&mut workspace, "prompts.descriptions", &cases);
    assert_snapshot!(said, @r#"
    exit code 2
    error: `[dir]/file.json` (`prompts.descriptions`) cannot be read: No such file or directory (os error 2)
    1 problem; nothing was run

    exit code 2
    error: `[dir]/file.json` (`prompts.descriptions`): it is not an object from class name to a list of strings: invalid type: sequence, expected a map at line 1 column 0
    1 problem; nothing was run

    exit code 2
    error: `[dir]/file.json` (`prompts.descriptions`): it is not an object from class name to a list of strings: invalid type: string "a round one", expected a sequence at line 1 column 22
    1 problem; nothing was run

    exit code 2
    error: `[dir]/file.json` (`prompts.descriptions`): class `one` has no description, or a blank one
    1 problem; nothing was run

    exit code 2
    error: `[dir]/file.json` (`prompts.descriptions`): class `zero` has no description, or a blank one
    1 problem; nothing was run

    exit code 2
    error: `[dir]/file.json` (`prompts.descriptions`): it is not an object from class name to a list of strings: EOF while parsing a list at line 1 column 10
    1 problem; nothing was run
    "#);
}

// ---- queries ----

/// The folder `sql` of the workspace, with one query in it, in the place of the built-in one.
fn replace(workspace: &mut Workspace, name: &str, text: &str) {
    let path = workspace.path("sql").join(name);
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(path, text).unwrap();
    workspace.edit(&at(workspace, "sql_dir", "sql"));
}

const FILTER: &str = "kept/text_similarity.sql";

fn built_in(name: &str) -> String {
    std::fs::read_to_string(root().join("sql").join(name)).unwrap()
}

#[test]
fn a_replacement_with_other_columns() {
    let (mut workspace, _guard) = shipped();
    let text = built_in(FILTER).replace(
        "    sample_id, source_id, label, class_name, image_guidance, seed, attempt, text_similarity",
        "    sample_id, source_id, class_name AS label, class_name, image_guidance, seed, 1 AS more, text_similarity",
    );
    assert_ne!(text, built_in(FILTER));
    replace(&mut workspace, FILTER, &text);
    assert_snapshot!(check(&mut workspace, &[]), @r"
    exit code 2
    error: query `kept/text_similarity.sql`: column `label` is Utf8, Int64 is expected; column `attempt` is missing; `kept` has no column `more`; `kept` is (sample_id utf8, source_id utf8, label int64, class_name utf8, image_guidance int64, seed int64, attempt int64, text_similarity float32, image_similarity float32)
    1 problem; nothing was run
    ");
}

#[test]
fn a_replacement_of_nothing() {
    let (mut workspace, _guard) = shipped();
    replace(&mut workspace, "kept/text_similarty.sql", &built_in(FILTER));
    assert_snapshot!(check(&mut workspace, &[]), @r"
    exit code 2
    error: query `kept/text_similarty.sql`: it replaces no built-in query and the pipeline does not name it; built-in are candidates/spectrum.sql, experiment/images.sql, experiment/samples.sql, experiment/validation.sql, export/classes.sql, export/epochs.sql, export/images.sql, export/manifest.sql, export/problems.sql, feedback/incoming.sql, feedback/problems.sql, hard_samples/classifier.sql, hard_samples/few_shot.sql, hard_samples/low_confidence.sql, images/all.sql, kept/text_similarity.sql, manifest/low_quality.sql, manifest/mixed.sql, pixels/embed.sql, pixels/reference.sql, probe/real.sql, progress/gain.sql, report/awaited.sql, report/contact_sheet.sql, report/forecast.sql, report/levels.sql, report/rate.sql, report/rejects.sql, schedule/adaptive.sql, schedule/all_levels.sql, schedule/diverse_to_specific.sql, schedule/fixed.sql, schedule/random.sql, schedule/real_only.sql, schedule/recursive.sql, schedule/shrink.sql, schedule/specific_to_diverse.sql, schedule/text_only.sql, scores/clip.sql, spectrum/img2img.sql, validation/spectrum.sql, verify/deep.sql, verify/rows.sql
    1 problem; nothing was run
    ");
    let (mut workspace, _guard) = shipped();
    let nowhere = at(&workspace, "sql_dir", "nowhere");
    assert_snapshot!(check(&mut workspace, &[&nowhere]), @r"
    exit code 2
    error: `[dir]/nowhere`: the folder `sql_dir` cannot be read: No such file or directory (os error 2)
    1 problem; nothing was run
    ");
}

#[test]
fn replacements_that_are_no_query() {
    let texts: [&[u8]; 6] = [
        b"SELEC sample_id FROM candidates",
        b"SELECT sample_id\nFROM candidates\nWHERE (attempt = 1",
        b"DROP TABLE images",
        b"SELECT 1; SELECT 2",
        b"-- nothing yet\n",
        b"SELECT '\xff\xfe'",
    ];
    let (mut workspace, _guard) = shipped();
    replace(&mut workspace, FILTER, "");
    let said = texts.map(|text| {
        std::fs::write(workspace.path("sql").join(FILTER), text).unwrap();
        check(&mut workspace, &[])
    });
    assert_snapshot!(said.join("\n"), @r"
    exit code 2
    error: query `kept/text_similarity.sql`: it is no SQL: Expected: an SQL statement, found: SELEC at Line: 1, Column: 1
    1 problem; nothing was run

    exit code 2
    error: query `kept/text_similarity.sql`: it is no SQL: Expected: ), found: EOF
    1 problem; nothing was run

    exit code 2
    error: query `kept/text_similarity.sql`: only one SELECT is allowed here, nothing that writes
    1 problem; nothing was run

    exit code 2
    error: query `kept/text_similarity.sql`: only one SELECT is allowed here, nothing that writes
    1 problem; nothing was run

    exit code 2
    error: query `kept/text_similarity.sql`: it is empty, one SELECT is expected
    1 problem; nothing was run

    exit code 2
    error: query `kept/text_similarity.sql`: it cannot be read: stream did not contain valid UTF-8
    1 problem; nothing was run
    ");
}

/// No query writes, and none reads a file that the pipeline does not name: not as a replacement, not at the prompt.
#[test]
fn queries_that_reach_beyond_the_lake() {
    let (mut workspace, _guard) = small();
    let target = workspace.path("out.csv");
    let copy = format!("COPY (SELECT 1) TO '{}' STORED AS CSV", target.display());
    let queries = [
        copy.clone(),
        format!("EXPLAIN ANALYZE {copy}"),
        "CREATE EXTERNAL TABLE passwd STORED AS CSV LOCATION '/etc/passwd'".to_owned(),
        "CREATE TABLE mine AS SELECT 1".to_owned(),
        "SELECT 1 AS one INTO mine".to_owned(),
        "INSERT INTO rejects SELECT * FROM rejects".to_owned(),
        "EXPLAIN ANALYZE INSERT INTO rejects SELECT * FROM rejects".to_owned(),
        "WITH a AS (SELECT 1) INSERT INTO rejects SELECT * FROM rejects".to_owned(),
        "DELETE FROM rejects".to_owned(),
        "SET datafusion.execution.batch_size = 1".to_owned(),
        "SELECT * FROM '/etc/passwd'".to_owned(),
        "SELECT * FROM \"/etc/passwd\"".to_owned(),
        "SELECT * FROM 'file:///etc/passwd'".to_owned(),
        format!("SELECT * FROM '{}'", root().join("data/digits_lt/train.parquet").display()),
        "SELECT * FROM read_parquet('data/digits_lt/train.parquet')".to_owned(),
        "SELECT * FROM read_csv('/etc/passwd')".to_owned(),
        "SELECT * FROM parquet_metadata('data/digits_lt/train.parquet')".to_owned(),
    ];
    for query in &queries {
        let said = said(&mut workspace.command("sql", &[query]));
        assert!(said.starts_with("exit code 2\nerror: query `sql`: "), "{query}\n{said}");
    }
    replace(&mut workspace, FILTER, "");
    for query in queries.iter().map(String::as_str).chain(["EXPLAIN SELECT * FROM images", "SHOW TABLES"]) {
        std::fs::write(workspace.path("sql").join(FILTER), query).unwrap();
        let said = check(&mut workspace, &[]);
        assert!(said.starts_with("exit code 2\nerror: query `kept/text_similarity.sql`: "), "{query}\n{said}");
    }
    assert!(!target.exists());
}

#[test]
fn expectations_that_cannot_be_asked() {
    let queries = [
        "SELECT * FROM imagse",
        "SELECT lable FROM images",
        "SELECT blurr(label) FROM images",
        "SELECT * FROM images WHERE label > $labell",
        "DROP TABLE images",
    ];
    let (mut workspace, _guard) = shipped();
    let said =
        queries.map(|sql| check(&mut workspace, &[&format!("expect=[{{name=\"all is well\", sql=\"{sql}\"}}]")]));
    assert_snapshot!(said.join("\n"), @r"
    exit code 2
    error: query `[[expect]] all is well`: no table `imagse`; tables are `candidates`, `common_names`, `confidences`, `descriptions`, `experiments`, `feedback`, `hard_samples`, `images`, `kept`, `ledger`, `listing`, `manifest`, `pixels`, `probe`, `progress`, `rejects`, `schedule`, `scores`, `spectrum`, `validation`

    exit code 2
    error: query `[[expect]] all is well`: No field named lable. Did you mean 'images.label'?
    Valid fields are images.source_id, images.pixel_id, images.path, images.label, images.class_name, images.split, images.width, images.height, images.format, images.digest.
    1 problem; nothing was run

    exit code 2
    error: query `[[expect]] all is well`: Invalid function 'blurr'.
    Did you mean 'floor'?
    1 problem; nothing was run

    exit code 2
    error: query `[[expect]] all is well`: no parameter `$labell`; known are $class_balanced, $classifier, $clip, $curriculum_epochs, $epochs, $exclude_classes, $filter_prompt, $generation_prompt, $generator, $guidance_scale, $hard_fraction, $hard_share, $image_guidance, $level, $max_attempts, $max_class_count, $max_probability, $min_text_similarity, $name, $negative_prompt, $non_hard_fraction, $probe_size, $scheduler, $seed, $seeds, $strategy, $timesteps, $trials, $unet_evaluations, $validation_sources

    exit code 2
    error: query `[[expect]] all is well`: only one SELECT is allowed here, nothing that writes
    ");
}

#[test]
fn an_unknown_strategy() {
    let (mut workspace, _guard) = shipped();
    assert_snapshot!(check(&mut workspace, &["curriculum.strategy=divers_to_specific"]), @r"
    exit code 2
    error: query `schedule/divers_to_specific.sql`: there is no such file; in that folder are `schedule/adaptive.sql`, `schedule/all_levels.sql`, `schedule/diverse_to_specific.sql`, `schedule/fixed.sql`, `schedule/random.sql`, `schedule/real_only.sql`, `schedule/recursive.sql`, `schedule/shrink.sql`, `schedule/specific_to_diverse.sql`, `schedule/text_only.sql`; `sql_dir` may add to them
    ");
}

#[test]
fn an_expectation_that_fails_shows_its_rows() {
    let (mut workspace, _guard) = small();
    let asked = |at_least: usize| {
        format!(
            "expect=[{{name=\"no class is small\", sql=\"SELECT class_name, count(*) AS images FROM images WHERE \
             split = 'train' GROUP BY class_name HAVING count(*) < {at_least} ORDER BY class_name\"}}]"
        )
    };
    workspace.edit(&asked(20));
    assert_snapshot!(said(&mut workspace.command("run", &["--until", "images"])), @r"
    exit code 1
    pixels: 780 rows in [time]; it was never made
    images: 780 rows in [time]; it was never made
    error: expectation `no class is small` failed: 4 rows, none expected
    +------------+--------+
    | class_name | images |
    +------------+--------+
    | eight      | 3      |
    | five       | 5      |
    | nine       | 4      |
    | three      | 15     |
    +------------+--------+
    ");
    // what was made is kept, and the same lake goes on
    workspace.edit(&asked(0));
    let run = workspace.json("run", &["--until", "images"]);
    assert!(crate::support::skipped(&run).values().all(|&skipped| skipped), "{run:#}");
}

#[test]
fn two_rows_of_one_key() {
    let twice = |name: &str| {
        let query = built_in(name);
        format!("{query}\nUNION ALL\n{query}")
    };
    let (mut workspace, _guard) = small();
    replace(&mut workspace, "hard_samples/few_shot.sql", &twice("hard_samples/few_shot.sql"));
    assert_snapshot!(said(&mut workspace.command("run", &["--until", "hard_samples"])), @r"
    exit code 2
    pixels: 780 rows in [time]; it was never made
    images: 780 rows in [time]; it was never made
    error: query `hard_samples/few_shot.sql`: it gives two rows with the same (source_id) among 24; `hard_samples` holds one of each
    ");
    assert_eq!(workspace.number("SELECT count(*) FROM hard_samples"), 0.0);
    let (mut workspace, _guard) = small();
    replace(&mut workspace, "pixels/embed.sql", &twice("pixels/embed.sql"));
    let pixels = said(&mut workspace.command("run", &["--until", "pixels"]));
    let mut settings = insta::Settings::clone_current();
    settings.add_filter("[0-9a-f]{32}", "[source_id]");
    settings.bind(|| assert_snapshot!(pixels, @r"
    exit code 2
    error: query `pixels/embed.sql`: it gives a row twice, or unasked, with the `pixel_id` `[source_id]`; `pixels` gets one row for each of `listing`
    "));
    assert_eq!(workspace.number("SELECT count(*) FROM pixels"), 0.0);
}

// ---- the lake ----

#[test]
fn a_lake_that_cannot_be_written() {
    let (workspace, _guard) = small();
    // below a file, since root may write anywhere else
    std::fs::write(workspace.lake(), "a file").unwrap();
    assert_snapshot!(said(&mut workspace.command("run", &[])), @r"
    exit code 1
    error: `file://[dir]/lake/digits_lt/feedback`: its log cannot be read: Failed to read delta log object: Generic LocalFileSystem error: Unable to walk dir: IO error for operation on [dir]/lake/digits_lt/feedback/_delta_log: Not a directory (os error 20)
    ");
    assert_eq!(std::fs::read_to_string(workspace.lake()).unwrap(), "a file");
}

#[test]
fn a_lake_where_no_store_is() {
    let (workspace, _guard) = shipped();
    assert_snapshot!(said(workspace.command("check", &[]).args(["--set", "lake.root=ftp://a/b"])), @r#"
    exit code 2
    error: --set lake.root=ftp://a/b: `lake.root`: found "ftp://a/b", allowed are directories, and URLs with `file://`, `s3://`, `gs://`, `az://` or `memory://`
    1 problem; nothing was run
    "#);
    let mut process = crate::support::program();
    process.arg("check").arg(&workspace.pipeline).args(["--lake", "memory://bucket/lake"]);
    assert_snapshot!(said(&mut process), @r"
    exit code 2
    error: `memory://bucket/lake`: URLs with the scheme `memory` are not supported; allowed are a directory, and URLs with `file://`, `s3://`, `gs://` or `az://`
    1 problem; nothing was run
    ");
}

#[test]
fn a_data_file_that_was_deleted() {
    let (mut workspace, _guard) = small();
    // the real image itself: nothing is denoised
    workspace.edit("spectrum.image_guidance=[100]");
    workspace.edit("expect=[]");
    workspace.run();
    let folder = workspace.lake().join("digits_lt/candidates");
    let files = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let mut deleted = 0;
    for file in files.filter(|file| file.extension().is_some_and(|extension| extension == "parquet")) {
        std::fs::remove_file(file).unwrap();
        deleted += 1;
    }
    assert!(deleted > 0);
    let verified = workspace.command("verify", &[]).output().unwrap();
    assert_eq!(verified.status.code(), Some(1), "{}", stderr(&verified));
    let mut settings = insta::Settings::clone_current();
    settings.add_filter("-[0-9a-f]{16}\\.parquet", "-[digest].parquet");
    settings.bind(|| {
        assert_snapshot!(String::from_utf8_lossy(&verified.stdout), @"candidates: file `rows-[digest].parquet` does not exist");
        assert_snapshot!(said(&mut workspace.command("sql", &["SELECT count(DISTINCT prompt) FROM candidates"])), @r"
        exit code 2
        error: query `sql`: Parquet error: Failed to fetch metadata for file [dir]/lake/digits_lt/candidates/rows-[digest].parquet: Object Store error: Object at location [dir]/lake/digits_lt/candidates/rows-[digest].parquet not found: No such file or directory (os error 2)
        ");
    });
}
