//! What a run may have left in the bucket.

use std::sync::{Mutex, PoisonError};

use crate::{
    model::ObjectKey,
    s3::{ObjectStore, S3Error},
};

/// Noted before it is written: a request whose answer was lost may have written all the same.
#[derive(Debug, Default)]
pub(super) struct Traces {
    keys: Mutex<Vec<ObjectKey>>,
    multiparts: Mutex<Vec<(ObjectKey, String)>>,
}

impl Traces {
    pub(super) fn key(&self, key: &ObjectKey) {
        self.keys.lock().unwrap_or_else(PoisonError::into_inner).push(key.clone());
    }

    pub(super) fn multipart(&self, key: &ObjectKey, upload_id: &str) {
        let mut multiparts = self.multiparts.lock().unwrap_or_else(PoisonError::into_inner);
        multiparts.push((key.clone(), upload_id.to_owned()));
    }

    /// Removes all of it, as far as the store lets it; gives the first thing that went wrong.
    pub(super) async fn remove(&self, store: &ObjectStore) -> Result<(), S3Error> {
        let multiparts = std::mem::take(&mut *self.multiparts.lock().unwrap_or_else(PoisonError::into_inner));
        let keys = std::mem::take(&mut *self.keys.lock().unwrap_or_else(PoisonError::into_inner));
        let mut failed = Ok(());
        for (key, upload_id) in multiparts {
            failed = failed.and(store.abort_multipart(key.as_str(), &upload_id).await.map(drop));
        }
        for key in keys {
            failed = failed.and(store.purge(&key).await.map(drop));
        }
        failed
    }
}
