//! The contracts of clients that others wrote, spoken without those clients: what is promised, and what is refused.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use chrono::TimeDelta;
use presignd::{clock::Clock, model::IntentId};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use crate::support::{
    AppOptions, Backend, Caller, Program, Reply, Suite, TestApp,
    app::settings,
    backend::BackendKind,
    caller::{id, upload_request},
};

pub(crate) fn register(suite: &mut Suite<'_>) {
    suite.everywhere("a_form_for_a_file_of_unknown_size_takes_what_the_policy_allows", forms);
    suite.everywhere("a_signed_put_is_exact_and_one_without_a_size_is_a_form", signed);
    suite.everywhere("parts_that_the_client_cuts_are_held_to_the_limit_together", parts);
    suite.everywhere("a_direct_upload_takes_the_bytes_of_its_md5_only", direct_uploads);
    // Nothing in these depends on the store.
    let embedded = &[BackendKind::Embedded];
    suite.on(embedded, "a_capability_is_good_for_its_user_policy_network_and_time", capabilities);
    suite.on(embedded, "what_cannot_be_held_to_a_limit_is_refused", refusals);
    suite.on(embedded, "an_address_to_speak_xml_is_good_for_one_upload_and_for_minutes", spoken);
    // A process of its own cannot share the embedded database.
    suite.on(&[BackendKind::Rgw], "no_capability_shows_in_the_log", log);
}

/// A capability of `caller`, as somebody has it who has no token.
pub(crate) async fn capability(caller: &Caller, body: &Value) -> (Value, String) {
    let granted = caller.post("/api/v1/capabilities", body).await.expect(StatusCode::CREATED);
    let path = granted["url"].as_str().unwrap();
    let path = path[path.find("/u/").unwrap()..].to_owned();
    (granted, path)
}

/// The 32 digits of an upload's id in its key, as a page finds them.
pub(crate) fn id_in(key: &str) -> &str {
    // An area's name has as many.
    let key = key.strip_prefix("staging/~credentials/").map_or(key, |key| key.split_once('/').expect("an area").1);
    let is_hex = |text: &str| text.bytes().all(|b| b.is_ascii_hexdigit());
    let at = (0..=key.len() - 32).find(|at| key.get(*at..at + 32).is_some_and(is_hex));
    &key[at.expect("an id")..][..32]
}

/// An object at the store with these bytes, as its administrator sees it.
pub(crate) async fn stored(app: &TestApp, key: &str) -> Vec<u8> {
    let object = app.bucket.s3.get_object().bucket(&app.bucket.bucket).key(key).send().await.expect("the object");
    object.body.collect().await.expect("its bytes").to_vec()
}

