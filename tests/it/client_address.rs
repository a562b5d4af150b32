//! Which network a URL is scoped to.

use chrono::{DateTime, TimeDelta, Utc};
use presignd::clock::Clock;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use crate::support::{AppOptions, Backend, Caller, Reply, Suite, TestApp};

pub(crate) fn register(suite: &mut Suite<'_>) {
    suite.everywhere("a_peer_that_is_no_proxy_is_the_client", direct);
    suite.everywhere("a_network_shares_a_session_until_it_is_too_short", shared);
    suite.everywhere("the_hop_before_the_trusted_proxy_is_the_client", x_forwarded_for);
    suite.everywhere("forwarded_is_read_when_it_is_configured", forwarded);
}

async fn issue(caller: &Caller, headers: &[(&str, &str)]) -> Reply {
    let body = json!({ "original_file_name": "a.txt", "file_size": 5 });
    let request = caller.request(Method::POST, "/api/v1/uploads").json(&body);
    Reply::of(headers.iter().fold(request, |request, (name, value)| request.header(*name, *value))).await
}

async fn network(caller: &Caller, headers: &[(&str, &str)]) -> Value {
    issue(caller, headers).await.expect(StatusCode::CREATED)["client_network"].clone()
}

async fn direct(backend: Backend) {
    let app = TestApp::start(&backend).await;
    let alice = app.user("alice").at("127.0.0.11");
    for headers in [
        &[][..],
        &[("x-forwarded-for", "198.51.100.9")],
        &[("x-forwarded-for", "garbage")],
        &[("forwarded", "for=198.51.100.9"), ("x-real-ip", "198.51.100.9"), ("x-forwarded-for", "127.0.0.1")],
    ] {
        assert_eq!(network(&alice, headers).await, "127.0.0.11/32", "{headers:?}");
    }
    app.end().await;
}

/// A session, which lasts an hour here, is shared until it is too short for the longest URL of the policies.
async fn shared(backend: Backend) {
    let minutes = TimeDelta::minutes;
    let too_short = minutes(55) - TimeDelta::seconds(30);
    let within = [(minutes(0), 1, 5), (minutes(30), 1, 5), (too_short - TimeDelta::seconds(5), 1, 5)];
    let after = [(too_short + TimeDelta::seconds(5), 2, 5), (minutes(55), 2, 5)];
    issue_over_time(&backend, "5m", &[&within[..], &after].concat()).await;
    // One of fifty minutes is shared for half of its life, and its URLs say that they end with it.
    // The second ends as the first does, because the store's clock is not the one that is turned here.
    let halves = [(minutes(0), 1, 50), (minutes(20), 1, 40), (minutes(29), 1, 31), (minutes(30), 2, 30)];
    issue_over_time(&backend, "50m", &halves).await;
}

/// Issues at each of these times after the start, and compares how many sessions there have been so far, and for how
/// many minutes the URL is good.
async fn issue_over_time(backend: &Backend, expires_in: &str, times: &[(TimeDelta, u64, i64)]) {
    let start = Clock::System.now();
    let policies = format!("[policy.default]\nupload.expires_in = \"{expires_in}\"\ndownload.expires_in = \"1m\"");
    let options = AppOptions { policies: Some(policies), clock: Clock::manual(start), ..AppOptions::default() };
    let app = TestApp::start_with(backend, options).await;
    for (after, sessions, minutes) in times {
        app.clock.set(start + *after);
        let issued = issue(&app.user("alice"), &[]).await.expect(StatusCode::CREATED);
        let expires_at: DateTime<Utc> = issued["upload"]["expires_at"].as_str().unwrap().parse().unwrap();
        // Instants in answers have no fractions, and the store's clock has gone on since the start.
        let missing = start + *after + TimeDelta::minutes(*minutes) - expires_at;
        assert!((-30..=2).contains(&missing.num_seconds()), "{missing} of {minutes} min, after {after}");
        assert_eq!(app.running.service.sessions.status().await.assumed, *sessions, "after {after}");
    }
    app.end().await;
}

async fn x_forwarded_for(backend: Backend) {
    let settings = "[server]\ntrusted_proxies = [\"127.0.0.1/32\", \"10.0.0.0/8\"]".to_owned();
    let app = TestApp::start_with(&backend, AppOptions { settings, ..AppOptions::default() }).await;
    let proxy = app.user("alice");
    let name = "x-forwarded-for";
    for (headers, expected) in [
        (&[(name, "198.51.100.9")][..], "198.51.100.9/32"),
        (&[(name, "198.51.100.9:4711")], "198.51.100.9/32"),
        (&[(name, "::ffff:198.51.100.9")], "198.51.100.9/32"),
        (&[(name, "2001:db8:1:2:3:4:5:6")], "2001:db8:1:2::/64"),
        // What the client itself claims stands to the left of what the proxy saw.
        (&[(name, "203.0.113.66, 198.51.100.9")], "198.51.100.9/32"),
        (&[(name, "203.0.113.66"), (name, "198.51.100.9")], "198.51.100.9/32"),
        (&[(name, "garbage, 198.51.100.9")], "198.51.100.9/32"),
        (&[(name, "203.0.113.66, 198.51.100.9, 10.1.2.3")], "198.51.100.9/32"),
        (&[(name, "10.1.2.3")], "10.1.2.3/32"),
        (&[], "127.0.0.1/32"),
        (&[("forwarded", "for=203.0.113.66"), (name, "198.51.100.9")], "198.51.100.9/32"),
    ] {
        assert_eq!(network(&proxy, headers).await, expected, "{headers:?}");
    }
    let recorded = proxy.get("/api/v1/uploads").await.expect(StatusCode::OK)["uploads"].as_array().unwrap().len();
    for value in ["garbage", "", "198.51.100.9, unknown", "198.51.100.9,", "198.51.100.9, 10.1.2.3.4", "1.2.3.4/32"] {
        issue(&proxy, &[(name, value)]).await.expect_problem(400, "client_address_unknown");
    }
    let list = proxy.get("/api/v1/uploads").await.expect(StatusCode::OK);
    assert_eq!(list["uploads"].as_array().unwrap().len(), recorded, "nothing refused is recorded");
    // Whoever reaches the service past the proxy is the client.
    assert_eq!(network(&proxy.at("127.0.0.11"), &[(name, "198.51.100.9")]).await, "127.0.0.11/32");
    app.end().await;
}

async fn forwarded(backend: Backend) {
    let settings = "[server]\ntrusted_proxies = [\"127.0.0.1/32\"]\nforwarded_header = \"forwarded\"".to_owned();
    let app = TestApp::start_with(&backend, AppOptions { settings, ..AppOptions::default() }).await;
    let proxy = app.user("alice");
    for (value, expected) in [
        ("for=198.51.100.9", "198.51.100.9/32"),
        ("For=\"198.51.100.9:4711\";proto=https", "198.51.100.9/32"),
        ("for=203.0.113.66, for=\"[2001:db8:1:2::3]:4711\"", "2001:db8:1:2::/64"),
    ] {
        assert_eq!(network(&proxy, &[("forwarded", value)]).await, expected, "{value}");
    }
    for value in ["for=unknown", "for=_hidden", "proto=https", "198.51.100.9"] {
        issue(&proxy, &[("forwarded", value)]).await.expect_problem(400, "client_address_unknown");
    }
    assert_eq!(network(&proxy, &[("x-forwarded-for", "203.0.113.66")]).await, "127.0.0.1/32", "the other header");
    app.end().await;
}
