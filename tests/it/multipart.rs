//! Large files, part by part: resumed, moved to another network, tampered with, and put together once.

use std::{collections::BTreeSet, time::Duration};

use aws_lc_rs::digest::{SHA256, digest};
use aws_sdk_s3::{
    config::{Builder, RequestChecksumCalculation},
    types::{CompletedMultipartUpload, CompletedPart},
};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use chrono::{DateTime, TimeDelta, Utc};
use futures_util::future::join_all;
use presignd::{clock::Clock, config::SweeperConfig, domain::Sweeper, model::IntentState};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use crate::{
    events::{TOKEN, with_tokens},
    support::{
        AppOptions, Backend, Caller, Reply, Suite, TestApp,
        app::{OTHER_ISSUER, TokenOptions},
        backend::BackendKind,
        caller::{headers, id, sized},
        load::eventually,
        tampered::{Request, one_bit_flipped},
    },
    sweeper::{keys, row, still, sweep},
};

const HERE: &str = "127.0.0.11";
const ELSEWHERE: &str = "127.0.0.12";

/// The smallest that S3 takes.
const PART: usize = 5 << 20;

const POLICIES: &str = r#"
[policy.default]
methods = ["put", "multipart"]
upload.multipart_above = "5MiB"
upload.part_size = "5MiB"
max_size = "5TiB"

[policy.checked]
methods = ["multipart", "put"]
upload.part_size = "5MiB"
checksum = "required"
"#;

pub(crate) fn register(suite: &mut Suite<'_>) {
    suite.everywhere("a_large_file_goes_in_parts_and_is_confirmed", whole_life);
    suite.everywhere("an_upload_is_resumed_where_it_stopped", resumed);
    suite.everywhere("parts_outside_of_the_plan_are_refused_before_any_is_signed", out_of_plan);
    suite.everywhere("the_parts_of_others_do_not_exist", foreign);
    suite.everywhere("only_multipart_uploads_have_parts", no_parts);
    suite.everywhere("a_url_of_a_part_is_good_for_nothing_else", tampered);
    suite.everywhere("a_client_that_changes_its_network_renews_and_goes_on", network_changed);
    suite.everywhere("after_the_end_of_its_urls_an_upload_is_renewed_and_goes_on", expired);
    suite.everywhere("completing_at_once_makes_one_object", completed_at_once);
    suite.everywhere("what_was_put_together_before_a_crash_is_confirmed", crashed);
    suite.everywhere("an_event_of_the_services_own_completion_confirms", event);
    suite.everywhere("a_confirmed_multipart_upload_withstands_its_own_urls", immutable);
    suite.everywhere("a_claimed_part_that_is_another_changes_nothing", claims);
    suite.everywhere("a_part_that_is_sent_again_replaces_the_first", sent_again);
    suite.everywhere("an_upload_that_is_given_up_leaves_no_parts", aborted);
    suite.everywhere("the_sweeper_puts_together_what_is_whole_and_expires_the_rest", swept);
    suite.everywhere("parts_that_came_in_time_are_put_together_after_the_deadline", in_time);
    suite.everywhere("ten_thousand_parts_are_signed_in_one_call", ten_thousand);
    suite.everywhere("every_part_is_bound_to_its_checksum", checksums);
    suite.everywhere("one_idempotency_key_begins_one_multipart_upload", idempotency);
}

async fn start(backend: &Backend) -> TestApp {
    TestApp::start_with(backend, AppOptions { policies: Some(POLICIES.to_owned()), ..AppOptions::default() }).await
}

/// Two parts and a bit, different everywhere.
fn content() -> Vec<u8> {
    (0_u32..).map(|at| u8::try_from((at ^ (at >> 9)) % 251).unwrap()).take(2 * PART + 7).collect()
}

/// The bytes of a part.
fn piece(bytes: &[u8], number: usize) -> &[u8] {
    bytes.chunks(PART).nth(number - 1).expect("a part of the plan")
}

fn path(issued: &Value, action: &str) -> String {
    format!("/api/v1/uploads/{}{action}", id(issued))
}

async fn ask(caller: &Caller, issued: &Value, numbers: &[usize]) -> Reply {
    caller.post(&path(issued, "/parts"), &json!({ "part_numbers": numbers })).await
}

/// The URLs of parts, in the order in which they were asked for.
async fn signed(caller: &Caller, issued: &Value, numbers: &[usize]) -> Vec<Value> {
    let answer = ask(caller, issued, numbers).await.expect(StatusCode::OK);
    let parts = answer["parts"].as_array().expect("parts").clone();
    assert_eq!(parts.iter().map(|part| part["part_number"].as_u64().unwrap()).collect::<Vec<_>>(), {
        numbers.iter().map(|number| u64::try_from(*number).unwrap()).collect::<Vec<_>>()
    });
    parts
}

async fn put(caller: &Caller, part: &Value, bytes: &[u8]) -> Reply {
    Reply::of(sized(caller.http.put(part["url"].as_str().unwrap()).headers(headers(part)), bytes)).await
}

/// Asks for URLs and sends the bytes of these parts. Gives their `ETag`s as the store told them.
async fn send(caller: &Caller, issued: &Value, bytes: &[u8], numbers: &[usize]) -> Vec<String> {
    let mut etags = Vec::new();
    for (part, number) in signed(caller, issued, numbers).await.iter().zip(numbers) {
        let sent = put(caller, part, piece(bytes, *number)).await;
        assert!(sent.status.is_success(), "part {number}: {} {}", sent.status, sent.text());
        etags.push(sent.headers["etag"].to_str().unwrap().to_owned());
    }
    etags
}

