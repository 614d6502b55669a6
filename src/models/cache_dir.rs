//! The directory in which this program caches files.

use std::{env, path::PathBuf};

/// Returns this program's cache: `discl-pipe` in the user's cache directory. `None` if no variable names a home.
pub(crate) fn cache_dir() -> Option<PathBuf> {
    Some(user_cache_dir(&|name| env::var(name).ok())?.join("discl-pipe"))
}

/// Returns the cache directory that programs share: `XDG_CACHE_HOME`, otherwise `~/.cache`. `variable` returns the value
/// of an environment variable.
pub(crate) fn user_cache_dir(variable: &impl Fn(&str) -> Option<String>) -> Option<PathBuf> {
    let directory = |name: &str| variable(name).map(PathBuf::from).filter(|path| path.is_absolute());
    directory("XDG_CACHE_HOME").or_else(|| Some(directory("HOME")?.join(".cache")))
}
