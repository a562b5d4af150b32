//! Query authentication for the parts of one multipart upload, thousands at a time.
//!
//! All their URLs and canonical requests begin alike, up to the number of the part. So the beginning is written, and its
//! digest begun, once; with a session token in it, that is most of the work.

use std::{fmt, sync::Arc, time::Duration};

use aws_lc_rs::digest;
use chrono::{DateTime, Utc};

use super::{
    PresignedUrl, Signer, SigningError, Validity, canonical_request::UNSIGNED_PAYLOAD, encode, signing_key::SigningKey,
    string_to_sign::string_to_sign,
};
use crate::model::{ObjectKey, PlannedPart, Sha256Digest};

const LENGTH: &str = "content-length";
const CHECKSUM: &str = "x-amz-checksum-sha256";
const PART_NUMBER: &str = "&partNumber=";

/// Signs `UploadPart` requests of one multipart upload, all from the same instant on for the same time.
pub struct PartSigner<'a> {
    signer: &'a Signer,
    signing_key: Arc<SigningKey>,
    validity: Validity,
    plain: Beginning,
    with_checksum: Beginning,
    /// What follows the number in the query.
    upload_id: String,
}

/// What the URLs of parts with the same headers have in common.
struct Beginning {
    /// `content-length;host`, for example.
    header_names: &'static str,
    /// Origin, path and query up to and with `partNumber=`.
    url: String,
    /// The canonical request as far.
    digest: digest::Context,
}

impl Signer {
    /// Signs parts of the multipart upload `upload_id` to `key` from `now`, cut to whole seconds, for `expires_in`.
    ///
    /// # Errors
    /// When a signature cannot live that long.
    pub fn part_signer(
        &self,
        key: &ObjectKey,
        upload_id: &str,
        now: DateTime<Utc>,
        expires_in: Duration,
    ) -> Result<PartSigner<'_>, SigningError> {
        let validity = self.validity(now, expires_in)?;
        let signing_key = self.signing_key.of_day(&self.credentials, validity.amz_date.date());
        let path = self.endpoint.object_path(key);
        let beginning = |header_names| {
            // Names of operations' parameters sort after those of the signature: lower case comes after upper case.
            let query = encode::canonical_query(self.own_parameters(&validity, &signing_key, header_names, 0));
            let mut digest = digest::Context::new(&digest::SHA256);
            for text in ["PUT\n", &path, "\n", &query, PART_NUMBER] {
                digest.update(text.as_bytes());
            }
            let url = [self.endpoint.origin(), &path, "?", &query, PART_NUMBER].concat();
            Beginning { header_names, url, digest }
        };
        Ok(PartSigner {
            signer: self,
            plain: beginning("content-length;host"),
            with_checksum: beginning("content-length;host;x-amz-checksum-sha256"),
            upload_id: ["&uploadId=", &encode::component(upload_id)].concat(),
            signing_key,
            validity,
        })
    }
}

impl PartSigner<'_> {
    /// Presigns one part. Its length is bound, and so is `checksum`.
    pub fn presign(&self, part: PlannedPart, checksum: Option<&Sha256Digest>) -> PresignedUrl {
        let (number, length) = (part.number().to_string(), part.length().to_string());
        let checksum = checksum.map(|checksum| checksum.to_base64());
        let beginning = if checksum.is_some() { &self.with_checksum } else { &self.plain };

        // The rest of what `canonical_request` would write.
        let mut rest = String::with_capacity(512);
        for text in
            [&*number, &self.upload_id, "\n", LENGTH, ":", &length, "\nhost:", self.signer.endpoint.host(), "\n"]
        {
            rest.push_str(text);
        }
        if let Some(checksum) = &checksum {
            for text in [CHECKSUM, ":", checksum, "\n"] {
                rest.push_str(text);
            }
        }
        for text in ["\n", beginning.header_names, "\n", UNSIGNED_PAYLOAD] {
            rest.push_str(text);
        }
        let mut digest = beginning.digest.clone();
        digest.update(rest.as_bytes());
        let string_to_sign = string_to_sign(&self.validity.amz_date, self.signing_key.scope(), &digest.finish());

        let end = "&X-Amz-Signature=";
        let length_of_end = number.len() + self.upload_id.len() + end.len() + 2 * digest::SHA256_OUTPUT_LEN;
        let mut url = String::with_capacity(beginning.url.len() + length_of_end);
        for text in [&*beginning.url, &number, &self.upload_id, end] {
            url.push_str(text);
        }
        self.signing_key.push_signature(&mut url, &string_to_sign);

        let mut headers = vec![(LENGTH.to_owned(), length)];
        headers.extend(checksum.map(|checksum| (CHECKSUM.to_owned(), checksum)));
        PresignedUrl { url, headers, expires_at: self.validity.expires_at }
    }
}

impl fmt::Debug for PartSigner<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PartSigner").field("expires_at", &self.validity.expires_at).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::borrow::Cow;

    use proptest::prelude::*;

    use super::*;
    use crate::{
        model::{ByteSize, PartNumber, PartPlan},
        signing::{Credentials, Method, PresignRequest, published_example},
    };

    fn signer(token: Option<&str>) -> Signer {
        let credentials = Credentials::new("AKID/+ =", "secret".into(), token.map(Into::into), None);
        Signer::new(credentials, "eu-central-1", published_example::endpoint())
    }

    proptest! {
        #[test]
        fn a_part_is_signed_as_any_other_request(
            key in "[a-zA-Z0-9+=&é日 ~.-]{1,40}k",
            upload_id in "[ -~]{1,80}",
            number in 1_u64..=10_000,
            token in proptest::option::of("[a-zA-Z0-9+/=]{1,400}"),
            checksum in proptest::option::of(any::<[u8; 32]>()),
            file_size in 9_999 * (5 << 20) + 1..=5_u64 << 40,
        ) {
            let (signer, key) = (signer(token.as_deref()), ObjectKey::parse(key).unwrap());
            let plan = PartPlan::new(file_size, ByteSize::from_bytes(5 << 20)).unwrap();
            let number = PartNumber::new(number % u64::from(plan.part_count()) + 1).unwrap();
            let (part, life) = (plan.part(number).unwrap(), Duration::from_mins(5));
            let checksum = checksum.map(Sha256Digest::from_bytes);

            let parts = signer.part_signer(&key, &upload_id, published_example::now(), life).unwrap();
            let found = parts.presign(part, checksum.as_ref());

            let mut headers = vec![(Cow::from("content-length"), Cow::from(part.length().to_string()))];
            headers.extend(checksum.map(|checksum| ("x-amz-checksum-sha256".into(), checksum.to_base64().into())));
            let query =
                vec![("partNumber".into(), part.number().to_string().into()), ("uploadId".into(), upload_id.into())];
            let request = PresignRequest { method: Method::Put, key: &key, query, headers };
            let expected = signer.presign(&request, published_example::now(), life).unwrap();
            prop_assert_eq!(found.url(), expected.url());
            prop_assert_eq!(found, expected);
        }
    }

    #[test]
    fn a_life_that_no_signature_can_have_is_refused() {
        let key = ObjectKey::parse("a").unwrap();
        let signer = signer(None);
        let refused = signer.part_signer(&key, "1", published_example::now(), Duration::ZERO);
        assert!(matches!(refused, Err(SigningError::ExpiresIn)));
    }
}
