//! `[source]`: the kinds of data sets, and the keys that each of them has.

use std::{cell::Cell, collections::BTreeSet, path::PathBuf};

use serde::Serialize;

use super::{
    Source, Split, brace_expansion,
    document::Node,
    reader::Section,
    strings::{FILLED_LINE, LINE, LIST_PATH, LOCATION, PATH, RELATIVE_PATH, SQL_PATH},
    values::{Choice, Distinct, Kind},
};
use crate::error::{diagnostics::Problems, text};

/// How a data set is stored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum SourceKind {
    /// Parquet files with an image and a label column.
    Parquet {
        /// Column with the encoded images; default `image`.
        image_column: String,
        /// Column with the class numbers; default `label`.
        label_column: String,
    },
    /// Text files with a path and a label on each line, as ImageNet-LT has them.
    List {
        /// The directory or URL below which these files are; default `source.root`.
        lists: Option<String>,
    },
    /// A folder for each split with a folder for each class, or with `metadata.csv` or `metadata.jsonl`.
    ImageFolder {
        /// Column of that file with the labels; default `label`.
        label_column: String,
    },
    /// Tables with a path and a label in each row, as WILDS has them.
    Csv {
        /// The one table of all splits; none where each split has tables of its own.
        table: Option<String>,
        /// Column of `table` with the split; there exactly where `table` is.
        split_column: Option<String>,
        /// Column with the paths; default `path`.
        path_column: String,
        /// What stands before each path; may be empty, which is the default.
        path_prefix: String,
        /// Column with the labels; default `label`.
        label_column: String,
    },
    /// Tar files in which the members of a sample share their name up to the first dot.
    WebDataset {
        /// The field of the sample's `.json` that has its label; none where the member `.cls` is the label.
        label_field: Option<String>,
    },
}

impl SourceKind {
    /// Parquet files whose columns are called as they are by default.
    pub fn parquet() -> Self {
        Self::Parquet { image_column: "image".to_owned(), label_column: "label".to_owned() }
    }
}

const WORDS: [&str; 5] = ["parquet", "list", "imagefolder", "csv", "webdataset"];

/// The keys that only some kinds have.
const KEYS_OF_KINDS: [&str; 7] =
    ["image_column", "label_column", "lists", "table", "split_column", "path_column", "path_prefix"];

/// What is before the name of a field in `label_column` of the kind `webdataset`.
const JSON_FIELD: &str = "json:";

/// Most bytes of the names that a split's shards may have in all: some 500,000 names as they usually are.
const MOST_BYTES: usize = 32 << 20;

/// Reads the section.
pub(super) fn source(mut source: Section<'_, '_>) -> Source {
    let word = source.required("kind", &Choice { words: &WORDS });
    let root = source.required("root", &LOCATION);
    let (kind, splits) = match word {
        "list" => (
            SourceKind::List { lists: source.optional("lists", &LOCATION) },
            splits(source.section("splits"), &LIST_PATH),
        ),
        "imagefolder" => {
            let kind = SourceKind::ImageFolder { label_column: source.or("label_column", &FILLED_LINE, "label") };
            (kind, splits(source.section("splits"), &RELATIVE_PATH))
        }
        "csv" => csv(&mut source),
        "webdataset" => {
            let kind = SourceKind::WebDataset { label_field: label_field(&mut source) };
            (kind, splits(source.section("splits"), &Shards { left: Cell::new(MOST_BYTES) }))
        }
        _ => (parquet(&mut source), splits(source.section("splits"), &RELATIVE_PATH)),
    };
    let sql = source.or("sql", &SQL_PATH, "pixels/embed.sql");
    let classes = source.optional("classes", &PATH).map(PathBuf::from);
    if word.is_empty() {
        // a kind that nobody knows has been reported; what its keys are nobody knows either
        for key in KEYS_OF_KINDS {
            source.has(key);
        }
    }
    source.finish_kind(word, &KEYS_OF_KINDS);
    Source { kind, root, splits, sql, classes }
}

fn parquet(source: &mut Section<'_, '_>) -> SourceKind {
    SourceKind::Parquet {
        image_column: source.or("image_column", &FILLED_LINE, "image"),
        label_column: source.or("label_column", &FILLED_LINE, "label"),
    }
}

