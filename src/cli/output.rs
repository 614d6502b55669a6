//! What is printed, and how: tables or JSON on stdout, errors on stderr.
//!
//! A reader that has closed the pipe wants nothing more, which is not an error. Any other failure of stdout ends the
//! output, and [`check_stdout`] reports it when the command ends. Failures of stderr are ignored: nothing is left to report them to.

use std::{
    io::{self, ErrorKind, Write},
    sync::OnceLock,
};

use clap::ValueEnum;
use comfy_table::{Cell, CellAlignment, ContentArrangement, Table, presets};
use serde_json::json;

use super::CliError;
use crate::{
    error::{self, Error, Warning},
    report::TextTable,
};

/// Why stdout stopped taking output. Nothing is written to it afterwards: output with a gap looks complete.
static STDOUT_FAILED: OnceLock<io::Error> = OnceLock::new();

/// How results are printed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub(super) enum Format {
    #[default]
    Text,
    Json,
}

/// Writes `text` and a newline to stdout.
pub(super) fn line(text: impl AsRef<str>) {
    if STDOUT_FAILED.get().is_some() {
        return;
    }
    let mut stdout = io::stdout().lock();
    if let Err(error) = writeln!(stdout, "{}", text.as_ref()).and_then(|()| stdout.flush())
        && error.kind() != ErrorKind::BrokenPipe
    {
        let _ = STDOUT_FAILED.set(error);
    }
}

/// Checks that stdout has taken all output, as far as its reader wanted it.
///
/// # Errors
/// Returns [`CliError::Stdout`] if it has not.
pub(super) fn check_stdout() -> Result<(), CliError> {
    STDOUT_FAILED.get().map_or(Ok(()), |error| Err(CliError::Stdout(error.to_string())))
}

/// Writes `value` as JSON to stdout.
pub(super) fn json(value: &impl serde::Serialize) {
    line(serde_json::to_string_pretty(value).unwrap_or_else(|error| format!("{{\"error\":\"{error}\"}}")));
}

/// Writes `text` and a newline to stderr.
pub(super) fn note(text: impl AsRef<str>) {
    let mut stderr = io::stderr().lock();
    let _ = writeln!(stderr, "{}", text.as_ref());
}

/// Writes `error` and its causes to stderr, or to stdout if the format is JSON and stdout can be written.
pub(super) fn error(error: &Error, format: Format) {
    if format == Format::Json {
        let problems = match error {
            Error::Config(diagnostics) => json!(diagnostics),
            Error::Multiple(errors) => errors.iter().map(|error| json!({ "message": error::chain(error) })).collect(),
            error => json!([{ "message": error::chain(error) }]),
        };
        json(&json!({ "errors": problems }));
        if check_stdout().is_ok() {
            return;
        }
    }
    note(format!("error: {}", error::chain(error)));
}

/// Writes warnings to stderr.
pub(super) fn warnings(warnings: &[Warning]) {
    for Warning { message, hint } in warnings {
        let hint = hint.as_ref().map_or_else(String::new, |hint| format!("\nhint: {hint}"));
        note(format!("warning: {message}{hint}"));
    }
}

/// Writes a table to stdout, without borders and with numbers on the right.
pub(super) fn table(header: &[&str], rows: &[Vec<String>]) {
    line(aligned(header, rows));
}

/// Returns a table without borders and with numbers on the right.
pub(super) fn aligned(header: &[&str], rows: &[Vec<String>]) -> String {
    let is_number = |cell: &str| cell.chars().all(|c| c.is_ascii_digit() || ".,-–?".contains(c));
    let columns = 0..header.len();
    let numeric: Vec<bool> =
        columns.map(|column| rows.iter().filter_map(|row| row.get(column)).all(|cell| is_number(cell))).collect();
    let cells = |texts: &mut dyn Iterator<Item = &str>| -> Vec<Cell> {
        let cell = |(text, numeric): (&str, &bool)| {
            Cell::new(text).set_alignment(if *numeric { CellAlignment::Right } else { CellAlignment::Left })
        };
        texts.zip(&numeric).map(cell).collect()
    };
    let mut table = Table::new();
    table.load_preset(presets::NOTHING).set_content_arrangement(ContentArrangement::Disabled);
    table.set_header(cells(&mut header.iter().copied()));
    for row in rows {
        table.add_row(cells(&mut row.iter().map(String::as_str)));
    }
    for column in table.column_iter_mut() {
        column.set_padding((0, 2));
    }
    table.trim_fmt()
}

/// Writes tables to stdout, with an empty line between them.
pub(super) fn tables(tables: &[TextTable]) {
    let texts =
        tables.iter().map(|table| aligned(&table.header.iter().map(String::as_str).collect::<Vec<_>>(), &table.rows));
    line(texts.collect::<Vec<_>>().join("\n\n"));
}

/// `count` things, such as `1 file` or `2 files`.
pub(super) fn count(count: usize, thing: &str) -> String {
    format!("{count} {thing}{}", if count == 1 { "" } else { "s" })
}

/// A duration in the unit that fits, such as `12 min`.
pub(super) fn duration(seconds: f64) -> String {
    match seconds {
        ..60.0 => format!("{seconds:.0} s"),
        ..3600.0 => format!("{:.0} min", seconds / 60.0),
        _ => format!("{:.1} h", seconds / 3600.0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_have_numbers_on_the_right_and_no_borders() {
        let rows = [["kept", "7", "–"], ["hårda", "120", "complete"]].map(|row| row.map(str::to_owned).to_vec());
        insta::assert_snapshot!(aligned(&["table", "rows", "state"], &rows), @r"
        table  rows  state
        kept      7  –
        hårda   120  complete
        ");
        insta::assert_snapshot!(aligned(&["table", "rows"], &[]), @"table  rows");
    }

    #[test]
    fn durations_have_the_unit_that_fits() {
        let shown = [0.0, 59.4, 60.0, 700.0, 3600.0, 115_200.0].map(duration);
        assert_eq!(shown, ["0 s", "59 s", "1 min", "12 min", "1.0 h", "32.0 h"]);
    }
}
