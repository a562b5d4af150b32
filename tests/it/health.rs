//! What operators, browsers and developers meet around the API.

use std::collections::BTreeMap;

use presignd::http::ErrorCode;
use reqwest::{Method, StatusCode};
use serde_json::json;

use crate::support::{AppOptions, Backend, Caller, Reply, Suite, TestApp, backend::BackendKind};

pub(crate) fn register(suite: &mut Suite<'_>) {
    suite.everywhere("health_and_metrics_are_for_anybody", operations);
    suite.on(&[BackendKind::Embedded], "every_metric_is_in_the_table_for_operators", documented);
    suite.everywhere("every_error_code_is_documented_where_its_type_points", documentation);
    suite.everywhere("browsers_of_allowed_origins_may_call", cors);
    suite.everywhere("every_answer_has_a_request_id", request_ids);
    suite.everywhere("wrong_paths_and_methods_are_problems", routes);
}

async fn operations(backend: Backend) {
    let app = TestApp::start(&backend).await;
    let anybody = app.anonymous();
    assert_eq!(
        anybody.get("/healthz").await.expect(StatusCode::OK),
        json!({ "status": "ok", "client_address": "127.0.0.1" })
    );
    let ready = anybody.get("/readyz/").await.expect(StatusCode::OK);
    assert_eq!(ready, json!({ "ready": true, "database": "ok", "storage": "ok", "keys": "ok" }));
    app.user("alice").upload("a.txt", b"12345", &json!({ "method": "put" })).await;
    anybody.get("/nowhere/01890a5d-ac96-774b-bcce-b302099a8057").await.expect_problem(404, "route_not_found");

    let metrics = anybody.get("/metrics").await;
    assert_eq!(metrics.status, StatusCode::OK);
    assert_eq!(metrics.headers["content-type"], "text/plain; version=0.0.4");
    let text = metrics.text();
    for line in [
        "presignd_ledger_intents_total 1",
        "presignd_ledger_groups_total 1",
        "presignd_ledger_failed_intents_total 0",
        "presignd_ledger_queued_intents 0",
        "presignd_sts_sessions 1",
        "presignd_sts_assumed_total 1",
        "presignd_sts_failed_total 0",
        "presignd_policy_reloads_total 0",
        "presignd_policy_failures_total 0",
        "presignd_http_request_duration_seconds_count{method=\"POST\",route=\"/api/v1/uploads\",status=\"201\"} 1",
        "presignd_http_request_duration_seconds_count{method=\"POST\",route=\"/api/v1/uploads/{id}/complete\",status=\"200\"} 1",
        "presignd_http_request_duration_seconds_count{method=\"GET\",route=\"none\",status=\"404\"} 1",
    ] {
        assert!(text.lines().any(|found| found == line), "{line} is not in:\n{text}");
    }
    app.end().await;
}

/// Names with their types and labels, in the table for operators.
fn documented_metrics() -> BTreeMap<&'static str, (&'static str, &'static str)> {
    let page = include_str!("../../docs/OPERATIONS.md");
    let rows = page.lines().filter_map(|line| line.strip_prefix("| `presignd_")?.split_once("` | "));
    let metrics = rows.map(|(name, rest)| {
        let mut cells = rest.split('|').map(str::trim);
        (name, (cells.next().unwrap_or_default(), cells.next().unwrap_or_default()))
    });
    metrics.collect()
}

async fn documented(backend: Backend) {
    let app = TestApp::start(&backend).await;
    app.anonymous().get("/healthz").await.expect(StatusCode::OK);
    let text = app.anonymous().get("/metrics").await.text();
    let types = text.lines().filter_map(|line| line.strip_prefix("# TYPE presignd_")?.split_once(' '));
    let mut silent = documented_metrics();
    for (name, kind) in types {
        let (documented, _) = silent.remove(name).unwrap_or_else(|| panic!("{name} is not in docs/OPERATIONS.md"));
        assert_eq!(documented, kind, "{name}");
    }
    // What has labels shows once it has counted.
    let unknown: Vec<_> = silent.iter().filter(|(_, (_, labels))| labels.is_empty()).collect();
    assert!(unknown.is_empty(), "no metric of the service: {unknown:?}");
    app.end().await;
}

async fn documentation(backend: Backend) {
    let app = TestApp::start(&backend).await;
    let contract = app.anonymous().get("/openapi.yaml").await;
    assert_eq!(contract.status, StatusCode::OK);
    assert_eq!(contract.headers["content-type"], "application/yaml");
    assert!(contract.text() == include_str!("../../openapi.yaml"), "the contract of this very source");
    let page = app.anonymous().get("/docs").await;
    assert_eq!(page.status, StatusCode::OK);
    assert_eq!(page.headers["content-type"], "text/html; charset=utf-8");
    for code in ErrorCode::ALL {
        assert!(page.text().contains(&format!("id=\"{}\"", code.as_str())), "{}", code.as_str());
    }
    let problem = app.anonymous().get("/api/v1/uploads").await.expect_problem(401, "token_missing");
    assert_eq!(problem["type"], format!("{}/docs#token_missing", app.base()));
    app.end().await;
}

