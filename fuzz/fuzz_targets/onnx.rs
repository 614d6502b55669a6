//! The reader of ONNX graphs, and the edit that gives each sample its own timestep.
//!
//! No bytes may cause a panic. An edited graph is still a graph: the input is [batch] and needs no further edit; its other
//! inputs and all outputs are unchanged.
#![no_main]
#![allow(dead_code, unused_imports, missing_docs)]

use libfuzzer_sys::fuzz_target;

#[path = "../../src/limited_read/mod.rs"]
mod limited_read;

/// The part of the program's errors that is needed here.
#[path = "../../src/error"]
mod error {
    pub(crate) mod text;
}

#[path = "../../src/models"]
mod models {
    pub(crate) mod model_dir {
        mod error;
        mod read;

        pub(crate) use error::FileError;
        pub(crate) use read::{read, read_config};

        /// A stand-in: no folder is read.
        pub(crate) fn file_names(_: &std::path::Path) -> Result<Vec<String>, FileError> {
            Ok(Vec::new())
        }
    }

    pub(crate) mod onnx {
        mod batched_input;
        mod element;
        mod error;
        pub(crate) mod graph_file;
        mod protobuf;
        mod signature;
        mod weights;

        pub(crate) use element::Element;
        pub(crate) use error::OnnxError;
        pub(crate) use signature::{Dim, Port, Signature, Want};

        pub(crate) fn check(bytes: &[u8]) {
            let parse = |bytes: &[u8]| {
                Signature::parse(std::io::Cursor::new(bytes), bytes.len() as u64, std::path::Path::new("graph"))
            };
            let Ok(before) = parse(bytes) else {
                // The other reader may accept what this one rejects, but it must not panic.
                let _ = batched_input::edited(bytes, "timestep");
                return;
            };
            let _ = before.random_operator();
            let _ = before.expect_only(&["sample", "timestep"]);
            let _ = before.expect_output("out", &[Element::F32], &[Want::Any("batch"), Want::Exactly(4)]);
            // The program uses the first port with a name.
            for port in before.inputs.iter().filter(|port| before.input(&port.name) == Some(port)) {
                if before.batching(&port.name).ok() != Some(batched_input::Batching::Edited) {
                    continue;
                }
                let Ok(edited) = batched_input::edited(bytes, &port.name) else { continue };
                let after = parse(&edited).expect("the edited graph is not a graph");
                let now = after.input(&port.name).expect("the edited graph lost the input");
                assert_eq!(now.element, port.element);
                assert_eq!(now.dims, Some(vec![Dim::Free("batch".to_owned())]));
                assert_eq!(after.batching(&port.name).unwrap(), batched_input::Batching::Native);
                assert_eq!(after.outputs, before.outputs);
                let others = |signature: &Signature| -> Vec<Port> {
                    signature.inputs.iter().filter(|other| other.name != port.name).cloned().collect()
                };
                assert_eq!(others(&after), others(&before));
                assert_eq!(after.nodes.len(), before.nodes.len());
            }
        }
    }
}

fuzz_target!(|bytes: &[u8]| models::onnx::check(bytes));
