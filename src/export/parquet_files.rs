//! Parquet files in training order: `epoch_NNNN/part-SSSSS.parquet`, with the metadata by which Hugging Face's
//! `datasets` shows images and class names. Images are in small row groups, as in the lake.

use std::{
    collections::BTreeSet,
    sync::{Arc, LazyLock},
};

use arrow::{
    array::{ArrayRef, BinaryArray, Int64Array, ListBuilder, RecordBatch, StringArray, StringBuilder, StructArray},
    datatypes::{DataType, Field, Schema, SchemaRef},
};
use serde_json::{Map, Value, json};

use super::{
    Classes, Sample,
    error::ExportError,
    rows::Texts,
    seal::{OpenFile, WholeFile},
};
use crate::{error::Result, lake::StreamingWriter, schema, storage::Location};

static COLUMNS: LazyLock<SchemaRef> = LazyLock::new(|| {
    let strings = ["sample_id", "source_id", "class_name", "origin"].map(|name| Field::new(name, DataType::Utf8, true));
    let integers = ["position", "label", "image_guidance", "seed", "attempt"];
    let [position, label, guidance, seed, attempt] = integers.map(|name| Field::new(name, DataType::Int64, true));
    let [sample, source, class, origin] = strings;
    let [prompt, filter, common] =
        ["prompt", "filter_prompt", "common_name"].map(|name| Field::new(name, DataType::Utf8, true));
    let captions = Field::new("captions", schema::texts(), true);
    let image = Field::new("image", schema::image_type(), true);
    let row = [position, sample, source, label, class, origin, guidance, seed, attempt];
    Arc::new(Schema::new([&row[..], &[prompt, filter, common, captions, image]].concat()))
});

/// The files of an epoch.
pub(super) struct Parts {
    location: Location,
    folder: String,
    features: Map<String, Value>,
    bound: u64,
    open: Option<Box<Part>>,
    begun: usize,
}

struct Part {
    file: OpenFile,
    rows: StreamingWriter,
    /// Bytes of its images.
    bytes: u64,
}

impl Parts {
    /// Begins after the first `begun` files.
    pub(super) fn new(location: Location, folder: String, classes: &Classes, bound: u64, begun: usize) -> Self {
        Self { location, folder, features: features(classes), bound, open: None, begun }
    }

    pub(super) async fn add(&mut self, mut samples: &[Sample<'_>]) -> Result<Vec<WholeFile>> {
        let mut whole = Vec::new();
        while !samples.is_empty() {
            let bound = self.bound;
            let part = self.part().await?;
            // A file has at least one sample, even if that is larger than the bound.
            let mut fit = 0;
            for sample in samples {
                let bytes = sample.image.len() as u64;
                if part.bytes > 0 && part.bytes + bytes > bound {
                    break;
                }
                part.bytes += bytes;
                fit += 1;
            }
            let (now, later) = samples.split_at(fit);
            if !now.is_empty() {
                let ready = part.rows.write(batch(now)?)?;
                part.file.write(&ready, now.len()).await?;
            }
            if !later.is_empty() {
                whole.extend(self.close().await?);
            }
            samples = later;
        }
        Ok(whole)
    }

    /// Returns the file that is being written, and starts one if there is none.
    async fn part(&mut self) -> Result<&mut Part> {
        let part = match self.open.take() {
            Some(part) => part,
            None => {
                let name = format!("{}/part-{:05}.parquet", self.folder, self.begun);
                let file = OpenFile::create(&self.location, name).await?;
                self.begun += 1;
                Box::new(Part { file, rows: StreamingWriter::new(&COLUMNS, &self.features)?, bytes: 0 })
            }
        };
        Ok(self.open.insert(part))
    }

    async fn close(&mut self) -> Result<Option<WholeFile>> {
        let Some(part) = self.open.take() else { return Ok(None) };
        let Part { mut file, rows, .. } = *part;
        file.write(&rows.close()?, 0).await?;
        file.finish().await.map(Some)
    }

    pub(super) async fn finish(mut self) -> Result<Vec<WholeFile>> {
        Ok(self.close().await?.into_iter().collect())
    }

    pub(super) async fn abort(self) -> Result<()> {
        match self.open {
            Some(part) => part.file.abort().await,
            None => Ok(()),
        }
    }
}

/// The features of `datasets`: the label is a `ClassLabel` if the labels are 0, 1, 2, … and no two names are equal, which is
/// all that it supports.
fn features(classes: &Classes) -> Map<String, Value> {
    let numbered = classes.keys().copied().eq((0..).take(classes.len()));
    let distinct = classes.values().collect::<BTreeSet<_>>().len() == classes.len();
    let mut features = Map::new();
    if numbered && distinct {
        let names: Vec<&String> = classes.values().collect();
        features.insert("label".into(), json!({ "names": names, "_type": "ClassLabel" }));
    }
    features
}

fn batch(samples: &[Sample<'_>]) -> Result<RecordBatch> {
    let strings = |of: fn(&Sample<'_>) -> String| -> ArrayRef {
        Arc::new(samples.iter().map(|sample| Some(of(sample))).collect::<StringArray>())
    };
    let integers =
        |of: fn(&Sample<'_>) -> Option<i64>| -> ArrayRef { Arc::new(samples.iter().map(of).collect::<Int64Array>()) };
    let texts = |of: fn(&Texts) -> Option<&str>| -> ArrayRef {
        Arc::new(samples.iter().map(|sample| of(&sample.row.texts)).collect::<StringArray>())
    };
    let mut captions = ListBuilder::new(StringBuilder::new());
    for sample in samples {
        captions.append_value(sample.row.texts.captions.iter().map(Some));
    }
    let bytes: ArrayRef = Arc::new(samples.iter().map(|sample| Some(&sample.image[..])).collect::<BinaryArray>());
    let paths = strings(|sample| format!("{}.{}", sample.row.sample_id, sample.extension));
    let image = StructArray::try_new(schema::image_fields(), vec![bytes, paths], None).map_err(ExportError::Columns)?;
    let columns: Vec<ArrayRef> = vec![
        integers(|sample| Some(sample.row.position)),
        strings(|sample| sample.row.sample_id.clone()),
        strings(|sample| sample.row.source_id.clone()),
        integers(|sample| Some(sample.row.label)),
        strings(|sample| sample.row.class_name.clone()),
        strings(|sample| sample.row.origin.clone()),
        integers(|sample| Some(sample.row.image_guidance)),
        integers(|sample| sample.row.seed),
        integers(|sample| sample.row.attempt),
        texts(|texts| texts.prompt.as_deref()),
        texts(|texts| texts.filter_prompt.as_deref()),
        texts(|texts| texts.common_name.as_deref()),
        Arc::new(captions.finish()),
        Arc::new(image),
    ];
    Ok(RecordBatch::try_new(Arc::clone(&COLUMNS), columns).map_err(ExportError::Columns)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_label_is_a_class_label_if_names_identify_it() {
        let of = |classes: &[(i64, &str)]| features(&classes.iter().map(|&(l, n)| (l, n.to_owned())).collect());
        assert_eq!(of(&[(0, "a"), (1, "b")])["label"]["names"], json!(["a", "b"]));
        assert!(of(&[(0, "a"), (1, "a")]).is_empty());
        assert!(of(&[(0, "a"), (2, "b")]).is_empty());
        assert!(of(&[(1, "a")]).is_empty());
    }
}
