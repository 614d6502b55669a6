//! The learner: a network that is trained batch by batch with AdamW, and asked for predictions.

use candle_core::{D, Result as CandleResult, Tensor};
use candle_nn::ops::softmax;
use candle_nn::{AdamW, Optimizer, ParamsAdamW};

use super::loss::Objective;
use super::names::named;
use super::network::Network;
use super::sampling::{Batches, Place};
use super::{Architecture, Data, LearnerError, Loss, Sampling, Shape};

/// Rows that are predicted at once, which bounds the memory of it.
const CHUNK: usize = 1024;

/// How the learning rate goes over the whole training.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Schedule {
    /// As it is.
    Constant,
    /// Half a cosine from the whole rate down to 0 (Loshchilov and Hutter, 2017, arXiv 1608.03983, without restarts).
    Cosine,
}

named!(Schedule, "schedule", Constant => "constant", Cosine => "cosine");

impl Schedule {
    /// The factor of the learning rate at an iteration, from 0, of `iterations` in all.
    #[expect(clippy::cast_precision_loss, reason = "iterations are far fewer than 2^52")]
    fn factor(self, iteration: usize, iterations: usize) -> f64 {
        match self {
            Self::Constant => 1.0,
            Self::Cosine => 0.5 * (1.0 + (std::f64::consts::PI * iteration as f64 / iterations as f64).cos()),
        }
    }
}

/// All that decides a training but the data.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    /// The network.
    pub(crate) architecture: Architecture,
    /// What is minimised.
    pub(crate) loss: Loss,
    /// How rows are drawn.
    pub(crate) sampling: Sampling,
    /// How the learning rate goes.
    pub(crate) schedule: Schedule,
    /// Rows of a batch, from 1.
    pub(crate) batch_size: usize,
    /// The first learning rate of AdamW, above 0. Betas and epsilon are 0.9, 0.999 and 1e-8.
    pub(crate) learning_rate: f64,
    /// Decoupled weight decay of every weight and bias, from 0; 0 makes AdamW Adam (Loshchilov and Hutter, 2019,
    /// arXiv 1711.05101).
    pub(crate) weight_decay: f64,
    /// Iterations of the whole training, all epochs together, from 1.
    pub(crate) iterations: usize,
    /// The seed of the first weights and of the draws.
    pub(crate) seed: u64,
}

impl Settings {
    /// Refuses what is out of its range.
    ///
    /// # Errors
    /// A setting that is.
    fn check(&self) -> Result<(), LearnerError> {
        for (name, value) in [("batch_size", self.batch_size), ("iterations", self.iterations)] {
            if value == 0 {
                return Err(LearnerError::value(name, value, "allowed is from 1"));
            }
        }
        if !(self.learning_rate.is_finite() && self.learning_rate > 0.0) {
            return Err(LearnerError::value("learning_rate", self.learning_rate, "allowed is above 0"));
        }
        if !(self.weight_decay.is_finite() && self.weight_decay >= 0.0) {
            return Err(LearnerError::value("weight_decay", self.weight_decay, "allowed is from 0"));
        }
        Ok(())
    }
}

/// A network in training.
#[derive(Debug)]
pub(crate) struct Learner {
    settings: Settings,
    shape: Shape,
    network: Network,
    objective: Objective,
    optimizer: AdamW,
    /// Iterations so far, over all epochs.
    iteration: usize,
    epoch: usize,
    /// The iteration at which this epoch began.
    epoch_start: usize,
}

impl Learner {
    /// A learner with the first weights of its seed, in epoch 0. `class_counts` are those of the real training set,
    /// whatever the rows that are trained on.
    ///
    /// # Errors
    /// A setting out of its range, counts that are not one for each class, a class without an image where the loss
    /// needs one, or candle's.
    pub(crate) fn new(settings: Settings, shape: Shape, class_counts: &[usize]) -> Result<Self, LearnerError> {
        settings.check()?;
        if class_counts.len() != shape.classes {
            let allowed = format!("there are {} classes", shape.classes);
            return Err(LearnerError::value("class_counts", format!("{} numbers", class_counts.len()), allowed));
        }
        let network = Network::new(settings.architecture, shape, settings.seed)?;
        let objective = Objective::new(settings.loss, class_counts)?;
        let parameters = ParamsAdamW { weight_decay: settings.weight_decay, ..ParamsAdamW::default() };
        let optimizer = AdamW::new(network.variables(), parameters);
        let optimizer = optimizer.map_err(LearnerError::candle("make the optimizer"))?;
        Ok(Self { settings, shape, network, objective, optimizer, iteration: 0, epoch: 0, epoch_start: 0 })
    }

