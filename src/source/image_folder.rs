//! A folder for each split: either with a folder for each class, as torchvision has it, or with a file of labels, as
//! Hugging Face has it.

use std::{
    collections::{BTreeMap, BTreeSet, HashSet},
    sync::Arc,
};

use futures::{StreamExt, TryStreamExt, stream};
use serde_json::Value;

use super::{
    csv_table::{Column, has_column, read_rows},
    entry::{Collected, Entry, File, Origin, Problems, relative_path},
    error::{Result, SourceError},
    files::MAX_CONCURRENT_REQUESTS,
    label::Label,
    list::lines,
    names::{ending, is_image, is_left_behind},
    object::read_list,
    patterns::hint,
    skips::Reason,
};
use crate::{
    config::Split,
    error::text::{escape, quote},
    limited_read,
    storage::{Fault, FaultKind, Found, Location},
};

/// The files of labels of Hugging Face.
const METADATA_CSV: &str = "metadata.csv";
const METADATA_JSONL: &str = "metadata.jsonl";
/// Another one of Hugging Face, which is not read.
const METADATA_PARQUET: &str = "metadata.parquet";
/// The default of `source.label_column`.
const DEFAULT_LABEL: &str = "label";
/// Their column with the path of an image, relative to the folder of the file.
const FILE_NAME: &str = "file_name";

/// Reads the images of every split.
///
/// # Errors
/// Returns an error if a folder or file cannot be read, or a split has no image. Invalid entries are added to the problems
/// of `out`.
pub(super) async fn read(
    location: &Location,
    label_column: &str,
    splits: &[(Split, Vec<String>)],
    out: &mut Collected,
) -> Result<()> {
    for (split, folder) in splits.iter().flat_map(|(split, names)| names.iter().map(|name| (*split, name))) {
        let folder = if folder == "." { "" } else { folder };
        let before = (out.entries.len(), out.problems.count());
        Folder { location, folder, split, label_column }.read(out).await?;
        if (out.entries.len(), out.problems.count()) == before {
            let (url, split, skipped) = (location.url_of(folder), split.as_str(), out.skips.describe(split));
            let hint = hint(folder, false);
            return Err(SourceError::EmptyFolder { url, split, skipped, hint });
        }
    }
    Ok(())
}

/// The folder of a split.
struct Folder<'a> {
    location: &'a Location,
    /// Relative to the root; empty for the root itself.
    folder: &'a str,
    split: Split,
    label_column: &'a str,
}

