//! `[source]`: the kinds of data sets, and the keys that each of them has.

use std::{cell::Cell, collections::BTreeSet, path::PathBuf};

use serde::Serialize;

use super::{
    brace_expansion,
    declaration::{Declaration, keys_of, optional, or, required, section},
    document::{Node, Value},
    key::{DefaultValue, Field, Key},
    reader::Section,
    strings::{COLOR, FILLED_LINE, FOLDER_PATH, LINE, LIST_PATH, LOCATION, RELATIVE_PATH, SQL_PATH, StringRule, rgb},
    value_types::{DistinctList, LocalPath, Number, OneOf, ValueType, number, one_or_list_of},
};
use crate::error::{diagnostics::Problems, text};

section! {
    /// `[source]`: the data set.
    #[derive(Debug, Clone, PartialEq, Serialize)]
    pub struct Source {
        /// How the data set is stored.
        kind: SourceKind = Kind;
        /// The directory or URL that holds its files.
        root: String = required(LOCATION);
        /// What each split is read from.
        splits: Splits = SplitSection;
        /// The query that reads the images: `pixels/embed.sql` copies them into the lake, `pixels/reference.sql` leaves
        /// them where they are.
        sql: String = or(SQL_PATH, "pixels/embed.sql");
        /// A file with the class names: JSON (a list, or an object from number or name to name), `.txt` (a name on each
        /// line) or `.csv` (columns `label` or `y`, and `name`).
        classes: Option<PathBuf> = optional(LocalPath);
        /// Whether labels are names, or numbers of classes. If it is not set, they are numbers if all are integers.
        label_kind: Option<LabelKind> = LabelKindKey;
        /// The color over which transparent images are composited.
        background: String = or(COLOR, "#ffffff");
    }
}

impl Source {
    /// Returns the red, green and blue of `background`.
    pub fn background(&self) -> [u8; 3] {
        rgb(&self.background).unwrap_or([u8::MAX; 3])
    }
}

/// What labels are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum LabelKind {
    /// Names of classes, which are numbered in sorted order.
    Name,
    /// Numbers of classes, from 0.
    Number,
}

/// The key `label_kind`.
#[derive(Debug, Clone, Copy)]
struct LabelKindKey;

const LABEL_KINDS: OneOf = OneOf(&["name", "number"]);

impl Declaration for LabelKindKey {
    type Value = Option<LabelKind>;

    fn read(&self, name: &'static str, section: &mut Section<'_, '_>) -> Option<LabelKind> {
        let word = section.optional(name, &LABEL_KINDS)?;
        Some(if word == "name" { LabelKind::Name } else { LabelKind::Number })
    }

    fn keys(&self, field: &Field<'_>) -> Vec<Key> {
        vec![field.key(LABEL_KINDS.expected(), DefaultValue::Unset)]
    }
}

/// What the splits are read from.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Splits {
    /// The names of each split. In the order of [`Split`], always with train, and no name twice.
    pub names: Vec<(Split, Vec<String>)>,
    /// The splits that are drawn from train, with their shares of its images: above 0, and together below 1.
    pub shares: Vec<(Split, f64)>,
}

impl Splits {
    /// Returns whether there is such a split.
    pub fn has(&self, split: Split) -> bool {
        self.names.iter().any(|(named, _)| *named == split) || self.shares.iter().any(|(drawn, _)| *drawn == split)
    }
}

/// A part of a data set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Split {
    /// Trains models; the only split that is augmented.
    Train,
    /// Selects models.
    Validation,
    /// Evaluates the selected model, once.
    Test,
    /// Evaluates it on images that differ from those of training.
    #[serde(rename = "shifted_test")]
    ShiftedTest,
}

impl Split {
    /// All splits, in their order.
    pub const ALL: [Self; 4] = [Self::Train, Self::Validation, Self::Test, Self::ShiftedTest];

    /// Returns the name in `[source.splits]` and in tables.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Train => "train",
            Self::Validation => "validation",
            Self::Test => "test",
            Self::ShiftedTest => "shifted_test",
        }
    }

    const fn description(self) -> &'static str {
        match self {
            Self::Train => "The images to train on, and the only ones that are augmented.",
            Self::Validation => "The images that select a model.",
            Self::Test => "The images that evaluate the selected model.",
            Self::ShiftedTest => "The images that evaluate it under a distribution shift.",
        }
    }
}

