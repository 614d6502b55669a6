//! A check of the log of a table, for tests with damaged ones and for the fuzzer.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "used by tests and fuzzing alone")]

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, OnceLock},
};

use arrow::array::{ArrayRef, AsArray, RecordBatch, StringArray, new_null_array};
use bytes::Bytes;
use datafusion::prelude::SessionContext;
use futures::TryStreamExt;
use object_store::{ObjectStore, ObjectStoreExt, memory::InMemory, path::Path};
use url::Url;

use super::*;
use crate::{
    error::{Error, catch_panic, chain},
    limited_read::damaged::{assert_clean, without_own_panic},
    schema,
};

const ID: &str = "score_id";
/// Commits after which there is a checkpoint, and entries after it.
const MANY: u64 = checkpoints::CHECKPOINT_INTERVAL + 1;

/// The objects of a lake with one table, whose log has entries, checkpoints and a hint.
pub(crate) struct Objects(BTreeMap<Path, Bytes>);

fn lake(store: Arc<InMemory>) -> Lake {
    Lake::at(Location::at(store, Url::parse("memory:///").unwrap()).unwrap())
}

fn table() -> &'static Table {
    schema::find("scores").unwrap()
}

fn unit(id: &str) -> UnitRows {
    let column = |field: &Arc<arrow::datatypes::Field>| -> ArrayRef {
        match field.name() == ID {
            true => Arc::new(StringArray::from(vec![id])),
            false => new_null_array(field.data_type(), 1),
        }
    };
    let columns = table().schema.fields().iter().map(column).collect();
    UnitRows { unit: id.to_owned(), rows: RecordBatch::try_new(Arc::clone(&table().schema), columns).unwrap() }
}

/// Returns the ids of the rows that a query sees.
async fn rows(lake: &Lake) -> Result<Option<Vec<String>>> {
    let Some(reading) = lake.read(table()).await? else { return Ok(None) };
    let failed = |error| Error::query("rows", error);
    let context = SessionContext::new();
    context.register_object_store(&lake.location().url, Arc::clone(&lake.location().store));
    context.register_table("found", reading.provider).map_err(failed)?;
    let found = context.table("found").await.and_then(|rows| rows.select_columns(&[ID])).map_err(failed)?;
    let mut ids = Vec::new();
    for batch in found.collect().await.map_err(failed)? {
        let batch = schema::conform::conform_batches(
            "rows",
            &[batch],
            &Arc::new(table().schema.project(&[table().schema.index_of(ID).unwrap()]).unwrap()),
        )?;
        ids.extend(batch[0].column(0).as_string::<i32>().iter().map(|id| id.unwrap_or_default().to_owned()));
    }
    Ok(Some(ids))
}

impl Objects {
    /// Commits this many rows, one at a time.
    async fn new(commits: u64) -> Self {
        let store = Arc::new(InMemory::new());
        let lake = lake(Arc::clone(&store));
        for commit in 0..commits {
            lake.append(table(), ID, &[unit(&format!("id{commit}"))]).await.unwrap();
        }
        let listed: Vec<_> = store.list(None).try_collect().await.unwrap();
        let mut objects = BTreeMap::new();
        for found in listed {
            let bytes = store.get(&found.location).await.unwrap().bytes().await.unwrap();
            objects.insert(found.location, bytes);
        }
        Self(objects)
    }

    /// Returns the names of the files of the log that are read: entries from a checkpoint on, and what names it.
    fn log(&self) -> Vec<String> {
        let of_log = self.0.keys().filter(|path| path.as_ref().contains("_delta_log"));
        of_log.map(|path| path.as_ref().to_owned()).collect()
    }

    /// Returns a store with the objects, and `bytes` in place of the file `name`.
    async fn with(&self, name: &str, bytes: &[u8]) -> Arc<InMemory> {
        let store = Arc::new(InMemory::new());
        for (path, whole) in &self.0 {
            let bytes = if path.as_ref() == name { Bytes::copy_from_slice(bytes) } else { whole.clone() };
            store.put(path, bytes.into()).await.unwrap();
        }
        store
    }

