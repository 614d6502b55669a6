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

use super::{
    Classes, Sample,
    rows::Row,
    seal::{OpenFile, WholeFile},
};
use crate::{error::Result, storage::Location};

/// Names of the classes by label, once for all epochs.
pub(super) const CLASSES: &str = "classes.json";
/// The row of each image, in order. It is written after the images.
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
    /// Its name.
    name: String,
    metadata: OpenFile,
    greatest: i64,
    /// Digits of a label.
    digits: usize,
    seen: BTreeSet<i64>,
}

impl Folder {
    /// Begins after the rows `done`, whose images are the files `whole`.
    pub(super) async fn new(
        location: Location,
        name: String,
        classes: &Classes,
        done: &[Row],
        whole: &[WholeFile],
    ) -> Result<Self> {
        let metadata = OpenFile::create(&location, format!("{name}/{METADATA}")).await?;
        let greatest = classes.keys().next_back().copied().unwrap_or_default();
        let digits = greatest.to_string().len();
        let mut folder = Self { location, name, metadata, greatest, digits, seen: BTreeSet::new() };
        for (row, file) in done.iter().zip(whole) {
            let extension = file.name.rsplit_once('.').map_or("", |(_, extension)| extension);
            folder.describe(row, &folder.file_name(row, extension)).await?;
        }
        Ok(folder)
    }

    fn label(&self, label: i64) -> String {
        format!("{label:0digits$}", digits = self.digits)
    }

    fn file_name(&self, row: &Row, extension: &str) -> String {
        format!("{}/{:08}.{extension}", self.label(row.label), row.position)
    }

    /// Writes the line of a row into the metadata.
    async fn describe(&mut self, row: &Row, file_name: &str) -> Result<()> {
        let line = json!({
            "file_name": file_name, "label": row.label, "class_name": row.class_name, "sample_id": row.sample_id,
            "source_id": row.source_id, "origin": row.origin, "image_guidance": row.image_guidance,
            "position": row.position, "prompt": row.texts.prompt, "filter_prompt": row.texts.filter_prompt,
            "common_name": row.texts.common_name, "captions": row.texts.captions,
        });
        self.metadata.write(format!("{line}\n").as_bytes(), 0).await?;
        self.seen.insert(row.label);
        Ok(())
    }

    pub(super) async fn add(&mut self, samples: &[Sample<'_>]) -> Result<Vec<WholeFile>> {
        let mut files = Vec::with_capacity(samples.len());
        for sample in samples {
            let name = self.file_name(sample.row, sample.extension);
            self.describe(sample.row, &name).await?;
            files.push((name, sample.image.clone(), 1));
        }
        self.put(files).await
    }

    /// Writes files with their number of rows, and returns them in their order.
    async fn put(&self, files: Vec<(String, Bytes, usize)>) -> Result<Vec<WholeFile>> {
        let put = |(name, bytes, rows): (String, Bytes, usize)| async move {
            let name = format!("{}/{name}", self.name);
            let file = WholeFile::new(name, &bytes, rows);
            self.location.put(&file.name, bytes).await?;
            Ok(file)
        };
        stream::iter(files).map(put).buffered(FILES_IN_FLIGHT).try_collect().await
    }

    pub(super) async fn finish(self) -> Result<Vec<WholeFile>> {
        let unseen = (0..=self.greatest).filter(|label| !self.seen.contains(label));
        let keep = unseen.map(|label| (format!("{}/.keep", self.label(label)), Bytes::new(), 0)).collect();
        let mut files = self.put(keep).await?;
        files.push(self.metadata.finish().await?);
        Ok(files)
    }

    pub(super) async fn abort(self) -> Result<()> {
        self.metadata.abort().await
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