/// Declares the kinds of data sets, each with its word in the file and its keys.
macro_rules! kinds {
    (
        $(#[$attribute:meta])*
        pub enum $name:ident {
            $(
                $(#[doc = $kind_doc:literal])+
                $kind:ident $word:literal {
                    $(
                        $(#[doc = $doc:literal])+
                        $field:ident: $type:ty = $declaration:expr;
                    )+
                }
            )+
        }
    ) => {
        $(#[$attribute])*
        pub enum $name {
            $(
                $(#[doc = $kind_doc])+
                $kind { $( $(#[doc = $doc])+ $field: $type, )+ },
            )+
        }

        const KINDS: &[&str] = &[$($word),+];

        impl $name {
            /// Reads the keys of the kind `word`. An unknown kind reads as the first.
            fn read(word: &str, section: &mut Section<'_, '_>) -> Self {
                match word {
                    $( $word => Self::$kind { $( $field: $declaration.read(stringify!($field), section), )+ }, )+
                    _ => Self::parquet(),
                }
            }

            /// Returns the keys that only some kinds have.
            fn keys(header: &str) -> Vec<Key> {
                let mut keys = Vec::new();
                $( $(
                    let field =
                        Field { header, name: stringify!($field), doc: concat!($($doc),+), parameter: None };
                    let of_kind = keys_of::<$type, _>(&$declaration, &field).into_iter();
                    keys.extend(of_kind.map(|key| Key { source_kind: Some($word), ..key }));
                )+ )+
                keys
            }
        }
    };
}

kinds! {
    /// How a data set is stored.
    #[derive(Debug, Clone, PartialEq, Eq, Serialize)]
    #[serde(rename_all = "lowercase")]
    pub enum SourceKind {
        /// Parquet files with an image and a label column.
        Parquet "parquet" {
            /// The column with the encoded images.
            image_column: String = or(FILLED_LINE, "image");
            /// The column with the labels, which are integers.
            label_column: String = or(FILLED_LINE, "label");
        }
        /// Text files with a path and a label on each line, as ImageNet-LT has them.
        List "list" {
            /// The directory or URL that holds the lists. If it is not set, `root`.
            lists: Option<String> = optional(LOCATION);
        }
        /// A folder for each split with a folder for each class, or with `metadata.csv` or `metadata.jsonl`.
        ImageFolder "imagefolder" {
            /// The column of the metadata file with the labels.
            label_column: String = or(FILLED_LINE, "label");
        }
        /// Tables with a path and a label in each row, as WILDS has them.
        Csv "csv" {
            /// The one table of all splits. If it is not set, each split names its own tables.
            table: Option<String> = optional(RELATIVE_PATH);
            /// The column of `table` with the split of a row. Required with `table`.
            split_column: Option<String> = optional(FILLED_LINE);
            /// The column with the paths of the images.
            path_column: String = or(FILLED_LINE, "path");
            /// What to put before each path.
            path_prefix: String = or(LINE, "");
            /// The column with the labels.
            label_column: String = or(FILLED_LINE, "label");
        }
        /// Tar files in which the members of a sample share their name up to the first dot.
        WebDataset "webdataset" {
            /// Where a sample has its label: in the member `.cls`, or in a field of the member `.json`.
            label_field: Option<String> = LabelField;
            /// The ending of the member with the image, if samples have several: `jpg`, or `rgb.png`.
            image_member: Option<String> = optional(MEMBER);
        }
    }
}

impl SourceKind {
    /// Makes Parquet files with the default column names.
    pub fn parquet() -> Self {
        Self::Parquet { image_column: "image".to_owned(), label_column: "label".to_owned() }
    }
}

/// The key `kind`, and the keys of the kind that it names.
#[derive(Debug, Clone, Copy)]
struct Kind;

impl Declaration for Kind {
    type Value = SourceKind;

    fn read(&self, name: &'static str, section: &mut Section<'_, '_>) -> SourceKind {
        let word = section.required(name, &OneOf(KINDS));
        let all: Vec<&str> = SourceKind::keys("").iter().map(|key| key.name).collect();
        if word.is_empty() {
            // An unknown kind has been reported, and which keys it has is unknown.
            for key in &all {
                section.has(key);
            }
        }
        section.set_kind(&word, all);
        SourceKind::read(&word, section)
    }

    fn keys(&self, field: &Field<'_>) -> Vec<Key> {
        let mut keys = vec![field.key(OneOf(KINDS).expected(), DefaultValue::Required)];
        keys.extend(SourceKind::keys(field.header));
        keys
    }
}

/// The value of `label_column` for the member `.cls`.
const CLS: &str = "cls";

/// Precedes the name of a field in `label_column`.
const JSON_FIELD: &str = "json:";

/// The key `label_column` of the kind `webdataset`; none is the member `.cls`.
#[derive(Debug, Clone, Copy)]
struct LabelField;

/// The ending of a member.
const MEMBER: StringRule = StringRule {
    expected: "the ending of a member without its first dot",
    holds: |text| (FILLED_LINE.holds)(text) && !text.starts_with('.') && !text.contains('/'),
};

const LABEL_FIELD: StringRule = StringRule {
    expected: "`cls` (the member `.cls`) or `json:FIELD` (a field of the member `.json`)",
    holds: |text| {
        let field = text.strip_prefix(JSON_FIELD).unwrap_or_default();
        text == CLS || (!field.is_empty() && (FILLED_LINE.holds)(text))
    },
};

impl Declaration for LabelField {
    type Value = Option<String>;

    fn read(&self, _field: &'static str, section: &mut Section<'_, '_>) -> Option<String> {
        let column = section.optional("label_column", &LABEL_FIELD)?;
        column.strip_prefix(JSON_FIELD).map(str::to_owned)
    }

    fn keys(&self, field: &Field<'_>) -> Vec<Key> {
        let default = DefaultValue::Value(LABEL_FIELD.literal(&CLS.to_owned()));
        vec![Field { name: "label_column", ..field.clone() }.key(LABEL_FIELD.expected(), default)]
    }
}

/// The section `[source.splits]`, whose values depend on the kind.
#[derive(Debug, Clone, Copy)]
struct SplitSection;

impl Declaration for SplitSection {
    type Value = Splits;

    fn read(&self, name: &'static str, section: &mut Section<'_, '_>) -> Splits {
        let of_values = section.peek("split_column").is_some();
        let kind = section.peek("kind");
        let splits = section.section(name);
        match kind {
            Some("list") => read_splits(splits, &LIST_PATH),
            Some("imagefolder") => read_splits(splits, &FOLDER_PATH),
            Some("csv") if of_values => read_splits(splits, &FILLED_LINE),
            Some("csv") => read_splits(splits, &RELATIVE_PATH),
            _ => read_splits(splits, &Files { bytes_left: Cell::new(MAX_NAME_BYTES) }),
        }
    }

    fn keys(&self, field: &Field<'_>) -> Vec<Key> {
        let header = field.subsection(field.name);
        let key = |split: Split| {
            let field = Field { header: &header, name: split.as_str(), doc: split.description(), ..field.clone() };
            match split {
                Split::Train => field.key(one_or_list_of(FILLED_LINE).expected(), DefaultValue::Required),
                _ => field.key(OrShare(one_or_list_of(FILLED_LINE)).expected(), DefaultValue::Unset),
            }
        };
        Split::ALL.map(key).into()
    }
}

/// Returns what a value of `[source.splits]` stands for: itself, or several names.
trait Names: ValueType {
    fn names(value: Self::Value) -> Vec<String>;
}

impl Names for StringRule {
    fn names(value: String) -> Vec<String> {
        vec![value]
    }
}

impl Names for Files {
    fn names(value: Vec<String>) -> Vec<String> {
        value
    }
}

/// The names of a split, or its share of the images of train.
#[derive(Debug, Clone)]
struct OrShare<K>(DistinctList<K>);

/// What a split other than train is.
#[derive(Debug)]
enum NamesOrShare<N> {
    Names(N),
    Share(f64),
}

fn share() -> Number {
    number(0.001..=0.9, "the share of train's images, drawn class by class")
}

impl<K: ValueType> ValueType for OrShare<K>
where
    K::Value: Ord + Clone,
{
    type Value = NamesOrShare<Vec<K::Value>>;

    fn expected(&self) -> String {
        format!("{}, or {}", self.0.expected(), share().expected())
    }

    fn read(&self, key: &str, node: &Node, problems: &mut Problems) -> Option<Self::Value> {
        match node.value {
            Value::Integer(_) | Value::Float(_) => share().read(key, node, problems).map(NamesOrShare::Share),
            _ => self.0.read(key, node, problems).map(NamesOrShare::Names),
        }
    }

    fn literal(&self, value: &Self::Value) -> String {
        match value {
            NamesOrShare::Names(names) => self.0.literal(names),
            NamesOrShare::Share(value) => share().literal(value),
        }
    }
}

fn read_splits<K>(mut section: Section<'_, '_>, name: &K) -> Splits
where
    K: Names + Clone,
    K::Value: Ord + Clone,
{
    let mut out = Splits::default();
    for split in Split::ALL {
        let found = match split {
            Split::Train => Some(NamesOrShare::Names(section.required(split.as_str(), &one_or_list_of(name.clone())))),
            _ => section.optional(split.as_str(), &OrShare(one_or_list_of(name.clone()))),
        };
        match found {
            None => {}
            Some(NamesOrShare::Share(share)) => out.shares.push((split, share)),
            Some(NamesOrShare::Names(found)) => {
                let found: Vec<String> = found.into_iter().flat_map(K::names).collect();
                refuse_duplicates(&mut section, split, &found, &out.names);
                out.names.push((split, found));
            }
        }
    }
    let total: f64 = out.shares.iter().map(|(_, share)| share).sum();
    if let Some((last, _)) = out.shares.last().filter(|_| total >= 1.0) {
        section.refuse(
            last.as_str(),
            format!("the shares add up to {total}, expected less than 1, so that train keeps images"),
        );
    }
    section.finish();
    out
}

/// Reports a name that the split has twice, or shares with an earlier split.
fn refuse_duplicates(section: &mut Section<'_, '_>, split: Split, found: &[String], earlier: &[(Split, Vec<String>)]) {
    let mut seen = BTreeSet::new();
    if let Some(twice) = found.iter().find(|name| !seen.insert(*name)) {
        section.refuse(split.as_str(), format!("duplicate value {}", text::quote(twice)));
    }
    for (earlier, names) in earlier {
        if let Some(shared) = names.iter().find(|name| seen.contains(name)) {
            let with = section.key(earlier.as_str());
            section.refuse(split.as_str(), format!("found {}, which is also in `{with}`", text::quote(shared)));
        }
    }
}

/// Most bytes of the names of all files: some 500,000 names of the usual length.
const MAX_NAME_BYTES: usize = 32 << 20;

/// Files: a relative path in which `{000..146}` stands for numbers, padded to the digits that are written. `*` and `?` stay:
/// only a listing can tell what they stand for.
#[derive(Debug, Clone)]
struct Files {
    bytes_left: Cell<usize>,
}

impl ValueType for Files {
    type Value = Vec<String>;

    fn expected(&self) -> String {
        format!("{}, which may have ranges such as `{{000..146}}`, `*` and `?`", RELATIVE_PATH.expected)
    }

    fn read(&self, key: &str, node: &Node, problems: &mut Problems) -> Option<Vec<String>> {
        let pattern = RELATIVE_PATH.read(key, node, problems)?;
        match brace_expansion::expand(&pattern, self.bytes_left.get()) {
            Ok(names) => {
                let used = names.iter().map(String::len).sum();
                self.bytes_left.set(self.bytes_left.get().saturating_sub(used));
                Some(names)
            }
            Err(why) => {
                problems.add(Some(node.place), key, format!("found {}, {why}", text::quote(&pattern)));
                None
            }
        }
    }

    fn literal(&self, names: &Vec<String>) -> String {
        names.join(", ")
    }
}
