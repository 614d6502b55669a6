//! Data files: rows as Parquet, named by unit and content.

use std::sync::Arc;

use arrow::{
    array::RecordBatch,
    datatypes::{DataType, Field, Schema, SchemaRef},
};
use bytes::Bytes;
use parquet::{
    arrow::{ArrowWriter, arrow_reader::ParquetRecordBatchReaderBuilder},
    basic::{Compression, ZstdLevel},
    errors::ParquetError,
    file::properties::{EnabledStatistics, WriterProperties},
    schema::types::ColumnPath,
};
use serde_json::{Map, Value, json};

use super::{error::LakeError, statistics::statistics};
use crate::{
    error::{Result, chain, contained_now},
    identity, schema,
    storage::panicked,
};

/// Images of a row group, as many as Hugging Face's viewer and random access can handle.
const IMAGES_PER_ROW_GROUP: usize = 100;
/// Encoded bytes of a row group with images.
const ROW_GROUP_BYTES: usize = 32 << 20;
/// Encoded bytes of a page of images.
const PAGE_BYTES: usize = 1 << 20;
/// Values after which the writer checks the size of a page: few, since each is an image.
const IMAGES_PER_CHECK: usize = 4;

/// One immutable Parquet file, in memory until it is written into the lake.
#[derive(Debug, Clone)]
pub(crate) struct DataFile {
    /// `<unit>-<first 16 digits of the SHA-256 of its bytes>.parquet`.
    pub(crate) name: String,
    pub(crate) bytes: Bytes,
    pub(crate) rows: usize,
    /// Delta's statistics: the number of rows, and the range of each plain column.
    pub(crate) stats: String,
}

impl DataFile {
    /// Encodes `batches`, which have the columns of `table_schema`, as the file of `unit`.
    ///
    /// # Errors
    /// Returns an error if the Parquet writer rejects the rows.
    pub(crate) fn write(unit: &str, table_schema: &SchemaRef, batches: &[RecordBatch]) -> Result<Self> {
        let failed = |source| LakeError::WriteParquet { file: unit.to_owned(), source };
        let described = with_features(table_schema, &Map::new());
        let mut bytes = Vec::new();
        let mut writer =
            ArrowWriter::try_new(&mut bytes, Arc::clone(&described), Some(properties(table_schema))).map_err(failed)?;
        for batch in batches {
            let batch = batch.clone().with_schema(Arc::clone(&described)).map_err(|error| failed(error.into()))?;
            writer.write(&batch).map_err(failed)?;
        }
        writer.close().map_err(failed)?;
        let digest = identity::content_digest(&bytes);
        Ok(Self {
            name: format!("{unit}-{}.parquet", digest.get(..16).unwrap_or_default()),
            rows: batches.iter().map(RecordBatch::num_rows).sum(),
            stats: statistics(table_schema, batches),
            bytes: bytes.into(),
        })
    }
}

/// Writes a Parquet file as a stream: finished bytes are returned, so that only one row group is in memory.
pub(crate) struct StreamingWriter {
    described: SchemaRef,
    writer: ArrowWriter<Vec<u8>>,
}

impl StreamingWriter {
    /// Starts a file with the columns of `schema`, some of which hold images. `features` has the features of Hugging
    /// Face's `datasets` for columns for which they do not follow from the type.
    ///
    /// # Errors
    /// Returns an error if Parquet does not support the columns.
    pub(crate) fn new(schema: &SchemaRef, features: &Map<String, Value>) -> Result<Self> {
        let described = with_features(schema, features);
        let writer = ArrowWriter::try_new(Vec::new(), Arc::clone(&described), Some(properties(schema)));
        Ok(Self { writer: writer.map_err(unwritable)?, described })
    }

    /// Adds rows, and returns the bytes that are finished.
    ///
    /// # Errors
    /// Returns an error if the Parquet writer rejects the rows.
    pub(crate) fn write(&mut self, rows: RecordBatch) -> Result<Vec<u8>> {
        let rows = rows.with_schema(Arc::clone(&self.described)).map_err(|error| unwritable(error.into()))?;
        self.writer.write(&rows).map_err(unwritable)?;
        Ok(std::mem::take(self.writer.inner_mut()))
    }

    /// Returns the rest of the file.
    ///
    /// # Errors
    /// Returns an error if the Parquet writer fails.
    pub(crate) fn close(self) -> Result<Vec<u8>> {
        Ok(self.writer.into_inner().map_err(unwritable)?)
    }
}

fn unwritable(source: parquet::errors::ParquetError) -> LakeError {
    LakeError::WriteParquet { file: "rows with images".to_owned(), source }
}

/// Returns the digest in the name of a data file, or `None` if the name is not one of ours, as after another writer's
/// OPTIMIZE.
pub(super) fn digest_in_name(name: &str) -> Option<&str> {
    let digest = name.strip_suffix(".parquet")?.rsplit_once('-')?.1;
    (digest.len() == 16 && digest.bytes().all(|digit| digit.is_ascii_hexdigit())).then_some(digest)
}

