//! What the learner sees of a pipeline: every image as a small grey one, in memory.

use std::collections::BTreeMap;

use arrow::{
    array::{AsArray, RecordBatch},
    compute::cast,
    datatypes::{DataType, Int64Type},
};

use crate::{
    config::{self, SourceKind, Split},
    error::{Error, Result},
    experiment::learner::{Data, Shape},
    imaging::{Filter, ImageError, Limits, decode, resize},
    pipeline::Pipeline,
    report,
    source::Source,
};

/// Weights of red, green and blue in grey (ITU-R BT.601), as Pillow has them.
const LUMA: [f32; 3] = [0.299, 0.587, 0.114];

/// A classification problem.
#[derive(Debug)]
pub(super) struct Task {
    /// What may be trained on: real images of the split train, kept images, and the diffusion model's own.
    pub(super) data: Data,
    /// The row of each by its `sample_id`.
    pub(super) rows: BTreeMap<String, usize>,
    /// The rows of the diffusion model's own images.
    pub(super) pretraining: Vec<usize>,
    /// Training images of each class, without those of the spectrum validation set.
    pub(super) class_counts: Vec<usize>,
    /// What learners are judged by, split by split.
    pub(super) judged: Vec<(Split, Data)>,
}

/// A row of `sql/experiment/samples.sql`.
struct Sample {
    sample_id: String,
    image_id: String,
    label: u32,
    split: String,
    trained: bool,
}

