//! Runs the query of a full-refresh step once more and compares its rows with those of the table.

use arrow::datatypes::{DataType, Field};
use datafusion::{
    common::{DFSchema, ScalarValue},
    dataframe::DataFrame,
    functions_aggregate::sum::sum,
    logical_expr::{Expr, ExprSchemable, when},
    prelude::{ident, lit},
};

use crate::{
    error::{Error, Result},
    plan::Step,
    schema::{
        columns::{Answer, Columns},
        conform::check_schema,
    },
    session::{self, Session, Snapshot},
};

/// Rows of a batch if the query calls a model.
const IMAGES_PER_BATCH: usize = 32;
/// Counts a row of the query as 1 and a row of the table as −1.
const BALANCE: &str = "row_balance";

/// How a table differs from its query.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Difference {
    /// Rows that only the query has. A row can be there several times.
    pub(super) missing: i64,
    /// Rows that only the table has.
    pub(super) extra: i64,
}

/// Compares the table of `step` with the rows that its query has on `snapshot`. Numbers with a fraction are compared to
/// seven digits, because the order in which a query adds them is not fixed.
///
/// # Errors
/// Returns an error if the query fails, or if the table cannot be read.
pub(super) async fn compare(session: &Session, step: &Step, snapshot: &Snapshot) -> Result<Difference> {
    let context = match step.calls_models() {
        true => session.image_context(snapshot, IMAGES_PER_BATCH)?,
        false => session.context(snapshot)?,
    };
    let name = &step.query.name;
    let fail = |error| Error::query(name, error);
    let query = session::query(&context, name, &step.statement).await?;
    check_schema(name, query.schema().as_arrow(), &step.table)?;
    let table = context.table(step.table.name.as_str()).await.map_err(fail)?;
    check_schema(&step.table.name, &known(table.schema(), step), &step.table)?;
    let (query, table) = (comparable(query, step, 1).map_err(fail)?, comparable(table, step, -1).map_err(fail)?);
    let columns = step.table.schema.fields().iter().map(|field| ident(field.name())).collect();
    let positive = |balance: Expr| when(balance.clone().gt(lit(0i64)), balance).otherwise(lit(0i64));
    let balance = || ident(BALANCE);
    let sums = query
        .union(table)
        .and_then(|rows| rows.aggregate(columns, vec![sum(balance()).alias(BALANCE)]))
        .and_then(|rows| {
            let missing = sum(positive(balance())?).alias("missing");
            rows.aggregate(Vec::new(), vec![missing, sum(positive(-balance())?).alias("extra")])
        });
    let batches = sums.map_err(fail)?.collect().await.map_err(fail)?;
    let answer = Answer { query: name.clone(), batches };
    let total = |column: &str| -> Result<i64> {
        let sums = |columns: Columns<'_>| Ok::<_, Error>(columns.integers(column)?.iter().flatten().sum::<i64>());
        answer.columns().map(sums).sum()
    };
    Ok(Difference { missing: total("missing")?, extra: total("extra")? })
}

/// Returns the columns of a table that its step has. Other programs may have added some.
fn known(found: &DFSchema, step: &Step) -> arrow::datatypes::Schema {
    let is_known = |field: &&std::sync::Arc<Field>| step.table.schema.field_with_name(field.name()).is_ok();
    arrow::datatypes::Schema::new(found.as_arrow().fields().iter().filter(is_known).cloned().collect::<Vec<_>>())
}

/// Selects the columns of the table of `step` in types that can be compared, and `balance`.
fn comparable(rows: DataFrame, step: &Step, balance: i64) -> datafusion::error::Result<DataFrame> {
    let mut columns = Vec::new();
    for field in step.table.schema.fields() {
        let comparable = match field.data_type() {
            DataType::Float64 => DataType::Float32,
            other => other.clone(),
        };
        // A query may leave out an optional column.
        let column = match rows.schema().has_column_with_unqualified_name(field.name()) {
            true => ident(field.name()).cast_to(&comparable, rows.schema())?,
            false => lit(ScalarValue::try_from(&comparable)?),
        };
        columns.push(column.alias(field.name()));
    }
    columns.push(lit(balance).alias(BALANCE));
    rows.select(columns)
}
