//! Trains a network with AdamW, and predicts with it.

use candle_core::{D, Result as CandleResult, Tensor};
use candle_nn::{AdamW, Optimizer, ParamsAdamW, ops::softmax};

use super::{
    Architecture, Data, LearnerError, Loss, Sampling, Shape,
    loss::Objective,
    names::named,
    network::Network,
    sampling::{Batches, Position},
};

/// How many rows are predicted at once, to limit the memory that prediction needs.
const CHUNK: usize = 1024;

/// How the learning rate changes over the whole training.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum LearningRateSchedule {
    Constant,
    /// Half a period of a cosine, from the full rate down to 0 (Loshchilov and Hutter, 2017, arXiv 1608.03983, without restarts).
    Cosine,
}

named!(LearningRateSchedule, "schedule", Constant => "constant", Cosine => "cosine");

impl LearningRateSchedule {
    /// Returns the factor of the learning rate at an iteration, which counts from 0 to `iterations`.
    #[expect(clippy::cast_precision_loss, reason = "iterations are far fewer than 2^52")]
    fn factor(self, iteration: usize, iterations: usize) -> f64 {
        match self {
            Self::Constant => 1.0,
            Self::Cosine => 0.5 * (1.0 + (std::f64::consts::PI * iteration as f64 / iterations as f64).cos()),
        }
    }
}

/// Everything that determines a training, apart from the data.
#[derive(Debug, Clone)]
pub(crate) struct Settings {
    pub(crate) architecture: Architecture,
    pub(crate) loss: Loss,
    pub(crate) sampling: Sampling,
    pub(crate) schedule: LearningRateSchedule,
    /// At least 1.
    pub(crate) batch_size: usize,
    /// The initial learning rate of AdamW, above 0. Betas and epsilon are 0.9, 0.999 and 1e-8.
    pub(crate) learning_rate: f64,
    /// Decoupled weight decay of every weight and bias, at least 0. With 0, AdamW is Adam (Loshchilov and Hutter, 2019,
    /// arXiv 1711.05101).
    pub(crate) weight_decay: f64,
    /// Iterations over all epochs, at least 1.
    pub(crate) iterations: usize,
    /// The seed of the initial weights and of the batches.
    pub(crate) seed: u64,
}

impl Settings {
    /// Returns an error if a setting is out of its range.
    fn check(&self) -> Result<(), LearnerError> {
        let out_of_range = |name, found, allowed| LearnerError::OutOfRange { name, found, allowed };
        for (name, value) in [("batch_size", self.batch_size), ("iterations", self.iterations)] {
            if value == 0 {
                return Err(out_of_range(name, 0.0, "at least 1"));
            }
        }
        if !(self.learning_rate.is_finite() && self.learning_rate > 0.0) {
            return Err(out_of_range("learning_rate", self.learning_rate, "above 0"));
        }
        if !(self.weight_decay.is_finite() && self.weight_decay >= 0.0) {
            return Err(out_of_range("weight_decay", self.weight_decay, "at least 0"));
        }
        Ok(())
    }
}

/// A network that is being trained.
#[derive(Debug)]
pub(crate) struct Learner {
    settings: Settings,
    shape: Shape,
    network: Network,
    objective: Objective,
    optimizer: AdamW,
    /// The next iteration, counted over all epochs.
    iteration: usize,
    epoch: usize,
    /// The first iteration of this epoch.
    epoch_start: usize,
}

impl Learner {
    /// Creates a learner in epoch 0, with the initial weights of its seed. `class_counts` are those of the rows that it
    /// trains on, for losses that need the classes' priors.
    ///
    /// # Errors
    /// Returns an error if a setting is out of its range, if there is not one count for each class, if a class has no
    /// image and the loss needs its count, or if candle fails.
    pub(crate) fn new(settings: Settings, shape: Shape, class_counts: &[usize]) -> Result<Self, LearnerError> {
        settings.check()?;
        let network = Network::new(settings.architecture, shape, settings.seed)?;
        let objective = objective(settings.loss, shape, class_counts)?;
        let parameters = ParamsAdamW { weight_decay: settings.weight_decay, ..ParamsAdamW::default() };
        let optimizer = AdamW::new(network.variables(), parameters);
        let optimizer = optimizer.map_err(LearnerError::candle("create its optimizer"))?;
        Ok(Self { settings, shape, network, objective, optimizer, iteration: 0, epoch: 0, epoch_start: 0 })
    }

