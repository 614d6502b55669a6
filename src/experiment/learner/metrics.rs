//! How well predictions are, for frequent and for rare classes.

use super::LearnerError;
use super::statistics::mean;

/// Where class groups begin and end, by images in the real training set.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Borders {
    /// A class with at least so many has many.
    pub(crate) many: usize,
    /// A class with fewer has few; what is between is medium. At most `many`.
    pub(crate) few: usize,
    /// Classes of [`Metrics::worst`], from 1.
    pub(crate) worst: usize,
}

/// Measures of a set of predictions, all in percent.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Metrics {
    /// Accuracy over the images of classes with many training images; none where there is no such image.
    pub(crate) many: Option<f64>,
    /// As `many`, between the borders.
    pub(crate) medium: Option<f64>,
    /// As `many`, of classes with few.
    pub(crate) few: Option<f64>,
    /// Accuracy over all images.
    pub(crate) overall: f64,
    /// Mean of the accuracies of the worst classes, among those with an image; of all of them where they are fewer
    /// than were asked for.
    pub(crate) worst: f64,
    /// Mean of the classes' F1 scores. A class that is neither a label nor predicted does not count, as in
    /// scikit-learn.
    pub(crate) macro_f1: f64,
}

/// What was predicted for one class.
#[derive(Clone, Copy, Debug, Default)]
struct Tally {
    /// Images of the class.
    images: usize,
    /// Images that are said to be of the class.
    predicted: usize,
    /// Images of the class that are said to be.
    correct: usize,
}

impl Metrics {
    /// Measures predictions against labels. `class_counts` are those of the real training set.
    ///
    /// # Errors
    /// No labels, predictions that are not as many, one of either that is no class, or borders that are out of order.
    pub(crate) fn new(
        predictions: &[u32],
        labels: &[u32],
        class_counts: &[usize],
        borders: Borders,
    ) -> Result<Self, LearnerError> {
        if borders.few > borders.many {
            return Err(LearnerError::value("few", borders.few, format!("allowed is up to `many`, {}", borders.many)));
        }
        if borders.worst == 0 {
            return Err(LearnerError::value("worst", 0, "allowed is from 1"));
        }
        let tallies = tally(predictions, labels, class_counts.len())?;
        let group = |belongs: &dyn Fn(usize) -> bool| {
            let classes = tallies.iter().zip(class_counts).filter(|(_, count)| belongs(**count));
            accuracy(classes.map(|(tally, _)| tally))
        };
        Ok(Self {
            many: group(&|count| count >= borders.many),
            medium: group(&|count| (borders.few..borders.many).contains(&count)),
            few: group(&|count| count < borders.few),
            overall: accuracy(&tallies).unwrap_or_default(),
            worst: worst(&tallies, borders.worst),
            macro_f1: macro_f1(&tallies),
        })
    }
}

/// Counts class by class.
fn tally(predictions: &[u32], labels: &[u32], classes: usize) -> Result<Vec<Tally>, LearnerError> {
    if labels.is_empty() || predictions.len() != labels.len() {
        let allowed = format!("there are {} labels, and at least 1 is needed", labels.len());
        return Err(LearnerError::value("predictions", format!("{} classes", predictions.len()), allowed));
    }
    let mut tallies = vec![Tally::default(); classes];
    for (&predicted, &label) in predictions.iter().zip(labels) {
        let class = predicted.max(label) as usize;
        if class >= classes {
            return Err(LearnerError::value("class", class, format!("there are {classes} classes")));
        }
        tallies[label as usize].images += 1;
        tallies[predicted as usize].predicted += 1;
        tallies[label as usize].correct += usize::from(predicted == label);
    }
    Ok(tallies)
}

/// Percent of the classes' images that are correct; none where there is no image.
fn accuracy<'a>(tallies: impl IntoIterator<Item = &'a Tally>) -> Option<f64> {
    let (mut correct, mut images) = (0, 0);
    for tally in tallies {
        correct += tally.correct;
        images += tally.images;
    }
    (images > 0).then(|| percent(correct, images))
}

