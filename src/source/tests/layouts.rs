//! Labels and names of random data sets, compared with those that torchvision's `ImageFolder` and datasets' `imagefolder`
//! give to the same files.
//!
//! `tests/fixtures/layouts.json` holds the data sets and what both libraries read (`tests/oracle/make_layouts.py`). What a
//! library reads is turned into what is read here by the differences of [`REASONS`] and nothing else.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;
use unicode_normalization::UnicodeNormalization;

use super::*;

/// Every way in which labels and names differ from those of the two libraries, and why.
const REASONS: [(&str, &str); 17] = [
    // Class folders.
    (
        "hidden names",
        "Hidden folders and those of tools are no classes. torchvision takes all, datasets `@eaDir` and such",
    ),
    ("endings", "torchvision does not read `.gif`, `.jpe`, `.jfif`; both read formats that are not read here"),
    ("empty classes", "A folder without an image is no class and has no number. torchvision refuses it"),
    ("splits together", "Classes are numbered over all splits. torchvision numbers those of each split"),
    ("one class or depth", "datasets gives labels only if there are several folders, all at one depth"),
    ("outside of classes", "An image next to the class folders is skipped. For datasets the split is its class"),
    ("outer folder", "The class is the folder below the split, as for torchvision. For datasets it is the innermost"),
    // Tables.
    ("types by split", "The labels of all splits are of one kind. datasets refuses splits with different types"),
    ("numerals as names", "`0100`, `1e3` and `0.5` are names, as written. pandas makes numbers of them"),
    ("whole numbers", "`2.0` is the label 2, since pandas writes integers so if a value is missing"),
    ("missing words", "`NA` and `None` are names. pandas takes them for missing values"),
    ("truth values", "`True` is a name. pandas makes a truth value of it"),
    ("white space", "White space around a label does not count"),
    // Both.
    ("unicode forms", "Names are composed (NFC) before they are compared and sorted"),
    ("two unicode forms", "Two forms of one name in a split are refused"),
    ("numbers by value", "If all names are integers, the label is their value, not their position in sorted order"),
    ("negative numbers", "Labels below 0 are refused"),
];
/// Data sets that must be read exactly as both libraries do, of 200.
const MIN_EQUAL: usize = 60;

#[derive(Debug, serde::Deserialize)]
struct Layout {
    /// The folder of each split.
    splits: BTreeMap<String, String>,
    folders: Vec<String>,
    files: Vec<String>,
    tables: BTreeMap<String, String>,
    #[serde(default)]
    torchvision: BTreeMap<String, Classes>,
    datasets: Classes,
    /// For each file the label of torchvision and the label of datasets; null if it is not read.
    labels: Vec<[Value; 2]>,
}

/// What a library says of classes, or that it refuses the data set.
#[derive(Debug, serde::Deserialize)]
struct Classes {
    #[serde(default)]
    classes: Vec<String>,
    #[serde(default)]
    unlabelled: bool,
    refused: Option<String>,
}

/// Label and name of each image, by path.
type Rows = BTreeMap<String, (i64, String)>;

impl Layout {
    /// Returns the split of a file, and its path below the folder of the split.
    fn split<'a>(&self, file: &'a str) -> (&str, &'a str) {
        let below =
            |folder: &str| if folder == "." { Some(file) } else { file.strip_prefix(folder)?.strip_prefix('/') };
        self.splits.iter().find_map(|(split, folder)| Some((split.as_str(), below(folder)?))).unwrap()
    }

    /// Returns the name of the class folder that a file is in.
    fn class<'a>(&self, file: &'a str) -> Option<&'a str> {
        self.split(file).1.split_once('/').map(|(class, _)| class)
    }

    /// Returns the files to which a library gives a label.
    fn labelled(&self, library: usize) -> impl Iterator<Item = (&str, &Value)> {
        let pairs = self.files.iter().zip(&self.labels);
        pairs.map(move |(file, labels)| (file.as_str(), &labels[library])).filter(|(_, label)| !label.is_null())
    }
}

