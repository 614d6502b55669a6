//! Data files: rows to Parquet bytes, named by unit and content.

use std::sync::Arc;

use arrow::{
    array::{Array, ArrayRef, AsArray, RecordBatch},
    compute,
    datatypes::{DataType, Field, Float64Type, Int64Type, Schema, SchemaRef},
};
use bytes::Bytes;
use parquet::{
    arrow::ArrowWriter,
    basic::{Compression, ZstdLevel},
    file::properties::{EnabledStatistics, WriterProperties},
    schema::types::ColumnPath,
};
use serde_json::{Map, Value, json};

use crate::{
    error::{Error, Result},
    identity, schema,
};

/// Images of a row group: what Hugging Face's viewer and random readers cope with.
const IMAGES_PER_ROW_GROUP: usize = 100;
/// Encoded bytes of a row group with images.
const ROW_GROUP_BYTES: usize = 32 << 20;
/// Encoded bytes of a page of images.
const PAGE_BYTES: usize = 1 << 20;
/// Characters of a text in the statistics.
const MAX_BOUND_CHARS: usize = 32;
/// The writer looks at the page's size after so many values: few, since each is an image.
const IMAGES_PER_CHECK: usize = 4;

/// One immutable Parquet file, in memory until it is put into the lake.
#[derive(Debug, Clone)]
pub struct DataFile {
    /// `<unit>-<first 16 digits of the SHA-256 of its bytes>.parquet`.
    pub name: String,
    /// The file.
    pub bytes: Bytes,
    /// Its number of rows.
    pub rows: usize,
    /// Delta's statistics: rows, and the range of each plain column.
    pub stats: String,
}

impl DataFile {
    /// Writes `batches`, which have the columns of `schema`, as the file of `unit`.
    ///
    /// # Errors
    /// Where Parquet refuses the rows.
    pub fn write(unit: &str, table_schema: &SchemaRef, batches: &[RecordBatch]) -> Result<Self> {
        let fail = |error| Error::lake(unit, "the rows cannot be written as Parquet", error);
        let described = with_features(table_schema, &Map::new());
        let mut bytes = Vec::new();
        let mut writer =
            ArrowWriter::try_new(&mut bytes, Arc::clone(&described), Some(properties(table_schema))).map_err(fail)?;
        for batch in batches {
            let batch = batch.clone().with_schema(Arc::clone(&described)).map_err(|e| fail(e.into()))?;
            writer.write(&batch).map_err(fail)?;
        }
        writer.close().map_err(fail)?;
        let digest = identity::content_digest(&bytes);
        Ok(Self {
            name: format!("{unit}-{}.parquet", digest.get(..16).unwrap_or_default()),
            rows: batches.iter().map(RecordBatch::num_rows).sum(),
            stats: statistics(table_schema, batches),
            bytes: bytes.into(),
        })
    }
}

/// A Parquet file that is written as its rows come: what is ready is taken out, so that a row group is all that is in
/// memory.
pub struct StreamingWriter {
    described: SchemaRef,
    writer: ArrowWriter<Vec<u8>>,
}

impl StreamingWriter {
    /// Begins a file with the columns of `schema`, of which some hold images. `features` says what Hugging Face's
    /// `datasets` makes of a column, where that does not follow from its type.
    ///
    /// # Errors
    /// Where Parquet has no such columns.
    pub fn new(schema: &SchemaRef, features: &Map<String, Value>) -> Result<Self> {
        let described = with_features(schema, features);
        let writer = ArrowWriter::try_new(Vec::new(), Arc::clone(&described), Some(properties(schema)));
        Ok(Self { writer: writer.map_err(unwritable)?, described })
    }

    /// Adds rows; gives the bytes that are ready.
    ///
    /// # Errors
    /// Where Parquet refuses the rows.
    pub fn write(&mut self, rows: RecordBatch) -> Result<Vec<u8>> {
        let rows = rows.with_schema(Arc::clone(&self.described)).map_err(|error| unwritable(error.into()))?;
        self.writer.write(&rows).map_err(unwritable)?;
        Ok(std::mem::take(self.writer.inner_mut()))
    }

    /// The rest of the file.
    ///
    /// # Errors
    /// Where Parquet refuses the rows.
    pub fn close(self) -> Result<Vec<u8>> {
        self.writer.into_inner().map_err(unwritable)
    }
}

