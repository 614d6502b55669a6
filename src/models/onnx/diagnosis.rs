//! What `doctor` finds about GPUs: the driver, each GPU, each library, what became of the trials, and what `auto` takes.

use super::{
    Device, Runtime,
    cuda_libraries::{Library, Needs},
    device::{self, Cuda},
    machine::Gpu,
    trial::{Failure, Trial},
};

/// Something that was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Finding {
    /// What it is about, in a word or two.
    pub(crate) what: &'static str,
    pub(crate) state: State,
    /// What was found; if something is wrong, with a `hint: ` line that says what to do.
    pub(crate) found: String,
}

/// Whether it works.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum State {
    Works,
    /// It is allowed and probably not intended.
    Doubtful,
    Broken,
}

impl Finding {
    pub(crate) fn new(what: &'static str, state: State, found: impl Into<String>) -> Self {
        Self { what, state, found: found.into() }
    }
}

/// The oldest driver for each version of CUDA, by its first number.
const DRIVERS: [(&str, u32); 2] = [("12", 525), ("13", 580)];

/// Says what of CUDA works on this machine with this runtime. Tries each GPU.
pub(crate) fn diagnose(runtime: &Runtime) -> Vec<Finding> {
    let cuda = device::cuda(runtime);
    let numbers = (0..cuda.visible).filter_map(|number| u32::try_from(number).ok());
    let trials: Vec<(u32, Trial)> = match cuda.needs {
        Ok(Some(_)) => numbers.map(|number| (number, device::trial(runtime, number))).collect(),
        _ => Vec::new(),
    };
    let mut findings = of_cuda(cuda, &trials);
    findings.push(match Device::Auto.choose(runtime) {
        Ok(chosen) => Finding::new("device", State::Works, format!("auto is {chosen}: {}", chosen.why)),
        Err(error) => Finding::new("device", State::Broken, error.to_string()),
    });
    findings
}

fn of_cuda(cuda: &Cuda, trials: &[(u32, Trial)]) -> Vec<Finding> {
    let mut findings = gpus(cuda);
    match &cuda.needs {
        Err(error) => findings.push(Finding::new(
            "cuda",
            State::Broken,
            format!("the runtime's provider for CUDA cannot be read: {error}\n{FETCH}"),
        )),
        Ok(None) if cuda.gpus.list.is_empty() => {}
        Ok(None) => findings.push(Finding::new(
            "cuda",
            State::Doubtful,
            format!("this ONNX Runtime is for the CPU only, and the GPU is not used\n{FETCH}"),
        )),
        Ok(Some(needs)) => {
            findings.push(driver_fits(cuda, needs));
            findings.extend(needs.libraries.iter().map(|library| of_library(library, cuda, trials)));
            let broken = |reason: &String| Finding::new("library", State::Broken, reason.clone());
            findings.extend(cuda.broken.iter().map(broken));
            findings.extend(trials.iter().flat_map(of_trial));
        }
    }
    findings
}

const FETCH: &str =
    "hint: `discl-pipe runtime fetch cuda` fetches ONNX Runtime for CUDA, and the libraries that it needs";

fn gpus(cuda: &Cuda) -> Vec<Finding> {
    match cuda.gpus.list.is_empty() {
        true if cuda.gpus.is_plugged_in => {
            let found = "this machine has one of NVIDIA, but no driver that lists it\nhint: install NVIDIA's driver";
            return vec![Finding::new("gpu", State::Doubtful, found)];
        }
        true => return vec![Finding::new("gpu", State::Works, "none of NVIDIA")],
        false => {}
    }
    let of = |(number, gpu): (usize, &Gpu)| {
        let memory = gpu.memory_mib.map(|mib| format!(", {mib} MiB")).unwrap_or_default();
        let capability = gpu.capability.iter().map(|text| format!(", compute capability {text}")).collect::<String>();
        Finding::new("gpu", State::Works, format!("{number}: {}{memory}{capability}", gpu.name))
    };
    let mut findings: Vec<Finding> = cuda.gpus.list.iter().enumerate().map(of).collect();
    if cuda.visible < cuda.gpus.list.len() {
        let found = format!(
            "`CUDA_VISIBLE_DEVICES` shows {} of {}; `cuda:N` counts only these",
            cuda.visible,
            cuda.gpus.list.len()
        );
        findings.push(Finding::new("gpu", State::Doubtful, found));
    }
    findings
}

