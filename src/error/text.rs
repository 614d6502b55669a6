//! How messages quote what a user wrote, and what they suggest instead.

/// Longest piece of the user's text that a message repeats, in characters.
const SHOWN_CHARS: usize = 80;

/// Least similarity (0 to 1) at which a known word is offered for an unknown one.
const SIMILAR_ENOUGH: f64 = 0.55;

/// Longest word that is compared with the known ones, in bytes; nobody mistypes a key so far.
const COMPARED_BYTES: usize = 64;

/// The text on one line: control characters are shown as escapes.
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

/// The text on one line, cut to what a reader takes in.
pub(crate) fn shorten(text: &str) -> String {
    shorten_to(text, SHOWN_CHARS)
}

/// The text on one line, cut to `max_chars` characters before control characters are escaped.
pub(crate) fn shorten_to(text: &str, max_chars: usize) -> String {
    let mut shown: String = text.chars().take(max_chars).collect();
    if shown.len() < text.len() {
        shown.push('…');
    }
    escape(&shown)
}

/// The text in double quotes, short and on one line.
pub(crate) fn quote(text: &str) -> String {
    format!("\"{}\"", shorten(text))
}

/// A key as messages name it.
pub(crate) fn key_in_backticks(key: &str) -> String {
    format!("`{key}`")
}

/// `section.key`, or just the key at the top; a key that TOML would quote is quoted.
pub(crate) fn join_key(section: &str, key: &str) -> String {
    let bare = !key.is_empty() && key.chars().all(|c| c.is_alphanumeric() || c == '_' || c == '-');
    let key = if bare { shorten(key) } else { quote(key) };
    match section {
        "" => key,
        _ => format!("{section}.{key}"),
    }
}

/// The known words as a list of choices: "`a`, `b` and `c`".
pub(crate) fn choices(known: &[&str]) -> String {
    let mut ticked: Vec<String> = known.iter().map(|word| format!("`{word}`")).collect();
    match (ticked.pop(), ticked.is_empty()) {
        (None, _) => "none".to_owned(),
        (Some(last), true) => last,
        (Some(last), false) => format!("{} and {last}", ticked.join(", ")),
    }
}

/// The known word that was probably meant.
pub fn similar<'k>(word: &str, known: &[&'k str]) -> Option<&'k str> {
    if word.len() > COMPARED_BYTES {
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
    best.filter(|_| score >= SIMILAR_ENOUGH)
}

/// "did you mean `x`?", or else the list of what is allowed.
pub(crate) fn suggest(word: &str, known: &[&str]) -> String {
    match similar(word, known) {
        Some(meant) => format!("did you mean `{meant}`?"),
        None if known.len() == 1 => format!("allowed is {}", choices(known)),
        None => format!("allowed are {}", choices(known)),
    }
}
