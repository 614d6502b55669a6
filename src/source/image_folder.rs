//! A folder for each split: with a folder for each class, as torchvision has it, or with a file of labels, as Hugging
//! Face has it.

use std::sync::Arc;

use futures::{StreamExt, TryStreamExt, stream};
use object_store::{ObjectMeta, path::Path};

use super::{
    csv_table::{Column, rows},
    entry::{Entry, Label, Origin, Problems, quote, relative_path},
    files::AT_ONCE,
    list::lines,
    object::{Version, list_file},
};
use crate::{
    config::Split,
    error::{Error, Result},
    storage::Location,
};

/// Endings of images, those of torchvision that are decoded here.
const IMAGES: [&str; 4] = ["jpg", "jpeg", "png", "webp"];
/// Hugging Face's files of labels.
const CSV: &str = "metadata.csv";
const JSON_LINES: &str = "metadata.jsonl";
/// Their column with the path of an image, relative to the folder that they are in.
const FILE_NAME: &str = "file_name";

/// Whether a file is an image by the ending of its name.
pub(super) fn is_image(ending: &str) -> bool {
    IMAGES.iter().any(|image| image.eq_ignore_ascii_case(ending))
}

/// The images of every split.
///
/// # Errors
/// Where a folder or file cannot be read, or a split has no image. What is wrong with one image is added to
/// `problems`.
pub(super) async fn read(
    location: &Location,
    label_column: &str,
    splits: &[(Split, Vec<String>)],
    problems: &mut Problems,
) -> Result<Vec<Entry>> {
    let mut named = Vec::new();
    for (split, folder) in splits.iter().flat_map(|(split, names)| names.iter().map(|name| (*split, name))) {
        let listed = location.store.list_with_delimiter(Some(&location.path(folder))).await;
        let listed = listed.map_err(|error| unlisted(location, folder, error))?;
        let has = |name: &str| listed.objects.iter().any(|meta| meta.location.filename() == Some(name));
        let before = (named.len(), problems.count());
        match (has(CSV), has(JSON_LINES)) {
            (true, true) => {
                let what = format!("`{folder}` has both `{CSV}` and `{JSON_LINES}`; one of them says the labels");
                return Err(Error::Data(what));
            }
            (false, false) => named.extend(of_folders(location, split, &listed.common_prefixes, problems).await?),
            (is_csv, _) => {
                let name = format!("{folder}/{}", if is_csv { CSV } else { JSON_LINES });
                let bytes = list_file(location, &name, "source.splits", "source.root").await?;
                let parse = if is_csv { of_csv } else { of_json_lines };
                parse(&Metadata { folder, split, label_column, file: name.into() }, &bytes, problems, &mut named)?;
            }
        }
        if (named.len(), problems.count()) == before {
            return Err(Error::Lake {
                url: format!("{}{folder}", location.url),
                message: format!(
                    "the split {} has no image there; expected is a folder for each class with `.jpg`, `.jpeg`, \
                     `.png` or `.webp` files, or `{CSV}` or `{JSON_LINES}`",
                    split.as_str()
                ),
                source: None,
            });
        }
    }
    Ok(named)
}

fn unlisted(location: &Location, folder: &str, error: object_store::Error) -> Error {
    Error::lake(format!("{}{folder}", location.url), "it cannot be listed", error)
}

/// The images below folders that are called as their classes, whatever the folders between are called.
async fn of_folders(
    location: &Location,
    split: Split,
    classes: &[Path],
    problems: &mut Problems,
) -> Result<Vec<Entry>> {
    let found: Vec<(String, Vec<ObjectMeta>)> = stream::iter(classes)
        .map(|class| async move {
            let name = class.filename().unwrap_or_default().to_owned();
            let is_image = |meta: &ObjectMeta| meta.location.extension().is_some_and(is_image);
            let listed = location.store.list(Some(class)).try_filter(|meta| std::future::ready(is_image(meta)));
            let mut files: Vec<ObjectMeta> =
                listed.try_collect().await.map_err(|error| unlisted(location, class.as_ref(), error))?;
            files.sort_by(|a, b| a.location.cmp(&b.location));
            Ok::<_, Error>((name, files))
        })
        .buffered(AT_ONCE)
        .try_collect()
        .await?;
    let mut named = Vec::new();
    for (class, files) in found {
        for meta in files {
            let Some(path) = location.name(&meta.location) else { continue };
            let origin = Origin { file: path.into(), line: None };
            match relative_path(path) {
                Ok(path) => {
                    let (path, label) = (path.to_owned(), Label::Text(class.clone()));
                    named.push(Entry { path, label, split, origin, version: Some(Version::of(&meta)) });
                }
                Err(why) => problems.add(&origin, why),
            }
        }
    }
    Ok(named)
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
}

fn of_csv(of: &Metadata<'_>, bytes: &[u8], problems: &mut Problems, named: &mut Vec<Entry>) -> Result<()> {
    let columns = [
        Column { name: FILE_NAME, what: "the path of an image" },
        Column { name: of.label_column, what: "`source.label_column`" },
    ];
    let of_row = |_: &Origin, fields: &[&str]| {
        let [path, label] = fields else { return Ok(None) };
        Ok(Some((of.split, of.path(path)?, Label::of_text(label)?)))
    };
    rows(&of.file, bytes, &columns, problems, of_row, named)
}

fn of_json_lines(of: &Metadata<'_>, bytes: &[u8], problems: &mut Problems, named: &mut Vec<Entry>) -> Result<()> {
    for (origin, line) in lines(&of.file, bytes) {
        match line.and_then(|line| of_json(of, line)) {
            Ok(None) => {}
            Ok(Some((path, label))) => named.push(Entry { path, label, split: of.split, origin, version: None }),
            Err(why) => problems.add(&origin, why),
        }
    }
    Ok(())
}

fn of_json(of: &Metadata<'_>, line: &str) -> Result<Option<(String, Label)>, String> {
    if line.is_empty() {
        return Ok(None);
    }
    let object: serde_json::Value = serde_json::from_str(line).map_err(|error| format!("it is no JSON: {error}"))?;
    let file_name = object.get(FILE_NAME).and_then(serde_json::Value::as_str);
    let file_name = file_name.ok_or_else(|| format!("it has no field `{FILE_NAME}`: {}", quote(line)))?;
    Ok(Some((of.path(file_name)?, Label::of_json(&object, of.label_column)?)))
}
