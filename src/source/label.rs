//! The label of an image, as a data set writes it.

use serde_json::Value;

use super::object::MAX_FIELD_BYTES;
use crate::error::text::quote;

/// The label of an image as its data set has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Label {
    /// An integer of a format that has types.
    Number(i64),
    /// A text.
    Text(String),
}

impl Label {
    /// Takes a field of a table or the content of a member, without the white space around it.
    ///
    /// # Errors
    /// Returns the problem of a text that is blank, too long, or has control characters.
    pub(super) fn of_text(text: &str) -> Result<Self, String> {
        Self::of_name(text.trim_start_matches('\u{feff}').trim())
    }

    /// Takes the name of a folder, as it is.
    ///
    /// # Errors
    /// Returns the problem of a name that is blank, too long, or has control characters.
    pub(super) fn of_name(text: &str) -> Result<Self, String> {
        if text.trim().is_empty() {
            return Err("it has no label; every image needs one".to_owned());
        }
        if text.len() > MAX_FIELD_BYTES {
            return Err(format!("its label has {} bytes, {MAX_FIELD_BYTES} are allowed", text.len()));
        }
        if text.contains(char::is_control) {
            return Err(format!("found the label {}, control characters are not allowed", quote(text)));
        }
        Ok(Self::Text(text.to_owned()))
    }

    /// Takes an integer of a format whose integers can be larger than those of labels.
    ///
    /// # Errors
    /// Returns the problem of a number that is too large.
    pub(super) fn of_unsigned(number: u64) -> Result<Self, String> {
        let problem = |_| format!("found the label {number}, allowed are integers from 0 to {}", i64::MAX);
        i64::try_from(number).map(Self::Number).map_err(problem)
    }

    /// Takes a number of a format that has no integers.
    ///
    /// # Errors
    /// Returns the problem of a number that is not an integer.
    #[expect(clippy::cast_possible_truncation, reason = "an integer below 2^53")]
    pub(super) fn of_float(number: f64) -> Result<Self, String> {
        if number.fract() == 0.0 && number.abs() < 2_f64.powi(53) {
            return Ok(Self::Number(number as i64));
        }
        if number.fract() == 0.0 {
            return Err(format!("found the label {number}, allowed are integers from 0 to {}", 2_u64.pow(53) - 1));
        }
        Err(format!("found the label {number}, allowed are integers from 0 and strings"))
    }

    /// Takes a field of a JSON object.
    ///
    /// # Errors
    /// Returns the problem of a field that is missing, or is neither an integer nor a text.
    pub(super) fn of_json(object: &Value, field: &str) -> Result<Self, String> {
        match object.get(field) {
            Some(Value::String(text)) => Self::of_text(text),
            Some(Value::Number(number)) => match (number.as_i64(), number.as_u64(), number.as_f64()) {
                (Some(number), ..) => Ok(Self::Number(number)),
                (None, Some(number), _) => Self::of_unsigned(number),
                (None, None, number) => Self::of_float(number.unwrap_or(f64::NAN)),
            },
            // Python's `NaN` reads as null.
            Some(Value::Null) => Err(format!("its field `{field}` is null or NaN; every image needs a label")),
            Some(value) => {
                Err(format!("found the label {}, allowed are integers from 0 and strings", quote(&value.to_string())))
            }
            None => Err(format!("it has no field `{field}`; every image needs a label")),
        }
    }

    /// Returns the label as it is written.
    pub(super) fn text(&self) -> String {
        match self {
            Self::Number(number) => number.to_string(),
            Self::Text(text) => text.clone(),
        }
    }

    /// Returns the value of a label that is an integer in its shortest form, or with pandas' `.0` behind it.
    pub(super) fn integer(&self) -> Option<i64> {
        let text = match self {
            Self::Number(number) => return Some(*number),
            Self::Text(text) => text,
        };
        let digits = match text.split_once('.') {
            Some((whole, zeros)) if !zeros.is_empty() && zeros.bytes().all(|byte| byte == b'0') => whole,
            Some(_) => return None,
            None => text,
        };
        digits.parse().ok().filter(|number: &i64| number.to_string() == digits)
    }

    /// Returns the value of a label that the user says is a number: zeros may precede it.
    pub(super) fn lenient_integer(&self) -> Option<i64> {
        let Self::Text(text) = self else { return self.integer() };
        let rest = text.trim_start_matches('0');
        let text = if rest.starts_with(|c: char| c.is_ascii_digit()) { rest.to_owned() } else { format!("0{rest}") };
        Self::Text(text).integer()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_json_label_is_an_integer_or_a_text() {
        let object = serde_json::json!({"i": 3, "t": "cat", "f": 1.5, "w": 2.0, "n": null, "m": -2, "b": true});
        assert_eq!(Label::of_json(&object, "i"), Ok(Label::Number(3)));
        assert_eq!(Label::of_json(&object, "w"), Ok(Label::Number(2)));
        assert_eq!(Label::of_json(&object, "m"), Ok(Label::Number(-2)));
        assert_eq!(Label::of_json(&object, "t"), Ok(Label::Text("cat".into())));
        for (field, problem) in
            [("f", "the label 1.5"), ("n", "null or NaN"), ("b", "the label \"true\""), ("absent", "no field `absent`")]
        {
            assert!(Label::of_json(&object, field).unwrap_err().contains(problem), "{field}");
        }
        assert!(Label::of_text("a\u{7}b").is_err() && Label::of_text(" ").unwrap_err().contains("no label"));
    }
}
