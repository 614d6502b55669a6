//! Where models run. A device that is asked for by name is there or is an error.

use std::fmt;
use std::str::FromStr;

use ort::ep::{CUDA, ExecutionProvider, ExecutionProviderDispatch};
use ort::session::Session;

use super::{OnnxError, Runtime};

/// What the user asked for: `auto`, `cpu`, `cuda` (the first GPU) or `cuda:N`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Device {
    /// The first GPU where one can be used, else the CPU.
    #[default]
    Auto,
    /// The CPU.
    Cpu,
    /// The GPU of that number, or an error.
    Cuda(u32),
}

impl FromStr for Device {
    type Err = OnnxError;

    fn from_str(text: &str) -> Result<Self, OnnxError> {
        let unknown = || OnnxError::UnknownDevice { found: text.to_owned() };
        match text {
            "auto" => Ok(Self::Auto),
            "cpu" => Ok(Self::Cpu),
            "cuda" => Ok(Self::Cuda(0)),
            _ => {
                let number = text.strip_prefix("cuda:").ok_or_else(unknown)?;
                number.parse().map(Self::Cuda).map_err(|_| unknown())
            }
        }
    }
}

impl fmt::Display for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Auto => f.write_str("auto"),
            Self::Cpu => f.write_str("cpu"),
            Self::Cuda(number) => write!(f, "cuda:{number}"),
        }
    }
}

/// What models really run on. Recorded with each unit of work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Provider {
    /// The CPU.
    Cpu,
    /// The GPU of that number.
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

/// A provider that was tried, and why it was taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Chosen {
    /// What models run on.
    pub(crate) provider: Provider,
    /// Why, in words for the first line of a run.
    pub(crate) why: String,
}

impl Device {
    /// Settles on a provider by running a graph of one node on it.
    ///
    /// # Errors
    /// [`OnnxError::NoProvider`] where a GPU was asked for by name and cannot be used.
    pub(crate) fn choose(self, runtime: &Runtime) -> Result<Chosen, OnnxError> {
        match self {
            Self::Cpu => Ok(Chosen { provider: Provider::Cpu, why: "asked for by name".to_owned() }),
            Self::Cuda(number) => match try_cuda(runtime, number) {
                Ok(()) => Ok(Chosen { provider: Provider::Cuda(number), why: "asked for by name".to_owned() }),
                Err(reason) => Err(OnnxError::NoProvider { device: self, reason }),
            },
            Self::Auto => Ok(match try_cuda(runtime, 0) {
                Ok(()) => Chosen { provider: Provider::Cuda(0), why: "the runtime can use a GPU".to_owned() },
                Err(reason) => Chosen { provider: Provider::Cpu, why: format!("no usable GPU: {reason}") },
            }),
        }
    }
}

impl Provider {
    /// The runtime's provider; none for the CPU, which is always there.
    pub(super) fn dispatch(self) -> Option<ExecutionProviderDispatch> {
        match self {
            Self::Cpu => None,
            Self::Cuda(number) => {
                let number = i32::try_from(number).unwrap_or(i32::MAX);
                // Without this a missing provider falls back to the CPU and says nothing.
                Some(CUDA::default().with_device_id(number).build().error_on_failure())
            }
        }
    }
}

/// A graph of one `Identity` on `float32 [1]`: enough to make a provider start.
const IDENTITY: &[u8] = b"\x08\x08:7\x0a\x10\x0a\x01x\x12\x01y\x22\x08Identity\x12\x01gZ\x0f\x0a\x01x\x12\x0a\x0a\x08\x08\x01\x12\x04\x0a\x02\x08\x01\
    b\x0f\x0a\x01y\x12\x0a\x0a\x08\x08\x01\x12\x04\x0a\x02\x08\x01B\x04\x0a\x00\x10\x11";

fn try_cuda(runtime: &Runtime, number: u32) -> Result<(), String> {
    // The list of providers that the library was built with; a provider in it may still lack its own libraries.
    if !CUDA::is_available().map_err(|error| error.to_string())? {
        return Err("this ONNX Runtime is built without CUDA".to_owned());
    }
    Session::builder(runtime.environment())
        .map_err(|error| error.to_string())?
        .with_execution_providers(Provider::Cuda(number).dispatch().as_slice())
        .map_err(|error| error.to_string())?
        .commit_from_memory(IDENTITY)
        .map_err(|error| error.to_string())?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_and_written() {
        for name in ["auto", "cpu", "cuda:3"] {
            assert_eq!(name.parse::<Device>().unwrap().to_string(), name);
        }
        assert_eq!("cuda".parse::<Device>().unwrap(), Device::Cuda(0));
        for name in ["gpu", "cuda:", "cuda:-1", "CPU", ""] {
            let error = name.parse::<Device>().unwrap_err();
            assert!(error.to_string().contains("valid devices are `auto`, `cpu`, `cuda` and `cuda:N`"), "{error}");
        }
    }

    #[test]
    fn a_gpu_asked_for_by_name_is_there_or_an_error() {
        let runtime = Runtime::open(None).unwrap();
        let named = Device::Cuda(99).choose(&runtime).unwrap_err();
        assert!(named.to_string().starts_with("device `cuda:99` was asked for"), "{named}");
        let auto = Device::Auto.choose(&runtime).unwrap();
        assert!(!auto.why.is_empty());
    }

    #[test]
    fn the_trial_graph_is_one_that_loads() {
        let runtime = Runtime::open(None).unwrap();
        Session::builder(runtime.environment()).unwrap().commit_from_memory(IDENTITY).unwrap();
    }
}