/// Compares the driver with the version of CUDA that the runtime is built for.
fn driver_fits(cuda: &Cuda, needs: &Needs) -> Finding {
    let wanted = format!("the runtime is built for CUDA {}", needs.cuda);
    let oldest = DRIVERS.iter().find(|(version, _)| *version == needs.cuda).map(|(_, driver)| *driver);
    let Some(driver) = &cuda.gpus.driver else {
        if !cuda.gpus.list.is_empty() {
            return Finding::new("cuda", State::Works, format!("{wanted}; the driver does not say its version"));
        }
        let oldest = oldest.map(|oldest| format!(" {oldest} or later")).unwrap_or_default();
        let found = format!("{wanted}; no NVIDIA driver was found\nhint: a GPU needs driver{oldest}");
        return Finding::new("cuda", State::Doubtful, found);
    };
    let number = driver.split('.').next().and_then(|number| number.parse::<u32>().ok());
    match (oldest, number) {
        (Some(oldest), Some(number)) if number < oldest => Finding::new(
            "cuda",
            State::Broken,
            format!("{wanted}; the driver is {driver}, which is too old\nhint: install driver {oldest} or later"),
        ),
        _ => Finding::new("cuda", State::Works, format!("{wanted}; the driver is {driver}")),
    }
}

fn of_library(library: &Library, cuda: &Cuda, trials: &[(u32, Trial)]) -> Finding {
    let Library { name, package, found, other, is_optional } = library;
    if let Some(found) = found {
        return Finding::new("library", State::Works, format!("{name}: {} ({})", found.path.display(), found.place));
    }
    // Convolutions and products need all of them.
    if !is_optional && trials.iter().any(|(_, trial)| trial.refusal().is_none()) {
        return Finding::new("library", State::Works, format!("{name}: the system's loader has it"));
    }
    let state = if cuda.gpus.list.is_empty() || *is_optional { State::Doubtful } else { State::Broken };
    let purpose = if *is_optional { "; cuDNN does without, with fewer kernels" } else { "" };
    let instead = other.as_ref().map(|path| format!("; `{}` is another version", path.display())).unwrap_or_default();
    let hint = format!("hint: `discl-pipe runtime fetch cuda`, or `python3 -m pip install {package}`");
    Finding::new("library", state, format!("{name} is missing{purpose}{instead}\n{hint}"))
}

fn of_trial((number, trial): &(u32, Trial)) -> Vec<Finding> {
    let of = |(part, result): &(_, Result<f32, Failure>)| match result {
        Ok(difference) => {
            Finding::new("trial", State::Works, format!("cuda:{number} {part}: right, within {difference:.0e}"))
        }
        // A device may lack `Attention`, which only some graphs have.
        Err(reason) => {
            let state = if trial.refusal().is_some() { State::Broken } else { State::Doubtful };
            Finding::new("trial", state, format!("cuda:{number} {part}: {reason}"))
        }
    };
    trial.0.iter().map(of).collect()
}

#[cfg(test)]
mod tests {
    use std::{ffi::OsString, fs, path::Path};

    use insta::assert_snapshot;

    use super::*;
    use crate::models::onnx::{
        cuda_libraries::PROVIDER,
        elf,
        machine::Machine,
        trial::Part::{Attention, Convolution, Product},
    };

    const H100: &str = "580.95.05, 81559, 9.0, NVIDIA H100 80GB HBM3\n";

    /// What the provider of a runtime for CUDA 13 needs.
    const CUDA_13: &[&str] =
        &["libcublasLt.so.13", "libcublas.so.13", "libcurand.so.10", "libcudart.so.13", "libcuda.so.1", "libc.so.6"];

