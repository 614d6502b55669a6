//! A model in a repository of the Hugging Face hub. Uses the hub's own cache, `models--ORG--REPO` with `blobs`,
//! `snapshots` by commit, and `refs`, so that Python's tools and this program find each other's files.

#[cfg(any(test, fuzzing))]
pub(crate) mod fuzzing;

use std::{
    collections::HashMap,
    fs::{self, File, TryLockError},
    path::{Path, PathBuf},
    sync::{Arc, LazyLock, atomic::AtomicU64},
    time::Duration,
};

use hf_hub::{
    Cache, Repo, RepoType,
    api::tokio::{Api, ApiBuilder, ApiError, ApiRepo},
};
use tokio::{sync::Mutex, time::sleep};

use super::{
    HubError,
    download::{Interrupted, download, other_host},
    files::{FOLDERS, needed},
    progress::{FetchProgress, Watch, files as count_files},
    record::{HubFile, Listing, Record, is_commit},
    settings::{Settings, environment},
};
use crate::{
    config::HubFolder,
    error::{
        self,
        text::{bytes, quote, shorten},
    },
    identity::Digest,
    limited_read::{self, StandIn},
    models::{
        diffusion::PARTS,
        model_dir::{FileError, digest},
    },
};

/// How long the hub may take to list a repository.
const LISTING_TIMEOUT: Duration = Duration::from_secs(30);

/// The most bytes of a list of files: a quarter of a million of them.
const MAX_LISTING_BYTES: usize = 64 << 20;

/// How often a request is tried.
const MAX_ATTEMPTS: u32 = 5;

/// How long to wait each time for another process that fetches the same file, and how often.
const WAIT: Duration = Duration::from_secs(5);
const MAX_WAITS: u32 = 1000;

/// After this many periods of fifteen seconds without a byte, a fetch is resumed in a new request.
const MAX_SILENT_PERIODS: u32 = 4;

/// Why the hub is not reachable in offline mode.
const OFFLINE: &str = "`HF_HUB_OFFLINE` is set";

/// The commits of revisions. A branch may move while a command opens its pipeline again; the command keeps the commit
/// that it began with.
static RESOLVED: LazyLock<Mutex<HashMap<String, Resolved>>> = LazyLock::new(Mutex::default);

/// The commit of a revision, with its files.
#[derive(Clone)]
struct Resolved {
    record: Record,
    /// Why the hub was not reachable, if the cache had to answer.
    unreachable: Option<String>,
}

/// Why the hub did not list a repository.
enum ListError {
    /// It is not reachable now.
    Unreachable(String),
    /// It responded, and another request would not help.
    Failed(HubError),
}

/// Fetches the missing files of a model and returns its directory. `url` is the caller's name for it.
pub(super) async fn fetch(url: &str, folder: &HubFolder, progress: &FetchProgress) -> Result<PathBuf, HubError> {
    let hub = Hub::open(url, folder, Settings::read(environment)?)?;
    let resolved = hub.resolve(progress).await?;
    let snapshot = hub.snapshot(&resolved.record.commit);
    let needed = hub.needed(&resolved.record)?;
    let missing: Vec<&HubFile> = needed.into_iter().filter(|file| !is_present(file, &snapshot)).collect();
    if let (Some(reason), Some(first)) = (&resolved.unreachable, missing.first()) {
        return Err(hub.incomplete(&resolved.record.commit, reason, first, missing.len()));
    }
    if !missing.is_empty() {
        hub.fetch_all(&resolved.record.commit, &missing, progress).await?;
    }
    if resolved.unreachable.is_none() {
        hub.write_ref(&resolved.record.commit)?;
    }
    Ok(if folder.folder.is_empty() { snapshot } else { snapshot.join(&folder.folder) })
}

struct Hub<'a> {
    /// The caller's name for the model.
    url: &'a str,
    wanted: &'a HubFolder,
    endpoint: String,
    offline: bool,
    /// Whether requests carry a token, for messages.
    has_token: bool,
    cache: Cache,
    api: Api,
}

