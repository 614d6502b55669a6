//! The rows of a query, read column by column. A column that is missing or of another type is an error.

use arrow::{
    array::{Array, ArrayRef, AsArray, BinaryArray, BooleanArray, Float64Array, Int64Array, RecordBatch, StringArray},
    compute::cast,
    datatypes::{DataType, Float64Type, Int64Type},
};

use super::{conform::fits, texts};
use crate::error::{Error, Result};

/// The rows that a query returned, and its name for messages.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) query: String,
    pub(crate) batches: Vec<RecordBatch>,
}

impl Answer {
    /// Returns the columns of each batch.
    pub(crate) fn columns(&self) -> impl Iterator<Item = Columns<'_>> {
        self.batches.iter().map(|batch| Columns { query: &self.query, batch })
    }
}

/// The columns of a batch by name.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Columns<'a> {
    query: &'a str,
    batch: &'a RecordBatch,
}

impl<'a> Columns<'a> {
    pub(crate) fn new(query: &'a str, batch: &'a RecordBatch) -> Self {
        Self { query, batch }
    }

    pub(crate) fn rows(&self) -> usize {
        self.batch.num_rows()
    }

    /// Returns a column of strings.
    ///
    /// # Errors
    /// Returns an error if the column does not exist, or does not hold strings.
    pub(crate) fn strings(&self, name: &str) -> Result<StringArray> {
        Ok(self.column(name, &DataType::Utf8)?.as_string::<i32>().clone())
    }

    /// Returns a column of integers.
    ///
    /// # Errors
    /// Returns an error if the column does not exist, or does not hold integers.
    pub(crate) fn integers(&self, name: &str) -> Result<Int64Array> {
        Ok(self.column(name, &DataType::Int64)?.as_primitive::<Int64Type>().clone())
    }

    /// Returns a column of numbers.
    ///
    /// # Errors
    /// Returns an error if the column does not exist, or does not hold numbers.
    pub(crate) fn floats(&self, name: &str) -> Result<Float64Array> {
        Ok(self.column(name, &DataType::Float64)?.as_primitive::<Float64Type>().clone())
    }

    /// Returns a column of booleans.
    ///
    /// # Errors
    /// Returns an error if the column does not exist, or does not hold booleans.
    pub(crate) fn booleans(&self, name: &str) -> Result<BooleanArray> {
        Ok(self.column(name, &DataType::Boolean)?.as_boolean().clone())
    }

    /// Returns a column of lists of strings, row by row. A list that is NULL is empty.
    ///
    /// # Errors
    /// Returns an error if the column does not exist, or does not hold lists of strings.
    pub(crate) fn lists(&self, name: &str) -> Result<Vec<Vec<String>>> {
        let lists = self.column(name, &texts())?;
        let lists = lists.as_list::<i32>();
        let strings = |list: ArrayRef| list.as_string::<i32>().iter().flatten().map(str::to_owned).collect();
        Ok(lists.iter().map(|list| list.map_or_else(Vec::new, strings)).collect())
    }

    /// Returns the encoded bytes of a column of images.
    ///
    /// # Errors
    /// Returns an error if the column does not exist, or does not hold images.
    pub(crate) fn images(&self, name: &str) -> Result<BinaryArray> {
        let found = self.batch.column_by_name(name).ok_or_else(|| self.missing(name, "images"))?;
        image_bytes(found).ok_or_else(|| self.wrong(name, "images", found.data_type()))
    }

    fn column(&self, name: &str, data_type: &DataType) -> Result<ArrayRef> {
        let expected = data_type.to_string();
        let found = self.batch.column_by_name(name).ok_or_else(|| self.missing(name, &expected))?;
        let is_sound = fits(found.data_type(), data_type);
        let cast = is_sound.then(|| cast(found, data_type).ok()).flatten();
        cast.ok_or_else(|| self.wrong(name, &expected, found.data_type()))
    }

    fn missing(&self, name: &str, expected: &str) -> Error {
        self.error(format!("column `{name}` ({expected}) is missing"))
    }

    fn wrong(&self, name: &str, expected: &str, found: &DataType) -> Error {
        self.error(format!("column `{name}` is {found}, expected {expected}"))
    }

    fn error(&self, message: String) -> Error {
        Error::Query { query: self.query.to_owned(), message }
    }
}

/// Returns the encoded bytes of a column of images, which is a `struct<bytes, path>` or the bytes alone. `None` if the
/// column does not hold images.
pub(crate) fn image_bytes(column: &ArrayRef) -> Option<BinaryArray> {
    let bytes = match column.as_struct_opt() {
        Some(parts) => parts.column_by_name("bytes")?,
        None => column,
    };
    if !bytes.data_type().is_binary() && !bytes.data_type().is_null() {
        return None;
    }
    Some(cast(bytes, &DataType::Binary).ok()?.as_binary::<i32>().clone())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::datatypes::{Field, Schema};

    use super::*;

    #[test]
    fn a_column_that_is_missing_or_of_another_type_is_an_error() {
        let schema =
            Schema::new(vec![Field::new("rows", DataType::Int32, true), Field::new("name", DataType::Utf8, true)]);
        let columns: Vec<ArrayRef> =
            vec![Arc::new(arrow::array::Int32Array::from(vec![3])), Arc::new(StringArray::from(vec!["a"]))];
        let batch = RecordBatch::try_new(Arc::new(schema), columns).unwrap();
        let columns = Columns::new("verify/rows.sql", &batch);
        assert_eq!(columns.integers("rows").unwrap().value(0), 3);
        assert_eq!(
            columns.strings("problem").unwrap_err().to_string(),
            "query `verify/rows.sql`: column `problem` (Utf8) is missing"
        );
        assert_eq!(
            columns.integers("name").unwrap_err().to_string(),
            "query `verify/rows.sql`: column `name` is Utf8, expected Int64"
        );
        assert!(columns.images("name").is_err());
    }
}