fn csv(source: &mut Section<'_, '_>) -> (SourceKind, Vec<(Split, Vec<String>)>) {
    let table = source.optional("table", &RELATIVE_PATH);
    let split_column = source.optional("split_column", &FILLED_LINE);
    let path_column = source.or("path_column", &FILLED_LINE, "path");
    let path_prefix = source.or("path_prefix", &LINE, "");
    let label_column = source.or("label_column", &FILLED_LINE, "label");
    match (source.has("table"), source.has("split_column")) {
        (true, false) => {
            source.refuse("split_column", "missing, and `source.table` needs it: the column that names a row's split");
        }
        (false, true) => {
            source.refuse("table", "missing, and `source.split_column` needs it: the table below `source.root`");
        }
        _ => {}
    }
    let splits = match source.has("split_column") {
        true => splits(source.section("splits"), &FILLED_LINE),
        false => splits(source.section("splits"), &RELATIVE_PATH),
    };
    (SourceKind::Csv { table, split_column, path_column, path_prefix, label_column }, splits)
}

fn label_field(source: &mut Section<'_, '_>) -> Option<String> {
    let column = source.or("label_column", &FILLED_LINE, "cls");
    let field = column.strip_prefix(JSON_FIELD).filter(|field| !field.is_empty());
    if field.is_none() && column != "cls" {
        let found = text::quote(&column);
        source.refuse(
            "label_column",
            format!("found {found}, allowed are `cls` (the member `.cls`) and `{JSON_FIELD}FIELD` (of `.json`)"),
        );
    }
    field.map(str::to_owned)
}

/// What a value of `[source.splits]` stands for: itself, or several names.
trait Names: Kind {
    fn names(out: Self::Out) -> Vec<String>;
}

impl Names for super::strings::Rule {
    fn names(out: String) -> Vec<String> {
        vec![out]
    }
}

impl Names for Shards {
    fn names(out: Vec<String>) -> Vec<String> {
        out
    }
}

fn splits<K>(mut splits: Section<'_, '_>, kind: &K) -> Vec<(Split, Vec<String>)>
where
    K: Names + Clone,
    K::Out: Ord + Clone,
{
    let files = Distinct { of: kind.clone(), or_one: true };
    let mut out: Vec<(Split, Vec<String>)> = Vec::new();
    for split in Split::ALL {
        let found = match split {
            Split::Train => Some(splits.required(split.as_str(), &files)),
            _ => splits.optional(split.as_str(), &files),
        };
        let Some(found) = found else { continue };
        let found: Vec<String> = found.into_iter().flat_map(K::names).collect();
        refuse_shared(&mut splits, split, &found, &out);
        out.push((split, found));
    }
    splits.finish();
    out
}

/// Reports a name that the split has twice, or has in common with an earlier one.
fn refuse_shared(splits: &mut Section<'_, '_>, split: Split, found: &[String], earlier: &[(Split, Vec<String>)]) {
    let mut seen = BTreeSet::new();
    if let Some(twice) = found.iter().find(|name| !seen.insert(*name)) {
        splits.refuse(split.as_str(), format!("found {} a second time", text::quote(twice)));
    }
    for (earlier, theirs) in earlier {
        if let Some(shared) = theirs.iter().find(|name| seen.contains(name)) {
            let with = splits.key(earlier.as_str());
            splits.refuse(split.as_str(), format!("found {}, which is in `{with}` too", text::quote(shared)));
        }
    }
}

/// Tar files: a relative path in which `{000..146}` stands for a number, with as many digits as it is written with.
#[derive(Debug, Clone)]
struct Shards {
    /// Bytes that names may still have.
    left: Cell<usize>,
}

impl Kind for Shards {
    type Out = Vec<String>;

    fn expected(&self) -> String {
        format!("{}, which may have a range such as `{{000..146}}`", RELATIVE_PATH.expected)
    }

    fn read(&self, key: &str, node: &Node, problems: &mut Problems) -> Option<Vec<String>> {
        let pattern = RELATIVE_PATH.read(key, node, problems)?;
        match brace_expansion::expand(&pattern, self.left.get()) {
            Ok(names) => {
                let taken = names.iter().map(String::len).sum();
                self.left.set(self.left.get().saturating_sub(taken));
                Some(names)
            }
            Err(why) => {
                problems.add(Some(node.place), key, format!("found {}, {why}", text::quote(&pattern)));
                None
            }
        }
    }
}
