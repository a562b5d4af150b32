//! Messages of Amazon SNS, and whether it was SNS that wrote them.
//!
//! SNS signs every message with a key whose certificate it serves itself:
//! <https://docs.aws.amazon.com/sns/latest/dg/sns-verify-signature-of-message.html>. Whoever sends a message chooses what
//! stands in it, the address of the certificate included, so that address is only followed to the one host that serves
//! the region of a configured topic.

use std::{fmt, path::PathBuf, sync::Arc, time::Duration};

use aws_lc_rs::signature::{
    RSA_PKCS1_2048_8192_SHA1_FOR_LEGACY_USE_ONLY, RSA_PKCS1_2048_8192_SHA256, RsaParameters, UnparsedPublicKey,
};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use chrono::{DateTime, TimeDelta, Utc};
use moka::future::Cache;
use reqwest::{Client, StatusCode, Url};
use rustls::pki_types::{CertificateDer, pem::PemObject as _};
use serde::Deserialize;
use tokio::{runtime::Handle, sync::Semaphore};
use x509_cert::{
    Certificate,
    der::{Decode as _, oid::ObjectIdentifier},
};

use crate::{
    clock::Clock,
    config::events::{SnsConfig, TopicArn},
    outgoing,
};

/// The most bytes of a message that are read: 256 KiB of text, which JSON may escape.
pub const MAX_MESSAGE_BYTES: usize = 1 << 20;

/// How old a message may be: SNS tries again for up to an hour.
const MAX_AGE: TimeDelta = TimeDelta::hours(1);

/// How far ahead of this machine's clock SNS's may be.
const MAX_LEAD: TimeDelta = TimeDelta::minutes(5);

/// A certificate has 2 KiB, a confirmation less.
const MAX_ANSWER_BYTES: usize = 64 * 1024;

/// From connecting to the last byte.
const TIME_LIMIT: Duration = Duration::from_secs(5);

/// How long a certificate is used without asking whether it is still served.
const CERTIFICATE_LIFE: Duration = Duration::from_hours(24);

/// Certificates kept. SNS has one for each region, and replaces it every few months.
const MAX_CERTIFICATES: u64 = 16;

/// Requests to SNS at the same time. Forged messages can name as many certificates as they like.
const REQUESTS_AT_ONCE: usize = 2;

/// `rsaEncryption` (RFC 8017, appendix C).
const RSA_ENCRYPTION: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.1");

/// Why a message is not taken. No variant holds any part of it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SnsError {
    /// It is not JSON, or lacks what every message has.
    #[error("the body is not a message of Amazon SNS")]
    Malformed,
    /// Its type is none of the three.
    #[error("the message's type is not known")]
    UnknownType,
    /// Its topic is not among those configured.
    #[error("the message's topic is not listed in events.sns.topics")]
    TopicNotAllowed,
    /// It is too old, from the future, or says no time.
    #[error("the message is too old, or not yet written")]
    OutOfTime,
    /// It names a certificate or a page that the topic's region does not serve.
    #[error("the message names a URL that is not of its region's SNS")]
    ForeignUrl,
    /// Its signature version is neither 1 nor 2.
    #[error("the message's signature version is not known")]
    UnknownSignatureVersion,
    /// The certificate is not one of an RSA key, or not valid now.
    #[error("the message's certificate is not usable now")]
    CertificateUnusable,
    /// The signature does not match.
    #[error("the message's signature does not match")]
    SignatureInvalid,
    /// SNS does not answer.
    #[error("Amazon SNS cannot be asked now: {0}")]
    Unavailable(String),
}

/// Why messages cannot be verified at all.
#[derive(Debug, thiserror::Error)]
pub enum SnsSetupError {
    /// The certificate cannot be read.
    #[error("cannot read {}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// The file is not a certificate of an RSA key.
    #[error("{} must hold the PEM certificate of an RSA key", .0.display())]
    UnusableCertificate(PathBuf),
    /// The HTTP client cannot be built.
    #[error("cannot set up the HTTP client that asks Amazon SNS")]
    HttpClient(#[source] reqwest::Error),
}

/// A message that SNS wrote.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SnsMessage {
    /// What was published to the topic.
    Notification(String),
    /// Somebody subscribed this endpoint to the topic; visiting the URL accepts that.
    Subscription(SubscribeUrl),
    /// The endpoint was unsubscribed.
    Unsubscribed,
}

