//! Decides what repairs the lake of a pipeline, and does it. What is repaired can be made again by a run; nothing is
//! deleted.

use std::collections::{BTreeMap, BTreeSet};

use super::verify::{Finding, FindingKind};
use crate::{
    error::Result,
    lake::{Lake, LogFault, Remedy},
    pipeline::Project,
    schema::{self, Kind, Table},
};

/// What repairs one thing, or why nothing does.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub(crate) struct Repair {
    pub(crate) table: String,
    /// The name of the file in the table's folder, if it is about one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) file: Option<String>,
    /// What is wrong.
    pub(crate) problem: String,
    /// What is done, and what becomes of the rows.
    pub(crate) remedy: String,
    /// Whether it is left as it is.
    pub(crate) left: bool,
    #[serde(skip)]
    deed: Deed,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Deed {
    /// A file of a log is taken out, and kept under this name if it is moved.
    TakeOut(LogFault, String),
    /// A data file is removed from the log.
    Drop,
    /// The step of the table looks for its rows again.
    Void,
    Nothing,
}

/// Returns what to do about the damaged files of the logs of `lake`. If something of a log stays, nothing of it is touched.
///
/// # Errors
/// Returns an error if the store does not answer.
pub(crate) async fn of_logs(lake: &Lake, faults: &[LogFault]) -> Result<Vec<Repair>> {
    let mut repairs = Vec::new();
    // The newest first: what is left is at each moment a log whose last entries are damaged.
    for fault in faults.iter().rev() {
        let file = fault.file.strip_prefix(&format!("{}/", fault.table)).unwrap_or(&fault.file).to_owned();
        let aside = lake.name_aside(fault).await?;
        let outcome = outcome(&fault.table);
        let remedy = match fault.remedy {
            Remedy::Derived => format!("it is moved to `{aside}`; the log is whole without it"),
            Remedy::LastEntry => format!("it is moved to `{aside}`, which undoes its commit; {outcome}"),
            Remedy::EmptyEntry => format!("it is replaced by an entry that does nothing; {outcome}"),
            Remedy::None => {
                let folder = lake.location().url_of(&fault.table);
                format!("nobody can tell what the table holds; restore the file, or remove `{folder}`: {outcome}")
            }
        };
        let left = fault.remedy == Remedy::None;
        let deed = if left { Deed::Nothing } else { Deed::TakeOut(fault.clone(), aside) };
        let problem = format!("`{file}` {}", fault.problem);
        repairs.push(Repair { table: fault.table.clone(), file: Some(file), problem, remedy, left, deed });
    }
    Ok(repairs)
}

/// Returns what to do about the findings of `verify` in the tables of `project`, whose logs had `faults`.
///
/// # Errors
/// Returns an error if a table cannot be read.
pub(crate) async fn of_tables(project: &Project, faults: &[LogFault], findings: &[Finding]) -> Result<Vec<Repair>> {
    let lost_entries = faults.iter().filter(|fault| matches!(fault.remedy, Remedy::LastEntry | Remedy::EmptyEntry));
    let mut voids: BTreeMap<&str, String> =
        lost_entries.map(|fault| (fault.table.as_str(), "an entry of its log is lost".to_owned())).collect();
    let dropped = findings.iter().filter(|finding| finding.kind == FindingKind::File);
    let changed: BTreeSet<&str> = dropped.map(|finding| finding.table.as_str()).chain(voids.keys().copied()).collect();
    let of_kind = |kind| findings.iter().filter(move |finding| finding.kind == kind);
    let stale: BTreeSet<&str> = of_kind(FindingKind::Stale).map(|finding| finding.table.as_str()).collect();
    for finding in of_kind(FindingKind::Rows).filter(|finding| !stale.contains(finding.table.as_str())) {
        voids.entry(&finding.table).or_insert_with(|| finding.problem.clone());
    }
    for table in &changed {
        for later in later_steps(project, table) {
            voids.entry(later).or_insert_with(|| format!("rows of `{table}` are looked for again"));
        }
    }
    let mut repairs = Vec::new();
    for stored in project.stored_tables() {
        let Some(problem) = voids.remove(stored.name.as_str()) else { continue };
        // A table that was never written has no mark.
        if project.session.lake().size(stored).await?.is_some() {
            let (table, remedy) = (stored.name.clone(), "its step runs again".to_owned());
            repairs.push(Repair { table, file: None, problem, remedy, left: false, deed: Deed::Void });
        }
    }
    for finding in findings {
        let Finding { table, file, problem, kind } = finding.clone();
        let (remedy, left, deed) = match kind {
            FindingKind::File => (format!("it is removed from the log; {}", outcome(&table)), false, Deed::Drop),
            FindingKind::Other => ("nothing is known to repair it".to_owned(), true, Deed::Nothing),
            FindingKind::Log | FindingKind::Stale | FindingKind::Rows => continue,
        };
        repairs.push(Repair { table, file, problem, remedy, left, deed });
    }
    Ok(repairs)
}