fn unwritable(error: parquet::errors::ParquetError) -> Error {
    Error::lake("rows with images", "they cannot be written as Parquet", error)
}

/// Whether `bytes` are those that `name` was given to; `None` where the name is not one of ours, as
/// after another writer's OPTIMIZE.
pub fn matches_name(name: &str, bytes: &[u8]) -> Option<bool> {
    let digest = name.strip_suffix(".parquet")?.rsplit_once('-')?.1;
    let ours = digest.len() == 16 && digest.bytes().all(|digit| digit.is_ascii_hexdigit());
    ours.then(|| identity::content_digest(bytes).starts_with(digest))
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

/// The schema with the metadata by which Hugging Face `datasets` shows the image columns as images:
/// the key `huggingface`, of which only the `info` form is decoded. `known` goes before what follows from types.
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
        DataType::Int64 => json!({ "dtype": "int64", "_type": "Value" }),
        DataType::Float32 => json!({ "dtype": "float32", "_type": "Value" }),
        DataType::Float64 => json!({ "dtype": "float64", "_type": "Value" }),
        DataType::Boolean => json!({ "dtype": "bool", "_type": "Value" }),
        _ => json!({ "dtype": "string", "_type": "Value" }),
    }
}

/// Rows, and for every plain column its range and its nulls: a reader may take a column that has no range
/// for one that holds nothing.
fn statistics(table_schema: &Schema, batches: &[RecordBatch]) -> String {
    let (mut least, mut most, mut nulls) = (Map::new(), Map::new(), Map::new());
    for field in table_schema.fields().iter().filter(|field| !field.data_type().is_nested()) {
        let name = field.name();
        let columns: Vec<_> = batches.iter().filter_map(|batch| batch.column_by_name(name)).collect();
        nulls.insert(name.clone(), columns.iter().map(|column| column.null_count()).sum::<usize>().into());
        if let Some((low, high)) = range(field.data_type(), &columns) {
            least.insert(name.clone(), low);
            most.insert(name.clone(), high);
        }
    }
    let rows: usize = batches.iter().map(RecordBatch::num_rows).sum();
    json!({ "numRecords": rows, "minValues": least, "maxValues": most, "nullCount": nulls }).to_string()
}

/// The least and the greatest value of a column; none where it holds nothing, or nothing that can be told.
fn range(data_type: &DataType, columns: &[&ArrayRef]) -> Option<(Value, Value)> {
    match data_type {
        DataType::Int64 => {
            let columns = || columns.iter().map(|column| column.as_primitive::<Int64Type>());
            let low = columns().filter_map(compute::min).min()?;
            Some((low.into(), columns().filter_map(compute::max).max()?.into()))
        }
        DataType::Float32 | DataType::Float64 => {
            let reals = columns.iter().filter_map(|column| compute::cast(column, &DataType::Float64).ok());
            let reals: Vec<f64> =
                reals.flat_map(|c| c.as_primitive::<Float64Type>().iter().flatten().collect::<Vec<_>>()).collect();
            // what is not a number has no place in a range
            let sound = reals.iter().all(|real| real.is_finite());
            let low = reals.iter().copied().min_by(f64::total_cmp).filter(|_| sound)?;
            Some((low.into(), reals.iter().copied().max_by(f64::total_cmp)?.into()))
        }
        DataType::Utf8 => {
            let columns = || columns.iter().map(|column| column.as_string::<i32>());
            let low = columns().filter_map(compute::min_string).min()?;
            let high = columns().filter_map(compute::max_string).max()?;
            Some((low.chars().take(MAX_BOUND_CHARS).collect::<String>().into(), upper_bound(high).into()))
        }
        DataType::Boolean => {
            let columns = || columns.iter().map(|column| column.as_boolean());
            let low = columns().filter_map(compute::min_boolean).min()?;
            Some((low.into(), columns().filter_map(compute::max_boolean).max()?.into()))
        }
        _ => None,
    }
}

/// A text that no text beginning like `text` exceeds.
fn upper_bound(text: &str) -> String {
    match text.char_indices().nth(MAX_BOUND_CHARS) {
        None => text.to_owned(),
        Some((end, _)) => format!("{}\u{10FFFF}", text.get(..end).unwrap_or(text)),
    }
}
