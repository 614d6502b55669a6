//! Tries a device: small graphs whose results are known run on it. A provider that only loads proves nothing: its
//! libraries may be looked for when an operator first needs them.
//!
//! `tools/make_trial_graphs.py` writes the graphs. They compute in half precision.

use std::fmt;

use ort::session::Session;

use super::{Provider, Runtime};

/// The operators that are tried.
const PARTS: [(Part, &[u8]); 3] = [
    (Part::Convolution, include_bytes!("trial/convolution.onnx")),
    (Part::Product, include_bytes!("trial/product.onnx")),
    (Part::Attention, include_bytes!("trial/attention.onnx")),
];

/// How far a result may be from the known one, as a share of the largest value. Half precision rounds by 0.0005.
const MAX_DIFFERENCE: f32 = 0.01;

/// A graph of the trial.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Part {
    Convolution,
    Product,
    /// The operator `Attention` of opset 23. Graphs of older opsets do without it.
    Attention,
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Convolution => "convolution",
            Self::Product => "matrix product",
            Self::Attention => "attention",
        })
    }
}

/// Why a part failed.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub(crate) enum Failure {
    /// What the runtime says.
    #[error("{0}")]
    NotRun(String),
    /// It ran, and this is the difference as a share of the largest value.
    #[error("the result is wrong, by {0} of its largest value")]
    Wrong(f32),
}

/// What became of each part: how far its result is from the known one, or why it failed.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Trial(pub(crate) Vec<(Part, Result<f32, Failure>)>);

impl Trial {
    /// Runs every part on `provider`, and on nothing else.
    pub(super) fn run(runtime: &Runtime, provider: Provider) -> Self {
        Self(PARTS.map(|(part, graph)| (part, difference(runtime, provider, graph))).into())
    }

    /// Returns why models cannot run on the device. A device without `Attention` is used, since only graphs of opset 23 have
    /// it; one on which it is wrong is not.
    pub(super) fn refusal(&self) -> Option<String> {
        let failed = |(part, result): &(Part, Result<f32, Failure>)| {
            let is_forgiven = |failure: &&Failure| *part == Part::Attention && matches!(failure, Failure::NotRun(_));
            let reason = result.as_ref().err().filter(|failure| !is_forgiven(failure))?;
            Some(format!("a trial {part} failed: {reason}"))
        };
        self.0.iter().find_map(failed)
    }
}

/// Runs a graph and returns the largest difference from the known result, as a share of the largest value.
fn difference(runtime: &Runtime, provider: Provider, graph: &[u8]) -> Result<f32, Failure> {
    let (found, expected) = outputs(runtime, provider, graph).map_err(|error| Failure::NotRun(error.to_string()))?;
    let largest = |values: &mut dyn Iterator<Item = f32>| values.fold(0.0_f32, |most, value| most.max(value.abs()));
    let scale = largest(&mut expected.iter().copied());
    // `max` passes over NaN.
    let finite = found.len() == expected.len() && found.iter().all(|value| value.is_finite()) && scale > 0.0;
    let difference = largest(&mut found.iter().zip(&expected).map(|(found, expected)| found - expected)) / scale;
    if finite && difference <= MAX_DIFFERENCE { Ok(difference) } else { Err(Failure::Wrong(difference)) }
}

fn outputs(runtime: &Runtime, provider: Provider, graph: &[u8]) -> ort::Result<(Vec<f32>, Vec<f32>)> {
    let mut builder = Session::builder(runtime.environment())?.with_intra_threads(1)?;
    if let Some(dispatch) = provider.dispatch(false, None) {
        builder = builder.with_execution_providers([dispatch])?.with_disable_cpu_fallback()?;
    }
    let mut session = builder.commit_from_memory(graph)?;
    let one = ort::value::Tensor::from_array(([1_usize], vec![1.0_f32]))?;
    let outputs = session.run(ort::inputs!["one" => one])?;
    let values = |name: &str| -> ort::Result<Vec<f32>> {
        let value = outputs.get(name).ok_or_else(|| ort::Error::new(format!("no output `{name}`")))?;
        Ok(value.try_extract_tensor::<f32>()?.1.to_vec())
    };
    Ok((values("y")?, values("expected")?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_part_computes_on_the_cpu() {
        let runtime = Runtime::open(None).unwrap();
        let trial = Trial::run(&runtime, Provider::Cpu);
        assert_eq!(trial.0.len(), PARTS.len());
        for (part, result) in &trial.0 {
            assert!(result.as_ref().is_ok_and(|difference| *difference < MAX_DIFFERENCE), "{part}: {result:?}");
        }
        assert_eq!(trial.refusal(), None);
    }

    #[test]
    fn wrong_values_are_found() {
        let runtime = Runtime::open(None).unwrap();
        let (_, graph) = PARTS[0];
        // The last bytes of the weights belong to the known result or to the names after it: change one of its values.
        let mut damaged = graph.to_vec();
        let at = graph.windows(8).rposition(|bytes| bytes == b"expected").unwrap();
        let values = graph[..at].len() - 64;
        damaged[values..values + 4].copy_from_slice(&1e6_f32.to_le_bytes());
        let wrong = difference(&runtime, Provider::Cpu, &damaged).unwrap_err();
        assert!(matches!(wrong, Failure::Wrong(difference) if difference > 0.9), "{wrong}");
        let failed = difference(&runtime, Provider::Cpu, b"no graph").unwrap_err();
        assert!(matches!(failed, Failure::NotRun(_)), "{failed}");
    }

    #[test]
    fn only_a_missing_attention_is_forgiven() {
        let failed = |failed: Part| {
            let failure = || Failure::NotRun("no kernel".to_owned());
            let result = |part: Part| if part == failed { Err(failure()) } else { Ok(0.0) };
            Trial(PARTS.map(|(part, _)| (part, result(part))).into()).refusal()
        };
        assert_eq!(failed(Part::Attention), None);
        assert_eq!(failed(Part::Convolution).unwrap(), "a trial convolution failed: no kernel");
        assert_eq!(failed(Part::Product).unwrap(), "a trial matrix product failed: no kernel");
        let wrong = Trial(vec![(Part::Attention, Err(Failure::Wrong(0.5)))]).refusal().unwrap();
        assert_eq!(wrong, "a trial attention failed: the result is wrong, by 0.5 of its largest value");
    }
}