impl Task {
    /// Reads the images of a pipeline that has run.
    ///
    /// # Errors
    /// Where tables or images cannot be read.
    pub(super) async fn load(pipeline: &Pipeline) -> Result<Self> {
        let side = u32::try_from(pipeline.config.learner.image_side).unwrap_or(u32::MAX);
        let samples = samples(pipeline).await?;
        let mut decoded = BTreeMap::new();
        for batch in report::rows(pipeline, "experiment/images.sql").await? {
            read_images(&batch, side, &mut decoded)?;
        }
        let seen = seen(pipeline, side).await?;
        let labels = samples.iter().map(|sample| sample.label).chain(seen.iter().map(|image| image.label));
        let classes = labels.max().map_or(1, |label| label as usize + 1);
        let shape = Shape { channels: 1, height: side as usize, width: side as usize, classes };
        let mut trained = Vec::new();
        let (mut train, mut rows) = (Rows::default(), BTreeMap::new());
        let mut judged: BTreeMap<&str, Rows> = BTreeMap::new();
        for sample in &samples {
            let Some(pixels) = decoded.get(&sample.image_id) else { continue };
            if matches!(sample.split.as_str(), "train" | "synthetic") {
                rows.insert(sample.sample_id.clone(), train.labels.len());
                trained.extend(sample.trained.then_some(train.labels.len()));
                train.push(pixels, sample.label);
            } else {
                judged.entry(sample.split.as_str()).or_default().push(pixels, sample.label);
            }
        }
        let first = train.labels.len();
        seen.iter().for_each(|image| train.push(&image.pixels, image.label));
        let pretraining = (first..train.labels.len()).collect();
        let mut sets = Vec::new();
        for split in Split::ALL {
            if let Some(rows) = judged.remove(split.as_str()) {
                sets.push((split, rows.data(shape)?));
            }
        }
        let data = train.data(shape)?;
        let class_counts = data.class_counts(&trained)?;
        Ok(Self { data, rows, pretraining, class_counts, judged: sets })
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

async fn samples(pipeline: &Pipeline) -> Result<Vec<Sample>> {
    let mut samples = Vec::new();
    for batch in report::rows(pipeline, "experiment/samples.sql").await? {
        let column = |name: &str, to: DataType| {
            let found = batch.column_by_name(name).and_then(|column| cast(column, &to).ok());
            found.ok_or_else(|| Error::Data(format!("`experiment/samples.sql` has no column `{name}` of {to}s")))
        };
        let ids = column("sample_id", DataType::Utf8)?;
        let image_ids = column("image_id", DataType::Utf8)?;
        let labels = column("label", DataType::Int64)?;
        let splits = column("split", DataType::Utf8)?;
        let trained = column("trained", DataType::Boolean)?;
        for row in 0..batch.num_rows() {
            let label = labels.as_primitive::<Int64Type>().value(row);
            samples.push(Sample {
                sample_id: ids.as_string::<i32>().value(row).to_owned(),
                image_id: image_ids.as_string::<i32>().value(row).to_owned(),
                label: class(label)?,
                split: splits.as_string::<i32>().value(row).to_owned(),
                trained: trained.as_boolean().value(row),
            });
        }
    }
    samples.sort_by(|a, b| a.sample_id.cmp(&b.sample_id));
    Ok(samples)
}

fn class(label: i64) -> Result<u32> {
    let small = u32::try_from(label).ok().filter(|label| *label < 1 << 16);
    small.ok_or_else(|| Error::Data(format!("an image has the label {label}; the learner takes 0 to 65535")))
}

fn read_images(batch: &RecordBatch, side: u32, decoded: &mut BTreeMap<String, Vec<f32>>) -> Result<()> {
    let ids = batch.column_by_name("image_id").and_then(|ids| cast(ids, &DataType::Utf8).ok());
    let images = batch.column_by_name("image").and_then(crate::schema::image_bytes);
    let (Some(ids), Some(images)) = (ids, images) else {
        return Err(Error::Data("`experiment/images.sql` has not its columns".into()));
    };
    for (id, bytes) in ids.as_string::<i32>().iter().zip(&images) {
        if let (Some(id), Some(bytes)) = (id, bytes) {
            let pixels = grey(bytes, side).map_err(|error| Error::Data(format!("image `{id}`: {error}")))?;
            decoded.insert(id.to_owned(), pixels);
        }
    }
    Ok(())
}

/// The images of `experiment.pretraining`.
async fn seen(pipeline: &Pipeline, side: u32) -> Result<Vec<Image>> {
    let Some(path) = &pipeline.config.experiment.pretraining else { return Ok(Vec::new()) };
    let (Some(folder), Some(file)) = (path.parent(), path.file_name().and_then(|name| name.to_str())) else {
        return Err(Error::Data(format!("`{}` (`experiment.pretraining`) is no file", path.display())));
    };
    let root = if folder.as_os_str().is_empty() { ".".into() } else { folder.to_string_lossy().into_owned() };
    let splits = vec![(Split::Train, vec![file.to_owned()])];
    let config = pipeline.config.source.clone();
    // it is a Parquet file, whatever the kind of the source
    let kind = if matches!(config.kind, SourceKind::Parquet { .. }) { config.kind } else { SourceKind::parquet() };
    let source = Source::open(&config::Source { kind, root, splits, ..config }, "").await?;
    grey_images(&source, side, None).await
}

/// An image of a source as the learner sees it.
pub(super) struct Image {
    /// As in the listing.
    pub(super) path: String,
    pub(super) label: u32,
    pub(super) pixels: Vec<f32>,
}

/// The images of a source, or of one of its splits.
///
/// # Errors
/// Where one cannot be read.
pub(super) async fn grey_images(source: &Source, side: u32, split: Option<Split>) -> Result<Vec<Image>> {
    let listing = source.listing();
    let text = |name: &str| listing.column_by_name(name).and_then(|column| column.as_string_opt::<i32>());
    let labels = listing.column_by_name("label").and_then(|labels| labels.as_primitive_opt::<Int64Type>());
    let (Some(paths), Some(splits), Some(labels)) = (text("path"), text("split"), labels) else {
        return Err(Error::Data("the listing of a source has not its columns".into()));
    };
    let wanted = |row: &usize| split.is_none_or(|split| splits.value(*row) == split.as_str());
    let rows: Vec<usize> = (0..listing.num_rows()).filter(wanted).collect();
    let paths: Vec<&str> = rows.iter().map(|&row| paths.value(row)).collect();
    let asked: Vec<Option<&str>> = paths.iter().copied().map(Some).collect();
    let mut images = Vec::new();
    for ((row, path), bytes) in rows.into_iter().zip(paths).zip(source.read(&asked).await?) {
        let wrong = |what: String| Error::Data(format!("`{path}`: {what}"));
        let bytes = bytes.map_err(wrong)?.unwrap_or_default();
        let pixels = grey(&bytes, side).map_err(|error| wrong(error.to_string()))?;
        images.push(Image { path: path.to_owned(), label: class(labels.value(row))?, pixels });
    }
    Ok(images)
}

/// An image as a grey one of `side` by `side` pixels, 0 to 1.
fn grey(bytes: &[u8], side: u32) -> Result<Vec<f32>, ImageError> {
    let image = resize(&decode(bytes, &Limits::default())?, side, side, Filter::Bilinear)?;
    let weigh = |pixel: &image::Rgb<u8>| {
        pixel.0.iter().zip(LUMA).map(|(&value, weight)| f32::from(value) * weight).sum::<f32>()
    };
    Ok(image.pixels().map(|pixel| weigh(pixel) / 255.0).collect())
}
