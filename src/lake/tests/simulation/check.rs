//! The invariants, checked after every commit. The log is read here a second time, without the library that the lake
//! uses.

use std::collections::{BTreeMap, BTreeSet};

use arrow::{array::AsArray, datatypes::Int64Type};
use bytes::Bytes;
use futures::{FutureExt, TryStreamExt};
use object_store::{ObjectStore, ObjectStoreExt, memory::InMemory, path::Path};
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use serde_json::Value;

use super::model::{self, ASKED, KEPT, LEDGER, REJECTS, Rows, SPECTRUM};
use crate::lake::{FINGERPRINT, data_file::matches_name};

/// The folder of the tables.
pub(super) const ROOT: &str = "lake";

/// The state of the logs, and the violations so far.
#[derive(Debug, Default)]
pub(super) struct Checker {
    logs: BTreeMap<String, Log>,
    /// The rows of data files, by path: they never change.
    files: BTreeMap<String, Vec<(String, i64)>>,
    /// By table, the ids that were acknowledged to a worker.
    acknowledged: BTreeMap<String, BTreeSet<String>>,
    pub(super) violations: Vec<String>,
}

/// A table.
#[derive(Debug, Default, PartialEq)]
struct Log {
    versions: u64,
    live: BTreeMap<String, i64>,
    fingerprint: i64,
    /// Fingerprint and files after each commit.
    past: Vec<(i64, Vec<String>)>,
}

impl Checker {
    /// Reads the logs of the store from the beginning.
    pub(super) fn replay(bare: &InMemory) -> Self {
        let mut checker = Self::default();
        let listing = bare.list(Some(&Path::from(ROOT))).try_collect::<Vec<_>>();
        let mut all = listing.now_or_never().unwrap().unwrap();
        all.sort_by(|a, b| a.location.cmp(&b.location));
        all.iter().for_each(|meta| checker.saw(bare, &meta.location));
        checker
    }

    fn wrong(&mut self, what: String) {
        self.violations.push(what);
    }

    pub(super) fn claim(&mut self, holds: bool, what: impl FnOnce() -> String) {
        if !holds {
            self.wrong(what());
        }
    }

    /// Checks an object that was written. If it is a commit, the table is checked.
    pub(super) fn saw(&mut self, bare: &InMemory, path: &Path) {
        let parts: Vec<_> = path.parts().collect();
        let [_, table, log, entry] = parts.as_slice() else { return };
        let version = entry.as_ref().strip_suffix(".json").and_then(|version| version.parse().ok());
        if let Some(version) = version.filter(|_| log.as_ref() == "_delta_log") {
            let name = table.as_ref().to_owned();
            let mut log = self.logs.remove(&name).unwrap_or_default();
            self.commit(bare, &name, &mut log, version);
            self.logs.insert(name, log);
        }
    }

    fn commit(&mut self, bare: &InMemory, name: &str, log: &mut Log, version: u64) {
        self.claim(version == log.versions, || format!("`{name}`: version {version} follows {}", log.versions));
        log.versions += 1;
        let entry = read(bare, &format!("{name}/_delta_log/{version:020}.json")).unwrap_or_default();
        let mut marked = false;
        for line in entry.split(|&byte| byte == b'\n').filter(|line| !line.is_empty()) {
            let action: Value = serde_json::from_slice(line).unwrap();
            if let Some(path) = action["add"]["path"].as_str() {
                let size = action["add"]["size"].as_i64().unwrap();
                self.file(bare, name, path, size);
                let new = log.live.insert(path.to_owned(), size).is_none();
                self.claim(new, || format!("`{name}` version {version}: file `{path}` is added twice"));
            }
            if let Some(path) = action["remove"]["path"].as_str() {
                let had = log.live.remove(path).is_some();
                self.claim(had, || format!("`{name}` version {version}: file `{path}` did not exist"));
                self.claim(model::is_replaced(name), || format!("`{name}` version {version}: rows are removed"));
            }
            if action["txn"]["appId"] == FINGERPRINT {
                log.fingerprint = action["txn"]["version"].as_i64().unwrap();
                marked = true;
            }
        }
        let changed = version > 0 && model::is_replaced(name);
        self.claim(!changed || marked, || format!("`{name}` version {version}: replaced rows without a mark"));
        log.past.push((log.fingerprint, log.live.keys().cloned().collect()));
        self.rows(name, log);
    }

    /// Checks that a file exists, has the size in its commit and the digest in its name, and has the right rows.
    fn file(&mut self, bare: &InMemory, table: &str, name: &str, size: i64) {
        let path = format!("{table}/{name}");
        let Some(bytes) = read(bare, &path) else { return self.wrong(format!("file `{path}` does not exist")) };
        self.claim(i64::try_from(bytes.len()) == Ok(size), || format!("file `{path}` has another size"));
        self.claim(matches_name(name, &bytes) == Some(true), || format!("file `{path}` has another digest"));
        if !self.files.contains_key(&path) {
            let rows = rows_of(bytes);
            for (id, value) in &rows {
                let right = is_right(table, id, *value);
                self.claim(right, || format!("file `{path}`: {id} has the value {value}"));
            }
            self.files.insert(path, rows);
        }
    }

