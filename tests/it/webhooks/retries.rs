//! Receivers in trouble, in simulated time.

use chrono::TimeDelta;

use super::{
    AppOptions, Backend, Mood, Received, TestApp, WebhookReceiver, abort, advance, manual, options, section, types,
    until_attempts, upload,
};

pub(super) async fn in_the_end(backend: Backend) {
    let receiver = WebhookReceiver::start(&backend.runtime).await;
    let elsewhere = WebhookReceiver::start(&backend.runtime).await;
    let clock = manual();
    let start = clock.now();
    let settings = section(
        "timeout = \"1s\"\nfirst_retry = \"5s\"\nlongest_retry = \"2m\"\nmax_attempts = 16",
        &[("app", receiver.url(), "")],
    );
    let app = TestApp::start_with(&backend, AppOptions { clock: clock.clone(), ..options(settings) }).await;
    let alice = app.user("alice");
    receiver.set(Mood::Down);
    upload(&alice).await;
    abort(&alice).await;
    let troubles = [
        Mood::Down,
        Mood::Answer(500),
        // Longer than the time limit.
        Mood::Hang,
        Mood::AnswerWith(307, "location", elsewhere.url()),
        Mood::Answer(404),
        Mood::Answer(503),
    ];
    let mut failed = 0;
    let mut longest = TimeDelta::seconds(5);
    while clock.now() - start < TimeDelta::minutes(10) {
        failed += 2;
        // Both have failed, and when they are tried again is written down.
        until_attempts(&alice, "app", "failed", failed).await;
        receiver.set(troubles[usize::try_from(failed).unwrap() / 2 % troubles.len()].clone());
        advance(&clock, longest);
        longest = (longest * 2).min(TimeDelta::minutes(2));
    }
    assert!(failed >= 16, "ten minutes hold many attempts: {failed}");
    receiver.set(Mood::Answer(200));
    failed += 2;
    until_attempts(&alice, "app", "failed", failed - 2).await;
    // Some of the last attempts may have been made before the receiver was well again.
    advance(&clock, longest);
    let taken = receiver.until_taken(2).await;
    assert_eq!(types(&taken).len(), 2);
    assert_eq!(elsewhere.received().len(), 0, "a redirect is not followed");

    // The same event each time, with a timestamp and a signature of the attempt's own.
    let all = receiver.received();
    let of_first: Vec<&Received> = all.iter().filter(|one| one.id() == taken[0].id()).collect();
    assert!(of_first.len() >= 8, "{}", of_first.len());
    assert!(of_first.iter().all(|one| one.body == taken[0].body));
    let at: Vec<i64> = of_first.iter().map(|one| one.headers["webhook-timestamp"].parse().unwrap()).collect();
    assert!(at.is_sorted() && at[at.len() - 1] - at[0] >= 500, "{at:?}");
    app.end().await;
}

pub(super) async fn retry_after(backend: Backend) {
    let receiver = WebhookReceiver::start(&backend.runtime).await;
    let clock = manual();
    let settings = section("first_retry = \"5s\"\nlongest_retry = \"1h\"", &[("app", receiver.url(), "")]);
    let app = TestApp::start_with(&backend, AppOptions { clock: clock.clone(), ..options(settings) }).await;
    let alice = app.user("alice");
    receiver.set(Mood::AnswerWith(429, "retry-after", "600".to_owned()));
    abort(&alice).await;
    until_attempts(&alice, "app", "failed", 1).await;
    // Longer than it would wait by itself, and shorter than it was asked to.
    advance(&clock, TimeDelta::seconds(590));
    receiver.set(Mood::Answer(200));
    // Another event shows that it has looked.
    abort(&alice).await;
    receiver.until_taken(1).await;
    let first = receiver.received()[0].id().to_owned();
    assert!(receiver.taken().iter().all(|one| one.id() != first), "it was asked to wait");
    advance(&clock, TimeDelta::seconds(10));
    let taken = receiver.until_taken(2).await;
    assert_eq!(taken[1].id(), first);
    app.end().await;
}
