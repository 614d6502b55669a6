//! From a directory or URL to an object store.

use std::{path::Path, sync::Arc};

use deltalake_core::logstore::{
    LogStore, LogStoreFactory, ObjectStoreRef, StorageConfig, default_logstore, logstore_factories,
};
use object_store::{ObjectStore, aws::AmazonS3Builder, local::LocalFileSystem};
use url::Url;

use crate::error::{Error, Result};

/// A store and the place in it that a directory or URL names.
#[derive(Debug, Clone)]
pub struct Place {
    /// The whole store: a bucket, or the local file system.
    pub store: Arc<dyn ObjectStore>,
    /// The place, ending in `/`.
    pub url: Url,
    /// The same place as a path in the store.
    prefix: object_store::path::Path,
}

impl Place {
    /// Opens `root`: a directory, or a `file://` or `s3://` URL. A directory need not be there yet.
    ///
    /// # Errors
    /// Where the URL's scheme is not known, or the store's options are incomplete.
    pub fn open(root: &str) -> Result<Self> {
        let url = directory_url(root)?;
        let store: Arc<dyn ObjectStore> = match url.scheme() {
            "file" => Arc::new(LocalFileSystem::new()),
            "s3" => Arc::new(
                AmazonS3Builder::from_env()
                    .with_url(url.as_str())
                    .build()
                    .map_err(|error| Error::lake(root, "the bucket cannot be opened", error))?,
            ),
            scheme => {
                return Err(Error::Data(format!(
                    "`{root}`: no store for `{scheme}`; allowed are a directory, `file://` and `s3://`"
                )));
            }
        };
        register_log_store();
        Self::at(store, url)
    }

    /// The path of `name`, relative to this place, in [`Place::store`].
    pub fn path(&self, name: &str) -> object_store::path::Path {
        name.split('/').filter(|part| !part.is_empty()).fold(self.prefix.clone(), |path, part| path.join(part))
    }

    /// The place `name` below this one.
    ///
    /// # Errors
    /// Where `name` makes no URL.
    pub fn below(&self, name: &str) -> Result<Self> {
        let url = self
            .url
            .join(&format!("{name}/"))
            .map_err(|error| Error::lake(self.url.as_str(), format!("no place `{name}` below it"), error))?;
        Self::at(Arc::clone(&self.store), url)
    }

    fn at(store: Arc<dyn ObjectStore>, url: Url) -> Result<Self> {
        let prefix = object_store::path::Path::from_url_path(url.path())
            .map_err(|error| Error::lake(url.as_str(), "it is no place in a store", error))?;
        Ok(Self { store, url, prefix })
    }
}

fn directory_url(root: &str) -> Result<Url> {
    let mut url = match Url::parse(root) {
        Ok(url) if !url.cannot_be_a_base() && url.scheme().len() > 1 => url,
        _ => {
            let path =
                std::path::absolute(Path::new(root)).map_err(|error| Error::lake(root, "it is no directory", error))?;
            Url::from_directory_path(&path).map_err(|()| Error::Data(format!("`{root}` is no directory and no URL")))?
        }
    };
    if !url.path().ends_with('/') {
        let path = format!("{}/", url.path());
        url.set_path(&path);
    }
    Ok(url)
}

/// Delta's default log store (create-if-absent of each log entry) over S3 by our own object store:
/// the library knows it for `file` and `memory` only, and its S3 package brings the AWS SDK.
#[derive(Debug)]
struct ConditionalPut;

impl LogStoreFactory for ConditionalPut {
    fn with_options(
        &self,
        prefixed_store: ObjectStoreRef,
        root_store: ObjectStoreRef,
        location: &Url,
        options: &StorageConfig,
    ) -> deltalake_core::DeltaResult<Arc<dyn LogStore>> {
        Ok(default_logstore(prefixed_store, root_store, location, options))
    }
}

fn register_log_store() {
    if let Ok(scheme) = Url::parse("s3://") {
        logstore_factories().insert(scheme, Arc::new(ConditionalPut));
    }
}
