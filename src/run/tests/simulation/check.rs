//! The invariants, checked after every commit. The log is read here a second time, with neither the library that the lake
//! uses nor the lake's own code.

use std::collections::{BTreeMap, BTreeSet, btree_map::Entry};

use arrow::{
    array::{Array, AsArray, RecordBatch},
    compute::cast,
    datatypes::{DataType, Int64Type},
};
use bytes::Bytes;
use object_store::path::Path;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use serde_json::Value;

use super::{
    disk::Disk,
    model::{self, ASKED, KEPT, REJECTS, Rows, SPECTRUM, STEPS},
    pipeline::AGE,
};
use crate::identity::content_digest;

/// The folder of the tables.
pub(super) const ROOT: &str = "lake";

/// The transactions of our commits: the step that completed the table, the version of the commit, and the latest version
/// since which rows have to be looked for again.
const FINGERPRINT: &str = "discl-pipe/fingerprint";
const VERSION: &str = "discl-pipe/version";
const CHANGED: &str = "discl-pipe/changed";

/// The state of the logs, and the violations so far.
#[derive(Debug, Default)]
pub(super) struct Checker {
    pub(super) logs: BTreeMap<String, Log>,
    /// The rows of data files, by path: they never change.
    pub(super) files: BTreeMap<String, Vec<(String, i64)>>,
    /// By table, the ids that runs have told their users of.
    promised: BTreeMap<String, BTreeSet<String>>,
    /// Whether entries of long ago are read, whose files may be gone.
    is_replay: bool,
    pub(super) violations: Vec<String>,
}

/// A table.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Log {
    pub(super) versions: u64,
    /// Live files with their size.
    pub(super) live: BTreeMap<String, i64>,
    fingerprint: i64,
    changed: u64,
    /// Whether another program has changed rows, and no step has accounted for them yet.
    is_foreign: bool,
    /// Whether another program has ever changed rows.
    was_foreign: bool,
    /// Fingerprint and live files after each commit.
    pub(super) past: Vec<(i64, BTreeMap<String, i64>)>,
}

/// One entry of a log.
#[derive(Debug, Default)]
struct LogEntry {
    added: Vec<(String, i64)>,
    removed: Vec<String>,
    changes_data: bool,
    transactions: BTreeMap<String, i64>,
}

impl LogEntry {
    fn parse(bytes: &[u8]) -> Option<Self> {
        let mut entry = Self::default();
        let lines = bytes.split(|&byte| byte == b'\n').filter(|line| !line.is_empty());
        for line in lines {
            let action: Value = serde_json::from_slice(line).ok()?;
            let (add, remove, txn) = (&action["add"], &action["remove"], &action["txn"]);
            entry.changes_data |= add["dataChange"] == true || remove["dataChange"] == true;
            if let Some(path) = add["path"].as_str() {
                entry.added.push((path.to_owned(), add["size"].as_i64()?));
            }
            entry.removed.extend(remove["path"].as_str().map(str::to_owned));
            if let Some(id) = txn["appId"].as_str() {
                entry.transactions.insert(id.to_owned(), txn["version"].as_i64()?);
            }
        }
        (!bytes.is_empty()).then_some(entry)
    }
}

impl Log {
    /// Returns the fingerprint of the step that the table is complete of.
    fn mark(&self) -> Option<i64> {
        (self.fingerprint != 0 && self.changed == 0).then_some(self.fingerprint)
    }
}

impl Checker {
    /// Reads the logs of the store from the beginning, and checks what they say in the end. `files` are the rows of files
    /// that may have been deleted since.
    fn replay(disk: &Disk, files: BTreeMap<String, Vec<(String, i64)>>) -> Self {
        let mut checker = Self { files, is_replay: true, ..Self::default() };
        for path in disk.paths() {
            checker.read_entry(disk, &path);
        }
        for (name, log) in &checker.logs.clone() {
            for (file, size) in &log.live {
                let whole = read(disk, &format!("{name}/{file}")).is_some_and(|b| i64::try_from(b.len()) == Ok(*size));
                checker.claim(whole, || format!("file `{name}/{file}` is not whole"));
            }
            checker.rows(name, log);
        }
        checker.marks();
        Self { is_replay: false, ..checker }
    }

