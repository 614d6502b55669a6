//! What lists a data set: lists, tables, files of labels, folders and tars; the files of class names, descriptions and
//! common names; ranges of shard names.
//!
//! Nothing may panic. Accepted paths stay below the root, none is accepted twice, and each line or row is either an image
//! or a problem. Problems are counted, and few are shown, each on one short line with its origin. An image of a tar has
//! the bytes that the tar's own reader returns.
//!
//! The first byte of the input chooses the parser. `=====` on a separate line is between the files of two splits. The
//! object store is a map here, and its futures are ready at once.
#![no_main]
#![allow(dead_code, unused_imports, missing_docs)]

use libfuzzer_sys::fuzz_target;

// Stand for the packages of these names.
extern crate self as arrow;
extern crate self as parquet;
extern crate self as tokio;

#[path = "../../src/limited_read/mod.rs"]
mod limited_read;

#[path = "../../src/config/brace_expansion.rs"]
mod braces;

#[path = "../../src/config/mod.rs"]
mod config;

#[path = "../../src/error"]
mod error {
    pub(crate) mod diagnostics;
    pub(crate) mod text;

    pub(crate) use diagnostics::{Diagnostic, Diagnostics};

    /// Stands for the error of that name.
    #[derive(Debug, thiserror::Error)]
    #[error(transparent)]
    pub(crate) struct Error(Box<dyn std::error::Error + Send + Sync>);

    impl Error {
        pub(crate) fn input(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
            Self(error.into())
        }

        pub(crate) fn failed(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
            Self(error.into())
        }
    }

    /// Stands for the error of Arrow.
    #[derive(Debug, thiserror::Error)]
    #[error("never")]
    pub(crate) struct ArrowError;
}

/// Stands for the module of Parquet.
mod errors {
    #[derive(Debug, thiserror::Error)]
    #[error("never")]
    pub(crate) struct ParquetError;
}

/// Stands for the module of the runtime.
mod task {
    pub(crate) async fn spawn_blocking<T>(work: impl FnOnce() -> T) -> Result<T, std::io::Error> {
        Ok(work())
    }
}

/// Stands for the module of the runtime.
mod runtime {
    use futures::FutureExt;

    #[derive(Debug)]
    pub(crate) struct Handle;

    impl Handle {
        pub(crate) fn current() -> Self {
            Self
        }

        pub(crate) fn block_on<T>(&self, work: impl Future<Output = T>) -> T {
            work.now_or_never().expect("a map never waits")
        }
    }
}

/// Stands for the module of that name. A location is all of its store.
mod storage {
    use std::{collections::BTreeMap, ops::Range, sync::Arc};

    use futures::{Stream, stream};

    use crate::error::Error;

    #[derive(Debug, thiserror::Error)]
    #[error("never")]
    pub(crate) enum StorageError {
        Changed { url: String },
        Other,
    }

    impl From<StorageError> for Error {
        fn from(error: StorageError) -> Self {
            Self::failed(error)
        }
    }

    type Result<T> = std::result::Result<T, StorageError>;

    #[derive(Debug, Clone, PartialEq, Eq)]
    pub(crate) struct Version(u64);

    impl Version {
        pub(crate) fn size(&self) -> u64 {
            self.0
        }
    }

    #[derive(Debug, Clone)]
    pub(crate) struct Location(pub(crate) Arc<BTreeMap<String, Vec<u8>>>);

    #[derive(Debug, Clone)]
    pub(crate) struct StoredObject {
        location: Location,
        name: String,
        version: Version,
    }

    pub(crate) struct Folder {
        pub(crate) objects: Vec<StoredObject>,
        pub(crate) folders: Vec<String>,
    }

    impl Location {
        pub(crate) fn url_of(&self, name: &str) -> String {
            format!("memory:///{name}")
        }

        pub(crate) fn object(&self, name: &str, version: Version) -> StoredObject {
            StoredObject { location: self.clone(), name: name.to_owned(), version }
        }

        pub(crate) async fn find(&self, name: &str) -> Result<Option<StoredObject>> {
            Ok(self.0.get(name).map(|bytes| self.object(name, Version(bytes.len() as u64))))
        }

