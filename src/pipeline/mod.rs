//! An opened pipeline: its file and queries, its lake, its source and its models. Everything that can be wrong with
//! them is found here, before any work, and reported together.
//!
//! [`Project`] is the part that needs the pipeline's file and the lake alone; [`Pipeline`] adds the source and the models.

mod check;
mod project;
pub(crate) mod staleness;
#[cfg(test)]
mod tests;
mod warnings;

use std::{path::Path, sync::Arc};

pub(crate) use project::{Project, folders};

use crate::{
    config::Config,
    error::{Error, Result, Warning},
    lake::{Hidden, Lake},
    models::{self, Models},
    plan::{self, Outside, catalogue::Catalogue},
    schema, session,
    source::{self, Source},
    udf,
};

/// What the command line adds to the pipeline's file.
#[derive(Debug, Clone, Default)]
pub(crate) struct Options {
    /// `--set key=value`: edits of the file before it is read.
    pub(crate) set: Vec<String>,
    /// `--lake`: where the tables are, instead of the file's `lake.root`.
    pub(crate) lake: Option<String>,
    /// What of the lake is not seen, because it is damaged.
    pub(crate) hidden: Hidden,
    /// How models run on this machine.
    pub(crate) models: models::ModelOptions,
    /// How queries run on this machine.
    pub(crate) session: session::Settings,
    /// Receives the progress of downloads.
    pub(crate) fetch_progress: models::FetchProgress,
}

/// A pipeline with its source and its models.
#[derive(Debug)]
pub(crate) struct Pipeline {
    pub(crate) project: Project,
    pub(crate) models: Arc<Models>,
    pub(crate) source: Arc<Source>,
    /// What is allowed and probably not intended, found while opening.
    warnings: Vec<Warning>,
}

impl Pipeline {
    /// Opens the pipeline of the file at `path`: lists its source, and inspects its models without loading them.
    ///
    /// # Errors
    /// Returns every problem of the file or, if the file is sound, of what it names.
    pub(crate) async fn open(path: &Path, options: &Options) -> Result<Self> {
        let config = Config::load(path, &options.set)?;
        let mut problems = Problems::default();
        let catalogue = problems.keep(open_catalogue(&config));
        let models = Models::inspect(&config, options.models.clone(), &options.fetch_progress).await;
        let models = models.map_err(|errors| problems.0.extend(errors)).ok();
        let reader = catalogue.as_ref().and_then(|catalogue| problems.keep(plan::reader(&config, catalogue)));
        let source = problems.keep(Source::open(&config.source, &reader.unwrap_or_default()).await);
        let descriptions = problems.keep(source::descriptions(&config));
        let common_names = problems.keep(source::common_names(config.prompts.common_names.as_deref()));
        let confidences = problems.keep(source::confidences(config.hard_samples.confidences.as_deref()));
        let lake = problems.keep(open_lake(&config, options));
        let opened = (catalogue, models, source, descriptions, common_names, confidences, lake);
        let (
            Some(catalogue),
            Some(models),
            Some(source),
            Some(descriptions),
            Some(common_names),
            Some(confidences),
            Some(lake),
        ) = opened
        else {
            return Err(Error::Multiple(problems.0));
        };
        let excluded = &config.hard_samples.exclude_classes;
        problems.keep(descriptions.cover(&source, excluded));
        problems.keep(common_names.check(&source));
        problems.keep(source::check_excluded(&source, excluded));
        let mut found = warnings::of_settings(&config, &models);
        let of_prompts = warnings::of_prompts(&config, &models, &source, &descriptions, &common_names);
        found.extend(problems.keep(of_prompts).unwrap_or_default());
        let covered = confidences.cover(&source, excluded, config.rejects.max_fraction);
        found.extend(problems.keep(covered).flatten());
        problems.finish()?;
        let levels = &config.spectrum.image_guidance;
        let outside = Outside {
            listing: source.fingerprint().to_owned(),
            descriptions: descriptions.digest,
            common_names: common_names.digest,
            confidences: confidences.digest,
            generator: models.generator_digest().to_owned(),
            clip: models.clip_digest().to_owned(),
            classifiers: models.classifiers_digest().to_owned(),
            scheduler: models.scheduler(),
            unet_evaluations: levels.iter().map(|&level| models.unet_evaluations(level)).collect(),
        };
        let inputs = vec![
            (schema::LISTING.to_owned(), source.listing().clone()),
            (schema::DESCRIPTIONS.to_owned(), descriptions.rows),
            (schema::COMMON_NAMES.to_owned(), common_names.rows),
            (schema::CONFIDENCES.to_owned(), confidences.rows),
        ];
        let (models, source) = (Arc::new(models), Arc::new(source));
        let functions = udf::Opened { models: Arc::clone(&models), source: Arc::clone(&source) };
        let settings = session::Settings { memory_limit: memory_limit(&config), ..options.session };
        let session =
            session::Session::new(Arc::new(lake), Arc::new(functions), schema::TABLES.clone(), inputs, settings)?;
        let project = Project::assemble(config, catalogue, session, Some(outside)).await?;
        found.splice(0..0, source.warnings().iter().cloned());
        Ok(Self { project, models, source, warnings: found })
    }

    /// Returns all warnings so far: those found while opening, and those of the lake.
    pub(crate) fn all_warnings(&self) -> Vec<Warning> {
        let mut warnings = self.warnings.clone();
        warnings.extend(self.project.session.lake().warnings());
        warnings
    }

    /// Looks at the sizes of some training images, and adds warnings about what becomes of them.
    ///
    /// # Errors
    /// Returns an error if the source cannot be read.
    pub(crate) async fn look_at_sizes(&mut self) -> Result<()> {
        self.warnings.extend(warnings::of_sizes(&self.project.config, &self.models, &self.source).await?);
        Ok(())
    }
}

/// Collects problems, so that they are reported together.
#[derive(Debug, Default)]
struct Problems(Vec<Error>);

impl Problems {
    /// Returns the value of `result`, or keeps its error and returns `None`.
    fn keep<T>(&mut self, result: Result<T>) -> Option<T> {
        result.map_err(|error| self.0.push(error)).ok()
    }

    fn finish(self) -> Result<()> {
        if self.0.is_empty() { Ok(()) } else { Err(Error::Multiple(self.0)) }
    }
}

fn open_catalogue(config: &Config) -> Result<Catalogue> {
    let named = plan::named_queries(config);
    let named: Vec<&str> = named.iter().map(String::as_str).collect();
    Catalogue::load(config.sql_dir.as_deref(), &named)
}

fn open_lake(config: &Config, options: &Options) -> Result<Lake> {
    let lake = Lake::open(options.lake.as_deref().unwrap_or(&config.lake_root), &config.name)?;
    Ok(lake.hiding(&options.hidden))
}

fn memory_limit(config: &Config) -> Option<usize> {
    config.queries.memory_limit_mib.and_then(|mib| usize::try_from(mib << 20).ok())
}