impl Folder<'_> {
    async fn read(&self, out: &mut Collected) -> Result<()> {
        let listed = self.location.list_folder(self.folder).await?;
        let has = |name: &str| listed.objects.iter().any(|object| object.file_name() == name);
        let metadata = match (has(METADATA_CSV), has(METADATA_JSONL)) {
            (true, true) => return Err(SourceError::TwoMetadataFiles { folder: self.folder.to_owned() }),
            (true, false) => Some(self.metadata(METADATA_CSV).await?),
            (false, true) => Some(self.metadata(METADATA_JSONL).await?),
            (false, false) => None,
        };
        let classes = listed.folders.iter().any(|folder| !is_left_behind(last_part(folder)));
        match metadata {
            // Without labels it holds captions, and the folders are the classes; but a column that the user names is meant.
            Some(metadata) if classes && self.label_column == DEFAULT_LABEL && !metadata.has_labels()? => {
                out.skips.add_captions(&metadata.file);
            }
            Some(metadata) => return self.read_named(&metadata, out).await,
            None => {}
        }
        for object in &listed.objects {
            if !matches!(object.file_name(), METADATA_CSV | METADATA_JSONL) {
                self.skip(object.name(), Reason::OutsideOfClasses, out);
            }
        }
        for fault in &listed.faults {
            match fault.kind {
                FaultKind::NotUnicode => self.add_unreadable(&fault.name, out).await?,
                _ => self.add_fault(fault, None, out),
            }
        }
        self.read_classes(&listed.folders, out).await
    }

    async fn metadata(&self, name: &str) -> Result<Metadata> {
        let file = if self.folder.is_empty() { name.to_owned() } else { format!("{}/{name}", self.folder) };
        let bytes = read_list(self.location, &file, "`source.splits`", "`source.root`").await?;
        let (folder, label_column) = (self.folder.to_owned(), self.label_column.to_owned());
        Ok(Metadata { folder, split: self.split, label_column, file: file.into(), bytes })
    }

    /// Reads the images that a metadata file names, and counts those that it does not.
    async fn read_named(&self, metadata: &Metadata, out: &mut Collected) -> Result<()> {
        let first = out.entries.len();
        metadata.parse(&mut out.problems, &mut out.entries)?;
        let named: HashSet<String> = out.entries[first..].iter().map(|entry| entry.path.clone()).collect();
        let mut listed = self.location.list_tree(self.folder);
        while let Some(found) = listed.try_next().await? {
            match found {
                Found::Object(object) if named.contains(object.name()) || *object.name() == *metadata.file => {}
                Found::Object(object) => self.skip(object.name(), Reason::NotInMetadata, out),
                Found::Fault(fault) if named.contains(&fault.name) => {}
                Found::Fault(fault) => self.skip(&fault.name, Reason::NotInMetadata, out),
            }
        }
        Ok(())
    }

    /// Reads the images below folders that are named like their classes, at any depth.
    async fn read_classes(&self, folders: &[String], out: &mut Collected) -> Result<()> {
        let found: Vec<(&String, Vec<Found>)> = stream::iter(folders)
            .map(|folder| async move {
                let listed: Vec<Found> = self.location.list_tree(folder).try_collect().await?;
                Ok::<_, SourceError>((folder, listed))
            })
            .buffered(MAX_CONCURRENT_REQUESTS)
            .try_collect()
            .await?;
        let mut inner: BTreeMap<&str, BTreeSet<String>> = BTreeMap::new();
        for (folder, mut found) in found {
            found.sort_by(|a, b| name(a).cmp(name(b)));
            let first = out.entries.len();
            found.into_iter().for_each(|found| self.add(folder, found, out));
            let images = &out.entries[first..];
            inner.insert(folder, images.iter().map(|image| inner_folder(folder, &image.path)).collect());
            if images.is_empty() && !is_left_behind(last_part(folder)) {
                out.skips.add_empty_class(folder);
            }
        }
        inner.retain(|_, folders| !folders.is_empty());
        let is_deep = |folders: &BTreeSet<String>| folders.len() > 1 && !folders.contains("");
        if let Some(example) = inner.values().next().and_then(|folders| folders.first())
            && inner.values().all(is_deep)
        {
            out.skips.add_deep(if self.folder.is_empty() { "." } else { self.folder }, example);
        }
        Ok(())
    }

    /// Adds what was found below the folder of a class.
    fn add(&self, folder: &str, found: Found, out: &mut Collected) {
        let class = last_part(folder);
        match found {
            Found::Object(object) if is_image(object.name()) && !self.is_left_behind(object.name()) => {
                let file = File::Found(object.version().clone());
                self.add_image(object.name(), class, file, out);
            }
            Found::Object(object) => self.skip(object.name(), Reason::LeftBehind, out),
            Found::Fault(fault) => self.add_fault(&fault, Some(class), out),
        }
    }

    /// Adds what is next to the class folders under a name that is not UTF-8. It may be a class: then its images cannot be
    /// read, and nor can the folder be listed by itself.
    async fn add_unreadable(&self, name: &str, out: &mut Collected) -> Result<()> {
        let found: Vec<Found> = self.location.list_tree(self.folder).try_collect().await?;
        let below = format!("{name}/");
        let mut faults: Vec<Fault> = found
            .into_iter()
            .filter_map(|found| match found {
                Found::Fault(fault) if fault.name.starts_with(&below) => Some(fault),
                _ => None,
            })
            .collect();
        faults.sort_by(|a, b| a.name.cmp(&b.name));
        if faults.is_empty() {
            self.skip(name, Reason::OutsideOfClasses, out);
        }
        faults.iter().for_each(|fault| self.add_fault(fault, Some(last_part(name)), out));
        Ok(())
    }

    /// Adds an image of the class. One whose name no table can hold is unreadable.
    fn add_image(&self, path: &str, class: &str, file: File, out: &mut Collected) {
        match relative_path(path) {
            Ok(relative) => self.push(path, relative.to_owned(), class, file, out),
            Err(problem) => self.push(path, escaped(path), class, File::Unreadable(problem), out),
        }
    }

    /// Adds something that cannot be read: a row of the class if it is an image, which becomes a reject.
    fn add_fault(&self, Fault { name, kind }: &Fault, class: Option<&str>, out: &mut Collected) {
        // Next to class folders, a name without an ending is probably that of a class, which must not vanish.
        let is_class = class.is_none() && ending(name).is_empty() && *kind != FaultKind::Unfinished;
        match (kind, class) {
            (FaultKind::Loop, _) => out.skips.add(Some(self.split), Reason::Loop, name),
            _ if self.is_left_behind(name) => self.skip(name, Reason::OutsideOfClasses, out),
            (_, Some(class)) if is_image(name) => {
                let path = match (kind, relative_path(name)) {
                    // Its bytes that are not UTF-8 are escaped already.
                    (FaultKind::NotUnicode, _) => escape(name),
                    (_, Ok(relative)) => relative.to_owned(),
                    (_, Err(_)) => escaped(name),
                };
                self.push(name, path, class, File::Unreadable(kind.to_string()), out);
            }
            (FaultKind::Unreadable(_), _) => out.problems.add(&origin(name), kind),
            _ if is_class => out.problems.add(&origin(name), kind),
            _ => self.skip(name, Reason::OutsideOfClasses, out),
        }
    }

    /// Adds the image of the class that was found as `name`, under `path`.
    fn push(&self, name: &str, path: String, class: &str, file: File, out: &mut Collected) {
        // The images of a class whose name no table can hold are rejects.
        let class = if class.contains(char::is_control) { escaped(class) } else { class.to_owned() };
        match Label::of_name(&class) {
            Ok(label) => out.entries.push(Entry { path, label, split: self.split, origin: origin(name), file }),
            Err(problem) => out.problems.add(&origin(name), problem),
        }
    }

    /// Counts a file that is not read: for its name, for its ending, or else for `reason`.
    fn skip(&self, name: &str, reason: Reason, out: &mut Collected) {
        let reason = if self.is_left_behind(name) {
            Reason::LeftBehind
        } else if matches!(last_part(name), METADATA_CSV | METADATA_JSONL | METADATA_PARQUET) {
            Reason::Metadata
        } else if is_image(name) {
            reason
        } else {
            Reason::Ending(ending(name))
        };
        out.skips.add(Some(self.split), reason, name);
    }

    /// Whether a part of the name below the folder of the split is hidden or of a tool.
    fn is_left_behind(&self, name: &str) -> bool {
        is_left_behind(name.strip_prefix(self.folder).unwrap_or(name).trim_start_matches('/'))
    }
}

