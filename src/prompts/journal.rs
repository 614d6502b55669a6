//! The file of descriptions: a line is added for each answer and on the disk before the next one counts. Nothing that is
//! in it is ever changed, but for a last line that a kill has cut off.

use std::{
    collections::BTreeMap,
    fs::{File, OpenOptions, TryLockError},
    io::{Read, Seek, SeekFrom, Write},
    path::{Path, PathBuf},
};

use crate::{
    error::{Error, Result},
    source::{self, Line},
};

/// Longest file, in bytes: a hundred thousand classes with thirty texts each.
const LONGEST: u64 = 1 << 30;

/// A file that lines are added to.
#[derive(Debug)]
pub(super) struct Journal {
    file: File,
    path: PathBuf,
}

/// What a file holds.
#[derive(Debug, PartialEq, Eq)]
struct Content {
    /// The line that counts of each class.
    lines: BTreeMap<String, Line>,
    /// Bytes of whole lines.
    sound: usize,
    /// Whether the last of them lacks its line break.
    open: bool,
}

impl Journal {
    /// Sees, without changing anything, that the file can be one, or that none is there yet.
    ///
    /// # Errors
    /// Where its name does not end in `.jsonl`, or it holds something else.
    pub(super) fn check(path: &Path) -> Result<()> {
        if path.extension().is_none_or(|ending| ending != "jsonl") {
            let message = "its name has to end in `.jsonl`, by which `prompts.descriptions` knows such a file";
            return Err(wrong(path, message));
        }
        match File::open(path) {
            Ok(mut file) => parse(&bytes(&mut file, path)?).map(drop).map_err(|message| wrong(path, message)),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(wrong(path, format!("it cannot be read: {error}"))),
        }
    }

    /// Opens the file to add to it, and makes it where it is not there. Gives the line that counts of each class, and
    /// how many bytes of a last line that was cut off are gone now.
    ///
    /// # Errors
    /// Where it cannot be written, another process adds to it, or it holds something else.
    pub(super) fn open(path: &Path) -> Result<(Self, BTreeMap<String, Line>, usize)> {
        let fail = |error: std::io::Error| wrong(path, format!("it cannot be written: {error}"));
        let mut file = OpenOptions::new().read(true).append(true).create(true).open(path).map_err(fail)?;
        file.try_lock().map_err(|error| match error {
            TryLockError::WouldBlock => wrong(path, "another `discl-pipe prompts` writes it; let that one end first"),
            TryLockError::Error(error) => fail(error),
        })?;
        let bytes = bytes(&mut file, path)?;
        let Content { lines, sound, open } = parse(&bytes).map_err(|message| wrong(path, message))?;
        let torn = bytes.len() - sound;
        if torn > 0 {
            file.set_len(sound as u64).and_then(|()| file.seek(SeekFrom::End(0))).map_err(fail)?;
        }
        if open {
            file.write_all(b"\n").map_err(fail)?;
        }
        file.sync_all().map_err(fail)?;
        Ok((Self { file, path: path.to_owned() }, lines, torn))
    }

    /// Adds a line. It is on the disk when this returns.
    ///
    /// # Errors
    /// Where it cannot be written.
    pub(super) fn add(&mut self, line: &Line) -> Result<()> {
        let fail = |error: std::io::Error| wrong(&self.path, format!("it cannot be written: {error}"));
        let mut text = serde_json::to_string(line).map_err(|error| fail(error.into()))?;
        text.push('\n');
        self.file.write_all(text.as_bytes()).and_then(|()| self.file.flush()).map_err(fail)?;
        self.file.sync_data().map_err(fail)
    }
}

fn wrong(path: &Path, message: impl AsRef<str>) -> Error {
    Error::Data(format!("`{}`: {}", path.display(), message.as_ref()))
}

fn bytes(file: &mut File, path: &Path) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    file.take(LONGEST + 1)
        .read_to_end(&mut bytes)
        .map_err(|error| wrong(path, format!("it cannot be read: {error}")))?;
    if bytes.len() as u64 > LONGEST {
        return Err(wrong(path, format!("it has more than {LONGEST} bytes, which no such file has")));
    }
    Ok(bytes)
}