    /// Begins the next epoch: [`Learner::train`] starts from the first row again.
    pub(crate) fn next_epoch(&mut self) {
        self.epoch += 1;
        self.epoch_start = self.iteration;
    }

    /// Trains for some iterations on an epoch's rows, going on where the epoch's last call stopped, and gives the loss
    /// of each. Many calls with the same rows are one call to the bit.
    ///
    /// # Errors
    /// Data of another shape, no rows, a row that does not exist, more iterations than the whole training has, a loss
    /// that is not finite, or candle's.
    pub(crate) fn train(&mut self, data: &Data, rows: &[usize], iterations: usize) -> Result<Vec<f32>, LearnerError> {
        self.check_shape(data)?;
        let left = self.settings.iterations - self.iteration;
        if iterations > left {
            return Err(LearnerError::value("iterations", iterations, format!("{left} are left of the training")));
        }
        let batches = Batches::new(self.settings.sampling, data, rows)?;
        (0..iterations).map(|_| self.step(data, &batches)).collect()
    }

    /// One iteration: draws a batch, sets the learning rate, moves the weights. Gives the loss before the move.
    ///
    /// # Errors
    /// As [`Learner::train`].
    fn step(&mut self, data: &Data, batches: &Batches<'_>) -> Result<f32, LearnerError> {
        let iteration = self.iteration;
        let place = Place { seed: self.settings.seed, epoch: self.epoch, iteration: iteration - self.epoch_start };
        let (pixels, labels) = data.gather(&batches.draw(self.settings.batch_size, place))?;
        let factor = self.settings.schedule.factor(iteration, self.settings.iterations);
        self.optimizer.set_learning_rate(self.settings.learning_rate * factor);
        let loss = self.descend(pixels, labels).map_err(LearnerError::candle("train on a batch"))?;
        if !loss.is_finite() {
            return Err(LearnerError::Diverged { iteration, loss });
        }
        self.iteration += 1;
        Ok(loss)
    }

    /// Moves the weights against the gradient of a batch's loss, and gives the loss.
    ///
    /// # Errors
    /// candle's.
    fn descend(&mut self, pixels: Vec<f32>, labels: Vec<u32>) -> CandleResult<f32> {
        let logits = self.network.logits(pixels, labels.len())?;
        let labels = Tensor::new(labels, logits.device())?;
        let loss = self.objective.value(&logits, &labels)?;
        self.optimizer.backward_step(&loss)?;
        loss.to_scalar()
    }

    /// The probability, 0 to 1, that the learner gives to the true class of each of these rows. As in
    /// [`Learner::predict`], it is that of the loss's own prediction.
    ///
    /// # Errors
    /// Data of another shape, a row that does not exist, or candle's.
    pub(crate) fn probabilities(&self, data: &Data, rows: &[usize]) -> Result<Vec<f32>, LearnerError> {
        self.read(data, rows, |logits, labels| {
            let labels = Tensor::new(labels, logits.device())?.unsqueeze(1)?;
            softmax(logits, D::Minus1)?.gather(&labels, 1)?.squeeze(1)?.to_vec1()
        })
    }

    /// The class that each row most probably has.
    ///
    /// # Errors
    /// Data of another shape, or candle's.
    pub(crate) fn predict(&self, data: &Data) -> Result<Vec<u32>, LearnerError> {
        let rows: Vec<usize> = (0..data.labels().len()).collect();
        self.read(data, &rows, |logits, _| logits.argmax(D::Minus1)?.to_vec1())
    }

