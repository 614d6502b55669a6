//! The inputs and outputs of a graph, read from its file without its weights.
//!
//! Field numbers are those of `onnx.proto3`: ModelProto.graph 7; GraphProto.node 1, initializer 5, input 11, output 12;
//! NodeProto.input 1, op_type 4; ValueInfoProto.name 1, type 2; TypeProto.tensor_type 1; Tensor.elem_type 1, shape 2;
//! TensorShapeProto.dim 1; Dimension.dim_value 1, dim_param 2; TensorProto: see `weights`.

use std::{
    collections::HashSet,
    fmt,
    fs::File,
    io::{self, BufReader, Read, Seek},
    path::{Path, PathBuf},
};

use super::{
    OnnxError,
    element::Element,
    graph_file,
    protobuf::{Value, Walker},
    weights::{Weights, initializer},
};
use crate::{
    limited_read::{self, StandIn, UNKNOWN, looks_like},
    models::model_dir::FileError,
};

/// The length of an axis.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Dim {
    Fixed(usize),
    /// Chosen by the caller, under a name that other axes may share.
    Free(String),
}

/// One input or output of a graph.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Port {
    pub(crate) name: String,
    pub(crate) element: Element,
    /// `None` if the file does not say; an empty list for a scalar.
    pub(crate) dims: Option<Vec<Dim>>,
}

impl Port {
    /// Returns the length of its last axis if it is fixed.
    pub(crate) fn last_axis(&self) -> Option<usize> {
        match self.dims.as_ref()?.last()? {
            Dim::Fixed(length) => Some(*length),
            Dim::Free(_) => None,
        }
    }
}

impl fmt::Display for Port {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(dims) = &self.dims else { return write!(f, "{} of unknown shape", self.element) };
        let dims: Vec<String> = dims
            .iter()
            .map(|dim| match dim {
                Dim::Fixed(length) => length.to_string(),
                Dim::Free(name) if name.is_empty() => "?".to_owned(),
                Dim::Free(name) => name.clone(),
            })
            .collect();
        write!(f, "{} [{}]", self.element, dims.join(", "))
    }
}

/// What a caller expects of an axis.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Want {
    Exactly(usize),
    /// Any length; the word is for messages.
    Any(&'static str),
}

impl fmt::Display for Want {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exactly(length) => write!(f, "{length}"),
            Self::Any(word) => f.write_str(word),
        }
    }
}

/// One operator of a graph.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Node {
    /// `Conv`, `MatMul`, …
    pub(super) operator: String,
    /// Names of its inputs.
    pub(super) inputs: Vec<String>,
}

/// The inputs and outputs of a graph.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Signature {
    /// The file of the graph, for messages.
    pub(crate) path: PathBuf,
    /// Its inputs, without the initializers that old exports list among them.
    pub(crate) inputs: Vec<Port>,
    pub(crate) outputs: Vec<Port>,
    pub(crate) weights: Weights,
    /// Its operators, without those of subgraphs.
    pub(super) nodes: Vec<Node>,
}

/// Operators that draw random numbers from the runtime's own stream.
const RANDOM: [&str; 6] =
    ["RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike", "Multinomial", "Bernoulli"];

/// Operators that resize images.
const RESIZES: [&str; 2] = ["Resize", "Upsample"];

impl Signature {
    /// Reads the signature of the graph called `stem` in the folder of a model.
    ///
    /// # Errors
    /// Returns the errors of [`graph_file::find`] and of [`Signature::read`].
    pub(crate) fn find(dir: &Path, stem: &str) -> Result<Self, OnnxError> {
        Self::read(&graph_file::find(dir, stem)?)
    }

    /// Reads the signature of a file. Skips the weights, so it takes milliseconds whatever the size of the file.
    ///
    /// # Errors
    /// Returns an error if the file cannot be read, [`OnnxError::NotOnnx`] if it has other contents or is cut off, and
    /// [`OnnxError::NoWeights`] if a file with its weights is missing.
    pub(crate) fn read(path: &Path) -> Result<Self, OnnxError> {
        let head = limited_read::head(path).map_err(FileError::io("read", path))?;
        if let Some(found) = StandIn::of(&head) {
            return Err(OnnxError::NotOnnx { path: path.to_owned(), reason: found.instead_of_the_file() });
        }
        let file = File::open(path).map_err(FileError::io("read", path))?;
        let length = file.metadata().map_err(FileError::io("read", path))?.len();
        // The buffer is small: most of the file is skipped, and buffered bytes past a seek are wasted.
        let read = Self::parse(BufReader::with_capacity(512, file), length, path);
        read.map_err(|error| match (error, looks_like(&head)) {
            (OnnxError::NotOnnx { path, .. }, other) if other != UNKNOWN => {
                OnnxError::NotOnnx { path, reason: format!("it looks like {other}") }
            }
            (error, _) => error,
        })
    }

