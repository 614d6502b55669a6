//! The objects of a store, and what a loss of power would leave of them.
//!
//! A disk writes names in their order and bytes in any: a name may be there whose bytes are not. What was synced stays. The
//! objects of a cloud always stay.

use std::collections::BTreeMap;

use bytes::Bytes;
use futures::{FutureExt, TryStreamExt};
use object_store::{
    ObjectStore, ObjectStoreExt, PutMode, PutOptions, PutPayload, PutResult, Result, memory::InMemory, path::Path,
};

/// The run of a worker that has written something.
pub(super) type Writer = (usize, u64);

/// The objects.
#[derive(Debug, Default)]
pub(super) struct Disk {
    objects: InMemory,
    /// Whether power can be lost.
    is_disk: bool,
    /// When each object was written.
    written: BTreeMap<Path, i64>,
    /// Changes of names that are not synced, in their order.
    names: Vec<Change>,
    /// Objects whose bytes are not synced.
    loose: BTreeMap<Path, Writer>,
}

/// What a name stood for: nothing, or bytes with their time and, if they were not synced, their writer.
type Was = Option<(Bytes, i64, Option<Writer>)>;

/// A change of names, and how to undo it.
#[derive(Debug)]
struct Change {
    by: Writer,
    undo: Vec<(Path, Was)>,
}

/// Whether a name is one that no reader knows.
fn is_staged(path: &Path) -> bool {
    path.as_ref().contains('#')
}

impl Disk {
    pub(super) fn new(is_disk: bool) -> Self {
        Self { is_disk, ..Self::default() }
    }

    pub(super) fn read(&self, path: &Path) -> Option<Bytes> {
        let read = async { self.objects.get(path).await.ok()?.bytes().await.ok() };
        read.now_or_never().flatten()
    }

    /// Returns every object's name, in order.
    pub(super) fn paths(&self) -> Vec<Path> {
        let listed = self.objects.list(None).try_collect::<Vec<_>>().now_or_never().unwrap().unwrap();
        let mut paths: Vec<Path> = listed.into_iter().map(|meta| meta.location).collect();
        paths.sort();
        paths
    }

    /// The store that has the objects.
    pub(super) fn objects(&self) -> &InMemory {
        &self.objects
    }

    /// Returns when an object was written.
    pub(super) fn written(&self, path: &Path) -> Option<i64> {
        self.written.get(path).copied()
    }

    /// Makes an object as young as one that is written now.
    pub(super) fn renew(&mut self, path: &Path, now: i64) {
        if let Some(written) = self.written.get_mut(path) {
            *written = now;
        }
    }

    fn state(&self, path: &Path) -> Was {
        let bytes = self.read(path)?;
        Some((bytes, self.written(path).unwrap_or(0), self.loose.get(path).copied()))
    }

    fn set(&mut self, path: &Path, state: Was) {
        match state {
            Some((bytes, written, loose)) => {
                self.objects.put(path, bytes.into()).now_or_never().unwrap().unwrap();
                self.written.insert(path.clone(), written);
                match loose {
                    Some(by) => self.loose.insert(path.clone(), by),
                    None => self.loose.remove(path),
                };
            }
            None => {
                let _ = self.objects.delete(path).now_or_never().unwrap();
                self.written.remove(path);
                self.loose.remove(path);
            }
        }
    }

    fn changed(&mut self, by: Writer, undo: Vec<(Path, Was)>) {
        if self.is_disk {
            self.names.push(Change { by, undo });
        }
    }

    pub(super) fn put(
        &mut self,
        path: &Path,
        payload: PutPayload,
        options: PutOptions,
        by: Writer,
        now: i64,
    ) -> Result<PutResult> {
        let was = self.state(path);
        let put = self.objects.put_opts(path, payload, options).now_or_never().expect("memory never waits")?;
        self.written.insert(path.clone(), now);
        if self.is_disk {
            self.loose.insert(path.clone(), by);
        }
        self.changed(by, vec![(path.clone(), was)]);
        Ok(put)
    }

    pub(super) fn rename(&mut self, from: &Path, to: &Path, mode: PutMode, by: Writer) -> Result<()> {
        let bytes = self.objects.get(from).now_or_never().unwrap()?.bytes().now_or_never().unwrap()?;
        let (was, moved) = (self.state(to), self.state(from));
        let options = PutOptions::from(mode);
        self.objects.put_opts(to, bytes.into(), options).now_or_never().expect("memory never waits")?;
        self.set(to, moved.clone());
        self.set(from, None);
        self.changed(by, vec![(to.clone(), was), (from.clone(), moved)]);
        Ok(())
    }

    pub(super) fn delete(&mut self, path: &Path, by: Writer) {
        let was = self.state(path);
        self.set(path, None);
        self.changed(by, vec![(path.clone(), was)]);
    }

    pub(super) fn sync_bytes(&mut self, path: &Path) {
        self.loose.remove(path);
    }

    /// Syncs a name, and with it every name before, as file systems with a journal do.
    pub(super) fn sync_names(&mut self) {
        self.names.clear();
    }

    /// Returns an object that readers can see and a loss of power can take, if `by` has written one.
    pub(super) fn unsynced(&self, by: Writer) -> Option<Path> {
        let names = self.names.iter().filter(|change| change.by == by).flat_map(|change| &change.undo);
        let names = names.map(|(path, _)| path);
        let loose = self.loose.iter().filter(|(_, writer)| **writer == by).map(|(path, _)| path);
        names.chain(loose).find(|path| !is_staged(path)).cloned()
    }

    /// Whether a loss of power can take no name that readers can see.
    pub(super) fn is_synced(&self) -> bool {
        let mut paths =
            self.names.iter().flat_map(|change| &change.undo).map(|(path, _)| path).chain(self.loose.keys());
        paths.all(is_staged)
    }

    /// Loses power: of the names that were not synced a beginning stays, of the bytes some.
    pub(super) fn lose_power(&mut self, mut draw: impl FnMut(u64) -> u64) {
        let stay = usize::try_from(draw(self.names.len() as u64 + 1)).unwrap();
        for change in self.names.split_off(stay).into_iter().rev() {
            for (path, was) in change.undo.into_iter().rev() {
                self.set(&path, was);
            }
        }
        for path in std::mem::take(&mut self.loose).into_keys() {
            if draw(2) == 0 {
                let written = self.written(&path).unwrap_or(0);
                self.set(&path, Some((Bytes::new(), written, None)));
            }
        }
        self.names.clear();
    }
}
