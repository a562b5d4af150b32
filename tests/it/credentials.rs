//! Credentials for the client: what they reach, and what becomes of that.

use std::time::Duration;

use aws_credential_types::Credentials;
use aws_lc_rs::digest::{SHA256, digest};
use aws_sigv4::{
    http_request::{
        PayloadChecksumKind, PercentEncodingMode, SignableBody, SignableRequest, SignatureLocation, SigningSettings,
        UriPathNormalizationMode, sign,
    },
    sign::v4,
};
use base64::{
    Engine as _,
    engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD},
};
use chrono::{DateTime, TimeDelta, Utc};
use presignd::{clock::Clock, config::SweeperConfig, domain::Sweeper};
use reqwest::{StatusCode, Url};
use serde_json::{Value, json};

use crate::{
    clients::stored,
    support::{
        AppOptions, Backend, Caller, Reply, Suite, TestApp,
        backend::BackendKind,
        caller::{client_at, id, sized},
    },
    sweeper::{keys, still, sweep},
};

const HERE: &str = "127.0.0.11";
const ELSEWHERE: &str = "127.0.0.12";

const CONTENT: &[u8] = b"%PDF-1.7 what was promised";
/// As long as [`CONTENT`].
const EVIL: &[u8] = b"%PDF-1.7 not at all that..";

const POLICIES: &str = r#"
[policy.default]
methods = ["put", "credentials", "multipart"]
upload.expires_in = "15m"
max_size = "1GiB"
key = "uploads/{id}-{name}"

[policy.other]
methods = ["credentials"]
upload.expires_in = "1h"
key = "other/{id}-{name}"

[policy.strict]
methods = ["put"]
"#;

pub(crate) fn register(suite: &mut Suite<'_>) {
    suite.everywhere("credentials_write_what_is_confirmed_as_a_copy", confirmed);
    suite.everywhere("what_credentials_wrote_is_stored_as_it_was_promised", attributes);
    suite.everywhere("credentials_reach_their_area_and_nothing_else", reach);
    suite.everywhere("credentials_work_from_one_network", network);
    suite.everywhere("what_credentials_wrote_otherwise_is_rejected", rejected);
    // The others know no such class, and take such keys over TLS only or not at all.
    suite.on(&[BackendKind::SeaweedFs], "what_credentials_wrote_for_nobody_to_read_is_rejected", unreadable);
    suite.everywhere("what_credentials_confirmed_withstands_them", immutable);
    suite.everywhere("credentials_send_a_file_in_parts", parts);
    suite.everywhere("credentials_end_when_their_upload_says", ends);
    suite.everywhere("credentials_are_for_those_who_ask_under_a_policy_that_has_them", asked_for);
}

/// What a client does with the credentials that it was given: it signs as Uppy does, and sends from where it is.
struct Client {
    bucket_url: String,
    region: String,
    credentials: Credentials,
    http: reqwest::Client,
}

impl Client {
    fn new(issued: &Value, address: &str) -> Self {
        let upload = &issued["upload"];
        assert_eq!(upload["method"], "CREDENTIALS", "{}", upload["method"]);
        let text = |value: &Value| value.as_str().expect("text").to_owned();
        let [id, secret, token] =
            ["accessKeyId", "secretAccessKey", "sessionToken"].map(|name| text(&upload["credentials"][name]));
        Self {
            bucket_url: text(&upload["url"]),
            region: text(&upload["region"]),
            credentials: Credentials::new(id, secret, Some(token), None, "issued"),
            http: client_at(address.parse().unwrap()),
        }
    }

    fn at(&self, address: &str) -> Self {
        let Self { bucket_url, region, credentials, .. } = self;
        let (bucket_url, region, credentials) = (bucket_url.clone(), region.clone(), credentials.clone());
        Self { bucket_url, region, credentials, http: client_at(address.parse().unwrap()) }
    }

    /// Sends a request whose URL signs nothing but the host, for an hour.
    async fn send(&self, method: &str, key: &str, query: &str, content_type: &str, body: &[u8]) -> Reply {
        self.send_with(method, key, query, &[("content-type", content_type)], body).await
    }

