//! The rules of one policy during one period.

use std::{fmt, str::FromStr, time::Duration};

use serde::Serialize;

use super::KeyTemplate;
use crate::model::{
    ByteRate, ByteSize, Delivery, Invalid, IpScope, MAX_SIGNATURE_LIFE, MediaRange, PartPlan, UploadMethod,
};

/// What one policy allows while no schedule entry changes it. The default is that of a policy without any key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rules {
    /// How files may be uploaded: at least one, the first is the default.
    pub methods: Vec<UploadMethod>,
    /// The longest life of an upload URL, unless a speed gives the file more: whole seconds, 1 second to 7 days.
    pub upload_expires_in: Duration,
    /// The slowest line that upload URLs live long enough for; none: they live for `upload_expires_in`.
    pub upload_min_rate: Option<ByteRate>,
    /// A bound on what `upload_min_rate` leads to: at least `upload_expires_in`, at most [`Rules::MAX_EXPIRES_IN`].
    pub upload_max_expires_in: Duration,
    /// How long after its issue an upload may still be renewed: 1 second to [`Rules::MAX_RENEW_WITHIN`]. Without a bound,
    /// parts that nobody ever puts together could be kept for ever.
    pub upload_renew_within: Duration,
    /// Where the policy has multipart: the size in bytes above which it is chosen unless the client asks for another
    /// method. At most [`Rules::MAX_SINGLE_SIZE`], above which nothing else is possible.
    pub multipart_above: ByteSize,
    /// The size of a part, unless the file would have too many of them.
    pub part_size: ByteSize,
    /// The longest life of a download URL: whole seconds, 1 second to 7 days.
    pub download_expires_in: Duration,
    /// How often every download can be redeemed, 1 to [`Rules::MAX_USES`]; none: downloads are no tickets.
    pub download_uses: Option<u16>,
    /// The network that a download is bound to, where it is another than that of uploads.
    pub download_ip_scope: Option<IpScope>,
    /// The smallest allowed file.
    pub min_size: ByteSize,
    /// The largest allowed file: at most [`Rules::MAX_SINGLE_SIZE`], with multipart [`Rules::MAX_SIZE`].
    pub max_size: ByteSize,
    /// The allowed media types: at least one range.
    pub content_types: Vec<MediaRange>,
    /// Where an upload is stored.
    pub key: KeyTemplate,
    /// Who may download.
    pub readers: Readers,
    /// The network that a URL is bound to.
    pub ip_scope: IpScope,
    /// Whether the client must promise a checksum.
    pub checksum: ChecksumRule,
    /// How downloads may reach the client: at least one way, the first is the default.
    pub delivery: Vec<Delivery>,
    /// How long after the URL's end an upload that was finished in time may still be confirmed: 0 seconds to 30 days.
    pub confirm_grace: Duration,
    /// What is done about a file whose first bytes are not of the declared type.
    pub sniff: SniffRule,
    /// Whether a scanner has to find a file clean before it is confirmed.
    pub inspection: InspectionRule,
}

impl Rules {
    /// What S3 takes in a single `PUT Object` or `POST Object`: 5 GiB
    /// (<https://docs.aws.amazon.com/AmazonS3/latest/userguide/upload-objects.html>).
    pub const MAX_SINGLE_SIZE: ByteSize = ByteSize::from_bytes(5 << 30);
    /// What it takes in parts.
    pub const MAX_SIZE: ByteSize = PartPlan::LARGEST_FILE;
    /// The longest life of a presigned URL.
    pub const MAX_EXPIRES_IN: Duration = MAX_SIGNATURE_LIFE;
    /// The shortest life of credentials
    /// (<https://docs.aws.amazon.com/STS/latest/APIReference/API_AssumeRole.html>, `DurationSeconds`).
    pub const LEAST_CREDENTIALS_LIFE: Duration = Duration::from_mins(15);
    /// What a life of credentials is a multiple of.
    pub const CREDENTIALS_STEP: Duration = Duration::from_mins(5);
    /// What is added to the time that a file takes at `upload_min_rate`: for connecting, and for a client's clock that
    /// makes it start late.
    pub const TRANSFER_MARGIN: Duration = Duration::from_mins(1);
    /// A bound on how long an upload can be kept open.
    pub const MAX_RENEW_WITHIN: Duration = Duration::from_hours(30 * 24);
    /// The most uses of a ticket: whoever needs more needs no ticket.
    pub const MAX_USES: u16 = 1000;
    /// A bound on the grace, because every open upload is a row that the sweeper looks at.
    pub const MAX_CONFIRM_GRACE: Duration = Duration::from_hours(30 * 24);

    /// The network that a download is bound to.
    pub fn download_ip_scope(&self) -> IpScope {
        self.download_ip_scope.unwrap_or(self.ip_scope)
    }

