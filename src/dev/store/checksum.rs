//! S3's checksums, and taking in a body so that it is checked before anybody can see it.
//!
//! <https://docs.aws.amazon.com/AmazonS3/latest/userguide/checking-object-integrity.html>

use std::path::Path;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use bytes::Bytes;
use futures_util::StreamExt as _;
use s3s::{
    S3Error, S3ErrorCode, S3Result, TrailingHeaders,
    checksum::ChecksumHasher,
    crypto::{Checksum as _, Md5},
    dto::{self, StreamingBlob},
    s3_error,
};
use serde::{Deserialize, Serialize};
use tokio::io::AsyncWriteExt as _;

use super::volume::{Blob, Volume, internal};

/// The most that one `PutObject`, form or `UploadPart` may carry: 5 GiB.
const MAX_BODY_BYTES: u64 = 5 << 30;

/// A checksum algorithm of S3.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub(super) enum ChecksumAlgorithm {
    Crc32,
    Crc32c,
    Crc64nvme,
    Sha1,
    Sha256,
}

impl ChecksumAlgorithm {
    const ALL: [Self; 5] = [Self::Crc32, Self::Crc32c, Self::Crc64nvme, Self::Sha1, Self::Sha256];

    /// The name in `x-amz-checksum-algorithm`.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Crc32 => "CRC32",
            Self::Crc32c => "CRC32C",
            Self::Crc64nvme => "CRC64NVME",
            Self::Sha1 => "SHA1",
            Self::Sha256 => "SHA256",
        }
    }

    pub(super) fn parse(name: &str) -> S3Result<Self> {
        Self::ALL
            .into_iter()
            .find(|algorithm| algorithm.name() == name)
            .ok_or_else(|| s3_error!(InvalidRequest, "Checksum algorithm provided is unsupported."))
    }

    const fn digest_bytes(self) -> usize {
        match self {
            Self::Crc32 | Self::Crc32c => 4,
            Self::Crc64nvme => 8,
            Self::Sha1 => 20,
            Self::Sha256 => 32,
        }
    }

    /// This algorithm's value among the five fields of a request or a digest.
    fn of(self, checksum: &dto::Checksum) -> Option<&String> {
        match self {
            Self::Crc32 => checksum.checksum_crc32.as_ref(),
            Self::Crc32c => checksum.checksum_crc32c.as_ref(),
            Self::Crc64nvme => checksum.checksum_crc64nvme.as_ref(),
            Self::Sha1 => checksum.checksum_sha1.as_ref(),
            Self::Sha256 => checksum.checksum_sha256.as_ref(),
        }
    }

    fn hasher(self) -> ChecksumHasher {
        let mut hasher = ChecksumHasher::default();
        match self {
            Self::Crc32 => hasher.crc32 = Some(s3s::crypto::Crc32::new()),
            Self::Crc32c => hasher.crc32c = Some(s3s::crypto::Crc32c::new()),
            Self::Crc64nvme => hasher.crc64nvme = Some(s3s::crypto::Crc64Nvme::new()),
            Self::Sha1 => hasher.sha1 = Some(s3s::crypto::Sha1::new()),
            Self::Sha256 => hasher.sha256 = Some(s3s::crypto::Sha256::new()),
        }
        hasher
    }

    /// The checksum of a multipart object: over the parts' checksums, followed by their number.
    ///
    /// `None` for CRC64NVME, which S3 computes over the whole object and never over checksums.
    pub(super) fn composite(self, parts: &[&StoredChecksum]) -> Option<StoredChecksum> {
        if self == Self::Crc64nvme {
            return None;
        }
        let mut hasher = self.hasher();
        for part in parts {
            hasher.update(&STANDARD.decode(&part.value).ok()?);
        }
        let value = format!("{}-{}", self.of(&hasher.finalize())?, parts.len());
        Some(StoredChecksum { algorithm: self, value, composite: true })
    }
}

/// The one checksum that S3 keeps of an object or a part.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct StoredChecksum {
    pub(super) algorithm: ChecksumAlgorithm,
    /// Padded base64; of a composite checksum followed by `-` and the number of parts.
    pub(super) value: String,
    pub(super) composite: bool,
}

