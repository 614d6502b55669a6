//! A run of the pipeline by one worker, with the same calls of the lake as the steps of the program.

use std::{collections::BTreeSet, sync::Arc};

use arrow::{array::AsArray, datatypes::Int64Type};
use datafusion::prelude::{SessionConfig, SessionContext};
use object_store::ObjectStore;
use url::Url;

use super::{
    check::ROOT,
    model::{self, ASKED, KEPT, LEDGER, REJECTS, Rows, SPECTRUM},
    world::World,
};
use crate::{
    error::{Error, Result},
    identity::Digest,
    lake::{DataFile, Lake, UnitRows},
    storage::Location,
};

/// How often a worker restarts a step because of others.
const MAX_ROUNDS: u64 = 6;
/// How often a worker checks whether the others are done.
const MAX_CHECKS: u64 = 3;
/// Units in one commit.
const MAX_UNITS_PER_COMMIT: u64 = 2;

/// Why a worker gives up.
#[derive(Debug, thiserror::Error)]
enum RunError {
    #[error("others keep changing the tables")]
    Outrun,
    #[error("a unit is missing after it was committed")]
    MissingUnit,
}

/// Opens the lake in a store.
pub(super) fn lake(store: Arc<dyn ObjectStore>) -> Lake {
    let location = Location::at(store, Url::parse(&format!("memory:///{ROOT}/")).unwrap()).unwrap();
    Lake::at(location)
}

/// One run of one worker.
pub(super) struct Run<'a> {
    pub(super) world: &'a World,
    pub(super) lake: Lake,
    pub(super) generation: u64,
    /// This worker's shard of the units: its number, and the number of shards.
    pub(super) shard: Option<(u64, u64)>,
    /// Whether a ledger is written, which makes histories twice as long.
    pub(super) ledger: bool,
}

/// Returns whether a run can end like this without a fault: others were not done, or kept changing what it reads.
pub(super) fn is_by_others(error: &Error) -> bool {
    match error {
        Error::Waiting { .. } => true,
        Error::Failed(error) => matches!(error.downcast_ref(), Some(RunError::Outrun)),
        _ => false,
    }
}

