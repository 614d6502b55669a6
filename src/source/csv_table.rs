//! Tables with a path and a label in each row, as WILDS has them.

use std::{collections::BTreeMap, sync::Arc};

use super::{
    entry::{Entry, Label, MAX_FIELD_BYTES, Origin, Problems, quote, relative_path},
    object::list_file,
};
use crate::{
    config::{SourceKind, Split},
    error::{Error, Result},
    storage::Location,
};

/// The images of a source of the kind `csv`.
///
/// # Errors
/// Where a table cannot be read or lacks a column, or a split has no row. What is wrong in rows is added to `problems`.
pub(super) async fn read(
    location: &Location,
    kind: &SourceKind,
    splits: &[(Split, Vec<String>)],
    problems: &mut Problems,
) -> Result<Vec<Entry>> {
    let SourceKind::Csv { table, split_column, path_column, path_prefix, label_column } = kind else {
        return Ok(Vec::new());
    };
    let mut columns = vec![
        Column { name: path_column, what: "`source.path_column`" },
        Column { name: label_column, what: "`source.label_column`" },
    ];
    let prefix = path_prefix.as_str();
    if let (Some(table), Some(split_column)) = (table, split_column) {
        columns.push(Column { name: split_column, what: "`source.split_column`" });
        return of_one(location, table, &columns, prefix, splits, problems).await;
    }
    let mut named = Vec::new();
    for (split, table) in splits.iter().flat_map(|(split, names)| names.iter().map(|name| (*split, name))) {
        let bytes = list_file(location, table, "source.splits", "source.root").await?;
        rows(
            &Arc::from(table.as_str()),
            &bytes,
            &columns,
            problems,
            |_, fields| {
                let [path, label] = fields else { return Ok(None) };
                Ok(Some((split, prefixed(prefix, path)?, Label::of_text(label)?)))
            },
            &mut named,
        )?;
    }
    Ok(named)
}

/// One table for all splits; rows of splits that nobody names are left out.
async fn of_one(
    location: &Location,
    table: &str,
    columns: &[Column<'_>],
    prefix: &str,
    splits: &[(Split, Vec<String>)],
    problems: &mut Problems,
) -> Result<Vec<Entry>> {
    let bytes = list_file(location, table, "source.table", "source.root").await?;
    let of_value: BTreeMap<&str, Split> =
        splits.iter().flat_map(|(split, values)| values.iter().map(|value| (value.as_str(), *split))).collect();
    let (mut named, mut values) = (Vec::new(), BTreeMap::new());
    rows(
        &Arc::from(table),
        &bytes,
        columns,
        problems,
        |_, fields| {
            let [path, label, value] = fields else { return Ok(None) };
            if let Some(count) = values.get_mut(*value) {
                *count += 1_u64;
            } else {
                values.insert((*value).to_owned(), 1);
            }
            let Some(split) = of_value.get(value) else { return Ok(None) };
            Ok(Some((*split, prefixed(prefix, path)?, Label::of_text(label)?)))
        },
        &mut named,
    )?;
    let missing: Vec<String> =
        of_value.keys().filter(|value| !values.contains_key(**value)).map(|v| quote(v)).collect();
    if missing.is_empty() {
        return Ok(named);
    }
    let known: Vec<String> =
        values.iter().take(20).map(|(value, count)| format!("{} ({count})", quote(value))).collect();
    Err(Error::Data(format!(
        "`{table}`: no row has the split {} (`source.splits`); its splits, with their rows, are {}",
        missing.join(", "),
        known.join(", ")
    )))
}

fn prefixed(prefix: &str, path: &str) -> Result<String, String> {
    let path = format!("{prefix}{path}");
    relative_path(&path).map(str::to_owned)
}

/// A column that is read, and for messages the key that names it, or what is in it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Column<'a> {
    pub(super) name: &'a str,
    pub(super) what: &'a str,
}

/// Gives the fields of these columns, row by row, to `of_row`, and adds what it makes of them to `named`.
///
/// # Errors
/// Where the file has no header, or lacks a column. What is wrong in rows is added to `problems`.
pub(super) fn rows(
    file: &Arc<str>,
    bytes: &[u8],
    columns: &[Column<'_>],
    problems: &mut Problems,
    mut of_row: impl FnMut(&Origin, &[&str]) -> Result<Option<(Split, String, Label)>, String>,
    named: &mut Vec<Entry>,
) -> Result<()> {
    // rows of other lengths are reported with their line, and not where the reader ends
    let mut reader = csv::ReaderBuilder::new().flexible(true).from_reader(bytes);
    let headers = reader.byte_headers().cloned();
    let headers = headers.map_err(|error| Error::Data(format!("`{file}` is no CSV: {error}")))?;
    let places = columns.iter().map(|column| place_of(file, &headers, column)).collect::<Result<Vec<_>>>()?;
    let mut record = csv::ByteRecord::new();
    loop {
        let line = reader.position().line();
        let more = reader.read_byte_record(&mut record);
        if !more.map_err(|error| Error::Data(format!("`{file}` is no CSV from line {line} on: {error}")))? {
            return Ok(());
        }
        let line = record.position().map_or(line, |start| line_of(bytes, start));
        let origin = Origin { file: Arc::clone(file), line: Some(line) };
        let fields = fields(&record, headers.len(), &places);
        match fields.and_then(|fields| of_row(&origin, &fields)) {
            Ok(None) => {}
            Ok(Some((split, path, label))) => named.push(Entry { path, label, split, origin, version: None }),
            Err(why) => problems.add(&origin, why),
        }
    }
}

/// The line of a record. The reader counts from the end of the one before, without the empty lines between.
fn line_of(bytes: &[u8], start: &csv::Position) -> u64 {
    let rest = usize::try_from(start.byte()).ok().and_then(|start| bytes.get(start..)).unwrap_or_default();
    let blank = rest.iter().take_while(|byte| matches!(byte, b'\r' | b'\n'));
    start.line() + blank.filter(|byte| **byte == b'\n').count() as u64
}

fn place_of(file: &str, headers: &csv::ByteRecord, column: &Column<'_>) -> Result<usize> {
    let Column { name, what } = column;
    let mut places = headers.iter().enumerate().filter(|(_, header)| *header == name.as_bytes());
    match (places.next(), places.next()) {
        (Some((place, _)), None) => Ok(place),
        (Some(_), Some(_)) => Err(Error::Data(format!("`{file}` has the column `{name}` ({what}) twice"))),
        (None, _) => {
            let found: Vec<String> =
                headers.iter().take(50).map(|header| quote(&String::from_utf8_lossy(header))).collect();
            let found = found.join(", ");
            Err(Error::Data(format!("`{file}` has no column `{name}` ({what}); its columns are {found}")))
        }
    }
}

fn fields<'a>(record: &'a csv::ByteRecord, width: usize, places: &[usize]) -> Result<Vec<&'a str>, String> {
    if let Some(long) = record.iter().map(<[u8]>::len).find(|length| *length > MAX_FIELD_BYTES) {
        return Err(format!("a field has {long} bytes, {MAX_FIELD_BYTES} are allowed; is a quote left open?"));
    }
    if record.len() != width {
        return Err(format!("it has {} fields, the header has {width}", record.len()));
    }
    let field =
        |place: &usize| str::from_utf8(record.get(*place).unwrap_or_default()).map_err(|_| "it is no UTF-8".to_owned());
    places.iter().map(field).collect()
}
