//! The store as clients see it: over TCP, through the AWS SDK and through plain HTTP with presigned URLs and forms.

use std::{net::IpAddr, time::Duration};

use aws_lc_rs::{
    digest::{SHA256, digest},
    hmac,
};
use aws_sdk_s3::{
    config::{BehaviorVersion, Credentials as SdkCredentials, Region, RequestChecksumCalculation},
    presigning::PresigningConfig,
    types::{CompletedMultipartUpload, CompletedPart},
};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use chrono::{DateTime, TimeDelta, Utc};
use reqwest::{Client, Method, Response, header::HeaderMap, multipart};
use serde_json::{Value, json};

use super::*;

const REGION: &str = "eu-central-1";
const BUCKET: &str = "docs";
const ACCESS_KEY: &str = "AKIADEVELOPMENT";
const SECRET_KEY: &str = "development-secret";
const ROLE_ARN: &str = "arn:aws:iam::000000000000:role/presignd";
const ORIGIN: &str = "http://localhost:5173";

struct TestStore {
    store: EmbeddedStore,
    http: Client,
}

#[derive(Clone)]
struct Keys {
    id: String,
    secret: String,
    token: Option<String>,
}

impl Keys {
    fn root() -> Self {
        Self { id: ACCESS_KEY.to_owned(), secret: SECRET_KEY.to_owned(), token: None }
    }
}

fn options(data_dir: Option<PathBuf>) -> StoreOptions {
    StoreOptions {
        listen: ([127, 0, 0, 1], 0).into(),
        data_dir,
        access_key_id: ACCESS_KEY.to_owned(),
        secret_access_key: SECRET_KEY.into(),
        region: REGION.to_owned(),
        buckets: vec![BUCKET.to_owned()],
        cors_allowed_origins: vec![ORIGIN.to_owned()],
        role_arn: ROLE_ARN.to_owned(),
    }
}

impl TestStore {
    async fn start() -> Self {
        Self::start_in(None, Clock::System).await
    }

    async fn start_in(data_dir: Option<PathBuf>, clock: Clock) -> Self {
        let store = EmbeddedStore::start(options(data_dir), clock, Handle::current()).await.unwrap();
        Self { store, http: client(None) }
    }

    fn s3_as(&self, keys: &Keys) -> aws_sdk_s3::Client {
        self.s3_in(keys, REGION)
    }

    fn s3_in(&self, keys: &Keys, region: &str) -> aws_sdk_s3::Client {
        let config = aws_sdk_s3::Config::builder()
            .behavior_version(BehaviorVersion::latest())
            .endpoint_url(self.store.endpoint())
            .region(Region::new(region.to_owned()))
            .credentials_provider(SdkCredentials::new(&keys.id, &keys.secret, keys.token.clone(), None, "test"))
            .force_path_style(true)
            .request_checksum_calculation(RequestChecksumCalculation::WhenRequired)
            .build();
        aws_sdk_s3::Client::from_conf(config)
    }

    fn s3(&self) -> aws_sdk_s3::Client {
        self.s3_as(&Keys::root())
    }

    fn sts_as(&self, keys: &Keys) -> aws_sdk_sts::Client {
        let config = aws_sdk_sts::Config::builder()
            .behavior_version(aws_sdk_sts::config::BehaviorVersion::latest())
            .endpoint_url(self.store.endpoint())
            .region(aws_sdk_sts::config::Region::new(REGION))
            .credentials_provider(SdkCredentials::new(&keys.id, &keys.secret, keys.token.clone(), None, "test"))
            .build();
        aws_sdk_sts::Client::from_conf(config)
    }

    async fn assume(&self, policy: Option<Value>) -> Keys {
        let output = self
            .sts_as(&Keys::root())
            .assume_role()
            .role_arn(ROLE_ARN)
            .role_session_name("test")
            .set_policy(policy.map(|policy| policy.to_string()))
            .duration_seconds(900)
            .send()
            .await
            .unwrap();
        let credentials = output.credentials().unwrap();
        Keys {
            id: credentials.access_key_id().to_owned(),
            secret: credentials.secret_access_key().to_owned(),
            token: Some(credentials.session_token().to_owned()),
        }
    }

    async fn put_url(&self, keys: &Keys, key: &str) -> String {
        let request = self.s3_as(keys).put_object().bucket(BUCKET).key(key);
        request.presigned(an_hour()).await.unwrap().uri().to_owned()
    }

    async fn get_url(&self, keys: &Keys, key: &str) -> String {
        let request = self.s3_as(keys).get_object().bucket(BUCKET).key(key);
        request.presigned(an_hour()).await.unwrap().uri().to_owned()
    }

    async fn put(&self, key: &str, body: &str) {
        let response = self.http.put(self.put_url(&Keys::root(), key).await).body(body.to_owned()).send().await;
        assert_eq!(response.unwrap().status(), 200, "{key}");
    }

    /// The bytes under `key`, or `None` when nothing is visible there.
    async fn stored(&self, key: &str) -> Option<String> {
        let response = self.http.get(self.get_url(&Keys::root(), key).await).send().await.unwrap();
        match response.status().as_u16() {
            200 => Some(response.text().await.unwrap()),
            404 => None,
            other => panic!("{other}"),
        }
    }
}

fn client(local_address: Option<&str>) -> Client {
    let address: Option<IpAddr> = local_address.map(|address| address.parse().unwrap());
    Client::builder().local_address(address).redirect(reqwest::redirect::Policy::none()).no_proxy().build().unwrap()
}

fn an_hour() -> PresigningConfig {
    PresigningConfig::expires_in(Duration::from_hours(1)).unwrap()
}

async fn assert_error(response: Response, status: u16, code: &str) {
    let actual = response.status();
    let text = response.text().await.unwrap();
    assert_eq!(actual, status, "{text}");
    assert!(text.contains(&format!("<Code>{code}</Code>")), "{text}");
}

fn sha256(body: &str) -> String {
    STANDARD.encode(digest(&SHA256, body.as_bytes()))
}

/// A presigned URL made by hand, for what the SDK refuses to sign.
struct HandSigned<'a> {
    method: Method,
    key: &'a str,
    at: DateTime<Utc>,
    expires: &'a str,
    region: &'a str,
    /// More of the query, sorted and encoded.
    more: &'a str,
}

