//! Reads the profile that `AWS_PROFILE` names from the files of the AWS command line tools. `object_store` itself finds
//! every other source of credentials: the environment, a web identity, the instance.

use std::{collections::BTreeMap, fs, path::PathBuf};

use object_store::aws::AmazonS3ConfigKey as Key;

/// Keys of a profile that a store can be configured with, and the environment variables that take precedence.
const KEYS: [(&str, Key, &[&str]); 5] = [
    ("aws_access_key_id", Key::AccessKeyId, CREDENTIALS),
    ("aws_secret_access_key", Key::SecretAccessKey, CREDENTIALS),
    ("aws_session_token", Key::Token, CREDENTIALS),
    ("region", Key::Region, &["AWS_REGION", "AWS_DEFAULT_REGION"]),
    ("endpoint_url", Key::Endpoint, &["AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_ENDPOINT"]),
];
const CREDENTIALS: &[&str] = &["AWS_ACCESS_KEY_ID"];

/// Returns the settings of the profile, or nothing if `AWS_PROFILE` is not set. The environment takes precedence.
pub(super) fn profile() -> Vec<(Key, String)> {
    let variable = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
    let Some(profile) = variable("AWS_PROFILE") else { return Vec::new() };
    let home = variable("HOME").map(PathBuf::from).unwrap_or_default();
    let file = |name: &str, default: &str| variable(name).map_or_else(|| home.join(default), PathBuf::from);
    let config = fs::read_to_string(file("AWS_CONFIG_FILE", ".aws/config")).unwrap_or_default();
    let shared = fs::read_to_string(file("AWS_SHARED_CREDENTIALS_FILE", ".aws/credentials")).unwrap_or_default();
    let found = settings(&config, &shared, &profile);
    let given = |variables: &[&str]| variables.iter().any(|name| variable(name).is_some());
    let wanted = KEYS.iter().filter(|(_, _, variables)| !given(variables));
    wanted.filter_map(|(name, key, _)| Some((*key, found.get(*name)?.clone()))).collect()
}

/// Returns the keys of a profile in the two files. A `services` section that it names is more specific than its own
/// `endpoint_url`.
fn settings(config: &str, shared: &str, profile: &str) -> BTreeMap<String, String> {
    let named = if profile == "default" { profile.to_owned() } else { format!("profile {profile}") };
    let mut found = section(config, &named);
    found.extend(section(shared, profile));
    let services = found.get("services").map(|name| section(config, &format!("services {name}")));
    if let Some(endpoint) = services.and_then(|mut services| services.remove("s3.endpoint_url")) {
        found.insert("endpoint_url".to_owned(), endpoint);
    }
    found
}

/// Returns the keys of the section `[name]`, as the AWS tools read their files: `key = value`, and comments only on
/// separate lines. An indented key below a key without a value is returned as `outer.inner`.
fn section(text: &str, name: &str) -> BTreeMap<String, String> {
    let mut inside = false;
    let mut outer = String::new();
    let mut found = BTreeMap::new();
    for line in text.lines().filter(|line| !line.trim_start().starts_with(['#', ';'])) {
        let is_inner = line.starts_with([' ', '\t']) && !outer.is_empty();
        let line = line.trim();
        if let Some(header) = line.strip_prefix('[').and_then(|line| line.strip_suffix(']')) {
            inside = header.trim() == name;
            outer.clear();
        } else if let Some((key, value)) = line.split_once('=').filter(|_| inside) {
            let (key, value) = (key.trim().to_ascii_lowercase(), value.trim().to_owned());
            if !is_inner {
                outer = if value.is_empty() { format!("{key}.") } else { String::new() };
            }
            found.insert(if is_inner { format!("{outer}{key}") } else { key }, value);
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

    #[test]
    fn a_section_of_services_is_more_specific() {
        let text = "[profile mine]\nservices = local\nendpoint_url = http://any\n\
                    [services local]\nec2 =\n  endpoint_url = http://ec2\ns3 =\n  endpoint_url = http://s3:9000\n";
        let endpoint = |text: &str| settings(text, "", "mine").get("endpoint_url").cloned();
        assert_eq!(endpoint(text).as_deref(), Some("http://s3:9000"));
        assert_eq!(endpoint(&text.replace("services = local\n", "")).as_deref(), Some("http://any"));
        assert_eq!(endpoint(&text.replace("services = local", "services = other")).as_deref(), Some("http://any"));
    }
}
