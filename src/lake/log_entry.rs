//! One entry of a table's log, as far as it tells what a writer has done. The library keeps only what is live.

use std::collections::BTreeMap;

use deltalake_core::{DeltaTableError, logstore::LogStore};
use serde::Deserialize;
use serde_json::Value;

/// Under this name, the information about our commits has the ids of the rows of each file that they add.
pub(super) const ANNOUNCED_IDS: &str = "discl-pipe/ids";

/// An entry.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct LogEntry {
    /// What the writer calls its operation, such as `DELETE`.
    pub(super) operation: String,
    /// Whether it adds or removes rows, which compaction does not.
    pub(super) changes_data: bool,
    /// Names of the files that it adds and removes.
    pub(super) added: Vec<String>,
    pub(super) removed: Vec<String>,
    /// Application transactions: ids and versions.
    pub(super) transactions: Vec<(String, i64)>,
    /// The ids in each file that the entry adds, if it says so.
    pub(super) ids: BTreeMap<String, Vec<String>>,
}

impl LogEntry {
    /// Reads an entry; `None` if it was cleaned up or cannot be understood, and can have done anything.
    pub(super) async fn read(log: &dyn LogStore, version: u64) -> Result<Option<Self>, DeltaTableError> {
        let bytes = log.read_commit_entry(version).await?;
        Ok(bytes.and_then(|bytes| Self::parse(&bytes)))
    }

    pub(super) fn parse(bytes: &[u8]) -> Option<Self> {
        let mut lines = bytes.split(|&byte| byte == b'\n').filter(|line| !line.trim_ascii().is_empty()).peekable();
        // An empty entry has lost what it had.
        lines.peek()?;
        let mut entry = Self::default();
        for line in lines {
            entry.take(&serde_json::from_slice(line).ok()?);
        }
        Some(entry)
    }

    fn take(&mut self, action: &Value) {
        let text = |value: &Value, key: &str| value.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
        if let Some(info) = action.get("commitInfo") {
            self.operation = text(info, "operation");
            self.ids = info.get(ANNOUNCED_IDS).and_then(|ids| BTreeMap::deserialize(ids).ok()).unwrap_or_default();
        }
        for (kind, files) in [("add", &mut self.added), ("remove", &mut self.removed)] {
            if let Some(file) = action.get(kind) {
                self.changes_data |= file.get("dataChange").and_then(Value::as_bool) != Some(false);
                files.push(text(file, "path"));
            }
        }
        if let Some(transaction) = action.get("txn")
            && let Some(version) = transaction.get("version").and_then(Value::as_i64)
        {
            self.transactions.push((text(transaction, "appId"), version));
        }
    }

    /// Returns the version of an application transaction.
    pub(super) fn transaction(&self, id: &str) -> Option<i64> {
        self.transactions.iter().find(|(found, _)| found == id).map(|(_, version)| *version)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_change_of_rows_changes_data() {
        let changes = |entry: &str| LogEntry::parse(entry.as_bytes()).map(|entry| entry.changes_data);
        assert_eq!(changes(r#"{"commitInfo":{}}"#), Some(false));
        assert_eq!(changes("{\"add\":{\"dataChange\":false}}\n{\"remove\":{\"dataChange\":false}}\n"), Some(false));
        assert_eq!(changes(r#"{"remove":{"path":"a","dataChange":true}}"#), Some(true));
        assert_eq!(changes(r#"{"add":{"path":"a"}}"#), Some(true), "a field that is missing promises nothing");
        assert_eq!((changes("half an ent"), changes("\n")), (None, None));
    }
}