async fn forms(backend: Backend) {
    let app = TestApp::start_with(&backend, AppOptions::unscoped()).await;
    let alice = app.user("alice");
    let (_, path) = capability(&alice, &json!({})).await;
    let page = app.anonymous();
    let issue = async |name: &str| {
        let params =
            "?filename={name}&type=text/plain&metadata[caption]=a%20b&metadata[name]=x&metadata[relativePath]=null";
        page.get(&format!("{path}/s3/params{}", params.replace("{name}", name))).await.expect(StatusCode::OK)
    };
    for size in [0, 1, 8 << 20] {
        let form = issue("%C3%A9.txt").await;
        assert_eq!(form["method"], "POST");
        assert_eq!(form["fields"]["x-amz-meta-caption"], "a b");
        assert!(form["expires"].as_i64().is_some_and(|seconds| (1..=300).contains(&seconds)), "{form}");
        let id = id_in(form["fields"]["key"].as_str().unwrap()).to_owned();
        let issued = alice.get(&format!("/api/v1/uploads/{id}")).await.expect(StatusCode::OK);
        assert_eq!((&issued["file_size"], &issued["file_size_is_limit"]), (&json!(8 << 20), &json!(true)), "{issued}");
        assert_eq!(issued["original_file_name"], "\u{e9}.txt");

        let bytes = vec![7; size];
        assert!(Reply::of(upload_request(&page.http, &form, &bytes)).await.status.is_success());
        let confirmed = page.post_nothing(&format!("{path}/uploads/{id}/complete")).await.expect(StatusCode::OK);
        assert_eq!((&confirmed["state"], &confirmed["file_size"]), (&json!("confirmed"), &json!(size)), "{confirmed}");
        assert!(confirmed.get("file_size_is_limit").is_none(), "{confirmed}");
        assert_eq!(alice.download(&confirmed).await.bytes, bytes);
    }

    let form = issue("large.txt").await;
    let refused = Reply::of(upload_request(&page.http, &form, &vec![7; (8 << 20) + 1])).await;
    assert!(refused.status.is_client_error(), "{refused:?}");
    // And if the store had taken it all the same.
    let key = form["fields"]["key"].as_str().unwrap();
    let larger = app.bucket.s3.put_object().bucket(&app.bucket.bucket).key(key).content_type("text/plain");
    larger.body(vec![7; (8 << 20) + 1].into()).send().await.expect("the administrator may put");
    let path = format!("{path}/uploads/{}/complete", id_in(key));
    let mismatch = page.post_nothing(&path).await.expect_problem(422, "upload_mismatch");
    assert_eq!(mismatch["errors"][0]["expected"], "at most 8388608", "{mismatch}");
    app.end().await;
}

async fn signed(backend: Backend) {
    let policies = "[policy.default]\nip_scope = \"off\"\n[policy.exact]\nmethods = [\"put\"]\nip_scope = \"off\"\n";
    let options = AppOptions { policies: Some(policies.to_owned()), ..AppOptions::unscoped() };
    let app = TestApp::start_with(&backend, options).await;
    let alice = app.user("alice");
    let object =
        json!({ "method": "PUT", "key": "6f1e7f0a-0f0b-4b52-9d0b-3c9b1a6b0e11-a.txt", "contentType": "text/plain" });
    let sign = async |more: Value| {
        let mut body = object.clone();
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        alice.post("/api/v1/sign", &body).await
    };
    for (more, method) in
        [(json!({}), "POST"), (json!({ "size": 5, "policy": "exact" }), "PUT"), (json!({ "size": "5" }), "PUT")]
    {
        let signed = sign(more).await.expect(StatusCode::OK);
        let upload =
            json!({ "method": method, "url": signed["url"], "fields": signed["fields"], "headers": signed["headers"] });
        assert!(Reply::of(upload_request(&alice.http, &upload, b"12345")).await.status.is_success(), "{signed}");
        let complete = format!("/api/v1/uploads/{}/complete", id(&signed));
        let confirmed = app.anonymous().post(&complete, &json!({ "token": signed["callback"]["token"] })).await;
        let confirmed = confirmed.expect(StatusCode::OK);
        assert_eq!((&confirmed["file_size"], &confirmed["original_file_name"]), (&json!(5), &json!("a.txt")));
    }
    for (wrong, field) in [
        (json!({ "method": "DELETE" }), "method"),
        (json!({ "method": "GET" }), "method"),
        (json!({ "contentType": "nonsense" }), "contentType"),
        (json!({ "key": ".." }), "key"),
        (json!({ "policy": "exact" }), "file_size"),
    ] {
        let refused = sign(wrong.clone()).await;
        assert_eq!(refused.status, StatusCode::UNPROCESSABLE_ENTITY, "{wrong}");
        assert_eq!(refused.json()["errors"][0]["field"], field, "{wrong}");
    }
    app.end().await;
}

