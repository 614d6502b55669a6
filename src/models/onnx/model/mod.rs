//! A loaded graph.

mod held;

use std::{
    borrow::Cow,
    fmt, fs,
    path::{Path, PathBuf},
    sync::Arc,
    thread::available_parallelism,
};

use half::{f16, slice::HalfFloatSliceExt, vec::HalfFloatVecExt};
use ort::{
    ErrorCode,
    session::{OutputSelector, RunOptions, Session, builder::SessionBuilder},
    value::{DynValue, Outlet, TensorElementType, ValueType},
};

use super::{
    Busy, CudaOptions, Dim, Element, OnnxError, Outputs, Port, Provider, Runtime, Share, Signature, Tensor,
    batched_input::{self, Batching},
    error::OF_MEMORY,
};
use crate::models::model_dir::FileError;

pub(crate) use held::HeldInputs;

/// Returns the default number of threads of a model on the CPU: one per core.
pub(crate) fn default_threads() -> usize {
    available_parallelism().map_or(1, |threads| threads.get())
}

/// ONNX Runtime's key for the folder with a graph's external weights.
const EXTERNAL_FOLDER: &str = "session.model_external_initializers_file_folder_path";

/// How an engine loads its graphs.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Loader<'a> {
    pub(crate) runtime: &'a Runtime,
    /// What the graphs run on.
    pub(crate) provider: Provider,
    /// Options of the provider, if it is a GPU.
    pub(crate) cuda: CudaOptions,
    /// Cores that one operator may use on the CPU.
    pub(crate) threads: usize,
    /// Measures the time during which a graph runs.
    pub(crate) busy: &'a Arc<Busy>,
}

impl Loader<'_> {
    /// Loads a graph with its weights.
    ///
    /// # Errors
    /// Returns [`OnnxError::Open`] if the runtime rejects the graph or the provider.
    pub(crate) fn open(&self, path: &Path) -> Result<Model, OnnxError> {
        self.load(path, |builder| builder.commit_from_file(path))
    }

    /// Loads a graph, and edits an input that holds one value for the whole batch to hold one value for each sample.
    ///
    /// # Errors
    /// Returns the errors of [`Loader::open`], and [`OnnxError::Misfit`] if the input cannot be edited.
    pub(crate) fn open_batched(&self, path: &Path, input: &str) -> Result<Model, OnnxError> {
        if Signature::read(path)?.batching(input)? == Batching::Native {
            return self.open(path);
        }
        let bytes = fs::read(path).and_then(|bytes| batched_input::edited(&bytes, input));
        let bytes = bytes.map_err(FileError::io("read", path))?;
        let folder = path.parent().unwrap_or(Path::new(".")).to_string_lossy();
        self.load(path, |builder| {
            // A graph in memory has no folder, so the runtime must be told where external weights are.
            builder.clone().with_config_entry(EXTERNAL_FOLDER, folder)?.commit_from_memory(&bytes)
        })
    }

    /// Loads a graph that is part of this program.
    ///
    /// # Errors
    /// Returns [`OnnxError::Open`] if the runtime rejects it or the provider.
    pub(super) fn open_bytes(&self, bytes: &[u8]) -> Result<Model, OnnxError> {
        self.load(Path::new("a built-in graph"), |builder| builder.commit_from_memory(bytes))
    }

    fn load(
        &self,
        path: &Path,
        commit: impl FnOnce(&mut SessionBuilder) -> ort::Result<Session>,
    ) -> Result<Model, OnnxError> {
        let arena_bytes = self.arena_bytes(path)?;
        let session = self.builder(arena_bytes).and_then(|mut builder| commit(&mut builder));
        let session = session.map_err(|error| OnnxError::Open { path: path.to_owned(), reason: error.to_string() })?;
        let inputs = session.inputs().iter().map(port).collect();
        Ok(Model { session, path: path.to_owned(), inputs, busy: Arc::clone(self.busy) })
    }

    /// Returns a loader of a graph that may take another part of a GPU's memory.
    pub(crate) fn sharing(self, share: Share) -> Self {
        Self { cuda: self.cuda.sharing(share), ..self }
    }

    /// Returns the limit of the graph's memory on a GPU, if there is one.
    fn arena_bytes(&self, path: &Path) -> Result<Option<usize>, OnnxError> {
        if self.provider == Provider::Cpu || self.cuda.memory.is_none() {
            return Ok(None);
        }
        self.cuda.arena_bytes(Signature::read(path)?.weights.size_with(path))
    }

    fn builder(&self, arena_bytes: Option<usize>) -> ort::Result<SessionBuilder> {
        let builder = Session::builder(self.runtime.environment())?
            .with_intra_threads(self.threads.max(1))?
            // Idle threads that spin would take the cores that decode and encode images.
            .with_intra_op_spinning(false)?;
        Ok(match self.provider.dispatch(self.cuda.tf32, arena_bytes) {
            Some(dispatch) => builder.with_execution_providers([dispatch])?,
            None => builder,
        })
    }
}

