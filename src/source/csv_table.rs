//! Tables with a path and a label in each row, in the format of WILDS.

use std::{collections::BTreeMap, sync::Arc};

use super::{
    entry::{Collected, Entry, File, Origin, Problems, relative_path},
    error::{Result, SourceError},
    label::Label,
    object::{MAX_FIELD_BYTES, read_list},
    patterns::hint,
    skips::Reason,
};
use crate::{
    config::{SourceKind, Split},
    error::text::quote,
    storage::Location,
};

/// The key below which tables are, in messages.
const BELOW: &str = "`source.root`";

/// Reads the images of a source of the kind `csv`.
///
/// # Errors
/// Returns an error if a table cannot be read or lacks a column, or a split has no row. Invalid rows are added to the
/// problems of `out`.
pub(super) async fn read(
    location: &Location,
    kind: &SourceKind,
    splits: &[(Split, Vec<String>)],
    out: &mut Collected,
) -> Result<()> {
    let SourceKind::Csv { table, split_column, path_column, path_prefix, label_column } = kind else {
        return Ok(());
    };
    let mut columns = vec![
        Column { name: path_column, key: "`source.path_column`" },
        Column { name: label_column, key: "`source.label_column`" },
    ];
    let prefix = path_prefix.as_str();
    if let (Some(table), Some(split_column)) = (table, split_column) {
        columns.push(Column { name: split_column, key: "`source.split_column`" });
        return read_shared(location, table, &columns, prefix, splits, out).await;
    }
    for (split, table) in splits.iter().flat_map(|(split, names)| names.iter().map(|name| (*split, name))) {
        let bytes = read_list(location, table, "`source.splits`", BELOW).await?;
        read_rows(
            &Arc::from(table.as_str()),
            &bytes,
            &columns,
            &mut out.problems,
            |fields| {
                let [path, label] = fields else { return Ok(None) };
                Ok(Some((split, with_prefix(prefix, path)?, Label::of_text(label)?)))
            },
            &mut out.entries,
        )?;
    }
    Ok(())
}

/// Reads one table that has all splits. Rows of splits that the pipeline does not name are counted.
async fn read_shared(
    location: &Location,
    table: &str,
    columns: &[Column<'_>],
    prefix: &str,
    splits: &[(Split, Vec<String>)],
    out: &mut Collected,
) -> Result<()> {
    let bytes = read_list(location, table, "`source.table`", BELOW).await?;
    let by_value: BTreeMap<&str, Split> =
        splits.iter().flat_map(|(split, values)| values.iter().map(|value| (value.as_str(), *split))).collect();
    let mut counts: BTreeMap<String, u64> = BTreeMap::new();
    let Collected { entries, problems, skips } = out;
    read_rows(
        &Arc::from(table),
        &bytes,
        columns,
        problems,
        |fields| {
            let [path, label, value] = fields else { return Ok(None) };
            if let Some(count) = counts.get_mut(*value) {
                *count += 1_u64;
            } else {
                counts.insert((*value).to_owned(), 1);
            }
            let Some(split) = by_value.get(value) else {
                skips.add(None, Reason::OtherSplit((*value).to_owned()), path);
                return Ok(None);
            };
            Ok(Some((*split, with_prefix(prefix, path)?, Label::of_text(label)?)))
        },
        entries,
    )?;
    let missing: Vec<String> =
        by_value.keys().filter(|value| !counts.contains_key(**value)).map(|value| quote(value)).collect();
    if missing.is_empty() {
        return Ok(());
    }
    let found: Vec<String> =
        counts.iter().take(20).map(|(value, count)| format!("{} ({count})", quote(value))).collect();
    let hint = by_value.keys().find(|value| !counts.contains_key(**value)).map_or("", |value| hint(value, true));
    Err(SourceError::NoSuchSplit { file: table.to_owned(), missing: missing.join(", "), found: found.join(", "), hint })
}

fn with_prefix(prefix: &str, path: &str) -> Result<String, String> {
    let path = format!("{prefix}{path}");
    relative_path(&path).map(str::to_owned)
}

/// Returns whether the table `file` has the column `name`.
///
/// # Errors
/// Returns an error if the file has no header.
pub(super) fn has_column(file: &str, bytes: &[u8], name: &str) -> Result<bool> {
    let mut reader = csv::ReaderBuilder::new().flexible(true).from_reader(bytes);
    let invalid = |source| SourceError::NotCsv { file: file.to_owned(), line: None, source };
    Ok(reader.byte_headers().map_err(invalid)?.iter().any(|header| header == name.as_bytes()))
}

/// A column that is read. `key` says in messages which key of the pipeline names it, or what it holds.
#[derive(Debug, Clone, Copy)]
pub(super) struct Column<'a> {
    pub(super) name: &'a str,
    pub(super) key: &'static str,
}

