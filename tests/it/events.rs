//! Storage events: the store's word leads to a look at the object, whoever sends it and however often, and to nothing
//! else.

mod sns;

use std::time::Duration;

use aws_sdk_s3::{
    primitives::ByteStream,
    types::{Event, NotificationConfiguration, TopicConfiguration},
};
use futures_util::future::join_all;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use crate::support::{
    AppOptions, Backend, Caller, ChaosProxy, Reply, Suite, TestApp, backend::BackendKind, caller::id, load::eventually,
};

const PATH: &str = "/api/v1/callbacks/s3-events";
pub(crate) const TOKEN: &str = "an-event-token-of-the-tests-0123456789";
const OTHER_TOKEN: &str = "another-event-token-of-the-tests-0123456789";

pub(crate) fn register(suite: &mut Suite<'_>) {
    suite.everywhere("every_format_of_a_storage_event_confirms", formats);
    suite.everywhere("an_event_of_a_staged_form_confirms_a_copy", staged);
    suite.everywhere("repeated_and_early_events_lead_to_one_confirmation", duplicates);
    suite.everywhere("ten_thousand_records_are_one_call", many);
    suite.everywhere("events_of_strangers_are_refused", strangers);
    suite.everywhere("events_of_what_is_no_upload_are_ignored", nobodys);
    suite.everywhere("an_event_from_outside_of_the_network_rejects", source_addresses);
    suite.everywhere("an_event_without_database_is_sent_again", without_database);
    suite.everywhere("an_event_without_store_is_sent_again", without_store);
    suite.everywhere("a_body_that_is_no_event_is_refused", bodies);
    // SeaweedFS has no notifications in S3's format, the embedded store has none at all.
    suite.on(&[BackendKind::Rgw], "notifications_of_ceph_confirm_what_the_client_left_behind", ceph);
    suite.needing("openssl", sns::register);
}

/// Settings under which [`TOKEN`] and [`OTHER_TOKEN`] are good.
pub(crate) fn with_tokens() -> AppOptions {
    let settings = format!("[events]\ntokens = [{{ secret = \"{TOKEN}\" }}, {{ secret = \"{OTHER_TOKEN}\" }}]");
    AppOptions { settings, ..AppOptions::default() }
}

/// A store that has the token.
fn store(app: &TestApp) -> Caller {
    app.anonymous().with_token(TOKEN)
}

/// The key that an issued upload is to be written to.
fn key(app: &TestApp, issued: &Value) -> String {
    if let Some(key) = issued["upload"]["fields"]["key"].as_str() {
        return key.to_owned();
    }
    let path = issued["upload"]["url"].as_str().unwrap().split('?').next().unwrap();
    path.split_once(&format!("/{}/", app.bucket.bucket)).unwrap().1.to_owned()
}

fn record(bucket: &str, key: &str, source_address: &str) -> Value {
    json!({
        "eventVersion": "2.1", "eventSource": "aws:s3", "awsRegion": "us-east-1",
        "eventTime": "2026-11-21T15:33:58.659Z", "eventName": "ObjectCreated:Put",
        "userIdentity": { "principalId": "AWS:AROAEXAMPLE" },
        "requestParameters": { "sourceIPAddress": source_address },
        "responseElements": { "x-amz-request-id": "C3D13FE58DE4C810", "x-amz-id-2": "FMyUVURIY8" },
        "s3": {
            "s3SchemaVersion": "1.0", "configurationId": "uploads",
            "bucket": { "name": bucket, "ownerIdentity": { "principalId": "A3NL1K" }, "arn": format!("arn:aws:s3:::{bucket}") },
            "object": { "key": key, "size": 5, "eTag": "d41d8cd98f00b204e9800998ecf8427e", "sequencer": "0055AED6DCD90281E5" },
        },
    })
}

/// A notification of Amazon S3 about these keys of the service's bucket.
fn notification(app: &TestApp, keys: &[&str]) -> Value {
    let records: Vec<_> = keys.iter().map(|key| record(&app.bucket.bucket, key, "")).collect();
    json!({ "Records": records })
}

