//! JSON as Python writes it.

use std::borrow::Cow;

/// The names of numbers that Python's `json` writes and JSON does not have.
const NAMES: [&[u8]; 3] = [b"-Infinity", b"Infinity", b"NaN"];

/// Returns the text without a byte order mark, and with `null` in place of `NaN`, `Infinity` and `-Infinity`, which
/// Python's `json` writes and reads. What is in strings stays.
pub(crate) fn from_python(text: &[u8]) -> Cow<'_, [u8]> {
    let text = text.strip_prefix(b"\xef\xbb\xbf").unwrap_or(text);
    let (mut out, mut kept, mut at, mut in_string) = (Vec::new(), 0, 0, false);
    while let Some(&byte) = text.get(at) {
        let rest = text.get(at..).unwrap_or_default();
        match byte {
            b'\\' if in_string => at += 1,
            b'"' => in_string = !in_string,
            b'-' | b'I' | b'N' if !in_string => {
                if let Some(name) = NAMES.into_iter().find(|name| rest.starts_with(name)) {
                    out.extend_from_slice(text.get(kept..at).unwrap_or_default());
                    out.extend_from_slice(b"null");
                    at += name.len();
                    kept = at;
                    continue;
                }
            }
            _ => {}
        }
        at += 1;
    }
    if kept == 0 {
        return Cow::Borrowed(text);
    }
    out.extend_from_slice(text.get(kept..).unwrap_or_default());
    Cow::Owned(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_that_json_does_not_have_become_null() {
        for (text, expected) in [
            (r#"{"a": NaN, "b": [-Infinity, Infinity]}"#, r#"{"a": null, "b": [null, null]}"#),
            (r#"{"NaN": "Infinity \" NaN", "b": -1}"#, r#"{"NaN": "Infinity \" NaN", "b": -1}"#),
            (r#"{"a\\": NaN}"#, r#"{"a\\": null}"#),
            ("\u{feff}{}", "{}"),
            ("NaN", "null"),
            ("\"\\", "\"\\"),
        ] {
            assert_eq!(from_python(text.as_bytes()), expected.as_bytes(), "{text}");
        }
    }
}
