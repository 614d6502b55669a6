//! A model of a repository on Hugging Face's hub, in the hub's own cache: `models--ORG--REPO` with `blobs`, `snapshots`
//! by commit, and `refs`. What Python's tools have fetched is found there, and what is fetched here they find.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use hf_hub::api::tokio::{Api, ApiBuilder, ApiError, ApiRepo, Progress};
use hf_hub::{Cache, Repo, RepoType};
use tokio::sync::Mutex;
use tokio::time::sleep;

use super::HubError;
use super::files::{INDEX, is_needed};
use super::notes::{Notes, Waiting, files as files_in_words};
use super::record::{Answer, HubFile, Record, is_commit};
use super::settings::{Settings, environment};
use crate::config::HubFolder;
use crate::error;
use crate::error::text::bytes;
use crate::models::diffusion::PARTS;
use crate::models::onnx::digest;

/// How long the hub may take to say what is in a repository.
const ANSWER_WITHIN: Duration = Duration::from_secs(30);

/// How often a request is tried before it is given up.
const ATTEMPTS: u32 = 5;

/// How long another process may take to fetch a file that we want too, in waits of about five seconds.
const WAITS_FOR_OTHERS: u32 = 1000;

/// Fifteen seconds each, without a byte, after which a fetch is begun again from where it is.
const SILENCES: u32 = 4;

/// Why the hub is not asked where somebody said so.
const OFFLINE: &str = "`HF_HUB_OFFLINE` is set";

/// Pieces of a file that are fetched at once.
const PIECES: usize = 4;

/// What the revisions of repositories were found to be. A branch may move while a command opens its pipeline again,
/// and the command goes on with what it began with.
static RESOLVED: LazyLock<Mutex<HashMap<String, Resolved>>> = LazyLock::new(Mutex::default);

/// What a revision is.
#[derive(Clone)]
struct Resolved {
    record: Record,
    /// Why the hub was not asked, where the cache answered.
    unreachable: Option<String>,
}

/// Why the hub has not said what is in a repository.
enum Unanswered {
    /// It cannot be asked now.
    Unreachable(String),
    /// It was asked, and this is final.
    Failed(HubError),
}

/// Fetches what is missing of the model, and gives its directory. `url` is how the caller names it.
pub(super) async fn fetch(url: &str, folder: &HubFolder, notes: &Notes) -> Result<PathBuf, HubError> {
    let hub = Hub::open(url, folder, Settings::read(environment)?)?;
    let resolved = hub.resolve(notes).await?;
    let snapshot = hub.snapshot(&resolved.record.commit);
    let needed = hub.needed(&resolved.record)?;
    let missing: Vec<&HubFile> = needed.into_iter().filter(|file| !is_here(file, &snapshot)).collect();
    if let (Some(reason), Some(first)) = (&resolved.unreachable, missing.first()) {
        return Err(hub.not_whole(&resolved.record.commit, reason, first, missing.len()));
    }
    if !missing.is_empty() {
        hub.fetch_all(&resolved.record.commit, &missing, notes).await?;
    }
    if resolved.unreachable.is_none() {
        hub.remember(&resolved.record.commit)?;
    }
    Ok(if folder.folder.is_empty() { snapshot } else { snapshot.join(&folder.folder) })
}

