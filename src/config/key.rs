//! What a key of the pipeline file is, for messages and for the reference page.

/// One key of the pipeline file, as `docs/reference.md` lists it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Key {
    /// The header of its section, such as `[spectrum]` or `[[step]]`; empty at the top level.
    pub header: String,
    /// The kind of data set that has the key, for a key of `[source]` that not every kind has.
    pub source_kind: Option<&'static str>,
    /// Its name in the section. Names that the user chooses are in capitals: `NAME`.
    pub name: &'static str,
    /// Its type and range, such as "an integer from 1 to 1000".
    pub expected: String,
    /// Its value if the file does not set it.
    pub default: DefaultValue,
    /// What it does, in Markdown.
    pub description: String,
    /// The SQL parameter with its value, without the `$`.
    pub parameter: Option<&'static str>,
}

/// The value of a key that the file does not set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DefaultValue {
    /// The file must set it.
    Required,
    /// None: what the key is for does not happen.
    Unset,
    /// This value, as TOML.
    Value(String),
    /// The value of another key.
    SameAs(&'static str),
}

impl Key {
    /// The key with its section, such as `spectrum.timesteps`.
    pub fn path(&self) -> String {
        match self.header.trim_matches(['[', ']']) {
            "" => self.name.to_owned(),
            section => format!("{section}.{}", self.name),
        }
    }
}

/// The position of a field among the declarations, from which its [`Key`] is made.
#[derive(Debug, Clone)]
pub(super) struct Field<'a> {
    /// The header of the section that the field is in.
    pub(super) header: &'a str,
    pub(super) name: &'static str,
    /// The doc comment of the field; its lines begin with a space.
    pub(super) doc: &'static str,
    pub(super) parameter: Option<&'static str>,
}

impl Field<'_> {
    pub(super) fn key(&self, expected: String, default: DefaultValue) -> Key {
        Key {
            header: self.header.to_owned(),
            source_kind: None,
            name: self.name,
            expected,
            default,
            description: self.doc.trim().to_owned(),
            parameter: self.parameter,
        }
    }

    /// The header of the section `name` in the field's section.
    pub(super) fn subsection(&self, name: &str) -> String {
        match self.header.trim_matches(['[', ']']) {
            "" => format!("[{name}]"),
            section => format!("[{section}.{name}]"),
        }
    }
}
