//! Parquet files with an image and a label column, in a directory or a bucket.

use std::collections::BTreeMap;

use arrow::{
    array::{Array, AsArray, RecordBatch},
    compute::cast,
    datatypes::{DataType, Int64Type, Schema},
};
use futures::TryStreamExt;
use object_store::{ObjectMeta, ObjectStoreExt};
use parquet::{
    arrow::{
        ParquetRecordBatchStreamBuilder, ProjectionMask,
        arrow_reader::{ArrowReaderMetadata, ArrowReaderOptions, RowSelection},
    },
    errors::ParquetError,
    file::metadata::ParquetMetaData,
};

use super::{Listed, Read, object::Version};
use crate::{
    config,
    error::{Error, Result},
    identity::Digest,
    storage::{Location, Object},
};

/// What is between a file's path and the number of a row in it, in a listing's `path`.
const ROW_MARK: char = '#';

/// Rows that any file may have, whatever its size.
const ROWS: u64 = 1 << 20;

/// Fewest bytes of a file for each row beyond [`ROWS`]. The smallest image of any format has some thirty, and no two
/// that differ are stored in less than a few.
const BYTES_PER_ROW: u64 = 8;

/// Bytes that the images of one row group may take, whatever their size in the file.
const GROUP_BYTES: u64 = 64 << 20;

/// How many times their size in the file they may take beyond [`GROUP_BYTES`]. Images are compressed already, and a
/// codec takes a few per cent off them.
const EXPANSION: u64 = 32;

/// The files of a data set, opened: their footers have been read.
#[derive(Debug)]
pub(super) struct ParquetFiles {
    location: Location,
    image_column: String,
    label_column: String,
    files: BTreeMap<String, File>,
}

#[derive(Debug)]
struct File {
    split: config::Split,
    meta: ObjectMeta,
    footer: ArrowReaderMetadata,
}

impl File {
    fn version(&self) -> String {
        Version::of(&self.meta).text()
    }
}

impl ParquetFiles {
    pub(super) async fn open(
        location: Location,
        config: &config::Source,
        image_column: &str,
        label_column: &str,
    ) -> Result<Self> {
        let mut files = BTreeMap::new();
        for (split, name) in config.splits.iter().flat_map(|(split, names)| names.iter().map(|n| (*split, n))) {
            let fail = |message: &str, error: Box<dyn std::error::Error + Send + Sync>| {
                Error::lake(format!("{}{name}", location.url), message, error)
            };
            let meta = location.store.head(&location.path(name)).await.map_err(|error| match error {
                object_store::Error::NotFound { .. } => Error::Lake {
                    url: format!("{}{name}", location.url),
                    message: "there is no such file; it is one of `source.splits`, below `source.root`".into(),
                    source: None,
                },
                error => fail("the file of `source.splits` cannot be found", error.into()),
            })?;
            let mut reader = Object::new(&location.store, &meta);
            let footer = ArrowReaderMetadata::load_async(&mut reader, ArrowReaderOptions::new())
                .await
                .map_err(|error| fail("it is no Parquet file", error.into()))?;
            check_columns(name, footer.schema(), image_column, label_column)?;
            check_sizes(name, meta.size, footer.metadata(), image_column)?;
            files.insert(name.clone(), File { split, meta, footer });
        }
        Ok(Self { location, image_column: image_column.to_owned(), label_column: label_column.to_owned(), files })
    }

    /// Path, version and split of every file.
    pub(super) fn fingerprint(&self, digest: Digest) -> Digest {
        self.files
            .iter()
            .fold(digest, |digest, (name, file)| digest.text(name).text(&file.version()).text(file.split.as_str()))
    }

    /// The size of all files.
    pub(super) fn bytes(&self) -> u64 {
        self.files.values().map(|file| file.meta.size).sum()
    }

    /// The names of a `ClassLabel`, where the files say them in the metadata of `datasets`.
    pub(super) fn class_names(&self) -> Vec<String> {
        self.files.values().find_map(|file| class_label(file.footer.schema(), &self.label_column)).unwrap_or_default()
    }

    /// Every row of every file with its label, in the order of files and rows.
    pub(super) async fn labels(&self) -> Result<Vec<Listed>> {
        let mut rows = Vec::new();
        for (name, file) in &self.files {
            let (version, mut row) = (file.version(), 0);
            for batch in self.column(name, file, &self.label_column, None).await? {
                let column = batch.column(0);
                let labels = cast(column, &DataType::Int64)
                    .map_err(|error| Error::Data(format!("`{name}`: column `{}`: {error}", self.label_column)))?;
                let labels = labels.as_primitive::<Int64Type>();
                for index in 0..labels.len() {
                    if labels.is_null(index) {
                        return Err(Error::Data(format!(
                            "`{name}`: row {row} has no `{}`; every image needs one",
                            self.label_column
                        )));
                    }
                    let path = format!("{name}{ROW_MARK}{row}");
                    rows.push(Listed {
                        path,
                        version: version.clone(),
                        label: labels.value(index),
                        split: file.split.as_str(),
                    });
                    row += 1;
                }
            }
        }
        Ok(rows)
    }

