//! Registers the log store of Delta tables in clouds.

use std::sync::Arc;

use deltalake_core::{
    DeltaResult,
    logstore::{LogStore, LogStoreFactory, ObjectStoreRef, StorageConfig, default_logstore, logstore_factories},
};
use url::Url;

/// Delta's default log store, which creates each log entry only if it is absent. The library registers it only for `file`
/// and `memory`; its packages for clouds bring the clouds' SDKs.
#[derive(Debug)]
struct ConditionalPut;

impl LogStoreFactory for ConditionalPut {
    fn with_options(
        &self,
        prefixed_store: ObjectStoreRef,
        root_store: ObjectStoreRef,
        location: &Url,
        options: &StorageConfig,
    ) -> DeltaResult<Arc<dyn LogStore>> {
        Ok(default_logstore(prefixed_store, root_store, location, options))
    }
}

/// Registers the log store for the URLs of clouds.
pub(super) fn register() {
    for scheme in ["s3://", "gs://", "az://"].into_iter().filter_map(|scheme| Url::parse(scheme).ok()) {
        logstore_factories().insert(scheme, Arc::new(ConditionalPut));
    }
}
