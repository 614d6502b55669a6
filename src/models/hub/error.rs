//! Why a model cannot be had from elsewhere. No message has a token in it, nor the address that a hub redirects to,
//! which may be signed.

use std::path::PathBuf;

use crate::error::Error;

/// Why there is no directory of a model. `url` is how the caller names the model.
#[derive(Debug, thiserror::Error)]
pub(crate) enum HubError {
    /// Neither a directory nor a URL that is known.
    #[error("`{found}` is no place of a model; expected {allowed}")]
    NoPlace { found: String, allowed: &'static str },
    /// No variable says where files can be kept.
    #[error("no cache directory: set `XDG_CACHE_HOME` or `HOME`, or `HF_HOME` for models of the hub")]
    NoCache,
    /// The token cannot be sent.
    #[error("`HF_TOKEN`, or the file with the token, holds what no token can have: a line break, say")]
    Token,
    /// The hub wants another token, or one at all.
    #[error(
        "`{url}`: {endpoint} does not give it ({status})\n\
         hint: it is private, has terms to be accepted on its page, or is not there; `HF_TOKEN` takes the token of an \
         account that may read it; {sent}"
    )]
    Refused { url: String, endpoint: String, status: u16, sent: &'static str },
    /// The hub knows no such thing.
    #[error(
        "`{url}`: {endpoint} has no such repository or revision ({status})\n\
         hint: allowed are `hf://ORG/REPO[@REVISION][/FOLDER]`; what is private needs `HF_TOKEN`"
    )]
    Missing { url: String, endpoint: String, status: u16 },
    /// The hub cannot be asked, and its cache does not know either.
    #[error(
        "`{url}`: {reason}, and `{}` has no commit of `{revision}`\n\
         hint: run once with a network, or copy the cache of a machine that has one; `HF_HOME` names it",
        cache.display()
    )]
    Unreachable { url: String, reason: String, revision: String, cache: PathBuf },
    /// The hub cannot be asked, and its cache has a part of the model.
    #[error("`{url}`: {reason}, and the cache `{}` lacks {missing}\nhint: run once with a network", cache.display())]
    NotWhole { url: String, reason: String, missing: String, cache: PathBuf },
    /// The hub says something else than it should.
    #[error("`{url}`: {endpoint} answers what is not understood: {reason}")]
    Answer { url: String, endpoint: String, reason: String },
    /// There are files, and none of a model.
    #[error(
        "`{url}` holds no model: no `model_index.json`, `model.onnx` or configuration is among its {found}\n\
         hint: models are folders as `optimum-cli export onnx` writes them"
    )]
    NoModel { url: String, found: String },
    /// A file did not come in several attempts.
    #[error("`{url}`: `{file}` cannot be fetched: {reason}\nhint: the same command goes on from what has come so far")]
    Fetch { url: String, file: String, reason: String },
    /// A cache cannot be used.
    #[error("cannot {action} `{}`", path.display())]
    Io { action: &'static str, path: PathBuf, source: std::io::Error },
    /// A store.
    #[error(transparent)]
    Store(#[from] Error),
}

impl HubError {
    /// An I/O error with the file it is about.
    pub(super) fn io(action: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.into();
        move |source| Self::Io { action, path, source }
    }
}
