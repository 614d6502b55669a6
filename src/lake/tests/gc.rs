//! Garbage collection next to other writers, whatever they do between its looks.

use std::{fmt, sync::Arc, time::Duration};

use arrow::{
    array::{ArrayRef, RecordBatch, StringArray},
    datatypes::{DataType, Field, Schema},
};
use async_trait::async_trait;
use futures::{StreamExt, TryStreamExt, stream::BoxStream};
use object_store::{
    CopyOptions, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore, ObjectStoreExt, PutMode,
    PutMultipartOptions, PutOptions, PutPayload, PutResult, Result, memory::InMemory, path::Path,
};
use url::Url;

use crate::{
    lake::{Collector, DataFile, Garbage, Lake, UnitRows, verify_files},
    schema::{self, Table},
    storage::Location,
};

const DAY: Duration = Duration::from_secs(24 * 3600);

/// A store that another process uses, too.
#[derive(Debug, Default)]
struct Shared {
    inner: Arc<InMemory>,
    /// How far its clock is behind this machine's.
    behind: Duration,
    /// Whether the other one deletes all data files as soon as a commit names them: it had looked at them before.
    deletes: bool,
}

impl Shared {
    fn dated(&self, mut found: ObjectMeta) -> ObjectMeta {
        found.last_modified -= self.behind;
        found
    }
}

impl fmt::Display for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Shared")
    }
}

#[async_trait]
impl ObjectStore for Shared {
    async fn put_opts(&self, path: &Path, payload: PutPayload, options: PutOptions) -> Result<PutResult> {
        let is_commit = options.mode == PutMode::Create && path.as_ref().ends_with(".json");
        let put = self.inner.put_opts(path, payload, options).await?;
        if is_commit && self.deletes {
            let all: Vec<ObjectMeta> = self.inner.list(None).try_collect().await?;
            for found in all.iter().filter(|found| found.location.as_ref().ends_with(".parquet")) {
                self.inner.delete(&found.location).await?;
            }
        }
        Ok(put)
    }

    async fn put_multipart_opts(&self, path: &Path, options: PutMultipartOptions) -> Result<Box<dyn MultipartUpload>> {
        self.inner.put_multipart_opts(path, options).await
    }

    async fn get_opts(&self, path: &Path, options: GetOptions) -> Result<GetResult> {
        let mut found = self.inner.get_opts(path, options).await?;
        found.meta = self.dated(found.meta);
        Ok(found)
    }

    fn delete_stream(&self, paths: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        self.inner.delete_stream(paths)
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        let behind = self.behind;
        let dated = move |mut found: ObjectMeta| {
            found.last_modified -= behind;
            found
        };
        self.inner.list(prefix).map_ok(dated).boxed()
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.inner.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.inner.copy_opts(from, to, options).await
    }
}

fn lake(store: Shared) -> Lake {
    Lake::at(Location::at(Arc::new(store), Url::parse("memory:///lake/").unwrap()).unwrap())
}

fn table() -> Table {
    schema::user_table("words", Arc::new(Schema::new(vec![Field::new("word", DataType::Utf8, true)])))
}

fn rows(word: &str) -> RecordBatch {
    let words: ArrayRef = Arc::new(StringArray::from(vec![word]));
    RecordBatch::try_new(table().schema, vec![words]).unwrap()
}

fn file(word: &str) -> DataFile {
    DataFile::write("rows", &table().schema, &[rows(word)]).unwrap()
}

async fn put(lake: &Lake, name: &str) {
    lake.location().put(name, "left by a crash".into()).await.unwrap();
}

/// Returns the names of what `gc` would delete.
async fn found<'a>(lake: &'a Lake, table: &'a Table, age: Duration) -> (Collector<'a>, Vec<Garbage>) {
    // Times have milliseconds.
    tokio::time::sleep(Duration::from_millis(3)).await;
    let found = Collector::find(lake, vec![table], age, true).await.unwrap();
    tokio::time::sleep(Duration::from_millis(3)).await;
    found
}