    /// Takes other class counts for the loss from here on.
    ///
    /// # Errors
    /// Returns an error if there is not one count for each class, or if a class has no image and the loss needs its
    /// count.
    pub(crate) fn set_class_counts(&mut self, class_counts: &[usize]) -> Result<(), LearnerError> {
        self.objective = objective(self.settings.loss, self.shape, class_counts)?;
        Ok(())
    }

    /// Begins the next epoch, so that [`Learner::train`] starts from its first row.
    pub(crate) fn next_epoch(&mut self) {
        self.epoch += 1;
        self.epoch_start = self.iteration;
    }

    /// Trains on the rows of an epoch and returns the loss of each iteration. Continues where the last call in the same
    /// epoch stopped, so that several calls are bit-identical to a single one.
    ///
    /// # Errors
    /// Returns an error if the data has another shape, if there are no rows, if a row does not exist, if the training
    /// has fewer iterations left, if the loss is not finite, or if candle fails.
    pub(crate) fn train(&mut self, data: &Data, rows: &[usize], iterations: usize) -> Result<Vec<f32>, LearnerError> {
        self.check_shape(data)?;
        let left = self.settings.iterations - self.iteration;
        if iterations > left {
            return Err(LearnerError::TooManyIterations { requested: iterations, left });
        }
        let batches = Batches::new(self.settings.sampling, data, rows)?;
        (0..iterations).map(|_| self.iterate(data, &batches)).collect()
    }

    /// Runs one iteration: draws a batch, sets the learning rate, and updates the weights. Returns the loss before the
    /// update.
    fn iterate(&mut self, data: &Data, batches: &Batches<'_>) -> Result<f32, LearnerError> {
        let iteration = self.iteration;
        let position =
            Position { seed: self.settings.seed, epoch: self.epoch, iteration: iteration - self.epoch_start };
        let (pixels, labels) = data.gather(&batches.draw(self.settings.batch_size, position))?;
        let factor = self.settings.schedule.factor(iteration, self.settings.iterations);
        self.optimizer.set_learning_rate(self.settings.learning_rate * factor);
        let loss = self.update_weights(pixels, labels).map_err(LearnerError::candle("train on a batch"))?;
        if !loss.is_finite() {
            return Err(LearnerError::Diverged { iteration, loss });
        }
        self.iteration += 1;
        Ok(loss)
    }

    /// Updates the weights by the gradient of a batch's loss, and returns the loss before the update.
    fn update_weights(&mut self, pixels: Vec<f32>, labels: Vec<u32>) -> CandleResult<f32> {
        let logits = self.network.logits(pixels, labels.len())?;
        let labels = Tensor::new(labels, logits.device())?;
        let loss = self.objective.value(&logits, &labels)?;
        self.optimizer.backward_step(&loss)?;
        loss.to_scalar()
    }

    /// Returns the probability of the true class of each of these rows, after the loss has adjusted the logits as it
    /// does for [`Learner::predict`].
    ///
    /// # Errors
    /// Returns an error if the data has another shape, if a row does not exist, or if candle fails.
    pub(crate) fn probabilities(&self, data: &Data, rows: &[usize]) -> Result<Vec<f32>, LearnerError> {
        self.evaluate(data, rows, |logits, labels| {
            let labels = Tensor::new(labels, logits.device())?.unsqueeze(1)?;
            softmax(logits, D::Minus1)?.gather(&labels, 1)?.squeeze(1)?.to_vec1()
        })
    }

    /// Returns the most probable class of each row.
    ///
    /// # Errors
    /// Returns an error if the data has another shape, or if candle fails.
    pub(crate) fn predict(&self, data: &Data) -> Result<Vec<u32>, LearnerError> {
        let rows: Vec<usize> = (0..data.labels().len()).collect();
        self.evaluate(data, &rows, |logits, _| logits.argmax(D::Minus1)?.to_vec1())
    }

    /// Computes the logits of rows chunk by chunk, and collects what `read` returns for the logits and labels.
    fn evaluate<T>(
        &self,
        data: &Data,
        rows: &[usize],
        read: impl Fn(&Tensor, Vec<u32>) -> CandleResult<Vec<T>>,
    ) -> Result<Vec<T>, LearnerError> {
        self.check_shape(data)?;
        let mut all = Vec::with_capacity(rows.len());
        for rows in rows.chunks(CHUNK) {
            let (pixels, labels) = data.gather(rows)?;
            let logits = self.network.logits(pixels, rows.len()).and_then(|logits| self.objective.prediction(logits));
            let values = logits.and_then(|logits| read(&logits, labels));
            all.extend(values.map_err(LearnerError::candle("predict"))?);
        }
        Ok(all)
    }

