//! A folder for each split: either with a folder for each class, as torchvision has it, or with a file of labels, as
//! Hugging Face has it.

use std::{future::ready, sync::Arc};

use futures::{StreamExt, TryStreamExt, stream};

use super::{
    csv_table::{Column, read_rows},
    entry::{Entry, Label, Origin, Problems, relative_path},
    error::{Result, SourceError},
    files::MAX_CONCURRENT_REQUESTS,
    list::lines,
    object::read_list,
};
use crate::{
    config::Split,
    error::text::quote,
    storage::{Location, StoredObject},
};

/// The file extensions of torchvision whose formats this program decodes.
const EXTENSIONS: [&str; 4] = ["jpg", "jpeg", "png", "webp"];
/// The files of labels of Hugging Face.
const METADATA_CSV: &str = "metadata.csv";
const METADATA_JSONL: &str = "metadata.jsonl";
/// Their column with the path of an image, relative to the folder of the file.
const FILE_NAME: &str = "file_name";

/// Returns whether a file is an image by the extension of its name.
pub(super) fn is_image(extension: &str) -> bool {
    EXTENSIONS.iter().any(|known| known.eq_ignore_ascii_case(extension))
}

/// Reads the images of every split.
///
/// # Errors
/// Returns an error if a folder or file cannot be read, or a split has no image. Invalid entries are added to
/// `problems`.
pub(super) async fn read(
    location: &Location,
    label_column: &str,
    splits: &[(Split, Vec<String>)],
    problems: &mut Problems,
) -> Result<Vec<Entry>> {
    let mut entries = Vec::new();
    for (split, folder) in splits.iter().flat_map(|(split, names)| names.iter().map(|name| (*split, name))) {
        let listed = location.list_folder(folder).await?;
        let has = |name: &str| listed.objects.iter().any(|object| object.file_name() == name);
        let before = (entries.len(), problems.count());
        match (has(METADATA_CSV), has(METADATA_JSONL)) {
            (true, true) => return Err(SourceError::TwoMetadataFiles { folder: folder.clone() }),
            (false, false) => entries.extend(read_folders(location, split, &listed.folders, problems).await?),
            (is_csv, _) => {
                let name = format!("{folder}/{}", if is_csv { METADATA_CSV } else { METADATA_JSONL });
                let bytes = read_list(location, &name, "`source.splits`", "`source.root`").await?;
                let metadata = Metadata { folder, split, label_column, file: name.into() };
                match is_csv {
                    true => metadata.parse_csv(&bytes, problems, &mut entries)?,
                    false => metadata.parse_json_lines(&bytes, problems, &mut entries),
                }
            }
        }
        if (entries.len(), problems.count()) == before {
            return Err(SourceError::EmptyFolder { url: location.url_of(folder), split: split.as_str() });
        }
    }
    Ok(entries)
}

/// Reads the images below folders that are named like their classes, at any depth.
async fn read_folders(
    location: &Location,
    split: Split,
    classes: &[String],
    problems: &mut Problems,
) -> Result<Vec<Entry>> {
    let found: Vec<(&str, Vec<StoredObject>)> = stream::iter(classes)
        .map(|folder| async move {
            let is_image = |object: &StoredObject| {
                object.file_name().rsplit_once('.').is_some_and(|(_, extension)| is_image(extension))
            };
            let listed = location.list_tree(folder).try_filter(|object| ready(is_image(object)));
            let mut images: Vec<StoredObject> = listed.try_collect().await?;
            images.sort_by(|a, b| a.name().cmp(b.name()));
            Ok::<_, SourceError>((folder.rsplit('/').next().unwrap_or(folder), images))
        })
        .buffered(MAX_CONCURRENT_REQUESTS)
        .try_collect()
        .await?;
    let mut entries = Vec::new();
    for (class, images) in found {
        for image in images {
            let origin = Origin { file: image.name().into(), line: None };
            match relative_path(image.name()) {
                Ok(path) => {
                    let (path, label) = (path.to_owned(), Label::Name(class.to_owned()));
                    entries.push(Entry { path, label, split, origin, version: Some(image.version().clone()) });
                }
                Err(problem) => problems.add(&origin, problem),
            }
        }
    }
    Ok(entries)
}

/// A file of labels.
struct Metadata<'a> {
    folder: &'a str,
    split: Split,
    label_column: &'a str,
    file: Arc<str>,
}

impl Metadata<'_> {
    fn path(&self, file_name: &str) -> Result<String, String> {
        Ok(format!("{}/{}", self.folder, relative_path(file_name)?))
    }

    fn parse_csv(&self, bytes: &[u8], problems: &mut Problems, entries: &mut Vec<Entry>) -> Result<()> {
        let columns = [
            Column { name: FILE_NAME, key: "the path of an image" },
            Column { name: self.label_column, key: "`source.label_column`" },
        ];
        let parse = |fields: &[&str]| {
            let [path, label] = fields else { return Ok(None) };
            Ok(Some((self.split, self.path(path)?, Label::parse(label)?)))
        };
        read_rows(&self.file, bytes, &columns, problems, parse, entries)
    }

    fn parse_json_lines(&self, bytes: &[u8], problems: &mut Problems, entries: &mut Vec<Entry>) {
        for (origin, line) in lines(&self.file, bytes) {
            match line.and_then(|line| self.parse_json(line)) {
                Ok(None) => {}
                Ok(Some((path, label))) => {
                    entries.push(Entry { path, label, split: self.split, origin, version: None });
                }
                Err(problem) => problems.add(&origin, problem),
            }
        }
    }

    fn parse_json(&self, line: &str) -> Result<Option<(String, Label)>, String> {
        if line.is_empty() {
            return Ok(None);
        }
        let object: serde_json::Value =
            serde_json::from_str(line).map_err(|error| format!("it is not valid JSON: {error}"))?;
        let file_name = object.get(FILE_NAME).and_then(serde_json::Value::as_str);
        let file_name = file_name.ok_or_else(|| format!("it has no field `{FILE_NAME}`: {}", quote(line)))?;
        Ok(Some((self.path(file_name)?, Label::parse_json(&object, self.label_column)?)))
    }
}
