//! The part of a pipeline that needs its file and the lake alone: configuration, queries, tables.

use std::{path::Path, sync::Arc};

use datafusion::{dataframe::DataFrame, prelude::SessionContext};

use super::{Options, Problems, check, memory_limit, open_catalogue, open_lake};
use crate::{
    config::Config,
    error::{Error, Result},
    lake::Lake,
    plan::{
        self, Inputs, Outside, Plan,
        catalogue::{Catalogue, Parameter},
    },
    schema::{self, Table, columns::Answer},
    session::{self, Session, Snapshot},
    udf,
};

/// Opens the lake of the pipeline file at `path`, and returns it with the names of the tables that it may have. No log is
/// read, so this works if a log is damaged.
///
/// # Errors
/// Returns every problem of the file, or an error if it does not name a store.
pub(crate) fn folders(path: &Path, options: &Options) -> Result<(Lake, Vec<String>)> {
    let config = Config::load(path, &options.set)?;
    let stored = schema::TABLES.iter().filter(|table| table.is_stored()).map(|table| table.name.clone());
    let names = stored.chain(config.steps.iter().map(|step| step.table.clone())).collect();
    Ok((open_lake(&config, options)?, names))
}

/// Configuration, queries and tables.
#[derive(Debug)]
pub(crate) struct Project {
    pub(crate) config: Config,
    pub(crate) catalogue: Catalogue,
    /// The steps. Unless the source and the models were opened, fingerprints have only the parts that follow from the
    /// file.
    pub(crate) plan: Plan,
    pub(crate) session: Arc<Session>,
    /// The version of the table `feedback` that the plan depends on.
    pub(crate) feedback: Option<u64>,
    outside: Option<Outside>,
}

impl Project {
    /// Opens the configuration and the lake of the pipeline file at `path`. The source is not listed and models are not
    /// inspected, so functions that need them fail when they are called.
    ///
    /// # Errors
    /// Returns every problem of the file or, if the file is sound, of its queries and its lake.
    pub(crate) async fn open(path: &Path, options: &Options) -> Result<Self> {
        let config = Config::load(path, &options.set)?;
        let mut problems = Problems::default();
        let catalogue = problems.keep(open_catalogue(&config));
        let lake = problems.keep(open_lake(&config, options));
        let (Some(catalogue), Some(lake)) = (catalogue, lake) else {
            return Err(Error::Multiple(problems.0));
        };
        let settings = session::Settings { memory_limit: memory_limit(&config), ..options.session };
        let session =
            Session::new(Arc::new(lake), Arc::new(udf::Unopened), schema::TABLES.clone(), Vec::new(), settings)?;
        Self::assemble(config, catalogue, session, None).await
    }

    /// Compiles the plan and checks every query against the tables that it reads and fills.
    ///
    /// # Errors
    /// Returns every problem of the queries; an error if the lake cannot be read.
    pub(super) async fn assemble(
        config: Config,
        catalogue: Catalogue,
        session: Session,
        outside: Option<Outside>,
    ) -> Result<Self> {
        let feedback = feedback_version(&session).await?;
        let plan = compile(&config, &catalogue, outside.clone(), feedback)?;
        let (plan, user_tables) = check::queries(&session, &catalogue, plan).await?;
        let session = Arc::new(session.with_tables(user_tables));
        Ok(Self { config, catalogue, plan, session, feedback, outside })
    }

    /// Compiles the plan again, on the feedback that the lake has now.
    ///
    /// # Errors
    /// Returns an error if the table of feedback cannot be read.
    pub(crate) async fn reload_feedback(&mut self) -> Result<()> {
        self.feedback = feedback_version(&self.session).await?;
        let mut plan = compile(&self.config, &self.catalogue, self.outside.clone(), self.feedback)?;
        for (step, checked) in plan.steps.iter_mut().zip(&self.plan.steps) {
            step.table = checked.table.clone();
        }
        self.plan = plan;
        Ok(())
    }

    /// Every table of the pipeline that is written to the lake.
    pub(crate) fn stored_tables(&self) -> impl Iterator<Item = &Table> {
        self.session.tables().iter().filter(|table| table.is_stored())
    }

    /// Checks that this program can write every table of the pipeline as other programs left it.
    ///
    /// # Errors
    /// Returns an error that names every table that it cannot write.
    pub(crate) async fn check_lake(&self) -> Result<()> {
        let mut problems = Problems::default();
        for table in self.stored_tables() {
            problems.keep(self.session.lake().check(table).await);
        }
        problems.finish()
    }

    /// Runs the query `name` of the catalogue on the tables as they are now.
    ///
    /// # Errors
    /// Returns an error if the query fails.
    pub(crate) async fn query(&self, name: &str) -> Result<Answer> {
        self.query_on(&self.session.snapshot().await?, name, &[]).await
    }

    /// Runs the query `name` on `snapshot`, with `changes` to the pipeline's parameters.
    ///
    /// # Errors
    /// Returns an error if the query fails.
    #[tracing::instrument(name = "query", skip_all, fields(query = name))]
    pub(crate) async fn query_on(
        &self,
        snapshot: &Snapshot,
        name: &str,
        changes: &[(&str, Parameter)],
    ) -> Result<Answer> {
        let rows = self.plan_query(&self.session.context(snapshot)?, name, changes).await?;
        let batches = rows.collect().await.map_err(|error| Error::query(name, error))?;
        Ok(Answer { query: name.to_owned(), batches })
    }

    /// Plans the query `name` in `context` without running it.
    ///
    /// # Errors
    /// Returns an error if there is no such query or it cannot be planned.
    pub(crate) async fn plan_query(
        &self,
        context: &SessionContext,
        name: &str,
        changes: &[(&str, Parameter)],
    ) -> Result<DataFrame> {
        let mut parameters = self.plan.parameters.clone();
        parameters.extend(changes.iter().map(|(name, value)| ((*name).to_owned(), value.clone())));
        session::query(context, name, &self.catalogue.get(name)?.bind(&parameters)?).await
    }
}

async fn feedback_version(session: &Session) -> Result<Option<u64>> {
    Ok(session.lake().read(&schema::FEEDBACK_TABLE).await?.map(|reading| reading.version))
}

fn compile(config: &Config, catalogue: &Catalogue, outside: Option<Outside>, feedback: Option<u64>) -> Result<Plan> {
    let feedback = feedback.map_or(String::new(), |version| format!("version {version}"));
    plan::compile(config, catalogue, &Inputs { outside, feedback })
}
