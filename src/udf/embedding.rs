//! Columns of embeddings: lists of `float32`.

use std::sync::Arc;

use arrow::{
    array::{ArrayRef, Float32Builder, ListBuilder},
    datatypes::{DataType, Field},
};

pub(super) fn embedding_type() -> DataType {
    DataType::List(Arc::new(Field::new("item", DataType::Float32, true)))
}

/// Builds a column. An embedding that is not finite becomes NULL: compared with a number, NaN would be the larger one.
pub(super) fn embedding_column(rows: &[Option<Arc<[f32]>>]) -> ArrayRef {
    let mut list = ListBuilder::new(Float32Builder::new());
    for row in rows {
        let row = row.as_ref().filter(|row| row.iter().all(|value| value.is_finite()));
        if let Some(row) = row {
            list.values().append_slice(row);
        }
        list.append(row.is_some());
    }
    Arc::new(list.finish())
}
