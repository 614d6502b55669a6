//! Recognises files that hold something else than their names promise: what Git LFS and servers leave in place of a file,
//! and other formats.

use std::fmt;

/// As many bytes as are needed from the beginning of a file to recognise it.
pub(crate) const HEAD_BYTES: usize = 1024;

/// What was stored in place of a file whose contents never arrived.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum StandIn {
    /// Nothing.
    Empty,
    /// A few lines of text that name the contents in a Git LFS store.
    LfsPointer,
    /// A path of text that names the contents in a git-annex.
    AnnexPointer,
    /// A page for a browser: an error, a form to log in, or the page about the file.
    HtmlPage,
    /// The error of an object store or of a server, in XML or JSON.
    ServerError,
}

impl StandIn {
    /// Recognises what the first [`HEAD_BYTES`] of a file are, or all of them if it is shorter. `None` for anything that
    /// may be the file itself.
    pub(crate) fn of(head: &[u8]) -> Option<Self> {
        if head.is_empty() {
            return Some(Self::Empty);
        }
        let text = beginning(head);
        let starts = |words: &[&str]| words.iter().any(|word| starts_with(text, word));
        if starts(&["version https://git-lfs.github.com/spec/", "version https://hawser.github.com/spec/"]) {
            Some(Self::LfsPointer)
        } else if starts(&["/annex/objects/", ".git/annex/objects/", "../.git/annex/objects/"]) {
            Some(Self::AnnexPointer)
        } else if starts(&["{\"error\"", "{ \"error\"", "<Error>", "<Error "]) {
            Some(Self::ServerError)
        } else if starts(&["<!doctype html", "<html", "<head", "<body", "<script", "<title", "<meta"]) {
            Some(Self::HtmlPage)
        } else {
            None
        }
    }

    /// Returns the end of a message about a file that holds this: what it is, and what to do.
    pub(crate) fn instead_of_the_file(self) -> String {
        let not = if self == Self::Empty { "" } else { ", not the file itself" };
        format!("it is {self}{not}\nhint: {}", self.remedy())
    }

    /// Returns how to get the file itself.
    pub(crate) fn remedy(self) -> &'static str {
        match self {
            Self::LfsPointer => {
                "run `git lfs install` and `git lfs pull` in the repository, or download the file by itself"
            }
            Self::AnnexPointer => "run `git annex get` in the repository",
            Self::HtmlPage | Self::ServerError => {
                "download the file again, from the link of the file itself, and logged in if it needs that"
            }
            Self::Empty => "download or copy the file again",
        }
    }
}

/// A noun, as in "the file is a Git LFS pointer".
impl fmt::Display for StandIn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Empty => "an empty file",
            Self::LfsPointer => "a Git LFS pointer",
            Self::AnnexPointer => "a git-annex pointer",
            Self::HtmlPage => "an HTML page",
            Self::ServerError => "the error message of a server",
        })
    }
}

/// Formats with their first bytes: offset, bytes, description.
const FORMATS: &[(usize, &[u8], &str)] = &[
    (0, b"%PDF", "a pdf document"),
    (0, b"PK\x03\x04", "a zip archive"),
    (0, b"\x1f\x8b", "a gzip file"),
    (0, b"\x28\xb5\x2f\xfd", "a zstd file"),
    (0, b"BZh", "a bzip2 file"),
    (0, b"\xfd7zXZ\0", "an xz file"),
    (0, b"7z\xbc\xaf\x27\x1c", "a 7z archive"),
    (0, b"PAR1", "a parquet file"),
    (0, b"ARROW1", "an arrow file"),
    (0, b"GGUF", "a gguf model"),
    (0, b"\x89HDF\r\n\x1a\n", "an hdf5 file"),
    (0, b"\x80\x02", "a Python pickle"),
    (0, b"\x80\x03", "a Python pickle"),
    (0, b"\x80\x04", "a Python pickle"),
    (8, b"{\"", "a safetensors file"),
    (0, b"\x89PNG\r\n\x1a\n", "a png image"),
    (0, b"\xff\xd8\xff", "a jpeg image"),
    (257, b"ustar", "a tar archive"),
    (4, b"ftyp", "a video"),
];

/// What [`looks_like`] returns for bytes that it does not recognise.
pub(crate) const UNKNOWN: &str = "binary data of unknown kind";

