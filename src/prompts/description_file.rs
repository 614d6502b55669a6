//! The file of descriptions: each response appends a line, which is on disk before the next one counts. Earlier lines
//! never change; only a last line that a kill has cut off is removed.

use std::{
    collections::BTreeMap,
    fs::{File, OpenOptions, TryLockError},
    io::{Read, Seek, SeekFrom, Write},
    path::{Path, PathBuf},
};

use super::error::{FileProblem, PromptsError};
use crate::source::{self, Line};

/// Enough for a hundred thousand classes with thirty descriptions each.
const MAX_FILE_BYTES: u64 = 1 << 30;

type Result<T, E = PromptsError> = std::result::Result<T, E>;

/// An append-only file of JSON Lines.
#[derive(Debug)]
pub(super) struct DescriptionFile {
    file: File,
    path: PathBuf,
}

/// The content of a file.
#[derive(Debug, PartialEq, Eq)]
struct Content {
    /// The last line of each class, which is the one that counts.
    lines: BTreeMap<String, Line>,
    /// The length of all complete lines, in bytes.
    complete: usize,
    /// Whether the last of them lacks its line break.
    unterminated: bool,
}

impl DescriptionFile {
    /// Checks a file that may not exist yet, without changing it.
    ///
    /// # Errors
    /// Returns an error if its name does not end in `.jsonl`, or if it has other content.
    pub(super) fn check(path: &Path) -> Result<()> {
        if path.extension().is_none_or(|ending| ending != "jsonl") {
            return Err(failed(path, FileProblem::Name));
        }
        match File::open(path) {
            Ok(mut file) => {
                read(&mut file).and_then(|bytes| parse(&bytes)).map(drop).map_err(|problem| failed(path, problem))
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(failed(path, FileProblem::Read(error))),
        }
    }

    /// Opens the file to append to it, or creates it. Returns the line of each class, and how many bytes of a truncated
    /// last line were removed.
    ///
    /// # Errors
    /// Returns an error if the file cannot be written, is in use by another process, or has other content.
    pub(super) fn open(path: &Path) -> Result<(Self, BTreeMap<String, Line>, usize)> {
        let fail = |error| failed(path, FileProblem::Write(error));
        let mut file = OpenOptions::new().read(true).append(true).create(true).open(path).map_err(fail)?;
        file.try_lock().map_err(|error| match error {
            TryLockError::WouldBlock => failed(path, FileProblem::Locked),
            TryLockError::Error(error) => fail(error),
        })?;
        let bytes = read(&mut file).map_err(|problem| failed(path, problem))?;
        let Content { lines, complete, unterminated } = parse(&bytes).map_err(|problem| failed(path, problem))?;
        let truncated = bytes.len() - complete;
        if truncated > 0 {
            file.set_len(complete as u64).and_then(|()| file.seek(SeekFrom::End(0))).map_err(fail)?;
        }
        if unterminated {
            file.write_all(b"\n").map_err(fail)?;
        }
        file.sync_all().map_err(fail)?;
        Ok((Self { file, path: path.to_owned() }, lines, truncated))
    }

    /// Appends a line, which is on disk when this returns.
    ///
    /// # Errors
    /// Returns an error if the file cannot be written.
    pub(super) fn append(&mut self, line: &Line) -> Result<()> {
        let fail = |error| failed(&self.path, FileProblem::Write(error));
        let mut text = serde_json::to_string(line).map_err(|error| fail(error.into()))?;
        text.push('\n');
        self.file.write_all(text.as_bytes()).and_then(|()| self.file.flush()).map_err(fail)?;
        self.file.sync_data().map_err(fail)
    }
}

fn failed(path: &Path, problem: FileProblem) -> PromptsError {
    PromptsError::File { path: path.to_owned(), problem }
}

fn read(file: &mut File) -> Result<Vec<u8>, FileProblem> {
    let mut bytes = Vec::new();
    file.take(MAX_FILE_BYTES + 1).read_to_end(&mut bytes).map_err(FileProblem::Read)?;
    if bytes.len() as u64 > MAX_FILE_BYTES {
        return Err(FileProblem::TooLarge(MAX_FILE_BYTES));
    }
    Ok(bytes)
}

/// Every line but the last must be complete; the last may be truncated, or lack its line break.
fn parse(bytes: &[u8]) -> Result<Content, FileProblem> {
    let terminated = bytes.iter().rposition(|byte| *byte == b'\n').map_or(0, |last| last + 1);
    let (head, tail) = bytes.split_at(terminated);
    let head = std::str::from_utf8(head).map_err(FileProblem::Encoding)?;
    let mut lines = source::lines(head).map_err(FileProblem::Line)?;
    let last = std::str::from_utf8(tail).ok().and_then(|tail| source::lines(tail).ok()).unwrap_or_default();
    let unterminated = !last.is_empty();
    lines.extend(last);
    let complete = if unterminated { bytes.len() } else { terminated };
    let lines = lines.into_iter().map(|line| (line.class_name.clone(), line)).collect();
    Ok(Content { lines, complete, unterminated })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::chain;

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
        DescriptionFile::check(&path).unwrap();
        assert!(!path.exists());
        let (mut descriptions, lines, truncated) = DescriptionFile::open(&path).unwrap();
        assert_eq!((lines.len(), truncated), (0, 0));
        let all = [line("cat", "a red one"), line("dog", "a wet\none"), line("cat", "a blue one")];
        for line in &all {
            descriptions.append(line).unwrap();
        }
        let said = chain(&DescriptionFile::open(&path).unwrap_err());
        assert!(said.ends_with("another `discl-pipe prompts` is writing it; wait until that one has ended"), "{said}");
        drop(descriptions);
        assert_eq!(std::fs::read_to_string(&path).unwrap(), written(&all));
        let (_, lines, _) = DescriptionFile::open(&path).unwrap();
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
            DescriptionFile::check(&path).unwrap();
            let (mut descriptions, lines, truncated) = DescriptionFile::open(&path).unwrap();
            let whole = cut + 1 >= text.len();
            assert_eq!(lines.contains_key("dög"), whole, "{cut}");
            assert_eq!(truncated, if whole { 0 } else { cut - kept.len() });
            descriptions.append(&next).unwrap();
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
        for said in [DescriptionFile::check(&path).unwrap_err(), DescriptionFile::open(&path).unwrap_err()] {
            let said = chain(&said);
            assert!(said.contains("a.jsonl`: line 2 is no object with `class_name`"), "{said}");
        }
        assert_eq!(std::fs::read_to_string(&path).unwrap(), text);
        let said = chain(&DescriptionFile::check(&directory.path().join("a.json")).unwrap_err());
        assert!(said.contains("must end in `.jsonl`"), "{said}");
    }
}
