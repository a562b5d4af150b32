//! The ways of handing out a file, and what is to be said about it.

use std::{sync::Arc, time::Duration};

use chrono::{DateTime, Utc};

use super::{AcceleratedFile, Permit};
use crate::{
    domain::{DomainError, Service, content_disposition, disposition::is_active, url_end},
    model::{ContentType, Delivery, ETag},
    s3::{Access, PinnedObject, ReadPlace},
    signing::{Method, PresignRequest, PresignedUrl},
};

/// By which means a client gets the bytes.
#[derive(Debug)]
pub enum HandOver {
    /// A URL to tell the client.
    Url(PresignedUrl),
    /// A URL to send the client to.
    Redirect(PresignedUrl),
    /// An object to be read for the client.
    Stream(Box<StreamedFile>),
    /// A URL of the content delivery network to send the client to, or to tell it.
    Cdn(PresignedUrl),
    /// A place that the web server in front of this service knows.
    Accel(Box<AcceleratedFile>),
}

/// What there is to say about a file.
#[derive(Debug, Clone)]
pub struct FileFacts {
    /// Value of `Content-Disposition`.
    pub content_disposition: String,
    /// Its media type.
    pub content_type: ContentType,
    /// Whether a browser that shows it would run what is in it.
    pub is_active: bool,
    /// Size in bytes.
    pub size: u64,
    /// The confirmed tag, a strong one.
    pub etag: ETag,
    /// When it was confirmed: it has not changed since.
    pub last_modified: DateTime<Utc>,
}

/// A file that passes through this process.
#[derive(Debug)]
pub struct StreamedFile {
    /// What to say about it.
    pub facts: FileFacts,
    /// What to read.
    pub object: PinnedObject,
    /// The place to read it at, where one was kept.
    pub place: Option<Arc<ReadPlace>>,
}

impl Permit {
    /// How long what is signed for it lives.
    pub(super) fn life(&self) -> Duration {
        let left = (self.until - self.from).to_std().unwrap_or_default();
        // Up to a second is lost to the cut of `from`, which the signature makes as well.
        Duration::from_secs(left.as_secs() + u64::from(left.subsec_nanos() > 0))
    }

    fn facts(&self) -> Result<FileFacts, DomainError> {
        let upload = &self.upload;
        let name = self.file_name.as_ref().unwrap_or(&upload.original_file_name);
        Ok(FileFacts {
            content_disposition: content_disposition(self.disposition, name),
            content_type: upload.content_type.clone(),
            is_active: is_active(&upload.content_type),
            size: upload.file_size.bytes(),
            // Confirming sets it, so only a row that somebody edited lacks it.
            etag: upload.etag.clone().ok_or(DomainError::NotConfirmed(upload.state))?,
            last_modified: upload.settled_at.unwrap_or(upload.created_at),
        })
    }
}

impl Service {
    /// Hands out what `permit` allows. A URL is signed for requests of `method`, because a store answers no other with
    /// it.
    ///
    /// # Errors
    /// When no credentials are to be had that sign for the network of the intent.
    pub async fn hand_out(&self, permit: &Permit, method: Method) -> Result<HandOver, DomainError> {
        Ok(match permit.intent.delivery {
            Delivery::Url => HandOver::Url(self.presigned(permit, Method::Get).await?),
            Delivery::Redirect => HandOver::Redirect(self.presigned(permit, method).await?),
            Delivery::Stream => {
                let facts = permit.facts()?;
                let object = PinnedObject {
                    key: permit.upload.verified_key().clone(),
                    etag: facts.etag.clone(),
                    version_id: permit.upload.version_id.clone(),
                    size: facts.size,
                };
                HandOver::Stream(Box::new(StreamedFile { facts, object, place: permit.place.clone() }))
            }
            Delivery::Cdn => HandOver::Cdn(self.signed_for_cdn(permit)?),
            Delivery::Accel => HandOver::Accel(Box::new(self.accelerated(permit, permit.facts()?, method).await?)),
        })
    }

    async fn presigned(&self, permit: &Permit, method: Method) -> Result<PresignedUrl, DomainError> {
        let Permit { intent, upload, .. } = permit;
        let longest = self.policies.current().longest_expiry();
        // For the few seconds that it lives, where the store can bind it to no network and this service has looked.
        let network = intent.client_network.filter(|_| permit.uses.is_none() || self.sessions.can_scope());
        let signer = self.sessions.signer(network, Access::Download, longest).await?;
        let (life, _) = url_end(permit.from, permit.life(), &signer);
        let name = permit.file_name.as_ref().unwrap_or(&upload.original_file_name);
        let mut query = vec![
            ("response-cache-control".into(), "private".into()),
            ("response-content-disposition".into(), content_disposition(permit.disposition, name).into()),
            ("response-content-type".into(), upload.content_type.as_str().into()),
        ];
        if let Some(version) = &upload.version_id {
            query.push(("versionId".into(), version.as_str().into()));
        }
        let request = PresignRequest { method, key: upload.verified_key(), query, headers: Vec::new() };
        Ok(signer.presign(&request, permit.from, life)?)
    }
}