/// Passes the fields of `columns` to `parse`, row by row, and adds the results to `entries`. Rows for which `parse`
/// returns `None` are skipped.
///
/// # Errors
/// Returns an error if the file has no header or lacks a column. Invalid rows are added to `problems`.
pub(super) fn read_rows(
    file: &Arc<str>,
    bytes: &[u8],
    columns: &[Column<'_>],
    problems: &mut Problems,
    mut parse: impl FnMut(&[&str]) -> Result<Option<(Split, String, Label)>, String>,
    entries: &mut Vec<Entry>,
) -> Result<()> {
    let invalid = |line, source| SourceError::NotCsv { file: file.to_string(), line, source };
    // A row with another number of fields is a problem with a line, not the end of the file.
    let mut reader = csv::ReaderBuilder::new().flexible(true).from_reader(bytes);
    let headers = reader.byte_headers().map_err(|error| invalid(None, error))?.clone();
    let positions = columns.iter().map(|column| position(file, &headers, column)).collect::<Result<Vec<_>>>()?;
    let mut record = csv::ByteRecord::new();
    loop {
        let line = reader.position().line();
        if !reader.read_byte_record(&mut record).map_err(|error| invalid(Some(line), error))? {
            return Ok(());
        }
        let line = record.position().map_or(line, |start| line_of(bytes, start));
        let origin = Origin { file: Arc::clone(file), line: Some(line) };
        match fields(&record, headers.len(), &positions).and_then(|fields| parse(&fields)) {
            Ok(None) => {}
            Ok(Some((split, path, label))) => {
                entries.push(Entry { path, label, split, origin, file: File::NotLookedUp })
            }
            Err(problem) => problems.add(&origin, problem),
        }
    }
}

/// Returns the line of a record. The reader counts from the end of the previous record, without the empty lines between.
fn line_of(bytes: &[u8], start: &csv::Position) -> u64 {
    let rest = usize::try_from(start.byte()).ok().and_then(|start| bytes.get(start..)).unwrap_or_default();
    let blank = rest.iter().take_while(|byte| matches!(byte, b'\r' | b'\n'));
    start.line() + blank.filter(|byte| **byte == b'\n').count() as u64
}

fn position(file: &str, headers: &csv::ByteRecord, column: &Column<'_>) -> Result<usize> {
    let Column { name, key } = *column;
    let (file, column) = (file.to_owned(), name.to_owned());
    let mut positions = headers.iter().enumerate().filter(|(_, header)| *header == name.as_bytes());
    match (positions.next(), positions.next()) {
        (Some((position, _)), None) => Ok(position),
        (Some(_), Some(_)) => Err(SourceError::ColumnTwice { file, column, key }),
        (None, _) => {
            let found: Vec<String> =
                headers.iter().take(50).map(|header| quote(&String::from_utf8_lossy(header))).collect();
            Err(SourceError::NoColumn { file, column, key, found: found.join(", ") })
        }
    }
}

fn fields<'a>(record: &'a csv::ByteRecord, width: usize, positions: &[usize]) -> Result<Vec<&'a str>, String> {
    if let Some(long) = record.iter().map(<[u8]>::len).find(|length| *length > MAX_FIELD_BYTES) {
        return Err(format!("a field has {long} bytes, {MAX_FIELD_BYTES} are allowed; is a quote left open?"));
    }
    if record.len() != width {
        return Err(format!("it has {} fields, the header has {width}", record.len()));
    }
    let field = |position: &usize| {
        str::from_utf8(record.get(*position).unwrap_or_default()).map_err(|_| "it is not valid UTF-8".to_owned())
    };
    positions.iter().map(field).collect()
}
