//! Objects that survive a loss of power. A file system may lose what was written shortly before, and may keep the name of a
//! file whose bytes it lost. So the bytes are forced to the disk under another name before the object appears, and its name
//! is before the write returns.

use std::{
    collections::HashSet,
    error::Error as StdError,
    fmt,
    fs::File,
    hash::{BuildHasher, RandomState},
    io,
    path::{Path as FilePath, PathBuf},
    sync::{
        Arc, LazyLock, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use async_trait::async_trait;
use futures::{StreamExt, future, stream::BoxStream};
use object_store::{
    CopyOptions, Error, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore, ObjectStoreExt,
    PutMode, PutMultipartOptions, PutOptions, PutPayload, PutResult, RenameOptions, RenameTargetMode, Result,
    UploadPart, local::LocalFileSystem, path::Path,
};

use super::simulated::{Mutant, has};

/// Tells the processes apart that write to one folder, also those of other machines.
static PROCESS: LazyLock<u64> = LazyLock::new(|| RandomState::new().hash_one(()));
/// Writes of this process.
static WRITES: AtomicU64 = AtomicU64::new(0);
/// Time that this process has waited for its disk.
static SYNC_MICROS: AtomicU64 = AtomicU64::new(0);
/// Folders whose own names are on the disk.
static DURABLE_FOLDERS: LazyLock<Mutex<HashSet<PathBuf>>> = LazyLock::new(Mutex::default);

/// Returns how long this process has waited until its writes had reached the disk.
pub(crate) fn time_syncing() -> Duration {
    Duration::from_micros(SYNC_MICROS.load(Ordering::Relaxed))
}

/// A store that can force objects to its disk.
#[async_trait]
pub(crate) trait Persist: ObjectStore {
    /// Returns when the bytes of the object at `path` would survive a loss of power, under whichever name.
    ///
    /// # Errors
    /// Returns an error if the disk does not confirm it.
    async fn persist_bytes(&self, path: &Path) -> Result<()>;

    /// Returns when the name of the object at `path` would survive a loss of power.
    ///
    /// # Errors
    /// Returns an error if the disk does not confirm it.
    async fn persist_name(&self, path: &Path) -> Result<()>;
}

#[async_trait]
impl Persist for LocalFileSystem {
    async fn persist_bytes(&self, path: &Path) -> Result<()> {
        blocking(self.path_to_filesystem(path)?, |file| File::open(file)?.sync_all()).await
    }

    async fn persist_name(&self, path: &Path) -> Result<()> {
        blocking(self.path_to_filesystem(path)?, sync_names).await
    }
}

async fn blocking(file: PathBuf, sync: impl FnOnce(&FilePath) -> io::Result<()> + Send + 'static) -> Result<()> {
    let started = Instant::now();
    let synced = tokio::task::spawn_blocking(move || sync(&file)).await.map_err(io::Error::other).flatten();
    let micros = u64::try_from(started.elapsed().as_micros()).unwrap_or(u64::MAX);
    SYNC_MICROS.fetch_add(micros, Ordering::Relaxed);
    synced.map_err(|source| Error::Generic { store: "LocalFileSystem", source: source.into() })
}

/// Forces the name of `file` to the disk, and those of the folders that lead to it.
fn sync_names(file: &FilePath) -> io::Result<()> {
    let Some(folder) = file.parent() else { return Ok(()) };
    sync_folder(folder)?;
    let mut durable = DURABLE_FOLDERS.lock().unwrap_or_else(PoisonError::into_inner);
    for folder in folder.ancestors().take_while(|folder| !durable.contains(*folder)) {
        let Some(parent) = folder.parent() else { break };
        // A folder that we may not read is not one that we have created.
        match sync_folder(parent) {
            Err(error) if error.kind() != io::ErrorKind::PermissionDenied => return Err(error),
            _ => {}
        }
    }
    durable.extend(folder.ancestors().map(FilePath::to_path_buf));
    Ok(())
}

/// Forces the names in `folder` to the disk. Some file systems do so by themselves, and refuse to be asked.
fn sync_folder(folder: &FilePath) -> io::Result<()> {
    match File::open(folder)?.sync_all() {
        Err(error) if !matches!(error.kind(), io::ErrorKind::InvalidInput | io::ErrorKind::Unsupported) => Err(error),
        _ => Ok(()),
    }
}

/// A store whose writes have reached the disk when they return. An object is there with all its bytes or not at all.
#[derive(Debug)]
pub(crate) struct Durable<S>(Arc<S>);

impl<S: Persist> Durable<S> {
    pub(crate) fn new(store: S) -> Self {
        Self(Arc::new(store))
    }
}

/// Gives the object at `staged` the name `path`.
async fn publish<S: Persist>(store: &S, staged: &Path, path: &Path, mode: RenameTargetMode) -> Result<()> {
    let is_create = mode == RenameTargetMode::Create;
    let published = async {
        if !has(Mutant::SkipBytesSync) {
            store.persist_bytes(staged).await?;
        }
        store.rename_opts(staged, path, RenameOptions::new().with_target_mode(mode)).await
    };
    if let Err(error) = published.await {
        // Nobody sees what stays if this fails, too.
        let _ = store.delete(staged).await;
        return Err(if is_create && is_not_permitted(&error) { without_links(error) } else { error });
    }
    if has(Mutant::SkipNameSync) { Ok(()) } else { store.persist_name(path).await }
}

/// Returns whether the file system refuses what it was asked for: a hard link, since it has just taken a file.
fn is_not_permitted(error: &Error) -> bool {
    let mut cause: Option<&(dyn StdError + 'static)> = Some(error);
    while let Some(found) = cause {
        if let Some(error) = found.downcast_ref::<io::Error>() {
            return matches!(error.kind(), io::ErrorKind::PermissionDenied | io::ErrorKind::Unsupported);
        }
        cause = found.source();
    }
    false
}

/// A file that is created only if it is absent is a hard link, which exFAT, SMB and some other file systems do not have.
fn without_links(error: Error) -> Error {
    let message =
        format!("the file system has no hard links, by which files are created only if they are absent: {error}");
    Error::NotSupported { source: message.into() }
}

/// Returns a name beside `path` that no other write has.
fn staging(path: &Path) -> Result<Path> {
    let write = WRITES.fetch_add(1, Ordering::Relaxed);
    Ok(Path::parse(format!("{path}#{:016x}-{write}", *PROCESS))?)
}

/// Returns whether `path` has a name of [`staging`]: a write is in progress, or its process was killed.
fn is_staged(path: &Path) -> bool {
    path.filename().and_then(|name| name.split_once('#')).is_some_and(|(_, end)| is_staging_end(end))
}

/// Returns whether a name with `end` after a `#` is that of a write in progress.
pub(crate) fn is_staging_end(end: &str) -> bool {
    // object_store stages files, too: with a `#` and a number.
    let mut parts = end.split(['-', '#']);
    parts.next().is_some_and(|process| process.len() == 16 && process.bytes().all(|byte| byte.is_ascii_hexdigit()))
        && parts.all(|part| part.bytes().all(|byte| byte.is_ascii_digit()))
}

fn is_visible(found: &Result<ObjectMeta>) -> future::Ready<bool> {
    future::ready(!found.as_ref().is_ok_and(|meta| is_staged(&meta.location)))
}

impl<S: Persist> fmt::Display for Durable<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Durable({})", self.0)
    }
}

#[async_trait]
impl<S: Persist> ObjectStore for Durable<S> {
    async fn put_opts(&self, path: &Path, payload: PutPayload, options: PutOptions) -> Result<PutResult> {
        let mode = match options.mode {
            PutMode::Overwrite => RenameTargetMode::Overwrite,
            PutMode::Create => RenameTargetMode::Create,
            // A file has no version that could be compared.
            PutMode::Update(_) => return self.0.put_opts(path, payload, options).await,
        };
        let staged = staging(path)?;
        let put = self.0.put_opts(&staged, payload, PutOptions { mode: PutMode::Overwrite, ..options }).await?;
        publish(&*self.0, &staged, path, mode).await?;
        Ok(put)
    }

    async fn put_multipart_opts(&self, path: &Path, options: PutMultipartOptions) -> Result<Box<dyn MultipartUpload>> {
        let staged = staging(path)?;
        let inner = self.0.put_multipart_opts(&staged, options).await?;
        Ok(Box::new(DurableUpload { store: Arc::clone(&self.0), inner, staged, path: path.clone() }))
    }

    async fn get_opts(&self, path: &Path, options: GetOptions) -> Result<GetResult> {
        self.0.get_opts(path, options).await
    }

    fn delete_stream(&self, paths: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        self.0.delete_stream(paths)
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.0.list(prefix).filter(is_visible).boxed()
    }

    fn list_with_offset(&self, prefix: Option<&Path>, offset: &Path) -> BoxStream<'static, Result<ObjectMeta>> {
        self.0.list_with_offset(prefix, offset).filter(is_visible).boxed()
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        let mut listed = self.0.list_with_delimiter(prefix).await?;
        listed.objects.retain(|meta| !is_staged(&meta.location));
        Ok(listed)
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.0.copy_opts(from, to, options).await?;
        self.0.persist_bytes(to).await?;
        self.0.persist_name(to).await
    }

    async fn rename_opts(&self, from: &Path, to: &Path, options: RenameOptions) -> Result<()> {
        self.0.persist_bytes(from).await?;
        self.0.rename_opts(from, to, options).await?;
        self.0.persist_name(to).await
    }
}

