//! How fast a device multiplies matrices: the most that a model can reach on it.

use std::time::{Duration, Instant};

use super::{Loader, Model, OnnxError, Provider};

/// A chain of products of one square matrix, of any size, in each precision. `tools/make_product_graphs.py` writes them.
const GRAPHS: [&[u8]; 2] = [include_bytes!("product/float32.onnx"), include_bytes!("product/float16.onnx")];
/// Products in a graph.
const PRODUCTS: f64 = 16.0;
/// How long it is measured at least.
const TIME: Duration = Duration::from_millis(500);

/// A measurement.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Product {
    /// The side of the matrices.
    pub(crate) side: u32,
    /// The time of one product in milliseconds.
    pub(crate) ms: f64,
    /// Trillions of floating-point operations per second.
    pub(crate) tflops: f64,
}

/// Measures products of matrices that are large for the device, in half precision or in single precision.
///
/// # Errors
/// Returns an error if the runtime rejects the graph, or the device fails.
pub(crate) fn product_tflops(loader: &Loader<'_>, is_half: bool) -> Result<Product, OnnxError> {
    let mut graph = loader.open_bytes(GRAPHS[usize::from(is_half)])?;
    let side = if loader.provider == Provider::Cpu { 512 } else { 8192 };
    let took = time(&mut graph, side)?.as_secs_f64() / PRODUCTS;
    Ok(Product {
        side: u32::try_from(side).unwrap_or(u32::MAX),
        ms: 1e3 * took,
        tflops: 2.0 * (side as f64).powi(3) / took / 1e12,
    })
}

/// Returns the mean time of a run of the graph. The matrix is in the device's memory from the second run on.
fn time(graph: &mut Model, side: usize) -> Result<Duration, OnnxError> {
    let mut inputs = graph.hold(side, &[("matrix", vec![side])], "largest", 1)?;
    #[expect(clippy::cast_precision_loss, reason = "a small number")]
    // Products of a matrix with this value everywhere equal the matrix.
    let row = vec![1.0 / side as f32; side];
    (0..side).for_each(|number| inputs.write("matrix", number, &row));
    graph.run_held(&mut inputs)?;
    let (began, mut runs) = (Instant::now(), 0);
    while runs == 0 || began.elapsed() < TIME {
        graph.run_held(&mut inputs)?;
        runs += 1;
    }
    Ok(began.elapsed() / runs)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::models::onnx::{CudaOptions, Runtime};

    #[test]
    fn products_are_measured_in_both_precisions() {
        let (runtime, busy) = (Runtime::open(None).unwrap(), std::sync::Arc::default());
        let (provider, cuda) = (Provider::Cpu, CudaOptions::default());
        let loader = Loader { runtime: &runtime, provider, cuda, threads: 1, busy: &busy };
        for is_half in [false, true] {
            let product = product_tflops(&loader, is_half).unwrap();
            assert!(product.tflops > 0.0 && product.side == 512, "{product:?}");
            let mut graph = loader.open_bytes(GRAPHS[usize::from(is_half)]).unwrap();
            let mut inputs = graph.hold(4, &[("matrix", vec![4])], "largest", 1).unwrap();
            (0..4).for_each(|row| inputs.write("matrix", row, &[0.25; 4]));
            assert_eq!(graph.run_held(&mut inputs).unwrap(), [0.25]);
        }
    }
}
