//! A check of files of feedback, for tests with damaged ones and for the fuzzer.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "used by tests and fuzzing alone")]

use std::{fs, sync::OnceLock};

use arrow::array::{ArrayRef, StringArray, new_null_array};

use super::*;
use crate::{
    error::{catch_panic, chain},
    lake::DataFile,
    limited_read::damaged::{assert_clean, without_own_panic},
    pipeline::Options,
};

/// The samples of the spectrum validation set.
const SAMPLES: [&str; 3] = ["one", "two", "three"];

/// An adaptive pipeline whose lake has a spectrum validation set.
pub(crate) struct Trial {
    project: Project,
    file: std::path::PathBuf,
}

impl Trial {
    /// Writes the lake into `folder`.
    pub(crate) async fn new(folder: &Path) -> Self {
        let set = [
            "curriculum.strategy=adaptive",
            "curriculum.manifest=manifest/low_quality.sql",
            "curriculum.trials=[\"one\"]",
            "curriculum.probe_size=40",
            "validation.sources=4",
            "curriculum.epochs=3",
            "curriculum.curriculum_epochs=2",
        ];
        let lake = folder.join("lake").display().to_string();
        let options = Options { set: set.map(str::to_owned).to_vec(), lake: Some(lake), ..Options::default() };
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("pipelines/digits_lt.toml");
        let project = Project::open(&file, &options).await.unwrap_or_else(|error| panic!("{error}"));
        let table = schema::find("validation").unwrap();
        let column = |field: &Arc<arrow::datatypes::Field>| -> ArrayRef {
            match field.name().as_str() {
                "sample_id" => Arc::new(StringArray::from(SAMPLES.to_vec())),
                _ => new_null_array(field.data_type(), SAMPLES.len()),
            }
        };
        let columns = table.schema.fields().iter().map(column).collect();
        let rows = RecordBatch::try_new(Arc::clone(&table.schema), columns).unwrap();
        let rows = DataFile::write("validation", &table.schema, &[rows]).unwrap();
        assert!(project.session.lake().replace(table, &[rows], Some(1), None).await.unwrap());
        Self { project, file: folder.join("feedback.parquet") }
    }

    /// A file is an error, or rows that keep to what feedback is.
    pub(crate) async fn check(&self, bytes: &[u8]) {
        fs::write(&self.file, bytes).unwrap();
        match catch_panic(import(&self.project, &self.file)).await {
            Err(error) => {
                assert_clean(&chain(&error));
                assert_eq!(error.exit_code(), 2, "the file is the user's: {error}");
            }
            Ok(_) => self.check_table().await,
        }
    }

    async fn check_table(&self) {
        let session = &self.project.session;
        let context = session.context(&session.snapshot().await.unwrap()).unwrap();
        let wrong = "SELECT * FROM feedback WHERE probability IS NULL OR isnan(probability) OR probability < 0 \
                     OR probability > 1 OR trial <> 'one' OR epoch NOT IN (0, 1) OR phase NOT IN ('before', 'after') \
                     OR sample_id NOT IN ('one', 'two', 'three') OR curriculum <> 'adaptive'";
        let wrong = context.sql(wrong).await.unwrap().collect().await.unwrap();
        assert_eq!(wrong.iter().map(RecordBatch::num_rows).sum::<usize>(), 0, "{wrong:?}");
    }
}

/// Runs [`Trial::check`] on one lake in the `folder` of the first call.
pub(crate) fn check(folder: &Path, bytes: &[u8]) {
    static TRIAL: OnceLock<Trial> = OnceLock::new();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let trial = TRIAL.get_or_init(|| runtime.block_on(Trial::new(folder)));
    without_own_panic(|| runtime.block_on(trial.check(bytes)));
}

#[cfg(test)]
mod tests {
    use arrow::array::{Float64Array, Int64Array};
    use datafusion::{common::config::TableParquetOptions, dataframe::DataFrameWriteOptions};

    use super::*;
    use crate::limited_read::damaged::{each_copy, in_bounds};

    /// Feedback of an epoch from a trainer.
    async fn whole(folder: &Path, epoch: i64) -> Vec<u8> {
        let texts = |text: &str| -> ArrayRef { Arc::new(StringArray::from(vec![text; 6])) };
        let phases = ["before", "after"].into_iter().cycle().take(6).collect::<Vec<_>>();
        let samples = [SAMPLES, SAMPLES].concat().into_iter().collect::<std::collections::BTreeSet<_>>();
        let samples: Vec<&str> = samples.into_iter().flat_map(|sample| [sample, sample]).collect();
        let columns: [(&str, ArrayRef); 6] = [
            ("curriculum", texts("adaptive")),
            ("trial", texts("one")),
            ("epoch", Arc::new(Int64Array::from(vec![epoch; 6]))),
            ("phase", Arc::new(StringArray::from(phases))),
            ("sample_id", Arc::new(StringArray::from(samples))),
            ("probability", Arc::new(Float64Array::from(vec![0.25, 0.5, 0.125, 0.75, 0.0, 1.0]))),
        ];
        let rows = RecordBatch::try_from_iter(columns).unwrap();
        let path = folder.join("whole.parquet").display().to_string();
        let rows = SessionContext::new().read_batch(rows).unwrap();
        let (single, options) =
            (DataFrameWriteOptions::new().with_single_file_output(true), TableParquetOptions::default());
        rows.write_parquet(&path, single, Some(options)).await.unwrap();
        fs::read(path).unwrap()
    }

    #[tokio::test]
    async fn a_file_has_at_most_so_many_rows() {
        let column: ArrayRef = Arc::new(Int64Array::from(vec![0; 6]));
        let rows = || {
            let rows = RecordBatch::try_from_iter([("epoch", Arc::clone(&column))]).unwrap();
            SessionContext::new().read_batch(rows).unwrap()
        };
        assert!(at_most(rows(), 5).await.unwrap().is_none());
        assert_eq!(at_most(rows(), 6).await.unwrap().map(|rows| rows[0].num_rows()), Some(6));
    }

    #[test]
    fn damaged_feedback_is_an_error_or_right() {
        in_bounds(|| {
            let folder = tempfile::tempdir().unwrap();
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            let trial = runtime.block_on(Trial::new(folder.path()));
            for epoch in [0, 1] {
                let whole = runtime.block_on(whole(folder.path(), epoch));
                each_copy(&whole, 75, |damaged| without_own_panic(|| runtime.block_on(trial.check(damaged))));
            }
        });
    }
}
