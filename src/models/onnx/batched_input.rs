//! Edits a graph in memory so that an input with one value for the whole batch has one value for each sample.
//!
//! `optimum-cli export onnx` gives the UNet's `timestep` rank 0, and one `Unsqueeze` turns it into [1]; older exports
//! declare it as [1]. The arithmetic after that broadcasts, so it is enough to declare the input as [batch] and to replace
//! the `Unsqueeze` by an `Identity`. The user's file does not change.
//!
//! Field numbers are those of `onnx.proto3`: ModelProto.graph 7; GraphProto.node 1, input 11, value_info 13;
//! NodeProto.input 1, output 2, op_type 4; ValueInfoProto.name 1, type 2; TypeProto.tensor_type 1; Tensor.elem_type 1,
//! shape 2; TensorShapeProto.dim 1; Dimension.dim_param 2.

use std::io::{self, Cursor};

use super::{
    OnnxError,
    element::Element,
    protobuf::{Field, Value, Walker},
    signature::{Dim, Port, Signature, Want},
};

/// The operator that adds an axis.
const UNSQUEEZE: &str = "Unsqueeze";

/// How an input gets one value for each sample.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Batching {
    /// The graph declares it as [batch].
    Native,
    /// The graph is edited when it is loaded.
    Edited,
}

impl Signature {
    /// Checks that an input has one value for each sample, or can be edited to have one.
    ///
    /// # Errors
    /// Returns [`OnnxError::MissingPort`] if there is no such input, and [`OnnxError::Misfit`] if it has another shape or
    /// if anything but an `Unsqueeze` reads the scalar.
    pub(crate) fn expect_batched(&self, input: &str) -> Result<(), OnnxError> {
        self.batching(input).map(|_| ())
    }

    /// Whether the graph is edited when it is loaded to give an input one value for each sample; `None` if that is not
    /// possible.
    pub(crate) fn is_edited(&self, input: &str) -> Option<bool> {
        self.batching(input).ok().map(|batching| batching == Batching::Edited)
    }

    /// Returns how the input gets one value for each sample.
    pub(super) fn batching(&self, input: &str) -> Result<Batching, OnnxError> {
        let floats_or_integers = [Element::F32, Element::F16, Element::I64, Element::I32];
        let one = self.expect_input(input, &floats_or_integers, &[Want::Any("batch")]);
        let Some(Port { element, dims: Some(dims), .. }) = self.input(input) else {
            return one.map(|_| Batching::Native);
        };
        match dims.as_slice() {
            [Dim::Fixed(1)] => one.map(|_| Batching::Edited),
            [] if floats_or_integers.contains(element) && self.is_unsqueezed(input) => Ok(Batching::Edited),
            _ => one.map(|_| Batching::Native),
        }
    }

    /// Whether the only operators that read the input add an axis to it.
    fn is_unsqueezed(&self, input: &str) -> bool {
        let mut readers = self.nodes.iter().filter(|node| node.inputs.iter().any(|name| name == input));
        readers.all(|node| node.operator == UNSQUEEZE && node.inputs.first().is_some_and(|first| first == input))
    }
}

/// Returns the bytes of a graph with `input` declared as [batch].
///
/// # Errors
/// Returns `InvalidData` or `UnexpectedEof` if the bytes are not a graph.
pub(super) fn edited(model: &[u8], input: &str) -> io::Result<Vec<u8>> {
    rewritten(model, |field, bytes| match field {
        7 => Ok(Rewrite::To(rewritten(bytes, |field, bytes| graph_field(field, bytes, input))?)),
        _ => Ok(Rewrite::Keep),
    })
}

fn graph_field(field: u64, bytes: &[u8], input: &str) -> io::Result<Rewrite> {
    match field {
        1 if reads(bytes, input)? => to_identity(bytes).map(Rewrite::To),
        11 if strings(bytes, 1)?.last().map_or("", String::as_str) == input => {
            rewritten(bytes, |field, bytes| match field {
                2 => rewritten(bytes, tensor_type).map(Rewrite::To),
                _ => Ok(Rewrite::Keep),
            })
            .map(Rewrite::To)
        }
        // The shapes of intermediate values are hints, and some of them would now be wrong.
        13 => Ok(Rewrite::Drop),
        _ => Ok(Rewrite::Keep),
    }
}

fn reads(node: &[u8], input: &str) -> io::Result<bool> {
    let unsqueeze = strings(node, 4)?.last().is_some_and(|operator| operator == UNSQUEEZE);
    Ok(unsqueeze && strings(node, 1)?.first().is_some_and(|first| first == input))
}

/// Returns the node as an `Identity` of its first input.
fn to_identity(node: &[u8]) -> io::Result<Vec<u8>> {
    let mut identity = Vec::new();
    for (number, text) in
        [(1, strings(node, 1)?.first()), (2, strings(node, 2)?.first()), (4, Some(&"Identity".into()))]
    {
        put(&mut identity, number, text.ok_or(io::ErrorKind::InvalidData)?.as_bytes());
    }
    Ok(identity)
}

/// Rewrites TypeProto.tensor_type to the shape [batch].
fn tensor_type(field: u64, bytes: &[u8]) -> io::Result<Rewrite> {
    if field != 1 {
        return Ok(Rewrite::Keep);
    }
    let mut tensor = rewritten(bytes, |field, _| Ok(if field == 2 { Rewrite::Drop } else { Rewrite::Keep }))?;
    let (mut dim, mut shape) = (Vec::new(), Vec::new());
    put(&mut dim, 2, b"batch");
    put(&mut shape, 1, &dim);
    put(&mut tensor, 2, &shape);
    Ok(Rewrite::To(tensor))
}

/// What happens to a field.
enum Rewrite {
    Keep,
    Drop,
    To(Vec<u8>),
}

