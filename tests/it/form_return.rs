//! Forms that lead back to a page of the application, by way of the callback.

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use reqwest::{Method, StatusCode, Url};
use serde_json::{Value, json};

use crate::support::{
    AppOptions, Backend, Caller, Reply, Suite, TestApp,
    caller::{form, id},
};

const CALLBACK: &str = "/api/v1/callbacks/form";
const PAGE: &str = "https://app.example.com/done?tab=files&q=a%26b#top";

pub(crate) fn register(suite: &mut Suite<'_>) {
    suite.everywhere("a_form_leads_back_to_the_page_it_was_asked_for", leads_back);
    suite.everywhere("a_page_that_is_not_allowed_is_led_to_by_nobody", pages);
    suite.everywhere("a_form_callback_needs_the_token_of_its_upload", tokens);
    suite.everywhere("a_form_callback_tells_the_page_what_went_wrong", failures);
}

/// Unscoped, because neither real store takes a form that is signed by a session with a policy.
async fn start(backend: &Backend) -> TestApp {
    let settings = "[server]\nredirect_allowed_origins = [\"https://app.example.com\", \"http://localhost:3000\"]";
    TestApp::start_with(backend, AppOptions { settings: settings.to_owned(), ..AppOptions::unscoped() }).await
}

fn to(page: &str) -> Value {
    json!({ "method": "post", "success_action_redirect": page })
}

fn location(reply: &Reply) -> Url {
    assert_eq!(reply.status, StatusCode::SEE_OTHER, "{reply:?}");
    reply.headers["location"].to_str().unwrap().parse().expect("a URL")
}

fn parameter(url: &Url, name: &str) -> Option<String> {
    url.query_pairs().find(|(given, _)| given == name).map(|(_, value)| value.into_owned())
}

/// What a browser does with an answer that leads elsewhere.
async fn follow(caller: &Caller, reply: &Reply) -> Reply {
    Reply::of(caller.http.get(location(reply))).await
}

async fn leads_back(backend: Backend) {
    let app = start(&backend).await;
    let alice = app.user("alice");
    let issued = alice.issue("a.txt", b"bytes", &to(PAGE)).await;
    assert!(issued["upload"]["fields"].get("success_action_status").is_none(), "{issued}");

    let sent = alice.send(&issued, b"bytes").await;
    let callback = location(&sent);
    assert!(callback.as_str().starts_with(&format!("{}{CALLBACK}/", app.base())), "the store leads to the service");
    let returned = follow(&app.anonymous(), &sent).await;
    let page = location(&returned);
    assert!(page.as_str().starts_with("https://app.example.com/done?tab=files&q=a%26b&"), "{page}");
    assert_eq!(page.fragment(), Some("top"));
    assert_eq!(parameter(&page, "upload_id").as_deref(), Some(id(&issued)));
    assert_eq!(parameter(&page, "state").as_deref(), Some("confirmed"));
    let token = issued["callback"]["token"].as_str().unwrap();
    assert!(!page.as_str().contains(token.rsplit('.').next().unwrap()), "{page}");
    assert_eq!(returned.headers["referrer-policy"], "no-referrer");
    assert_eq!(returned.headers["cache-control"], "no-store");
    // The page is loaded again.
    assert_eq!(location(&follow(&app.anonymous(), &sent).await), page);
    assert_eq!(alice.download(&issued).await.bytes, b"bytes");

    // The client can change nothing about where it leads.
    let issued = alice.issue("b.txt", b"bytes", &to(PAGE)).await;
    let elsewhere = [("success_action_redirect", Some("https://evil.example/"))];
    let changed = alice.http.post(issued["upload"]["url"].as_str().unwrap());
    let changed = Reply::of(changed.multipart(form(&issued["upload"], &elsewhere, b"bytes"))).await;
    assert!(changed.status.is_client_error(), "{changed:?}");

    // A renewed form leads where its own request says, a replayed one where it did.
    let renewal = format!("/api/v1/uploads/{}/renew", id(&issued));
    let renewed = alice.post(&renewal, &json!({ "success_action_redirect": PAGE })).await.expect(StatusCode::OK);
    assert!(renewed["upload"]["fields"]["success_action_redirect"].as_str().unwrap().contains(CALLBACK));
    let plain = alice.post_nothing(&renewal).await.expect(StatusCode::OK);
    assert_eq!(plain["upload"]["fields"]["success_action_status"], "201");
    let body =
        json!({ "original_file_name": "c.txt", "file_size": 5, "method": "post", "success_action_redirect": PAGE });
    for _ in 0..2 {
        let request = alice.request(Method::POST, "/api/v1/uploads").header("idempotency-key", "k").json(&body);
        let issued = Reply::of(request).await.expect(StatusCode::CREATED);
        assert!(issued["upload"]["fields"]["success_action_redirect"].is_string(), "{issued}");
    }
    app.end().await;
}