/// An upload that gets its name when it is complete.
#[derive(Debug)]
struct DurableUpload<S> {
    store: Arc<S>,
    inner: Box<dyn MultipartUpload>,
    staged: Path,
    path: Path,
}

#[async_trait]
impl<S: Persist> MultipartUpload for DurableUpload<S> {
    fn put_part(&mut self, data: PutPayload) -> UploadPart {
        self.inner.put_part(data)
    }

    async fn complete(&mut self) -> Result<PutResult> {
        let put = self.inner.complete().await?;
        publish(&*self.store, &self.staged, &self.path, RenameTargetMode::Overwrite).await?;
        Ok(put)
    }

    async fn abort(&mut self) -> Result<()> {
        self.inner.abort().await
    }
}

#[cfg(test)]
mod tests {
    use futures::TryStreamExt;

    use super::*;

    async fn names(store: &Durable<LocalFileSystem>, table: &Path) -> Vec<String> {
        let listed: Vec<_> = store.list(Some(table)).try_collect().await.unwrap();
        assert_eq!(store.list_with_delimiter(Some(table)).await.unwrap().objects.len(), listed.len());
        let mut names: Vec<String> = listed.iter().map(|meta| meta.location.filename().unwrap().to_owned()).collect();
        names.sort();
        names
    }