    /// What `read` makes of the logits and labels of rows, a chunk at a time.
    ///
    /// # Errors
    /// Data of another shape, a row that does not exist, or candle's.
    fn read<T>(
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
            all.extend(values.map_err(LearnerError::candle("predict rows"))?);
        }
        Ok(all)
    }

    /// Refuses data that the network was not made for.
    ///
    /// # Errors
    /// Data of another shape.
    fn check_shape(&self, data: &Data) -> Result<(), LearnerError> {
        if data.shape() == self.shape {
            return Ok(());
        }
        let allowed = format!("the learner was made for {:?}", self.shape);
        Err(LearnerError::value("data", format!("of {:?}", data.shape()), allowed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::experiment::learner::random::{Purpose, keyed, unit};

    /// Noisy stripes across, stripes along, and a chessboard.
    fn stripes(side: usize, count: usize, seed: u64) -> Data {
        let mut generator = keyed(Purpose::Bootstrap, &[seed]);
        let mut pixels = Vec::new();
        let labels: Vec<u32> = (0..3).cycle().take(count).collect();
        for label in &labels {
            for place in 0..side * side {
                let (y, x) = (place / side, place % side);
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
            schedule: Schedule::Constant,
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

    /// The weights' bits.
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
        learns(Settings { schedule: Schedule::Cosine, weight_decay: 0.01, ..mlp });
    }

    #[test]
    fn the_same_seed_data_and_rows_give_the_same_weights_to_the_bit() {
        let data = stripes(16, 200, 0);
        for (architecture, iterations) in [(Architecture::Mlp, 10), (Architecture::Cnn, 3)] {
            let trained = |seed| {
                let mut learner = learner(Settings { seed, ..settings(architecture) }, &data);
                learner.train(&data, &rows(&data), iterations).unwrap();
                weights(&learner)
            };
            assert!(trained(1) == trained(1), "{architecture} is not the same");
            assert!(trained(1) != trained(2), "{architecture} does not depend on the seed");
        }
    }

    #[test]
    fn an_epoch_in_parts_is_the_epoch_and_the_next_starts_from_the_first_row() {
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
        let learner = Learner::new(adjusted, data.shape(), &[1, 1_000_000_000, 1_000_000_000]).unwrap();
        assert_eq!(learner.predict(&data).unwrap(), [0; 90]);
        let probabilities = learner.probabilities(&data, &[0, 1]).unwrap();
        assert!(probabilities[0] > 0.99 && probabilities[1] < 0.01, "{probabilities:?}");
    }

    #[test]
    fn a_cosine_goes_from_the_whole_rate_to_nothing() {
        let factors = [0, 25, 50, 75, 100].map(|iteration| Schedule::Cosine.factor(iteration, 100));
        let known = [1.0, 0.853_553, 0.5, 0.146_447, 0.0];
        assert!(factors.iter().zip(known).all(|(factor, known)| (factor - known).abs() < 1e-6), "{factors:?}");
        assert_eq!(Schedule::Constant.factor(99, 100), 1.0);
    }

    #[test]
    fn what_cannot_be_trained_is_refused() {
        let data = stripes(8, 9, 0);
        let made = |settings| Learner::new(settings, data.shape(), &[1; 3]);
        let mlp = settings(Architecture::Mlp);
        let error = |settings: Settings| made(settings).unwrap_err().to_string();
        assert_eq!(error(Settings { batch_size: 0, ..mlp.clone() }), "`batch_size` is 0; allowed is from 1");
        assert_eq!(error(Settings { iterations: 0, ..mlp.clone() }), "`iterations` is 0; allowed is from 1");
        let rate = Settings { learning_rate: f64::NAN, ..mlp.clone() };
        assert_eq!(error(rate), "`learning_rate` is NaN; allowed is above 0");
        assert_eq!(error(Settings { weight_decay: -1.0, ..mlp.clone() }), "`weight_decay` is -1; allowed is from 0");
        assert!(Learner::new(mlp.clone(), data.shape(), &[1; 2]).is_err());

        let mut learner = made(mlp.clone()).unwrap();
        let error = learner.train(&data, &rows(&data), 61).unwrap_err();
        assert_eq!(error.to_string(), "`iterations` is 61; 60 are left of the training");
        assert!(learner.train(&stripes(16, 9, 0), &[0], 1).is_err());
        assert!(learner.train(&data, &[9], 1).is_err());
        assert!(learner.probabilities(&data, &[9]).is_err());

        let mut wild = made(Settings { learning_rate: 1e30, ..mlp }).unwrap();
        let error = wild.train(&data, &rows(&data), 60).unwrap_err();
        assert!(matches!(error, LearnerError::Diverged { .. }), "{error}");
    }
}
