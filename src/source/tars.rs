//! Tar files as WebDataset has them: the members of a sample share their name up to the first dot of its last part.
//!
//! Only the headers of a tar are read to list it, and its labels. Images are then read by their place in it.

use std::{
    collections::{BTreeMap, HashMap},
    io::Read as _,
    ops::Range,
    sync::Arc,
};

use futures::{StreamExt, TryStreamExt, stream};
use tar::Archive;

use super::{
    Read,
    entry::{Entry, Label, MAX_FIELD_BYTES, Origin, Problems, quote, relative_path},
    files::AT_ONCE,
    image_folder::is_image,
    object::{MAX_IMAGE_BYTES, Version, head, image},
    range_reader::RangeReader,
};
use crate::{
    config::Split,
    error::{Error, Result},
    storage::Location,
};

/// What is between a tar's path and the name of a member in it, in a listing's `path`.
const MEMBER_MARK: char = '#';
/// The member with a sample's label.
const CLASS: &str = "cls";
const JSON: &str = "json";

/// The tars of a data set, indexed.
#[derive(Debug)]
pub(super) struct Tars {
    location: Location,
    shards: Vec<(String, Version)>,
    /// By the path of the listing; none for a sample without an image.
    images: HashMap<String, Option<Member>>,
}

/// Where the bytes of an image are.
#[derive(Debug, Clone)]
struct Member {
    shard: usize,
    bytes: Range<u64>,
}

/// What shares a name.
#[derive(Debug, Default)]
struct Sample {
    /// The image's whole name, and where it is.
    image: Option<(String, Range<u64>)>,
    label: Option<Label>,
}

impl Tars {
    /// Indexes every tar, up to [`AT_ONCE`] side by side, and names the images in them.
    ///
    /// # Errors
    /// Where a tar is missing, cannot be read, or is cut off. What is wrong with samples is added to `problems`.
    pub(super) async fn open(
        location: Location,
        label_field: Option<&str>,
        splits: &[(Split, Vec<String>)],
        problems: &mut Problems,
    ) -> Result<(Self, Vec<Entry>)> {
        let names = splits.iter().flat_map(|(split, names)| names.iter().map(|name| (*split, name.as_str())));
        let found: Vec<_> = stream::iter(names)
            .map(|(split, name)| {
                let location = &location;
                async move { Ok::<_, Error>((split, name, index(location, name, label_field).await?)) }
            })
            .buffered(AT_ONCE)
            .try_collect()
            .await?;
        let (mut shards, mut images, mut named) = (Vec::new(), HashMap::new(), Vec::new());
        for (split, name, shard) in found {
            let origin = Origin { file: name.into(), line: None };
            let Some((version, samples, wrong)) = shard else {
                problems.add(&origin, "there is no such file; it is one of `source.splits`, below `source.root`");
                continue;
            };
            wrong.iter().for_each(|what| problems.add(&origin, what));
            for (base, Sample { image, label }) in samples {
                let Some(label) = label else {
                    let member = if label_field.is_some() { JSON } else { CLASS };
                    problems.add(&origin, format!("the sample {} has no member `.{member}`", quote(&base)));
                    continue;
                };
                let path = format!("{name}{MEMBER_MARK}{}", image.as_ref().map_or(&base, |(member, _)| member));
                let member = image.map(|(_, bytes)| Member { shard: shards.len(), bytes });
                let there = member.is_some().then(|| version.clone());
                named.push(Entry { path: path.clone(), label, split, origin: origin.clone(), version: there });
                images.insert(path, member);
            }
            shards.push((name.to_owned(), version));
        }
        Ok((Self { location, shards, images }, named))
    }

    /// The size of all images.
    pub(super) fn bytes(&self) -> u64 {
        self.images.values().flatten().map(|member| member.bytes.end - member.bytes.start).sum()
    }

    /// The images at `paths`, up to [`AT_ONCE`] side by side.
    pub(super) async fn read(&self, paths: &[Option<&str>]) -> Result<Vec<Read>> {
        let images: Vec<_> = paths.iter().map(|path| self.image(*path)).collect();
        stream::iter(images).buffered(AT_ONCE).try_collect().await
    }

    async fn image(&self, path: Option<&str>) -> Result<Read> {
        let Some(path) = path else { return Ok(Ok(None)) };
        match self.images.get(path) {
            None => Ok(Err(format!("`{path}` is no image of the source"))),
            Some(None) => Ok(Err("the sample has no image, a `.jpg`, `.jpeg`, `.png` or `.webp`".into())),
            Some(Some(Member { shard, bytes })) => {
                let Some((name, version)) = self.shards.get(*shard) else {
                    return Ok(Err(format!("`{path}` is no image of the source")));
                };
                image(&self.location, name, version, bytes.clone()).await
            }
        }
    }
}