    /// Every setting by its key in the file with its value as the file could spell it: what is compared, and what a
    /// version is made of.
    pub(super) fn settings(&self) -> [(&'static str, String); 21] {
        // Taken apart in full: a rule that were left out would change without a new version.
        let Self {
            methods,
            upload_expires_in,
            upload_min_rate,
            upload_max_expires_in,
            upload_renew_within,
            multipart_above,
            part_size,
            download_expires_in,
            download_uses,
            download_ip_scope,
            min_size,
            max_size,
            content_types,
            key,
            readers,
            ip_scope,
            checksum,
            delivery,
            confirm_grace,
            sniff,
            inspection,
        } = self;
        let duration = |duration: &Duration| humantime::format_duration(*duration).to_string();
        [
            ("methods", join(methods)),
            ("upload.expires_in", duration(upload_expires_in)),
            ("upload.min_rate", or_else(upload_min_rate.as_ref(), "off")),
            ("upload.max_expires_in", duration(upload_max_expires_in)),
            ("upload.renew_within", duration(upload_renew_within)),
            ("upload.multipart_above", multipart_above.to_string()),
            ("upload.part_size", part_size.to_string()),
            ("download.expires_in", duration(download_expires_in)),
            ("download.uses", or_else(download_uses.as_ref(), "off")),
            ("download.ip_scope", or_else(download_ip_scope.as_ref(), "as ip_scope")),
            ("min_size", min_size.to_string()),
            ("max_size", max_size.to_string()),
            ("content_types", join(content_types)),
            ("key", key.to_string()),
            ("readers", readers.to_string()),
            ("ip_scope", ip_scope.to_string()),
            ("checksum", checksum.to_string()),
            ("delivery", join(delivery)),
            ("confirm.grace", duration(confirm_grace)),
            ("sniff", sniff.to_string()),
            ("inspection", inspection.to_string()),
        ]
    }
}

/// `value` as it is spelled, or what stands for none.
fn or_else<T: fmt::Display>(value: Option<&T>, none: &str) -> String {
    value.map_or_else(|| none.to_owned(), T::to_string)
}

impl Default for Rules {
    fn default() -> Self {
        Self {
            methods: vec![UploadMethod::Post, UploadMethod::Put],
            upload_expires_in: Duration::from_mins(5),
            upload_min_rate: None,
            upload_max_expires_in: Self::MAX_EXPIRES_IN,
            upload_renew_within: Duration::from_hours(7 * 24),
            multipart_above: ByteSize::from_bytes(100 << 20),
            part_size: ByteSize::from_bytes(8 << 20),
            download_expires_in: Duration::from_mins(1),
            download_uses: None,
            download_ip_scope: None,
            min_size: ByteSize::from_bytes(0),
            max_size: ByteSize::from_bytes(100 << 20),
            content_types: "*/*".parse::<MediaRange>().into_iter().collect(),
            key: KeyTemplate::default(),
            readers: Readers::Owner,
            ip_scope: IpScope::Prefix { v4: 32, v6: 64 },
            checksum: ChecksumRule::Optional,
            delivery: vec![Delivery::Url],
            confirm_grace: Duration::from_hours(1),
            sniff: SniffRule::Warn,
            inspection: InspectionRule::Off,
        }
    }
}

/// The items with commas between them.
pub(super) fn join<T: fmt::Display>(items: &[T]) -> String {
    items.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

/// Who may download a confirmed upload.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Readers {
    /// Only who uploaded it.
    Owner,
    /// Everybody of the uploader's tenant, as the same issuer names it, and the uploader.
    Tenant,
    /// Everybody with a valid token.
    Authenticated,
}

impl FromStr for Readers {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        match text {
            "owner" => Ok(Self::Owner),
            "tenant" => Ok(Self::Tenant),
            "authenticated" => Ok(Self::Authenticated),
            _ => Err(Invalid::new("must be \"owner\", \"tenant\" or \"authenticated\"")),
        }
    }
}

impl fmt::Display for Readers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Owner => "owner",
            Self::Tenant => "tenant",
            Self::Authenticated => "authenticated",
        })
    }
}

/// Whether the client must promise a SHA-256 checksum that the store verifies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum ChecksumRule {
    /// It may.
    Optional,
    /// It must.
    Required,
}

impl FromStr for ChecksumRule {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        match text {
            "optional" => Ok(Self::Optional),
            "required" => Ok(Self::Required),
            _ => Err(Invalid::new("must be \"optional\" or \"required\"")),
        }
    }
}

impl fmt::Display for ChecksumRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Optional => "optional",
            Self::Required => "required",
        })
    }
}

/// What is done about a file whose first bytes are not of the declared type.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum SniffRule {
    /// Nobody looks.
    Off,
    /// It is confirmed, with a warning. The default: it refuses nobody, and shows what `reject` would.
    Warn,
    /// It is rejected.
    Reject,
}

impl FromStr for SniffRule {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        match text {
            "off" => Ok(Self::Off),
            "warn" => Ok(Self::Warn),
            "reject" => Ok(Self::Reject),
            _ => Err(Invalid::new("must be \"off\", \"warn\" or \"reject\"")),
        }
    }
}

impl fmt::Display for SniffRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Off => "off",
            Self::Warn => "warn",
            Self::Reject => "reject",
        })
    }
}

/// Whether a scanner has to find a file clean before it is confirmed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum InspectionRule {
    /// No scanner is asked.
    Off,
    /// It has to.
    Required,
}

impl FromStr for InspectionRule {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        match text {
            "off" => Ok(Self::Off),
            "required" => Ok(Self::Required),
            _ => Err(Invalid::new("must be \"off\" or \"required\"")),
        }
    }
}

impl fmt::Display for InspectionRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Off => "off",
            Self::Required => "required",
        })
    }
}