impl<'a> Hub<'a> {
    fn open(url: &'a str, wanted: &'a HubFolder, settings: Settings) -> Result<Self, HubError> {
        let Settings { endpoint, cache, token, offline } = settings;
        let (cache, has_token) = (Cache::new(cache), token.is_some());
        let api = ApiBuilder::from_cache(cache.clone())
            .with_endpoint(endpoint.clone())
            .with_token(token)
            .with_progress(false)
            .with_user_agent("discl-pipe", env!("CARGO_PKG_VERSION"))
            .build()
            .map_err(|error| match error {
                ApiError::InvalidHeaderValue(_) => HubError::Token,
                other => {
                    HubError::Unexpected { url: url.to_owned(), endpoint: endpoint.clone(), reason: message(other) }
                }
            })?;
        Ok(Self { url, wanted, endpoint, offline, has_token, cache, api })
    }

    fn repo(&self, revision: &str) -> Repo {
        Repo::with_revision(self.wanted.repository.clone(), RepoType::Model, revision.to_owned())
    }

    /// Returns the repository's folder in the cache.
    fn folder(&self) -> PathBuf {
        self.cache.path().join(self.repo(&self.wanted.revision).folder_name())
    }

    fn snapshot(&self, commit: &str) -> PathBuf {
        self.folder().join("snapshots").join(commit)
    }

    /// Records the commit of a branch in the cache, as Python's tools do, for use without a network.
    fn write_ref(&self, commit: &str) -> Result<(), HubError> {
        let revision = &self.wanted.revision;
        // A read-only cache suffices as long as nothing has changed.
        if is_commit(revision) || self.branch().is_some_and(|known| known == commit) {
            return Ok(());
        }
        let written = self.cache.repo(self.repo(revision)).create_ref(commit);
        Ok(written.map_err(FileError::io("write", self.folder().join("refs").join(revision)))?)
    }

    /// Returns the commit that the cache has for the branch.
    fn branch(&self) -> Option<String> {
        Some(fs::read_to_string(self.folder().join("refs").join(&self.wanted.revision)).ok()?.trim().to_owned())
    }

    /// Returns the commit of the revision. Determines it once per command.
    async fn resolve(&self, progress: &FetchProgress) -> Result<Resolved, HubError> {
        let HubFolder { repository, revision, .. } = self.wanted;
        let key = format!("{} {repository} {revision}", self.endpoint);
        let mut all = RESOLVED.lock().await;
        if let Some(resolved) = all.get(&key) {
            return Ok(resolved.clone());
        }
        if is_commit(revision)
            && let Some(record) = Record::load(&self.endpoint, repository, revision)
        {
            // Without missing files, no request is needed.
            let unreachable = self.offline.then(|| OFFLINE.to_owned());
            return Ok(Resolved { record, unreachable });
        }
        let resolved = self.list_or_recall().await?;
        let commit = &resolved.record.commit;
        match &resolved.unreachable {
            Some(reason) => progress.report(&format!(
                "`hf://{repository}`: {} cannot be reached ({reason}); `{revision}` is taken to be commit {commit}, from \
                 the cache {}",
                self.endpoint,
                self.cache.path().display()
            )),
            None if !is_commit(revision) => {
                progress.report(&format!("`hf://{repository}`: `{revision}` is commit {commit}"));
            }
            None => {}
        }
        all.insert(key, resolved.clone());
        Ok(resolved)
    }

    /// Lists the repository, or recalls what the cache knows about it if the hub is not reachable.
    async fn list_or_recall(&self) -> Result<Resolved, HubError> {
        let listed = match self.offline {
            true => Err(ListError::Unreachable(OFFLINE.to_owned())),
            false => self.list().await,
        };
        match listed {
            Ok(record) => {
                record.save(&self.endpoint, &self.wanted.repository)?;
                Ok(Resolved { record, unreachable: None })
            }
            Err(ListError::Failed(error)) => Err(error),
            Err(ListError::Unreachable(reason)) => match self.recall() {
                Some(record) => Ok(Resolved { record, unreachable: Some(reason) }),
                None => Err(HubError::Unreachable {
                    url: self.url.to_owned(),
                    reason: format!("{} cannot be reached ({reason})", self.endpoint),
                    revision: self.wanted.revision.clone(),
                    cache: self.folder(),
                }),
            },
        }
    }