async fn tell(caller: &Caller, notification: &Value) -> Value {
    caller.post(PATH, notification).await.expect(StatusCode::OK)
}

fn counts(received: usize, confirmed: usize, rejected: usize, pending: usize) -> Value {
    let ignored = received - confirmed - rejected - pending;
    json!({ "received": received, "confirmed": confirmed, "rejected": rejected, "pending": pending, "ignored": ignored })
}

async fn shown(caller: &Caller, issued: &Value) -> Value {
    caller.get(&format!("/api/v1/uploads/{}", id(issued))).await.expect(StatusCode::OK)
}

/// An upload that the client has sent and will not confirm.
async fn sent(app: &TestApp, more: &Value) -> (Value, String) {
    let alice = app.user("alice");
    let issued = alice.issue("a b.txt", b"bytes", more).await;
    let reply = alice.send(&issued, b"bytes").await;
    assert!(reply.status.is_success(), "{reply:?}");
    let key = key(app, &issued);
    (issued, key)
}

fn put() -> Value {
    json!({ "method": "put" })
}

async fn formats(backend: Backend) {
    let app = TestApp::start_with(&backend, with_tokens()).await;
    let bucket = app.bucket.bucket.clone();
    let encoded = |key: &str| key.replace('/', "%2F").replace('-', "%2D");
    let of_minio = |key: &str| {
        let mut record = record(&bucket, &encoded(key), "127.0.0.1");
        record["eventName"] = "s3:ObjectCreated:Put".into();
        json!({ "EventName": "s3:ObjectCreated:Put", "Key": format!("{bucket}/{key}"), "Records": [record] })
    };
    let of_eventbridge = |key: &str| {
        json!({
            "version": "0", "id": "17793124-05d4-b198-2fde-7ededc63b103", "detail-type": "Object Created",
            "source": "aws.s3", "account": "111122223333", "time": "2026-11-12T00:00:00Z", "region": "ca-central-1",
            "resources": [format!("arn:aws:s3:::{bucket}")],
            "detail": {
                "version": "0", "bucket": { "name": bucket },
                "object": { "key": key, "size": 5, "etag": "b1946ac92492d2347c6235b4d2611184", "sequencer": "00617F08299329D189" },
                "request-id": "N4N7GDK58NMKJ12R", "requester": "123456789012", "source-ip-address": "127.0.0.1",
                "reason": "PutObject",
            },
        })
    };
    let of_s3 = |key: &str| json!({ "Records": [record(&bucket, &encoded(key), "127.0.0.1")] });
    let of_ceph = |key: &str| json!({ "Records": [record(&bucket, key, "")] });
    let formats: [&dyn Fn(&str) -> Value; 4] = [&of_s3, &of_ceph, &of_minio, &of_eventbridge];
    for body in formats {
        let (issued, key) = sent(&app, &put()).await;
        let body = body(&key);
        assert_eq!(tell(&store(&app), &body).await, counts(1, 1, 0, 0), "{body}");
        let upload = shown(&app.user("alice"), &issued).await;
        assert_eq!(upload["state"], "confirmed", "{body}");
        assert_eq!(upload["confirmed_via"], "event");
    }
    // As they come when a notification is set up, and about other things than uploads.
    for ignored in [
        json!({ "Service": "Amazon S3", "Event": "s3:TestEvent", "Time": "2026-11-21T00:00:00Z", "Bucket": bucket }),
        json!({ "detail-type": "Object Deleted", "detail": { "bucket": { "name": bucket }, "object": { "key": "k" } } }),
    ] {
        assert_eq!(tell(&store(&app), &ignored).await, counts(1, 0, 0, 0));
    }
    // The content type is the sender's affair.
    let text = store(&app).request(Method::POST, PATH).header("content-type", "text/plain").body("{\"Records\":[]}");
    assert_eq!(Reply::of(text).await.expect(StatusCode::OK), counts(0, 0, 0, 0));
    let metrics = app.anonymous().get("/metrics").await.text();
    assert!(metrics.contains("presignd_events_total{outcome=\"confirmed\"} 4"), "{metrics}");
    assert!(metrics.contains("presignd_events_total{outcome=\"ignored\"} 2"), "{metrics}");
    app.end().await;
}

