//! The CORS rules that the bucket needs, so that pages may send and read what this service signs.
//!
//! <https://docs.aws.amazon.com/AmazonS3/latest/userguide/ManageCorsUsing.html>

use serde::Serialize;

use crate::{model::UploadMethod, policy::PolicyDocument};

/// How long a browser may remember the answer to a preflight, in seconds.
const MAX_AGE_SECONDS: u32 = 3600;

/// The rules of a bucket, in the spelling of S3's `PutBucketCors`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct BucketCors {
    /// In the order in which the store tries them.
    #[serde(rename = "CORSRules")]
    pub rules: Vec<CorsRule>,
}

/// What pages of some origins may do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct CorsRule {
    /// Names the rule.
    #[serde(rename = "ID")]
    pub id: &'static str,
    /// The origins of the pages.
    pub allowed_origins: Vec<String>,
    /// The methods of the request.
    pub allowed_methods: Vec<&'static str>,
    /// The headers that the page may set besides those that every page may.
    pub allowed_headers: Vec<&'static str>,
    /// The headers of the answer that the page may read besides those that every page may.
    pub expose_headers: Vec<&'static str>,
    /// How long a browser may remember that it is allowed.
    pub max_age_seconds: u32,
}

impl BucketCors {
    /// What pages of `origins` need for the uploads and downloads that `document` allows, now or at any planned instant:
    /// nobody wants to change a bucket at midnight.
    ///
    /// One rule for everything: Ceph RGW and SeaweedFS go by the first rule that has the origin, and do not look
    /// whether a later one has the method as well.
    pub fn needed(document: &PolicyDocument, origins: &[String]) -> Self {
        let uploads_by = |method| document.all_rules().any(|(_, rules)| rules.methods.contains(&method));
        let [put, post, multipart, credentials] =
            [UploadMethod::Put, UploadMethod::Post, UploadMethod::Multipart, UploadMethod::Credentials].map(uploads_by);
        let listed = |items: &[(&'static str, bool)]| -> Vec<&'static str> {
            items.iter().filter(|(_, is_needed)| *is_needed).map(|(item, _)| *item).collect()
        };
        let rule = CorsRule {
            id: "presignd",
            allowed_origins: origins.to_vec(),
            allowed_methods: listed(&[
                ("PUT", put || multipart || credentials),
                // By credentials, a page begins and completes files in parts itself, and gives them up.
                ("POST", post || credentials),
                ("DELETE", credentials),
                ("GET", true),
            ]),
            // The fields of a form are no headers, and of a part nothing but its digest is said.
            allowed_headers: listed(&[
                ("content-type", put || credentials),
                // Of Active Storage, whose clients promise it instead of a SHA-256.
                ("content-md5", put),
                ("if-none-match", put),
                ("x-amz-checksum-sha256", put || multipart),
                ("x-amz-meta-*", put),
                ("range", true),
            ]),
            expose_headers: listed(&[
                ("ETag", true),
                ("Location", post || credentials),
                ("Content-Disposition", true),
                ("Content-Range", true),
            ]),
            max_age_seconds: MAX_AGE_SECONDS,
        };
        Self { rules: vec![rule] }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn needed(policies: &str) -> CorsRule {
        let document = PolicyDocument::parse(policies).unwrap();
        BucketCors::needed(&document, &["https://a.example".to_owned()]).rules.remove(0)
    }

    #[test]
    fn methods_are_those_of_any_policy_at_any_time() {
        let other = "[policy.default]\nmethods = [\"post\"]\n[policy.other]\nmethods = [\"put\"]\n";
        let planned = "[policy.default]\nmethods = [\"post\"]\n\
                       [[policy.default.schedule]]\nfrom = 2999-01-01T00:00:00Z\nmethods = [\"put\"]\n";
        for (policies, methods) in [
            ("[policy.default]\n", &["PUT", "POST", "GET"][..]),
            ("[policy.default]\nmethods = [\"put\"]\n", &["PUT", "GET"]),
            ("[policy.default]\nmethods = [\"post\"]\n", &["POST", "GET"]),
            ("[policy.default]\nmethods = [\"post\", \"multipart\"]\n", &["PUT", "POST", "GET"]),
            (
                "[policy.default]\nmethods = [\"credentials\"]\nupload.expires_in = \"15m\"\n",
                &["PUT", "POST", "DELETE", "GET"],
            ),
            (other, &["PUT", "POST", "GET"]),
            (planned, &["PUT", "POST", "GET"]),
        ] {
            assert_eq!(needed(policies).allowed_methods, methods, "{policies}");
        }
    }

    #[test]
    fn headers_are_those_of_the_methods() {
        let rule = needed("[policy.default]\nmethods = [\"multipart\"]\n");
        assert_eq!(rule.allowed_headers, ["x-amz-checksum-sha256", "range"]);
        assert_eq!(rule.expose_headers, ["ETag", "Content-Disposition", "Content-Range"]);
        let rule = needed("[policy.default]\nmethods = [\"post\"]\n");
        assert_eq!(rule.allowed_headers, ["range"]);
        assert_eq!(rule.expose_headers, ["ETag", "Location", "Content-Disposition", "Content-Range"]);
    }

    #[test]
    fn the_spelling_is_that_of_put_bucket_cors() {
        let document = PolicyDocument::parse("[policy.default]\nmethods = [\"put\"]\n").unwrap();
        let origins = ["https://a.example".to_owned(), "https://b.example".to_owned()];
        assert_eq!(
            serde_json::to_value(BucketCors::needed(&document, &origins)).unwrap(),
            serde_json::json!({ "CORSRules": [{
                "ID": "presignd",
                "AllowedOrigins": ["https://a.example", "https://b.example"],
                "AllowedMethods": ["PUT", "GET"],
                "AllowedHeaders": [
                    "content-type",
                    "content-md5",
                    "if-none-match",
                    "x-amz-checksum-sha256",
                    "x-amz-meta-*",
                    "range",
                ],
                "ExposeHeaders": ["ETag", "Content-Disposition", "Content-Range"],
                "MaxAgeSeconds": 3600,
            }] })
        );
    }
}