    /// Lists the files of the repository. Tries again if the hub is busy or fails.
    async fn list(&self) -> Result<Record, ListError> {
        let repo = self.api.repo(self.repo(&self.wanted.revision));
        let mut reason = String::new();
        for attempt in 0..MAX_ATTEMPTS {
            pause(attempt).await;
            let request = repo.info_request().query(&[("blobs", "true")]).timeout(LISTING_TIMEOUT);
            let mut response = match request.send().await {
                Ok(response) => response,
                Err(error) => return Err(ListError::Unreachable(error::chain(&error.without_url()))),
            };
            let status = response.status();
            if is_transient(status.as_u16()) {
                reason = format!("it responds with {status}");
                continue;
            }
            let from = other_host(&self.endpoint, response.url().as_str());
            if let Some(refusal) = self.refusal(status.as_u16(), from.as_deref()) {
                return Err(ListError::Failed(refusal));
            }
            let mut body = Vec::new();
            while let Some(part) =
                response.chunk().await.map_err(|error| ListError::Unreachable(message(error.into())))?
            {
                body.extend(part);
                if body.len() > MAX_LISTING_BYTES {
                    let reason = format!("its list of files has more than {MAX_LISTING_BYTES} bytes");
                    return Err(ListError::Failed(self.unexpected(reason)));
                }
            }
            return parsed(&body).map_err(|reason| ListError::Failed(self.unexpected(reason)));
        }
        Err(ListError::Unreachable(reason))
    }

    fn unexpected(&self, reason: String) -> HubError {
        HubError::Unexpected { url: self.url.to_owned(), endpoint: self.endpoint.clone(), reason }
    }

    /// Returns what a status of 400 or more means, if another request would not help. `from` is the host that sent it, if
    /// it is not the hub.
    fn refusal(&self, status: u16, from: Option<&str>) -> Option<HubError> {
        let url = self.url.to_owned();
        let endpoint =
            from.map_or_else(|| self.endpoint.clone(), |host| format!("{}, which redirects to {host},", self.endpoint));
        match status {
            401 | 403 => {
                let sent = if self.has_token { "a token was sent" } else { "no token was sent" };
                Some(HubError::Refused { url, endpoint, status, sent })
            }
            404 | 410 => Some(HubError::Missing { url, endpoint, status }),
            400.. if !is_transient(status) => Some(self.unexpected(format!("status {status}"))),
            _ => None,
        }
    }

    /// Returns what the cache knows about the revision.
    fn recall(&self) -> Option<Record> {
        let HubFolder { repository, revision, .. } = self.wanted;
        let commit = match is_commit(revision) {
            true => revision.clone(),
            false => self.branch()?,
        };
        if !is_commit(&commit) {
            return None;
        }
        // Without a record, another tool fetched the snapshot; it is assumed to be complete.
        Record::load(&self.endpoint, repository, &commit).or_else(|| self.list_snapshot(commit))
    }

    /// Returns the files of a snapshot that may belong to the model.
    fn list_snapshot(&self, commit: String) -> Option<Record> {
        let top = self.snapshot(&commit).join(&self.wanted.folder);
        let mut files = Vec::new();
        for part in [""].into_iter().chain(FOLDERS).chain(PARTS) {
            for entry in fs::read_dir(top.join(part)).into_iter().flatten().flatten() {
                let name = entry.file_name().to_string_lossy().into_owned();
                if entry.path().is_file() {
                    let parts = [self.wanted.folder.as_str(), part, &name];
                    let path = parts.into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join("/");
                    files.push(HubFile { path, size: None, blob: None });
                }
            }
        }
        (!files.is_empty()).then_some(Record { commit, files })
    }