/// The numbers of the parts that the service says the store has.
async fn listed(caller: &Caller, issued: &Value) -> Vec<u64> {
    let listed = caller.get(&path(issued, "/parts")).await.expect(StatusCode::OK);
    assert_eq!(listed["part_size"], PART);
    assert_eq!(listed["part_count"], 3);
    let parts = listed["parts"].as_array().expect("parts");
    for part in parts {
        let number = usize::try_from(part["part_number"].as_u64().unwrap()).unwrap();
        assert_eq!(part["size"], if number == 3 { 7 } else { PART }, "{part}");
        assert!(!part["etag"].as_str().unwrap().is_empty());
    }
    parts.iter().map(|part| part["part_number"].as_u64().unwrap()).collect()
}

/// How many multipart uploads the bucket has.
async fn open_multiparts(app: &TestApp) -> usize {
    let open = app.bucket.s3.list_multipart_uploads().bucket(&app.bucket.bucket).send().await.expect("a listing");
    open.uploads().len()
}

async fn downloads_as(caller: &Caller, issued: &Value, bytes: &[u8]) {
    assert!(caller.download(issued).await.bytes == bytes, "other bytes than were sent");
}

async fn whole_life(backend: Backend) {
    let app = start(&backend).await;
    let (alice, bytes) = (app.user("alice").at(HERE), content());
    let small = alice.issue("small.pdf", &bytes[..PART], &json!({})).await;
    assert_eq!(small["upload"]["method"], "PUT", "at the threshold");

    let issued = alice.issue("large.pdf", &bytes, &json!({ "metadata": { "case": "42" } })).await;
    assert_eq!((&issued["method"], &issued["presigned_post_data"]), (&json!("multipart"), &Value::Null));
    let parts_url = format!("{}{}", app.base(), path(&issued, "/parts"));
    let expected = json!({
        "method": "MULTIPART", "part_size": PART, "part_count": 3, "part_checksums": false, "parts_url": parts_url,
        "expires_at": issued["expires_at"],
    });
    assert_eq!(issued["upload"], expected);
    assert_eq!(listed(&alice, &issued).await, Vec::<u64>::new());
    alice.complete(&issued).await.expect_problem(409, "upload_incomplete");

    // In any order, and the order of the answer is that of the question.
    let parts = signed(&alice, &issued, &[3, 1, 2]).await;
    for (part, number) in parts.iter().zip([3, 1, 2]) {
        assert_eq!(part["headers"], json!({}));
        assert_eq!(part["expires_at"], issued["expires_at"]);
        assert!(put(&alice, part, piece(&bytes, number)).await.status.is_success());
    }
    assert_eq!(listed(&alice, &issued).await, [1, 2, 3]);
    let confirmed = alice.complete(&issued).await.expect(StatusCode::OK);
    assert_eq!((&confirmed["state"], &confirmed["confirmed_via"]), (&json!("confirmed"), &json!("callback")));
    assert_eq!(alice.complete(&issued).await.expect(StatusCode::OK), confirmed, "repeated");
    downloads_as(&alice, &issued, &bytes).await;

    let key = row(&app, &issued).await.object_key;
    let head =
        app.bucket.s3.head_object().bucket(&app.bucket.bucket).key(key.as_str()).send().await.expect("an object");
    assert_eq!(head.content_type(), Some("application/pdf"));
    assert_eq!(head.metadata().and_then(|metadata| metadata.get("case")).map(String::as_str), Some("42"));
    assert_eq!(head.e_tag().map(|etag| etag.trim_matches('"')), confirmed["etag"].as_str());
    assert_eq!(open_multiparts(&app).await, 0);

    // By its callback token, without a JWT, and in one part.
    let tiny = alice.issue("tiny.txt", b"!", &json!({ "method": "multipart" })).await;
    let part = &signed(&alice, &tiny, &[1]).await[0];
    assert!(put(&alice, part, b"!").await.status.is_success());
    let by_token = json!({ "token": tiny["callback"]["token"] });
    let confirmed = app.anonymous().post(&path(&tiny, "/complete"), &by_token).await.expect(StatusCode::OK);
    assert_eq!(confirmed["state"], "confirmed");
    downloads_as(&alice, &tiny, b"!").await;
    app.end().await;
}

async fn resumed(backend: Backend) {
    let app = start(&backend).await;
    let (alice, bytes) = (app.user("alice"), content());
    let issued = alice.issue("a.bin", &bytes, &json!({})).await;
    send(&alice, &issued, &bytes, &[1, 3]).await;
    let problem = alice.complete(&issued).await.expect_problem(409, "upload_incomplete");
    assert_eq!(problem["detail"], "these parts have not been uploaded yet: 2");
    assert_eq!(listed(&alice, &issued).await, [1, 3]);

    // Another process of the client knows the id and nothing else. A part may be sent again.
    let etags = send(&alice, &issued, &bytes, &[2, 3]).await;
    assert_eq!(listed(&alice, &issued).await, [1, 2, 3]);
    // Quoted as the store says it, and as some clients send it.
    let unquoted = etags[1].trim_matches('"');
    let parts = json!([{ "part_number": 2, "etag": etags[0] }, { "part_number": 3, "etag": unquoted }]);
    alice.post(&path(&issued, "/complete"), &json!({ "parts": parts })).await.expect(StatusCode::OK);
    downloads_as(&alice, &issued, &bytes).await;
    app.end().await;
}