/// Unscoped, because neither real store takes a form that is signed by a session with a policy.
async fn staged(backend: Backend) {
    let options = AppOptions { settings: with_tokens().settings, ..AppOptions::unscoped() };
    let app = TestApp::start_with(&backend, options).await;
    let (issued, key) = sent(&app, &json!({ "method": "post" })).await;
    assert!(key.starts_with("staging/"), "{key}");
    assert_eq!(tell(&store(&app), &notification(&app, &[&key])).await, counts(1, 1, 0, 0));
    assert_eq!(shown(&app.user("alice"), &issued).await["confirmed_via"], "event");
    // What confirming itself writes leads to events as well.
    let copies = app.bucket.s3.list_objects_v2().bucket(&app.bucket.bucket).send().await.unwrap();
    let copies: Vec<&str> = copies.contents().iter().filter_map(|object| object.key()).collect();
    assert_eq!(copies.len(), 1, "{copies:?}");
    assert_eq!(tell(&store(&app), &notification(&app, &copies)).await, counts(1, 0, 0, 0));
    assert_eq!(app.user("alice").download(&issued).await.bytes, b"bytes");
    app.end().await;
}

async fn duplicates(backend: Backend) {
    let app = TestApp::start_with(&backend, with_tokens()).await;
    let (alice, store) = (app.user("alice"), store(&app));
    let issued = alice.issue("a.txt", b"bytes", &put()).await;
    let key = key(&app, &issued);
    let event = notification(&app, &[&key]);
    // Ahead of the object: somebody says so, and it is not there.
    assert_eq!(tell(&store, &event).await, counts(1, 0, 0, 1));
    assert_eq!(shown(&alice, &issued).await["state"], "issued");
    assert!(alice.send(&issued, b"bytes").await.status.is_success());

    let thrice = notification(&app, &[&key, &key, &key]);
    assert_eq!(tell(&store, &thrice).await, counts(3, 1, 0, 0));
    let confirmed = shown(&alice, &issued).await;
    for counted in join_all((0..8).map(|_| tell(&store, &event))).await {
        assert_eq!(counted, counts(1, 1, 0, 0));
    }
    // Of another, older object under the key, as far as the event says.
    let mut old = notification(&app, &[&key]);
    old["Records"][0]["s3"]["object"] = json!({ "key": key, "size": 1, "eTag": "0", "sequencer": "0" });
    assert_eq!(tell(&store, &old).await, counts(1, 1, 0, 0));
    assert_eq!(shown(&alice, &issued).await, confirmed);

    // All paths at once.
    let (issued, key) = sent(&app, &put()).await;
    let event = notification(&app, &[&key]);
    let (told, completed) = tokio::join!(
        join_all((0..4).map(|_| tell(&store, &event))),
        join_all((0..4).map(|_| alice.complete(&issued))),
    );
    assert!(told.iter().all(|counted| *counted == counts(1, 1, 0, 0)), "{told:?}");
    let completed: Vec<Value> = completed.iter().map(|reply| reply.expect(StatusCode::OK)).collect();
    assert!(completed.iter().all(|upload| *upload == completed[0]), "{completed:?}");

    // What was given up is not taken up again by an event.
    let (issued, key) = sent(&app, &put()).await;
    alice.delete(&format!("/api/v1/uploads/{}", id(&issued))).await.expect(StatusCode::OK);
    assert_eq!(tell(&store, &notification(&app, &[&key])).await, counts(1, 0, 0, 0));
    assert_eq!(shown(&alice, &issued).await["state"], "aborted");
    app.end().await;
}

