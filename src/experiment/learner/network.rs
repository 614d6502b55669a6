//! The layers of the networks, and their initial weights.

use candle_core::{DType, Device, Result as CandleResult, Tensor, Var};
use rand_chacha::ChaCha8Rng;

use super::{
    LearnerError, Shape,
    names::named,
    random::{Purpose, keyed, unit},
};

/// The size of the MLP's hidden layer.
const HIDDEN: usize = 64;

/// Output channels and stride of the CNN's convolutions. All kernels are 3×3, with a padding of 1.
const CONVOLUTIONS: [(usize, usize); 3] = [(16, 1), (32, 2), (64, 2)];

/// The number of input positions in the receptive field of an output position.
const TAPS: usize = 9;

/// A network that maps pixels to the logits of the classes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Architecture {
    /// One linear layer on the pixels.
    SoftmaxRegression,
    /// One hidden layer of 64 units with ReLU.
    Mlp,
    /// Three 3×3 convolutions to 16, 32 and 64 channels with ReLU, the last two with a stride of 2, then global average
    /// pooling and a linear layer.
    Cnn,
}

named!(Architecture, "architecture", SoftmaxRegression => "softmax", Mlp => "mlp", Cnn => "cnn");

/// A layer of a network.
#[derive(Debug)]
enum Layer {
    /// `[rows, channels, height, width]` to `[rows, features]`.
    Flatten,
    /// The weight is `[inputs, outputs]`, the bias `[outputs]`.
    Linear {
        weight: Var,
        bias: Var,
    },
    /// `[rows, channels, height, width]` to `[positions, channels, rows]`, the layout of convolutions. The values of a
    /// position are contiguous, so a receptive field is gathered by copying, without a transposition.
    PositionsFirst,
    /// The kernel is `[outputs, taps * inputs]`, the bias `[outputs, 1]`. candle's own convolution is far slower on a
    /// CPU, its gradient above all.
    Convolution {
        receptive_fields: Tensor,
        kernel: Var,
        bias: Var,
    },
    Relu,
    /// `[positions, channels, rows]` to `[rows, channels]`.
    GlobalAveragePool,
}

impl Layer {
    fn forward(&self, input: &Tensor) -> CandleResult<Tensor> {
        match self {
            Self::Flatten => input.flatten_from(1),
            Self::Linear { weight, bias } => input.matmul(weight)?.broadcast_add(bias),
            Self::PositionsFirst => input.flatten_from(2)?.permute((2, 1, 0))?.contiguous(),
            Self::Convolution { receptive_fields, kernel, bias } => {
                convolve(input, receptive_fields, kernel)?.broadcast_add(bias)
            }
            Self::Relu => input.relu(),
            Self::GlobalAveragePool => input.mean(0)?.t(),
        }
    }

    /// Returns the trainable variables.
    fn variables(&self) -> Vec<Var> {
        match self {
            Self::Linear { weight, bias } => vec![weight.clone(), bias.clone()],
            Self::Convolution { kernel, bias, .. } => vec![kernel.clone(), bias.clone()],
            Self::Flatten | Self::PositionsFirst | Self::Relu | Self::GlobalAveragePool => Vec::new(),
        }
    }
}

/// Convolves `[positions, channels, rows]` as im2col does: gathers the receptive field of each output position into a
/// column for each row, and multiplies it by the kernel.
fn convolve(input: &Tensor, receptive_fields: &Tensor, kernel: &Var) -> CandleResult<Tensor> {
    let (_, channels, rows) = input.dims3()?;
    let outside = Tensor::zeros((1, channels, rows), DType::F32, input.device())?;
    let columns = Tensor::cat(&[input, &outside], 0)?.index_select(receptive_fields, 0)?;
    let columns = columns.reshape(((), TAPS * channels, rows))?;
    kernel.broadcast_left(columns.dim(0)?)?.matmul(&columns)
}

/// Returns the receptive fields of a convolution as `TAPS` input positions for each output position, and the height and
/// width of the output. Positions outside the input are numbered as the one after the last, which is padding.
fn receptive_fields(height: usize, width: usize, stride: usize) -> CandleResult<(Tensor, usize, usize)> {
    let mut fields = Vec::new();
    for y in (0..height).step_by(stride) {
        for x in (0..width).step_by(stride) {
            for tap in 0..TAPS {
                let (y, x) = ((y + tap / 3).wrapping_sub(1), (x + tap % 3).wrapping_sub(1));
                let position = if y < height && x < width { y * width + x } else { height * width };
                fields.push(position as i64);
            }
        }
    }
    Ok((Tensor::new(fields, &Device::Cpu)?, height.div_ceil(stride), width.div_ceil(stride)))
}

