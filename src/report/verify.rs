//! Checks whether a lake is sound: every file is intact, no row is duplicated or missing, and every step is complete.

pub(crate) use crate::lake::Finding;
use crate::{
    error::Result,
    lake::verify_files,
    pipeline::{Project, staleness},
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
        findings.extend(verify_files(lake, table).await?);
    }
    let some_file_is_broken = !findings.is_empty();
    let mut found = vec![stale_steps(project).await];
    for query in ["verify/rows.sql", "verify/deep.sql"].into_iter().take(1 + usize::from(deep)) {
        found.push(verify_rows(project, query).await);
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
async fn stale_steps(project: &Project) -> Result<Vec<Finding>> {
    let reasons = staleness::reasons(project).await?;
    let stale = project.plan.steps.iter().zip(reasons).filter_map(|(step, reason)| {
        let problem = format!("the step has to run: {}", reason?);
        Some(Finding { table: step.table.name.clone(), problem })
    });
    Ok(stale.collect())
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
