//! Parquet files with an image column and a label column, in a directory or a bucket.

use std::collections::{BTreeMap, BTreeSet};

use arrow::{
    array::{Array, ArrayRef, AsArray, RecordBatch},
    compute::cast,
    datatypes::{DataType, Float64Type, Int64Type, Schema, UInt64Type},
};
use futures::TryStreamExt;
use parquet::{
    arrow::{
        ParquetRecordBatchStreamBuilder, ProjectionMask,
        arrow_reader::{ArrowReaderMetadata, ArrowReaderOptions, RowSelection},
    },
    errors::ParquetError,
    file::metadata::ParquetMetaData,
};

use super::{
    Read,
    entry::{Entry, Origin, Problems},
    error::{Result, SourceError},
    label::Label,
    object::or_stand_in,
    patterns::hint,
};
use crate::{
    config,
    error::{
        contained,
        text::{first_few, quote},
    },
    schema,
    storage::{Location, StoredObject, panicked},
};

/// Separates the path of a file from the number of a row in it, in the `path` of a listing.
const ROW_MARK: char = '#';

/// Rows that any file can have, whatever its size.
const MAX_ROWS: u64 = 1 << 20;

/// Bytes of a file for each row beyond [`MAX_ROWS`]. The smallest image of any format has some thirty, and no two
/// different images are stored in less than a few.
const MIN_BYTES_PER_ROW: u64 = 8;

/// Bytes that the images of one row group can take, whatever their size in the file.
const MAX_GROUP_BYTES: u64 = 64 << 20;

/// How many times their size in the file they can take beyond [`MAX_GROUP_BYTES`]. Images are already compressed, and a
/// codec saves a few percent of them.
const MAX_EXPANSION: u64 = 32;

/// The files of a data set, with their footers.
#[derive(Debug)]
pub(super) struct ParquetFiles {
    image_column: String,
    label_column: String,
    /// Of a `ClassLabel`, in the order of the first file that has them.
    class_names: Option<Vec<String>>,
    files: BTreeMap<String, File>,
}

#[derive(Debug)]
struct File {
    split: config::Split,
    object: StoredObject,
    footer: ArrowReaderMetadata,
    /// The class of each number in this file, if it has another order of class names than the first file.
    order: Option<Vec<i64>>,
}

impl File {
    /// Returns a label of this file in the order of the first file.
    fn renumbered(&self, label: Label) -> Label {
        let Label::Number(number) = label else { return label };
        let position = |order: &Vec<i64>| order.get(usize::try_from(number).ok()?).copied();
        Label::Number(self.order.as_ref().and_then(position).unwrap_or(number))
    }

    fn rows(&self) -> usize {
        usize::try_from(self.footer.metadata().file_metadata().num_rows()).unwrap_or(0)
    }
}

impl ParquetFiles {
    /// Reads the footers of all files.
    ///
    /// # Errors
    /// Returns an error if a file does not exist or is not a Parquet file, lacks a column, or claims to be far larger
    /// than it can be.
    pub(super) async fn open(
        location: &Location,
        splits: &[(config::Split, Vec<String>)],
        image_column: &str,
        label_column: &str,
    ) -> Result<Self> {
        let mut files = BTreeMap::new();
        let mut reference: Option<(&str, Vec<String>)> = None;
        for (split, name) in splits.iter().flat_map(|(split, names)| names.iter().map(|name| (*split, name))) {
            let Some(mut object) = location.find(name).await? else {
                let (key, below) = ("`source.splits`", "`source.root`");
                let hint = hint(name, true);
                return Err(SourceError::NoSuchFile { url: location.url_of(name), key, below, hint });
            };
            let footer = contained(ArrowReaderMetadata::load_async(&mut object, ArrowReaderOptions::new())).await;
            let footer = match footer.unwrap_or_else(|panic| Err(panicked(panic))) {
                Ok(footer) => footer,
                Err(source) => {
                    let error = SourceError::NotParquet { url: object.url(), source };
                    return Err(or_stand_in(&object, error).await);
                }
            };
            check_columns(name, footer.schema(), image_column, label_column)?;
            check_sizes(name, object.size(), footer.metadata(), image_column)?;
            let names = class_label(footer.schema(), label_column);
            let order = match (&reference, names) {
                (_, None) => None,
                (Some((first, known)), Some(names)) => order_of(known, &names, first, name)?,
                (None, Some(names)) => {
                    reference = Some((name, names));
                    None
                }
            };
            files.insert(name.clone(), File { split, object, footer, order });
        }
        let class_names = reference.map(|(_, names)| names);
        Ok(Self { image_column: image_column.to_owned(), label_column: label_column.to_owned(), class_names, files })
    }