        /// Returns the objects below a folder, each with its name relative to the folder.
        fn below(&self, folder: &str) -> Vec<(String, StoredObject)> {
            let before = if folder.is_empty() { String::new() } else { format!("{folder}/") };
            let of = |(name, bytes): (&String, &Vec<u8>)| {
                let object = self.object(name, Version(bytes.len() as u64));
                Some((name.strip_prefix(&before)?.to_owned(), object))
            };
            self.0.iter().filter_map(of).collect()
        }

        pub(crate) async fn list_folder(&self, folder: &str) -> Result<Folder> {
            let (mut objects, mut folders) = (Vec::new(), Vec::new());
            for (rest, object) in self.below(folder) {
                match rest.split_once('/') {
                    None => objects.push(object),
                    Some((_, after)) => {
                        let name = &object.name;
                        folders.push(name[..name.len() - after.len() - 1].to_owned());
                    }
                }
            }
            folders.dedup();
            Ok(Folder { objects, folders })
        }

        pub(crate) fn list_tree(&self, folder: &str) -> impl Stream<Item = Result<StoredObject>> + use<> {
            stream::iter(self.below(folder).into_iter().map(|(_, object)| Ok(object)).collect::<Vec<_>>())
        }
    }

    impl StoredObject {
        pub(crate) fn name(&self) -> &str {
            &self.name
        }

        pub(crate) fn file_name(&self) -> &str {
            self.name.rsplit('/').next().unwrap_or(&self.name)
        }

        pub(crate) fn version(&self) -> &Version {
            &self.version
        }

        pub(crate) fn size(&self) -> u64 {
            self.version.0
        }

        pub(crate) fn url(&self) -> String {
            self.location.url_of(&self.name)
        }

        pub(crate) fn is_local(&self) -> bool {
            true
        }

        pub(crate) async fn read(&self) -> Result<bytes::Bytes> {
            self.read_range(0..self.size()).await
        }

        pub(crate) async fn read_range(&self, range: Range<u64>) -> Result<bytes::Bytes> {
            let bytes = self.location.0.get(&self.name).expect("it was listed");
            let bytes = bytes.get(range.start as usize..range.end as usize).expect("the range is in the file");
            Ok(bytes::Bytes::copy_from_slice(bytes))
        }
    }
}

#[path = "../../src/source"]
mod source {
    use std::{
        collections::{BTreeMap, BTreeSet, HashMap},
        fmt::Display,
        io::Read as _,
        path::{Component, Path, PathBuf},
        sync::{Arc, OnceLock},
    };

    use futures::executor::block_on;

    use self::{
        classes::Classes,
        entry::{Entry, Label, MAX_FIELD_BYTES, Problems},
        error::Result,
        files::Files,
        tars::Tars,
    };
    use crate::{
        config::{SourceKind, Split},
        storage::Location,
    };

    mod classes;
    mod csv_table;
    mod entry;
    mod error;
    mod files;
    mod image_folder;
    mod list;
    mod object;
    mod range_reader;
    mod tars;

    /// Has only the files of text.
    mod side_tables {
        pub(super) mod class_text;

        pub(super) use class_text::{read_json, read_text};
    }

    use side_tables::class_text;

    type Read = Result<Option<Vec<u8>>, String>;

    const MARK: &[u8] = b"\n=====\n";

    /// The parts of the input: one or two.
    fn parts(bytes: &[u8]) -> Vec<&[u8]> {
        match bytes.windows(MARK.len()).position(|window| window == MARK) {
            Some(at) => vec![&bytes[..at], &bytes[at + MARK.len()..]],
            None => vec![bytes],
        }
    }

    /// The parts as files called so in a store, and the splits that they are.
    fn splits(bytes: &[u8], names: [&str; 2]) -> (Location, Vec<(Split, Vec<String>)>) {
        let entries = || parts(bytes).into_iter().zip(names);
        let files = entries().map(|(bytes, name)| (name.to_owned(), bytes.to_vec())).collect();
        let splits = [Split::Train, Split::Test].into_iter().zip(entries());
        (Location(Arc::new(files)), splits.map(|(split, (_, name))| (split, vec![name.to_owned()])).collect())
    }

    /// Sees that a message is short, and one line but for hints.
    fn is_short(error: impl Display) {
        let said = error.to_string();
        assert!(!said.is_empty() && said.chars().count() < 32 << 10, "{} characters: {said}", said.chars().count());
        for (number, line) in said.lines().enumerate() {
            assert!(number == 0 || line.starts_with("hint: "), "{said:?}");
            assert!(!line.contains(char::is_control), "{said:?}");
        }
    }

