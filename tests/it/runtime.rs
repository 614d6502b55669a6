//! ONNX Runtime as it is fetched from an index, for the CPU and for CUDA, and what `doctor` says of a machine.

use std::{
    collections::BTreeMap,
    fs,
    io::Write,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
    time::{Duration, Instant},
};

use serde_json::Value;

use crate::support::{Workspace, cache, contents, program, stderr};

/// Writes wheels with the names of the real ones, for x86-64 and ARM. Each holds small files in the real places.
const WHEELS: &str = r#"
import sys, zipfile
for package, version, tag, files in [
    ("onnxruntime", "1.24.4", "cp311-cp311-{28}", ["onnxruntime/capi/libonnxruntime.so.1.24.4"]),
    ("onnxruntime_gpu", "1.31.1", "cp311-cp311-{gpu}", [
        "onnxruntime/capi/libonnxruntime.so.1.31.1", "onnxruntime/capi/libonnxruntime_providers_shared.so",
        "onnxruntime/capi/libonnxruntime_providers_cuda.so",
        "onnxruntime/capi/libonnxruntime_providers_tensorrt.so", "onnxruntime/__init__.py"]),
    ("nvidia_cublas", "13.1.0.3", "py3-none-{27}", [
        "nvidia/cu13/lib/libcublas.so.13", "nvidia/cu13/lib/libcublasLt.so.13", "nvidia/cu13/include/cublas.h"]),
    ("nvidia_cuda_runtime", "13.0.96", "py3-none-{2014}", [
        "nvidia/cu13/lib/libcudart.so.13", "nvidia/cu13/lib/libcudart_static.a"]),
    ("nvidia_curand", "10.4.0.35", "py3-none-{27}", ["nvidia/cu13/lib/libcurand.so.10"]),
    ("nvidia_cuda_nvrtc", "13.0.88", "py3-none-{nvrtc}", [
        "nvidia/cu13/lib/libnvrtc.so.13", "nvidia/cu13/lib/libnvrtc-builtins.so.13.0"]),
    ("nvidia_cudnn_cu13", "9.19.0.56", "py3-none-{27}", [
        "nvidia/cudnn/lib/libcudnn.so.9", "nvidia/cudnn/lib/libcudnn_ops.so.9"]),
]:
    for machine in ["x86_64", "aarch64"]:
        is_arm = machine == "aarch64"
        names = {"27": "manylinux_2_27_", "28": "manylinux_2_28_", "2014": "manylinux2014_",
                 "gpu": "manylinux_2_34_" if is_arm else "manylinux_2_28_",
                 "nvrtc": "manylinux2014_" if is_arm else "manylinux2010_"}
        for key, name in names.items():
            names[key] = name + machine
        wheel_tag = tag
        for key, name in names.items():
            wheel_tag = wheel_tag.replace("{" + key + "}", name)
        with zipfile.ZipFile(f"{sys.argv[1]}/{package}-{version}-{wheel_tag}.whl", "w") as wheel:
            info = f"{package}-{version}.dist-info"
            wheel.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {package}\nVersion: {version}\n")
            wheel.writestr(f"{info}/WHEEL", f"Wheel-Version: 1.0\nRoot-Is-Purelib: false\nTag: {wheel_tag}\n")
            wheel.writestr(f"{info}/RECORD", "")
            for name in files:
                wheel.writestr(name, f"not a library: {name}")
"#;

/// Stands for `python3`: replaces the hash of the real wheel by that of the small one, then runs the real pip, which
/// compares it.
const STAND_IN: &str = r#"#!/bin/sh
if [ "$3" = pip ]; then
    name=$(sed 's/ .*//; s/==/-/' requirements.txt | sed 's/-\([0-9.]*\)$/ \1/; s/-/_/g; s/ /-/')
    hash=$(sha256sum "INDEX/$name"-*"$(uname -m)".whl | cut -d ' ' -f 1)
    sed -i "s/sha256:.*/sha256:$hash/" requirements.txt
fi
exec "REAL" "$@"
"#;

