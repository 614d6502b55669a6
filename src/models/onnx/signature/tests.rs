//! Tests on `tests/fixtures/onnx/ports.onnx`, complete and broken.

use super::*;

fn path() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/onnx/ports.onnx")
}

#[test]
fn names_elements_and_axes_are_read() {
    let signature = Signature::read(&path()).unwrap();
    let described: Vec<String> = signature.inputs.iter().map(|port| format!("{} {port}", port.name)).collect();
    assert_eq!(
        described,
        ["x float32 [batch, 3]", "h float16 [batch, 3]", "ids int32 [batch, length]", "timestep int64 []"],
        "the initializer `weight` is not an input"
    );
    assert_eq!(signature.outputs.len(), 4);
    assert_eq!(axis(&signature, 1), Dim::Fixed(3));
    assert!(matches!(axis(&signature, 0), Dim::Free(_)));
}

#[test]
fn a_misfit_reports_what_it_has_and_what_is_expected() {
    let signature = Signature::read(&path()).unwrap();
    signature.expect_input("x", &[Element::F32], &[Want::Any("batch"), Want::Exactly(3)]).unwrap();
    let message = |error: OnnxError| error.to_string().replace(&path().display().to_string(), "FILE");
    let scalar = signature.expect_input("timestep", &[Element::F32, Element::I64], &[Want::Any("batch")]);
    assert_eq!(message(scalar.unwrap_err()), "`FILE`: input `timestep` is int64 []; expected float32 or int64 [batch]");
    let width = signature.expect_input("x", &[Element::F32], &[Want::Any("batch"), Want::Exactly(4)]);
    assert_eq!(message(width.unwrap_err()), "`FILE`: input `x` is float32 [batch, 3]; expected float32 [batch, 4]");
    let missing = signature.expect_output("z", &[Element::F32], &[]);
    assert_eq!(message(missing.unwrap_err()), "`FILE`: no output `z`; it has `y`, `h_out`, `ids_out`, `timestep_out`");
    let unknown = signature.expect_only(&["x", "h", "ids"]);
    assert_eq!(message(unknown.unwrap_err()), "`FILE`: unknown input `timestep`; known are `x`, `h`, `ids`");
}

#[test]
fn truncated_and_foreign_files_are_errors() {
    let bytes = std::fs::read(path()).unwrap();
    let file = tempfile::NamedTempFile::new().unwrap();
    // The last six bytes are the list of operator sets, which follows the graph.
    for length in 0..bytes.len() - 6 {
        std::fs::write(file.path(), &bytes[..length]).unwrap();
        let error = Signature::read(file.path()).unwrap_err();
        assert!(matches!(error, OnnxError::NotOnnx { .. }), "cut to {length}: {error}");
    }
    for foreign in
        [&b"\x89PNG\r\n\x1a\n........"[..], b"<html></html>", b"version https://git-lfs.github.com/spec/v1\n"]
    {
        std::fs::write(file.path(), foreign).unwrap();
        assert!(matches!(Signature::read(file.path()), Err(OnnxError::NotOnnx { .. })));
    }
}

#[test]
fn what_is_in_place_of_a_graph_is_named() {
    let file = tempfile::NamedTempFile::new().unwrap();
    for (contents, expected) in [
        (&b""[..], "it is an empty file\nhint: download or copy the file again"),
        (
            b"version https://git-lfs.github.com/spec/v1\n",
            "it is a Git LFS pointer, not the file itself\nhint: run `git lfs",
        ),
        (b"<!DOCTYPE html>", "it is an HTML page, not the file itself\nhint: download the file again"),
        (b"PK\x03\x04", "it looks like a zip archive"),
        (b"\x10\0\0\0\0\0\0\0{\"a\": {}}", "it looks like a safetensors file"),
        (b"Entry not found", "it looks like `text`"),
        (b"\x08\x07\x12\x7f", "it is cut off"),
    ] {
        std::fs::write(file.path(), contents).unwrap();
        let message = Signature::read(file.path()).unwrap_err().to_string();
        let start = format!("`{}` is not a complete ONNX file: {expected}", file.path().display());
        assert!(message.starts_with(&start), "{message}");
    }
}

fn axis(signature: &Signature, axis: usize) -> Dim {
    signature.input("x").unwrap().dims.clone().unwrap()[axis].clone()
}
