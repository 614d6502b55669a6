//! A TOML document as a plain tree in which every key and value has its place.
//!
//! The `toml` crate reports byte spans and borrows from the text. Here spans become lines, and
//! values of `--set` are in the same tree as those of the file.

use toml::de::{DeTable, DeValue};

use crate::error::{
    diagnostics::{Diagnostics, Place},
    text,
};

/// Deepest nesting of sections and lists; no key needs more than 3.
const MAX_DEPTH: usize = 16;

/// A value and its place.
#[derive(Debug, Clone)]
pub(super) struct Node {
    pub(super) value: Value,
    pub(super) place: Place,
}

/// A TOML value.
#[derive(Debug, Clone)]
pub(super) enum Value {
    String(String),
    Integer(i64),
    /// An integer beyond 64 bits, as it was written.
    HugeInteger(String),
    Float(f64),
    Boolean(bool),
    DateTime(String),
    List(Vec<Node>),
    Table(Table),
}

impl Value {
    /// Returns the value as a message repeats it.
    pub(super) fn describe(&self) -> String {
        match self {
            Self::String(value) => text::quote(value),
            Self::Integer(value) => value.to_string(),
            Self::HugeInteger(written) => text::shorten(written),
            Self::Float(value) => format!("{value:?}"),
            Self::Boolean(value) => value.to_string(),
            Self::DateTime(written) => format!("the date or time {written}"),
            Self::List(_) => "a list".to_owned(),
            Self::Table(_) => "a section".to_owned(),
        }
    }

    /// Returns the section that the value is.
    pub(super) fn as_table(&self) -> Option<&Table> {
        match self {
            Self::Table(table) => Some(table),
            _ => None,
        }
    }
}

/// A key, the place of the key, and its value.
#[derive(Debug, Clone)]
pub(super) struct Entry {
    pub(super) key: String,
    pub(super) place: Place,
    pub(super) node: Node,
}

/// A section: its entries in the order of the file.
#[derive(Debug, Clone, Default)]
pub(super) struct Table {
    pub(super) entries: Vec<Entry>,
}

impl Table {
    /// Returns the entry with this key.
    pub(super) fn get(&self, key: &str) -> Option<&Entry> {
        self.entries.iter().find(|entry| entry.key == key)
    }

    /// Returns the entry with this key, after inserting `new` if there is none.
    pub(super) fn entry_or_insert(&mut self, key: &str, new: Node) -> Option<&mut Entry> {
        let at = self.entries.iter().position(|entry| entry.key == key);
        let at = at.unwrap_or_else(|| {
            self.entries.push(Entry { key: key.to_owned(), place: new.place, node: new });
            self.entries.len() - 1
        });
        self.entries.get_mut(at)
    }
}

/// Parses a whole file.
///
/// # Errors
/// Returns one diagnostic with the first place where the text is not TOML.
pub(super) fn parse(source: &str, origin: &str) -> Result<Table, Diagnostics> {
    let lines = Lines::new(source);
    let refuse = |line, message| Diagnostics::whole_file(origin, line, message);
    let document = DeTable::parse(source).map_err(|error| {
        let line = error.span().map(|span| lines.line(span.start));
        refuse(line, syntax_message(source, &error))
    })?;
    let place = |offset| Place::Line(lines.line(offset));
    convert_table(document.get_ref(), &place, MAX_DEPTH).map_err(|TooDeep(place)| {
        let line = match place {
            Place::Line(line) => Some(line),
            Place::Edit(_) => None,
        };
        refuse(line, TooDeep::MESSAGE.to_owned())
    })
}

/// Parses one value, such as the right side of a `--set`; all of it gets `place`.
///
/// # Errors
/// Returns the message of the TOML parser.
pub(super) fn parse_value(source: &str, place: Place) -> Result<Node, String> {
    let parsed = DeValue::parse(source).map_err(|error| error.message().to_owned())?;
    convert(parsed.get_ref(), place, &|_| place, MAX_DEPTH).map_err(|TooDeep(_)| TooDeep::MESSAGE.to_owned())
}

/// Returns the parser's message, with the piece of text that it is about.
fn syntax_message(source: &str, error: &toml::de::Error) -> String {
    let piece = error.span().and_then(|span| source.get(span)).unwrap_or_default().trim();
    // The parser's own limit is deeper than ours, and its message is for programmers.
    if error.message().contains("recurs") {
        return TooDeep::MESSAGE.to_owned();
    }
    let message = text::escape(error.message());
    match piece.is_empty() || piece.contains('\n') {
        true => format!("not valid TOML: {message}"),
        false => format!("not valid TOML: {message}, at `{}`", text::shorten(piece)),
    }
}

/// Offsets of line ends, to find lines by bisection.
struct Lines {
    ends: Vec<usize>,
}

impl Lines {
    fn new(source: &str) -> Self {
        Self { ends: source.match_indices('\n').map(|(offset, _)| offset).collect() }
    }

    /// Returns the line of a byte offset, counted from 1.
    fn line(&self, offset: usize) -> usize {
        1 + self.ends.partition_point(|end| *end < offset)
    }
}

/// The place where the nesting exceeds [`MAX_DEPTH`].
struct TooDeep(Place);

impl TooDeep {
    const MESSAGE: &str = "sections and lists are nested too deeply; no key needs more than 3 levels";
}

fn convert_table(table: &DeTable<'_>, place: &dyn Fn(usize) -> Place, depth: usize) -> Result<Table, TooDeep> {
    let mut entries = Vec::with_capacity(table.len());
    for (key, value) in table {
        let at = place(key.span().start);
        let node = convert(value.get_ref(), place(value.span().start), place, depth)?;
        entries.push(Entry { key: key.get_ref().to_string(), place: at, node });
    }
    Ok(Table { entries })
}

fn convert(value: &DeValue<'_>, at: Place, place: &dyn Fn(usize) -> Place, depth: usize) -> Result<Node, TooDeep> {
    let deeper = depth.checked_sub(1).ok_or(TooDeep(at))?;
    let value = match value {
        DeValue::String(value) => Value::String(value.to_string()),
        DeValue::Integer(value) => match i64::from_str_radix(value.as_str(), value.radix()) {
            Ok(value) => Value::Integer(value),
            Err(_) => Value::HugeInteger(value.to_string()),
        },
        // TOML floats are Rust floats once the parser has removed the underscores.
        DeValue::Float(value) => Value::Float(value.as_str().parse().unwrap_or(f64::NAN)),
        DeValue::Boolean(value) => Value::Boolean(*value),
        DeValue::Datetime(value) => Value::DateTime(value.to_string()),
        DeValue::Array(values) => {
            let convert = |v: &toml::Spanned<DeValue<'_>>| convert(v.get_ref(), place(v.span().start), place, deeper);
            Value::List(values.iter().map(convert).collect::<Result<_, _>>()?)
        }
        DeValue::Table(table) => Value::Table(convert_table(table, place, deeper)?),
    };
    Ok(Node { value, place: at })
}
