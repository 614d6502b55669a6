//! Confidence intervals for the difference between two methods, over splits of the data and seeds of the learner.

use std::{collections::BTreeMap, f64::consts::FRAC_PI_2};

use super::LearnerError;

/// The share of intervals that cover the true difference if splits are independent and their differences are normal.
const COVERAGE: f64 = 0.95;

/// The result of one run of a method.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Score {
    pub(crate) split_seed: u64,
    pub(crate) learner_seed: u64,
    /// A metric, in any unit.
    pub(crate) value: f64,
}

/// Returns the mean, or `None` if there are no values.
pub(crate) fn mean(values: &[f64]) -> Option<f64> {
    (!values.is_empty()).then(|| average(values))
}

/// Returns the sample standard deviation (over n - 1), or `None` if there are fewer than two values.
#[expect(clippy::cast_precision_loss, reason = "values are far fewer than 2^52")]
pub(crate) fn standard_deviation(values: &[f64]) -> Option<f64> {
    let mean = mean(values).filter(|_| values.len() > 1)?;
    let squares = values.iter().map(|value| (value - mean).powi(2)).sum::<f64>();
    Some((squares / (values.len() - 1) as f64).sqrt())
}

/// The paired difference between two methods, with its 95 % interval.
///
/// Two runs are a pair if their two seeds are equal. The interval is Student's, over the splits' mean differences: seeds
/// of one split see the same images, so only splits count as repetitions.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Comparison {
    /// The mean over splits of their mean differences, in the unit of the scores.
    pub(crate) mean: f64,
    /// The lower and the upper end of the interval. `None` for a single split.
    pub(crate) interval: Option<(f64, f64)>,
}

impl Comparison {
    /// Compares `ours` with `theirs`. The difference is positive if `ours` is higher.
    ///
    /// # Errors
    /// Returns an error if there are no scores, if a score is not finite, if a run has two scores, or if a run belongs
    /// to only one method.
    pub(crate) fn new(ours: &[Score], theirs: &[Score]) -> Result<Self, LearnerError> {
        let splits = differences(&by_run(ours)?, &by_run(theirs)?)?;
        let means: Vec<f64> = splits.iter().map(|split| average(split)).collect();
        let mean = average(&means);
        let interval = standard_error(&means).map(|error| {
            let half = student_quantile(means.len() - 1) * error;
            (mean - half, mean + half)
        });
        Ok(Self { mean, interval })
    }
}

/// Groups scores by split seed and learner seed.
fn by_run(scores: &[Score]) -> Result<BTreeMap<(u64, u64), f64>, LearnerError> {
    if scores.is_empty() {
        return Err(LearnerError::NoScores);
    }
    let mut runs = BTreeMap::new();
    for &Score { split_seed, learner_seed, value } in scores {
        if !value.is_finite() {
            return Err(LearnerError::InfiniteScore { split_seed, learner_seed, value });
        }
        if runs.insert((split_seed, learner_seed), value).is_some() {
            return Err(LearnerError::DuplicateScore { split_seed, learner_seed });
        }
    }
    Ok(runs)
}

/// Returns the differences between paired runs, grouped by split.
fn differences(
    ours: &BTreeMap<(u64, u64), f64>,
    theirs: &BTreeMap<(u64, u64), f64>,
) -> Result<Vec<Vec<f64>>, LearnerError> {
    let unpaired = |(split_seed, learner_seed)| LearnerError::UnpairedRun { split_seed, learner_seed };
    if let Some(run) = theirs.keys().find(|run| !ours.contains_key(run)) {
        return Err(unpaired(*run));
    }
    let mut splits: BTreeMap<u64, Vec<f64>> = BTreeMap::new();
    for (run, our) in ours {
        let their = theirs.get(run).ok_or_else(|| unpaired(*run))?;
        splits.entry(run.0).or_default().push(our - their);
    }
    Ok(splits.into_values().collect())
}

/// Returns the mean of values, of which there must be at least one.
#[expect(clippy::cast_precision_loss, reason = "values are far fewer than 2^52")]
fn average(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len() as f64
}

/// Returns the standard error of the mean, or `None` if there are fewer than two values.
#[expect(clippy::cast_precision_loss, reason = "values are far fewer than 2^52")]
fn standard_error(values: &[f64]) -> Option<f64> {
    Some(standard_deviation(values)? / (values.len() as f64).sqrt())
}