async fn preflight(caller: &Caller, origin: &str, method: &str, headers: &str) -> Reply {
    let request = caller.request(Method::OPTIONS, "/api/v1/uploads").header("origin", origin);
    let request = request.header("access-control-request-method", method);
    Reply::of(request.header("access-control-request-headers", headers)).await
}

async fn cors(backend: Backend) {
    let settings = "[server]\ncors_allowed_origins = [\"https://app.example.com\"]".to_owned();
    let app = TestApp::start_with(&backend, AppOptions { settings, ..AppOptions::default() }).await;
    let browser = app.anonymous();
    let origin = "https://app.example.com";
    let allowed = preflight(&browser, origin, "POST", "authorization, content-type, idempotency-key").await;
    assert!(allowed.status.is_success(), "{allowed:?}");
    assert_eq!(allowed.headers["access-control-allow-origin"], origin);
    let methods = allowed.headers["access-control-allow-methods"].to_str().unwrap();
    assert!(["GET", "POST", "DELETE"].iter().all(|method| methods.contains(method)), "{methods}");

    for (origin, method, headers) in [
        ("https://evil.example.com", "POST", "authorization"),
        ("https://app.example.com.evil.example", "POST", "authorization"),
        ("null", "POST", "authorization"),
        (origin, "PUT", "authorization"),
        (origin, "POST", "x-evil"),
    ] {
        let refused = preflight(&browser, origin, method, headers).await;
        assert!(refused.status.is_client_error(), "{origin} {method} {headers}: {refused:?}");
    }
    // Also a refusal has to reach the page that asked, and no other.
    let from = |origin: &str| browser.request(Method::GET, "/api/v1/uploads").header("origin", origin);
    let own = Reply::of(from(origin)).await;
    own.expect_problem(401, "token_missing");
    assert_eq!(own.headers["access-control-allow-origin"], origin);
    let exposed = own.headers["access-control-expose-headers"].to_str().unwrap().to_lowercase();
    assert!(exposed.contains("x-request-id") && exposed.contains("retry-after"), "{exposed}");
    assert!(own.headers.get_all("vary").iter().any(|vary| vary.to_str().unwrap().contains("Origin")));
    let foreign = Reply::of(from("https://evil.example.com")).await;
    assert!(!foreign.headers.contains_key("access-control-allow-origin"), "{foreign:?}");
    app.end().await;

    let app = TestApp::start(&backend).await;
    let refused = preflight(&app.anonymous(), origin, "POST", "authorization").await;
    assert!(!refused.headers.contains_key("access-control-allow-origin"), "no origin is configured: {refused:?}");
    app.end().await;
}

async fn request_ids(backend: Backend) {
    let app = TestApp::start(&backend).await;
    let anybody = app.anonymous();
    let with = async |path: &str, id: &str| {
        let reply = Reply::of(anybody.request(Method::GET, path).header("x-request-id", id)).await;
        reply.headers["x-request-id"].to_str().unwrap().to_owned()
    };
    for path in ["/healthz", "/api/v1/uploads", "/nowhere"] {
        assert_eq!(with(path, "proxy-1.2_3").await, "proxy-1.2_3");
        assert_eq!(with(path, &"x".repeat(64)).await, "x".repeat(64));
        for unusable in ["", "a b", "<script>", &"x".repeat(65)] {
            let given = with(path, unusable).await;
            assert_ne!(given, unusable);
            assert!(given.len() == 32 && given.bytes().all(|b| b.is_ascii_hexdigit()), "{given}");
        }
        assert_ne!(anybody.get(path).await.headers["x-request-id"], anybody.get(path).await.headers["x-request-id"]);
    }
    app.end().await;
}

async fn routes(backend: Backend) {
    let app = TestApp::start(&backend).await;
    let alice = app.user("alice");
    for path in ["/", "/api/v1", "/api/v2/uploads", "/api/v1/uploads/x/y/z", "/docs/../metrics/x", "/API/v1/uploads"] {
        alice.get(path).await.expect_problem(404, "route_not_found");
    }
    for (method, path, allow) in [
        (Method::PUT, "/api/v1/uploads", "GET, POST"),
        (Method::PATCH, "/api/v1/uploads/01890a5d-ac96-774b-bcce-b302099a8057/", "DELETE, GET"),
        (Method::GET, "/api/v1/uploads/01890a5d-ac96-774b-bcce-b302099a8057/complete", "POST"),
        (Method::DELETE, "/api/v1/downloads", "POST"),
        (Method::POST, "/healthz", "GET, HEAD"),
    ] {
        let reply = Reply::of(alice.request(method, path)).await;
        reply.expect_problem(405, "method_not_allowed");
        assert_eq!(reply.headers["allow"], allow);
    }
    app.end().await;
}
