//! A store whose calls fail as the world decides.

use std::{
    fmt,
    future::Future,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use futures::{
    StreamExt, TryStreamExt,
    stream::{self, BoxStream},
};
use object_store::{
    CopyOptions, Error, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore, PutMode,
    PutMultipartOptions, PutOptions, PutPayload, PutResult, RenameOptions, RenameTargetMode, Result, path::Path,
};

use super::{
    disk::Writer,
    fault::{
        Fault::{self, CrashAfter, CrashBefore, ErrorAfter, ErrorBefore, ErrorLate, Refused, Repeated},
        Kind,
    },
    world::World,
};
use crate::storage::Persist;

/// The store as one run of one worker sees it. After a crash every call fails, as for a process that has ended.
#[derive(Debug, Clone)]
pub(super) struct FaultyStore {
    pub(super) world: Arc<World>,
    pub(super) by: Writer,
    quiet: bool,
    /// The losses of power before this run.
    losses: u64,
    down: Arc<AtomicBool>,
    faults: Arc<AtomicU64>,
    /// A worker waits for its turn in one call at a time.
    door: Arc<tokio::sync::Mutex<()>>,
    /// The object that was looked at last. It is deleted in the same turn.
    looked_at: Arc<std::sync::Mutex<String>>,
}

impl FaultyStore {
    pub(super) fn new(world: &Arc<World>, worker: usize, run: u64) -> Self {
        Self {
            world: Arc::clone(world),
            by: (worker, run),
            quiet: false,
            losses: world.losses(),
            down: Arc::default(),
            faults: Arc::default(),
            door: Arc::default(),
            looked_at: Arc::default(),
        }
    }

    /// Returns a store without faults.
    pub(super) fn quiet(world: &Arc<World>, run: u64) -> Self {
        Self { quiet: true, ..Self::new(world, usize::MAX, run) }
    }

    pub(super) fn is_disk(&self) -> bool {
        self.world.is_disk
    }

    /// Returns whether this run has met a fault.
    pub(super) fn is_faulty(&self) -> bool {
        self.faults.load(Ordering::SeqCst) > 0 || self.losses != self.world.losses()
    }

    /// Notes that a run has told its user that rows of a step were committed or, unless `skipped` is `None`, that the step
    /// is complete.
    pub(super) fn told(&self, step: &str, skipped: Option<bool>) {
        if !self.down.load(Ordering::SeqCst) && self.losses == self.world.losses() {
            self.world.told(self.by, step, skipped);
        }
    }

    async fn begin(&self, kind: Kind, object: &str) -> Result<Option<Fault>> {
        let turn = self.door.lock().await;
        self.alive()?;
        let again = std::mem::replace(&mut *self.looked_at.lock().unwrap(), object.to_owned()) == object;
        if kind.is_ordered() && !(kind == Kind::Delete && again) {
            self.world.pass(self.by.0, object).await;
        }
        drop(turn);
        self.world.tick();
        self.alive()?;
        let fault = if self.quiet { None } else { self.world.fault(object, kind) };
        if let Some(fault) = fault {
            self.faults.fetch_add(1, Ordering::SeqCst);
            self.down.fetch_or(matches!(fault, CrashBefore | CrashAfter), Ordering::SeqCst);
        }
        let message = fault.map_or("", Fault::words);
        self.world.note(format!("{} {kind:?} {} {message}", self.name(), repeatable(object)));
        Ok(fault)
    }

    pub(super) fn name(&self) -> String {
        let (worker, run) = self.by;
        if self.quiet { format!("quiet {run}") } else { format!("worker {worker} run {run}") }
    }

    fn alive(&self) -> Result<()> {
        if self.losses != self.world.losses() {
            Err(failure("the power was lost"))
        } else if self.down.load(Ordering::SeqCst) {
            Err(failure("the process has ended"))
        } else {
            Ok(())
        }
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
            let listed = store.read(Kind::List, &object, effect).await?;
            Ok::<_, Error>(listed.into_iter().map(|meta| store.dated(meta)).collect::<Vec<_>>())
        };
        stream::once(all).map_ok(|all| stream::iter(all).map(Ok)).try_flatten().boxed()
    }

    /// Gives an object the age that it has in this world.
    fn dated(&self, mut meta: ObjectMeta) -> ObjectMeta {
        let age = Duration::from_millis(self.world.age(&meta.location));
        meta.last_modified = (std::time::SystemTime::now() - age).into();
        meta
    }

    /// Performs a write. Without a fault it has its effect, with one perhaps.
    async fn write<T>(&self, kind: Kind, path: &Path, effect: impl FnOnce() -> Result<T>) -> Result<T> {
        match self.begin(kind, path.as_ref()).await? {
            None => effect(),
            Some(Repeated) => effect().and_then(|_| Err(exists(path))),
            Some(Refused) => Err(exists(path)),
            Some(fault @ (CrashAfter | ErrorAfter)) => {
                effect().ok();
                Err(failure(fault.words()))
            }
            Some(fault) => Err(failure(fault.words())),
        }
    }
}

