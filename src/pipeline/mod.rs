//! A pipeline, opened: its file read, its queries checked, its source listed, its models looked at.
//! Everything that can be wrong with the job is found here, before any work, and said at once.

pub mod staleness;

use std::{path::Path, sync::Arc};

use arrow::datatypes::{DataType, Field, Schema, TimeUnit};

use crate::{
    config::Config,
    error::{Error, Result},
    lake::Lake,
    models::{self, Models},
    plan::catalogue::Catalogue,
    plan::{self, Inputs, Plan},
    schema::{self, Kind, Table},
    session::{self, Session},
    source::{self, Source},
    udf,
};

/// What a command line says beside the pipeline's file.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// `--set key=value`: edits of the file before it is read.
    pub set: Vec<String>,
    /// `--lake`: where the tables are, in place of the file's `lake.root`.
    pub lake: Option<String>,
    /// Where the models run.
    pub models: models::ModelOptions,
    /// How queries run.
    pub session: session::Settings,
    /// Who is told what takes long while it is opened.
    pub notes: models::FetchProgress,
}

/// All parts of a pipeline.
#[derive(Debug)]
pub struct Pipeline {
    /// Its file.
    pub config: Config,
    /// Its steps.
    pub plan: Plan,
    /// Its own tables, with their columns.
    pub own_tables: Vec<Table>,
    /// Its queries.
    pub catalogue: Catalogue,
    /// Its tables and functions.
    pub session: Arc<Session>,
    /// The version of the table of feedback that its plan is made from; none where there is no feedback.
    pub feedback: Option<u64>,
}

impl Pipeline {
    /// Opens the pipeline of the file at `path`.
    ///
    /// # Errors
    /// Every problem of the file; or every problem of what it names: queries, models, source.
    pub async fn open(path: &Path, options: &Options) -> Result<Self> {
        let config = Config::load(path, &options.set)?;
        let chosen = plan::chosen_queries(&config);
        let chosen: Vec<&str> = chosen.iter().map(String::as_str).collect();
        let catalogue = Catalogue::load(config.sql_dir.as_deref(), &chosen);
        let models = Models::inspect(&config, options.models.clone(), &options.notes).await;
        let reader = catalogue.as_ref().map_or(Ok(String::new()), |catalogue| plan::reader(&config, catalogue))?;
        let source = Source::open(&config.source, &reader).await;
        let descriptions = source::descriptions(&config);
        let common_names = source::common_names(config.prompts.common_names.as_deref());
        let confidences = source::confidences(config.hard_samples.confidences.as_deref());
        let lake = Lake::open(options.lake.as_deref().unwrap_or(&config.lake_root), &config.name);
        let mut problems = Vec::new();
        let mut keep = |error: Error| problems.push(error);
        let catalogue = catalogue.map_err(&mut keep).ok();
        let models = models.map_err(|errors| errors.into_iter().for_each(&mut keep)).ok();
        let source = source.map_err(&mut keep).ok();
        let descriptions = descriptions.map_err(&mut keep).ok();
        let common_names = common_names.map_err(&mut keep).ok();
        let confidences = confidences.map_err(&mut keep).ok();
        let lake = lake.map_err(&mut keep).ok();
        let (Some(catalogue), Some(models), Some(source), Some(descriptions), Some(common_names)) =
            (catalogue, models, source, descriptions, common_names)
        else {
            return Err(Error::Several(problems));
        };
        let (Some(confidences), Some(lake)) = (confidences, lake) else {
            return Err(Error::Several(problems));
        };
        let excluded = &config.hard_samples.exclude_classes;
        problems.extend(descriptions.cover(&source, excluded).err());
        problems.extend(common_names.check(&source).err());
        problems.extend(source::check_excluded(&source, excluded).err());
        if !problems.is_empty() {
            return Err(Error::Several(problems));
        }
        let levels = &config.spectrum.image_guidance;
        let feedback = match schema::find(schema::FEEDBACK) {
            Some(table) => lake.read(table).await?.map(|reading| reading.version),
            None => None,
        };
        let inputs = Inputs {
            listing: source.fingerprint().to_owned(),
            descriptions: descriptions.digest.clone(),
            common_names: common_names.digest.clone(),
            confidences: confidences.digest,
            generator: models.generator_digest().to_owned(),
            clip: models.clip_digest().to_owned(),
            classifiers: models.classifiers_digest().to_owned(),
            scheduler: models.scheduler(),
            feedback: feedback.map_or(String::new(), |version| format!("version {version}")),
            unet_evaluations: levels.iter().map(|&level| models.unet_evaluations(level)).collect(),
        };
        let plan = plan::compile(&config, &catalogue, &inputs)?;
        let given = vec![
            (schema::LISTING.to_owned(), source.listing().clone()),
            (schema::DESCRIPTIONS.to_owned(), descriptions.rows),
            (schema::COMMON_NAMES.to_owned(), common_names.rows),
            (schema::CONFIDENCES.to_owned(), confidences.rows),
        ];
        let functions = udf::Context { models: Arc::new(models), source: Arc::new(source) };
        let memory_limit = config.queries.memory_limit_mib.and_then(|mib| usize::try_from(mib << 20).ok());
        let settings = session::Settings { memory_limit, ..options.session };
        let session = Arc::new(Session::new(Arc::new(lake), functions, given, settings)?);
        let (plan, own_tables) = check_queries(&session, plan).await?;
        Ok(Self { config, plan, own_tables, catalogue, session, feedback })
    }

