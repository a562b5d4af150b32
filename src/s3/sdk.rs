//! The AWS SDK's clients, set up once.

use aws_config::{BehaviorVersion, Region, SdkConfig, retry::RetryConfig, timeout::TimeoutConfig};
use aws_sdk_s3::config::{
    Credentials, RequestChecksumCalculation, ResponseChecksumValidation, SharedCredentialsProvider,
};
use chrono::{DateTime, Utc};
use secrecy::ExposeSecret as _;

use super::small_reads;
use crate::config::{S3Config, s3::Addressing};

/// An instant as the rest of the service has it.
pub(super) fn instant(at: &aws_sdk_s3::primitives::DateTime) -> Option<DateTime<Utc>> {
    DateTime::from_timestamp(at.secs(), at.subsec_nanos())
}

/// Clients for the store and its STS, with the service's own credentials.
#[derive(Clone)]
pub struct Sdk {
    pub(super) s3: aws_sdk_s3::Client,
    /// For what clients download, with small buffers.
    pub(super) downloads: aws_sdk_s3::Client,
    pub(super) sts: aws_sdk_sts::Client,
    pub(super) credentials: Option<SharedCredentialsProvider>,
    pub(super) declares_part_checksums: bool,
}

impl std::fmt::Debug for Sdk {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Sdk").finish_non_exhaustive()
    }
}

impl Sdk {
    /// Clients for `config`; without an access key there, credentials come from the AWS default chain.
    pub async fn from_config(config: &S3Config) -> Self {
        let mut loader = aws_config::defaults(BehaviorVersion::latest())
            .region(Region::new(config.region.clone()))
            .retry_config(RetryConfig::standard().with_max_attempts(3))
            .timeout_config(
                TimeoutConfig::builder()
                    .connect_timeout(config.request_timeout)
                    .operation_attempt_timeout(config.request_timeout)
                    .operation_timeout(config.request_timeout * 3)
                    .build(),
            );
        if let (Some(id), Some(secret)) = (&config.access_key_id, &config.secret_access_key) {
            let credentials = Credentials::new(id, secret.expose_secret(), None, None, "presignd.toml");
            loader = loader.credentials_provider(credentials);
        }
        let shared = loader.load().await;
        Self {
            s3: aws_sdk_s3::Client::from_conf(s3_config(&shared, config).build()),
            downloads: downloads_client(&shared, config),
            sts: sts_client(&shared, config),
            credentials: shared.credentials_provider(),
            declares_part_checksums: config.declare_part_checksums,
        }
    }
}

fn downloads_client(shared: &SdkConfig, config: &S3Config) -> aws_sdk_s3::Client {
    let builder = s3_config(shared, config);
    let builder = match small_reads::http_client(config.request_timeout) {
        Ok(client) => builder.http_client(client),
        Err(error) => {
            log::warn!("streams take more memory than they need, because certificates cannot be read: {error}");
            builder
        }
    };
    aws_sdk_s3::Client::from_conf(builder.build())
}

fn s3_config(shared: &SdkConfig, config: &S3Config) -> aws_sdk_s3::config::Builder {
    let mut builder = aws_sdk_s3::config::Builder::from(shared)
        .force_path_style(config.addressing == Addressing::Path)
        // Stores other than AWS stumble over checksums that nobody asked for.
        .request_checksum_calculation(RequestChecksumCalculation::WhenRequired)
        .response_checksum_validation(ResponseChecksumValidation::WhenRequired);
    if let Some(endpoint) = &config.endpoint {
        builder = builder.endpoint_url(endpoint);
    }
    builder
}

fn sts_client(shared: &SdkConfig, config: &S3Config) -> aws_sdk_sts::Client {
    let mut builder = aws_sdk_sts::config::Builder::from(shared);
    let endpoint = config.sts.as_ref().and_then(|sts| sts.endpoint.as_ref()).or(config.endpoint.as_ref());
    if let Some(endpoint) = endpoint {
        builder = builder.endpoint_url(endpoint);
    }
    aws_sdk_sts::Client::from_conf(builder.build())
}
