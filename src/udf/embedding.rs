//! Columns of embeddings: lists of `float32`.

use std::sync::Arc;

use arrow::{
    array::{ArrayRef, Float32Builder, ListBuilder},
    datatypes::{DataType, Field},
};

pub(super) fn embedding_type() -> DataType {
    DataType::List(Arc::new(Field::new("item", DataType::Float32, true)))
}

pub(super) fn embedding_column(rows: &[Option<Arc<[f32]>>]) -> ArrayRef {
    let mut list = ListBuilder::new(Float32Builder::new());
    for row in rows {
        if let Some(row) = row {
            list.values().append_slice(row);
        }
        list.append(row.is_some());
    }
    Arc::new(list.finish())
}