    /// All that a runtime for CUDA 13 loads.
    const LIBRARIES: [&str; 6] = [
        "libcudart.so.13",
        "libcublasLt.so.13",
        "libcublas.so.13",
        "libcurand.so.10",
        "libnvrtc.so.13",
        "libcudnn.so.9",
    ];

    /// A machine below a temporary directory.
    struct Fixture {
        root: tempfile::TempDir,
        tool: Option<&'static str>,
        trials: Vec<(u32, Trial)>,
    }

    impl Fixture {
        /// A machine with what the driver's tool says, and a runtime whose provider for CUDA needs these libraries.
        fn new(tool: Option<&'static str>, needed: Option<&[&str]>) -> Self {
            let fixture = Self { root: tempfile::tempdir().unwrap(), tool, trials: Vec::new() };
            if let Some(needed) = needed {
                fixture.write(&format!("runtime/{PROVIDER}"), &elf::library(needed));
            }
            fixture
        }

        /// The same with these libraries of CUDA in the active environment.
        fn with(self, libraries: &[&str]) -> Self {
            for library in libraries {
                self.write(&format!("venv/lib/python3.12/site-packages/nvidia/cu13/lib/{library}"), b"");
            }
            self
        }

        /// The same with a GPU on which these parts of the trial fail.
        fn tried(mut self, failed: &[(crate::models::onnx::trial::Part, &str)]) -> Self {
            let result = |part| match failed.iter().find(|(other, _)| *other == part) {
                Some((_, reason)) => Err(Failure::NotRun((*reason).to_owned())),
                None => Ok(0.0004),
            };
            self.trials.push((0, Trial([Convolution, Product, Attention].map(|part| (part, result(part))).into())));
            self
        }

        fn write(&self, path: &str, bytes: &[u8]) {
            let path = self.root.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, bytes).unwrap();
        }