    /// Returns the size of all files.
    pub(super) fn bytes(&self) -> u64 {
        self.files.values().map(|file| file.object.size()).sum()
    }

    /// Returns the names of the `ClassLabel` that the metadata of `datasets` has; `None` if no file has such names.
    pub(super) fn class_names(&self) -> Option<&[String]> {
        self.class_names.as_deref()
    }

    /// Returns every row of every file, in the order of files and rows. Numbers of a `ClassLabel` become positions in
    /// [`ParquetFiles::class_names`].
    ///
    /// # Errors
    /// Returns an error if a label column cannot be read, or a row has no label. Labels of another kind are added to
    /// `problems`.
    pub(super) async fn entries(&self, problems: &mut Problems) -> Result<Vec<Entry>> {
        let mut entries = Vec::new();
        for (name, file) in &self.files {
            let (origin, mut row) = (Origin { file: name.as_str().into(), line: None }, 0);
            for batch in self.column(file, &self.label_column, None).await? {
                for label in self.labels(name, batch.column(0))? {
                    let no_label =
                        || SourceError::NoLabel { file: name.clone(), row, column: self.label_column.clone() };
                    let path = format!("{name}{ROW_MARK}{row}");
                    match label.ok_or_else(no_label)? {
                        Ok(label) => entries.push(Entry {
                            path,
                            label: file.renumbered(label),
                            split: file.split,
                            origin: origin.clone(),
                            file: super::entry::File::Found(file.object.version().clone()),
                        }),
                        Err(problem) => problems.add(&origin, format!("row {row}: {problem}")),
                    }
                    row += 1;
                }
            }
        }
        Ok(entries)
    }

    /// Returns the labels of a column; `None` for NULL.
    fn labels(&self, file: &str, column: &ArrayRef) -> Result<Vec<Option<Result<Label, String>>>> {
        let cast = |to: &DataType| {
            cast(column, to).map_err(|source| SourceError::Labels {
                file: file.to_owned(),
                column: self.label_column.clone(),
                source,
            })
        };
        Ok(match column.data_type() {
            DataType::UInt64 => {
                let labels = column.as_primitive::<UInt64Type>();
                labels.iter().map(|label| Some(Label::of_unsigned(label?))).collect()
            }
            integer if integer.is_integer() => {
                let labels = cast(&DataType::Int64)?;
                labels.as_primitive::<Int64Type>().iter().map(|label| Some(Ok(Label::Number(label?)))).collect()
            }
            float if float.is_floating() => {
                let labels = cast(&DataType::Float64)?;
                labels.as_primitive::<Float64Type>().iter().map(|label| Some(Label::of_float(label?))).collect()
            }
            _ => {
                let labels = cast(&DataType::Utf8)?;
                labels.as_string::<i32>().iter().map(|label| Some(Label::of_text(label?))).collect()
            }
        })
    }

    /// Reads the images at `paths`, file by file, and only the pages that hold them.
    pub(super) async fn read(&self, paths: &[Option<&str>]) -> Result<Vec<Read>> {
        let mut wanted: BTreeMap<&str, BTreeMap<usize, Vec<usize>>> = BTreeMap::new();
        let mut found: Vec<Read> = paths.iter().map(|_| Ok(None)).collect();
        for (index, path) in paths.iter().enumerate() {
            let Some(path) = path else { continue };
            match path.rsplit_once(ROW_MARK).and_then(|(name, row)| Some((name, row.parse().ok()?))) {
                Some((name, row)) => {
                    wanted.entry(name).or_default().entry(row).or_default().push(index);
                }
                None => found[index] = Err(format!("`{path}` is not a row of the source")),
            }
        }
        for (name, rows) in wanted {
            let images = self.images(name, &rows.keys().copied().collect::<Vec<_>>()).await?;
            for (indices, image) in rows.values().zip(images) {
                for &index in indices {
                    found[index].clone_from(&image);
                }
            }
        }
        Ok(found)
    }

