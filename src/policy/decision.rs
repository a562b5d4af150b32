//! What the rules say about one request. Pure: no I/O, no clock.

use std::{fmt, time::Duration};

use super::{ChecksumRule, Readers, Rules, rules::join};
use crate::model::{
    ByteSize, ContentType, Delivery, Invalid, MediaRange, PartPlan, Principal, SizePromise, UploadMethod,
};

/// What a client asks to upload.
#[derive(Debug, Clone, Copy)]
pub struct FileRequest<'a> {
    /// The promised size.
    pub file_size: SizePromise,
    /// The promised or guessed media type.
    pub content_type: &'a ContentType,
    /// Whether the client promises a SHA-256 checksum of the whole file.
    pub has_checksum: bool,
    /// The method asked for, or the first of the policy that suits the file.
    pub method: Option<UploadMethod>,
    /// Whether the client cuts the file as it likes, where the method is multipart.
    pub free_parts: bool,
    /// The URL's life asked for, or the policy's. It can only shorten.
    pub expires_in: Option<Duration>,
}

/// An upload that the rules allow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UploadDecision {
    /// How the file is to be uploaded.
    pub method: UploadMethod,
    /// What is promised of its size.
    pub file_size: SizePromise,
    /// The parts that it is to be uploaded in, if the method is multipart and the client does not cut it as it likes.
    pub plan: Option<PartPlan>,
    /// The longest life of the URL: the shorter of what the policy allows and what was asked for, in whole seconds.
    pub expires_in: Duration,
}

/// Why the rules refuse an upload or a download.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The file is larger than the policy allows.
    #[error("must be at most {}, not {} bytes", Bytes(*limit), received)]
    TooLarge {
        /// The policy's `max_size`.
        limit: ByteSize,
        /// The promised size in bytes.
        received: u64,
    },
    /// The file is smaller than the policy allows.
    #[error("must be at least {}, not {} bytes", Bytes(*limit), received)]
    TooSmall {
        /// The policy's `min_size`.
        limit: ByteSize,
        /// The promised size in bytes.
        received: u64,
    },
    /// The size has to be known, and is not.
    #[error("must be given: {why}")]
    SizeRequired {
        /// What needs it.
        why: &'static str,
    },
    /// The media type lies in none of the policy's ranges.
    #[error("must be one of: {}; not {received}", join(allowed))]
    ContentType {
        /// The policy's `content_types`.
        allowed: Vec<MediaRange>,
        /// The promised type.
        received: ContentType,
    },
    /// The policy does not offer the method.
    #[error("must be one of: {}; not {received}", join(allowed))]
    MethodNotAllowed {
        /// The policy's `methods`.
        allowed: Vec<UploadMethod>,
        /// The method asked for.
        received: UploadMethod,
    },
    /// Without multipart the file has to go in one request, and is too large for that.
    #[error("must be multipart: S3 takes at most {} in one request", Bytes(Rules::MAX_SINGLE_SIZE))]
    TooLargeForOneRequest {
        /// The method asked for, or the policy's.
        received: UploadMethod,
    },
    /// The file cannot be cut into parts: it is empty.
    #[error("{rule}", rule = .0.rule)]
    NoParts(Invalid),
    /// S3 keeps no SHA-256 of a file that came in parts, so nobody could hold the client to it.
    #[error("must be left out for multipart, where each part has its own: see part_checksums")]
    ChecksumOfParts,
    /// The policy wants a checksum and there is none.
    #[error("must be given: the policy requires the SHA-256 of the file, base64")]
    ChecksumRequired,
    /// The policy does not deliver in this way.
    #[error("must be one of: {}; not {received}", join(allowed))]
    DeliveryNotAllowed {
        /// The policy's `delivery`.
        allowed: Vec<Delivery>,
        /// What was asked for.
        received: Delivery,
    },
    /// No session of an STS is that short, and what lives longer than it was asked to is no answer.
    #[error("must be at least {} seconds for credentials, which no STS makes for less", Rules::LEAST_CREDENTIALS_LIFE.as_secs())]
    TooShortForCredentials {
        /// The life asked for.
        received: Duration,
    },
    /// The life asked for is shorter than one second, the unit that signatures count in.
    #[error("must be at least 1 second, not {}", humantime::format_duration(*received))]
    ExpiresInZero {
        /// The life asked for.
        received: Duration,
    },
}

