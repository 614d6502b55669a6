//! Rules for strings.

use super::ModelLocation;

/// A rule for a string, and how messages put it.
#[derive(Debug, Clone, Copy)]
pub(super) struct StringRule {
    /// Such a string with an article, for "expected ...".
    pub(super) expected: &'static str,
    pub(super) holds: fn(&str) -> bool,
}

/// Longest name of a pipeline, table or parameter, in bytes.
const MAX_NAME_BYTES: usize = 64;

/// Schemes of the URLs at which lakes and data sets may be.
const SCHEMES: [&str; 5] = ["file", "s3", "gs", "az", "memory"];

/// A pipeline's name, which becomes a folder.
pub(super) const NAME: StringRule =
    StringRule { expected: "a string of 1 to 64 characters from `a-z`, `0-9`, `_` and `-`", holds: is_name };

/// A word that may stand unquoted in SQL.
pub(super) const IDENTIFIER: StringRule = StringRule {
    expected: "an identifier (a letter `a-z`, then up to 63 of `a-z`, `0-9` and `_`)",
    holds: is_identifier,
};

/// A line of text, which may be empty.
pub(super) const LINE: StringRule =
    StringRule { expected: "a string without control characters", holds: |text| !text.contains(char::is_control) };

/// A name in a report, or of a column.
pub(super) const FILLED_LINE: StringRule =
    StringRule { expected: "a non-empty string without control characters", holds: is_filled_line };

/// An SQL query, which may have several lines.
pub(super) const QUERY: StringRule = StringRule {
    expected: "an SQL query (a non-empty string without control characters)",
    holds: |text| {
        let control = |c: char| c.is_control() && !matches!(c, '\n' | '\r' | '\t');
        !text.trim().is_empty() && !text.contains(control)
    },
};

/// A directory or a URL.
pub(super) const LOCATION: StringRule = StringRule {
    expected: "a directory, or a URL with `file://`, `s3://`, `gs://`, `az://` or `memory://`",
    holds: is_location,
};

/// A file or directory on this machine.
pub(super) const PATH: StringRule =
    StringRule { expected: "a path on this machine", holds: |text| is_filled_line(text) && !text.contains("://") };

/// The directory or URL of a model.
pub(super) const MODEL: StringRule =
    StringRule { expected: ModelLocation::EXPECTED, holds: |text| ModelLocation::parse(text).is_some() };

/// A path inside a data set.
pub(super) const RELATIVE_PATH: StringRule =
    StringRule { expected: "a path relative to `source.root`, without empty, `.` or `..` parts", holds: is_relative };

/// A folder inside a data set.
pub(super) const FOLDER_PATH: StringRule = StringRule {
    expected: "a path relative to `source.root` (`.` for the root itself), without empty, `.` or `..` parts",
    holds: |text| text == "." || is_relative(text),
};

/// A list of a data set.
pub(super) const LIST_PATH: StringRule = StringRule {
    expected: "a path relative to `source.lists` (or `source.root` if that is not set), without empty, `.` or `..` parts",
    holds: is_relative,
};

/// A file in `sql/`, or in the folder that replaces it.
pub(super) const SQL_PATH: StringRule = StringRule {
    expected: "a relative path that ends in `.sql`, without empty, `.` or `..` parts",
    holds: |text| {
        let stem = text.strip_suffix(".sql").unwrap_or_default();
        is_relative(text) && !stem.is_empty() && !stem.ends_with('/')
    },
};

/// A color, as in CSS.
pub(super) const COLOR: StringRule =
    StringRule { expected: "a color of the form `#rrggbb`, in hexadecimal digits", holds: |text| rgb(text).is_some() };

/// An edit of a pipeline.
pub(super) const EDIT: StringRule = StringRule {
    expected: "an edit of the form `section.key=value`, without control characters",
    holds: |text| is_filled_line(text) && text.contains('='),
};

fn is_name(text: &str) -> bool {
    let allowed = |b: u8| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'_' | b'-');
    !text.is_empty() && text.len() <= MAX_NAME_BYTES && text.bytes().all(allowed)
}

fn is_identifier(text: &str) -> bool {
    let allowed = |b: u8| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'_');
    text.starts_with(|c: char| c.is_ascii_lowercase()) && text.len() <= MAX_NAME_BYTES && text.bytes().all(allowed)
}

fn is_filled_line(text: &str) -> bool {
    !text.trim().is_empty() && !text.contains(char::is_control)
}

fn is_location(text: &str) -> bool {
    match text.split_once("://") {
        Some((scheme, _)) => is_filled_line(text) && SCHEMES.contains(&scheme),
        None => is_filled_line(text),
    }
}

fn is_relative(text: &str) -> bool {
    // A backslash separates folders on some machines, and a colon ends a drive or a scheme.
    is_filled_line(text) && !text.contains(['\\', ':']) && text.split('/').all(|part| !matches!(part, "" | "." | ".."))
}

/// Returns the red, green and blue of a [`COLOR`].
pub(super) fn rgb(color: &str) -> Option<[u8; 3]> {
    let digits = color.strip_prefix('#').filter(|digits| digits.len() == 6)?;
    let channel = |at: usize| {
        let digits = digits.get(at..at + 2)?;
        digits.bytes().all(|digit| digit.is_ascii_hexdigit()).then(|| u8::from_str_radix(digits, 16).ok())?
    };
    Some([channel(0)?, channel(2)?, channel(4)?])
}