/// A machine with a local index in place of PyPI's, and with a cache of its own.
struct Machine {
    workspace: Workspace,
    path: String,
}

impl Machine {
    /// `python3` is the real one, or stands in as if the small wheels had the hashes of the real ones.
    fn new(has_right_hashes: bool) -> Self {
        let workspace = Workspace::small();
        let folder = |name: &str| {
            let path = workspace.path(name);
            fs::create_dir(&path).unwrap();
            path
        };
        let (index, programs) = (folder("index"), folder("programs"));
        let output = Command::new("python3").args(["-I", "-c", WHEELS]).arg(&index).output().unwrap();
        assert!(output.status.success(), "{}", stderr(&output));
        let output = Command::new("python3").args(["-I", "-c", "import sys; print(sys.executable)"]).output().unwrap();
        let real = String::from_utf8(output.stdout).unwrap();
        let stand_in = STAND_IN.replace("INDEX", index.to_str().unwrap()).replace("REAL", real.trim());
        if has_right_hashes {
            write_program(&programs.join("python3"), &stand_in);
        }
        // What this machine has of NVIDIA is not what is tested.
        let path = format!("{}:{}", programs.display(), std::env::var("PATH").unwrap());
        Self { workspace, path }
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = program();
        command.args(arguments).env("PATH", &self.path);
        for name in ["ORT_DYLIB_PATH", "VIRTUAL_ENV", "CONDA_PREFIX", "CUDA_HOME", "CUDA_PATH", "LD_LIBRARY_PATH"] {
            command.env_remove(name);
        }
        let path = |name: &str| self.workspace.path(name).display().to_string();
        command
            .env("HOME", path("home"))
            .env("XDG_CACHE_HOME", path("cache"))
            .env("PIP_NO_INDEX", "1")
            .env("PIP_FIND_LINKS", path("index"));
        command
    }

    fn run(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().unwrap()
    }

    /// Returns the files of the cache, by their path, with the places in their wheels.
    fn cached(&self) -> BTreeMap<String, String> {
        let folder = self.workspace.path("cache/discl-pipe/onnxruntime");
        let files = if folder.is_dir() { contents(&folder) } else { BTreeMap::new() };
        files.into_iter().map(|(name, bytes)| (name, String::from_utf8_lossy(&bytes).into_owned())).collect()
    }
}

fn write_program(path: &Path, text: &str) {
    fs::write(path, text).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
}

/// Returns the libraries of the fetched wheels, whose folder is `1.31.1-cuda13`.
const FETCHED: [&str; 11] = [
    "libcublas.so.13",
    "libcublasLt.so.13",
    "libcudart.so.13",
    "libcudnn.so.9",
    "libcudnn_ops.so.9",
    "libcurand.so.10",
    "libnvrtc-builtins.so.13.0",
    "libnvrtc.so.13",
    "libonnxruntime.so.1.31.1",
    "libonnxruntime_providers_cuda.so",
    "libonnxruntime_providers_shared.so",
];

