//! Why a remote model is not available. No message contains a token, or the URL that a hub redirects to, which may be
//! signed.

use std::path::PathBuf;

use crate::{
    error::Error,
    models::{model_dir::FileError, onnx::OnnxError},
};

/// Why a model has no local directory. `url` is the caller's name for it.
#[derive(Debug, thiserror::Error)]
pub(crate) enum HubError {
    /// Neither a directory nor a known kind of URL.
    #[error("`{found}` is not a valid location of a model; allowed are {allowed}")]
    BadLocation { found: String, allowed: &'static str },
    #[error("no cache directory: set `XDG_CACHE_HOME` or `HOME`, or set `HF_HOME` for models of the hub")]
    NoCache,
    #[error(
        "the token in `HF_TOKEN` or in the token file contains characters that a token cannot have, such as a line break"
    )]
    Token,
    #[error(
        "`{url}`: {endpoint} denies access ({status})\n\
         hint: the repository is private, its terms must be accepted on its page, or it does not exist; set `HF_TOKEN` to \
         the token of an account with access ({sent})"
    )]
    Refused { url: String, endpoint: String, status: u16, sent: &'static str },
    #[error(
        "`{url}`: {endpoint} has no such repository or revision ({status})\n\
         hint: allowed are `hf://ORG/REPO[@REVISION][/FOLDER]`; private repositories need `HF_TOKEN`"
    )]
    Missing { url: String, endpoint: String, status: u16 },
    /// The hub is not reachable, and its cache does not know the revision.
    #[error(
        "`{url}`: {reason}, and `{}` has no commit of `{revision}`\n\
         hint: run once with a network, or copy the cache of a machine that has one; `HF_HOME` names it",
        cache.display()
    )]
    Unreachable { url: String, reason: String, revision: String, cache: PathBuf },
    /// The hub is not reachable, and its cache has only some of the files.
    #[error("`{url}`: {reason}, and the cache `{}` lacks {missing}\nhint: run once with a network", cache.display())]
    Incomplete { url: String, reason: String, missing: String, cache: PathBuf },
    #[error("`{url}`: unexpected response from {endpoint}: {reason}")]
    Unexpected { url: String, endpoint: String, reason: String },
    #[error(
        "`{url}` is not a model: there is no `model_index.json`, `model.onnx` or configuration among its {found}\n\
         hint: name a folder that `optimum-cli export onnx` has written"
    )]
    NoModel { url: String, found: String },
    #[error("`{url}`: cannot fetch `{file}`: {reason}\nhint: run the same command again to resume")]
    Fetch { url: String, file: String, reason: String },
    /// There is a directory, but not of a model that can be run.
    #[error(transparent)]
    Graph(#[from] OnnxError),
    #[error(
        "`{}` is a file; a model is a folder\n\
         hint: name the folder with the graph and the configurations that `optimum-cli export onnx` has written",
        path.display()
    )]
    NotAFolder { path: PathBuf },
    #[error(transparent)]
    File(#[from] FileError),
    #[error(transparent)]
    Store(#[from] Error),
}
