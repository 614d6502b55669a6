//! Counts the events of histories.

use std::{collections::BTreeMap, fmt, ops::AddAssign};

use super::fault::Fault;

/// Counts of one history, or of many.
#[derive(Debug, Clone, Default)]
pub(super) struct Counts {
    pub(super) histories: u64,
    pub(super) workers: u64,
    /// Starts of workers, including restarts after a crash or an error.
    pub(super) runs: u64,
    /// Runs that ended before their pipeline was complete.
    pub(super) aborted: u64,
    /// Changes of the pipeline by the user.
    pub(super) edits: u64,
    pub(super) calls: u64,
    pub(super) commits: u64,
    /// Commits that lost to another one.
    pub(super) conflicts: u64,
    /// Losses of power.
    pub(super) losses: u64,
    /// Commits of other programs.
    pub(super) foreign: u64,
    /// How often rejects were cleared, and garbage was collected.
    pub(super) cleared: u64,
    pub(super) collected: u64,
    /// Files that `gc` deleted.
    pub(super) deleted: u64,
    pub(super) checkpoints: u64,
    pub(super) data_files: u64,
    /// For each fault, how often it occurred and how often it could have.
    faults: BTreeMap<Fault, (u64, u64)>,
}

impl Counts {
    pub(super) fn could(&mut self, fault: Fault) {
        self.faults.entry(fault).or_default().1 += 1;
    }

    pub(super) fn had(&mut self, fault: Fault) {
        self.faults.entry(fault).or_default().0 += 1;
    }

    pub(super) fn of(&self, fault: Fault) -> u64 {
        self.faults.get(&fault).map_or(0, |counts| counts.0)
    }

    fn crashes(&self) -> u64 {
        self.of(Fault::CrashBefore) + self.of(Fault::CrashAfter)
    }
}

impl AddAssign<&Counts> for Counts {
    fn add_assign(&mut self, other: &Self) {
        self.histories += other.histories;
        self.workers += other.workers;
        self.runs += other.runs;
        self.aborted += other.aborted;
        self.edits += other.edits;
        self.calls += other.calls;
        self.commits += other.commits;
        self.conflicts += other.conflicts;
        self.losses += other.losses;
        self.foreign += other.foreign;
        self.cleared += other.cleared;
        self.collected += other.collected;
        self.deleted += other.deleted;
        self.checkpoints += other.checkpoints;
        self.data_files += other.data_files;
        for (&fault, &(had, could)) in &other.faults {
            let counts = self.faults.entry(fault).or_default();
            *counts = (counts.0 + had, counts.1 + could);
        }
    }
}

impl fmt::Display for Counts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let lines = [
            ("histories", self.histories),
            ("workers", self.workers),
            ("runs", self.runs),
            ("aborted runs", self.aborted),
            ("edits by the user", self.edits),
            ("calls of a store", self.calls),
            ("data files", self.data_files),
            ("commits", self.commits),
            ("checkpoints", self.checkpoints),
            ("commits that lost", self.conflicts),
            ("crashes", self.crashes()),
            ("losses of power", self.losses),
            ("commits of other programs", self.foreign),
            ("clearings of rejects", self.cleared),
            ("collections of garbage", self.collected),
            ("files deleted", self.deleted),
        ];
        for (name, count) in lines {
            writeln!(f, "{name:<36}{count:>10}")?;
        }
        writeln!(f, "{:<36}{:>10}{:>12}{:>10}", "fault", "count", "of calls", "rate")?;
        for (fault, &(had, could)) in &self.faults {
            let rate = 100.0 * had as f64 / could.max(1) as f64;
            writeln!(f, "{:<36}{had:>10}{could:>12}{rate:>9.3}%", fault.words())?;
        }
        Ok(())
    }
}