/// Removes the part of an object's name that differs from run to run: chance, or a digest of times.
fn repeatable(object: &str) -> &str {
    let object = object.split_once(".checkpoint.").map_or(object, |(version, _)| version);
    let object = object.split_once('#').map_or(object, |(name, _)| name);
    match object.rsplit_once('-') {
        Some((unit, _)) if object.contains("/ledger/") => unit,
        _ => object,
    }
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
impl Persist for FaultyStore {
    async fn persist_bytes(&self, path: &Path) -> Result<()> {
        self.write(Kind::Sync, path, || self.world.sync_bytes(path)).await
    }

    async fn persist_name(&self, path: &Path) -> Result<()> {
        self.write(Kind::Sync, path, || self.world.sync_names()).await
    }
}

#[async_trait]
impl ObjectStore for FaultyStore {
    async fn put_opts(&self, path: &Path, payload: PutPayload, options: PutOptions) -> Result<PutResult> {
        let kind = if options.mode == PutMode::Create { Kind::Create } else { Kind::Put };
        match self.begin(kind, path.as_ref()).await? {
            Some(ErrorLate) => {
                self.world.put_late(path, payload, options, self.by);
                return Err(failure(ErrorLate.words()));
            }
            None => return self.world.put(path, payload, options, self.by),
            Some(Refused) => return Err(exists(path)),
            Some(Repeated) => {
                return self.world.put(path, payload, options, self.by).and_then(|_| Err(exists(path)));
            }
            Some(fault @ (CrashAfter | ErrorAfter)) => {
                self.world.put(path, payload, options, self.by).ok();
                Err(failure(fault.words()))
            }
            Some(fault @ (CrashBefore | ErrorBefore)) => Err(failure(fault.words())),
        }
    }

    async fn get_opts(&self, path: &Path, options: GetOptions) -> Result<GetResult> {
        let effect = async { self.world.get(path, options) };
        let mut got = self.read(Kind::Get, path.as_ref(), effect).await;
        match &mut got {
            Ok(got) => got.meta = self.dated(got.meta.clone()),
            // Who reads an old version may find its files deleted.
            Err(Error::NotFound { .. }) if self.world.was_deleted(path) => {
                self.faults.fetch_add(1, Ordering::SeqCst);
            }
            Err(_) => {}
        }
        got
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        let prefix = prefix.cloned();
        let object = prefix.as_ref().map(Path::to_string).unwrap_or_default();
        self.listing(object, move |store| store.world.with_objects(|objects| objects.list(prefix.as_ref())))
    }

    fn list_with_offset(&self, prefix: Option<&Path>, offset: &Path) -> BoxStream<'static, Result<ObjectMeta>> {
        let (prefix, offset) = (prefix.cloned(), offset.clone());
        let object = format!("{} from {offset}", prefix.as_ref().map(Path::to_string).unwrap_or_default());
        self.listing(object, move |store| {
            store.world.with_objects(|objects| objects.list_with_offset(prefix.as_ref(), &offset))
        })
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        let object = prefix.map(Path::to_string).unwrap_or_default();
        let effect = async { self.world.list_with_delimiter(prefix) };
        let mut listed = self.read(Kind::List, &object, effect).await?;
        listed.objects = listed.objects.into_iter().map(|meta| self.dated(meta)).collect();
        Ok(listed)
    }

    fn delete_stream(&self, paths: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        let store = self.clone();
        let delete = move |path: Result<Path>| {
            let store = store.clone();
            async move {
                let path = path?;
                store.write(Kind::Delete, &path, || store.world.delete(&path, store.by)).await?;
                Ok(path)
            }
        };
        paths.then(delete).boxed()
    }

    async fn rename_opts(&self, from: &Path, to: &Path, options: RenameOptions) -> Result<()> {
        let mode = match options.target_mode {
            RenameTargetMode::Create => PutMode::Create,
            RenameTargetMode::Overwrite => PutMode::Overwrite,
        };
        self.write(Kind::Rename, to, || self.world.rename(from, to, mode, self.by)).await
    }

    async fn put_multipart_opts(&self, _: &Path, _: PutMultipartOptions) -> Result<Box<dyn MultipartUpload>> {
        unsupported()
    }

    async fn copy_opts(&self, _: &Path, _: &Path, _: CopyOptions) -> Result<()> {
        unsupported()
    }
}
