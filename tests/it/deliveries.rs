//! Every way of handing out a file: one permission, one row, the same bytes.

use reqwest::{Method, StatusCode, header};
use serde_json::{Value, json};

use crate::support::{
    AppOptions, Backend, Caller, Reply, Suite, TestApp, app::POLICIES, backend::BackendKind, caller::id,
};

pub(crate) fn register(suite: &mut Suite<'_>) {
    suite.everywhere("the_policy_says_how_files_are_delivered", chosen);
    suite.everywhere("a_redirect_leads_to_the_file", redirected);
    // The embedded PostgreSQL has no connection to spare for looking.
    suite.on(&[BackendKind::Rgw, BackendKind::SeaweedFs], "every_delivery_is_one_row", recorded);
}

/// The policies of the tests, with `delivery` in the one that is called `delivered`.
fn policies(delivery: &str) -> String {
    format!("{POLICIES}\n[policy.delivered]\nmethods = [\"put\"]\nreaders = \"authenticated\"\ndelivery = {delivery}\n")
}

async fn start(backend: &Backend, delivery: &str) -> TestApp {
    TestApp::start_with(backend, AppOptions { policies: Some(policies(delivery)), ..AppOptions::default() }).await
}

async fn upload(caller: &Caller, name: &str, bytes: &[u8]) -> Value {
    caller.upload(name, bytes, &json!({ "method": "put", "policy": "delivered" })).await
}

fn path(upload: &Value, query: &str) -> String {
    format!("/api/v1/files/{}{query}", id(upload))
}

async fn chosen(backend: Backend) {
    let app = start(&backend, "[\"redirect\", \"url\"]").await;
    let alice = app.user("alice");
    let upload = upload(&alice, "a.txt", b"12345").await;
    alice.get(&path(&upload, "")).await.expect_status(StatusCode::FOUND);
    alice.get(&path(&upload, "/?delivery=redirect")).await.expect_status(StatusCode::FOUND);
    let reply = alice.get(&path(&upload, "?delivery=url")).await;
    let told = reply.expect(StatusCode::OK);
    assert_eq!(reply.headers[header::CACHE_CONTROL], "no-store");
    assert_eq!((&told["upload_id"], &told["delivery"]), (&upload["id"], &json!("url")));
    assert_eq!(Reply::of(alice.http.get(told["url"].as_str().unwrap())).await.bytes, b"12345");

    // What only a request for the file can be answered with is found where it is delivered.
    let body = json!({ "upload_id": upload["id"], "file_name": "b&c=ö.txt" });
    let issued = alice.post("/api/v1/downloads", &body).await.expect(StatusCode::CREATED);
    assert_eq!(issued["delivery"], "redirect");
    let query = issued["url"].as_str().unwrap().strip_prefix(&app.base()).expect("a URL of the service");
    let file = follow(&alice, &alice.get(query).await).await;
    assert_eq!(file.bytes, b"12345");
    let name = "attachment; filename=\"b&c=_.txt\"; filename*=UTF-8''b&c%3D%C3%B6.txt";
    assert_eq!(file.headers[header::CONTENT_DISPOSITION], name);
    let by_url = json!({ "upload_id": upload["id"], "delivery": "url" });
    let issued = alice.post("/api/v1/downloads", &by_url).await.expect(StatusCode::CREATED);
    assert_eq!(Reply::of(alice.http.get(issued["url"].as_str().unwrap())).await.bytes, b"12345");

    for (query, field) in [
        ("?delivery=post", "delivery"),
        ("?delivery=", "delivery"),
        ("?disposition=open", "disposition"),
        ("?expires_in=0", "expires_in"),
        ("?expires_in=soon", "expires_in"),
        ("?file_name=a%2Fb", "file_name"),
        ("?file_name=a%0d%0aSet-Cookie:%20x", "file_name"),
        ("?key=uploads/other", "key"),
    ] {
        let problem = alice.get(&path(&upload, query)).await.expect_problem(422, "invalid_request");
        assert_eq!(problem["errors"][0]["field"], field, "{query}: {problem}");
    }
    let default = alice.upload("a.txt", b"12345", &json!({ "method": "put" })).await;
    let problem = alice.get(&path(&default, "?delivery=redirect")).await.expect_problem(422, "policy_refused");
    assert_eq!(problem["errors"][0]["field"], "delivery", "{problem}");
    app.end().await;
}

