//! Creates every `SessionContext`: the tables of a pipeline as of one moment, with every function.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use arrow::{
    array::RecordBatch,
    datatypes::{Field, SchemaRef},
};
use datafusion::{
    catalog::TableProvider,
    common::ScalarValue,
    dataframe::DataFrame,
    datasource::{MemTable, ViewTable, provider_as_source},
    execution::{
        SessionStateBuilder,
        memory_pool::FairSpillPool,
        runtime_env::{RuntimeEnv, RuntimeEnvBuilder},
    },
    logical_expr::LogicalPlanBuilder,
    prelude::{Expr, SQLOptions, SessionConfig, SessionContext, col, ident, lit},
    sql::sqlparser::ast::Statement,
};

use crate::{
    error::{Error, Result},
    lake::{Lake, Reading},
    models::Models,
    schema::{self, Table},
    udf::{Functions, Meter},
};

/// Bytes that a partition of a query needs if memory is limited: its sorts and exchanges get equal shares, and each has to
/// hold a few batches before it can spill to disk.
const PARTITION_MEMORY: usize = 512 << 20;

/// How queries run on this machine; their results do not depend on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Settings {
    /// Partitions of a query; fewer if memory is limited.
    pub(crate) target_partitions: usize,
    /// Rows per batch.
    pub(crate) batch_size: usize,
    /// Bytes that sorts, joins and groups may use together; `None` for no limit.
    pub(crate) memory_limit: Option<usize>,
}

impl Default for Settings {
    fn default() -> Self {
        let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        Self { target_partitions: cores, batch_size: 8192, memory_limit: None }
    }
}

/// The tables and functions of a pipeline, from which contexts are created.
#[derive(Debug)]
pub(crate) struct Session {
    lake: Arc<Lake>,
    functions: Arc<dyn Functions>,
    /// Every table: built-in ones, and those of user-defined steps.
    tables: Vec<Table>,
    /// The rows of the tables that are never written.
    inputs: Vec<(String, RecordBatch)>,
    settings: Settings,
    runtime: Arc<RuntimeEnv>,
}

/// The tables as they were at one moment. Contexts created from it see nothing newer.
#[derive(Debug, Clone)]
pub(crate) struct Snapshot {
    providers: BTreeMap<String, Arc<dyn TableProvider>>,
    /// The tables that exist in the lake.
    found: BTreeMap<String, Found>,
}

/// A table of the lake.
#[derive(Debug, Clone, Copy)]
struct Found {
    version: u64,
    fingerprint: Option<i64>,
    changed: Option<u64>,
}

impl Session {
    /// Creates a session on `lake` with `tables`; `inputs` are the rows of those that are never written.
    ///
    /// # Errors
    /// Returns an error if DataFusion's runtime cannot be set up.
    pub(crate) fn new(
        lake: Arc<Lake>,
        functions: Arc<dyn Functions>,
        tables: Vec<Table>,
        inputs: Vec<(String, RecordBatch)>,
        settings: Settings,
    ) -> Result<Self> {
        let partitions = settings.memory_limit.map_or(usize::MAX, |limit| (limit / PARTITION_MEMORY).max(1));
        let settings = Settings { target_partitions: settings.target_partitions.min(partitions), ..settings };
        let runtime = match settings.memory_limit {
            // Operators that can spill to disk share the memory fairly.
            Some(limit) => RuntimeEnvBuilder::new().with_memory_pool(Arc::new(FairSpillPool::new(limit))),
            None => RuntimeEnvBuilder::new(),
        };
        let runtime = runtime.build_arc().map_err(|error| Error::query("session", error))?;
        let location = lake.location();
        runtime.register_object_store(&location.url, Arc::clone(&location.store));
        Ok(Self { lake, functions, tables, inputs, settings, runtime })
    }

    /// Adds the tables of user-defined steps.
    pub(crate) fn with_tables(mut self, user_tables: Vec<Table>) -> Self {
        self.tables.extend(user_tables);
        self
    }

    pub(crate) fn lake(&self) -> &Arc<Lake> {
        &self.lake
    }

    /// Returns every table: built-in ones, and those of user-defined steps.
    pub(crate) fn tables(&self) -> &[Table] {
        &self.tables
    }

