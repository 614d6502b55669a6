//! Decides whether a step has to run, and finds what has changed since it ran.

use std::collections::{BTreeMap, BTreeSet};

use datafusion::prelude::col;

use super::Project;
use crate::{
    error::{Error, Result},
    plan::Step,
    schema::{self, Kind, REJECTS_TABLE, columns::Answer},
    session::Session,
};

const NEVER_RUN: &str = "it has never run";
const INCOMPLETE: &str = "it is incomplete";

/// Returns why each step of the project has to run, in order; `None` for a complete step. If the source and the models
/// were not opened, their changes go unnoticed; all others are found.
///
/// # Errors
/// Returns an error if the lake cannot be read.
pub(crate) async fn reasons(project: &Project) -> Result<Vec<Option<String>>> {
    let Project { session, plan, .. } = project;
    let recorded = recorded_parts(session).await?;
    let mut reasons = Vec::with_capacity(plan.steps.len());
    let mut stale = BTreeSet::new();
    for step in &plan.steps {
        let reason = match (mark(session, step).await?, step.fingerprint.value) {
            (Mark::Missing, _) => Some(NEVER_RUN.into()),
            (Mark::Incomplete, _) => Some(INCOMPLETE.into()),
            (Mark::Changed(reason), _) => Some(reason),
            (Mark::Complete(found), Some(value)) => changed_reason(step, found, value, &recorded),
            (Mark::Complete(found), None) => {
                let parts = recorded.get(&(step.table.name.clone(), found));
                known_reason(project, step, parts, &stale).await?
            }
        };
        stale.extend(reason.is_some().then_some(step.table.name.as_str()));
        reasons.push(reason);
    }
    Ok(reasons)
}

/// Returns why `step`, whose fingerprint is known, has to run; `None` if it is complete.
///
/// # Errors
/// Returns an error if the lake cannot be read.
pub(crate) async fn reason(session: &Session, step: &Step) -> Result<Option<String>> {
    let (found, value) = match (mark(session, step).await?, step.fingerprint.mark()) {
        (Mark::Missing, _) => return Ok(Some(NEVER_RUN.into())),
        (Mark::Incomplete, _) => return Ok(Some(INCOMPLETE.into())),
        (Mark::Changed(reason), _) => return Ok(Some(reason)),
        (Mark::Complete(found), value) if found == value => return Ok(None),
        (Mark::Complete(found), value) => (found, value),
    };
    Ok(changed_reason(step, found, value, &recorded_parts(session).await?))
}

/// Returns what has changed between the fingerprint `found` that the table of `step` carries and `value`, that of
/// `step`; `None` if they are equal.
fn changed_reason(step: &Step, found: i64, value: i64, recorded: &RecordedParts) -> Option<String> {
    if found == value {
        return None;
    }
    let recorded = recorded.get(&(step.table.name.clone(), found));
    Some(recorded.map_or_else(
        || "its inputs have changed".into(),
        |recorded| format!("changed: {}", changes(recorded, &step.fingerprint.parts)),
    ))
}

/// Returns what has changed of a step, as far as the pipeline's file and the lake show it. `recorded` are the parts of
/// the fingerprint that its table carries, `stale` the tables whose steps have to run.
async fn known_reason(
    project: &Project,
    step: &Step,
    recorded: Option<&Parts>,
    stale: &BTreeSet<&str>,
) -> Result<Option<String>> {
    let Some(recorded) = recorded else { return Ok(None) };
    let mut current = step.fingerprint.parts.clone();
    for name in recorded.keys().filter_map(|part| part.strip_prefix("table ")) {
        if let Some(fingerprint) = input_fingerprint(project, name, stale).await? {
            current.insert(format!("table {name}"), fingerprint);
        }
    }
    // The other recorded parts belong to inputs that were not opened.
    let recorded: Parts =
        recorded.iter().filter(|(name, _)| current.contains_key(*name)).map(|(n, v)| (n.clone(), v.clone())).collect();
    let changed = changes(&recorded, &current);
    Ok((!changed.is_empty()).then(|| format!("changed: {changed}")))
}

/// Returns the fingerprint of the table `name`, which a step reads, as the lake has it; `None` if it comes from the
/// source.
async fn input_fingerprint(project: &Project, name: &str, stale: &BTreeSet<&str>) -> Result<Option<String>> {
    if name == schema::FEEDBACK {
        return Ok(Some(project.feedback.map_or(String::new(), |version| format!("version {version}"))));
    }
    let Some(step) = project.plan.step(name) else { return Ok(None) };
    if stale.contains(name) {
        return Ok(Some("stale".into()));
    }
    match mark(&project.session, step).await? {
        Mark::Complete(found) => Ok(Some(format!("{found:016x}"))),
        Mark::Changed(_) | Mark::Incomplete | Mark::Missing => Ok(Some("incomplete".into())),
    }
}

/// The state of a step's table in the lake.
enum Mark {
    Missing,
    Incomplete,
    /// Complete once, but another program has changed it, for this reason.
    Changed(String),
    /// With the fingerprint of the step that completed the table.
    Complete(i64),
}

async fn mark(session: &Session, step: &Step) -> Result<Mark> {
    let Some(reading) = session.lake().read(&step.table).await? else { return Ok(Mark::Missing) };
    if let Some(version) = reading.changed {
        return Ok(Mark::Changed(format!("another program changed it in version {version}")));
    }
    let Some(found) = reading.fingerprint else { return Ok(Mark::Incomplete) };
    // A row that is neither in the table nor in `rejects` is missing.
    if let Kind::Incremental { .. } = step.table.kind
        && let Some(version) = session.lake().changed(&REJECTS_TABLE).await?
    {
        return Ok(Mark::Changed(format!("another program changed `rejects` in version {version}")));
    }
    Ok(Mark::Complete(found))
}

/// The parts of the fingerprints with which steps were completed, by step and fingerprint, as the ledger recorded them.
type RecordedParts = BTreeMap<(String, i64), Parts>;
type Parts = BTreeMap<String, String>;

async fn recorded_parts(session: &Session) -> Result<RecordedParts> {
    let fail = |error| Error::query(schema::LEDGER, error);
    let context = session.context(&session.snapshot().await?)?;
    let rows = context.table(schema::LEDGER).await.map_err(fail)?;
    let completions = rows
        .filter(col("parts").is_not_null())
        .and_then(|rows| rows.select_columns(&["step", "fingerprint", "parts"]))
        .map_err(fail)?;
    let answer = Answer { query: schema::LEDGER.into(), batches: completions.collect().await.map_err(fail)? };
    let mut recorded = BTreeMap::new();
    for columns in answer.columns() {
        let (steps, fingerprints) = (columns.strings("step")?, columns.strings("fingerprint")?);
        let parts = columns.strings("parts")?;
        for row in 0..columns.rows() {
            let fingerprint = i64::from_str_radix(fingerprints.value(row), 16);
            if let (Ok(fingerprint), Ok(parts)) = (fingerprint, serde_json::from_str(parts.value(row))) {
                recorded.insert((steps.value(row).to_owned(), fingerprint), parts);
            }
        }
    }
    Ok(recorded)
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