impl HandSigned<'_> {
    fn url(&self, endpoint: &str) -> String {
        let keys = Keys::root();
        let date = self.at.format("%Y%m%dT%H%M%SZ").to_string();
        let scope = format!("{}/{}/s3/aws4_request", &date[..8], self.region);
        let query = format!(
            "X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Credential={}%2F{}&X-Amz-Date={date}&X-Amz-Expires={}&\
             X-Amz-SignedHeaders=host{}",
            keys.id,
            scope.replace('/', "%2F"),
            self.expires,
            self.more
        );
        let path = format!("/{BUCKET}/{}", self.key);
        let host = endpoint.strip_prefix("http://").unwrap();
        let canonical = format!("{}\n{path}\n{query}\nhost:{host}\n\nhost\nUNSIGNED-PAYLOAD", self.method);
        let to_sign =
            format!("AWS4-HMAC-SHA256\n{date}\n{scope}\n{}", hex::encode(digest(&SHA256, canonical.as_bytes())));
        let signature = sign(&keys.secret, &date[..8], self.region, &to_sign);
        format!("{endpoint}{path}?{query}&X-Amz-Signature={signature}")
    }
}

fn sign(secret: &str, day: &str, region: &str, text: &str) -> String {
    let mac = |key: &[u8], text: &str| hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), text.as_bytes());
    let key = mac(format!("AWS4{secret}").as_bytes(), day);
    let key = [region, "s3", "aws4_request"].iter().fold(key, |key, part| mac(key.as_ref(), part));
    hex::encode(mac(key.as_ref(), text))
}

