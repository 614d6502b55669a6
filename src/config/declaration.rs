//! Declarations of keys: each key of the pipeline file is declared once, and all else follows from that.
//!
//! [`section!`] takes a section as a list of keys, each with its description, type, range, default and SQL parameter:
//!
//! ```text
//! /// Denoising timesteps of a full schedule.
//! timesteps: i64 = or(integer(1..=1000, ""), 50), sql "timesteps";
//! ```
//!
//! It makes the struct with its typed fields, the reading with every diagnostic, the SQL parameters with their values,
//! and the list of [`Key`]s, which `docs/reference.md` is compared with.

use std::{collections::BTreeSet, marker::PhantomData};

use super::{
    key::{DefaultValue, Field, Key},
    parameter::Parameter,
    reader::Section,
    value_types::ValueType,
};

/// A struct that is read from a section.
pub(super) trait Declared: Sized {
    /// Reads every key; what is missing or wrong is reported, and read as its default.
    fn read(section: &mut Section<'_, '_>) -> Self;

    /// Every key, for a section with this header.
    fn keys(header: &str) -> Vec<Key>;

    /// The values of the SQL parameters.
    fn parameters(&self, out: &mut Vec<(&'static str, Parameter)>);
}

/// How a field is read from its section.
pub(super) trait Declaration {
    type Value;

    /// Reads the value of the field `name`.
    fn read(&self, name: &'static str, section: &mut Section<'_, '_>) -> Self::Value;

    /// The keys that the value is read from.
    fn keys(&self, field: &Field<'_>) -> Vec<Key>;

    /// The SQL parameters inside of a value that is a section.
    fn parameters(&self, _value: &Self::Value, _out: &mut Vec<(&'static str, Parameter)>) {}
}

/// Declares a section; see the top of the file.
macro_rules! section {
    (
        $(#[$attribute:meta])*
        pub struct $name:ident {
            $(
                $(#[doc = $doc:literal])+
                $field:ident: $type:ty = $declaration:expr $(, sql $parameter:literal)?;
            )+
        }
    ) => {
        $(#[$attribute])*
        pub struct $name {
            $( $(#[doc = $doc])+ pub $field: $type, )+
        }

        impl $crate::config::declaration::Declared for $name {
            fn read(section: &mut $crate::config::reader::Section<'_, '_>) -> Self {
                use $crate::config::declaration::Declaration;
                Self { $( $field: $declaration.read(stringify!($field), section), )+ }
            }

            fn keys(header: &str) -> Vec<$crate::config::key::Key> {
                let mut keys = Vec::new();
                $(
                    keys.extend($crate::config::declaration::keys_of::<$type, _>(
                        &$declaration,
                        &$crate::config::key::Field {
                            header,
                            name: stringify!($field),
                            doc: concat!($($doc),+),
                            parameter: [$(Some($parameter),)? None][0],
                        },
                    ));
                )+
                keys
            }

            fn parameters(&self, out: &mut Vec<(&'static str, $crate::config::parameter::Parameter)>) {
                use $crate::config::declaration::Declaration;
                $(
                    $declaration.parameters(&self.$field, out);
                    $( out.push(($parameter, self.$field.clone().into())); )?
                )+
            }
        }
    };
}
pub(super) use section;

/// The keys of a declaration, whose type follows from the field's.
pub(super) fn keys_of<T, D: Declaration<Value = T>>(declaration: &D, field: &Field<'_>) -> Vec<Key> {
    declaration.keys(field)
}

/// A key that every file must set.
pub(super) fn required<K: ValueType>(value: K) -> Required<K> {
    Required(value)
}

/// A key that may be absent, and has no default.
pub(super) fn optional<K: ValueType>(value: K) -> Optional<K> {
    Optional(value)
}

/// A key with a default.
pub(super) fn or<K: ValueType>(value: K, default: impl Into<K::Value>) -> OrDefault<K> {
    OrDefault { value, default: default.into() }
}

/// A list that is empty if the key is absent, and then stands for the value of another key.
pub(super) fn or_same_as<K: ValueType>(value: K, other: &'static str) -> OrSameAs<K> {
    OrSameAs { value, other }
}

/// A key that stands for the value of another one if it is absent.
pub(super) fn optional_or_same_as<K: ValueType>(value: K, other: &'static str) -> OptionalOrSameAs<K> {
    OptionalOrSameAs { value, other }
}

/// The section `[name]`, after the field.
pub(super) fn nested<T: Declared>() -> Nested<T> {
    Nested(PhantomData)
}

/// Sections `[[name]]`, in which the key `distinct` has no value twice.
pub(super) fn sections<T: Declared>(name: &'static str, distinct: &'static str) -> Repeated<T> {
    Repeated { name, distinct, of: PhantomData }
}

/// The key `name` of the section `[section]` that has no other.
pub(super) fn inside<D: Declaration>(section: &'static str, name: &'static str, of: D) -> Inside<D> {
    Inside { section, name, of }
}

#[derive(Debug)]
pub(super) struct Required<K>(K);

impl<K: ValueType> Declaration for Required<K>
where
    K::Value: Default,
{
    type Value = K::Value;

    fn read(&self, name: &'static str, section: &mut Section<'_, '_>) -> K::Value {
        section.required(name, &self.0)
    }

    fn keys(&self, field: &Field<'_>) -> Vec<Key> {
        vec![field.key(self.0.expected(), DefaultValue::Required)]
    }
}

#[derive(Debug)]
pub(super) struct Optional<K>(K);

impl<K: ValueType> Declaration for Optional<K> {
    type Value = Option<K::Value>;

    fn read(&self, name: &'static str, section: &mut Section<'_, '_>) -> Option<K::Value> {
        section.optional(name, &self.0)
    }

    fn keys(&self, field: &Field<'_>) -> Vec<Key> {
        vec![field.key(self.0.expected(), DefaultValue::Unset)]
    }
}

#[derive(Debug)]
pub(super) struct OrDefault<K: ValueType> {
    value: K,
    default: K::Value,
}

impl<K: ValueType> Declaration for OrDefault<K>
where
    K::Value: Clone,
{
    type Value = K::Value;

    fn read(&self, name: &'static str, section: &mut Section<'_, '_>) -> K::Value {
        section.optional(name, &self.value).unwrap_or_else(|| self.default.clone())
    }

    fn keys(&self, field: &Field<'_>) -> Vec<Key> {
        vec![field.key(self.value.expected(), DefaultValue::Value(self.value.literal(&self.default)))]
    }
}

#[derive(Debug)]
pub(super) struct OrSameAs<K> {
    value: K,
    other: &'static str,
}

impl<K: ValueType> Declaration for OrSameAs<K>
where
    K::Value: Default,
{
    type Value = K::Value;

    fn read(&self, name: &'static str, section: &mut Section<'_, '_>) -> K::Value {
        section.optional(name, &self.value).unwrap_or_default()
    }

    fn keys(&self, field: &Field<'_>) -> Vec<Key> {
        vec![field.key(self.value.expected(), DefaultValue::SameAs(self.other))]
    }
}

#[derive(Debug)]
pub(super) struct OptionalOrSameAs<K> {
    value: K,
    other: &'static str,
}

impl<K: ValueType> Declaration for OptionalOrSameAs<K> {
    type Value = Option<K::Value>;

    fn read(&self, name: &'static str, section: &mut Section<'_, '_>) -> Option<K::Value> {
        section.optional(name, &self.value)
    }

    fn keys(&self, field: &Field<'_>) -> Vec<Key> {
        vec![field.key(self.value.expected(), DefaultValue::SameAs(self.other))]
    }
}

#[derive(Debug)]
pub(super) struct Nested<T>(PhantomData<T>);

impl<T: Declared> Declaration for Nested<T> {
    type Value = T;

    fn read(&self, name: &'static str, section: &mut Section<'_, '_>) -> T {
        let mut inner = section.section(name);
        let out = T::read(&mut inner);
        inner.finish();
        out
    }

    fn keys(&self, field: &Field<'_>) -> Vec<Key> {
        T::keys(&field.subsection(field.name))
    }

    fn parameters(&self, value: &T, out: &mut Vec<(&'static str, Parameter)>) {
        value.parameters(out);
    }
}

#[derive(Debug)]
pub(super) struct Repeated<T> {
    name: &'static str,
    distinct: &'static str,
    of: PhantomData<T>,
}

impl<T: Declared> Declaration for Repeated<T> {
    type Value = Vec<T>;

    fn read(&self, _field: &'static str, section: &mut Section<'_, '_>) -> Vec<T> {
        let mut seen = BTreeSet::new();
        section.each(self.name, |mut inner| {
            let out = T::read(&mut inner);
            inner.refuse_duplicate(self.distinct, &mut seen);
            inner.finish();
            out
        })
    }

    fn keys(&self, field: &Field<'_>) -> Vec<Key> {
        T::keys(&format!("[{}]", field.subsection(self.name)))
    }
}

#[derive(Debug)]
pub(super) struct Inside<D> {
    section: &'static str,
    name: &'static str,
    of: D,
}

impl<D: Declaration> Declaration for Inside<D> {
    type Value = D::Value;

    fn read(&self, _field: &'static str, section: &mut Section<'_, '_>) -> D::Value {
        let mut inner = section.section(self.section);
        let out = self.of.read(self.name, &mut inner);
        inner.finish();
        out
    }

    fn keys(&self, field: &Field<'_>) -> Vec<Key> {
        self.of.keys(&Field { header: &field.subsection(self.section), name: self.name, ..field.clone() })
    }
}