async fn parts(backend: Backend) {
    const MIB: usize = 1 << 20;
    let policies = "[policy.default]\nmethods = [\"multipart\"]\nmax_size = \"12MiB\"\n";
    let options = AppOptions { policies: Some(policies.to_owned()), ..AppOptions::default() };
    let app = TestApp::start_with(&backend, options).await;
    let alice = app.user("alice");
    let (_, path) = capability(&alice, &json!({})).await;
    let page = app.anonymous();
    let create = async || {
        let body = json!({ "filename": "a.bin", "type": "", "metadata": { "relativePath": null, "n": 7 } });
        page.post(&format!("{path}/s3/multipart"), &body).await.expect(StatusCode::OK)
    };
    let at = |base: &str, begun: &Value, what: &str| {
        let key = form_urlencoded::byte_serialize(begun["key"].as_str().unwrap().as_bytes()).collect::<String>();
        format!("{base}/s3/multipart/{}{what}?key={key}", begun["uploadId"].as_str().unwrap())
    };
    let send = async |begun: &Value, number: u64, bytes: &[u8]| {
        let signed = page.get(&at(&path, begun, &format!("/{number}"))).await.expect(StatusCode::OK);
        let sent = Reply::of(page.http.put(signed["url"].as_str().unwrap()).body(bytes.to_vec())).await;
        assert!(sent.status.is_success(), "{sent:?}");
        json!({ "PartNumber": number, "ETag": sent.headers["etag"].to_str().unwrap().trim_matches('"') })
    };
    let complete = async |begun: &Value, parts: &[Value]| {
        page.post(&at(&path, begun, "/complete"), &json!({ "parts": parts })).await
    };

    let begun = create().await;
    let first = send(&begun, 1, &vec![1; 5 * MIB]).await;
    // Not what the sweeper or anybody else but the client could say: it may have more to send.
    let early = alice.post_nothing(&format!("/api/v1/uploads/{}/complete", begun["uploadId"].as_str().unwrap())).await;
    early.expect_problem(409, "upload_incomplete");
    let second = send(&begun, 2, &vec![2; 3 * MIB]).await;
    let listed = page.get(&at(&path, &begun, "")).await.expect(StatusCode::OK);
    assert_eq!(listed[1]["Size"], 3 * MIB, "{listed}");
    let batch = page.get(&format!("{}&partNumbers=3,1", at(&path, &begun, "/batch"))).await.expect(StatusCode::OK);
    assert!(batch["presignedUrls"]["1"].is_string() && batch["presignedUrls"]["3"].is_string(), "{batch}");
    // Twelve mebibytes have no fourth part: every part but the last has at least five.
    let outside = page.get(&at(&path, &begun, "/4")).await.expect_problem(422, "invalid_request");
    assert_eq!(outside["errors"][0]["rule"], "must be 1 to 3", "{outside}");
    complete(&begun, std::slice::from_ref(&first)).await.expect_problem(422, "invalid_request");
    let wrong = json!({ "PartNumber": 2, "ETag": first["ETag"] });
    complete(&begun, &[first.clone(), wrong]).await.expect_problem(422, "etag_mismatch");

    // Nobody can say which of two values is meant.
    let twice = page.get(&format!("{}&partNumbers=1&partNumbers=2", at(&path, &begun, "/batch"))).await;
    let twice = twice.expect_problem(422, "invalid_request");
    assert_eq!(twice["errors"][0]["field"], "partNumbers", "{twice}");

    // Others do not know of it, and neither does its owner under another key.
    let bob = app.user("bob");
    for what in ["", "/1", "/batch"] {
        bob.get(&at("", &begun, what)).await.expect_problem(404, "not_found");
        alice.get(&at("", &begun, what).replace("key=", "key=x")).await.expect_problem(404, "not_found");
    }
    bob.delete(&at("", &begun, "")).await.expect_problem(404, "not_found");
    bob.post(&at("", &begun, "/complete"), &json!({ "parts": [first] })).await.expect_problem(404, "not_found");
    let foreign = json!({ "method": "PUT", "key": "a", "uploadId": begun["uploadId"], "partNumber": 1 });
    bob.post("/api/v1/sign", &foreign).await.expect_problem(404, "not_found");

    for _ in 0..2 {
        let completed = complete(&begun, &[first.clone(), second.clone()]).await.expect(StatusCode::OK);
        assert_eq!(completed["key"], begun["key"], "{completed}");
        let upload = alice.get(completed["location"].as_str().unwrap().strip_prefix(&app.base()).unwrap()).await;
        let upload = upload.expect(StatusCode::OK);
        assert_eq!((&upload["state"], &upload["file_size"]), (&json!("confirmed"), &json!(8 * MIB)), "{upload}");
        assert_eq!(alice.download(&upload).await.bytes, [vec![1; 5 * MIB], vec![2; 3 * MIB]].concat());
    }

    let begun = create().await;
    let mut parts = Vec::new();
    for number in 1..=3 {
        parts.push(send(&begun, number, &vec![1; 5 * MIB]).await);
    }
    let renew = format!("/api/v1/uploads/{}/renew", begun["uploadId"].as_str().unwrap());
    let excess = alice.post_nothing(&renew).await.expect_problem(422, "upload_mismatch");
    assert_eq!(excess["errors"][0]["expected"], "at most 12582912", "{excess}");
    let large = complete(&begun, &parts).await.expect_problem(422, "upload_mismatch");
    assert_eq!(large["errors"][0]["expected"], "at most 12582912", "{large}");
    let objects = app.bucket.s3.list_objects_v2().bucket(&app.bucket.bucket).send().await.expect("a listing");
    assert_eq!(objects.key_count(), Some(1), "nothing was made of it");

    let begun = create().await;
    send(&begun, 1, b"12345").await;
    assert_eq!(page.delete(&at(&path, &begun, "")).await.expect(StatusCode::OK), json!({}));
    page.get(&at(&path, &begun, "")).await.expect_problem(409, "invalid_state");
    app.end().await;
}

