//! Checks that the files of a table exist, are complete, and have the content that their names promise.

use super::{Lake, data_file::matches_name};
use crate::{
    error::{Result, chain},
    schema::Table,
};

/// A violation.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub(crate) struct Finding {
    pub(crate) table: String,
    pub(crate) problem: String,
}

/// Reads every live file of `table`, and compares its size and digest with the log and its name.
///
/// # Errors
/// Returns an error if the log cannot be read. A file that cannot be read is a finding.
pub(crate) async fn verify_files(lake: &Lake, table: &Table) -> Result<Vec<Finding>> {
    let mut findings = Vec::new();
    for (name, size) in lake.live_files(table).await?.unwrap_or_default() {
        let problem = match lake.location().get(&format!("{}/{name}", table.name)).await {
            Err(error) => Some(format!("file `{name}` cannot be read: {}", chain(&error))),
            Ok(None) => Some(format!("file `{name}` does not exist")),
            Ok(Some(bytes)) if bytes.len() as u64 != size => {
                Some(format!("file `{name}` has {} bytes, its commit says {size}", bytes.len()))
            }
            Ok(Some(bytes)) if matches_name(&name, &bytes) == Some(false) => {
                Some(format!("file `{name}` does not have the content that its name promises"))
            }
            Ok(Some(_)) => None,
        };
        findings.extend(problem.map(|problem| Finding { table: table.name.clone(), problem }));
    }
    Ok(findings)
}
