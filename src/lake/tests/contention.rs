//! Many writers of one table, on a store whose requests take as long as those of a cloud.
//!
//! ```sh
//! DISCL_WORKERS=64 DISCL_UNITS=4 cargo test --lib contention -- --nocapture  # more of them
//! ```

use std::{
    fmt,
    future::Future,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use arrow::{
    array::{ArrayRef, RecordBatch, StringArray},
    datatypes::{DataType, Field, Schema},
};
use async_trait::async_trait;
use futures::{StreamExt, TryStreamExt, stream, stream::BoxStream};
use object_store::{
    CopyOptions, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore, PutMultipartOptions,
    PutOptions, PutPayload, PutResult, Result, memory::InMemory, path::Path,
};
use url::Url;

use crate::{
    identity::Digest,
    lake::{Lake, UnitRows},
    schema::{Kind, Table},
    storage::Location,
};

const LATENCY: Duration = Duration::from_millis(30);

/// A store whose requests take [`LATENCY`].
#[derive(Debug, Clone, Default)]
struct SlowStore {
    inner: Arc<InMemory>,
    requests: Arc<AtomicU64>,
}

impl SlowStore {
    async fn slowly<T>(&self, path: Option<&Path>, request: impl Future<Output = T>) -> T {
        // Tests write many checkpoints, so that histories have some.
        let is_counted = !path.is_some_and(|path| path.as_ref().contains("checkpoint"));
        self.requests.fetch_add(u64::from(is_counted), Ordering::Relaxed);
        tokio::time::sleep(LATENCY).await;
        request.await
    }

    fn listing(&self, listed: BoxStream<'static, Result<ObjectMeta>>) -> BoxStream<'static, Result<ObjectMeta>> {
        let store = self.clone();
        let all = async move { store.slowly(None, listed.try_collect::<Vec<_>>()).await };
        stream::once(all).map_ok(|all| stream::iter(all).map(Ok)).try_flatten().boxed()
    }
}

impl fmt::Display for SlowStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SlowStore")
    }
}

#[async_trait]
impl ObjectStore for SlowStore {
    async fn put_opts(&self, path: &Path, payload: PutPayload, options: PutOptions) -> Result<PutResult> {
        self.slowly(Some(path), self.inner.put_opts(path, payload, options)).await
    }

    async fn get_opts(&self, path: &Path, options: GetOptions) -> Result<GetResult> {
        self.slowly(Some(path), self.inner.get_opts(path, options)).await
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.listing(self.inner.list(prefix))
    }

    fn list_with_offset(&self, prefix: Option<&Path>, offset: &Path) -> BoxStream<'static, Result<ObjectMeta>> {
        self.listing(self.inner.list_with_offset(prefix, offset))
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.slowly(prefix, self.inner.list_with_delimiter(prefix)).await
    }

    async fn put_multipart_opts(&self, path: &Path, options: PutMultipartOptions) -> Result<Box<dyn MultipartUpload>> {
        self.inner.put_multipart_opts(path, options).await
    }

    fn delete_stream(&self, paths: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        self.inner.delete_stream(paths)
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.slowly(Some(from), self.inner.copy_opts(from, to, options)).await
    }
}

fn table() -> Table {
    let schema = Arc::new(Schema::new(vec![Field::new("id", DataType::Utf8, true)]));
    let kind = Kind::Incremental { over: "asked", id: "id", sources_per_unit: 1 };
    Table { name: "spectrum".to_owned(), schema, kind, key: vec!["id"], optional: Vec::new() }
}

/// Ten rows, as of one source at five levels with two seeds.
fn unit(worker: usize, unit: usize) -> UnitRows {
    let id = |row: u64| {
        Digest::new("row")
            .part(&(worker as u64).to_le_bytes())
            .part(&(unit as u64).to_le_bytes())
            .part(&row.to_le_bytes())
            .id()
    };
    let ids: ArrayRef = Arc::new((0..10).map(|row| Some(id(row))).collect::<StringArray>());
    UnitRows { unit: id(99), rows: RecordBatch::try_new(table().schema, vec![ids]).unwrap() }
}

/// Lets `workers` append `units` each; returns the seconds that each worker took, and the requests per commit.
fn append_all(workers: usize, units: usize) -> (Vec<f64>, f64) {
    let store = SlowStore::default();
    let location = Location::at(Arc::new(store.clone()), Url::parse("memory:///lake/").unwrap()).unwrap();
    let work = |worker: usize| {
        let lake = Lake::at(location.clone());
        std::thread::spawn(move || {
            let started = Instant::now();
            run(async {
                for number in 0..units {
                    lake.append(&table(), "id", &[unit(worker, number)]).await.unwrap();
                }
            });
            started.elapsed().as_secs_f64()
        })
    };
    let threads: Vec<_> = (0..workers).map(work).collect();
    let seconds = threads.into_iter().map(|thread| thread.join().unwrap()).collect();
    let requests = store.requests.load(Ordering::Relaxed);
    let lake = Lake::at(location);
    assert_eq!(run(lake.ids(&table(), "id")).unwrap().len(), 10 * workers * units);
    assert_eq!(run(lake.size(&table())).unwrap().unwrap().files, workers * units);
    (seconds, requests as f64 / (workers * units) as f64)
}

fn run<T>(work: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(work)
}

#[test]
#[allow(clippy::print_stdout)] // With --nocapture it is the purpose.
fn nobody_starves() {
    let set = |name: &str, plain: usize| std::env::var(name).map_or(plain, |value| value.parse().unwrap());
    let (workers, units) = (set("DISCL_WORKERS", 16), set("DISCL_UNITS", 3));
    let (seconds, requests) = append_all(workers, units);
    let mean = seconds.iter().sum::<f64>() / workers as f64;
    let slowest = seconds.iter().copied().fold(0.0, f64::max);
    println!(
        "{workers} workers, {units} units each: mean {mean:.1} s, slowest {slowest:.1} s, {requests:.1} requests per commit"
    );
    assert!(slowest <= 3.0 * mean, "{seconds:?}");
}

#[test]
#[allow(clippy::print_stdout)] // With --nocapture it is the purpose.
fn a_commit_takes_few_requests() {
    let (_, requests) = append_all(1, 40);
    println!("one worker: {requests:.2} requests per commit");
    assert!(requests <= 6.0, "{requests}");
}
