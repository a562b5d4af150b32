//! The main job, end to end.

use reqwest::StatusCode;
use serde_json::json;

use crate::support::{AppOptions, Backend, Suite, TestApp, backend::BackendKind};

pub(crate) fn register(suite: &mut Suite<'_>) {
    suite.everywhere("a_put_is_issued_sent_confirmed_and_downloaded", put);
    // Neither real store takes a form that is signed by a session with a policy: SeaweedFS answers InvalidAccessKeyId,
    // and Ceph RGW 16 answers 201 and stores nothing.
    suite.on(&[BackendKind::Embedded], "a_form_is_issued_sent_confirmed_and_downloaded", post);
    suite.everywhere("an_unscoped_form_is_issued_sent_confirmed_and_downloaded", unscoped_post);
    suite.on(
        &[BackendKind::Rgw],
        "a_store_that_says_created_and_stores_nothing_is_not_believed",
        created_without_object,
    );
    suite.alone_in_full_run("boto3_signs_the_same", crate::boto3::boto3_signs_the_same);
}

async fn put(backend: Backend) {
    round_trip(TestApp::start(&backend).await, "put").await;
}

async fn post(backend: Backend) {
    round_trip(TestApp::start(&backend).await, "post").await;
}

async fn unscoped_post(backend: Backend) {
    round_trip(TestApp::start_with(&backend, AppOptions::unscoped()).await, "post").await;
}

async fn round_trip(app: TestApp, method: &str) {
    let alice = app.user("alice");
    let bytes = b"%PDF-1.7 lorem ipsum";
    let confirmed = alice.upload("lorem-ipsum.pdf", bytes, &json!({ "method": method })).await;
    assert_eq!(confirmed["state"], "confirmed");
    assert_eq!(confirmed["file_type"], "application/pdf");
    let downloaded = alice.download(&confirmed).await;
    assert_eq!(downloaded.status, StatusCode::OK);
    assert_eq!(downloaded.bytes, bytes);
    assert_eq!(downloaded.headers["content-disposition"], "attachment; filename=\"lorem-ipsum.pdf\"");
    app.end().await;
}

async fn created_without_object(backend: Backend) {
    let app = TestApp::start(&backend).await;
    let alice = app.user("alice");
    let issued = alice.issue("a.txt", b"bytes", &json!({ "method": "post" })).await;
    assert_eq!(alice.send(&issued, b"bytes").await.status, StatusCode::CREATED);
    alice.complete(&issued).await.expect_problem(409, "upload_incomplete");
    app.end().await;
}
