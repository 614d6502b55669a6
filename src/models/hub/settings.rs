//! Where the hub and the caches are, by the environment variables of Hugging Face's own tools.

use std::{fs, path::PathBuf};

use super::HubError;
use crate::models::cache_dir::{cache_dir, user_cache_dir};

/// The public hub.
const PUBLIC: &str = "https://huggingface.co";

/// The settings of the environment. There is no `Debug`, since the token is a secret.
pub(super) struct Settings {
    /// The URL of the hub: `HF_ENDPOINT`, otherwise the public one.
    pub(super) endpoint: String,
    /// The hub's cache: `HF_HUB_CACHE`, otherwise `hub` in `HF_HOME`, otherwise `~/.cache/huggingface/hub`.
    pub(super) cache: PathBuf,
    /// `HF_TOKEN`, otherwise the file `HF_TOKEN_PATH`, otherwise `token` in `HF_HOME`, where `hf auth login` writes it.
    pub(super) token: Option<String>,
    /// Whether `HF_HUB_OFFLINE` forbids requests.
    pub(super) offline: bool,
}

impl Settings {
    /// Reads the settings; `variable` returns the value of an environment variable.
    ///
    /// # Errors
    /// Returns [`HubError::NoCache`] if no variable names a home.
    pub(super) fn read(variable: impl Fn(&str) -> Option<String>) -> Result<Self, HubError> {
        let given = |name: &str| variable(name).map(|value| value.trim().to_owned()).filter(|value| !value.is_empty());
        let home = given("HF_HOME").map(PathBuf::from).or_else(|| Some(user_cache_dir(&variable)?.join("huggingface")));
        let cache = given("HF_HUB_CACHE").or_else(|| given("HUGGINGFACE_HUB_CACHE")).map(PathBuf::from);
        let cache = cache.or_else(|| Some(home.as_ref()?.join("hub"))).ok_or(HubError::NoCache)?;
        let file = given("HF_TOKEN_PATH").map(PathBuf::from).or_else(|| Some(home?.join("token")));
        let in_file = || Some(fs::read_to_string(file?).ok()?.trim().to_owned()).filter(|token| !token.is_empty());
        let token = given("HF_TOKEN").or_else(|| given("HUGGING_FACE_HUB_TOKEN")).or_else(in_file);
        let endpoint = given("HF_ENDPOINT").unwrap_or_else(|| PUBLIC.to_owned());
        let yes = |value: String| ["1", "true", "yes", "on"].contains(&value.to_ascii_lowercase().as_str());
        let offline = given("HF_HUB_OFFLINE").is_some_and(yes);
        Ok(Self { endpoint: endpoint.trim_end_matches('/').to_owned(), cache, token, offline })
    }
}

/// Returns this program's cache for models.
///
/// # Errors
/// Returns [`HubError::NoCache`] if no variable names a home.
pub(super) fn model_cache() -> Result<PathBuf, HubError> {
    Ok(cache_dir().ok_or(HubError::NoCache)?.join("models"))
}

/// Returns the value of an environment variable.
pub(super) fn environment(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(variables: &[(&str, &str)]) -> Result<Settings, HubError> {
        Settings::read(|name| variables.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned()))
    }

    #[test]
    fn variables_are_those_of_python_tools() {
        let plain = read(&[("HOME", "/home/me"), ("HF_TOKEN", " ")]).unwrap_or_else(|error| panic!("{error}"));
        assert_eq!(plain.cache, PathBuf::from("/home/me/.cache/huggingface/hub"));
        assert_eq!((plain.endpoint.as_str(), plain.token, plain.offline), (PUBLIC, None, false));
        let set = [
            ("HOME", "/home/me"),
            ("HF_HOME", "/hf"),
            ("HF_ENDPOINT", "http://mirror/"),
            ("HF_TOKEN", "secret\n"),
            ("HF_HUB_OFFLINE", "1"),
        ];
        let named = read(&set).unwrap_or_else(|error| panic!("{error}"));
        assert_eq!((named.cache, named.endpoint.as_str()), (PathBuf::from("/hf/hub"), "http://mirror"));
        assert_eq!((named.token.as_deref(), named.offline), (Some("secret"), true));
        let cache = read(&[("HF_HUB_CACHE", "/c")]).unwrap_or_else(|error| panic!("{error}")).cache;
        assert_eq!(cache, PathBuf::from("/c"));
        assert!(matches!(read(&[]), Err(HubError::NoCache)));
    }

    #[test]
    fn a_token_may_be_in_a_file() {
        let home = tempfile::tempdir().unwrap();
        let variables = [("HF_HOME", home.path().to_str().unwrap())];
        let token = || read(&variables).unwrap_or_else(|error| panic!("{error}")).token;
        assert_eq!(token(), None);
        fs::write(home.path().join("token"), "in a file\n").unwrap();
        assert_eq!(token().as_deref(), Some("in a file"));
    }
}
