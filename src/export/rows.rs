//! Which rows an export has: the queries of `sql/export`, and what may be wrong with their rows.

use std::{collections::BTreeMap, sync::Arc};

use arrow::{
    array::{Array, ArrayRef, AsArray, Int64Array, RecordBatch, StringArray},
    compute::cast,
    datatypes::{DataType, Int64Type},
};
use datafusion::{dataframe::DataFrame, prelude::SessionContext};

use super::{Classes, Form, Options};
use crate::{
    error::{Error, Result},
    pipeline::Pipeline,
    plan::catalogue::Parameter,
    session::{self, Snapshot},
};

const MANIFEST: &str = "export/manifest.sql";
/// The largest label where each has a folder.
const MOST_FOLDERS: i64 = 1 << 16;

/// A row of the manifest, and the image that it stands for. As JSON, what is of use to a trainer.
#[derive(Debug, Clone, serde::Serialize)]
pub(super) struct Row {
    pub(super) curriculum: String,
    pub(super) trial: String,
    pub(super) epoch: i64,
    pub(super) position: i64,
    pub(super) sample_id: String,
    pub(super) source_id: String,
    pub(super) label: i64,
    pub(super) class_name: String,
    pub(super) origin: String,
    pub(super) image_guidance: i64,
    pub(super) seed: Option<i64>,
    pub(super) attempt: Option<i64>,
    /// Of `pixels` or `spectrum`.
    #[serde(skip)]
    pub(super) image_id: String,
    /// Of a real image, in the source.
    #[serde(skip)]
    pub(super) path: Option<String>,
    /// The SHA-256 of a real image.
    #[serde(skip)]
    pub(super) digest: Option<String>,
}

/// An epoch of one training run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Epoch {
    curriculum: String,
    trial: String,
    pub(super) epoch: i64,
    pub(super) rows: usize,
}

/// What was asked for, on the tables as they were when it was.
pub(super) struct Selection<'a> {
    pipeline: &'a Pipeline,
    pub(super) snapshot: Snapshot,
    parameters: BTreeMap<String, Parameter>,
    pub(super) epochs: Vec<Epoch>,
    pub(super) classes: Classes,
}

impl<'a> Selection<'a> {
    /// Finds the epochs.
    ///
    /// # Errors
    /// Where the lake cannot be read.
    pub(super) async fn new(pipeline: &'a Pipeline, options: &Options) -> Result<Self> {
        let snapshot = pipeline.session.snapshot(&pipeline.own_tables).await?;
        let text = |value: &Option<String>| value.clone().map_or(Parameter::Null, Parameter::Text);
        let mut parameters = pipeline.plan.parameters.clone();
        parameters.extend([
            ("first_epoch".to_owned(), Parameter::Integer(options.epochs.first)),
            ("last_epoch".to_owned(), Parameter::Integer(options.epochs.last)),
            ("curriculum".to_owned(), text(&options.curriculum)),
            ("trial".to_owned(), text(&options.trial)),
        ]);
        let mut selection = Self { pipeline, snapshot, parameters, epochs: Vec::new(), classes: Classes::new() };
        for batch in selection.ask("export/epochs.sql").await? {
            selection.epochs.extend(epochs(&batch)?);
        }
        for batch in selection.ask("export/classes.sql").await? {
            let names = Columns("export/classes.sql", &batch);
            let (labels, names) = (names.integers("label")?, names.texts("class_name")?);
            let named = labels.iter().zip(&names).filter_map(|(label, name)| Some((label?, name?.to_owned())));
            selection.classes.extend(named);
        }
        Ok(selection)
    }

    /// The rows of a query over those of the export.
    async fn ask(&self, query: &str) -> Result<Vec<RecordBatch>> {
        let context = self.pipeline.session.context(&self.snapshot, &Arc::default())?;
        let rows = self.query(&context, MANIFEST, &self.parameters).await?;
        context.register_table("export_rows", rows.into_view()).map_err(|error| Error::query(query, error))?;
        let rows = self.query(&context, query, &self.parameters).await?;
        rows.collect().await.map_err(|error| Error::query(query, error))
    }