impl Refusal {
    /// The field of the JSON request that is at fault.
    pub const fn field(&self) -> &'static str {
        match self {
            Self::TooLarge { .. } | Self::TooSmall { .. } | Self::SizeRequired { .. } | Self::NoParts(_) => "file_size",
            Self::ContentType { .. } => "file_type",
            Self::MethodNotAllowed { .. } | Self::TooLargeForOneRequest { .. } => "method",
            Self::ChecksumRequired | Self::ChecksumOfParts => "checksum_sha256",
            Self::DeliveryNotAllowed { .. } => "delivery",
            Self::TooShortForCredentials { .. } | Self::ExpiresInZero { .. } => "expires_in",
        }
    }
}

/// `100MiB (104857600 bytes)`: the received size is in bytes, and nobody should have to convert to compare.
struct Bytes(ByteSize);

impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({} bytes)", self.0, self.0.bytes())
    }
}

impl Rules {
    /// Decides about an upload; of several reasons to refuse it gives the first that it finds.
    pub fn decide_upload(&self, request: &FileRequest<'_>) -> Result<UploadDecision, Refusal> {
        let received = request.file_size.largest().bytes();
        if received > self.max_size.bytes() {
            return Err(Refusal::TooLarge { limit: self.max_size, received });
        }
        if received < self.min_size.bytes() {
            return Err(Refusal::TooSmall { limit: self.min_size, received });
        }
        if request.file_size.is_limit() && self.min_size.bytes() > 0 {
            return Err(Refusal::SizeRequired {
                why: "the policy has a min_size, and only a known size can be held to it",
            });
        }
        if !self.content_types.iter().any(|range| range.matches(request.content_type)) {
            let received = request.content_type.clone();
            return Err(Refusal::ContentType { allowed: self.content_types.clone(), received });
        }
        let (method, plan) = self.decide_method(request)?;
        // The checksums of parts come with the parts, which who cuts as they like knows nothing of.
        if self.checksum == ChecksumRule::Required && !request.has_checksum && plan.is_none() {
            return Err(Refusal::ChecksumRequired);
        }
        let file_size = match request.file_size {
            SizePromise::AtMost(limit) if method != UploadMethod::Multipart => {
                SizePromise::AtMost(limit.min(Self::MAX_SINGLE_SIZE))
            }
            promised => promised,
        };
        let life = self.upload_life(file_size.largest().bytes());
        let mut expires_in = match request.expires_in {
            Some(received) if received.as_secs() == 0 => return Err(Refusal::ExpiresInZero { received }),
            Some(received) => life.min(Duration::from_secs(received.as_secs())),
            None => life,
        };
        if method == UploadMethod::Credentials {
            if expires_in < Self::LEAST_CREDENTIALS_LIFE {
                return Err(Refusal::TooShortForCredentials { received: expires_in });
            }
            // Each life is a session of its own: asking for every second of them would be a call of the STS each.
            let step = Self::CREDENTIALS_STEP.as_secs();
            expires_in = Duration::from_secs(expires_in.as_secs() / step * step);
        }
        Ok(UploadDecision { method, file_size, plan, expires_in })
    }

    /// The longest life of an upload URL for a file of `file_size` bytes, in whole seconds: what every file gets, or the
    /// time that this one takes over the slowest line that the policy cares for, whichever is longer.
    pub fn upload_life(&self, file_size: u64) -> Duration {
        self.upload_min_rate.map_or(self.upload_expires_in, |rate| {
            let transfer = rate.time_for(file_size).saturating_add(Self::TRANSFER_MARGIN);
            self.upload_expires_in.max(transfer.min(self.upload_max_expires_in))
        })
    }

    /// The life of an upload URL for the largest file.
    pub fn longest_upload_life(&self) -> Duration {
        self.upload_life(self.max_size.bytes())
    }

