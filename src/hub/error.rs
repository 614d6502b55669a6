//! Why a model cannot be had from elsewhere. No message has a token in it, nor the address that a hub redirects to,
//! which may be signed.

use std::path::PathBuf;

use crate::error::Error;

#[derive(Debug, thiserror::Error)]
pub(crate) enum HubError {
    #[error("`{found}` is no place of a model; allowed are {allowed}")]
    NoPlace { found: String, allowed: &'static str },
    #[error("no cache directory: set `XDG_CACHE_HOME` or `HOME`, or `HF_HOME` for models of the hub")]
    NoCache,
    #[error("`HF_TOKEN`, or the file with the token, holds what no token can have: a line break, say")]
    Token,
    #[error(
        "`{url}`: {endpoint} does not give it ({status})\n\
         hint: it is private, has terms to be accepted on its page, or is not there; `HF_TOKEN` takes the token of an \
         account that may read it{sent}"
    )]
    Refused { url: String, endpoint: String, status: u16, sent: &'static str },
    #[error(
        "`{url}`: {endpoint} has no such repository or revision ({status})\n\
         hint: allowed are `hf://ORG/REPO[@REVISION][/FOLDER]`; what is private needs `HF_TOKEN`"
    )]
    Missing { url: String, endpoint: String, status: u16 },
    #[error(
        "`{url}`: {endpoint} cannot be reached ({reason}), and `{}` has no commit of `{revision}`\n\
         hint: run once with a network, or copy the cache of a machine that has one; `HF_HOME` names it",
        cache.display()
    )]
    Unreachable { url: String, endpoint: String, reason: String, revision: String, cache: PathBuf },
    #[error(
        "`{url}`: {endpoint} cannot be reached ({reason}), and of commit {commit} the cache `{}` lacks {missing}\n\
         hint: run once with a network", cache.display()
    )]
    NotWhole { url: String, endpoint: String, reason: String, commit: String, missing: String, cache: PathBuf },
    #[error("`{url}`: {endpoint} answers what is not understood: {reason}")]
    Answer { url: String, endpoint: String, reason: String },
    #[error(
        "`{url}` holds no model: no `model_index.json`, `model.onnx` or configuration is in it, but {found}\n\
         hint: models are folders as `optimum-cli export onnx` writes them"
    )]
    NoModel { url: String, found: String },
    #[error("`{url}`: `{file}` cannot be fetched: {reason}\nhint: the same command goes on from what has come so far")]
    Fetch { url: String, file: String, reason: String },
    #[error("cannot {action} `{}`", path.display())]
    Io { action: &'static str, path: PathBuf, source: std::io::Error },
    #[error(transparent)]
    Store(#[from] Error),
}

impl HubError {
    pub(super) fn io(action: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.into();
        move |source| Self::Io { action, path, source }
    }
}
