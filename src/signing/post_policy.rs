//! POST authentication: a form whose policy says what may be uploaded with it.

use std::{borrow::Cow, fmt, ops::RangeInclusive, time::Duration};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use chrono::{DateTime, SecondsFormat, Utc};
use secrecy::ExposeSecret as _;

use crate::model::{Metadata, ObjectKey, Sha256Digest};

use super::{ALGORITHM, Signer, SigningError, json};

/// One upload that somebody else will send as a form. All but its length is exact: the store refuses any other upload.
#[derive(Debug, Clone)]
pub struct PostForm<'a> {
    /// The object.
    pub key: &'a ObjectKey,
    /// The lengths in bytes that the file may have.
    pub content_length: RangeInclusive<u64>,
    /// The media type that the object will have.
    pub content_type: &'a str,
    /// The digest of the file, which the store checks and keeps.
    pub checksum_sha256: Option<&'a Sha256Digest>,
    /// User metadata that the object will have.
    pub metadata: &'a Metadata,
    /// What the store answers.
    pub success_action: SuccessAction<'a>,
}

/// What the store answers when it has taken a form.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SuccessAction<'a> {
    /// This status: 201 (with the object's location and entity tag as XML), 200 or 204.
    Status(u16),
    /// 303 and this URL, to which the store adds bucket, key and entity tag.
    Redirect(&'a str),
}

impl SuccessAction<'_> {
    fn field(self) -> Result<(&'static str, String), SigningError> {
        match self {
            Self::Status(status @ (200 | 201 | 204)) => Ok(("success_action_status", status.to_string())),
            Self::Status(status) => Err(SigningError::SuccessActionStatus(status)),
            Self::Redirect(url) => Ok(("success_action_redirect", url.to_owned())),
        }
    }
}

/// A form that needs no other authentication. Whoever holds it may send it until it expires, so it never shows in a log.
#[derive(Clone, PartialEq, Eq)]
pub struct PresignedPost {
    /// Where the form goes.
    pub url: String,
    /// Names and values of the form's fields, in the order in which to send them. The file comes after them all: S3
    /// ignores what follows it.
    pub fields: Vec<(Cow<'static, str>, String)>,
    /// When the store starts to refuse the form. An upload that runs by then may finish.
    pub expires_at: DateTime<Utc>,
}

impl PresignedPost {
    /// The fields as a JSON object, in their order.
    pub fn fields_json(&self) -> String {
        let length = self.fields.iter().map(|(name, value)| name.len() + value.len() + 6).sum::<usize>();
        let mut json = String::with_capacity(length + 2);
        let mut separator = '{';
        for (name, value) in &self.fields {
            json.push(separator);
            separator = ',';
            json::push_string(&mut json, name);
            json.push(':');
            json::push_string(&mut json, value);
        }
        json.push('}');
        json
    }
}

impl fmt::Debug for PresignedPost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PresignedPost").field("expires_at", &self.expires_at).finish_non_exhaustive()
    }
}

