//! The reader of ONNX graphs, and the edit that gives each sample a timestep of its own.
//!
//! No bytes may panic. A graph that was edited is a graph again: the input is [batch] and nothing is left to edit, its
//! other inputs and all outputs are what they were.
#![no_main]
#![allow(dead_code, unused_imports, missing_docs)]

use std::path::Path;

use libfuzzer_sys::fuzz_target;

#[path = "../../src/models/onnx"]
mod onnx {
    mod error;
    mod per_sample;
    mod protobuf;
    mod signature;
    mod weights;

    pub(crate) use error::OnnxError;
    pub(crate) use signature::{Dim, Element, Port, Signature, Want};

    /// Stands for the type of that name, which only messages have here.
    pub(crate) type Device = &'static str;

    pub(crate) fn check(bytes: &[u8]) {
        let parse =
            |bytes: &[u8]| Signature::parse(std::io::Cursor::new(bytes), bytes.len() as u64, super::Path::new("graph"));
        let Ok(before) = parse(bytes) else {
            // what is no graph to the one reader may be one to the other, but it may not panic
            let _ = per_sample::edited(bytes, "timestep");
            return;
        };
        let _ = before.random_operator();
        let _ = before.expect_only(&["sample", "timestep"]);
        let _ = before.expect_output("out", &[Element::F32], &[Want::Any("batch"), Want::Exactly(4)]);
        // the first port by each name is what the program asks for
        for port in before.inputs.iter().filter(|port| before.input(&port.name) == Some(port)) {
            if before.per_sample(&port.name).ok() != Some(per_sample::PerSample::Edit) {
                continue;
            }
            let Ok(edited) = per_sample::edited(bytes, &port.name) else { continue };
            let after = parse(&edited).expect("the edited graph is no graph");
            let now = after.input(&port.name).expect("the edited graph lost the input");
            assert_eq!(now.element, port.element);
            assert_eq!(now.dims, Some(vec![Dim::Free("batch".to_owned())]));
            assert_eq!(after.per_sample(&port.name).unwrap(), per_sample::PerSample::Already);
            assert_eq!(after.outputs, before.outputs);
            let others = |signature: &Signature| -> Vec<Port> {
                signature.inputs.iter().filter(|other| other.name != port.name).cloned().collect()
            };
            assert_eq!(others(&after), others(&before));
            assert_eq!(after.nodes.len(), before.nodes.len());
        }
    }
}

fuzz_target!(|bytes: &[u8]| onnx::check(bytes));
