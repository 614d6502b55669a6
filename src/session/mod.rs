//! The only maker of a `SessionContext`: the tables of a pipeline, as of one moment, with every function.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use arrow::{array::RecordBatch, datatypes::SchemaRef};
use datafusion::{
    catalog::TableProvider,
    dataframe::DataFrame,
    datasource::{MemTable, ViewTable, provider_as_source},
    execution::{
        SessionStateBuilder,
        memory_pool::FairSpillPool,
        runtime_env::{RuntimeEnv, RuntimeEnvBuilder},
    },
    logical_expr::LogicalPlanBuilder,
    prelude::{SQLOptions, SessionConfig, SessionContext, col, lit},
    sql::sqlparser::ast::Statement,
};

use crate::{
    error::{Error, Result},
    lake::Lake,
    schema::{self, Kind, Table},
    udf::{self, Meter},
};

/// Bytes that a partition of a query needs where memory is limited: its sorts and exchanges get equal shares, and each
/// has to hold a few batches before it can go to disk.
const PARTITION_MEMORY: usize = 512 << 20;

/// How queries run here; never what they mean.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Settings {
    /// Partitions that a query is run in; fewer where memory is limited.
    pub target_partitions: usize,
    /// Rows of a batch.
    pub batch_size: usize,
    /// Bytes that sorts, joins and groups may take together; as many as there are where it is not said.
    pub memory_limit: Option<usize>,
}

impl Default for Settings {
    fn default() -> Self {
        let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        Self { target_partitions: cores, batch_size: 8192, memory_limit: None }
    }
}

/// Everything that a context is made from.
#[derive(Debug)]
pub struct Session {
    lake: Arc<Lake>,
    functions: udf::Context,
    given: Vec<(String, RecordBatch)>,
    settings: Settings,
    runtime: Arc<RuntimeEnv>,
}

/// The tables as they were at one moment. Contexts made from it see nothing newer.
#[derive(Debug, Clone)]
pub struct Snapshot {
    providers: BTreeMap<String, Arc<dyn TableProvider>>,
    /// Version and fingerprint of the tables that are in the lake.
    found: BTreeMap<String, (u64, Option<i64>)>,
}

impl Session {
    /// A session on `lake`; `given` are the tables that are never written.
    ///
    /// # Errors
    /// Where DataFusion's runtime cannot be set up.
    pub fn new(
        lake: Arc<Lake>,
        functions: udf::Context,
        given: Vec<(String, RecordBatch)>,
        settings: Settings,
    ) -> Result<Self> {
        let partitions = settings.memory_limit.map_or(usize::MAX, |limit| (limit / PARTITION_MEMORY).max(1));
        let settings = Settings { target_partitions: settings.target_partitions.min(partitions), ..settings };
        let runtime = match settings.memory_limit {
            // shared fairly among those that can go to disk
            Some(limit) => RuntimeEnvBuilder::new().with_memory_pool(Arc::new(FairSpillPool::new(limit))),
            None => RuntimeEnvBuilder::new(),
        };
        let runtime = runtime.build_arc().map_err(|error| Error::query("session", error))?;
        let location = lake.location();
        runtime.register_object_store(&location.url, Arc::clone(&location.store));
        Ok(Self { lake, functions, given, settings, runtime })
    }

    /// The lake.
    pub fn lake(&self) -> &Arc<Lake> {
        &self.lake
    }

    /// The functions' models and source.
    pub fn functions(&self) -> &udf::Context {
        &self.functions
    }

    /// The tables as they are now; those that were never written are empty.
    ///
    /// # Errors
    /// Where a table's log cannot be read.
    pub async fn snapshot(&self, own: &[Table]) -> Result<Snapshot> {
        let mut snapshot = Snapshot { providers: BTreeMap::new(), found: BTreeMap::new() };
        for table in schema::TABLES.iter().chain(own) {
            let reading = match table.kind {
                Kind::Given => None,
                _ => self.lake.read(table).await?,
            };
            match reading {
                Some(reading) => {
                    snapshot.found.insert(table.name.clone(), (reading.version, reading.fingerprint));
                    snapshot.providers.insert(table.name.clone(), reading.provider);
                }
                None => snapshot.set(&table.name, Arc::clone(&table.schema), Vec::new())?,
            }
        }
        for (name, batch) in &self.given {
            snapshot.set(name, batch.schema(), vec![batch.clone()])?;
        }
        Ok(snapshot)
    }

