//! Devices on which models run. A device that is requested by name exists, or it is an error.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    io::ErrorKind,
    str::FromStr,
    sync::{Mutex, OnceLock, PoisonError},
};

use ort::ep::{CUDA, ExecutionProvider};

use super::{
    OnnxError, Provider, Runtime,
    cuda_libraries::{self, Needs},
    machine::{Gpus, Machine},
    trial::Trial,
};

/// The requested device: `auto`, `cpu`, `cuda` (the first GPU), `cuda:N`, several GPUs as in `cuda:0,1`, or `cuda:all`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) enum Device {
    /// The first GPU if it is usable, otherwise the CPU.
    #[default]
    Auto,
    Cpu,
    /// The GPUs with these numbers.
    Cuda(Vec<u32>),
    /// Every GPU that the driver lists.
    AllCuda,
}

impl FromStr for Device {
    type Err = OnnxError;

    fn from_str(text: &str) -> Result<Self, OnnxError> {
        let unknown = || OnnxError::UnknownDevice { found: text.to_owned() };
        match text {
            "auto" => Ok(Self::Auto),
            "cpu" => Ok(Self::Cpu),
            "cuda" => Ok(Self::Cuda(vec![0])),
            "cuda:all" => Ok(Self::AllCuda),
            _ => {
                let numbers = text.strip_prefix("cuda:").ok_or_else(unknown)?.split(',');
                let numbers: Vec<u32> = numbers.map(str::parse).collect::<Result<_, _>>().map_err(|_| unknown())?;
                let distinct = numbers.iter().collect::<BTreeSet<_>>().len() == numbers.len();
                if distinct { Ok(Self::Cuda(numbers)) } else { Err(unknown()) }
            }
        }
    }
}

impl fmt::Display for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Auto => f.write_str("auto"),
            Self::Cpu => f.write_str("cpu"),
            Self::AllCuda => f.write_str("cuda:all"),
            Self::Cuda(numbers) => {
                let numbers: Vec<String> = numbers.iter().map(u32::to_string).collect();
                write!(f, "cuda:{}", numbers.join(","))
            }
        }
    }
}

/// The chosen providers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Chosen {
    /// What models run on. Models that are loaded only once run on this one.
    pub(crate) provider: Provider,
    /// Further providers on which copies of the UNet run in parallel.
    pub(crate) others: Vec<Provider>,
    /// The reason, for the first line of a run.
    pub(crate) why: String,
}

impl Device {
    /// Chooses providers, and tries each GPU among them.
    ///
    /// # Errors
    /// Returns [`OnnxError::NoProvider`] if a GPU was requested by name and is not usable.
    pub(crate) fn choose(&self, runtime: &Runtime) -> Result<Chosen, OnnxError> {
        let cpu = |why| Ok(Chosen { provider: Provider::Cpu, others: Vec::new(), why });
        let numbers = match self {
            Self::Cpu => return cpu(BY_NAME.to_owned()),
            Self::Auto => match has_cuda(runtime).and_then(|()| try_cuda(runtime, 0)) {
                Ok(()) => vec![0],
                Err(reason) => return cpu(format!("no usable GPU: {reason}")),
            },
            Self::Cuda(numbers) => numbers.clone(),
            Self::AllCuda => (0..cuda(runtime).visible).filter_map(|number| u32::try_from(number).ok()).collect(),
        };
        let refused = |device: String, reason| OnnxError::NoProvider { device, reason };
        for &number in &numbers {
            try_cuda(runtime, number).map_err(|reason| refused(Provider::Cuda(number).to_string(), reason))?;
        }
        let mut providers = numbers.into_iter().map(Provider::Cuda);
        let none = || refused(self.to_string(), "no GPU was found".to_owned());
        let provider = providers.next().ok_or_else(none)?;
        let why = if *self == Self::Auto { "the runtime can use a GPU" } else { BY_NAME };
        Ok(Chosen { provider, others: providers.collect(), why: why.to_owned() })
    }
}

const BY_NAME: &str = "requested by name";