/// Every line but the last must be one; the last may be cut off, or lack its line break.
fn parse(bytes: &[u8]) -> Result<Content, String> {
    let whole = bytes.iter().rposition(|byte| *byte == b'\n').map_or(0, |last| last + 1);
    let (head, tail) = bytes.split_at(whole);
    let head = std::str::from_utf8(head).map_err(|error| format!("it is no UTF-8 text: {error}"))?;
    let mut lines = source::lines(head)?;
    let last = std::str::from_utf8(tail).ok().and_then(|tail| source::lines(tail).ok()).unwrap_or_default();
    let open = !last.is_empty();
    lines.extend(last);
    let sound = if open { bytes.len() } else { whole };
    Ok(Content { lines: lines.into_iter().map(|line| (line.class_name.clone(), line)).collect(), sound, open })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(class: &str, text: &str) -> Line {
        Line {
            class_name: class.into(),
            texts: vec![text.into()],
            model: Some("m".into()),
            date: Some("2026-11-23".into()),
            request: Some("r".into()),
        }
    }

    fn written(lines: &[Line]) -> String {
        lines.iter().map(|line| serde_json::to_string(line).unwrap() + "\n").collect()
    }

    #[test]
    fn lines_are_added_and_the_last_of_a_class_counts() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a.jsonl");
        Journal::check(&path).unwrap();
        assert!(!path.exists());
        let (mut journal, lines, torn) = Journal::open(&path).unwrap();
        assert_eq!((lines.len(), torn), (0, 0));
        let all = [line("cat", "a red one"), line("dog", "a wet\none"), line("cat", "a blue one")];
        for line in &all {
            journal.add(line).unwrap();
        }
        let said = Journal::open(&path).unwrap_err().to_string();
        assert!(said.ends_with("another `discl-pipe prompts` writes it; let that one end first"), "{said}");
        drop(journal);
        assert_eq!(std::fs::read_to_string(&path).unwrap(), written(&all));
        let (_, lines, _) = Journal::open(&path).unwrap();
        assert_eq!(lines.into_values().collect::<Vec<_>>(), [all[2].clone(), all[1].clone()]);
    }

    #[test]
    fn a_kill_at_any_byte_loses_at_most_the_last_line() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a.jsonl");
        let (first, last, next) = (line("cat", "a red one"), line("dög", "a wet one"), line("emu", "a tall one"));
        let (kept, text) = (written(std::slice::from_ref(&first)), written(&[first.clone(), last.clone()]));
        for cut in kept.len()..=text.len() {
            std::fs::write(&path, &text.as_bytes()[..cut]).unwrap();
            Journal::check(&path).unwrap();
            let (mut journal, lines, torn) = Journal::open(&path).unwrap();
            let whole = cut + 1 >= text.len();
            assert_eq!(lines.contains_key("dög"), whole, "{cut}");
            assert_eq!(torn, if whole { 0 } else { cut - kept.len() });
            journal.add(&next).unwrap();
            let expected = if whole { vec![&first, &last, &next] } else { vec![&first, &next] };
            let expected: Vec<Line> = expected.into_iter().cloned().collect();
            assert_eq!(std::fs::read_to_string(&path).unwrap(), written(&expected), "{cut}");
        }
    }

    #[test]
    fn a_file_of_something_else_is_left_alone() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a.jsonl");
        let text =
            written(&[line("cat", "a red one")]) + "{\"cat\": [\"a red one\"]}\n" + &written(&[line("dog", "x")]);
        std::fs::write(&path, &text).unwrap();
        for said in [Journal::check(&path).unwrap_err(), Journal::open(&path).unwrap_err()] {
            assert!(said.to_string().contains("a.jsonl`: line 2 is no object with `class_name`"), "{said}");
        }
        assert_eq!(std::fs::read_to_string(&path).unwrap(), text);
        let said = Journal::check(&directory.path().join("a.json")).unwrap_err().to_string();
        assert!(said.contains("has to end in `.jsonl`"), "{said}");
    }
}