/// Returns a name without control characters, and with two backslashes for each.
fn escaped(name: &str) -> String {
    escape(name).replace('\\', "\\\\")
}

fn origin(name: &str) -> Origin {
    Origin { file: name.into(), line: None }
}

fn name(found: &Found) -> &str {
    match found {
        Found::Object(object) => object.name(),
        Found::Fault(fault) => &fault.name,
    }
}

fn last_part(folder: &str) -> &str {
    folder.rsplit('/').next().unwrap_or(folder)
}

/// Returns the folder directly below `folder` that `path` is in; empty if it is in `folder` itself.
fn inner_folder(folder: &str, path: &str) -> String {
    let below = path.strip_prefix(folder).unwrap_or(path).trim_start_matches('/');
    below.split_once('/').map_or_else(String::new, |(inner, _)| format!("{folder}/{inner}"))
}

/// A file of labels.
struct Metadata {
    folder: String,
    split: Split,
    label_column: String,
    file: Arc<str>,
    bytes: bytes::Bytes,
}

impl Metadata {
    /// Whether the file has the labels of images, of all or of some.
    fn has_labels(&self) -> Result<bool> {
        if self.file.ends_with(METADATA_CSV) {
            return has_column(&self.file, &self.bytes, &self.label_column);
        }
        let objects = lines(&self.file, &self.bytes)
            .filter_map(|(_, line)| -> Option<Value> { limited_read::parse(line.ok()?).ok() });
        Ok(objects.into_iter().any(|object| object.get(&self.label_column).is_some()))
    }

    fn path(&self, file_name: &str) -> Result<String, String> {
        let path = relative_path(file_name)?;
        Ok(if self.folder.is_empty() { path.to_owned() } else { format!("{}/{path}", self.folder) })
    }

    fn parse(&self, problems: &mut Problems, entries: &mut Vec<Entry>) -> Result<()> {
        if !self.file.ends_with(METADATA_CSV) {
            self.parse_json_lines(problems, entries);
            return Ok(());
        }
        let columns = [
            Column { name: FILE_NAME, key: "the path of an image" },
            Column { name: &self.label_column, key: "`source.label_column`" },
        ];
        let parse = |fields: &[&str]| {
            let [path, label] = fields else { return Ok(None) };
            Ok(Some((self.split, self.path(path)?, Label::of_text(label)?)))
        };
        read_rows(&self.file, &self.bytes, &columns, problems, parse, entries)
    }

    fn parse_json_lines(&self, problems: &mut Problems, entries: &mut Vec<Entry>) {
        for (origin, line) in lines(&self.file, &self.bytes) {
            match line.and_then(|line| self.parse_json(line)) {
                Ok(None) => {}
                Ok(Some((path, label))) => {
                    entries.push(Entry { path, label, split: self.split, origin, file: File::NotLookedUp });
                }
                Err(problem) => problems.add(&origin, problem),
            }
        }
    }

    fn parse_json(&self, line: &str) -> Result<Option<(String, Label)>, String> {
        if line.is_empty() {
            return Ok(None);
        }
        let object: Value = limited_read::parse(line).map_err(|error| format!("it is not valid JSON: {error}"))?;
        let file_name = object.get(FILE_NAME).and_then(Value::as_str);
        let file_name = file_name.ok_or_else(|| format!("it has no field `{FILE_NAME}`: {}", quote(line)))?;
        Ok(Some((self.path(file_name)?, Label::of_json(&object, &self.label_column)?)))
    }
}