    fn check_shape(&self, data: &Data) -> Result<(), LearnerError> {
        if data.shape() == self.shape {
            return Ok(());
        }
        Err(LearnerError::OtherShape { expected: self.shape, found: data.shape() })
    }
}

fn objective(loss: Loss, shape: Shape, class_counts: &[usize]) -> Result<Objective, LearnerError> {
    if class_counts.len() != shape.classes {
        return Err(LearnerError::ClassCounts { classes: shape.classes, found: class_counts.len() });
    }
    Objective::new(loss, class_counts)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::experiment::learner::random::{Purpose, keyed, unit};

    /// Noisy horizontal stripes, vertical stripes, and chessboards.
    fn stripes(side: usize, count: usize, seed: u64) -> Data {
        let mut generator = keyed(Purpose::Weights, &[seed, 1]);
        let mut pixels = Vec::new();
        let labels: Vec<u32> = (0..3).cycle().take(count).collect();
        for label in &labels {
            for position in 0..side * side {
                let (y, x) = (position / side, position % side);
                let bright = [y, x, x + y][*label as usize] % 2 == 1;
                pixels.push(0.6 * unit(&mut generator) + if bright { 0.4 } else { 0.0 });
            }
        }
        Data::new(Shape { channels: 1, height: side, width: side, classes: 3 }, pixels, labels).unwrap()
    }

    fn settings(architecture: Architecture) -> Settings {
        Settings {
            architecture,
            loss: Loss::CrossEntropy,
            sampling: Sampling::Plain,
            schedule: LearningRateSchedule::Constant,
            batch_size: 64,
            learning_rate: 0.01,
            weight_decay: 0.0,
            iterations: 60,
            seed: 1,
        }
    }

    fn learner(settings: Settings, data: &Data) -> Learner {
        Learner::new(settings, data.shape(), &[1; 3]).unwrap()
    }

    fn rows(data: &Data) -> Vec<usize> {
        (0..data.labels().len()).collect()
    }

    /// Returns the bits of the weights.
    fn weights(learner: &Learner) -> Vec<u32> {
        let variables = learner.network.variables();
        let values = variables.iter().flat_map(|variable| variable.flatten_all().unwrap().to_vec1::<f32>().unwrap());
        values.map(f32::to_bits).collect()
    }

    fn learns(settings: Settings) {
        let (train, test) = (stripes(8, 192, 0), stripes(8, 300, 1));
        let mut learner = learner(settings, &train);
        let losses = learner.train(&train, &rows(&train), 60).unwrap();
        let (first, last) = (losses[0], losses[59]);
        assert!(first > 0.5 && last < 0.2 * first, "from {first} to {last}");
        assert_eq!(learner.predict(&test).unwrap(), test.labels());
        let probabilities = learner.probabilities(&test, &rows(&test)).unwrap();
        assert!(probabilities.iter().all(|p| (0.5..=1.0).contains(p)), "{probabilities:?}");
    }

    #[test]
    fn every_architecture_learns_to_tell_stripes_apart() {
        for architecture in [Architecture::SoftmaxRegression, Architecture::Mlp, Architecture::Cnn] {
            learns(settings(architecture));
        }
    }

    #[test]
    fn every_loss_sampling_and_schedule_learns_too() {
        let mlp = settings(Architecture::Mlp);
        learns(Settings { loss: Loss::BalancedSoftmax, ..mlp.clone() });
        learns(Settings { loss: Loss::LogitAdjustment, ..mlp.clone() });
        learns(Settings { sampling: Sampling::ClassBalanced, ..mlp.clone() });
        learns(Settings { schedule: LearningRateSchedule::Cosine, weight_decay: 0.01, ..mlp });
    }

    #[test]
    fn the_same_seed_data_and_rows_give_bit_identical_weights() {
        let data = stripes(16, 200, 0);
        for (architecture, iterations) in [(Architecture::Mlp, 10), (Architecture::Cnn, 3)] {
            let trained = |seed| {
                let mut learner = learner(Settings { seed, ..settings(architecture) }, &data);
                learner.train(&data, &rows(&data), iterations).unwrap();
                weights(&learner)
            };
            assert!(trained(1) == trained(1), "{architecture} is not reproducible");
            assert!(trained(1) != trained(2), "{architecture} does not depend on the seed");
        }
    }

    #[test]
    fn an_epoch_can_be_trained_in_parts_and_the_next_starts_from_the_first_row() {
        let data = stripes(16, 100, 0);
        for sampling in [Sampling::Plain, Sampling::ClassBalanced] {
            let trained = |parts: &[usize]| {
                let mut learner = learner(Settings { sampling, ..settings(Architecture::Mlp) }, &data);
                for part in parts {
                    learner.train(&data, &rows(&data), *part).unwrap();
                }
                learner
            };
            let mut whole = trained(&[5]);
            assert!(weights(&whole) == weights(&trained(&[2, 3])), "{sampling}");
            let mut next = trained(&[2, 3]);
            next.next_epoch();
            let ahead = whole.train(&data, &rows(&data), 1).unwrap();
            assert_ne!(next.train(&data, &rows(&data), 1).unwrap(), ahead, "{sampling}");
        }
    }

    #[test]
    fn logit_adjustment_predicts_the_rare_class_more_often() {
        let data = stripes(8, 90, 0);
        let adjusted = Settings { loss: Loss::LogitAdjustment, ..settings(Architecture::Mlp) };
        let mut learner = Learner::new(adjusted, data.shape(), &[1, 1_000_000_000, 1_000_000_000]).unwrap();
        assert_eq!(learner.predict(&data).unwrap(), [0; 90]);
        let probabilities = learner.probabilities(&data, &[0, 1]).unwrap();
        assert!(probabilities[0] > 0.99 && probabilities[1] < 0.01, "{probabilities:?}");
        learner.set_class_counts(&[1_000_000_000, 1, 1_000_000_000]).unwrap();
        assert_eq!(learner.predict(&data).unwrap(), [1; 90]);
        assert!(learner.set_class_counts(&[1; 2]).is_err());
    }

    #[test]
    fn the_cosine_schedule_decays_from_the_full_rate_to_zero() {
        let factors = [0, 25, 50, 75, 100].map(|iteration| LearningRateSchedule::Cosine.factor(iteration, 100));
        let known = [1.0, 0.853_553, 0.5, 0.146_447, 0.0];
        assert!(factors.iter().zip(known).all(|(factor, known)| (factor - known).abs() < 1e-6), "{factors:?}");
        assert_eq!(LearningRateSchedule::Constant.factor(99, 100), 1.0);
    }

    #[test]
    fn invalid_settings_and_rows_are_errors() {
        let data = stripes(8, 9, 0);
        let created = |settings| Learner::new(settings, data.shape(), &[1; 3]);
        let mlp = settings(Architecture::Mlp);
        let error = |settings: Settings| created(settings).unwrap_err().to_string();
        assert_eq!(error(Settings { batch_size: 0, ..mlp.clone() }), "`batch_size` is 0; it must be at least 1");
        assert_eq!(error(Settings { iterations: 0, ..mlp.clone() }), "`iterations` is 0; it must be at least 1");
        let rate = Settings { learning_rate: f64::NAN, ..mlp.clone() };
        assert_eq!(error(rate), "`learning_rate` is NaN; it must be above 0");
        assert_eq!(
            error(Settings { weight_decay: -1.0, ..mlp.clone() }),
            "`weight_decay` is -1; it must be at least 0"
        );
        assert!(Learner::new(mlp.clone(), data.shape(), &[1; 2]).is_err());

        let mut learner = created(mlp.clone()).unwrap();
        let error = learner.train(&data, &rows(&data), 61).unwrap_err();
        assert_eq!(error.to_string(), "61 iterations were requested, but only 60 are left in the training");
        assert!(learner.train(&stripes(16, 9, 0), &[0], 1).is_err());
        assert!(learner.train(&data, &[9], 1).is_err());
        assert!(learner.probabilities(&data, &[9]).is_err());

        let mut wild = created(Settings { learning_rate: 1e30, ..mlp }).unwrap();
        let error = wild.train(&data, &rows(&data), 60).unwrap_err();
        assert!(matches!(error, LearnerError::Diverged { .. }), "{error}");
    }
}
