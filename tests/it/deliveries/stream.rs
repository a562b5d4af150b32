//! Files that pass through the service.

use std::time::Duration;

use futures_util::StreamExt as _;
use reqwest::{Method, StatusCode, header};
use serde_json::json;

use super::{
    OTHER_ORIGIN, Sender, a_page_of_another_origin_fetches, arrive_with_their_names, bytes_of, curl_resumes, path,
    policies, ranges_and_conditions, start, upload,
};
use crate::support::{AppOptions, Backend, ChaosProxy, Reply, Suite, TestApp, app::TokenOptions, load::eventually};

/// More than all buffers between the store and a client that takes nothing can hold.
const LARGE: usize = 80 << 20;

const PATIENCE: Duration = Duration::from_mins(1);

pub(super) fn register(suite: &mut Suite<'_>) {
    suite.everywhere("streamed_files_arrive_with_their_names", names);
    suite.everywhere("a_stream_answers_ranges_and_conditions", ranges);
    suite.needing("curl", |suite| suite.everywhere("curl_goes_on_with_a_stream", curl));
    suite.everywhere("a_broken_read_from_the_store_is_invisible", |backend| resumed(backend, None));
    // It goes on at the byte of the file, and not of the range.
    suite.everywhere("a_broken_read_of_a_range_is_invisible", |backend| resumed(backend, Some((1_000_000, 4_999_999))));
    suite.everywhere("a_changed_object_is_never_spliced", changed);
    suite.everywhere("a_client_that_leaves_ends_the_read", left);
    suite.everywhere("a_client_that_takes_nothing_is_cut_off", stalled);
    suite.everywhere("streams_are_bounded", bounded);
    suite.everywhere("a_page_of_another_origin_fetches_a_stream", fetched);
    suite.everywhere("an_object_that_is_gone_is_told", gone);
}

async fn names(backend: Backend) {
    let app = start(&backend, "[\"url\", \"stream\"]").await;
    arrive_with_their_names(&app.user("alice"), &app.user("bob").at("127.0.0.11"), "stream").await;
    app.end().await;
}

async fn ranges(backend: Backend) {
    let app = start(&backend, "\"stream\"").await;
    let alice = app.user("alice");
    let bytes = bytes_of(300_000);
    let uploaded = upload(&alice, "a.bin", &bytes).await;
    ranges_and_conditions(&alice, &path(&uploaded, ""), &bytes, Sender::Service).await;
    let shown = alice.get(&path(&uploaded, "?disposition=inline&file_name=b.bin")).await;
    assert_eq!(shown.headers[header::CONTENT_DISPOSITION], "inline; filename=\"b.bin\"");
    let metrics = app.anonymous().get("/metrics").await.text();
    for line in ["presignd_streams_running 0", "presignd_stream_resumptions_total 0", "presignd_streams_broken_total 0"]
    {
        assert!(metrics.lines().any(|found| found == line), "{line}: {metrics}");
    }
    app.end().await;
}

async fn curl(backend: Backend) {
    let app = start(&backend, "\"stream\"").await;
    let bytes = bytes_of(300_000);
    let uploaded = upload(&app.user("alice"), "a.bin", &bytes).await;
    curl_resumes(&app.base(), &app.token(&TokenOptions::default()), &path(&uploaded, ""), &bytes).await;
    app.end().await;
}

/// A service that streams through a proxy in front of the store, and what `[delivery]` says.
async fn behind_proxy(backend: &Backend, delivery: &str) -> (TestApp, ChaosProxy) {
    let settings = format!("[delivery]\n{delivery}");
    let options = AppOptions { policies: Some(policies("\"stream\"")), settings, ..AppOptions::default() };
    TestApp::start_behind_store_proxy(backend, options).await
}

async fn resumed(backend: Backend, range: Option<(usize, usize)>) {
    let (app, proxy) = behind_proxy(&backend, "").await;
    let alice = app.user("alice");
    let bytes = bytes_of(5 << 20);
    let path = path(&upload(&alice, "a.bin", &bytes).await, "");
    let asked = range.map(|(first, last)| ("range", format!("bytes={first}-{last}")));
    let headers: Vec<_> = asked.iter().map(|(name, value)| (*name, value.as_str())).collect();
    proxy.break_answer();
    let (file, ()) = tokio::join!(Reply::of(super::get(&alice, &path, &headers)), async {
        eventually(PATIENCE, async || proxy.has_broken_answer().then_some(())).await;
        proxy.heal();
    });
    assert_eq!(file.status, if range.is_some() { StatusCode::PARTIAL_CONTENT } else { StatusCode::OK });
    let (first, last) = range.unwrap_or((0, bytes.len() - 1));
    assert!(file.bytes == bytes[first..=last], "{} bytes", file.bytes.len());
    assert_eq!(app.running.service.reader.status().resumed, 1);
    app.end().await;
}

async fn changed(backend: Backend) {
    let (app, proxy) = behind_proxy(&backend, "").await;
    let alice = app.user("alice");
    let bytes = bytes_of(5 << 20);
    let uploaded = upload(&alice, "a.bin", &bytes).await;
    let row = app.running.service.database.upload(uploaded["id"].as_str().unwrap().parse().unwrap()).await;
    let key = row.unwrap().unwrap().verified_key().as_str().to_owned();
    proxy.break_answer();
    let (broken, ()) = tokio::join!(Reply::try_of(alice.request(Method::GET, &path(&uploaded, ""))), async {
        eventually(PATIENCE, async || proxy.has_broken_answer().then_some(())).await;
        let put = app.bucket.s3.put_object().bucket(&app.bucket.bucket).key(&key);
        put.body(vec![b'!'; 5 << 20].into()).send().await.expect("the object is replaced");
        proxy.heal();
    });
    assert!(broken.is_err(), "the client is not told that this was all: {:?}", broken.map(|reply| reply.status));
    // And whoever asks now is told before the first byte.
    alice.get(&path(&uploaded, "")).await.expect_problem(410, "file_gone");
    app.end().await;
}