/// Returns what the program reads, or the message of its error.
async fn read(folder: &Folder, lines: &str) -> Result<Rows, String> {
    let source = folder.open(lines).await.map_err(|error| crate::error::chain(&error))?;
    let labels = source.listing().column_by_name("label").unwrap().as_primitive::<Int64Type>().values().to_vec();
    let texts = column(&source, "path").into_iter().zip(column(&source, "class_name"));
    Ok(texts.zip(labels).map(|((path, name), label)| (path.to_owned(), (label, name.to_owned()))).collect())
}

/// Returns the value of an integer, with or without `.0`.
fn whole(text: &str) -> Option<i64> {
    let digits = match text.split_once('.') {
        Some((digits, zeros)) if !zeros.is_empty() && zeros.chars().all(|digit| digit == '0') => digits,
        _ => text,
    };
    digits.parse().ok().filter(|number: &i64| number.to_string() == digits)
}

/// How the classes of a reading get their labels.
#[derive(Debug, Clone, PartialEq)]
enum Numbering {
    BySplit,
    Together,
    ByValue,
}

/// What is read of a data set: at first by a library, and after some differences by the program.
#[derive(Debug, Clone)]
struct Reading {
    /// The names of each split, also those without an image.
    classes: BTreeMap<String, BTreeSet<String>>,
    /// Split and name of each image.
    images: BTreeMap<String, (String, String)>,
    numbering: Numbering,
}

impl Reading {
    fn rows(&self) -> Rows {
        let all: BTreeSet<&String> = self.classes.values().flatten().collect();
        let label = |split: &str, name: &String| match self.numbering {
            Numbering::BySplit => self.classes[split].iter().position(|class| class == name).unwrap() as i64,
            Numbering::Together => all.iter().position(|class| *class == name).unwrap() as i64,
            Numbering::ByValue => name.parse().unwrap(),
        };
        let rows = self.images.iter();
        rows.map(|(path, (split, name))| (path.clone(), (label(split, name), name.clone()))).collect()
    }

    /// Gives every name another one.
    fn rename(&mut self, name: impl Fn(&str) -> String) {
        self.images.values_mut().for_each(|(_, class)| *class = name(class));
        for classes in self.classes.values_mut() {
            *classes = classes.iter().map(|class| name(class)).collect();
        }
    }

    /// Removes the images that are not to be `kept`, and their classes if these have no other image.
    fn retain(&mut self, kept: impl Fn(&str) -> bool) {
        let gone: BTreeSet<String> =
            self.images.iter().filter(|(path, _)| !kept(path)).map(|(_, (_, class))| class.clone()).collect();
        self.images.retain(|path, _| kept(path));
        self.drop_empty(|class| gone.contains(class));
    }

    /// Removes the classes without an image in their split that `may_go`.
    fn drop_empty(&mut self, may_go: impl Fn(&str) -> bool) {
        let used: BTreeSet<(String, String)> = self.images.values().cloned().collect();
        for (split, classes) in &mut self.classes {
            classes.retain(|class| used.contains(&(split.clone(), class.clone())) || !may_go(class));
        }
    }

    fn has_two_forms(&self) -> bool {
        let composed = |classes: &BTreeSet<String>| {
            classes.iter().map(|class| class.nfc().collect()).collect::<BTreeSet<String>>()
        };
        self.classes.values().any(|classes| composed(classes).len() != classes.len())
    }

    fn values(&self) -> Option<Vec<i64>> {
        self.classes.values().flatten().map(|class| whole(class)).collect()
    }
}