    /// Checks all rows of a table.
    fn rows(&mut self, name: &str, log: &Log) {
        let mut rows = Rows::new();
        for file in log.live.keys() {
            for (id, value) in self.files.get(&format!("{name}/{file}")).cloned().unwrap_or_default() {
                let new = rows.insert(id.clone(), value).is_none();
                self.claim(new, || format!("`{name}` version {}: {id} exists twice", log.versions - 1));
            }
        }
        let acknowledged = self.acknowledged.get(name).filter(|_| !model::is_replaced(name));
        let lost = acknowledged.and_then(|ids| ids.iter().find(|id| !rows.contains_key(*id))).cloned();
        self.claim(lost.is_none(), || format!("`{name}`: {lost:?} was acknowledged and is gone"));
        if log.fingerprint == 0 {
            return;
        }
        let generation = model::generation(log.fingerprint);
        let right =
            model::fingerprint(name, generation) == log.fingerprint && self.is_complete(name, generation, &rows);
        self.claim(right, || format!("`{name}` has the mark of generation {generation}, and other rows"));
    }

    fn is_complete(&self, name: &str, generation: u64, rows: &Rows) -> bool {
        let (asked, spectrum, kept) = model::done(generation);
        match name {
            ASKED => *rows == asked,
            KEPT => *rows == kept,
            _ => {
                let rejects = self.live(REJECTS);
                spectrum.keys().all(|id| rows.contains_key(id))
                    && asked.keys().all(|id| rows.contains_key(id) != rejects.contains_key(id))
            }
        }
    }

    /// Returns the current rows of a table.
    pub(super) fn live(&self, name: &str) -> Rows {
        let files = self.logs.get(name).into_iter().flat_map(|log| log.live.keys());
        let rows = files.filter_map(|file| self.files.get(&format!("{name}/{file}"))).flatten();
        rows.cloned().collect()
    }

    /// Notes that these ids were acknowledged to a worker.
    pub(super) fn acknowledge(&mut self, table: &str, ids: impl Iterator<Item = String>) {
        let live = self.live(table);
        for id in ids {
            self.claim(live.contains_key(&id), || format!("`{table}`: {id} is acknowledged and missing"));
            self.acknowledged.entry(table.to_owned()).or_default().insert(id);
        }
    }

    /// Notes that a mark of the table was acknowledged to a worker.
    pub(super) fn acknowledge_mark(&mut self, table: &str, mark: i64) {
        let was = self.logs.get(table).is_some_and(|log| log.past.iter().any(|(found, _)| *found == mark));
        self.claim(was, || format!("`{table}`: the mark {mark} is acknowledged but never existed"));
    }

    /// Notes that a replacement on top of a version was acknowledged to a worker: the version was replaced by it, or had
    /// its rows already.
    pub(super) fn acknowledge_replacement(&mut self, table: &str, file: &str, mark: Option<i64>, base: Option<u64>) {
        let past = self.logs.get(table).map(|log| log.past.as_slice()).unwrap_or_default();
        let base = usize::try_from(base.unwrap_or(0)).unwrap();
        let was = past
            .iter()
            .skip(base)
            .take(2)
            .any(|(found, files)| mark.is_none_or(|mark| *found == mark) && files.as_slice() == [file]);
        self.claim(was, || {
            format!("`{table}`: a replacement on top of version {base} is acknowledged but never existed")
        });
    }

    /// Checks all files and tables again, and compares them with a replay from the beginning.
    pub(super) fn full(&mut self, bare: &InMemory, generation: u64) {
        let again = Self::replay(bare);
        self.violations.extend(again.violations);
        self.claim(again.logs == self.logs, || "the logs differ from the commits".to_owned());
        let (asked, spectrum, kept) = model::done(generation);
        self.claim(self.live(ASKED) == asked, || "`asked` is not that of an undisturbed history".to_owned());
        self.claim(self.live(KEPT) == kept, || "`kept` is not that of an undisturbed history".to_owned());
        let (found, rejects) = (self.live(SPECTRUM), self.live(REJECTS));
        let right = spectrum.iter().all(|(id, value)| found.get(id) == Some(value));
        self.claim(right, || "`spectrum` does not have all requested rows".to_owned());
        let ever: Rows = (0..=generation).flat_map(|generation| model::done(generation).0).collect();
        for id in ever.keys().filter(|id| asked.contains_key(*id) || found.contains_key(*id)) {
            let once = found.contains_key(id) != rejects.contains_key(id);
            self.claim(once, || format!("{id} is not in one of `spectrum` and `rejected`"));
        }
        let strange = found.keys().chain(rejects.keys()).find(|id| !ever.contains_key(*id)).cloned();
        self.claim(strange.is_none(), || format!("{strange:?} was never requested"));
        for (table, mark) in [ASKED, SPECTRUM, KEPT].map(|table| (table, model::fingerprint(table, generation))) {
            let found = self.logs.get(table).map(|log| log.fingerprint);
            self.claim(found == Some(mark), || format!("`{table}` has the mark {found:?}, not {mark}"));
        }
    }
}

fn is_right(table: &str, id: &str, value: i64) -> bool {
    match table {
        SPECTRUM | KEPT => model::generate(id) == Some(value),
        REJECTS => model::generate(id).is_none(),
        ASKED | LEDGER => true,
        _ => false,
    }
}

fn read(bare: &InMemory, path: &str) -> Option<Bytes> {
    let path = Path::from(format!("{ROOT}/{path}"));
    let read = async { bare.get(&path).await.ok()?.bytes().await.ok() };
    read.now_or_never().flatten()
}

fn rows_of(bytes: Bytes) -> Vec<(String, i64)> {
    let reader = ParquetRecordBatchReaderBuilder::try_new(bytes).unwrap().build().unwrap();
    let mut rows = Vec::new();
    for batch in reader {
        let batch = batch.unwrap();
        let (ids, values) = (batch.column(0).as_string::<i32>(), batch.column(1).as_primitive::<Int64Type>());
        rows.extend((0..batch.num_rows()).map(|row| (ids.value(row).to_owned(), values.value(row))));
    }
    rows
}
