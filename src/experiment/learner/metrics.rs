//! Accuracy and F1 of predictions, for frequent and for rare classes.

use super::{LearnerError, statistics::mean};

/// Divides the classes into many-shot, medium-shot and few-shot ones, by their images in the real training set.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ClassBuckets {
    /// A many-shot class has at least this many images.
    pub(crate) many: usize,
    /// A few-shot class has fewer images than this, which is at most `many`. All other classes are medium-shot.
    pub(crate) few: usize,
    /// How many classes [`Metrics::worst`] averages, at least 1.
    pub(crate) worst: usize,
}

/// Metrics of a set of predictions, all in percent.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Metrics {
    /// Accuracy over the images of many-shot classes; `None` if there are none.
    pub(crate) many: Option<f64>,
    /// Accuracy over the images of medium-shot classes.
    pub(crate) medium: Option<f64>,
    /// Accuracy over the images of few-shot classes.
    pub(crate) few: Option<f64>,
    /// Accuracy over all images.
    pub(crate) overall: f64,
    /// Mean accuracy of the worst classes that have an image, or of all of them if they are fewer than requested.
    pub(crate) worst: f64,
    /// Mean F1 score of the classes that have an image, as WILDS computes it for iWildCam.
    pub(crate) macro_f1: f64,
    /// Mean F1 score of the classes that have an image or are predicted, scikit-learn's default.
    pub(crate) macro_f1_all: f64,
}

/// The counts of one class.
#[derive(Debug, Clone, Copy, Default)]
struct Tally {
    images: usize,
    /// Images that are predicted to be of the class.
    predicted: usize,
    /// Images of the class that are predicted to be of it.
    correct: usize,
}

impl Metrics {
    /// Compares predictions with labels. `class_counts` are the counts of the real training set.
    ///
    /// # Errors
    /// Returns an error if there are no labels, if the number of predictions differs, if a label or a prediction is not
    /// a class, or if the buckets are invalid.
    pub(crate) fn new(
        predictions: &[u32],
        labels: &[u32],
        class_counts: &[usize],
        buckets: ClassBuckets,
    ) -> Result<Self, LearnerError> {
        if buckets.few > buckets.many {
            return Err(LearnerError::BucketsOverlap { few: buckets.few, many: buckets.many });
        }
        if buckets.worst == 0 {
            return Err(LearnerError::OutOfRange { name: "worst", found: 0.0, allowed: "at least 1" });
        }
        let tallies = tally(predictions, labels, class_counts.len())?;
        let bucket = |belongs: &dyn Fn(usize) -> bool| {
            let classes = tallies.iter().zip(class_counts).filter(|(_, count)| belongs(**count));
            accuracy(classes.map(|(tally, _)| tally))
        };
        Ok(Self {
            many: bucket(&|count| count >= buckets.many),
            medium: bucket(&|count| (buckets.few..buckets.many).contains(&count)),
            few: bucket(&|count| count < buckets.few),
            overall: accuracy(&tallies).unwrap_or_default(),
            worst: worst(&tallies, buckets.worst),
            macro_f1: macro_f1(&tallies, |tally| tally.images > 0),
            macro_f1_all: macro_f1(&tallies, |tally| tally.images + tally.predicted > 0),
        })
    }
}

/// Counts labels and predictions by class.
fn tally(predictions: &[u32], labels: &[u32], classes: usize) -> Result<Vec<Tally>, LearnerError> {
    if labels.is_empty() {
        return Err(LearnerError::NoLabels);
    }
    if predictions.len() != labels.len() {
        return Err(LearnerError::PredictionCount { predictions: predictions.len(), labels: labels.len() });
    }
    let mut tallies = vec![Tally::default(); classes];
    for (&predicted, &label) in predictions.iter().zip(labels) {
        let class = predicted.max(label);
        if class as usize >= classes {
            return Err(LearnerError::UnknownClass { class, classes });
        }
        tallies[label as usize].images += 1;
        tallies[predicted as usize].predicted += 1;
        tallies[label as usize].correct += usize::from(predicted == label);
    }
    Ok(tallies)
}

/// Returns the percentage of the classes' images that are predicted correctly, or `None` if they have no image.
fn accuracy<'a>(tallies: impl IntoIterator<Item = &'a Tally>) -> Option<f64> {
    let (mut correct, mut images) = (0, 0);
    for tally in tallies {
        correct += tally.correct;
        images += tally.images;
    }
    (images > 0).then(|| percent(correct, images))
}

/// Returns the mean accuracy of the `count` worst classes that have an image.
fn worst(tallies: &[Tally], count: usize) -> f64 {
    let mut accuracies: Vec<f64> = tallies.iter().filter_map(|tally| accuracy([tally])).collect();
    accuracies.sort_by(f64::total_cmp);
    accuracies.truncate(count);
    mean(&accuracies).unwrap_or_default()
}