    /// Sees that problems are few lines, each with a file and, if it has such, a line of it.
    fn are_short(count: usize, problems: Problems, files: &BTreeMap<String, Vec<u8>>, has_lines: bool) -> bool {
        let Err(error) = problems.finish() else {
            assert_eq!(count, 0);
            return true;
        };
        let said = error.to_string();
        let mut lines = said.lines();
        let first = lines.next().expect("it has a line");
        assert!(count == 1 || first.contains(&format!("{count} invalid entries")), "{first}");
        let shown: Vec<&str> = lines.collect();
        assert_eq!(shown.len(), count.min(10), "{said}");
        for line in shown {
            is_short(line);
            if has_lines {
                let place = line.strip_prefix("  `").and_then(|line| line.split_once("`:")).expect(line);
                let number: usize = place.1.split(':').next().and_then(|number| number.parse().ok()).expect(line);
                let of = files.get(place.0).expect(line);
                let last = 1 + of.iter().filter(|byte| **byte == b'\n').count();
                assert!((1..=last).contains(&number), "{line}: of {last}");
            }
        }
        false
    }

    fn stays_below(path: &str) -> bool {
        let sound = Path::new(path).components().all(|part| matches!(part, Component::Normal(_)));
        let drive = path.as_bytes().get(1) == Some(&b':') && path.as_bytes()[0].is_ascii_alphabetic();
        let plain = !path.contains(['\\', '\0']) && !path.contains(char::is_control) && !path.contains("//");
        sound && plain && !drive && !path.is_empty() && !path.ends_with('/') && path.len() <= 2 * MAX_FIELD_BYTES
    }

    /// Sees that all of it holds, and gives what was accepted.
    fn check(location: &Location, entries: Vec<Entry>, mut problems: Problems, has_lines: bool) -> Option<Vec<Entry>> {
        for row in &entries {
            let path = if has_lines { &row.path } else { row.path.strip_prefix("a.tar#").unwrap_or(&row.path) };
            assert!(stays_below(path), "{path:?}");
            match &row.label {
                Label::Number(number) => assert!(*number >= 0),
                Label::Name(text) => assert!(!text.trim().is_empty() && !text.contains(char::is_control), "{text:?}"),
            }
        }
        let before = problems.count();
        let different: BTreeSet<&str> = entries.iter().map(|row| row.path.as_str()).collect();
        let twice = entries.len() - different.len();
        entry::reject_duplicates(&entries, &mut problems);
        assert_eq!(problems.count(), before + twice);
        if !are_short(before + twice, problems, &location.0, has_lines) {
            return None;
        }
        match classes::assign_labels(&entries, None) {
            Ok((labels, classes)) => {
                assert_eq!(labels.len(), entries.len());
                for (label, row) in labels.iter().zip(&entries) {
                    assert!(*label >= 0);
                    if let Label::Name(text) = &row.label {
                        assert_eq!(&classes.name(*label), text);
                    }
                }
            }
            Err(error) => is_short(error),
        }
        if let Err(error) = classes::assign_labels(&entries, Some(Classes::of(["cat", "dog"]))) {
            is_short(error);
        }
        Some(entries)
    }

    /// Sees what [`check`] sees, and that the files are found.
    fn check_files(location: Location, found: Result<Vec<Entry>>, problems: Problems, rows: Option<usize>) {
        let entries = match found {
            Ok(entries) => entries,
            Err(error) => return is_short(error),
        };
        if let Some(rows) = rows {
            assert_eq!(entries.len() + problems.count(), rows, "a row is neither an image nor a problem");
        }
        let Some(mut entries) = check(&location, entries, problems, rows.is_some()) else { return };
        let files = block_on(Files::open(location.clone(), &mut entries)).expect("the store lists everything");
        let paths: Vec<_> = entries.iter().map(|row| Some(row.path.as_str())).collect();
        for (read, row) in block_on(files.read(&paths)).expect("nothing changes").iter().zip(&entries) {
            assert_eq!(read.as_ref().ok(), location.0.get(&row.path).map(|bytes| Some(bytes.clone())).as_ref());
        }
    }