/// Where a subscription is accepted. Whoever knows it can accept, so it never shows in a log.
#[derive(Clone, PartialEq, Eq)]
pub struct SubscribeUrl(Url);

impl fmt::Debug for SubscribeUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("SubscribeUrl").field(&self.0.host_str()).finish_non_exhaustive()
    }
}

/// Verifies messages. Cheap to clone.
#[derive(Debug, Clone)]
pub struct SnsVerifier {
    topics: Arc<[TopicArn]>,
    certificates: Certificates,
    sns: Sns,
    clock: Clock,
}

#[derive(Debug, Clone)]
enum Certificates {
    Pinned(Arc<SigningCertificate>),
    Fetched(Cache<String, Arc<SigningCertificate>>),
}

/// The HTTP side of SNS.
#[derive(Debug, Clone)]
struct Sns {
    client: Client,
    requests: Arc<Semaphore>,
    runtime: Handle,
}

/// What is needed of a certificate.
#[derive(Debug, PartialEq, Eq)]
struct SigningCertificate {
    /// `RSAPublicKey` (RFC 8017), DER.
    key: Vec<u8>,
    not_before: DateTime<Utc>,
    not_after: DateTime<Utc>,
}

/// A message as it travels: <https://docs.aws.amazon.com/sns/latest/dg/sns-message-and-json-formats.html>.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Envelope {
    r#type: String,
    message: String,
    message_id: String,
    subject: Option<String>,
    #[serde(rename = "SubscribeURL")]
    subscribe_url: Option<String>,
    timestamp: String,
    token: Option<String>,
    topic_arn: String,
    signature: String,
    signature_version: String,
    #[serde(rename = "SigningCertURL")]
    signing_cert_url: String,
}

impl SnsVerifier {
    /// For messages of the topics in `config`.
    ///
    /// # Errors
    /// When the pinned certificate cannot be used.
    pub fn from_config(config: &SnsConfig, clock: Clock, runtime: Handle) -> Result<Self, SnsSetupError> {
        let certificates = match &config.certificate_file {
            None => Certificates::Fetched(
                Cache::builder().max_capacity(MAX_CERTIFICATES).time_to_live(CERTIFICATE_LIFE).build(),
            ),
            Some(path) => {
                let pem = std::fs::read(path).map_err(|source| SnsSetupError::Read { path: path.clone(), source })?;
                let certificate = SigningCertificate::from_pem(&pem);
                Certificates::Pinned(Arc::new(
                    certificate.ok_or_else(|| SnsSetupError::UnusableCertificate(path.clone()))?,
                ))
            }
        };
        let client = outgoing::client(TIME_LIMIT).https_only(true).build().map_err(SnsSetupError::HttpClient)?;
        let sns = Sns { client, requests: Arc::new(Semaphore::new(REQUESTS_AT_ONCE)), runtime };
        Ok(Self { topics: config.topics.clone().into(), certificates, sns, clock })
    }

    /// Reads `body`, if it is a message that SNS signed for one of the topics within the last hour.
    ///
    /// # Errors
    /// Says which check failed, or that the certificate cannot be had now.
    pub async fn verify(&self, body: &[u8]) -> Result<SnsMessage, SnsError> {
        let envelope: Envelope = serde_json::from_slice(body).map_err(|_| SnsError::Malformed)?;
        let topic = self.topics.iter().find(|topic| topic.as_str() == envelope.topic_arn);
        let host = topic.ok_or(SnsError::TopicNotAllowed)?.sns_host();
        let now = self.clock.now();
        let written = DateTime::parse_from_rfc3339(&envelope.timestamp).map_err(|_| SnsError::OutOfTime)?.to_utc();
        if written < now - MAX_AGE || written > now + MAX_LEAD {
            return Err(SnsError::OutOfTime);
        }
        let algorithm = match envelope.signature_version.as_str() {
            "1" => &RSA_PKCS1_2048_8192_SHA1_FOR_LEGACY_USE_ONLY,
            "2" => &RSA_PKCS1_2048_8192_SHA256,
            _ => return Err(SnsError::UnknownSignatureVersion),
        };
        let signed = envelope.string_to_sign()?;
        let signature = STANDARD.decode(&envelope.signature).map_err(|_| SnsError::SignatureInvalid)?;
        let certificate_url = certificate_url(&envelope.signing_cert_url, &host)?;
        let certificate = match &self.certificates {
            Certificates::Pinned(certificate) => Arc::clone(certificate),
            Certificates::Fetched(cache) => self.sns.certificate(cache, certificate_url).await?,
        };
        if now < certificate.not_before || now > certificate.not_after {
            return Err(SnsError::CertificateUnusable);
        }
        certificate.verify(algorithm, signed.as_bytes(), &signature)?;
        match envelope.subscribe_url {
            // After the signature: nobody but SNS has this service visit anything.
            Some(url) if envelope.r#type == SUBSCRIPTION => Ok(SnsMessage::Subscription(subscribe_url(&url, &host)?)),
            _ if envelope.r#type == NOTIFICATION => Ok(SnsMessage::Notification(envelope.message)),
            _ => Ok(SnsMessage::Unsubscribed),
        }
    }