    async fn query(
        &self,
        context: &SessionContext,
        name: &str,
        parameters: &BTreeMap<String, Parameter>,
    ) -> Result<DataFrame> {
        session::query(context, name, &self.pipeline.catalogue.get(name)?.bind(parameters)?).await
    }

    /// Everything that is wrong with the rows.
    ///
    /// # Errors
    /// Where the lake cannot be read.
    pub(super) async fn problems(&self, form: Form) -> Result<Vec<Error>> {
        let mut problems = Vec::new();
        problems.extend(self.no_rows());
        let mut runs: Vec<_> = self.epochs.iter().map(|epoch| (&epoch.curriculum, &epoch.trial)).collect();
        runs.dedup();
        if runs.len() > 1 {
            let runs: Vec<_> = runs.iter().map(|(curriculum, trial)| format!("`{curriculum}` `{trial}`")).collect();
            problems.push(Error::Data(format!(
                "the manifest has several curricula or trials, and an export is of one; `--curriculum` and `--trial` \
                 choose among {}",
                runs.join(", ")
            )));
        }
        for batch in self.ask("export/problems.sql").await? {
            problems.extend(unresolved(&batch)?);
        }
        let (least, most) = (self.classes.keys().next(), self.classes.keys().next_back());
        if form == Form::ImageFolder
            && let Some(label) = least.into_iter().chain(most).find(|label| !(0..MOST_FOLDERS).contains(*label))
        {
            problems.push(Error::Data(format!(
                "a class has the label {label}, and folders stand for the labels 0 to {}; `--as parquet` and \
                 `--as webdataset` take any",
                MOST_FOLDERS - 1
            )));
        }
        Ok(problems)
    }

    fn no_rows(&self) -> Option<Error> {
        let asked = |name: &str| self.parameters.get(name).map(ToString::to_string).unwrap_or_default();
        let epochs = match asked("last_epoch") {
            last if last == i64::MAX.to_string() => "any epoch".to_owned(),
            last => format!("the epochs {} to {last}", asked("first_epoch")),
        };
        self.epochs.is_empty().then(|| {
            Error::Data(format!(
                "the manifest has no rows for {epochs}, curriculum {}, trial {}\nhint: `discl-pipe run` \
                 makes them; `SELECT DISTINCT curriculum, trial, epoch FROM manifest` says what there is",
                asked("curriculum"),
                asked("trial")
            ))
        })
    }

    /// The rows of an epoch, in order.
    ///
    /// # Errors
    /// Where the lake cannot be read.
    pub(super) async fn rows(&self, epoch: &Epoch) -> Result<Vec<Row>> {
        let mut parameters = self.parameters.clone();
        parameters.extend(["first_epoch", "last_epoch"].map(|name| (name.to_owned(), Parameter::Integer(epoch.epoch))));
        let context = self.pipeline.session.context(&self.snapshot, &Arc::default())?;
        let rows = self.query(&context, MANIFEST, &parameters).await?;
        let mut found = Vec::with_capacity(epoch.rows);
        for batch in rows.collect().await.map_err(|error| Error::query(MANIFEST, error))? {
            found.extend(manifest_rows(&batch)?);
        }
        Ok(found)
    }
}

fn epochs(batch: &RecordBatch) -> Result<Vec<Epoch>> {
    let columns = Columns("export/epochs.sql", batch);
    let (curricula, trials) = (columns.texts("curriculum")?, columns.texts("trial")?);
    let (epochs, rows) = (columns.integers("epoch")?, columns.integers("rows")?);
    let epoch = |row| Epoch {
        curriculum: curricula.value(row).to_owned(),
        trial: trials.value(row).to_owned(),
        epoch: epochs.value(row),
        rows: usize::try_from(rows.value(row)).unwrap_or_default(),
    };
    Ok((0..batch.num_rows()).map(epoch).collect())
}

