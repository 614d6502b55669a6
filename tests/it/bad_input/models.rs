//! Bad models, and a runtime or a device that cannot be used.

use insta::assert_snapshot;

use super::{at, check, rewritten, said, shipped, small};
use crate::support::{Workspace, copy_all, root};

/// Copies the shipped models, and makes the pipeline use the copy.
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
    error: `models.diffusion`: `[dir]/models/unet/model.onnx` does not exist; the folder has `config.json`
    hint: `optimum-cli export onnx` writes it, for a diffusion model with `--task image-to-image`; docs/models.md has more
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
    error: `models.diffusion`: `[dir]/models/unet/model.onnx` is not a complete ONNX file: it looks like `text`
    1 problem; nothing was run
    ");
    std::fs::write(&path, &graph[..graph.len() / 3]).unwrap();
    assert_snapshot!(check(&mut workspace, &[]), @r"
    exit code 2
    error: `models.diffusion`: `[dir]/models/unet/model.onnx` is not a complete ONNX file: it is cut off
    1 problem; nothing was run
    ");
    // Both models are reported at once.
    std::fs::write(workspace.path("models/clip/model.onnx"), "").unwrap();
    assert_snapshot!(check(&mut workspace, &[]), @r"
    exit code 2
    error: `models.diffusion`: `[dir]/models/unet/model.onnx` is not a complete ONNX file: it is cut off
    `models.clip`: `[dir]/models/clip/model.onnx` is not a complete ONNX file: it is an empty file
    hint: download or copy the file again
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
    error: `[dir]/models/scheduler/scheduler_config.json`: `_class_name` is `HeunDiscreteScheduler`; supported are `DDIMScheduler`, `PNDMScheduler`, `EulerDiscreteScheduler`, `EulerAncestralDiscreteScheduler`, `DPMSolverMultistepScheduler`, `LCMScheduler`; `spectrum.scheduler` can replace it with one of `ddim`, `pndm`, `euler`, `euler_ancestral`, `dpmpp_2m`, `dpmpp_2m_karras`, `lcm`
    1 problem; nothing was run
    ");
    // The pipeline may override it.
    workspace.edit("spectrum.scheduler=ddim");
    workspace.ok("check", &[]);
    std::fs::write(&path, "{").unwrap();
    assert_snapshot!(check(&mut workspace, &[]), @r"
    exit code 2
    error: `[dir]/models/scheduler/scheduler_config.json` is not a valid configuration: EOF while parsing an object at line 1 column 1
    1 problem; nothing was run
    ");
}

#[test]
fn devices_that_are_not_there() {
    let (workspace, _guard) = small();
    assert_snapshot!(said(&mut workspace.command("run", &["--device", "gpu"])), @r"
    exit code 2
    error: invalid value 'gpu' for '--device <DEVICE>': unknown device `gpu`; valid devices are `auto`, `cpu`, `cuda`, `cuda:N`, `cuda:N,M` and `cuda:all`

    For more information, try '--help'.
    ");
    assert!(!workspace.lake().exists());
}

#[test]
fn cuda_by_name_without_cuda() {
    let (workspace, _guard) = small();
    let run = said(&mut workspace.command("run", &["--device", "cuda:99"]));
    // The reason depends on the library and the machine.
    let (run, why) = run.split_once("cannot be used: ").expect(&run);
    assert!(why.contains("\nhint: "), "{why}");
    assert_snapshot!(run, @r"
    exit code 1
    split       images  classes  smallest class  largest class  skipped
    train          337       10  eight (3)       zero (70)            0
    validation      43       10  one (2)         zero (8)             0
    test           400       10  zero (40)       zero (40)            0
    error: device `cuda:99` was requested, but its provider
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
    split       images  classes  smallest class  largest class  skipped
    train          337       10  eight (3)       zero (70)            0
    validation      43       10  one (2)         zero (8)             0
    test           400       10  zero (40)       zero (40)            0
    error: the ONNX Runtime library `[dir]/none.so`, named by `ORT_DYLIB_PATH`, does not exist
    ");
    assert_snapshot!(said(run().env("PATH", workspace.path("empty"))), @r"
    exit code 1
    split       images  classes  smallest class  largest class  skipped
    train          337       10  eight (3)       zero (70)            0
    validation      43       10  one (2)         zero (8)             0
    test           400       10  zero (40)       zero (40)            0
    error: cannot fetch ONNX Runtime for the CPU: cannot start `python3` (No such file or directory (os error 2))
    hint: nothing of it was kept; alternatively, set `ORT_DYLIB_PATH` to a library of version 1.24 or later: `python3 -I -m pip install --no-deps onnxruntime==1.24.4` in a virtual environment puts one into onnxruntime/capi/ of its packages
    ");
    std::fs::write(workspace.path("text.so"), "no library").unwrap();
    assert_snapshot!(said(run().arg("--onnxruntime").arg(workspace.path("text.so"))), @r"
    exit code 1
    split       images  classes  smallest class  largest class  skipped
    train          337       10  eight (3)       zero (70)            0
    validation      43       10  one (2)         zero (8)             0
    test           400       10  zero (40)       zero (40)            0
    error: cannot load the ONNX Runtime library `[dir]/text.so`: failed to load from `[dir]/text.so`: dlopen failed
    ");
    // It is reported before any work.
    assert!(!workspace.lake().exists());
}