async fn direct_uploads(backend: Backend) {
    let app = TestApp::start(&backend).await;
    let (alice, path) = (app.user("alice"), "/rails/active_storage/direct_uploads");
    let checksum = STANDARD.encode(hex::decode("827ccb0eea8a706c4c34a16891f84e7b").unwrap());
    let blob =
        json!({ "blob": { "filename": "a.txt", "content_type": "text/plain", "byte_size": 5, "checksum": checksum } });
    let (_, capability) = capability(&alice, &json!({})).await;
    for (caller, path) in [(alice.clone(), path.to_owned()), (app.anonymous(), format!("{capability}{path}"))] {
        let issued = caller.post(&path, &blob).await.expect(StatusCode::OK);
        assert_eq!((&issued["byte_size"], &issued["checksum"]), (&json!(5), &json!(checksum)), "{issued}");
        assert_eq!(issued["direct_upload"]["headers"]["content-md5"], json!(checksum));
        let upload =
            |headers: &Value| json!({ "method": "PUT", "url": issued["direct_upload"]["url"], "headers": headers });
        let genuine = upload(&issued["direct_upload"]["headers"]);
        let other = Reply::of(upload_request(&caller.http, &genuine, b"54321")).await;
        assert!(other.status.is_client_error(), "bytes of another MD5: {other:?}");
        let mut without = issued["direct_upload"]["headers"].clone();
        without.as_object_mut().unwrap().remove("content-md5");
        let without = Reply::of(upload_request(&caller.http, &upload(&without), b"54321")).await;
        assert!(without.status.is_client_error(), "no MD5 at all: {without:?}");
        let sent = Reply::of(upload_request(&caller.http, &genuine, b"12345")).await;
        assert!(sent.status.is_success(), "{sent:?}");

        let (id, token) = issued["signed_id"].as_str().unwrap().split_once('.').unwrap();
        let complete =
            app.anonymous().post(&format!("/api/v1/uploads/{id}/complete"), &json!({ "token": token })).await;
        assert_eq!(complete.expect(StatusCode::OK)["state"], "confirmed");
    }
    for (change, field) in [
        (json!({ "checksum": "827ccb0eea8a706c4c34a16891f84e7b" }), "blob.checksum"),
        (json!({ "filename": "a/b" }), "blob.filename"),
        (json!({ "byte_size": -1 }), "blob.byte_size"),
    ] {
        let mut body = blob.clone();
        body["blob"].as_object_mut().unwrap().extend(change.as_object().unwrap().clone());
        let refused = alice.post(path, &body).await.expect_problem(422, "invalid_request");
        assert_eq!(refused["errors"][0]["field"], field);
    }
    app.end().await;
}

