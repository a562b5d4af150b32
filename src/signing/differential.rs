//! The same requests signed by AWS's own code.

use std::{
    borrow::Cow,
    sync::Arc,
    time::{Duration, SystemTime},
};

use aws_credential_types::Credentials as AwsCredentials;
use aws_sigv4::{
    http_request::{
        PayloadChecksumKind, PercentEncodingMode, SignableBody, SignableRequest, SignatureLocation, SigningSettings,
        UriPathNormalizationMode, sign,
    },
    sign::v4,
};
use chrono::{DateTime, Utc};
use proptest::{prelude::*, sample::select};

use super::{Addressing, Credentials, Endpoint, Method, PresignRequest, Signer, published_example};
use crate::model::ObjectKey;

const ACCESS_KEY_ID: &str = "AKIAIOSFODNN7EXAMPLE";
const SECRET_ACCESS_KEY: &str = "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY";
const BUCKET: &str = "example.bucket-1";

type Pairs = Vec<(String, String)>;

#[derive(Debug, Clone)]
struct Case {
    method: Method,
    /// As configured, and as the client will name it.
    url: &'static str,
    addressing: Addressing,
    key: String,
    query: Pairs,
    headers: Pairs,
    session_token: Option<String>,
    region: &'static str,
    now: DateTime<Utc>,
    expires_in: u64,
}

impl Case {
    fn get(key: &str) -> Self {
        Self {
            method: Method::Get,
            url: "https://s3.amazonaws.com",
            addressing: Addressing::Path,
            key: key.to_owned(),
            query: Pairs::new(),
            headers: Pairs::new(),
            session_token: None,
            region: "us-east-1",
            now: published_example::now(),
            expires_in: 86_400,
        }
    }

    fn query(mut self, pairs: &[(&str, &str)]) -> Self {
        self.query = pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        self
    }

    fn put(mut self, headers: &[(&str, &str)]) -> Self {
        self.method = Method::Put;
        self.headers = headers.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        self
    }

    fn sign(&self) -> String {
        let token = self.session_token.clone().map(Into::into);
        let credentials = Credentials::new(ACCESS_KEY_ID, SECRET_ACCESS_KEY.into(), token, None);
        let endpoint = Endpoint::new(self.url, BUCKET, self.addressing).unwrap();
        let key = ObjectKey::parse(&*self.key).unwrap();
        let request =
            PresignRequest { method: self.method, key: &key, query: cows(&self.query), headers: cows(&self.headers) };
        let signer = Signer::new(credentials, self.region, Arc::new(endpoint));
        signer.presign(&request, self.now, Duration::from_secs(self.expires_in)).unwrap().into_url()
    }

    /// Scheme, host and encoded path, put together without any code of this room.
    fn oracle_target(&self) -> String {
        let path: Vec<String> = self.key.split('/').map(percent_encode).collect();
        match (self.addressing, self.url.split_once("://").unwrap()) {
            (Addressing::Path, _) => format!("{}/{BUCKET}/{}", self.url, path.join("/")),
            (Addressing::VirtualHosted, (scheme, host)) => format!("{scheme}://{BUCKET}.{host}/{}", path.join("/")),
        }
    }