    /// Returns the state after a loss of power. What was promised must be there still.
    pub(super) fn after_power_loss(self, disk: &Disk) -> Self {
        let mut checker = Self::replay(disk, self.files);
        checker.violations.splice(0..0, self.violations);
        for (table, promised) in &self.promised {
            let live = checker.live(table);
            let lost = promised.iter().find(|id| !live.contains_key(*id));
            checker.claim(lost.is_none(), || format!("`{table}`: {lost:?} was promised, and is gone with the power"));
        }
        Self { promised: self.promised, ..checker }
    }

    pub(super) fn claim(&mut self, holds: bool, what: impl FnOnce() -> String) {
        if !holds {
            self.violations.push(what());
        }
    }

    /// Checks an object that was written. If it is a commit, the tables are checked.
    pub(super) fn saw(&mut self, disk: &Disk, path: &Path) {
        if let Some(name) = self.read_entry(disk, path) {
            let log = self.logs[&name].clone();
            self.rows(&name, &log);
            self.marks();
        }
    }

    /// Reads an object if it is a commit; returns its table.
    fn read_entry(&mut self, disk: &Disk, path: &Path) -> Option<String> {
        let parts: Vec<_> = path.parts().collect();
        let [_, table, log, entry] = parts.as_slice() else { return None };
        let version = entry.as_ref().strip_suffix(".json")?.parse().ok().filter(|_| log.as_ref() == "_delta_log")?;
        let name = table.as_ref().to_owned();
        let mut log = self.logs.remove(&name).unwrap_or_default();
        self.commit(disk, &name, &mut log, version);
        self.logs.insert(name.clone(), log);
        Some(name)
    }

    fn commit(&mut self, disk: &Disk, name: &str, log: &mut Log, version: u64) {
        self.claim(version == log.versions, || format!("`{name}`: version {version} follows {}", log.versions));
        log.versions = version + 1;
        let bytes = read(disk, &format!("{name}/_delta_log/{version:020}.json")).unwrap_or_default();
        let Some(entry) = LogEntry::parse(&bytes) else {
            return self.violations.push(format!("`{name}`: the entry {version} is damaged"));
        };
        let transaction = |id| entry.transactions.get(id).copied();
        let is_ours = transaction(VERSION).is_some_and(|number| u64::try_from(number) == Ok(version));
        for (file, size) in &entry.added {
            self.file(disk, name, file, *size, is_ours);
            let new = log.live.insert(file.clone(), *size).is_none();
            let moves = entry.removed.contains(file);
            self.claim(new || moves, || format!("`{name}` version {version}: file `{file}` is added twice"));
        }
        for file in &entry.removed {
            let had = log.live.remove(file).is_some();
            self.claim(had, || format!("`{name}` version {version}: file `{file}` did not exist"));
            let stays = name == SPECTRUM && is_ours && digest(file).is_some();
            self.claim(!stays, || format!("`{name}` version {version}: our rows are removed"));
        }
        if is_ours {
            log.fingerprint = transaction(FINGERPRINT).unwrap_or(0);
            log.changed = transaction(CHANGED).and_then(|version| u64::try_from(version).ok()).unwrap_or(0);
            log.is_foreign &= log.changed != 0;
        } else if entry.changes_data {
            log.changed = version;
            (log.is_foreign, log.was_foreign) = (true, true);
        }
        if entry.changes_data && (!is_ours || name == REJECTS && !entry.removed.is_empty()) {
            self.promised.remove(name);
        }
        log.past.push((log.fingerprint, log.live.clone()));
    }

    /// Checks that a file exists, has the size in its commit and, if it is ours, the digest in its name.
    fn file(&mut self, disk: &Disk, table: &str, name: &str, size: i64, is_ours: bool) {
        let path = format!("{table}/{name}");
        let Some(bytes) = read(disk, &path) else {
            let is_replay = self.is_replay;
            return self.claim(is_replay, || format!("file `{path}` does not exist"));
        };
        self.claim(i64::try_from(bytes.len()) == Ok(size), || format!("file `{path}` has another size"));
        let has_digest = digest(name).is_some_and(|digest| content_digest(&bytes).starts_with(digest));
        self.claim(has_digest || !is_ours, || format!("file `{path}` has another digest"));
        if let Entry::Vacant(file) = self.files.entry(path) {
            match rows_of(bytes) {
                Some(rows) => drop(file.insert(rows)),
                None => self.violations.push(format!("file `{}` cannot be read", file.key())),
            }
        }
    }