    /// The method asked for, if it suits the file; or else the first of the policy that does, of large files multipart.
    fn decide_method(&self, request: &FileRequest<'_>) -> Result<(UploadMethod, Option<PartPlan>), Refusal> {
        if let Some(received) = request.method {
            if !self.methods.contains(&received) {
                return Err(Refusal::MethodNotAllowed { allowed: self.methods.clone(), received });
            }
            return self.plan(received, request).map(|plan| (received, plan));
        }
        // What holds a client to least is for those who ask for it, unless there is nothing else.
        let mut preferred = self.methods.clone();
        if preferred.len() > 1 {
            preferred.retain(|method| *method != UploadMethod::Credentials);
        }
        let is_large = matches!(request.file_size, SizePromise::Exact(size) if size > self.multipart_above);
        if is_large {
            preferred.sort_by_key(|method| *method != UploadMethod::Multipart);
        }
        let mut refusal = None;
        for method in preferred {
            match self.plan(method, request) {
                Ok(plan) => return Ok((method, plan)),
                Err(refused) => refusal = refusal.or(Some(refused)),
            }
        }
        // Rules from a document always have a method.
        Err(refusal.unwrap_or(Refusal::MethodNotAllowed { allowed: Vec::new(), received: UploadMethod::Put }))
    }

    /// The parts of the file, where it travels in parts, if it can travel by `method` at all.
    fn plan(&self, method: UploadMethod, request: &FileRequest<'_>) -> Result<Option<PartPlan>, Refusal> {
        let is_too_large = matches!(request.file_size, SizePromise::Exact(size) if size > Self::MAX_SINGLE_SIZE);
        match method {
            UploadMethod::Put if request.file_size.is_limit() => {
                Err(Refusal::SizeRequired { why: "a PUT is held to a limit only by its exact size" })
            }
            UploadMethod::Put | UploadMethod::Post if is_too_large => {
                Err(Refusal::TooLargeForOneRequest { received: method })
            }
            UploadMethod::Credentials if request.file_size.is_limit() => {
                Err(Refusal::SizeRequired { why: "what is written with credentials is compared with its size" })
            }
            UploadMethod::Put | UploadMethod::Post | UploadMethod::Credentials => Ok(None),
            UploadMethod::Multipart if request.has_checksum => Err(Refusal::ChecksumOfParts),
            UploadMethod::Multipart if request.free_parts => Ok(None),
            UploadMethod::Multipart if request.file_size.is_limit() => {
                Err(Refusal::SizeRequired { why: "a file of unknown size cannot be cut into parts" })
            }
            UploadMethod::Multipart => {
                PartPlan::new(request.file_size.largest().bytes(), self.part_size).map(Some).map_err(Refusal::NoParts)
            }
        }
    }

    /// The longest life of a download URL: the shorter of what the policy allows and what was asked for, in whole
    /// seconds and never zero, because a URL that is born expired helps nobody.
    pub fn decide_download(&self, expires_in: Option<Duration>) -> Duration {
        expires_in.map_or(self.download_expires_in, |asked| {
            Duration::from_secs(asked.as_secs().max(1)).min(self.download_expires_in)
        })
    }

    /// How a download reaches the client: as asked for, or the first way of the policy.
    pub fn decide_delivery(&self, asked: Option<Delivery>) -> Result<Delivery, Refusal> {
        // Rules from a document always have one.
        let wanted = asked.or_else(|| self.delivery.first().copied()).unwrap_or(Delivery::Url);
        if self.delivery.contains(&wanted) {
            return Ok(wanted);
        }
        Err(Refusal::DeliveryNotAllowed { allowed: self.delivery.clone(), received: wanted })
    }

