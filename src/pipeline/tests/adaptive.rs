//! Adaptive curricula through edits, with feedback in between.

use std::{collections::BTreeSet, sync::Arc};

use arrow::array::{ArrayRef, AsArray, Float64Array};

use super::{Curricula, batch, integers, strings};
use crate::{
    feedback::{Awaited, awaited_on, problems_of},
    identity::Digest,
};

/// Rows of feedback.
#[derive(Clone, Default)]
struct Rows {
    curriculum: Vec<String>,
    trial: Vec<String>,
    epoch: Vec<i64>,
    phase: Vec<String>,
    sample: Vec<String>,
    probability: Vec<f64>,
}

impl Rows {
    fn columns(&self) -> [(&'static str, ArrayRef); 6] {
        [
            ("curriculum", strings(&self.curriculum)),
            ("trial", strings(&self.trial)),
            ("epoch", integers(&self.epoch)),
            ("phase", strings(&self.phase)),
            ("sample_id", strings(&self.sample)),
            ("probability", Arc::new(Float64Array::from(self.probability.clone()))),
        ]
    }

    fn extend(&mut self, more: Self) {
        self.curriculum.extend(more.curriculum);
        self.trial.extend(more.trial);
        self.epoch.extend(more.epoch);
        self.phase.extend(more.phase);
        self.sample.extend(more.sample);
        self.probability.extend(more.probability);
    }
}

/// A training that is edited while it runs.
struct Walk {
    curricula: Curricula,
    feedback: Rows,
    edits: Vec<String>,
    draws: u64,
}

impl Walk {
    async fn new(seed: u64) -> Self {
        let edits = [
            "curriculum.strategy=adaptive",
            "curriculum.probe_size=3",
            "curriculum.epochs=5",
            "curriculum.curriculum_epochs=3",
            "curriculum.trials=[\"one\"]",
            "validation.sources=4",
            "spectrum.image_guidance=[10,50,90]",
            "hard_samples.max_class_count=20",
        ];
        let curricula = Curricula::small(&edits).await;
        let edits = edits.map(str::to_owned).to_vec();
        Self { curricula, feedback: Rows::default(), edits, draws: seed << 32 }
    }

    fn below(&mut self, end: u64) -> u64 {
        self.draws += 1;
        Digest::new("walk").part(&self.draws.to_le_bytes()).draw(end)
    }

    fn set(&mut self, key: &str, value: &str) {
        let edit = format!("{key}={value}");
        match self.edits.iter_mut().find(|edit| edit.starts_with(&format!("{key}="))) {
            Some(old) => *old = edit,
            None => self.edits.push(edit),
        }
    }

