//! The pipeline of the simulation: its tables, its queries, and what they must return, as pure functions.
//!
//! `asked` requests rows, as `candidates` does. `spectrum` holds what a model generates for each; some of them fail. Low
//! values request a further attempt. `kept` holds the even ones. A generation is what the user requests.

use std::{collections::BTreeMap, sync::Arc};

use arrow::{
    array::{ArrayRef, BooleanArray, RecordBatch, StringArray},
    datatypes::{DataType, Field, Fields, Schema},
};

use crate::{
    identity::Digest,
    plan::{
        Fingerprint, Plan, Step,
        catalogue::{Parameter, Query},
    },
    schema::{self, Kind, Table},
};

pub(super) const ASKED: &str = "asked";
pub(super) const SPECTRUM: &str = "spectrum";
pub(super) const KEPT: &str = "kept";
pub(super) const REJECTS: &str = schema::REJECTS;
/// The steps in their order.
pub(super) const STEPS: [&str; 3] = [ASKED, SPECTRUM, KEPT];

/// Images of the source. Each is asked for once, or twice if its value is low.
const SOURCES: u64 = 4;
/// Images whose rows form a unit.
pub(super) const SOURCES_PER_UNIT: usize = 2;
/// What the user can request.
pub(super) const GENERATIONS: u64 = 3;

/// Chosen so that some rows of each generation fail, some are low, and some are kept.
const MODEL: &str = "model 108";

const QUERIES: [&str; 3] = [
    "WITH first AS (
         SELECT source_id || '.' || CASE WHEN shared THEN '0' ELSE CAST($generation AS VARCHAR) END AS id, source_id
         FROM listing
     )
     SELECT id, source_id, 10 * $generation AS value FROM first
     UNION ALL
     SELECT first.id || '.again' AS id, first.source_id, 10 * $generation + 1 AS value
     FROM first JOIN spectrum ON spectrum.id = first.id WHERE spectrum.made['value'] % 3 = 0",
    "SELECT id, source_id, generate(id) AS made FROM asked",
    "SELECT spectrum.id, made['value'] AS value
     FROM spectrum JOIN asked ON asked.id = spectrum.id WHERE made['value'] % 2 = 0",
];

/// Rows by id.
pub(super) type Rows = BTreeMap<String, i64>;

/// Returns the tables that steps fill, in their order.
pub(super) fn tables() -> [Table; 3] {
    let text = |name| Field::new(name, DataType::Utf8, true);
    let value = Field::new("value", DataType::Int64, true);
    let made = Field::new("made", DataType::Struct(made()), true);
    let columns = [
        vec![text("id"), text("source_id"), value.clone()],
        vec![text("id"), text("source_id"), made],
        vec![text("id"), value],
    ];
    let kind = |name| match name {
        SPECTRUM => Kind::Incremental { over: ASKED, id: "id", sources_per_unit: SOURCES_PER_UNIT },
        _ => Kind::FullRefresh,
    };
    let mut columns = columns.into_iter();
    STEPS.map(|name| Table {
        name: name.to_owned(),
        schema: Arc::new(Schema::new(columns.next().unwrap())),
        kind: kind(name),
        key: vec!["id"],
        optional: Vec::new(),
    })
}

/// Returns what a generated row has.
pub(super) fn made() -> Fields {
    vec![Field::new("value", DataType::Int64, true)].into()
}

/// Returns every table that is written.
pub(super) fn stored_tables() -> Vec<Table> {
    tables().into_iter().chain([schema::REJECTS_TABLE.clone(), schema::LEDGER_TABLE.clone()]).collect()
}

/// Returns the plan of a generation.
pub(super) fn plan(generation: u64) -> Plan {
    let parameter = Parameter::Integer(i64::try_from(generation).unwrap());
    let parameters = BTreeMap::from([("generation".to_owned(), parameter)]);
    let step = |(table, text): (Table, &str)| {
        let query = Query::parse(&table.name, text).unwrap();
        Step {
            statement: query.bind(&parameters).unwrap(),
            fingerprint: Fingerprint {
                value: Some(fingerprint(&table.name, generation)),
                parts: BTreeMap::from([("$generation".to_owned(), generation.to_string())]),
            },
            repeats_to: (table.name == ASKED).then_some(1),
            table,
            query,
        }
    };
    let steps = tables().into_iter().zip(QUERIES).map(step).collect();
    Plan { steps, expectations: Vec::new(), parameters }
}

/// Returns the rows of `listing`.
pub(super) fn listing() -> RecordBatch {
    let sources: ArrayRef = Arc::new((0..SOURCES).map(|number| Some(source(number))).collect::<StringArray>());
    let paths: ArrayRef = Arc::new((0..SOURCES).map(|number| Some(format!("{number}.png"))).collect::<StringArray>());
    let shared: ArrayRef = Arc::new((0..SOURCES).map(|number| Some(is_shared(number))).collect::<BooleanArray>());
    let columns = [("source_id", sources), ("path", paths), ("shared", shared)];
    RecordBatch::try_from_iter_with_nullable(columns.map(|(name, column)| (name, column, true))).unwrap()
}

fn source(number: u64) -> String {
    Digest::new("source").part(&number.to_le_bytes()).id()
}

/// Whether every generation asks for the same row of the image. For a third of them, each asks for its own.
fn is_shared(number: u64) -> bool {
    !number.is_multiple_of(3)
}

/// Returns the fingerprint of the step that fills `table` in this generation.
pub(super) fn fingerprint(table: &str, generation: u64) -> i64 {
    let step = STEPS.iter().position(|&step| step == table).unwrap();
    i64::try_from(10 * (generation + 1)).unwrap() + i64::try_from(step).unwrap()
}

/// Returns the generation of a fingerprint of `table`.
pub(super) fn generation(table: &str, mark: i64) -> Option<u64> {
    (0..GENERATIONS).find(|&generation| fingerprint(table, generation) == mark)
}

/// Returns the model's value for an id, or `None` if it always fails.
pub(super) fn generate(id: &str) -> Option<i64> {
    let value = i64::try_from(Digest::new(MODEL).text(id).draw(1000)).unwrap();
    (value >= 300).then_some(value)
}

/// Returns the requested rows, given the spectrum: a low value requests a further attempt.
pub(super) fn asked(generation: u64, spectrum: &Rows) -> Rows {
    let own = |number| if is_shared(number) { 0 } else { generation };
    let first: Vec<String> = (0..SOURCES).map(|number| format!("{}.{}", source(number), own(number))).collect();
    let low = first.iter().filter(|id| spectrum.get(*id).is_some_and(|value| value % 3 == 0));
    let again: Vec<String> = low.map(|id| format!("{id}.again")).collect();
    let value = 10 * i64::try_from(generation).unwrap();
    let first = first.into_iter().map(|id| (id, value));
    first.chain(again.into_iter().map(|id| (id, value + 1))).collect()
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

/// Returns the complete tables of a generation if no row fails that can be generated: `asked`, `spectrum` and `kept`.
pub(super) fn done(generation: u64) -> (Rows, Rows, Rows) {
    let first = asked(generation, &Rows::new());
    let asked = asked(generation, &generate_all(first.keys()));
    let spectrum = generate_all(asked.keys());
    let kept = kept(&asked, &spectrum);
    (asked, spectrum, kept)
}
