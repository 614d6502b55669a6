//! What other writers may have made of a table: features of the Delta protocol that this program does not write, and
//! columns that it does not know.

use deltalake_core::{
    kernel::{
        schema::{StructField, StructType},
        transaction::{PROTOCOL, TransactionError},
    },
    table::state::DeltaTableState,
};

use super::{Lake, error::LakeError};
use crate::{
    error::Result,
    schema::{self, Kind, Table},
};

/// Metadata of a column that its values have to follow, and what it is called.
const COLUMN_RULES: [(&str, &str); 4] = [
    ("delta.generationExpression", "is generated"),
    ("delta.identity.start", "is an identity"),
    ("delta.invariants", "has an invariant"),
    ("CURRENT_DEFAULT", "has a default"),
];

impl Lake {
    /// Checks that this program can write the table as other writers left it. A table that was never written can be.
    ///
    /// # Errors
    /// Returns an error that names what it cannot write.
    pub(crate) async fn check(&self, table: &Table) -> Result<()> {
        let mut tables = self.tables.lock().await;
        let Some(open) = self.refresh(&mut tables, table).await? else { return Ok(()) };
        self.check_state(open.delta.snapshot().map_err(self.fail(table, "its log cannot be read"))?, table)
    }

    pub(super) fn check_state(&self, state: &DeltaTableState, table: &Table) -> Result<()> {
        match problem(state, table, &self.columns(table)?) {
            Some(problem) => Err(LakeError::Foreign { url: self.url(table), problem }.into()),
            None => Ok(()),
        }
    }
}

/// Returns what keeps this program from writing a table, or `None`.
fn problem(state: &DeltaTableState, table: &Table, columns: &StructType) -> Option<String> {
    let is_replaced = table.kind == Kind::FullRefresh;
    // The query of a user-defined step decides its columns, and replaces those that are there.
    let keeps_columns = !is_replaced || schema::find(&table.name).is_some();
    unsupported_features(state)
        .or_else(|| unsupported_setting(state, is_replaced))
        .or_else(|| state.schema().fields().find_map(column_rule))
        .or_else(|| if is_replaced { None } else { columns.fields().find_map(|column| unfit(state, column)) })
        .or_else(
            || if keeps_columns { state.schema().fields().find_map(|field| required(columns, field)) } else { None },
        )
}

/// Features that the library does not write either. It would say so only at the commit, after data files are written.
fn unsupported_features(state: &DeltaTableState) -> Option<String> {
    match PROTOCOL.can_write_to(state.snapshot()) {
        Ok(()) => None,
        Err(TransactionError::UnsupportedTableFeatures(features)) => {
            let mut names: Vec<_> = features.iter().map(|feature| format!("`{feature}`")).collect();
            names.sort_unstable();
            Some(format!("it has the table {} {}", plural("feature", &names), names.join(", ")))
        }
        Err(error) => Some(error.to_string()),
    }
}

/// Features that the library leaves to its own operations, which this program does not use.
fn unsupported_setting(state: &DeltaTableState, is_replaced: bool) -> Option<String> {
    let (configuration, partitions) = (state.metadata().configuration(), state.metadata().partition_columns());
    let is = |name: &str, value: &str| configuration.get(name).is_some_and(|found| found.eq_ignore_ascii_case(value));
    let mut constraints: Vec<_> =
        configuration.keys().filter_map(|key| key.strip_prefix("delta.constraints.")).map(quoted).collect();
    constraints.sort_unstable();
    if configuration.get("delta.columnMapping.mode").is_some_and(|mode| !mode.eq_ignore_ascii_case("none")) {
        Some("it maps its columns to other names (`delta.columnMapping.mode`)".to_owned())
    } else if !partitions.is_empty() {
        Some(format!("it is partitioned by {}", partitions.iter().map(quoted).collect::<Vec<_>>().join(", ")))
    } else if !constraints.is_empty() {
        Some(format!("it has the {} {}", plural("constraint", &constraints), constraints.join(", ")))
    } else if is_replaced && is("delta.appendOnly", "true") {
        Some("its rows cannot be replaced (`delta.appendOnly`)".to_owned())
    } else {
        None
    }
}

fn column_rule(field: &StructField) -> Option<String> {
    let (_, rule) = COLUMN_RULES.iter().find(|(key, _)| field.metadata.contains_key(*key))?;
    Some(format!("its column `{}` {rule}", field.name))
}

/// Returns what is wrong with a column that this program writes.
fn unfit(state: &DeltaTableState, column: &StructField) -> Option<String> {
    match state.schema().field(&column.name) {
        // An earlier version of this program did not write it; the next commit adds it.
        None => None,
        Some(found) if found.data_type != column.data_type => {
            Some(format!("its column `{}` is {}, expected {}", column.name, found.data_type, column.data_type))
        }
        Some(found) if !found.nullable => Some(format!("its column `{}` must not be null", column.name)),
        Some(_) => None,
    }
}

/// Returns what is wrong with a column that other writers added: our rows have no value for it.
fn required(columns: &StructType, field: &StructField) -> Option<String> {
    let ours = columns.field(&field.name).is_some();
    (!ours && !field.nullable)
        .then(|| format!("its column `{}`, which another program added, must not be null", field.name))
}

fn quoted(name: impl std::fmt::Display) -> String {
    format!("`{name}`")
}

fn plural(noun: &str, names: &[String]) -> String {
    format!("{noun}{}", if names.len() == 1 { "" } else { "s" })
}
