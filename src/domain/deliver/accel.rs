//! Files that the web server in front of this service hands out.
//!
//! Whatever it is told is made here, of the upload's row and the settings. Nothing that a client sends has a part in it.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use aws_lc_rs::digest;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

use super::{FileFacts, Permit};
use crate::{
    config::{DeliveryConfig, delivery::AccelServer},
    db::UploadIntent,
    domain::{DomainError, Service, url_end},
    model::{ClientNetwork, ETag},
    s3::Access,
    signing::{Method, PresignRequest, PresignedUrl},
};

/// What Apache and lighttpd decode again.
const ENCODED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'/').remove(b'-').remove(b'_').remove(b'.').remove(b'~');

/// The life of a URL for nginx, which uses it at once, or a moment later when a connection has to be made anew.
const URL_LIFE: Duration = Duration::from_mins(1);

/// The web server, as the settings describe it.
#[derive(Debug, Clone)]
pub enum Accel {
    /// nginx, in front of the store.
    Nginx {
        /// Its internal location.
        prefix: String,
        /// Where it reaches the store from.
        network: Option<ClientNetwork>,
    },
    /// Apache, with the bucket as a folder.
    Apache(PathBuf),
    /// lighttpd, with the bucket as a folder.
    Lighttpd(PathBuf),
}

/// A file that the web server hands out.
#[derive(Debug)]
pub struct AcceleratedFile {
    /// What to say about it.
    pub facts: FileFacts,
    /// Where the web server finds it.
    pub place: AccelPlace,
}

/// Where the web server finds a file.
#[derive(Debug)]
pub enum AccelPlace {
    /// At a URL, which nginx reads in its location `path`.
    Nginx {
        /// The location with the upload and its version: the same for the same bytes, for ever.
        path: String,
        /// Good for this one request, wherever nginx is.
        url: PresignedUrl,
    },
    /// At a path, which Apache decodes.
    Apache(String),
    /// At a path, which lighttpd decodes.
    Lighttpd(String),
}

impl Accel {
    /// What `config` describes; none where it names no web server.
    pub fn new(config: &DeliveryConfig) -> Option<Self> {
        let root = config.accel_root.clone().unwrap_or_default();
        Some(match config.accel? {
            AccelServer::Nginx => Self::Nginx {
                prefix: config.accel_prefix.clone(),
                network: config.accel_network.as_ref().and_then(|network| network.parse().ok()),
            },
            AccelServer::Apache => Self::Apache(root),
            AccelServer::Lighttpd => Self::Lighttpd(root),
        })
    }
}

impl Service {
    pub(super) async fn accelerated(
        &self,
        permit: &Permit,
        facts: FileFacts,
        method: Method,
    ) -> Result<AcceleratedFile, DomainError> {
        let upload = &permit.upload;
        let place = match self.accel.as_ref().ok_or(DomainError::NoAccel)? {
            Accel::Nginx { prefix, network } => AccelPlace::Nginx {
                path: format!("{prefix}{}/{}", upload.id, version(upload, &facts.etag)),
                url: self.url_for_nginx(upload, *network, method).await?,
            },
            Accel::Apache(root) => AccelPlace::Apache(path_below(root, upload)),
            Accel::Lighttpd(root) => AccelPlace::Lighttpd(path_below(root, upload)),
        };
        Ok(AcceleratedFile { facts, place })
    }

    /// Signed for nginx and not for the client, whose network is not where this URL is used from. What the client is to
    /// be told is not in it, so that the bytes can be kept for everybody.
    async fn url_for_nginx(
        &self,
        upload: &UploadIntent,
        network: Option<ClientNetwork>,
        method: Method,
    ) -> Result<PresignedUrl, DomainError> {
        let signer = self.sessions.signer(network, Access::Download, URL_LIFE).await?;
        let query = upload.version_id.iter().map(|version| ("versionId".into(), version.as_str().into())).collect();
        let request = PresignRequest { method, key: upload.verified_key(), query, headers: Vec::new() };
        let now = self.clock.now();
        let (life, _) = url_end(now, URL_LIFE, &signer);
        Ok(signer.presign(&request, now, life)?)
    }
}

/// Names the confirmed bytes: what a cache may keep them under.
fn version(upload: &UploadIntent, etag: &ETag) -> String {
    let version_id = upload.version_id.as_deref().unwrap_or_default();
    let mut digested = digest::Context::new(&digest::SHA256);
    // No part can hold a line break.
    for part in [upload.verified_key().as_str(), etag.as_str(), version_id] {
        digested.update(part.as_bytes());
        digested.update(b"\n");
    }
    let mut name = hex::encode(digested.finish());
    name.truncate(32);
    name
}

/// Keys have no empty, `.` or `..` segments and begin with no slash, so this is always below `root`.
fn path_below(root: &Path, upload: &UploadIntent) -> String {
    let path = root.join(upload.verified_key().as_str());
    utf8_percent_encode(&path.to_string_lossy(), ENCODED).to_string()
}