async fn capabilities(backend: Backend) {
    let clock = Clock::manual(Clock::System.now());
    let app = TestApp::start_with(&backend, AppOptions { clock: clock.clone(), ..AppOptions::default() }).await;
    let alice = app.user("alice").at("127.0.0.11");
    let (granted, path) = capability(&alice, &json!({ "policy": "shared", "expires_in": 60 })).await;
    assert_eq!((&granted["policy"], &granted["client_network"]), (&json!("shared"), &json!("127.0.0.11/32")));
    let sts = format!("{path}/s3/sts");
    let here = app.anonymous().at("127.0.0.11");
    // Everything but what is asked for is in order.
    let refused = here.get(&sts).await.expect_problem(400, "credentials_not_given");
    let says = refused["error"].as_str().unwrap();
    assert!(says.contains("companionEndpoint") && says.contains("signRequest"), "{says}");
    assert_eq!(refused["message"], says);
    // The policy is the capability's, and it requires a checksum.
    let params = here.get(&format!("{path}/s3/params?filename=a.txt")).await.expect_problem(422, "policy_refused");
    assert_eq!(params["errors"][0]["field"], "checksum_sha256");

    let elsewhere = app.anonymous().at("127.0.0.12").get(&sts).await.expect_problem(403, "capability_elsewhere");
    assert!(elsewhere["error"].is_string());
    let token = path.strip_prefix("/u/").unwrap();
    let [key, claims, tag] = token.split('.').collect::<Vec<_>>()[..] else { panic!("{token}") };
    for forged in [
        format!("{key}.{claims}.{}", tag.chars().rev().collect::<String>()),
        format!("{key}.{claims}x.{tag}"),
        format!("k2.{claims}.{tag}"),
        format!("{key}.{claims}"),
        "x".to_owned(),
    ] {
        here.get(&format!("/u/{forged}/s3/sts")).await.expect_problem(401, "capability_invalid");
    }
    // A capability is a path, and no token.
    here.with_token(token).get("/s3/sts").await.expect_problem(401, "token_invalid");
    // It is good for uploads of its user and for nothing else.
    let bobs = app.user("bob").issue("a.txt", b"12345", &json!({})).await;
    let theirs = here.post_nothing(&format!("{path}/uploads/{}/complete", id(&bobs))).await;
    theirs.expect_problem(404, "not_found");
    // Nor for those that the user has under another policy.
    let other = alice.issue("a.txt", b"12345", &json!({})).await;
    let (_, of_default) = capability(&alice, &json!({})).await;
    for (path, status, code) in [(path.as_str(), 404, "not_found"), (&of_default, 409, "upload_incomplete")] {
        let completed = here.post_nothing(&format!("{path}/uploads/{}/complete", id(&other))).await;
        completed.expect_problem(status, code);
    }
    for call in [format!("xml/{}", id(&other)), format!("s3/multipart/{}?key={}", id(&other), "a")] {
        assert_eq!(here.get(&format!("{path}/{call}")).await.status, 404, "{call}");
    }
    here.get(&format!("{path}/api/v1/uploads")).await.expect_problem(404, "route_not_found");

    clock.set(clock.now() + TimeDelta::seconds(59));
    here.get(&sts).await.expect_problem(400, "credentials_not_given");
    clock.set(clock.now() + TimeDelta::seconds(1));
    here.get(&sts).await.expect_problem(401, "capability_invalid");

    let (longest, _) = capability(&app.user("alice"), &json!({ "expires_in": 1_000_000 })).await;
    let end = longest["expires_at"].as_str().unwrap().parse::<chrono::DateTime<chrono::Utc>>().unwrap();
    assert!(end <= clock.now() + TimeDelta::hours(1), "{longest}");
    // Nor does it stand for its user when their token, good for an hour and a leeway, no longer does.
    let (carol, token_end) = (app.user("carol"), clock.now() + TimeDelta::minutes(61));
    clock.set(clock.now() + TimeDelta::minutes(50));
    let (short, path) = capability(&carol, &json!({})).await;
    let end = short["expires_at"].as_str().unwrap().parse::<chrono::DateTime<chrono::Utc>>().unwrap();
    assert!(end < token_end, "{short}");
    let sts = format!("{path}/s3/sts");
    app.anonymous().get(&sts).await.expect_problem(400, "credentials_not_given");
    clock.set(end);
    app.anonymous().get(&sts).await.expect_problem(401, "capability_invalid");
    carol.get("/api/v1/uploads").await.expect_problem(401, "token_invalid");

    let alice = app.user("alice");
    let unknown = alice.post("/api/v1/capabilities", &json!({ "policy": "nobodys" })).await;
    assert_eq!(unknown.expect_problem(422, "invalid_request")["errors"][0]["field"], "policy");
    alice.post("/api/v1/capabilities", &json!({ "expires_in": 0 })).await.expect_problem(422, "invalid_request");
    app.anonymous().post("/api/v1/capabilities", &json!({})).await.expect_problem(401, "token_missing");
    app.end().await;
}