    /// Reads the images in `rows`, which are ascending, of the file `name`.
    async fn images(&self, name: &str, rows: &[usize]) -> Result<Vec<Read>> {
        let Some(file) = self.files.get(name) else {
            return Ok(rows.iter().map(|_| Err(format!("`{name}` is not a file of the source"))).collect());
        };
        let total = file.rows();
        let inside = rows.iter().copied().filter(|&row| row < total).map(|row| row..row + 1);
        let selection = RowSelection::from_consecutive_ranges(inside, total);
        let mut images = Vec::with_capacity(rows.len());
        for batch in self.column(file, &self.image_column, Some(selection)).await? {
            let bytes = schema::image_bytes(batch.column(0))
                .ok_or_else(|| SourceError::NotImages { url: file.object.url(), column: self.image_column.clone() })?;
            images.extend((0..bytes.len()).map(|row| match bytes.is_null(row) {
                true => Err(without_bytes(batch.column(0), row)),
                false => Ok(Some(bytes.value(row).to_vec())),
            }));
        }
        images.resize_with(rows.len(), || Err(format!("`{name}` has {total} rows")));
        Ok(images)
    }

    async fn column(&self, file: &File, column: &str, selection: Option<RowSelection>) -> Result<Vec<RecordBatch>> {
        contained(self.read_column(file, column, selection)).await.unwrap_or_else(|panic| {
            let (url, column) = (file.object.url(), column.to_owned());
            Err(SourceError::ReadColumn { url, column, source: panicked(panic) })
        })
    }

    async fn read_column(
        &self,
        file: &File,
        column: &str,
        selection: Option<RowSelection>,
    ) -> Result<Vec<RecordBatch>> {
        let (url, column) = (file.object.url(), column.to_owned());
        let unreadable =
            |source: ParquetError| SourceError::ReadColumn { url: url.clone(), column: column.clone(), source };
        let mut builder = ParquetRecordBatchStreamBuilder::new_with_metadata(file.object.clone(), file.footer.clone());
        let mask = ProjectionMask::columns(builder.parquet_schema(), [column.as_str()]);
        if let Some(selection) = selection {
            builder = builder.with_row_selection(selection);
        }
        let mut stream = builder.with_projection(mask).build().map_err(unreadable)?;
        let (mut batches, mut rows) = (Vec::new(), 0);
        while let Some(batch) = stream.try_next().await.map_err(unreadable)? {
            rows += batch.num_rows();
            // The reader trusts the number of values that a page claims to have.
            if rows > file.rows() {
                return Err(SourceError::MoreRows { url: url.clone(), column: column.clone(), rows: file.rows() });
            }
            batches.push(batch);
        }
        Ok(batches)
    }
}

/// Returns why a row without bytes cannot be read, and what to do if only the path of its image was written.
fn without_bytes(images: &ArrayRef, row: usize) -> String {
    let paths = images.as_struct_opt().and_then(|images| images.column_by_name("path")).cloned();
    let paths = paths.and_then(|paths| cast(&paths, &DataType::Utf8).ok());
    let path = paths.as_ref().map(|paths| paths.as_string::<i32>()).filter(|paths| paths.is_valid(row));
    match path {
        Some(paths) => format!(
            "the source has no bytes for it, only the path {}; write the bytes too: \
             `dataset.with_format(\"arrow\").map(datasets.table.embed_table_storage, batched=True)`, then `to_parquet`",
            quote(paths.value(row))
        ),
        None => "the source has no bytes for it".to_owned(),
    }
}