/// The reasons for which a data set is read differently.
#[derive(Debug, Default)]
struct Found(BTreeSet<&'static str>);

impl Found {
    fn add(&mut self, reason: &'static str) {
        assert!(REASONS.iter().any(|(known, _)| *known == reason), "{reason}");
        self.0.insert(reason);
    }

    /// Changes `reading`, and adds the reason if that makes a difference.
    fn apply(&mut self, reason: &'static str, reading: &mut Reading, change: impl Fn(&mut Reading)) {
        let before = (reading.classes.clone(), reading.rows());
        change(reading);
        if before != (reading.classes.clone(), reading.rows()) {
            self.add(reason);
        }
    }

    /// Applies what holds for names from folders and from tables, and returns the rows, or a part of the error's message.
    fn finish(&mut self, mut reading: Reading) -> Result<Rows, &'static str> {
        if let Some(values) = reading.values() {
            if values.iter().any(|value| *value < 0) {
                self.add("negative numbers");
                return Err("allowed are integers from 0");
            }
            self.apply("numbers by value", &mut reading, |reading| {
                reading.rename(|class| whole(class).unwrap().to_string());
                reading.numbering = Numbering::ByValue;
            });
            return Ok(reading.rows());
        }
        if reading.has_two_forms() {
            self.add("two unicode forms");
            return Err("in two forms of Unicode");
        }
        self.apply("unicode forms", &mut reading, |reading| reading.rename(|class| class.nfc().collect()));
        Ok(reading.rows())
    }
}

/// Checks that a reading has the labels that the library gave.
fn assert_recorded(reading: &Reading, layout: &Layout, library: usize) {
    let recorded: BTreeMap<&str, i64> =
        layout.labelled(library).map(|(file, label)| (file, label.as_i64().unwrap())).collect();
    let rows = reading.rows();
    let labels: BTreeMap<&str, i64> = rows.iter().map(|(file, (label, _))| (file.as_str(), *label)).collect();
    assert_eq!(labels, recorded, "library {library}: {layout:?}");
}

/// Drops hidden names and then changes the endings of images to those that are read here.
fn drop_names(layout: &Layout, reading: &mut Reading, found: &mut Found) {
    found.apply("hidden names", reading, |reading| {
        reading.retain(|path| !is_hidden(layout.split(path).1));
        reading.drop_empty(is_hidden);
    });
}

fn change_endings(layout: &Layout, reading: &mut Reading, found: &mut Found) {
    found.apply("endings", reading, |reading| {
        reading.retain(is_read);
        for file in layout.files.iter().filter(|file| is_read(file) && !is_hidden(layout.split(file).1)) {
            let Some(class) = layout.class(file) else { continue };
            let split = layout.split(file).0;
            reading.classes.get_mut(split).unwrap().insert(class.to_owned());
            reading.images.insert(file.clone(), (split.to_owned(), class.to_owned()));
        }
    });
}

/// Whether a file is read for its ending, by the page on data sets.
fn is_read(file: &str) -> bool {
    let ending = file.rsplit('.').next().unwrap().to_lowercase();
    ["jpg", "jpeg", "jpe", "jfif", "png", "webp", "bmp", "gif", "tif", "tiff"].contains(&ending.as_str())
}

/// Whether a part of a path is hidden or of a tool: of those that the data sets have.
fn is_hidden(path: &str) -> bool {
    let of_tools = ["@eaDir", "__MACOSX", "__pycache__", "lost+found", "$RECYCLE.BIN", "Thumbs.db", "desktop.ini"];
    path.split('/').any(|part| part.starts_with('.') || of_tools.contains(&part))
}

