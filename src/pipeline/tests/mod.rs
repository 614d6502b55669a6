//! Queries of an opened pipeline, run on tables that a test fills, without pixels.

mod adaptive;
mod curricula;
mod memory;
mod shares;

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
    sync::Arc,
};

use arrow::{
    array::{ArrayRef, AsArray, Int64Array, RecordBatch, StringArray, new_null_array},
    datatypes::{Field, Int64Type},
};

use super::{Options, Pipeline};
use crate::{
    config::Config,
    identity::Digest,
    plan::{self, Inputs},
    schema,
    session::{self, Snapshot},
};

/// The digits pipeline with edits, on tables that a test fills.
struct Curricula {
    pipeline: Pipeline,
    snapshot: Snapshot,
    _lake: tempfile::TempDir,
}

impl Curricula {
    async fn open(edits: &[&str]) -> Self {
        Self::with(edits, session::Settings::default()).await
    }

    /// Opens it for tables so small that dividing them takes longer than all else.
    async fn small(edits: &[&str]) -> Self {
        Self::with(edits, session::Settings { target_partitions: 1, ..session::Settings::default() }).await
    }

    async fn with(edits: &[&str], settings: session::Settings) -> Self {
        let lake = tempfile::tempdir().unwrap();
        let options = Options {
            set: with_paths(edits),
            lake: Some(lake.path().display().to_string()),
            session: settings,
            ..Options::default()
        };
        let pipeline = Pipeline::open(&pipeline_file(), &options).await.unwrap();
        let snapshot = pipeline.project.session.empty().unwrap();
        Self { pipeline, snapshot, _lake: lake }
    }

    /// Replaces the edits of the pipeline. Tables stay as they are. Returns the problems of the edits.
    fn edit(&mut self, edits: &[String]) -> Result<(), String> {
        let edits: Vec<&str> = edits.iter().map(String::as_str).collect();
        let config = Config::load(&pipeline_file(), &with_paths(&edits)).map_err(|problems| problems.to_string())?;
        let inputs = Inputs { outside: None, feedback: String::new() };
        let project = &mut self.pipeline.project;
        project.plan = plan::compile(&config, &project.catalogue, &inputs).unwrap();
        project.config = config;
        Ok(())
    }

    /// Sets the rows of a table. Missing columns are NULL.
    fn set(&mut self, table: &str, columns: &[(&str, ArrayRef)]) {
        let rows = batch(table, columns);
        self.snapshot.set(table, rows.schema(), vec![rows]).unwrap();
    }

    /// Runs the query of a step, and returns the rows of its table.
    async fn fill(&mut self, table: &str) -> Vec<RecordBatch> {
        let step = self.pipeline.project.plan.steps.iter().find(|step| step.table.name == table).unwrap();
        let context = self.pipeline.project.session.context(&self.snapshot).unwrap();
        let rows = session::query(&context, table, &step.statement).await.unwrap().collect().await.unwrap();
        let rows = schema::conform::conform_batches(table, &rows, &step.table.schema).unwrap();
        self.snapshot.set(table, Arc::clone(&step.table.schema), rows.clone()).unwrap();
        rows
    }

    /// Sets a long-tailed data set. `classes` has the number of training images of each class, and `kept` returns the
    /// number of kept images for a hard image and a level. Every class also has a test image.
    async fn long_tail(&mut self, classes: &[i64], levels: &[i64], kept: impl Fn(usize, i64) -> usize) {
        let id = |parts: [i64; 3]| parts.iter().fold(Digest::new("t"), |d, part| d.part(&part.to_le_bytes())).id();
        let (mut ids, mut labels, mut splits) = (Vec::new(), Vec::new(), Vec::new());
        for (label, &count) in (0..).zip(classes) {
            for number in 0..=count {
                ids.push(id([label, number, -1]));
                labels.push(label);
                splits.push(if number == count { "test" } else { "train" });
            }
        }
        let names: Vec<String> = labels.iter().map(|label| format!("class {label}")).collect();
        let columns = [
            ("source_id", strings(&ids)),
            ("label", integers(&labels)),
            ("class_name", strings(&names)),
            ("split", strings(&splits)),
        ];
        self.set("images", &columns);
        self.fill("classes").await;
        let (mut sources, mut samples, mut labels, mut guidances) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        let mut hard = BTreeSet::new();
        for batch in self.fill("hard_samples").await {
            let labels = batch.column_by_name("label").unwrap().as_primitive::<Int64Type>();
            let sources = batch.column_by_name("source_id").unwrap().as_string::<i32>();
            hard.extend(sources.iter().flatten().map(str::to_owned).zip(labels.iter().flatten()));
        }
        for (row, (source, label)) in hard.into_iter().enumerate() {
            for &level in levels {
                for number in 0..kept(row, level) {
                    samples.push(Digest::new("s").text(&source).text(&format!("{level} {number}")).id());
                    sources.push(source.clone());
                    labels.push(label);
                    guidances.push(level);
                }
            }
        }
        self.set(
            "kept",
            &[
                ("sample_id", strings(&samples)),
                ("source_id", strings(&sources)),
                ("label", integers(&labels)),
                ("image_guidance", integers(&guidances)),
            ],
        );
    }

