//! Names with ranges of numbers in braces, such as `train-{000..146}.tar`.

/// Most names that a pattern may stand for.
const MOST_NAMES: usize = 100_000;

/// Most ranges in a pattern.
const MOST_RANGES: usize = 4;

/// What is allowed, for messages.
const ALLOWED: &str = "allowed in braces are ascending numbers such as `{000..146}`";

/// The names that a pattern stands for, the last range counting first: [`MOST_NAMES`] at most, of `most_bytes` in all.
///
/// # Errors
/// Where braces are something else, or stand for more. That is known before any name is made.
pub(super) fn expand(pattern: &str, most_bytes: usize) -> Result<Vec<String>, String> {
    if pattern.matches('{').count() > MOST_RANGES {
        return Err(format!("allowed are up to {MOST_RANGES} ranges"));
    }
    let Some((before, rest)) = pattern.split_once('{') else {
        return if pattern.contains('}') { Err(ALLOWED.to_owned()) } else { Ok(vec![pattern.to_owned()]) };
    };
    let (range, after) = rest.split_once('}').ok_or(ALLOWED)?;
    let (first, last) = range.split_once("..").ok_or(ALLOWED)?;
    let (Some(low), Some(high)) = (number(first), number(last)) else { return Err(ALLOWED.to_owned()) };
    let width = if first.starts_with('0') { first.len() } else { 1 };
    let after = expand(after, most_bytes)?;
    if before.contains('}') || low > high {
        return Err(ALLOWED.to_owned());
    }
    let names = (high - low + 1).saturating_mul(after.len());
    if names > MOST_NAMES {
        return Err(format!("which stands for over {MOST_NAMES} shards"));
    }
    let longest = before.len() + width.max(last.len()) + after.iter().map(String::len).max().unwrap_or(0);
    if names.saturating_mul(longest) > most_bytes {
        return Err("whose names are too long, with those before it in the split".to_owned());
    }
    Ok((low..=high).flat_map(|n| after.iter().map(move |after| format!("{before}{n:0width$}{after}"))).collect())
}

/// A number of up to nine digits.
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
    fn braces_stand_for_numbers() {
        assert_eq!(expanded("a.tar").unwrap(), ["a.tar"]);
        assert_eq!(expanded("t-{008..010}.tar").unwrap(), ["t-008.tar", "t-009.tar", "t-010.tar"]);
        assert_eq!(expanded("t-{9..10}.tar").unwrap(), ["t-9.tar", "t-10.tar"]);
        assert_eq!(expanded("{0..1}/{0..1}.tar").unwrap(), ["0/0.tar", "0/1.tar", "1/0.tar", "1/1.tar"]);
        assert_eq!(expanded("{000000..000146}").unwrap().len(), 147);
        for wrong in ["{", "}", "{}", "{1}", "{1..}", "{..2}", "{2..1}", "{a..b}", "}{0..1}", "{0..1}{", "{-1..1}"] {
            assert!(expanded(wrong).unwrap_err().starts_with("allowed in braces"), "{wrong}");
        }
        assert_eq!(expanded("{0..999}{0..999}.tar").unwrap_err(), "which stands for over 100000 shards");
        assert!(expanded("{0..9999999999}").is_err());
        assert_eq!(expanded(&"{0..1}".repeat(100_000)).unwrap_err(), "allowed are up to 4 ranges");
    }

    #[test]
    fn a_short_pattern_stands_for_no_gigabytes() {
        let long = format!("{{0..99999}}{}", "a".repeat(100_000));
        assert_eq!(expanded(&long).unwrap_err(), "whose names are too long, with those before it in the split");
        assert_eq!(expand("{0..9}.tar", 50).unwrap().len(), 10);
        expand("{0..9}.tar", 49).unwrap_err();
    }
}
