//! A check of graphs for the fuzzer.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "used by tests and fuzzing alone")]

use std::{io::Cursor, path::Path};

use super::{Dim, Element, Port, Signature, Want, batched_input};
use crate::limited_read::damaged::without_own_panic;

fn parse(bytes: &[u8]) -> Option<Signature> {
    Signature::parse(Cursor::new(bytes), bytes.len() as u64, Path::new("graph")).ok()
}

/// An edited graph is still a graph: the input is [batch] and needs no further edit; its other inputs and all outputs are
/// unchanged.
pub(crate) fn onnx(bytes: &[u8]) {
    without_own_panic(|| {
        let Some(before) = parse(bytes) else {
            // The other reader may accept what this one rejects.
            let _ = batched_input::edited(bytes, "timestep");
            return;
        };
        let _ = before.random_operator();
        let _ = before.expect_only(&["sample", "timestep"]);
        let _ = before.expect_output("out", &[Element::F32], &[Want::Any("batch"), Want::Exactly(4)]);
        // The program uses the first port with a name.
        for port in before.inputs.iter().filter(|port| before.input(&port.name) == Some(port)) {
            if before.batching(&port.name).ok() == Some(batched_input::Batching::Edited)
                && let Ok(edited) = batched_input::edited(bytes, &port.name)
            {
                compare(&before, port, &parse(&edited).expect("the edited graph is not a graph"));
            }
        }
    });
}

fn compare(before: &Signature, port: &Port, after: &Signature) {
    let now = after.input(&port.name).expect("the edited graph lost the input");
    assert_eq!((now.element, &now.dims), (port.element, &Some(vec![Dim::Free("batch".to_owned())])));
    assert_eq!(after.batching(&port.name).unwrap(), batched_input::Batching::Native);
    assert_eq!(after.outputs, before.outputs);
    let others = |signature: &Signature| -> Vec<Port> {
        signature.inputs.iter().filter(|other| other.name != port.name).cloned().collect()
    };
    assert_eq!(others(after), others(before));
    assert_eq!(after.nodes.len(), before.nodes.len());
}
