//! Tar files in the format of WebDataset: the members of a sample have the same name up to the first dot of its last
//! part.
//!
//! To list a tar, only its headers and labels are read. Images are read later, as ranges of it.

use std::{
    collections::{BTreeMap, HashMap},
    io::{self, Read as _},
    ops::Range,
};

use futures::{StreamExt, TryStreamExt, stream};
use serde_json::Value;
use tar::Archive;

use super::{
    Read,
    entry::{Collected, Entry, File, Origin, relative_path},
    error::{Result, SourceError},
    files::MAX_CONCURRENT_REQUESTS,
    label::Label,
    names::{is_image, is_left_behind},
    object::{MAX_IMAGE_BYTES, or_stand_in, read_image},
    patterns::hint,
    range_reader::RangeReader,
    skips::Reason,
};
use crate::{
    config::Split,
    error::text::{escape, first_few, quote, shorten},
    limited_read,
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
    /// By the path of the listing; the reason for a sample without an image.
    images: HashMap<String, Result<Member, String>>,
}

/// The range of an image in a tar.
#[derive(Debug, Clone)]
struct Member {
    shard: usize,
    range: Range<u64>,
}

/// Which members of a sample are read.
#[derive(Debug, Clone, Default)]
pub(super) struct Members {
    /// The field of the member `.json` with the label; without it, the label is the member `.cls`.
    pub(super) label_field: Option<String>,
    /// The ending of the member with the image; without it, the one image of a sample.
    pub(super) image: Option<String>,
}

impl Members {
    fn label(&self) -> &'static str {
        if self.label_field.is_some() { JSON } else { CLASS }
    }
}

/// The members with the same name up to the first dot.
#[derive(Debug, Default)]
struct Sample {
    /// Images: ending, full name, range.
    images: Vec<(String, String, Range<u64>)>,
    label: Option<Label>,
    /// Whether its label is invalid, which is a problem of the tar.
    has_invalid_label: bool,
    /// Why no table can hold the name of the sample.
    unreadable: Option<String>,
    /// The endings of all members.
    endings: Vec<String>,
}

impl Sample {
    /// Returns the image that `members` chooses, if there is one.
    fn image(&self, members: &Members) -> Result<Option<(&str, &Range<u64>)>, String> {
        let chosen = |ending: &str| members.image.as_ref().is_none_or(|image| image.eq_ignore_ascii_case(ending));
        let images: Vec<_> = self.images.iter().filter(|(ending, ..)| chosen(ending)).collect();
        match images[..] {
            [] => Ok(None),
            [(_, name, range)] => Ok(Some((name, range))),
            [(first, ..), (second, ..), ..] if first == second => Err(format!("the member `.{first}` twice")),
            _ => {
                let endings = self.image_endings();
                Err(format!("several images; `source.image_member` chooses one of {endings}"))
            }
        }
    }

    /// Returns why the sample has no image, if `members` choose none.
    fn without_image(&self, members: &Members) -> String {
        match &members.image {
            Some(image) if !self.images.is_empty() => format!(
                "the sample has no image `{}` (`source.image_member`), but {}",
                shorten(image),
                self.image_endings()
            ),
            _ => format!("the sample has no image; its members are {}", self.members()),
        }
    }

    fn image_endings(&self) -> String {
        let endings: Vec<String> = self.images.iter().map(|(ending, ..)| format!("`{}`", shorten(ending))).collect();
        first_few(&endings)
    }

    fn members(&self) -> String {
        let endings: Vec<String> = self.endings.iter().map(|ending| format!("`.{}`", shorten(ending))).collect();
        first_few(&endings)
    }
}

/// The samples of a tar by name, and what is wrong with it.
#[derive(Debug, Default)]
struct Index {
    samples: BTreeMap<String, Sample>,
    problems: Vec<String>,
    /// Members that belong to no sample.
    skipped: Vec<(Reason, String)>,
}

impl Tars {
    /// Indexes every tar, up to [`MAX_CONCURRENT_REQUESTS`] in parallel, and adds the entries in them to `out`.
    ///
    /// # Errors
    /// Returns an error if a tar cannot be read or is truncated. Missing tars and invalid samples are added to the problems
    /// of `out`.
    pub(super) async fn open(
        location: &Location,
        members: &Members,
        splits: &[(Split, Vec<String>)],
        out: &mut Collected,
    ) -> Result<Self> {
        let names = splits.iter().flat_map(|(split, names)| names.iter().map(|name| (*split, name.as_str())));
        let found: Vec<_> = stream::iter(names)
            .map(|(split, name)| async move {
                let Some(object) = location.find(name).await? else { return Ok((split, name, None)) };
                let index = index(&object, members).await?;
                Ok::<_, SourceError>((split, name, Some((object, index))))
            })
            .buffered(MAX_CONCURRENT_REQUESTS)
            .try_collect()
            .await?;
        let mut tars = Self { shards: Vec::new(), images: HashMap::new() };
        for (split, name, shard) in found {
            let origin = Origin { file: name.into(), line: None };
            let Some((object, index)) = shard else {
                let hint = hint(name, true);
                out.problems.add(
                    &origin,
                    format!("this file does not exist; it is one of `source.splits`, below `source.root`{hint}"),
                );
                continue;
            };
            index.problems.iter().for_each(|problem| out.problems.add(&origin, problem));
            for (reason, member) in index.skipped {
                out.skips.add(Some(split), reason, &format!("{name}{MEMBER_MARK}{member}"));
            }
            for (base, sample) in index.samples {
                match tars.entry(&base, &sample, members, split, &origin, &object) {
                    Ok(Some(entry)) => out.entries.push(entry),
                    Ok(None) if sample.has_invalid_label => {}
                    Ok(None) => {
                        out.skips.add(Some(split), Reason::NoMembers, &format!("{name}{MEMBER_MARK}{base}"));
                    }
                    Err(problem) => out.problems.add(&origin, format!("the sample {} has {problem}", quote(&base))),
                }
            }
            tars.shards.push(object);
        }
        Ok(tars)
    }