    /// Lines that are not empty.
    fn filled(bytes: &[u8]) -> usize {
        let blank =
            |line: &[u8]| line.len() <= MAX_FIELD_BYTES && str::from_utf8(line).is_ok_and(|l| l.trim().is_empty());
        let of_part = |part: &[u8]| {
            let part = part.strip_prefix(b"\xef\xbb\xbf").unwrap_or(part);
            part.split(|byte| *byte == b'\n').filter(|line| !blank(line)).count()
        };
        parts(bytes).into_iter().map(of_part).sum()
    }

    /// Rows of tables.
    fn rows(bytes: &[u8]) -> usize {
        let reader = |part| csv::ReaderBuilder::new().flexible(true).from_reader(part);
        parts(bytes).into_iter().map(|part| reader(part).into_byte_records().count()).sum()
    }

    pub(crate) fn list(bytes: &[u8]) {
        let ((location, splits), mut problems) = (splits(bytes, ["a.txt", "b.txt"]), Problems::default());
        let found = block_on(list::read(&location, &splits, &mut problems));
        check_files(location, found, problems, Some(filled(bytes)));
    }

    pub(crate) fn table(bytes: &[u8], of_all: bool) {
        let ((location, mut splits), mut problems) = (splits(bytes, ["a.csv", "b.csv"]), Problems::default());
        let text = str::to_owned;
        let (path_column, label_column) = (text("path"), text("label"));
        let kind = match of_all {
            true => {
                splits = [(Split::Train, vec![text("train"), text("0")]), (Split::Test, vec![text("test")])].into();
                let (table, split_column) = (Some(text("a.csv")), Some(text("split")));
                SourceKind::Csv { table, split_column, path_column, path_prefix: String::new(), label_column }
            }
            false => {
                let path_prefix = text("images/");
                SourceKind::Csv { table: None, split_column: None, path_column, path_prefix, label_column }
            }
        };
        let found = block_on(csv_table::read(&location, &kind, &splits, &mut problems));
        let rows = if of_all { found.as_ref().map_or(0, |found| found.len() + problems.count()) } else { rows(bytes) };
        check_files(location, found, problems, Some(rows));
    }

    pub(crate) fn metadata(bytes: &[u8], csv: bool) {
        let names = if csv { ["a/metadata.csv", "b/metadata.csv"] } else { ["a/metadata.jsonl", "b/metadata.jsonl"] };
        let ((location, mut splits), mut problems) = (splits(bytes, names), Problems::default());
        splits.iter_mut().flat_map(|(_, names)| names).for_each(|name| name.truncate(1));
        let found = block_on(image_folder::read(&location, "label", &splits, &mut problems));
        check_files(location, found, problems, Some(if csv { rows(bytes) } else { filled(bytes) }));
    }

    /// Each line is the name of a file.
    pub(crate) fn folders(bytes: &[u8]) {
        let names = bytes.split(|byte| *byte == b'\n').filter_map(|line| str::from_utf8(line).ok());
        // no store lists others
        let names = names.filter(|name| name.split('/').all(|part| !matches!(part, "" | "." | "..")));
        let location = Location(Arc::new(names.map(|name| (name.to_owned(), b"bytes".to_vec())).collect()));
        let splits = [(Split::Train, vec!["a".to_owned()]), (Split::Test, vec!["b".to_owned(), "c/d".to_owned()])];
        let mut problems = Problems::default();
        let found = block_on(image_folder::read(&location, "label", &splits, &mut problems));
        check_files(location, found, problems, None);
    }

    pub(crate) fn tars(bytes: &[u8], field: Option<&str>) {
        let ((location, splits), mut problems) = (splits(bytes, ["a.tar", "b.tar"]), Problems::default());
        let (tars, entries) = match block_on(Tars::open(&location, field, &splits, &mut problems)) {
            Ok(found) => found,
            Err(error) => return is_short(error),
        };
        assert!(tars.bytes() <= bytes.len() as u64);
        let Some(entries) = check(&location, entries, problems, false) else { return };
        let paths: Vec<_> = entries.iter().map(|row| Some(row.path.as_str())).collect();
        let read = block_on(tars.read(&paths)).expect("nothing changes");
        let images: HashMap<_, _> = paths.iter().flatten().zip(read).collect();
        for (shard, bytes) in location.0.iter() {
            let mut archive = tar::Archive::new(bytes.as_slice());
            for entry in archive.entries().expect("it was opened") {
                // only what fills up its last block may be missing
                let Ok(mut entry) = entry else { break };
                let name = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
                let path = format!("{shard}#{}", name.trim_start_matches("./"));
                let Some(Ok(Some(image))) = images.get(&path.as_str()) else { continue };
                if entry.header().entry_type().is_file() {
                    let mut whole = Vec::new();
                    entry.read_to_end(&mut whole).expect("it was read");
                    assert_eq!(image, &whole, "{path}");
                }
            }
        }
    }

