//! How probable a classifier of the user's finds each image's class: a Parquet file, given beside the source.

use std::{collections::BTreeSet, fs::File, path::Path, sync::Arc};

use arrow::{
    array::{AsArray, RecordBatch},
    compute::{cast, concat_batches},
    datatypes::{Field, Float64Type},
};
use parquet::{
    arrow::{ProjectionMask, arrow_reader::ParquetRecordBatchReaderBuilder},
    errors::ParquetError,
    file::metadata::ParquetMetaData,
};

use super::super::parquet_files::check_rows;
use crate::{
    error::{Error, Result},
    identity::Digest,
    limited_read, schema,
};

/// The table `confidences`, and a digest of it.
#[derive(Debug, Clone)]
pub struct Confidences {
    /// One row for an image: its `path`, as in `images`, and the probability of its class.
    pub rows: RecordBatch,
    /// Names them.
    pub digest: String,
}

/// Reads the file; without one the table is empty.
///
/// # Errors
/// Where it is unreadable, larger than any such table, lacks a column, has a path twice, or a probability that is not
/// from 0 to 1.
pub fn confidences(path: Option<&Path>) -> Result<Confidences> {
    let table = schema::find(schema::CONFIDENCES).map(|table| Arc::clone(&table.schema));
    let table = table.ok_or_else(|| Error::Data("no schema of `confidences`".into()))?;
    let Some(path) = path else {
        return Ok(Confidences { rows: RecordBatch::new_empty(table), digest: String::new() });
    };
    let wrong = |message: String| Error::Data(format!("`{}` (`hard_samples.confidences`): {message}", path.display()));
    let no_parquet = |error: ParquetError| wrong(format!("it is no Parquet file: {error}"));
    let file = File::open(path).map_err(|error| wrong(format!("it cannot be read: {error}")))?;
    let bytes = file.metadata().map_err(|error| wrong(format!("it cannot be read: {error}")))?.len();
    let builder = ParquetRecordBatchReaderBuilder::try_new(file).map_err(no_parquet)?;
    check_rows(bytes, builder.metadata()).map_err(|said| wrong(format!("it {said}")))?;
    let mask =
        ProjectionMask::columns(builder.parquet_schema(), table.fields().iter().map(|field| field.name().as_str()));
    check_bytes(builder.metadata(), &mask).map_err(wrong)?;
    let reader = builder.with_projection(mask).build().map_err(no_parquet)?;
    let mut batches = Vec::new();
    for batch in reader {
        let batch = batch.map_err(|error| wrong(format!("it cannot be read: {error}")))?;
        let column = |field: &Arc<Field>| {
            let found = batch.column_by_name(field.name()).and_then(|column| cast(column, field.data_type()).ok());
            found.ok_or_else(|| wrong(format!("it has no column `{}` of {}s", field.name(), field.data_type())))
        };
        let columns = table.fields().iter().map(column).collect::<Result<Vec<_>>>()?;
        batches.push(RecordBatch::try_new(Arc::clone(&table), columns).map_err(|error| wrong(error.to_string()))?);
    }
    let rows = concat_batches(&table, &batches).map_err(|error| wrong(error.to_string()))?;
    let digest = check(&rows).map_err(wrong)?;
    Ok(Confidences { rows, digest })
}

/// Refuses columns that say they take more memory than any table of paths.
fn check_bytes(footer: &ParquetMetaData, mask: &ProjectionMask) -> Result<(), String> {
    let groups = footer.row_groups().iter();
    let columns =
        groups.flat_map(|group| group.columns().iter().enumerate().filter(|(leaf, _)| mask.leaf_included(*leaf)));
    let takes = columns.map(|(_, column)| u64::try_from(column.uncompressed_size()).unwrap_or(u64::MAX));
    let (takes, most) = (takes.fold(0, u64::saturating_add), limited_read::TABLE);
    if takes > most {
        return Err(format!("it says that its rows take {takes} bytes, {most} are allowed"));
    }
    Ok(())
}

