//! Removing objects for good, with all their versions where the bucket is versioned.

use aws_sdk_s3::types::BucketVersioningStatus;

use super::{ObjectStore, S3Error, error::status};
use crate::model::ObjectKey;

/// Pages of versions of one key. More than anybody makes; a store that lists what it has deleted must not keep us for ever.
const MOST_PAGES: usize = 100;

impl ObjectStore {
    /// Whether anything lies under `key`; with a `version`, whether that does. What cannot be seen without a key of
    /// whoever wrote it is there.
    ///
    /// # Errors
    /// When the store does not answer or refuses.
    pub async fn exists(&self, key: &ObjectKey, version: Option<&str>) -> Result<bool, S3Error> {
        const OPERATION: &str = "HeadObject";
        let request = self.client().head_object().bucket(self.bucket()).key(key.as_str());
        let request = request.set_version_id(version.map(str::to_owned));
        match self.on_main(OPERATION, request.send()).await? {
            Ok(_) => Ok(true),
            Err(error) if status(&error) == Some(404) => Ok(false),
            Err(error) if status(&error) == Some(400) && self.needs_key(key, version).await? => Ok(true),
            Err(error) => Err(S3Error::from_sdk(OPERATION, &error)),
        }
    }

    /// Removes what lies under `key`, every version of it. `false` when there was nothing.
    ///
    /// # Errors
    /// When the store does not answer or refuses.
    pub async fn purge(&self, key: &ObjectKey) -> Result<bool, S3Error> {
        if self.is_versioned().await? {
            return self.purge_versions(key).await;
        }
        // Most uploads that expire were never begun: looking costs what deleting would, and tells which it was.
        let exists = self.exists(key, None).await?;
        if exists {
            self.delete(key).await?;
        }
        Ok(exists)
    }

    /// Whether the bucket keeps versions. Asked once: a bucket that becomes versioned later is known after a restart.
    async fn is_versioned(&self) -> Result<bool, S3Error> {
        const OPERATION: &str = "GetBucketVersioning";
        let ask = async || {
            let request = self.client().get_bucket_versioning().bucket(self.bucket());
            match self.on_main(OPERATION, request.send()).await? {
                // Suspended ones keep what they had.
                Ok(answer) => Ok(matches!(
                    answer.status(),
                    Some(BucketVersioningStatus::Enabled | BucketVersioningStatus::Suspended)
                )),
                Err(error) => match status(&error) {
                    // A store that knows no versions.
                    Some(405 | 501) => Ok(false),
                    Some(403) => {
                        log::warn!("{OPERATION} is not allowed: if the bucket is versioned, versions stay behind");
                        Ok(false)
                    }
                    _ => Err(S3Error::from_sdk(OPERATION, &error)),
                },
            }
        };
        self.versioned().get_or_try_init(ask).await.copied()
    }

    /// Every version by its id: deleting without one would only hide them.
    async fn purge_versions(&self, key: &ObjectKey) -> Result<bool, S3Error> {
        const OPERATION: &str = "ListObjectVersions";
        let mut found = false;
        for _ in 0..MOST_PAGES {
            let request = self.client().list_object_versions().bucket(self.bucket()).prefix(key.as_str());
            let page = self.on_main(OPERATION, request.send()).await?;
            let page = page.map_err(|error| S3Error::from_sdk(OPERATION, &error))?;
            let versions = page.versions().iter().map(|version| (version.key(), version.version_id(), true));
            let markers = page.delete_markers().iter().map(|marker| (marker.key(), marker.version_id(), false));
            // The prefix is that of longer keys as well.
            let mine = versions.chain(markers).filter(|(of, ..)| *of == Some(key.as_str()));
            let mut deleted = false;
            for (_, version, holds_bytes) in mine {
                self.delete_version(key, Some(version.unwrap_or("null"))).await?;
                deleted = true;
                found |= holds_bytes;
            }
            // A key comes before those that it is a prefix of.
            if !deleted || page.is_truncated() != Some(true) {
                return Ok(found);
            }
        }
        Err(S3Error::Refused { operation: OPERATION, reason: "deleted versions are still listed".to_owned() })
    }
}