/// A browser form, and the policy that goes with it.
struct Form {
    keys: Keys,
    at: DateTime<Utc>,
    region: &'static str,
    fields: Vec<(&'static str, String)>,
    unlisted: Vec<(&'static str, String)>,
    length: (u64, u64),
}

impl Form {
    fn new(keys: &Keys, key: &str) -> Self {
        Self {
            keys: keys.clone(),
            at: Clock::System.now(),
            region: REGION,
            fields: vec![("key", key.to_owned())],
            unlisted: Vec::new(),
            length: (1, 100),
        }
    }

    fn with(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.fields.push((name, value.into()));
        self
    }

    fn build(mut self, file: &str) -> multipart::Form {
        let date = self.at.format("%Y%m%dT%H%M%SZ").to_string();
        let credential = format!("{}/{}/{}/s3/aws4_request", self.keys.id, &date[..8], self.region);
        self.fields.push(("x-amz-algorithm", "AWS4-HMAC-SHA256".to_owned()));
        self.fields.push(("x-amz-credential", credential));
        self.fields.push(("x-amz-date", date.clone()));
        if let Some(token) = self.keys.token.clone() {
            self.fields.push(("x-amz-security-token", token));
        }
        let mut conditions: Vec<Value> = self.fields.iter().map(|(name, value)| json!({*name: value})).collect();
        conditions.push(json!({"bucket": BUCKET}));
        conditions.push(json!(["content-length-range", self.length.0, self.length.1]));
        let expiration = (Clock::System.now() + TimeDelta::hours(1)).format("%Y-%m-%dT%H:%M:%S.000Z").to_string();
        let policy = STANDARD.encode(json!({"expiration": expiration, "conditions": conditions}).to_string());
        let signature = sign(&self.keys.secret, &date[..8], self.region, &policy);
        let fields = self.fields.into_iter().chain(self.unlisted);
        let fields = fields.chain([("policy", policy), ("x-amz-signature", signature)]);
        fields
            .fold(multipart::Form::new(), |form, (name, value)| form.text(name, value))
            .part("file", multipart::Part::text(file.to_owned()).file_name("f.txt"))
    }

    async fn post(self, store: &TestStore, http: &Client, file: &str) -> Response {
        let form = self.build(file);
        http.post(format!("{}/{BUCKET}", store.store.endpoint())).multipart(form).send().await.unwrap()
    }
}

// Presigned URLs

#[tokio::test(flavor = "multi_thread")]
async fn presigned_put_and_get_carry_the_same_bytes_whatever_the_key() {
    let t = TestStore::start().await;
    for key in ["a", "Ünï cödé/ +&=%25", "a//b", &"k".repeat(1024)] {
        t.put(key, "hello").await;
        assert_eq!(t.stored(key).await.as_deref(), Some("hello"), "{key}");
    }
    assert_eq!(t.stored("b").await, None);
    t.store.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_changed_url_is_refused() {
    let t = TestStore::start().await;
    t.put("a", "hello").await;
    let url = t.get_url(&Keys::root(), "a").await;
    let (rest, last) = url.split_at(url.len() - 1);
    let tampered = format!("{rest}{}", if last == "0" { "1" } else { "0" });
    let longer = url.replace("X-Amz-Expires=3600", "X-Amz-Expires=7200");
    let other_key = url.replace("/docs/a?", "/docs/b?");
    let added = format!("{url}&response-content-type=text%2Fhtml");
    for changed in [tampered, longer, other_key, added] {
        assert_eq!(t.http.get(&changed).send().await.unwrap().status(), 403, "{changed}");
    }
    for method in [Method::PUT, Method::DELETE, Method::HEAD] {
        assert_eq!(t.http.request(method, &url).send().await.unwrap().status(), 403);
    }
    let anonymous = format!("{}/{BUCKET}/a", t.store.endpoint());
    assert_error(t.http.get(&anonymous).send().await.unwrap(), 403, "AccessDenied").await;
    assert_eq!(t.stored("a").await.as_deref(), Some("hello"));
}

#[tokio::test(flavor = "multi_thread")]
async fn urls_live_within_their_dates_and_seven_days() {
    let t = TestStore::start().await;
    t.put("a", "hello").await;
    let now = Clock::System.now();
    let get = |at, expires, region| HandSigned { method: Method::GET, key: "a", at, expires, region, more: "" };
    let week = get(now, "604800", REGION).url(&t.store.endpoint());
    assert_eq!(t.http.get(week).send().await.unwrap().status(), 200);
    let half_past = get(now - TimeDelta::minutes(30), "3600", REGION).url(&t.store.endpoint());
    assert_eq!(t.http.get(half_past).send().await.unwrap().status(), 200);
    for (refused, code) in [
        (get(now, "604801", REGION), "AuthorizationQueryParametersError"),
        (get(now - TimeDelta::hours(2), "3600", REGION), "AccessDenied"),
        (get(now + TimeDelta::hours(1), "3600", REGION), "RequestTimeTooSkewed"),
        (get(now, "3600", "us-east-1"), "AuthorizationHeaderMalformed"),
    ] {
        let response = t.http.get(refused.url(&t.store.endpoint())).send().await.unwrap();
        assert!(response.status().is_client_error());
        let status = response.status().as_u16();
        assert_error(response, status, code).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_header_signature_for_another_region_is_refused() {
    let t = TestStore::start().await;
    let refused = t.s3_in(&Keys::root(), "us-east-1").list_objects_v2().bucket(BUCKET).send().await.unwrap_err();
    assert_eq!(refused.into_service_error().meta().code(), Some("AuthorizationHeaderMalformed"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_signed_length_admits_no_other_body() {
    let t = TestStore::start().await;
    let request = t.s3().put_object().bucket(BUCKET).key("a").content_length(5);
    let url = request.presigned(an_hour()).await.unwrap().uri().to_owned();
    for body in ["hell", "hello!"] {
        assert_eq!(t.http.put(&url).body(body).send().await.unwrap().status(), 403);
    }
    let chunked = reqwest::Body::wrap_stream(futures_util::stream::iter([Ok::<_, std::io::Error>("hello")]));
    assert_eq!(t.http.put(&url).body(chunked).send().await.unwrap().status(), 403);
    assert_eq!(t.stored("a").await, None);
    assert_eq!(t.http.put(&url).body("hello").send().await.unwrap().status(), 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_without_a_length_is_refused() {
    let t = TestStore::start().await;
    let chunked = reqwest::Body::wrap_stream(futures_util::stream::iter([Ok::<_, std::io::Error>("hello")]));
    let response = t.http.put(t.put_url(&Keys::root(), "a").await).body(chunked).send().await.unwrap();
    assert_error(response, 411, "MissingContentLength").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_other_than_its_checksum_is_never_visible() {
    let t = TestStore::start().await;
    t.put("old", "before").await;
    let checksum = |key: &str| t.s3().put_object().bucket(BUCKET).key(key).checksum_sha256(sha256("hello"));
    for key in ["new", "old"] {
        let signed = checksum(key).presigned(an_hour()).await.unwrap();
        let headers = signed.headers().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap()));
        let headers: HeaderMap = headers.collect();
        let response = t.http.put(signed.uri()).headers(headers.clone()).body("HELLO").send().await.unwrap();
        assert_error(response, 400, "BadDigest").await;
        let response = t.http.put(signed.uri()).body("hello").send().await.unwrap();
        assert_eq!(response.status(), 403, "the signed header was left out");
        let url = t.put_url(&Keys::root(), key).await;
        let response = t.http.put(url).header("content-md5", STANDARD.encode([0; 16])).body("hello").send().await;
        assert_error(response.unwrap(), 400, "BadDigest").await;
    }
    assert_eq!(t.stored("new").await, None);
    assert_eq!(t.stored("old").await.as_deref(), Some("before"));
    let head = t.s3().head_object().bucket(BUCKET).key("old").send().await.unwrap();
    assert_eq!(head.content_length(), Some(6));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_checksum_in_the_query_counts_like_the_header() {
    let t = TestStore::start().await;
    let value = sha256("hello").replace('+', "%2B").replace('/', "%2F").replace('=', "%3D");
    let more = format!("&x-amz-checksum-sha256={value}");
    let at = Clock::System.now();
    let put = HandSigned { method: Method::PUT, key: "a", at, expires: "60", region: REGION, more: &more };
    let url = put.url(&t.store.endpoint());
    assert_error(t.http.put(&url).body("HELLO").send().await.unwrap(), 400, "BadDigest").await;
    assert_eq!(t.stored("a").await, None);
    assert_eq!(t.http.put(&url).body("hello").send().await.unwrap().status(), 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn unsigned_amz_headers_are_refused() {
    let t = TestStore::start().await;
    t.put("secret", "hidden").await;
    let url = t.put_url(&Keys::root(), "a").await;
    for (name, value) in [("x-amz-copy-source", "/docs/secret"), ("x-amz-acl", "public-read"), ("x-amz-meta-a", "b")] {
        let response = t.http.put(&url).header(name, value).body("hello").send().await.unwrap();
        assert_error(response, 403, "AccessDenied").await;
    }
    assert_eq!(t.stored("a").await, None);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_upload_hears_why_although_it_is_still_sending() {
    let t = TestStore::start().await;
    let wrong_secret = Keys { secret: "other".to_owned(), ..Keys::root() };
    let url = t.put_url(&wrong_secret, "a").await;
    let body = bytes::Bytes::from(vec![0; 16 << 20]);
    for _ in 0..5 {
        let response = t.http.put(&url).body(body.clone()).send().await.unwrap();
        assert_error(response, 403, "SignatureDoesNotMatch").await;
    }
}

// Conditional requests

#[tokio::test(flavor = "multi_thread")]
async fn exactly_one_of_parallel_creations_wins() {
    let t = TestStore::start().await;
    for round in 0..10 {
        let key = format!("race-{round}");
        let signed =
            t.s3().put_object().bucket(BUCKET).key(&key).if_none_match("*").presigned(an_hour()).await.unwrap();
        let writers = (0..8).map(|writer| {
            let request = t.http.put(signed.uri()).header("if-none-match", "*").body(writer.to_string());
            async move { request.send().await.unwrap().status().as_u16() }
        });
        let mut statuses = futures_util::future::join_all(writers).await;
        statuses.sort_unstable();
        assert_eq!(statuses, [200, 412, 412, 412, 412, 412, 412, 412]);
        let dropped = t.http.put(signed.uri()).body("x").send().await.unwrap();
        assert_eq!(dropped.status(), 403, "the signed condition was left out");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn entity_tags_decide_over_reads_and_writes() {
    let t = TestStore::start().await;
    t.put("a", "hello").await;
    let etag = "\"5d41402abc4b2a76b9719d911017c592\"";
    let url = t.get_url(&Keys::root(), "a").await;
    let get = |name: &str, value: &str| t.http.get(&url).header(name, value).send();
    let known = get("if-none-match", etag).await.unwrap();
    assert_eq!(known.status(), 304);
    assert_eq!(known.headers()["etag"], etag);
    assert_eq!(get("if-none-match", "\"other\"").await.unwrap().status(), 200);
    assert_eq!(get("if-match", etag).await.unwrap().status(), 200);
    assert_error(get("if-match", "\"other\"").await.unwrap(), 412, "PreconditionFailed").await;

    let put = || t.s3().put_object().bucket(BUCKET).key("a").body("bye".as_bytes().to_vec().into());
    assert_eq!(put().if_match("\"other\"").send().await.unwrap_err().raw_response().unwrap().status().as_u16(), 412);
    put().if_match(etag).send().await.unwrap();
    assert_eq!(put().if_match(etag).send().await.unwrap_err().raw_response().unwrap().status().as_u16(), 412);
}

// Objects

#[tokio::test(flavor = "multi_thread")]
async fn what_was_stored_is_described() {
    let t = TestStore::start().await;
    t.s3()
        .put_object()
        .bucket(BUCKET)
        .key("a")
        .content_type("text/plain")
        .cache_control("no-store")
        .metadata("case", "42")
        .checksum_sha256(sha256("hello"))
        .body("hello".as_bytes().to_vec().into())
        .send()
        .await
        .unwrap();
    let head = t.s3().head_object().bucket(BUCKET).key("a");
    let plain = head.clone().send().await.unwrap();
    assert_eq!(plain.checksum_sha256(), None);
    let head = head.checksum_mode(aws_sdk_s3::types::ChecksumMode::Enabled).send().await.unwrap();
    assert_eq!(head.e_tag(), Some("\"5d41402abc4b2a76b9719d911017c592\""));
    assert_eq!(head.content_type(), Some("text/plain"));
    assert_eq!(head.cache_control(), Some("no-store"));
    assert_eq!(head.content_length(), Some(5));
    assert_eq!(head.metadata().unwrap()["case"], "42");
    assert_eq!(head.checksum_sha256(), Some(sha256("hello").as_str()));
    assert!(head.last_modified().is_some());

    let url = t.s3().get_object().bucket(BUCKET).key("a").response_content_type("text/html");
    let url = url.response_content_disposition("attachment").presigned(an_hour()).await.unwrap();
    let response = t.http.get(url.uri()).send().await.unwrap();
    assert_eq!(response.headers()["content-type"], "text/html");
    assert_eq!(response.headers()["content-disposition"], "attachment");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_default_trailing_checksum_of_sdks_is_verified_and_kept() {
    let t = TestStore::start().await;
    let config = t.s3().config().to_builder().request_checksum_calculation(RequestChecksumCalculation::WhenSupported);
    let s3 = aws_sdk_s3::Client::from_conf(config.build());
    s3.put_object().bucket(BUCKET).key("a").body("hello".as_bytes().to_vec().into()).send().await.unwrap();
    let head = s3.head_object().bucket(BUCKET).key("a").checksum_mode(aws_sdk_s3::types::ChecksumMode::Enabled);
    let head = head.send().await.unwrap();
    assert_eq!(head.checksum_crc32(), Some("NhCmhg=="));
    assert_eq!(head.content_encoding(), None);
}

#[tokio::test(flavor = "multi_thread")]
async fn ranges_are_read_from_either_end() {
    let t = TestStore::start().await;
    t.put("a", "0123456789").await;
    let url = t.get_url(&Keys::root(), "a").await;
    for (range, content_range, body) in [
        ("bytes=2-4", "bytes 2-4/10", "234"),
        ("bytes=8-", "bytes 8-9/10", "89"),
        ("bytes=-3", "bytes 7-9/10", "789"),
        ("bytes=5-99", "bytes 5-9/10", "56789"),
    ] {
        let response = t.http.get(&url).header("range", range).send().await.unwrap();
        assert_eq!(response.status(), 206);
        assert_eq!(response.headers()["content-range"], content_range);
        assert_eq!(response.text().await.unwrap(), body);
    }
    assert_error(t.http.get(&url).header("range", "bytes=10-").send().await.unwrap(), 416, "InvalidRange").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn copies_keep_or_replace_metadata_and_outlive_their_source() {
    let t = TestStore::start().await;
    let s3 = t.s3();
    let put = s3.put_object().bucket(BUCKET).key("staging/a").content_type("text/plain").metadata("case", "42");
    let etag = put.body("hello".as_bytes().to_vec().into()).send().await.unwrap().e_tag.unwrap();
    let copy = s3.copy_object().bucket(BUCKET).key("final/a").copy_source("docs/staging/a");
    let refused = copy.clone().copy_source_if_match("\"other\"").send().await.unwrap_err();
    assert_eq!(refused.raw_response().unwrap().status().as_u16(), 412);
    let copied = copy.copy_source_if_match(&etag).send().await.unwrap();
    assert_eq!(copied.copy_object_result().unwrap().e_tag(), Some(etag.as_str()));
    s3.delete_object().bucket(BUCKET).key("staging/a").send().await.unwrap();
    assert_eq!(t.stored("staging/a").await, None);
    assert_eq!(t.stored("final/a").await.as_deref(), Some("hello"));
    let head = s3.head_object().bucket(BUCKET).key("final/a").send().await.unwrap();
    assert_eq!((head.content_type(), head.metadata().unwrap()["case"].as_str()), (Some("text/plain"), "42"));
    s3.copy_object()
        .bucket(BUCKET)
        .key("final/a")
        .copy_source("docs/final/a")
        .metadata_directive(aws_sdk_s3::types::MetadataDirective::Replace)
        .content_type("text/html")
        .send()
        .await
        .unwrap();
    let head = s3.head_object().bucket(BUCKET).key("final/a").send().await.unwrap();
    assert_eq!(
        (head.content_type(), head.metadata().map(std::collections::HashMap::len)),
        (Some("text/html"), Some(0))
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn listings_are_sorted_paged_and_grouped() {
    let t = TestStore::start().await;
    for key in ["b/2", "a", "b/1", "c/x", "b/", "d é"] {
        t.put(key, "x").await;
    }
    let list = || t.s3().list_objects_v2().bucket(BUCKET);
    let mut pages = list().max_keys(2).into_paginator().send();
    let mut keys = Vec::new();
    while let Some(page) = pages.next().await {
        keys.extend(page.unwrap().contents().iter().map(|object| object.key().unwrap().to_owned()));
    }
    assert_eq!(keys, ["a", "b/", "b/1", "b/2", "c/x", "d é"]);

    let mut pages = list().delimiter("/").max_keys(1).into_paginator().send();
    let mut entries = Vec::new();
    while let Some(page) = pages.next().await {
        let page = page.unwrap();
        entries.extend(page.contents().iter().map(|object| object.key().unwrap().to_owned()));
        entries.extend(page.common_prefixes().iter().map(|prefix| prefix.prefix().unwrap().to_owned()));
    }
    assert_eq!(entries, ["a", "b/", "c/", "d é"]);

    let under = list().prefix("b/").start_after("b/1").send().await.unwrap();
    assert_eq!(under.contents().iter().map(|object| object.key().unwrap()).collect::<Vec<_>>(), ["b/2"]);
    let encoded = list().prefix("d").encoding_type(aws_sdk_s3::types::EncodingType::Url).send().await.unwrap();
    assert_eq!(encoded.contents()[0].key(), Some("d%20%C3%A9"));

    let delete = |key: &str| aws_sdk_s3::types::ObjectIdentifier::builder().key(key).build().unwrap();
    let delete = aws_sdk_s3::types::Delete::builder().objects(delete("a")).objects(delete("b/1")).build().unwrap();
    t.s3().delete_objects().bucket(BUCKET).delete(delete).send().await.unwrap();
    assert_eq!(list().send().await.unwrap().key_count(), Some(4));
}

#[tokio::test(flavor = "multi_thread")]
async fn buckets_are_created_once_and_described() {
    let t = TestStore::start().await;
    let s3 = t.s3();
    s3.create_bucket().bucket("more").send().await.unwrap();
    let again = s3.create_bucket().bucket("more").send().await.unwrap_err().into_service_error();
    assert!(again.is_bucket_already_owned_by_you());
    let names = s3.list_buckets().send().await.unwrap();
    assert_eq!(names.buckets().iter().map(|bucket| bucket.name().unwrap()).collect::<Vec<_>>(), [BUCKET, "more"]);
    s3.head_bucket().bucket("more").send().await.unwrap();
    assert!(s3.head_bucket().bucket("none").send().await.unwrap_err().into_service_error().is_not_found());
    let location = s3.get_bucket_location().bucket(BUCKET).send().await.unwrap();
    assert_eq!(location.location_constraint().unwrap().as_str(), REGION);
    let put = s3.put_object().bucket("none").key("a").send().await.unwrap_err().into_service_error();
    assert_eq!(put.meta().code(), Some("NoSuchBucket"));
}

// Multipart

const PART_BYTES: usize = 5 << 20;

#[tokio::test(flavor = "multi_thread")]
async fn multipart_uploads_are_put_together_from_verified_parts() {
    let t = TestStore::start().await;
    let s3 = t.s3();
    let create = s3.create_multipart_upload().bucket(BUCKET).key("big").content_type("video/mp4").send().await.unwrap();
    let id = create.upload_id().unwrap().to_owned();
    let first = "a".repeat(PART_BYTES);
    let mut etags = Vec::new();
    for (number, body) in [(2, "b".to_owned()), (1, first.clone()), (10, "c".to_owned())] {
        let part = s3.upload_part().bucket(BUCKET).key("big").upload_id(&id).part_number(number);
        let url = part.presigned(an_hour()).await.unwrap();
        let wrong = t.http.put(url.uri()).header("content-md5", STANDARD.encode([0; 16])).body(body.clone());
        assert_error(wrong.send().await.unwrap(), 400, "BadDigest").await;
        let stripped = url.uri().replace(&format!("partNumber={number}"), "partNumber=3");
        assert_eq!(t.http.put(stripped).body(body.clone()).send().await.unwrap().status(), 403);
        let response = t.http.put(url.uri()).body(body).send().await.unwrap();
        assert_eq!(response.status(), 200);
        etags.push((number, response.headers()["etag"].to_str().unwrap().to_owned()));
    }
    let checked = s3.upload_part().bucket(BUCKET).key("big").upload_id(&id).part_number(4);
    let checked = checked.checksum_sha256(sha256("x")).body("y".as_bytes().to_vec().into()).send().await;
    assert_eq!(checked.unwrap_err().into_service_error().meta().code(), Some("BadDigest"));

    let list = s3.list_parts().bucket(BUCKET).key("big").upload_id(&id).max_parts(2);
    let page = list.clone().send().await.unwrap();
    assert_eq!(page.parts().iter().map(|part| part.part_number().unwrap()).collect::<Vec<_>>(), [1, 2]);
    assert_eq!(page.is_truncated(), Some(true));
    let page = list.part_number_marker(page.next_part_number_marker().unwrap()).send().await.unwrap();
    assert_eq!(page.parts()[0].part_number(), Some(10));
    assert_eq!(page.is_truncated(), Some(false));

    let complete = |parts: Vec<(i32, String)>| {
        let parts = parts.into_iter().fold(CompletedMultipartUpload::builder(), |upload, (number, etag)| {
            upload.parts(CompletedPart::builder().part_number(number).e_tag(etag).build())
        });
        s3.complete_multipart_upload().bucket(BUCKET).key("big").upload_id(&id).multipart_upload(parts.build())
    };
    let etag = |wanted| etags.iter().find(|(number, _)| *number == wanted).unwrap().1.clone();
    for (parts, code) in [
        (vec![(1, etag(2)), (2, etag(2))], "InvalidPart"),
        (vec![(1, etag(1)), (3, etag(2))], "InvalidPart"),
        (vec![(2, etag(2)), (1, etag(1))], "InvalidPartOrder"),
        (vec![(2, etag(2)), (10, etag(10))], "EntityTooSmall"),
    ] {
        let refused = complete(parts).send().await.unwrap_err().into_service_error();
        assert_eq!(refused.meta().code(), Some(code));
    }
    assert_eq!(t.stored("big").await, None);
    let done = complete(vec![(1, etag(1)), (2, etag(2))]).if_none_match("*").send().await.unwrap();
    assert!(done.e_tag().unwrap().ends_with("-2\""));
    assert_eq!(t.stored("big").await, Some(format!("{first}b")));
    let across = t.http.get(t.get_url(&Keys::root(), "big").await).header("range", "bytes=-3").send().await.unwrap();
    assert_eq!(across.text().await.unwrap(), "aab");
    let head = s3.head_object().bucket(BUCKET).key("big").send().await.unwrap();
    assert_eq!(head.content_type(), Some("video/mp4"));
    let again = complete(vec![(1, etag(1))]).send().await.unwrap_err().into_service_error();
    assert_eq!(again.meta().code(), Some("NoSuchUpload"));
}

#[tokio::test(flavor = "multi_thread")]
async fn completing_onto_an_existing_object_honours_if_none_match() {
    let t = TestStore::start().await;
    t.put("a", "first").await;
    let s3 = t.s3();
    let create = s3.create_multipart_upload().bucket(BUCKET).key("a").send().await.unwrap();
    let id = create.upload_id().unwrap();
    let part = s3.upload_part().bucket(BUCKET).key("a").upload_id(id).part_number(1);
    let part = part.body("second".as_bytes().to_vec().into()).send().await.unwrap();
    let parts = CompletedPart::builder().part_number(1).set_e_tag(part.e_tag).build();
    let parts = CompletedMultipartUpload::builder().parts(parts).build();
    let complete = s3.complete_multipart_upload().bucket(BUCKET).key("a").upload_id(id).multipart_upload(parts);
    let refused = complete.if_none_match("*").send().await.unwrap_err();
    assert_eq!(refused.raw_response().unwrap().status().as_u16(), 412);
    assert_eq!(t.stored("a").await.as_deref(), Some("first"));

    let uploads = s3.list_multipart_uploads().bucket(BUCKET).send().await.unwrap();
    assert_eq!(uploads.uploads()[0].upload_id(), Some(id));
    s3.abort_multipart_upload().bucket(BUCKET).key("a").upload_id(id).send().await.unwrap();
    assert!(s3.list_multipart_uploads().bucket(BUCKET).send().await.unwrap().uploads().is_empty());
    let late = s3.upload_part().bucket(BUCKET).key("a").upload_id(id).part_number(2).send().await.unwrap_err();
    assert_eq!(late.into_service_error().meta().code(), Some("NoSuchUpload"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_part_has_no_checksum_that_its_upload_was_begun_without() {
    let t = TestStore::start().await;
    let s3 = t.s3();
    let create = s3.create_multipart_upload().bucket(BUCKET).key("a").send().await.unwrap();
    let id = create.upload_id().unwrap();
    let part =
        || s3.upload_part().bucket(BUCKET).key("a").upload_id(id).part_number(1).body("x".as_bytes().to_vec().into());
    let refused = part().checksum_sha256(sha256("x")).send().await.unwrap_err().into_service_error();
    assert_eq!(refused.meta().code(), Some("InvalidRequest"));
    part().send().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_checksummed_multipart_upload_demands_its_checksums_throughout() {
    let t = TestStore::start().await;
    let s3 = t.s3();
    let create = s3.create_multipart_upload().bucket(BUCKET).key("a");
    let create = create.checksum_algorithm(aws_sdk_s3::types::ChecksumAlgorithm::Sha256).send().await.unwrap();
    let id = create.upload_id().unwrap();
    let part =
        || s3.upload_part().bucket(BUCKET).key("a").upload_id(id).part_number(1).body("x".as_bytes().to_vec().into());
    let plain = part().send().await.unwrap_err().into_service_error();
    assert_eq!(plain.meta().code(), Some("InvalidRequest"));
    let etag = part().checksum_sha256(sha256("x")).send().await.unwrap().e_tag.unwrap();
    let complete = |part: CompletedPart| {
        let parts = CompletedMultipartUpload::builder().parts(part).build();
        s3.complete_multipart_upload().bucket(BUCKET).key("a").upload_id(id).multipart_upload(parts).send()
    };
    let part = CompletedPart::builder().part_number(1).e_tag(etag);
    assert!(complete(part.clone().build()).await.is_err());
    let done = complete(part.checksum_sha256(sha256("x")).build()).await.unwrap();
    let composite = STANDARD.encode(digest(&SHA256, digest(&SHA256, b"x").as_ref()));
    assert_eq!(done.checksum_sha256(), Some(format!("{composite}-1").as_str()));
}

// Browser forms

#[tokio::test(flavor = "multi_thread")]
async fn a_form_stores_what_its_policy_allows() {
    let t = TestStore::start().await;
    let form = Form::new(&Keys::root(), "in/a")
        .with("Content-Type", "text/plain")
        .with("x-amz-meta-case", "42")
        .with("x-amz-checksum-sha256", sha256("hello"))
        .with("success_action_status", "201");
    let response = form.post(&t, &t.http, "hello").await;
    assert_eq!(response.status(), 201);
    let location = format!("{}/docs/in/a", t.store.endpoint());
    assert_eq!(response.headers()["location"], location.as_str());
    assert_eq!(response.headers()["etag"], "\"5d41402abc4b2a76b9719d911017c592\"");
    let text = response.text().await.unwrap();
    assert!(text.contains("<Bucket>docs</Bucket><Key>in/a</Key>"), "{text}");
    assert_eq!(t.stored("in/a").await.as_deref(), Some("hello"));
    let head = t.s3().head_object().bucket(BUCKET).key("in/a").send().await.unwrap();
    assert_eq!((head.content_type(), head.metadata().unwrap()["case"].as_str()), (Some("text/plain"), "42"));

    assert_eq!(Form::new(&Keys::root(), "b").post(&t, &t.http, "hello").await.status(), 204);
    let redirect = Form::new(&Keys::root(), "b").with("success_action_redirect", "http://localhost/done");
    let redirect = redirect.post(&t, &t.http, "hello").await;
    assert_eq!(redirect.status(), 303);
    assert!(redirect.headers()["location"].to_str().unwrap().starts_with("http://localhost/done?bucket=docs&key=b"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_form_arrives_however_its_body_is_cut() {
    let t = TestStore::start().await;
    // Wherever it is cut, the boundary might begin there.
    let file = "\r".repeat(4 << 20);
    let form = Form { length: (1, 8 << 20), ..Form::new(&Keys::root(), "a") };
    let response = form.post(&t, &t.http, &file).await;
    assert_eq!(response.status(), 204, "{}", response.text().await.unwrap());
    assert_eq!(t.stored("a").await.as_deref(), Some(file.as_str()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_form_that_breaks_its_policy_stores_nothing() {
    let t = TestStore::start().await;
    let root = Keys::root();
    let wrong_secret = Keys { secret: "other".to_owned(), ..Keys::root() };
    let mut extra = Form::new(&root, "a");
    extra.unlisted.push(("acl", "public-read".to_owned()));
    let mut future = Form::new(&root, "a");
    future.at += TimeDelta::hours(1);
    let mut elsewhere = Form::new(&root, "a");
    elsewhere.region = "us-east-1";
    for (form, file, status) in [
        (Form::new(&root, "a"), "", 400),
        (Form::new(&root, "a"), "x".repeat(101).as_str(), 400),
        (Form::new(&root, "a").with("x-amz-checksum-sha256", sha256("hello")), "HELLO", 400),
        (Form::new(&wrong_secret, "a"), "hello", 403),
        (extra, "hello", 403),
        (future, "hello", 403),
        (elsewhere, "hello", 400),
    ] {
        let response = form.post(&t, &t.http, file).await;
        assert_eq!(response.status(), status, "{}", response.text().await.unwrap());
    }
    let unsigned = multipart::Form::new().text("key", "a").part("file", multipart::Part::text("x").file_name("f"));
    let url = format!("{}/{BUCKET}", t.store.endpoint());
    assert_error(t.http.post(url).multipart(unsigned).send().await.unwrap(), 403, "AccessDenied").await;
    assert_eq!(t.stored("a").await, None);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_form_is_good_for_as_long_as_its_policy() {
    let t = TestStore::start().await;
    let mut form = Form::new(&Keys::root(), "a");
    form.at -= TimeDelta::minutes(30);
    assert_eq!(form.post(&t, &t.http, "hello").await.status(), 204);
}

// Sessions

#[tokio::test(flavor = "multi_thread")]
async fn a_session_does_what_its_policy_allows_and_no_more() {
    let t = TestStore::start().await;
    t.put("out/a", "hello").await;
    let policy = json!({"Version": "2012-10-17", "Statement":
        {"Effect": "Allow", "Action": "s3:PutObject", "Resource": "arn:aws:s3:::docs/in/*"}});
    let keys = t.assume(Some(policy)).await;
    let put = |url: String| t.http.put(url).body("hello").send();
    assert_eq!(put(t.put_url(&keys, "in/a").await).await.unwrap().status(), 200);
    assert_eq!(put(t.put_url(&keys, "out/b").await).await.unwrap().status(), 403);
    assert_eq!(t.http.get(t.get_url(&keys, "in/a").await).send().await.unwrap().status(), 403);
    let s3 = t.s3_as(&keys);
    assert!(s3.copy_object().bucket(BUCKET).key("in/b").copy_source("docs/out/a").send().await.is_err());
    assert!(s3.list_objects_v2().bucket(BUCKET).send().await.is_err());
    assert!(s3.create_bucket().bucket("mine").send().await.is_err());
    assert_eq!(Form::new(&keys, "in/c").post(&t, &t.http, "hello").await.status(), 204);
    assert_eq!(Form::new(&keys, "out/c").post(&t, &t.http, "hello").await.status(), 403);
    assert!(t.s3_as(&t.assume(None).await).list_objects_v2().bucket(BUCKET).send().await.is_ok());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_is_nothing_without_its_own_token() {
    let t = TestStore::start().await;
    let (session, other) = (t.assume(None).await, t.assume(None).await);
    let token = session.token.clone().unwrap();
    for wrong in [None, Some(format!("{token}0")), Some(token.replace(&token[..1], "z")), other.token] {
        let keys = Keys { token: wrong, ..session.clone() };
        // Signed with that token, or none: the signature is right and the token is not.
        assert!(t.http.get(t.get_url(&keys, "a").await).send().await.unwrap().status().is_client_error());
        let response = t.http.put(t.put_url(&keys, "a").await).body("x").send().await.unwrap();
        assert!([400, 403].contains(&response.status().as_u16()));
        assert!(t.s3_as(&keys).list_objects_v2().bucket(BUCKET).send().await.is_err());
        let status = Form::new(&keys, "a").post(&t, &t.http, "x").await.status();
        assert!([400, 403].contains(&status.as_u16()));
    }
    let stray = Keys { token: Some(token), ..Keys::root() };
    assert!(t.s3_as(&stray).list_objects_v2().bucket(BUCKET).send().await.is_err());
    assert_eq!(t.stored("a").await, None);
    let response = t.http.put(t.put_url(&session, "a").await).body("x").send().await.unwrap();
    assert_eq!(response.status(), 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_ends_on_time() {
    let now = Clock::System.now();
    let clock = Clock::manual(now);
    let t = TestStore::start_in(None, clock.clone()).await;
    let keys = t.assume(None).await;
    let url = t.put_url(&keys, "a").await;
    clock.set(now + TimeDelta::seconds(898));
    assert_eq!(t.http.put(&url).body("x").send().await.unwrap().status(), 200);
    clock.set(now + TimeDelta::seconds(900));
    assert_error(t.http.put(&url).body("x").send().await.unwrap(), 400, "ExpiredToken").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn source_ip_is_the_tcp_peer_whatever_headers_claim() {
    let t = TestStore::start().await;
    let scoped = |effect: &str, operator: &str, networks: Value| {
        json!({"Effect": effect, "Action": "s3:*", "Resource": "arn:aws:s3:::docs/*",
            "Condition": {operator: {"aws:SourceIp": networks}}})
    };
    let everywhere = json!({"Effect": "Allow", "Action": "s3:*", "Resource": "*"});
    let (inside, outside) = (client(Some("127.0.0.11")), client(Some("127.0.0.12")));
    for statements in [
        json!([scoped("Allow", "IpAddress", json!("127.0.0.11/32"))]),
        json!([scoped("Allow", "IpAddress", json!(["10.0.0.0/8", "127.0.0.11"]))]),
        json!([everywhere, scoped("Deny", "NotIpAddress", json!(["127.0.0.11/32"]))]),
    ] {
        let keys = t.assume(Some(json!({"Version": "2012-10-17", "Statement": statements}))).await;
        let (put, get) = (t.put_url(&keys, "a").await, t.get_url(&keys, "a").await);
        let forged = |request: reqwest::RequestBuilder| {
            request.header("x-forwarded-for", "127.0.0.11").header("forwarded", "for=127.0.0.11").send()
        };
        assert_eq!(forged(outside.put(&put).body("x")).await.unwrap().status(), 403);
        assert_eq!(inside.put(&put).body("x").send().await.unwrap().status(), 200);
        assert_eq!(inside.get(&get).send().await.unwrap().status(), 200);
        assert_eq!(outside.get(&get).send().await.unwrap().status(), 403);
        assert_eq!(forged(outside.get(&get)).await.unwrap().status(), 403);
        assert_eq!(Form::new(&keys, "b").post(&t, &inside, "x").await.status(), 204);
        assert_eq!(Form::new(&keys, "c").post(&t, &outside, "x").await.status(), 403);
        let create = t.s3().create_multipart_upload().bucket(BUCKET).key("m").send().await.unwrap();
        let part = t.s3_as(&keys).upload_part().bucket(BUCKET).key("m").part_number(1);
        let part = part.upload_id(create.upload_id().unwrap()).presigned(an_hour()).await.unwrap();
        assert_eq!(outside.put(part.uri()).body("x").send().await.unwrap().status(), 403);
        assert_eq!(inside.put(part.uri()).body("x").send().await.unwrap().status(), 200);
    }
    assert_eq!(t.stored("c").await, None);
}

#[tokio::test(flavor = "multi_thread")]
async fn assume_role_refuses_what_it_does_not_hold() {
    let t = TestStore::start().await;
    let session = t.assume(None).await;
    let wrong_secret = Keys { secret: "other".to_owned(), ..Keys::root() };
    let request = |keys: &Keys| t.sts_as(keys).assume_role().role_arn(ROLE_ARN).role_session_name("test");
    for refused in [request(&session), request(&wrong_secret), request(&Keys::root()).role_arn("arn:aws:iam::1:role/x")]
    {
        assert_eq!(refused.send().await.unwrap_err().raw_response().unwrap().status().as_u16(), 403);
    }
    for (refused, code) in [
        (request(&Keys::root()).duration_seconds(899), "ValidationError"),
        (request(&Keys::root()).duration_seconds(43_201), "ValidationError"),
        (request(&Keys::root()).role_session_name("a b"), "ValidationError"),
        (request(&Keys::root()).external_id("x1"), "ValidationError"),
        (request(&Keys::root()).policy("x".repeat(2049)), "ValidationError"),
        (request(&Keys::root()).policy("{}"), "MalformedPolicyDocument"),
    ] {
        let error = refused.send().await.unwrap_err().into_service_error();
        assert_eq!(error.meta().code(), Some(code));
    }
}

// CORS

#[tokio::test(flavor = "multi_thread")]
async fn preflights_are_answered_for_allowed_origins_and_methods() {
    let t = TestStore::start().await;
    let url = format!("{}/{BUCKET}/a", t.store.endpoint());
    let preflight = |origin: &str, method: &str| {
        t.http
            .request(Method::OPTIONS, &url)
            .header("origin", origin)
            .header("access-control-request-method", method)
            .header("access-control-request-headers", "content-type,x-amz-meta-a")
            .send()
    };
    let allowed = preflight(ORIGIN, "PUT").await.unwrap();
    assert_eq!(allowed.status(), 200);
    assert_eq!(allowed.headers()["access-control-allow-origin"], ORIGIN);
    assert_eq!(allowed.headers()["access-control-allow-headers"], "content-type,x-amz-meta-a");
    assert!(allowed.headers()["access-control-allow-methods"].to_str().unwrap().contains("PUT"));
    assert!(allowed.headers()["vary"].to_str().unwrap().contains("Origin"));
    for (origin, method) in [("http://evil.example", "PUT"), (ORIGIN, "PATCH")] {
        let refused = preflight(origin, method).await.unwrap();
        assert!(!refused.headers().contains_key("access-control-allow-origin"));
        assert_error(refused, 403, "AccessForbidden").await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn responses_are_readable_by_allowed_origins_alone() {
    let t = TestStore::start().await;
    let url = t.put_url(&Keys::root(), "a").await;
    let allowed = t.http.put(&url).header("origin", ORIGIN).body("x").send().await.unwrap();
    assert_eq!(allowed.headers()["access-control-allow-origin"], ORIGIN);
    let exposed = allowed.headers()["access-control-expose-headers"].to_str().unwrap();
    assert!(exposed.contains("ETag") && exposed.contains("x-amz-checksum-crc64nvme"), "{exposed}");
    let denied = t.http.get(&url).header("origin", ORIGIN).send().await.unwrap();
    assert_eq!(denied.headers()["access-control-allow-origin"], ORIGIN, "errors are for the page too");
    let other = t.http.put(&url).header("origin", "http://evil.example").body("x").send().await.unwrap();
    assert!(!other.headers().contains_key("access-control-allow-origin"));
    assert!(other.headers()["vary"].to_str().unwrap().contains("Origin"));
}

// The data directory

#[tokio::test(flavor = "multi_thread")]
async fn objects_and_uploads_survive_a_restart() {
    let directory = tempfile::tempdir().unwrap();
    let start = || TestStore::start_in(Some(directory.path().to_owned()), Clock::System);
    let t = start().await;
    t.put("a/ü", "hello").await;
    t.put("gone", "hello").await;
    let s3 = t.s3();
    s3.copy_object().bucket(BUCKET).key("copy").copy_source("docs/gone").send().await.unwrap();
    s3.delete_object().bucket(BUCKET).key("gone").send().await.unwrap();
    let upload = s3.create_multipart_upload().bucket(BUCKET).key("big").send().await.unwrap();
    let id = upload.upload_id().unwrap().to_owned();
    let part = s3.upload_part().bucket(BUCKET).key("big").upload_id(&id).part_number(1);
    let etag = part.body("part".as_bytes().to_vec().into()).send().await.unwrap().e_tag.unwrap();
    let other =
        EmbeddedStore::start(options(Some(directory.path().to_owned())), Clock::System, Handle::current()).await;
    assert!(matches!(other, Err(DevError::InUse { .. })));
    t.store.shutdown().await;
    std::fs::write(directory.path().join("blobs/unfinished"), "x").unwrap();

    let t = start().await;
    assert!(!directory.path().join("blobs/unfinished").exists());
    assert_eq!(t.stored("a/ü").await.as_deref(), Some("hello"));
    assert_eq!(t.stored("copy").await.as_deref(), Some("hello"));
    assert_eq!(t.stored("gone").await, None);
    let parts = CompletedPart::builder().part_number(1).e_tag(etag).build();
    let parts = CompletedMultipartUpload::builder().parts(parts).build();
    let complete = t.s3().complete_multipart_upload().bucket(BUCKET).key("big").upload_id(id).multipart_upload(parts);
    complete.send().await.unwrap();
    assert_eq!(t.stored("big").await.as_deref(), Some("part"));
    t.store.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn replaced_deleted_and_refused_bytes_leave_the_disk() {
    let directory = tempfile::tempdir().unwrap();
    let t = TestStore::start_in(Some(directory.path().to_owned()), Clock::System).await;
    let blobs = || std::fs::read_dir(directory.path().join("blobs")).unwrap().count();
    t.put("a", "one").await;
    t.put("a", "two").await;
    let url = t.put_url(&Keys::root(), "b").await;
    let refused = t.http.put(url).header("content-md5", STANDARD.encode([0; 16])).body("hello").send().await.unwrap();
    assert_eq!(refused.status(), 400);
    assert_eq!(blobs(), 1);
    t.s3().delete_object().bucket(BUCKET).key("a").send().await.unwrap();
    assert_eq!(blobs(), 0);
}
