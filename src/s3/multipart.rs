//! Multipart uploads that are under way in the bucket, or were left lying.

use chrono::{DateTime, Utc};

use super::{
    ObjectStore, S3Error,
    error::{GONE, unless},
    sdk::instant,
};

/// A multipart upload that is neither completed nor aborted.
#[derive(Debug, Clone)]
pub struct OpenMultipart {
    /// Key that it would write. Not an [`ObjectKey`](crate::model::ObjectKey): others may use the bucket as well.
    pub key: String,
    /// The store's id of it.
    pub upload_id: String,
    /// When it was begun, by the store's clock.
    pub initiated: DateTime<Utc>,
}

/// Where a listing of multipart uploads goes on.
#[derive(Debug, Clone)]
pub struct MultipartMarker {
    key: String,
    upload_id: Option<String>,
}

impl ObjectStore {
    /// A page of the multipart uploads in the bucket, and where the next one begins.
    ///
    /// # Errors
    /// When the store does not answer or refuses.
    pub async fn open_multiparts(
        &self,
        after: Option<MultipartMarker>,
    ) -> Result<(Vec<OpenMultipart>, Option<MultipartMarker>), S3Error> {
        const OPERATION: &str = "ListMultipartUploads";
        let (key, upload_id) = after.map_or((None, None), |marker| (Some(marker.key), marker.upload_id));
        let request = self.client().list_multipart_uploads().bucket(self.bucket());
        let request = request.set_key_marker(key).set_upload_id_marker(upload_id);
        let page = self.on_main(OPERATION, request.send()).await?;
        let page = page.map_err(|error| S3Error::from_sdk(OPERATION, &error))?;
        let uploads = page.uploads().iter().filter_map(|upload| {
            Some(OpenMultipart {
                key: upload.key()?.to_owned(),
                upload_id: upload.upload_id()?.to_owned(),
                initiated: instant(upload.initiated()?)?,
            })
        });
        let next = page.next_key_marker().filter(|key| page.is_truncated() == Some(true) && !key.is_empty());
        let next = next.map(|key| MultipartMarker {
            key: key.to_owned(),
            upload_id: page.next_upload_id_marker().filter(|id| !id.is_empty()).map(str::to_owned),
        });
        Ok((uploads.collect(), next))
    }

    /// Gives up a multipart upload and frees its parts; that there is none is success.
    ///
    /// # Errors
    /// When the store does not answer or refuses.
    pub async fn abort_multipart(&self, key: &str, upload_id: &str) -> Result<(), S3Error> {
        const OPERATION: &str = "AbortMultipartUpload";
        let request = self.client().abort_multipart_upload().bucket(self.bucket()).key(key).upload_id(upload_id);
        unless(GONE, OPERATION, self.on_main(OPERATION, request.send()).await?)?;
        Ok(())
    }
}