/// Mean accuracy of the `count` worst classes that have an image.
fn worst(tallies: &[Tally], count: usize) -> f64 {
    let mut accuracies: Vec<f64> = tallies.iter().filter_map(|tally| accuracy([tally])).collect();
    accuracies.sort_by(f64::total_cmp);
    accuracies.truncate(count);
    mean(&accuracies).unwrap_or_default()
}

/// Mean of 2 x correct / (images + predicted) over the classes that have either.
fn macro_f1(tallies: &[Tally]) -> f64 {
    let seen = tallies.iter().filter(|tally| tally.images + tally.predicted > 0);
    let scores: Vec<f64> = seen.map(|tally| percent(2 * tally.correct, tally.images + tally.predicted)).collect();
    mean(&scores).unwrap_or_default()
}

/// A share in percent. `whole` is not 0.
#[expect(clippy::cast_precision_loss, reason = "counts are far below 2^52")]
fn percent(part: usize, whole: usize) -> f64 {
    100.0 * part as f64 / whole as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    const BORDERS: Borders = Borders { many: 100, few: 20, worst: 2 };

    #[test]
    fn a_known_example_gives_known_numbers() {
        // Class 0: 4 images, 3 right. Class 1: 2, 1 right. Class 2: 3, 0 right. Class 3: 1, right.
        let labels = [0, 0, 0, 0, 1, 1, 2, 2, 2, 3];
        let predictions = [0, 0, 0, 1, 1, 0, 0, 0, 3, 3];
        let metrics = Metrics::new(&predictions, &labels, &[500, 100, 20, 19], BORDERS).unwrap();
        assert_eq!(metrics.many, Some(100.0 * 4.0 / 6.0), "pooled over images, not over classes");
        assert_eq!((metrics.medium, metrics.few), (Some(0.0), Some(100.0)));
        assert_eq!((metrics.overall, metrics.worst), (50.0, 25.0));
        // F1: 6 of 4 + 6, 2 of 2 + 2, 0 of 3 + 0, 2 of 1 + 2.
        let f1 = 100.0 * (6.0 / 10.0 + 2.0 / 4.0 + 0.0 + 2.0 / 3.0) / 4.0;
        assert!((metrics.macro_f1 - f1).abs() < 1e-12, "{metrics:?}");
    }

    #[test]
    fn empty_groups_and_unseen_classes_do_not_count() {
        // Class 2 is predicted and has no image; class 3 is neither.
        let metrics = Metrics::new(&[0, 2], &[0, 1], &[20, 99, 50, 5], Borders { worst: 9, ..BORDERS }).unwrap();
        assert_eq!((metrics.many, metrics.medium, metrics.few), (None, Some(50.0), None));
        assert_eq!((metrics.overall, metrics.worst), (50.0, 50.0));
        assert!((metrics.macro_f1 - 100.0 / 3.0).abs() < 1e-12, "{metrics:?}");
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        let error = |predictions: &[u32], labels: &[u32], borders| {
            Metrics::new(predictions, labels, &[30, 30], borders).unwrap_err().to_string()
        };
        let few = "`predictions` is 1 classes; there are 2 labels, and at least 1 is needed";
        assert_eq!(error(&[0], &[0, 1], BORDERS), few);
        assert!(error(&[], &[], BORDERS).contains("at least 1"));
        assert_eq!(error(&[2], &[0], BORDERS), "`class` is 2; there are 2 classes");
        assert_eq!(error(&[0], &[0], Borders { worst: 0, ..BORDERS }), "`worst` is 0; allowed is from 1");
        assert_eq!(error(&[0], &[0], Borders { few: 101, ..BORDERS }), "`few` is 101; allowed is up to `many`, 100");
    }
}
