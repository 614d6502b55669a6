//! Devices on which models run. A device that is requested by name exists, or it is an error.

use std::{collections::BTreeSet, fmt, str::FromStr};

use ort::{
    ep::{CUDA, ExecutionProvider, ExecutionProviderDispatch},
    session::Session,
};

use super::{OnnxError, Runtime};

/// The requested device: `auto`, `cpu`, `cuda` (the first GPU), `cuda:N`, or several GPUs as in `cuda:0,1`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) enum Device {
    /// The first GPU if it is usable, otherwise the CPU.
    #[default]
    Auto,
    Cpu,
    /// The GPUs with these numbers.
    Cuda(Vec<u32>),
}

impl FromStr for Device {
    type Err = OnnxError;

    fn from_str(text: &str) -> Result<Self, OnnxError> {
        let unknown = || OnnxError::UnknownDevice { found: text.to_owned() };
        match text {
            "auto" => Ok(Self::Auto),
            "cpu" => Ok(Self::Cpu),
            "cuda" => Ok(Self::Cuda(vec![0])),
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
            Self::Cuda(numbers) => {
                let numbers: Vec<String> = numbers.iter().map(u32::to_string).collect();
                write!(f, "cuda:{}", numbers.join(","))
            }
        }
    }
}

/// What models actually run on. Recorded with each unit of work.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Provider {
    Cpu,
    /// The GPU with this number.
    Cuda(u32),
}

impl fmt::Display for Provider {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Cpu => f.write_str("cpu"),
            Self::Cuda(number) => write!(f, "cuda:{number}"),
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
    /// Chooses providers and runs a graph with one node on each.
    ///
    /// # Errors
    /// Returns [`OnnxError::NoProvider`] if a GPU was requested by name and is not usable.
    pub(crate) fn choose(&self, runtime: &Runtime) -> Result<Chosen, OnnxError> {
        let one = |provider, why| Chosen { provider, others: Vec::new(), why };
        match self {
            Self::Cpu => Ok(one(Provider::Cpu, BY_NAME.to_owned())),
            Self::Cuda(numbers) => {
                for &number in numbers {
                    let refused = |reason| OnnxError::NoProvider { device: format!("cuda:{number}"), reason };
                    try_cuda(runtime, number).map_err(refused)?;
                }
                let mut providers = numbers.iter().copied().map(Provider::Cuda);
                let first = providers.next().unwrap_or(Provider::Cuda(0));
                Ok(Chosen { others: providers.collect(), ..one(first, BY_NAME.to_owned()) })
            }
            Self::Auto => Ok(match try_cuda(runtime, 0) {
                Ok(()) => one(Provider::Cuda(0), "the runtime can use a GPU".to_owned()),
                Err(reason) => one(Provider::Cpu, format!("no usable GPU: {reason}")),
            }),
        }
    }
}

const BY_NAME: &str = "requested by name";

impl fmt::Display for Chosen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.provider)?;
        self.others.iter().try_for_each(|other| write!(f, ", {other}"))
    }
}

/// Options of the CUDA provider.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct CudaOptions {
    /// A limit in bytes on the memory of one graph; if absent, there is none.
    pub(crate) memory_limit: Option<usize>,
    /// Whether matrix products and convolutions may round their inputs to 10 bits (TF32): faster but less exact.
    pub(crate) tf32: bool,
}

impl Provider {
    /// Returns the runtime's provider; `None` for the CPU, which needs none.
    pub(super) fn dispatch(self, options: CudaOptions) -> Option<ExecutionProviderDispatch> {
        match self {
            Self::Cpu => None,
            Self::Cuda(number) => {
                let number = i32::try_from(number).unwrap_or(i32::MAX);
                let mut cuda = CUDA::default().with_device_id(number).with_tf32(options.tf32);
                if let Some(bytes) = options.memory_limit {
                    cuda = cuda.with_memory_limit(bytes);
                }
                // Without this, a missing provider silently falls back to the CPU.
                Some(cuda.build().error_on_failure())
            }
        }
    }
}

/// A graph with one `Identity` node on `float32 [1]`: enough to start a provider.
const IDENTITY: &[u8] = b"\x08\x08:7\x0a\x10\x0a\x01x\x12\x01y\x22\x08Identity\x12\x01gZ\x0f\x0a\x01x\x12\x0a\x0a\x08\x08\x01\x12\x04\x0a\x02\x08\x01\
    b\x0f\x0a\x01y\x12\x0a\x0a\x08\x08\x01\x12\x04\x0a\x02\x08\x01B\x04\x0a\x00\x10\x11";

fn try_cuda(runtime: &Runtime, number: u32) -> Result<(), String> {
    // Lists the providers that the library was built with. One of them may still lack its own libraries.
    if !CUDA::is_available().map_err(|error| error.to_string())? {
        return Err("this ONNX Runtime is built without CUDA".to_owned());
    }
    Session::builder(runtime.environment())
        .map_err(|error| error.to_string())?
        .with_execution_providers(Provider::Cuda(number).dispatch(CudaOptions::default()).as_slice())
        .map_err(|error| error.to_string())?
        .commit_from_memory(IDENTITY)
        .map_err(|error| error.to_string())?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_parsed_and_formatted() {
        for name in ["auto", "cpu", "cuda:3", "cuda:0,2"] {
            assert_eq!(name.parse::<Device>().unwrap().to_string(), name);
        }
        assert_eq!("cuda".parse::<Device>().unwrap(), Device::Cuda(vec![0]));
        for name in ["gpu", "cuda:", "cuda:-1", "cuda:1,1", "cuda:0,", "CPU", ""] {
            let error = name.parse::<Device>().unwrap_err();
            assert!(
                error.to_string().contains("valid devices are `auto`, `cpu`, `cuda`, `cuda:N` and `cuda:N,M`"),
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

    #[test]
    fn the_trial_graph_loads() {
        let runtime = Runtime::open(None).unwrap();
        Session::builder(runtime.environment()).unwrap().commit_from_memory(IDENTITY).unwrap();
    }
}
