//! Tar files in the format of WebDataset: the members of a sample have the same name up to the first dot of its last
//! part.
//!
//! To list a tar, only its headers and labels are read. Images are read later, as ranges of it.

use std::{
    collections::{BTreeMap, HashMap},
    io::{self, Read as _},
    ops::Range,
    sync::Arc,
};

use futures::{StreamExt, TryStreamExt, stream};
use tar::Archive;

use super::{
    Read,
    entry::{Entry, Label, MAX_FIELD_BYTES, Origin, Problems, relative_path},
    error::{Result, SourceError},
    files::MAX_CONCURRENT_REQUESTS,
    image_folder::is_image,
    object::{MAX_IMAGE_BYTES, read_image},
    range_reader::RangeReader,
};
use crate::{
    config::Split,
    error::text::quote,
    storage::{Location, StoredObject},
};

/// Separates the path of a tar from the name of a member in it, in the `path` of a listing.
const MEMBER_MARK: char = '#';
/// The extensions of the members with a sample's label.
const CLASS: &str = "cls";
const JSON: &str = "json";

/// The indexed tars of a data set.
#[derive(Debug)]
pub(super) struct Tars {
    shards: Vec<StoredObject>,
    /// By the path of the listing; `None` for a sample without an image.
    images: HashMap<String, Option<Member>>,
}

/// The range of an image in a tar.
#[derive(Debug, Clone)]
struct Member {
    shard: usize,
    range: Range<u64>,
}

/// The members with the same name.
#[derive(Debug, Default)]
struct Sample {
    /// The full name of the image, and its range.
    image: Option<(String, Range<u64>)>,
    label: Option<Label>,
}

/// The samples of a tar by name, and its problems.
#[derive(Debug, Default)]
struct Index {
    samples: BTreeMap<String, Sample>,
    problems: Vec<String>,
}

impl Tars {
    /// Indexes every tar, up to [`MAX_CONCURRENT_REQUESTS`] in parallel, and returns the entries in them.
    ///
    /// # Errors
    /// Returns an error if a tar cannot be read or is truncated. Missing tars and invalid samples are added to
    /// `problems`.
    pub(super) async fn open(
        location: &Location,
        label_field: Option<&str>,
        splits: &[(Split, Vec<String>)],
        problems: &mut Problems,
    ) -> Result<(Self, Vec<Entry>)> {
        let names = splits.iter().flat_map(|(split, names)| names.iter().map(|name| (*split, name.as_str())));
        let found: Vec<_> = stream::iter(names)
            .map(|(split, name)| async move {
                let Some(object) = location.find(name).await? else { return Ok((split, name, None)) };
                let index = index(&object, label_field).await?;
                Ok::<_, SourceError>((split, name, Some((object, index))))
            })
            .buffered(MAX_CONCURRENT_REQUESTS)
            .try_collect()
            .await?;
        let (mut shards, mut images, mut entries) = (Vec::new(), HashMap::new(), Vec::new());
        for (split, name, shard) in found {
            let origin = Origin { file: name.into(), line: None };
            let Some((object, index)) = shard else {
                problems.add(&origin, "there is no such file; it is one of `source.splits`, below `source.root`");
                continue;
            };
            index.problems.iter().for_each(|problem| problems.add(&origin, problem));
            for (base, Sample { image, label }) in index.samples {
                let Some(label) = label else {
                    let member = if label_field.is_some() { JSON } else { CLASS };
                    problems.add(&origin, format!("the sample {} has no member `.{member}`", quote(&base)));
                    continue;
                };
                let path = format!("{name}{MEMBER_MARK}{}", image.as_ref().map_or(&base, |(member, _)| member));
                let member = image.map(|(_, range)| Member { shard: shards.len(), range });
                let version = member.is_some().then(|| object.version().clone());
                entries.push(Entry { path: path.clone(), label, split, origin: origin.clone(), version });
                images.insert(path, member);
            }
            shards.push(object);
        }
        Ok((Self { shards, images }, entries))
    }

    /// Returns the size of all images.
    pub(super) fn bytes(&self) -> u64 {
        self.images.values().flatten().map(|member| member.range.end - member.range.start).sum()
    }

    /// Reads the images at `paths`, up to [`MAX_CONCURRENT_REQUESTS`] in parallel.
    pub(super) async fn read(&self, paths: &[Option<&str>]) -> Result<Vec<Read>> {
        let images: Vec<_> = paths.iter().map(|path| self.image(*path)).collect();
        stream::iter(images).buffered(MAX_CONCURRENT_REQUESTS).try_collect().await
    }

