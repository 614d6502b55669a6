//! Where the weights of a graph are: in its own file, or in external files, as in exports of 2 GiB and more.
//!
//! Field numbers are those of `onnx.proto3`: TensorProto.data_type 2, float_data 4, int32_data 5, int64_data 7, name 8,
//! raw_data 9, external_data 13; StringStringEntryProto.key 1, value 2.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    io::{self, Read, Seek},
    path::{Component, Path},
};

use super::{
    OnnxError,
    element::Element,
    protobuf::{Value, Walker},
};
use crate::limited_read::{self, StandIn};

/// What is known about the weights of a graph without reading them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Weights {
    /// External files with weights, each with its minimum length.
    files: BTreeMap<String, u64>,
    /// Bytes by element type code.
    bytes: BTreeMap<u64, u64>,
}

/// A tensor of weights.
#[derive(Debug, Default)]
pub(super) struct Initializer {
    pub(super) name: String,
    code: u64,
    bytes: u64,
    /// The keys `location`, `offset` and `length`, if its values are in another file.
    external: BTreeMap<String, String>,
}

impl Weights {
    pub(super) fn add(&mut self, tensor: &Initializer) {
        let number = |key: &str| tensor.external.get(key).and_then(|value| value.parse::<u64>().ok()).unwrap_or(0);
        if let Some(file) = tensor.external.get("location") {
            let end = number("offset").saturating_add(number("length"));
            let known = self.files.entry(file.clone()).or_default();
            *known = end.max(*known);
        }
        let bytes = self.bytes.entry(tensor.code).or_default();
        *bytes = bytes.saturating_add(tensor.bytes.max(number("length")));
    }

    /// Returns the element type of most weights; `None` without weights.
    pub(crate) fn precision(&self) -> Option<Element> {
        let most = self.bytes.iter().max_by_key(|(_, bytes)| **bytes)?;
        Some(Element::from_code(*most.0))
    }

    /// Returns the size in bytes of the graph at `path` and of its external weights.
    pub(crate) fn size_with(&self, path: &Path) -> u64 {
        let external = self.files.keys().map(|file| path.with_file_name(file));
        let all: BTreeSet<_> = external.chain([path.to_owned()]).collect();
        all.iter().filter_map(|file| fs::metadata(file).ok()).map(|found| found.len()).sum()
    }

    /// Returns the names of the external files, relative to the folder of the graph.
    pub(super) fn files(&self) -> impl Iterator<Item = &str> {
        self.files.keys().map(String::as_str)
    }

    /// Checks that the external files exist in the folder of the graph at `path`, and are long enough.
    pub(super) fn check_files(&self, path: &Path) -> Result<(), OnnxError> {
        for (file, &expected) in &self.files {
            if let Some((found, hint)) = defect(&path.with_file_name(file), file, expected) {
                return Err(OnnxError::NoWeights { path: path.to_owned(), file: file.clone(), found, expected, hint });
            }
        }
        Ok(())
    }
}

/// Returns what is wrong with an external file at `path`, which the graph calls `file`: a verb phrase, and a hint or
/// nothing.
fn defect(path: &Path, file: &str, expected: u64) -> Option<(String, String)> {
    let inside = Path::new(file).components().all(|part| matches!(part, Component::Normal(_) | Component::CurDir));
    if !inside {
        return Some(("is outside of the graph's folder".to_owned(), String::new()));
    }
    let Some(found) = fs::metadata(path).ok().filter(fs::Metadata::is_file) else {
        let hint = "\nhint: copy it from where the graph came from; it must have the name that the graph has for it";
        return Some(("does not exist".to_owned(), hint.to_owned()));
    };
    let head = limited_read::head(path).unwrap_or_default();
    match StandIn::of(&head) {
        Some(stand_in) if expected > 0 || stand_in != StandIn::Empty => {
            Some((format!("is {stand_in}"), format!("\nhint: {}", stand_in.remedy())))
        }
        _ if found.len() < expected => Some((
            format!("has {} bytes", found.len()),
            "\nhint: copy it again from where the graph came from".to_owned(),
        )),
        _ => None,
    }
}

