//! ONNX Runtime, and nothing of it outside: no other module names `ort`.
//!
//! [`Runtime`] finds and loads the library, [`Device`] says where models run, [`Model`] runs one graph on plain
//! [`Tensor`]s, and [`Signature`] tells what a graph takes and gives without loading its weights.

mod batched_input;
mod busy;
mod cache;
mod device;
mod digest;
mod error;
mod fetch;
mod model;
mod protobuf;
mod runtime;
mod service;
mod signature;
mod tensor;
mod weights;

pub(crate) use busy::Busy;
pub(crate) use cache::Memo;
pub(crate) use device::{Chosen, CudaOptions, Device, Provider};
pub(crate) use digest::{digest, digest_of_all};
pub(crate) use error::OnnxError;
pub(crate) use model::{Loader, Model, default_threads};
pub(crate) use runtime::Runtime;
pub(crate) use service::{Inbox, Reply, Service};
pub(crate) use signature::{Dim, Element, Port, Signature, Want};
pub(crate) use tensor::{Outputs, Tensor};