#[test]
fn the_runtime_for_cuda_is_fetched_with_what_the_machine_lacks() {
    let machine = Machine::new(true);
    // An environment has cuDNN already, as torch brings it.
    let cudnn = machine.workspace.path("venv/lib/python3.12/site-packages/nvidia/cudnn/lib/libcudnn.so.9");
    fs::create_dir_all(cudnn.parent().unwrap()).unwrap();
    fs::write(&cudnn, "").unwrap();
    let mut fetch = machine.command(&["runtime", "fetch", "cuda", "--format", "json"]);
    let output = fetch.env("VIRTUAL_ENV", machine.workspace.path("venv")).output().unwrap();
    let said = stderr(&output);
    assert!(output.status.success(), "{said}");
    let found: Value = serde_json::from_slice(&output.stdout).unwrap();
    let library = machine.workspace.path("cache/discl-pipe/onnxruntime/1.31.1-cuda13/libonnxruntime.so.1.31.1");
    assert_eq!(found["library"], library.to_str().unwrap());
    // What is there, then the size of all, then each.
    let lines: Vec<&str> = said.lines().collect();
    assert_eq!(lines[0], format!("there is libcudnn.so.9: {} (a Python environment)", cudnn.display()));
    assert!(lines[1].starts_with("to fetch, ") && lines[1].contains(" in all: onnxruntime-gpu 1.31.1, "), "{said}");
    assert!(lines[2].starts_with("fetching onnxruntime-gpu 1.31.1, "), "{said}");
    assert_eq!(found["fetched"].as_array().unwrap().len(), 5, "{found}");
    let own = |name: &&str| !name.starts_with("libcudnn");
    let expected: Vec<String> =
        FETCHED.iter().copied().filter(own).map(|name| format!("1.31.1-cuda13/{name}")).collect();
    assert_eq!(machine.cached().into_keys().collect::<Vec<_>>(), expected);

    // The environment is gone: only what it had is fetched.
    let output = machine.run(&["runtime", "fetch", "cuda"]);
    let said = stderr(&output);
    assert!(output.status.success(), "{said}");
    assert_eq!(said.matches("\nfetching ").count(), 1, "{said}");
    let cached = machine.cached();
    assert_eq!(cached.keys().cloned().collect::<Vec<_>>(), FETCHED.map(|name| format!("1.31.1-cuda13/{name}")));
    assert_eq!(cached["1.31.1-cuda13/libcudnn.so.9"], "not a library: nvidia/cudnn/lib/libcudnn.so.9");
    let output = machine.run(&["runtime", "fetch", "cuda"]);
    assert!(stderr(&output).ends_with("nothing to fetch\n"), "{}", stderr(&output));
    assert_eq!(String::from_utf8(output.stdout).unwrap().trim(), library.to_str().unwrap());
}

#[test]
fn the_runtime_for_cuda_is_kept_beside_that_for_the_cpu_and_comes_first() {
    let machine = Machine::new(true);
    let doctor = || {
        let output = machine.run(&["doctor"]);
        assert_eq!(output.status.code(), Some(1), "these are no libraries");
        String::from_utf8(output.stdout).unwrap()
    };
    assert!(machine.run(&["runtime", "fetch"]).status.success());
    let said = doctor();
    assert!(said.contains("onnxruntime/1.24.4/libonnxruntime.so.1.24.4"), "{said}");
    assert!(machine.run(&["runtime", "fetch", "cuda"]).status.success());
    assert_eq!(machine.cached().len(), FETCHED.len() + 1);
    let said = doctor();
    assert!(said.contains("onnxruntime/1.31.1-cuda13/libonnxruntime.so.1.31.1"), "{said}");
}

