//! Whether a lake is what it should be: every file whole, no row twice, none missing, every step complete.

use arrow::{
    array::AsArray,
    compute::cast,
    datatypes::{DataType, Int64Type},
};

pub(crate) use crate::lake::Finding;
use crate::{
    error::Result,
    lake::verify_files,
    pipeline::{Pipeline, staleness::why},
    report,
    schema::Kind,
};

/// Everything that is wrong with the lake of `pipeline`; nothing where it is clean and complete. A `deep` look decodes
/// every image, and makes some rows again.
///
/// # Errors
/// Where the tables cannot be read at all.
pub async fn verify(pipeline: &Pipeline, deep: bool) -> Result<Vec<Finding>> {
    let mut findings = Vec::new();
    let lake = pipeline.session.lake();
    for table in pipeline.tables().filter(|table| table.kind != Kind::Given) {
        findings.extend(verify_files(lake, table).await?);
    }
    for step in &pipeline.plan.steps {
        if let Some(reason) = why(&pipeline.session, &pipeline.own_tables, step).await? {
            let problem = format!("the step is not complete: {reason}");
            findings.push(Finding { table: step.table.name.clone(), problem });
        }
    }
    for query in ["verify/rows.sql", "verify/deep.sql"].into_iter().take(1 + usize::from(deep)) {
        match verify_rows(pipeline, query).await {
            Ok(rows) => findings.extend(rows),
            // the rows cannot be compared where a file is broken, which is a finding already
            Err(_) if !findings.is_empty() => {}
            Err(error) => return Err(error),
        }
    }
    Ok(findings)
}

/// What a query of `sql/verify` finds.
async fn verify_rows(pipeline: &Pipeline, query: &str) -> Result<Vec<Finding>> {
    let mut findings = Vec::new();
    for batch in report::rows(pipeline, query).await? {
        let text = |name: &str| batch.column_by_name(name).and_then(|c| cast(c, &DataType::Utf8).ok());
        let (Some(tables), Some(problems)) = (text("table_name"), text("problem")) else {
            continue;
        };
        let Some(rows) = batch.column_by_name("rows").and_then(|c| cast(c, &DataType::Int64).ok()) else {
            continue;
        };
        for row in 0..batch.num_rows() {
            let count = rows.as_primitive::<Int64Type>().value(row);
            if count > 0 {
                findings.push(Finding {
                    table: tables.as_string::<i32>().value(row).to_owned(),
                    problem: format!("{} ({count})", problems.as_string::<i32>().value(row)),
                });
            }
        }
    }
    Ok(findings)
}