/// Returns whether `bytes` have the digest in `name`, or `None` if there is none.
pub(super) fn matches_name(name: &str, bytes: &[u8]) -> Option<bool> {
    digest_in_name(name).map(|digest| identity::content_digest(bytes).starts_with(digest))
}

/// Returns why the rows of a Parquet file cannot be read. The library panics on some damaged files.
pub(super) fn parquet_problem(bytes: Bytes) -> Option<String> {
    let read = move || {
        let mut rows = ParquetRecordBatchReaderBuilder::try_new(bytes)?.build()?;
        rows.try_for_each(|batch| batch.map(drop)).map_err(ParquetError::from)
    };
    let read = contained_now(read).unwrap_or_else(|panic| Err(panicked(panic)));
    read.err().map(|error| format!("is torn: {}", chain(&error)))
}

fn properties(table_schema: &Schema) -> WriterProperties {
    let has_images = table_schema.fields().iter().any(|field| schema::is_image(field.data_type()));
    let zstd = Compression::ZSTD(ZstdLevel::default());
    let mut properties = WriterProperties::builder().set_compression(zstd);
    if has_images {
        properties = properties
            .set_max_row_group_row_count(Some(IMAGES_PER_ROW_GROUP))
            .set_max_row_group_bytes(Some(ROW_GROUP_BYTES))
            .set_write_batch_size(IMAGES_PER_CHECK);
    }
    for field in table_schema.fields().iter().filter(|field| schema::is_image(field.data_type())) {
        let bytes = ColumnPath::new(vec![field.name().clone(), "bytes".into()]);
        properties = properties
            .set_column_compression(bytes.clone(), Compression::UNCOMPRESSED)
            .set_column_dictionary_enabled(bytes.clone(), false)
            .set_column_statistics_enabled(bytes.clone(), EnabledStatistics::None)
            .set_column_data_page_size_limit(bytes, PAGE_BYTES);
    }
    properties.build()
}

/// Adds the metadata by which Hugging Face's `datasets` shows the image columns as images: the key `huggingface`, of which
/// only the `info` form is decoded. `known` takes precedence over the features that follow from the types.
fn with_features(table_schema: &SchemaRef, known: &Map<String, Value>) -> SchemaRef {
    if !table_schema.fields().iter().any(|field| schema::is_image(field.data_type())) {
        return Arc::clone(table_schema);
    }
    let of = |field: &Field| known.get(field.name()).cloned().unwrap_or_else(|| feature(field.data_type()));
    let features: Map<String, Value> =
        table_schema.fields().iter().map(|field| (field.name().clone(), of(field))).collect();
    let text = json!({ "info": { "features": features } }).to_string();
    Arc::new(table_schema.as_ref().clone().with_metadata([("huggingface".to_owned(), text)].into()))
}

fn feature(data_type: &DataType) -> Value {
    match data_type {
        other if schema::is_image(other) => json!({ "_type": "Image" }),
        DataType::Struct(fields) => {
            fields.iter().map(|field| (field.name().clone(), feature(field.data_type()))).collect()
        }
        // Sequence in the versions of `datasets` before lists had a type of their own, and read by all since.
        DataType::List(item) => json!({ "feature": feature(item.data_type()), "_type": "Sequence" }),
        DataType::Int64 => json!({ "dtype": "int64", "_type": "Value" }),
        DataType::Float32 => json!({ "dtype": "float32", "_type": "Value" }),
        DataType::Float64 => json!({ "dtype": "float64", "_type": "Value" }),
        DataType::Boolean => json!({ "dtype": "bool", "_type": "Value" }),
        _ => json!({ "dtype": "string", "_type": "Value" }),
    }
}

#[cfg(test)]
mod tests {
    use arrow::array::{ArrayRef, StringArray};

    use super::*;

    #[test]
    fn a_file_is_torn_however_its_reader_fails() {
        let ids: ArrayRef = Arc::new(StringArray::from(vec!["a", "b"]));
        let rows = RecordBatch::try_from_iter([("id", ids)]).unwrap();
        let whole = DataFile::write("rows", &rows.schema(), &[rows]).unwrap().bytes;
        assert_eq!(parquet_problem(whole.clone()), None);
        let mut long_footer = whole.to_vec();
        let length = whole.len() - 8;
        long_footer[length..length + 4].copy_from_slice(&i32::MAX.to_le_bytes());
        for bytes in [whole.slice(..whole.len() / 2), Bytes::new(), vec![0; whole.len()].into(), long_footer.into()] {
            let problem = parquet_problem(bytes).unwrap();
            assert!(problem.starts_with("is torn: "), "{problem}");
        }
    }
}
