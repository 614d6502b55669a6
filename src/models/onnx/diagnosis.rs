//! What `doctor` finds about GPUs: the driver, each GPU, each library, what became of the trials, and what `auto` takes.

use super::{
    Device, Runtime,
    cuda_libraries::{Library, Needs},
    device::{self, Cuda},
    machine::Gpu,
    trial::Trial,
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
    if cuda.gpus.list.is_empty() {
        return vec![Finding::new("gpu", State::Works, "none: no driver of NVIDIA lists one")];
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
        let state = if cuda.gpus.list.is_empty() { State::Doubtful } else { State::Works };
        let oldest = oldest.map(|oldest| format!(" {oldest} or later")).unwrap_or_default();
        let found = format!("{wanted}; no driver of NVIDIA was found\nhint: a GPU needs driver{oldest}");
        return Finding::new("cuda", state, found);
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
    let of = |(part, result): &(_, Result<f32, String>)| match result {
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
