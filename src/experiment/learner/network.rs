//! The networks, layer by layer, and the weights that they start from.

use candle_core::{DType, Device, Result as CandleResult, Tensor, Var};
use rand_chacha::ChaCha8Rng;

use super::names::named;
use super::random::{Purpose, keyed, unit};
use super::{LearnerError, Shape};

/// Units of the MLP's hidden layer.
const HIDDEN: usize = 64;

/// Channels and stride of the CNN's convolutions. All are 3 by 3 and padded by 1.
const CONVOLUTIONS: [(usize, usize); 3] = [(16, 1), (32, 2), (64, 2)];

/// Places that one place of a convolution's output sees.
const TAPS: usize = 9;

/// A network from pixels to the logits of classes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Architecture {
    /// One linear layer on the pixels.
    SoftmaxRegression,
    /// A hidden layer of 64 units with ReLU.
    Mlp,
    /// Three convolutions of 3 by 3 to 16, 32 and 64 channels with ReLU, the last two of stride 2, then the mean over
    /// the plane and a linear layer.
    Cnn,
}

named!(Architecture, "architecture", SoftmaxRegression => "softmax", Mlp => "mlp", Cnn => "cnn");

/// One step from pixels to logits.
#[derive(Debug)]
enum Layer {
    /// `[rows, channels, height, width]` to `[rows, features]`.
    Flatten,
    /// A weight `[inputs, outputs]` and a bias `[outputs]`.
    Linear { weight: Var, bias: Var },
    /// `[rows, channels, height, width]` to `[places, channels, rows]`, which convolutions take and give: a place's
    /// numbers lie together, so that gathering what a kernel sees is copying, and nothing is transposed.
    Planes,
    /// Which places each place of the output sees, a kernel `[outputs, taps * inputs]` and a bias `[outputs, 1]`.
    /// candle's own convolution is far slower on a CPU, above all its gradient.
    Convolution { seen: Tensor, kernel: Var, bias: Var },
    /// The positive part.
    Relu,
    /// `[places, channels, rows]` to `[rows, channels]`.
    PlaneMean,
}

impl Layer {
    /// The layer's output.
    fn forward(&self, input: &Tensor) -> CandleResult<Tensor> {
        match self {
            Self::Flatten => input.flatten_from(1),
            Self::Linear { weight, bias } => input.matmul(weight)?.broadcast_add(bias),
            Self::Planes => input.flatten_from(2)?.permute((2, 1, 0))?.contiguous(),
            Self::Convolution { seen, kernel, bias } => convolve(input, seen, kernel)?.broadcast_add(bias),
            Self::Relu => input.relu(),
            Self::PlaneMean => input.mean(0)?.t(),
        }
    }

    /// What training changes.
    fn variables(&self) -> Vec<Var> {
        match self {
            Self::Linear { weight, bias } => vec![weight.clone(), bias.clone()],
            Self::Convolution { kernel, bias, .. } => vec![kernel.clone(), bias.clone()],
            Self::Flatten | Self::Planes | Self::Relu | Self::PlaneMean => Vec::new(),
        }
    }
}

/// The convolution of `[places, channels, rows]`: what each output place sees is gathered into a column for each row,
/// and multiplied by the kernel.
fn convolve(input: &Tensor, seen: &Tensor, kernel: &Var) -> CandleResult<Tensor> {
    let (_, channels, rows) = input.dims3()?;
    let outside = Tensor::zeros((1, channels, rows), DType::F32, input.device())?;
    let columns = Tensor::cat(&[input, &outside], 0)?.index_select(seen, 0)?;
    let columns = columns.reshape(((), TAPS * channels, rows))?;
    kernel.broadcast_left(columns.dim(0)?)?.matmul(&columns)
}

/// The places of a plane that each place of a convolution's output sees, `TAPS` each; those outside are the place after
/// the last. Also the height and width of the output.
fn seen_places(height: usize, width: usize, stride: usize) -> CandleResult<(Tensor, usize, usize)> {
    let mut seen = Vec::new();
    for y in (0..height).step_by(stride) {
        for x in (0..width).step_by(stride) {
            for tap in 0..TAPS {
                let (y, x) = ((y + tap / 3).wrapping_sub(1), (x + tap % 3).wrapping_sub(1));
                let place = if y < height && x < width { y * width + x } else { height * width };
                seen.push(place as i64);
            }
        }
    }
    Ok((Tensor::new(seen, &Device::Cpu)?, height.div_ceil(stride), width.div_ceil(stride)))
}

/// A network with its weights.
#[derive(Debug)]
pub(super) struct Network {
    shape: Shape,
    layers: Vec<Layer>,
}

impl Network {
    /// A network with the first weights of a seed.
    ///
    /// # Errors
    /// candle's.
    pub(super) fn new(architecture: Architecture, shape: Shape, seed: u64) -> Result<Self, LearnerError> {
        let mut maker = Maker { generator: keyed(Purpose::Weights, &[seed]) };
        let layers = match architecture {
            Architecture::SoftmaxRegression => maker.softmax_regression(shape),
            Architecture::Mlp => maker.mlp(shape),
            Architecture::Cnn => maker.cnn(shape),
        };
        Ok(Self { shape, layers: layers.map_err(LearnerError::candle("make the first weights"))? })
    }