async fn refusals(backend: Backend) {
    let policies = "[policy.default]\nmethods = [\"put\"]\n[policy.least]\nmin_size = 1\n";
    let options = AppOptions { policies: Some(policies.to_owned()), ..AppOptions::default() };
    let app = TestApp::start_with(&backend, options).await;
    let alice = app.user("alice");
    let put = json!({ "method": "PUT", "key": "a.txt" });
    let least = json!({ "method": "PUT", "key": "a.txt", "policy": "least" });
    for body in [put, least] {
        let refused = alice.post("/api/v1/sign", &body).await.expect_problem(422, "policy_refused");
        assert_eq!(refused["errors"][0]["field"], "file_size", "{refused}");
    }
    let form = alice.get("/s3/params?filename=a.txt").await.expect_problem(422, "policy_refused");
    assert_eq!(form["errors"][0]["field"], "method", "{form}");
    app.end().await;
}

async fn spoken(backend: Backend) {
    const METHODS: &str = "methods = [\"multipart\"]\n";

    let clock = Clock::manual(Clock::System.now());
    let policies = format!("[policy.default]\n{METHODS}");
    let options = AppOptions { clock: clock.clone(), policies: Some(policies.clone()), ..AppOptions::default() };
    let app = TestApp::start_with(&backend, options).await;
    let (alice, page) = (app.user("alice"), app.anonymous());
    let sign = async |body: Value| {
        let signed = alice.post("/api/v1/sign", &body).await.expect(StatusCode::OK);
        signed["url"].as_str().unwrap().strip_prefix(&app.base()).expect("an address here").to_owned()
    };
    let begin = async || {
        let metadata = json!({ "name": "the case", "case": "42" });
        let body = json!({ "method": "POST", "key": "a.txt", "size": "6000000", "metadata": &metadata, "later": {} });
        let begun = page.post_nothing(&sign(body).await).await;
        assert_eq!(begun.status, StatusCode::OK, "{begun:?}");
        let text = begun.text();
        let (_, rest) = text.split_once("<UploadId>").expect("an id");
        let id = rest.split_once("</UploadId>").expect("its end").0.to_owned();
        let issued = alice.get(&format!("/api/v1/uploads/{id}")).await.expect(StatusCode::OK);
        assert_eq!((&issued["metadata"], &issued["file_size"]), (&metadata, &json!(6_000_000)), "{issued}");
        id
    };
    let (first, second) = (begin().await, begin().await);
    let list = sign(json!({ "method": "GET", "key": "a.txt", "uploadId": first })).await;
    assert_eq!(page.get(&list).await.status, StatusCode::OK);
    for other in [list.replace(&first, &second), list.replace(&format!("xml/{first}"), "s3/params?filename=a.txt")] {
        let refused = page.get(&other).await;
        assert_eq!(refused.status, StatusCode::UNAUTHORIZED, "{refused:?}");
    }
    clock.set(clock.now() + TimeDelta::minutes(5));
    assert_eq!(page.get(&list).await.status, StatusCode::UNAUTHORIZED);
    app.change_policies(&format!("{policies}[policy.passing]\n{METHODS}")).await;
    let passing = alice.issue("a.txt", b"12345", &json!({ "policy": "passing" })).await;
    app.change_policies(&policies).await;
    let listing = json!({ "method": "GET", "key": "a.txt", "uploadId": id(&passing) });
    alice.post("/api/v1/sign", &listing).await.expect_problem(409, "policy_withdrawn");

    let begin = sign(json!({ "method": "POST", "key": "a.txt", "size": 5 })).await;
    let refused = page.post_nothing(&begin.replace("size=5", "size=%2B5")).await;
    assert_eq!(refused.status, StatusCode::UNPROCESSABLE_ENTITY, "{refused:?}");
    assert!(refused.text().contains("size must be a whole number of bytes"), "{refused:?}");
    let brief = json!({ "method": "POST", "key": "a.txt", "expiresIn": 0 });
    let refused = alice.post("/api/v1/sign", &brief).await.expect_problem(422, "invalid_request");
    assert_eq!(refused["errors"][0]["field"], "expiresIn", "{refused}");
    let metadata = json!({ "method": "POST", "key": "a.txt", "metadata": { "Case": "42" } });
    let refused = alice.post("/api/v1/sign", &metadata).await.expect_problem(422, "invalid_request");
    assert_eq!(refused["errors"][0]["field"], "metadata.Case", "{refused}");
    app.end().await;
}

