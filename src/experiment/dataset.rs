//! What the learner sees of a pipeline: small grayscale images in memory.

use std::collections::{BTreeMap, BTreeSet};

use super::{
    error::ExperimentError,
    learner::{Data, Shape},
};
use crate::{
    config::{self, SourceKind, Split, Splits},
    error::Result,
    imaging::{Filter, ImageError, Limits, decode, resize},
    pipeline::Project,
    schema::columns::Columns,
    source::Source,
};

/// The weights of red, green and blue in grayscale (ITU-R BT.601), equal to Pillow's.
const LUMA: [f32; 3] = [0.299, 0.587, 0.114];

/// The largest label that the learner supports.
const MAX_LABEL: u32 = (1 << 16) - 1;

/// What `sql/experiment/samples.sql` has as the split of synthetic images.
const SYNTHETIC: &str = "synthetic";

/// A classification problem.
#[derive(Debug)]
pub(super) struct Task {
    /// Everything that a method may train on: real images of the split `train`, kept images, and the images of
    /// `experiment.pretraining`.
    pub(super) data: Data,
    /// Rows of `data` by `sample_id`.
    pub(super) rows: BTreeMap<String, usize>,
    /// The rows of all real training images, those of the spectrum validation set included.
    pub(super) real: Vec<usize>,
    /// The rows of the images of `experiment.pretraining`.
    pub(super) pretraining: Vec<usize>,
    /// The number of real training images of each class.
    pub(super) class_counts: Vec<usize>,
    /// The levels below 100 that a manifest can have images of.
    pub(super) levels: BTreeSet<i64>,
    /// The images of each split that learners are evaluated on.
    pub(super) evaluated: Vec<(Split, Data)>,
}

/// A row of `sql/experiment/samples.sql`.
struct Sample {
    sample_id: String,
    image_id: String,
    label: u32,
    split: String,
    image_guidance: i64,
    trained: bool,
}

impl Task {
    /// Reads the images of a pipeline that has run.
    ///
    /// # Errors
    /// Returns an error if a table or an image cannot be read.
    pub(super) async fn load(project: &Project) -> Result<Self> {
        let side = u32::try_from(project.config.learner.image_side).unwrap_or(u32::MAX);
        let samples = samples(project).await?;
        let mut decoded = BTreeMap::new();
        for columns in project.query("experiment/images.sql").await?.columns() {
            read_images(columns, side, &mut decoded)?;
        }
        let pretrained = pretraining_images(project, side).await?;
        let labels = samples.iter().map(|sample| sample.label).chain(pretrained.iter().map(|image| image.label));
        let classes = labels.max().map_or(1, |label| label as usize + 1);
        let shape = Shape { channels: 1, height: side as usize, width: side as usize, classes };
        let (mut real, mut levels) = (Vec::new(), BTreeSet::new());
        let (mut train, mut rows) = (Rows::default(), BTreeMap::new());
        let mut evaluated: BTreeMap<&str, Rows> = BTreeMap::new();
        for sample in &samples {
            let Some(pixels) = decoded.get(&sample.image_id) else { continue };
            match sample.split.as_str() {
                "train" => real.push(train.labels.len()),
                SYNTHETIC => levels.extend(sample.trained.then_some(sample.image_guidance)),
                split => {
                    evaluated.entry(split).or_default().push(pixels, sample.label);
                    continue;
                }
            }
            rows.insert(sample.sample_id.clone(), train.labels.len());
            train.push(pixels, sample.label);
        }
        let first = train.labels.len();
        pretrained.iter().for_each(|image| train.push(&image.pixels, image.label));
        let pretraining = (first..train.labels.len()).collect();
        let mut sets = Vec::new();
        for split in Split::ALL {
            if let Some(rows) = evaluated.remove(split.as_str()) {
                sets.push((split, rows.data(shape)?));
            }
        }
        let data = train.data(shape)?;
        let class_counts = data.class_counts(&real)?;
        Ok(Self { data, rows, real, pretraining, class_counts, levels, evaluated: sets })
    }
}

/// Pixels and labels, row by row.
#[derive(Default)]
struct Rows {
    pixels: Vec<f32>,
    labels: Vec<u32>,
}

impl Rows {
    fn push(&mut self, pixels: &[f32], label: u32) {
        self.pixels.extend_from_slice(pixels);
        self.labels.push(label);
    }

    fn data(self, shape: Shape) -> Result<Data> {
        Ok(Data::new(shape, self.pixels, self.labels)?)
    }
}