    /// The same with these headers, of which those of S3 are signed as well.
    async fn send_with(&self, method: &str, key: &str, query: &str, headers: &[(&str, &str)], body: &[u8]) -> Reply {
        let identity = self.credentials.clone().into();
        let mut settings = SigningSettings::default();
        settings.percent_encoding_mode = PercentEncodingMode::Single;
        settings.payload_checksum_kind = PayloadChecksumKind::NoHeader;
        settings.signature_location = SignatureLocation::QueryParams;
        settings.uri_path_normalization_mode = UriPathNormalizationMode::Disabled;
        settings.expires_in = Some(Duration::from_hours(1));
        let parameters = v4::SigningParams::builder()
            .identity(&identity)
            .region(&self.region)
            .name("s3")
            .time(Clock::System.now().into())
            .settings(settings)
            .build()
            .unwrap();
        let url = format!("{}/{key}{query}", self.bucket_url);
        let signed = headers.iter().copied().filter(|(name, _)| name.starts_with("x-amz-"));
        let signable = SignableRequest::new(method, &url, signed, SignableBody::UnsignedPayload).unwrap();
        let (instructions, _) = sign(signable, &parameters.into()).unwrap().into_parts();
        let mut url: Url = url.parse().unwrap();
        url.query_pairs_mut().extend_pairs(instructions.params().iter().map(|(name, value)| (*name, &**value)));
        let mut request = self.http.request(method.parse().unwrap(), url);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        Reply::of(sized(request, body)).await
    }

    async fn put(&self, key: &str, content_type: &str, bytes: &[u8]) -> Reply {
        self.send("PUT", key, "", content_type, bytes).await
    }

    async fn get(&self, key: &str) -> Reply {
        self.send("GET", key, "", "application/pdf", b"").await
    }
}

fn key(issued: &Value) -> &str {
    issued["upload"]["key"].as_str().expect("a key")
}

fn by_credentials() -> Value {
    json!({ "method": "credentials" })
}

async fn start(backend: &Backend) -> (TestApp, Caller) {
    let app =
        TestApp::start_with(backend, AppOptions { policies: Some(POLICIES.to_owned()), ..AppOptions::default() }).await;
    let alice = app.user("alice").at(HERE);
    (app, alice)
}

async fn confirmed(backend: Backend) {
    let (app, alice) = start(&backend).await;
    let issued = alice.issue("a.pdf", CONTENT, &by_credentials()).await;
    assert_eq!(issued["method"], "credentials");
    assert_eq!(issued["client_network"], format!("{HERE}/32"));
    assert_eq!(issued["upload"]["credentials"]["expiration"], issued["expires_at"]);
    assert!(key(&issued).starts_with("staging/~credentials/"), "{}", key(&issued));
    alice.complete(&issued).await.expect_problem(409, "upload_incomplete");

    // One set for several files, as clients ask once.
    let second = alice.issue("b.pdf", EVIL, &by_credentials()).await;
    let area = |issued: &Value| key(issued).rsplit_once("/uploads/").unwrap().0.to_owned();
    assert_eq!(area(&second), area(&issued));
    let client = Client::new(&issued, HERE);
    for (issued, bytes) in [(&issued, CONTENT), (&second, EVIL)] {
        client.put(key(issued), "application/pdf", bytes).await.expect_status(StatusCode::OK);
        let confirmed = alice.complete(issued).await.expect(StatusCode::OK);
        assert_eq!(confirmed["state"], "confirmed");
        assert_eq!(alice.complete(issued).await.expect(StatusCode::OK), confirmed);
        assert_eq!(alice.download(&confirmed).await.bytes, bytes);
        let row = app.running.service.database.upload(id(issued).parse().unwrap()).await.unwrap().unwrap();
        let verified = row.verified_key().as_str();
        assert!(verified.starts_with("uploads/") && !verified.contains("credentials"), "{verified}");
        assert_eq!(stored(&app, verified).await, bytes);
    }
    // Nothing is left where they wrote.
    let listed = app.bucket.s3.list_objects_v2().bucket(&app.bucket.bucket).prefix("staging/").send().await.unwrap();
    assert_eq!(listed.contents().len(), 0);
    app.end().await;
}