    /// Accepts a subscription.
    ///
    /// # Errors
    /// When SNS does not answer, or refuses.
    pub async fn subscribe(&self, url: SubscribeUrl) -> Result<(), SnsError> {
        self.sns.get(url.0).await.map(drop)
    }
}

const NOTIFICATION: &str = "Notification";
const SUBSCRIPTION: &str = "SubscriptionConfirmation";
const UNSUBSCRIPTION: &str = "UnsubscribeConfirmation";

impl Envelope {
    /// What SNS signs: names and values in alphabetical order, each followed by a line end, of those fields that a
    /// message of this type has.
    fn string_to_sign(&self) -> Result<String, SnsError> {
        let fields = match self.r#type.as_str() {
            NOTIFICATION => [
                ("Message", Some(&self.message)),
                ("MessageId", Some(&self.message_id)),
                ("Subject", self.subject.as_ref()),
                ("SubscribeURL", None),
                ("Timestamp", Some(&self.timestamp)),
                ("Token", None),
                ("TopicArn", Some(&self.topic_arn)),
                ("Type", Some(&self.r#type)),
            ],
            SUBSCRIPTION | UNSUBSCRIPTION => [
                ("Message", Some(&self.message)),
                ("MessageId", Some(&self.message_id)),
                ("Subject", None),
                ("SubscribeURL", Some(self.subscribe_url.as_ref().ok_or(SnsError::Malformed)?)),
                ("Timestamp", Some(&self.timestamp)),
                ("Token", Some(self.token.as_ref().ok_or(SnsError::Malformed)?)),
                ("TopicArn", Some(&self.topic_arn)),
                ("Type", Some(&self.r#type)),
            ],
            _ => return Err(SnsError::UnknownType),
        };
        let mut signed = String::with_capacity(self.message.len() + 512);
        for (name, value) in fields {
            if let Some(value) = value {
                signed.extend([name, "\n", value, "\n"]);
            }
        }
        Ok(signed)
    }
}

impl Sns {
    /// The certificate at `url`, fetched once whoever asks.
    async fn certificate(
        &self,
        cache: &Cache<String, Arc<SigningCertificate>>,
        url: Url,
    ) -> Result<Arc<SigningCertificate>, SnsError> {
        let fetch = async {
            let pem = self.get(url.clone()).await?;
            SigningCertificate::from_pem(&pem).map(Arc::new).ok_or(SnsError::CertificateUnusable)
        };
        cache.try_get_with(url.to_string(), fetch).await.map_err(|error: Arc<SnsError>| (*error).clone())
    }

    /// On the main runtime, as every connection that may outlive a request.
    async fn get(&self, url: Url) -> Result<Vec<u8>, SnsError> {
        let unavailable = |what: &str| SnsError::Unavailable(what.to_owned());
        let turn = Arc::clone(&self.requests).try_acquire_owned().map_err(|_| unavailable("too many requests"))?;
        let request = self.client.get(url);
        let answered = self.runtime.spawn(async move {
            let _turn = turn;
            let response = request.send().await.map_err(|error| outgoing::describe(&error))?;
            if response.status() != StatusCode::OK {
                return Err(format!("it answered {}", response.status().as_u16()));
            }
            let answer = outgoing::body(response, MAX_ANSWER_BYTES).await;
            answer.map_err(|error| outgoing::describe(&error))?.ok_or_else(|| "its answer is too long".to_owned())
        });
        answered.await.map_err(|_| unavailable("the service is stopping"))?.map_err(SnsError::Unavailable)
    }
}

impl SigningCertificate {
    fn from_pem(pem: &[u8]) -> Option<Self> {
        let der = CertificateDer::from_pem_slice(pem).ok()?;
        let certificate = Certificate::from_der(&der).ok()?.tbs_certificate;
        let key = certificate.subject_public_key_info;
        if key.algorithm.oid != RSA_ENCRYPTION {
            return None;
        }
        let instant = |time: x509_cert::time::Time| {
            DateTime::from_timestamp(time.to_unix_duration().as_secs().try_into().ok()?, 0)
        };
        Some(Self {
            key: key.subject_public_key.as_bytes()?.to_vec(),
            not_before: instant(certificate.validity.not_before)?,
            not_after: instant(certificate.validity.not_after)?,
        })
    }

    fn verify(&self, algorithm: &'static RsaParameters, message: &[u8], signature: &[u8]) -> Result<(), SnsError> {
        UnparsedPublicKey::new(algorithm, &self.key).verify(message, signature).map_err(|_| SnsError::SignatureInvalid)
    }
}

/// `text`, if it is a certificate that `host` serves.
fn certificate_url(text: &str, host: &str) -> Result<Url, SnsError> {
    let url = url_of_host(text, host)?;
    // SNS serves other things under its name as well, and with a query answers whatever was asked for.
    let digest = url.path().strip_prefix("/SimpleNotificationService-").and_then(|rest| rest.strip_suffix(".pem"));
    let is_one = digest.is_some_and(|digest| digest.len() == 32 && digest.bytes().all(|byte| byte.is_ascii_hexdigit()));
    if is_one && url.query().is_none() { Ok(url) } else { Err(SnsError::ForeignUrl) }
}

fn subscribe_url(text: &str, host: &str) -> Result<SubscribeUrl, SnsError> {
    url_of_host(text, host).map(SubscribeUrl)
}

fn url_of_host(text: &str, host: &str) -> Result<Url, SnsError> {
    let url = Url::parse(text).map_err(|_| SnsError::ForeignUrl)?;
    let is_of_host = url.scheme() == "https"
        && url.host_str() == Some(host)
        && url.port().is_none()
        && url.username().is_empty()
        && url.password().is_none()
        && url.fragment().is_none();
    if is_of_host { Ok(url) } else { Err(SnsError::ForeignUrl) }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOST: &str = "sns.eu-central-1.amazonaws.com";

    #[test]
    fn certificates_come_from_the_topics_region_and_nowhere_else() {
        let good = format!("https://{HOST}/SimpleNotificationService-9c6465fa7f48f5cacd23014631ec1136.pem");
        assert!(certificate_url(&good, HOST).is_ok());
        for bad in [
            good.replace("https", "http"),
            good.replace("eu-central-1", "us-east-1"),
            good.replace(HOST, "evil.example"),
            good.replace(HOST, &format!("{HOST}.evil.example")),
            good.replace(HOST, &format!("{HOST}@evil.example")),
            good.replace(HOST, &format!("evil.example\\@{HOST}")),
            good.replace(HOST, &format!("user@{HOST}")),
            good.replace(HOST, &format!("{HOST}:8443")),
            good.replace(HOST, &format!("evil.{HOST}")),
            good.replace(HOST, "sns.eu-central-1.amazonaws.com.cn"),
            good.replace(".pem", ".html"),
            good.replace("9c6465", "xxxxxx"),
            good.replace("SimpleNotificationService", "other"),
            format!("{good}?x"),
            format!("{good}#x"),
            format!("https://{HOST}/?x=.pem"),
            "x.pem".to_owned(),
            String::new(),
        ] {
            assert_eq!(certificate_url(&bad, HOST), Err(SnsError::ForeignUrl), "{bad}");
        }
    }

    #[test]
    fn subscriptions_are_accepted_at_the_same_host_only() {
        let good = format!("https://{HOST}/?Action=ConfirmSubscription&TopicArn=arn&Token=2336412f37");
        let url = subscribe_url(&good, HOST).unwrap();
        assert!(!format!("{url:?}").contains("2336412f37"));
        for bad in [good.replace("https", "http"), good.replace(HOST, "127.0.0.1"), good.replace(HOST, "sns.example")] {
            assert_eq!(subscribe_url(&bad, HOST), Err(SnsError::ForeignUrl), "{bad}");
        }
    }

    fn topic() -> TopicArn {
        TopicArn::try_from("arn:aws:sns:eu-central-1:111122223333:uploads".to_owned()).unwrap()
    }

    /// Where a request goes, as a proxy that takes it nowhere is told, and how it ends.
    async fn visited<T>(visit: impl AsyncFnOnce(SnsVerifier) -> T) -> (String, T) {
        let proxy = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let config = SnsConfig { topics: vec![topic()], certificate_file: None };
        let mut verifier = SnsVerifier::from_config(&config, Clock::System, Handle::current()).unwrap();
        let through = reqwest::Proxy::all(format!("http://{}", proxy.local_addr().unwrap())).unwrap();
        verifier.sns.client = Client::builder().proxy(through).build().unwrap();
        let told = async {
            let (mut client, _) = proxy.accept().await.unwrap();
            let mut told = vec![0; 1024];
            let length = tokio::io::AsyncReadExt::read(&mut client, &mut told).await.unwrap();
            String::from_utf8_lossy(&told[..length]).lines().next().unwrap().to_owned()
        };
        tokio::join!(told, visit(verifier))
    }

    #[tokio::test]
    async fn certificate_and_subscription_are_asked_for_at_the_topics_host() {
        let connect = format!("CONNECT {HOST}:443 HTTP/1.1");
        let message = serde_json::json!({
            "Type": "Notification", "Message": "{}", "MessageId": "i", "TopicArn": topic().as_str(),
            "Timestamp": Clock::System.now(), "Signature": "AAAA", "SignatureVersion": "2",
            "SigningCertURL": format!("https://{HOST}/SimpleNotificationService-9c6465fa7f48f5cacd23014631ec1136.pem"),
        });
        let verify = async |verifier: SnsVerifier| verifier.verify(message.to_string().as_bytes()).await;
        let (told, verified) = visited(verify).await;
        assert_eq!(told, connect);
        assert!(matches!(verified, Err(SnsError::Unavailable(_))), "{verified:?}");
        let url = subscribe_url(&format!("https://{HOST}/?Action=ConfirmSubscription&Token=2336412f37"), HOST).unwrap();
        let (told, subscribed) = visited(async |verifier: SnsVerifier| verifier.subscribe(url).await).await;
        assert_eq!(told, connect);
        assert!(
            matches!(&subscribed, Err(SnsError::Unavailable(what)) if !what.contains("2336412f37")),
            "{subscribed:?}"
        );
    }

    #[test]
    fn what_is_signed_depends_on_the_type() {
        let envelope = |r#type: &str, subject: Option<&str>| Envelope {
            r#type: r#type.to_owned(),
            message: "m".to_owned(),
            message_id: "i".to_owned(),
            subject: subject.map(str::to_owned),
            subscribe_url: Some("u".to_owned()),
            timestamp: "t".to_owned(),
            token: Some("k".to_owned()),
            topic_arn: "a".to_owned(),
            signature: String::new(),
            signature_version: "2".to_owned(),
            signing_cert_url: String::new(),
        };
        let signed = |r#type: &str, subject| envelope(r#type, subject).string_to_sign();
        let notification = "Message\nm\nMessageId\ni\nTimestamp\nt\nTopicArn\na\nType\nNotification\n";
        assert_eq!(signed(NOTIFICATION, None).unwrap(), notification);
        let with_subject = notification.replace("Timestamp", "Subject\ns\nTimestamp");
        assert_eq!(signed(NOTIFICATION, Some("s")).unwrap(), with_subject);
        for confirmation in [SUBSCRIPTION, UNSUBSCRIPTION] {
            assert_eq!(
                signed(confirmation, None).unwrap(),
                format!(
                    "Message\nm\nMessageId\ni\nSubscribeURL\nu\nTimestamp\nt\nToken\nk\nTopicArn\na\nType\n{confirmation}\n"
                )
            );
        }
        assert_eq!(signed("Other", None), Err(SnsError::UnknownType));
        let without = Envelope { token: None, ..envelope(SUBSCRIPTION, None) };
        assert_eq!(without.string_to_sign(), Err(SnsError::Malformed));
    }
}
