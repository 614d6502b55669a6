//! What is compared: strategies and their controls with each loss, and baselines on the unchanged real images.

use std::{collections::BTreeSet, sync::Arc};

use super::{
    dataset::Task,
    learner::{Loss, Sampling},
    manifests::Epochs,
};
use crate::{config::REAL_ONLY, error::Result, identity::Digest, pipeline::Project, plan, schema};

/// The strategy of one level, which is chosen on the validation images.
pub(super) const FIXED: &str = "fixed";

/// Adaptive strategies that choose a level by chance, and the level of the least gain. They tell what the measurement does.
const ADAPTIVE_CONTROLS: [&str; 2] = ["random_choice", "least_gain"];

/// What the baselines are called. No strategy may have such a name.
pub(super) const BASELINES: [&str; 5] =
    ["cross_entropy", "balanced_softmax", "logit_adjustment", "oversampling", "pretraining_images"];

/// A way to train.
#[derive(Debug, Clone)]
pub(super) struct Method {
    pub(super) name: String,
    pub(super) loss: Loss,
    pub(super) sampling: Sampling,
    /// The rows of each epoch, for each learner.
    pub(super) manifests: Arc<Vec<Epochs>>,
}

impl Method {
    /// Trains a strategy with a loss. `manifests` are empty if they follow from what is measured.
    pub(super) fn strategy(strategy: &str, loss: Loss, manifests: Arc<Vec<Epochs>>) -> Self {
        let name = if loss == Loss::CrossEntropy { strategy.to_owned() } else { format!("{strategy}+{loss}") };
        Self { name, loss, sampling: Sampling::Plain, manifests }
    }
}

/// The strategies that a pipeline compares, with their controls.
#[derive(Debug)]
pub(super) struct Compared {
    pub(super) strategies: Vec<String>,
    /// Those whose schedule follows from what learners gain.
    adaptive: BTreeSet<String>,
}

impl Compared {
    /// # Errors
    /// Returns an error if a strategy has no query.
    pub(super) fn new(project: &Project) -> Result<Self> {
        let reads_progress = |name: &str| -> Result<bool> {
            Ok(project.catalogue.get(&plan::schedule_query(name))?.tables.contains(schema::PROGRESS))
        };
        let mut strategies = project.config.experiment.strategies.clone();
        let mut adaptive = BTreeSet::new();
        for name in &strategies {
            adaptive.extend(reads_progress(name)?.then(|| name.clone()));
        }
        let mut controls = vec![REAL_ONLY];
        if !adaptive.is_empty() {
            controls.extend(ADAPTIVE_CONTROLS);
            adaptive.extend(ADAPTIVE_CONTROLS.map(str::to_owned));
        }
        for control in controls {
            if !strategies.iter().any(|name| name == control) {
                strategies.push(control.to_owned());
            }
        }
        Ok(Self { strategies, adaptive })
    }

    pub(super) fn has(&self, name: &str) -> bool {
        self.strategies.iter().any(|strategy| strategy == name)
    }

    pub(super) fn is_adaptive(&self, name: &str) -> bool {
        self.adaptive.contains(name)
    }

    /// Returns the first adaptive strategy.
    pub(super) fn first_adaptive(&self) -> Option<&str> {
        self.strategies.iter().map(String::as_str).find(|name| self.is_adaptive(name))
    }
}

/// Returns the levels that `fixed` may have, from the lowest: those of synthetic images that were kept. Level 100 alone
/// is `real_only`.
pub(super) fn fixed_levels(project: &Project, task: &Task) -> Vec<i64> {
    let levels = project.config.curriculum.levels.iter().copied();
    levels.filter(|level| task.levels.contains(level)).collect::<BTreeSet<_>>().into_iter().collect()
}

/// Returns the baselines: every real training image in every epoch of the curriculum, then the last epochs of
/// `real_only`. Its manifests are those without a spectrum validation set, which a baseline does not need.
pub(super) fn baselines(task: &Task, real_only: &[Epochs], curriculum_epochs: usize, seed: i64) -> Vec<Method> {
    let of = |rows: &[usize]| {
        let manifest = |(learner, real_only): (usize, &Epochs)| -> Epochs {
            let first = (0..curriculum_epochs).map(|epoch| shuffled(rows, seed, learner, epoch));
            first.chain(real_only.iter().skip(curriculum_epochs).cloned()).collect()
        };
        Arc::new(real_only.iter().enumerate().map(manifest).collect::<Vec<_>>())
    };
    let real = of(&task.real);
    let method = |name: &str, loss, sampling, manifests: &Arc<Vec<Epochs>>| Method {
        name: name.to_owned(),
        loss,
        sampling,
        manifests: Arc::clone(manifests),
    };
    let [cross_entropy, balanced_softmax, logit_adjustment, oversampling, pretraining_images] = BASELINES;
    let mut methods = vec![
        method(cross_entropy, Loss::CrossEntropy, Sampling::Plain, &real),
        method(balanced_softmax, Loss::BalancedSoftmax, Sampling::Plain, &real),
        method(logit_adjustment, Loss::LogitAdjustment, Sampling::Plain, &real),
        method(oversampling, Loss::CrossEntropy, Sampling::ClassBalanced, &real),
    ];
    if !task.pretraining.is_empty() {
        let with = of(&[task.real.as_slice(), &task.pretraining].concat());
        methods.push(method(pretraining_images, Loss::CrossEntropy, Sampling::Plain, &with));
    }
    methods
}

/// Returns rows in a random order that differs between splits, learners and epochs.
fn shuffled(rows: &[usize], seed: i64, learner: usize, epoch: usize) -> Vec<usize> {
    let key = |row: &usize| {
        let digest = Digest::new("real_images").part(&seed.to_le_bytes());
        [learner, epoch, *row].iter().fold(digest, |digest, part| digest.part(&(*part as u64).to_le_bytes())).id()
    };
    let mut all = rows.to_vec();
    all.sort_by_cached_key(key);
    all
}