    /// The URL of `aws-sigv4`, with the query in the order of its canonical request.
    fn oracle_sign(&self) -> String {
        let identity =
            AwsCredentials::new(ACCESS_KEY_ID, SECRET_ACCESS_KEY, self.session_token.clone(), None, "test").into();
        let mut settings = SigningSettings::default();
        settings.percent_encoding_mode = PercentEncodingMode::Single;
        settings.payload_checksum_kind = PayloadChecksumKind::NoHeader;
        settings.signature_location = SignatureLocation::QueryParams;
        settings.uri_path_normalization_mode = UriPathNormalizationMode::Disabled;
        settings.expires_in = Some(Duration::from_secs(self.expires_in));
        let params = v4::SigningParams::builder()
            .identity(&identity)
            .region(self.region)
            .name("s3")
            .time(self.now.into())
            .settings(settings)
            .build()
            .unwrap()
            .into();
        let mut query: Pairs =
            self.query.iter().map(|(name, value)| (percent_encode(name), percent_encode(value))).collect();
        let joined: Vec<String> = query.iter().map(|(name, value)| format!("{name}={value}")).collect();
        let target = self.oracle_target();
        let url = format!("{target}?{}", joined.join("&"));
        let headers = self.headers.iter().map(|(name, value)| (name.as_str(), value.as_str()));
        let request = SignableRequest::new(self.method.as_str(), url, headers, SignableBody::UnsignedPayload).unwrap();
        let (instructions, signature) = sign(request, &params).unwrap().into_parts();
        for (name, value) in instructions.params() {
            if *name != "X-Amz-Signature" {
                query.push((percent_encode(name), percent_encode(value)));
            }
        }
        query.sort();
        let joined: Vec<String> = query.iter().map(|(name, value)| format!("{name}={value}")).collect();
        format!("{target}?{}&X-Amz-Signature={signature}", joined.join("&"))
    }
}

fn cows(pairs: &Pairs) -> Vec<(Cow<'_, str>, Cow<'_, str>)> {
    pairs.iter().map(|(name, value)| (name.into(), value.into())).collect()
}

fn percent_encode(text: &str) -> String {
    let encode = |byte: u8| match char::from(byte) {
        c @ ('A'..='Z' | 'a'..='z' | '0'..='9' | '-' | '_' | '.' | '~') => c.to_string(),
        _ => format!("%{byte:02X}"),
    };
    text.bytes().map(encode).collect()
}

fn percent_decode(text: &str) -> String {
    let mut parts = text.split('%');
    let mut bytes = parts.next().unwrap().as_bytes().to_vec();
    for part in parts {
        bytes.push(u8::from_str_radix(&part[..2], 16).unwrap());
        bytes.extend(&part.as_bytes()[2..]);
    }
    String::from_utf8(bytes).unwrap()
}

/// Text with every character that some encoder treats differently.
fn text() -> impl Strategy<Value = String> {
    prop::collection::vec(select(" +%&=~#?;,:@!$'()*[]{}<>|^`\"-_.aZ09éß日🦀\u{a0}".chars().collect::<Vec<_>>()), 0..20)
        .prop_map(|chars| chars.into_iter().collect())
}

fn key() -> impl Strategy<Value = String> {
    let segment = text().prop_map(|text| format!("{text}k"));
    prop::collection::vec(segment, 1..4).prop_map(|segments| segments.join("/"))
}

fn header_value() -> impl Strategy<Value = String> {
    prop::collection::vec(32_u8..127, 0..24).prop_map(|bytes| bytes.into_iter().map(char::from).collect())
}

fn headers() -> impl Strategy<Value = Pairs> {
    let names = [
        "content-length",
        "content-md5",
        "content-type",
        "if-none-match",
        "x-amz-checksum-sha256",
        "x-amz-meta-",
        "x-amz-meta-a_b",
        "x-amz-meta-a-b",
        "x-amz-sdk-checksum-algorithm",
        "x-amz-storage-class",
    ];
    let values = prop::collection::vec(header_value(), names.len());
    (prop::sample::subsequence(names.to_vec(), 0..5).prop_shuffle(), values)
        .prop_map(|(names, values)| names.into_iter().map(str::to_owned).zip(values).collect())
}