async fn out_of_plan(backend: Backend) {
    let app = start(&backend).await;
    let (alice, bytes) = (app.user("alice"), content());
    let issued = alice.issue("a.bin", &bytes, &json!({})).await;
    let digest = STANDARD.encode([0; 32]);
    for (body, field, rule) in [
        (json!({ "part_numbers": [0] }), "part_numbers[0]", "must be 1 to 3"),
        (json!({ "part_numbers": [1, 2, 4] }), "part_numbers[2]", "must be 1 to 3"),
        (json!({ "part_numbers": [10_000] }), "part_numbers[0]", "must be 1 to 3"),
        (json!({ "part_numbers": [65_537] }), "part_numbers[0]", "must be 1 to 3"),
        (json!({ "part_numbers": [u64::MAX] }), "part_numbers[0]", "must be 1 to 3"),
        (json!({ "part_numbers": [1, 1] }), "part_numbers[1]", "must not be repeated"),
        (json!({ "part_numbers": [] }), "part_numbers", "must be 1 to 10000 numbers"),
        (json!({ "part_numbers": vec![1; 10_001] }), "part_numbers", "must be 1 to 10000 numbers"),
        (json!({ "part_numbers": [-1] }), "part_numbers[0]", "expected u64"),
        (json!({ "part_numbers": ["1"] }), "part_numbers[0]", "expected u64"),
        (json!({}), "part_numbers", "missing field"),
        (
            json!({ "part_numbers": [1], "checksums_sha256": { "1": digest } }),
            "checksums_sha256.1",
            "not issued with part_checksums",
        ),
        (
            json!({ "part_numbers": [1], "checksums_sha256": { "1": "00" } }),
            "checksums_sha256.1",
            "base64 of a SHA-256",
        ),
        (
            json!({ "part_numbers": [1], "checksums_sha256": { "one": digest } }),
            "checksums_sha256.one",
            "must be named by the number",
        ),
    ] {
        let problem = alice.post(&path(&issued, "/parts"), &body).await.expect_problem(422, "invalid_request");
        let errors = problem["errors"].as_array().unwrap();
        assert_eq!((errors.len(), errors[0]["field"].as_str()), (1, Some(field)), "{problem}");
        assert!(errors[0]["rule"].as_str().unwrap().contains(rule), "{problem}");
        assert!(!problem.to_string().contains("X-Amz-Signature"));
    }
    // Thousands of wrong numbers are not answered with thousands of sentences.
    let wrong: Vec<u64> = (4..=10_000).collect();
    let problem = alice.post(&path(&issued, "/parts"), &json!({ "part_numbers": wrong })).await;
    assert_eq!(problem.expect_problem(422, "invalid_request")["errors"].as_array().unwrap().len(), 20);

    for (parts, field) in [
        (json!([{ "part_number": 0, "etag": "a" }]), "parts[0].part_number"),
        (json!([{ "part_number": 1, "etag": "" }]), "parts[0].etag"),
        (json!([[1, "a"]]), "parts[0]"),
    ] {
        let problem = alice.post(&path(&issued, "/complete"), &json!({ "parts": parts })).await;
        assert_eq!(problem.expect_problem(422, "invalid_request")["errors"][0]["field"], field);
    }

    // What has no parts.
    for (size, more, field) in [
        (0, json!({ "method": "multipart" }), "file_size"),
        (5, json!({ "method": "multipart", "checksum_sha256": digest }), "checksum_sha256"),
        (5_u64 << 40, json!({ "method": "put" }), "method"),
        ((5_u64 << 40) + 1, json!({}), "file_size"),
    ] {
        let mut body = json!({ "original_file_name": "a", "file_size": size });
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let problem = alice.post("/api/v1/uploads", &body).await.expect_problem(422, "policy_refused");
        assert_eq!(problem["errors"][0]["field"], field, "{problem}");
    }
    assert_eq!(open_multiparts(&app).await, 1, "what is refused begins nothing");
    app.end().await;
}

async fn foreign(backend: Backend) {
    let app = start(&backend).await;
    let (alice, bytes) = (app.user("alice"), content());
    let issued = alice.issue("a.bin", &bytes, &json!({})).await;
    send(&alice, &issued, &bytes, &[1]).await;
    let namesake = TokenOptions { issuer: OTHER_ISSUER, tenant: Some("acme"), ..TokenOptions::default() };
    for stranger in [app.user("bob"), app.anonymous().with_token(app.token(&namesake))] {
        ask(&stranger, &issued, &[1]).await.expect_problem(404, "not_found");
        // Not even which numbers it has.
        ask(&stranger, &issued, &[4]).await.expect_problem(404, "not_found");
        stranger.get(&path(&issued, "/parts")).await.expect_problem(404, "not_found");
        stranger.complete(&issued).await.expect_problem(404, "not_found");
        stranger.post_nothing(&path(&issued, "/renew")).await.expect_problem(404, "not_found");
        stranger.delete(&path(&issued, "")).await.expect_problem(404, "not_found");
    }
    for anybody in [app.anonymous(), app.anonymous().with_token("garbage")] {
        assert_eq!(ask(&anybody, &issued, &[1]).await.status, StatusCode::UNAUTHORIZED);
        assert_eq!(anybody.get(&path(&issued, "/parts")).await.status, StatusCode::UNAUTHORIZED);
    }
    assert_eq!(listed(&alice, &issued).await, [1], "nothing refused has changed it");
    app.end().await;
}

async fn no_parts(backend: Backend) {
    let app = start(&backend).await;
    let alice = app.user("alice");
    let issued = alice.issue("a.txt", b"12345", &json!({ "method": "put" })).await;
    ask(&alice, &issued, &[1]).await.expect_problem(409, "not_multipart");
    alice.get(&path(&issued, "/parts")).await.expect_problem(409, "not_multipart");
    app.end().await;
}

/// What is changed, and how.
type Tamper<'a> = (&'static str, &'a dyn Fn(&mut Request));