    /// Returns the levels of the epochs, with runs of equal epochs merged: `0+10 ×3, 100 ×2`.
    async fn schedule(&mut self) -> String {
        let mut levels: BTreeMap<i64, BTreeSet<i64>> = BTreeMap::new();
        for batch in self.fill("schedule").await {
            let column = |name| batch.column_by_name(name).unwrap().as_primitive::<Int64Type>();
            for (epoch, level) in column("epoch").iter().zip(column("image_guidance")) {
                levels.entry(epoch.unwrap()).or_default().insert(level.unwrap());
            }
        }
        assert_eq!(levels.keys().copied().collect::<Vec<_>>(), (0..levels.len() as i64).collect::<Vec<_>>());
        let mut runs: Vec<(String, usize)> = Vec::new();
        for levels in levels.values() {
            let levels = levels.iter().map(i64::to_string).collect::<Vec<_>>().join("+");
            match runs.last_mut() {
                Some((last, count)) if *last == levels => *count += 1,
                _ => runs.push((levels, 1)),
            }
        }
        runs.into_iter().map(|(levels, count)| format!("{levels} ×{count}")).collect::<Vec<_>>().join(", ")
    }

    /// Returns the levels of each epoch of the schedule.
    async fn levels_by_epoch(&self) -> BTreeMap<i64, Vec<i64>> {
        let context = self.pipeline.project.session.context(&self.snapshot).unwrap();
        let mut levels: BTreeMap<i64, Vec<i64>> = BTreeMap::new();
        for batch in context.table("schedule").await.unwrap().collect().await.unwrap() {
            let column = |name| batch.column_by_name(name).unwrap().as_primitive::<Int64Type>();
            for (epoch, level) in column("epoch").values().iter().zip(column("image_guidance").values()) {
                levels.entry(*epoch).or_default().push(*level);
            }
        }
        levels
    }

    /// Returns the rows of the manifest, in order.
    async fn manifest(&mut self) -> Vec<Row> {
        self.fill("validation").await;
        self.fill("schedule").await;
        let mut rows = Vec::new();
        for batch in self.fill("manifest").await {
            let integer = |name| batch.column_by_name(name).unwrap().as_primitive::<Int64Type>();
            let text = |name| batch.column_by_name(name).unwrap().as_string::<i32>();
            for row in 0..batch.num_rows() {
                rows.push(Row {
                    epoch: integer("epoch").value(row),
                    position: integer("position").value(row),
                    sample: text("sample_id").value(row).to_owned(),
                    source: text("source_id").value(row).to_owned(),
                    trial: text("trial").value(row).to_owned(),
                    origin: text("origin").value(row).to_owned(),
                    level: integer("image_guidance").value(row),
                    label: integer("label").value(row),
                });
            }
        }
        rows.sort();
        rows
    }

    /// Returns the result of a query as a text table.
    async fn text(&self, query: &str) -> String {
        let context = self.pipeline.project.session.context(&self.snapshot).unwrap();
        let rows = context.sql(query).await.unwrap().collect().await.unwrap();
        arrow::util::pretty::pretty_format_batches(&rows).unwrap().to_string()
    }

    async fn ids(&self, table: &str, column: &str) -> BTreeSet<String> {
        let context = self.pipeline.project.session.context(&self.snapshot).unwrap();
        let rows = context.table(table).await.unwrap().select_columns(&[column]).unwrap().collect().await.unwrap();
        let ids = |batch: &RecordBatch| -> Vec<String> {
            batch.column(0).as_string::<i32>().iter().map(|id| id.unwrap().to_owned()).collect()
        };
        rows.iter().flat_map(ids).collect()
    }
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Row {
    trial: String,
    epoch: i64,
    position: i64,
    sample: String,
    source: String,
    origin: String,
    level: i64,
    label: i64,
}

fn pipeline_file() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("pipelines/digits_lt.toml")
}

/// Returns edits after those that say where data and models are.
fn with_paths(edits: &[&str]) -> Vec<String> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let at = |key: &str, path: &str| format!("{key}={}", root.join(path).display());
    let paths = [
        at("source.root", "data/digits_lt"),
        at("models.diffusion", "models/digits"),
        at("models.clip", "models/digits/clip"),
    ];
    paths.into_iter().chain(edits.iter().map(|edit| (*edit).to_owned())).collect()
}

/// Returns rows of a table. Missing columns are NULL.
fn batch(table: &str, columns: &[(&str, ArrayRef)]) -> RecordBatch {
    let schema = Arc::clone(&schema::find(table).unwrap().schema);
    let rows = columns[0].1.len();
    let column = |field: &Arc<Field>| {
        let found = columns.iter().find(|(name, _)| name == field.name());
        found.map_or_else(|| new_null_array(field.data_type(), rows), |(_, column)| Arc::clone(column))
    };
    RecordBatch::try_new(Arc::clone(&schema), schema.fields().iter().map(column).collect()).unwrap()
}

fn strings<T: AsRef<str>>(values: &[T]) -> ArrayRef {
    Arc::new(StringArray::from_iter_values(values))
}

fn integers(values: &[i64]) -> ArrayRef {
    Arc::new(Int64Array::from_iter_values(values.iter().copied()))
}