#[test]
fn a_wheel_with_another_hash_is_refused_and_nothing_is_kept() {
    for build in ["cuda", "cpu"] {
        let machine = Machine::new(false);
        let output = machine.run(&["runtime", "fetch", build]);
        let said = stderr(&output);
        assert_eq!(output.status.code(), Some(1), "{said}");
        let package = if build == "cuda" { "onnxruntime-gpu" } else { "onnxruntime" };
        let reason = format!("the wheel of {package} is not the known one: its hash is another");
        assert!(said.contains(&reason) && said.contains("\nhint: nothing of it was kept"), "{said}");
        assert_eq!(machine.cached(), BTreeMap::new());
    }
    // The last of several: those before it are not kept either.
    let machine = Machine::new(true);
    let index = machine.workspace.path("index");
    for entry in fs::read_dir(&index).unwrap() {
        let path = entry.unwrap().path();
        if path.file_name().unwrap().to_str().unwrap().starts_with("nvidia_cudnn") {
            fs::remove_file(path).unwrap();
        }
    }
    let output = machine.run(&["runtime", "fetch", "cuda"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains("nvidia-cudnn-cu13"), "{}", stderr(&output));
    assert_eq!(machine.cached(), BTreeMap::new());
}

/// Answers as the driver's tool does, and records its variables.
const NVIDIA_SMI: &str = "#!/bin/sh\nenv > RECORD\necho '580.95.05, 81559, 9.0, NVIDIA H100 80GB HBM3'\n";

#[test]
fn doctor_warns_where_a_gpu_is_not_used() {
    let machine = Machine::new(true);
    let record = machine.workspace.path("record");
    let tool = machine.workspace.path("programs/nvidia-smi");
    write_program(&tool, &NVIDIA_SMI.replace("RECORD", record.to_str().unwrap()));
    let mut doctor = machine.command(&["doctor"]);
    doctor.envs(cache(&machine.workspace)).env("HF_TOKEN", "secret-1").env_remove("CUDA_VISIBLE_DEVICES");
    let output = doctor.output().unwrap();
    let said = String::from_utf8(output.stdout.clone()).unwrap();
    assert_eq!(output.status.code(), Some(0), "{said}{}", stderr(&output));
    assert!(said.contains("ok   gpu: 0: NVIDIA H100 80GB HBM3, 81559 MiB, compute capability 9.0\n"), "{said}");
    assert!(
        said.contains("WARN cuda: this ONNX Runtime is for the CPU only, and the GPU is not used\nhint: "),
        "{said}"
    );
    assert!(
        said.contains("ok   device: auto is cpu: no usable GPU: this ONNX Runtime is for the CPU only, but"),
        "{said}"
    );
    let variables = fs::read_to_string(record).unwrap();
    assert!(!variables.contains("secret-1") && !variables.contains("HOME="), "{variables}");

    let output = doctor.args(["--format", "json"]).output().unwrap();
    let findings: Vec<Value> = serde_json::from_slice(&output.stdout).unwrap();
    let cuda = findings.iter().find(|finding| finding["what"] == "cuda").unwrap();
    assert_eq!((&cuda["works"], &cuda["warning"]), (&true.into(), &true.into()));
}

#[test]
fn a_gpu_that_is_not_usable_is_refused_before_any_work() {
    let workspace = Workspace::small();
    for device in ["cuda", "cuda:7", "cuda:0,1", "cuda:all"] {
        let output = workspace.command("run", &["--device", device]).output().unwrap();
        let said = stderr(&output);
        assert_eq!(output.status.code(), Some(1), "{device}: {said}");
        assert!(said.contains("was requested, but its provider cannot be used: "), "{device}: {said}");
        assert!(said.contains("\nhint: `discl-pipe doctor` says what is missing"), "{device}: {said}");
        assert_eq!(workspace.query("SELECT count(*) AS n FROM ledger")[0]["n"], 0, "{device}");
    }
}

/// Versions that may be newer than the one for the CPU send telemetry from the moment they are loaded, unless the process
/// was started with a variable.
#[test]
fn a_library_that_may_be_newer_is_loaded_without_telemetry() {
    let workspace = Workspace::small();
    let library = workspace.path("libonnxruntime.so");
    fs::write(&library, "").unwrap();
    let named = library.display().to_string();
    for (variable, arguments, is_set) in
        [(Some(&named), vec![], true), (None, vec!["--onnxruntime", &named], true), (None, vec![], false)]
    {
        let mut command = workspace.command("sql", &arguments);
        command.env_remove("ORT_DISABLE_TELEMETRY").env_remove("ORT_DYLIB_PATH");
        command.envs(variable.map(|path| ("ORT_DYLIB_PATH", path)));
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        // The program waits for a query, and so has long started.
        let mut stdin = child.stdin.take().unwrap();
        writeln!(stdin, "SELECT 1 AS one;").unwrap();
        let variables = PathBuf::from(format!("/proc/{}/environ", child.id()));
        let started = Instant::now();
        let is_found = loop {
            let found = String::from_utf8_lossy(&fs::read(&variables).unwrap()).contains("ORT_DISABLE_TELEMETRY=1");
            if found || started.elapsed() > Duration::from_secs(if is_set { 60 } else { 1 }) {
                break found;
            }
            std::thread::sleep(Duration::from_millis(20));
        };
        drop(stdin);
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success(), "the query ran with its arguments and its stdin");
        assert!(String::from_utf8(output.stdout).unwrap().contains("one"));
        assert_eq!(is_found, is_set, "{arguments:?}");
    }
}