    /// Returns the rows of the table `name`, which is never written; `None` if there is no such table.
    pub(crate) fn input(&self, name: &str) -> Option<&RecordBatch> {
        self.inputs.iter().find(|(input, _)| input == name).map(|(_, rows)| rows)
    }

    /// Returns the models that the functions call; `None` if they were not opened.
    pub(crate) fn models(&self) -> Option<&Models> {
        self.functions.models()
    }

    /// Takes a snapshot of the tables as they are now; those that were never written are empty.
    ///
    /// # Errors
    /// Returns an error if a table's log cannot be read.
    pub(crate) async fn snapshot(&self) -> Result<Snapshot> {
        let mut snapshot = Snapshot { providers: BTreeMap::new(), found: BTreeMap::new() };
        // A later step is read before its inputs. So if they change meanwhile, and it is marked as incomplete for that, rows
        // that are computed from the inputs of before cannot replace it.
        for table in self.tables().iter().rev() {
            let reading = if table.is_stored() { self.lake.read(table).await? } else { None };
            match reading {
                Some(reading) => {
                    let Reading { provider, version, fingerprint, changed } = reading;
                    snapshot.found.insert(table.name.clone(), Found { version, fingerprint, changed });
                    snapshot.providers.insert(table.name.clone(), with_new_columns(table, provider)?);
                }
                None => snapshot.set(&table.name, Arc::clone(&table.schema), Vec::new())?,
            }
        }
        for (name, batch) in &self.inputs {
            snapshot.set(name, batch.schema(), vec![batch.clone()])?;
        }
        Ok(snapshot)
    }

    /// Returns every table without rows, which is enough to plan a query.
    ///
    /// # Errors
    /// Returns an error if a table cannot be created in memory.
    pub(crate) fn empty(&self) -> Result<Snapshot> {
        let mut snapshot = Snapshot { providers: BTreeMap::new(), found: BTreeMap::new() };
        for table in &self.tables {
            snapshot.set(&table.name, Arc::clone(&table.schema), Vec::new())?;
        }
        Ok(snapshot)
    }

    /// Creates a context on `snapshot`.
    ///
    /// # Errors
    /// Returns an error if a table or function cannot be registered.
    pub(crate) fn context(&self, snapshot: &Snapshot) -> Result<SessionContext> {
        self.metered_context(snapshot, &Arc::default(), self.settings.batch_size)
    }

    /// Creates a context whose batches have at most `batch_size` rows, for queries whose rows hold images.
    ///
    /// # Errors
    /// Returns an error if a table or function cannot be registered.
    pub(crate) fn image_context(&self, snapshot: &Snapshot, batch_size: usize) -> Result<SessionContext> {
        self.metered_context(snapshot, &Arc::default(), batch_size)
    }

    /// Creates a context like [`Session::image_context`], and counts in `meter` what the calls of its functions cost.
    ///
    /// # Errors
    /// Returns an error if a table or function cannot be registered.
    pub(crate) fn metered_context(
        &self,
        snapshot: &Snapshot,
        meter: &Arc<Meter>,
        batch_size: usize,
    ) -> Result<SessionContext> {
        let config = SessionConfig::new()
            .with_target_partitions(self.settings.target_partitions)
            .with_batch_size(batch_size.min(self.settings.batch_size))
            .with_information_schema(true)
            // A query that needs few images of a table reads only their pages.
            .set_bool("datafusion.execution.parquet.pushdown_filters", true);
        let state = SessionStateBuilder::new()
            .with_config(config)
            .with_runtime_env(Arc::clone(&self.runtime))
            .with_default_features()
            .build();
        let mut context = SessionContext::new_with_state(state);
        self.functions.register(&mut context, meter)?;
        for (name, provider) in &snapshot.providers {
            context
                .register_table(name.as_str(), Arc::clone(provider))
                .map_err(|error| Error::query(name.clone(), error))?;
        }
        Ok(context)
    }
}

impl Snapshot {
    /// Returns Delta's version of the table `name`; `None` if it was never written.
    pub(crate) fn version(&self, name: &str) -> Option<u64> {
        self.found.get(name).map(|found| found.version)
    }

    /// Returns the fingerprint of the step that completed the table `name`; `None` if the table is incomplete.
    pub(crate) fn fingerprint(&self, name: &str) -> Option<i64> {
        self.found.get(name).and_then(|found| found.fingerprint)
    }

