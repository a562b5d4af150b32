//! Policies: what clients see of them, and how a change arrives.

use std::time::{Duration, Instant};

use chrono::{DateTime, SecondsFormat, TimeDelta, Utc};
use presignd::clock::Clock;
use reqwest::StatusCode;
use serde_json::{Value, json};

use crate::support::{AppOptions, Backend, Caller, Suite, TestApp, app::POLICIES, caller::id};

pub(crate) fn register(suite: &mut Suite<'_>) {
    suite.everywhere("the_policies_in_force_are_shown", shown);
    suite.everywhere("an_edited_policy_decides_the_next_request", edited);
    suite.everywhere("a_broken_policy_file_changes_nothing", broken);
    suite.everywhere("a_planned_change_comes_at_its_time", planned);
    suite.everywhere("a_floor_of_speed_gives_large_files_longer", min_rate);
    suite.everywhere("no_floor_of_speed_outlives_the_session", min_rate_and_session);
}

const SLOW: &str = "[policy.default]\nmethods = [\"put\"]\nmax_size = \"8MiB\"\nconfirm.grace = \"1m\"\n\
                    upload.min_rate = \"1KiB/s\"\nupload.max_expires_in = \"20m\"\n";

fn instant(issued: &Value, field: &str) -> DateTime<Utc> {
    issued[field].as_str().unwrap().parse().unwrap()
}

async fn min_rate(backend: Backend) {
    let app =
        TestApp::start_with(&backend, AppOptions { policies: Some(SLOW.to_owned()), ..AppOptions::default() }).await;
    let alice = app.user("alice");
    let shown = policies(&alice).await;
    let upload = &named(&shown, "default")["upload"];
    let lives = [&upload["expires_in"], &upload["min_rate"], &upload["max_expires_in"]];
    assert_eq!(lives, [&json!(300), &json!(1024), &json!(1200)]);
    for (file_size, expires_in, seconds) in [
        (5, None, 300),
        (512 << 10, None, 512 + 60),
        // Over two hours at that speed, but for the bound.
        (8 << 20, None, 1200),
        (8 << 20, Some(100), 100),
        (8 << 20, Some(9999), 1200),
    ] {
        let body = json!({ "original_file_name": "a.bin", "file_size": file_size, "expires_in": expires_in });
        let issued = alice.post("/api/v1/uploads", &body).await.expect(StatusCode::CREATED);
        let life = instant(&issued, "expires_at") - instant(&issued, "created_at") + TimeDelta::milliseconds(999);
        assert_eq!(life.num_seconds(), seconds, "{body}");
        assert_eq!(issued["upload"]["expires_at"], issued["expires_at"]);
        assert!(issued["upload"]["url"].as_str().unwrap().contains(&format!("X-Amz-Expires={seconds}&")), "{body}");
        let grace = instant(&issued, "confirm_until") - instant(&issued, "expires_at");
        assert_eq!(grace, TimeDelta::minutes(1), "the longer life is added to the deadline");
    }
    app.end().await;
}

async fn min_rate_and_session(backend: Backend) {
    let start = Clock::System.now();
    let settings = "[s3.sts]\nsession_duration = \"15m\"\n".to_owned();
    let options =
        AppOptions { policies: Some(SLOW.to_owned()), settings, clock: Clock::manual(start), ..AppOptions::default() };
    let app = TestApp::start_with(&backend, options).await;
    let alice = app.user("alice");
    // Twenty minutes by the policy; the session has a quarter of an hour at first, and less later.
    for (minute, least, most) in [(0, 890, 900), (6, 530, 540)] {
        let now = start + TimeDelta::minutes(minute);
        app.clock.set(now);
        let bytes = vec![0; 8 << 20];
        let issued = alice.issue("a.bin", &bytes, &json!({})).await;
        let life = (instant(&issued, "expires_at") - now).num_seconds();
        assert!((least..=most).contains(&life), "{life} s after {minute} minutes");
        assert_eq!(issued["upload"]["expires_at"], issued["expires_at"]);
    }
    app.end().await;
}

async fn policies(caller: &Caller) -> Value {
    caller.get("/api/v1/policies").await.expect(StatusCode::OK)
}

fn named<'a>(policies: &'a Value, name: &str) -> &'a Value {
    let mut all = policies["policies"].as_array().unwrap().iter();
    all.find(|policy| policy["name"] == name).unwrap_or_else(|| panic!("no {name}: {policies}"))
}

async fn shown(backend: Backend) {
    let app = TestApp::start(&backend).await;
    let policies = policies(&app.user("alice")).await;
    assert_eq!(policies["policies"].as_array().unwrap().len(), 3);
    let default = named(&policies, "default");
    assert_eq!(default["methods"], json!(["post", "put"]));
    assert_eq!(default["upload"]["expires_in"], 300);
    assert_eq!(default["download"]["expires_in"], 60);
    assert_eq!(default["max_size"], 8 << 20);
    assert_eq!(default["ip_scope"], json!({ "v4": 32, "v6": 64 }));
    assert_eq!(default["schedule"], json!([]));
    assert_eq!(named(&policies, "shared")["checksum"], "required");
    assert_eq!(named(&policies, "public")["readers"], "authenticated");

    let issued = app.user("alice").issue("a.txt", b"12345", &json!({})).await;
    assert_eq!(issued["policy_version"], policies["version"]);
    assert_eq!(issued["policy"], "default");
    app.end().await;
}