struct Hub<'a> {
    /// How the caller names the model.
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
            .with_max_files(PIECES)
            .with_user_agent("discl-pipe", env!("CARGO_PKG_VERSION"))
            .build()
            .map_err(|error| match error {
                ApiError::InvalidHeaderValue(_) => HubError::Token,
                other => HubError::Answer { url: url.to_owned(), endpoint: endpoint.clone(), reason: said(other) },
            })?;
        Ok(Self { url, wanted, endpoint, offline, has_token, cache, api })
    }

    fn repo(&self, revision: &str) -> Repo {
        Repo::with_revision(self.wanted.repository.clone(), RepoType::Model, revision.to_owned())
    }

    /// The repository's folder in the cache.
    fn folder(&self) -> PathBuf {
        self.cache.path().join(self.repo(&self.wanted.revision).folder_name())
    }

    fn snapshot(&self, commit: &str) -> PathBuf {
        self.folder().join("snapshots").join(commit)
    }

    /// Notes in the cache what a branch is, as Python's tools do, for when nobody can be asked.
    fn remember(&self, commit: &str) -> Result<(), HubError> {
        let revision = &self.wanted.revision;
        // a cache that may only be read serves as long as nothing is new
        if is_commit(revision) || self.branch().is_some_and(|known| known == commit) {
            return Ok(());
        }
        let written = self.cache.repo(self.repo(revision)).create_ref(commit);
        written.map_err(HubError::io("write", self.folder().join("refs").join(revision)))
    }

    /// What the cache takes the branch to be.
    fn branch(&self) -> Option<String> {
        Some(fs::read_to_string(self.folder().join("refs").join(&self.wanted.revision)).ok()?.trim().to_owned())
    }

    /// Finds out once for each command what the revision is.
    async fn resolve(&self, notes: &Notes) -> Result<Resolved, HubError> {
        let HubFolder { repository, revision, .. } = self.wanted;
        let key = format!("{} {repository} {revision}", self.endpoint);
        let mut all = RESOLVED.lock().await;
        if let Some(resolved) = all.get(&key) {
            return Ok(resolved.clone());
        }
        if is_commit(revision)
            && let Some(record) = Record::load(&self.endpoint, repository, revision)
        {
            // nothing is asked of anybody where all files are here
            let unreachable = self.offline.then(|| OFFLINE.to_owned());
            return Ok(Resolved { record, unreachable });
        }
        let resolved = self.ask_or_remember().await?;
        let commit = &resolved.record.commit;
        match &resolved.unreachable {
            Some(reason) => notes.say(&format!(
                "`hf://{repository}`: {} cannot be reached ({reason}); `{revision}` is taken to be commit {commit}, as \
                 it is in {}",
                self.endpoint,
                self.cache.path().display()
            )),
            None if !is_commit(revision) => {
                notes.say(&format!("`hf://{repository}`: `{revision}` is commit {commit}"));
            }
            None => {}
        }
        all.insert(key, resolved.clone());
        Ok(resolved)
    }

    async fn ask_or_remember(&self) -> Result<Resolved, HubError> {
        let asked = match self.offline {
            true => Err(Unanswered::Unreachable(OFFLINE.to_owned())),
            false => self.ask().await,
        };
        match asked {
            Ok(record) => {
                record.save(&self.endpoint, &self.wanted.repository)?;
                Ok(Resolved { record, unreachable: None })
            }
            Err(Unanswered::Failed(error)) => Err(error),
            Err(Unanswered::Unreachable(reason)) => match self.remembered() {
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

    /// Asks the hub what is in the repository; again where it is busy or fails.
    async fn ask(&self) -> Result<Record, Unanswered> {
        let repo = self.api.repo(self.repo(&self.wanted.revision));
        let mut reason = String::new();
        for attempt in 0..ATTEMPTS {
            pause(attempt).await;
            let request = repo.info_request().query(&[("blobs", "true")]).timeout(ANSWER_WITHIN);
            let answer = match request.send().await {
                Ok(answer) => answer,
                Err(error) => return Err(Unanswered::Unreachable(error::chain(&error.without_url()))),
            };
            let status = answer.status();
            if is_transient(status.as_u16()) {
                reason = format!("it answers {status}");
                continue;
            }
            if let Some(refusal) = self.refusal(status.as_u16()) {
                return Err(Unanswered::Failed(refusal));
            }
            let body = answer.bytes().await.map_err(|error| Unanswered::Unreachable(said(error.into())))?;
            let understood =
                serde_json::from_slice::<Answer>(&body).map(Record::from).map_err(|error| error.to_string());
            return understood.and_then(sound).map_err(|reason| Unanswered::Failed(self.answer(reason)));
        }
        Err(Unanswered::Unreachable(reason))
    }

    fn answer(&self, reason: String) -> HubError {
        HubError::Answer { url: self.url.to_owned(), endpoint: self.endpoint.clone(), reason }
    }

    /// What a status of 400 and more means, where asking again is of no use.
    fn refusal(&self, status: u16) -> Option<HubError> {
        let (url, endpoint) = (self.url.to_owned(), self.endpoint.clone());
        match status {
            401 | 403 => {
                let sent = if self.has_token { "one was sent" } else { "none is set" };
                Some(HubError::Refused { url, endpoint, status, sent })
            }
            404 | 410 => Some(HubError::Missing { url, endpoint, status }),
            400.. if !is_transient(status) => Some(self.answer(format!("status {status}"))),
            _ => None,
        }
    }

    /// What the cache has of the revision.
    fn remembered(&self) -> Option<Record> {
        let HubFolder { repository, revision, .. } = self.wanted;
        let commit = match is_commit(revision) {
            true => revision.clone(),
            false => self.branch()?,
        };
        if !is_commit(&commit) {
            return None;
        }
        // without a record it was fetched by another tool, and is taken as it is
        Record::load(&self.endpoint, repository, &commit).or_else(|| self.listed(commit))
    }

    /// The files of a snapshot that may be of the model.
    fn listed(&self, commit: String) -> Option<Record> {
        let top = self.snapshot(&commit).join(&self.wanted.folder);
        let mut files = Vec::new();
        for part in [""].into_iter().chain(PARTS) {
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

    /// The files of the model.
    fn needed<'r>(&self, record: &'r Record) -> Result<Vec<&'r HubFile>, HubError> {
        let folder = &self.wanted.folder;
        let below = |file: &'r HubFile| match folder.is_empty() {
            true => Some((file.path.as_str(), file)),
            false => file.path.strip_prefix(folder.as_str())?.strip_prefix('/').map(|path| (path, file)),
        };
        let all: Vec<(&str, &HubFile)> = record.files.iter().filter_map(below).collect();
        let is_pipeline = all.iter().any(|(path, _)| *path == INDEX);
        let needed: Vec<&HubFile> =
            all.iter().filter(|(path, _)| is_needed(path, is_pipeline)).map(|(_, file)| *file).collect();
        if needed.is_empty() {
            let found = format!("{} of commit {}", files_in_words(all.len()), record.commit);
            return Err(HubError::NoModel { url: self.url.to_owned(), found });
        }
        Ok(needed)
    }

    fn not_whole(&self, commit: &str, reason: &str, first: &HubFile, count: usize) -> HubError {
        let more = if count > 1 { format!(" and {} more", files_in_words(count - 1)) } else { String::new() };
        HubError::NotWhole {
            url: self.url.to_owned(),
            reason: format!("{} cannot be reached ({reason})", self.endpoint),
            missing: format!("`{}`{more} of commit {commit}", first.path),
            cache: self.folder(),
        }
    }

    async fn fetch_all(&self, commit: &str, files: &[&HubFile], notes: &Notes) -> Result<(), HubError> {
        let total = files.iter().filter_map(|file| file.size).sum();
        let (count, into) = (files_in_words(files.len()), self.folder());
        notes.say(&format!("fetching `{}`: {count}, {}, into {}", self.url, bytes(total), into.display()));
        let repo = self.api.repo(self.repo(commit));
        let fetched = Arc::new(AtomicU64::new(0));
        let mut waiting = Waiting::new(self.url, total, &fetched, notes);
        for file in files {
            if !self.link(commit, file) {
                self.fetch_one(&repo, commit, file, &mut waiting, &fetched).await?;
            }
        }
        Ok(())
    }

    /// Puts a file into the snapshot whose contents the cache has from another commit.
    fn link(&self, commit: &str, file: &HubFile) -> bool {
        let Some(blob) = &file.blob else { return false };
        let in_cache = self.folder().join("blobs").join(blob);
        let target = self.snapshot(commit).join(&file.path);
        if file.size.is_none_or(|size| !fs::metadata(in_cache).is_ok_and(|found| found.len() == size)) {
            return false;
        }
        let up = "../".repeat(2 + file.path.matches('/').count());
        let directory = target.parent().unwrap_or(Path::new("."));
        // where it cannot be linked it is fetched, which says why
        let _ = fs::create_dir_all(directory);
        let _ = fs::remove_file(&target);
        std::os::unix::fs::symlink(format!("{up}blobs/{blob}"), &target).is_ok()
            && is_here(file, &self.snapshot(commit))
    }

    /// Fetches one file, going on from what an earlier attempt has left.
    async fn fetch_one(
        &self,
        repo: &ApiRepo,
        commit: &str,
        file: &HubFile,
        waiting: &mut Waiting<'_>,
        fetched: &Arc<AtomicU64>,
    ) -> Result<(), HubError> {
        let target = self.snapshot(commit).join(&file.path);
        // the library keeps a link that is there, and it may lead to nothing
        if fs::symlink_metadata(&target).is_ok() {
            fs::remove_file(&target).map_err(HubError::io("replace", &target))?;
        }
        let (mut attempt, mut waits) = (0, 0);
        let mut reason = String::new();
        while attempt < ATTEMPTS && waits < WAITS_FOR_OTHERS {
            pause(attempt).await;
            let fetching = repo.download_with_progress(&file.path, Counter(Arc::clone(fetched)));
            match waiting.unless_silent(SILENCES, fetching).await {
                Some(Ok(_)) => match flaw(file, &target) {
                    None => return Ok(()),
                    Some(flaw) => {
                        reason = flaw;
                        discard(&target);
                    }
                },
                Some(Err(ApiError::LockAcquisition(_))) => {
                    waits += 1;
                    reason = "another process is fetching it, and does not end".to_owned();
                    if is_here(file, &self.snapshot(commit)) || self.link(commit, file) {
                        return Ok(());
                    }
                    continue;
                }
                Some(Err(error)) => {
                    if let Some(refusal) = status(&error).and_then(|status| self.refusal(status)) {
                        return Err(refusal);
                    }
                    reason = said(error);
                }
                None => reason = "nothing came for a minute".to_owned(),
            }
            attempt += 1;
        }
        Err(HubError::Fetch { url: self.url.to_owned(), file: file.path.clone(), reason })
    }
}

/// Waits longer before each further attempt.
async fn pause(attempt: u32) {
    if attempt > 0 {
        sleep(Duration::from_secs(1 << attempt.min(4)) / 2).await;
    }
}

/// A record whose commit can be a folder.
fn sound(record: Record) -> Result<Record, String> {
    if is_commit(&record.commit) { Ok(record) } else { Err(format!("`sha` is `{}`, no commit", record.commit)) }
}

fn is_here(file: &HubFile, snapshot: &Path) -> bool {
    let found = fs::metadata(snapshot.join(&file.path));
    found.is_ok_and(|found| found.is_file() && file.size.is_none_or(|size| size == found.len()))
}

/// What is wrong with a file that was fetched, by what the hub says of it.
fn flaw(file: &HubFile, path: &Path) -> Option<String> {
    let found = match fs::metadata(path) {
        Ok(found) => found.len(),
        Err(error) => return Some(error.to_string()),
    };
    if let Some(size) = file.size.filter(|size| *size != found) {
        return Some(format!("{found} bytes came, and it has {size}"));
    }
    let sha256 = file.sha256()?;
    match digest(path) {
        Ok(found) if found == sha256 => None,
        Ok(_) => Some("what came is not what its SHA-256 says".to_owned()),
        Err(error) => Some(error::chain(&error)),
    }
}

/// Takes a file that is not what it should be out of the cache. Where that fails, it is found wrong again.
fn discard(path: &Path) {
    if let Ok(blob) = fs::canonicalize(path) {
        let _ = fs::remove_file(blob);
    }
    let _ = fs::remove_file(path);
}

/// An error in words, without the address, which may be signed.
fn said(error: ApiError) -> String {
    match error {
        ApiError::RequestError(error) => error::chain(&error.without_url()),
        other => error::chain(&other),
    }
}

/// The status that the hub answered with, where it did.
fn status(error: &ApiError) -> Option<u16> {
    let ApiError::RequestError(error) = error else { return None };
    error.status().map(|status| status.as_u16())
}

/// Whether the same request may be answered otherwise in a while.
fn is_transient(status: u16) -> bool {
    status == 429 || status >= 500
}

/// Counts what comes.
#[derive(Clone)]
struct Counter(Arc<AtomicU64>);

impl Progress for Counter {
    async fn init(&mut self, _size: usize, _name: &str) {}

    async fn update(&mut self, size: usize) {
        self.0.fetch_add(size as u64, Ordering::Relaxed);
    }

    async fn finish(&mut self) {}
}