/// The rows without exactly one image.
fn unresolved(batch: &RecordBatch) -> Result<Option<Error>> {
    let columns = Columns("export/problems.sql", batch);
    let (epochs, positions) = (columns.integers("epoch")?, columns.integers("position")?);
    let (samples, images) = (columns.texts("sample_id")?, columns.integers("images")?);
    let total = columns.integers("total")?;
    let rows: Vec<_> = (0..batch.num_rows())
        .map(|row| {
            let what = match images.value(row) {
                0 => "no image".to_owned(),
                1 => "no image of its source".to_owned(),
                several => format!("{several} images"),
            };
            let (epoch, position, sample) = (epochs.value(row), positions.value(row), samples.value(row));
            format!("epoch {epoch}, position {position}, sample `{sample}` has {what}")
        })
        .collect();
    let total = total.iter().flatten().next();
    Ok(total.map(|total| {
        Error::Data(format!(
            "{total} rows of the manifest have not exactly one image: {}\nhint: `discl-pipe verify` looks for the \
             cause, `discl-pipe run` brings the manifest up to date",
            rows.join("; ")
        ))
    }))
}

fn manifest_rows(batch: &RecordBatch) -> Result<Vec<Row>> {
    let columns = Columns(MANIFEST, batch);
    let names = ["curriculum", "trial", "sample_id", "source_id", "class_name", "origin", "image_id", "path", "digest"];
    let texts = names.map(|name| columns.texts(name));
    let [curricula, trials, samples, sources, classes, origins, images, paths, digests] = all(texts)?;
    let numbers =
        ["epoch", "position", "label", "image_guidance", "seed", "attempt"].map(|name| columns.integers(name));
    let [epochs, positions, labels, guidances, seeds, attempts] = all(numbers)?;
    let text = |column: &StringArray, row| column.value(row).to_owned();
    let optional_text = |column: &StringArray, row| column.is_valid(row).then(|| column.value(row).to_owned());
    let optional = |column: &Int64Array, row| column.is_valid(row).then(|| column.value(row));
    let row = |row| Row {
        curriculum: text(&curricula, row),
        trial: text(&trials, row),
        epoch: epochs.value(row),
        position: positions.value(row),
        sample_id: text(&samples, row),
        source_id: text(&sources, row),
        label: labels.value(row),
        class_name: text(&classes, row),
        origin: text(&origins, row),
        image_guidance: guidances.value(row),
        seed: optional(&seeds, row),
        attempt: optional(&attempts, row),
        image_id: text(&images, row),
        path: optional_text(&paths, row),
        digest: optional_text(&digests, row),
    };
    Ok((0..batch.num_rows()).map(row).collect())
}

/// All of them, or the first error.
fn all<T, const N: usize>(found: [Result<T>; N]) -> Result<[T; N]> {
    let found: Vec<T> = found.into_iter().collect::<Result<_>>()?;
    found.try_into().map_err(|_| Error::Data("an export has other columns than were asked for".into()))
}

/// The columns of what a query gives, by name.
pub(super) struct Columns<'a>(pub(super) &'static str, pub(super) &'a RecordBatch);

impl Columns<'_> {
    fn column(&self, name: &str, data_type: &DataType) -> Result<ArrayRef> {
        let found = self.1.column_by_name(name).and_then(|column| cast(column, data_type).ok());
        found.ok_or_else(|| Error::Query {
            query: self.0.into(),
            message: format!("it has no column `{name}` of {data_type}s"),
        })
    }

    pub(super) fn texts(&self, name: &str) -> Result<StringArray> {
        Ok(self.column(name, &DataType::Utf8)?.as_string::<i32>().clone())
    }

    fn integers(&self, name: &str) -> Result<Int64Array> {
        Ok(self.column(name, &DataType::Int64)?.as_primitive::<Int64Type>().clone())
    }
}