/// A digest of the rows, or what is wrong with them.
fn check(rows: &RecordBatch) -> Result<String, String> {
    let (Some(paths), Some(probabilities)) = (rows.column_by_name("path"), rows.column_by_name("probability")) else {
        return Err("it has not its columns".to_owned());
    };
    let (mut digest, mut seen) = (Digest::new("confidences"), BTreeSet::new());
    for (path, probability) in paths.as_string::<i32>().iter().zip(probabilities.as_primitive::<Float64Type>()) {
        let (Some(path), Some(probability)) = (path, probability) else {
            return Err("a row has no path, or no probability".to_owned());
        };
        if !(0.0..=1.0).contains(&probability) {
            return Err(format!("`{path}` has the probability {probability}, allowed is 0 to 1"));
        }
        if !seen.insert(path) {
            return Err(format!("`{path}` is there twice"));
        }
        digest = digest.text(path).part(&probability.to_le_bytes());
    }
    Ok(digest.id())
}

#[cfg(test)]
mod tests {
    use arrow::array::{ArrayRef, Float64Array, StringArray};
    use parquet::{arrow::ArrowWriter, basic::Compression, file::properties::WriterProperties};

    use super::*;

    fn rows(paths: &[&str], probabilities: &[f64]) -> RecordBatch {
        let table = Arc::clone(&schema::find(schema::CONFIDENCES).unwrap().schema);
        let paths: ArrayRef = Arc::new(StringArray::from(paths.to_vec()));
        RecordBatch::try_new(table, vec![paths, Arc::new(Float64Array::from(probabilities.to_vec()))]).unwrap()
    }

    #[test]
    fn what_is_wrong_is_named() {
        assert_eq!(check(&rows(&["a", "b", "a"], &[0.0, 1.0, 0.5])).unwrap_err(), "`a` is there twice");
        assert_eq!(check(&rows(&["a"], &[1.5])).unwrap_err(), "`a` has the probability 1.5, allowed is 0 to 1");
        assert!(check(&rows(&["a"], &[f64::NAN])).unwrap_err().contains("NaN"));
        let digest = |probability: f64| check(&rows(&["a"], &[probability])).unwrap();
        assert_ne!(digest(0.25), digest(0.5));
    }

    #[test]
    fn a_file_that_is_none_is_named_with_its_key() {
        assert_eq!(confidences(None).unwrap().rows.num_rows(), 0);
        let said = confidences(Some(Path::new("no/such.parquet"))).unwrap_err().to_string();
        assert!(said.starts_with("`no/such.parquet` (`hard_samples.confidences`): it cannot be read"), "{said}");
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "hello").unwrap();
        assert!(confidences(Some(file.path())).unwrap_err().to_string().contains("it is no Parquet file"));
    }

    fn written(path: &str, rows: usize, more: ArrayRef) -> tempfile::NamedTempFile {
        let paths: ArrayRef = Arc::new(StringArray::from(vec![path; rows]));
        let probabilities: ArrayRef = Arc::new(Float64Array::from(vec![0.5; rows]));
        let columns = [("path", paths), ("probability", probabilities), ("more", more)];
        let batch = RecordBatch::try_from_iter(columns).unwrap();
        let file = tempfile::NamedTempFile::new().unwrap();
        let compressed = WriterProperties::builder().set_compression(Compression::SNAPPY).set_dictionary_enabled(false);
        let mut writer =
            ArrowWriter::try_new(file.reopen().unwrap(), batch.schema(), Some(compressed.build())).unwrap();
        writer.write(&batch).unwrap();
        writer.close().unwrap();
        file
    }

    #[test]
    fn a_column_that_is_not_asked_for_is_not_read() {
        let zeros = "0".repeat(300 << 20);
        let file = written("a", 1, Arc::new(StringArray::from(vec![zeros])));
        assert_eq!(confidences(Some(file.path())).unwrap().rows.num_rows(), 1);
    }

    #[test]
    fn tables_that_inflate_are_refused_unread() {
        let file = written(&"a".repeat(1 << 20), 257, Arc::new(Float64Array::from(vec![0.0; 257])));
        let said = confidences(Some(file.path())).unwrap_err().to_string();
        assert!(said.contains("it says that its rows take 2694"), "{said}");
        assert!(said.ends_with("268435456 are allowed"), "{said}");
        let bomb = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/bombs/rows.parquet");
        let said = confidences(Some(&bomb)).unwrap_err().to_string();
        assert!(said.ends_with("it says that it has 1000000000 rows in 5902 bytes, 1048576 are allowed"), "{said}");
    }
}
