//! Folders of images: `epoch_NNNN/LABEL/POSITION.EXT`, and next to the label folders `metadata.jsonl` in training
//! order, from which Hugging Face's `imagefolder` reads labels and order.
//!
//! Folders are named by label numbers with leading zeros, never by class names: then the sorted order of the names, by
//! which torchvision's `ImageFolder` numbers classes, is that of the labels. Each label up to the greatest has a
//! folder, with the empty file `.keep` if the epoch has no image of it, so that no number shifts.

use std::collections::BTreeSet;

use bytes::Bytes;
use futures::{StreamExt, TryStreamExt, stream};
use serde_json::{Map, Value, json};

use super::{Classes, Sample};
use crate::{
    error::Result,
    storage::{Location, Upload},
};

/// Names of the classes by label, once for all epochs.
pub(super) const CLASSES: &str = "classes.json";
/// The row of each image, in order. It is written last.
const METADATA: &str = "metadata.jsonl";
/// Files uploaded at once.
const FILES_IN_FLIGHT: usize = 16;

/// Returns the contents of `classes.json`.
pub(super) fn classes(classes: &Classes) -> String {
    let names: Map<String, Value> =
        classes.iter().map(|(label, name)| (label.to_string(), Value::from(name.as_str()))).collect();
    format!("{:#}\n", Value::Object(names))
}

/// The folder of an epoch.
pub(super) struct Folder {
    location: Location,
    metadata: Upload,
    greatest: i64,
    /// Digits of a label.
    digits: usize,
    seen: BTreeSet<i64>,
    files: usize,
}

impl Folder {
    pub(super) async fn new(location: Location, classes: &Classes) -> Result<Self> {
        let metadata = location.upload(METADATA).await?;
        let greatest = classes.keys().next_back().copied().unwrap_or_default();
        Ok(Self { location, metadata, greatest, digits: greatest.to_string().len(), seen: BTreeSet::new(), files: 1 })
    }

    fn label(&self, label: i64) -> String {
        format!("{label:0digits$}", digits = self.digits)
    }

    pub(super) async fn add(&mut self, samples: &[Sample<'_>]) -> Result<()> {
        let mut files = Vec::with_capacity(samples.len());
        for sample in samples {
            let row = sample.row;
            let name = format!("{}/{:08}.{}", self.label(row.label), row.position, sample.extension);
            let line = json!({
                "file_name": name, "label": row.label, "class_name": row.class_name, "sample_id": row.sample_id,
                "source_id": row.source_id, "origin": row.origin, "image_guidance": row.image_guidance,
                "position": row.position,
            });
            self.metadata.write(format!("{line}\n").as_bytes()).await?;
            self.seen.insert(row.label);
            files.push((name, sample.image.clone()));
        }
        self.files += files.len();
        self.put(files).await
    }

    async fn put(&self, files: Vec<(String, Bytes)>) -> Result<()> {
        let put = |(name, bytes): (String, Bytes)| async move { Ok(self.location.put(&name, bytes).await?) };
        stream::iter(files).map(put).buffer_unordered(FILES_IN_FLIGHT).try_collect().await
    }

    pub(super) async fn finish(self) -> Result<usize> {
        let unseen = (0..=self.greatest).filter(|label| !self.seen.contains(label));
        let keep: Vec<_> = unseen.map(|label| (format!("{}/.keep", self.label(label)), Bytes::new())).collect();
        let files = self.files + keep.len();
        self.put(keep).await?;
        self.metadata.finish().await?;
        Ok(files)
    }

    pub(super) async fn abort(self) -> Result<()> {
        Ok(self.metadata.abort().await?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn classes_may_share_a_name() {
        let names = [(0, "crane"), (1, "a/b \"ü\""), (10, "crane")].map(|(label, name)| (label, name.to_owned()));
        let text = classes(&names.into());
        assert_eq!(text, "{\n  \"0\": \"crane\",\n  \"1\": \"a/b \\\"ü\\\"\",\n  \"10\": \"crane\"\n}\n");
    }
}
