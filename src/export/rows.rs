//! The rows of an export: the queries of `sql/export`, and the problems that their rows may have.

use arrow::array::{Array, Int64Array, StringArray};

use super::{
    Classes, Format, Options,
    error::{ExportError, RowName},
};
use crate::{
    error::{Error, Result},
    identity::Digest,
    pipeline::Project,
    plan::catalogue::Parameter,
    schema::columns::{Answer, Columns},
    session::Snapshot,
};

const MANIFEST: &str = "export/manifest.sql";
/// The largest label of an export in which each label has a folder.
const MAX_LABEL: i64 = (1 << 16) - 1;

/// A row of the manifest and the image that it refers to. As JSON, it has what a trainer can use.
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
    #[serde(flatten)]
    pub(super) texts: Texts,
    /// The id in `pixels` or `spectrum`.
    #[serde(skip)]
    pub(super) image_id: String,
    /// The path of a real image in the source.
    #[serde(skip)]
    pub(super) path: Option<String>,
}

/// What a trainer that learns from text can use.
#[derive(Debug, Clone, serde::Serialize)]
pub(super) struct Texts {
    /// What a synthetic image was generated from.
    pub(super) prompt: Option<String>,
    pub(super) filter_prompt: Option<String>,
    pub(super) common_name: Option<String>,
    pub(super) captions: Vec<String>,
}

impl Row {
    /// Adds everything that an export has of the row to `digest`.
    pub(super) fn digest(&self, digest: Digest) -> Digest {
        let Self { curriculum, trial, epoch, position, label, image_guidance, seed, attempt, .. } = self;
        let Self { texts, path, .. } = self;
        let numbers = format!("{epoch} {position} {label} {image_guidance} {seed:?} {attempt:?} {path:?} {texts:?}");
        [curriculum, trial, &self.sample_id, &self.source_id, &self.class_name, &self.origin, &self.image_id, &numbers]
            .into_iter()
            .fold(digest, |digest, part| digest.text(part))
    }

    pub(super) fn name(&self) -> RowName {
        RowName { epoch: self.epoch, position: self.position, sample_id: self.sample_id.clone() }
    }
}

/// An epoch of one training run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Epoch {
    pub(super) curriculum: String,
    pub(super) trial: String,
    pub(super) epoch: i64,
    pub(super) rows: usize,
}

/// The requested rows, on the tables as they were at the request.
pub(super) struct Selection<'a> {
    project: &'a Project,
    pub(super) snapshot: Snapshot,
    parameters: Vec<(&'static str, Parameter)>,
    pub(super) epochs: Vec<Epoch>,
    pub(super) classes: Classes,
}

impl<'a> Selection<'a> {
    /// Finds the epochs and the classes.
    ///
    /// # Errors
    /// Returns an error if the lake cannot be read.
    pub(super) async fn new(project: &'a Project, options: &Options) -> Result<Self> {
        let snapshot = project.session.snapshot().await?;
        let text = |value: &Option<String>| value.clone().map_or(Parameter::Null, Parameter::Text);
        let parameters = vec![
            ("first_epoch", Parameter::Integer(options.epochs.first)),
            ("last_epoch", Parameter::Integer(options.epochs.last)),
            ("curriculum", text(&options.curriculum)),
            ("trial", text(&options.trial)),
        ];
        let mut selection = Self { project, snapshot, parameters, epochs: Vec::new(), classes: Classes::new() };
        for columns in selection.query("export/epochs.sql").await?.columns() {
            selection.epochs.extend(epochs(columns)?);
        }
        for columns in selection.query("export/classes.sql").await?.columns() {
            let (labels, names) = (columns.integers("label")?, columns.strings("class_name")?);
            let named = labels.iter().zip(&names).filter_map(|(label, name)| Some((label?, name?.to_owned())));
            selection.classes.extend(named);
        }
        Ok(selection)
    }

    /// Runs a query over the rows of the export, which it reads as `export_rows`.
    async fn query(&self, query: &str) -> Result<Answer> {
        let context = self.project.session.context(&self.snapshot)?;
        let rows = self.project.plan_query(&context, MANIFEST, &self.parameters).await?;
        context.register_table("export_rows", rows.into_view()).map_err(|error| Error::query(query, error))?;
        let rows = self.project.plan_query(&context, query, &self.parameters).await?;
        let batches = rows.collect().await.map_err(|error| Error::query(query, error))?;
        Ok(Answer { query: query.to_owned(), batches })
    }

