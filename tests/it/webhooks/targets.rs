//! Where webhooks do not go.

use super::{Backend, Mood, TestApp, WebhookReceiver, abort, options, section, until_attempts};

pub(super) async fn private(backend: Backend) {
    let receiver = WebhookReceiver::start(&backend.runtime).await;
    let port = receiver.address.port();
    let hosts = ["127.0.0.1", "localhost", "0x7f000001", "[::1]", "[::ffff:127.0.0.1]", "0.0.0.0", "127.0.0.1."];
    let names: Vec<String> = (0..hosts.len()).map(|index| format!("private-{index}")).collect();
    let endpoints: Vec<_> = hosts
        .iter()
        .zip(&names)
        .map(|(host, name)| (name.as_str(), format!("http://{host}:{port}/hooks"), ""))
        .collect();
    // What is allowed does not open anything beside it.
    let settings = section("", &endpoints).replace("127.0.0.0/8", "10.0.0.0/8");
    let app = TestApp::start_with(&backend, options(settings)).await;
    let alice = app.user("alice");
    abort(&alice).await;
    for name in &names {
        until_attempts(&alice, name, "failed", 1).await;
    }
    assert_eq!(receiver.received().len(), 0);
    app.end().await;

    // The same names lead there once that is allowed, so it was not for another reason that nothing came.
    let app = TestApp::start_with(&backend, options(section("", &endpoints[..3]))).await;
    // "localhost" may be ::1 as well, which is not allowed.
    let alice = app.user("alice");
    abort(&alice).await;
    for name in [&names[0], &names[2]] {
        until_attempts(&alice, name, "delivered", 1).await;
    }
    app.end().await;
}

pub(super) async fn redirects(backend: Backend) {
    let (receiver, inside) =
        (WebhookReceiver::start(&backend.runtime).await, WebhookReceiver::start(&backend.runtime).await);
    let settings = section("", &[("app", receiver.url(), "")]);
    let app = TestApp::start_with(&backend, options(settings)).await;
    let alice = app.user("alice");
    for (count, status) in [(1, 301), (2, 302), (3, 303), (4, 307), (5, 308)] {
        receiver.set(Mood::AnswerWith(status, "location", inside.url()));
        abort(&alice).await;
        until_attempts(&alice, "app", "failed", count).await;
    }
    assert_eq!(inside.received().len(), 0);
    let delivered = "presignd_webhook_attempts_total{endpoint=\"app\",outcome=\"delivered\"}";
    assert_eq!(alice.metric(delivered).await, Some(0));
    app.end().await;
}
