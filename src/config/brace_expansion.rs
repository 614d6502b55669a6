//! Expands ranges of numbers in braces, as in `train-{000..146}.tar`.

/// Most names that a pattern may expand to.
const MAX_NAMES: usize = 100_000;

/// Most ranges in a pattern.
const MAX_RANGES: usize = 4;

const EXPECTED: &str = "expected ascending numbers in braces, such as `{000..146}`";

/// Returns the names that a pattern expands to, the last range varying fastest: at most [`MAX_NAMES`], with `max_bytes`
/// in all.
///
/// # Errors
/// Returns an error if braces hold anything else, or expand to more. This is known before any name is allocated.
pub(super) fn expand(pattern: &str, max_bytes: usize) -> Result<Vec<String>, String> {
    if pattern.matches('{').count() > MAX_RANGES {
        return Err(format!("expected at most {MAX_RANGES} ranges"));
    }
    let Some((before, rest)) = pattern.split_once('{') else {
        return if pattern.contains('}') { Err(EXPECTED.to_owned()) } else { Ok(vec![pattern.to_owned()]) };
    };
    let (range, after) = rest.split_once('}').ok_or(EXPECTED)?;
    let (first, last) = range.split_once("..").ok_or(EXPECTED)?;
    let (Some(low), Some(high)) = (number(first), number(last)) else { return Err(EXPECTED.to_owned()) };
    let width = if first.starts_with('0') { first.len() } else { 1 };
    let after = expand(after, max_bytes)?;
    if before.contains('}') || low > high {
        return Err(EXPECTED.to_owned());
    }
    let names = (high - low + 1).saturating_mul(after.len());
    if names > MAX_NAMES {
        return Err(format!("which expands to more than {MAX_NAMES} shards"));
    }
    let longest = before.len() + width.max(last.len()) + after.iter().map(String::len).max().unwrap_or(0);
    if names.saturating_mul(longest) > max_bytes {
        return Err("which expands to names that are too long, together with those before it in the split".to_owned());
    }
    Ok((low..=high).flat_map(|n| after.iter().map(move |after| format!("{before}{n:0width$}{after}"))).collect())
}

/// Parses a number of up to nine digits.
fn number(digits: &str) -> Option<usize> {
    let plain = !digits.is_empty() && digits.len() <= 9 && digits.bytes().all(|byte| byte.is_ascii_digit());
    plain.then(|| digits.parse().ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn expanded(pattern: &str) -> Result<Vec<String>, String> {
        expand(pattern, 1 << 20)
    }

    #[test]
    fn braces_expand_to_numbers() {
        assert_eq!(expanded("a.tar").unwrap(), ["a.tar"]);
        assert_eq!(expanded("t-{008..010}.tar").unwrap(), ["t-008.tar", "t-009.tar", "t-010.tar"]);
        assert_eq!(expanded("t-{9..10}.tar").unwrap(), ["t-9.tar", "t-10.tar"]);
        assert_eq!(expanded("{0..1}/{0..1}.tar").unwrap(), ["0/0.tar", "0/1.tar", "1/0.tar", "1/1.tar"]);
        assert_eq!(expanded("{000000..000146}").unwrap().len(), 147);
        for wrong in ["{", "}", "{}", "{1}", "{1..}", "{..2}", "{2..1}", "{a..b}", "}{0..1}", "{0..1}{", "{-1..1}"] {
            assert!(expanded(wrong).unwrap_err().starts_with("expected ascending numbers"), "{wrong}");
        }
        assert_eq!(expanded("{0..999}{0..999}.tar").unwrap_err(), "which expands to more than 100000 shards");
        assert!(expanded("{0..9999999999}").is_err());
        assert_eq!(expanded(&"{0..1}".repeat(100_000)).unwrap_err(), "expected at most 4 ranges");
    }

    #[test]
    fn a_short_pattern_does_not_expand_to_gigabytes() {
        let long = format!("{{0..99999}}{}", "a".repeat(100_000));
        assert_eq!(
            expanded(&long).unwrap_err(),
            "which expands to names that are too long, together with those before it in the split"
        );
        assert_eq!(expand("{0..9}.tar", 50).unwrap().len(), 10);
        expand("{0..9}.tar", 49).unwrap_err();
    }
}