async fn edited(backend: Backend) {
    let app = TestApp::start(&backend).await;
    let alice = app.user("alice");
    let before = alice.issue("a.txt", b"12345", &json!({})).await;
    let began = Instant::now();
    let taken = app.change_policies(&POLICIES.replace("8MiB", "4B")).await;
    assert!(began.elapsed() < Duration::from_secs(1), "in force within a second, not after {:?}", began.elapsed());
    assert_eq!((taken.reloads_total, taken.failures_total), (1, 0), "{taken:?}");

    let now = policies(&alice).await;
    assert_eq!(now["version"], taken.version);
    assert_ne!(now["version"], before["policy_version"]);
    assert_eq!(named(&now, "default")["max_size"], 4);
    let body = json!({ "original_file_name": "a.txt", "file_size": 5 });
    alice.post("/api/v1/uploads", &body).await.expect_problem(422, "policy_refused");
    let after = alice.issue("b.txt", b"1234", &json!({})).await;
    assert_eq!(after["policy_version"], taken.version);

    // What was issued before keeps the version that decided about it.
    let path = format!("/api/v1/uploads/{}", id(&before));
    assert_eq!(alice.get(&path).await.expect(StatusCode::OK)["policy_version"], before["policy_version"]);

    // The version is the content's: going back gives the old one.
    let back = app.change_policies(POLICIES).await;
    assert_eq!(before["policy_version"], back.version);
    app.end().await;
}

async fn broken(backend: Backend) {
    let app = TestApp::start(&backend).await;
    let alice = app.user("alice");
    let before = policies(&alice).await;
    for (failures, text) in (1..).zip([
        "[policy.default",
        "",
        "[policy.default]\nmax_size = \"many\"",
        "[policy.default]\nmax_siez = \"8MiB\"",
        "[policy.default]\nmethods = []",
    ]) {
        let refused = app.change_policies(text).await;
        assert_eq!((refused.reloads_total, refused.failures_total), (0, failures), "{text}: {refused:?}");
        assert!(refused.last_error.is_some());
        assert_eq!(policies(&alice).await, before, "{text}");
        alice.issue("a.txt", b"12345", &json!({})).await;
    }
    let ready = app.anonymous().get("/readyz").await.expect(StatusCode::OK);
    assert_eq!(ready["ready"], true, "the last good policies serve on");
    let metrics = app.anonymous().get("/metrics").await.text();
    assert!(metrics.contains("\npresignd_policy_failures_total 5\n"), "{metrics}");

    let repaired = app.change_policies(&POLICIES.replace("8MiB", "4MiB")).await;
    assert_eq!(repaired.last_error, None);
    assert_eq!(named(&policies(&alice).await, "default")["max_size"], 4 << 20);
    app.end().await;
}

async fn planned(backend: Backend) {
    let start = Clock::System.now();
    let clock = Clock::manual(start);
    let from = start + TimeDelta::minutes(10);
    let schedule = format!(
        "[policy.default]\nmethods = [\"put\"]\n[[policy.default.schedule]]\nfrom = \"{}\"\nupload.expires_in = \"2m\"\n",
        from.to_rfc3339_opts(SecondsFormat::Millis, true)
    );
    let options = AppOptions { policies: Some(schedule), clock: clock.clone(), ..AppOptions::default() };
    let app = TestApp::start_with(&backend, options).await;
    let alice = app.user("alice");
    let life = |issued: &Value| {
        let instant = |field: &str| issued[field].as_str().unwrap().parse::<chrono::DateTime<chrono::Utc>>().unwrap();
        (instant("expires_at") - instant("created_at") + TimeDelta::milliseconds(999)).num_seconds()
    };
    let version = policies(&alice).await["version"].clone();
    for (now, expected, to_come) in [
        (start, 300, 1),
        (from - TimeDelta::milliseconds(1), 300, 1),
        (from, 120, 0),
        (from + TimeDelta::minutes(1), 120, 0),
    ] {
        clock.set(now);
        let shown = policies(&alice).await;
        let default = named(&shown, "default");
        assert_eq!(default["upload"]["expires_in"], expected, "{now}");
        assert_eq!(default["schedule"].as_array().unwrap().len(), to_come, "{now}");
        assert_eq!(shown["version"], version, "nobody edited the file");
        let issued = alice.issue("a.txt", b"12345", &json!({})).await;
        assert_eq!(life(&issued), expected, "{now}");
        assert_eq!(issued["policy_version"], version);
    }
    app.end().await;
}
