//! How messages quote what a user wrote, list what is allowed, suggest a similar word, and show sizes.

use std::path::Path;

/// Longest piece of the user's text that a message repeats, in characters.
const MAX_SHOWN_CHARS: usize = 80;

/// Least similarity (0 to 1) at which a known word is suggested for an unknown one.
const MIN_SIMILARITY: f64 = 0.55;

/// Longest word that is compared with the known ones, in bytes; nobody mistypes a longer one.
const MAX_COMPARED_BYTES: usize = 64;

/// Returns the text on one line, with control characters as escapes.
pub(crate) fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for character in text.chars() {
        match character.is_control() {
            true => out.extend(character.escape_debug()),
            false => out.push(character),
        }
    }
    out
}

/// Returns the beginning of the text on one line.
pub(crate) fn shorten(text: &str) -> String {
    shorten_to(text, MAX_SHOWN_CHARS)
}

/// Returns the first `max_chars` characters of the text on one line. Escapes of control characters do not count.
pub(crate) fn shorten_to(text: &str, max_chars: usize) -> String {
    let mut shown: String = text.chars().take(max_chars).collect();
    if shown.len() < text.len() {
        shown.push('…');
    }
    escape(&shown)
}

/// Returns the shortened text in double quotes.
pub(crate) fn quote(text: &str) -> String {
    format!("\"{}\"", shorten(text))
}

/// Returns a key as messages name it.
pub(crate) fn key_in_backticks(key: &str) -> String {
    format!("`{key}`")
}

/// Returns `section.key`, or just the key at the top level. A key that TOML would quote is quoted.
pub(crate) fn join_key(section: &str, key: &str) -> String {
    let bare = !key.is_empty() && key.chars().all(|c| c.is_alphanumeric() || c == '_' || c == '-');
    let key = if bare { shorten(key) } else { quote(key) };
    match section {
        "" => key,
        _ => format!("{section}.{key}"),
    }
}

/// Returns a file as messages name it: a relative path with the directory that it starts at.
pub(crate) fn file(path: &Path) -> String {
    match std::env::current_dir() {
        Ok(here) if path.is_relative() => format!("`{}` (from `{}`)", path.display(), here.display()),
        _ => format!("`{}`", path.display()),
    }
}

/// Names that a message shows of a list that can be long.
pub(crate) const MAX_LISTED: usize = 3;

/// Returns the first [`MAX_LISTED`] of `items`, and how many more there are.
pub(crate) fn first_few(items: &[String]) -> String {
    let more = items.len().saturating_sub(MAX_LISTED);
    let first = items.iter().take(MAX_LISTED).map(String::as_str).collect::<Vec<_>>().join(", ");
    if more == 0 { first } else { format!("{first} and {more} more") }
}

/// Returns the words as a list: "`a`, `b` and `c`".
pub(crate) fn list(words: &[&str], conjunction: &str) -> String {
    let quoted: Vec<String> = words.iter().map(|word| format!("`{word}`")).collect();
    join(&quoted, conjunction)
}

/// Returns the items as a list: "a, b and c".
pub(crate) fn join(items: &[String], conjunction: &str) -> String {
    match items.split_last() {
        None => "nothing".to_owned(),
        Some((last, [])) => last.clone(),
        Some((last, others)) => format!("{} {conjunction} {last}", others.join(", ")),
    }
}

/// Returns the words as a choice, for "expected ...": "one of `a`, `b` or `c`".
pub(crate) fn one_of(words: &[&str]) -> String {
    let of = if words.len() > 2 { "one of " } else { "" };
    format!("{of}{}", list(words, "or"))
}

/// Returns the known word that was probably meant.
pub(crate) fn similar<'k>(word: &str, known: &[&'k str]) -> Option<&'k str> {
    if word.len() > MAX_COMPARED_BYTES {
        return None;
    }
    let word = word.to_lowercase();
    let scored = known.iter().map(|k| (strsim::normalized_damerau_levenshtein(&word, k), *k));
    let (score, best) = scored.fold(
        (0.0, None),
        |best, (score, candidate)| {
            if score > best.0 { (score, Some(candidate)) } else { best }
        },
    );
    best.filter(|_| score >= MIN_SIMILARITY)
}

/// Returns a number of bytes with its unit, such as "1.5 KiB".
pub(crate) fn bytes(count: u64) -> String {
    #[expect(clippy::cast_precision_loss, reason = "one decimal is shown")]
    let float = count as f64;
    match count {
        0..1024 => format!("{count} bytes"),
        1024..1_048_576 => format!("{:.1} KiB", float / 1024.0),
        1_048_576..1_073_741_824 => format!("{:.1} MiB", float / 1_048_576.0),
        _ => format!("{:.1} GiB", float / 1_073_741_824.0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_one_decimal() {
        assert_eq!([bytes(7), bytes(1536), bytes(5 << 30)], ["7 bytes", "1.5 KiB", "5.0 GiB"]);
    }

    #[test]
    fn words_are_listed_with_a_conjunction() {
        assert_eq!([one_of(&["a"]), one_of(&["a", "b"])], ["`a`", "`a` or `b`"]);
        assert_eq!(one_of(&["a", "b", "c"]), "one of `a`, `b` or `c`");
        assert_eq!(list(&["a", "b", "c"], "and"), "`a`, `b` and `c`");
    }

    #[test]
    fn only_a_similar_word_is_suggested() {
        let known = ["timesteps", "seeds"];
        assert_eq!(similar("time_steps", &known), Some("timesteps"));
        assert_eq!(similar("lambda", &known), None);
        assert_eq!(similar(&"timesteps".repeat(8), &known), None);
    }

    #[test]
    fn quoted_text_is_short_and_on_one_line() {
        assert_eq!(quote("a\nb"), "\"a\\nb\"");
        assert_eq!(quote(&"x".repeat(81)), format!("\"{}…\"", "x".repeat(80)));
    }
}