async fn log(backend: Backend) {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let (database, bucket) = (backend.database().await, backend.bucket(folder.path()).await);
    let policies = folder.path().join("policies.toml");
    std::fs::write(&policies, "[policy.default]\n").unwrap();
    let mut program = Program::start(
        folder.path(),
        settings(&database, &bucket, &policies, "[log]\nfilter = \"trace\"\naccess = true"),
    );
    program.wait_ready();
    let (_, path) = capability(&program.user("alice"), &json!({})).await;
    let anybody = program.anonymous();
    for path in {
        // The last leads to the same route, and looks like another.
        let disguised = path.replacen("/u/", "/%75/", 1);
        [
            format!("{path}/s3/params?filename=a.txt"),
            format!("{path}/s3/sts"),
            format!("{path}/nothing"),
            // A query that cannot be read.
            format!(
                "{path}/s3/multipart/{}/batch?key=k&partNumbers=1&partNumbers=2",
                IntentId::at(Clock::System.now())
            ),
            path.clone(),
            format!("{disguised}/s3/sts"),
            format!("{disguised}/nothing"),
        ]
    } {
        Reply::of(anybody.request(Method::GET, &path)).await;
    }
    program.terminate();
    assert!(program.wait_end().success());
    let log = program.log();
    assert!(log.contains("/u/{capability}/s3/sts"), "requests are logged");
    for secret in path.strip_prefix("/u/").unwrap().split('.').skip(1) {
        assert!(!log.contains(secret), "a capability shows in the log");
    }
    bucket.end().await;
    database.end().await;
}