    /// Adds a sample of the tar that is added next. Returns `None` if it has neither an image nor a label, or if
    /// its label is invalid.
    fn entry(
        &mut self,
        base: &str,
        sample: &Sample,
        members: &Members,
        split: Split,
        origin: &Origin,
        object: &StoredObject,
    ) -> Result<Option<Entry>, String> {
        let image = sample.image(members)?;
        let Some(label) = sample.label.clone() else {
            return if image.is_none() || sample.has_invalid_label {
                Ok(None)
            } else {
                Err(format!(
                    "no member `.{}`, but {}; the name of a sample ends at the first dot, as in WebDataset",
                    members.label(),
                    sample.members()
                ))
            };
        };
        let (path, file, member) = match image {
            _ if sample.unreadable.is_some() => {
                let reason = sample.unreadable.clone().unwrap_or_default();
                (base, File::Unreadable(reason.clone()), Err(reason))
            }
            Some((name, range)) => {
                let member = Member { shard: self.shards.len(), range: range.clone() };
                (name, File::Found(object.version().clone()), Ok(member))
            }
            None => {
                let reason = sample.without_image(members);
                (base, File::Unreadable(reason.clone()), Err(reason))
            }
        };
        let path = format!("{}{MEMBER_MARK}{path}", origin.file);
        self.images.insert(path.clone(), member);
        Ok(Some(Entry { path, label, split, origin: origin.clone(), file }))
    }

    /// Returns the size of the image at `path`, if it is known.
    pub(super) fn size(&self, path: &str) -> Option<u64> {
        self.images.get(path)?.as_ref().ok().map(|member| member.range.end - member.range.start)
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
        let member = match member {
            Ok(member) => member,
            Err(reason) => return Ok(Err(reason.clone())),
        };
        match self.shards.get(member.shard) {
            Some(shard) => read_image(shard, member.range.clone()).await,
            None => Ok(Err(format!("`{path}` is not an image of the source"))),
        }
    }
}

async fn index(object: &StoredObject, members: &Members) -> Result<Index> {
    let invalid = |source| SourceError::NotTar { url: object.url(), source };
    let (reader, size, members) = (RangeReader::new(object.clone()), object.size(), members.clone());
    let read = tokio::task::spawn_blocking(move || read_samples(reader, size, &members)).await;
    match read.unwrap_or_else(|error| Err(io::Error::other(error))) {
        Ok(index) => Ok(index),
        Err(source) => Err(or_stand_in(object, invalid(source)).await),
    }
}

fn read_samples(reader: RangeReader, size: u64, members: &Members) -> io::Result<Index> {
    let mut archive = Archive::new(reader);
    let mut index = Index::default();
    for member in archive.entries_with_seek()? {
        let mut member = member?;
        let start = member.raw_file_position();
        let range = start..start.saturating_add(member.size());
        let name = String::from_utf8_lossy(&member.path_bytes()).into_owned();
        if range.end > size {
            return Err(io::Error::other(format!("it is truncated in its member {}", quote(&name))));
        }
        if member.header().entry_type().is_file() {
            index.add(&name, range, members, &mut member);
        }
    }
    Ok(index)
}

impl Index {
    /// Adds a member to its sample.
    fn add(&mut self, name: &str, range: Range<u64>, members: &Members, content: &mut impl io::Read) {
        let Some((base, ending)) = split_name(name).filter(|_| !is_left_behind(name)) else {
            let reason = if is_left_behind(name) { Reason::LeftBehind } else { Reason::NoMembers };
            self.skipped.push((reason, name.to_owned()));
            return;
        };
        let sample: &mut Sample = match relative_path(name) {
            Ok(_) => self.samples.entry(base.trim_start_matches("./").to_owned()).or_default(),
            // Without the control characters it would do: the sample is unreadable, and the tar is sound.
            Err(problem) if relative_path(&name.replace(char::is_control, "")).is_ok() => {
                let sample = self.samples.entry(escape(base).replace('\\', "\\\\")).or_default();
                sample.unreadable = Some(problem);
                sample
            }
            Err(problem) => return self.problems.push(problem),
        };
        let ending = ending.to_lowercase();
        if ending == members.label() {
            match read_label(content).and_then(|text| parse_label(&text, members.label_field.as_deref())) {
                Ok(_) if sample.label.is_some() => self.problems.push(format!("the tar has {} twice", quote(name))),
                Ok(label) => sample.label = Some(label),
                Err(problem) => {
                    sample.has_invalid_label = true;
                    self.problems.push(format!("{}: {problem}", quote(name)));
                }
            }
        } else if is_image(name) {
            sample.images.push((ending.clone(), name.trim_start_matches("./").to_owned(), range));
        }
        sample.endings.push(ending);
    }
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
        None => Label::of_text(text),
        Some(field) => {
            let object: Value = limited_read::parse(text).map_err(|error| format!("it is not valid JSON: {error}"))?;
            Label::of_json(&object, field)
        }
    }
}