/// A loaded graph. Running it needs `&mut`: one thread owns a model, and others send it their rows.
pub(crate) struct Model {
    session: Session,
    path: PathBuf,
    inputs: Vec<Port>,
    busy: Arc<Busy>,
}

impl fmt::Debug for Model {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Model").field("path", &self.path).field("inputs", &self.inputs).finish_non_exhaustive()
    }
}

impl Model {
    /// Returns the name of the graph's file.
    pub(crate) fn file_name(&self) -> String {
        self.path.file_name().unwrap_or_default().to_string_lossy().into_owned()
    }

    /// Runs the graph and returns the outputs with these names, of those that it has. Others are not computed, as far as
    /// nothing else needs them. Converts inputs to the element types of the graph: floats to half precision, or truncated
    /// to integers, as optimum's pipelines do with a timestep; integers to 32 bits or to floats.
    ///
    /// # Errors
    /// Returns [`OnnxError::MissingPort`] if the graph has no such input, [`OnnxError::Convert`] if there is no conversion
    /// to the input's type, [`OnnxError::Run`] if the runtime fails, and [`OnnxError::Device`] if the device does.
    pub(crate) fn run(&mut self, inputs: Vec<(&str, Tensor)>, wanted: &[&str]) -> Result<Outputs, OnnxError> {
        let inputs = inputs
            .into_iter()
            .map(|(name, tensor)| Ok((Cow::from(name), self.convert(name, tensor)?)))
            .collect::<Result<Vec<_>, OnnxError>>()?;
        let path = &self.path;
        let failed = |error: ort::Error| run_failed(path, &error);
        let session = &mut self.session;
        let has = |name: &&&str| session.outputs().iter().any(|output| output.name() == **name);
        let outputs = wanted.iter().filter(has).fold(OutputSelector::no_default(), |all, name| all.with(*name));
        let options = RunOptions::new().map_err(failed)?.with_outputs(outputs);
        let outputs = self.busy.during(|| session.run_with_options(inputs, &options)).map_err(failed)?;
        tracing::debug!(model = %path.display(), "model ran");
        let mut by_name = Vec::with_capacity(outputs.len());
        for (name, value) in &outputs {
            if let Some((shape, data)) = floats(&value).map_err(failed)? {
                by_name.push((name.to_owned(), shape, data));
            }
        }
        Ok(Outputs { by_name })
    }

    /// Takes an output's values, of which there must be `count`.
    ///
    /// # Errors
    /// Returns [`OnnxError::Run`] if the graph has no such output, or if it does not have `count` floats.
    pub(crate) fn take(&self, outputs: &mut Outputs, name: &str, count: usize) -> Result<Vec<f32>, OnnxError> {
        let wrong = |reason| OnnxError::Run { path: self.path.clone(), reason };
        let (shape, values) = outputs.take(name).ok_or_else(|| wrong(format!("no output `{name}` of floats")))?;
        if values.len() == count {
            return Ok(values);
        }
        Err(wrong(format!("output `{name}` has the shape {shape:?}; expected {count} values")))
    }

    fn convert(&self, name: &str, tensor: Tensor) -> Result<DynValue, OnnxError> {
        let element = self.input(name)?.element;
        let value = match tensor {
            Tensor::F32 { shape, data } => from_floats(shape, data, element),
            Tensor::I64 { shape, data } => from_integers(shape, data, element),
        };
        value.map_err(|error| run_failed(&self.path, &error))?.ok_or_else(|| self.no_conversion(name, element))
    }

    fn input(&self, name: &str) -> Result<&Port, OnnxError> {
        self.inputs.iter().find(|port| port.name == name).ok_or_else(|| OnnxError::MissingPort {
            path: self.path.clone(),
            side: "input",
            name: name.to_owned(),
            has: self.inputs.iter().map(|port| format!("`{}`", port.name)).collect::<Vec<_>>().join(", "),
        })
    }