impl StoredChecksum {
    /// The five fields of a response.
    pub(super) fn to_fields(&self) -> dto::Checksum {
        let mut fields = dto::Checksum::default();
        let field = match self.algorithm {
            ChecksumAlgorithm::Crc32 => &mut fields.checksum_crc32,
            ChecksumAlgorithm::Crc32c => &mut fields.checksum_crc32c,
            ChecksumAlgorithm::Crc64nvme => &mut fields.checksum_crc64nvme,
            ChecksumAlgorithm::Sha1 => &mut fields.checksum_sha1,
            ChecksumAlgorithm::Sha256 => &mut fields.checksum_sha256,
        };
        *field = Some(self.value.clone());
        let kind = if self.composite { dto::ChecksumType::COMPOSITE } else { dto::ChecksumType::FULL_OBJECT };
        fields.checksum_type = Some(dto::ChecksumType::from_static(kind));
        fields
    }

    /// Whether `declared` names another value for this algorithm.
    pub(super) fn contradicts(&self, declared: &dto::Checksum) -> bool {
        self.algorithm.of(declared).is_some_and(|value| *value != self.value)
    }

    /// Whether `declared` has a value for this algorithm.
    pub(super) fn is_declared_in(&self, declared: &dto::Checksum) -> bool {
        self.algorithm.of(declared).is_some()
    }
}

/// The checksum fields of `$input` as one value.
macro_rules! checksum_fields {
    ($input:expr) => {
        s3s::dto::Checksum {
            checksum_crc32: $input.checksum_crc32.take(),
            checksum_crc32c: $input.checksum_crc32c.take(),
            checksum_crc64nvme: $input.checksum_crc64nvme.take(),
            checksum_sha1: $input.checksum_sha1.take(),
            checksum_sha256: $input.checksum_sha256.take(),
            checksum_type: None,
        }
    };
}
pub(super) use checksum_fields;

/// What a request promises of its body.
#[derive(Debug, Default)]
pub(super) struct Declared {
    pub(super) length: Option<u64>,
    pub(super) content_md5: Option<String>,
    pub(super) checksum: dto::Checksum,
    /// Named by `x-amz-trailer` or `x-amz-sdk-checksum-algorithm`; the value may follow the body.
    pub(super) algorithm: Option<dto::ChecksumAlgorithm>,
    pub(super) trailers: Option<TrailingHeaders>,
}

/// A body that arrived and holds what was promised.
#[derive(Debug)]
pub(super) struct Received {
    pub(super) blob: Blob,
    pub(super) size: u64,
    /// MD5 in hexadecimal, the entity tag of what is not multipart.
    pub(super) etag: String,
    pub(super) checksum: StoredChecksum,
    /// Whether the client named the algorithm, or the store chose one for it.
    pub(super) checksum_declared: bool,
}

/// Writes `body` to a new blob, hashing it on the way, and compares before it returns. A body that is not what was
/// promised leaves nothing behind.
///
/// Without a declared algorithm the checksum is CRC64NVME, as S3 itself chooses.
pub(super) async fn receive(volume: &Volume, body: Option<StreamingBlob>, declared: Declared) -> S3Result<Received> {
    let wanted = wanted_algorithm(&declared)?;
    let content_md5 = declared.content_md5.as_deref().map(parse_md5).transpose()?;
    if declared.length.is_some_and(|length| length > MAX_BODY_BYTES) {
        return Err(too_large());
    }
    let algorithm = wanted.unwrap_or(ChecksumAlgorithm::Crc64nvme);
    let blob = volume.new_blob()?;
    let (size, md5, checksum) = write(blob.path(), body, algorithm.hasher()).await?;
    if declared.length.is_some_and(|length| length != size) {
        return Err(s3_error!(
            IncompleteBody,
            "You did not provide the number of bytes specified by the Content-Length HTTP header"
        ));
    }
    if content_md5.is_some_and(|expected| expected != md5) {
        return Err(bad_digest("Content-MD5"));
    }
    let value = algorithm.of(&checksum).cloned().unwrap_or_default();
    let trailer = format!("x-amz-checksum-{}", algorithm.name().to_ascii_lowercase());
    let trailing = declared
        .trailers
        .and_then(|trailers| trailers.take())
        .and_then(|trailers| trailers.get(trailer.as_str()).and_then(|value| value.to_str().ok().map(str::to_owned)));
    for expected in algorithm.of(&declared.checksum).into_iter().chain(&trailing) {
        if *expected != value {
            return Err(bad_digest(algorithm.name()));
        }
    }
    Ok(Received {
        blob,
        size,
        etag: hex::encode(md5),
        checksum: StoredChecksum { algorithm, value, composite: false },
        checksum_declared: wanted.is_some(),
    })
}