impl fmt::Display for Chosen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.provider)?;
        self.others.iter().try_for_each(|other| write!(f, ", {other}"))
    }
}

/// What this process knows about GPUs. It is asked once: the driver's tool takes up to a second.
#[derive(Debug)]
pub(super) struct Cuda {
    pub(super) gpus: Gpus,
    /// How many GPUs CUDA shows to this process, from 0 on.
    pub(super) visible: usize,
    /// What the runtime's provider needs; `None` without a provider, or why its file cannot be read.
    pub(super) needs: Result<Option<Needs>, String>,
    /// Why libraries that were found cannot be loaded.
    pub(super) broken: Vec<String>,
}

impl Cuda {
    /// Searches `machine` for the libraries of `runtime`. Loads nothing.
    pub(super) fn of(runtime: &std::path::Path, machine: &Machine<'_>) -> Self {
        let gpus = machine.gpus();
        let visible = machine.visible(&gpus);
        let needs = cuda_libraries::needs(runtime, machine).map_err(|error| match error.kind() {
            ErrorKind::InvalidData | ErrorKind::UnexpectedEof => {
                "it is not a complete library of this platform".to_owned()
            }
            _ => error.to_string(),
        });
        Self { gpus, visible, needs, broken: Vec::new() }
    }

    /// Returns why a GPU cannot be used, as far as that is known without trying it.
    fn refusal(&self, number: u32) -> Option<String> {
        let has_it = usize::try_from(number).is_ok_and(|number| number < self.visible);
        if self.gpus.list.is_empty() || has_it {
            return None;
        }
        Some(match self.visible {
            0 => "`CUDA_VISIBLE_DEVICES` hides every GPU".to_owned(),
            1 => "there is only `cuda:0`".to_owned(),
            count => format!("there are only `cuda:0` to `cuda:{}`", count - 1),
        })
    }

    /// Adds to the reason of a failure what is known to be missing.
    fn explain(&self, mut reason: String) -> String {
        let missing = self.needs.as_ref().ok().and_then(Option::as_ref).map(Needs::missing).unwrap_or_default();
        if !missing.is_empty() {
            let missing: Vec<String> = missing.iter().map(|name| format!("`{name}`")).collect();
            reason = format!("{reason}; not found: {}", missing.join(", "));
        }
        self.broken.iter().fold(reason, |reason, broken| format!("{reason}; {broken}"))
    }
}

/// Returns what is known about GPUs, after the libraries of CUDA that were found are loaded: the runtime finds them loaded.
pub(super) fn cuda(runtime: &Runtime) -> &'static Cuda {
    static CUDA: OnceLock<Cuda> = OnceLock::new();
    CUDA.get_or_init(|| {
        let mut cuda = Cuda::of(runtime.path(), &Machine::this());
        cuda.broken = cuda.needs.as_ref().ok().and_then(Option::as_ref).map(Needs::preload).unwrap_or_default();
        cuda
    })
}

/// Returns the trial of a GPU, which runs once in a process.
pub(super) fn trial(runtime: &Runtime, number: u32) -> Trial {
    static TRIED: Mutex<BTreeMap<u32, Trial>> = Mutex::new(BTreeMap::new());
    let mut tried = TRIED.lock().unwrap_or_else(PoisonError::into_inner);
    tried.entry(number).or_insert_with(|| Trial::run(runtime, Provider::Cuda(number))).clone()
}

/// Whether there is any sign of a GPU. Without one, `auto` does not try it: a provider that cannot be loaded writes to stderr.
fn has_cuda(runtime: &Runtime) -> Result<(), String> {
    let gpus = &cuda(runtime).gpus;
    let has_one = !gpus.list.is_empty() || gpus.driver.is_some();
    if has_one { Ok(()) } else { Err("no driver of NVIDIA lists one".to_owned()) }
}