async fn tampered(backend: Backend) {
    let app = start(&backend).await;
    let (alice, bytes) = (app.user("alice").at(HERE), content());
    let issued = alice.issue("a.bin", &bytes, &json!({})).await;
    let other = alice.issue("b.bin", &bytes, &json!({})).await;
    let confirmed = alice.upload("c.bin", b"of another upload", &json!({ "method": "put" })).await;
    let before = keys(&app).await;

    let request = |part: &Value| {
        let upload = json!({ "method": "PUT", "url": part["url"], "headers": part["headers"], "fields": {} });
        Request::upload(HERE, &upload, piece(&bytes, 3))
    };
    let genuine = request(&signed(&alice, &issued, &[3]).await[0]);
    let others = request(&signed(&alice, &other, &[3]).await[0]);
    let source = format!("/{}/{}", app.bucket.bucket, row(&app, &confirmed).await.verified_key());
    let attacks: &[Tamper<'_>] = &[
        ("another part", &|r| r.set_parameter("partNumber", Some("2"))),
        ("a part beyond the plan", &|r| r.set_parameter("partNumber", Some("4"))),
        ("the number left out", &|r| r.set_parameter("partNumber", None)),
        ("another upload", &|r| r.take_parameter("uploadId", &others)),
        ("another key", &|r| r.set_path(others.path())),
        ("an object instead of a part", &|r| {
            r.set_parameter("partNumber", None);
            r.set_parameter("uploadId", None);
        }),
        ("no query", &|r| r.url.truncate(r.url.find('?').unwrap())),
        ("one byte more", &|r| r.body.push(b'!')),
        ("one byte less", &|r| r.body.truncate(6)),
        ("nothing", &|r| r.body.clear()),
        ("chunked, of no stated length", &|r| r.chunked = true),
        ("signature with one bit flipped", &|r| r.change_parameter("X-Amz-Signature", one_bit_flipped)),
        ("signature of another upload", &|r| r.take_parameter("X-Amz-Signature", &others)),
        ("expiry raised", &|r| r.set_parameter("X-Amz-Expires", Some("86400"))),
        ("session token left out", &|r| r.set_parameter("X-Amz-Security-Token", None)),
        ("from another address", &|r| r.from = ELSEWHERE),
        ("from another address, X-Forwarded-For", &|r| {
            r.from = ELSEWHERE;
            r.set_header("x-forwarded-for", Some(HERE));
        }),
        ("completed", &|r| r.method = Method::POST),
        ("aborted", &|r| r.method = Method::DELETE),
        ("listed", &|r| r.method = Method::GET),
        ("copied from another object", &|r| r.set_header("x-amz-copy-source", Some(&source))),
    ];
    let elsewhere = alice.at(ELSEWHERE);
    for (name, tamper) in attacks {
        let mut attack = genuine.clone();
        tamper(&mut attack);
        assert!(attack != genuine, "{name} changes nothing");
        let client = if attack.from == HERE { &alice.http } else { &elsewhere.http };
        if let Ok(reply) = attack.send(client).await {
            assert!(reply.status.is_client_error(), "{name}: {} {}", reply.status, reply.text());
        }
        for upload in [&issued, &other] {
            assert_eq!(listed(&alice, upload).await, Vec::<u64>::new(), "{name}");
        }
        assert_eq!(keys(&app).await, before, "{name}");
    }
    let sent = genuine.send(&alice.http).await.expect("an answer");
    assert!(sent.status.is_success(), "what was not tampered with is taken: {}", sent.text());
    assert_eq!(listed(&alice, &issued).await, [3]);
    app.end().await;
}

async fn network_changed(backend: Backend) {
    let app = start(&backend).await;
    let (here, bytes) = (app.user("alice").at(HERE), content());
    let elsewhere = here.at(ELSEWHERE);
    let issued = here.issue("a.bin", &bytes, &json!({})).await;
    let old = signed(&here, &issued, &[1, 2, 3]).await;
    assert!(put(&here, &old[0], piece(&bytes, 1)).await.status.is_success());

    // The same client, in another network from here on.
    assert!(put(&elsewhere, &old[1], piece(&bytes, 2)).await.status.is_client_error(), "the store refuses");
    let problem = ask(&elsewhere, &issued, &[2]).await.expect_problem(409, "network_changed");
    assert!(problem["detail"].as_str().unwrap().contains("renew"), "{problem}");
    let renewed = elsewhere.post_nothing(&path(&issued, "/renew")).await.expect(StatusCode::OK);
    assert_eq!(renewed["client_network"], format!("{ELSEWHERE}/32"));
    for same in ["id", "file_name", "method", "state"] {
        assert_eq!(renewed[same], issued[same]);
    }
    for same in ["method", "part_size", "part_count", "parts_url"] {
        assert_eq!(renewed["upload"][same], issued["upload"][same]);
    }
    assert_eq!(listed(&elsewhere, &issued).await, [1], "what was sent is kept");
    ask(&here, &issued, &[2]).await.expect_problem(409, "network_changed");
    send(&elsewhere, &issued, &bytes, &[2, 3]).await;
    elsewhere.complete(&issued).await.expect(StatusCode::OK);
    downloads_as(&elsewhere, &issued, &bytes).await;
    app.end().await;
}

