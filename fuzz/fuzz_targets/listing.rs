//! What lists a data set: lists, tables, files of labels, folders, tars, and beside them the files of class names,
//! descriptions and common names, and ranges of shard names.
//!
//! Nothing may panic. Paths that are accepted stay below the root, none is accepted twice, and each line or row is either
//! an image or a problem. Problems are counted, few are shown, each on one short line with its place. An image of a tar
//! has the bytes that the tar's own reader gives.
//!
//! The first byte of the input chooses the parser. `=====` on a line of its own is between the files of two splits.
//! The object store is a map here, and what waits for it is ready at once.
#![no_main]
#![allow(dead_code, unused_imports, missing_docs)]

use libfuzzer_sys::fuzz_target;

// stand for the packages of these names
extern crate self as object_store;
extern crate self as tokio;

#[path = "../../src/limited_read.rs"]
mod limited_read;

#[path = "../../src/config/brace_expansion.rs"]
mod braces;

#[path = "../../src/config/mod.rs"]
mod config;

mod error {
    /// Stands for the error of that name.
    #[derive(Debug, thiserror::Error)]
    pub(crate) enum Error {
        #[error("{0}")]
        Data(String),
        #[error("`{url}`: {message}")]
        Lake { url: String, message: String, source: Option<Box<dyn std::error::Error + Send + Sync>> },
    }

    pub(crate) type Result<T, E = Error> = std::result::Result<T, E>;

    impl Error {
        pub(crate) fn lake(
            url: impl Into<String>,
            message: impl Into<String>,
            source: impl Into<Box<dyn std::error::Error + Send + Sync>>,
        ) -> Self {
            Self::Lake { url: url.into(), message: message.into(), source: Some(source.into()) }
        }
    }
}

/// Stands for the runtime's.
mod task {
    pub(crate) async fn spawn_blocking<T>(work: impl FnOnce() -> T) -> Result<T, std::io::Error> {
        Ok(work())
    }
}

/// Stands for the store's.
mod path {
    #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
    pub(crate) struct Path(pub(crate) String);

    impl Path {
        pub(crate) fn filename(&self) -> Option<&str> {
            self.0.rsplit('/').next().filter(|name| !name.is_empty())
        }

        pub(crate) fn extension(&self) -> Option<&str> {
            self.filename()?.rsplit_once('.').map(|(_, ending)| ending)
        }
    }

    impl AsRef<str> for Path {
        fn as_ref(&self) -> &str {
            &self.0
        }
    }
}

#[derive(Debug, Clone)]
pub(crate) struct ObjectMeta {
    pub(crate) location: path::Path,
    pub(crate) size: u64,
}

#[derive(Debug, thiserror::Error)]
#[error("never")]
pub(crate) struct Error;

mod lake {
    use std::{collections::BTreeMap, sync::Arc};

    use futures::{Stream, stream};

    use crate::{Error, ObjectMeta, path::Path};

    #[derive(Debug)]
    pub(crate) struct Store(pub(crate) BTreeMap<String, Vec<u8>>);

    pub(crate) struct Listed {
        pub(crate) objects: Vec<ObjectMeta>,
        pub(crate) common_prefixes: Vec<Path>,
    }

    /// Stands for the place of that name: all of its store.
    #[derive(Debug, Clone)]
    pub(crate) struct Place {
        pub(crate) store: Arc<Store>,
        pub(crate) url: &'static str,
    }

    impl Place {
        pub(crate) fn of(files: BTreeMap<String, Vec<u8>>) -> Self {
            Self { store: Arc::new(Store(files)), url: "memory:///" }
        }

        pub(crate) fn path(&self, name: &str) -> Path {
            Path(name.to_owned())
        }

