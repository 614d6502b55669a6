//! What is compared: strategies with their manifests, and baselines on the unchanged real images.

use std::collections::BTreeMap;

use super::{
    dataset::Task,
    learner::{Loss, Sampling},
    manifests::Epochs,
};
use crate::identity::Digest;

/// The strategy whose epochs after the curriculum are those of every method.
pub(super) const REAL_ONLY: &str = "real_only";

/// A way to train.
#[derive(Debug, Clone)]
pub(super) struct Method {
    pub(super) name: String,
    pub(super) loss: Loss,
    pub(super) sampling: Sampling,
    /// The rows of each epoch.
    pub(super) epochs: Epochs,
}

/// Returns the strategies that `wanted` accepts, trained with cross-entropy on the rows of their manifests.
pub(super) fn strategies(manifests: &BTreeMap<String, Epochs>, wanted: impl Fn(&str) -> bool) -> Vec<Method> {
    let wanted = manifests.iter().filter(|(name, _)| wanted(name));
    wanted.map(|(name, epochs)| method(name, Loss::CrossEntropy, Sampling::Plain, epochs.clone())).collect()
}

/// Returns the baselines: every real image in every epoch of the curriculum, then the epochs that all methods share.
pub(super) fn baselines(task: &Task, real: &Epochs, shared: &[Vec<usize>], seed: i64) -> Vec<Method> {
    let plain: Epochs = real.iter().chain(shared).cloned().collect();
    let of = |name: &str, loss, sampling| method(name, loss, sampling, plain.clone());
    let mut methods = vec![
        of("cross_entropy", Loss::CrossEntropy, Sampling::Plain),
        of("balanced_softmax", Loss::BalancedSoftmax, Sampling::Plain),
        of("logit_adjustment", Loss::LogitAdjustment, Sampling::Plain),
        of("oversampling", Loss::CrossEntropy, Sampling::ClassBalanced),
    ];
    if !task.pretraining.is_empty() {
        let with = real.iter().enumerate().map(|(epoch, rows)| shuffled(seed, epoch, rows, &task.pretraining));
        let epochs = with.chain(shared.iter().cloned()).collect();
        methods.push(method("pretraining_images", Loss::CrossEntropy, Sampling::Plain, epochs));
    }
    methods
}

fn method(name: &str, loss: Loss, sampling: Sampling, epochs: Epochs) -> Method {
    Method { name: name.to_owned(), loss, sampling, epochs }
}

/// Merges two lists in a random order that differs between epochs.
fn shuffled(seed: i64, epoch: usize, rows: &[usize], more: &[usize]) -> Vec<usize> {
    let key = |row: &usize| {
        let digest = Digest::new("pretraining_images").part(&seed.to_le_bytes()).part(&(epoch as u64).to_le_bytes());
        digest.part(&(*row as u64).to_le_bytes()).id()
    };
    let mut all: Vec<usize> = rows.iter().chain(more).copied().collect();
    all.sort_by_cached_key(key);
    all
}