fn try_cuda(runtime: &Runtime, number: u32) -> Result<(), String> {
    // Lists the providers that the library was built with. One of them may still lack its own libraries.
    if !CUDA::is_available().map_err(|error| error.to_string())? {
        let has_gpu = !cuda(runtime).gpus.list.is_empty();
        let instead = if has_gpu { ", but this machine has a GPU: `discl-pipe runtime fetch cuda`" } else { "" };
        return Err(format!("this ONNX Runtime is for the CPU only{instead}"));
    }
    let cuda = cuda(runtime);
    match cuda.refusal(number) {
        Some(reason) => Err(reason),
        None => trial(runtime, number).refusal().map_or(Ok(()), |reason| Err(cuda.explain(reason))),
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::models::onnx::{cuda_libraries::PROVIDER, elf, machine::Gpu};

    #[test]
    fn names_are_parsed_and_formatted() {
        for name in ["auto", "cpu", "cuda:3", "cuda:0,2", "cuda:all"] {
            assert_eq!(name.parse::<Device>().unwrap().to_string(), name);
        }
        assert_eq!("cuda".parse::<Device>().unwrap(), Device::Cuda(vec![0]));
        for name in ["gpu", "cuda:", "cuda:-1", "cuda:1,1", "cuda:0,", "cuda:all,1", "CPU", ""] {
            let error = name.parse::<Device>().unwrap_err();
            assert!(
                error
                    .to_string()
                    .contains("valid devices are `auto`, `cpu`, `cuda`, `cuda:N`, `cuda:N,M` and `cuda:all`"),
                "{error}"
            );
        }
    }

    #[test]
    fn a_gpu_requested_by_name_exists_or_is_an_error() {
        let runtime = Runtime::open(None).unwrap();
        let named = Device::Cuda(vec![99]).choose(&runtime).unwrap_err();
        assert!(named.to_string().starts_with("device `cuda:99` was requested"), "{named}");
        let auto = Device::Auto.choose(&runtime).unwrap();
        assert!(!auto.why.is_empty());
    }

    fn with_gpus(count: usize, visible: usize) -> Cuda {
        let gpu = Gpu { name: "a".to_owned(), memory_mib: None, capability: None };
        let gpus = Gpus { list: vec![gpu; count], ..Gpus::default() };
        Cuda { gpus, visible, needs: Ok(None), broken: Vec::new() }
    }

    #[test]
    fn numbers_that_do_not_exist_are_refused_without_a_trial() {
        let refusal = |count, visible, number| with_gpus(count, visible).refusal(number);
        assert_eq!(refusal(2, 2, 1), None);
        assert_eq!(refusal(2, 2, 2).unwrap(), "there are only `cuda:0` to `cuda:1`");
        assert_eq!(refusal(2, 1, 1).unwrap(), "there is only `cuda:0`");
        assert_eq!(refusal(2, 0, 0).unwrap(), "`CUDA_VISIBLE_DEVICES` hides every GPU");
        // Nothing says which there are: the trial does.
        assert_eq!(refusal(0, 0, 7), None);
    }

    #[test]
    fn what_is_missing_is_part_of_the_reason() {
        let root = tempfile::tempdir().unwrap();
        std::fs::write(root.path().join(PROVIDER), elf::library(&["libcudart.so.13", "libcublas.so.13"])).unwrap();
        for name in ["libcudart.so.13", "libcublas.so.13"] {
            std::fs::write(root.path().join(name), "").unwrap();
        }
        let machine = Machine { root: root.path(), variable: &|_| None, tool: &|| None };
        let mut cuda = Cuda::of(&root.path().join("libonnxruntime.so"), &machine);
        let reason = cuda.explain("a trial convolution failed: cuDNN is not available".to_owned());
        assert_eq!(reason, "a trial convolution failed: cuDNN is not available; not found: `libcudnn.so.9`");
        cuda.broken = vec!["`x` cannot be loaded: file too short".to_owned()];
        assert!(cuda.explain("reason".to_owned()).ends_with("; `x` cannot be loaded: file too short"));
        let cpu = Cuda::of(Path::new("/nowhere/libonnxruntime.so"), &machine);
        assert_eq!(cpu.explain("reason".to_owned()), "reason");
    }
}