    /// Parses the graph in the first `length` bytes of a reader; `path` names it in messages.
    pub(super) fn parse(reader: impl Read + Seek, length: u64, path: &Path) -> Result<Self, OnnxError> {
        let not_onnx = |reason: &str| OnnxError::NotOnnx { path: path.to_owned(), reason: reason.to_owned() };
        let mut graph = Graph::default();
        let mut walker = Walker::new(reader);
        graph.read_model(&mut walker, length).map_err(|error| match error.kind() {
            io::ErrorKind::UnexpectedEof => not_onnx("it is cut off"),
            _ => not_onnx("it has other contents"),
        })?;
        if graph.outputs.is_empty() {
            return Err(not_onnx("it has no graph with outputs"));
        }
        let Graph { mut inputs, outputs, initializers, weights, nodes } = graph;
        inputs.retain(|port| !initializers.contains(&port.name));
        weights.check_files(path)?;
        Ok(Self { path: path.to_owned(), inputs, outputs, weights, nodes })
    }

    /// Returns the names of the files that hold the graph and its weights, relative to the folder of the model.
    pub(crate) fn files(&self, dir: &Path) -> Vec<String> {
        let weights = self.weights.files().map(|file| self.path.with_file_name(file));
        let all = weights.chain([self.path.clone()]);
        all.map(|path| path.strip_prefix(dir).unwrap_or(&path).to_string_lossy().into_owned()).collect()
    }

    /// Returns an operator that draws random numbers, if there is one: the results of such a graph differ each time.
    pub(crate) fn random_operator(&self) -> Option<&str> {
        self.nodes.iter().map(|node| node.operator.as_str()).find(|operator| RANDOM.contains(operator))
    }

    /// Whether it has one of these operators, of any domain.
    pub(crate) fn has_operator(&self, operators: &[&str]) -> bool {
        self.nodes.iter().any(|node| operators.contains(&node.operator.as_str()))
    }

    /// Whether every operator that resizes does so to a size that the graph computes, and not by a fixed factor. Only such a
    /// UNet takes latents that do not halve evenly: it restores the size that it measured.
    pub(crate) fn measures_sizes(&self) -> bool {
        let mut resizes = self.nodes.iter().filter(|node| RESIZES.contains(&node.operator.as_str())).peekable();
        // Inputs of `Resize`: data, region, factors, sizes. An input that is left out has no name.
        resizes.peek().is_some() && resizes.all(|node| node.inputs.get(3).is_some_and(|sizes| !sizes.is_empty()))
    }

    /// Returns the output with this name.
    pub(crate) fn output(&self, name: &str) -> Option<&Port> {
        self.outputs.iter().find(|port| port.name == name)
    }

    /// Returns the input with this name.
    pub(crate) fn input(&self, name: &str) -> Option<&Port> {
        self.inputs.iter().find(|port| port.name == name)
    }

    /// Returns the input with this name if its element type and its axes are as expected.
    ///
    /// # Errors
    /// Returns [`OnnxError::MissingPort`] or [`OnnxError::Misfit`] otherwise.
    pub(crate) fn expect_input(&self, name: &str, elements: &[Element], wants: &[Want]) -> Result<&Port, OnnxError> {
        self.expect("input", &self.inputs, name, elements, wants)
    }

    /// Returns the output with this name if its element type and its axes are as expected.
    ///
    /// # Errors
    /// Returns [`OnnxError::MissingPort`] or [`OnnxError::Misfit`] otherwise.
    pub(crate) fn expect_output(&self, name: &str, elements: &[Element], wants: &[Want]) -> Result<&Port, OnnxError> {
        self.expect("output", &self.outputs, name, elements, wants)
    }

    /// Checks that the graph has no other inputs than these.
    ///
    /// # Errors
    /// Returns [`OnnxError::UnknownInput`] for the first other one.
    pub(crate) fn expect_only(&self, known: &[&str]) -> Result<(), OnnxError> {
        match self.inputs.iter().find(|port| !known.contains(&port.name.as_str())) {
            None => Ok(()),
            Some(port) => Err(OnnxError::UnknownInput {
                path: self.path.clone(),
                name: port.name.clone(),
                known: in_backticks(known.iter().copied()),
            }),
        }
    }

    fn expect<'a>(
        &self,
        side: &'static str,
        ports: &'a [Port],
        name: &str,
        elements: &[Element],
        wants: &[Want],
    ) -> Result<&'a Port, OnnxError> {
        let port = ports.iter().find(|port| port.name == name).ok_or_else(|| OnnxError::MissingPort {
            path: self.path.clone(),
            side,
            name: name.to_owned(),
            has: in_backticks(ports.iter().map(|port| port.name.as_str())),
        })?;
        if elements.contains(&port.element) && fits(port, wants) {
            return Ok(port);
        }
        let elements: Vec<String> = elements.iter().map(Element::to_string).collect();
        let wants: Vec<String> = wants.iter().map(Want::to_string).collect();
        Err(OnnxError::Misfit {
            path: self.path.clone(),
            side,
            name: name.to_owned(),
            has: port.to_string(),
            expected: format!("{} [{}]", elements.join(" or "), wants.join(", ")),
        })
    }
}