    /// Returns the files of the model.
    fn needed<'r>(&self, record: &'r Record) -> Result<Vec<&'r HubFile>, HubError> {
        let folder = &self.wanted.folder;
        let below = |file: &'r HubFile| match folder.is_empty() {
            true => Some((file.path.as_str(), file)),
            false => file.path.strip_prefix(folder.as_str())?.strip_prefix('/').map(|path| (path, file)),
        };
        let all: Vec<(&str, &HubFile)> = record.files.iter().filter_map(below).collect();
        let paths: Vec<&str> = all.iter().map(|(path, _)| *path).collect();
        let needed = needed(&paths, self.url, &self.wanted.repository)?;
        let needed: Vec<&HubFile> =
            all.iter().filter(|(path, _)| needed.contains(path)).map(|(_, file)| *file).collect();
        if needed.is_empty() {
            let found = format!("{} of commit {}", count_files(all.len()), record.commit);
            return Err(HubError::NoModel { url: self.url.to_owned(), found });
        }
        Ok(needed)
    }

    fn incomplete(&self, commit: &str, reason: &str, first: &HubFile, count: usize) -> HubError {
        let more = if count > 1 { format!(" and {} more", count_files(count - 1)) } else { String::new() };
        HubError::Incomplete {
            url: self.url.to_owned(),
            reason: format!("{} cannot be reached ({reason})", self.endpoint),
            missing: format!("`{}`{more} of commit {commit}", first.path),
            cache: self.folder(),
        }
    }

    async fn fetch_all(&self, commit: &str, files: &[&HubFile], progress: &FetchProgress) -> Result<(), HubError> {
        let total = total(files);
        let (count, into) = (count_files(files.len()), self.folder());
        progress.report(&format!("fetching `{}`: {count}, {}, into {}", self.url, bytes(total), into.display()));
        let repo = self.api.repo(self.repo(commit));
        let fetched = Arc::new(AtomicU64::new(0));
        let mut watch = Watch::new(self.url, total, &fetched, progress);
        for file in files {
            if !self.link(commit, file) {
                self.fetch_one(&repo, commit, file, &mut watch, &fetched).await?;
            }
        }
        Ok(())
    }

    /// Links a file into the snapshot if the cache has its contents from another commit. Returns whether it did.
    fn link(&self, commit: &str, file: &HubFile) -> bool {
        let Some(blob) = &file.blob else { return false };
        let in_cache = self.folder().join("blobs").join(blob);
        let is_complete = file.size.is_some_and(|size| fs::metadata(in_cache).is_ok_and(|found| found.len() == size));
        // If the file cannot be linked, it is fetched, which reports the reason.
        is_complete && self.place(commit, file, blob).is_ok() && is_present(file, &self.snapshot(commit))
    }

    /// Makes a file of the snapshot a link to its contents.
    fn place(&self, commit: &str, file: &HubFile, blob: &str) -> Result<(), FileError> {
        let target = self.snapshot(commit).join(&file.path);
        let up = "../".repeat(2 + file.path.matches('/').count());
        let directory = target.parent().unwrap_or(Path::new("."));
        fs::create_dir_all(directory).map_err(FileError::io("create", directory))?;
        if fs::symlink_metadata(&target).is_ok() {
            fs::remove_file(&target).map_err(FileError::io("replace", &target))?;
        }
        std::os::unix::fs::symlink(format!("{up}blobs/{blob}"), &target).map_err(FileError::io("create", &target))
    }

    /// Fetches one file. Resumes what an earlier attempt has left.
    async fn fetch_one(
        &self,
        repo: &ApiRepo,
        commit: &str,
        file: &HubFile,
        watch: &mut Watch<'_>,
        fetched: &Arc<AtomicU64>,
    ) -> Result<(), HubError> {
        let blobs = self.folder().join("blobs");
        fs::create_dir_all(&blobs).map_err(FileError::io("create", &blobs))?;
        // Without a digest of the contents, the path is one.
        let blob = file.blob.clone().unwrap_or_else(|| Digest::new("file").text(commit).text(&file.path).id());
        // Python's tools have the same names, so that each resumes what the other has begun, and none disturbs the other.
        let part = blobs.join(format!("{blob}.incomplete"));
        let Some(_lock) = self.lock(&blob, commit, file).await? else { return Ok(()) };
        let mut reason = String::new();
        for attempt in 0..MAX_ATTEMPTS {
            pause(attempt).await;
            let url = repo.url(&file.path);
            let downloading = async {
                // An earlier attempt may have been interrupted after the last byte.
                let is_complete =
                    file.size.is_some_and(|size| fs::metadata(&part).is_ok_and(|part| part.len() == size));
                if is_complete { Ok(()) } else { download(&self.api, &url, &part, file.size, fetched).await }
            };
            reason = match watch.unless_silent(MAX_SILENT_PERIODS, downloading).await {
                Some(Ok(())) => match defect(file, &part) {
                    None => {
                        fs::rename(&part, blobs.join(&blob)).map_err(FileError::io("replace", &part))?;
                        return Ok(self.place(commit, file, &blob)?);
                    }
                    Some(defect) => {
                        fs::remove_file(&part).map_err(FileError::io("remove", &part))?;
                        defect
                    }
                },
                Some(Err(Interrupted::Status { status, from })) => {
                    if let Some(refusal) = self.refusal(status, from.as_deref()) {
                        return Err(refusal);
                    }
                    format!("it responds with {status}")
                }
                Some(Err(Interrupted::Connection(reason))) => reason,
                Some(Err(Interrupted::Cache(error))) => return Err(error),
                None => "no data arrived for a minute".to_owned(),
            };
        }
        Err(HubError::Fetch { url: self.url.to_owned(), file: file.path.clone(), reason })
    }

    /// Waits until no other process fetches the same file, and returns the lock. `None` if the file arrived meanwhile.
    async fn lock(&self, blob: &str, commit: &str, file: &HubFile) -> Result<Option<File>, HubError> {
        let locks = self.cache.path().join(".locks").join(self.repo(&self.wanted.revision).folder_name());
        fs::create_dir_all(&locks).map_err(FileError::io("create", &locks))?;
        let path = locks.join(format!("{blob}.lock"));
        let lock = File::create(&path).map_err(FileError::io("create", &path))?;
        for _ in 0..MAX_WAITS {
            if is_present(file, &self.snapshot(commit)) || self.link(commit, file) {
                return Ok(None);
            }
            match lock.try_lock() {
                Ok(()) => return Ok(Some(lock)),
                Err(TryLockError::WouldBlock) => sleep(WAIT).await,
                Err(TryLockError::Error(error)) => return Err(FileError::io("lock", path)(error).into()),
            }
        }
        let reason = "another process has been fetching it for too long".to_owned();
        Err(HubError::Fetch { url: self.url.to_owned(), file: file.path.clone(), reason })
    }
}

