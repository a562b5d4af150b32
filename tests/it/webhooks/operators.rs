//! What operators see of webhooks, and do about them.

use std::process::Command;

use serde_json::Value;

use super::{Backend, Clock, Ground, Mood, PATIENCE, WebhookReceiver, abort, eventually, id, section, until_attempts};

/// Runs `presignd webhooks …` on these settings; gives exit code, standard output and standard error.
fn webhooks(ground: &Ground, settings: &str, arguments: &[&str]) -> (Option<i32>, String, String) {
    let config = ground.folder.path().join("operator.toml");
    std::fs::write(&config, ground.settings(settings).to_string()).expect("the configuration is written");
    // With an empty environment, because variables win over the file.
    let mut command = Command::new("env");
    command.args(["-i", env!("CARGO_BIN_EXE_presignd"), "webhooks"]).args(arguments).arg("--config").arg(&config);
    let output = command.output().expect("presignd runs");
    let text = |bytes| String::from_utf8(bytes).expect("UTF-8");
    (output.status.code(), text(output.stdout), text(output.stderr))
}

fn list(ground: &Ground, settings: &str, arguments: &[&str]) -> Vec<Value> {
    let (code, stdout, stderr) = webhooks(ground, settings, &[&["list", "--json"], arguments].concat());
    assert_eq!(code, Some(0), "{stderr}");
    stdout.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
}

pub(super) async fn given_up(backend: Backend) {
    let ground = Ground::new(&backend).await;
    let (app, other) = (WebhookReceiver::start(&backend.runtime).await, WebhookReceiver::start(&backend.runtime).await);
    // Polled so seldom that only a notification can wake it in time.
    let settings = section(
        "max_attempts = 2\nfirst_retry = \"1s\"\nlongest_retry = \"1s\"",
        &[("app", app.url(), ""), ("other", other.url(), "")],
    );
    let seldom = settings.replace("\"100ms\"", "\"5m\"");
    let (running, alice) = ground.start(&seldom, &Clock::System).await;
    app.set(Mood::Answer(410));
    other.set(Mood::Answer(500));
    let told = abort(&alice).await;
    until_attempts(&alice, "app", "dead", 1).await;
    until_attempts(&alice, "other", "dead", 1).await;
    assert_eq!((app.received().len(), other.received().len()), (1, 2), "gone is gone at once");

    let dead = list(&ground, &settings, &["--state", "dead"]);
    let event_id = app.received()[0].id().to_owned();
    assert_eq!(dead.len(), 2, "{dead:?}");
    for (one, endpoint, attempts, status) in [(&dead[0], "app", 1, 410), (&dead[1], "other", 2, 500)] {
        assert_eq!(one["event_id"], event_id.as_str());
        assert_eq!(one["endpoint"], endpoint);
        assert_eq!(one["endpoint_configured"], true);
        assert_eq!(one["event_type"], "upload.aborted");
        assert_eq!(one["upload_id"], id(&told));
        assert_eq!((&one["attempts"], &one["last_status"]), (&attempts.into(), &status.into()));
    }
    assert_eq!(list(&ground, &settings, &["--state", "pending"]), [Value::Null; 0]);
    assert_eq!(list(&ground, &settings, &["--endpoint", "app"]).len(), 1);
    assert_eq!(list(&ground, &settings, &["--limit", "1"]).len(), 1);
    let (_, text, _) = webhooks(&ground, &settings, &["list"]);
    assert!(text.contains("last: status 410") && text.contains(&event_id), "{text}");

    app.set(Mood::Answer(200));
    let (code, stdout, stderr) = webhooks(&ground, &settings, &["retry", &event_id, "--endpoint", "app"]);
    assert_eq!((code, stdout.trim()), (Some(0), "1 to be sent again"), "{stderr}");
    assert_eq!(app.until_taken(1).await[0].id(), event_id);
    until_attempts(&alice, "app", "delivered", 1).await;
    let (code, _, stderr) = webhooks(&ground, &settings, &["retry", &event_id, "--endpoint", "app"]);
    assert!(code == Some(1) && stderr.contains("was given up"), "{stderr}");
    assert_eq!(other.received().len(), 2, "the other endpoint is not concerned");

    // Not well yet: it has all its attempts before it again, and their records go on.
    let (code, stdout, _) = webhooks(&ground, &settings, &["retry", "--all-dead"]);
    assert_eq!((code, stdout.trim()), (Some(0), "1 to be sent again"));
    until_attempts(&alice, "other", "dead", 2).await;
    other.set(Mood::Answer(200));
    assert_eq!(webhooks(&ground, &settings, &["retry", "--all-dead"]).0, Some(0));
    other.until_taken(1).await;
    until_attempts(&alice, "other", "delivered", 1).await;
    let attempts = "SELECT string_agg(attempt || ':' || status, ' ' ORDER BY attempt) FROM webhook_attempts \
                    WHERE endpoint = 'other'";
    assert_eq!(ground.database.psql(attempts).trim(), "1:500 2:500 3:500 4:500 5:200");
    assert_eq!(webhooks(&ground, &settings, &["retry", "--all-dead"]).1.trim(), "0 to be sent again");
    running.stop().await;
    ground.end().await;
}

pub(super) async fn gone(backend: Backend) {
    let ground = Ground::new(&backend).await;
    let (app, gone) = (WebhookReceiver::start(&backend.runtime).await, WebhookReceiver::start(&backend.runtime).await);
    let allowed = section("", &[("app", app.url(), ""), ("gone", gone.url(), "")]);
    let refused = allowed.replace("127.0.0.0/8", "10.0.0.0/8");
    let (running, alice) = ground.start(&refused, &Clock::System).await;
    abort(&alice).await;
    until_attempts(&alice, "gone", "failed", 1).await;
    let [one] = &list(&ground, &refused, &["--endpoint", "gone"])[..] else { panic!("one delivery") };
    let why = one["last_error"].as_str().unwrap();
    assert_eq!(why, "not sent: 127.0.0.1 is not an address of the internet, and not in webhooks.allowed_networks");
    running.stop().await;

    let without = section("", &[("app", app.url(), "")]);
    let (running, alice) = ground.start(&without, &Clock::System).await;
    app.until_taken(1).await;
    let waiting = async || alice.metric("presignd_webhook_pending_deliveries{endpoint=\"(not configured)\"}").await;
    eventually(PATIENCE, async || (waiting().await? == 1).then_some(())).await;
    let [one] = &list(&ground, &without, &["--state", "pending"])[..] else { panic!("one delivery") };
    assert_eq!((&one["endpoint"], &one["endpoint_configured"]), (&"gone".into(), &false.into()));
    assert!(webhooks(&ground, &without, &["list"]).1.contains("gone (not configured)"));
    running.stop().await;

    let (running, _) = ground.start(&allowed, &Clock::System).await;
    gone.until_taken(1).await;
    running.stop().await;
    ground.end().await;
}