    /// The images at `paths`. Rows are read file by file, and only the pages that hold them.
    pub(super) async fn read(&self, paths: &[Option<&str>]) -> Result<Vec<Read>> {
        let mut wanted: BTreeMap<&str, BTreeMap<usize, Vec<usize>>> = BTreeMap::new();
        let mut found: Vec<Read> = paths.iter().map(|_| Ok(None)).collect();
        for (index, path) in paths.iter().enumerate() {
            let Some(path) = path else { continue };
            match path.rsplit_once(ROW_MARK).and_then(|(name, row)| Some((name, row.parse().ok()?))) {
                Some((name, row)) => {
                    wanted.entry(name).or_default().entry(row).or_default().push(index);
                }
                None => found[index] = Err(format!("`{path}` is no row of the source")),
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

    /// The images in `rows`, ascending, of the file called `name`.
    async fn images(&self, name: &str, rows: &[usize]) -> Result<Vec<Read>> {
        let Some(file) = self.files.get(name) else {
            return Ok(rows.iter().map(|_| Err(format!("`{name}` is no file of the source"))).collect());
        };
        let total = usize::try_from(file.footer.metadata().file_metadata().num_rows()).unwrap_or(0);
        let inside: Vec<usize> = rows.iter().copied().filter(|&row| row < total).collect();
        let ranges = inside.iter().map(|&row| row..row + 1);
        let selection = RowSelection::from_consecutive_ranges(ranges, total);
        let mut images = Vec::with_capacity(rows.len());
        for batch in self.column(name, file, &self.image_column, Some(selection)).await? {
            let bytes = crate::schema::image_bytes(batch.column(0))
                .ok_or_else(|| Error::Data(format!("`{name}`: column `{}` holds no images", self.image_column)))?;
            images.extend((0..bytes.len()).map(|row| {
                if bytes.is_null(row) {
                    Err("the source has no bytes for it".into())
                } else {
                    Ok(Some(bytes.value(row).to_vec()))
                }
            }));
        }
        images.resize_with(rows.len(), || Err(format!("`{name}` has {total} rows")));
        Ok(images)
    }

    async fn column(
        &self,
        name: &str,
        file: &File,
        column: &str,
        selection: Option<RowSelection>,
    ) -> Result<Vec<RecordBatch>> {
        let fail = |error: ParquetError| {
            Error::lake(format!("{}{name}", self.location.url), format!("column `{column}` cannot be read"), error)
        };
        let reader = Object::new(&self.location.store, &file.meta);
        let mut builder = ParquetRecordBatchStreamBuilder::new_with_metadata(reader, file.footer.clone());
        let mask = ProjectionMask::columns(builder.parquet_schema(), [column]);
        if let Some(selection) = selection {
            builder = builder.with_row_selection(selection);
        }
        let total = usize::try_from(file.footer.metadata().file_metadata().num_rows()).unwrap_or(0);
        let mut stream = builder.with_projection(mask).build().map_err(fail)?;
        let (mut batches, mut rows) = (Vec::new(), 0);
        while let Some(batch) = stream.try_next().await.map_err(fail)? {
            rows += batch.num_rows();
            // what a page says of itself is believed by its reader
            if rows > total {
                return Err(Error::Data(format!("`{name}`: column `{column}` has more than the file's {total} rows")));
            }
            batches.push(batch);
        }
        Ok(batches)
    }
}

type Fits = fn(&DataType) -> bool;

fn is_images(data_type: &DataType) -> bool {
    match data_type {
        DataType::Struct(fields) => fields.iter().any(|f| f.name() == "bytes" && f.data_type().is_binary()),
        bytes => bytes.is_binary(),
    }
}

fn check_columns(name: &str, schema: &Schema, image_column: &str, label_column: &str) -> Result<()> {
    let columns: Vec<_> = schema.fields().iter().map(|field| format!("`{}`", field.name())).collect();
    let keys = [
        ("image_column", image_column, "images (their bytes, or a struct with `bytes`)", is_images as Fits),
        ("label_column", label_column, "integers", DataType::is_integer as Fits),
    ];
    for (key, column, expected, fits) in keys {
        let Some((_, field)) = schema.column_with_name(column) else {
            return Err(Error::Data(format!(
                "`{name}` has no column `{column}` (`source.{key}`); its columns are {}",
                columns.join(", ")
            )));
        };
        if !fits(field.data_type()) {
            return Err(Error::Data(format!(
                "`{name}`: column `{column}` (`source.{key}`) holds {}, {expected} are expected",
                field.data_type()
            )));
        }
    }
    Ok(())
}

/// Refuses a file that says it has far more rows than it could hold: a few KiB of run lengths are a thousand million.
/// What is wrong comes back in words that follow the file's name.
pub(super) fn check_rows(bytes: u64, footer: &ParquetMetaData) -> Result<(), String> {
    let rows = u64::try_from(footer.file_metadata().num_rows()).unwrap_or(u64::MAX);
    let groups = footer.row_groups().iter().map(|group| u64::try_from(group.num_rows()).unwrap_or(u64::MAX));
    let rows = rows.max(groups.fold(0, u64::saturating_add));
    let most = ROWS.max(bytes / BYTES_PER_ROW);
    if rows > most {
        return Err(format!("says that it has {rows} rows in {bytes} bytes, {most} are allowed"));
    }
    Ok(())
}

/// Refuses a file whose rows or images take far more memory than the file could hold: a few KiB of compressed zeros
/// are an image of 2 GiB.
fn check_sizes(name: &str, bytes: u64, footer: &ParquetMetaData, image_column: &str) -> Result<()> {
    check_rows(bytes, footer).map_err(|said| Error::Data(format!("`{name}` {said}; no file of images has so many")))?;
    for (group, metadata) in footer.row_groups().iter().enumerate() {
        let columns = metadata.columns().iter();
        let images =
            columns.filter(|column| column.column_path().parts().first().is_some_and(|name| name == image_column));
        for column in images {
            let size = |bytes: i64| u64::try_from(bytes).unwrap_or(u64::MAX);
            let (stored, takes) = (size(column.compressed_size()), size(column.uncompressed_size()));
            let most = GROUP_BYTES.max(stored.saturating_mul(EXPANSION));
            if takes > most {
                return Err(Error::Data(format!(
                    "`{name}`: column `{}` of row group {group} says that it becomes {takes} bytes out of {stored}, \
                     {most} are allowed; no images are compressed so far",
                    image_column
                )));
            }
        }
    }
    Ok(())
}

fn class_label(schema: &Schema, column: &str) -> Option<Vec<String>> {
    let info: serde_json::Value = serde_json::from_str(schema.metadata().get("huggingface")?).ok()?;
    let names = info.pointer("/info/features")?.get(column)?.get("names")?.as_array()?;
    names.iter().map(|name| name.as_str().map(str::to_owned)).collect()
}

#[cfg(test)]
mod tests {
    use std::{path::Path, sync::Arc};

    use arrow::{
        array::{ArrayRef, BinaryArray, Int64Array},
        datatypes::Field,
    };
    use parquet::{
        arrow::ArrowWriter,
        basic::{Compression, ZstdLevel},
        file::properties::WriterProperties,
    };

    use super::*;

    async fn opened(root: &Path, name: &str) -> Result<ParquetFiles> {
        let config = config::Source {
            kind: config::SourceKind::parquet(),
            root: root.to_string_lossy().into_owned(),
            splits: vec![(config::Split::Train, vec![name.to_owned()])],
            sql: "pixels/embed.sql".to_owned(),
            classes: None,
        };
        ParquetFiles::open(Location::open(&config.root)?, &config, "image", "label").await
    }

    /// A file with these images, all of label 0.
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
    async fn a_thousand_million_rows_in_a_few_kilobytes_are_refused_unread() {
        let bombs = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/bombs");
        let said = opened(&bombs, "rows.parquet").await.unwrap_err().to_string();
        let expected = "`rows.parquet` says that it has 1000000000 rows in 5902 bytes, 1048576 are allowed; no file of \
                        images has so many";
        assert_eq!(said, expected);
    }

    #[tokio::test]
    async fn a_image_that_inflates_is_refused_unread() {
        let folder = tempfile::tempdir().unwrap();
        let zeros = vec![0; (64 << 20) + 1];
        write(&folder.path().join("zeros.parquet"), BinaryArray::from_vec(vec![&zeros]));
        let said = opened(folder.path(), "zeros.parquet").await.unwrap_err().to_string();
        assert!(said.starts_with("`zeros.parquet`: column `image` of row group 0 says that it becomes 6710"), "{said}");
        assert!(said.ends_with("67108864 are allowed; no images are compressed so far"), "{said}");
    }

    #[tokio::test]
    async fn a_million_rows_of_one_small_image_are_read() {
        let folder = tempfile::tempdir().unwrap();
        write(&folder.path().join("same.parquet"), BinaryArray::from_iter_values(vec![[7; 60]; 1_000_000]));
        let files = opened(folder.path(), "same.parquet").await.unwrap();
        assert_eq!(files.labels().await.unwrap().len(), 1_000_000);
        let read = files.read(&[Some("same.parquet#999999")]).await.unwrap();
        assert_eq!(read, [Ok(Some(vec![7; 60]))]);
    }
}