    /// Every built-in table without rows: enough to plan a query.
    ///
    /// # Errors
    /// Never for the built-in tables.
    pub fn empty(&self) -> Result<Snapshot> {
        let mut snapshot = Snapshot { providers: BTreeMap::new(), found: BTreeMap::new() };
        for table in schema::TABLES.iter() {
            snapshot.set(&table.name, Arc::clone(&table.schema), Vec::new())?;
        }
        Ok(snapshot)
    }

    /// A context on `snapshot`, with the calls of its functions metered by `meter`.
    ///
    /// # Errors
    /// Where a table or function cannot be registered.
    pub fn context(&self, snapshot: &Snapshot, meter: &Arc<Meter>) -> Result<SessionContext> {
        self.context_with(snapshot, meter, self.settings.batch_size)
    }

    /// The same, with batches of at most `batch_size` rows: of images few.
    ///
    /// # Errors
    /// As [`Session::context`].
    pub fn context_with(&self, snapshot: &Snapshot, meter: &Arc<Meter>, batch_size: usize) -> Result<SessionContext> {
        let config = SessionConfig::new()
            .with_target_partitions(self.settings.target_partitions)
            .with_batch_size(batch_size.min(self.settings.batch_size))
            .with_information_schema(true)
            // a query that needs few images of a table reads the pages of these alone
            .set_bool("datafusion.execution.parquet.pushdown_filters", true);
        let state = SessionStateBuilder::new()
            .with_config(config)
            .with_runtime_env(Arc::clone(&self.runtime))
            .with_default_features()
            .build();
        let mut context = SessionContext::new_with_state(state);
        udf::register_all(&mut context, &self.functions, meter)?;
        for (name, provider) in &snapshot.providers {
            context
                .register_table(name.as_str(), Arc::clone(provider))
                .map_err(|error| Error::query(name.clone(), error))?;
        }
        Ok(context)
    }
}

impl Snapshot {
    /// Delta's version of the table `name`; none where it was never written.
    pub fn version(&self, name: &str) -> Option<u64> {
        self.found.get(name).map(|found| found.0)
    }

    /// The fingerprint of the step that completed the table `name`.
    pub fn fingerprint(&self, name: &str) -> Option<i64> {
        self.found.get(name).and_then(|found| found.1)
    }

    /// Puts rows in memory in the place of the table `name`.
    ///
    /// # Errors
    /// Where the rows have not the columns of `schema`.
    pub fn set(&mut self, name: &str, schema: SchemaRef, rows: Vec<RecordBatch>) -> Result<()> {
        self.providers.insert(name.to_owned(), memory_table(name, schema, rows)?);
        Ok(())
    }
}

impl Snapshot {
    /// Leaves of the table `name` the rows whose `source_id` is one of `sources`: files of other sources are
    /// not opened, and of the rest only the pages that are needed are read.
    ///
    /// # Errors
    /// Where the table has no such column.
    pub fn restrict(&mut self, name: &str, sources: &BTreeSet<&str>) -> Result<()> {
        self.narrow(name, "source_id", sources)
    }

    /// Leaves of the table `name` the rows whose text in `column` is one of `values`.
    ///
    /// # Errors
    /// Where the table has no such column.
    pub fn narrow(&mut self, name: &str, column: &str, values: &BTreeSet<&str>) -> Result<()> {
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

fn memory_table(name: &str, schema: SchemaRef, rows: Vec<RecordBatch>) -> Result<Arc<dyn TableProvider>> {
    let table = MemTable::try_new(schema, vec![rows]).map_err(|error| Error::query(name, error))?;
    Ok(Arc::new(table))
}

/// What a query may do: read.
pub fn reading() -> SQLOptions {
    SQLOptions::new().with_allow_ddl(false).with_allow_dml(false).with_allow_statements(false)
}

/// The rows that `statement` asks for, not yet computed. It cannot write: only queries become statements, and their
/// plans are asked once more.
///
/// # Errors
/// Where the statement cannot be planned; `name` says which it was.
pub async fn query(context: &SessionContext, name: &str, statement: &Statement) -> Result<DataFrame> {
    let statement = datafusion::sql::parser::Statement::Statement(Box::new(statement.clone()));
    let plan = context.state().statement_to_plan(statement).await.map_err(|error| Error::query(name, error))?;
    reading().verify_plan(&plan).map_err(|error| Error::query(name, error))?;
    context.execute_logical_plan(plan).await.map_err(|error| Error::query(name, error))
}