async fn expired(backend: Backend) {
    let app = start(&backend).await;
    let (alice, bytes) = (app.user("alice"), content());
    let issued = alice.issue("a.bin", &bytes, &json!({ "expires_in": 6 })).await;
    let part = &signed(&alice, &issued, &[3]).await[0];
    assert!(put(&alice, part, piece(&bytes, 3)).await.status.is_success());
    let limit = Duration::from_secs(20);
    let refused = async || put(&alice, part, piece(&bytes, 3)).await.status.is_client_error().then_some(());
    eventually(limit, refused).await;
    let (reply, _) = eventually(limit, async || {
        let reply = ask(&alice, &issued, &[1]).await;
        (reply.status != StatusCode::OK).then_some(reply)
    })
    .await;
    let problem = reply.expect_problem(409, "renew_required");
    assert!(problem["detail"].as_str().unwrap().contains("renew"), "{problem}");

    let renewed = alice.post_nothing(&path(&issued, "/renew")).await.expect(StatusCode::OK);
    assert!(instant(&renewed["expires_at"]) > instant(&issued["expires_at"]));
    assert_eq!(listed(&alice, &issued).await, [3]);
    send(&alice, &issued, &bytes, &[1, 2]).await;
    alice.complete(&issued).await.expect(StatusCode::OK);
    downloads_as(&alice, &issued, &bytes).await;
    alice.post_nothing(&path(&issued, "/renew")).await.expect_problem(409, "invalid_state");
    ask(&alice, &issued, &[1]).await.expect_problem(409, "invalid_state");
    alice.get(&path(&issued, "/parts")).await.expect_problem(409, "invalid_state");
    app.end().await;
}

fn instant(value: &Value) -> DateTime<Utc> {
    value.as_str().expect("an instant").parse().expect("an instant")
}

async fn completed_at_once(backend: Backend) {
    let app = start(&backend).await;
    let (alice, bytes) = (app.user("alice"), content());
    for _ in 0..3 {
        let issued = alice.issue("a.bin", &bytes, &json!({})).await;
        send(&alice, &issued, &bytes, &[1, 2, 3]).await;
        let answers = join_all((0..8).map(|_| alice.complete(&issued))).await;
        let confirmed: Vec<Value> = answers.iter().map(|answer| answer.expect(StatusCode::OK)).collect();
        assert!(confirmed.iter().all(|answer| *answer == confirmed[0]), "one transition: {confirmed:?}");
        downloads_as(&alice, &issued, &bytes).await;
    }
    assert_eq!((open_multiparts(&app).await, keys(&app).await.len()), (0, 3));
    app.end().await;
}

/// Completes at the store, as the service does it, and dies before it has written anything.
async fn complete_and_crash(app: &TestApp, issued: &Value) {
    let intent = row(app, issued).await;
    let multipart = intent.multipart().expect("a multipart upload");
    let (s3, bucket, key) = (&app.bucket.s3, &app.bucket.bucket, intent.object_key.as_str());
    let listed = s3.list_parts().bucket(bucket).key(key).upload_id(multipart.upload_id).send().await.expect("parts");
    let parts = listed.parts().iter().map(|part| {
        CompletedPart::builder().set_part_number(part.part_number()).set_e_tag(part.e_tag().map(str::to_owned)).build()
    });
    let parts = CompletedMultipartUpload::builder().set_parts(Some(parts.collect())).build();
    let complete = s3.complete_multipart_upload().bucket(bucket).key(key).upload_id(multipart.upload_id);
    complete.multipart_upload(parts).send().await.expect("it is completed");
}

async fn crashed(backend: Backend) {
    let app = start(&backend).await;
    let (alice, bytes) = (app.user("alice"), content());
    let issued = alice.issue("a.bin", &bytes, &json!({})).await;
    send(&alice, &issued, &bytes, &[1, 2, 3]).await;
    complete_and_crash(&app, &issued).await;
    assert_eq!(row(&app, &issued).await.state, IntentState::Issued);
    alice.get(&path(&issued, "/parts")).await.expect_problem(409, "parts_gone");
    alice.complete(&issued).await.expect(StatusCode::OK);
    downloads_as(&alice, &issued, &bytes).await;

    // And parts that somebody has removed behind the service's back.
    let lost = alice.issue("b.bin", &bytes, &json!({})).await;
    let intent = row(&app, &lost).await;
    let abort = app.bucket.s3.abort_multipart_upload().bucket(&app.bucket.bucket).key(intent.object_key.as_str());
    abort.upload_id(intent.multipart().unwrap().upload_id).send().await.expect("it is aborted");
    alice.get(&path(&lost, "/parts")).await.expect_problem(409, "parts_gone");
    alice.complete(&lost).await.expect_problem(409, "parts_gone");
    app.end().await;
}

/// Amazon S3 names the address that a request came from, which for the completion is the service's.
async fn event(backend: Backend) {
    let options = AppOptions { policies: Some(POLICIES.to_owned()), ..with_tokens() };
    let app = TestApp::start_with(&backend, options).await;
    let (alice, bytes) = (app.user("alice").at(HERE), content());
    let issued = alice.issue("a.bin", &bytes, &json!({})).await;
    let key = row(&app, &issued).await.object_key;
    let tell = async || {
        let record = json!({
            "eventName": "ObjectCreated:CompleteMultipartUpload", "eventTime": "2026-11-21T15:33:58.659Z",
            "requestParameters": { "sourceIPAddress": "203.0.113.9" },
            "s3": { "bucket": { "name": app.bucket.bucket }, "object": { "key": key.as_str(), "size": bytes.len() } },
        });
        let store = app.anonymous().with_token(TOKEN);
        store.post("/api/v1/callbacks/s3-events", &json!({ "Records": [record] })).await.expect(StatusCode::OK)
    };
    send(&alice, &issued, &bytes, &[1]).await;
    assert_eq!(tell().await["pending"], 1, "an event that is early");
    send(&alice, &issued, &bytes, &[2, 3]).await;
    complete_and_crash(&app, &issued).await;
    assert_eq!(tell().await["confirmed"], 1);
    let shown = alice.get(&path(&issued, "")).await.expect(StatusCode::OK);
    assert_eq!((&shown["state"], &shown["confirmed_via"]), (&json!("confirmed"), &json!("event")));
    app.end().await;
}

