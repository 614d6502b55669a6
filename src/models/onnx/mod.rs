//! ONNX Runtime. No other module names `ort`.
//!
//! [`Runtime`] finds and loads the library. [`Device`] chooses where models run. [`Model`] runs one graph on plain
//! [`Tensor`]s. [`Signature`] reads the inputs and outputs of a graph without loading its weights. [`Service`] shares
//! models between async callers.

mod batched_input;
mod busy;
mod cache;
mod cuda_libraries;
mod device;
mod diagnosis;
mod element;
mod elf;
mod error;
mod fetch;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzzing;
pub(crate) mod graph_file;
mod machine;
mod memory;
mod model;
mod product;
mod protobuf;
mod provider;
mod runtime;
mod service;
mod signature;
mod tensor;
mod trial;
mod versions;
mod weights;
mod wheels;

pub(crate) use busy::Busy;
pub(crate) use cache::Cache;
pub(crate) use device::{Chosen, Device};
pub(crate) use diagnosis::{Finding, State, diagnose};
pub(crate) use element::Element;
pub(crate) use error::OnnxError;
pub(crate) use memory::{device_memory, device_memory_used, device_peak};
pub(crate) use model::{HeldInputs, Loader, Model, default_threads};
pub(crate) use product::product_tflops;
pub(crate) use provider::{CudaOptions, Memory, Provider, Share};
pub(crate) use runtime::Runtime;
pub(crate) use service::{Inbox, Reply, Service};
pub(crate) use signature::{Dim, Port, Signature, Want};
pub(crate) use tensor::{Outputs, Tensor};
pub(crate) use versions::check_versions;
pub(crate) use wheels::{Build, Wheel};