/// Returns the mean of 2 × correct / (images + predicted) over the classes that `counts` accepts. They have either.
fn macro_f1(tallies: &[Tally], counts: impl Fn(&Tally) -> bool) -> f64 {
    let counted = tallies.iter().filter(|tally| counts(tally));
    let scores: Vec<f64> = counted.map(|tally| percent(2 * tally.correct, tally.images + tally.predicted)).collect();
    mean(&scores).unwrap_or_default()
}

/// Returns a share in percent. `whole` must not be 0.
#[expect(clippy::cast_precision_loss, reason = "counts are far below 2^52")]
fn percent(part: usize, whole: usize) -> f64 {
    100.0 * part as f64 / whole as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    const BUCKETS: ClassBuckets = ClassBuckets { many: 100, few: 20, worst: 2 };

    #[test]
    fn a_worked_example_gives_its_metrics() {
        // Class 0: 4 images, 3 right. Class 1: 2, 1 right. Class 2: 3, 0 right. Class 3: 1, right.
        let labels = [0, 0, 0, 0, 1, 1, 2, 2, 2, 3];
        let predictions = [0, 0, 0, 1, 1, 0, 0, 0, 3, 3];
        let metrics = Metrics::new(&predictions, &labels, &[500, 100, 20, 19], BUCKETS).unwrap();
        assert_eq!(metrics.many, Some(100.0 * 4.0 / 6.0), "pooled over images, not over classes");
        assert_eq!((metrics.medium, metrics.few), (Some(0.0), Some(100.0)));
        assert_eq!((metrics.overall, metrics.worst), (50.0, 25.0));
        // F1: 6 of 4 + 6, 2 of 2 + 2, 0 of 3 + 0, 2 of 1 + 2.
        let f1 = 100.0 * (6.0 / 10.0 + 2.0 / 4.0 + 0.0 + 2.0 / 3.0) / 4.0;
        assert!((metrics.macro_f1 - f1).abs() < 1e-12, "{metrics:?}");
        assert_eq!(metrics.macro_f1, metrics.macro_f1_all, "every class has an image");
    }

    /// WILDS takes the classes among the labels; scikit-learn's default also takes those among the predictions.
    #[test]
    fn a_class_that_is_only_predicted_counts_in_one_of_the_two_macro_f1_scores() {
        let metrics = Metrics::new(&[0, 1, 2, 0], &[0, 1, 1, 0], &[9, 9, 9], BUCKETS).unwrap();
        let of_labels = 100.0 * (1.0 + 2.0 / 3.0) / 2.0;
        let of_all = 100.0 * (1.0 + 2.0 / 3.0 + 0.0) / 3.0;
        assert!((metrics.macro_f1 - of_labels).abs() < 1e-12 && format!("{of_labels:.1}") == "83.3", "{metrics:?}");
        assert!((metrics.macro_f1_all - of_all).abs() < 1e-12 && format!("{of_all:.1}") == "55.6", "{metrics:?}");
    }

    #[test]
    fn empty_buckets_and_unseen_classes_do_not_count() {
        // Class 2 is predicted but has no image. Class 3 has no image and is not predicted.
        let metrics = Metrics::new(&[0, 2], &[0, 1], &[20, 99, 50, 5], ClassBuckets { worst: 9, ..BUCKETS }).unwrap();
        assert_eq!((metrics.many, metrics.medium, metrics.few), (None, Some(50.0), None));
        assert_eq!((metrics.overall, metrics.worst), (50.0, 50.0));
        // F1: 2 of 1 + 1, 0 of 1 + 0, 0 of 0 + 1.
        assert!((metrics.macro_f1 - 50.0).abs() < 1e-12, "{metrics:?}");
        assert!((metrics.macro_f1_all - 100.0 / 3.0).abs() < 1e-12, "{metrics:?}");
    }

    #[test]
    fn inconsistent_arguments_are_errors() {
        let error = |predictions: &[u32], labels: &[u32], buckets| {
            Metrics::new(predictions, labels, &[30, 30], buckets).unwrap_err().to_string()
        };
        assert_eq!(error(&[0], &[0, 1], BUCKETS), "found 1 predictions for 2 labels");
        assert_eq!(error(&[], &[], BUCKETS), "metrics need at least one label");
        assert_eq!(error(&[2], &[0], BUCKETS), "class 2 is out of range; there are 2 classes");
        assert_eq!(error(&[0], &[0], ClassBuckets { worst: 0, ..BUCKETS }), "`worst` is 0; it must be at least 1");
        assert_eq!(
            error(&[0], &[0], ClassBuckets { few: 101, ..BUCKETS }),
            "`few` is 101; it must not exceed `many`, which is 100"
        );
    }
}
