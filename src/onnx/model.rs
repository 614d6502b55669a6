//! One graph, loaded and ready to run.

use std::borrow::Cow;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::available_parallelism;

use half::f16;
use ort::session::Session;
use ort::session::builder::SessionBuilder;
use ort::value::{DynValue, Outlet, TensorElementType, ValueType};

use super::{Busy, Dim, Element, OnnxError, Outputs, Port, Provider, Runtime, Signature, Tensor};

/// Threads within one model on the CPU, where nobody says otherwise: all cores.
pub(crate) fn default_threads() -> usize {
    available_parallelism().map_or(1, |threads| threads.get())
}

/// A loaded graph. Running needs `&mut`: a model belongs to one thread, and others send it their rows.
pub(crate) struct Model {
    session: Session,
    signature: Signature,
    busy: Arc<Busy>,
}

impl fmt::Debug for Model {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Model").field("signature", &self.signature).finish_non_exhaustive()
    }
}

impl Model {
    /// Loads a graph with its weights onto a provider. `threads` is how many cores one operator may use on the CPU;
    /// `busy` counts the time in which it runs, and is shared with models whose time is told as one.
    ///
    /// # Errors
    /// [`OnnxError::Open`] where the runtime refuses the graph or the provider.
    pub(crate) fn open(
        runtime: &Runtime,
        path: &Path,
        provider: Provider,
        threads: usize,
        busy: &Arc<Busy>,
    ) -> Result<Self, OnnxError> {
        let failed = |reason: String| OnnxError::Open { path: path.to_owned(), reason };
        let session = builder(runtime, provider, threads)
            .and_then(|mut builder| builder.commit_from_file(path))
            .map_err(|error| failed(error.to_string()))?;
        let ports = |outlets: &[Outlet]| outlets.iter().map(port).collect();
        let signature =
            Signature { path: path.to_owned(), inputs: ports(session.inputs()), outputs: ports(session.outputs()) };
        Ok(Self { session, signature, busy: Arc::clone(busy) })
    }

    /// Runs the graph. Inputs are converted to the element types that it wants: floats to half precision, or
    /// truncated to integers as optimum's pipelines do with a timestep; integers to 32 bits or to floats.
    ///
    /// # Errors
    /// [`OnnxError::MissingPort`] for an input that the graph does not have, [`OnnxError::Convert`] for a type
    /// that nothing is converted to, [`OnnxError::Run`] where the runtime fails.
    pub(crate) fn run(&mut self, inputs: Vec<(&str, Tensor)>) -> Result<Outputs, OnnxError> {
        let inputs = inputs
            .into_iter()
            .map(|(name, tensor)| Ok((Cow::from(name), self.convert(name, tensor)?)))
            .collect::<Result<Vec<_>, OnnxError>>()?;
        let path = &self.signature.path;
        let session = &mut self.session;
        let outputs = self.busy.during(|| session.run(inputs)).map_err(|error| run_failed(path, &error))?;
        let mut by_name = Vec::with_capacity(outputs.len());
        for (name, value) in &outputs {
            if let Some((shape, data)) = floats(&value).map_err(|error| run_failed(path, &error))? {
                by_name.push((name.to_owned(), shape, data));
            }
        }
        Ok(Outputs { by_name })
    }

    /// Takes an output's values, of which there must be `count`.
    ///
    /// # Errors
    /// [`OnnxError::Run`] where the graph gave none of that name, no floats or another number of them.
    pub(crate) fn take(&self, mut outputs: Outputs, name: &str, count: usize) -> Result<Vec<f32>, OnnxError> {
        let wrong = |reason| OnnxError::Run { path: self.signature.path.clone(), reason };
        let (shape, values) = outputs.take(name).ok_or_else(|| wrong(format!("it gave no `{name}` of floats")))?;
        if values.len() == count {
            return Ok(values);
        }
        Err(wrong(format!("its `{name}` came as {shape:?}, which is not {count} values")))
    }

    fn convert(&self, name: &str, tensor: Tensor) -> Result<DynValue, OnnxError> {
        let port = self.signature.input(name).ok_or_else(|| OnnxError::MissingPort {
            path: self.signature.path.clone(),
            side: "input",
            name: name.to_owned(),
            has: self.signature.inputs.iter().map(|port| format!("`{}`", port.name)).collect::<Vec<_>>().join(", "),
        })?;
        let value = match tensor {
            Tensor::F32 { shape, data } => from_floats(shape, data, port.element),
            Tensor::I64 { shape, data } => from_integers(shape, data, port.element),
        };
        value.map_err(|error| run_failed(&self.signature.path, &error))?.ok_or_else(|| OnnxError::Convert {
            path: self.signature.path.clone(),
            name: name.to_owned(),
            element: port.element,
        })
    }
}

fn builder(runtime: &Runtime, provider: Provider, threads: usize) -> ort::Result<SessionBuilder> {
    let builder = Session::builder(runtime.environment())?
        .with_intra_threads(threads.max(1))?
        // Idle threads that spin take the cores that decode and encode pictures beside the model.
        .with_intra_op_spinning(false)?;
    Ok(match provider.dispatch() {
        Some(dispatch) => builder.with_execution_providers([dispatch])?,
        None => builder,
    })
}

fn run_failed(path: &Path, error: &ort::Error) -> OnnxError {
    OnnxError::Run { path: PathBuf::from(path), reason: error.to_string() }
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

#[expect(clippy::cast_possible_truncation, reason = "timesteps are truncated where a graph takes integers")]
fn from_floats(shape: Vec<usize>, data: Vec<f32>, element: Element) -> ort::Result<Option<DynValue>> {
    Ok(Some(match element {
        Element::F32 => tensor(shape, data)?,
        Element::F16 => tensor(shape, data.into_iter().map(f16::from_f32).collect::<Vec<_>>())?,
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

/// Shape and values of an output of floats; `None` for any other type.
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
            Some((lengths(shape), data.iter().map(|value| value.to_f32()).collect()))
        }
        _ => None,
    })
}

#[cfg(test)]
mod tests;
