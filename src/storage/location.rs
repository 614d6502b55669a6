//! Opens the object store that a directory or URL names.

use std::{
    path::PathBuf,
    sync::{Arc, LazyLock},
    time::Duration,
};

use object_store::{
    ObjectStore, RetryConfig,
    aws::{AmazonS3Builder, AmazonS3ConfigKey},
    azure::{AzureConfigKey, MicrosoftAzureBuilder},
    gcp::GoogleCloudStorageBuilder,
    local::LocalFileSystem,
    path::PathPart,
};
use url::Url;

use super::{
    StorageError, aws_profile,
    durable::Durable,
    rate_limit::{RateLimited, RateLimiter, Totals},
};

/// Schemes of the URLs that name a store.
const SCHEMES: [&str; 4] = ["file", "s3", "gs", "az"];
/// Limits the rate of every request to a cloud store.
static RATE_LIMITER: LazyLock<Arc<RateLimiter>> = LazyLock::new(Arc::default);
/// How long a request is retried. This covers two pauses of a minute each, the longest that a store may request.
const MAX_RETRY: Duration = Duration::from_secs(300);

/// A directory or URL: an object store and a prefix in it.
#[derive(Debug, Clone)]
pub(crate) struct Location {
    /// The whole store: a bucket, or the local file system.
    pub(crate) store: Arc<dyn ObjectStore>,
    /// Ends with `/`.
    pub(crate) url: Url,
    /// The path of `url` in `store`.
    prefix: object_store::path::Path,
}

impl Location {
    /// Opens `root`: a directory, or a URL with the scheme `file`, `s3`, `gs` or `az`. A directory does not have to exist
    /// yet. Credentials, region and endpoint of a store come from the environment variables that its own tools use.
    ///
    /// # Errors
    /// Returns an error if the scheme is unknown or the store's configuration is incomplete.
    pub(crate) fn open(root: &str) -> Result<Self, StorageError> {
        let url = directory_url(root)?;
        if !SCHEMES.contains(&url.scheme()) {
            return Err(StorageError::UnknownScheme { root: root.to_owned(), scheme: url.scheme().to_owned() });
        }
        let store = open_store(&url).map_err(|source| StorageError::Open { root: root.to_owned(), source })?;
        Self::at(store, url)
    }

    /// Returns the path of `name` in [`Location::store`]. Characters stay unchanged, so that the path is the one under
    /// which other tools stored the object; joining by the library would encode `%`, `#`, `~`, `[` and more. Encoded are
    /// only `.`, `..` and control characters, so that no name leads out of this location.
    pub(crate) fn path(&self, name: &str) -> object_store::path::Path {
        let part = |part| PathPart::parse(part).unwrap_or_else(|_| PathPart::from(part));
        name.split('/')
            .filter(|part| !part.is_empty())
            .map(part)
            .fold(self.prefix.clone(), |path, part| path.join(part))
    }

    /// Returns the name that [`Location::path`] turns into `path`, which the store listed below this location.
    pub(super) fn name<'a>(&self, path: &'a object_store::path::Path) -> &'a str {
        let below = path.as_ref().strip_prefix(self.prefix.as_ref()).unwrap_or(path.as_ref());
        below.strip_prefix('/').unwrap_or(below)
    }

    /// Returns the directory of this location; `None` if it is in a cloud.
    pub(crate) fn directory(&self) -> Option<PathBuf> {
        self.url.to_file_path().ok().filter(|_| self.url.scheme() == "file")
    }

    /// Returns the URL of `name`, for messages.
    pub(crate) fn url_of(&self, name: &str) -> String {
        format!("{}{name}", self.url)
    }

    /// Returns the location `name` below this one.
    ///
    /// # Errors
    /// Returns an error if `name` does not form a URL.
    pub(crate) fn below(&self, name: &str) -> Result<Self, StorageError> {
        let url = self.url.join(&format!("{name}/"));
        let url = url.map_err(|source| StorageError::InvalidName {
            url: self.url.to_string(),
            name: name.to_owned(),
            source,
        })?;
        Self::at(Arc::clone(&self.store), url)
    }

    /// Returns the location that `url` names in `store`.
    ///
    /// # Errors
    /// Returns an error if the path of `url` is not valid in a store.
    pub(crate) fn at(store: Arc<dyn ObjectStore>, url: Url) -> Result<Self, StorageError> {
        let prefix = object_store::path::Path::from_url_path(url.path())
            .map_err(|source| StorageError::InvalidPath { url: url.to_string(), source })?;
        Ok(Self { store, url, prefix })
    }
}

/// Opens the store of a URL with one of [`SCHEMES`], of which the last is Azure's. All stores of the process share one
/// rate limiter.
fn open_store(url: &Url) -> object_store::Result<Arc<dyn ObjectStore>> {
    let http = RateLimited::new(&RATE_LIMITER);
    let retry = RetryConfig { retry_timeout: MAX_RETRY, ..RetryConfig::default() };
    Ok(match url.scheme() {
        "file" => Arc::new(Durable::new(LocalFileSystem::new())),
        "s3" => {
            let mut builder = aws_profile::profile()
                .into_iter()
                .fold(AmazonS3Builder::from_env(), |builder, (key, value)| builder.with_config(key, value));
            let endpoint = builder.get_config_value(&AmazonS3ConfigKey::S3Endpoint);
            if is_plain_http(endpoint.or_else(|| builder.get_config_value(&AmazonS3ConfigKey::Endpoint))) {
                builder = builder.with_allow_http(true);
            }
            Arc::new(builder.with_url(url.as_str()).with_retry(retry).with_http_connector(http).build()?)
        }
        "gs" => {
            let builder = GoogleCloudStorageBuilder::from_env().with_url(url.as_str());
            Arc::new(builder.with_retry(retry).with_http_connector(http).build()?)
        }
        _ => {
            let mut builder = MicrosoftAzureBuilder::from_env().with_url(url.as_str());
            if is_plain_http(builder.get_config_value(&AzureConfigKey::Endpoint)) {
                builder = builder.with_allow_http(true);
            }
            Arc::new(builder.with_retry(retry).with_http_connector(http).build()?)
        }
    })
}

/// Returns whether the user has named an endpoint without encryption, which is as explicit as a permission to use it. The
/// stores' own tools take it as one.
fn is_plain_http(endpoint: Option<String>) -> bool {
    endpoint.is_some_and(|endpoint| endpoint.trim_start().to_ascii_lowercase().starts_with("http://"))
}

/// Returns how much stores have throttled this process, or `None` if they have not.
pub(crate) fn throttling_totals() -> Option<Totals> {
    Some(RATE_LIMITER.totals()).filter(|totals| totals.throttled > 0)
}

fn directory_url(root: &str) -> Result<Url, StorageError> {
    let mut url = match Url::parse(root) {
        Ok(url) if !url.cannot_be_a_base() && url.scheme().len() > 1 => url,
        _ => std::path::absolute(root)
            .ok()
            .and_then(|path| Url::from_directory_path(path).ok())
            .ok_or_else(|| StorageError::InvalidRoot { root: root.to_owned() })?,
    };
    if !url.path().ends_with('/') {
        let path = format!("{}/", url.path());
        url.set_path(&path);
    }
    Ok(url)
}
