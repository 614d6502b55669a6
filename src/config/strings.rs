//! What a string may look like.

use super::ModelLocation;

/// A rule for a string, and how messages put it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Rule {
    /// One such string, for "expected …".
    pub(super) expected: &'static str,
    /// Such strings, for "allowed are …".
    pub(super) allowed: &'static str,
    /// Whether a string is one.
    pub(super) holds: fn(&str) -> bool,
}

/// Longest name of a pipeline, table, step or parameter, in bytes.
const MAX_NAME_BYTES: usize = 64;

/// Schemes of the URLs at which tables and data sets may be.
const SCHEMES: [&str; 5] = ["file", "s3", "gs", "az", "memory"];

/// A pipeline's name, which becomes a folder.
pub(super) const NAME: Rule = Rule {
    expected: "a string of 1 to 64 characters out of `a-z`, `0-9`, `_` and `-`",
    allowed: "1 to 64 characters out of `a-z`, `0-9`, `_` and `-`",
    holds: is_name,
};

/// A word that may stand unquoted in SQL.
pub(super) const IDENTIFIER: Rule = Rule {
    expected: "a string that is an identifier such as `few_shot`",
    allowed: "identifiers: a letter `a-z`, then up to 63 of `a-z`, `0-9` and `_`",
    holds: is_identifier,
};

/// Text for a prompt, which may be empty.
pub(super) const LINE: Rule = Rule {
    expected: "a string",
    allowed: "strings without control characters",
    holds: |text| !text.contains(char::is_control),
};

/// Text for a name in a report, or a column.
pub(super) const FILLED_LINE: Rule = Rule {
    expected: "a string that is not empty",
    allowed: "strings that are not empty, without control characters",
    holds: is_filled_line,
};

/// The text of a query, which may have several lines.
pub(super) const QUERY: Rule = Rule {
    expected: "a string with an SQL query",
    allowed: "SQL queries that are not empty, without control characters",
    holds: |text| {
        let control = |c: char| c.is_control() && !matches!(c, '\n' | '\r' | '\t');
        !text.trim().is_empty() && !text.contains(control)
    },
};

/// A directory or a URL.
pub(super) const LOCATION: Rule = Rule {
    expected: "a string with a directory or a URL",
    allowed: "directories, and URLs with `file://`, `s3://`, `gs://`, `az://` or `memory://`",
    holds: is_location,
};

/// A file or directory of this machine.
pub(super) const PATH: Rule = Rule {
    expected: "a string with a path",
    allowed: "paths on this machine that are not empty",
    holds: |text| is_filled_line(text) && !text.contains("://"),
};

/// The directory or URL of a model.
pub(super) const MODEL: Rule = Rule {
    expected: "a string with a directory or a URL",
    allowed: ModelLocation::ALLOWED,
    holds: |text| ModelLocation::parse(text).is_some(),
};

/// A path inside a data set.
pub(super) const RELATIVE_PATH: Rule = Rule {
    expected: "a string with a path relative to `source.root`",
    allowed: "paths relative to `source.root`, without empty, `.` or `..` parts",
    holds: is_relative,
};

/// A list of a data set.
pub(super) const LIST_PATH: Rule = Rule {
    expected: "a string with a path relative to `source.lists`, else to `source.root`",
    allowed: "paths relative to `source.lists`, else to `source.root`, without empty, `.` or `..` parts",
    holds: is_relative,
};

/// A file in `sql/`, or in the folder that replaces it.
pub(super) const SQL_PATH: Rule = Rule {
    expected: "a string with a relative path ending in `.sql`",
    allowed: "relative paths ending in `.sql`, without empty, `.` or `..` parts",
    holds: |text| {
        let stem = text.strip_suffix(".sql").unwrap_or_default();
        is_relative(text) && !stem.is_empty() && !stem.ends_with('/')
    },
};

/// An edit of a pipeline.
pub(super) const EDIT: Rule = Rule {
    expected: "a string such as `source.root=data/other`",
    allowed: "edits of the form `section.key=value`, without control characters",
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
    // A backslash parts folders on some machines, and a colon a drive or a scheme.
    is_filled_line(text) && !text.contains(['\\', ':']) && text.split('/').all(|part| !matches!(part, "" | "." | ".."))
}
