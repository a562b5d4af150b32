//! What lies in the bucket.

use std::future::Future;

use chrono::{DateTime, Utc};

use super::{ObjectStore, S3Error, sdk::instant};
use crate::model::ETag;

/// An object as a listing shows it.
#[derive(Debug, Clone)]
pub struct ListedObject {
    /// Its key. Not an [`ObjectKey`](crate::model::ObjectKey): others may use the bucket as well.
    pub key: String,
    /// Entity tag, if it is one.
    pub etag: Option<ETag>,
    /// When it was written, by the store's clock.
    pub last_modified: Option<DateTime<Utc>>,
}

/// A part of a listing, in the order of keys.
#[derive(Debug, Clone, Default)]
pub struct ListedPage {
    /// At most 1,000 objects.
    pub objects: Vec<ListedObject>,
    /// Whether nothing comes after it.
    pub is_last: bool,
}

/// Whoever can say what is in a bucket, page by page.
pub trait Listing {
    /// The page of objects whose keys come after `after`, or the first. A key, and not a token of the store, because a
    /// key is still good after days.
    ///
    /// # Errors
    /// When the store does not answer or refuses.
    fn page(&self, after: Option<&str>) -> impl Future<Output = Result<ListedPage, S3Error>> + Send;
}

impl Listing for ObjectStore {
    async fn page(&self, after: Option<&str>) -> Result<ListedPage, S3Error> {
        const OPERATION: &str = "ListObjectsV2";
        let request = self.client().list_objects_v2().bucket(self.bucket()).set_start_after(after.map(str::to_owned));
        let page = self.on_main(OPERATION, request.send()).await?;
        let page = page.map_err(|error| S3Error::from_sdk(OPERATION, &error))?;
        let objects = page.contents().iter().filter_map(|object| {
            Some(ListedObject {
                key: object.key()?.to_owned(),
                etag: object.e_tag().and_then(|etag| ETag::parse(etag).ok()),
                last_modified: object.last_modified().and_then(instant),
            })
        });
        Ok(ListedPage { objects: objects.collect(), is_last: page.is_truncated() != Some(true) })
    }
}
