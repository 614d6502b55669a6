//! The probability that the user's classifier gives to each image's class: a Parquet file alongside the source.

use std::{collections::BTreeSet, fs::File, io::Read, path::Path, sync::Arc};

use arrow::{
    array::{AsArray, RecordBatch},
    compute::{cast, concat_batches},
    datatypes::{Field, Float64Type, SchemaRef},
};
use parquet::{
    arrow::{ProjectionMask, arrow_reader::ParquetRecordBatchReaderBuilder},
    errors::ParquetError,
    file::metadata::ParquetMetaData,
};

use super::super::{Source, error::SourceError, parquet_files::check_rows, schema_of};
use crate::{
    error::{
        Result, Warning, contained_now,
        text::{first_few, quote},
    },
    identity::Digest,
    limited_read::{self, HEAD_BYTES, StandIn},
    schema,
};

/// The key that names the file.
const KEY: &str = "`hard_samples.confidences`";

/// The table `confidences`.
#[derive(Debug, Clone)]
pub(crate) struct Confidences {
    /// One row per image: its `path`, as in `images`, and the probability of its class.
    pub(crate) rows: RecordBatch,
    /// A digest of the rows; empty if the pipeline names no file.
    pub(crate) digest: String,
}

impl Confidences {
    /// Checks that the training images outside of the classes `excluded` have a probability. Returns a warning if at most
    /// the share `tolerated` of them has none.
    ///
    /// # Errors
    /// Returns an error if more of them have none.
    pub(crate) fn cover(&self, source: &Source, excluded: &[String], tolerated: f64) -> Result<Option<Warning>> {
        if self.digest.is_empty() {
            return Ok(None);
        }
        let known: BTreeSet<&str> = paths(&self.rows).collect();
        let needed = source.training_images().filter(|(_, class)| !excluded.iter().any(|name| name == class));
        let needed: Vec<&str> = needed.map(|(path, _)| path).collect();
        let missing: Vec<String> =
            needed.iter().filter(|path| !known.contains(*path)).map(|path| quote(path)).collect();
        if missing.is_empty() {
            return Ok(None);
        }
        let message = format!(
            "`hard_samples.confidences` has no probability for {} of {} training images: {}",
            missing.len(),
            needed.len(),
            first_few(&missing)
        );
        if missing.len() as f64 <= tolerated * needed.len() as f64 {
            return Ok(Some(Warning::new(message, "an image without a probability is not hard")));
        }
        let needed: BTreeSet<&str> = needed.into_iter().collect();
        let other = known
            .iter()
            .find(|path| !needed.contains(*path))
            .map_or_else(String::new, |path| format!(", while the file names {}", quote(path)));
        Err(SourceError::NoConfidence { message: message + &other }.into())
    }
}

/// Reads the file. Without one the table is empty.
///
/// # Errors
/// Returns an error if the file cannot be read, is larger than any such table, lacks a column, has a path twice, or a
/// probability that is not from 0 to 1.
pub(crate) fn confidences(path: Option<&Path>) -> Result<Confidences> {
    let table = schema_of(schema::CONFIDENCES)?;
    let Some(path) = path else {
        return Ok(Confidences { rows: RecordBatch::new_empty(table), digest: String::new() });
    };
    let unreadable = |source| SourceError::ReadFile { path: path.to_owned(), key: KEY, source };
    let file = File::open(path).map_err(unreadable)?;
    let bytes = file.metadata().map_err(unreadable)?.len();
    let invalid = |problem| SourceError::InvalidFile { path: path.to_owned(), key: KEY, problem };
    let rows = contained_now(|| read(file, bytes, &table))
        .unwrap_or_else(|panic| Err(format!("it cannot be read: its reader panics: {panic}")));
    let rows = rows.map_err(|problem| match stand_in(path) {
        Some(found) => invalid(found.instead_of_the_file()),
        None => invalid(problem),
    })?;
    let digest = check(&rows).map_err(invalid)?;
    Ok(Confidences { rows, digest })
}

/// Returns what stands in for a file that was never downloaded.
fn stand_in(path: &Path) -> Option<StandIn> {
    let mut head = Vec::new();
    File::open(path).ok()?.take(HEAD_BYTES as u64).read_to_end(&mut head).ok()?;
    StandIn::of(&head)
}

