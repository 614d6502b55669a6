//! Inputs that stay in place from one run of a graph to the next, in the element types of the graph.
//!
//! A UNet runs dozens of times on the same prompts, and converting and copying them can take longer than the rest of what
//! happens between two runs. So each row is written when it changes. An input that did not change since the last run stays
//! bound as it is: on a GPU it is not copied again.

use half::{f16, slice::HalfFloatSliceExt};
use ort::{
    memory::{AllocationDevice, AllocatorType, MemoryInfo, MemoryType},
    session::IoBinding,
    value::DynValue,
};

use super::{Element, Model, OnnxError, floats, run_failed, tensor};

/// The inputs of a graph for a fixed number of rows.
#[derive(Debug)]
pub(crate) struct HeldInputs {
    inputs: Vec<Held>,
    binding: IoBinding,
    /// The number of values of the output.
    count: usize,
}

/// An input with all its rows.
#[derive(Debug)]
struct Held {
    name: &'static str,
    element: Element,
    value: DynValue,
    /// Values of one row.
    row: usize,
    is_changed: bool,
}

impl Model {
    /// Creates inputs of zeros: `rows` rows for each name, with the shape of one row. [`Model::run_held`] will return
    /// `output`, which has `count` values.
    ///
    /// # Errors
    /// Returns [`OnnxError::MissingPort`] if the graph has no such input, [`OnnxError::Convert`] if it does not take floats
    /// or integers, and [`OnnxError::Run`] or [`OnnxError::Device`] if the runtime fails.
    pub(crate) fn hold(
        &self,
        rows: usize,
        inputs: &[(&'static str, Vec<usize>)],
        output: &str,
        count: usize,
    ) -> Result<HeldInputs, OnnxError> {
        let failed = |error: ort::Error| run_failed(&self.path, &error);
        let held = |(name, shape): &(&'static str, Vec<usize>)| {
            let element = self.input(name)?.element;
            let all: Vec<usize> = [&[rows], shape.as_slice()].concat();
            let value = zeros(all, element).map_err(failed)?.ok_or_else(|| self.no_conversion(name, element))?;
            Ok(Held { name, element, value, row: shape.iter().product(), is_changed: true })
        };
        let inputs = inputs.iter().map(held).collect::<Result<_, OnnxError>>()?;
        let mut binding = self.session.create_binding().map_err(failed)?;
        let host = MemoryInfo::new(AllocationDevice::CPU, 0, AllocatorType::Device, MemoryType::CPUOutput);
        binding.bind_output_to_device(output, &host.map_err(failed)?).map_err(failed)?;
        Ok(HeldInputs { inputs, binding, count })
    }

    /// Runs the graph on inputs of [`Model::hold`], and returns the values of its output.
    ///
    /// # Errors
    /// Returns [`OnnxError::Run`] if the runtime fails or the output has another number of values, and
    /// [`OnnxError::Device`] if the device fails. The inputs stay as they are.
    pub(crate) fn run_held(&mut self, held: &mut HeldInputs) -> Result<Vec<f32>, OnnxError> {
        let failed = |error: ort::Error| run_failed(&self.path, &error);
        let HeldInputs { inputs, binding, count } = held;
        for input in inputs.iter_mut().filter(|input| input.is_changed) {
            binding.bind_input(input.name, &input.value).map_err(failed)?;
            input.is_changed = false;
        }
        let session = &mut self.session;
        let outputs = self.busy.during(|| session.run_binding(binding)).map_err(failed)?;
        let (shape, values) = match outputs.iter().next() {
            Some((_, value)) => floats(&value).map_err(failed)?.unwrap_or_default(),
            None => Default::default(),
        };
        if values.len() == *count {
            return Ok(values);
        }
        let reason = format!("its output has the shape {shape:?}; expected {count} values");
        Err(OnnxError::Run { path: self.path.clone(), reason })
    }
}

impl HeldInputs {
    /// Writes one row of an input. Values are converted as [`Model::run`] converts them. Does nothing if the graph does
    /// not have the input or the row.
    pub(crate) fn write(&mut self, name: &str, row: usize, values: &[f32]) {
        if let Some(input) = self.inputs.iter_mut().find(|input| input.name == name) {
            input.is_changed |= input.write(row, values).is_some();
        }
    }
}

impl Held {
    #[expect(clippy::cast_possible_truncation, reason = "timesteps are truncated if a graph takes integers")]
    fn write(&mut self, row: usize, values: &[f32]) -> Option<()> {
        let range = row * self.row..(row + 1) * self.row;
        let values = values.get(..self.row)?;
        match self.element {
            Element::F32 => self.slice::<f32>(range)?.copy_from_slice(values),
            Element::F16 => self.slice::<f16>(range)?.convert_from_f32_slice(values),
            Element::I64 => self.slice::<i64>(range)?.iter_mut().zip(values).for_each(|(to, from)| *to = *from as i64),
            Element::I32 => self.slice::<i32>(range)?.iter_mut().zip(values).for_each(|(to, from)| *to = *from as i32),
            Element::Other(_) => return None,
        }
        Some(())
    }

    fn slice<T: ort::value::PrimitiveTensorElementType>(&mut self, range: std::ops::Range<usize>) -> Option<&mut [T]> {
        let (_, values) = self.value.try_extract_tensor_mut::<T>().ok()?;
        values.get_mut(range)
    }
}

/// Returns a tensor of zeros; `None` if its elements are neither floats nor integers.
fn zeros(shape: Vec<usize>, element: Element) -> ort::Result<Option<DynValue>> {
    let count = shape.iter().product();
    Ok(Some(match element {
        Element::F32 => tensor(shape, vec![0.0_f32; count])?,
        Element::F16 => tensor(shape, vec![f16::ZERO; count])?,
        Element::I64 => tensor(shape, vec![0_i64; count])?,
        Element::I32 => tensor(shape, vec![0_i32; count])?,
        Element::Other(_) => return Ok(None),
    }))
}
