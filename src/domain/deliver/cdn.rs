//! Files that a content delivery network hands out.

use super::Permit;
use crate::{
    domain::{DomainError, Service, content_disposition},
    model::ClientNetwork,
    signing::{PresignedUrl, cloudfront::CloudFront},
};

impl Service {
    /// The distribution, if it can hold a client to `network`. Asked before anything is recorded.
    pub(in crate::domain) fn cdn_for(&self, network: Option<ClientNetwork>) -> Result<&CloudFront, DomainError> {
        if network.is_some_and(|network| !network.is_ipv4()) {
            return Err(DomainError::Ipv4Required);
        }
        self.cdn.as_deref().ok_or(DomainError::NoCdn)
    }

    pub(super) fn signed_for_cdn(&self, permit: &Permit) -> Result<PresignedUrl, DomainError> {
        let Permit { intent, upload, .. } = permit;
        let name = permit.file_name.as_ref().unwrap_or(&upload.original_file_name);
        let disposition = content_disposition(permit.disposition, name);
        let mut query = vec![
            ("response-content-disposition", disposition.as_str()),
            ("response-content-type", upload.content_type.as_str()),
        ];
        query.extend(upload.version_id.as_deref().map(|version| ("versionId", version)));
        let cdn = self.cdn_for(intent.client_network)?;
        Ok(cdn.presign(upload.verified_key(), &query, intent.client_network, permit.from, permit.life())?)
    }
}