/// Reads the description of a tensor, but not its values.
pub(super) fn initializer(walker: &mut Walker<impl Read + Seek>, end: u64) -> io::Result<Initializer> {
    let mut tensor = Initializer::default();
    while let Some(field) = walker.field(end)? {
        match (field.number, field.value) {
            (2, Value::Varint(code)) => tensor.code = code,
            (8, Value::Until(until)) => tensor.name = walker.text(until)?,
            (13, Value::Until(until)) => {
                let (key, value) = entry(walker, until)?;
                tensor.external.insert(key, value);
            }
            (number, Value::Until(until)) => {
                if matches!(number, 4 | 5 | 7 | 9) {
                    tensor.bytes += until - walker.position();
                }
                walker.skip_to(until)?;
            }
            _ => {}
        }
    }
    Ok(tensor)
}

fn entry(walker: &mut Walker<impl Read + Seek>, end: u64) -> io::Result<(String, String)> {
    let (mut key, mut value) = (String::new(), String::new());
    while let Some(field) = walker.field(end)? {
        match (field.number, field.value) {
            (1, Value::Until(until)) => key = walker.text(until)?,
            (2, Value::Until(until)) => value = walker.text(until)?,
            (_, Value::Until(until)) => walker.skip_to(until)?,
            _ => {}
        }
    }
    Ok((key, value))
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;
    use crate::models::onnx::Signature;

    fn external() -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/onnx/external")
    }

    #[test]
    fn external_weights_must_exist_and_be_complete() {
        let copy = tempfile::tempdir().unwrap();
        for entry in fs::read_dir(external()).unwrap() {
            let path = entry.unwrap().path();
            fs::copy(&path, copy.path().join(path.file_name().unwrap())).unwrap();
        }
        let graph = copy.path().join("scalar_timestep.onnx");
        let weights = Signature::read(&graph).unwrap().weights;
        assert_eq!(weights.precision(), Some(Element::F32));
        let file = copy.path().join(weights.files.keys().next().unwrap());
        let [graph_bytes, weight_bytes] = [&graph, &file].map(|path| fs::metadata(path).unwrap().len());
        assert_eq!(weights.size_with(&graph), graph_bytes + weight_bytes);
        let message =
            || Signature::read(&graph).unwrap_err().to_string().replace(&copy.path().display().to_string(), "DIR");
        fs::write(&file, "").unwrap();
        assert!(message().contains("which is an empty file; expected at least"), "{}", message());
        fs::write(&file, "12").unwrap();
        assert!(message().contains("which has 2 bytes; expected at least"), "{}", message());
        fs::write(&file, "version https://git-lfs.github.com/spec/v1\n".repeat(100)).unwrap();
        assert!(message().contains("which is a Git LFS pointer; "), "{}", message());
        fs::remove_file(&file).unwrap();
        assert!(message().starts_with("`DIR/scalar_timestep.onnx` stores weights in `"), "{}", message());
        assert!(message().contains("does not exist"), "{}", message());
    }

    #[test]
    fn weights_outside_of_the_folder_are_rejected() {
        let folder = tempfile::tempdir().unwrap();
        let outside = folder.path().join("outside");
        fs::write(&outside, "weights").unwrap();
        fs::create_dir(folder.path().join("model")).unwrap();
        let graph = folder.path().join("model/graph.onnx");
        let outside = outside.to_str().unwrap();
        for (file, wanted) in [
            ("../outside", "is outside of the graph's folder"),
            (outside, "is outside of the graph's folder"),
            ("a/../../outside", "is outside of the graph's folder"),
            (".", "does not exist"),
            ("", "does not exist"),
        ] {
            let weights = Weights { files: [(file.to_owned(), 1)].into(), ..Weights::default() };
            let message = weights.check_files(&graph).unwrap_err().to_string();
            assert!(message.contains(wanted), "{file}: {message}");
        }
    }

    #[test]
    fn huge_lengths_do_not_overflow() {
        let mut weights = Weights::default();
        let external = [("length", u64::MAX), ("offset", 1)].map(|(key, value)| (key.to_owned(), value.to_string()));
        let tensor = Initializer { code: 1, external: external.into(), ..Initializer::default() };
        weights.add(&tensor);
        weights.add(&tensor);
        assert_eq!(weights.bytes[&1], u64::MAX);
    }
}
