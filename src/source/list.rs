//! Lists in the format of ImageNet-LT: each line has the path of an image, white space, and its label.

use std::sync::Arc;

use super::{
    entry::{Collected, Entry, File, Origin, Problems, relative_path},
    error::Result,
    label::Label,
    object::{MAX_FIELD_BYTES, read_list},
};
use crate::{config::Split, error::text::quote, storage::Location};

/// Reads the images of every list.
///
/// # Errors
/// Returns an error if a list cannot be read. Invalid lines are added to the problems of `out`.
pub(super) async fn read(lists: &Location, splits: &[(Split, Vec<String>)], out: &mut Collected) -> Result<()> {
    for (split, name) in splits.iter().flat_map(|(split, names)| names.iter().map(|name| (*split, name))) {
        let bytes = read_list(lists, name, "`source.splits`", "`source.lists` or `source.root`").await?;
        parse(&Arc::from(name.as_str()), split, &bytes, &mut out.problems, &mut out.entries);
    }
    Ok(())
}

fn parse(file: &Arc<str>, split: Split, bytes: &[u8], problems: &mut Problems, entries: &mut Vec<Entry>) {
    for (origin, line) in lines(file, bytes) {
        let found = line.and_then(|line| if line.is_empty() { Ok(None) } else { parse_line(line).map(Some) });
        match found {
            Ok(None) => {}
            Ok(Some((path, label))) => {
                entries.push(Entry { path: path.to_owned(), label, split, origin, file: File::NotLookedUp });
            }
            Err(problem) => problems.add(&origin, problem),
        }
    }
}

fn parse_line(line: &str) -> Result<(&str, Label), String> {
    let Some((path, label)) = line.rsplit_once(char::is_whitespace) else {
        return Err(format!("found {}, expected a path, a space and a label", quote(line)));
    };
    Ok((relative_path(path.trim_end())?, Label::of_text(label)?))
}

/// Returns the lines of a file without the white space around them, each with its origin.
pub(super) fn lines<'a>(
    file: &Arc<str>,
    bytes: &'a [u8],
) -> impl Iterator<Item = (Origin, Result<&'a str, String>)> + use<'a> {
    let (file, bytes) = (Arc::clone(file), bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes));
    (1..).zip(bytes.split(|byte| *byte == b'\n')).map(move |(line, bytes)| {
        let text = match bytes.len() {
            length if length > MAX_FIELD_BYTES => Err(format!("it has {length} bytes, {MAX_FIELD_BYTES} are allowed")),
            _ => str::from_utf8(bytes).map(str::trim).map_err(|_| "it is not valid UTF-8".to_owned()),
        };
        (Origin { file: Arc::clone(&file), line: Some(line) }, text)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &[u8]) -> (Vec<(String, Label)>, Problems) {
        let (mut entries, mut problems) = (Vec::new(), Problems::default());
        parse(&"l.txt".into(), Split::Train, text, &mut problems, &mut entries);
        (entries.into_iter().map(|row| (row.path, row.label)).collect(), problems)
    }

    #[test]
    fn the_label_follows_the_last_space() {
        let text = b"\xef\xbb\xbftrain/n01440764/n01440764_190.JPEG 0\r\n\r\n  a b/c d.png \t 12  \n./e.jpg\tx";
        let (rows, problems) = parsed(text);
        problems.finish().unwrap();
        let expected = [("train/n01440764/n01440764_190.JPEG", "0"), ("a b/c d.png", "12"), ("e.jpg", "x")];
        assert_eq!(rows, expected.map(|(path, label)| (path.to_owned(), Label::Text(label.to_owned()))));
    }

    #[test]
    fn all_invalid_lines_are_reported_together() {
        let mut text = b"a.jpg 0\nb.jpg\n../c.jpg 1\n/d.jpg 1\n\xff.jpg 1\nC:\\g.jpg 1\n".to_vec();
        text.extend(b"a".repeat(70_000));
        let (rows, problems) = parsed(&text);
        assert_eq!(rows.len(), 1);
        let message = problems.finish().unwrap_err().to_string();
        let lines: Vec<&str> = message.lines().collect();
        assert_eq!(lines[0], "the source has 6 invalid entries:");
        assert_eq!(lines[1], "  `l.txt`:2: found \"b.jpg\", expected a path, a space and a label");
        assert!(lines[2].starts_with("  `l.txt`:3: found the path \"../c.jpg\", allowed are paths relative to"));
        assert_eq!(lines[4], "  `l.txt`:5: it is not valid UTF-8");
        assert_eq!(lines[6], "  `l.txt`:7: it has 70000 bytes, 65536 are allowed");
    }
}