async fn attributes(backend: Backend) {
    let (app, alice) = start(&backend).await;
    let promised = json!({ "method": "credentials", "metadata": { "case": "42" } });
    let issued = alice.issue("a.pdf", CONTENT, &promised).await;
    let headers = [
        ("content-type", "application/pdf"),
        ("cache-control", "public, max-age=31536000"),
        ("x-amz-meta-case", "43"),
        ("x-amz-meta-approved", "yes"),
    ];
    let written = Client::new(&issued, HERE).send_with("PUT", key(&issued), "", &headers, CONTENT).await;
    written.expect_status(StatusCode::OK);
    let confirmed = alice.complete(&issued).await.expect(StatusCode::OK);
    let row = app.running.service.database.upload(id(&confirmed).parse().unwrap()).await.unwrap().unwrap();
    let head = app.bucket.s3.head_object().bucket(&app.bucket.bucket).key(row.verified_key().as_str()).send().await;
    let head = head.expect("it is there");
    assert_eq!(head.content_type(), Some("application/pdf"));
    let metadata: Vec<_> = head.metadata().into_iter().flatten().collect();
    assert_eq!(metadata, [(&"case".to_owned(), &"42".to_owned())]);
    assert_eq!(head.cache_control(), None);
    app.end().await;
}

async fn reach(backend: Backend) {
    let (app, alice) = start(&backend).await;
    let confirmed = alice.upload("confirmed.pdf", CONTENT, &json!({ "method": "put" })).await;
    let row = app.running.service.database.upload(id(&confirmed).parse().unwrap()).await.unwrap().unwrap();
    let verified = row.verified_key().as_str().to_owned();
    let bobs = app.user("bob").at(HERE).issue("b.pdf", CONTENT, &by_credentials()).await;
    let others = alice.issue("c.pdf", CONTENT, &json!({ "policy": "other", "method": "credentials" })).await;
    let puts = alice.issue("d.pdf", CONTENT, &json!({ "method": "put" })).await;
    let issued = alice.issue("a.pdf", CONTENT, &by_credentials()).await;
    let client = Client::new(&issued, HERE);
    client.put(key(&issued), "application/pdf", CONTENT).await.expect_status(StatusCode::OK);

    let puts_key = {
        let row = app.running.service.database.upload(id(&puts).parse().unwrap()).await.unwrap().unwrap();
        row.object_key.as_str().to_owned()
    };
    let beside = key(&issued).replace("/uploads/", "x/uploads/");
    for outside in [key(&bobs), key(&others), &puts_key, &verified, "evil.pdf", "staging/evil.pdf", &beside] {
        let put = client.put(outside, "application/pdf", EVIL).await;
        assert_eq!(put.status, StatusCode::FORBIDDEN, "{outside}: {}", put.text());
    }
    Client::new(&bobs, HERE).put(key(&bobs), "application/pdf", CONTENT).await.expect_status(StatusCode::OK);
    for there in [key(&bobs), &verified] {
        let get = client.get(there).await;
        assert_eq!(get.status, StatusCode::FORBIDDEN, "{there}: {}", get.text());
    }
    // They write, and do nothing else: not even to what they wrote.
    for (method, key, query) in [
        ("GET", key(&issued), ""),
        ("HEAD", key(&issued), ""),
        ("DELETE", key(&issued), ""),
        ("GET", "", "?list-type=2"),
    ] {
        let reply = client.send(method, key, query, "application/pdf", b"").await;
        assert_eq!(reply.status, StatusCode::FORBIDDEN, "{method} {key}{query}: {}", reply.text());
    }
    assert_eq!(stored(&app, &verified).await, CONTENT);
    // What they write and no row knows is nobody's upload.
    let stray = key(&issued).replace(&id(&issued).replace('-', ""), &"0".repeat(32));
    client.put(&stray, "application/pdf", EVIL).await.expect_status(StatusCode::OK);
    assert_eq!(alice.complete(&issued).await.expect(StatusCode::OK)["state"], "confirmed");
    let uploads = alice.get("/api/v1/uploads?state=confirmed").await.expect(StatusCode::OK);
    assert_eq!(uploads["uploads"].as_array().unwrap().len(), 2);
    app.end().await;
}