async fn immutable(backend: Backend) {
    let app = start(&backend).await;
    let (alice, bytes) = (app.user("alice"), content());
    let issued = alice.issue("a.bin", &bytes, &json!({})).await;
    let parts = signed(&alice, &issued, &[1, 2, 3]).await;
    for (part, number) in parts.iter().zip(1..) {
        assert!(put(&alice, part, piece(&bytes, number)).await.status.is_success());
    }
    let confirmed = alice.complete(&issued).await.expect(StatusCode::OK);
    let evil = vec![b'!'; bytes.len()];
    for (part, number) in parts.iter().zip(1..) {
        let replayed = put(&alice, part, piece(&evil, number)).await;
        assert!(replayed.status.is_client_error(), "part {number}: {}", replayed.status);
        let mut object = Request::upload(
            "127.0.0.1",
            &json!({ "method": "PUT", "url": part["url"], "headers": {}, "fields": {} }),
            piece(&evil, number),
        );
        object.set_parameter("partNumber", None);
        object.set_parameter("uploadId", None);
        let _ = object.send(&alice.http).await;
        assert_eq!(alice.complete(&issued).await.expect(StatusCode::OK), confirmed);
        downloads_as(&alice, &issued, &bytes).await;
    }
    alice.delete(&path(&issued, "")).await.expect_problem(409, "invalid_state");
    downloads_as(&alice, &issued, &bytes).await;
    app.end().await;
}

async fn claims(backend: Backend) {
    let app = start(&backend).await;
    let (alice, bytes) = (app.user("alice"), content());
    let issued = alice.issue("a.bin", &bytes, &json!({})).await;
    let etags = send(&alice, &issued, &bytes, &[1, 2, 3]).await;
    let claim = |number: usize, etag: &str| json!({ "part_number": number, "etag": etag });
    let parts = json!([claim(1, &etags[0]), claim(2, &etags[0]), claim(3, &etags[2])]);
    let problem = alice.post(&path(&issued, "/complete"), &json!({ "parts": parts })).await;
    let problem = problem.expect_problem(422, "etag_mismatch");
    assert_eq!(problem["errors"][0]["field"], "parts[1].etag", "{problem}");
    assert_eq!(problem["errors"][0]["received"], etags[0].trim_matches('"'));
    assert_eq!(problem["errors"][0]["expected"], etags[1].trim_matches('"'));
    let beyond = json!({ "parts": [claim(4, &etags[0])] });
    alice.post(&path(&issued, "/complete"), &beyond).await.expect_problem(422, "etag_mismatch");
    assert_eq!(row(&app, &issued).await.state, IntentState::Issued);

    // A part that became another after it was claimed.
    send(&alice, &issued, &other(&bytes), &[2]).await;
    let parts = json!([claim(1, &etags[0]), claim(2, &etags[1]), claim(3, &etags[2])]);
    // SeaweedFS keeps what was there before, and completes with what it is told.
    if backend.kind != BackendKind::SeaweedFs {
        let problem = alice.post(&path(&issued, "/complete"), &json!({ "parts": parts })).await;
        problem.expect_problem(422, "etag_mismatch");
        send(&alice, &issued, &bytes, &[2]).await;
    }
    alice.post(&path(&issued, "/complete"), &json!({ "parts": parts })).await.expect(StatusCode::OK);
    downloads_as(&alice, &issued, &bytes).await;
    app.end().await;
}

/// As long as `bytes`, and nowhere the same.
fn other(bytes: &[u8]) -> Vec<u8> {
    bytes.iter().map(|byte| byte ^ 1).collect()
}

async fn sent_again(backend: Backend) {
    let app = start(&backend).await;
    let (alice, first) = (app.user("alice"), content());
    let second = other(&first);
    let issued = alice.issue("a.bin", &first, &json!({})).await;
    send(&alice, &issued, &first, &[1, 2, 3]).await;
    send(&alice, &issued, &second, &[1, 2, 3]).await;
    // Where a store keeps both and cannot tell which was the last, they count as missing.
    let confirmed = async || {
        let answer = alice.complete(&issued).await;
        if answer.status == StatusCode::OK {
            return Some(());
        }
        answer.expect_problem(409, "upload_incomplete");
        send(&alice, &issued, &second, &[1, 2, 3]).await;
        None
    };
    eventually(Duration::from_secs(20), confirmed).await;
    downloads_as(&alice, &issued, &second).await;
    app.end().await;
}

async fn aborted(backend: Backend) {
    let app = start(&backend).await;
    let (alice, bytes) = (app.user("alice"), content());
    let issued = alice.issue("a.bin", &bytes, &json!({})).await;
    send(&alice, &issued, &bytes, &[1, 3]).await;
    let part = &signed(&alice, &issued, &[2]).await[0];
    for _ in 0..2 {
        let aborted = alice.delete(&path(&issued, "")).await.expect(StatusCode::OK);
        assert_eq!(aborted["state"], "aborted");
    }
    assert_eq!(open_multiparts(&app).await, 0);
    assert!(put(&alice, part, piece(&bytes, 2)).await.status.is_client_error());
    ask(&alice, &issued, &[2]).await.expect_problem(409, "invalid_state");
    alice.get(&path(&issued, "/parts")).await.expect_problem(409, "invalid_state");
    alice.complete(&issued).await.expect_problem(409, "invalid_state");
    alice.post_nothing(&path(&issued, "/renew")).await.expect_problem(409, "invalid_state");
    assert_eq!((open_multiparts(&app).await, keys(&app).await), (0, Vec::new()));
    app.end().await;
}