/// Turns what torchvision reads into what the program reads.
fn from_torchvision(layout: &Layout, found: &mut Found) -> Result<Rows, &'static str> {
    let images = layout.labelled(0).map(|(file, label)| {
        let split = layout.split(file).0;
        let class = &layout.torchvision[split].classes[label.as_u64().unwrap() as usize];
        (file.to_owned(), (split.to_owned(), class.clone()))
    });
    let mut reading = Reading {
        classes: layout
            .torchvision
            .iter()
            .map(|(split, of)| (split.clone(), of.classes.iter().cloned().collect()))
            .collect(),
        images: images.collect(),
        numbering: Numbering::BySplit,
    };
    assert_recorded(&reading, layout, 0);
    for (split, classes) in &reading.classes {
        let used: BTreeSet<&String> =
            reading.images.values().filter(|(of, _)| of == split).map(|(_, class)| class).collect();
        assert_eq!(layout.torchvision[split].refused.is_some(), used.len() < classes.len(), "{layout:?}");
    }
    drop_names(layout, &mut reading, found);
    change_endings(layout, &mut reading, found);
    found.apply("empty classes", &mut reading, |reading| reading.drop_empty(|_| true));
    found.apply("splits together", &mut reading, |reading| reading.numbering = Numbering::Together);
    found.finish(reading)
}

/// Turns what datasets reads of class folders into what the program reads.
fn from_datasets(layout: &Layout, found: &mut Found) -> Result<Rows, &'static str> {
    assert_eq!(layout.datasets.refused, None);
    let images = layout.labelled(1).map(|(file, label)| {
        let class = &layout.datasets.classes[label.as_u64().unwrap() as usize];
        (file.to_owned(), (layout.split(file).0.to_owned(), class.clone()))
    });
    let images: BTreeMap<String, (String, String)> = images.collect();
    let mut classes: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for (split, class) in images.values() {
        classes.entry(split.clone()).or_default().insert(class.clone());
    }
    let mut reading = Reading { classes, images, numbering: Numbering::Together };
    assert_recorded(&reading, layout, 1);
    if layout.datasets.unlabelled {
        found.add("one class or depth");
    }
    drop_names(layout, &mut reading, found);
    found.apply("outside of classes", &mut reading, |reading| reading.retain(|path| layout.class(path).is_some()));
    found.apply("outer folder", &mut reading, |reading| {
        for (path, (split, class)) in &mut reading.images {
            *class = layout.class(path).unwrap().to_owned();
            reading.classes.get_mut(split).unwrap().insert(class.clone());
        }
        reading.drop_empty(|_| true);
    });
    change_endings(layout, &mut reading, found);
    found.finish(reading)
}

/// Turns the labels that datasets reads from tables into those that the program reads, by way of `texts`, as written.
fn from_tables(layout: &Layout, texts: &BTreeMap<String, String>, found: &mut Found) -> Result<Rows, &'static str> {
    let all_whole = texts.values().all(|text| whole(text).is_some());
    if layout.datasets.refused.is_some() {
        found.add("types by split");
    } else {
        for (file, labels) in layout.files.iter().zip(&layout.labels) {
            let written = labels[1].to_string();
            match (&labels[1], texts.get(file)) {
                // An image that no table names.
                (label, None) => assert!(label.is_null()),
                (Value::String(label), Some(text)) => assert_eq!(label, text),
                (Value::Null, Some(_)) => found.add("missing words"),
                (Value::Bool(_), Some(_)) => found.add("truth values"),
                (label, Some(text)) if label.is_i64() && written == *text => {}
                (label, Some(text)) => {
                    assert_eq!(label.as_f64(), text.parse().ok(), "{layout:?}");
                    found.add(if all_whole { "whole numbers" } else { "numerals as names" });
                }
            }
        }
    }
    if texts.values().any(|text| text.trim() != text) {
        found.add("white space");
    }
    let (mut classes, mut images) = (BTreeMap::<String, BTreeSet<String>>::new(), BTreeMap::new());
    for (file, text) in texts {
        let (split, class) = (layout.split(file).0.to_owned(), text.trim().to_owned());
        classes.entry(split.clone()).or_default().insert(class.clone());
        images.insert(file.clone(), (split, class));
    }
    let mut reading = Reading { classes, images, numbering: Numbering::Together };
    if reading.values().is_some_and(|values| values.iter().all(|value| *value >= 0)) {
        // datasets has numbers, too.
        reading.rename(|class| whole(class).unwrap().to_string());
        reading.numbering = Numbering::ByValue;
    }
    found.finish(reading)
}