async fn network(backend: Backend) {
    let (app, alice) = start(&backend).await;
    let issued = alice.issue("a.pdf", CONTENT, &by_credentials()).await;
    let client = Client::new(&issued, HERE);
    let elsewhere = client.at(ELSEWHERE).put(key(&issued), "application/pdf", CONTENT).await;
    assert_eq!(elsewhere.status, StatusCode::FORBIDDEN, "{}", elsewhere.text());

    // The client moves: renewing gives credentials for the same key from there, and those from before stay where they were.
    let path = format!("/api/v1/uploads/{}/renew", id(&issued));
    let renewed = alice.at(ELSEWHERE).post_nothing(&path).await.expect(StatusCode::OK);
    assert_eq!(key(&renewed), key(&issued));
    assert_eq!(renewed["client_network"], format!("{ELSEWHERE}/32"));
    let moved = Client::new(&renewed, ELSEWHERE);
    let refused = moved.at(HERE).put(key(&issued), "application/pdf", CONTENT).await;
    assert_eq!(refused.status, StatusCode::FORBIDDEN, "{}", refused.text());
    moved.put(key(&issued), "application/pdf", CONTENT).await.expect_status(StatusCode::OK);
    alice.complete(&issued).await.expect(StatusCode::OK);
    app.end().await;
}

async fn rejected(backend: Backend) {
    let (app, alice) = start(&backend).await;
    let longer = [CONTENT, b"!"].concat();
    for (content_type, bytes, field) in [
        ("application/pdf", &longer[..], "file_size"),
        ("application/pdf", &CONTENT[1..], "file_size"),
        ("text/html", CONTENT, "file_type"),
    ] {
        let issued = alice.issue("a.pdf", CONTENT, &by_credentials()).await;
        Client::new(&issued, HERE).put(key(&issued), content_type, bytes).await.expect_status(StatusCode::OK);
        let problem = alice.complete(&issued).await.expect_problem(422, "upload_mismatch");
        assert_eq!(problem["errors"][0]["field"], field, "{problem}");
        let shown = alice.get(&format!("/api/v1/uploads/{}", id(&issued))).await.expect(StatusCode::OK);
        assert_eq!(shown["state"], "rejected");
    }
    let promised = json!({ "method": "credentials", "checksum_sha256": STANDARD.encode(digest(&SHA256, CONTENT)) });
    let issued = alice.issue("a.pdf", CONTENT, &promised).await;
    Client::new(&issued, HERE).put(key(&issued), "application/pdf", EVIL).await.expect_status(StatusCode::OK);
    let problem = alice.complete(&issued).await.expect_problem(422, "upload_mismatch");
    assert_eq!(problem["errors"][0]["field"], "checksum_sha256", "{problem}");
    app.end().await;
}

/// Headers of SSE-C, with a key that the client alone has.
pub(crate) const CLIENT_KEY: [(&str, &str); 3] = [
    ("x-amz-server-side-encryption-customer-algorithm", "AES256"),
    ("x-amz-server-side-encryption-customer-key", "MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE="),
    ("x-amz-server-side-encryption-customer-key-md5", "KYvwGXoFFJ42a2u2GDWhwQ=="),
];