fn case() -> impl Strategy<Value = Case> {
    let place = select(vec![
        ("https://s3.amazonaws.com", Addressing::Path),
        ("https://s3.amazonaws.com", Addressing::VirtualHosted),
        ("http://127.0.0.1:9000", Addressing::Path),
        ("http://localhost:443", Addressing::VirtualHosted),
        ("http://[::1]:9000", Addressing::Path),
        ("https://store.example:80", Addressing::Path),
    ]);
    let method = select(vec![Method::Get, Method::Head, Method::Put, Method::Post, Method::Delete]);
    let query = prop::collection::vec((text(), text()), 0..4);
    let token = prop::option::of("[A-Za-z0-9+/=]{1,200}");
    let region = select(vec!["us-east-1", "eu-central-1", "garage"]);
    let time = (0_i64..4_102_444_800, 1_u64..=604_800);
    (method, place, key(), query, headers(), token, region, time).prop_map(
        |(method, (url, addressing), key, query, headers, session_token, region, (seconds, expires_in))| Case {
            method,
            url,
            addressing,
            key,
            query,
            headers,
            session_token,
            region,
            expires_in,
            now: DateTime::from_timestamp(seconds, 0).unwrap(),
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 3_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn aws_sigv4_signs_any_request_the_same(case in case()) {
        prop_assert_eq!(case.sign(), case.oracle_sign());
    }

    #[test]
    fn emitted_query_is_what_was_asked_for(case in case()) {
        let url = case.sign();
        let (target, query) = url.split_once('?').unwrap();
        prop_assert_eq!(target, case.oracle_target());
        let pairs: Pairs = query
            .split('&')
            .map(|pair| pair.split_once('=').unwrap())
            .map(|(name, value)| (percent_decode(name), percent_decode(value)))
            .collect();
        let mut asked: Pairs = pairs.iter().filter(|(name, _)| !name.starts_with("X-Amz-")).cloned().collect();
        let mut given = case.query.clone();
        asked.sort();
        given.sort();
        prop_assert_eq!(asked, given);
        let token = pairs.iter().find(|(name, _)| name == "X-Amz-Security-Token").map(|(_, value)| value);
        prop_assert_eq!(token, case.session_token.as_ref());
        prop_assert_eq!(&pairs.last().unwrap().0, "X-Amz-Signature");
    }

    #[test]
    fn path_of_any_accepted_key_stays_in_the_bucket(key in "\\PC{1,40}|[./%2eE\\\\]{1,12}") {
        if let Ok(key) = ObjectKey::parse(key) {
            let endpoint = Endpoint::new("https://s3.amazonaws.com", BUCKET, Addressing::Path).unwrap();
            let path = endpoint.object_path(&key);
            let rest = path.strip_prefix("/example.bucket-1/").unwrap();
            prop_assert!(rest.split('/').all(|s| !["", ".", ".."].contains(&&*s.to_lowercase().replace("%2e", "."))));
            prop_assert!(!rest.contains(['?', '#', '\\']), "{}", rest);
            prop_assert_eq!(percent_decode(rest), key.as_str());
        }
    }
}

/// One case for each thing that signers are known to get wrong.
#[test]
fn aws_sigv4_signs_the_table_the_same() {
    let long_key = "k".repeat(1024);
    let plain = [
        "k",
        "a b",
        "a+b",
        "a%20b",
        "100%",
        "a%2Fb",
        "é",
        "e\u{301}",
        "🦀",
        "~",
        "a=b&c",
        "a/b/c",
        "a?b#c",
        "!$&'()*,;:@",
        "a..b",
        "...",
        "%2e%2e%2e",
        &long_key,
    ];
    let mut cases: Vec<Case> = plain.into_iter().map(Case::get).collect();
    cases.extend([
        Case::get("k")
            .query(&[("response-content-disposition", "attachment; filename=\"a b.pdf\"; filename*=UTF-8''%C3%A9")]),
        Case::get("k").query(&[("versionId", "3/L4kqtJlcpXroDTDmJ+rmSpXd3dIbrHY+MTRCxf3vjVBH40Nr8X8gdRQBpUMLUo")]),
        Case::get("k").query(&[("partNumber", "10000"), ("uploadId", "a.b_c-d~")]),
        Case::get("k").query(&[("flag", ""), ("flag", "x"), ("Flag", ""), ("a", "2"), ("a", "10"), ("a", "1")]),
        Case::get("k").query(&[("é", "~"), ("~", "é"), (" ", "+"), ("a=b", "c&d"), ("a/", ""), ("a0", "")]),
        Case::get("k").put(&[("content-type", "text/plain; charset=utf-8"), ("content-length", "77000")]),
        Case::get("k").put(&[("x-amz-meta-b", "  two   inner  "), ("x-amz-meta-a", ""), ("if-none-match", "*")]),
        Case::get("k").put(&[("x-amz-meta-a-b", "1"), ("x-amz-meta-a_b", "2"), ("x-amz-meta-ab", "3")]),
        Case { session_token: Some("IQoJb3JpZ2luX2VjEJr//////////wEaCXVz+/==".to_owned()), ..Case::get("k") },
        Case { expires_in: 1, ..Case::get("k") },
        Case { expires_in: 604_800, method: Method::Head, ..Case::get("k") },
        Case { url: "http://localhost:9000", method: Method::Delete, ..Case::get("k") },
        Case {
            url: "http://localhost:443",
            addressing: Addressing::VirtualHosted,
            method: Method::Post,
            ..Case::get("k")
        },
    ]);
    for case in cases {
        assert_eq!(case.sign(), case.oracle_sign(), "{case:?}");
    }
}

/// The SDK names the operation in a parameter of its own and decides which headers it signs; given both, the URLs are
/// the same but for the order of their parameters.
#[tokio::test]
async fn aws_sdk_s3_presigns_the_same() {
    use aws_sdk_s3::{
        config::Region,
        presigning::{PresignedRequest, PresigningConfig},
    };

    fn sorted(url: &str) -> (&str, Vec<&str>) {
        let (target, query) = url.split_once('?').unwrap();
        let mut pairs: Vec<&str> = query.split('&').collect();
        pairs.sort_unstable();
        (target, pairs)
    }

    fn compare(case: &Case, operation: &str, presigned: &PresignedRequest) {
        let headers = presigned.headers().map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
        let mut case = Case { headers, ..case.clone() };
        case.query.push(("x-id".to_owned(), operation.to_owned()));
        assert_eq!(sorted(&case.sign()), sorted(presigned.uri()), "{case:?}");
    }

    let presigning = PresigningConfig::builder()
        .start_time(SystemTime::from(published_example::now()))
        .expires_in(Duration::from_hours(24))
        .build()
        .unwrap();
    for (url, addressing) in [
        ("https://s3.example.com", Addressing::Path),
        ("http://localhost:9000", Addressing::Path),
        ("http://localhost:9000", Addressing::VirtualHosted),
    ] {
        for session_token in [None, Some("to+ken/==".to_owned())] {
            let credentials =
                AwsCredentials::new(ACCESS_KEY_ID, SECRET_ACCESS_KEY, session_token.clone(), None, "test");
            let config = aws_sdk_s3::Config::builder()
                .behavior_version_latest()
                .credentials_provider(credentials)
                .region(Region::new("us-east-1"))
                .endpoint_url(url)
                .force_path_style(addressing == Addressing::Path)
                .build();
            let client = aws_sdk_s3::Client::from_conf(config);
            for key in ["k", "a b+c", "a/b/é🦀~", "100%25", "!$&'()*,;:@=?#", &"k".repeat(1024)] {
                let case = Case { url, addressing, session_token: session_token.clone(), ..Case::get(key) };

                let put = client
                    .put_object()
                    .bucket(BUCKET)
                    .key(key)
                    .content_type("text/plain; charset=utf-8")
                    .content_length(77_000)
                    .checksum_sha256("n4bQgYhMfWWaL+qgxVrQFaO/TxsrC4Is0V1sFbDwCgg=")
                    .if_none_match("*")
                    .metadata("case", "42  and  more")
                    .presigned(presigning.clone())
                    .await
                    .unwrap();
                compare(&Case { method: Method::Put, ..case.clone() }, "PutObject", &put);

                let disposition = "attachment; filename=\"a b.pdf\"; filename*=UTF-8''%C3%A9";
                let get = client
                    .get_object()
                    .bucket(BUCKET)
                    .key(key)
                    .response_content_disposition(disposition)
                    .version_id("v/1+")
                    .presigned(presigning.clone())
                    .await
                    .unwrap();
                let query = [("response-content-disposition", disposition), ("versionId", "v/1+")];
                compare(&case.query(&query), "GetObject", &get);
            }
        }
    }
}