    /// Checks the rows of a table, unless another program has changed them.
    fn rows(&mut self, name: &str, log: &Log) {
        // Whatever rows of `rejects` another program adds are rejects.
        if log.is_foreign || name == REJECTS && log.was_foreign {
            return;
        }
        let mut rows = Rows::new();
        for file in log.live.keys() {
            for (id, value) in self.files.get(&format!("{name}/{file}")).cloned().unwrap_or_default() {
                let right = is_right(name, &id, value);
                self.claim(right, || format!("`{name}` version {}: {id} has the value {value}", log.versions - 1));
                let new = rows.insert(id.clone(), value).is_none();
                self.claim(new, || format!("`{name}` version {}: {id} exists twice", log.versions - 1));
            }
        }
        let promised = self.promised.get(name).filter(|_| name == SPECTRUM);
        let lost = promised.and_then(|ids| ids.iter().find(|id| !rows.contains_key(*id))).cloned();
        self.claim(lost.is_none(), || format!("`{name}`: {lost:?} was promised, and is gone"));
    }

    /// Checks that the tables are what their marks say.
    fn marks(&mut self) {
        let mark = |name: &str| self.logs.get(name).and_then(Log::mark);
        let unknown = STEPS.iter().find(|name| mark(name).is_some_and(|mark| model::generation(name, mark).is_none()));
        let unknown = unknown.map(|name| format!("`{name}` has the mark of no step"));
        let generation = |name| mark(name).and_then(|mark| model::generation(name, mark));
        let (of_asked, of_spectrum, of_kept) = (generation(ASKED), generation(SPECTRUM), generation(KEPT));
        self.claim(unknown.is_none(), || unknown.unwrap_or_default());
        let Some(generation) = of_asked.filter(|of_asked| Some(*of_asked) == of_spectrum) else { return };
        if self.logs.get(REJECTS).is_some_and(|log| log.changed != 0) {
            return;
        }
        let (asked, spectrum, rejects) = (self.live(ASKED), self.live(SPECTRUM), self.live(REJECTS));
        let right = asked == model::asked(generation, &spectrum);
        self.claim(right, || format!("`asked` has the mark of generation {generation}, and other rows"));
        let missing = asked.keys().find(|id| !spectrum.contains_key(*id) && !rejects.contains_key(*id));
        self.claim(missing.is_none(), || {
            format!("`spectrum` has the mark of generation {generation}, and {missing:?} is missing")
        });
        if of_kept == Some(generation) {
            let right = self.live(KEPT) == model::kept(&asked, &spectrum);
            self.claim(right, || format!("`kept` has the mark of generation {generation}, and other rows"));
        }
    }

    /// Returns the current rows of a table.
    pub(super) fn live(&self, name: &str) -> Rows {
        let files = self.logs.get(name).into_iter().flat_map(|log| log.live.keys());
        let rows = files.filter_map(|file| self.files.get(&format!("{name}/{file}"))).flatten();
        rows.cloned().collect()
    }

    /// Notes that a run has told its user that its rows of a table are committed.
    pub(super) fn promise(&mut self, table: &str) {
        if self.logs.get(table).is_some_and(|log| !log.is_foreign) && table == SPECTRUM {
            let live = self.live(table);
            self.promised.entry(table.to_owned()).or_default().extend(live.into_keys());
        }
    }

    /// Notes that a run has told its user that a step is complete.
    pub(super) fn completed(&mut self, step: &str) {
        let marks = self.logs.get(step).map(|log| log.past.iter().any(|(mark, _)| *mark != 0));
        self.claim(marks == Some(true), || format!("`{step}` is reported as complete, and never had a mark"));
    }

