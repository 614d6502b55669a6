//! What is printed, and how: tables or JSON on stdout, errors on stderr. A reader that closed the pipe is
//! no error.

use std::io::Write;

use serde_json::json;

use super::Format;
use crate::error::{self, Error};

/// Writes `text` and a newline to stdout.
pub(super) fn line(text: impl AsRef<str>) {
    let mut stdout = std::io::stdout().lock();
    let _ = writeln!(stdout, "{}", text.as_ref());
}

/// Writes `value` as JSON to stdout.
pub(super) fn json(value: &impl serde::Serialize) {
    line(serde_json::to_string_pretty(value).unwrap_or_else(|error| format!("{{\"error\":\"{error}\"}}")));
}

/// Writes `text` and a newline to stderr.
pub(super) fn note(text: impl AsRef<str>) {
    let mut stderr = std::io::stderr().lock();
    let _ = writeln!(stderr, "{}", text.as_ref());
}

/// Writes `error` with its causes to stderr; as JSON to stdout where that was asked for.
pub(super) fn error(error: &Error, format: Format) {
    match format {
        Format::Text => note(format!("error: {}", error::chain(error))),
        Format::Json => {
            let problems = match error {
                Error::Config(diagnostics) => json!(diagnostics),
                Error::Several(errors) => {
                    errors.iter().map(|error| json!({ "message": error::chain(error) })).collect()
                }
                error => json!([{ "message": error::chain(error) }]),
            };
            json(&json!({ "errors": problems }));
        }
    }
}

/// A plain table: columns as wide as their widest cell, numbers to the right.
pub(super) fn table(header: &[&str], rows: &[Vec<String>]) {
    let width = |column: usize| {
        let cells = rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count());
        cells.chain(header.get(column).map(|cell| cell.len())).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..header.len()).map(width).collect();
    let numeric = |cell: &str| cell.chars().all(|c| c.is_ascii_digit() || ".-–".contains(c));
    let print = |cells: &mut dyn Iterator<Item = &str>| {
        let padded: Vec<_> = cells
            .zip(&widths)
            .map(|(cell, &width)| if numeric(cell) { format!("{cell:>width$}") } else { format!("{cell:width$}") })
            .collect();
        line(padded.join("  ").trim_end());
    };
    print(&mut header.iter().copied());
    for row in rows {
        print(&mut row.iter().map(String::as_str));
    }
}