/// Returns how many standard errors the 95 % interval extends to each side, with `freedom` degrees of freedom, at least 1.
#[expect(clippy::cast_precision_loss, reason = "degrees of freedom are few")]
fn student_quantile(freedom: usize) -> f64 {
    let (mut low, mut high) = (0.0, FRAC_PI_2);
    // Each step halves the range, and a double has 53 bits.
    for _ in 0..60 {
        let middle = f64::midpoint(low, high);
        if student_within(middle, freedom) < COVERAGE { low = middle } else { high = middle }
    }
    (freedom as f64).sqrt() * low.tan()
}

/// Returns the probability that Student's t with `freedom` degrees of freedom is within ±√freedom tan(`angle`), by the
/// finite series for whole degrees of freedom (Abramowitz and Stegun, Handbook of Mathematical Functions, 26.7.3 and
/// 26.7.4).
#[expect(clippy::cast_precision_loss, reason = "degrees of freedom are few")]
fn student_within(angle: f64, freedom: usize) -> f64 {
    let (sine, cosine) = angle.sin_cos();
    let odd = freedom % 2 == 1;
    let (mut term, mut sum) = (if odd { cosine } else { 1.0 }, 0.0);
    for place in 0..freedom / 2 {
        sum += term;
        let (above, below) = if odd { (2 * place + 2, 2 * place + 3) } else { (2 * place + 1, 2 * place + 2) };
        term *= cosine * cosine * above as f64 / below as f64;
    }
    if odd { (angle + sine * sum) / FRAC_PI_2 } else { sine * sum }
}

#[cfg(test)]
mod tests {
    use rand_distr::{Distribution, StandardNormal};

    use super::*;
    use crate::experiment::learner::random::{Purpose, keyed};

    /// Returns scores of `splits` splits with `learners` learners each.
    fn scores(splits: u64, learners: u64, value: impl Fn(u64, u64) -> f64) -> Vec<Score> {
        let runs = (0..splits).flat_map(|split| (0..learners).map(move |learner| (split, learner)));
        let score =
            |(split_seed, learner_seed)| Score { split_seed, learner_seed, value: value(split_seed, learner_seed) };
        runs.map(score).collect()
    }

    #[test]
    fn means_and_standard_deviations_of_known_values() {
        let values = [2.0, 4.0, 4.0, 4.0, 5.0, 5.0, 7.0, 9.0];
        assert_eq!(mean(&values), Some(5.0));
        assert!((standard_deviation(&values).unwrap() - (32.0_f64 / 7.0).sqrt()).abs() < 1e-12);
        assert_eq!((mean(&[]), mean(&[3.0])), (None, Some(3.0)));
        assert_eq!((standard_deviation(&[]), standard_deviation(&[3.0])), (None, None));
    }

    /// The table of 97.5 % points of any textbook.
    #[test]
    fn quantiles_are_those_of_the_tables() {
        let known = [
            (1, 12.706_205),
            (2, 4.302_653),
            (3, 3.182_446),
            (4, 2.776_445),
            (5, 2.570_582),
            (9, 2.262_157),
            (10, 2.228_139),
            (29, 2.045_230),
            (30, 2.042_272),
            (120, 1.979_930),
            (999, 1.962_341),
        ];
        for (freedom, expected) in known {
            let found = student_quantile(freedom);
            assert!((found - expected).abs() < 1e-6, "{freedom}: {found}");
        }
    }

    #[test]
    fn a_constant_difference_has_an_empty_interval() {
        let ours = scores(5, 4, |split, learner| (10 * split + learner) as f64 + 1.5);
        let mut theirs = scores(5, 4, |split, learner| (10 * split + learner) as f64);
        theirs.reverse();
        let comparison = Comparison::new(&ours, &theirs).unwrap();
        assert_eq!(comparison, Comparison { mean: 1.5, interval: Some((1.5, 1.5)) });
    }

