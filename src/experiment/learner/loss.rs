//! Losses: cross-entropy, and two variants for long-tailed classes. A loss also decides how logits become predictions.

use candle_core::{Device, Result as CandleResult, Tensor};
use candle_nn::loss::cross_entropy;

use super::{LearnerError, names::named};

/// What training minimises.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Loss {
    /// Cross-entropy of the logits.
    CrossEntropy,
    /// Balanced softmax: cross-entropy of logits + log(class count), and the logits alone at prediction (Ren et al.,
    /// 2020, arXiv 2007.10740, equation 3).
    BalancedSoftmax,
    /// Post-hoc logit adjustment: cross-entropy of the logits, and logits - tau log(prior) at prediction, with
    /// tau = 1 (Menon et al., 2020, arXiv 2007.07314, equation 9).
    LogitAdjustment,
}

named!(Loss, "loss",
    CrossEntropy => "cross_entropy", BalancedSoftmax => "balanced_softmax", LogitAdjustment => "logit_adjustment");

/// A loss for one training set.
#[derive(Debug)]
pub(super) enum Objective {
    Plain,
    /// Balanced softmax, with the log priors of the classes. They differ from log(count) by a constant, which cancels
    /// in the softmax.
    Balanced(Tensor),
    /// Logit adjustment, with the log priors of the classes.
    Adjusted(Tensor),
}

impl Objective {
    /// Prepares a loss for a training on `counts` rows of each class.
    ///
    /// # Errors
    /// Returns an error if a class has no image and the loss needs the logarithms of the counts.
    pub(super) fn new(loss: Loss, counts: &[usize]) -> Result<Self, LearnerError> {
        match loss {
            Loss::CrossEntropy => Ok(Self::Plain),
            Loss::BalancedSoftmax => Ok(Self::Balanced(log_priors(counts)?)),
            Loss::LogitAdjustment => Ok(Self::Adjusted(log_priors(counts)?)),
        }
    }

    /// Returns the mean loss of a batch, from logits `[rows, classes]` and labels `[rows]`.
    ///
    /// # Errors
    /// Returns an error if the shapes do not match.
    pub(super) fn value(&self, logits: &Tensor, labels: &Tensor) -> CandleResult<Tensor> {
        match self {
            Self::Plain | Self::Adjusted(_) => cross_entropy(logits, labels),
            Self::Balanced(log_priors) => cross_entropy(&logits.broadcast_add(log_priors)?, labels),
        }
    }

    /// Returns the logits to predict with.
    ///
    /// # Errors
    /// Returns an error if the shapes do not match.
    pub(super) fn prediction(&self, logits: Tensor) -> CandleResult<Tensor> {
        match self {
            Self::Plain | Self::Balanced(_) => Ok(logits),
            Self::Adjusted(log_priors) => logits.broadcast_sub(log_priors),
        }
    }
}

/// Returns the logarithm of each class's share of the images, as `[classes]`.
#[expect(clippy::cast_precision_loss, clippy::cast_possible_truncation, reason = "counts are small, logits are f32")]
fn log_priors(counts: &[usize]) -> Result<Tensor, LearnerError> {
    if let Some(class) = counts.iter().position(|count| *count == 0) {
        return Err(LearnerError::ClassWithoutImages(class));
    }
    let total = counts.iter().sum::<usize>() as f64;
    let logarithms: Vec<f32> = counts.iter().map(|count| (*count as f64 / total).ln() as f32).collect();
    Tensor::new(logarithms, &Device::Cpu).map_err(LearnerError::candle("store the class priors"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const COUNTS: [usize; 3] = [70, 20, 10];
    const LOGITS: [[f32; 3]; 2] = [[1.0, 2.0, 0.5], [-1.0, 0.0, 3.0]];
    const LABELS: [u32; 2] = [0, 1];

    fn value(loss: Loss) -> f64 {
        let logits = Tensor::new(&LOGITS, &Device::Cpu).unwrap();
        let labels = Tensor::new(&LABELS, &Device::Cpu).unwrap();
        let value = Objective::new(loss, &COUNTS).unwrap().value(&logits, &labels).unwrap();
        f64::from(value.to_scalar::<f32>().unwrap())
    }

    fn prediction(loss: Loss) -> Vec<Vec<f32>> {
        let logits = Tensor::new(&LOGITS, &Device::Cpu).unwrap();
        Objective::new(loss, &COUNTS).unwrap().prediction(logits).unwrap().to_vec2().unwrap()
    }

    /// Computes minus the mean log-probability of the labels, with class j weighted by `weights[j]`.
    fn by_hand(weights: [f64; 3]) -> f64 {
        let losses = LOGITS.iter().zip(LABELS).map(|(logits, label)| {
            let terms: Vec<f64> = logits.iter().zip(weights).map(|(z, weight)| weight * f64::from(*z).exp()).collect();
            -(terms[label as usize] / terms.iter().sum::<f64>()).ln()
        });
        losses.sum::<f64>() / 2.0
    }

    #[test]
    fn cross_entropy_is_the_mean_negative_log_probability() {
        // ln(e^1 + e^2 + e^0.5) - 1 = 1.46436, ln(e^-1 + e^0 + e^3) - 0 = 3.06585.
        assert!((value(Loss::CrossEntropy) - (1.464_36 + 3.065_85) / 2.0).abs() < 1e-4);
        assert!((value(Loss::CrossEntropy) - by_hand([1.0; 3])).abs() < 1e-6);
        assert_eq!(prediction(Loss::CrossEntropy), LOGITS);
    }

    #[test]
    fn balanced_softmax_weights_classes_by_their_counts_in_training() {
        assert!((value(Loss::BalancedSoftmax) - by_hand([70.0, 20.0, 10.0])).abs() < 1e-6);
        assert_eq!(prediction(Loss::BalancedSoftmax), LOGITS);
    }

    #[test]
    fn logit_adjustment_subtracts_the_log_priors_in_prediction() {
        assert!((value(Loss::LogitAdjustment) - by_hand([1.0; 3])).abs() < 1e-6);
        for (adjusted, logits) in prediction(Loss::LogitAdjustment).iter().zip(LOGITS) {
            for ((adjusted, logit), prior) in adjusted.iter().zip(logits).zip([0.7_f32, 0.2, 0.1]) {
                assert!((adjusted - (logit - prior.ln())).abs() < 1e-6);
            }
        }
    }

    #[test]
    fn a_class_without_images_is_an_error_if_the_loss_needs_its_count() {
        let error = Objective::new(Loss::BalancedSoftmax, &[3, 0]).unwrap_err();
        assert_eq!(error.to_string(), "class 1 has no training image, and this loss needs one of every class");
        assert!(Objective::new(Loss::LogitAdjustment, &[0, 1]).is_err());
        assert!(Objective::new(Loss::CrossEntropy, &[0, 1]).is_ok());
    }
}
