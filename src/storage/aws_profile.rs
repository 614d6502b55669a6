//! Reads the profile that `AWS_PROFILE` names from the files of the AWS command line tools. `object_store` itself finds
//! every other source of credentials: the environment, a web identity, the instance.

use std::{collections::BTreeMap, fs, path::PathBuf};

use object_store::aws::AmazonS3ConfigKey as Key;

/// Keys of a profile that a store can be configured with.
const KEYS: [(&str, Key); 4] = [
    ("aws_access_key_id", Key::AccessKeyId),
    ("aws_secret_access_key", Key::SecretAccessKey),
    ("aws_session_token", Key::Token),
    ("region", Key::Region),
];

/// Returns the settings of the profile, or nothing if `AWS_PROFILE` is not set. The environment takes precedence.
pub(super) fn profile() -> Vec<(Key, String)> {
    let variable = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
    let Some(profile) = variable("AWS_PROFILE").filter(|_| variable("AWS_ACCESS_KEY_ID").is_none()) else {
        return Vec::new();
    };
    let home = variable("HOME").map(PathBuf::from).unwrap_or_default();
    let file = |name: &str, default: &str| variable(name).map_or_else(|| home.join(default), PathBuf::from);
    let config = fs::read_to_string(file("AWS_CONFIG_FILE", ".aws/config")).unwrap_or_default();
    let shared = fs::read_to_string(file("AWS_SHARED_CREDENTIALS_FILE", ".aws/credentials")).unwrap_or_default();
    let named = if profile == "default" { profile.clone() } else { format!("profile {profile}") };
    let mut found = section(&config, &named);
    found.extend(section(&shared, &profile));
    if variable("AWS_REGION").or_else(|| variable("AWS_DEFAULT_REGION")).is_some() {
        found.remove("region");
    }
    KEYS.iter().filter_map(|(name, key)| Some((*key, found.get(*name)?.clone()))).collect()
}

/// Returns the keys of the section `[name]`, as the AWS tools read their files: `key = value`, and comments only on
/// separate lines.
fn section(text: &str, name: &str) -> BTreeMap<String, String> {
    let mut inside = false;
    let mut found = BTreeMap::new();
    for line in text.lines().map(str::trim).filter(|line| !line.starts_with(['#', ';'])) {
        if let Some(header) = line.strip_prefix('[').and_then(|line| line.strip_suffix(']')) {
            inside = header.trim() == name;
        } else if let Some((key, value)) = line.split_once('=').filter(|_| inside) {
            found.insert(key.trim().to_ascii_lowercase(), value.trim().to_owned());
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_profile_is_exactly_one_section() {
        let text = "[default]\nregion = a\n; no\n[profile mine]\n# region = x\nregion = b\nrole_arn=arn:aws:c\n[other]\nregion=d\n";
        let of = |name: &str| section(text, name).get("region").cloned();
        assert_eq!(of("default").as_deref(), Some("a"));
        assert_eq!(of("profile mine").as_deref(), Some("b"));
        assert_eq!(section(text, "profile mine").len(), 2);
        assert_eq!(of("nobody"), None);
    }
}