    fn no_conversion(&self, name: &str, element: Element) -> OnnxError {
        OnnxError::Convert { path: self.path.clone(), name: name.to_owned(), element: element.to_string() }
    }
}

/// What messages of failures of a device contain, besides [`OF_MEMORY`]. ONNX Runtime has one code for them and for shapes
/// that do not fit.
const OF_DEVICES: [&str; 5] = ["cuda failure", "cublas failure", "cudnn failure", "cudnn_fe failure", "cufft failure"];

fn run_failed(path: &Path, error: &ort::Error) -> OnnxError {
    let (path, reason) = (path.to_owned(), error.to_string());
    let text = reason.to_ascii_lowercase();
    if error.code() == ErrorCode::DeviceReset || OF_MEMORY.iter().chain(&OF_DEVICES).any(|part| text.contains(part)) {
        return OnnxError::Device { path, reason };
    }
    OnnxError::Run { path, reason }
}

fn port(outlet: &Outlet) -> Port {
    let name = outlet.name().to_owned();
    let ValueType::Tensor { ty, shape, dimension_symbols } = outlet.dtype() else {
        return Port { name, element: Element::Other(-1), dims: None };
    };
    let dim = |(length, symbol): (&i64, &String)| match usize::try_from(*length) {
        Ok(length) => Dim::Fixed(length),
        Err(_) => Dim::Free(symbol.clone()),
    };
    let dims = shape.iter().zip(dimension_symbols.iter()).map(dim).collect();
    Port { name, element: element(*ty), dims: Some(dims) }
}

fn element(ty: TensorElementType) -> Element {
    match ty {
        TensorElementType::Float32 => Element::F32,
        TensorElementType::Float16 => Element::F16,
        TensorElementType::Int64 => Element::I64,
        TensorElementType::Int32 => Element::I32,
        _ => Element::Other(-1),
    }
}

#[expect(clippy::cast_possible_truncation, reason = "timesteps are truncated if a graph takes integers")]
fn from_floats(shape: Vec<usize>, data: Vec<f32>, element: Element) -> ort::Result<Option<DynValue>> {
    Ok(Some(match element {
        Element::F32 => tensor(shape, data)?,
        Element::F16 => tensor(shape, Vec::<f16>::from_f32_slice(&data))?,
        Element::I64 => tensor(shape, data.into_iter().map(|value| value as i64).collect::<Vec<_>>())?,
        Element::I32 => tensor(shape, data.into_iter().map(|value| value as i32).collect::<Vec<_>>())?,
        Element::Other(_) => return Ok(None),
    }))
}

#[expect(clippy::cast_possible_truncation, clippy::cast_precision_loss, reason = "token ids and masks are small")]
fn from_integers(shape: Vec<usize>, data: Vec<i64>, element: Element) -> ort::Result<Option<DynValue>> {
    Ok(Some(match element {
        Element::I64 => tensor(shape, data)?,
        Element::I32 => tensor(shape, data.into_iter().map(|value| value as i32).collect::<Vec<_>>())?,
        Element::F32 => tensor(shape, data.into_iter().map(|value| value as f32).collect::<Vec<_>>())?,
        Element::F16 | Element::Other(_) => return Ok(None),
    }))
}

fn tensor<T>(shape: Vec<usize>, data: Vec<T>) -> ort::Result<DynValue>
where
    T: ort::value::PrimitiveTensorElementType + fmt::Debug + Clone + 'static,
{
    Ok(ort::value::Tensor::from_array((shape, data))?.into_dyn())
}

/// Returns the shape and the values of an output of floats; `None` for any other type.
fn floats(value: &DynValue) -> ort::Result<Option<(Vec<usize>, Vec<f32>)>> {
    let Some(ty) = value.dtype().tensor_type() else { return Ok(None) };
    let lengths = |shape: &[i64]| shape.iter().map(|length| usize::try_from(*length).unwrap_or(0)).collect();
    Ok(match ty {
        TensorElementType::Float32 => {
            let (shape, data) = value.try_extract_tensor::<f32>()?;
            Some((lengths(shape), data.to_vec()))
        }
        TensorElementType::Float16 => {
            let (shape, data) = value.try_extract_tensor::<f16>()?;
            Some((lengths(shape), data.to_f32_vec()))
        }
        _ => None,
    })
}

#[cfg(test)]
mod tests;