/// Returns what a file looks like by its first [`HEAD_BYTES`], for the message about one that is not what it should be.
pub(crate) fn looks_like(head: &[u8]) -> &'static str {
    let is_safetensors = |offset: usize| offset != 8 || head.get(4..8) == Some(&[0; 4]);
    let has = |offset: usize, bytes: &[u8]| head.get(offset..).is_some_and(|tail| tail.starts_with(bytes));
    if let Some((_, _, name)) = FORMATS.iter().find(|(offset, bytes, _)| has(*offset, bytes) && is_safetensors(*offset))
    {
        return name;
    }
    if head.iter().all(|byte| *byte == 0) {
        return "zeros, as an interrupted download leaves them";
    }
    let Some(text) = as_text(head) else { return UNKNOWN };
    if text.starts_with('<') {
        "`html` or `xml`"
    } else if text.starts_with(['{', '[']) {
        "`json`"
    } else {
        "`text`"
    }
}

/// Returns the text at the beginning of a file without a byte order mark, white space, comments of HTML and the
/// declaration of XML; empty if it is not text.
fn beginning(head: &[u8]) -> &str {
    let mut text = as_text(head).unwrap_or_default();
    loop {
        let after = |opening: &str, closing: &str| {
            let (_, rest) = text.strip_prefix(opening)?.split_once(closing)?;
            Some(rest.trim_start())
        };
        match after("<!--", "-->").or_else(|| after("<?xml", "?>")) {
            Some(rest) => text = rest,
            None => return text,
        }
    }
}

/// Returns the bytes as text without a byte order mark and without white space at its beginning; `None` if they are no
/// text.
fn as_text(head: &[u8]) -> Option<&str> {
    let head = head.get(..HEAD_BYTES).unwrap_or(head);
    let text = match std::str::from_utf8(head) {
        Ok(text) => text,
        // A character that the limit cuts in two does not make the rest binary.
        Err(error) if error.error_len().is_none() => std::str::from_utf8(head.get(..error.valid_up_to())?).ok()?,
        Err(_) => return None,
    };
    let text = text.trim_start_matches('\u{feff}').trim_start();
    (!text.chars().any(|c| c.is_control() && !c.is_whitespace())).then_some(text)
}

fn starts_with(text: &str, word: &str) -> bool {
    text.get(..word.len()).is_some_and(|start| start.eq_ignore_ascii_case(word))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_stands_in_for_a_file_is_recognised() {
        let long = format!("<!-- {} --><!DOCTYPE html>", "x".repeat(500));
        for (head, expected) in [
            ("", StandIn::Empty),
            ("version https://git-lfs.github.com/spec/v1\noid sha256:12\nsize 3\n", StandIn::LfsPointer),
            ("version https://git-lfs.github.com/spec/v1\r\noid sha256:12\r\nsize 3\r\n", StandIn::LfsPointer),
            ("/annex/objects/SHA256E-s3--12.png\n", StandIn::AnnexPointer),
            ("<!DOCTYPE html><html>", StandIn::HtmlPage),
            ("\u{feff}\n  <HTML lang=\"de\">", StandIn::HtmlPage),
            ("<?xml version=\"1.0\"?>\n<!DOCTYPE html PUBLIC>", StandIn::HtmlPage),
            (long.as_str(), StandIn::HtmlPage),
            ("<?xml version=\"1.0\"?><Error><Code>NoSuchKey</Code>", StandIn::ServerError),
            ("{\"error\":\"Repository not found\"}", StandIn::ServerError),
        ] {
            assert_eq!(StandIn::of(head.as_bytes()), Some(expected), "{head}");
        }
        for head in ["{\"errors\": 3}", "version https://example.org", "a.png 3\n", "{}", "<svg>", "\0"] {
            assert_eq!(StandIn::of(head.as_bytes()), None, "{head}");
        }
    }

    #[test]
    fn other_formats_are_named() {
        let mut tar = [b'a'; 512];
        tar[257..262].copy_from_slice(b"ustar");
        for (head, expected) in [
            (&b"PAR1abc"[..], "a parquet file"),
            (&tar[..], "a tar archive"),
            (b"\x40\0\0\0\0\0\0\0{\"a\":", "a safetensors file"),
            (b"12345678{\"a\":", "`text`"),
            (b"\0\0\0", "zeros, as an interrupted download leaves them"),
            (b" [1]", "`json`"),
            (b"<svg>", "`html` or `xml`"),
            (b"Entry not found", "`text`"),
            (b"\x08\x07\x12\x00", "binary data of unknown kind"),
            (&[&[b'a'; HEAD_BYTES - 1][..], "é".as_bytes()].concat(), "`text`"),
        ] {
            assert_eq!(looks_like(head), expected, "{head:?}");
        }
    }
}
