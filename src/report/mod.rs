//! Read-only digests of the lake for people: the closing tables and the contact sheet.

mod contact_sheet;
pub mod forecast;
mod levels;
pub mod status;
pub mod verify;

pub use contact_sheet::{has_contact_sheet, write_contact_sheet};
pub use levels::{Level, TextTable, levels, tables};

use arrow::array::RecordBatch;

use crate::{
    error::{Error, Result},
    pipeline::Pipeline,
    session,
};

/// The rows of the built-in query at `path`.
pub(crate) async fn rows(pipeline: &Pipeline, path: &str) -> Result<Vec<RecordBatch>> {
    let session = &pipeline.session;
    let snapshot = session.snapshot(&pipeline.own_tables).await?;
    let context = session.context(&snapshot, &std::sync::Arc::default())?;
    let statement = pipeline.catalogue.get(path)?.bind(&pipeline.plan.parameters)?;
    let rows = session::query(&context, path, &statement).await?;
    rows.collect().await.map_err(|error| Error::query(path, error))
}
