//! Whether the step of a table has to run, and what has changed since it ran.

use std::{collections::BTreeMap, sync::Arc};

use crate::{
    error::{Error, Result},
    plan::Step,
    schema::{self, Table, conform},
    session::Session,
};

/// Why `step` has to run; `None` where it is complete.
///
/// # Errors
/// Where the lake cannot be read.
pub async fn why(session: &Session, own: &[Table], step: &Step) -> Result<Option<String>> {
    let found = match session.lake().read(&step.table).await?.map(|reading| reading.fingerprint) {
        Some(Some(found)) if found == step.fingerprint.value => return Ok(None),
        Some(Some(found)) => found,
        Some(None) => return Ok(Some("it is not complete".into())),
        None => return Ok(Some("it was never made".into())),
    };
    let old = recorded_parts(session, own, &step.table.name, found).await?;
    Ok(Some(match old {
        Some(old) => format!("changed: {}", changes(&old, &step.fingerprint.parts)),
        None => "what it is made from has changed".into(),
    }))
}

async fn recorded_parts(
    session: &Session,
    own: &[Table],
    step: &str,
    fingerprint: i64,
) -> Result<Option<BTreeMap<String, String>>> {
    use datafusion::prelude::{col, lit};
    let fail = |error| Error::query(schema::LEDGER, error);
    let context = session.context(&session.snapshot(own).await?, &Arc::default())?;
    let rows = context.table(schema::LEDGER).await.map_err(fail)?;
    let wanted = col("step")
        .eq(lit(step))
        .and(col("fingerprint").eq(lit(format!("{fingerprint:016x}"))))
        .and(col("parts").is_not_null());
    let found = rows.filter(wanted).and_then(|rows| rows.select_columns(&["parts"])).map_err(fail)?;
    let batches = found.collect().await.map_err(fail)?;
    let texts = batches.iter().map(|batch| conform::text_column(batch, "parts"));
    Ok(texts
        .flat_map(|texts| texts.iter().flatten().map(str::to_owned).collect::<Vec<_>>())
        .find_map(|text| serde_json::from_str(&text).ok()))
}

fn changes(old: &BTreeMap<String, String>, new: &BTreeMap<String, String>) -> String {
    let names: std::collections::BTreeSet<_> = old.keys().chain(new.keys()).collect();
    let changed = names.into_iter().filter(|name| old.get(*name) != new.get(*name));
    let said: Vec<_> = changed
        .map(|name| match (old.get(name), new.get(name)) {
            (Some(old), Some(new)) if name.starts_with('$') && name != "$generator" && name != "$clip" => {
                format!("`{name}` from {old} to {new}")
            }
            _ => name.trim_start_matches('$').to_owned(),
        })
        .collect();
    said.join(", ")
}
