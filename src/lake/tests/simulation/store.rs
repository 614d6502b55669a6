//! A store whose calls fail as the world decides.

use std::{
    fmt,
    future::Future,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use async_trait::async_trait;
use futures::{
    StreamExt, TryStreamExt,
    stream::{self, BoxStream},
};
use object_store::{
    CopyOptions, Error, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore, PutMode,
    PutMultipartOptions, PutOptions, PutPayload, PutResult, Result, path::Path,
};

use super::{
    fault::Fault::{self, CrashAfter, CrashBefore, ErrorAfter, ErrorBefore, ErrorLate, Refused, Repeated},
    world::World,
};

/// What a call does. A read either succeeds or fails, so reads have fewer faults.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Get,
    List,
    Put,
    Create,
}

impl Kind {
    fn faults(self) -> &'static [Fault] {
        match self {
            Self::Get | Self::List => &[CrashBefore, ErrorBefore],
            Self::Put => &[CrashBefore, CrashAfter, ErrorBefore, ErrorAfter, ErrorLate],
            Self::Create => &[CrashBefore, CrashAfter, ErrorBefore, ErrorAfter, ErrorLate, Refused, Repeated],
        }
    }

    /// Returns whether its order among the calls of other workers matters. Objects never change once they exist.
    fn is_ordered(self) -> bool {
        self != Self::Get
    }
}

/// The store as one run of one worker sees it. After a crash every call fails, as for a process that has ended.
#[derive(Debug, Clone)]
pub(super) struct FaultyStore {
    world: Arc<World>,
    worker: usize,
    run: u64,
    quiet: bool,
    down: Arc<AtomicBool>,
    faults: Arc<AtomicU64>,
    /// A worker waits for its turn in one call at a time.
    door: Arc<tokio::sync::Mutex<()>>,
}

impl FaultyStore {
    pub(super) fn new(world: &Arc<World>, worker: usize, run: u64) -> Self {
        Self {
            world: Arc::clone(world),
            worker,
            run,
            quiet: false,
            down: Arc::default(),
            faults: Arc::default(),
            door: Arc::default(),
        }
    }

    /// Returns a store without faults.
    pub(super) fn quiet(world: &Arc<World>) -> Self {
        Self { quiet: true, ..Self::new(world, usize::MAX, 0) }
    }

    /// Returns how many faults this run has met.
    pub(super) fn faults(&self) -> u64 {
        self.faults.load(Ordering::SeqCst)
    }

    async fn begin(&self, kind: Kind, object: &str) -> Result<Option<Fault>> {
        let turn = self.door.lock().await;
        self.alive()?;
        if kind.is_ordered() {
            self.world.pass(self.worker, object).await;
        }
        drop(turn);
        self.world.tick();
        self.world.count(|counts| counts.calls += 1);
        let rates = self.world.rates;
        let rate = if matches!(kind, Kind::Get | Kind::List) { rates.reads } else { rates.writes };
        let fault = if self.quiet { None } else { self.world.fault(object, kind.faults(), rate) };
        if let Some(fault) = fault {
            self.faults.fetch_add(1, Ordering::SeqCst);
            self.down.fetch_or(matches!(fault, CrashBefore | CrashAfter), Ordering::SeqCst);
        }
        let message = fault.map_or("", Fault::words);
        self.world.note(format!("{} {kind:?} {} {message}", self.name(), without_uuid(object)));
        Ok(fault)
    }

    fn name(&self) -> String {
        if self.quiet { "quiet".to_owned() } else { format!("worker {} run {}", self.worker, self.run) }
    }

    fn alive(&self) -> Result<()> {
        if self.down.load(Ordering::SeqCst) { Err(failure("the process has ended")) } else { Ok(()) }
    }

    async fn read<T>(&self, kind: Kind, object: &str, effect: impl Future<Output = Result<T>>) -> Result<T> {
        match self.begin(kind, object).await? {
            None => effect.await,
            Some(fault) => Err(failure(fault.words())),
        }
    }

    fn listing(
        &self,
        object: String,
        items: impl FnOnce(&Self) -> BoxStream<'static, Result<ObjectMeta>> + Send + 'static,
    ) -> BoxStream<'static, Result<ObjectMeta>> {
        let store = self.clone();
        let all = async move {
            let effect = async { items(&store).try_collect::<Vec<_>>().await };
            store.read(Kind::List, &object, effect).await
        };
        stream::once(all).map_ok(|all| stream::iter(all).map(Ok)).try_flatten().boxed()
    }
}

/// Removes the part of a checkpoint's name that differs from run to run.
fn without_uuid(object: &str) -> &str {
    object.split_once(".checkpoint.").map_or(object, |(version, _)| version)
}

fn failure(what: &'static str) -> Error {
    Error::Generic { store: "FaultyStore", source: what.into() }
}

fn exists(path: &Path) -> Error {
    Error::AlreadyExists { path: path.to_string(), source: "a simulated fault".into() }
}

fn unsupported<T>() -> Result<T> {
    Err(Error::NotSupported { source: "the lake never calls this".into() })
}

impl fmt::Display for FaultyStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "FaultyStore({})", self.name())
    }
}

#[async_trait]
impl ObjectStore for FaultyStore {
    async fn put_opts(&self, path: &Path, payload: PutPayload, options: PutOptions) -> Result<PutResult> {
        let kind = if options.mode == PutMode::Create { Kind::Create } else { Kind::Put };
        let fault = self.begin(kind, path.as_ref()).await?;
        match fault {
            None => self.world.put(path, payload, options),
            Some(fault @ (CrashBefore | ErrorBefore)) => Err(failure(fault.words())),
            Some(ErrorLate) => {
                self.world.put_late(path, payload, options);
                Err(failure(ErrorLate.words()))
            }
            Some(Refused) => Err(exists(path)),
            Some(Repeated) => self.world.put(path, payload, options).and_then(|_| Err(exists(path))),
            Some(fault @ (CrashAfter | ErrorAfter)) => {
                self.world.put(path, payload, options).ok();
                Err(failure(fault.words()))
            }
        }
    }

    async fn get_opts(&self, path: &Path, options: GetOptions) -> Result<GetResult> {
        self.read(Kind::Get, path.as_ref(), self.world.bare.get_opts(path, options)).await
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        let prefix = prefix.cloned();
        let object = prefix.as_ref().map(Path::to_string).unwrap_or_default();
        self.listing(object, move |store| store.world.bare.list(prefix.as_ref()))
    }

    fn list_with_offset(&self, prefix: Option<&Path>, offset: &Path) -> BoxStream<'static, Result<ObjectMeta>> {
        let (prefix, offset) = (prefix.cloned(), offset.clone());
        let object = format!("{} from {offset}", prefix.as_ref().map(Path::to_string).unwrap_or_default());
        self.listing(object, move |store| store.world.bare.list_with_offset(prefix.as_ref(), &offset))
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        let object = prefix.map(Path::to_string).unwrap_or_default();
        self.read(Kind::List, &object, self.world.bare.list_with_delimiter(prefix)).await
    }

    async fn put_multipart_opts(&self, _: &Path, _: PutMultipartOptions) -> Result<Box<dyn MultipartUpload>> {
        unsupported()
    }

    fn delete_stream(&self, _: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        stream::once(async { unsupported() }).boxed()
    }

    async fn copy_opts(&self, _: &Path, _: &Path, _: CopyOptions) -> Result<()> {
        unsupported()
    }
}