async fn many(backend: Backend) {
    const UPLOADS: usize = 50;
    let app = TestApp::start_with(&backend, with_tokens()).await;
    let uploads: Vec<(Value, String)> = {
        let mut uploads = Vec::new();
        for _ in 0..UPLOADS {
            uploads.push(sent(&app, &put()).await);
        }
        uploads
    };
    let nobodys: Vec<String> =
        (0..10_000 - UPLOADS).map(|n| format!("uploads/2026/11/01a1fd9a9a4b7c3a9d2b{n:012x}-a.txt")).collect();
    let keys: Vec<&str> = nobodys.iter().chain(uploads.iter().map(|(_, key)| key)).map(String::as_str).collect();
    let body = notification(&app, &keys);
    assert!(body.to_string().len() > 4 << 20, "larger than other bodies may be");
    assert_eq!(tell(&store(&app), &body).await, counts(10_000, UPLOADS, 0, 0));
    for (issued, _) in &uploads {
        assert_eq!(shown(&app.user("alice"), issued).await["state"], "confirmed");
    }
    let one_more: Vec<&str> = keys.iter().copied().chain(["k"]).collect();
    store(&app).post(PATH, &notification(&app, &one_more)).await.expect_problem(413, "body_too_large");
    app.end().await;
}

async fn strangers(backend: Backend) {
    let app = TestApp::start_with(&backend, with_tokens()).await;
    let (issued, key) = sent(&app, &put()).await;
    let event = notification(&app, &[&key]);
    let anybody = app.anonymous();
    let request = |path: &str| anybody.request(Method::POST, path).json(&event);
    let long = format!("{TOKEN}{TOKEN}");
    let refused = [
        request(PATH),
        request(PATH).bearer_auth(""),
        request(PATH).bearer_auth("garbage"),
        request(PATH).bearer_auth(&TOKEN[1..]),
        request(PATH).bearer_auth(&long),
        request(PATH).bearer_auth(TOKEN.to_uppercase()),
        request(PATH).basic_auth(TOKEN, Some("")),
        request(PATH).basic_auth(TOKEN, None::<&str>),
        request(PATH).header("authorization", format!("Basic {TOKEN}")),
        request(PATH).header("authorization", format!("Digest {TOKEN}")),
        request(PATH).header("authorization", TOKEN),
        request(PATH).header("authorization", b"Bearer \xff".as_slice()),
        request(PATH).header("x-callback-token", TOKEN),
        request(&format!("{PATH}?token={TOKEN}")),
        request(&format!("{PATH}/garbage")),
        // A header that is wrong is not made good by the path.
        request(&format!("{PATH}/{TOKEN}")).bearer_auth("garbage"),
        // A user is not a store, and a callback token is for a client.
        app.user("alice").request(Method::POST, PATH).json(&event),
        request(PATH).bearer_auth(issued["callback"]["token"].as_str().unwrap()),
        // Without sns settings nobody is believed to be SNS.
        request(PATH).header("x-amz-sns-message-type", "Notification"),
    ];
    for request in refused {
        let refused = Reply::of(request).await;
        refused.expect_problem(401, "event_sender_unknown");
        assert_eq!(refused.headers["www-authenticate"], "Basic realm=\"presignd\"");
    }
    let elsewhere = Reply::of(request(&format!("{PATH}/{TOKEN}/more"))).await;
    elsewhere.expect_problem(404, "route_not_found");
    // A stranger's body is not waited for, let alone kept.
    let large = anybody.request(Method::POST, PATH).body(vec![b' '; 20 << 20]);
    if let Ok(reply) = Reply::try_of(large).await {
        reply.expect_problem(401, "event_sender_unknown");
    }
    assert_eq!(shown(&app.user("alice"), &issued).await["state"], "issued");

    for accepted in [
        request(PATH).bearer_auth(TOKEN),
        request(PATH).bearer_auth(OTHER_TOKEN),
        request(PATH).header("authorization", format!("bearer {TOKEN}")),
        request(PATH).basic_auth("anything", Some(TOKEN)),
        request(PATH).basic_auth("", Some(OTHER_TOKEN)),
        request(&format!("{PATH}/{TOKEN}")),
        request(&format!("{PATH}/{OTHER_TOKEN}/")),
    ] {
        assert_eq!(Reply::of(accepted).await.expect(StatusCode::OK), counts(1, 1, 0, 0));
    }
    app.end().await;

    let app = TestApp::start(&backend).await;
    for token in [TOKEN, ""] {
        let refused = app.anonymous().with_token(token).post(PATH, &json!({ "Records": [] })).await;
        refused.expect_problem(401, "event_sender_unknown");
    }
    app.end().await;
}