fn is_images(data_type: &DataType) -> bool {
    match data_type {
        DataType::Struct(fields) => fields.iter().any(|f| f.name() == "bytes" && f.data_type().is_binary()),
        bytes => bytes.is_binary(),
    }
}

fn is_labels(data_type: &DataType) -> bool {
    match data_type {
        DataType::Dictionary(_, values) => values.is_string(),
        label => label.is_integer() || label.is_floating() || label.is_string(),
    }
}

fn check_columns(file: &str, schema: &Schema, image_column: &str, label_column: &str) -> Result<()> {
    type Fits = fn(&DataType) -> bool;
    let keys = [
        ("`source.image_column`", image_column, "images (their bytes, or a struct with `bytes`)", is_images as Fits),
        ("`source.label_column`", label_column, "integers or strings", is_labels as Fits),
    ];
    for (key, column, expected, fits) in keys {
        let (file, name) = (file.to_owned(), column.to_owned());
        let Some((_, field)) = schema.column_with_name(column) else {
            let found: Vec<_> = schema.fields().iter().map(|field| format!("`{}`", field.name())).collect();
            return Err(SourceError::NoColumn { file, column: name, key, found: found.join(", ") });
        };
        if !fits(field.data_type()) {
            let found = field.data_type().to_string();
            return Err(SourceError::ColumnType { file, column: name, key, found, expected });
        }
    }
    Ok(())
}

/// Rejects a file that claims to have far more rows than it can hold: run lengths of a few KiB can stand for a billion.
///
/// # Errors
/// Returns the problem, in words that follow the name of the file.
pub(super) fn check_rows(bytes: u64, footer: &ParquetMetaData) -> Result<(), String> {
    let rows = u64::try_from(footer.file_metadata().num_rows()).unwrap_or(u64::MAX);
    let groups = footer.row_groups().iter().map(|group| u64::try_from(group.num_rows()).unwrap_or(u64::MAX));
    let rows = rows.max(groups.fold(0, u64::saturating_add));
    let max = MAX_ROWS.max(bytes / MIN_BYTES_PER_ROW);
    if rows > max {
        return Err(format!("claims to have {rows} rows in {bytes} bytes, at most {max} are allowed"));
    }
    Ok(())
}

/// Rejects a file whose rows or images take far more memory than the file can hold: compressed zeros of a few KiB can
/// become an image of 2 GiB.
fn check_sizes(file: &str, bytes: u64, footer: &ParquetMetaData, image_column: &str) -> Result<()> {
    check_rows(bytes, footer).map_err(|problem| SourceError::TooManyRows { file: file.to_owned(), problem })?;
    for (group, metadata) in footer.row_groups().iter().enumerate() {
        let columns = metadata.columns().iter();
        let images =
            columns.filter(|column| column.column_path().parts().first().is_some_and(|name| name == image_column));
        for column in images {
            let size = |bytes: i64| u64::try_from(bytes).unwrap_or(u64::MAX);
            let (stored, size) = (size(column.compressed_size()), size(column.uncompressed_size()));
            let max = MAX_GROUP_BYTES.max(stored.saturating_mul(MAX_EXPANSION));
            if size > max {
                let (file, column) = (file.to_owned(), image_column.to_owned());
                return Err(SourceError::Inflated { file, column, group, stored, size, max });
            }
        }
    }
    Ok(())
}

/// Returns the position in `known`, the class names of the file `first`, of each name of another file; `None` if the two
/// have one order.
///
/// # Errors
/// Returns an error if the two do not have the same names.
fn order_of(known: &[String], names: &[String], first: &str, file: &str) -> Result<Option<Vec<i64>>> {
    if known == names {
        return Ok(None);
    }
    let positions: BTreeMap<&str, i64> = known.iter().map(String::as_str).zip(0..).collect();
    let order: Option<Vec<i64>> = names.iter().map(|name| positions.get(name.as_str()).copied()).collect();
    let distinct = names.iter().collect::<BTreeSet<_>>().len();
    match order {
        Some(order) if positions.len() == known.len() && distinct == known.len() && names.len() == known.len() => {
            Ok(Some(order))
        }
        _ => {
            let missing = |of: &[String], from: &[String]| {
                let names: Vec<String> =
                    of.iter().filter(|name| !from.contains(name)).map(|name| quote(name)).collect();
                if names.is_empty() { "no other".to_owned() } else { first_few(&names) }
            };
            Err(SourceError::ClassLabels {
                files: (first.to_owned(), file.to_owned()),
                only: (missing(known, names), missing(names, known)),
            })
        }
    }
}