async fn left(backend: Backend) {
    let (app, _proxy) = behind_proxy(&backend, "").await;
    let alice = app.user("alice");
    let uploaded = upload(&alice, "a.bin", &bytes_of(LARGE)).await;
    let reader = &app.running.service.reader;
    let response = alice.request(Method::GET, &path(&uploaded, "")).send().await.unwrap();
    let mut body = response.bytes_stream();
    assert!(!body.next().await.unwrap().unwrap().is_empty());
    assert_eq!(reader.status().running, 1);
    drop(body);
    eventually(PATIENCE, async || (reader.status().broken == 1).then_some(())).await;
    eventually(PATIENCE, async || (reader.status().running == 0).then_some(())).await;
    assert!(reader.status().bytes < u64::try_from(LARGE).unwrap(), "{:?}", reader.status());
    app.end().await;
}

async fn stalled(backend: Backend) {
    let (app, _proxy) = behind_proxy(&backend, "stall_timeout = \"1s\"").await;
    let alice = app.user("alice");
    let uploaded = upload(&alice, "a.bin", &bytes_of(LARGE)).await;
    let reader = &app.running.service.reader;
    let response = alice.request(Method::GET, &path(&uploaded, "")).send().await.unwrap();
    eventually(PATIENCE, async || (reader.status().broken == 1).then_some(())).await;
    assert!(reader.status().bytes < u64::try_from(LARGE).unwrap(), "back-pressure: {:?}", reader.status());
    // Whether or not it ever reads again.
    eventually(PATIENCE, async || (reader.status().running == 0).then_some(())).await;
    assert!(response.bytes().await.is_err(), "what is missing is not taken for the end");
    app.end().await;
}

async fn bounded(backend: Backend) {
    let (app, _proxy) = behind_proxy(&backend, "streams = 1").await;
    let alice = app.user("alice");
    let uploaded = upload(&alice, "a.bin", &bytes_of(LARGE)).await;
    let policies = std::fs::read_to_string(&app.policies_file).unwrap();
    app.change_policies(&format!("{policies}download.uses = 1\n")).await;
    let ticket = alice.post("/api/v1/downloads", &json!({ "upload_id": uploaded["id"] })).await;
    let ticket = ticket.expect(StatusCode::CREATED)["url"].as_str().unwrap().replace(&app.base(), "");
    let first = alice.request(Method::GET, &path(&uploaded, "")).send().await.unwrap();
    assert_eq!(first.status(), StatusCode::OK);
    let second = alice.get(&path(&uploaded, "")).await;
    second.expect_problem(503, "overloaded");
    assert!(second.headers.contains_key(header::RETRY_AFTER));
    // A ticket is not used for that.
    app.anonymous().get(&ticket).await.expect_problem(503, "overloaded");
    // What reads nothing needs no place.
    let head = Reply::of(alice.request(Method::HEAD, &path(&uploaded, ""))).await;
    assert_eq!(head.headers[header::CONTENT_LENGTH].to_str().unwrap(), LARGE.to_string());
    drop(first);
    let range = [("range", "bytes=0-9")];
    let (third, _) = eventually(PATIENCE, async || {
        let reply = Reply::of(super::get(&alice, &path(&uploaded, ""), &range)).await;
        (reply.status != StatusCode::SERVICE_UNAVAILABLE).then_some(reply)
    })
    .await;
    third.expect_status(StatusCode::PARTIAL_CONTENT);
    let (redeemed, _) = eventually(PATIENCE, async || {
        let reply = Reply::of(super::get(&app.anonymous(), &ticket, &range)).await;
        (reply.status != StatusCode::SERVICE_UNAVAILABLE).then_some(reply)
    })
    .await;
    redeemed.expect_status(StatusCode::PARTIAL_CONTENT);
    app.anonymous().get(&ticket).await.expect_problem(410, "ticket_used");
    app.end().await;
}

async fn fetched(backend: Backend) {
    let settings = format!("[server]\ncors_allowed_origins = [\"{OTHER_ORIGIN}\"]");
    let options = AppOptions { policies: Some(policies("\"stream\"")), settings, ..AppOptions::default() };
    let app = TestApp::start_with(&backend, options).await;
    let uploaded = upload(&app.user("alice"), "a.txt", b"12345").await;
    a_page_of_another_origin_fetches(&app.user("alice"), &path(&uploaded, "")).await;
    app.end().await;
}

async fn gone(backend: Backend) {
    let (app, proxy) = behind_proxy(&backend, "").await;
    let alice = app.user("alice");
    let uploaded = upload(&alice, "a.txt", b"12345").await;
    proxy.cut();
    alice.get(&path(&uploaded, "")).await.expect_problem(503, "storage_unavailable");
    proxy.heal();
    assert_eq!(alice.get(&path(&uploaded, "")).await.bytes, b"12345");
    let row = app.running.service.database.upload(uploaded["id"].as_str().unwrap().parse().unwrap()).await;
    let key = row.unwrap().unwrap().verified_key().as_str().to_owned();
    app.bucket.s3.delete_object().bucket(&app.bucket.bucket).key(&key).send().await.expect("it is removed");
    alice.get(&path(&uploaded, "")).await.expect_problem(410, "file_gone");
    app.end().await;
}