    #[tokio::test]
    async fn a_write_leaves_one_file() {
        let folder = tempfile::tempdir().unwrap();
        let store = Durable::new(LocalFileSystem::new());
        let root = Path::from_absolute_path(folder.path()).unwrap();
        let table = root.join("table");
        let path = table.clone().join("a");
        let create = || PutOptions::from(PutMode::Create);
        store.put_opts(&path, "1".into(), create()).await.unwrap();
        let again = store.put_opts(&path, "2".into(), create()).await;
        assert!(matches!(again, Err(Error::AlreadyExists { .. })), "{again:?}");
        store.put(&path, "3".into()).await.unwrap();
        let mut upload = store.put_multipart(&table.clone().join("b")).await.unwrap();
        upload.put_part("4".into()).await.unwrap();
        assert_eq!(names(&store, &table).await, ["a"]);
        upload.complete().await.unwrap();
        assert_eq!(store.get(&path).await.unwrap().bytes().await.unwrap(), "3");
        let mut files: Vec<_> =
            std::fs::read_dir(folder.path().join("table")).unwrap().map(|file| file.unwrap().file_name()).collect();
        files.sort();
        assert_eq!(files, ["a", "b"]);
        // What a killed process leaves is not listed; other names with a `#` are.
        let killed = staging(&path).unwrap();
        for name in
            [killed.filename().unwrap(), &format!("{}#1", killed.filename().unwrap()), "c#d", "e#0123456789abcdef-x"]
        {
            std::fs::write(folder.path().join("table").join(name), "").unwrap();
        }
        assert_eq!(names(&store, &table).await, ["a", "b", "c#d", "e#0123456789abcdef-x"]);
    }
}
