//! Expectations: queries of the pipeline that must return no rows.

use std::ops::RangeInclusive;

use arrow::{array::RecordBatch, util::pretty::pretty_format_batches};

use crate::{
    error::{Error, Result},
    plan::{Expectation, Plan},
    session::{self, Session},
};

/// Offending rows that an error shows.
const MAX_ROWS_SHOWN: usize = 10;

/// Checks the expectations whose last input is filled by one of `steps`.
///
/// # Errors
/// Returns an error that shows the rows of the first expectation that has any.
pub(super) async fn check(session: &Session, plan: &Plan, steps: RangeInclusive<usize>) -> Result<()> {
    for expectation in plan.expectations.iter().filter(|expectation| steps.contains(&expectation.after)) {
        check_one(session, expectation).await?;
    }
    Ok(())
}

async fn check_one(session: &Session, expectation: &Expectation) -> Result<()> {
    let fail = |error| Error::query(format!("[[expect]] {}", expectation.name), error);
    let context = session.context(&session.snapshot().await?)?;
    let rows = session::query(&context, &expectation.name, &expectation.statement).await?;
    let found = rows.collect().await.map_err(fail)?;
    let count: usize = found.iter().map(RecordBatch::num_rows).sum();
    if count == 0 {
        return Ok(());
    }
    let table = pretty_format_batches(&first_rows(&found)).map_err(|error| fail(error.into()))?;
    let hint = expectation.hint.map_or_else(String::new, |hint| format!("\nhint: {hint}"));
    Err(Error::Expectation { name: expectation.name.clone(), rows: count, table: table.to_string() + &hint })
}

fn first_rows(batches: &[RecordBatch]) -> Vec<RecordBatch> {
    let mut left = MAX_ROWS_SHOWN;
    let take = |batch: &RecordBatch| {
        let slice = batch.slice(0, batch.num_rows().min(left));
        left -= slice.num_rows();
        slice
    };
    batches.iter().map(take).collect()
}