impl Signer {
    /// Presigns `form` from `now`, cut to whole seconds, for `expires_in`.
    ///
    /// The fields of the form are the conditions of its policy, so none is missing there: S3 refuses a form with a
    /// field that its policy does not mention.
    pub fn presign_post(
        &self,
        form: &PostForm<'_>,
        now: DateTime<Utc>,
        expires_in: Duration,
    ) -> Result<PresignedPost, SigningError> {
        if form.key.as_str().contains("${filename}") {
            return Err(SigningError::KeyIsTemplate);
        }
        let (success_action, success_value) = form.success_action.field()?;
        let validity = self.validity(now, expires_in)?;
        let signing_key = self.signing_key.of_day(&self.credentials, validity.amz_date.date());

        let mut fields: Vec<(Cow<'static, str>, String)> = Vec::with_capacity(16);
        fields.push(("key".into(), form.key.as_str().to_owned()));
        fields.push(("Content-Type".into(), form.content_type.to_owned()));
        fields.push((success_action.into(), success_value));
        if let Some(digest) = form.checksum_sha256 {
            fields.push(("x-amz-checksum-algorithm".into(), "SHA256".to_owned()));
            fields.push(("x-amz-checksum-sha256".into(), digest.to_base64()));
        }
        for (name, value) in form.metadata.iter() {
            fields.push((["x-amz-meta-", name].concat().into(), value.to_owned()));
        }
        fields.push(("x-amz-algorithm".into(), ALGORITHM.to_owned()));
        fields.push(("x-amz-credential".into(), signing_key.credential().to_owned()));
        fields.push(("x-amz-date".into(), validity.amz_date.as_str().to_owned()));
        if let Some(token) = self.credentials.session_token() {
            fields.push(("x-amz-security-token".into(), token.expose_secret().to_owned()));
        }

        let string_to_sign = policy(validity.expires_at, self.endpoint.bucket(), &form.content_length, &fields);
        let mut signature = String::with_capacity(64);
        signing_key.push_signature(&mut signature, &string_to_sign);
        fields.push(("policy".into(), string_to_sign));
        fields.push(("x-amz-signature".into(), signature));
        Ok(PresignedPost { url: self.endpoint.form_url(), fields, expires_at: validity.expires_at })
    }
}

/// "POST Policy" of the Amazon S3 API Reference: exactly this bucket and these fields, and a length in this range. As the form carries
/// it, which is also what is signed: base64 of UTF-8 JSON.
fn policy(
    expires_at: DateTime<Utc>,
    bucket: &str,
    content_length: &RangeInclusive<u64>,
    fields: &[(Cow<'static, str>, String)],
) -> String {
    let mut json =
        String::with_capacity(512 + fields.iter().map(|(name, value)| name.len() + value.len()).sum::<usize>());
    json.push_str("{\"expiration\":");
    json::push_string(&mut json, &expires_at.to_rfc3339_opts(SecondsFormat::Millis, true));
    json.push_str(",\"conditions\":[{\"bucket\":");
    json::push_string(&mut json, bucket);
    json.push_str("},[\"content-length-range\",");
    let (least, most) = (content_length.start().to_string(), content_length.end().to_string());
    json.extend([&least, ",", &most, "]"]);
    for (name, value) in fields {
        json.push_str(",{");
        json::push_string(&mut json, name);
        json.push(':');
        json::push_string(&mut json, value);
        json.push('}');
    }
    json.push_str("]}");
    STANDARD.encode(json)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::signing::{Credentials, published_example, signing_key::SigningKeyCache};

    const FIVE_MINUTES: Duration = Duration::from_mins(5);

    fn presign(signer: &Signer, key: &str, success_action: SuccessAction<'_>) -> Result<PresignedPost, SigningError> {
        let entries = [("case", "42"), ("by", "a \"b\"")].map(|(name, value)| (name.to_owned(), value.to_owned()));
        let form = PostForm {
            key: &ObjectKey::parse(key).unwrap(),
            content_length: 77_000..=77_000,
            content_type: "application/pdf",
            checksum_sha256: Some(&Sha256Digest::from_bytes([0; 32])),
            metadata: &Metadata::parse(BTreeMap::from(entries)).unwrap(),
            success_action,
        };
        signer.presign_post(&form, published_example::now(), FIVE_MINUTES)
    }

    fn session_signer() -> Signer {
        let credentials = Credentials::new("AKID", "hush".into(), Some("to/ken".into()), None);
        Signer::new(credentials, "us-east-1", published_example::endpoint())
    }

    /// "Example: Browser-Based Upload using HTTP POST" of the Amazon S3 API Reference.
    #[test]
    fn published_example_has_this_signature() {
        let policy = [
            r#"{ "expiration": "2015-12-30T12:00:00.000Z","#,
            r#"  "conditions": ["#,
            r#"    {"bucket": "sigv4examplebucket"},"#,
            r#"    ["starts-with", "$key", "user/user1/"],"#,
            r#"    {"acl": "public-read"},"#,
            r#"    {"success_action_redirect": "http://sigv4examplebucket.s3.amazonaws.com/successful_upload.html"},"#,
            r#"    ["starts-with", "$Content-Type", "image/"],"#,
            r#"    {"x-amz-meta-uuid": "14365123651274"},"#,
            r#"    {"x-amz-server-side-encryption": "AES256"},"#,
            r#"    ["starts-with", "$x-amz-meta-tag", ""],"#,
            "",
            r#"    {"x-amz-credential": "AKIAIOSFODNN7EXAMPLE/20151229/us-east-1/s3/aws4_request"},"#,
            r#"    {"x-amz-algorithm": "AWS4-HMAC-SHA256"},"#,
            r#"    {"x-amz-date": "20151229T000000Z" }"#,
            "  ]",
            "}",
        ];
        let string_to_sign = STANDARD.encode(policy.join("\r\n"));
        let signing_key =
            SigningKeyCache::new("us-east-1".to_owned()).of_day(&published_example::credentials(), "20151229");
        let mut signature = String::new();
        signing_key.push_signature(&mut signature, &string_to_sign);
        assert_eq!(signature, "8afdbf4008c03f22c2cd3cdb72e4afbb1f6a588f3255ac628749a66d7f09699e");
    }

    #[test]
    fn policy_is_compact_and_demands_every_field() {
        let post = presign(&session_signer(), "uploads/é \"1\".pdf", SuccessAction::Status(201)).unwrap();
        let names: Vec<&str> = post.fields.iter().map(|(name, _)| name.as_ref()).collect();
        assert_eq!(
            names,
            [
                "key",
                "Content-Type",
                "success_action_status",
                "x-amz-checksum-algorithm",
                "x-amz-checksum-sha256",
                "x-amz-meta-by",
                "x-amz-meta-case",
                "x-amz-algorithm",
                "x-amz-credential",
                "x-amz-date",
                "x-amz-security-token",
                "policy",
                "x-amz-signature",
            ]
        );
        let (_, policy) = post.fields.iter().find(|(name, _)| name == "policy").unwrap();
        let policy = String::from_utf8(STANDARD.decode(policy).unwrap()).unwrap();
        assert_eq!(
            policy,
            concat!(
                r#"{"expiration":"2013-05-24T00:05:00.000Z","conditions":[{"bucket":"examplebucket"},"#,
                r#"["content-length-range",77000,77000],{"key":"uploads/é \"1\".pdf"},{"Content-Type":"application/pdf"},"#,
                r#"{"success_action_status":"201"},{"x-amz-checksum-algorithm":"SHA256"},"#,
                r#"{"x-amz-checksum-sha256":"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="},"#,
                r#"{"x-amz-meta-by":"a \"b\""},{"x-amz-meta-case":"42"},{"x-amz-algorithm":"AWS4-HMAC-SHA256"},"#,
                r#"{"x-amz-credential":"AKID/20130524/us-east-1/s3/aws4_request"},{"x-amz-date":"20130524T000000Z"},"#,
                r#"{"x-amz-security-token":"to/ken"}]}"#
            )
        );
        assert_eq!(post.url, "https://examplebucket.s3.amazonaws.com/");
        assert_eq!(post.expires_at.to_rfc3339(), "2013-05-24T00:05:00+00:00");
    }

    #[test]
    fn client_cannot_choose_the_key_nor_the_store_its_status() {
        let signer = published_example::signer();
        assert!(matches!(
            presign(&signer, "uploads/${filename}", SuccessAction::Status(201)),
            Err(SigningError::KeyIsTemplate)
        ));
        let other = presign(&signer, "k", SuccessAction::Status(202));
        assert!(matches!(other, Err(SigningError::SuccessActionStatus(202))));
    }

    #[test]
    fn a_form_that_redirects_demands_that_url_and_no_status() {
        let url = "https://files.example.com/callback?token=hush&next=https%3A%2F%2Fapp.example.com";
        let post = presign(&session_signer(), "k", SuccessAction::Redirect(url)).unwrap();
        let field = |wanted: &str| post.fields.iter().find(|(name, _)| name == wanted).map(|(_, value)| value.as_str());
        assert_eq!(field("success_action_redirect"), Some(url));
        assert_eq!(field("success_action_status"), None);
        let policy = String::from_utf8(STANDARD.decode(field("policy").unwrap()).unwrap()).unwrap();
        assert!(policy.contains(&format!("{{\"success_action_redirect\":\"{url}\"}}")), "{policy}");
        assert!(!policy.contains("success_action_status"));
    }

    #[test]
    fn debug_shows_nothing_that_opens_the_bucket() {
        let shown = format!("{:?}", presign(&session_signer(), "k", SuccessAction::Status(201)).unwrap());
        assert_eq!(shown, "PresignedPost { expires_at: 2013-05-24T00:05:00Z, .. }");
    }
}