    /// Returns everything that is wrong with the rows.
    ///
    /// # Errors
    /// Returns an error if the lake cannot be read.
    pub(super) async fn problems(&self, format: Format) -> Result<Vec<Error>> {
        let mut problems = Vec::new();
        problems.extend(self.no_rows());
        let mut runs: Vec<_> = self.epochs.iter().map(|epoch| (&epoch.curriculum, &epoch.trial)).collect();
        runs.dedup();
        if runs.len() > 1 {
            let runs: Vec<_> = runs.iter().map(|(curriculum, trial)| format!("`{curriculum}` `{trial}`")).collect();
            problems.push(ExportError::SeveralRuns { runs }.into());
        }
        for columns in self.query("export/problems.sql").await?.columns() {
            problems.extend(unresolved(columns)?);
        }
        let (least, most) = (self.classes.keys().next(), self.classes.keys().next_back());
        if format == Format::ImageFolder
            && let Some(label) = least.into_iter().chain(most).find(|label| !(0..=MAX_LABEL).contains(*label))
        {
            problems.push(ExportError::LabelOutOfRange { label: *label, max: MAX_LABEL }.into());
        }
        Ok(problems)
    }

    fn no_rows(&self) -> Option<Error> {
        let parameter = |name: &str| {
            let found = self.parameters.iter().find(|(known, _)| *known == name);
            found.map(|(_, value)| value.to_string()).unwrap_or_default()
        };
        let epochs = match parameter("last_epoch") {
            last if last == i64::MAX.to_string() => "any epoch".to_owned(),
            last => format!("the epochs {} to {last}", parameter("first_epoch")),
        };
        let hint =
            "`discl-pipe run` fills it; `SELECT DISTINCT curriculum, trial, epoch FROM manifest` lists what it has";
        let (curriculum, trial) = (parameter("curriculum"), parameter("trial"));
        let no_rows = || ExportError::NoRows { epochs, curriculum, trial, hint: hint.to_owned() };
        self.epochs.is_empty().then(|| no_rows().into())
    }

    /// Returns the rows of an epoch, in order.
    ///
    /// # Errors
    /// Returns an error if the lake cannot be read.
    pub(super) async fn rows(&self, epoch: &Epoch) -> Result<Vec<Row>> {
        let mut parameters = self.parameters.clone();
        parameters.extend(["first_epoch", "last_epoch"].map(|name| (name, Parameter::Integer(epoch.epoch))));
        let answer = self.project.query_on(&self.snapshot, MANIFEST, &parameters).await?;
        let mut found = Vec::with_capacity(epoch.rows);
        for columns in answer.columns() {
            found.extend(manifest_rows(columns)?);
        }
        Ok(found)
    }
}

fn epochs(columns: Columns<'_>) -> Result<Vec<Epoch>> {
    let (curricula, trials) = (columns.strings("curriculum")?, columns.strings("trial")?);
    let (epochs, rows) = (columns.integers("epoch")?, columns.integers("rows")?);
    let epoch = |row| Epoch {
        curriculum: curricula.value(row).to_owned(),
        trial: trials.value(row).to_owned(),
        epoch: epochs.value(row),
        rows: usize::try_from(rows.value(row)).unwrap_or_default(),
    };
    Ok((0..columns.rows()).map(epoch).collect())
}

/// Returns the error about rows without exactly one image, if there are any.
fn unresolved(columns: Columns<'_>) -> Result<Option<Error>> {
    let (epochs, positions) = (columns.integers("epoch")?, columns.integers("position")?);
    let (samples, images) = (columns.strings("sample_id")?, columns.integers("images")?);
    let total = columns.integers("total")?;
    let rows: Vec<_> = (0..columns.rows())
        .map(|row| {
            let what = match images.value(row) {
                0 => "no image".to_owned(),
                1 => "no image of its source".to_owned(),
                several => format!("{several} images"),
            };
            let (epoch, position, sample) = (epochs.value(row), positions.value(row), samples.value(row));
            format!("{} has {what}", RowName { epoch, position, sample_id: sample.to_owned() })
        })
        .collect();
    let total = total.iter().flatten().next();
    Ok(total.map(|total| ExportError::NoSingleImage { total, rows }.into()))
}

fn manifest_rows(columns: Columns<'_>) -> Result<Vec<Row>> {
    let (curricula, trials) = (columns.strings("curriculum")?, columns.strings("trial")?);
    let (epochs, positions) = (columns.integers("epoch")?, columns.integers("position")?);
    let (samples, sources) = (columns.strings("sample_id")?, columns.strings("source_id")?);
    let (labels, classes) = (columns.integers("label")?, columns.strings("class_name")?);
    let (origins, guidances) = (columns.strings("origin")?, columns.integers("image_guidance")?);
    let (seeds, attempts) = (columns.integers("seed")?, columns.integers("attempt")?);
    let (images, paths) = (columns.strings("image_id")?, columns.strings("path")?);
    let [prompts, filter_prompts] = [columns.strings("prompt")?, columns.strings("filter_prompt")?];
    let (common_names, captions) = (columns.strings("common_name")?, columns.lists("captions")?);
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
        texts: Texts {
            prompt: optional_text(&prompts, row),
            filter_prompt: optional_text(&filter_prompts, row),
            common_name: optional_text(&common_names, row),
            captions: captions[row].clone(),
        },
        image_id: text(&images, row),
        path: optional_text(&paths, row),
    };
    Ok((0..columns.rows()).map(row).collect())
}