async fn unreadable(backend: Backend) {
    let AppOptions { settings, clock, .. } = still();
    let options = AppOptions { policies: Some(POLICIES.to_owned()), settings, clock, ..AppOptions::default() };
    let app = TestApp::start_with(&backend, options).await;
    let alice = app.user("alice").at(HERE);
    let archived = [("x-amz-storage-class", "GLACIER")];
    let mut rejected = 0;
    for (headers, field, found) in
        [(&CLIENT_KEY[..], "encryption", "SSE-C"), (&archived[..], "storage_class", "GLACIER")]
    {
        // By the client, and by nobody.
        for is_confirmed in [true, false] {
            let issued = alice.issue("a.pdf", CONTENT, &by_credentials()).await;
            let headers = [headers, &[("content-type", "application/pdf")]].concat();
            let client = Client::new(&issued, HERE);
            client.send_with("PUT", key(&issued), "", &headers, CONTENT).await.expect_status(StatusCode::OK);
            if !is_confirmed {
                app.clock.set(app.clock.now() + TimeDelta::hours(2));
                let would = Sweeper::new(app.running.service.clone(), &SweeperConfig::default()).rehearse(|_| ()).await;
                assert_eq!(would.expect("the store answers").reject, 1);
                rejected += 1;
                assert_eq!(sweep(&app).await.rejected, rejected);
                app.clock.set(Clock::System.now());
            }
            let problem = alice.complete(&issued).await.expect_problem(422, "upload_mismatch");
            let told = &problem["errors"][0];
            assert_eq!((told["field"].as_str(), told["received"].as_str()), (Some(field), Some(found)), "{told}");
        }
    }
    app.clock.set(app.clock.now() + TimeDelta::hours(30));
    sweep(&app).await;
    assert_eq!(keys(&app).await, Vec::<String>::new());
    app.end().await;
}

async fn immutable(backend: Backend) {
    let (app, alice) = start(&backend).await;
    let issued = alice.issue("a.pdf", CONTENT, &by_credentials()).await;
    let client = Client::new(&issued, HERE);
    client.put(key(&issued), "application/pdf", CONTENT).await.expect_status(StatusCode::OK);
    let confirmed = alice.complete(&issued).await.expect(StatusCode::OK);
    client.put(key(&issued), "application/pdf", EVIL).await.expect_status(StatusCode::OK);
    assert_eq!(alice.complete(&issued).await.expect(StatusCode::OK), confirmed);
    assert_eq!(alice.download(&confirmed).await.bytes, CONTENT);
    alice.post_nothing(&format!("/api/v1/uploads/{}/renew", id(&issued))).await.expect_problem(409, "invalid_state");
    app.end().await;
}

async fn parts(backend: Backend) {
    let (app, alice) = start(&backend).await;
    let bytes: Vec<u8> = (0..(5 << 20) + 1000_u32).map(|at| u8::try_from(at % 251).unwrap()).collect();
    let issued = alice.issue("a.bin", &bytes, &by_credentials()).await;
    let (client, key) = (Client::new(&issued, HERE), key(&issued));
    let send = async |method: &str, query: &str, body: &[u8]| {
        let reply = client.send(method, key, query, "application/octet-stream", body).await;
        assert!(reply.status.is_success(), "{method} {query}: {}", reply.text());
        reply
    };
    let upload_id = between(&send("POST", "?uploads=", b"").await.text(), "<UploadId>", "</UploadId>");
    let mut list = String::from("<CompleteMultipartUpload>");
    for (part, number) in bytes.chunks(5 << 20).zip(1..) {
        let stored_part = send("PUT", &format!("?partNumber={number}&uploadId={upload_id}"), part).await;
        let etag = stored_part.headers["etag"].to_str().unwrap();
        list.extend(["<Part><PartNumber>", &number.to_string(), "</PartNumber><ETag>", etag, "</ETag></Part>"]);
    }
    list += "</CompleteMultipartUpload>";
    let listed = send("GET", &format!("?uploadId={upload_id}"), b"").await.text();
    assert!(listed.contains("<PartNumber>2</PartNumber>"), "{listed}");
    // What is there is not an object yet.
    alice.complete(&issued).await.expect_problem(409, "upload_incomplete");
    send("POST", &format!("?uploadId={upload_id}"), list.as_bytes()).await;
    let confirmed = alice.complete(&issued).await.expect(StatusCode::OK);
    assert_eq!(alice.download(&confirmed).await.bytes, bytes);

    let upload_id = between(&send("POST", "?uploads=", b"").await.text(), "<UploadId>", "</UploadId>");
    send("DELETE", &format!("?uploadId={upload_id}"), b"").await;
    app.end().await;
}

