//! Candidates, kept images and mean similarities, by level and by class and level. The only user of polars.

use polars::prelude::{Column, DataFrame, IntoLazy, NamedFrom, PolarsError, Series, SortMultipleOptions, col, len};

use crate::{
    error::{Error, Result},
    pipeline::Project,
};

/// The candidates of a level, and how many of them were kept.
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
pub(crate) struct Level {
    /// Percent of the real image that is kept.
    pub(crate) image_guidance: i64,
    /// Candidates of all attempts.
    pub(crate) candidates: u64,
    /// Candidates that passed the filter.
    pub(crate) kept: u64,
    /// Mean CLIP cosine of the kept ones to the filter prompt; `None` if none was kept.
    pub(crate) text_similarity: Option<f64>,
    /// Mean CLIP cosine of the kept ones to the real image; `None` if none was kept.
    pub(crate) image_similarity: Option<f64>,
}

/// Returns the levels of a pipeline's candidates in ascending order.
///
/// # Errors
/// Returns an error if the tables cannot be read.
pub(crate) async fn levels(project: &Project) -> Result<Vec<Level>> {
    let frame = summary(frame(project).await?, &["image_guidance"]).map_err(failed)?;
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
pub(crate) struct TextTable {
    /// Names of the columns.
    pub(crate) header: Vec<String>,
    /// Cells of each row.
    pub(crate) rows: Vec<Vec<String>>,
}

/// Returns the closing tables: by class and level, and by level.
///
/// # Errors
/// Returns an error if the tables cannot be read.
pub(crate) async fn tables(project: &Project) -> Result<[TextTable; 2]> {
    let frame = frame(project).await?;
    let by_class = summary(frame.clone(), &["class_name", "image_guidance"]).map_err(failed)?;
    let by_level = summary(frame, &["image_guidance"]).map_err(failed)?;
    Ok([text(&by_class), text(&by_level)])
}

#[derive(Debug, thiserror::Error)]
#[error("the levels cannot be summarized")]
struct LevelsError(#[from] PolarsError);

fn failed(error: PolarsError) -> Error {
    Error::failed(LevelsError(error))
}

async fn frame(project: &Project) -> Result<DataFrame> {
    let answer = project.query("report/levels.sql").await?;
    let (mut classes, mut guidances, mut kept) = (Vec::new(), Vec::new(), Vec::new());
    let (mut to_text, mut to_image) = (Vec::new(), Vec::new());
    for columns in answer.columns() {
        classes.extend(columns.strings("class_name")?.iter().map(|name| name.map(str::to_owned)));
        guidances.extend(&columns.integers("image_guidance")?);
        kept.extend(&columns.booleans("kept")?);
        to_text.extend(&columns.floats("text_similarity")?);
        to_image.extend(&columns.floats("image_similarity")?);
    }
    let columns: Vec<Column> = vec![
        Series::new("class_name".into(), classes).into(),
        Series::new("image_guidance".into(), guidances).into(),
        Series::new("kept".into(), kept).into(),
        Series::new("text_similarity".into(), to_text).into(),
        Series::new("image_similarity".into(), to_image).into(),
    ];
    DataFrame::new_infer_height(columns).map_err(failed)
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