/// Reads the columns of `table`; returns the problem if the file does not have them.
fn read(file: File, bytes: u64, table: &SchemaRef) -> Result<RecordBatch, String> {
    let not_parquet = |error: ParquetError| format!("it is not a Parquet file: {error}");
    let builder = ParquetRecordBatchReaderBuilder::try_new(file).map_err(not_parquet)?;
    check_rows(bytes, builder.metadata()).map_err(|problem| format!("it {problem}"))?;
    let mask =
        ProjectionMask::columns(builder.parquet_schema(), table.fields().iter().map(|field| field.name().as_str()));
    check_bytes(builder.metadata(), &mask)?;
    let mut batches = Vec::new();
    for batch in builder.with_projection(mask).build().map_err(not_parquet)? {
        let batch = batch.map_err(|error| format!("it cannot be read: {error}"))?;
        let column = |field: &Arc<Field>| {
            let found = batch.column_by_name(field.name()).and_then(|column| cast(column, field.data_type()).ok());
            found.ok_or_else(|| format!("it has no column `{}` of type {}", field.name(), field.data_type()))
        };
        let columns = table.fields().iter().map(column).collect::<Result<Vec<_>, _>>()?;
        batches.push(RecordBatch::try_new(Arc::clone(table), columns).map_err(|error| error.to_string())?);
    }
    concat_batches(table, &batches).map_err(|error| error.to_string())
}

/// Rejects columns that claim to take more memory than any table of paths.
fn check_bytes(footer: &ParquetMetaData, mask: &ProjectionMask) -> Result<(), String> {
    let groups = footer.row_groups().iter();
    let columns =
        groups.flat_map(|group| group.columns().iter().enumerate().filter(|(leaf, _)| mask.leaf_included(*leaf)));
    let sizes = columns.map(|(_, column)| u64::try_from(column.uncompressed_size()).unwrap_or(u64::MAX));
    let (size, max) = (sizes.fold(0, u64::saturating_add), limited_read::TABLE);
    if size > max {
        return Err(format!("it claims that its rows take {size} bytes, at most {max} are allowed"));
    }
    Ok(())
}

fn paths(rows: &RecordBatch) -> impl Iterator<Item = &str> {
    let paths = rows.column_by_name("path").and_then(|paths| paths.as_string_opt::<i32>());
    paths.into_iter().flatten().flatten()
}

/// Checks every row, and returns a digest of them.
fn check(rows: &RecordBatch) -> Result<String, String> {
    let (Some(paths), Some(probabilities)) = (rows.column_by_name("path"), rows.column_by_name("probability")) else {
        return Err("it has no columns `path` and `probability`".to_owned());
    };
    let (mut digest, mut seen) = (Digest::new("confidences"), BTreeSet::new());
    for (path, probability) in paths.as_string::<i32>().iter().zip(probabilities.as_primitive::<Float64Type>()) {
        let (Some(path), Some(probability)) = (path, probability) else {
            return Err("a row has no path, or no probability".to_owned());
        };
        if !(0.0..=1.0).contains(&probability) {
            return Err(format!("`{path}` has the probability {probability}, allowed are 0 to 1"));
        }
        if !seen.insert(path) {
            return Err(format!("it has `{path}` twice"));
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
    fn invalid_rows_are_reported() {
        assert_eq!(check(&rows(&["a", "b", "a"], &[0.0, 1.0, 0.5])).unwrap_err(), "it has `a` twice");
        assert_eq!(check(&rows(&["a"], &[1.5])).unwrap_err(), "`a` has the probability 1.5, allowed are 0 to 1");
        assert!(check(&rows(&["a"], &[f64::NAN])).unwrap_err().contains("NaN"));
        let digest = |probability: f64| check(&rows(&["a"], &[probability])).unwrap();
        assert_ne!(digest(0.25), digest(0.5));
    }

    #[test]
    fn a_file_that_cannot_be_read_is_reported_with_its_key() {
        assert_eq!(confidences(None).unwrap().rows.num_rows(), 0);
        let message = confidences(Some(Path::new("no/such.parquet"))).unwrap_err().to_string();
        assert!(message.starts_with("`hard_samples.confidences`: `no/such.parquet` (from `"), "{message}");
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "hello").unwrap();
        assert!(confidences(Some(file.path())).unwrap_err().to_string().contains("it is not a Parquet file"));
        std::fs::write(file.path(), "version https://git-lfs.github.com/spec/v1\noid sha256:12\nsize 3\n").unwrap();
        assert!(confidences(Some(file.path())).unwrap_err().to_string().contains("it is a Git LFS pointer"));
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
    fn a_column_that_is_not_needed_is_not_read() {
        let zeros = "0".repeat(300 << 20);
        let file = written("a", 1, Arc::new(StringArray::from(vec![zeros])));
        assert_eq!(confidences(Some(file.path())).unwrap().rows.num_rows(), 1);
    }

    #[test]
    fn tables_that_inflate_are_rejected_unread() {
        let file = written(&"a".repeat(1 << 20), 257, Arc::new(Float64Array::from(vec![0.0; 257])));
        let message = confidences(Some(file.path())).unwrap_err().to_string();
        assert!(message.contains("it claims that its rows take 2694"), "{message}");
        assert!(message.ends_with("at most 268435456 are allowed"), "{message}");
        let bomb = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/bombs/rows.parquet");
        let message = confidences(Some(&bomb)).unwrap_err().to_string();
        assert!(
            message.ends_with("it claims to have 1000000000 rows in 5902 bytes, at most 1048576 are allowed"),
            "{message}"
        );
    }
}