async fn samples(project: &Project) -> Result<Vec<Sample>> {
    let mut samples = Vec::new();
    for columns in project.query("experiment/samples.sql").await?.columns() {
        let (ids, image_ids) = (columns.strings("sample_id")?, columns.strings("image_id")?);
        let (labels, splits) = (columns.integers("label")?, columns.strings("split")?);
        let (levels, trained) = (columns.integers("image_guidance")?, columns.booleans("trained")?);
        for row in 0..columns.rows() {
            samples.push(Sample {
                sample_id: ids.value(row).to_owned(),
                image_id: image_ids.value(row).to_owned(),
                label: class(labels.value(row))?,
                split: splits.value(row).to_owned(),
                image_guidance: levels.value(row),
                trained: trained.value(row),
            });
        }
    }
    samples.sort_by(|a, b| a.sample_id.cmp(&b.sample_id));
    Ok(samples)
}

fn class(label: i64) -> Result<u32> {
    let small = u32::try_from(label).ok().filter(|label| *label <= MAX_LABEL);
    Ok(small.ok_or(ExperimentError::Label { label, max: MAX_LABEL })?)
}

fn unusable(image: &str, reason: impl std::fmt::Display) -> ExperimentError {
    ExperimentError::Image { image: image.to_owned(), reason: reason.to_string() }
}

fn read_images(columns: Columns<'_>, side: u32, decoded: &mut BTreeMap<String, Vec<f32>>) -> Result<()> {
    for (id, bytes) in columns.strings("image_id")?.iter().zip(&columns.images("image")?) {
        if let (Some(id), Some(bytes)) = (id, bytes) {
            decoded.insert(id.to_owned(), grayscale(bytes, side).map_err(|error| unusable(id, error))?);
        }
    }
    Ok(())
}

/// Reads the images of `experiment.pretraining`, which the diffusion model was trained on.
async fn pretraining_images(project: &Project, side: u32) -> Result<Vec<Image>> {
    let Some(path) = &project.config.experiment.pretraining else { return Ok(Vec::new()) };
    let (Some(folder), Some(file)) = (path.parent(), path.file_name().and_then(|name| name.to_str())) else {
        return Err(ExperimentError::Pretraining { path: path.clone() }.into());
    };
    let root = if folder.as_os_str().is_empty() { ".".into() } else { folder.to_string_lossy().into_owned() };
    let names = vec![(Split::Train, vec![file.to_owned()])];
    let splits = Splits { names, shares: Vec::new() };
    let config = project.config.source.clone();
    // The file is Parquet, whatever the kind of the source.
    let kind = if matches!(config.kind, SourceKind::Parquet { .. }) { config.kind } else { SourceKind::parquet() };
    let source = Source::open(&config::Source { kind, root, splits, ..config }, "").await?;
    grayscale_images(&source, side, None).await
}

/// An image of a source as the learner sees it.
pub(super) struct Image {
    /// The path in the listing.
    pub(super) path: String,
    pub(super) label: u32,
    pub(super) pixels: Vec<f32>,
}

/// Reads the images of a source, or of one of its splits.
///
/// # Errors
/// Returns an error if one of them cannot be read.
pub(super) async fn grayscale_images(source: &Source, side: u32, split: Option<Split>) -> Result<Vec<Image>> {
    let listing = Columns::new("listing", source.listing());
    let (paths, splits, labels) = (listing.strings("path")?, listing.strings("split")?, listing.integers("label")?);
    let in_split = |row: &usize| split.is_none_or(|split| splits.value(*row) == split.as_str());
    let rows: Vec<usize> = (0..listing.rows()).filter(in_split).collect();
    let paths: Vec<&str> = rows.iter().map(|&row| paths.value(row)).collect();
    let requested: Vec<Option<&str>> = paths.iter().copied().map(Some).collect();
    let mut images = Vec::new();
    for ((row, path), bytes) in rows.into_iter().zip(paths).zip(source.read(&requested).await?) {
        let bytes = bytes.map_err(|reason| unusable(path, reason))?.unwrap_or_default();
        let pixels = grayscale(&bytes, side).map_err(|error| unusable(path, error))?;
        images.push(Image { path: path.to_owned(), label: class(labels.value(row))?, pixels });
    }
    Ok(images)
}

/// Decodes an image to `side` × `side` grayscale pixels from 0 to 1.
fn grayscale(bytes: &[u8], side: u32) -> Result<Vec<f32>, ImageError> {
    let image = resize(&decode(bytes, &Limits::default())?, side, side, Filter::Bilinear)?;
    let luma = |pixel: &image::Rgb<u8>| {
        pixel.0.iter().zip(LUMA).map(|(&value, weight)| f32::from(value) * weight).sum::<f32>()
    };
    Ok(image.pixels().map(|pixel| luma(pixel) / 255.0).collect())
}