fn fits(port: &Port, wants: &[Want]) -> bool {
    let Some(dims) = &port.dims else { return true };
    dims.len() == wants.len()
        && dims.iter().zip(wants).all(|(dim, want)| match (dim, want) {
            (Dim::Fixed(has), Want::Exactly(wants)) => has == wants,
            _ => true,
        })
}

fn in_backticks<'a>(names: impl Iterator<Item = &'a str>) -> String {
    let names: Vec<String> = names.map(|name| format!("`{name}`")).collect();
    names.join(", ")
}

#[derive(Default)]
struct Graph {
    inputs: Vec<Port>,
    outputs: Vec<Port>,
    initializers: HashSet<String>,
    weights: Weights,
    nodes: Vec<Node>,
}

impl Graph {
    fn read_model(&mut self, walker: &mut Walker<impl Read + Seek>, end: u64) -> io::Result<()> {
        while let Some(field) = walker.field(end)? {
            match (field.number, field.value) {
                (7, Value::Until(until)) => self.read_graph(walker, until)?,
                (_, Value::Until(until)) => walker.skip_to(until)?,
                _ => {}
            }
        }
        Ok(())
    }

    fn read_graph(&mut self, walker: &mut Walker<impl Read + Seek>, end: u64) -> io::Result<()> {
        while let Some(field) = walker.field(end)? {
            match (field.number, field.value) {
                (1, Value::Until(until)) => self.nodes.push(node(walker, until)?),
                (5, Value::Until(until)) => {
                    let tensor = initializer(walker, until)?;
                    self.weights.add(&tensor);
                    self.initializers.insert(tensor.name);
                }
                (11, Value::Until(until)) => self.inputs.push(port(walker, until)?),
                (12, Value::Until(until)) => self.outputs.push(port(walker, until)?),
                (_, Value::Until(until)) => walker.skip_to(until)?,
                _ => {}
            }
        }
        Ok(())
    }
}

fn node(walker: &mut Walker<impl Read + Seek>, end: u64) -> io::Result<Node> {
    let mut node = Node::default();
    while let Some(field) = walker.field(end)? {
        match (field.number, field.value) {
            (1, Value::Until(until)) => node.inputs.push(walker.text(until)?),
            (4, Value::Until(until)) => node.operator = walker.text(until)?,
            (_, Value::Until(until)) => walker.skip_to(until)?,
            _ => {}
        }
    }
    Ok(node)
}

fn port(walker: &mut Walker<impl Read + Seek>, end: u64) -> io::Result<Port> {
    let mut port = Port { name: String::new(), element: Element::Other(0), dims: None };
    while let Some(field) = walker.field(end)? {
        match (field.number, field.value) {
            (1, Value::Until(until)) => port.name = walker.text(until)?,
            (2, Value::Until(until)) => read_type(walker, until, &mut port)?,
            (_, Value::Until(until)) => walker.skip_to(until)?,
            _ => {}
        }
    }
    Ok(port)
}

/// Reads a TypeProto and the TypeProto.Tensor in it. Sequences and maps keep an unknown element type.
fn read_type(walker: &mut Walker<impl Read + Seek>, end: u64, port: &mut Port) -> io::Result<()> {
    while let Some(field) = walker.field(end)? {
        let Value::Until(until) = field.value else { continue };
        if field.number != 1 {
            walker.skip_to(until)?;
            continue;
        }
        while let Some(field) = walker.field(until)? {
            match (field.number, field.value) {
                (1, Value::Varint(code)) => port.element = Element::from_code(code),
                (2, Value::Until(until)) => port.dims = Some(dims(walker, until)?),
                (_, Value::Until(until)) => walker.skip_to(until)?,
                _ => {}
            }
        }
    }
    Ok(())
}

fn dims(walker: &mut Walker<impl Read + Seek>, end: u64) -> io::Result<Vec<Dim>> {
    let mut dims = Vec::new();
    while let Some(field) = walker.field(end)? {
        let Value::Until(until) = field.value else { continue };
        if field.number != 1 {
            walker.skip_to(until)?;
            continue;
        }
        let mut dim = Dim::Free(String::new());
        while let Some(field) = walker.field(until)? {
            match (field.number, field.value) {
                (1, Value::Varint(length)) => {
                    dim = Dim::Fixed(usize::try_from(length).map_err(|_| io::ErrorKind::InvalidData)?);
                }
                (2, Value::Until(until)) => dim = Dim::Free(walker.text(until)?),
                (_, Value::Until(until)) => walker.skip_to(until)?,
                _ => {}
            }
        }
        dims.push(dim);
    }
    Ok(dims)
}

#[cfg(test)]
mod tests;
