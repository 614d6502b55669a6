//! `[learner]` and `[experiment]`: the built-in classifier, and what it compares.

use std::collections::BTreeSet;
use std::path::PathBuf;

use serde::Serialize;

use super::reader::Section;
use super::strings::{EDIT, IDENTIFIER, PATH};
use super::values::{Choice, Distinct, integer, number};
use crate::error::text;

/// `[learner]`: the built-in classifier and its budget.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Learner {
    /// Networks to compare, out of `softmax`, `mlp` and `cnn`; default `mlp` alone.
    pub architectures: Vec<String>,
    /// Width and height, in pixels, of the grey images that it sees; 4 to 256, default 16.
    pub image_side: i64,
    /// Images of a batch, 1 to 65536; default 64.
    pub batch_size: i64,
    /// Batches of an epoch, whatever its rows; 1 to 100000, default 16.
    pub iterations_per_epoch: i64,
    /// AdamW's, above 0 and up to 1; default 0.001.
    pub learning_rate: f64,
    /// AdamW's, 0 to 1; default 0.0001.
    pub weight_decay: f64,
}

/// `[experiment]`: what is compared, and how often.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Experiment {
    /// Strategies beside the baselines; default the pipeline's own alone.
    pub strategies: Vec<String>,
    /// Learners of each method and split, seeded from 0; 2 to 1000, default 10.
    pub learner_seeds: i64,
    /// Training images from which on a class has many; default 100.
    pub many_class_count: i64,
    /// Classes of the metric `worst_k`; default 3.
    pub worst_classes: i64,
    /// A Parquet file of images that the diffusion model has seen, in the source's form: another baseline.
    pub pretraining: Option<PathBuf>,
    /// `[[experiment.split]]`: divisions of the data, with different seeds; none is the pipeline's own alone.
    pub splits: Vec<DataSplit>,
}

/// A division of the data into training, validation and test images.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct DataSplit {
    /// Its seed, from 0, which names it.
    pub seed: i64,
    /// Edits of the pipeline, as `--set` makes them.
    pub set: Vec<String>,
}

const ARCHITECTURES: [&str; 3] = ["softmax", "mlp", "cnn"];

pub(super) fn learner(mut learner: Section<'_, '_>) -> Learner {
    let architectures = Distinct { of: Choice { words: &ARCHITECTURES }, or_one: true };
    let architectures = learner.or("architectures", &architectures, vec!["mlp"]);
    let out = Learner {
        architectures: architectures.into_iter().map(str::to_owned).collect(),
        image_side: learner.or("image_side", &integer(4..=256, "pixels"), 16),
        batch_size: learner.or("batch_size", &integer(1..=65_536, "images"), 64),
        iterations_per_epoch: learner.or("iterations_per_epoch", &integer(1..=100_000, "batches"), 16),
        learning_rate: learner.or("learning_rate", &number(1e-9, 1.0, "learning rate"), 0.001),
        weight_decay: learner.or("weight_decay", &number(0.0, 1.0, "weight decay"), 0.0001),
    };
    learner.finish();
    out
}

pub(super) fn experiment(mut experiment: Section<'_, '_>, strategy: &str) -> Experiment {
    let strategies = Distinct { of: IDENTIFIER, or_one: true };
    let out = Experiment {
        strategies: experiment.or("strategies", &strategies, vec![strategy.to_owned()]),
        learner_seeds: experiment.or("learner_seeds", &integer(2..=1000, "learners"), 10),
        many_class_count: experiment.or("many_class_count", &integer(1..=i64::MAX, "images"), 100),
        worst_classes: experiment.or("worst_classes", &integer(1..=100_000, "classes"), 3),
        pretraining: experiment.optional("pretraining", &PATH).map(PathBuf::from),
        splits: splits(&mut experiment),
    };
    experiment.finish();
    out
}

fn splits(experiment: &mut Section<'_, '_>) -> Vec<DataSplit> {
    let edits = Distinct { of: EDIT, or_one: true };
    let mut seeds = BTreeSet::new();
    experiment.each("split", |mut split| {
        let seed = split.required("seed", &integer(0..=i64::from(u32::MAX), ""));
        if !seeds.insert(seed) {
            split.refuse("seed", format!("found {} a second time", text::quote(&seed.to_string())));
        }
        let out = DataSplit { seed, set: split.optional("set", &edits).unwrap_or_default() };
        split.finish();
        out
    })
}