async fn write(
    path: &Path,
    body: Option<StreamingBlob>,
    mut hasher: ChecksumHasher,
) -> S3Result<(u64, [u8; 16], dto::Checksum)> {
    let mut file = tokio::fs::File::create_new(path).await.map_err(internal)?;
    let mut md5 = Md5::new();
    let mut size = 0;
    let mut body = futures_util::stream::iter(body).flatten();
    while let Some(chunk) = body.next().await {
        let chunk: Bytes = chunk.map_err(|error| unreadable(&error))?;
        size += u64::try_from(chunk.len()).unwrap_or(u64::MAX);
        if size > MAX_BODY_BYTES {
            return Err(too_large());
        }
        md5.update(&chunk);
        hasher.update(&chunk);
        file.write_all(&chunk).await.map_err(internal)?;
    }
    // A tokio file reports a failed write at the next call; without this the last one would go unnoticed.
    file.flush().await.map_err(internal)?;
    Ok((size, md5.finalize(), hasher.finalize()))
}

fn wanted_algorithm(declared: &Declared) -> S3Result<Option<ChecksumAlgorithm>> {
    let mut named = ChecksumAlgorithm::ALL.into_iter().filter(|algorithm| algorithm.of(&declared.checksum).is_some());
    let first = named.next();
    if named.next().is_some() {
        return Err(s3_error!(
            InvalidRequest,
            "Expecting a single x-amz-checksum- header. Multiple checksum Types are not allowed."
        ));
    }
    if let Some((algorithm, value)) = first.and_then(|algorithm| Some((algorithm, algorithm.of(&declared.checksum)?))) {
        if STANDARD.decode(value).map(|digest| digest.len()) != Ok(algorithm.digest_bytes()) {
            return Err(s3_error!(
                InvalidRequest,
                "Value for x-amz-checksum-{} header is invalid.",
                algorithm.name().to_ascii_lowercase()
            ));
        }
        return Ok(first);
    }
    declared.algorithm.as_ref().map(|algorithm| ChecksumAlgorithm::parse(algorithm.as_str())).transpose()
}

fn parse_md5(text: &str) -> S3Result<[u8; 16]> {
    STANDARD
        .decode(text)
        .ok()
        .and_then(|digest| digest.try_into().ok())
        .ok_or_else(|| s3_error!(InvalidDigest, "The Content-MD5 you specified is not valid."))
}

fn bad_digest(what: &str) -> S3Error {
    s3_error!(BadDigest, "The {what} you specified did not match the calculated checksum.")
}

fn too_large() -> S3Error {
    s3_error!(EntityTooLarge, "Your proposed upload exceeds the maximum allowed object size.")
}

/// A body that breaks off is the client's doing; anything else is the signature layer's verdict on its bytes.
fn unreadable(error: &s3s::StdError) -> S3Error {
    if error.is::<hyper::Error>() {
        return s3_error!(IncompleteBody, "The body ended before its announced length");
    }
    let mut mismatch = S3Error::with_message(
        S3ErrorCode::Custom("XAmzContentSHA256Mismatch".into()),
        "The provided 'x-amz-content-sha256' header does not match what was computed.",
    );
    mismatch.set_status_code(hyper::StatusCode::BAD_REQUEST);
    mismatch
}