impl Run<'_> {
    /// Runs all steps that are not complete yet.
    pub(super) async fn complete_all(&self) -> Result<()> {
        for _ in 0..MAX_ROUNDS {
            self.repeat().await?;
            if self.keep().await? {
                return Ok(());
            }
        }
        Err(Error::failed(RunError::Outrun))
    }

    fn mark(&self, table: &str) -> i64 {
        model::fingerprint(table, self.generation)
    }

    /// Returns version and fingerprint of a table.
    async fn state(&self, name: &str) -> Result<(Option<u64>, Option<i64>)> {
        let reading = self.lake.read(model::table(name)).await?;
        Ok(reading.map_or((None, None), |reading| (Some(reading.version), reading.fingerprint)))
    }

    /// Queries a table; returns its fingerprint and rows.
    async fn query(&self, name: &str) -> Result<(Option<i64>, Rows)> {
        let Some(reading) = self.lake.read(model::table(name)).await? else { return Ok((None, Rows::new())) };
        let context = SessionContext::new_with_config(SessionConfig::new().with_target_partitions(1));
        let frame = context.read_table(reading.provider).map_err(|error| Error::query(name, error))?;
        let batches = frame.collect().await.map_err(|error| Error::query(name, error))?;
        let mut rows = Rows::new();
        for batch in &batches {
            let (ids, values) = (batch.column(0), batch.column(1).as_primitive::<Int64Type>());
            let ids = arrow::compute::cast(ids, &arrow::datatypes::DataType::Utf8).unwrap();
            rows.extend(ids.as_string::<i32>().iter().map(|id| id.unwrap().to_owned()).zip(values.values().to_vec()));
        }
        Ok((reading.fingerprint, rows))
    }

    /// Repeats the step that requests rows and the one that generates them until the requests no longer change.
    async fn repeat(&self) -> Result<()> {
        if self.is_marked(ASKED).await? && self.is_marked(SPECTRUM).await? {
            return Ok(());
        }
        let mut previous = None;
        for _ in 0..MAX_ROUNDS {
            let (base, _) = self.state(ASKED).await?;
            let spectrum = self.spectrum().await?;
            let asked = model::asked(self.generation, &spectrum);
            let file = file(ASKED, &asked)?;
            let settled = previous.as_ref() == Some(&file.name);
            if settled {
                self.enter(ASKED).await?;
            }
            previous = Some(file.name.clone());
            if !self.replace(ASKED, file, settled.then_some(self.mark(ASKED)), base).await? {
                previous = None;
            } else if settled {
                return self.complete(SPECTRUM).await;
            } else {
                self.accumulate(&asked).await?;
            }
        }
        Err(Error::failed(RunError::Outrun))
    }

    async fn is_marked(&self, name: &str) -> Result<bool> {
        Ok(self.state(name).await?.1 == Some(self.mark(name)))
    }

    /// Returns the rows of the spectrum, computed from their ids.
    async fn spectrum(&self) -> Result<Rows> {
        let ids = self.lake.ids(model::table(SPECTRUM), "id").await?;
        Ok(ids.into_iter().filter_map(|id| model::generate(&id).map(|value| (id, value))).collect())
    }

    /// Returns what the last step reads, in one run of four by queries, or `None` if another run has changed it. A table
    /// with the mark of our generation has its rows.
    async fn inputs(&self) -> Result<Option<(Rows, Rows)>> {
        if self.world.draw(4) > 0 {
            return Ok(Some((model::done(self.generation).0, self.spectrum().await?)));
        }
        let (asking, asked) = self.query(ASKED).await?;
        let (making, spectrum) = self.query(SPECTRUM).await?;
        if asking != Some(self.mark(ASKED)) || making != Some(self.mark(SPECTRUM)) {
            return Ok(None);
        }
        let right = asked == model::done(self.generation).0;
        self.world.check(|checker, _| checker.claim(right, || "a query of `asked` returns other rows".to_owned()));
        Ok(Some((asked, spectrum)))
    }

    /// Runs the last step; returns false if another run has changed what it reads.
    async fn keep(&self) -> Result<bool> {
        for _ in 0..MAX_ROUNDS {
            if !self.is_marked(ASKED).await? || !self.is_marked(SPECTRUM).await? {
                return Ok(false);
            }
            let (base, mark) = self.state(KEPT).await?;
            if mark == Some(self.mark(KEPT)) {
                return Ok(true);
            }
            let Some((asked, spectrum)) = self.inputs().await? else { return Ok(false) };
            self.enter(KEPT).await?;
            let file = file(KEPT, &model::kept(&asked, &spectrum))?;
            if self.replace(KEPT, file, Some(self.mark(KEPT)), base).await? {
                return Ok(true);
            }
        }
        Err(Error::failed(RunError::Outrun))
    }

    async fn replace(&self, name: &str, file: DataFile, mark: Option<i64>, base: Option<u64>) -> Result<bool> {
        let files = [file];
        let done = self.lake.replace(model::table(name), &files, mark, base).await?;
        if done {
            self.world.check(|checker, _| checker.acknowledge_replacement(name, &files[0].name, mark, base));
        } else {
            self.world.count(|counts| counts.outrun += 1);
        }
        Ok(done)
    }

    async fn complete(&self, name: &str) -> Result<()> {
        self.enter(name).await?;
        let since = self.state(name).await?.0.unwrap_or(0);
        self.lake.complete(model::table(name), self.mark(name), since).await?;
        self.world.check(|checker, _| checker.acknowledge_mark(name, self.mark(name)));
        Ok(())
    }

    /// Records the completion of a step in the ledger.
    async fn enter(&self, step: &str) -> Result<()> {
        let unit = format!("{:016x}", self.mark(step));
        self.note(&[(unit.clone(), [(unit, self.world.now())].into())]).await
    }

    async fn note(&self, entries: &[(String, Rows)]) -> Result<()> {
        if self.ledger { self.append(LEDGER, entries).await } else { Ok(()) }
    }

    /// Computes what is missing of `asked`, and waits for the units of others.
    async fn accumulate(&self, asked: &Rows) -> Result<()> {
        let mut units = self.missing(asked, self.shard).await?;
        while !units.is_empty() {
            let together = 1 + self.world.draw(MAX_UNITS_PER_COMMIT).min(units.len() as u64 - 1);
            let ready = (0..together).map(|_| {
                let next = self.world.draw(units.len() as u64);
                units.swap_remove(usize::try_from(next).unwrap())
            });
            let ready: Vec<_> = ready.collect();
            self.commit_units(&ready).await?;
        }
        for _ in 0..MAX_CHECKS {
            let rows = self.missing(asked, None).await?.iter().map(|(_, ids)| ids.len()).sum();
            match rows {
                0 => return Ok(()),
                _ if self.shard.is_none() => return Err(Error::failed(RunError::MissingUnit)),
                _ => {}
            }
        }
        Err(Error::Waiting { step: SPECTRUM.to_owned(), rows: 1 })
    }

    async fn missing(&self, asked: &Rows, shard: Option<(u64, u64)>) -> Result<Vec<(String, BTreeSet<String>)>> {
        let mut done = self.lake.ids(model::table(SPECTRUM), "id").await?;
        done.extend(self.lake.ids(model::table(REJECTS), "id").await?);
        let own =
            |unit: u64| shard.is_none_or(|(number, of)| Digest::new("shard").part(&[unit as u8]).draw(of) == number);
        let units = model::units(asked).into_iter().filter(|(unit, _)| own(*unit)).map(|(_, (name, mut ids))| {
            ids.retain(|id| !done.contains(id));
            (name, ids)
        });
        Ok(units.filter(|(_, ids)| !ids.is_empty()).collect())
    }

    /// Commits a unit's rejects and its ledger row first. The unit is done when its rows are committed.
    async fn commit_units(&self, units: &[(String, BTreeSet<String>)]) -> Result<()> {
        let (mut rejects, mut ledger, mut rows) = (Vec::new(), Vec::new(), Vec::new());
        for (unit, ids) in units {
            let (passed, failed): (BTreeSet<&String>, _) = ids.iter().partition(|id| model::generate(id).is_some());
            if !failed.is_empty() {
                rejects.push((unit.clone(), failed.into_iter().map(|id| (id.clone(), 0)).collect()));
            }
            ledger.push((unit.clone(), [(unit.clone(), self.world.now())].into()));
            rows.push((
                unit.clone(),
                passed.into_iter().filter_map(|id| Some((id.clone(), model::generate(id)?))).collect(),
            ));
        }
        if !rejects.is_empty() {
            self.append(REJECTS, &rejects).await?;
        }
        self.note(&ledger).await?;
        self.append(SPECTRUM, &rows).await
    }

    async fn append(&self, name: &str, units: &[(String, Rows)]) -> Result<()> {
        let rows: Vec<_> =
            units.iter().map(|(unit, rows)| UnitRows { unit: unit.clone(), rows: model::batch(rows) }).collect();
        self.lake.append(model::table(name), "id", &rows).await?;
        let ids = units.iter().flat_map(|(_, rows)| rows.keys().cloned());
        self.world.check(|checker, _| checker.acknowledge(name, ids));
        Ok(())
    }
}

fn file(name: &str, rows: &Rows) -> Result<DataFile> {
    DataFile::write("rows", &model::table(name).schema, &[model::batch(rows)])
}