type Index = (Version, BTreeMap<String, Sample>, Vec<String>);

/// The samples of a tar by name, and what is wrong in it; none where there is no such file.
async fn index(location: &Location, name: &str, label_field: Option<&str>) -> Result<Option<Index>> {
    let Some(meta) = head(location, name, "source.splits").await? else { return Ok(None) };
    let version = Version::of(&meta);
    let fail = |error: std::io::Error| {
        Error::lake(
            format!("{}{name}", location.url),
            "it is no tar file that can be read; compressed ones cannot",
            error,
        )
    };
    let (window, size) = (RangeReader::new(location, name, &version), version.size);
    let field: Option<Arc<str>> = label_field.map(Arc::from);
    let read = tokio::task::spawn_blocking(move || samples(window, size, field.as_deref())).await;
    let (samples, wrong) = read.map_err(|error| fail(std::io::Error::other(error)))?.map_err(fail)?;
    Ok(Some((version, samples, wrong)))
}

fn samples(
    window: RangeReader,
    size: u64,
    label_field: Option<&str>,
) -> std::io::Result<(BTreeMap<String, Sample>, Vec<String>)> {
    let mut archive = Archive::new(window);
    let (mut samples, mut wrong) = (BTreeMap::<String, Sample>::new(), Vec::new());
    for entry in archive.entries_with_seek()? {
        let mut entry = entry?;
        let start = entry.raw_file_position();
        let bytes = start..start.saturating_add(entry.size());
        let name = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
        if bytes.end > size {
            return Err(std::io::Error::other(format!("it is cut off in its member {}", quote(&name))));
        }
        if !entry.header().entry_type().is_file() {
            continue;
        }
        let Some((base, ending)) = parts(&name) else { continue };
        let label_ending = if label_field.is_some() { JSON } else { CLASS };
        let is_label = ending.eq_ignore_ascii_case(label_ending);
        if !is_label && !is_image(ending) {
            continue;
        }
        let sample = match relative_path(base) {
            Ok(base) => samples.entry(base.to_owned()).or_default(),
            Err(why) => {
                wrong.push(why);
                continue;
            }
        };
        if is_label {
            let label = label_text(&mut entry).and_then(|text| label_of(&text, label_field));
            match label {
                Ok(_) if sample.label.is_some() => wrong.push(format!("{} is there twice", quote(&name))),
                Ok(label) => sample.label = Some(label),
                Err(why) => wrong.push(format!("{}: {why}", quote(&name))),
            }
        } else if let Some((other, _)) = &sample.image {
            wrong.push(format!("the sample {} has two images, {} and {}", quote(base), quote(other), quote(&name)));
        } else {
            sample.image = Some((name.trim_start_matches("./").to_owned(), bytes));
        }
    }
    Ok((samples, wrong))
}

/// The name of a member up to the first dot of its last part, and what is after that dot.
fn parts(name: &str) -> Option<(&str, &str)> {
    let last = name.rfind('/').map_or(0, |slash| slash + 1);
    let dot = last + name.get(last..)?.find('.')?;
    (dot > last).then(|| Some((name.get(..dot)?, name.get(dot + 1..)?)))?
}

fn label_text(member: &mut impl std::io::Read) -> Result<String, String> {
    let mut bytes = Vec::new();
    let limit = MAX_IMAGE_BYTES as u64;
    member.take(limit + 1).read_to_end(&mut bytes).map_err(|error| format!("it cannot be read: {error}"))?;
    if bytes.len() > MAX_IMAGE_BYTES {
        return Err(format!("it has more than {limit} bytes"));
    }
    String::from_utf8(bytes).map_err(|_| "it is no UTF-8".to_owned())
}

fn label_of(text: &str, field: Option<&str>) -> Result<Label, String> {
    match field {
        None if text.len() > MAX_FIELD_BYTES => {
            Err(format!("it has {} bytes, {MAX_FIELD_BYTES} are allowed", text.len()))
        }
        None => Label::number(text),
        Some(field) => {
            let object: serde_json::Value =
                serde_json::from_str(text).map_err(|error| format!("it is no JSON: {error}"))?;
            Label::of_json(&object, field)
        }
    }
}
