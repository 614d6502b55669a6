//! JSON as Python writes it: `NaN`, `Infinity` and `-Infinity` stand for numbers that JSON does not have.

use serde::de::DeserializeOwned;
use serde_json::Value;

/// The words, of which the longer come first.
const WORDS: [&str; 3] = ["-Infinity", "Infinity", "NaN"];

/// Parses a JSON text. The three words outside of strings read as null.
///
/// # Errors
/// Returns an error if the text is not valid JSON otherwise.
pub(crate) fn from_str(text: &str) -> Result<Value, serde_json::Error> {
    parse(text)
}

/// Parses a JSON text into a type of its own; see [`from_str`].
///
/// # Errors
/// Returns an error if the text is not valid JSON otherwise, or does not fit the type.
pub(crate) fn parse<T: DeserializeOwned>(text: &str) -> Result<T, serde_json::Error> {
    match WORDS.iter().any(|word| text.contains(word)) {
        true => serde_json::from_str(&standard(text)),
        false => serde_json::from_str(text),
    }
}

/// Returns the text with each word outside of strings as `null`.
fn standard(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let (mut rest, mut in_string) = (text, false);
    while let Some(next) = rest.chars().next() {
        let word = WORDS.iter().find(|word| !in_string && rest.starts_with(**word));
        let length = match word {
            Some(word) => word.len(),
            // The character after a backslash does not end a string.
            None if in_string && next == '\\' => 1 + rest.chars().nth(1).map_or(0, char::len_utf8),
            None => next.len_utf8(),
        };
        in_string ^= next == '"';
        out.push_str(if word.is_some() { "null" } else { rest.get(..length).unwrap_or_default() });
        rest = rest.get(length..).unwrap_or_default();
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_of_python_are_null_outside_of_strings() {
        let text = r#"{"a": [NaN, -Infinity, Infinity, -1], "NaN": "\\\"NaN, Infinity", "ü": NaN}"#;
        let expected = r#"{"a":[null,null,null,-1],"NaN":"\\\"NaN, Infinity","ü":null}"#;
        assert_eq!(from_str(text).unwrap().to_string(), expected);
        for wrong in ["{\"a\": Nan}", "NaN NaN", "{\"a\": \"NaN}", "\"\\"] {
            assert!(from_str(wrong).is_err(), "{wrong}");
        }
        assert_eq!(from_str("NaN").unwrap(), Value::Null);
    }
}