    /// Checks that a file may be deleted, of this age in milliseconds.
    pub(super) fn deletes(&mut self, path: &Path, age: u64) {
        let parts: Vec<_> = path.parts().collect();
        let [_, table, file] = parts.as_slice() else { return };
        // What a write has begun and given up, nobody knows.
        if file.as_ref().contains('#') {
            return;
        }
        let live = self.logs.get(table.as_ref()).is_some_and(|log| log.live.contains_key(file.as_ref()));
        self.claim(!live, || format!("`{path}` is deleted, and the table needs it"));
        self.claim(u128::from(age) >= AGE.as_millis(), || {
            format!("`{path}` is deleted, {age} ms after it was written")
        });
    }

    /// Checks all files and tables again, and compares them with a replay from the beginning. All steps of `generation`
    /// must be complete. If no row fails that can be generated, `is_pure`, they are what an undisturbed run makes.
    pub(super) fn full(&mut self, disk: &Disk, generation: u64, is_pure: bool) {
        let again = Self::replay(disk, self.files.clone());
        self.violations.extend(again.violations.clone());
        let differs = again.logs.iter().find(|(name, log)| self.logs.get(*name).map(|l| &l.live) != Some(&log.live));
        self.claim(differs.is_none(), || format!("the log of `{}` differs from its commits", differs.unwrap().0));
        for table in STEPS {
            let (found, mark) = (self.logs.get(table).and_then(Log::mark), model::fingerprint(table, generation));
            self.claim(found == Some(mark), || format!("`{table}` has the mark {found:?}, not {mark}"));
        }
        if is_pure {
            let (asked, spectrum, kept) = model::done(generation);
            self.claim(self.live(ASKED) == asked, || "`asked` is not that of an undisturbed history".to_owned());
            self.claim(self.live(KEPT) == kept, || "`kept` is not that of an undisturbed history".to_owned());
            let (found, rejects) = (self.live(SPECTRUM), self.live(REJECTS));
            let right = spectrum.iter().all(|(id, value)| found.get(id) == Some(value));
            self.claim(right, || "`spectrum` does not have all requested rows".to_owned());
            let twice = asked.keys().find(|id| found.contains_key(*id) == rejects.contains_key(*id));
            self.claim(twice.is_none(), || format!("{twice:?} is not in one of `spectrum` and `rejects`"));
        }
    }
}

/// Returns whether a table may have this row.
fn is_right(table: &str, id: &str, value: i64) -> bool {
    // Where another program has changed a value, a further attempt may have been asked for.
    let first = id.strip_suffix(".again").unwrap_or(id);
    let was_asked = || (0..model::GENERATIONS).any(|generation| model::done(generation).0.contains_key(first));
    match table {
        SPECTRUM | KEPT => model::generate(id) == Some(value) && was_asked(),
        ASKED => was_asked(),
        _ => true,
    }
}

/// Returns the digest in the name of a file of ours.
fn digest(name: &str) -> Option<&str> {
    let digest = name.strip_suffix(".parquet")?.rsplit_once('-')?.1;
    (digest.len() == 16 && digest.bytes().all(|digit| digit.is_ascii_hexdigit())).then_some(digest)
}

fn read(disk: &Disk, path: &str) -> Option<Bytes> {
    disk.read(&Path::from(format!("{ROOT}/{path}")))
}

/// Returns the batches of a file.
pub(super) fn batches_of(bytes: Bytes) -> Option<Vec<RecordBatch>> {
    let reader = ParquetRecordBatchReaderBuilder::try_new(bytes).ok()?.build().ok()?;
    reader.map(Result::ok).collect()
}

/// Returns id and value of each row of a file; the value 0 if it has none.
fn rows_of(bytes: Bytes) -> Option<Vec<(String, i64)>> {
    let mut rows = Vec::new();
    for batch in batches_of(bytes)? {
        let ids = batch.column_by_name("id").or_else(|| batch.column_by_name("unit"))?;
        let ids = cast(ids, &DataType::Utf8).ok()?;
        let made = batch.column_by_name("made").and_then(|made| made.as_struct().column_by_name("value"));
        let values = made.or_else(|| batch.column_by_name("value")).map(|values| values.as_primitive::<Int64Type>());
        let value = |row| values.filter(|values| values.is_valid(row)).map_or(0, |values| values.value(row));
        let ids = ids.as_string::<i32>();
        rows.extend((0..batch.num_rows()).map(|row| (ids.value(row).to_owned(), value(row))));
    }
    Some(rows)
}