    /// A file with this text.
    fn written(name: &str, bytes: &[u8]) -> PathBuf {
        static FOLDER: OnceLock<PathBuf> = OnceLock::new();
        let folder = FOLDER.get_or_init(|| {
            let folder = std::env::temp_dir().join(format!("discl-pipe-listing-{}", std::process::id()));
            std::fs::create_dir_all(&folder).expect("a folder can be made");
            folder
        });
        let path = folder.join(name);
        std::fs::write(&path, bytes).expect("a file can be written");
        path
    }

    pub(crate) fn classes(name: &str, bytes: &[u8]) {
        let classes = match Classes::read(&written(name, bytes)) {
            Ok(classes) => classes,
            Err(error) => return is_short(error),
        };
        let labels = (0..100).filter(|label| classes.check("p", *label).is_ok());
        let names: Vec<(i64, String)> = labels.map(|label| (label, classes.name(label))).collect();
        for (_, name) in &names {
            assert!(!name.trim().is_empty() && !name.contains(char::is_control), "{name:?}");
        }
        for label in [-1, 1 << 40] {
            if let Err(error) = classes.check("p", label) {
                is_short(error);
            }
        }
        let texts: BTreeSet<&str> = names.iter().map(|(_, name)| name.as_str()).collect();
        match classes.number(&texts) {
            Ok(numbers) => {
                for (text, label) in numbers {
                    assert_eq!(classes.name(label), text);
                }
            }
            Err(error) => is_short(error),
        }
    }

    pub(crate) fn descriptions(name: &str, bytes: &[u8]) {
        match class_text::read_descriptions(&written(name, bytes)) {
            Ok(found) => {
                let blank = |texts: &Vec<String>| texts.is_empty() || texts.iter().any(|text| text.trim().is_empty());
                assert!(!found.values().any(blank));
            }
            Err(error) => is_short(error),
        }
        let Some(lines) = str::from_utf8(bytes).ok().and_then(|text| class_text::lines(text).ok()) else { return };
        let line = |line| serde_json::to_string(line).expect("it is plain data") + "\n";
        let again: String = lines.iter().map(line).collect();
        assert_eq!(class_text::lines(&again).expect("it was written"), lines);
    }

    pub(crate) fn common_names(bytes: &[u8]) {
        match class_text::read_common_names(&written("names.json", bytes)) {
            Ok(names) => assert!(names.values().all(|name| !name.trim().is_empty() && !name.contains('\n'))),
            Err(error) => is_short(error),
        }
    }
}

const MAX_BYTES: usize = 1 << 20;

fn shards(bytes: &[u8]) {
    let Ok(pattern) = std::str::from_utf8(bytes) else { return };
    match braces::expand(pattern, MAX_BYTES) {
        Ok(names) if pattern.contains('{') => {
            assert!((1..=100_000).contains(&names.len()));
            assert!(names.iter().map(String::len).sum::<usize>() <= MAX_BYTES);
            assert!(!names.iter().any(|name| name.contains(['{', '}'])));
        }
        Ok(names) => assert_eq!(names, [pattern]),
        Err(why) => assert!(why.len() < 200 && !why.contains(char::is_control), "{why}"),
    }
}

fuzz_target!(|input: &[u8]| {
    let Some((choice, bytes)) = input.split_first() else { return };
    match choice % 16 {
        0 => source::list(bytes),
        1 => source::table(bytes, true),
        2 => source::table(bytes, false),
        3 => source::metadata(bytes, true),
        4 => source::metadata(bytes, false),
        5 => source::folders(bytes),
        6 => source::tars(bytes, None),
        7 => source::tars(bytes, Some("label")),
        8 => source::classes("classes.txt", bytes),
        9 => source::classes("classes.csv", bytes),
        10 => source::classes("classes.json", bytes),
        11 => source::descriptions("texts.json", bytes),
        12 => source::descriptions("texts.jsonl", bytes),
        13 => source::common_names(bytes),
        _ => shards(bytes),
    }
});
