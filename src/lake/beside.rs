//! Files of a lake that are no tables: the contact sheet.

use object_store::ObjectStoreExt;

use super::Lake;
use crate::error::Result;

impl Lake {
    /// Writes a file beside the tables, replacing what is there.
    ///
    /// # Errors
    /// Where the store refuses it.
    pub async fn put_beside(&self, name: &str, bytes: Vec<u8>) -> Result<()> {
        let written = self.place.store.put(&self.place.path(name), bytes.into()).await;
        written.map(drop).map_err(self.fail(name, "the file cannot be written; is the lake writable?"))
    }

    /// Whether a file is beside the tables.
    ///
    /// # Errors
    /// Where the store cannot say.
    pub async fn is_beside(&self, name: &str) -> Result<bool> {
        match self.place.store.head(&self.place.path(name)).await {
            Ok(_) => Ok(true),
            Err(object_store::Error::NotFound { .. }) => Ok(false),
            Err(error) => Err(self.fail(name, "the file cannot be looked for")(error)),
        }
    }
}
