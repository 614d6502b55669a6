//! `[learner]` and `[experiment]`: the built-in classifier, and what `discl-pipe experiment` compares with it.

use std::path::PathBuf;

use serde::Serialize;

use super::{
    declaration::{optional, or, or_same_as, required, section, sections},
    strings::{EDIT, IDENTIFIER},
    value_types::{LocalPath, OneOf, integer, number, one_or_list_of},
};

/// The losses that the learner has.
const LOSSES: &[&str] = &["cross_entropy", "balanced_softmax", "logit_adjustment"];

section! {
    /// `[learner]`: the built-in classifier and its budget.
    #[derive(Debug, Clone, PartialEq, Serialize)]
    pub struct Learner {
        /// Networks to compare.
        architectures: Vec<String> = or(one_or_list_of(OneOf(&["softmax", "mlp", "cnn"])), vec!["mlp".to_owned()]);
        /// Width and height of the grayscale images that it sees.
        image_side: i64 = or(integer(4..=256, "pixels"), 16);
        /// Images of a batch.
        batch_size: i64 = or(integer(1..=65_536, "images"), 64);
        /// Batches of an epoch, however many rows the epoch has.
        iterations_per_epoch: i64 = or(integer(1..=100_000, "batches"), 16);
        /// AdamW's learning rate.
        learning_rate: f64 = or(number(1e-9..=1.0, "learning rate"), 0.001);
        /// AdamW's weight decay.
        weight_decay: f64 = or(number(0.0..=1.0, "weight decay"), 0.0001);
    }
}

section! {
    /// `[experiment]`: what is compared, and how often.
    #[derive(Debug, Clone, PartialEq, Serialize)]
    pub struct Experiment {
        /// Strategies to compare with each other and with the baselines. Their controls are trained with them: `real_only`,
        /// and for adaptive ones `random_choice` and `least_gain`.
        strategies: Vec<String> = or_same_as(one_or_list_of(IDENTIFIER), "curriculum.strategy");
        /// Losses that each strategy is trained with.
        losses: Vec<String> = or(one_or_list_of(OneOf(LOSSES)), vec!["cross_entropy".to_owned()]);
        /// Learners of each method and split, seeded from 0.
        learner_seeds: i64 = or(integer(2..=1000, "learners"), 10);
        /// A class with at least this many training images counts as a class with many.
        many_class_count: i64 = or(integer(1..=i64::MAX, "images"), 100);
        /// How many of the worst classes the metric `worst_k` averages.
        worst_classes: i64 = or(integer(1..=100_000, "classes"), 3);
        /// A Parquet file, in the format of the source, with images that the diffusion model has seen: one more
        /// baseline.
        pretraining: Option<PathBuf> = optional(LocalPath);
        /// Splits of the data. If there are none, the pipeline's own is the only one.
        splits: Vec<DataSplit> = sections("split", "seed");
    }
}

section! {
    /// `[[experiment.split]]`: one split of the data into training, validation and test images.
    #[derive(Debug, Clone, PartialEq, Eq, Serialize)]
    pub struct DataSplit {
        /// A number that names the split, different from the others.
        seed: i64 = required(integer(0..=i64::from(u32::MAX), ""));
        /// Edits of the pipeline, as `--set` makes them.
        set: Vec<String> = or(one_or_list_of(EDIT), Vec::new());
    }
}
