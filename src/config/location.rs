//! The location of a model: a directory, a folder of a repository on the Hugging Face Hub, or a folder in an object
//! store.

use std::path::PathBuf;

/// Schemes of the stores that models are fetched from.
const STORES: [&str; 3] = ["s3", "gs", "az"];

/// The branch of a repository if none is named.
const MAIN: &str = "main";

/// The location of a model, as `[models]` and `models inspect` name it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ModelLocation {
    /// A directory on this machine.
    Directory(PathBuf),
    /// A folder of a repository on the Hugging Face Hub.
    Hub(HubFolder),
    /// The URL of a folder in an object store, without a slash at its end.
    Store(String),
}

/// `hf://ORG/REPO[@REVISION][/FOLDER]`. Every part is safe in a path: none is empty, `.` or `..`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HubFolder {
    /// `ORG/REPO`.
    pub repository: String,
    /// A branch, a tag or a commit; `main` if none is named. A slash in it is written `%2F`.
    pub revision: String,
    /// The folder in the repository; empty for all of it.
    pub folder: String,
}

impl ModelLocation {
    /// How a location is written, for "expected ...".
    pub const EXPECTED: &str = "a directory, or a URL with `hf://` (`hf://ORG/REPO[@REVISION][/FOLDER]`), `s3://`, `gs://` \
                                or `az://`, without empty, `.` or `..` parts";

    /// Parses a location. Returns none if `text` is neither a directory nor such a URL.
    pub fn parse(text: &str) -> Option<Self> {
        if text.trim().is_empty() || text.contains(char::is_control) {
            return None;
        }
        let Some((scheme, rest)) = text.split_once("://") else { return Some(Self::Directory(text.into())) };
        let rest = rest.strip_suffix('/').unwrap_or(rest);
        // A question mark or a hash would end the path, and what precedes an `@` may be a secret.
        let valid = !rest.contains(['\\', '?', '#']) && rest.split('/').all(is_part);
        match scheme {
            "hf" if valid => HubFolder::parse(rest).map(Self::Hub),
            scheme if valid && STORES.contains(&scheme) && !rest.contains('@') => {
                Some(Self::Store(format!("{scheme}://{rest}")))
            }
            _ => None,
        }
    }
}

impl HubFolder {
    fn parse(text: &str) -> Option<Self> {
        let mut parts = text.splitn(3, '/');
        let (organization, named, folder) = (parts.next()?, parts.next()?, parts.next().unwrap_or_default());
        let (name, revision) = named.split_once('@').unwrap_or((named, MAIN));
        let revision = revision.replace("%2F", "/").replace("%2f", "/");
        let valid = is_name(organization) && is_name(name) && revision.split('/').all(is_name);
        let repository = format!("{organization}/{name}");
        valid.then(|| Self { repository, revision, folder: folder.to_owned() })
    }
}

fn is_part(part: &str) -> bool {
    !matches!(part, "" | "." | "..")
}

/// Whether the Hub allows the name for an organization, a repository or a revision.
fn is_name(name: &str) -> bool {
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    is_part(name) && name.chars().all(allowed)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hub(text: &str) -> Option<[String; 3]> {
        match ModelLocation::parse(text)? {
            ModelLocation::Hub(HubFolder { repository, revision, folder }) => Some([repository, revision, folder]),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_repository_has_a_revision_and_a_folder() {
        let parts = |text| hub(text).unwrap();
        assert_eq!(parts("hf://o/r"), ["o/r", "main", ""]);
        assert_eq!(parts("hf://o/r/"), ["o/r", "main", ""]);
        assert_eq!(parts("hf://o/r@v1.0/a/b"), ["o/r", "v1.0", "a/b"]);
        assert_eq!(parts("hf://O-1/r.x_y@refs%2Fpr%2F3"), ["O-1/r.x_y", "refs/pr/3", ""]);
    }

    #[test]
    fn directories_and_stores_are_unchanged() {
        assert_eq!(ModelLocation::parse("../a"), Some(ModelLocation::Directory("../a".into())));
        assert_eq!(ModelLocation::parse("s3://b/a/"), Some(ModelLocation::Store("s3://b/a".into())));
        assert_eq!(ModelLocation::parse("az://b"), Some(ModelLocation::Store("az://b".into())));
    }

    #[test]
    fn a_location_that_may_leave_its_folder_or_hold_a_secret_is_refused() {
        let refused = [
            "",
            " ",
            "hf://",
            "hf://o",
            "hf://o/",
            "hf:///r",
            "hf://o/r@",
            "hf://o/r@..",
            "hf://o/r@a%2F..%2Fb",
            "hf://o/../r",
            "hf://o/r/a//b",
            "hf://o/r/../x",
            "hf://o/r/.",
            "hf://o/r//",
            "hf://o r/x",
            "hf://o/r?x",
            "hf://o/r/a\\b",
            "s3://",
            "s3://b//a",
            "s3://b/../a",
            "s3://key:secret@b/a",
            "s3://b/a#x",
            "gs://b/a\n",
            "https://o/r",
            "file:///models",
        ];
        for text in refused {
            assert_eq!(ModelLocation::parse(text), None, "{text:?}");
        }
    }
}