    #[test]
    fn an_interval_is_over_splits_however_many_runs_they_have() {
        // Splits differ by 0, 1 and 5: their mean is 2 and their standard deviation √7.
        let effect = |split| [0.0, 1.0, 5.0][split as usize];
        for learners in [1, 2, 50] {
            let ours = scores(3, learners, |split, learner| effect(split) + if learner % 2 == 0 { 1.0 } else { -1.0 });
            let theirs = scores(3, learners, |_, learner| if learner % 2 == 0 { 1.0 } else { -1.0 });
            let comparison = Comparison::new(&ours, &theirs).unwrap();
            let (low, high) = comparison.interval.unwrap();
            let half = 4.302_653 * (7.0_f64 / 3.0).sqrt();
            assert!((comparison.mean - 2.0).abs() < 1e-12, "{comparison:?}");
            assert!((low - (2.0 - half)).abs() < 1e-5 && (high - (2.0 + half)).abs() < 1e-5, "{comparison:?}");
        }
    }

    #[test]
    fn a_single_split_has_no_interval() {
        let comparison = Comparison::new(&scores(1, 2, |_, learner| learner as f64), &scores(1, 2, |_, _| 0.0));
        assert_eq!(comparison.unwrap(), Comparison { mean: 0.5, interval: None });
    }

    #[test]
    fn every_split_has_the_same_weight_however_many_runs_it_has() {
        let mut ours = scores(1, 9, |_, _| 0.0);
        ours.push(Score { split_seed: 1, learner_seed: 0, value: 2.0 });
        let theirs: Vec<Score> = ours.iter().map(|score| Score { value: 0.0, ..*score }).collect();
        assert_eq!(Comparison::new(&ours, &theirs).unwrap().mean, 1.0);
    }

    /// Returns the share of intervals over five splits that cover a difference of 0, if the mean differences of any two
    /// splits have this correlation.
    fn coverage(correlation: f64) -> f64 {
        let mut noise = keyed(Purpose::Batch, &[0]);
        let mut normal = |variance: f64| -> f64 {
            let drawn: f64 = StandardNormal.sample(&mut noise);
            variance.sqrt() * drawn
        };
        let (experiments, mut covered) = (4000, 0);
        for _ in 0..experiments {
            let shared = normal(correlation);
            let effects: Vec<f64> = (0..5).map(|_| shared + normal(1.0 - correlation)).collect();
            let learners: Vec<f64> = (0..50).map(|_| normal(0.25)).collect();
            // Noise of the learners is averaged out, but for its mean.
            let ours =
                scores(5, 10, |split, learner| effects[split as usize] + learners[(10 * split + learner) as usize]);
            let (low, high) = Comparison::new(&ours, &scores(5, 10, |_, _| 0.0)).unwrap().interval.unwrap();
            covered += usize::from(low <= 0.0 && 0.0 <= high);
        }
        covered as f64 / experiments as f64
    }

    /// Three standard deviations are 1.0 to 1.9 points.
    #[test]
    fn intervals_have_their_nominal_coverage_if_splits_are_independent() {
        let found = coverage(0.0);
        assert!((0.94..=0.96).contains(&found), "{found}");
    }

    /// What `docs/results.md` says of splits that share a sixth or a third of their images.
    #[test]
    fn intervals_over_overlapping_splits_are_too_narrow() {
        let (sixth, third) = (coverage(1.0 / 6.0), coverage(1.0 / 3.0));
        assert!((0.86..=0.90).contains(&sixth), "{sixth}");
        assert!((0.77..=0.81).contains(&third), "{third}");
    }

    #[test]
    fn runs_without_a_partner_are_errors() {
        let (two, one) = (scores(1, 2, |_, _| 0.0), scores(1, 1, |_, _| 0.0));
        let error = |ours: &[Score], theirs: &[Score]| Comparison::new(ours, theirs).unwrap_err().to_string();
        let unpaired = "split seed 0 with learner seed 1 was run with only one of the two methods";
        assert_eq!(error(&two, &one), unpaired);
        assert_eq!(error(&one, &two), unpaired);
        assert!(error(&[], &[]).contains("at least one run"));
        assert!(error(&[one[0], one[0]], &one).contains("two scores"));
        let infinite = Score { value: f64::INFINITY, ..one[0] };
        assert_eq!(
            error(&[infinite], &one),
            "split seed 0 with learner seed 0 scores inf, which is not a finite number"
        );
    }
}
