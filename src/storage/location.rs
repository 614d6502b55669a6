//! From a directory or URL to an object store.

use std::{
    path::Path,
    sync::{Arc, LazyLock},
    time::Duration,
};

use deltalake_core::logstore::{
    LogStore, LogStoreFactory, ObjectStoreRef, StorageConfig, default_logstore, logstore_factories,
};
use object_store::{
    ObjectStore, RetryConfig, aws::AmazonS3Builder, azure::MicrosoftAzureBuilder, gcp::GoogleCloudStorageBuilder,
    local::LocalFileSystem, path::PathPart,
};
use url::Url;

use super::{
    aws_profile,
    rate_limit::{RateLimited, RateLimiter, Totals},
};
use crate::error::{Error, Result};

/// Schemes of the URLs that name a store.
const SCHEMES: [&str; 4] = ["file", "s3", "gs", "az"];
/// The limiter of every request to a cloud.
static RATE_LIMITER: LazyLock<Arc<RateLimiter>> = LazyLock::new(Arc::default);
/// How long a request is repeated. Two stops of a minute, as a store may ask for, fit in.
const MAX_RETRY: Duration = Duration::from_secs(300);

/// A store and the place in it that a directory or URL names.
#[derive(Debug, Clone)]
pub struct Location {
    /// The whole store: a bucket, or the local file system.
    pub store: Arc<dyn ObjectStore>,
    /// The place, ending in `/`.
    pub url: Url,
    /// The same place as a path in the store.
    prefix: object_store::path::Path,
}

impl Location {
    /// Opens `root`: a directory, or a URL of `file`, `s3`, `gs` or `az`. A directory need not be there yet. What a store
    /// needs beside its URL (credentials, region, endpoint) is taken from the environment, as its own tools name it.
    ///
    /// # Errors
    /// Where the URL's scheme is not known, or the store's options are incomplete.
    pub fn open(root: &str) -> Result<Self> {
        let url = directory_url(root)?;
        if !SCHEMES.contains(&url.scheme()) {
            return Err(Error::Data(format!(
                "`{root}`: no store for `{}`; allowed are a directory, and URLs with `file://`, `s3://`, `gs://` or `az://`",
                url.scheme()
            )));
        }
        let store = open_store(&url).map_err(|error| Error::lake(root, "it cannot be opened", error))?;
        register_log_store();
        Self::at(store, url)
    }

    /// The path of `name`, relative to this place, in [`Location::store`]. Characters stay as they are, so that it is what
    /// others have named so: the library's own joining would encode `%`, `#`, `~`, `[` and more. Encoded are only parts
    /// that are no names, `.` and `..`, and control characters: nothing leads out of this place.
    pub fn path(&self, name: &str) -> object_store::path::Path {
        let part = |part| PathPart::parse(part).unwrap_or_else(|_| PathPart::from(part));
        name.split('/')
            .filter(|part| !part.is_empty())
            .map(part)
            .fold(self.prefix.clone(), |path, part| path.join(part))
    }

    /// What [`Location::path`] made `path` from; none for a path that is not below this place.
    pub fn name<'a>(&self, path: &'a object_store::path::Path) -> Option<&'a str> {
        let below = path.as_ref().strip_prefix(self.prefix.as_ref())?;
        if self.prefix.as_ref().is_empty() { Some(below) } else { below.strip_prefix('/') }
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

    /// The place of `url` in `store`.
    pub fn at(store: Arc<dyn ObjectStore>, url: Url) -> Result<Self> {
        let prefix = object_store::path::Path::from_url_path(url.path())
            .map_err(|error| Error::lake(url.as_str(), "it is no place in a store", error))?;
        Ok(Self { store, url, prefix })
    }
}

/// The store of a URL with one of [`SCHEMES`], of which the last is Azure's. All stores of the process share one limiter.
fn open_store(url: &Url) -> object_store::Result<Arc<dyn ObjectStore>> {
    let http = RateLimited::new(&RATE_LIMITER);
    let retry = RetryConfig { retry_timeout: MAX_RETRY, ..RetryConfig::default() };
    Ok(match url.scheme() {
        "file" => Arc::new(LocalFileSystem::new()),
        "s3" => {
            let builder = aws_profile::profile()
                .into_iter()
                .fold(AmazonS3Builder::from_env(), |builder, (key, value)| builder.with_config(key, value));
            Arc::new(builder.with_url(url.as_str()).with_retry(retry).with_http_connector(http).build()?)
        }
        "gs" => {
            let builder = GoogleCloudStorageBuilder::from_env().with_url(url.as_str());
            Arc::new(builder.with_retry(retry).with_http_connector(http).build()?)
        }
        _ => {
            let builder = MicrosoftAzureBuilder::from_env().with_url(url.as_str());
            Arc::new(builder.with_retry(retry).with_http_connector(http).build()?)
        }
    })
}

/// What slowing down for stores has come to in this process; nothing where no store asked for it.
pub fn throttling_totals() -> Option<Totals> {
    Some(RATE_LIMITER.totals()).filter(|totals| totals.slow_downs > 0)
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

/// Delta's default log store (create-if-absent of each log entry) over clouds by our own object store: the library knows
/// it for `file` and `memory` only, and its packages for clouds bring their SDKs.
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
    for scheme in ["s3://", "gs://", "az://"].into_iter().filter_map(|scheme| Url::parse(scheme).ok()) {
        logstore_factories().insert(scheme, Arc::new(ConditionalPut));
    }
}