    /// Whether `reader` may download what this owner uploaded. Subjects and tenants mean something only within their
    /// issuer: two issuers may both name a tenant `acme`.
    pub fn may_read(
        &self,
        reader: &Principal,
        owner_issuer: &str,
        owner_subject: &str,
        owner_tenant: Option<&str>,
    ) -> bool {
        let same_issuer = reader.issuer == owner_issuer;
        let owner = reader.is(owner_issuer, owner_subject, owner_tenant);
        match self.readers {
            Readers::Owner => owner,
            // Tokens with an empty name are refused; should one get here, it must not make strangers one tenant.
            Readers::Tenant => {
                let tenant = reader.tenant.as_deref().filter(|tenant| !tenant.is_empty());
                owner || (same_issuer && tenant.is_some() && tenant == owner_tenant)
            }
            Readers::Authenticated => true,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules() -> Rules {
        Rules {
            methods: vec![UploadMethod::Post],
            min_size: ByteSize::from_bytes(10),
            max_size: ByteSize::from_bytes(1024),
            content_types: vec!["image/*".parse().unwrap(), "application/pdf".parse().unwrap()],
            checksum: ChecksumRule::Required,
            ..Rules::default()
        }
    }

    fn exactly(bytes: u64) -> SizePromise {
        SizePromise::Exact(ByteSize::from_bytes(bytes))
    }

    fn request(content_type: &ContentType) -> FileRequest<'_> {
        let file_size = exactly(100);
        FileRequest { file_size, content_type, has_checksum: true, method: None, free_parts: false, expires_in: None }
    }

    #[test]
    fn uploads_within_the_rules_get_the_default_method_and_the_shorter_life() {
        let pdf = "application/pdf".parse().unwrap();
        let png = "image/png".parse().unwrap();
        let seconds = |n| Some(Duration::from_secs(n));
        let table = [
            (request(&pdf), 300),
            (FileRequest { file_size: exactly(10), ..request(&png) }, 300),
            (FileRequest { file_size: exactly(1024), ..request(&png) }, 300),
            (FileRequest { method: Some(UploadMethod::Post), ..request(&pdf) }, 300),
            (FileRequest { expires_in: seconds(1), ..request(&pdf) }, 1),
            (FileRequest { expires_in: seconds(120), ..request(&pdf) }, 120),
            (FileRequest { expires_in: Some(Duration::from_millis(1_900)), ..request(&pdf) }, 1),
            (FileRequest { expires_in: seconds(301), ..request(&pdf) }, 300),
            (FileRequest { expires_in: Some(Duration::MAX), ..request(&pdf) }, 300),
        ];
        for (request, expires_in) in table {
            let expires_in = Duration::from_secs(expires_in);
            let expected =
                UploadDecision { method: UploadMethod::Post, file_size: request.file_size, plan: None, expires_in };
            assert_eq!(rules().decide_upload(&request), Ok(expected), "{request:?}");
        }
    }

    #[test]
    fn refusals_name_the_field_what_is_expected_and_what_was_received() {
        let pdf = "application/pdf".parse().unwrap();
        let text = "text/plain".parse().unwrap();
        let table = [
            (
                FileRequest { file_size: exactly(1025), ..request(&pdf) },
                "file_size",
                "must be at most 1KiB (1024 bytes), not 1025 bytes",
            ),
            (
                FileRequest { file_size: exactly(u64::MAX), ..request(&pdf) },
                "file_size",
                "must be at most 1KiB (1024 bytes), not 18446744073709551615 bytes",
            ),
            (
                FileRequest { file_size: exactly(9), ..request(&pdf) },
                "file_size",
                "must be at least 10B (10 bytes), not 9 bytes",
            ),
            (request(&text), "file_type", "must be one of: image/*, application/pdf; not text/plain"),
            (
                FileRequest { method: Some(UploadMethod::Put), ..request(&pdf) },
                "method",
                "must be one of: post; not put",
            ),
            (
                FileRequest { has_checksum: false, ..request(&pdf) },
                "checksum_sha256",
                "must be given: the policy requires the SHA-256 of the file, base64",
            ),
            (
                FileRequest { expires_in: Some(Duration::ZERO), ..request(&pdf) },
                "expires_in",
                "must be at least 1 second, not 0s",
            ),
            (
                FileRequest { expires_in: Some(Duration::from_millis(999)), ..request(&pdf) },
                "expires_in",
                "must be at least 1 second, not 999ms",
            ),
        ];
        for (request, field, message) in table {
            let refusal = rules().decide_upload(&request).unwrap_err();
            assert_eq!((refusal.field(), refusal.to_string().as_str()), (field, message), "{request:?}");
        }
    }

    #[test]
    fn a_floor_of_speed_gives_large_files_longer() {
        let pdf = "application/pdf".parse().unwrap();
        let rules = Rules {
            upload_min_rate: Some("64KiB/s".parse().unwrap()),
            upload_max_expires_in: Duration::from_hours(12),
            max_size: Rules::MAX_SIZE,
            ..Rules::default()
        };
        let decide = |file_size, seconds: Option<u64>| {
            let expires_in = seconds.map(Duration::from_secs);
            let file = FileRequest { file_size: exactly(file_size), expires_in, ..request(&pdf) };
            rules.decide_upload(&file).unwrap().expires_in.as_secs()
        };
        for (file_size, expires_in) in [
            (0, 300),
            // 240 s and the margin are exactly what every file gets.
            (240 << 16, 300),
            ((240 << 16) + 1, 301),
            (1 << 30, 16_384 + 60),
            // 22 hours at that speed, and the policy says 12.
            (5 << 30, 43_200),
        ] {
            assert_eq!(decide(file_size, None), expires_in, "{file_size}");
            assert_eq!(decide(file_size, Some(100)), 100, "{file_size}");
            assert_eq!(decide(file_size, Some(u64::MAX)), expires_in, "{file_size}");
        }
    }

    proptest::proptest! {
        #[test]
        fn lives_are_bounded_grow_with_the_file_and_are_long_enough(
            base in 1_u64..=604_800,
            more in 0_u64..=604_800,
            rate in 1_u64..,
            file_size: u64,
            smaller: u64,
        ) {
            let max = Duration::from_secs((base + more).min(Rules::MAX_EXPIRES_IN.as_secs()));
            let rules = Rules {
                upload_expires_in: Duration::from_secs(base),
                upload_min_rate: Some(format!("{rate}/s").parse().unwrap()),
                upload_max_expires_in: max,
                ..Rules::default()
            };
            let life = rules.upload_life(file_size);
            proptest::prop_assert!(rules.upload_expires_in <= life && life <= max);
            proptest::prop_assert_eq!(life.subsec_nanos(), 0);
            proptest::prop_assert!(rules.upload_life(smaller.min(file_size)) <= life);
            let carried = u128::from(life.as_secs()) * u128::from(rate);
            proptest::prop_assert!(life == max || carried >= u128::from(file_size));
            let without = Rules { upload_min_rate: None, ..rules };
            proptest::prop_assert_eq!(without.upload_life(file_size), Duration::from_secs(base));
        }
    }

    #[test]
    fn optional_checksums_may_be_left_out_and_the_first_method_is_the_default() {
        let pdf = "application/pdf".parse().unwrap();
        let decide = |methods: &[UploadMethod]| {
            let rules = Rules { methods: methods.to_vec(), ..Rules::default() };
            rules.decide_upload(&FileRequest { has_checksum: false, ..request(&pdf) }).unwrap().method
        };
        assert_eq!(decide(&[UploadMethod::Post, UploadMethod::Put]), UploadMethod::Post);
        assert_eq!(decide(&[UploadMethod::Put, UploadMethod::Post]), UploadMethod::Put);
    }

    #[test]
    fn large_files_go_in_parts_where_the_policy_and_the_client_let_them() {
        use UploadMethod::{Multipart, Post, Put};
        const MIB: u64 = 1 << 20;
        const GIB: u64 = 1 << 30;
        const TIB: u64 = 1 << 40;

        let octets = "application/octet-stream".parse().unwrap();
        let decide = |methods: &[UploadMethod], method, file_size, has_checksum| {
            let rules = Rules { methods: methods.to_vec(), max_size: Rules::MAX_SIZE, ..Rules::default() };
            let request = FileRequest { file_size: exactly(file_size), has_checksum, method, ..request(&octets) };
            match rules.decide_upload(&request) {
                Ok(UploadDecision { method, plan, .. }) => {
                    assert_eq!(plan.is_some(), method == Multipart);
                    Ok((method, plan.map_or(1, |plan| plan.part_count())))
                }
                Err(refusal) => Err(refusal.field()),
            }
        };
        for (methods, method, file_size, has_checksum, expected) in [
            // Above the threshold, and not at it.
            (&[Put, Multipart][..], None, 100 * MIB, false, Ok((Put, 1))),
            (&[Put, Multipart], None, 100 * MIB + 1, false, Ok((Multipart, 13))),
            (&[Put, Post], None, 100 * MIB + 1, false, Ok((Put, 1))),
            (&[Put, Multipart], Some(Put), 5 * GIB, false, Ok((Put, 1))),
            (&[Put, Multipart], Some(Put), 5 * GIB + 1, false, Err("method")),
            (&[Post, Put], None, 5 * GIB + 1, false, Err("method")),
            (&[Put, Multipart], Some(Multipart), 1, false, Ok((Multipart, 1))),
            (&[Put, Multipart], None, 5 * TIB, false, Ok((Multipart, 9_987))),
            (&[Put, Multipart], None, 5 * TIB + 1, false, Err("file_size")),
            // The first is the default also when it is multipart, but an empty file has no parts.
            (&[Multipart, Put], None, 1, false, Ok((Multipart, 1))),
            (&[Multipart, Put], None, 0, false, Ok((Put, 1))),
            (&[Multipart, Put], Some(Multipart), 0, false, Err("file_size")),
            (&[Multipart], None, 0, false, Err("file_size")),
            // A checksum of the whole binds only a file that goes in one request.
            (&[Multipart, Put], None, 200 * MIB, true, Ok((Put, 1))),
            (&[Put, Multipart], None, 200 * MIB, true, Ok((Put, 1))),
            (&[Multipart, Put], None, 5 * GIB + 1, true, Err("checksum_sha256")),
            (&[Put, Multipart], Some(Multipart), 1, true, Err("checksum_sha256")),
            (&[Multipart], None, 1, true, Err("checksum_sha256")),
        ] {
            let found = decide(methods, method, file_size, has_checksum);
            assert_eq!(found, expected, "{methods:?} {method:?} {file_size} {has_checksum}");
        }
    }

    #[test]
    fn the_checksums_of_parts_are_not_asked_for_at_once() {
        let pdf = "application/pdf".parse().unwrap();
        let rules = Rules { methods: vec![UploadMethod::Put, UploadMethod::Multipart], ..rules() };
        let decide = |method| {
            let request = FileRequest { has_checksum: false, method: Some(method), ..request(&pdf) };
            rules.decide_upload(&request).map(|decision| decision.method)
        };
        assert_eq!(decide(UploadMethod::Multipart), Ok(UploadMethod::Multipart));
        assert_eq!(decide(UploadMethod::Put), Err(Refusal::ChecksumRequired));
    }

    #[test]
    fn credentials_are_for_who_asks_or_where_there_is_nothing_else() {
        use UploadMethod::{Credentials, Put};
        const GIB: u64 = 1 << 30;

        let pdf = "application/pdf".parse().unwrap();
        let decide = |methods: &[UploadMethod], method, file_size, seconds: Option<u64>| {
            let upload_expires_in = Rules::LEAST_CREDENTIALS_LIFE;
            let (methods, max_size) = (methods.to_vec(), Rules::MAX_SIZE);
            let rules = Rules { methods, upload_expires_in, max_size, ..Rules::default() };
            let expires_in = seconds.map(Duration::from_secs);
            let file_size = exactly(file_size);
            let request = FileRequest { file_size, method, expires_in, has_checksum: false, ..request(&pdf) };
            rules.decide_upload(&request).map(|decision| decision.method).map_err(|refusal| refusal.field())
        };
        for (methods, method, file_size, seconds, expected) in [
            (&[Credentials, Put][..], None, 1, None, Ok(Put)),
            (&[Put, Credentials], None, 5 * GIB + 1, None, Err("method")),
            (&[Put, Credentials], Some(Credentials), 5 * GIB + 1, None, Ok(Credentials)),
            (&[Put], Some(Credentials), 1, None, Err("method")),
            (&[Credentials], None, 1, None, Ok(Credentials)),
            (&[Credentials], None, 1, Some(900), Ok(Credentials)),
            (&[Credentials], None, 1, Some(899), Err("expires_in")),
        ] {
            assert_eq!(decide(methods, method, file_size, seconds), expected, "{methods:?} {method:?} {file_size}");
        }
    }

    #[test]
    fn a_size_that_is_not_known_is_held_to_a_limit_or_refused() {
        use UploadMethod::{Multipart, Post, Put};

        let pdf = "application/pdf".parse().unwrap();
        let decide = |methods: &[UploadMethod], asked, min_size| {
            let (min_size, max_size) = (ByteSize::from_bytes(min_size), Rules::MAX_SIZE);
            let rules = Rules { methods: methods.to_vec(), min_size, max_size, ..Rules::default() };
            let file_size = SizePromise::AtMost(rules.max_size);
            let request =
                FileRequest { file_size, method: asked, has_checksum: false, free_parts: true, ..request(&pdf) };
            rules.decide_upload(&request).map(|decision| (decision.method, decision.file_size, decision.plan))
        };
        // S3 takes no more in one request.
        let form = (Post, SizePromise::AtMost(Rules::MAX_SINGLE_SIZE), None);
        assert_eq!(decide(&[Put, Post, Multipart], None, 0), Ok(form));
        let parts = (Multipart, SizePromise::AtMost(Rules::MAX_SIZE), None);
        assert_eq!(decide(&[Put, Multipart], Some(Multipart), 0), Ok(parts));
        for refused in [decide(&[Put], None, 0), decide(&[Put, Post], Some(Put), 0), decide(&[Post], None, 1)] {
            assert!(matches!(refused, Err(Refusal::SizeRequired { .. })), "{refused:?}");
            assert_eq!(refused.unwrap_err().field(), "file_size");
        }
    }

    #[test]
    fn downloads_are_shortened_on_request_and_never_lengthened_or_born_expired() {
        let rules = Rules { download_expires_in: Duration::from_mins(1), ..Rules::default() };
        for (asked, seconds) in [(None, 60), (Some(30), 30), (Some(60), 60), (Some(61), 60), (Some(0), 1)] {
            let decided = rules.decide_download(asked.map(Duration::from_secs));
            assert_eq!(decided, Duration::from_secs(seconds), "{asked:?}");
        }
    }

    #[test]
    fn reading_follows_owner_tenant_and_issuer() {
        let reader = |issuer: &str, subject: &str, tenant: Option<&str>| Principal {
            issuer: issuer.to_owned(),
            subject: subject.to_owned(),
            tenant: tenant.map(str::to_owned),
            can_upload: false,
            can_download: true,
            can_administer: false,
            authenticated_until: chrono::DateTime::<chrono::Utc>::MAX_UTC,
        };
        let owned = ("https://a", "alice", Some("acme"));
        let private = ("https://a", "alice", None);
        let unnamed = ("https://a", "alice", Some(""));
        // Columns: reader, owner, then whether owner, tenant and authenticated rules admit the reader.
        let table = [
            (reader("https://a", "alice", Some("acme")), owned, [true, true, true]),
            (reader("https://a", "alice", None), owned, [true, true, true]),
            (reader("https://a", "alice", Some("other")), private, [true, true, true]),
            (reader("https://a", "alice", Some("other")), owned, [false, false, true]),
            (reader("https://a", "bob", Some("acme")), owned, [false, true, true]),
            (reader("https://a", "bob", Some("Acme")), owned, [false, false, true]),
            (reader("https://a", "bob", None), owned, [false, false, true]),
            (reader("https://a", "bob", None), private, [false, false, true]),
            (reader("https://a", "bob", Some("acme")), private, [false, false, true]),
            (reader("https://a", "bob", Some("")), unnamed, [false, false, true]),
            (reader("https://b", "alice", Some("acme")), owned, [false, false, true]),
            (reader("https://b", "bob", Some("acme")), owned, [false, false, true]),
        ];
        for (reader, owner, expected) in table {
            let admitted = [Readers::Owner, Readers::Tenant, Readers::Authenticated]
                .map(|readers| Rules { readers, ..Rules::default() }.may_read(&reader, owner.0, owner.1, owner.2));
            assert_eq!(admitted, expected, "{reader:?} reads from {owner:?}");
        }
    }
}
