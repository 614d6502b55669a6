//! Whether the ONNX Runtime of this program supports a graph, by the versions that its file states. Without this, a graph
//! that is too new would be found only when it is loaded, after all images have been read.
//!
//! Field numbers are those of `onnx.proto3`: ModelProto.ir_version 1, opset_import 8; OperatorSetIdProto.domain 1,
//! version 2.

use std::{
    fs::File,
    io::{self, BufReader, Read, Seek},
    path::Path,
};

use super::{
    OnnxError, Runtime,
    protobuf::{Value, Walker},
    runtime::How,
    wheels::CPU_VERSION,
};

/// The newest version of the file format that the fetched library reads. Measured, as the operators below, by loading
/// graphs with every version.
const MAX_IR: u64 = 13;

/// The newest sets of operators of the fetched library, by domain. It accepts any version of a domain that it does not
/// know.
const MAX_OPSETS: [(&str, u64); 3] = [("ai.onnx", 25), ("ai.onnx.ml", 5), ("com.microsoft", 1)];

/// The versions that a graph states.
#[derive(Debug, Default, PartialEq, Eq)]
struct Versions {
    ir: u64,
    /// Domains with the version of their operators. The empty domain is `ai.onnx`.
    opsets: Vec<(String, u64)>,
}

/// Returns a problem for each graph that the library does not support. The one for CUDA, a `library` of the user's own, or
/// one that `ORT_DYLIB_PATH` names may be newer than the one for the CPU, so it is asked only when the graph is loaded. Files
/// that cannot be read are left to [`Signature::read`](super::Signature::read).
pub(crate) fn check_versions(graphs: &[impl AsRef<Path>], library: Option<&Path>) -> Vec<OnnxError> {
    if Runtime::locate(library).is_ok_and(|located| located.how != How::Cache) {
        return Vec::new();
    }
    let problem = |path: &Path| {
        let (needs, max) = read(path).ok()?.beyond()?;
        Some(OnnxError::TooNew { path: path.to_owned(), needs, max, version: CPU_VERSION })
    };
    graphs.iter().filter_map(|path| problem(path.as_ref())).collect()
}

impl Versions {
    /// Returns the first version that is not supported, in words, with the newest one that is.
    fn beyond(&self) -> Option<(String, u64)> {
        if self.ir > MAX_IR {
            return Some((format!("version {} of the ONNX format (IR)", self.ir), MAX_IR));
        }
        self.opsets.iter().find_map(|(domain, version)| {
            let domain = if domain.is_empty() { "ai.onnx" } else { domain };
            let (_, max) = MAX_OPSETS.into_iter().find(|(known, max)| *known == domain && version > max)?;
            Some((format!("opset {version} of `{domain}`"), max))
        })
    }
}

fn read(path: &Path) -> io::Result<Versions> {
    let file = File::open(path)?;
    let length = file.metadata()?.len();
    parse(BufReader::with_capacity(512, file), length)
}

fn parse(reader: impl Read + Seek, length: u64) -> io::Result<Versions> {
    let (mut walker, mut versions) = (Walker::new(reader), Versions::default());
    while let Some(field) = walker.field(length)? {
        match (field.number, field.value) {
            (1, Value::Varint(version)) => versions.ir = version,
            (8, Value::Until(until)) => versions.opsets.push(opset(&mut walker, until)?),
            (_, Value::Until(until)) => walker.skip_to(until)?,
            _ => {}
        }
    }
    Ok(versions)
}

fn opset(walker: &mut Walker<impl Read + Seek>, end: u64) -> io::Result<(String, u64)> {
    let mut opset = (String::new(), 0);
    while let Some(field) = walker.field(end)? {
        match (field.number, field.value) {
            (1, Value::Until(until)) => opset.0 = walker.text(until)?,
            (2, Value::Varint(version)) => opset.1 = version,
            (_, Value::Until(until)) => walker.skip_to(until)?,
            _ => {}
        }
    }
    Ok(opset)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read_from_the_file() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/onnx/ports.onnx");
        let found = read(&path).unwrap();
        assert_eq!((found.opsets.len(), found.beyond()), (1, None));
        assert!(found.ir > 3 && found.opsets[0].1 > 6, "{found:?}");
    }

    #[test]
    fn versions_that_are_too_new_are_named() {
        let beyond = |ir, domain: &str, opset| Versions { ir, opsets: vec![(domain.to_owned(), opset)] }.beyond();
        assert_eq!(beyond(13, "", 25), None);
        assert_eq!(beyond(13, "org.example", 99), None);
        assert_eq!(beyond(14, "", 25), Some(("version 14 of the ONNX format (IR)".to_owned(), 13)));
        assert_eq!(beyond(9, "", 26), Some(("opset 26 of `ai.onnx`".to_owned(), 25)));
        assert_eq!(beyond(9, "ai.onnx.ml", 6), Some(("opset 6 of `ai.onnx.ml`".to_owned(), 5)));
    }
}
