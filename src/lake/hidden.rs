//! A store without some of its objects: the lake as it will be once they are moved aside.

use std::{collections::BTreeSet, fmt, sync::Arc};

use async_trait::async_trait;
use futures::{StreamExt, TryStreamExt, stream::BoxStream};
use object_store::{
    CopyOptions, Error, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore,
    PutMultipartOptions, PutOptions, PutPayload, PutResult, Result, path::Path,
};

use super::Lake;

/// Names of files and folders of a lake that are not seen.
#[derive(Debug, Clone, Default)]
pub(crate) struct Hidden(pub(super) BTreeSet<String>);

impl Lake {
    /// Returns the lake without what is `hidden`.
    pub(crate) fn hiding(mut self, hidden: &Hidden) -> Self {
        if !hidden.0.is_empty() {
            self.location.store = self.store_without(hidden);
        }
        self
    }

    /// Returns the store without what is `hidden`.
    pub(super) fn store_without(&self, hidden: &Hidden) -> Arc<dyn ObjectStore> {
        let hidden = Arc::new(hidden.0.iter().map(|name| self.location.path(name)).collect());
        Arc::new(Hiding { inner: Arc::clone(&self.location.store), hidden })
    }
}

#[derive(Debug)]
struct Hiding {
    inner: Arc<dyn ObjectStore>,
    /// Objects, and folders with all that is in them.
    hidden: Arc<BTreeSet<Path>>,
}

fn is_hidden(hidden: &BTreeSet<Path>, path: &Path) -> bool {
    hidden.iter().any(|hidden| path.prefix_matches(hidden))
}

impl Hiding {
    fn visible(&self, all: BoxStream<'static, Result<ObjectMeta>>) -> BoxStream<'static, Result<ObjectMeta>> {
        let hidden = Arc::clone(&self.hidden);
        all.try_filter(move |found| std::future::ready(!is_hidden(&hidden, &found.location))).boxed()
    }
}

impl fmt::Display for Hiding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.inner.fmt(f)
    }
}

#[async_trait]
impl ObjectStore for Hiding {
    async fn put_opts(&self, path: &Path, payload: PutPayload, options: PutOptions) -> Result<PutResult> {
        self.inner.put_opts(path, payload, options).await
    }

    async fn put_multipart_opts(&self, path: &Path, options: PutMultipartOptions) -> Result<Box<dyn MultipartUpload>> {
        self.inner.put_multipart_opts(path, options).await
    }

    async fn get_opts(&self, path: &Path, options: GetOptions) -> Result<GetResult> {
        if is_hidden(&self.hidden, path) {
            return Err(Error::NotFound { path: path.to_string(), source: "it is damaged".into() });
        }
        self.inner.get_opts(path, options).await
    }

    fn delete_stream(&self, paths: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        self.inner.delete_stream(paths)
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.visible(self.inner.list(prefix))
    }

    fn list_with_offset(&self, prefix: Option<&Path>, offset: &Path) -> BoxStream<'static, Result<ObjectMeta>> {
        self.visible(self.inner.list_with_offset(prefix, offset))
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        let mut listed = self.inner.list_with_delimiter(prefix).await?;
        listed.objects.retain(|found| !is_hidden(&self.hidden, &found.location));
        Ok(listed)
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.inner.copy_opts(from, to, options).await
    }
}
