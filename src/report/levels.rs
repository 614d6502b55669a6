//! Per guidance level, and per class and level: candidates, kept, mean similarities. The only user of polars.

use arrow::{
    array::{Array, AsArray, RecordBatch},
    compute::cast,
    datatypes::{DataType, Float64Type, Int64Type},
};
use polars::prelude::{Column, DataFrame, IntoLazy, NamedFrom, PolarsError, Series, SortMultipleOptions, col, len};

use crate::{
    error::{Error, Result},
    pipeline::Pipeline,
};

/// What came of the candidates of a level.
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
pub struct Level {
    /// Percent of the real image kept.
    pub image_guidance: i64,
    /// Candidates, all attempts.
    pub candidates: u64,
    /// Kept ones.
    pub kept: u64,
    /// Mean CLIP cosine of the kept ones to the filter prompt; none where none was kept.
    pub text_similarity: Option<f64>,
    /// Mean CLIP cosine of the kept ones to the real image.
    pub image_similarity: Option<f64>,
}

/// The levels of a pipeline's candidates, ascending.
///
/// # Errors
/// Where the tables cannot be read.
pub async fn levels(pipeline: &Pipeline) -> Result<Vec<Level>> {
    let frame = summary(frame(pipeline).await?, &["image_guidance"]).map_err(failed)?;
    let mut levels = Vec::new();
    for row in 0..frame.height() {
        let real =
            |name: &str| frame.column(name).and_then(|c| c.get(row)).ok().and_then(|v| v.try_extract::<f64>().ok());
        let count =
            |name: &str| frame.column(name).and_then(|c| c.get(row)).ok().and_then(|v| v.try_extract::<i64>().ok());
        levels.push(Level {
            image_guidance: count("image_guidance").unwrap_or_default(),
            candidates: count("candidates").and_then(|n| n.try_into().ok()).unwrap_or_default(),
            kept: count("kept").and_then(|n| n.try_into().ok()).unwrap_or_default(),
            text_similarity: real("text_similarity"),
            image_similarity: real("image_similarity"),
        });
    }
    Ok(levels)
}

/// A table for people: every cell is text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TextTable {
    /// Names of the columns.
    pub header: Vec<String>,
    /// Cells of each row.
    pub rows: Vec<Vec<String>>,
}

/// The closing tables: by class and level, and by level.
///
/// # Errors
/// Returns an error if the tables cannot be read.
pub async fn tables(pipeline: &Pipeline) -> Result<[TextTable; 2]> {
    let frame = frame(pipeline).await?;
    let by_class = summary(frame.clone(), &["class_name", "image_guidance"]).map_err(failed)?;
    let by_level = summary(frame, &["image_guidance"]).map_err(failed)?;
    Ok([text(&by_class), text(&by_level)])
}

fn failed(error: PolarsError) -> Error {
    Error::Data(format!("the closing tables: {error}"))
}

async fn frame(pipeline: &Pipeline) -> Result<DataFrame> {
    let batches = super::rows(pipeline, "report/levels.sql").await?;
    let integers = |name: &str| {
        values(&batches, name, &DataType::Int64, |column, row| column.as_primitive::<Int64Type>().value(row))
    };
    let reals = |name: &str| {
        values(&batches, name, &DataType::Float64, |column, row| column.as_primitive::<Float64Type>().value(row))
    };
    let texts =
        values(&batches, "class_name", &DataType::Utf8, |column, row| column.as_string::<i32>().value(row).to_owned());
    let kept = values(&batches, "kept", &DataType::Boolean, |column, row| column.as_boolean().value(row));
    let columns: Vec<Column> = vec![
        Series::new("class_name".into(), texts).into(),
        Series::new("image_guidance".into(), integers("image_guidance")).into(),
        Series::new("kept".into(), kept).into(),
        Series::new("text_similarity".into(), reals("text_similarity")).into(),
        Series::new("image_similarity".into(), reals("image_similarity")).into(),
    ];
    DataFrame::new_infer_height(columns).map_err(failed)
}

fn values<T>(
    batches: &[RecordBatch],
    name: &str,
    data_type: &DataType,
    value: impl Fn(&dyn Array, usize) -> T,
) -> Vec<Option<T>> {
    let columns = batches.iter().filter_map(|batch| cast(batch.column_by_name(name)?, data_type).ok());
    columns
        .flat_map(|column| {
            (0..column.len()).map(|row| column.is_valid(row).then(|| value(column.as_ref(), row))).collect::<Vec<_>>()
        })
        .collect()
}

fn summary(frame: DataFrame, keys: &[&str]) -> Result<DataFrame, PolarsError> {
    let keys: Vec<_> = keys.iter().map(|&key| col(key)).collect();
    let of_kept = |name: &str| col(name).filter(col("kept")).mean();
    frame
        .lazy()
        .group_by(keys.clone())
        .agg([len().alias("candidates"), col("kept").sum(), of_kept("text_similarity"), of_kept("image_similarity")])
        .sort_by_exprs(keys, SortMultipleOptions::default())
        .collect()
}

fn text(frame: &DataFrame) -> TextTable {
    let cell = |column: &Column, row: usize| match column.get(row) {
        Ok(value) if value.is_null() => "-".to_owned(),
        Ok(value) if value.dtype().is_float() => format!("{:.4}", value.try_extract::<f64>().unwrap_or(f64::NAN)),
        Ok(value) => value.str_value().into_owned(),
        Err(_) => String::new(),
    };
    TextTable {
        header: frame.get_column_names().iter().map(|name| name.to_string()).collect(),
        rows: (0..frame.height()).map(|row| frame.columns().iter().map(|column| cell(column, row)).collect()).collect(),
    }
}
