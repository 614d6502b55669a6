//! `digest(…)`: 32 hexadecimal digits that identify the arguments in their order. NULL differs from ''.

use std::sync::Arc;

use arrow::{
    array::{Array, ArrayRef, StringArray},
    datatypes::DataType,
    error::ArrowError,
    util::display::{ArrayFormatter, FormatOptions},
};
use datafusion::{error::Result, logical_expr::ScalarUDF};

use super::function::{Arguments, Kernel, Shape, plain};
use crate::identity::Digest;

const NAME: &str = "digest";

struct DigestOf;

pub(super) fn function() -> ScalarUDF {
    let shape = Shape { name: NAME, arguments: Arguments::Any, returns: DataType::Utf8, fingerprint: String::new() };
    plain(shape, DigestOf)
}

impl Kernel for DigestOf {
    fn call(&self, arguments: &[ArrayRef], rows: usize) -> Result<ArrayRef> {
        let digests = digests(NAME, arguments, rows)?;
        let ids: StringArray = digests.into_iter().map(|digest| Some(digest.id())).collect();
        Ok(Arc::new(ids))
    }
}

/// Digests the displayed values of each row, so that `1` is the same in every integer type.
pub(super) fn digests(domain: &str, arguments: &[ArrayRef], rows: usize) -> Result<Vec<Digest>> {
    let options = FormatOptions::default();
    let columns: Vec<_> = arguments
        .iter()
        .map(|array| ArrayFormatter::try_new(array.as_ref(), &options).map(|format| (array, format)))
        .collect::<Result<_, ArrowError>>()?;
    Ok((0..rows)
        .map(|row| {
            columns.iter().fold(Digest::new(domain), |digest, (array, format)| {
                if array.is_null(row) { digest.part(b"\0null") } else { digest.text(&format.value(row).to_string()) }
            })
        })
        .collect())
}