    async fn image(&self, path: Option<&str>) -> Result<Read> {
        let Some(path) = path else { return Ok(Ok(None)) };
        let Some(member) = self.images.get(path) else {
            return Ok(Err(format!("`{path}` is not an image of the source")));
        };
        match member.as_ref().and_then(|member| Some((self.shards.get(member.shard)?, &member.range))) {
            None => Ok(Err("the sample has no image, a `.jpg`, `.jpeg`, `.png` or `.webp`".into())),
            Some((shard, range)) => read_image(shard, range.clone()).await,
        }
    }
}

async fn index(object: &StoredObject, label_field: Option<&str>) -> Result<Index> {
    let invalid = |source| SourceError::NotTar { url: object.url(), source };
    let (reader, size) = (RangeReader::new(object.clone()), object.size());
    let field: Option<Arc<str>> = label_field.map(Arc::from);
    let read = tokio::task::spawn_blocking(move || read_samples(reader, size, field.as_deref())).await;
    read.map_err(|error| invalid(io::Error::other(error)))?.map_err(invalid)
}

fn read_samples(reader: RangeReader, size: u64, label_field: Option<&str>) -> io::Result<Index> {
    let mut archive = Archive::new(reader);
    let Index { mut samples, mut problems } = Index::default();
    for member in archive.entries_with_seek()? {
        let mut member = member?;
        let start = member.raw_file_position();
        let range = start..start.saturating_add(member.size());
        let name = String::from_utf8_lossy(&member.path_bytes()).into_owned();
        if range.end > size {
            return Err(io::Error::other(format!("it is truncated in its member {}", quote(&name))));
        }
        if !member.header().entry_type().is_file() {
            continue;
        }
        let Some((base, extension)) = split_name(&name) else { continue };
        let label_extension = if label_field.is_some() { JSON } else { CLASS };
        let is_label = extension.eq_ignore_ascii_case(label_extension);
        if !is_label && !is_image(extension) {
            continue;
        }
        let sample: &mut Sample = match relative_path(base) {
            Ok(base) => samples.entry(base.to_owned()).or_default(),
            Err(problem) => {
                problems.push(problem);
                continue;
            }
        };
        if is_label {
            let label = read_label(&mut member).and_then(|text| parse_label(&text, label_field));
            match label {
                Ok(_) if sample.label.is_some() => problems.push(format!("the tar has {} twice", quote(&name))),
                Ok(label) => sample.label = Some(label),
                Err(problem) => problems.push(format!("{}: {problem}", quote(&name))),
            }
        } else if let Some((other, _)) = &sample.image {
            problems.push(format!("the sample {} has two images, {} and {}", quote(base), quote(other), quote(&name)));
        } else {
            sample.image = Some((name.trim_start_matches("./").to_owned(), range));
        }
    }
    Ok(Index { samples, problems })
}

/// Splits the name of a member at the first dot of its last part.
fn split_name(name: &str) -> Option<(&str, &str)> {
    let last = name.rfind('/').map_or(0, |slash| slash + 1);
    let dot = last + name.get(last..)?.find('.')?;
    (dot > last).then(|| Some((name.get(..dot)?, name.get(dot + 1..)?)))?
}

fn read_label(member: &mut impl io::Read) -> Result<String, String> {
    let mut bytes = Vec::new();
    let limit = MAX_IMAGE_BYTES as u64;
    member.take(limit + 1).read_to_end(&mut bytes).map_err(|error| format!("it cannot be read: {error}"))?;
    if bytes.len() > MAX_IMAGE_BYTES {
        return Err(format!("it has more than {limit} bytes"));
    }
    String::from_utf8(bytes).map_err(|_| "it is not valid UTF-8".to_owned())
}

fn parse_label(text: &str, field: Option<&str>) -> Result<Label, String> {
    match field {
        None if text.len() > MAX_FIELD_BYTES => {
            Err(format!("it has {} bytes, {MAX_FIELD_BYTES} are allowed", text.len()))
        }
        None => Label::parse_number(text),
        Some(field) => {
            let object: serde_json::Value =
                serde_json::from_str(text).map_err(|error| format!("it is not valid JSON: {error}"))?;
            Label::parse_json(&object, field)
        }
    }
}
