//! Tests on `tests/fixtures/onnx/ports.onnx`, whose graph returns each of its inputs.

use super::*;

fn path() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/onnx/ports.onnx")
}

/// The outputs of the graph.
const ALL: [&str; 4] = ["y", "h_out", "ids_out", "timestep_out"];

fn open(path: &Path) -> Result<Model, OnnxError> {
    let (runtime, busy) = (Runtime::open(None).unwrap(), Arc::default());
    Loader { runtime: &runtime, provider: Provider::Cpu, cuda: CudaOptions::default(), threads: 1, busy: &busy }
        .open(path)
}

fn ports() -> Model {
    open(&path()).unwrap()
}

fn inputs() -> Vec<(&'static str, Tensor)> {
    vec![
        ("x", Tensor::f32([1, 3], vec![1.0, 2.0, 3.0])),
        ("h", Tensor::f32([1, 3], vec![0.5, -1.0, 0.1])),
        ("ids", Tensor::i64([1, 2], vec![7, 8])),
        ("timestep", Tensor::f32([], vec![41.625])),
    ]
}

#[test]
fn inputs_are_converted_to_the_types_of_the_graph() {
    let mut outputs = ports().run(inputs(), &ALL).unwrap();
    assert_eq!(outputs.take("y").unwrap(), (vec![1, 3], vec![1.0, 4.0, 9.0]));
    assert_eq!(outputs.take("h_out").unwrap().1, [0.5, -1.0, f16::from_f32(0.1).to_f32()]);
    assert_eq!(outputs.take("ids_out").unwrap().1, [7.0, 8.0]);
    assert_eq!(outputs.take("timestep_out").unwrap(), (vec![], vec![41.0]));
    assert!(outputs.take("y").is_none(), "taken");
}

#[test]
fn only_requested_outputs_are_returned() {
    let mut outputs = ports().run(inputs(), &["h_out", "no such output"]).unwrap();
    assert!(outputs.take("y").is_none() && outputs.take("h_out").is_some());
}

#[test]
fn inputs_stay_from_run_to_run_until_they_are_written_again() {
    let (runtime, busy) = (Runtime::open(None).unwrap(), Arc::default());
    let (provider, cuda) = (Provider::Cpu, CudaOptions::default());
    let loader = Loader { runtime: &runtime, provider, cuda, threads: 1, busy: &busy };
    let mut model = loader.open_batched(&path().with_file_name("one_timestep.onnx"), "timestep").unwrap();
    let mut held = model.hold(2, &[("sample", vec![1]), ("timestep", Vec::new())], "out", 2).unwrap();
    let mut run = |held: &mut HeldInputs| model.run_held(held).unwrap();
    assert_eq!(run(&mut held), [0.0, 0.0], "3 * timestep + sample");
    held.write("sample", 0, &[1.0]);
    held.write("timestep", 0, &[10.0]);
    held.write("timestep", 1, &[20.0]);
    assert_eq!(run(&mut held), [31.0, 60.0]);
    held.write("timestep", 1, &[30.0]);
    held.write("no such input", 0, &[1.0]);
    held.write("sample", 2, &[1.0]);
    assert_eq!(run(&mut held), [31.0, 90.0]);
    let message = |held: Result<HeldInputs, OnnxError>| held.unwrap_err().to_string();
    let unknown = message(model.hold(1, &[("z", Vec::new())], "out", 1));
    assert!(unknown.ends_with("no input `z`; it has `sample`, `timestep`"), "{unknown}");
    let mut short = model.hold(2, &[("sample", vec![1]), ("timestep", Vec::new())], "out", 7).unwrap();
    let wrong = model.run_held(&mut short).unwrap_err().to_string();
    assert!(wrong.ends_with("its output has the shape [2, 1]; expected 7 values"), "{wrong}");
}

#[test]
fn the_loaded_inputs_equal_those_in_the_file() {
    // Neither lists an initializer that may be overridden.
    assert_eq!(ports().inputs, Signature::read(&path()).unwrap().inputs);
}

#[test]
fn wrong_inputs_are_reported() {
    let mut model = ports();
    let unknown = model.run(vec![("z", Tensor::f32([], vec![0.0]))], &ALL).unwrap_err().to_string();
    assert!(unknown.ends_with("no input `z`; it has `x`, `h`, `ids`, `timestep`"), "{unknown}");
    let mut wrong = inputs();
    wrong[0].1 = Tensor::f32([1, 4], vec![0.0; 4]);
    let message = model.run(wrong, &ALL).unwrap_err().to_string();
    assert!(message.contains("ports.onnx` failed"), "{message}");
}

#[test]
fn a_device_without_memory_is_told_from_a_shape_that_does_not_fit() {
    let mut model = open(&path().with_file_name("expand.onnx")).unwrap();
    let mut expand = |rows: i64, columns: i64| {
        let value = Tensor::f32([1, 3], vec![1.0, 2.0, 3.0]);
        model.run(vec![("value", value), ("shape", Tensor::i64([2], vec![rows, columns]))], &["out"])
    };
    assert_eq!(expand(2, 3).unwrap().take("out").unwrap().1, [1.0, 2.0, 3.0, 1.0, 2.0, 3.0]);
    // No machine has 2^58 bytes.
    let error = expand(1 << 54, 3).unwrap_err();
    assert!(matches!(&error, OnnxError::Device { .. }), "{error}");
    assert!(error.to_string().contains("hint: if the device has too little memory, lower `--model-batch`"), "{error}");
    let error = expand(2, 4).unwrap_err();
    assert!(matches!(&error, OnnxError::Run { .. }), "{error}");
}

/// Messages of the CUDA provider, as its source has them.
#[test]
fn failures_of_a_gpu_are_failures_of_the_device() {
    for message in [
        "CUDA failure 2: out of memory ; GPU=0 ; hostname=h ; file=cuda_call.cc ; line=129 ; expr=cudaMalloc(&p, size);",
        "CUBLAS failure 3: the resource allocation failed ; GPU=0",
        "bfc_arena.cc:376 void* onnxruntime::BFCArena::AllocateRawInternal Failed to allocate memory for requested buffer",
        "Available memory of 256 is smaller than requested bytes of 1048576",
        "CUDNN failure 4000: CUDNN_STATUS_INTERNAL_ERROR ; GPU=0",
    ] {
        let error = run_failed(&path(), &ort::Error::new(message));
        assert!(matches!(error, OnnxError::Device { .. }), "{message}");
    }
}

#[test]
fn a_file_that_is_not_a_graph_is_an_error() {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), b"hello").unwrap();
    let error = open(file.path()).unwrap_err();
    assert!(matches!(error, OnnxError::Open { .. }), "{error}");
}