async fn is_there(lake: &Lake, garbage: &Garbage) -> bool {
    lake.location().exists(&garbage.name()).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_name_that_comes_back_stays() {
    let folder = tempfile::tempdir().unwrap();
    let local = Lake::open(folder.path().to_str().unwrap(), "words").unwrap();
    for lake in [lake(Shared::default()), local] {
        let (table, again) = (table(), file("again"));
        for name in ["words/rows-0123456789abcdef.parquet", &format!("words/{}", again.name)] {
            put(&lake, name).await;
        }
        let (mut collector, garbage) = found(&lake, &table, Duration::ZERO).await;
        assert_eq!(garbage.len(), 2);
        // While the first is deleted, a run makes the rows of the second again, and is about to commit them.
        lake.location().put(&format!("words/{}", again.name), again.bytes.clone()).await.unwrap();
        for one in &garbage {
            let is_again = one.file == again.name;
            assert_eq!(collector.delete(one).await.unwrap(), !is_again, "{one:?}");
            assert_eq!(is_there(&lake, one).await, is_again, "{one:?}");
        }
        let left = lake.location().list_folder("words").await.unwrap();
        assert_eq!(left.objects.len(), 1, "{left:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_live_files_are_looked_at_again() {
    let (lake, table) = (lake(Shared::default()), table());
    assert!(lake.replace(&table, &[], None, None).await.unwrap());
    for number in 0..150 {
        put(&lake, &format!("words/rows-{number:016x}.parquet")).await;
    }
    let (mut collector, garbage) = found(&lake, &table, Duration::ZERO).await;
    assert_eq!(garbage.len(), 150);
    let mut kept = Vec::new();
    for (number, one) in garbage.iter().enumerate() {
        if number == 20 {
            // Another program restores all that is left, and writes none of it anew.
            let add = |file: &Garbage| {
                serde_json::json!({ "add": {
                    "path": file.file, "partitionValues": {}, "size": 15, "modificationTime": 0, "dataChange": true
                } })
                .to_string()
            };
            let entry: Vec<String> = garbage[number..].iter().map(add).collect();
            let version = lake.size(&table).await.unwrap().unwrap().version + 1;
            let name = format!("words/_delta_log/{version:020}.json");
            lake.location().put(&name, entry.join("\n").into()).await.unwrap();
        }
        if !collector.delete(one).await.unwrap() {
            kept.push(number);
        }
    }
    assert_eq!(kept, (100..150).collect::<Vec<_>>());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_commit_puts_again_what_was_deleted_meanwhile() {
    let lake = lake(Shared { deletes: true, ..Shared::default() });
    assert!(lake.replace(&table(), &[file("a"), file("b")], None, None).await.unwrap());
    assert_whole(&lake, &table(), 2).await;
    let unit = UnitRows { unit: "unit".into(), rows: rows("c") };
    lake.append(&table(), "word", &[unit]).await.unwrap();
    // The other one deletes those of the first commit, too, and this is not the commit that looks at them.
    let named = lake.live_files(&table()).await.unwrap().unwrap();
    let unit = named.keys().find(|name| name.starts_with("unit-")).unwrap();
    assert!(lake.location().exists(&format!("words/{unit}")).await.unwrap());
}

async fn assert_whole(lake: &Lake, table: &Table, files: usize) {
    assert_eq!(lake.live_files(table).await.unwrap().unwrap().len(), files);
    assert_eq!(verify_files(lake, table, true).await.unwrap(), [], "{}", table.name);
}

#[tokio::test(flavor = "multi_thread")]
async fn ages_are_by_the_clock_of_the_store() {
    // The clock of this machine is eight days ahead.
    let (lake, table) = (lake(Shared { behind: 8 * DAY, ..Shared::default() }), table());
    put(&lake, "words/rows-0123456789abcdef.parquet").await;
    let (_, garbage) = found(&lake, &table, 7 * DAY).await;
    assert_eq!(garbage, [], "it was written a moment ago");
    let (mut collector, garbage) = found(&lake, &table, Duration::ZERO).await;
    assert_eq!(garbage.len(), 1);
    assert!(collector.delete(&garbage[0]).await.unwrap());
    assert!(lake.location().names().await.unwrap().is_empty(), "the look at the clock leaves nothing");
}