/// Does what is to be done about logs.
///
/// # Errors
/// Returns an error if the store does not read or write a file.
pub(crate) async fn repair_logs(lake: &Lake, repairs: &[Repair]) -> Result<()> {
    for repair in repairs {
        if let Deed::TakeOut(fault, aside) = &repair.deed {
            lake.take_out(fault, aside).await?;
        }
    }
    Ok(())
}

/// Does what is to be done about tables. Marks come first: if it is interrupted, the damaged files are found again.
///
/// # Errors
/// Returns an error if a log cannot be read or written.
pub(crate) async fn repair_tables(project: &Project, repairs: &[Repair], deep: bool) -> Result<()> {
    let lake = project.session.lake();
    let named = |name: &str| project.stored_tables().find(|table| table.name == name);
    let mut dropped: BTreeMap<&str, BTreeSet<String>> = BTreeMap::new();
    for repair in repairs {
        match (&repair.deed, &repair.file, named(&repair.table)) {
            (Deed::Void, _, Some(table)) => lake.reset(table).await?,
            (Deed::Drop, Some(file), _) => drop(dropped.entry(&repair.table).or_default().insert(file.clone())),
            _ => {}
        }
    }
    for (table, files) in dropped {
        if let Some(table) = named(table) {
            lake.drop_files(table, &files, deep).await?;
        }
    }
    Ok(())
}

/// Returns the steps that are not sure of their rows if those of `table` are made again: an image may be rejected that
/// was there before, and feedback may have other rows under the same version. A full-refresh table gets the same rows.
fn later_steps<'a>(project: &'a Project, table: &str) -> impl Iterator<Item = &'a str> {
    let steps = &project.plan.steps;
    let reads = |name| steps.iter().position(|step| step.query.tables.contains(name));
    let first = match project.plan.step(table).map(|step| &step.table.kind) {
        Some(Kind::FullRefresh) => None,
        Some(_) => steps.iter().position(|step| step.table.name == table).map(|index| index + 1),
        None if table == schema::REJECTS => Some(0),
        None if table == schema::FEEDBACK => reads(table),
        None => None,
    };
    steps.iter().skip(first.unwrap_or(steps.len())).map(|step| step.table.name.as_str())
}

/// Returns what becomes of the rows that a table has lost.
fn outcome(table: &str) -> &'static str {
    match schema::find(table).map(|Table { kind, .. }| kind) {
        Some(Kind::Log) => match table {
            schema::REJECTS => "the next `run` tries again what was rejected",
            schema::LEDGER => "what its units cost is lost, and nothing else",
            schema::FEEDBACK => "its rows are lost: import the trainer's files again with `feedback`",
            _ => "its rows are lost: run `experiment` again",
        },
        _ => "the next `run` makes its rows again",
    }
}
