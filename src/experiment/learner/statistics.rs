//! Confidence intervals for the difference between two methods, over splits of the data and seeds of the learner.

use std::collections::BTreeMap;

use rand_chacha::ChaCha8Rng;

use super::{
    LearnerError,
    random::{Purpose, below, keyed},
};

/// The number of bootstrap resamples.
const RESAMPLES: usize = 10_000;

/// The ends of the 95 % percentile interval.
const QUANTILES: (f64, f64) = (0.025, 0.975);

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

/// The paired difference between two methods, with a 95 % bootstrap interval.
///
/// Two runs are a pair if their two seeds are equal. Each of the 10,000 resamples draws as many splits as there are,
/// with replacement, and then as many learner seeds of each drawn split as it has (for hierarchical data, Davison and
/// Hinkley, Bootstrap Methods and their Application, 1997, section 3.8). With few splits the interval is too narrow.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Comparison {
    /// The number of pairs.
    pub(crate) pairs: usize,
    /// The mean over splits of their mean differences, in the unit of the scores.
    pub(crate) mean: f64,
    /// The lower end of the interval.
    pub(crate) low: f64,
    /// The upper end of the interval.
    pub(crate) high: f64,
}

impl Comparison {
    /// Compares `ours` with `theirs`. The difference is positive if `ours` is higher. `seed` is for the resamples.
    ///
    /// # Errors
    /// Returns an error if there are no scores, if a score is not finite, if a run has two scores, or if a run belongs
    /// to only one method.
    pub(crate) fn new(ours: &[Score], theirs: &[Score], seed: u64) -> Result<Self, LearnerError> {
        let splits = differences(&by_run(ours)?, &by_run(theirs)?)?;
        let (low, high) = interval(&splits, RESAMPLES, &mut keyed(Purpose::Bootstrap, &[seed]));
        let means: Vec<f64> = splits.iter().map(|split| average(split)).collect();
        Ok(Self { pairs: splits.iter().map(Vec::len).sum(), mean: average(&means), low, high })
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

/// Returns the percentile interval of the mean. Neither `splits` nor any of its elements may be empty.
fn interval(splits: &[Vec<f64>], resamples: usize, generator: &mut ChaCha8Rng) -> (f64, f64) {
    let mut means: Vec<f64> = (0..resamples).map(|_| resampled_mean(splits, generator)).collect();
    means.sort_by(f64::total_cmp);
    (quantile(&means, QUANTILES.0), quantile(&means, QUANTILES.1))
}

/// Draws one resample and returns its mean.
fn resampled_mean(splits: &[Vec<f64>], generator: &mut ChaCha8Rng) -> f64 {
    let mut means = Vec::with_capacity(splits.len());
    for _ in 0..splits.len() {
        let split = &splits[below(generator, splits.len())];
        let drawn: Vec<f64> = (0..split.len()).map(|_| split[below(generator, split.len())]).collect();
        means.push(average(&drawn));
    }
    average(&means)
}

/// Returns the mean of values, of which there must be at least one.
#[expect(clippy::cast_precision_loss, reason = "values are far fewer than 2^52")]
fn average(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len() as f64
}

/// Returns a quantile of sorted values, interpolated linearly (Hyndman and Fan, type 7).
#[expect(clippy::cast_precision_loss, clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "an index")]
fn quantile(sorted: &[f64], share: f64) -> f64 {
    let position = share * (sorted.len() - 1) as f64;
    let (below, above) = (sorted[position.floor() as usize], sorted[position.ceil() as usize]);
    below + (above - below) * position.fract()
}

#[cfg(test)]
mod tests {
    use rand_distr::{Distribution, StandardNormal};

    use super::*;

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

    #[test]
    fn quantiles_are_interpolated() {
        let sorted = [0.0, 1.0, 2.0, 4.0];
        assert_eq!([0.0, 0.5, 0.75, 1.0].map(|share| quantile(&sorted, share)), [0.0, 1.5, 2.5, 4.0]);
        assert_eq!(quantile(&[3.0], 0.975), 3.0);
    }

    #[test]
    fn a_constant_difference_has_an_empty_interval() {
        let ours = scores(5, 4, |split, learner| (10 * split + learner) as f64 + 1.5);
        let mut theirs = scores(5, 4, |split, learner| (10 * split + learner) as f64);
        theirs.reverse();
        let comparison = Comparison::new(&ours, &theirs, 0).unwrap();
        assert_eq!(comparison, Comparison { pairs: 20, mean: 1.5, low: 1.5, high: 1.5 });
    }

    #[test]
    fn the_interval_of_one_split_with_two_runs_is_exact() {
        // The means of resamples are -1, 0 and 1, with probabilities 1/4, 1/2 and 1/4.
        let ours = scores(1, 2, |_, learner| if learner == 0 { -1.0 } else { 1.0 });
        let comparison = Comparison::new(&ours, &scores(1, 2, |_, _| 0.0), 0).unwrap();
        assert_eq!(comparison, Comparison { pairs: 2, mean: 0.0, low: -1.0, high: 1.0 });
    }

    #[test]
    fn every_split_has_the_same_weight_however_many_runs_it_has() {
        let mut ours = scores(1, 9, |_, _| 0.0);
        ours.push(Score { split_seed: 1, learner_seed: 0, value: 2.0 });
        let theirs: Vec<Score> = ours.iter().map(|score| Score { value: 0.0, ..*score }).collect();
        let comparison = Comparison::new(&ours, &theirs, 0).unwrap();
        assert_eq!(comparison, Comparison { pairs: 10, mean: 1.0, low: 0.0, high: 2.0 });
    }

    #[test]
    fn splits_are_resampled_before_learners() {
        // The learners of a split agree, so a resample is the mean of four draws from -1 and 1.
        let ours = scores(4, 50, |split, _| if split < 2 { -1.0 } else { 1.0 });
        let comparison = Comparison::new(&ours, &scores(4, 50, |_, _| 0.0), 0).unwrap();
        assert_eq!(
            (comparison.low, comparison.high),
            (-1.0, 1.0),
            "1 in 16 resamples has the mean -1, and 1 in 16 has 1"
        );
    }

    #[test]
    fn the_interval_depends_on_the_seed_alone() {
        let ours = scores(7, 5, |split, learner| ((7 * split + 3 * learner) % 11) as f64);
        let theirs = scores(7, 5, |_, _| 0.0);
        let compared = |seed| Comparison::new(&ours, &theirs, seed).unwrap();
        assert_eq!(compared(1), compared(1));
        let (one, two) = (compared(1), compared(2));
        assert!(one != two && (one.low - two.low).abs() < 0.2 && (one.high - two.high).abs() < 0.2, "{one:?} {two:?}");
        assert!(one.low < one.mean && one.mean < one.high, "{one:?}");
    }

    /// About 95 % of the intervals cover 0 if there is no difference.
    #[test]
    fn intervals_have_about_their_nominal_coverage() {
        let mut noise = keyed(Purpose::Batch, &[0]);
        let mut normal = |deviation: f64| -> f64 {
            let drawn: f64 = StandardNormal.sample(&mut noise);
            deviation * drawn
        };
        let experiments = 200;
        let mut covered = 0;
        for experiment in 0..experiments {
            let mut split = || -> Vec<f64> {
                let effect = normal(1.0);
                (0..3).map(|_| effect + normal(0.5)).collect()
            };
            let splits: Vec<Vec<f64>> = (0..15).map(|_| split()).collect();
            let (low, high) = interval(&splits, 200, &mut keyed(Purpose::Bootstrap, &[experiment]));
            covered += usize::from(low <= 0.0 && 0.0 <= high);
        }
        // With 15 splits the coverage is about 92 %. Three standard deviations are 6 %.
        assert!((172..=196).contains(&covered), "{covered} of {experiments}");
    }

    #[test]
    fn runs_without_a_partner_are_errors() {
        let (two, one) = (scores(1, 2, |_, _| 0.0), scores(1, 1, |_, _| 0.0));
        let error = |ours: &[Score], theirs: &[Score]| Comparison::new(ours, theirs, 0).unwrap_err().to_string();
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
