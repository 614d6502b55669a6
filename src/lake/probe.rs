//! Looks whether a store creates an object only if it is absent. All commits depend on it, and a server that does not know
//! the condition ignores it silently.

use object_store::{Error, ObjectStoreExt, PutMode, PutOptions};

use super::{Lake, error::LakeError};
use crate::{error::Result, storage::simulated::chance};

/// Attempts, if the response of the store was lost.
const MAX_ATTEMPTS: u32 = 3;

impl Lake {
    /// Creates one object twice, which must fail, unless the pipeline has a table: then it was done before. The local file
    /// system is known to create files only if they are absent.
    pub(super) async fn probe(&self) -> Result<()> {
        let is_local = matches!(self.location.url.scheme(), "file" | "memory");
        if is_local || !self.location.list_folder("").await?.folders.is_empty() {
            return Ok(());
        }
        let failed = |source| LakeError::Probe { url: self.location.url.to_string(), source };
        let mut attempt = 1;
        let is_conditional = loop {
            match self.creates_once().await {
                Err(Error::Generic { .. }) if attempt < MAX_ATTEMPTS => attempt += 1,
                probed => break probed.map_err(failed)?,
            }
        };
        match is_conditional {
            true => Ok(()),
            false => Err(LakeError::Unconditional { url: self.location.url.to_string() }.into()),
        }
    }

    /// Returns whether the store refuses to create an object a second time. Workers probe at the same time, so each uses
    /// another name.
    async fn creates_once(&self) -> object_store::Result<bool> {
        let (store, path) = (&self.location.store, self.location.path(&format!("_probe-{:016x}", arbitrary())));
        let create = || store.put_opts(&path, "probe".into(), PutOptions::from(PutMode::Create));
        let mut created = create().await.map(drop);
        if created.is_ok() {
            created = create().await.map(drop);
        }
        // What a lost response has left is small and harmless.
        let _ = store.delete(&path).await;
        match created {
            Ok(()) => Ok(false),
            Err(Error::AlreadyExists { .. }) => Ok(true),
            Err(error) => Err(error),
        }
    }
}

/// Returns a number that no other process returns. It only names an object that is deleted again.
pub(super) fn arbitrary() -> u64 {
    chance(())
}