/// Waits before a further attempt, each time longer.
async fn pause(attempt: u32) {
    if attempt > 0 {
        sleep(Duration::from_secs(1 << attempt.min(4)) / 2).await;
    }
}

/// Returns the record in a response of the hub. Its commit can be the name of a folder.
fn parsed(body: &[u8]) -> Result<Record, String> {
    let record: Record = serde_json::from_slice::<Listing>(body).map_err(|error| shorten(&error.to_string()))?.into();
    if is_commit(&record.commit) {
        Ok(record)
    } else {
        Err(format!("`sha` is {}, not a commit", quote(&record.commit)))
    }
}

/// Returns the bytes of all files, as far as the hub states them.
fn total(files: &[&HubFile]) -> u64 {
    files.iter().filter_map(|file| file.size).fold(0, u64::saturating_add)
}

fn is_present(file: &HubFile, snapshot: &Path) -> bool {
    let found = fs::metadata(snapshot.join(&file.path));
    found.is_ok_and(|found| found.is_file() && file.size.is_none_or(|size| size == found.len()))
}

/// Compares a fetched file with what the hub states about it, and returns the difference.
fn defect(file: &HubFile, path: &Path) -> Option<String> {
    let found = match fs::metadata(path) {
        Ok(found) => found.len(),
        Err(error) => return Some(error.to_string()),
    };
    if let Some(size) = file.size.filter(|size| *size != found) {
        let what = limited_read::head(path).ok().and_then(|head| StandIn::of(&head));
        let what = what.map_or_else(|| format!("{found} bytes"), |what| what.to_string());
        return Some(format!("{what} arrived, but the hub states {size} bytes"));
    }
    let sha256 = file.sha256()?;
    match digest(path) {
        Ok(found) if found == sha256 => None,
        Ok(_) => Some("its SHA-256 is not the one that the hub states".to_owned()),
        Err(error) => Some(error::chain(&error)),
    }
}

/// Formats an error without the URL, which may be signed.
fn message(error: ApiError) -> String {
    match error {
        ApiError::RequestError(error) => error::chain(&error.without_url()),
        other => error::chain(&other),
    }
}

/// Whether the same request may succeed later.
fn is_transient(status: u16) -> bool {
    status == 429 || status >= 500
}