fn class_label(schema: &Schema, column: &str) -> Option<Vec<String>> {
    let info: serde_json::Value = serde_json::from_str(schema.metadata().get("huggingface")?).ok()?;
    let names = info.pointer("/info/features")?.get(column)?.get("names")?.as_array()?;
    let names: Option<Vec<String>> = names.iter().map(|name| name.as_str().map(str::to_owned)).collect();
    names.filter(|names| !names.is_empty())
}

#[cfg(test)]
mod tests {
    use std::{path::Path, sync::Arc};

    use arrow::{
        array::{BinaryArray, Int64Array},
        datatypes::Field,
    };
    use parquet::{
        arrow::ArrowWriter,
        basic::{Compression, ZstdLevel},
        file::properties::WriterProperties,
    };

    use super::*;

    async fn opened(root: &Path, name: &str) -> Result<ParquetFiles> {
        let splits = [(config::Split::Train, vec![name.to_owned()])];
        ParquetFiles::open(&Location::open(&root.to_string_lossy())?, &splits, "image", "label").await
    }

    /// Writes a file with these images, all with the label 0.
    fn write(path: &Path, images: BinaryArray) {
        let labels = Int64Array::from(vec![0; images.len()]);
        let fields = vec![Field::new("image", DataType::Binary, true), Field::new("label", DataType::Int64, true)];
        let columns: Vec<ArrayRef> = vec![Arc::new(images), Arc::new(labels)];
        let batch = RecordBatch::try_new(Arc::new(Schema::new(fields)), columns).unwrap();
        let zstd = Compression::ZSTD(ZstdLevel::default());
        let properties = WriterProperties::builder().set_compression(zstd).set_dictionary_enabled(false).build();
        let file = std::fs::File::create(path).unwrap();
        let mut writer = ArrowWriter::try_new(file, batch.schema(), Some(properties)).unwrap();
        writer.write(&batch).unwrap();
        writer.close().unwrap();
    }

    #[tokio::test]
    async fn a_billion_rows_in_a_few_kilobytes_are_rejected_unread() {
        let bombs = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/bombs");
        let message = opened(&bombs, "rows.parquet").await.unwrap_err().to_string();
        let expected = "`rows.parquet` claims to have 1000000000 rows in 5902 bytes, at most 1048576 are allowed; no file \
                        of images has so many";
        assert_eq!(message, expected);
    }

    #[tokio::test]
    async fn an_image_that_inflates_is_rejected_unread() {
        let folder = tempfile::tempdir().unwrap();
        let zeros = vec![0; (64 << 20) + 1];
        write(&folder.path().join("zeros.parquet"), BinaryArray::from_vec(vec![&zeros]));
        let message = opened(folder.path(), "zeros.parquet").await.unwrap_err().to_string();
        assert!(
            message.starts_with("`zeros.parquet`: column `image` of row group 0 claims to decompress from "),
            "{message}"
        );
        assert!(message.ends_with("67108864 are allowed; images do not compress that well"), "{message}");
    }

    #[tokio::test]
    async fn a_million_rows_of_one_small_image_are_read() {
        let folder = tempfile::tempdir().unwrap();
        write(&folder.path().join("same.parquet"), BinaryArray::from_iter_values(vec![[7; 60]; 1_000_000]));
        let files = opened(folder.path(), "same.parquet").await.unwrap();
        assert_eq!(files.entries(&mut Problems::default()).await.unwrap().len(), 1_000_000);
        let read = files.read(&[Some("same.parquet#999999")]).await.unwrap();
        assert_eq!(read, [Ok(Some(vec![7; 60]))]);
    }
}