/// Writes one table with all rows of the tables, and returns the labels by path, as written.
fn merge_tables(layout: &Layout, folder: &Folder) -> BTreeMap<String, String> {
    let mut all = csv::Writer::from_writer(Vec::new());
    all.write_record(["path", "label", "split"]).unwrap();
    let mut texts = BTreeMap::new();
    for (name, table) in &layout.tables {
        let mut reader = csv::Reader::from_reader(table.as_bytes());
        for row in reader.deserialize::<BTreeMap<String, String>>() {
            let row = row.unwrap();
            let path = format!("{}{}", name.strip_suffix("metadata.csv").unwrap(), row["file_name"]);
            all.write_record([&path, &row["label"], layout.split(&path).0]).unwrap();
            texts.insert(path, row["label"].clone());
        }
    }
    folder.write("all.csv", all.into_inner().unwrap());
    texts
}

/// Checks that the program reads `expected`.
fn assert_read(read: &Result<Rows, String>, expected: &Result<Rows, &'static str>, layout: &Layout) {
    match (read, expected) {
        (Ok(rows), Ok(expected)) => assert_eq!(rows, expected, "{layout:?}"),
        (Err(message), Err(part)) => assert!(message.contains(part), "{message}: {layout:?}"),
        (read, expected) => panic!("{read:?} is not {expected:?}: {layout:?}"),
    }
}

/// Compares what the program reads of a data set with what the libraries read, and returns the reasons for differences.
async fn compare(layout: &Layout) -> BTreeSet<&'static str> {
    let folder = Folder::new();
    layout.folders.iter().for_each(|name| fs::create_dir_all(folder.path(name)).unwrap());
    folder.images(&layout.files.iter().map(String::as_str).collect::<Vec<_>>());
    layout.tables.iter().for_each(|(name, text)| {
        folder.write(name, text);
    });
    let splits = |value: fn(&str, &str) -> String| {
        let keys = layout.splits.iter().map(|(split, folder)| format!("{split} = \"{}\"", value(split, folder)));
        format!("splits = {{ {} }}", keys.collect::<Vec<_>>().join(", "))
    };
    let of_folders = format!("kind = \"imagefolder\"\n{}", splits(|_, folder| folder.to_owned()));
    let rows = read(&folder, &of_folders).await;
    let mut found = Found::default();
    if layout.tables.is_empty() {
        assert_read(&rows, &from_torchvision(layout, &mut found), layout);
        assert_read(&rows, &from_datasets(layout, &mut found), layout);
        return found.0;
    }
    let texts = merge_tables(layout, &folder);
    let expected = from_tables(layout, &texts, &mut found);
    assert_read(&rows, &expected, layout);
    let of_one_table = format!(
        "kind = \"csv\"\ntable = \"all.csv\"\nsplit_column = \"split\"\n{}",
        splits(|split, _| split.to_owned())
    );
    assert_read(&read(&folder, &of_one_table).await, &expected, layout);
    found.0
}

#[tokio::test]
async fn labels_are_those_of_torchvision_and_datasets() {
    let text = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/layouts.json")).unwrap();
    let layouts: Vec<Layout> = serde_json::from_str(&text).unwrap();
    assert_eq!(layouts.len(), 200);
    let (mut counts, mut equal) = (BTreeMap::<&str, usize>::new(), 0);
    for layout in &layouts {
        let reasons = compare(layout).await;
        equal += usize::from(reasons.is_empty());
        reasons.into_iter().for_each(|reason| *counts.entry(reason).or_default() += 1);
    }
    for (reason, why) in REASONS {
        assert!(counts.contains_key(reason), "no data set shows: {reason}. {why}");
    }
    assert!(
        equal >= MIN_EQUAL,
        "{equal} data sets are read as by the libraries; differences of the others: {counts:?}"
    );
}
