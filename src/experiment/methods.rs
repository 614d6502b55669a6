//! What is compared: strategies by their manifests, and baselines on the real images as they are.

use std::collections::BTreeMap;

use super::{dataset::Task, manifests::Epochs};
use crate::{
    experiment::learner::{Loss, Sampling},
    identity::Digest,
};

/// The strategy whose epochs after the curriculum every method shares.
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

/// Strategies, with cross-entropy and rows as the manifest has them.
pub(super) fn strategies(manifests: &BTreeMap<String, Epochs>, wanted: impl Fn(&str) -> bool) -> Vec<Method> {
    let wanted = manifests.iter().filter(|(name, _)| wanted(name));
    wanted.map(|(name, epochs)| method(name, Loss::CrossEntropy, Sampling::Plain, epochs.clone())).collect()
}

/// Baselines: every real image in every epoch of the curriculum, then the epochs that all methods share.
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

/// Two lists as one, in an order of this epoch's own.
fn shuffled(seed: i64, epoch: usize, rows: &[usize], more: &[usize]) -> Vec<usize> {
    let place = |row: &usize| {
        let digest = Digest::new("pretraining_images").part(&seed.to_le_bytes()).part(&(epoch as u64).to_le_bytes());
        digest.part(&(*row as u64).to_le_bytes()).id()
    };
    let mut all: Vec<usize> = rows.iter().chain(more).copied().collect();
    all.sort_by_cached_key(place);
    all
}