    /// Returns the version in which another program has changed the table `name` after its step completed it.
    pub(crate) fn changed(&self, name: &str) -> Option<u64> {
        self.found.get(name).and_then(|found| found.changed)
    }

    /// Replaces the table `name` by rows in memory.
    ///
    /// # Errors
    /// Returns an error if the rows do not have the columns of `schema`.
    pub(crate) fn set(&mut self, name: &str, schema: SchemaRef, rows: Vec<RecordBatch>) -> Result<()> {
        self.providers.insert(name.to_owned(), memory_table(name, schema, rows)?);
        Ok(())
    }

    /// Keeps only the rows of the table `name` whose `source_id` is one of `sources`. Files of other sources are not
    /// opened, and only the necessary pages of the others are read.
    ///
    /// # Errors
    /// Returns an error if the table has no such column.
    pub(crate) fn restrict(&mut self, name: &str, sources: &BTreeSet<&str>) -> Result<()> {
        self.narrow(name, schema::SOURCE_ID, sources)
    }

    /// Keeps only the rows of the table `name` whose string in `column` is one of `values`.
    ///
    /// # Errors
    /// Returns an error if the table has no such column.
    pub(crate) fn narrow(&mut self, name: &str, column: &str, values: &BTreeSet<&str>) -> Result<()> {
        let Some(provider) = self.providers.get(name) else { return Ok(()) };
        let fail = |error| Error::query(name, error);
        let values = values.iter().map(|&value| lit(value)).collect();
        let plan = LogicalPlanBuilder::scan(name, provider_as_source(Arc::clone(provider)), None)
            .and_then(|scan| scan.filter(col(column).in_list(values, false)))
            .and_then(LogicalPlanBuilder::build)
            .map_err(fail)?;
        self.providers.insert(name.to_owned(), Arc::new(ViewTable::new(plan, None)));
        Ok(())
    }
}

/// Adds the columns that an earlier version of this program did not write, as NULL.
fn with_new_columns(table: &Table, provider: Arc<dyn TableProvider>) -> Result<Arc<dyn TableProvider>> {
    let found = provider.schema();
    let is_new = |field: &&Arc<Field>| found.field_with_name(field.name()).is_err();
    let new: Vec<&Arc<Field>> = table.schema.fields().iter().filter(is_new).collect();
    if new.is_empty() {
        return Ok(provider);
    }
    let fail = |error| Error::query(&table.name, error);
    let mut columns: Vec<Expr> = found.fields().iter().map(|field| ident(field.name())).collect();
    for field in new {
        let null = ScalarValue::try_from(field.data_type()).map_err(fail)?;
        columns.push(lit(null).alias(field.name()));
    }
    let plan = LogicalPlanBuilder::scan(table.name.as_str(), provider_as_source(provider), None)
        .and_then(|scan| scan.project(columns))
        .and_then(LogicalPlanBuilder::build)
        .map_err(fail)?;
    Ok(Arc::new(ViewTable::new(plan, None)))
}

fn memory_table(name: &str, schema: SchemaRef, rows: Vec<RecordBatch>) -> Result<Arc<dyn TableProvider>> {
    let table = MemTable::try_new(schema, vec![rows]).map_err(|error| Error::query(name, error))?;
    Ok(Arc::new(table))
}

/// Returns the options of a query that may only read.
pub(crate) fn reading() -> SQLOptions {
    SQLOptions::new().with_allow_ddl(false).with_allow_dml(false).with_allow_statements(false)
}

/// Plans `statement` without running it. It cannot write: only queries are parsed into statements, and their plans are
/// checked once more.
///
/// # Errors
/// Returns an error with `name` if the statement cannot be planned.
pub(crate) async fn query(context: &SessionContext, name: &str, statement: &Statement) -> Result<DataFrame> {
    let statement = datafusion::sql::parser::Statement::Statement(Box::new(statement.clone()));
    let plan = context.state().statement_to_plan(statement).await.map_err(|error| Error::query(name, error))?;
    reading().verify_plan(&plan).map_err(|error| Error::query(name, error))?;
    context.execute_logical_plan(plan).await.map_err(|error| Error::query(name, error))
}
