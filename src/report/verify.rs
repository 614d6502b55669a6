//! Checks whether a lake is sound: every file is intact, no row is duplicated or missing, every step is complete, and every
//! full-refresh table has the rows of its query.

use std::path::Path;

use super::recompute::{self, Difference};
pub(crate) use crate::lake::{Finding, FindingKind};
use crate::{
    error::{Result, catch_panic},
    lake::{Lake, LogFault, Remedy, verify_files},
    pipeline::{self, Project, staleness},
    plan,
    schema::Kind,
};

/// What `sql/verify/rows.sql` calls a row of an incremental table that is missing.
const MISSING: &str = "neither in the table nor rejected";

/// Opens the lake of the pipeline file at `path`, and returns it with the damaged files in the logs of its tables.
///
/// # Errors
/// Returns every problem of the file, or an error if the store that it names does not answer.
pub(crate) async fn log_faults(path: &Path, options: &pipeline::Options) -> Result<(Lake, Vec<LogFault>)> {
    let (lake, tables) = pipeline::folders(path, options)?;
    let mut faults = Vec::new();
    for table in tables {
        faults.extend(lake.log_faults(&table).await?);
    }
    Ok((lake, faults))
}

/// Returns everything that is wrong with the lake of `project`, or nothing if it is sound and complete. `faults` are those
/// of the logs, and hidden from the project. A `deep` check also compares with the source, decodes every image, and
/// generates some rows again; it needs a project whose source and models were opened.
///
/// # Errors
/// Returns an error if the tables cannot be read at all.
pub(crate) async fn verify(project: &Project, faults: &[LogFault], deep: bool) -> Result<Vec<Finding>> {
    let mut findings: Vec<Finding> = faults.iter().map(of_log).collect();
    let lake = project.session.lake();
    for table in project.stored_tables() {
        findings.extend(verify_files(lake, table, deep).await?);
    }
    // Without the rows of a table, those of the others cannot be judged.
    if faults.iter().any(|fault| fault.remedy == Remedy::None) {
        return Ok(findings);
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

fn of_log(fault: &LogFault) -> Finding {
    let file = fault.file.strip_prefix(&format!("{}/", fault.table)).unwrap_or(&fault.file).to_owned();
    let problem = format!("`{file}` {}", fault.problem);
    Finding { table: fault.table.clone(), file: Some(file), problem, kind: FindingKind::Log }
}

fn of_rows(table: &str, problem: &str, rows: i64, kind: FindingKind) -> Finding {
    Finding { table: table.to_owned(), file: None, problem: format!("{problem} ({rows})"), kind }
}

/// Returns the steps that have to run.
fn stale_steps(project: &Project, reasons: &[Option<String>]) -> Vec<Finding> {
    let stale = project.plan.steps.iter().zip(reasons).filter_map(|(step, reason)| {
        let problem = format!("the step has to run: {}", reason.as_ref()?);
        Some(Finding { table: step.table.name.clone(), file: None, problem, kind: FindingKind::Stale })
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
            findings.push(of_rows(table, problem, rows, FindingKind::Rows));
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
            let (table, problem) = (tables.value(row), problems.value(row));
            let is_made_again = project.plan.step(table).is_some_and(|step| match step.table.kind {
                Kind::FullRefresh => true,
                _ => problem.ends_with(MISSING),
            });
            let kind = if is_made_again { FindingKind::Rows } else { FindingKind::Other };
            findings.push(of_rows(table, problem, rows.value(row), kind));
        }
    }
    Ok(findings)
}