/// The text between two marks.
fn between(text: &str, from: &str, to: &str) -> String {
    text.split_once(from).and_then(|(_, rest)| rest.split_once(to)).unwrap_or_else(|| panic!("{text}")).0.to_owned()
}

async fn ends(backend: Backend) {
    let (app, alice) = start(&backend).await;
    let before = app.clock.now();
    let issued = alice.issue("a.pdf", CONTENT, &by_credentials()).await;
    let end: DateTime<Utc> = issued["expires_at"].as_str().unwrap().parse().unwrap();
    assert!(end - before <= TimeDelta::minutes(15) + TimeDelta::seconds(2), "{end} after {before}");
    assert!(end - before >= TimeDelta::minutes(14), "{end} after {before}");
    if backend.kind == BackendKind::SeaweedFs {
        // Its session tokens say when they end, and it is the token that the store goes by.
        let token = issued["upload"]["credentials"]["sessionToken"].as_str().unwrap();
        let claims = URL_SAFE_NO_PAD.decode(token.split('.').nth(1).expect("a JWT")).unwrap();
        let claims: Value = serde_json::from_slice(&claims).unwrap();
        let stored_end = claims["exp"].as_i64().expect("an end");
        assert!((stored_end - end.timestamp()).abs() <= 1, "{stored_end} and {}", end.timestamp());
    }
    // The next upload shares the session and says when that ends, not when one of its own would.
    let next = alice.issue("b.pdf", CONTENT, &by_credentials()).await;
    assert_eq!(next["upload"]["credentials"]["accessKeyId"], issued["upload"]["credentials"]["accessKeyId"]);
    let next_end: DateTime<Utc> = next["expires_at"].as_str().unwrap().parse().unwrap();
    assert!((next_end - end).num_seconds().abs() <= 1, "{next_end} and {end}");
    // A policy that gives them longer has a session of its own.
    let other = alice.issue("c.pdf", CONTENT, &json!({ "policy": "other" })).await;
    assert_ne!(other["upload"]["credentials"]["accessKeyId"], issued["upload"]["credentials"]["accessKeyId"]);
    let body = json!({ "original_file_name": "d.pdf", "file_size": 1, "method": "credentials", "expires_in": 899 });
    let problem = alice.post("/api/v1/uploads", &body).await.expect_problem(422, "policy_refused");
    assert_eq!(problem["errors"][0]["field"], "expires_in");
    assert_eq!(problem["errors"][0]["received"], 899);
    app.end().await;
}

async fn asked_for(backend: Backend) {
    let (app, alice) = start(&backend).await;
    // Nobody gets them unasked where there is anything else, even if that refuses.
    let unasked = alice.issue("a.pdf", CONTENT, &json!({})).await;
    assert_eq!(unasked["method"], "put");
    let only = alice.issue("a.pdf", CONTENT, &json!({ "policy": "other" })).await;
    assert_eq!(only["method"], "credentials");
    let strict = json!({ "original_file_name": "a.pdf", "file_size": 1, "policy": "strict", "method": "credentials" });
    let problem = alice.post("/api/v1/uploads", &strict).await.expect_problem(422, "policy_refused");
    assert_eq!(problem["errors"][0]["field"], "method");
    // What was given up is not renewed.
    let issued = alice.issue("a.pdf", CONTENT, &by_credentials()).await;
    let path = format!("/api/v1/uploads/{}", id(&issued));
    alice.delete(&path).await.expect(StatusCode::OK);
    alice.post_nothing(&format!("{path}/renew")).await.expect_problem(409, "invalid_state");
    app.user("bob").post_nothing(&format!("{path}/renew")).await.expect_problem(404, "not_found");
    app.end().await;
}