async fn nobodys(backend: Backend) {
    let app = TestApp::start_with(&backend, with_tokens()).await;
    let (issued, key) = sent(&app, &put()).await;
    let hex = id(&issued).replace('-', "");
    let (folder, name) = key.rsplit_once('/').unwrap();
    let copy = format!("{folder}/0123456789abcdef/{name}");
    let staged = format!("staging/{key}");
    let keys = [
        "k",
        "",
        &copy,
        &staged,
        &hex,
        &format!("{key}.html"),
        &format!("/{key}"),
        &key.to_uppercase(),
        &key.replace("a-b.txt", "b.txt"),
        &format!("uploads/{}", id(&issued)),
    ];
    let count = keys.len();
    assert_eq!(tell(&store(&app), &notification(&app, &keys)).await, counts(count, 0, 0, 0));
    // The same key in another bucket is another object.
    let elsewhere = json!({ "Records": [record("another-bucket", &key, "")] });
    assert_eq!(tell(&store(&app), &elsewhere).await, counts(1, 0, 0, 0));
    let mut removed = notification(&app, &[&key]);
    removed["Records"][0]["eventName"] = "ObjectRemoved:Delete".into();
    assert_eq!(tell(&store(&app), &removed).await, counts(1, 0, 0, 0));
    assert_eq!(shown(&app.user("alice"), &issued).await["state"], "issued");

    // An event of one upload is none of another's.
    let alice = app.user("alice");
    let waiting = alice.issue("b.txt", b"bytes", &put()).await;
    assert_eq!(tell(&store(&app), &notification(&app, &[&key])).await, counts(1, 1, 0, 0));
    assert_eq!(shown(&alice, &waiting).await["state"], "issued");

    // What is there is looked at, not what the event says of it.
    let waiting_key = self::key(&app, &waiting);
    let wrong = app.bucket.s3.put_object().bucket(&app.bucket.bucket).key(&waiting_key);
    wrong.body(ByteStream::from_static(b"1")).send().await.expect("the administrator may put");
    assert_eq!(tell(&store(&app), &notification(&app, &[&waiting_key])).await, counts(1, 0, 1, 0));
    let rejected = shown(&alice, &waiting).await;
    assert_eq!(rejected["state"], "rejected");
    assert!(rejected["mismatches"].to_string().contains("file_size"), "{rejected}");
    app.end().await;
}