    /// Every table of the pipeline that is written.
    pub fn tables(&self) -> impl Iterator<Item = &Table> {
        schema::TABLES.iter().filter(|table| table.kind != Kind::Given).chain(&self.own_tables)
    }
}

/// Plans every query, against tables without rows, and finds the columns of the pipeline's own tables.
async fn check_queries(session: &Session, mut plan: Plan) -> Result<(Plan, Vec<Table>)> {
    let mut problems = Vec::new();
    let mut own = Vec::new();
    let mut snapshot = session.empty()?;
    for step in &mut plan.steps {
        let context = session.context(&snapshot, &Arc::default())?;
        let name = step.query.name.clone();
        match session::query(&context, &name, &step.statement).await {
            Err(error) => problems.push(error),
            Ok(rows) if step.table.schema.fields().is_empty() => {
                step.table.schema = Arc::new(stored(rows.schema().as_arrow()));
                snapshot.set(&step.table.name, Arc::clone(&step.table.schema), Vec::new())?;
                own.push(step.table.clone());
            }
            Ok(rows) => {
                problems.extend(schema::conform::check_schema(&name, rows.schema().as_arrow(), &step.table).err());
            }
        }
    }
    let context = session.context(&snapshot, &Arc::default())?;
    for expectation in &plan.expectations {
        let name = format!("[[expect]] {}", expectation.name);
        problems.extend(session::query(&context, &name, &expectation.statement).await.err());
    }
    if problems.is_empty() { Ok((plan, own)) } else { Err(Error::Several(problems)) }
}

/// The columns of a query as Delta stores them: signed integers, texts in one encoding, times in microseconds.
fn stored(schema: &Schema) -> Schema {
    let fields: Vec<Field> =
        schema.fields().iter().map(|field| Field::new(field.name(), stored_type(field.data_type()), true)).collect();
    Schema::new(fields)
}

fn stored_type(data_type: &DataType) -> DataType {
    match data_type {
        ty if ty.is_integer() => DataType::Int64,
        ty if ty.is_string() => DataType::Utf8,
        ty if ty.is_binary() => DataType::Binary,
        DataType::Float16 => DataType::Float32,
        DataType::Null => DataType::Utf8,
        DataType::Timestamp(_, _) => DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())),
        DataType::List(item) | DataType::LargeList(item) | DataType::ListView(item) => {
            DataType::List(Arc::new(Field::new("item", stored_type(item.data_type()), true)))
        }
        DataType::Struct(fields) => DataType::Struct(
            fields.iter().map(|field| Field::new(field.name(), stored_type(field.data_type()), true)).collect(),
        ),
        ty => ty.clone(),
    }
}

#[cfg(test)]
mod tests;