async fn follow(caller: &Caller, redirect: &Reply) -> Reply {
    assert_eq!(redirect.status, StatusCode::FOUND, "{}", redirect.text());
    Reply::of(caller.http.get(redirect.headers[header::LOCATION].to_str().unwrap())).await
}

async fn redirected(backend: Backend) {
    let app = start(&backend, "\"redirect\"").await;
    let alice = app.user("alice").at("127.0.0.11");
    let uploaded = upload(&alice, "отчёт.pdf", b"%PDF-1.7").await;
    let redirect = alice.get(&path(&uploaded, "")).await;
    assert_eq!(redirect.headers[header::CACHE_CONTROL], "no-store");
    assert_eq!(redirect.bytes, b"");
    let file = follow(&alice, &redirect).await;
    assert_eq!(file.bytes, b"%PDF-1.7");
    assert_eq!(file.headers[header::CONTENT_TYPE], "application/pdf");
    assert_eq!(file.headers[header::CACHE_CONTROL], "private");
    let name = "attachment; filename=\"_____.pdf\"; filename*=UTF-8''%D0%BE%D1%82%D1%87%D1%91%D1%82.pdf";
    assert_eq!(file.headers[header::CONTENT_DISPOSITION], name);
    let inline = alice.get(&path(&uploaded, "?disposition=inline&file_name=a.pdf")).await;
    let file = follow(&alice, &inline).await;
    assert_eq!(file.headers[header::CONTENT_DISPOSITION], "inline; filename=\"a.pdf\"");

    // The network is the reader's.
    let elsewhere = follow(&app.user("alice").at("127.0.0.12"), &redirect).await;
    assert!(elsewhere.status.is_client_error(), "{elsewhere:?}");

    // A store answers a HEAD only with a URL that was signed for one.
    let head = Reply::of(alice.request(Method::HEAD, &path(&uploaded, ""))).await;
    assert_eq!(head.status, StatusCode::FOUND);
    let location = head.headers[header::LOCATION].to_str().unwrap();
    let file = Reply::of(alice.http.head(location)).await;
    assert_eq!((file.status, &file.headers[header::CONTENT_LENGTH]), (StatusCode::OK, &"8".parse().unwrap()));
    assert!(Reply::of(alice.http.get(location)).await.status.is_client_error());

    let page = upload(&alice, "a.html", b"<p>").await;
    let problem = alice.get(&path(&page, "?disposition=inline")).await.expect_problem(422, "invalid_request");
    assert_eq!(problem["errors"][0]["field"], "disposition");
    app.end().await;
}

async fn recorded(backend: Backend) {
    let app = start(&backend, "[\"redirect\", \"url\"]").await;
    let (alice, bob) = (app.user("alice"), app.user("bob").at("127.0.0.11"));
    let upload = upload(&alice, "a.txt", b"12345").await;
    bob.get(&path(&upload, "")).await.expect_status(StatusCode::FOUND);
    bob.get(&path(&upload, "?delivery=url&expires_in=5")).await.expect_status(StatusCode::OK);
    Reply::of(bob.request(Method::HEAD, &path(&upload, ""))).await.expect_status(StatusCode::FOUND);
    bob.get(&path(&upload, "?delivery=post")).await.expect_problem(422, "invalid_request");
    let rows = "SELECT subject, delivery, client_network, round(extract(epoch FROM expires_at - created_at)) \
                FROM download_intents ORDER BY id";
    let expected = ["bob|redirect|127.0.0.11/32|60", "bob|url|127.0.0.11/32|5", "bob|redirect|127.0.0.11/32|60"];
    let found = app.database.psql(rows);
    let found: Vec<&str> = found.lines().collect();
    assert_eq!(found.len(), expected.len(), "{found:?}");
    for (found, expected) in found.iter().zip(expected) {
        let (facts, life) = found.rsplit_once('|').unwrap();
        let (expected_facts, expected_life) = expected.rsplit_once('|').unwrap();
        assert_eq!(facts, expected_facts);
        // The end is cut to a whole second.
        let difference = life.parse::<i64>().unwrap() - expected_life.parse::<i64>().unwrap();
        assert!((-1..=0).contains(&difference), "{found}");
    }
    app.end().await;
}