async fn source_addresses(backend: Backend) {
    let mut options = with_tokens();
    options.settings.push_str("\ncheck_source_address = true");
    let app = TestApp::start_with(&backend, options).await;
    let alice = app.user("alice");
    let bucket = &app.bucket.bucket;
    for (addresses, outcome) in [
        (&["127.0.0.1"][..], "confirmed"),
        (&["::ffff:127.0.0.1"], "confirmed"),
        (&[""], "confirmed"),
        (&["s3.amazonaws.com"], "confirmed"),
        (&["127.0.0.2"], "rejected"),
        (&["203.0.113.7"], "rejected"),
        (&["2001:db8::1"], "rejected"),
        (&["127.0.0.1", "203.0.113.7"], "rejected"),
        (&["203.0.113.7", "127.0.0.1"], "rejected"),
    ] {
        let (issued, key) = sent(&app, &put()).await;
        let records: Vec<_> = addresses.iter().map(|address| record(bucket, &key, address)).collect();
        let counted = tell(&store(&app), &json!({ "Records": records })).await;
        assert_eq!(counted[outcome], 1, "{addresses:?}: {counted}");
        let upload = shown(&alice, &issued).await;
        assert_eq!(upload["state"], outcome, "{addresses:?}");
        if outcome == "rejected" {
            let outside = addresses.iter().find(|address| **address != "127.0.0.1").unwrap();
            let mismatch = json!([{ "field": "client_network", "expected": "127.0.0.1/32", "found": outside }]);
            assert_eq!(upload["mismatches"], mismatch);
            let refused = alice.complete(&issued).await.expect_problem(422, "upload_mismatch");
            assert_eq!(refused["errors"][0]["field"], "client_network");
        }
    }
    // Before there is an object, an address says nothing.
    let waiting = alice.issue("b.txt", b"bytes", &put()).await;
    let early = json!({ "Records": [record(bucket, &key(&app, &waiting), "203.0.113.7")] });
    assert_eq!(tell(&store(&app), &early).await, counts(1, 0, 0, 1));
    app.end().await;

    // By default it says nothing: the client may have renewed from another network since.
    let app = TestApp::start_with(&backend, with_tokens()).await;
    let (_, key) = sent(&app, &put()).await;
    let event = json!({ "Records": [record(&app.bucket.bucket, &key, "203.0.113.7")] });
    assert_eq!(tell(&store(&app), &event).await, counts(1, 1, 0, 0));
    app.end().await;
}

async fn without_database(backend: Backend) {
    let mut made = None;
    let mut options = with_tokens();
    options.settings.push_str("\n[database]\nacquire_timeout = \"500ms\"\nstatement_timeout = \"500ms\"");
    let alter = async |settings: &mut toml::Table| {
        let url = settings["database"]["url"].as_str().unwrap();
        let (proxy, url) = ChaosProxy::in_front_of(url, &backend.runtime).await;
        settings["database"]["url"] = url.into();
        made = Some(proxy);
    };
    let app = TestApp::start_altered(&backend, options, alter).await;
    let proxy = made.unwrap();
    let (issued, key) = sent(&app, &put()).await;
    let event = notification(&app, &[&key]);
    proxy.cut();
    let refused = store(&app).post(PATH, &event).await;
    refused.expect_problem(503, "database_unavailable");
    assert!(refused.headers.contains_key("retry-after"));
    proxy.heal();
    let again = async || {
        let reply = store(&app).post(PATH, &event).await;
        (reply.status == StatusCode::OK).then(|| reply.json())
    };
    let (counted, _) = eventually(Duration::from_secs(10), again).await;
    assert_eq!(counted, counts(1, 1, 0, 0));
    assert_eq!(shown(&app.user("alice"), &issued).await["state"], "confirmed");
    app.end().await;
}

async fn without_store(backend: Backend) {
    let mut options = with_tokens();
    options.settings.push_str("\n[s3]\nrequest_timeout = \"400ms\"");
    let (app, proxy) = TestApp::start_behind_store_proxy(&backend, options).await;
    let (settled, settled_key) = sent(&app, &put()).await;
    app.user("alice").complete(&settled).await.expect(StatusCode::OK);
    let (issued, key) = sent(&app, &put()).await;
    // One record of two could be answered without the store: the sender must send both again.
    let event = notification(&app, &[&settled_key, &key]);
    proxy.cut();
    let refused = store(&app).post(PATH, &event).await;
    refused.expect_problem(503, "storage_unavailable");
    assert!(refused.headers.contains_key("retry-after"));
    assert_eq!(shown(&app.user("alice"), &issued).await["state"], "issued");
    proxy.heal();
    assert_eq!(tell(&store(&app), &event).await, counts(2, 2, 0, 0));
    app.end().await;
}

