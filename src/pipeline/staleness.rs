//! Whether the step of a table has to run, and what has changed since it ran.

use std::collections::{BTreeMap, BTreeSet};

use datafusion::prelude::{col, lit};

use super::Project;
use crate::{
    error::{Error, Result},
    plan::{Plan, Step},
    schema::{self, columns::Answer},
    session::Session,
};

const NEVER_RUN: &str = "it has never run";
const INCOMPLETE: &str = "it is incomplete";

/// Why each step of the project has to run, in order; `None` for a step that is complete. If neither the source nor the
/// models were opened, changes of these are not noticed, and all others are.
///
/// # Errors
/// Returns an error if the lake cannot be read.
pub(crate) async fn reasons(project: &Project) -> Result<Vec<Option<String>>> {
    let Project { session, plan, .. } = project;
    let mut reasons = Vec::with_capacity(plan.steps.len());
    let mut stale = BTreeSet::new();
    for step in &plan.steps {
        let reason = match project.knows_its_inputs() {
            true => reason(session, step).await?,
            false => known_reason(project, step, &stale).await?,
        };
        stale.extend(reason.is_some().then_some(step.table.name.as_str()));
        reasons.push(reason);
    }
    Ok(reasons)
}

/// Why `step` has to run; `None` if it is complete.
///
/// # Errors
/// Returns an error if the lake cannot be read.
pub(crate) async fn reason(session: &Session, step: &Step) -> Result<Option<String>> {
    let found = match mark(session, step).await? {
        Mark::Complete(found) if Some(found) == step.fingerprint.value => return Ok(None),
        Mark::Complete(found) => found,
        Mark::Incomplete => return Ok(Some(INCOMPLETE.into())),
        Mark::Missing => return Ok(Some(NEVER_RUN.into())),
    };
    let recorded = recorded_parts(session, &step.table.name, found).await?;
    Ok(Some(recorded.map_or_else(
        || "its inputs have changed".into(),
        |recorded| format!("changed: {}", changes(&recorded, &step.fingerprint.parts)),
    )))
}

/// The same, as far as the pipeline's file and the lake tell. `stale` are the tables whose steps have to run.
async fn known_reason(project: &Project, step: &Step, stale: &BTreeSet<&str>) -> Result<Option<String>> {
    let Project { session, plan, .. } = project;
    let found = match mark(session, step).await? {
        Mark::Complete(found) => found,
        Mark::Incomplete => return Ok(Some(INCOMPLETE.into())),
        Mark::Missing => return Ok(Some(NEVER_RUN.into())),
    };
    let Some(mut recorded) = recorded_parts(session, &step.table.name, found).await? else { return Ok(None) };
    let mut current = step.fingerprint.parts.clone();
    recorded.retain(|name, _| current.contains_key(name) || name.starts_with("table "));
    for name in recorded.keys().filter_map(|part| part.strip_prefix("table ")) {
        if let Some(fingerprint) = input_fingerprint(project, plan, name, stale).await? {
            current.insert(format!("table {name}"), fingerprint);
        }
    }
    // What is left in `recorded` alone are inputs that were not opened.
    recorded.retain(|name, _| current.contains_key(name));
    let changed = changes(&recorded, &current);
    Ok((!changed.is_empty()).then(|| format!("changed: {changed}")))
}

/// The fingerprint of the input table `name` as the lake has it; `None` if only the source tells.
async fn input_fingerprint(
    project: &Project,
    plan: &Plan,
    name: &str,
    stale: &BTreeSet<&str>,
) -> Result<Option<String>> {
    if name == schema::FEEDBACK {
        return Ok(Some(project.feedback.map_or(String::new(), |version| format!("version {version}"))));
    }
    let Some(step) = plan.step(name) else { return Ok(None) };
    if stale.contains(name) {
        return Ok(Some("stale".into()));
    }
    match mark(&project.session, step).await? {
        Mark::Complete(found) => Ok(Some(format!("{found:016x}"))),
        Mark::Incomplete | Mark::Missing => Ok(Some("incomplete".into())),
    }
}

/// What the lake says of a step.
enum Mark {
    Missing,
    Incomplete,
    /// With the fingerprint of the step that completed the table.
    Complete(i64),
}

async fn mark(session: &Session, step: &Step) -> Result<Mark> {
    Ok(match session.lake().read(&step.table).await?.map(|reading| reading.fingerprint) {
        None => Mark::Missing,
        Some(None) => Mark::Incomplete,
        Some(Some(found)) => Mark::Complete(found),
    })
}

/// The parts of the fingerprint that completed `step`, as the ledger recorded them.
async fn recorded_parts(session: &Session, step: &str, fingerprint: i64) -> Result<Option<BTreeMap<String, String>>> {
    let fail = |error| Error::query(schema::LEDGER, error);
    let context = session.context(&session.snapshot().await?)?;
    let rows = context.table(schema::LEDGER).await.map_err(fail)?;
    let wanted = col("step")
        .eq(lit(step))
        .and(col("fingerprint").eq(lit(format!("{fingerprint:016x}"))))
        .and(col("parts").is_not_null());
    let found = rows.filter(wanted).and_then(|rows| rows.select_columns(&["parts"])).map_err(fail)?;
    let answer = Answer { query: schema::LEDGER.into(), batches: found.collect().await.map_err(fail)? };
    for columns in answer.columns() {
        let parts = columns.strings("parts")?;
        if let Some(parts) = parts.iter().flatten().find_map(|text| serde_json::from_str(text).ok()) {
            return Ok(Some(parts));
        }
    }
    Ok(None)
}

fn changes(old: &BTreeMap<String, String>, new: &BTreeMap<String, String>) -> String {
    let names: BTreeSet<_> = old.keys().chain(new.keys()).collect();
    let changed = names.into_iter().filter(|name| old.get(*name) != new.get(*name));
    let described: Vec<_> = changed
        .map(|name| match (old.get(name), new.get(name)) {
            (Some(old), Some(new)) if name.starts_with('$') && name != "$generator" && name != "$clip" => {
                format!("`{name}` from {old} to {new}")
            }
            _ => name.trim_start_matches('$').to_owned(),
        })
        .collect();
    described.join(", ")
}