    /// A lake with `bytes` in place of the file `name` cannot be read, and the error says so; or its rows are some that were
    /// written, and it can be written.
    async fn check(&self, name: &str, bytes: &[u8]) {
        let store = self.with(name, bytes).await;
        let written: BTreeSet<String> = (0..MANY).map(|commit| format!("id{commit}")).collect();
        let sound = |ids: Option<Vec<String>>| {
            let ids = ids.unwrap_or_default();
            let distinct: BTreeSet<String> = ids.iter().cloned().collect();
            assert!(distinct.is_subset(&written), "{ids:?}");
            assert_eq!(distinct.len(), ids.len(), "a row is in the table once: {ids:?}");
        };
        let lake_of = || lake(Arc::clone(&store));
        report(catch_panic(rows(&lake_of())).await.map(sound));
        let faults = report(catch_panic(lake_of().log_faults(&table().name)).await).unwrap_or_default();
        for fault in &faults {
            assert_clean(&fault.problem);
        }
        report(catch_panic(look(&lake_of())).await);
        // What is left once damaged files are moved aside.
        let kept = lake_of().hiding(&Hidden::of(&faults));
        report(catch_panic(rows(&kept)).await.map(sound));
        report(catch_panic(append(&lake_of())).await);
    }
}

/// Everything else that is asked of a log.
async fn look(lake: &Lake) -> Result<()> {
    lake.check(table()).await?;
    lake.size(table()).await?;
    for finding in verify_files(lake, table(), true).await? {
        assert_clean(&finding.problem);
    }
    lake.ids(table(), ID).await.map(drop)
}

/// Adds a row, which is then there.
async fn append(lake: &Lake) -> Result<()> {
    lake.append(table(), ID, &[unit("new")]).await?;
    let found = rows(lake).await?.unwrap_or_default();
    assert_eq!(found.iter().filter(|id| *id == "new").count(), 1, "{found:?}");
    Ok(())
}

fn report<T>(result: Result<T>) -> Option<T> {
    result.inspect_err(|error| assert_clean(&chain(error))).ok()
}

/// A runtime without waiting: a log that cannot be read is read again after a while.
fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap()
}

/// Runs [`Objects::check`] with an input whose first byte names the file.
pub(crate) fn check(input: &[u8]) {
    static OBJECTS: OnceLock<Objects> = OnceLock::new();
    let Some((choice, bytes)) = input.split_first() else { return };
    let runtime = runtime();
    let objects = OBJECTS.get_or_init(|| runtime.block_on(Objects::new(MANY)));
    let log = objects.log();
    let name = &log[usize::from(*choice) % log.len()];
    without_own_panic(|| runtime.block_on(objects.check(name, bytes)));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limited_read::damaged::{each_copy, in_bounds};

    #[test]
    fn damaged_data_files_are_errors_or_rows() {
        in_bounds(|| {
            let runtime = runtime();
            let objects = runtime.block_on(Objects::new(2));
            let is_data = |path: &&Path| path.as_ref().ends_with(".parquet");
            let name = objects.0.keys().find(is_data).unwrap().clone();
            each_copy(&objects.0[&name], 100, |damaged| {
                without_own_panic(|| {
                    runtime.block_on(async {
                        let store = objects.with(name.as_ref(), damaged).await;
                        // Without a digest, nobody knows what was in the rows.
                        if let Err(error) = catch_panic(rows(&lake(Arc::clone(&store)))).await {
                            assert!(chain(&error).contains("`discl-pipe verify` finds"), "{}", chain(&error));
                        }
                        report(catch_panic(look(&lake(Arc::clone(&store)))).await);
                        report(catch_panic(lake(store).append(table(), ID, &[unit("new")])).await);
                    });
                });
            });
        });
    }

    #[test]
    fn damaged_logs_are_errors_or_read_rightly() {
        in_bounds(|| {
            let runtime = runtime();
            for (commits, names) in
                [(1, ["0.json", "1.json"].as_slice()), (MANY, &["t.parquet", "5.json", "_checkpoint"])]
            {
                let objects = runtime.block_on(Objects::new(commits));
                for name in names {
                    let name = objects.log().into_iter().find(|file| file.ends_with(name)).unwrap();
                    let whole = objects.0[&Path::from(name.as_str())].clone();
                    each_copy(&whole, 25, |damaged| {
                        without_own_panic(|| runtime.block_on(objects.check(&name, damaged)));
                    });
                }
            }
        });
    }
}