    fn choose(&mut self, of: &[&'static str]) -> &'static str {
        of[usize::try_from(self.below(of.len() as u64)).unwrap()]
    }

    /// Edits the pipeline at random, and makes its tables.
    async fn edit(&mut self) {
        let keys = [
            ("curriculum.curriculum_epochs", &["1", "2", "3", "4"][..]),
            ("curriculum.trials", &["[\"one\"]", "[\"two\"]", "[\"one\",\"two\"]", "[\"three\",\"two\"]"]),
            ("validation.sources", &["2", "4", "6"]),
            ("curriculum.levels", &["[10,50,90]", "[50,90,100]", "[10,100]"]),
            ("curriculum.strategy", &["adaptive", "adaptive", "adaptive_by_class", "least_gain", "random_choice"]),
            ("curriculum.exploration", &["0", "0.5"]),
            ("curriculum.class_balanced", &["true", "false"]),
            ("curriculum.non_hard_fraction", &["0.5", "1"]),
            ("hard_samples.max_class_count", &["20", "10"]),
            // A threshold keeps other images of the first slots.
            ("filter.min_text_similarity", &["0.5", "0.6"]),
        ];
        let (key, values) = keys[usize::try_from(self.below(keys.len() as u64)).unwrap()];
        let value = self.choose(values).to_owned();
        // A user who is told that a trial cannot go on begins a new one.
        let is_stuck = self.awaited().await.iter().all(|awaited| awaited.stale);
        let (key, value) = match is_stuck && self.below(2) == 0 {
            true => ("curriculum.trials", format!("[\"{}\",\"two\"]", self.draws)),
            false => (key, value),
        };
        self.set(key, &value);
        self.curricula.edit(&self.edits).unwrap();
        let kept = if self.edits.iter().any(|edit| edit.ends_with("=0.6")) { 1 } else { 2 };
        self.curricula.long_tail(&[40, 30, 12, 6], &[10, 50, 90], |row, _| kept + row % 2).await;
        self.curricula.fill("validation").await;
        self.compute().await;
    }

    /// Makes the tables that depend on feedback, and checks the schedule.
    async fn compute(&mut self) {
        self.curricula.set("feedback", &self.feedback.columns());
        self.curricula.fill("progress").await;
        let schedule = self.curricula.fill("schedule").await;
        let config = &self.curricula.pipeline.project.config.curriculum;
        let mut seen = BTreeSet::new();
        for batch in schedule {
            let trials = batch.column_by_name("trial").unwrap().as_string::<i32>().clone();
            let integer =
                |name| batch.column_by_name(name).unwrap().as_primitive::<arrow::datatypes::Int64Type>().clone();
            let (epochs, levels, labels) = (integer("epoch"), integer("image_guidance"), integer("label"));
            for row in 0..batch.num_rows() {
                let (trial, epoch, label) = (trials.value(row).to_owned(), epochs.value(row), labels.iter().nth(row));
                assert!(config.trials.contains(&trial) && epoch < config.epochs, "{trial} {epoch}: {:?}", self.edits);
                let is_real = epoch >= config.curriculum_epochs;
                assert!(!is_real || levels.value(row) == 100, "epoch {epoch} after the curriculum: {:?}", self.edits);
                assert!(config.levels.contains(&levels.value(row)) || is_real, "{:?}", self.edits);
                assert!(seen.insert((trial, epoch, label)), "two levels in epoch {epoch}: {:?}", self.edits);
            }
        }
    }

    async fn awaited(&self) -> Vec<Awaited> {
        awaited_on(&self.curricula.pipeline.project, &self.curricula.snapshot).await.unwrap()
    }

    /// Returns measurements of today's validation set.
    async fn measure(&mut self, trial: &str, epoch: i64, phases: &[&str]) -> Rows {
        let mut rows = Rows::default();
        let strategy = self.curricula.pipeline.project.config.curriculum.strategy.clone();
        for sample in self.curricula.ids("validation", "sample_id").await {
            for phase in phases {
                rows.curriculum.push(strategy.clone());
                rows.trial.push(trial.to_owned());
                rows.epoch.push(epoch);
                rows.phase.push((*phase).to_owned());
                rows.sample.push(sample.clone());
                rows.probability.push(self.below(1000) as f64 / 1000.0);
            }
        }
        rows
    }

    /// Hands feedback in, and returns what is wrong with it.
    async fn submit(&mut self, rows: Rows) -> Vec<String> {
        let mut snapshot = self.curricula.snapshot.clone();
        let incoming = batch("feedback", &rows.columns());
        snapshot.set("incoming", incoming.schema(), vec![incoming]).unwrap();
        let problems = problems_of(&self.curricula.pipeline.project, &snapshot).await.unwrap();
        if problems.is_empty() {
            self.feedback.extend(rows);
            self.compute().await;
        }
        problems
    }
}

/// Whatever is edited, what a curriculum waits for is accepted, and what it cannot accept is not awaited.
#[tokio::test]
async fn feedback_that_is_awaited_is_accepted_after_any_edits() {
    let (mut accepted, mut stale) = (0, 0);
    for seed in 0..2 {
        let mut walk = Walk::new(seed).await;
        walk.edit().await;
        for _ in 0..20 {
            walk.edit().await;
            for Awaited { trial, epoch, before, after, stale: is_stale } in walk.awaited().await {
                let phases: Vec<&str> =
                    [("before", before), ("after", after)].into_iter().filter(|p| p.1).map(|p| p.0).collect();
                assert!(is_stale || !phases.is_empty(), "nothing is missing: {:?}", walk.edits);
                let phases = if is_stale { vec!["before", "after"] } else { phases };
                // Sometimes the trainer stops between its two measurements.
                let phases = if !is_stale && walk.below(4) == 0 { &phases[..1] } else { &phases[..] };
                let rows = walk.measure(&trial, epoch, phases).await;
                let problems = walk.submit(rows).await;
                if is_stale {
                    stale += 1;
                    let said = problems.iter().any(|problem| problem.contains("add a new trial"));
                    assert!(said, "{trial} {epoch}: {problems:?} {:?}", walk.edits);
                } else {
                    accepted += 1;
                    assert_eq!(problems, Vec::<String>::new(), "{trial} {epoch}: {:?}", walk.edits);
                }
            }
        }
        // A new trial, left alone, comes to its end.
        walk.set("curriculum.trials", "[\"last\"]");
        walk.edit().await;
        walk.set("curriculum.trials", "[\"last\"]");
        walk.curricula.edit(&walk.edits.clone()).unwrap();
        walk.compute().await;
        let epochs = walk.curricula.pipeline.project.config.curriculum.curriculum_epochs;
        for epoch in 0..epochs {
            let [awaited] = &walk.awaited().await[..] else { panic!("{:?}", walk.edits) };
            assert_eq!((awaited.epoch, awaited.stale), (epoch, false), "{:?}", walk.edits);
            let rows = walk.measure("last", epoch, &["before", "after"]).await;
            assert_eq!(walk.submit(rows).await, Vec::<String>::new());
        }
        assert_eq!(walk.awaited().await, []);
    }
    assert!(accepted > 15 && stale > 10, "{accepted} accepted, {stale} of stale trials");
}