async fn bodies(backend: Backend) {
    let mut options = with_tokens();
    options.settings.push_str("\nbody_limit = \"64KiB\"");
    let app = TestApp::start_with(&backend, options).await;
    let send = |body: Vec<u8>| Reply::of(store(&app).request(Method::POST, PATH).body(body));
    for body in ["", "{}", "[]", "5", "{", "{\"Records\":5}", "{\"Records\":[{\"s3\":{\"bucket\":5}}]}", "\u{0}"] {
        send(body.into()).await.expect_problem(400, "invalid_json");
    }
    let name = "secret-file-name";
    let reply = send(format!("{{\"Records\":[{{\"s3\":\"{name}\"}}]}}").into()).await;
    assert!(!reply.expect_problem(400, "invalid_json").to_string().contains(name), "{reply:?}");
    send(vec![b' '; (64 << 10) + 1]).await.expect_problem(413, "body_too_large");
    let nothing = format!("{}{{\"Records\":[]}}", " ".repeat(60 << 10));
    assert_eq!(send(nothing.into()).await.expect(StatusCode::OK), counts(0, 0, 0, 0));
    app.end().await;
}

/// Ceph RGW tells by itself, to a URL that holds the token, and nobody else confirms.
async fn ceph(backend: Backend) {
    let app = TestApp::start_with(&backend, with_tokens()).await;
    let topic = create_topic(&app, &format!("{}{PATH}/{TOKEN}", app.base())).await;
    let topic = TopicConfiguration::builder().id("uploads").topic_arn(topic).events(Event::from("s3:ObjectCreated:*"));
    let configuration = NotificationConfiguration::builder().topic_configurations(topic.build().unwrap()).build();
    let configure = app.bucket.s3.put_bucket_notification_configuration().bucket(&app.bucket.bucket);
    configure.notification_configuration(configuration).send().await.expect("notifications are configured");

    let (issued, _) = sent(&app, &put()).await;
    let alice = app.user("alice");
    let confirmed = async || {
        let upload = shown(&alice, &issued).await;
        (upload["state"] == "confirmed").then_some(upload)
    };
    let (upload, took) = eventually(Duration::from_secs(2), confirmed).await;
    assert_eq!(upload["confirmed_via"], "event");
    eprintln!("measured: Ceph RGW's notification has confirmed an upload {took:?} after it was answered");
    app.end().await;
}

/// The ARN of a topic that pushes to `endpoint`, made with the SNS-compatible API of Ceph RGW.
async fn create_topic(app: &TestApp, endpoint: &str) -> String {
    use aws_sigv4::{
        http_request::{SignableBody, SignableRequest, SigningSettings, sign},
        sign::v4,
    };
    use secrecy::ExposeSecret as _;

    let service = &app.bucket.service;
    let body = form_urlencoded::Serializer::new(String::new())
        .extend_pairs([
            ("Action", "CreateTopic"),
            ("Version", "2010-03-31"),
            ("Name", &app.bucket.bucket),
            ("Attributes.entry.1.key", "push-endpoint"),
            ("Attributes.entry.1.value", endpoint),
        ])
        .finish();
    let secret = service.secret_access_key.expose_secret();
    let identity = aws_credential_types::Credentials::new(&service.access_key_id, secret, None, None, "tests").into();
    let parameters = v4::SigningParams::builder()
        .identity(&identity)
        .region(&service.region)
        .name("sns")
        .time(app.clock.now().into())
        .settings(SigningSettings::default())
        .build()
        .unwrap();
    let host = service.endpoint.trim_start_matches("http://");
    let headers = [("host", host), ("content-type", "application/x-www-form-urlencoded")];
    let url = format!("{}/", service.endpoint);
    let signable =
        SignableRequest::new("POST", &url, headers.into_iter(), SignableBody::Bytes(body.as_bytes())).unwrap();
    let (instructions, _) = sign(signable, &parameters.into()).unwrap().into_parts();
    let mut request = app.anonymous().http.post(&url).header("content-type", "application/x-www-form-urlencoded");
    for (name, value) in instructions.headers() {
        request = request.header(name, value);
    }
    let reply = Reply::of(request.body(body)).await;
    assert_eq!(reply.status, StatusCode::OK, "{}", reply.text());
    let text = reply.text();
    let arn = text.split_once("<TopicArn>").and_then(|(_, rest)| rest.split_once("</TopicArn>"));
    arn.unwrap_or_else(|| panic!("no topic: {text}")).0.to_owned()
}
