//! Whether the files of a table are there, whole, and what their names say.

use std::collections::BTreeMap;

use object_store::ObjectStoreExt;

use super::{Lake, data_file::matches_name, live_files};
use crate::{error::Result, schema::Table};

/// Something that should not be so.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Finding {
    /// The table.
    pub table: String,
    /// What is wrong, with names and numbers.
    pub problem: String,
}

/// Reads every live file of `table` and compares its size and digest with what the log and its name say.
///
/// # Errors
/// Where the log cannot be read; a file that cannot be read is a finding.
pub async fn verify_files(lake: &Lake, table: &Table) -> Result<Vec<Finding>> {
    let mut findings = Vec::new();
    for (name, size) in live(lake, table).await? {
        let path = lake.location().path(&format!("{}/{name}", table.name));
        let problem = match lake.location().store.get(&path).await {
            Err(error) => Some(format!("file `{name}` cannot be read: {error}")),
            Ok(found) => match found.bytes().await {
                Err(error) => Some(format!("file `{name}` cannot be read: {error}")),
                Ok(bytes) if i64::try_from(bytes.len()) != Ok(size) => {
                    Some(format!("file `{name}` has {} bytes, its commit says {size}", bytes.len()))
                }
                Ok(bytes) if matches_name(&name, &bytes) == Some(false) => {
                    Some(format!("file `{name}` has not the content that its name says"))
                }
                Ok(_) => None,
            },
        };
        findings.extend(problem.map(|problem| Finding { table: table.name.clone(), problem }));
    }
    Ok(findings)
}

async fn live(lake: &Lake, table: &Table) -> Result<BTreeMap<String, i64>> {
    let mut open = lake.open.lock().await;
    if !lake.refresh(&mut open, table).await? {
        return Ok(BTreeMap::new());
    }
    let Some(found) = open.get(&table.name) else { return Ok(BTreeMap::new()) };
    live_files(&found.delta).map_err(lake.fail(&table.name, "its log cannot be read"))
}
