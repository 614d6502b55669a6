//! Checks whether a lake is sound: every file is intact, no row is duplicated or missing, every step is complete, and every
//! full-refresh table has the rows of its query.

use super::recompute::{self, Difference};
pub(crate) use crate::lake::Finding;
use crate::{
    error::{Result, catch_panic},
    lake::verify_files,
    pipeline::{Project, staleness},
    plan,
    schema::Kind,
};

/// Returns everything that is wrong with the lake of `project`, or nothing if it is sound and complete. A `deep` check
/// also compares with the source, decodes every image, and generates some rows again; it needs a project whose source
/// and models were opened.
///
/// # Errors
/// Returns an error if the tables cannot be read at all.
pub(crate) async fn verify(project: &Project, deep: bool) -> Result<Vec<Finding>> {
    let mut findings = Vec::new();
    let lake = project.session.lake();
    for table in project.stored_tables() {
        findings.extend(verify_files(lake, table, deep).await?);
    }
    let some_file_is_broken = !findings.is_empty();
    // Libraries panic on some damaged files.
    let reasons = catch_panic(staleness::reasons(project)).await;
    let mut found = match reasons {
        Ok(reasons) => vec![Ok(stale_steps(project, &reasons)), catch_panic(other_rows(project, deep, &reasons)).await],
        Err(error) => vec![Err(error)],
    };
    for query in ["verify/rows.sql", "verify/deep.sql"].into_iter().take(1 + usize::from(deep)) {
        found.push(catch_panic(verify_rows(project, query)).await);
    }
    for found in found {
        match found {
            Ok(found) => findings.extend(found),
            // A broken file, which is already among the findings, makes its rows unreadable.
            Err(_) if some_file_is_broken => {}
            Err(error) => return Err(error),
        }
    }
    Ok(findings)
}

/// Returns the steps that have to run.
fn stale_steps(project: &Project, reasons: &[Option<String>]) -> Vec<Finding> {
    let stale = project.plan.steps.iter().zip(reasons).filter_map(|(step, reason)| {
        let problem = format!("the step has to run: {}", reason.as_ref()?);
        Some(Finding { table: step.table.name.clone(), problem })
    });
    stale.collect()
}

/// Returns the full-refresh tables that do not have the rows of their queries. Of the steps that have to run, only those
/// are compared whose tables another program has changed: nobody promises the rows of the others. Without a `deep` check,
/// queries that need the source or the models are left out.
async fn other_rows(project: &Project, deep: bool, reasons: &[Option<String>]) -> Result<Vec<Finding>> {
    let snapshot = project.session.snapshot().await?;
    let mut findings = Vec::new();
    for (step, reason) in project.plan.steps.iter().zip(reasons) {
        let table = &step.table.name;
        let is_promised = reason.is_none() || snapshot.changed(table).is_some();
        if step.table.kind != Kind::FullRefresh || !is_promised || !(deep || plan::needs_lake_alone(&step.query)) {
            continue;
        }
        let Difference { missing, extra } = recompute::compare(&project.session, step, &snapshot).await?;
        let counts =
            [(missing, "a row that its query returns is missing"), (extra, "a row that its query does not return")];
        for (rows, problem) in counts.into_iter().filter(|(rows, _)| *rows > 0) {
            findings.push(Finding { table: table.clone(), problem: format!("{problem} ({rows})") });
        }
    }
    Ok(findings)
}

/// Returns the problems that a query of `sql/verify` finds.
async fn verify_rows(project: &Project, query: &str) -> Result<Vec<Finding>> {
    let mut findings = Vec::new();
    for columns in project.query(query).await?.columns() {
        let (tables, problems) = (columns.strings("table_name")?, columns.strings("problem")?);
        let rows = columns.integers("rows")?;
        for row in (0..columns.rows()).filter(|&row| rows.value(row) > 0) {
            findings.push(Finding {
                table: tables.value(row).to_owned(),
                problem: format!("{} ({})", problems.value(row), rows.value(row)),
            });
        }
    }
    Ok(findings)
}