        pub(crate) fn name<'a>(&self, path: &'a Path) -> Option<&'a str> {
            Some(&path.0)
        }
    }

    impl Store {
        fn below(&self, folder: Option<&Path>) -> impl Iterator<Item = (String, ObjectMeta)> {
            let before = folder.filter(|folder| !folder.0.is_empty()).map_or(String::new(), |of| format!("{}/", of.0));
            self.0.iter().filter_map(move |(name, bytes)| {
                let meta = ObjectMeta { location: Path(name.clone()), size: bytes.len() as u64 };
                Some((name.strip_prefix(&before)?.to_owned(), meta))
            })
        }

        pub(crate) async fn list_with_delimiter(&self, folder: Option<&Path>) -> Result<Listed, Error> {
            let (mut objects, mut common_prefixes) = (Vec::new(), Vec::new());
            for (rest, meta) in self.below(folder) {
                match rest.split_once('/') {
                    None => objects.push(meta),
                    Some((_, after)) => {
                        let location = &meta.location.0;
                        common_prefixes.push(Path(location[..location.len() - after.len() - 1].to_owned()));
                    }
                }
            }
            common_prefixes.dedup();
            Ok(Listed { objects, common_prefixes })
        }

        pub(crate) fn list(&self, folder: Option<&Path>) -> impl Stream<Item = Result<ObjectMeta, Error>> + use<> {
            let found: Vec<_> = self.below(folder).map(|(_, meta)| Ok(meta)).collect();
            stream::iter(found)
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
        sync::OnceLock,
    };

    use futures::executor::block_on;

    use self::{
        classes::Classes,
        files::Files,
        named::{LONGEST_FIELD, Label, Named, Problems},
        tars::Tars,
    };
    use crate::{
        config::{SourceKind, Split},
        error::{Error, Result},
        lake::Place,
    };

    mod classes;
    mod csv_table;
    mod files;
    mod image_folder;
    mod list;
    mod named;
    mod tars;
    mod texts;

    type Read = Result<Option<Vec<u8>>, String>;

    /// Stands for the module of that name.
    mod object {
        use std::ops::Range;

        use super::Read;
        use crate::{
            ObjectMeta,
            error::{Error, Result},
            lake::Place,
        };

        pub(super) const LARGEST: usize = 1 << 12;

        #[derive(Debug, Clone, PartialEq, Eq)]
        pub(super) struct Version {
            pub(super) size: u64,
        }

        impl Version {
            pub(super) fn of(meta: &ObjectMeta) -> Self {
                Self { size: meta.size }
            }
        }

        pub(super) async fn image(place: &Place, name: &str, _: &Version, range: Range<u64>) -> Result<Read> {
            let bytes = place.store.0.get(name).expect("it was listed");
            let bytes = bytes.get(range.start as usize..range.end as usize).expect("it is in the file");
            Ok(Ok(Some(bytes.to_vec())))
        }

        pub(super) async fn head(place: &Place, name: &str, _: &str) -> Result<Option<ObjectMeta>> {
            let size = place.store.0.get(name).map(|bytes| bytes.len() as u64);
            Ok(size.map(|size| ObjectMeta { location: place.path(name), size }))
        }

        pub(super) async fn list_file(place: &Place, name: &str, _: &str, _: &str) -> Result<Vec<u8>> {
            Ok(place.store.0.get(name).expect("it was named").clone())
        }
    }

    /// Stands for the module of that name.
    mod window {
        use std::io::{Cursor, Read, Result, Seek, SeekFrom};

        use super::object::Version;
        use crate::lake::Place;

        pub(super) struct Window(Cursor<Vec<u8>>);

        impl Window {
            pub(super) fn new(place: &Place, name: &str, _: &Version) -> Self {
                Self(Cursor::new(place.store.0.get(name).expect("it was found").clone()))
            }
        }

        impl Read for Window {
            fn read(&mut self, into: &mut [u8]) -> Result<usize> {
                self.0.read(into)
            }
        }

        impl Seek for Window {
            fn seek(&mut self, to: SeekFrom) -> Result<u64> {
                self.0.seek(to)
            }
        }
    }

    const MARK: &[u8] = b"\n=====\n";

    /// The parts of the input: one or two.
    fn parts(bytes: &[u8]) -> Vec<&[u8]> {
        match bytes.windows(MARK.len()).position(|window| window == MARK) {
            Some(at) => vec![&bytes[..at], &bytes[at + MARK.len()..]],
            None => vec![bytes],
        }
    }

    /// The parts as files called so in a store, and the splits that they are.
    fn splits(bytes: &[u8], names: [&str; 2]) -> (Place, Vec<(Split, Vec<String>)>) {
        let named = || parts(bytes).into_iter().zip(names);
        let files = named().map(|(bytes, name)| (name.to_owned(), bytes.to_vec())).collect();
        let splits = [Split::Train, Split::Test].into_iter().zip(named());
        (Place::of(files), splits.map(|(split, (_, name))| (split, vec![name.to_owned()])).collect())
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
        assert!(count == 1 || first.contains(&format!("{count} times")), "{first}");
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
        sound && plain && !drive && !path.is_empty() && !path.ends_with('/') && path.len() <= 2 * LONGEST_FIELD
    }

    /// Sees that all of it holds, and gives what was accepted.
    fn check(place: &Place, named: Vec<Named>, mut problems: Problems, has_lines: bool) -> Option<Vec<Named>> {
        for row in &named {
            let path = if has_lines { &row.path } else { row.path.strip_prefix("a.tar#").unwrap_or(&row.path) };
            assert!(stays_below(path), "{path:?}");
            match &row.label {
                Label::Number(number) => assert!(*number >= 0),
                Label::Text(text) => assert!(!text.trim().is_empty() && !text.contains(char::is_control), "{text:?}"),
            }
        }
        let before = problems.count();
        let different: BTreeSet<&str> = named.iter().map(|row| row.path.as_str()).collect();
        let twice = named.len() - different.len();
        named::refuse_twice(&named, &mut problems);
        assert_eq!(problems.count(), before + twice);
        if !are_short(before + twice, problems, &place.store.0, has_lines) {
            return None;
        }
        match named::number(&named, None) {
            Ok((labels, classes)) => {
                assert_eq!(labels.len(), named.len());
                for (label, row) in labels.iter().zip(&named) {
                    assert!(*label >= 0);
                    if let Label::Text(text) = &row.label {
                        assert_eq!(&classes.name(*label), text);
                    }
                }
            }
            Err(error) => is_short(error),
        }
        if let Err(error) = named::number(&named, Some(Classes::of(["cat", "dog"]))) {
            is_short(error);
        }
        Some(named)
    }

    /// Sees what [`check`] sees, and that the files are found.
    fn check_files(place: Place, found: Result<Vec<Named>>, problems: Problems, rows: Option<usize>) {
        let named = match found {
            Ok(named) => named,
            Err(error) => return is_short(error),
        };
        if let Some(rows) = rows {
            assert_eq!(named.len() + problems.count(), rows, "a row is neither an image nor a problem");
        }
        let Some(mut named) = check(&place, named, problems, rows.is_some()) else { return };
        let files = block_on(Files::open(place.clone(), &mut named)).expect("the store lists everything");
        let paths: Vec<_> = named.iter().map(|row| Some(row.path.as_str())).collect();
        for (read, row) in block_on(files.read(&paths)).expect("nothing changes").iter().zip(&named) {
            assert_eq!(read.as_ref().ok(), place.store.0.get(&row.path).map(|bytes| Some(bytes.clone())).as_ref());
        }
    }

    /// Lines that are not empty.
    fn filled(bytes: &[u8]) -> usize {
        let blank =
            |line: &[u8]| line.len() <= LONGEST_FIELD && str::from_utf8(line).is_ok_and(|l| l.trim().is_empty());
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
        let ((place, splits), mut problems) = (splits(bytes, ["a.txt", "b.txt"]), Problems::default());
        let found = block_on(list::read(&place, &splits, &mut problems));
        check_files(place, found, problems, Some(filled(bytes)));
    }

    pub(crate) fn table(bytes: &[u8], of_all: bool) {
        let ((place, mut splits), mut problems) = (splits(bytes, ["a.csv", "b.csv"]), Problems::default());
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
        let found = block_on(csv_table::read(&place, &kind, &splits, &mut problems));
        let rows = if of_all { found.as_ref().map_or(0, |found| found.len() + problems.count()) } else { rows(bytes) };
        check_files(place, found, problems, Some(rows));
    }

    pub(crate) fn metadata(bytes: &[u8], csv: bool) {
        let names = if csv { ["a/metadata.csv", "b/metadata.csv"] } else { ["a/metadata.jsonl", "b/metadata.jsonl"] };
        let ((place, mut splits), mut problems) = (splits(bytes, names), Problems::default());
        splits.iter_mut().flat_map(|(_, names)| names).for_each(|name| name.truncate(1));
        let found = block_on(image_folder::read(&place, "label", &splits, &mut problems));
        check_files(place, found, problems, Some(if csv { rows(bytes) } else { filled(bytes) }));
    }

    /// Each line is the name of a file.
    pub(crate) fn folders(bytes: &[u8]) {
        let names = bytes.split(|byte| *byte == b'\n').filter_map(|line| str::from_utf8(line).ok());
        // no store lists others
        let names = names.filter(|name| name.split('/').all(|part| !matches!(part, "" | "." | "..")));
        let place = Place::of(names.map(|name| (name.to_owned(), b"bytes".to_vec())).collect());
        let splits = [(Split::Train, vec!["a".to_owned()]), (Split::Test, vec!["b".to_owned(), "c/d".to_owned()])];
        let mut problems = Problems::default();
        let found = block_on(image_folder::read(&place, "label", &splits, &mut problems));
        check_files(place, found, problems, None);
    }

    pub(crate) fn tars(bytes: &[u8], field: Option<&str>) {
        let ((place, splits), mut problems) = (splits(bytes, ["a.tar", "b.tar"]), Problems::default());
        let (tars, named) = match block_on(Tars::open(place.clone(), field, &splits, &mut problems)) {
            Ok(found) => found,
            Err(error) => return is_short(error),
        };
        assert!(tars.bytes() <= bytes.len() as u64);
        let Some(named) = check(&place, named, problems, false) else { return };
        let paths: Vec<_> = named.iter().map(|row| Some(row.path.as_str())).collect();
        let read = block_on(tars.read(&paths)).expect("nothing changes");
        let images: HashMap<_, _> = paths.iter().flatten().zip(read).collect();
        for (shard, bytes) in &place.store.0 {
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
        match texts::of_classes(&written(name, bytes)) {
            Ok(found) => {
                let blank = |texts: &Vec<String>| texts.is_empty() || texts.iter().any(|text| text.trim().is_empty());
                assert!(!found.values().any(blank));
            }
            Err(error) => is_short(error),
        }
        let Some(lines) = str::from_utf8(bytes).ok().and_then(|text| texts::lines(text).ok()) else { return };
        let line = |line| serde_json::to_string(line).expect("it is plain data") + "\n";
        let again: String = lines.iter().map(line).collect();
        assert_eq!(texts::lines(&again).expect("it was written"), lines);
    }

    pub(crate) fn common_names(bytes: &[u8]) {
        match texts::common_names(&written("names.json", bytes)) {
            Ok(names) => assert!(names.values().all(|name| !name.trim().is_empty() && !name.contains('\n'))),
            Err(error) => is_short(error),
        }
    }
}

const MOST_BYTES: usize = 1 << 20;

fn shards(bytes: &[u8]) {
    let Ok(pattern) = std::str::from_utf8(bytes) else { return };
    match braces::expand(pattern, MOST_BYTES) {
        Ok(names) if pattern.contains('{') => {
            assert!((1..=100_000).contains(&names.len()));
            assert!(names.iter().map(String::len).sum::<usize>() <= MOST_BYTES);
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