async fn pages(backend: Backend) {
    let app = start(&backend).await;
    let alice = app.user("alice");
    let issued = alice.issue("a.txt", b"bytes", &to("http://localhost:3000")).await;
    let token = issued["callback"]["token"].as_str().unwrap();
    let long = format!("https://app.example.com/{}", "x".repeat(2048));
    // Of 1,520 bytes, and of 4,520 as it comes back.
    let long_then = format!("https://app.example.com/{}", "書".repeat(500));
    for page in [
        "",
        "/done",
        "//app.example.com/",
        "app.example.com",
        "http://app.example.com/",
        "https://app.example.com:8443/",
        "https://app.example.com.evil.example/",
        "https://evil.example/?https://app.example.com/",
        "https://app.example.com@evil.example/",
        "https://user@app.example.com/",
        "https://evil.example\\@app.example.com/",
        "https://sub.app.example.com/",
        "http://localhost/",
        "javascript:alert(1)",
        "data:text/html,x",
        "blob:https://app.example.com/1",
        &long,
        &long_then,
    ] {
        let body =
            json!({ "original_file_name": "a.txt", "file_size": 5, "method": "post", "success_action_redirect": page });
        let refused = alice.post("/api/v1/uploads", &body).await.expect_problem(422, "invalid_request");
        assert_eq!(refused["errors"][0]["field"], "success_action_redirect", "{page}");
        let renewal = format!("/api/v1/uploads/{}/renew", id(&issued));
        let refused = alice.post(&renewal, &json!({ "success_action_redirect": page })).await;
        refused.expect_problem(422, "invalid_request");
        // Nor does the callback, with a token that is good.
        let callback = format!("{CALLBACK}/{}/{token}/{}", id(&issued), URL_SAFE_NO_PAD.encode(page));
        let refused = app.anonymous().get(&callback).await;
        // Without a page there is no such path.
        let (status, code) = if page.is_empty() { (404, "route_not_found") } else { (422, "invalid_request") };
        refused.expect_problem(status, code);
        assert!(!refused.headers.contains_key("location"));
    }
    for page in [
        "https://app.example.com",
        "https://app.example.com:443/x",
        "HTTPS://APP.example.com/",
        "http://localhost:3000/x",
    ] {
        alice.issue("a.txt", b"bytes", &to(page)).await;
    }
    let put =
        json!({ "original_file_name": "a.txt", "file_size": 5, "method": "put", "success_action_redirect": PAGE });
    let refused = alice.post("/api/v1/uploads", &put).await.expect_problem(422, "invalid_request");
    assert_eq!(refused["errors"][0]["field"], "success_action_redirect");
    app.end().await;

    // Without origins in the settings there is no page to lead to.
    let app = TestApp::start_with(&backend, AppOptions::unscoped()).await;
    let body = json!({ "original_file_name": "a.txt", "file_size": 5, "success_action_redirect": PAGE });
    app.user("alice").post("/api/v1/uploads", &body).await.expect_problem(422, "invalid_request");
    app.end().await;
}

async fn tokens(backend: Backend) {
    let app = start(&backend).await;
    let alice = app.user("alice");
    let [first, second] =
        [alice.issue("a.txt", b"bytes", &to(PAGE)).await, alice.issue("b.txt", b"bytes", &to(PAGE)).await];
    let text = first["upload"]["fields"]["success_action_redirect"].as_str().unwrap();
    let token = |issued: &Value| issued["callback"]["token"].as_str().unwrap().to_owned();
    let own = token(&first);
    for changed in [
        text.replace(&own, &token(&second)),
        text.replace(&own, "garbage"),
        text.replace(&own, "..."),
        text.replace(&own, &format!("{own}A")),
        text.replace(id(&first), id(&second)),
        text.replace(id(&first), "garbage"),
    ] {
        assert_ne!(changed, text);
        let refused = Reply::of(app.anonymous().http.get(&changed)).await;
        refused.expect_problem(401, "callback_token_invalid");
        assert!(!refused.headers.contains_key("location"));
        assert_eq!(refused.headers["referrer-policy"], "no-referrer");
    }
    app.end().await;
}

async fn failures(backend: Backend) {
    let app = start(&backend).await;
    let alice = app.user("alice");
    let issued = alice.issue("a.txt", b"bytes", &to(PAGE)).await;
    let callback = issued["upload"]["fields"]["success_action_redirect"].as_str().unwrap();
    let error = async || {
        let page = location(&Reply::of(app.anonymous().http.get(callback)).await);
        assert_eq!(parameter(&page, "upload_id").as_deref(), Some(id(&issued)));
        assert_eq!(parameter(&page, "state"), None);
        parameter(&page, "error")
    };
    assert_eq!(error().await.as_deref(), Some("upload_incomplete"));
    alice.delete(&format!("/api/v1/uploads/{}", id(&issued))).await.expect(StatusCode::OK);
    assert_eq!(error().await.as_deref(), Some("invalid_state"));
    app.end().await;
}
