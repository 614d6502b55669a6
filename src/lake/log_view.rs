//! The store of one table as its log is read: entries are remembered, because the library and this program both read each
//! one.

use std::{
    collections::BTreeMap,
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use async_trait::async_trait;
use bytes::Bytes;
use futures::{StreamExt, future, stream, stream::BoxStream};
use object_store::{
    CopyOptions, GetOptions, GetResult, GetResultPayload, ListResult, MultipartUpload, ObjectMeta, ObjectStore,
    PutMode, PutMultipartOptions, PutOptions, PutPayload, PutResult, Result, path::Path,
};

use super::log_faults::{LOG, version};

/// Entries that are remembered, and the bytes that one may have.
const MAX_ENTRIES: usize = 128;
const MAX_ENTRY_BYTES: usize = 64 << 10;

/// A view of a store. See the module.
#[derive(Debug)]
pub(super) struct LogView {
    store: Arc<dyn ObjectStore>,
    /// The latest entries. None of them ever changes.
    entries: Mutex<BTreeMap<Path, Bytes>>,
}

impl LogView {
    pub(super) fn new(store: Arc<dyn ObjectStore>) -> Self {
        Self { store, entries: Mutex::default() }
    }

    fn entries(&self) -> MutexGuard<'_, BTreeMap<Path, Bytes>> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn remember(&self, path: &Path, bytes: Bytes) {
        if bytes.len() > MAX_ENTRY_BYTES {
            return;
        }
        let mut entries = self.entries();
        entries.insert(path.clone(), bytes);
        if entries.len() > MAX_ENTRIES {
            entries.pop_first();
        }
    }
}

/// Returns whether `path` is an entry of a log.
fn is_entry(path: &Path) -> bool {
    let mut parts = path.parts().rev();
    let (name, folder) = (parts.next(), parts.next());
    folder.is_some_and(|folder| folder.as_ref() == LOG)
        && name.is_some_and(|name| name.as_ref().strip_suffix(".json").and_then(version).is_some())
}

/// Returns an entry as the store would.
fn result(path: &Path, bytes: Bytes) -> GetResult {
    let size = bytes.len() as u64;
    // Nobody asks for the time of an entry.
    let last_modified = Default::default();
    let meta = ObjectMeta { location: path.clone(), last_modified, size, e_tag: None, version: None };
    let payload = GetResultPayload::Stream(stream::once(future::ready(Ok(bytes))).boxed());
    GetResult { payload, meta, range: 0..size, attributes: Default::default() }
}

impl fmt::Display for LogView {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "LogView({})", self.store)
    }
}

#[async_trait]
impl ObjectStore for LogView {
    async fn put_opts(&self, path: &Path, payload: PutPayload, options: PutOptions) -> Result<PutResult> {
        let entry = (is_entry(path) && options.mode == PutMode::Create).then(|| Bytes::from(payload.clone()));
        let put = self.store.put_opts(path, payload, options).await?;
        if let Some(bytes) = entry {
            self.remember(path, bytes);
        }
        Ok(put)
    }

    async fn get_opts(&self, path: &Path, options: GetOptions) -> Result<GetResult> {
        if !is_entry(path) || options.head || options.range.is_some() || options.version.is_some() {
            return self.store.get_opts(path, options).await;
        }
        let known = self.entries().get(path).cloned();
        let bytes = match known {
            Some(bytes) => bytes,
            None => {
                let bytes = self.store.get_opts(path, options).await?.bytes().await?;
                self.remember(path, bytes.clone());
                bytes
            }
        };
        Ok(result(path, bytes))
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.store.list(prefix)
    }

    fn list_with_offset(&self, prefix: Option<&Path>, offset: &Path) -> BoxStream<'static, Result<ObjectMeta>> {
        self.store.list_with_offset(prefix, offset)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.store.list_with_delimiter(prefix).await
    }

    async fn put_multipart_opts(&self, path: &Path, options: PutMultipartOptions) -> Result<Box<dyn MultipartUpload>> {
        self.store.put_multipart_opts(path, options).await
    }

    fn delete_stream(&self, paths: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        self.store.delete_stream(paths)
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.store.copy_opts(from, to, options).await
    }
}