/// A service whose clock stands still, which sweeps when the test says so, and whose URLs are for any network.
async fn start_still(backend: &Backend) -> TestApp {
    let policies = POLICIES
        .replace("max_size", "ip_scope = \"off\"\nmax_size")
        .replace("checksum = \"required\"", "ip_scope = \"off\"\nchecksum = \"required\"");
    TestApp::start_with(backend, AppOptions { policies: Some(policies), ..still() }).await
}

async fn swept(backend: Backend) {
    let app = start_still(&backend).await;
    let (alice, bytes) = (app.user("alice"), content());
    let whole = alice.issue("whole.bin", &bytes, &json!({})).await;
    let broken = alice.issue("broken.bin", &bytes, &json!({})).await;
    let never = alice.issue("never.bin", &bytes, &json!({})).await;
    send(&alice, &whole, &bytes, &[1, 2, 3]).await;
    send(&alice, &broken, &bytes, &[1, 2]).await;

    let end = instant(&never["expires_at"]);
    app.clock.set(end + TimeDelta::minutes(1));
    let settings = SweeperConfig { requests_per_second: 10_000, ..SweeperConfig::default() };
    let sweeper = Sweeper::new(app.running.service.clone(), &settings);
    let rehearsal = sweeper.rehearse(|_| ()).await.unwrap();
    assert_eq!((rehearsal.due, rehearsal.confirm, rehearsal.wait), (3, 1, 2));
    let done = sweep(&app).await;
    assert_eq!((done.looked, done.confirmed, done.failed), (3, 1, 0));
    assert_eq!(row(&app, &whole).await.settled_via.as_deref(), Some("sweeper"));
    assert_eq!(open_multiparts(&app).await, 2, "they may still be renewed");

    // However old: only a settled upload's parts go.
    app.clock.set(end + TimeDelta::minutes(59));
    assert_eq!(sweeper.abort_stale_multiparts().await.unwrap(), 0);
    // The service stops only when nobody has its verbs any more.
    drop(sweeper);
    app.clock.set(end + TimeDelta::hours(1) + TimeDelta::milliseconds(1));
    // The earlier token has expired as well.
    let alice = app.user("alice");
    let refused = async |upload: &Value| {
        ask(&alice, upload, &[3]).await.expect_problem(410, "upload_expired");
        alice.get(&path(upload, "/parts")).await.expect_problem(410, "upload_expired");
    };
    // Before the sweeper has seen to it, too.
    refused(&never).await;
    sweep(&app).await;
    for upload in [&broken, &never] {
        assert_eq!(row(&app, upload).await.state, IntentState::Expired);
        alice.complete(upload).await.expect_problem(410, "upload_expired");
        refused(upload).await;
    }
    app.clock.set(end + TimeDelta::hours(1) + TimeDelta::minutes(2));
    let done = sweep(&app).await;
    assert_eq!((done.multiparts_aborted, done.failed), (2, 0));
    assert_eq!((open_multiparts(&app).await, keys(&app).await.len()), (0, 1));
    app.end().await;
}

async fn in_time(backend: Backend) {
    let app = start_still(&backend).await;
    let bytes = content();
    // Its deadline is over by the store's clock, so its parts come by another way.
    app.clock.set(Clock::System.now() - TimeDelta::hours(2));
    let late = app.user("alice").issue("late.bin", &bytes, &json!({})).await;
    let intent = row(&app, &late).await;
    for (number, piece) in (1..).zip(bytes.chunks(PART)) {
        let part = app.bucket.s3.upload_part().bucket(&app.bucket.bucket).key(intent.object_key.as_str());
        let part = part.upload_id(intent.multipart().unwrap().upload_id).part_number(number);
        // The embedded store takes no part with a checksum that was not announced.
        let plain = Builder::new().request_checksum_calculation(RequestChecksumCalculation::WhenRequired);
        let part = part.body(piece.to_vec().into()).customize().config_override(plain);
        part.send().await.expect("it is written");
    }
    app.clock.set(Clock::System.now());
    let alice = app.user("alice");
    let whole = alice.issue("whole.bin", &bytes, &json!({})).await;
    let broken = alice.issue("broken.bin", &bytes, &json!({})).await;
    send(&alice, &whole, &bytes, &[1, 2, 3]).await;
    send(&alice, &broken, &bytes, &[1, 3]).await;

    // As after an outage of everything.
    app.clock.set(instant(&broken["expires_at"]) + TimeDelta::days(2));
    let sweeper = Sweeper::new(app.running.service.clone(), &SweeperConfig::default());
    let rehearsal = sweeper.rehearse(|_| ()).await.unwrap();
    drop(sweeper);
    assert_eq!((rehearsal.due, rehearsal.confirm, rehearsal.expire), (3, 1, 2));
    let done = sweep(&app).await;
    assert_eq!((done.looked, done.confirmed, done.expired, done.failed), (3, 1, 2, 0));
    assert_eq!(row(&app, &whole).await.state, IntentState::Confirmed);
    for upload in [&late, &broken] {
        assert_eq!(row(&app, upload).await.state, IntentState::Expired);
    }
    app.end().await;
}

