//! The pipeline of the simulation, as pure functions.
//!
//! `asked` requests rows, as `candidates` does. `spectrum` holds what a model generates for each; some of them fail. Low
//! values request a further attempt. `kept` holds the even ones. A generation is what the user requests.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, LazyLock},
};

use arrow::{
    array::{ArrayRef, Int64Array, RecordBatch, StringArray},
    datatypes::{DataType, Field, Schema},
};

use crate::{
    identity::Digest,
    schema::{Kind, Table},
};

pub(super) const ASKED: &str = "asked";
pub(super) const SPECTRUM: &str = "spectrum";
pub(super) const KEPT: &str = "kept";
pub(super) const REJECTS: &str = "rejected";
pub(super) const LEDGER: &str = "entries";

/// Ids that a generation requests first.
const IDS: u64 = 4;
/// Units of a generation.
pub(super) const UNITS: u64 = 2;

/// Every table, by name. All have an id and a value.
pub(super) static TABLES: LazyLock<BTreeMap<&str, Table>> = LazyLock::new(|| {
    let fields = vec![Field::new("id", DataType::Utf8, true), Field::new("value", DataType::Int64, true)];
    let schema = Arc::new(Schema::new(fields));
    let table = |name: &'static str, kind| {
        (name, Table { name: name.to_owned(), schema: Arc::clone(&schema), kind, key: vec!["id"] })
    };
    let accumulated = Kind::Incremental { over: ASKED, id: "id", sources_per_unit: 1 };
    [
        table(ASKED, Kind::FullRefresh),
        table(SPECTRUM, accumulated),
        table(KEPT, Kind::FullRefresh),
        table(REJECTS, Kind::Log),
        table(LEDGER, Kind::Log),
    ]
    .into()
});

pub(super) type Rows = BTreeMap<String, i64>;

pub(super) fn table(name: &str) -> &'static Table {
    &TABLES[name]
}

pub(super) fn is_replaced(name: &str) -> bool {
    table(name).kind == Kind::FullRefresh
}

/// Returns the fingerprint of the step that fills `table` in this generation.
pub(super) fn fingerprint(table: &str, generation: u64) -> i64 {
    let step = [ASKED, SPECTRUM, KEPT].iter().position(|&step| step == table).unwrap();
    i64::try_from(10 * (generation + 1)).unwrap() + i64::try_from(step).unwrap()
}

/// Returns the generation of a fingerprint.
pub(super) fn generation(fingerprint: i64) -> u64 {
    u64::try_from(fingerprint).unwrap() / 10 - 1
}

/// Returns the model's value for an id, or `None` if it fails.
pub(super) fn generate(id: &str) -> Option<i64> {
    let value = i64::try_from(Digest::new("model").text(id).draw(1000)).unwrap();
    (value >= 300).then_some(value)
}

/// Returns the requested rows, given the spectrum: a low value requests a further attempt. A third of the ids belongs to
/// this generation only.
pub(super) fn asked(generation: u64, spectrum: &Rows) -> Rows {
    let first = (0..IDS).map(|number| {
        let of = if number % 3 == 0 { generation } else { 0 };
        Digest::new("asking").part(&of.to_le_bytes()).part(&number.to_le_bytes()).id()
    });
    let first: Vec<String> = first.collect();
    let low = first.iter().filter(|id| spectrum.get(*id).is_some_and(|value| value % 3 == 0));
    let again: Vec<String> = low.map(|id| Digest::new("again").text(id).id()).collect();
    let generation = i64::try_from(generation).unwrap();
    let first = first.into_iter().map(|id| (id, 10 * generation));
    first.chain(again.into_iter().map(|id| (id, 10 * generation + 1))).collect()
}

/// Returns the rows that are kept.
pub(super) fn kept(asked: &Rows, spectrum: &Rows) -> Rows {
    let of = |id: &String| spectrum.get(id).copied().filter(|value| value % 2 == 0);
    asked.keys().filter_map(|id| Some((id.clone(), of(id)?))).collect()
}

/// Returns the model's values for all ids.
fn generate_all<'a>(ids: impl Iterator<Item = &'a String>) -> Rows {
    ids.filter_map(|id| Some((id.clone(), generate(id)?))).collect()
}

/// Returns the complete tables of a generation: `asked`, `spectrum` and `kept`.
pub(super) fn done(generation: u64) -> (Rows, Rows, Rows) {
    let first = asked(generation, &Rows::new());
    let asked = asked(generation, &generate_all(first.keys()));
    let spectrum = generate_all(asked.keys());
    let kept = kept(&asked, &spectrum);
    (asked, spectrum, kept)
}

/// Returns the units, each with its name and its ids.
pub(super) fn units(asked: &Rows) -> BTreeMap<u64, (String, BTreeSet<String>)> {
    let mut units: BTreeMap<u64, (String, BTreeSet<String>)> = BTreeMap::new();
    for id in asked.keys() {
        let key = Digest::new("bucket").text(id).draw(UNITS);
        units.entry(key).or_default().1.insert(id.clone());
    }
    for (name, ids) in units.values_mut() {
        *name = ids.iter().fold(Digest::new("unit"), |digest, id| digest.text(id)).id();
    }
    units
}

/// Returns rows as a batch of a table.
pub(super) fn batch(rows: &Rows) -> RecordBatch {
    let ids: ArrayRef = Arc::new(rows.keys().map(Some).collect::<StringArray>());
    let values: ArrayRef = Arc::new(rows.values().copied().map(Some).collect::<Int64Array>());
    RecordBatch::try_new(Arc::clone(&table(ASKED).schema), vec![ids, values]).unwrap()
}