        /// Returns what is found, a line for each finding, with `ROOT` in place of the temporary directory.
        fn shown(&self) -> String {
            let root = self.root.path();
            let venv = |name: &str| (name == "VIRTUAL_ENV").then(|| OsString::from(root.join("venv")));
            let machine = Machine { root, variable: &venv, tool: &|| self.tool.map(str::to_owned) };
            let cuda = Cuda::of(&root.join("runtime/libonnxruntime.so.1"), &machine);
            let line = |Finding { what, state, found }: &Finding| format!("{state:?} {what}: {found}");
            let lines: Vec<String> = of_cuda(&cuda, &self.trials).iter().map(line).collect();
            lines.join("\n").replace(root.to_str().unwrap(), "ROOT")
        }
    }

    #[test]
    fn everything_is_there() {
        let fixture = Fixture::new(Some(H100), Some(CUDA_13)).with(&LIBRARIES).tried(&[]);
        assert_snapshot!(fixture.shown(), @r"
        Works gpu: 0: NVIDIA H100 80GB HBM3, 81559 MiB, compute capability 9.0
        Works cuda: the runtime is built for CUDA 13; the driver is 580.95.05
        Works library: libcudart.so.13: ROOT/venv/lib/python3.12/site-packages/nvidia/cu13/lib/libcudart.so.13 (a Python environment)
        Works library: libcublasLt.so.13: ROOT/venv/lib/python3.12/site-packages/nvidia/cu13/lib/libcublasLt.so.13 (a Python environment)
        Works library: libcublas.so.13: ROOT/venv/lib/python3.12/site-packages/nvidia/cu13/lib/libcublas.so.13 (a Python environment)
        Works library: libcurand.so.10: ROOT/venv/lib/python3.12/site-packages/nvidia/cu13/lib/libcurand.so.10 (a Python environment)
        Works library: libnvrtc.so.13: ROOT/venv/lib/python3.12/site-packages/nvidia/cu13/lib/libnvrtc.so.13 (a Python environment)
        Works library: libcudnn.so.9: ROOT/venv/lib/python3.12/site-packages/nvidia/cu13/lib/libcudnn.so.9 (a Python environment)
        Works trial: cuda:0 convolution: right, within 4e-4
        Works trial: cuda:0 matrix product: right, within 4e-4
        Works trial: cuda:0 attention: right, within 4e-4
        ");
    }

    #[test]
    fn each_missing_library_is_named_with_what_installs_it() {
        let shown = LIBRARIES.map(|missing| {
            let others: Vec<&str> = LIBRARIES.into_iter().filter(|library| *library != missing).collect();
            let failed = [(Convolution, "cuDNN is not available"), (Product, "cuBLAS is not available")];
            let failed = if missing.starts_with("libnvrtc") { &failed[..0] } else { &failed };
            let shown = Fixture::new(Some(H100), Some(CUDA_13)).with(&others).tried(failed).shown();
            let lines: Vec<&str> = shown.lines().collect();
            let at = lines.iter().position(|line| line.contains("missing")).unwrap();
            assert_eq!(lines.iter().filter(|line| line.contains("is missing")).count(), 1, "{shown}");
            lines[at..at + 2].join("\n")
        });
        assert_snapshot!(shown.join("\n"), @r"
        Broken library: libcudart.so.13 is missing
        hint: `discl-pipe runtime fetch cuda`, or `python3 -m pip install nvidia-cuda-runtime`
        Broken library: libcublasLt.so.13 is missing
        hint: `discl-pipe runtime fetch cuda`, or `python3 -m pip install nvidia-cublas`
        Broken library: libcublas.so.13 is missing
        hint: `discl-pipe runtime fetch cuda`, or `python3 -m pip install nvidia-cublas`
        Broken library: libcurand.so.10 is missing
        hint: `discl-pipe runtime fetch cuda`, or `python3 -m pip install nvidia-curand`
        Doubtful library: libnvrtc.so.13 is missing; cuDNN does without, with fewer kernels
        hint: `discl-pipe runtime fetch cuda`, or `python3 -m pip install nvidia-cuda-nvrtc`
        Broken library: libcudnn.so.9 is missing
        hint: `discl-pipe runtime fetch cuda`, or `python3 -m pip install nvidia-cudnn-cu13`
        ");
    }

    #[test]
    fn a_library_that_the_loader_alone_finds_is_not_missing() {
        let shown = Fixture::new(Some(H100), Some(CUDA_13)).with(&LIBRARIES[1..]).tried(&[]).shown();
        assert!(shown.contains("Works library: libcudart.so.13: the system's loader has it"), "{shown}");
    }

    #[test]
    fn libraries_of_another_cuda_and_an_old_driver_are_told() {
        let old = Some("550.54.15, 24564, 8.9, NVIDIA L4\n");
        let other = ["libcudart.so.12", "libcublasLt.so.12", "libcublas.so.12", "libcudnn.so.9"];
        let failed = [(Convolution, "CUDA failure 35: CUDA driver version is insufficient for CUDA runtime version")];
        assert_snapshot!(Fixture::new(old, Some(CUDA_13)).with(&other).tried(&failed).shown(), @r"
        Works gpu: 0: NVIDIA L4, 24564 MiB, compute capability 8.9
        Broken cuda: the runtime is built for CUDA 13; the driver is 550.54.15, which is too old
        hint: install driver 580 or later
        Broken library: libcudart.so.13 is missing; `ROOT/venv/lib/python3.12/site-packages/nvidia/cu13/lib/libcudart.so.12` is another version
        hint: `discl-pipe runtime fetch cuda`, or `python3 -m pip install nvidia-cuda-runtime`
        Broken library: libcublasLt.so.13 is missing; `ROOT/venv/lib/python3.12/site-packages/nvidia/cu13/lib/libcublasLt.so.12` is another version
        hint: `discl-pipe runtime fetch cuda`, or `python3 -m pip install nvidia-cublas`
        Broken library: libcublas.so.13 is missing; `ROOT/venv/lib/python3.12/site-packages/nvidia/cu13/lib/libcublas.so.12` is another version
        hint: `discl-pipe runtime fetch cuda`, or `python3 -m pip install nvidia-cublas`
        Broken library: libcurand.so.10 is missing
        hint: `discl-pipe runtime fetch cuda`, or `python3 -m pip install nvidia-curand`
        Doubtful library: libnvrtc.so.13 is missing; cuDNN does without, with fewer kernels
        hint: `discl-pipe runtime fetch cuda`, or `python3 -m pip install nvidia-cuda-nvrtc`
        Works library: libcudnn.so.9: ROOT/venv/lib/python3.12/site-packages/nvidia/cu13/lib/libcudnn.so.9 (a Python environment)
        Broken trial: cuda:0 convolution: CUDA failure 35: CUDA driver version is insufficient for CUDA runtime version
        Works trial: cuda:0 matrix product: right, within 4e-4
        Works trial: cuda:0 attention: right, within 4e-4
        ");
        // With a runtime for CUDA 12 the same machine is in order.
        let needed = ["libcublasLt.so.12", "libcublas.so.12", "libcudart.so.12", "libcudnn.so.9", "libcuda.so.1"];
        assert_snapshot!(Fixture::new(old, Some(&needed)).with(&other).tried(&[]).shown(), @r"
        Works gpu: 0: NVIDIA L4, 24564 MiB, compute capability 8.9
        Works cuda: the runtime is built for CUDA 12; the driver is 550.54.15
        Works library: libcudart.so.12: ROOT/venv/lib/python3.12/site-packages/nvidia/cu13/lib/libcudart.so.12 (a Python environment)
        Works library: libcublasLt.so.12: ROOT/venv/lib/python3.12/site-packages/nvidia/cu13/lib/libcublasLt.so.12 (a Python environment)
        Works library: libcublas.so.12: ROOT/venv/lib/python3.12/site-packages/nvidia/cu13/lib/libcublas.so.12 (a Python environment)
        Doubtful library: libnvrtc.so.12 is missing; cuDNN does without, with fewer kernels
        hint: `discl-pipe runtime fetch cuda`, or `python3 -m pip install nvidia-cuda-nvrtc-cu12`
        Works library: libcudnn.so.9: ROOT/venv/lib/python3.12/site-packages/nvidia/cu13/lib/libcudnn.so.9 (a Python environment)
        Works trial: cuda:0 convolution: right, within 4e-4
        Works trial: cuda:0 matrix product: right, within 4e-4
        Works trial: cuda:0 attention: right, within 4e-4
        ");
    }

    #[test]
    fn without_a_driver_a_runtime_for_cuda_is_not_a_failure() {
        assert_snapshot!(Fixture::new(None, Some(CUDA_13)).with(&LIBRARIES).shown(), @r"
        Works gpu: none of NVIDIA
        Doubtful cuda: the runtime is built for CUDA 13; no NVIDIA driver was found
        hint: a GPU needs driver 580 or later
        Works library: libcudart.so.13: ROOT/venv/lib/python3.12/site-packages/nvidia/cu13/lib/libcudart.so.13 (a Python environment)
        Works library: libcublasLt.so.13: ROOT/venv/lib/python3.12/site-packages/nvidia/cu13/lib/libcublasLt.so.13 (a Python environment)
        Works library: libcublas.so.13: ROOT/venv/lib/python3.12/site-packages/nvidia/cu13/lib/libcublas.so.13 (a Python environment)
        Works library: libcurand.so.10: ROOT/venv/lib/python3.12/site-packages/nvidia/cu13/lib/libcurand.so.10 (a Python environment)
        Works library: libnvrtc.so.13: ROOT/venv/lib/python3.12/site-packages/nvidia/cu13/lib/libnvrtc.so.13 (a Python environment)
        Works library: libcudnn.so.9: ROOT/venv/lib/python3.12/site-packages/nvidia/cu13/lib/libcudnn.so.9 (a Python environment)
        ");
        let shown = Fixture::new(None, Some(CUDA_13)).shown();
        assert!(!shown.contains("Broken") && shown.matches("Doubtful library").count() == 6, "{shown}");
    }

    #[test]
    fn a_runtime_for_the_cpu_on_a_machine_with_a_gpu_is_a_warning() {
        assert_snapshot!(Fixture::new(Some(H100), None).shown(), @r"
        Works gpu: 0: NVIDIA H100 80GB HBM3, 81559 MiB, compute capability 9.0
        Doubtful cuda: this ONNX Runtime is for the CPU only, and the GPU is not used
        hint: `discl-pipe runtime fetch cuda` fetches ONNX Runtime for CUDA, and the libraries that it needs
        ");
        assert_snapshot!(Fixture::new(None, None).shown(), @"Works gpu: none of NVIDIA");
    }

    #[test]
    fn a_gpu_without_a_driver_is_told() {
        let fixture = Fixture::new(None, None);
        fixture.write("sys/bus/pci/devices/0000:01:00.0/vendor", b"0x10de\n");
        fixture.write("sys/bus/pci/devices/0000:01:00.0/class", b"0x040300\n");
        assert_snapshot!(fixture.shown(), @"Works gpu: none of NVIDIA");
        fixture.write("sys/bus/pci/devices/0000:01:00.0/class", b"0x030200\n");
        assert_snapshot!(fixture.shown(), @r"
        Doubtful gpu: this machine has one of NVIDIA, but no driver that lists it
        hint: install NVIDIA's driver
        ");
        fixture.write("dev/nvidia0", b"");
        fixture.write(&format!("runtime/{PROVIDER}"), &elf::library(&["libcudart.so.13", "libcudnn.so.9"]));
        assert!(
            fixture
                .shown()
                .contains("Works cuda: the runtime is built for CUDA 13; the driver does not say its version")
        );
    }

    #[test]
    fn a_gpu_without_attention_is_used_with_a_warning_and_one_without_convolutions_is_not() {
        let lines = |failed: &[_]| {
            let shown = Fixture::new(Some(H100), Some(CUDA_13)).with(&LIBRARIES).tried(failed).shown();
            shown.lines().filter(|line| line.contains("trial")).collect::<Vec<_>>().join("\n")
        };
        assert_snapshot!(lines(&[(Attention, "no kernel for Attention(23)")]), @r"
        Works trial: cuda:0 convolution: right, within 4e-4
        Works trial: cuda:0 matrix product: right, within 4e-4
        Doubtful trial: cuda:0 attention: no kernel for Attention(23)
        ");
        assert_snapshot!(lines(&[(Convolution, "cuDNN is not available")]), @r"
        Broken trial: cuda:0 convolution: cuDNN is not available
        Works trial: cuda:0 matrix product: right, within 4e-4
        Works trial: cuda:0 attention: right, within 4e-4
        ");
    }

    #[test]
    fn hidden_gpus_and_a_damaged_provider_are_told() {
        let two = Some("580.95.05, 81559, 9.0, NVIDIA H100\n580.95.05, 81559, 9.0, NVIDIA H100\n");
        let fixture = Fixture::new(two, None);
        fixture.write(&format!("runtime/{PROVIDER}"), b"not ELF");
        let root = fixture.root.path();
        let visible = |name: &str| (name == "CUDA_VISIBLE_DEVICES").then(|| OsString::from("1"));
        let machine = Machine { root, variable: &visible, tool: &|| two.map(str::to_owned) };
        let findings = of_cuda(&Cuda::of(&root.join("runtime/libonnxruntime.so.1"), &machine), &[]);
        let shown: Vec<String> =
            findings.iter().map(|finding| format!("{:?} {}", finding.state, finding.found)).collect();
        assert_snapshot!(shown.join("\n"), @r"
        Works 0: NVIDIA H100, 81559 MiB, compute capability 9.0
        Works 1: NVIDIA H100, 81559 MiB, compute capability 9.0
        Doubtful `CUDA_VISIBLE_DEVICES` shows 1 of 2; `cuda:N` counts only these
        Broken the runtime's provider for CUDA cannot be read: it is not a complete library of this platform
        hint: `discl-pipe runtime fetch cuda` fetches ONNX Runtime for CUDA, and the libraries that it needs
        ");
        // No runtime at all beside the path.
        let nowhere = Cuda::of(Path::new("/nowhere/libonnxruntime.so.1"), &machine);
        assert_eq!(nowhere.needs, Ok(None));
    }
}