    /// Logits `[rows, classes]` of pixels `[rows, channels, height, width]`.
    ///
    /// # Errors
    /// Pixels that are not as many as the rows and the shape say.
    pub(super) fn logits(&self, pixels: Vec<f32>, rows: usize) -> CandleResult<Tensor> {
        let Shape { channels, height, width, .. } = self.shape;
        let pixels = Tensor::from_vec(pixels, (rows, channels, height, width), &Device::Cpu)?;
        self.layers.iter().try_fold(pixels, |input, layer| layer.forward(&input))
    }

    /// What training changes, layer by layer.
    pub(super) fn variables(&self) -> Vec<Var> {
        self.layers.iter().flat_map(Layer::variables).collect()
    }
}

/// What follows a layer, which decides how large its first weights are.
#[derive(Clone, Copy)]
enum Followed {
    /// A ReLU, which takes half of the variance.
    ByRelu,
    /// Nothing.
    ByNothing,
}

/// Makes layers. Weights are drawn one layer after the other; biases are 0.
struct Maker {
    generator: ChaCha8Rng,
}

impl Maker {
    /// Pixels to logits at once.
    fn softmax_regression(&mut self, shape: Shape) -> CandleResult<Vec<Layer>> {
        Ok(vec![Layer::Flatten, self.linear(shape.features(), shape.classes, Followed::ByNothing)?])
    }

    /// With a hidden layer.
    fn mlp(&mut self, shape: Shape) -> CandleResult<Vec<Layer>> {
        let hidden = self.linear(shape.features(), HIDDEN, Followed::ByRelu)?;
        let last = self.linear(HIDDEN, shape.classes, Followed::ByNothing)?;
        Ok(vec![Layer::Flatten, hidden, Layer::Relu, last])
    }

    /// With convolutions.
    fn cnn(&mut self, shape: Shape) -> CandleResult<Vec<Layer>> {
        let mut layers = vec![Layer::Planes];
        let Shape { channels: mut inputs, mut height, mut width, .. } = shape;
        for (outputs, stride) in CONVOLUTIONS {
            let (seen, next_height, next_width) = seen_places(height, width, stride)?;
            let kernel = self.weights(&[outputs, TAPS * inputs], TAPS * inputs, Followed::ByRelu)?;
            let bias = Var::zeros((outputs, 1), DType::F32, &Device::Cpu)?;
            layers.extend([Layer::Convolution { seen, kernel, bias }, Layer::Relu]);
            (inputs, height, width) = (outputs, next_height, next_width);
        }
        layers.push(Layer::PlaneMean);
        layers.push(self.linear(inputs, shape.classes, Followed::ByNothing)?);
        Ok(layers)
    }

    /// A linear layer.
    fn linear(&mut self, inputs: usize, outputs: usize, followed: Followed) -> CandleResult<Layer> {
        let weight = self.weights(&[inputs, outputs], inputs, followed)?;
        Ok(Layer::Linear { weight, bias: Var::zeros(outputs, DType::F32, &Device::Cpu)? })
    }

    /// Kaiming uniform: within sqrt(3 / inputs), times sqrt(2) before a ReLU, which keeps the variance of what goes
    /// through (He et al., 2015, arXiv 1502.01852).
    #[expect(clippy::cast_precision_loss, reason = "a layer has far fewer than 2^24 inputs")]
    fn weights(&mut self, shape: &[usize], inputs: usize, followed: Followed) -> CandleResult<Var> {
        let squared_gain = match followed {
            Followed::ByRelu => 2.0,
            Followed::ByNothing => 1.0,
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
    fn the_networks_are_as_described() {
        assert_eq!(shapes(Architecture::SoftmaxRegression), [vec![256, 10], vec![10]]);
        assert_eq!(shapes(Architecture::Mlp), [vec![256, 64], vec![64], vec![64, 10], vec![10]]);
        let cnn = shapes(Architecture::Cnn);
        assert_eq!(cnn[..4], [vec![16, 9], vec![16, 1], vec![32, 9 * 16], vec![32, 1]]);
        assert_eq!(cnn[4..], [vec![64, 9 * 32], vec![64, 1], vec![64, 10], vec![10]]);
    }

    #[test]
    fn first_weights_are_uniform_within_kaimings_bound() {
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

    /// A convolution as candle computes it, with the same layouts.
    fn candles(input: &Tensor, kernel: &Var, (height, width): (usize, usize), stride: usize) -> Tensor {
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
    fn convolutions_and_their_gradients_are_candles() {
        for (height, width, stride) in [(6, 4, 1), (6, 4, 2), (5, 5, 2)] {
            let input =
                Var::from_vec(numbers(height * width * 2 * 3, 1), (height * width, 2, 3), &Device::Cpu).unwrap();
            let kernel = Var::from_vec(numbers(4 * TAPS * 2, 2), (4, TAPS * 2), &Device::Cpu).unwrap();
            let (seen, ..) = seen_places(height, width, stride).unwrap();
            let ours = convolve(&input, &seen, &kernel).unwrap();
            let theirs = candles(&input, &kernel, (height, width), stride);
            assert!(distance(&ours, &theirs) < 1e-5, "{height} by {width}, stride {stride}");
            let gradients = [&ours, &theirs].map(|output| output.sqr().unwrap().sum_all().unwrap().backward().unwrap());
            for variable in [&input, &kernel] {
                let [ours, theirs] = gradients.each_ref().map(|gradients| gradients.get(variable).unwrap());
                assert!(distance(ours, theirs) < 1e-4, "{height} by {width}, stride {stride}");
            }
        }
    }
}