/// Rewrites a message: keeps, drops or replaces each field of bytes. Keeps numbers.
fn rewritten(message: &[u8], change: impl Fn(u64, &[u8]) -> io::Result<Rewrite>) -> io::Result<Vec<u8>> {
    let mut out = Vec::with_capacity(message.len());
    for_each_field(message, |number, whole, contents| {
        match contents.map_or(Ok(Rewrite::Keep), |bytes| change(number, bytes))? {
            Rewrite::Keep => out.extend_from_slice(whole),
            Rewrite::Drop => {}
            Rewrite::To(bytes) => put(&mut out, number, &bytes),
        }
        Ok(())
    })?;
    Ok(out)
}

/// Returns every string of a repeated field. Of a field that is not repeated, the last one counts.
fn strings(message: &[u8], wanted: u64) -> io::Result<Vec<String>> {
    let mut found = Vec::new();
    for_each_field(message, |number, _, contents| {
        if let Some(bytes) = contents.filter(|_| number == wanted) {
            found.push(String::from_utf8_lossy(bytes).into_owned());
        }
        Ok(())
    })?;
    Ok(found)
}

/// Visits the fields of a message: the number, all bytes with the tag, and the contents if they are bytes.
fn for_each_field(
    message: &[u8],
    mut visit: impl FnMut(u64, &[u8], Option<&[u8]>) -> io::Result<()>,
) -> io::Result<()> {
    let part = |from: u64, to: u64| -> io::Result<&[u8]> {
        let range = usize::try_from(from).ok().zip(usize::try_from(to).ok());
        range.and_then(|(from, to)| message.get(from..to)).ok_or_else(|| io::ErrorKind::UnexpectedEof.into())
    };
    let (mut walker, end) = (Walker::new(Cursor::new(message)), message.len() as u64);
    let mut began = 0;
    while let Some(Field { number, value }) = walker.field(end)? {
        let contents = match value {
            Value::Until(until) => {
                let contents = part(walker.position(), until)?;
                walker.skip_to(until)?;
                Some(contents)
            }
            Value::Varint(_) | Value::Fixed => None,
        };
        visit(number, part(began, walker.position())?, contents)?;
        began = walker.position();
    }
    Ok(())
}

fn put(out: &mut Vec<u8>, number: u64, bytes: &[u8]) {
    put_varint(out, number << 3 | 2);
    put_varint(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push((value & 0x7f) as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

#[cfg(test)]
mod tests {
    use std::{
        path::{Path, PathBuf},
        sync::Arc,
    };

    use super::*;
    use crate::models::onnx::{CudaOptions, Loader, Provider, Runtime, Tensor};

    fn path(name: &str) -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/onnx").join(name)
    }

    fn run(name: &str, timesteps: Tensor) -> Vec<f32> {
        let (runtime, busy) = (Runtime::open(None).unwrap(), Arc::default());
        let loader = Loader {
            runtime: &runtime,
            provider: Provider::Cpu,
            cuda: CudaOptions::default(),
            threads: 1,
            busy: &busy,
        };
        let mut model = loader.open_batched(&path(name), "timestep").unwrap();
        let sample = Tensor::f32([2, 1], vec![1.0, 1.0]);
        let mut outputs = model.run(vec![("sample", sample), ("timestep", timesteps)], &["out"]).unwrap();
        outputs.take("out").unwrap().1
    }

    #[test]
    fn each_sample_has_its_own_timestep() {
        for name in ["scalar_timestep.onnx", "one_timestep.onnx", "external/scalar_timestep.onnx"] {
            let signature = Signature::read(&path(name)).unwrap();
            assert_eq!(signature.batching("timestep").unwrap(), Batching::Edited, "{name}");
            assert_eq!(run(name, Tensor::f32([2], vec![10.0, 20.0])), [31.0, 61.0], "3 * timestep + sample in {name}");
        }
    }

    #[test]
    fn a_scalar_that_another_operator_reads_is_rejected() {
        let signature = Signature::read(&path("ports.onnx")).unwrap();
        let cast = signature.batching("timestep").unwrap_err();
        assert!(cast.to_string().contains("`timestep` is int64 []; expected"), "a Cast reads it: {cast}");
        assert!(signature.batching("x").is_err(), "two axes");
        assert!(signature.batching("z").is_err(), "no such input");
        let mut signature = Signature::read(&path("scalar_timestep.onnx")).unwrap();
        signature.inputs.iter_mut().for_each(|port| port.element = Element::from_code(11));
        let double = signature.batching("timestep").unwrap_err().to_string();
        assert!(double.contains("`timestep` is element type 11 []; expected float32"), "{double}");
    }

    #[test]
    fn an_unnamed_input_is_edited_too() {
        let message = |number, bytes: &[u8]| {
            let mut out = Vec::new();
            put(&mut out, number, bytes);
            out
        };
        let tensor = [&[8, 1][..], &message(2, b"")].concat();
        let input = message(11, &message(2, &message(1, &tensor)));
        let model = message(7, &[input, message(12, &message(1, b"out"))].concat());
        let edited = edited(&model, "").unwrap();
        let signature = Signature::parse(Cursor::new(&edited), edited.len() as u64, Path::new("graph")).unwrap();
        assert_eq!(signature.inputs[0].dims, Some(vec![Dim::Free("batch".to_owned())]));
    }

    #[test]
    fn bytes_that_are_not_a_graph_are_an_error() {
        let bytes = std::fs::read(path("scalar_timestep.onnx")).unwrap();
        for length in 1..bytes.len() {
            // A cut between two fields leaves a valid message, in which the rest is missing.
            let _ = edited(&bytes[..length], "timestep");
        }
        assert!(edited(b"hello", "timestep").is_err());
    }
}
