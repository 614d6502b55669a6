//! What `tools/onnx_graphs.py` does to exported graphs, and that the exports in `tests/fixtures/opset23` are as it says.

use std::process::Command;

use crate::{
    readers::environment,
    support::{root, stderr},
};

#[test]
fn passes_over_graphs_keep_what_these_compute() {
    let mut python = Command::new(environment("graphs").join("bin/python"));
    let output = python.arg("-B").arg(root().join("tests/graphs/check.py")).output().unwrap();
    assert!(output.status.success(), "{}{}", String::from_utf8_lossy(&output.stdout), stderr(&output));
}