/// A network with its weights.
#[derive(Debug)]
pub(super) struct Network {
    shape: Shape,
    layers: Vec<Layer>,
}

impl Network {
    /// Creates a network with initial weights that are drawn from a seed.
    ///
    /// # Errors
    /// Returns an error if candle cannot allocate the weights.
    pub(super) fn new(architecture: Architecture, shape: Shape, seed: u64) -> Result<Self, LearnerError> {
        let mut builder = LayerBuilder { generator: keyed(Purpose::Weights, &[seed]) };
        let layers = match architecture {
            Architecture::SoftmaxRegression => builder.softmax_regression(shape),
            Architecture::Mlp => builder.mlp(shape),
            Architecture::Cnn => builder.cnn(shape),
        };
        Ok(Self { shape, layers: layers.map_err(LearnerError::candle("initialise its weights"))? })
    }

    /// Maps pixels `[rows, channels, height, width]` to logits `[rows, classes]`.
    ///
    /// # Errors
    /// Returns an error if the number of pixel values does not match the rows and the shape.
    pub(super) fn logits(&self, pixels: Vec<f32>, rows: usize) -> CandleResult<Tensor> {
        let Shape { channels, height, width, .. } = self.shape;
        let pixels = Tensor::from_vec(pixels, (rows, channels, height, width), &Device::Cpu)?;
        self.layers.iter().try_fold(pixels, |input, layer| layer.forward(&input))
    }

    /// Returns the trainable variables in the order of the layers.
    pub(super) fn variables(&self) -> Vec<Var> {
        self.layers.iter().flat_map(Layer::variables).collect()
    }
}

/// What follows a layer, which decides the range of its initial weights.
#[derive(Clone, Copy)]
enum Nonlinearity {
    /// Halves the variance.
    Relu,
    None,
}

/// Builds layers. Their weights are drawn sequentially, layer by layer. Biases start at 0.
struct LayerBuilder {
    generator: ChaCha8Rng,
}

impl LayerBuilder {
    fn softmax_regression(&mut self, shape: Shape) -> CandleResult<Vec<Layer>> {
        Ok(vec![Layer::Flatten, self.linear(shape.features(), shape.classes, Nonlinearity::None)?])
    }

    fn mlp(&mut self, shape: Shape) -> CandleResult<Vec<Layer>> {
        let hidden = self.linear(shape.features(), HIDDEN, Nonlinearity::Relu)?;
        let last = self.linear(HIDDEN, shape.classes, Nonlinearity::None)?;
        Ok(vec![Layer::Flatten, hidden, Layer::Relu, last])
    }

    fn cnn(&mut self, shape: Shape) -> CandleResult<Vec<Layer>> {
        let mut layers = vec![Layer::PositionsFirst];
        let Shape { channels: mut inputs, mut height, mut width, .. } = shape;
        for (outputs, stride) in CONVOLUTIONS {
            let (receptive_fields, next_height, next_width) = receptive_fields(height, width, stride)?;
            let kernel = self.weights(&[outputs, TAPS * inputs], TAPS * inputs, Nonlinearity::Relu)?;
            let bias = Var::zeros((outputs, 1), DType::F32, &Device::Cpu)?;
            layers.extend([Layer::Convolution { receptive_fields, kernel, bias }, Layer::Relu]);
            (inputs, height, width) = (outputs, next_height, next_width);
        }
        layers.push(Layer::GlobalAveragePool);
        layers.push(self.linear(inputs, shape.classes, Nonlinearity::None)?);
        Ok(layers)
    }

    fn linear(&mut self, inputs: usize, outputs: usize, next: Nonlinearity) -> CandleResult<Layer> {
        let weight = self.weights(&[inputs, outputs], inputs, next)?;
        Ok(Layer::Linear { weight, bias: Var::zeros(outputs, DType::F32, &Device::Cpu)? })
    }