async fn ten_thousand(backend: Backend) {
    let app = start(&backend).await;
    let alice = app.user("alice");
    let body = |file_size: u64| json!({ "original_file_name": "huge.bin", "file_size": file_size });
    let size = 10_000 * u64::try_from(PART).unwrap();
    let issued = alice.post("/api/v1/uploads", &body(size)).await.expect(StatusCode::CREATED);
    assert_eq!((&issued["upload"]["part_size"], &issued["upload"]["part_count"]), (&json!(PART), &json!(10_000)));
    let numbers: Vec<usize> = (1..=10_000).rev().collect();
    let parts = signed(&alice, &issued, &numbers).await;
    let urls: BTreeSet<&str> = parts.iter().map(|part| part["url"].as_str().unwrap()).collect();
    assert_eq!(urls.len(), 10_000);
    let last = vec![b'z'; PART];
    assert!(put(&alice, &parts[0], &last).await.status.is_success(), "part 10,000");
    let listed = alice.get(&path(&issued, "/parts")).await.expect(StatusCode::OK);
    assert_eq!(listed["parts"][0]["part_number"], 10_000, "{listed}");
    let problem = alice.complete(&issued).await.expect_problem(409, "upload_incomplete");
    let detail = problem["detail"].as_str().unwrap();
    assert!(detail.ends_with(", 19, 20, and 9979 more"), "{detail}");

    let issued = alice.post("/api/v1/uploads", &body(5 << 40)).await.expect(StatusCode::CREATED);
    assert_eq!(issued["upload"]["part_size"], 525 << 20);
    assert_eq!(issued["upload"]["part_count"], 9_987);
    ask(&alice, &issued, &[9_988]).await.expect_problem(422, "invalid_request");
    assert_eq!(signed(&alice, &issued, &[9_987]).await.len(), 1);
    app.end().await;
}

fn sha256(bytes: &[u8]) -> String {
    STANDARD.encode(digest(&SHA256, bytes))
}

async fn checksums(backend: Backend) {
    let settings = if backend.kind == BackendKind::SeaweedFs { "[s3]\ndeclare_part_checksums = false" } else { "" };
    let policies = Some(POLICIES.to_owned());
    let options = AppOptions { policies, settings: settings.to_owned(), ..AppOptions::default() };
    let app = TestApp::start_with(&backend, options).await;
    let (alice, bytes) = (app.user("alice"), content());
    for more in [json!({ "policy": "checked" }), json!({ "part_checksums": true })] {
        let issued = alice.issue("a.bin", &bytes, &more).await;
        assert_eq!(issued["upload"]["part_checksums"], true);
        let problem = ask(&alice, &issued, &[2]).await.expect_problem(422, "invalid_request");
        assert_eq!(problem["errors"][0]["field"], "checksums_sha256.2", "{problem}");
        let digests: Vec<String> = (1..=3).map(|number| sha256(piece(&bytes, number))).collect();
        let of_all = json!({ "1": digests[0], "2": digests[1], "3": digests[2] });
        let stray = json!({ "part_numbers": [1], "checksums_sha256": { "1": digests[0], "2": digests[1] } });
        let problem = alice.post(&path(&issued, "/parts"), &stray).await.expect_problem(422, "invalid_request");
        assert_eq!(problem["errors"][0]["field"], "checksums_sha256.2", "{problem}");

        let asked = json!({ "part_numbers": [1, 2, 3], "checksums_sha256": of_all });
        let answer = alice.post(&path(&issued, "/parts"), &asked).await.expect(StatusCode::OK);
        for (part, number) in answer["parts"].as_array().unwrap().iter().zip(1..) {
            assert_eq!(part["headers"], json!({ "x-amz-checksum-sha256": digests[number - 1] }));
            let url = part["url"].as_str().unwrap();
            let without = Reply::of(sized(alice.http.put(url), piece(&bytes, number))).await;
            assert!(without.status.is_client_error(), "without the checksum: {}", without.status);
            // Ceph RGW 16 does not compare.
            if backend.kind != BackendKind::Rgw {
                let mut evil = piece(&bytes, number).to_vec();
                evil[0] ^= 1;
                assert!(put(&alice, part, &evil).await.status.is_client_error(), "other bytes");
            }
            let sent = put(&alice, part, piece(&bytes, number)).await;
            assert!(sent.status.is_success(), "part {number}: {}", sent.text());
        }
        alice.complete(&issued).await.expect(StatusCode::OK);
        downloads_as(&alice, &issued, &bytes).await;
    }
    // Today's policy holds a renewal to what an upload cannot have any more.
    let issued = alice.issue("a.bin", &bytes, &json!({})).await;
    app.change_policies(&POLICIES.replacen("max_size", "checksum = \"required\"\nmax_size", 1)).await;
    let problem = alice.post_nothing(&path(&issued, "/renew")).await.expect_problem(422, "policy_refused");
    assert_eq!(problem["errors"][0]["field"], "checksum_sha256");
    app.end().await;
}

async fn idempotency(backend: Backend) {
    let app = start(&backend).await;
    let (alice, bytes) = (app.user("alice").at(HERE), content());
    let issue = async |caller: &Caller| {
        let body = json!({ "original_file_name": "a.bin", "file_size": bytes.len() });
        Reply::of(caller.request(Method::POST, "/api/v1/uploads").header("idempotency-key", "k").json(&body)).await
    };
    let replies = join_all((0..8).map(|_| issue(&alice))).await;
    let issued: Vec<Value> = replies.iter().map(|reply| reply.expect(StatusCode::CREATED)).collect();
    assert!(issued.iter().all(|upload| upload["id"] == issued[0]["id"]));
    assert_eq!(open_multiparts(&app).await, 1, "those who came second have given theirs up");

    send(&alice, &issued[0], &bytes, &[1]).await;
    let elsewhere = alice.at(ELSEWHERE);
    let replayed = issue(&elsewhere).await.expect(StatusCode::CREATED);
    assert_eq!(replayed["upload"]["parts_url"], issued[0]["upload"]["parts_url"]);
    assert_eq!(listed(&elsewhere, &replayed).await, [1], "a replay goes on with the parts that are there");
    send(&elsewhere, &replayed, &bytes, &[2, 3]).await;
    elsewhere.complete(&replayed).await.expect(StatusCode::OK);
    assert_eq!(issue(&elsewhere).await.expect(StatusCode::CREATED)["upload"], Value::Null);
    downloads_as(&elsewhere, &replayed, &bytes).await;
    app.end().await;
}
