//! Data files: rows to Parquet bytes, named by unit and content.

use std::sync::Arc;

use arrow::{
    array::{Array, AsArray, RecordBatch},
    compute,
    datatypes::{DataType, Int64Type, Schema, SchemaRef},
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

/// Pictures of a row group: what Hugging Face's viewer and random readers cope with.
const PICTURES_PER_ROW_GROUP: usize = 100;
/// Encoded bytes of a row group with pictures.
const ROW_GROUP_BYTES: usize = 32 << 20;
/// Encoded bytes of a page of pictures.
const PAGE_BYTES: usize = 1 << 20;
/// The writer looks at the page's size after so many values: few, since each is a picture.
const PICTURES_PER_CHECK: usize = 4;

/// One immutable Parquet file, in memory until it is put into the lake.
#[derive(Debug, Clone)]
pub struct DataFile {
    /// `<unit>-<first 16 digits of the SHA-256 of its bytes>.parquet`.
    pub name: String,
    /// The file.
    pub bytes: Bytes,
    /// Its number of rows.
    pub rows: usize,
    /// Delta's statistics: rows, and the range of each integer column.
    pub stats: String,
}

impl DataFile {
    /// Writes `batches`, which have the columns of `schema`, as the file of `unit`.
    ///
    /// # Errors
    /// Where Parquet refuses the rows.
    pub fn write(unit: &str, table_schema: &SchemaRef, batches: &[RecordBatch]) -> Result<Self> {
        let fail = |error| Error::lake(unit, "the rows cannot be written as Parquet", error);
        let described = with_features(table_schema);
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
            stats: statistics(table_schema, batches).map_err(|e| fail(e.into()))?,
            bytes: bytes.into(),
        })
    }
}

/// Whether `bytes` are those that `name` was given to; `None` where the name is not one of ours, as
/// after another writer's OPTIMIZE.
pub fn matches_name(name: &str, bytes: &[u8]) -> Option<bool> {
    let digest = name.strip_suffix(".parquet")?.rsplit_once('-')?.1;
    let ours = digest.len() == 16 && digest.bytes().all(|digit| digit.is_ascii_hexdigit());
    ours.then(|| identity::content_digest(bytes).starts_with(digest))
}

fn properties(table_schema: &Schema) -> WriterProperties {
    let has_pictures = table_schema.fields().iter().any(|field| schema::is_image(field.data_type()));
    let zstd = Compression::ZSTD(ZstdLevel::default());
    let mut properties = WriterProperties::builder().set_compression(zstd);
    if has_pictures {
        properties = properties
            .set_max_row_group_row_count(Some(PICTURES_PER_ROW_GROUP))
            .set_max_row_group_bytes(Some(ROW_GROUP_BYTES))
            .set_write_batch_size(PICTURES_PER_CHECK);
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

/// The schema with the metadata by which Hugging Face `datasets` shows the image columns as pictures:
/// the key `huggingface`, of which only the `info` form is decoded.
fn with_features(table_schema: &SchemaRef) -> SchemaRef {
    if !table_schema.fields().iter().any(|field| schema::is_image(field.data_type())) {
        return Arc::clone(table_schema);
    }
    let features: Map<String, Value> =
        table_schema.fields().iter().map(|field| (field.name().clone(), feature(field.data_type()))).collect();
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

fn statistics(table_schema: &Schema, batches: &[RecordBatch]) -> Result<String, arrow::error::ArrowError> {
    let (mut least, mut most, mut nulls) = (Map::new(), Map::new(), Map::new());
    for field in table_schema.fields() {
        let name = field.name();
        let columns: Vec<_> = batches.iter().filter_map(|batch| batch.column_by_name(name)).collect();
        let (low, high) = match field.data_type() {
            DataType::Int64 => range(columns.iter().map(|column| {
                let column = column.as_primitive::<Int64Type>();
                (compute::min(column).map(Value::from), compute::max(column).map(Value::from))
            })),
            // ids are short: nothing is cut off
            DataType::Utf8 if name.ends_with("_id") => range(columns.iter().map(|column| {
                let column = column.as_string::<i32>();
                (compute::min_string(column).map(Value::from), compute::max_string(column).map(Value::from))
            })),
            _ => continue,
        };
        nulls.insert(name.clone(), columns.iter().map(|column| column.null_count()).sum::<usize>().into());
        least.extend(low.map(|low| (name.clone(), low)));
        most.extend(high.map(|high| (name.clone(), high)));
    }
    let rows: usize = batches.iter().map(RecordBatch::num_rows).sum();
    Ok(json!({ "numRecords": rows, "minValues": least, "maxValues": most, "nullCount": nulls }).to_string())
}

/// The least and the greatest of the ranges of batches.
fn range(batches: impl Iterator<Item = (Option<Value>, Option<Value>)>) -> (Option<Value>, Option<Value>) {
    let above = |a: &Value, b: &Value| match (a.as_i64(), b.as_i64()) {
        (Some(a), Some(b)) => a > b,
        _ => a.as_str() > b.as_str(),
    };
    batches.fold((None, None), |(low, high), (least, most)| {
        let low = match (low, least) {
            (Some(a), Some(b)) => Some(if above(&a, &b) { b } else { a }),
            (a, b) => a.or(b),
        };
        let high = match (high, most) {
            (Some(a), Some(b)) => Some(if above(&a, &b) { a } else { b }),
            (a, b) => a.or(b),
        };
        (low, high)
    })
}