    /// Draws Kaiming-uniform weights: within ±sqrt(3 / inputs), times sqrt(2) before a ReLU, which preserves the variance
    /// of the activations (He et al., 2015, arXiv 1502.01852).
    #[expect(clippy::cast_precision_loss, reason = "a layer has far fewer than 2^24 inputs")]
    fn weights(&mut self, shape: &[usize], inputs: usize, next: Nonlinearity) -> CandleResult<Var> {
        let squared_gain = match next {
            Nonlinearity::Relu => 2.0,
            Nonlinearity::None => 1.0,
        };
        let bound = (3.0 * squared_gain / inputs as f32).sqrt();
        let count = shape.iter().product();
        let drawn = (0..count).map(|_| bound * (2.0 * unit(&mut self.generator) - 1.0)).collect();
        Var::from_vec::<_, f32>(drawn, shape, &Device::Cpu)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHAPE: Shape = Shape { channels: 1, height: 16, width: 16, classes: 10 };

    fn shapes(architecture: Architecture) -> Vec<Vec<usize>> {
        let network = Network::new(architecture, SHAPE, 0).unwrap();
        assert_eq!(network.logits(vec![0.5; 3 * 256], 3).unwrap().dims(), [3, 10]);
        network.variables().iter().map(|variable| variable.dims().to_vec()).collect()
    }

    #[test]
    fn the_variables_have_the_documented_shapes() {
        assert_eq!(shapes(Architecture::SoftmaxRegression), [vec![256, 10], vec![10]]);
        assert_eq!(shapes(Architecture::Mlp), [vec![256, 64], vec![64], vec![64, 10], vec![10]]);
        let cnn = shapes(Architecture::Cnn);
        assert_eq!(cnn[..4], [vec![16, 9], vec![16, 1], vec![32, 9 * 16], vec![32, 1]]);
        assert_eq!(cnn[4..], [vec![64, 9 * 32], vec![64, 1], vec![64, 10], vec![10]]);
    }

    #[test]
    fn initial_weights_are_uniform_within_the_kaiming_bound() {
        let network = Network::new(Architecture::Mlp, SHAPE, 3).unwrap();
        let variables = network.variables();
        let weights: Vec<f32> = variables[0].flatten_all().unwrap().to_vec1().unwrap();
        let bound = (6.0_f32 / 256.0).sqrt();
        let largest = weights.iter().fold(0.0, |largest: f32, weight| largest.max(weight.abs()));
        assert!(largest < bound && largest > 0.99 * bound, "{largest} of {bound}");
        let variance = weights.iter().map(|weight| weight * weight).sum::<f32>() / weights.len() as f32;
        assert!((variance * 256.0 / 2.0 - 1.0).abs() < 0.05, "{variance}");
        assert_eq!(variables[1].to_vec1::<f32>().unwrap(), [0.0; 64]);
    }

    /// Convolves with candle, in the same layouts.
    fn convolve_with_candle(input: &Tensor, kernel: &Var, (height, width): (usize, usize), stride: usize) -> Tensor {
        let (_, channels, rows) = input.dims3().unwrap();
        let outputs = kernel.dim(0).unwrap();
        let input = input.permute((2, 1, 0)).unwrap().reshape((rows, channels, height, width)).unwrap();
        let kernel = kernel.reshape((outputs, 3, 3, channels)).unwrap().permute((0, 3, 1, 2)).unwrap();
        let output = input.conv2d(&kernel.contiguous().unwrap(), 1, stride, 1, 1).unwrap();
        output.flatten_from(2).unwrap().permute((2, 1, 0)).unwrap().contiguous().unwrap()
    }

    fn numbers(count: usize, key: u64) -> Vec<f32> {
        let mut generator = keyed(Purpose::Weights, &[key]);
        (0..count).map(|_| unit(&mut generator) - 0.5).collect()
    }

    fn distance(one: &Tensor, other: &Tensor) -> f32 {
        (one - other).unwrap().abs().unwrap().max_all().unwrap().to_scalar().unwrap()
    }

    #[test]
    fn convolutions_and_their_gradients_agree_with_candle() {
        for (height, width, stride) in [(6, 4, 1), (6, 4, 2), (5, 5, 2)] {
            let input =
                Var::from_vec(numbers(height * width * 2 * 3, 1), (height * width, 2, 3), &Device::Cpu).unwrap();
            let kernel = Var::from_vec(numbers(4 * TAPS * 2, 2), (4, TAPS * 2), &Device::Cpu).unwrap();
            let (receptive_fields, ..) = receptive_fields(height, width, stride).unwrap();
            let ours = convolve(&input, &receptive_fields, &kernel).unwrap();
            let theirs = convolve_with_candle(&input, &kernel, (height, width), stride);
            assert!(distance(&ours, &theirs) < 1e-5, "{height}×{width}, stride {stride}");
            let gradients = [&ours, &theirs].map(|output| output.sqr().unwrap().sum_all().unwrap().backward().unwrap());
            for variable in [&input, &kernel] {
                let [ours, theirs] = gradients.each_ref().map(|gradients| gradients.get(variable).unwrap());
                assert!(distance(ours, theirs) < 1e-4, "{height}×{width}, stride {stride}");
            }
        }
    }
}
